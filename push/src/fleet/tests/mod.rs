//! A fleet in virtual time against scripted devices that speak the frames of the specification.

mod cancel;
mod fan_out;
mod items;
mod leave;
mod liveness;
mod parts;
mod posts;
mod random;
mod resume;
mod retry;
mod sessions;
mod supersede;
mod told;
mod writes;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use wire_format::frame::order::{Delivery, KindFlags, Order, OrderOption};
use wire_format::frame::outcome::{self, Code, Entry};
use wire_format::frame::welcome::{LaneFloor, LogFloors, Started, StartedEntry};
use wire_format::frame::{Frame, Hello, Raw, Reject, Welcome, bye, hello, reject, reply};
use wire_format::ids::{DeviceKind, Lane, Lineage, NodeId, OrderKind, Store, Tags};
use wire_format::splitter::{Split, split};
use wire_format::time::Instant;

use super::*;
use crate::mark::Mark;

const LINEAGE: Lineage = Lineage([3; 16]);
const HOUR: Duration = Duration::from_secs(3_600);

type TestFleet = Fleet<Vec<DeviceSlot>, Vec<OrderSlot<Vec<u8>, Vec<u8>>>, Vec<u8>, Vec<u8>>;
type TestEvent = Event<Vec<u8>, Vec<u8>>;

fn id(number: usize) -> NodeId {
    NodeId((number as u128 + 1).to_le_bytes())
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 8081))
}

/// What a device does with an order above its floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Applies it and answers at once.
    Apply,
    /// Acknowledges it and keeps it.
    Ack,
    /// Takes it in and says nothing.
    Silent,
}

/// A scripted device: the part of the other half these tests need, and some misbehaviour.
struct Device {
    id: NodeId,
    boot: u64,
    staging: bool,
    window_orders: u16,
    window_bytes: u32,
    max_body: u32,
    habit: Habit,
    /// Its process is stopped: bytes are taken by the kernel, nothing is read.
    frozen: bool,
    /// Bytes its connection takes before it blocks.
    room: usize,
    lineage: Lineage,
    floors: [u64; 4],
    ring: Vec<Entry>,
    kept: Vec<Entry>,
    connected: bool,
    /// From the server, not split yet.
    bytes: Vec<u8>,
    /// To the server, not delivered yet.
    answers: Vec<u8>,
    /// Frames it got, in order.
    orders: Vec<(Delivery, u64, Lane)>,
    hellos: Vec<Hello>,
    settled: [u64; 4],
    rejects: Vec<reject::Code>,
    byes: Vec<bye::Code>,
    pings: usize,
    effects: BTreeMap<u64, usize>,
    features: u32,
    /// Its floors survive a reboot.
    persisted: bool,
    journal_lost: bool,
    /// The fence it has accepted of another server: it refuses this one.
    fence: Option<u64>,
    /// Orders it says were begun.
    started: Vec<StartedEntry>,
    /// Numbers of CANCELs, and the time of a DRAIN, in order.
    cancels: Vec<u64>,
    drains: Vec<u32>,
    /// Pieces it got: blob, offset, bytes.
    parts: Vec<(u64, u32, Vec<u8>)>,
    /// Questions it got: correlation, generation, payload.
    asked: Vec<(u32, u32, Vec<u8>)>,
    /// Answers it got: correlation, generation, code.
    replied: Vec<(u32, u32, reply::Code)>,
    /// STATUS it got, as text.
    statuses: Vec<String>,
    /// Reads of the server's heads and bodies: (head, body) lengths per write.
    writes: Vec<(usize, usize)>,
    /// Orders it has and that are not settled; bytes of orders it has not acknowledged.
    in_window: usize,
}

impl Device {
    fn new(number: usize) -> Self {
        Self {
            id: id(number),
            boot: 1,
            staging: false,
            window_orders: 16,
            window_bytes: 16_384,
            max_body: 65_904,
            habit: Habit::Apply,
            frozen: false,
            room: usize::MAX,
            lineage: Lineage::NONE,
            floors: [0; 4],
            ring: Vec::new(),
            kept: Vec::new(),
            connected: false,
            bytes: Vec::new(),
            answers: Vec::new(),
            orders: Vec::new(),
            hellos: Vec::new(),
            settled: [0; 4],
            rejects: Vec::new(),
            byes: Vec::new(),
            pings: 0,
            effects: BTreeMap::new(),
            persisted: false,
            journal_lost: false,
            fence: None,
            started: Vec::new(),
            cancels: Vec::new(),
            drains: Vec::new(),
            features: 0x0F,
            parts: Vec::new(),
            asked: Vec::new(),
            replied: Vec::new(),
            statuses: Vec::new(),
            writes: Vec::new(),
            in_window: 0,
        }
    }

    /// Forgets what a boot forgets.
    fn reboot(&mut self) {
        self.boot += 1;
        self.kept.clear();
        if self.persisted && !self.journal_lost {
            return;
        }
        self.lineage = Lineage::NONE;
        self.floors = [0; 4];
        self.ring.clear();
        self.kept.clear();
    }

    fn send(&mut self, frame: &Frame<'_>) {
        let mut buffer = [0; 2_048];
        let len = frame.emit(&mut buffer).unwrap();
        self.answers.extend_from_slice(&buffer[..len]);
    }

    fn send_outcomes(&mut self, entries: &[Entry]) {
        for entries in entries.chunks(outcome::ENTRIES_MAX) {
            let mut buffer = [0; 2_048];
            let len = outcome::emit(false, entries.iter().copied(), &mut buffer).unwrap();
            self.answers.extend_from_slice(&buffer[..len]);
        }
    }

    /// Takes bytes from the server and handles whole frames.
    fn read(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.frozen {
            return;
        }
        let bytes = core::mem::take(&mut self.bytes);
        let mut at = 0;
        while let Split::Frame(raw) = split(&bytes[at..], u32::MAX).expect("the server's bytes are right") {
            self.handle(&raw);
            at += raw.len();
        }
        self.bytes = bytes[at..].to_vec();
    }

    fn handle(&mut self, raw: &Raw<'_>) {
        match Frame::parse(raw).expect("the server's frames are right") {
            Frame::Hello(hello) => self.handle_hello(hello),
            Frame::Order(delivery, order) => self.handle_order(delivery, &order),
            Frame::Settled(settled) => {
                self.settled[settled.lane.index()] = settled.number;
                self.ring.retain(|entry| entry.lane != settled.lane || entry.number > settled.number);
                self.in_window = self.ring.len() + self.kept.len();
            }
            Frame::Ping(ping) => {
                self.pings += 1;
                self.send(&Frame::Pong(ping.pong()));
            }
            Frame::Pong(_) => {}
            Frame::Cancel(cancel) => self.handle_cancel(cancel.numbers.iter().collect()),
            Frame::Drain(drain) => self.drains.push(drain.after_ms),
            Frame::Reject(Reject { code, .. }) => self.rejects.push(code),
            Frame::Bye(bye) => self.byes.push(bye.code),
            Frame::Part(part) => self.parts.push((part.blob, part.offset, part.bytes.to_vec())),
            Frame::Ask(ask) => {
                self.asked.push((ask.correlation, ask.generation, ask.payload.to_vec()));
            }
            Frame::Reply(reply) => {
                self.replied.push((reply.correlation, reply.generation, reply.code));
            }
            Frame::Status(status) => self.statuses.push(format!("{:?}", status.rows)),
            other => panic!("the server sent {other:?}"),
        }
    }

    /// What is kept was not begun, unless it is in the list of those that were.
    fn handle_cancel(&mut self, numbers: Vec<u64>) {
        let begun = |number| self.started.iter().any(|entry| entry.number == number);
        let meant = |entry: &Entry| numbers.contains(&entry.number) && !begun(entry.number);
        let ended: Vec<Entry> = self.kept.iter().filter(|entry| meant(entry)).copied().collect();
        self.kept.retain(|entry| !ended.contains(entry));
        for entry in ended {
            let entry = Entry { code: Code::CANCELLED, ..entry };
            self.floors[entry.lane.index()] = entry.number;
            self.ring.push(entry);
            self.send_outcomes(&[entry]);
        }
        self.cancels.extend(numbers);
    }

    fn handle_hello(&mut self, hello: Hello) {
        self.hellos.push(hello);
        if let Some(detail) = self.fence.filter(|&fence| fence > hello.fence) {
            let code = reject::Code::STALE_FENCE;
            return self.send(&Frame::Reject(Reject { code, retry_after_ms: 60_000, detail }));
        }
        if self.lineage != hello.volatile.lineage {
            self.lineage = hello.volatile.lineage;
            self.floors = [0; 4];
            self.ring.clear();
            self.kept.clear();
        }
        let started = self.started.clone();
        let welcome = Welcome { started: Started::from(&started[..]), ..self.welcome() };
        self.send(&Frame::Welcome(welcome));
        let ring = self.ring.clone();
        self.send_outcomes(&ring);
        self.in_window = self.ring.len() + self.kept.len();
    }

    fn welcome(&self) -> Welcome<'static> {
        let lanes = self.floors.map(|floor| LaneFloor { floor, run: u64::from(floor != 0) });
        Welcome {
            version: hello::VERSION,
            staging: self.staging,
            floors_persisted: self.persisted,
            journal_lost: self.journal_lost,
            kind: DeviceKind::KIOSK,
            device: self.id,
            boot: self.boot,
            fence: 0,
            server: NodeId::NONE,
            zone: 3,
            window_orders: self.window_orders,
            window_bytes: self.window_bytes,
            max_body: self.max_body,
            features: self.features,
            tags: Tags::EMPTY,
            durable: LogFloors::default(),
            volatile: LogFloors { lineage: self.lineage, lanes },
            started: Started::EMPTY,
        }
    }

    fn handle_order(&mut self, delivery: Delivery, order: &Order<'_>) {
        self.orders.push((delivery, order.number, order.lane));
        let entry = Entry { number: order.number, code: Code::APPLIED, detail: 0, lane: order.lane, ms: 1 };
        if order.number <= self.floors[order.lane.index()] {
            let first = self.ring.iter().find(|ended| ended.number == order.number);
            let detail =
                first.map_or(0, |ended| if ended.code == Code::DUPLICATE { 0 } else { ended.code.0 });
            return self.send_outcomes(&[Entry { code: Code::DUPLICATE, detail, ..entry }]);
        }
        if self.kept.contains(&entry) {
            return self.acknowledge(order);
        }
        self.in_window += 1;
        assert!(self.in_window <= usize::from(self.window_orders), "the window is exceeded");
        // A lane ends its orders in log order.
        let waits = self.kept.iter().any(|kept| kept.lane == order.lane);
        match self.habit {
            Habit::Apply if waits => self.kept.push(entry),
            Habit::Apply => {
                self.apply(entry);
                self.send_outcomes(&[entry]);
            }
            Habit::Ack | Habit::Silent => {
                self.kept.push(entry);
                self.acknowledge(order);
            }
        }
    }

    fn acknowledge(&mut self, order: &Order<'_>) {
        if self.habit != Habit::Silent {
            let (lane, number_low) = (order.lane, order.number as u32);
            self.send(&Frame::Ack(wire_format::frame::Ack { durable: false, lane, number_low }));
        }
    }

    fn apply(&mut self, entry: Entry) {
        *self.effects.entry(entry.number).or_default() += 1;
        self.floors[entry.lane.index()] = entry.number;
        self.ring.push(entry);
    }

    /// Ends everything kept, in log order.
    fn finish(&mut self, code: Code) {
        let mut kept = core::mem::take(&mut self.kept);
        kept.sort_by_key(|entry| entry.number);
        for entry in &mut kept {
            entry.code = code;
            self.apply(*entry);
        }
        self.send_outcomes(&kept);
    }

    fn numbers(&self) -> Vec<u64> {
        self.orders.iter().map(|(_, number, _)| *number).collect()
    }
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

    fn empty(devices: usize, orders: usize, change: impl FnOnce(&mut FleetConfig)) -> Self {
        let now = Instant::from_millis(1_000_000);
        let mut config = FleetConfig::new(NodeId([0xAA; 16]), Store::new(7, "PARIS-12").unwrap(), LINEAGE);
        change(&mut config);
        let slots = vec![DeviceSlot::EMPTY; devices];
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

    /// One order of a lane to these devices of all.
    fn submit_to(&mut self, lane: Lane, lifetime: Option<Duration>, payload: usize, to: &[usize]) -> u64 {
        let mut marks = vec![0; self.devices.len()];
        to.iter().for_each(|&number| marks[number] = Mark::PENDING.0);
        self.number += 1;
        let order = new_order(self.number, lane, KindFlags::IDEMPOTENT, lifetime, payload, marks);
        self.fleet.submit(self.now, order).expect("taken");
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
        self.fleet.submit(self.now, order).expect("taken");
        self.drain();
        self.number
    }

    /// Lets everything happen that is due now.
    fn drain(&mut self) {
        while self.step() {}
        if self.devices.len() <= 64 {
            self.fleet.check();
        }
    }

    fn step(&mut self) -> bool {
        let mut busy = false;
        while let Some((device, why)) = self.fleet.poll_close() {
            self.devices[self.at[device.0 as usize]].connected = false;
            self.devices[self.at[device.0 as usize]].bytes.clear();
            self.devices[self.at[device.0 as usize]].answers.clear();
            self.closed.push((device, why));
            busy = true;
        }
        while let Some(event) = self.fleet.poll_event() {
            self.events.push(event);
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
