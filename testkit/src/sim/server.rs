//! The servers and their drivers: they dial, read, write, and tell what their fleets say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use push::fleet::{
    DeviceSlot, DeviceTables, DeviceTrace, Event as FleetEvent, Input, NewDevice, OrderSlot, TrackSlot,
};
use push::{DeviceIndex, DialError, Fleet, FleetConfig, Mark};
use wire_format::frame::outcome::Code;
use wire_format::ids::{Lineage, NodeId};
use wire_format::time::Instant;

use super::check::is_outdone;
use super::device::{device_id, store, use_bytes};
use super::durable::Durable;
use super::ledger::Wish;
use super::marks::Expected;
use super::names::Probe;
use super::network::{Link, LinkId};
use super::plan::{MS, SECOND};
use super::questions::Heard;
use super::restart::log_id;
use super::world::{Act, World};
use crate::history::{Event, OrderId};

/// Live orders a server has room for.
pub(super) const ORDERS: usize = 256;
/// Places for devices that are listed again.
pub(super) const SPARE: usize = 64;
/// Turns of one drain beyond which a driver spins.
const TURNS_MAX: usize = 100_000;

type Slots = DeviceTables<Box<[DeviceSlot]>, Box<[TrackSlot]>>;
pub(super) type TheFleet = Fleet<Slots, Box<[OrderSlot<Vec<u8>, Vec<u8>>]>, Vec<u8>, Vec<u8>>;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) at: usize,
    /// `None` while it is down.
    pub(super) fleet: Option<TheFleet>,
    /// How often it started.
    pub(super) boot: u64,
    /// Its volatile log: what it is called on the wire and in the history.
    pub(super) lineage: Lineage,
    pub(super) log: u64,
    /// The fence it has written down, and whether it has taken the store over.
    pub(super) fence: u64,
    pub(super) took_over: bool,
    /// Until when it stands still.
    pub(super) paused_until: Instant,
    /// It has said that it leaves.
    pub(super) draining: bool,
    /// It dies after so many further steps, by a power cut or not, and comes back after that.
    pub(super) die_in: Option<(u32, bool, Duration)>,
    /// Per place in the fleet: the dial under way, the link, and whose place it is.
    pub(super) dials: Vec<Option<u64>>,
    pub(super) linked: Vec<Option<LinkId>>,
    pub(super) device_of: Vec<usize>,
    /// Per device: its place, while it is listed.
    pub(super) index: Vec<Option<DeviceIndex>>,
    /// Places of devices that were taken out of the list: theirs until that is written down.
    pub(super) leaving: BTreeSet<u32>,
    /// By index, the device's number in the outbox; by that, how far it got before this start.
    pub(super) numbers: BTreeMap<u32, u32>,
    pub(super) traces: BTreeMap<u32, DeviceTrace>,
    /// The next place for a device that is gone and still owed something.
    pub(super) gone_at: u32,
    pub(super) durable: Durable,
    pub(super) next_number: u64,
    pub(super) armed: Instant,
    /// What the application remembers of the live orders.
    pub(super) wishes: BTreeMap<u64, Wish>,
    /// Orders of which a further attempt waits for its time, and the place of whom it is for.
    pub(super) to_try: BTreeSet<(u64, u32)>,
    /// Attempts that this side ended because others follow, until the fleet tells of it.
    pub(super) given: BTreeSet<(u64, u32)>,
    /// Orders of which an outcome was told just now.
    pub(super) told: Vec<u64>,
    /// By order and place in the fleet: the mark that what was told so far asks for.
    pub(super) expected: BTreeMap<u64, Expected>,
    /// Orders taken back that may still win or lose.
    pub(super) taken_back: Vec<u64>,
}

impl Server {
    pub(super) fn new(at: usize, devices: usize) -> Self {
        let places = devices + SPARE;
        Self {
            at,
            fleet: None,
            boot: 0,
            lineage: Lineage([0; 16]),
            log: 0,
            fence: 1,
            took_over: false,
            paused_until: Instant::ZERO,
            draining: false,
            die_in: None,
            dials: vec![None; places],
            linked: vec![None; places],
            index: vec![None; devices],
            device_of: Vec::new(),
            leaving: BTreeSet::new(),
            numbers: BTreeMap::new(),
            traces: BTreeMap::new(),
            gone_at: 0,
            durable: Durable::new(at as u64 + 1),
            next_number: 1,
            armed: Instant::NEVER,
            wishes: BTreeMap::new(),
            to_try: BTreeSet::new(),
            given: BTreeSet::new(),
            told: Vec::new(),
            expected: BTreeMap::new(),
            taken_back: Vec::new(),
        }
    }

    pub(super) fn order(&self, number: u64) -> OrderId {
        let durable = self.wishes.get(&number).is_some_and(|wish| wish.durable);
        OrderId { log: if durable { self.durable.log } else { self.log }, number }
    }

    /// The marks of an order for the devices at these places.
    pub(super) fn marks(&self, places: &[DeviceIndex]) -> Vec<u8> {
        let mut marks = vec![Mark::NOT_TARGETED.0; self.device_of.len()];
        for index in places {
            marks[index.0 as usize] = Mark::PENDING.0;
        }
        marks
    }

    /// Whether this is the connection to the device at this place.
    pub(super) fn is_linked(&self, index: DeviceIndex, link: LinkId) -> bool {
        self.linked[index.0 as usize] == Some(link)
    }

    /// This index is this device, by this number in the outbox.
    pub(super) fn place(&mut self, index: DeviceIndex, device: usize, number: u32) {
        self.index[device] = Some(index);
        self.place_gone(index, device, number);
    }

    /// The place of the device that has this number in the outbox.
    pub(super) fn index_of(&self, number: u32) -> Option<DeviceIndex> {
        self.numbers.iter().find(|(_, of)| **of == number).map(|(index, _)| DeviceIndex(*index))
    }

    /// The same of a device that is not there any more.
    pub(super) fn place_gone(&mut self, index: DeviceIndex, device: usize, number: u32) {
        self.device_of.resize(self.device_of.len().max(index.0 as usize + 1), usize::MAX);
        self.device_of[index.0 as usize] = device;
        self.expected.clear();
        self.numbers.insert(index.0, number);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.durable.is_idle()
            && self.fleet.as_ref().is_none_or(|fleet| fleet.live_orders() == 0)
            && (self.boot == 0 || self.fleet.is_some())
    }

    pub(super) fn state(&self) -> String {
        let Some(fleet) = &self.fleet else { return format!("server {} is down", self.at) };
        let marks = self.wishes.keys().filter_map(|number| {
            let (_, marks) = fleet.marks(*number)?;
            Some((number, marks.iter().copied().map(Mark).collect::<Vec<_>>()))
        });
        let marks: Vec<_> = marks.collect();
        let open: Vec<_> = self.index.iter().flatten().map(|index| fleet.is_open(*index)).collect();
        format!("server {}: {} live orders {marks:?}, open {open:?}", self.at, fleet.live_orders())
    }
}

pub(super) const fn server_id(at: usize) -> NodeId {
    NodeId([0x50 + at as u8; 16])
}

pub(super) fn address(slot: usize) -> SocketAddr {
    let [low, high, ..] = (slot as u32).to_le_bytes();
    SocketAddr::from(([127, 1 + high, low, 1], 8_081))
}

const fn slot_of(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { return usize::MAX };
    let [_, high, low, _] = address.ip().octets();
    (high as usize - 1) * 256 + low as usize
}

impl World {
    /// A server starts: its fleet is a new one, and so is its volatile log. The durable one goes on.
    pub(super) fn start_server(&mut self, at: usize) {
        if self.servers[at].fleet.is_some() {
            return;
        }
        let (seed, run, capacity) = (self.rng.next_u64(), self.rng.next_u64(), self.capacity());
        let restored = if self.plan.durable { self.open_outbox(at, seed) } else { None };
        if self.plan.durable && restored.is_none() {
            return;
        }
        let log = self.ledger.next_log();
        let server = &mut self.servers[at];
        server.boot += 1;
        let mut lineage = [at as u8 + 1; 16];
        lineage[8..].copy_from_slice(&log.to_le_bytes());
        (server.lineage, server.log) = (Lineage(lineage), log);
        if let Some(restored) = &restored {
            server.fence = restored.fence.max(1);
        }
        let mut config = FleetConfig::new(server_id(at), store(), server.lineage);
        (config.fence, config.takeover) = (server.fence, server.took_over);
        (config.epoch, config.run, config.answers_questions) = (server.boot as u32, run, self.plan.questions);
        config.durable = restored.as_ref().map(|it| log_id(it.lineage, it.run, &it.runs));
        let fence = server.fence;
        let logs = if config.durable.is_some() { 2 * capacity } else { capacity };
        let slots = DeviceTables {
            slots: vec![DeviceSlot::EMPTY; capacity].into(),
            logs: vec![TrackSlot::EMPTY; logs].into(),
        };
        let orders = (0..ORDERS).map(|_| OrderSlot::EMPTY).collect();
        server.fleet = Some(Fleet::new(config, slots, orders, self.now, seed));
        (server.paused_until, server.armed) = (self.now, Instant::NEVER);
        (server.next_number, server.gone_at) = (1 + seed % 5, capacity as u32);
        self.ledger.record(self.now, Event::Log { log, fence });
        self.note(format_args!("server {at} starts: log {log}, fence {fence}"));
        if let Some(restored) = restored {
            self.restore(at, restored);
        }
        self.list_devices(at);
        self.serve_server(at);
        self.keep_the_lead();
    }

    /// A server that died while it wrote down that it takes over may have a fence that nobody was told of. The operator sees to
    /// it that who leads meanwhile goes on to do so.
    fn keep_the_lead(&mut self) {
        let highest = self.servers.iter().map(|server| server.fence).max();
        if highest > Some(self.servers[self.active].fence) {
            self.later(SECOND, Act::Raise { server: self.active });
        }
    }

    /// Whether the device has a place now: not if it has still one of before.
    pub(super) fn add_device(&mut self, at: usize, device: usize) -> bool {
        let listed = self.plan.devices[device].listed;
        let (now, slot) = (self.now, self.devices[device].slot);
        let server = &mut self.servers[at];
        let Some(fleet) = &mut server.fleet else { return true };
        let id = listed.then(|| device_id(device));
        let Ok(index) = fleet.add_device(now, NewDevice { id, address: Some(address(slot)) }) else {
            return false;
        };
        if self.servers[at].linked[index.0 as usize].is_some() {
            self.ledger.fail(now, "PlaceInUse", Some(device), &[], index.0);
        }
        let number = if self.plan.durable { self.number_device(at, device) } else { index.0 };
        self.servers[at].place(index, device, number);
        true
    }

    /// One step of the server's own is done: it may have been its last.
    pub(super) fn server_dies(&mut self, at: usize) -> bool {
        let server = &mut self.servers[at];
        match &mut server.die_in {
            Some((0, power, away)) => {
                let (power, away) = (*power, *away);
                server.die_in = None;
                self.note(format_args!("server {at} dies in the middle of it"));
                self.crash_server(at, power, away);
                true
            }
            Some((left, ..)) => {
                *left -= 1;
                false
            }
            None => server.fleet.is_none(),
        }
    }

    /// Does something to a fleet that is up, then drains it. The input finds devices by the world's numbers.
    pub(super) fn with_server(
        &mut self,
        at: usize,
        input: impl FnOnce(&mut TheFleet, &dyn Fn(usize) -> Option<DeviceIndex>),
    ) {
        let server = &mut self.servers[at];
        let index = &server.index;
        if let Some(fleet) = &mut server.fleet {
            input(fleet, &|device| index[device]);
            self.serve_server(at);
        }
    }

    pub(super) fn server_timer(&mut self, at: usize) {
        let now = self.now;
        if self.servers[at].paused_until > now {
            return self.arm_server_at(at, self.servers[at].paused_until);
        }
        if self.servers[at].armed > now {
            return;
        }
        self.servers[at].armed = Instant::NEVER;
        let due = self.servers[at].fleet.as_ref().and_then(Fleet::poll_timeout);
        if due.is_some_and(|due| due <= now) {
            self.with_server(at, |fleet, _| fleet.handle_timeout(now));
        } else {
            self.arm_server(at);
        }
    }

    fn arm_server(&mut self, at: usize) {
        let now = self.now;
        let server = &mut self.servers[at];
        let Some(due) = server.fleet.as_ref().and_then(Fleet::poll_timeout) else { return };
        let due = due.max(now);
        if due < server.armed {
            server.armed = due;
            self.arm_server_at(at, due);
        }
    }

    /// Everything the fleet wants, until it wants nothing.
    pub(super) fn serve_server(&mut self, at: usize) {
        if self.has_to_do(at) {
            self.empty_server(at);
        }
        self.kick_writer(at);
        self.arm_server(at);
    }

    fn empty_server(&mut self, at: usize) {
        let mut scratch = core::mem::take(&mut self.scratch);
        let len = 1_024 + self.rng.below(8_000) as usize;
        let mut turns = 0;
        while self.has_to_do(at) && !self.server_dies(at) {
            self.tell_events(at);
            self.write_fleet(at, &mut scratch[..len]);
            self.close_and_dial(at);
            turns += 1;
            if turns > TURNS_MAX {
                self.ledger.fail(self.now, "BusyLoop", None, &[], "a drain without end");
                break;
            }
        }
        self.scratch = scratch;
    }

    fn has_to_do(&self, at: usize) -> bool {
        let server = &self.servers[at];
        server.fleet.as_ref().is_some_and(|fleet| !fleet.is_idle(self.now)) || !server.told.is_empty()
    }

    fn close_and_dial(&mut self, at: usize) {
        while let Some((index, why)) = self.servers[at].fleet.as_mut().and_then(TheFleet::poll_close) {
            let device = self.servers[at].device_of[index.0 as usize];
            self.note_of(device, format_args!("server {at} closes device {device}: {why}"));
            self.check_server_end(at, index, why);
            let server = &mut self.servers[at];
            server.dials[index.0 as usize] = None;
            if let Some(link) = server.linked[index.0 as usize].take() {
                self.close_end(link, true, false);
            }
        }
        let now = self.now;
        while let Some(dial) = self.servers[at].fleet.as_mut().and_then(|fleet| fleet.poll_dial(now)) {
            self.dial(at, dial.device, slot_of(dial.address));
        }
    }

    fn write_fleet(&mut self, at: usize, scratch: &mut [u8]) {
        let now = self.now;
        while let Some(transmit) =
            self.servers[at].fleet.as_mut().and_then(|fleet| fleet.poll_transmit(now, scratch))
        {
            let index = transmit.device;
            let mut bytes = core::mem::take(&mut self.outgoing);
            bytes.clear();
            bytes.extend_from_slice(transmit.head);
            bytes.extend_from_slice(transmit.body);
            let device = self.servers[at].device_of[index.0 as usize];
            let Some(link) = self.servers[at].linked[index.0 as usize] else {
                self.ledger.fail(
                    now,
                    "WritesToNobody",
                    Some(device),
                    &[],
                    "the server writes without a connection",
                );
                return;
            };
            let written = self.write(link, true, &bytes);
            if written < bytes.len() {
                self.probe(Probe::CutWrite);
            }
            if let Some(fleet) = &mut self.servers[at].fleet {
                fleet.handle_written(now, index, written);
            }
            self.outgoing = bytes;
            if self.server_dies(at) {
                return;
            }
        }
    }

    fn dial(&mut self, at: usize, index: DeviceIndex, slot: usize) {
        self.check_wait(at, index);
        let dial = self.serial();
        let server = &mut self.servers[at];
        server.dials[index.0 as usize] = Some(dial);
        // Whoever is found there.
        let there = self.slots.get(slot).copied().unwrap_or(server.device_of[index.0 as usize]);
        let it = &self.devices[there];
        let blocked = it.blocked.iter().any(|until| *until > self.now);
        let fails = it.receiver.is_none() || self.now < it.dials_fail_until;
        let errors = [DialError::Refused, DialError::TimedOut, DialError::Unreachable];
        let error = match (blocked, fails) {
            (true, _) => Some(DialError::TimedOut),
            (_, true) => Some(errors[self.rng.below(3) as usize]),
            _ => None,
        };
        let after = if error == Some(DialError::TimedOut) { MS * 1_500 } else { self.some_delay() };
        let boot = self.servers[at].boot;
        self.later(after, Act::Dialled { server: at, boot, index, there, dial, error });
    }

    pub(super) fn dialled(
        &mut self,
        at: usize,
        boot: u64,
        (index, there): (DeviceIndex, usize),
        dial: u64,
        error: Option<DialError>,
    ) {
        let server = &mut self.servers[at];
        let place = index.0 as usize;
        if server.boot != boot || server.fleet.is_none() || server.dials[place] != Some(dial) {
            return;
        }
        server.dials[place] = None;
        let device = server.device_of[place];
        let now = self.now;
        if let Some(error) = error {
            self.note_failed_dial(at, index);
            return self.with_server(at, |fleet, _| fleet.handle_dial_failed(now, index, error));
        }
        let quiet = self.plan.chunk > 65_536;
        let capacity = if quiet { 100_000 } else { [40, 500, 4_000, 100_000][self.rng.below(4) as usize] };
        let (logs, fence) = ([server.log, server.durable.log], server.fence);
        let link = Link { boot, logs, fence, ..Link::new(at, there, index, capacity, self.plan.chunk) };
        let link = self.links.insert(link);
        self.servers[at].linked[place] = Some(link);
        self.note_of(
            device,
            format_args!("server {at} reaches device {there} for {device}, {capacity} bytes"),
        );
        let after = self.some_delay();
        self.later(after, Act::Accept { link });
        self.with_server(at, |fleet, _| fleet.handle_connected(now, index));
    }

    pub(super) fn read_server(&mut self, id: LinkId) {
        loop {
            let Some(it) = self.links.at(id) else { return };
            let (at, index, chunk) = (it.server, it.index, it.chunk);
            if !it.server_open || it.stalled[1] > self.now || !self.servers[at].is_linked(index, id) {
                return;
            }
            let most = if chunk > 65_536 { chunk } else { 1 + self.rng.below(chunk) };
            if !it.up.read(most as usize) {
                if it.up.is_over() {
                    self.server_end_is_over(id);
                }
                return;
            }
            self.give_room(id, false);
            if !self.hear(id, at, index) {
                return;
            }
            self.serve_server(at);
            if self.links.at(id).is_none_or(|it| it.up.is_quiet()) {
                return;
            }
        }
    }

    /// Offers the fleet what was read and not used. Whether the server lives on.
    fn hear(&mut self, id: LinkId, at: usize, index: DeviceIndex) -> bool {
        let now = self.now;
        while let (Some(it), Some(fleet)) = (self.links.at(id), &mut self.servers[at].fleet) {
            let unread = &mut it.up.unread;
            let mut beside = None;
            let heard = fleet.handle_bytes(now, index, unread).map(|input: Input<'_>| {
                beside = input.item.and_then(Heard::of);
                input.consumed
            });
            let nothing_left = match heard {
                Ok(0) if unread.is_empty() => true,
                Ok(0) => !self.tell_events(at),
                Ok(used) => use_bytes(unread, used),
                Err(why) => {
                    unread.clear();
                    self.check_heard(at, index, why);
                    return true;
                }
            };
            if let Some(beside) = beside {
                self.take_heard(at, index, beside);
            }
            if self.server_dies(at) {
                return false;
            }
            if nothing_left {
                return true;
            }
        }
        true
    }

    /// What the fleet tells, until it has nothing more. Whether there was anything.
    pub(super) fn tell_events(&mut self, at: usize) -> bool {
        let mut busy = false;
        while let Some(event) = self.servers[at].fleet.as_mut().and_then(TheFleet::poll_event) {
            busy = true;
            self.tell_event(at, event);
        }
        // Marks may be ahead of what was told, but not once everything is told.
        if !self.servers[at].told.is_empty() {
            for number in core::mem::take(&mut self.servers[at].told) {
                self.check_marks(at, number);
            }
        }
        busy
    }

    #[inline(never)]
    fn tell_event(&mut self, at: usize, event: FleetEvent<Vec<u8>, Vec<u8>>) {
        self.collect(at, &event);
        let device = |index: DeviceIndex| self.servers[at].device_of[index.0 as usize];
        match event {
            FleetEvent::Outcome { device: index, number, code, first_code, .. } => {
                if code == Code::DUPLICATE {
                    self.run.probes.count(Probe::Duplicate as usize);
                }
                if first_code == Code::DUPLICATE {
                    let (at_work, order) = (device(index), self.servers[at].order(number));
                    self.check_duplicate(at_work, order);
                }
                self.ended(at, index, number, first_code);
            }
            FleetEvent::Attempt { device: index, number, code, retry_after } => {
                self.attempt_ended(at, index, number, code, retry_after);
            }
            FleetEvent::Settled { number, marks, .. } => self.settled(at, number, &marks),
            FleetEvent::Disconnected { device: index, why } => {
                let device = device(index);
                self.note_of(device, format_args!("session of server {at} with device {device} over: {why}"));
                self.check_server_end(at, index, why);
                if is_outdone(why) {
                    self.outdone(at);
                }
            }
            FleetEvent::Connected { device: index, facts, rebooted } => {
                let device = device(index);
                let window = facts.window_orders;
                self.note_of(
                    device,
                    format_args!("session of server {at} with device {device}, window {window}"),
                );
                if rebooted {
                    self.probe(Probe::Rebooted);
                }
                if facts.id != device_id(device) {
                    self.ledger.fail(self.now, "WrongDevice", Some(device), &[], facts.id);
                }
            }
            FleetEvent::Unanswered { device, ask, .. } => self.server_unanswered(at, device, ask),
            FleetEvent::Fenced { .. } => self.probe(Probe::FencedServer),
            FleetEvent::JournalLost { device: index } => {
                let device = device(index);
                self.check_loss(device);
            }
            FleetEvent::Forked { device: index } => {
                let device = device(index);
                self.forked(at, device);
            }
            _ => {}
        }
    }
}
