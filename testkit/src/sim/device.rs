//! The devices and their drivers: they accept, read, hand over and write.

use std::time::Duration;

use push::receiver::journal::Found;
use push::receiver::{
    ConnId, Delivered, DeskSlot, Event as Told, Item, KeySlot, LOGS, LOGS_FIRMWARE, LogSlot, Memory,
    OutcomeSlot, Receiver, ReceiverConfig, Ticket, VersionSlot,
};
use wire_format::ids::{Lane, NodeId, Store as Shop};
use wire_format::time::Instant;

use super::check::check_end;
use super::ledger::Ledger;
use super::memory::{Answered, Kept};
use super::names::Probe;
use super::network::LinkId;
use super::pieces::Pieces;
use super::plan::{DeviceSpec, Keeps, MS};
use super::questions::Beside;
use super::server::server_id;
use super::store::{Medium, Store, StoreError};
use super::work::Work;
use super::world::{Act, World};
use crate::history::{Event, OrderId};

/// What a device keeps, in boxes.
type Boxes = Memory<
    Box<[OutcomeSlot]>,
    Box<[LogSlot]>,
    Box<[KeySlot]>,
    Box<[VersionSlot]>,
    Box<[u8]>,
    Box<[u8]>,
    Box<[DeskSlot]>,
>;
pub(super) type TheReceiver = Receiver<Boxes, 4>;

/// What an order was called when it was handed over, once its bytes are gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) ticket: Ticket,
    pub(super) order: OrderId,
    pub(super) lane: Lane,
    pub(super) redelivered: bool,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) at: usize,
    pub(super) receiver: Option<TheReceiver>,
    /// Where it is found.
    pub(super) slot: usize,
    /// Drawn at each boot; 0 before the first.
    pub(super) boot: u64,
    pub(super) frozen: bool,
    /// An order at work for which everything waits.
    pub(super) work: Option<Work>,
    /// Nothing passes until then: down, up.
    pub(super) blocked: [Instant; 2],
    pub(super) dials_fail_until: Instant,
    pub(super) dribbles_until: Instant,
    /// It was told to leave, and is off by then.
    pub(super) off_by: Option<Instant>,
    /// It dies after so many further steps, by a power cut or not, and comes back after that.
    pub(super) die_in: Option<(u32, bool, Duration)>,
    /// Its journal, and what that is kept in.
    pub(super) store: Option<Store>,
    pub(super) medium: Medium,
    /// Its syncs take so long, until then; and when the one under way is done.
    pub(super) slow: (Duration, Instant),
    syncs_until: Option<Instant>,
    /// The volatile log it keeps.
    pub(super) volatile: u64,
    /// Orders that were answered since the journal was written to last.
    pub(super) answered: Vec<Answered>,
    /// What its journal has.
    pub(super) kept: Kept,
    /// The payload that it puts together.
    pub(super) pieces: Pieces,
    /// It will be read again at once.
    pub(super) reads_on: bool,
    /// The server was told to forget it.
    pub(super) removed: bool,
    /// It was, and is listed again: what it owed before, nobody settles.
    pub(super) listed_again: bool,
    /// When its timer will be looked at.
    pub(super) armed: Instant,
}

impl Device {
    pub(super) fn new(at: usize, keeps: Keeps, seed: u64) -> Self {
        Self {
            at,
            receiver: None,
            slot: at,
            boot: 0,
            frozen: false,
            work: None,
            blocked: [Instant::ZERO; 2],
            dials_fail_until: Instant::ZERO,
            dribbles_until: Instant::ZERO,
            off_by: None,
            die_in: None,
            store: None,
            medium: Medium::new(keeps, seed ^ at as u64),
            slow: (Duration::ZERO, Instant::ZERO),
            syncs_until: None,
            volatile: 0,
            answered: Vec::new(),
            kept: Kept::default(),
            pieces: Pieces::default(),
            reads_on: false,
            removed: false,
            listed_again: false,
            armed: Instant::NEVER,
        }
    }

    pub(super) fn state(&self) -> String {
        let owed = self.receiver.as_ref().map(Receiver::owed);
        format!("device {}: owes {owed:?}, works {}, frozen {}", self.at, self.work.is_some(), self.frozen)
    }
}

pub(super) fn store() -> Shop {
    Shop::new(7, "PARIS-12").expect("a code")
}

pub(super) const fn device_id(at: usize) -> NodeId {
    let [a, b, ..] = (at as u32).to_le_bytes();
    NodeId([0xD0, a, b, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
}

fn config(spec: &DeviceSpec, at: usize, boot: u64) -> ReceiverConfig {
    let mut config = ReceiverConfig::new(device_id(at), store(), boot);
    config.window_orders = spec.window_orders;
    config.window_bytes = spec.window_bytes;
    config.max_body = spec.max_body;
    config.parts = spec.parts;
    config
}

/// Order keys a device remembers: no key of the plan's three is forgotten for another, be each at work in all lanes at once.
const ORDER_KEYS: usize = 12;

fn memory(spec: &DeviceSpec, config: &ReceiverConfig) -> Boxes {
    let (versions, room) = if spec.small { (4, 0) } else { (8, 2_048) };
    Memory {
        ring: vec![OutcomeSlot::EMPTY; config.ring_len()].into(),
        logs: vec![LogSlot::EMPTY; if spec.small { LOGS_FIRMWARE } else { LOGS }].into(),
        keys: vec![KeySlot::EMPTY; ORDER_KEYS].into(),
        versions: vec![VersionSlot::EMPTY; versions].into(),
        park: vec![0; room].into(),
        queue: vec![0; room].into(),
        desk: if spec.small { Box::default() } else { vec![DeskSlot::EMPTY].into() },
    }
}

impl World {
    /// A device starts, with what its spec says and nothing it knew before.
    pub(super) fn boot(&mut self, at: usize) {
        if self.devices[at].receiver.is_some() {
            return;
        }
        let (boot, now) = (self.rng.next_u64() | 1, self.now);
        let spec = &self.plan.devices[at];
        let mut config = config(spec, at, boot);
        config.questions = self.plan.questions;
        let memory = memory(spec, &config);
        let device = &mut self.devices[at];
        let mut receiver = Receiver::new(config, memory, now);
        let mut store = device.medium.open();
        if let Some(store) = &mut store {
            match receiver.replay(now, store) {
                Ok(Found::Damaged) => {
                    self.probe(Probe::JournalDamaged);
                    self.knows_nothing(at);
                }
                Ok(_) => {}
                Err(why) => return self.does_not_boot(at, &why),
            }
        }
        self.ledger.record(now, Event::Boot { device: at as u32, boot });
        let device = &mut self.devices[at];
        (device.boot, device.receiver, device.store) = (boot, Some(receiver), store);
        device.off_by = None;
        device.syncs_until = None;
        if core::mem::take(&mut device.pieces).is_partial() {
            self.probe(Probe::PiecesLost);
        }
        let device = &mut self.devices[at];
        if device.store.is_some() {
            self.check_fence(at);
        }
        self.serve_device(at);
    }

    /// A device that cannot read its journal does not serve: it is switched on once more.
    fn does_not_boot(&mut self, at: usize, why: &StoreError) {
        self.note_of(at, format_args!("device {at} does not boot: {why}"));
        if self.devices[at].medium.is_dead() {
            let power = self.power_goes();
            let medium = &self.devices[at].medium;
            if power { medium.crash() } else { medium.kill() }
        }
        self.later(MS * 500, Act::Boot { device: at });
    }

    /// Writes to the journal what it has to know, if it does not take its time. Whether the device goes on.
    fn writes_down(&mut self, at: usize) -> bool {
        let device = &self.devices[at];
        let wants = device.receiver.as_ref().is_some_and(|receiver| receiver.wants_record(self.now));
        if !wants && device.syncs_until.is_none() {
            return true;
        }
        if self.waits_for_its_journal(at) {
            return false;
        }
        self.record(at);
        true
    }

    /// A journal that is slow: what need not wait for it leaves at once, and then the device does nothing until it has
    /// synced. Whether it waits.
    fn waits_for_its_journal(&mut self, at: usize) -> bool {
        let now = self.now;
        let device = &mut self.devices[at];
        let Some(receiver) = &device.receiver else { return false };
        if let Some(until) = device.syncs_until {
            if until > now {
                return true;
            }
            device.syncs_until = None;
            return false;
        }
        if now >= device.slow.1 || device.store.is_none() || !receiver.wants_record(now) {
            return false;
        }
        let takes = device.slow.0;
        device.syncs_until = Some(now + takes);
        if self.write_device(at) {
            self.probe(Probe::SaidWhileSyncing);
        }
        self.freeze(at, takes);
        let (boot, away) = (self.devices[at].boot, MS * 300);
        if self.chance(15) {
            // Killed meanwhile: what it said before must not need what it had not written.
            self.later(takes / 2, Act::Down { device: at, boot, away });
        }
        true
    }

    /// Writes to the journal what it has to know. Whether something was written.
    fn record(&mut self, at: usize) -> bool {
        let now = self.now;
        let device = &mut self.devices[at];
        let (Some(receiver), Some(store)) = (&mut device.receiver, &mut device.store) else { return false };
        let ends = !device.answered.is_empty();
        match receiver.record(now, store) {
            Ok(false) => return false,
            Ok(true) => self.ends_are_kept(at),
            Err(_) if device.medium.is_dead() => {
                self.probe(if ends { Probe::D7 } else { Probe::D3 });
                let power = self.power_goes();
                self.crash_device(at, power, MS * 700);
                return false;
            }
            Err(why) => {
                self.probe(Probe::D9);
                self.note_of(at, format_args!("device {at} cannot write to its journal: {why}"));
                return false;
            }
        }
        if self.dies(at) {
            self.probe(if ends { Probe::D8 } else { Probe::D5 });
            return false;
        }
        if !self.devices[at].reads_on {
            self.devices[at].reads_on = true;
            self.at(now, Act::ReadAll { device: at });
        }
        true
    }

    pub(super) fn read_on_all(&mut self, at: usize) {
        self.devices[at].reads_on = false;
        self.read_all(at);
        self.with_receiver(at, |_, _| ());
    }

    /// One step of the device's own is done: it may have been its last.
    pub(super) fn dies(&mut self, at: usize) -> bool {
        let device = &mut self.devices[at];
        match &mut device.die_in {
            Some((0, power, away)) => {
                let (power, away) = (*power, *away);
                device.die_in = None;
                self.note_of(at, format_args!("device {at} dies in the middle of it"));
                self.crash_device(at, power, away);
                true
            }
            Some((left, ..)) => {
                *left -= 1;
                false
            }
            None => device.receiver.is_none(),
        }
    }

    /// Does something to a receiver that is up and running, then drains it.
    pub(super) fn with_receiver(&mut self, at: usize, input: impl FnOnce(&mut TheReceiver, Instant)) {
        let now = self.now;
        let it = &mut self.devices[at];
        if let (Some(receiver), false) = (&mut it.receiver, it.frozen) {
            input(receiver, now);
            self.serve_device(at);
        }
    }

    pub(super) fn device_timer(&mut self, at: usize) {
        let it = &mut self.devices[at];
        if it.armed > self.now {
            return;
        }
        it.armed = Instant::NEVER;
        let due = it.receiver.as_ref().filter(|_| !it.frozen).and_then(Receiver::poll_timeout);
        if due.is_some_and(|due| due <= self.now) {
            self.with_receiver(at, |receiver, now| receiver.handle_timeout(now));
        } else {
            self.arm_device(at);
        }
    }

    fn arm_device(&mut self, at: usize) {
        let it = &mut self.devices[at];
        let Some(due) = it.receiver.as_ref().and_then(Receiver::poll_timeout) else { return };
        let due = due.max(self.now);
        if due != it.armed && !it.frozen {
            it.armed = due;
            self.arm_device_at(at, due);
        }
    }

    /// Everything the receiver wants, until it wants nothing.
    pub(super) fn serve_device(&mut self, at: usize) {
        if !self.writes_down(at) {
            return;
        }
        self.take_waiting(at);
        // What was answered just now must be written down before it is said.
        if !self.writes_down(at) {
            return;
        }
        self.write_device(at);
        while let Some((conn, why)) = self.devices[at].receiver.as_mut().and_then(Receiver::poll_close) {
            self.note_of(at, format_args!("device {at} closes: {why}"));
            check_end(self, Some(at), why);
            if let Some(link) = self.links.named(at, conn) {
                self.close_end(link, false, false);
            }
        }
        while let Some(event) = self.devices[at].receiver.as_mut().and_then(Receiver::poll_event) {
            match event {
                Told::Served { conn, .. } => self.note_fence(at, conn),
                Told::Unanswered { ask } => self.device_unanswered(at, ask),
                _ => {}
            }
        }
        self.check_device(at);
        self.arm_device(at);
    }

    /// Whether there was anything to write.
    fn write_device(&mut self, at: usize) -> bool {
        let mut busy = false;
        let (mut scratch, len) = (core::mem::take(&mut self.scratch), self.plan.devices[at].scratch);
        while let Some(receiver) = &mut self.devices[at].receiver {
            let Some(transmit) = receiver.poll_transmit(self.now, &mut scratch[..len]) else { break };
            busy = true;
            let conn = transmit.conn;
            let mut bytes = core::mem::take(&mut self.outgoing);
            bytes.clear();
            bytes.extend_from_slice(transmit.head);
            bytes.extend_from_slice(transmit.body);
            let Some(link) = self.links.named(at, conn) else {
                self.ledger.fail(self.now, "WritesToNobody", Some(at), &[], "a connection that is gone");
                break;
            };
            let written = self.write(link, false, &bytes);
            if written < bytes.len() {
                self.probe(Probe::CutWrite);
            }
            if let Some(receiver) = &mut self.devices[at].receiver {
                receiver.handle_written(self.now, conn, written);
            }
            self.outgoing = bytes;
            if self.dies(at) {
                break;
            }
        }
        self.scratch = scratch;
        busy
    }

    /// What holds for a device at any time.
    fn check_device(&mut self, at: usize) {
        let Some(receiver) = &self.devices[at].receiver else { return };
        let (owed, room) = (receiver.owed(), 2 * usize::from(self.plan.devices[at].window_orders).max(1));
        let full = owed >= usize::from(self.plan.devices[at].window_orders);
        if owed > room {
            self.ledger.fail(self.now, "RingOverflow", Some(at), &[], format_args!("{owed} of {room}"));
        }
        if full {
            self.probe(Probe::WindowFull);
        }
        self.note_volatile(at);
    }

    /// A session is open: its server is obeyed under the fence it said in it.
    fn note_fence(&mut self, at: usize, conn: ConnId) {
        let Some(link) = self.links.named(at, conn).and_then(|link| self.links.at(link)) else { return };
        let (logs, fence, device, boot) = (link.logs, link.fence, at as u32, self.devices[at].boot);
        for log in logs.into_iter().filter(|log| *log != 0) {
            self.ledger.record(self.now, Event::Heard { device, boot, log, fence });
        }
    }

    /// A device keeps how far it has come in one volatile log: that of the server it serves last.
    fn note_volatile(&mut self, at: usize) {
        let served = self.devices[at].receiver.as_ref().and_then(Receiver::served);
        let Some(server) = self.servers.iter().find(|server| Some(server_id(server.at)) == served) else {
            return;
        };
        let (new, old) = (server.log, self.devices[at].volatile);
        if new != old {
            self.devices[at].volatile = new;
            self.devices[at].kept.forget(old);
            self.ledger.record(self.now, Event::Forgot { device: at as u32, log: old });
        }
    }

    pub(super) fn accept(&mut self, id: LinkId) {
        let now = self.now;
        let Some(it) = self.links.at(id) else { return };
        let (at, takes) = (it.device, it.device_open && !it.cut);
        let device = &mut self.devices[at];
        if device.frozen && takes {
            // The system holds the connection until somebody asks for it.
            return self.later(MS * 10, Act::Accept { link: id });
        }
        let peer = ([192, 0, 2, 1], 40_000).into();
        let accepted =
            device.receiver.as_mut().filter(|_| takes).map(|receiver| receiver.handle_connected(now, peer));
        match accepted {
            Some(Ok(conn)) => {
                it.conn = Some(conn);
                self.serve_device(at);
                self.read_device(id);
            }
            _ => self.close_end(id, false, false),
        }
    }

    pub(super) fn read_all(&mut self, at: usize) {
        for link in self.links.of_device(at) {
            self.read_device(link);
        }
    }

    pub(super) fn read_device(&mut self, id: LinkId) {
        // Everything read was used, and nothing of it was an order: there is nothing to look at again.
        let mut done = false;
        loop {
            let Some(it) = self.links.at(id) else { return };
            let most = if it.chunk > 65_536 { it.chunk } else { 1 + self.rng.below(it.chunk) };
            let (at, Some(conn)) = (it.device, it.conn) else { return };
            let device = &mut self.devices[at];
            if !it.device_open || device.frozen || device.receiver.is_none() || it.stalled[0] > self.now {
                return;
            }
            let more = device.work.is_none() && it.down.read(most as usize);
            if !more && it.down.is_over() {
                it.device_open = false;
                self.links.bury(id);
                return self.with_receiver(at, |receiver, now| receiver.handle_closed(now, conn));
            }
            if !more && done {
                return;
            }
            if more {
                self.give_room(id, true);
            }
            let handed = self.digest(id, at, conn);
            self.serve_device(at);
            let Some(it) = self.links.at(id).filter(|_| more) else { return };
            done = !handed && it.down.unread.is_empty() && self.devices[at].die_in.is_none();
            if done && it.down.is_quiet() {
                return;
            }
        }
    }

    /// Offers what was read and not used; orders go to the handler. Whether there was one.
    fn digest(&mut self, id: LinkId, at: usize, conn: ConnId) -> bool {
        let mut handed = false;
        loop {
            let now = self.now;
            let (Some(it), Some(receiver)) = (self.links.at(id), &mut self.devices[at].receiver) else {
                return handed;
            };
            let unread = &mut it.down.unread;
            let (mut given, mut beside) = (None, None);
            let used = match receiver.handle_bytes(now, conn, unread) {
                Ok(input) => {
                    let used = input.consumed;
                    match input.item {
                        Some(Item::Order(delivered)) => given = Some(known(&self.ledger, &delivered, None)),
                        Some(item) => beside = Beside::of(item),
                        None => {}
                    }
                    used
                }
                Err(why) => {
                    unread.clear();
                    check_end(self, Some(at), why);
                    return handed;
                }
            };
            handed |= given.is_some();
            let nothing_left = use_bytes(unread, used);
            if let Some(beside) = beside {
                self.take_beside(at, id, beside);
            }
            match given {
                Some(Ok(given)) => {
                    let boot = self.links.at(id).map_or(0, |link| link.boot);
                    self.check_fork(at, given.order, boot);
                    self.begin(at, given);
                }
                Some(Err(why)) => self.ledger.fail(now, "NotWhatWasPushed", Some(at), &[], why),
                None => {}
            }
            if self.dies(at) || used == 0 || nothing_left {
                return handed;
            }
        }
    }

    /// Orders that waited for their lane.
    fn take_waiting(&mut self, at: usize) {
        while self.devices[at].work.is_none() {
            let now = self.now;
            let device = &mut self.devices[at];
            let Some(receiver) = &mut device.receiver else { return };
            let Some(delivered) = receiver.poll_order(now) else { return };
            match known(&self.ledger, &delivered, device.pieces.of(delivered.ticket)) {
                Ok(given) => {
                    self.probe(Probe::Parked);
                    self.begin(at, given);
                }
                Err(why) => return self.ledger.fail(now, "NotWhatWasPushed", Some(at), &[], why),
            }
            if self.dies(at) {
                return;
            }
        }
    }
}

/// Takes away the bytes that were used. Whether none is left.
pub(super) fn use_bytes(unread: &mut Vec<u8>, used: usize) -> bool {
    if used == unread.len() {
        unread.clear();
    } else {
        unread.drain(..used);
    }
    unread.is_empty()
}

/// Which order this is, if it is one as it was pushed.
fn known(ledger: &Ledger, delivered: &Delivered<'_>, pieces: Option<&[u8]>) -> Result<Given, String> {
    let order = ledger.recognize(delivered.lineage, &delivered.order, pieces)?;
    let (ticket, lane, redelivered) = (delivered.ticket, delivered.order.lane, delivered.redelivered);
    Ok(Given { ticket, order, lane, redelivered })
}
