//! A fleet in virtual time against scripted devices that speak the frames of the specification.

mod again;
mod announced;
mod cancel;
mod company;
mod device;
mod durable;
mod fan_out;
mod forks;
mod items;
mod leave;
mod liveness;
mod parts;
mod posts;
mod random;
mod restore;
mod resume;
mod retry;
mod sessions;
mod supersede;
mod takeover;
mod told;
mod traces;
mod unlogged;
mod writes;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wire_format::frame::order::{Delivery, KindFlags, Order, OrderOption};
use wire_format::frame::outcome::{self, Code, Entry};
use wire_format::frame::welcome::{LaneFloor, LogFloors, Started, StartedEntry};
use wire_format::frame::{Frame, Hello, Raw, Reject, Welcome, bye, hello, reject, reply};
use wire_format::ids::{DeviceKind, Lane, Lineage, NodeId, OrderKind, Store, Tags};
use wire_format::splitter::{Split, split};
use wire_format::time::Instant;

use super::*;
use crate::config::LogId;
use crate::mark::Mark;
use device::{Device, Habit};

const LINEAGE: Lineage = Lineage([3; 16]);
/// The durable log of the worlds that have one, and its run.
const DURABLE: Lineage = Lineage([4; 16]);
const RUN: u64 = 77;
const HOUR: Duration = Duration::from_secs(3_600);

type TestFleet =
    Fleet<DeviceTables<Vec<DeviceSlot>, Vec<TrackSlot>>, Vec<OrderSlot<Vec<u8>, Vec<u8>>>, Vec<u8>, Vec<u8>>;
type TestEvent = Event<Vec<u8>, Vec<u8>>;

fn id(number: usize) -> NodeId {
    NodeId((number as u128 + 1).to_le_bytes())
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 8081))
}

/// A fleet and its devices, on one clock.
struct World {
    now: Instant,
    fleet: TestFleet,
    devices: Vec<Device>,
    /// Which device answers at the address of fleet index i.
    at: Vec<usize>,
    /// Dials succeed at once; else they stay under way.
    answer_dials: bool,
    dialled: VecDeque<(Instant, DeviceIndex)>,
    closed: Vec<(DeviceIndex, Ended)>,
    events: Vec<TestEvent>,
    /// What devices said to the application, as text.
    items: Vec<String>,
    questions: Vec<Question>,
    scratch: usize,
    number: u64,
    /// New orders are of the durable log.
    durable: bool,
    /// What is told to be logged is on disk at once; else it waits here.
    logs: bool,
    unlogged: VecDeque<LogEntry>,
    untraced: VecDeque<Trace>,
    /// Attempts that run: what they repeat, and where.
    children: BTreeMap<u64, (u64, DeviceIndex)>,
}

impl World {
    fn new(devices: usize, orders: usize) -> Self {
        Self::with(devices, orders, |_| {})
    }

    /// A world whose devices are known by id and address, none dialled yet.
    fn with(devices: usize, orders: usize, change: impl FnOnce(&mut FleetConfig)) -> Self {
        let mut world = Self::empty(devices, orders, change);
        for number in 0..devices {
            let new = NewDevice { id: Some(id(number)), address: Some(address(number)) };
            assert_eq!(world.fleet.add_device(world.now, new), Ok(DeviceIndex(number as u32)));
        }
        world
    }

    /// The first device's socket takes so many bytes from here on.
    fn unblock(&mut self, bytes: usize) {
        self.devices[0].room = bytes;
        self.fleet.handle_writable(self.now, DeviceIndex(0));
        self.drain();
    }

    /// It takes some bytes one by one, and then all that come.
    fn trickle(&mut self, bytes: usize) {
        (0..bytes).for_each(|_| self.unblock(1));
        self.unblock(usize::MAX);
    }

    /// The first device is there again after its session broke, and takes so many bytes.
    fn meet_again(&mut self, bytes: usize) {
        self.answer_dials = false;
        self.advance(20_000);
        self.connect(0);
        self.devices[0].room = bytes;
        self.drain();
    }

    /// The first device is (again) on the list, in the first place.
    fn list(&mut self, id: NodeId) {
        let new = NewDevice { id: Some(id), address: Some(address(0)) };
        assert_eq!(self.fleet.add_device(self.now, new), Ok(DeviceIndex(0)));
    }

    fn empty(devices: usize, orders: usize, change: impl FnOnce(&mut FleetConfig)) -> Self {
        let now = Instant::from_millis(1_000_000);
        let mut config = FleetConfig::new(NodeId([0xAA; 16]), Store::new(7, "PARIS-12").unwrap(), LINEAGE);
        change(&mut config);
        let logs = vec![TrackSlot::EMPTY; if config.durable.is_some() { 2 * devices } else { devices }];
        let slots = DeviceTables { slots: vec![DeviceSlot::EMPTY; devices], logs };
        let orders = (0..orders).map(|_| OrderSlot::EMPTY).collect();
        Self {
            now,
            fleet: Fleet::new(config, slots, orders, now, 42),
            devices: (0..devices).map(Device::new).collect(),
            at: (0..devices).collect(),
            answer_dials: true,
            dialled: VecDeque::new(),
            closed: Vec::new(),
            events: Vec::new(),
            items: Vec::new(),
            questions: Vec::new(),
            scratch: 16_384,
            number: 0,
            durable: false,
            logs: true,
            unlogged: VecDeque::new(),
            untraced: VecDeque::new(),
            children: BTreeMap::new(),
        }
    }

    /// All devices connected, nothing told yet.
    fn connected(devices: usize, orders: usize) -> Self {
        let mut world = Self::new(devices, orders);
        world.advance(1_000 + devices as u64);
        assert_eq!(world.fleet.stats().sessions, devices as u64);
        world.events.clear();
        world
    }

    /// The same, with a durable log that all orders are of.
    fn durable(devices: usize, orders: usize) -> Self {
        let mut world = Self::with(devices, orders, durable_log);
        world.durable = true;
        world.advance(1_000 + devices as u64);
        assert_eq!(world.fleet.stats().sessions, devices as u64);
        world.events.clear();
        world
    }

    fn hand_in(&mut self, order: NewOrder<Vec<u8>, Vec<u8>>) {
        let order = if self.durable { as_durable(order) } else { order };
        self.fleet.submit(self.now, order).expect("taken");
    }

    /// What waits is on disk now, the oldest first.
    fn log(&mut self) {
        while let Some(entry) = self.unlogged.pop_front() {
            self.confirm(entry);
        }
        while let Some(trace) = self.untraced.pop_front() {
            self.fleet.traced(self.now, trace.device, trace.boot);
            self.drain();
        }
    }

    fn confirm(&mut self, entry: LogEntry) {
        while !self.fleet.logged(self.now, entry) {
            assert!(self.tell(), "it takes none and tells none");
        }
        self.drain();
    }

    /// Whether anything was told.
    fn tell(&mut self) -> bool {
        let before = self.events.len();
        while let Some(event) = self.fleet.poll_event() {
            match event {
                Event::Log(entry) => self.unlogged.push_back(entry),
                Event::Trace(trace) if trace.open => self.untraced.push_back(trace),
                _ => {}
            }
            self.events.push(event);
        }
        self.events.len() != before
    }

    /// One order of a lane to these devices of all.
    fn submit_to(&mut self, lane: Lane, lifetime: Option<Duration>, payload: usize, to: &[usize]) -> u64 {
        let mut marks = vec![0; self.devices.len()];
        to.iter().for_each(|&number| marks[number] = Mark::PENDING.0);
        self.number += 1;
        let order = new_order(self.number, lane, KindFlags::IDEMPOTENT, lifetime, payload, marks);
        self.hand_in(order);
        self.number
    }

    fn submit(&mut self, lane: Lane) -> u64 {
        let all: Vec<usize> = (0..self.devices.len()).collect();
        let number = self.submit_to(lane, Some(HOUR), 100, &all);
        self.drain();
        number
    }

    fn submit_once(&mut self, lane: Lane) -> u64 {
        self.number += 1;
        let marks = vec![Mark::PENDING.0; self.devices.len()];
        let order = new_order(self.number, lane, KindFlags::NONE, Some(HOUR), 100, marks);
        self.hand_in(order);
        self.drain();
        self.number
    }

    /// Lets everything happen that is due now.
    fn drain(&mut self) {
        // Where nothing can be written, something is left.
        let can_write = self.scratch >= crate::config::SCRATCH_MIN;
        while self.step() || can_write && !self.fleet.is_idle(self.now) {}
        if self.devices.len() <= 64 {
            self.fleet.check();
        }
    }

    fn step(&mut self) -> bool {
        let idle = self.fleet.is_idle(self.now);
        let mut busy = false;
        while let Some((device, why)) = self.fleet.poll_close() {
            self.devices[self.at[device.0 as usize]].connected = false;
            self.devices[self.at[device.0 as usize]].bytes.clear();
            self.devices[self.at[device.0 as usize]].answers.clear();
            self.closed.push((device, why));
            busy = true;
        }
        busy |= self.tell();
        assert!(!idle || !busy, "an idle fleet has something to do");
        if self.logs
            && let Some(entry) = self.unlogged.pop_front()
        {
            assert!(self.fleet.logged(self.now, entry), "nothing waits to be told");
            busy = true;
        }
        if self.logs
            && let Some(trace) = self.untraced.pop_front()
        {
            self.fleet.traced(self.now, trace.device, trace.boot);
            busy = true;
        }
        while let Some(Dial { device, address: to }) = self.fleet.poll_dial(self.now) {
            assert_eq!(to, address(device.0 as usize));
            self.dialled.push_back((self.now, device));
            busy = true;
            if self.answer_dials {
                self.connect(device.0 as usize);
            }
        }
        busy |= self.write();
        for index in 0..self.at.len() {
            busy |= self.read(index);
        }
        busy
    }

    fn connect(&mut self, index: usize) {
        let device = &mut self.devices[self.at[index]];
        device.connected = true;
        device.bytes.clear();
        device.answers.clear();
        self.fleet.handle_connected(self.now, DeviceIndex(index as u32));
    }

    fn write(&mut self) -> bool {
        let mut scratch = vec![0; self.scratch];
        let mut busy = false;
        while let Some(Transmit { device, head, body }) = self.fleet.poll_transmit(self.now, &mut scratch) {
            let to = &mut self.devices[self.at[device.0 as usize]];
            assert!(to.connected, "bytes for a device without a connection");
            let n = to.room.min(head.len() + body.len());
            to.room = to.room.saturating_sub(n);
            to.writes.push((head.len(), body.len()));
            let bytes = [head, body].concat();
            self.fleet.handle_written(self.now, device, n);
            self.devices[self.at[device.0 as usize]].read(&bytes[..n]);
            busy = true;
        }
        busy
    }

    /// Hands one device's answers to the fleet; true if something was used.
    fn read(&mut self, index: usize) -> bool {
        let device = &mut self.devices[self.at[index]];
        if device.answers.is_empty() || !device.connected {
            return false;
        }
        let bytes = core::mem::take(&mut device.answers);
        let used = match self.fleet.handle_bytes(self.now, DeviceIndex(index as u32), &bytes) {
            Ok(input) => {
                self.items.extend(input.item.map(|item| format!("{item:?}")));
                if let Some(Item::Ask { question, .. }) = input.item {
                    self.questions.push(question);
                }
                input.consumed
            }
            Err(_) => bytes.len(),
        };
        let device = &mut self.devices[self.at[index]];
        let later = core::mem::take(&mut device.answers);
        device.answers = [&bytes[used..], &later].concat();
        used != 0
    }

    /// Time passes, with every timer served when it is due.
    fn advance(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.drain();
        loop {
            let next = self.fleet.poll_timeout().unwrap_or(Instant::NEVER).max(self.now);
            if next > end {
                break;
            }
            self.now = if next == self.now { next + Duration::from_micros(100) } else { next };
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = self.now.max(end);
        self.drain();
        self.fleet.check();
    }

    /// The connection of a device breaks.
    fn cut(&mut self, index: usize) {
        let device = &mut self.devices[self.at[index]];
        device.connected = false;
        device.bytes.clear();
        device.answers.clear();
        device.room = usize::MAX;
        self.fleet.handle_closed(self.now, DeviceIndex(index as u32), Closed::Reset);
    }
}

fn durable_log(config: &mut FleetConfig) {
    config.durable = Some(LogId::new(DURABLE, RUN, 1));
}

/// The same order, of the durable log.
fn as_durable(order: NewOrder<Vec<u8>, Vec<u8>>) -> NewOrder<Vec<u8>, Vec<u8>> {
    let mut frame = order.frame;
    let (delivery, _) = Order::parse(&Raw::parse(&frame).unwrap()).unwrap();
    let header = Delivery { durable: true, ..delivery }.header(frame.len() as u32 - 16);
    frame[..16].copy_from_slice(&header.emit());
    NewOrder { frame, ..order }
}

fn begun(number: u64, lane: Lane, idempotent: bool) -> StartedEntry {
    StartedEntry { number, durable: false, lane, idempotent }
}

fn new_order(
    number: u64,
    lane: Lane,
    kind_flags: KindFlags,
    lifetime: Option<Duration>,
    payload: usize,
    marks: Vec<u8>,
) -> NewOrder<Vec<u8>, Vec<u8>> {
    keyed_order(number, (lane, kind_flags), (0, 0), None, lifetime, payload, marks)
}

/// An order with a supersede key and version, that may repeat an attempt at another one.
fn keyed_order(
    number: u64,
    (lane, kind_flags): (Lane, KindFlags),
    (supersede_key, supersede_version): (u64, u64),
    retry: Option<u64>,
    lifetime: Option<Duration>,
    payload: usize,
    marks: Vec<u8>,
) -> NewOrder<Vec<u8>, Vec<u8>> {
    let payload = vec![number as u8; payload];
    let mut options = [0; 16];
    let retry = retry.map_or(0, |first| OrderOption::Retry { first, attempt: 1 }.emit(&mut options).unwrap());
    let order = Order {
        number,
        order_key: 0,
        supersede_key,
        supersede_version,
        kind: OrderKind::SHOW_PAGE,
        lane,
        kind_flags,
        schema: 1,
        options: &options[..retry],
        payload: &payload,
    };
    let remaining_ms = lifetime.map(Delivery::millis);
    let delivery = Delivery { durable: false, replay: false, needs_result: false, remaining_ms };
    let mut frame = vec![0; 80_000];
    let len = order.emit(&delivery, &mut frame).unwrap();
    frame.truncate(len);
    NewOrder { number, lane, kind_flags, lifetime, frame, first: DeviceIndex(0), marks }
}
