//! Order push: any list of operations against a server's fleet and a device's receiver that are connected to each other,
//! while a hostile device talks to the fleet and a hostile server to the receiver.
//!
//! What has to hold whatever happens: an order ends exactly once per device and a final mark never changes; APPLIED is
//! never invented; an order that may not run twice does not; a lane is applied in log order, one order at a time, and no
//! order starts after its lifetime; pieces come in order; nobody speaks before a right HELLO; no timer stays and no table
//! grows.

mod asks;
mod device;
mod drain;
mod frames;
mod seeds;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use push::fleet::{
    AskId, DeviceSlot, DeviceTables, Input, NewDevice, NewOrder, OrderSlot, Question, TrackSlot,
};
use push::receiver::{ConnId, Fixed, Receiver, ReceiverConfig};
use push::{Closed, DeviceIndex, DialError, Fleet, FleetConfig, Mark};
use wire_format::frame::order::{Delivery, KindFlags};
use wire_format::frame::{Kind, Raw};
use wire_format::ids::{Lane, Lineage, NodeId, Store};
use wire_format::time::Instant;

use super::Source;
use device::Application;
use frames::Parties;
pub(super) use seeds::seeds;

const HONEST: DeviceIndex = DeviceIndex(0);
const HOSTILE: DeviceIndex = DeviceIndex(1);
const LINEAGE: Lineage = Lineage([0xEE; 16]);
const ORDERS: usize = 4;
const RING: usize = 8;
/// Writes, closes and events of one drain: every table has fewer entries.
const DRAIN_MAX: usize = 512;

type Slots = DeviceTables<Vec<DeviceSlot>, Vec<TrackSlot>>;
type OrderSlots = Vec<OrderSlot<Vec<u8>, Vec<u8>>>;

/// Any bytes as a list of operations.
///
/// # Panics
///
/// If an invariant is broken.
pub fn session_ops(data: &[u8]) {
    drop(run(data));
}

fn run(data: &[u8]) -> World {
    let mut source = Source(data);
    let mut world = World::new(source.u8());
    for _ in 0..400 {
        if source.is_empty() {
            break;
        }
        world.operation(&mut source);
        world.drain();
        world.check();
    }
    world
}

/// One direction of a connection: bytes under way, and how many more fit.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    room: usize,
}

impl Pipe {
    /// Takes what fits; bytes taken.
    fn write(&mut self, parts: &[&[u8]]) -> usize {
        let all = parts.concat();
        let len = all.len().min(self.room);
        self.room -= len;
        self.bytes.extend_from_slice(&all[..len]);
        len
    }
}

/// What the receiver's side of a connection is, and whether a right HELLO went in.
#[derive(Default)]
struct Peer {
    conn: Option<ConnId>,
    greeted: bool,
}

struct World {
    fleet: Fleet<Slots, OrderSlots, Vec<u8>, Vec<u8>>,
    receiver: Receiver<Memory, 3>,
    now: Instant,
    boot: u64,
    last_number: u64,
    dials: Vec<DeviceIndex>,
    down: Pipe,
    up: Pipe,
    /// What the hostile device has said and the fleet has not read; room for what the fleet says to it.
    hostile_up: Vec<u8>,
    hostile_room: usize,
    /// The same for the hostile server.
    hostile_down: Vec<u8>,
    honest: Peer,
    hostile: Peer,
    application: Application,
    /// Per log of the device: what was handed over last in each lane.
    handed: HashMap<bool, (Lineage, [u64; 4])>,
    applied: HashMap<u64, u32>,
    idempotent: HashSet<u64>,
    marks: HashMap<u64, Vec<u8>>,
    ended: HashSet<(DeviceIndex, u64)>,
    /// Questions of the server without an end; questions of devices, the latest first.
    asked: HashSet<AskId>,
    questions: Vec<Question>,
}

impl World {
    fn new(mode: u8) -> Self {
        let now = Instant::from_millis(1_000);
        let config = FleetConfig::new(NodeId([0xA; 16]), store(), LINEAGE);
        let config = FleetConfig { run: 3, answers_questions: true, ..config };
        let devices = DeviceTables { slots: vec![DeviceSlot::EMPTY; 2], logs: vec![TrackSlot::EMPTY; 2] };
        let orders = (0..ORDERS).map(|_| OrderSlot::EMPTY).collect();
        let mut fleet = Fleet::new(config, devices, orders, now, u64::from(mode));
        for (index, known) in [(1, mode & 1 == 0), (2, mode & 2 == 0)] {
            let id = known.then_some(NodeId([index; 16]));
            let added = fleet.add_device(now, NewDevice { id, address: Some(address(index)) });
            assert_eq!(added, Ok(DeviceIndex(u32::from(index) - 1)));
        }
        Self {
            fleet,
            receiver: receiver(1, now),
            now,
            boot: 1,
            last_number: 0,
            dials: Vec::new(),
            down: Pipe::default(),
            up: Pipe::default(),
            hostile_up: Vec::new(),
            hostile_room: 0,
            hostile_down: Vec::new(),
            honest: Peer::default(),
            hostile: Peer::default(),
            application: Application::default(),
            handed: HashMap::new(),
            applied: HashMap::new(),
            idempotent: HashSet::new(),
            marks: HashMap::new(),
            ended: HashSet::new(),
            asked: HashSet::new(),
            questions: Vec::new(),
        }
    }

    fn operation(&mut self, source: &mut Source<'_>) {
        match source.u8() % 20 {
            0 => self.wait(Duration::from_millis(u64::from(source.u16()))),
            1 => self.wait(Duration::from_millis(u64::from(source.u8()))),
            2 => self.submit(source),
            3 => self.answer_dial(source.u8()),
            4 => self.carry_down(usize::from(source.u8()) * 8),
            5 => self.carry_up(usize::from(source.u8()) * 8),
            6 => {
                self.carry_down(usize::MAX);
                self.carry_up(usize::MAX);
            }
            7 => self.cut(source.u8()),
            8 => {
                let frame = frames::of_device(source, parties(2));
                self.hostile_up.extend_from_slice(&frame);
                self.hostile_room += usize::from(source.u8()) * 64;
                self.fleet.handle_writable(self.now, HOSTILE);
                self.read_hostile_device();
            }
            9 => {
                let frame = frames::of_server(source, Parties { lineage: Lineage([1; 16]), ..parties(1) });
                self.hostile_down.extend_from_slice(&frame);
                self.read_hostile_server();
            }
            10 => {
                let (len, to_fleet) = (usize::from(source.u8()), source.bool());
                let bytes = source.bytes(len);
                if to_fleet { &mut self.hostile_up } else { &mut self.hostile_down }.extend_from_slice(bytes);
                self.read_hostile_device();
                self.read_hostile_server();
            }
            11 => self.complete(source.u8()),
            12 => self.make_room(source.u8()),
            13 => self.reboot(),
            14 => self.connect_hostile_server(),
            15 => self.administer(source.u8()),
            16 => self.speak(source.u8()),
            17 => self.ask(source),
            18 => self.reply(source.u8()),
            _ => self.submit_blob(source),
        }
    }

    fn submit(&mut self, source: &mut Source<'_>) {
        let [mask, lane, flags, lifetime] = source.array();
        let lane = Lane::new(lane % 4).unwrap_or_default();
        let kind_flags = if flags & 1 != 0 { KindFlags::IDEMPOTENT } else { KindFlags::NONE };
        let lifetime = (lifetime != 0).then(|| Duration::from_millis(u64::from(lifetime) * 100));
        let remaining_ms = lifetime.map(Delivery::millis);
        let delivery = Delivery { durable: false, replay: false, needs_result: false, remaining_ms };
        let number = self.last_number + u64::from(flags >> 6) + u64::from(flags & 2 == 0);
        let len = usize::from(source.u8());
        let frame = frames::order(number, lane, kind_flags, &delivery, source.bytes(len));
        let mark = |bit: u8| if mask & bit != 0 { Mark::PENDING.0 } else { Mark::NOT_TARGETED.0 };
        let marks = vec![mark(1), mark(2)];
        let order = NewOrder { number, lane, kind_flags, lifetime, frame, first: HONEST, marks };
        let live = self.fleet.live_orders();
        if let Ok(submitted) = self.fleet.submit(self.now, order) {
            assert!(number > self.last_number, "a number that does not rise was taken");
            assert!(submitted.targets + submitted.refused == u32::from(mask & 1) + u32::from(mask >> 1 & 1));
            self.last_number = number;
            if kind_flags == KindFlags::IDEMPOTENT {
                self.idempotent.insert(number);
            }
            let (_, marks) = self.fleet.marks(number).expect("a taken order is live");
            self.marks.insert(number, marks.to_vec());
        } else {
            assert_eq!(self.fleet.live_orders(), live, "a refused order left something behind");
        }
    }

    /// The oldest dial gets its answer.
    fn answer_dial(&mut self, how: u8) {
        if self.dials.is_empty() {
            return;
        }
        let device = self.dials.remove(0);
        let error = match how % 8 {
            0 => DialError::Refused,
            1 => DialError::TimedOut,
            2 => DialError::Unreachable,
            _ => return self.connected(device),
        };
        self.fleet.handle_dial_failed(self.now, device, error);
    }

    fn connected(&mut self, device: DeviceIndex) {
        if device == HOSTILE {
            self.hostile_up.clear();
            self.hostile_room = 100_000;
        } else {
            if let Some(old) = self.honest.conn.take() {
                self.receiver.handle_closed(self.now, old);
            }
            let Ok(conn) = self.receiver.handle_connected(self.now, address(9)) else {
                return self.fleet.handle_dial_failed(self.now, device, DialError::Refused);
            };
            self.honest = Peer { conn: Some(conn), greeted: true };
            self.down = Pipe { bytes: Vec::new(), room: 100_000 };
            self.up = Pipe { bytes: Vec::new(), room: 100_000 };
        }
        self.fleet.handle_connected(self.now, device);
    }

    /// Up to `len` bytes from the server reach the device.
    fn carry_down(&mut self, len: usize) {
        let Some(conn) = self.honest.conn else { return };
        let len = len.min(self.down.bytes.len());
        let mut bytes: Vec<u8> = self.down.bytes.drain(..len).collect();
        let unread = self.read_receiver(conn, &mut bytes);
        // What was not used stays first in line.
        unread.then(|| self.down.bytes.splice(..0, bytes));
    }

    /// Up to `len` bytes from the device reach the server.
    fn carry_up(&mut self, len: usize) {
        if self.honest.conn.is_none() {
            return;
        }
        let len = len.min(self.up.bytes.len());
        let mut bytes: Vec<u8> = self.up.bytes.drain(..len).collect();
        if self.read_fleet(HONEST, &mut bytes) {
            self.up.bytes.splice(..0, bytes);
        }
    }

    /// Offers bytes frame by frame; `false` once the session is over.
    fn read_fleet(&mut self, device: DeviceIndex, bytes: &mut Vec<u8>) -> bool {
        loop {
            self.drain_events();
            match self.fleet.handle_bytes(self.now, device, bytes) {
                Ok(Input { consumed: 0, .. }) => return true,
                Ok(Input { consumed, item }) => {
                    if let Some(item) = item {
                        self.told(&item);
                    }
                    bytes.drain(..consumed);
                }
                Err(_) => return false,
            }
        }
    }

    fn read_receiver(&mut self, conn: ConnId, bytes: &mut Vec<u8>) -> bool {
        loop {
            let Ok(input) = self.receiver.handle_bytes(self.now, conn, bytes) else { return false };
            let used = input.consumed;
            if let Some(item) = input.item {
                assert!(used > 0, "something from no bytes");
                self.take_item(item);
            }
            bytes.drain(..used);
            if used == 0 {
                return true;
            }
        }
    }

    fn read_hostile_device(&mut self) {
        let mut bytes = core::mem::take(&mut self.hostile_up);
        if self.read_fleet(HOSTILE, &mut bytes) {
            bytes.truncate(8_192);
            self.hostile_up = bytes;
        }
    }

    fn read_hostile_server(&mut self) {
        let mut bytes = core::mem::take(&mut self.hostile_down);
        let Some(conn) = self.hostile.conn else { return };
        self.hostile.greeted |=
            Raw::parse(bytes.get(..448).unwrap_or(&[])).is_ok_and(|raw| raw.header.kind == Kind::HELLO);
        if self.read_receiver(conn, &mut bytes) {
            bytes.truncate(8_192);
            self.hostile_down = bytes;
        }
    }

    fn make_room(&mut self, how: u8) {
        // Down to a few bytes, or plenty again.
        let room = if how & 0x80 != 0 { usize::from(how & 0x7F) } else { 100_000 };
        self.down.room = room;
        self.up.room = room;
        self.fleet.handle_writable(self.now, HONEST);
        if let Some(conn) = self.honest.conn {
            self.receiver.handle_writable(self.now, conn);
        }
    }

    fn cut(&mut self, how: u8) {
        let closed = [Closed::Eof, Closed::Reset, Closed::TimedOut, Closed::Failed][usize::from(how & 3)];
        if how & 4 != 0 {
            self.hostile_up.clear();
            return self.fleet.handle_closed(self.now, HOSTILE, closed);
        }
        if how & 8 != 0 {
            if let Some(conn) = self.hostile.conn.take() {
                self.receiver.handle_closed(self.now, conn);
            }
            return;
        }
        if let Some(conn) = self.honest.conn.take() {
            self.receiver.handle_closed(self.now, conn);
            self.fleet.handle_closed(self.now, HONEST, closed);
        }
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.application = Application::default();
        self.handed.clear();
        self.hostile = Peer::default();
        if self.honest.conn.take().is_some() {
            self.fleet.handle_closed(self.now, HONEST, Closed::Reset);
        }
        self.receiver = receiver(self.boot, self.now);
    }

    fn connect_hostile_server(&mut self) {
        if let Some(old) = self.hostile.conn.take() {
            self.receiver.handle_closed(self.now, old);
        }
        self.hostile_down.clear();
        self.hostile =
            Peer { conn: self.receiver.handle_connected(self.now, address(66)).ok(), greeted: false };
    }

    fn administer(&mut self, how: u8) {
        match how {
            0 => self.fleet.stop(self.now),
            1 => self.receiver.stop(self.now),
            2 => drop(self.fleet.remove_device(self.now, HOSTILE)),
            3..=127 => self.fleet.set_address(self.now, DeviceIndex(u32::from(how & 1)), address(how)),
            // This side stood still.
            _ => {
                self.now = self.now + Duration::from_millis(u64::from(how) * 50);
                self.fleet.handle_timeout(self.now);
                self.receiver.handle_timeout(self.now);
            }
        }
    }

    /// Time passes as a driver lets it: every deadline is kept, and none stays.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            let due = [self.fleet.poll_timeout(), self.receiver.poll_timeout()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.fleet.handle_timeout(self.now);
            self.receiver.handle_timeout(self.now);
            self.drain();
        }
        panic!("more than 10,000 deadlines in {span:?}");
    }
}

/// What the device keeps.
type Memory = Fixed<RING, 4, 512, 512>;

fn receiver(boot: u64, now: Instant) -> Receiver<Memory, 3> {
    let config = ReceiverConfig {
        window_orders: 4,
        parts: true,
        ..ReceiverConfig::new(NodeId([1; 16]), store(), boot)
    };
    Receiver::new(config, Memory::new(), now)
}

fn store() -> Store {
    Store::new(7, "PARIS-12").expect("a store code")
}

fn parties(device: u8) -> Parties {
    Parties { store: store(), device: NodeId([device; 16]), lineage: LINEAGE }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8_081))
}
