//! Floor 1, the device's half of order push, with the server played by bytes made on the spot.

use std::time::Duration;

use push::FleetConfig;
use push::fleet::{DeviceSlot, DeviceTables, Fleet, NewDevice, OrderSlot, TrackSlot};
use push::receiver::{ConnId, Fixed, Receiver, ReceiverConfig, Verdict};
use wire_format::frame::Order;
use wire_format::frame::settled::Settled;
use wire_format::ids::{Lane, Lineage, NodeId};
use wire_format::time::Instant;

use super::wire::{delivery, order};
use super::{Scenario, id, store};

/// Orders that come in one read.
const GATHERED: usize = 64;
const LIFETIME: Duration = Duration::from_secs(60);

pub(super) fn scenarios() -> Vec<Scenario> {
    let one = |name, build| Scenario { name, build, operations: 1 };
    vec![
        one("receiver_order", inline),
        one("receiver_order_later", later),
        one("receiver_order_keyed", keyed),
        Scenario { name: "receiver_gathered_per_order", build: gathered, operations: GATHERED as u64 },
    ]
}

/// A device whose window takes all that is gathered.
type Memory = Fixed<{ 2 * GATHERED }, 16, 4_096, 4_096>;

/// A device that is served.
struct Rig {
    receiver: Receiver<Memory, 4>,
    conn: ConnId,
    now: Instant,
    number: u64,
    scratch: Vec<u8>,
    frames: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        let mut config = ReceiverConfig::new(id(0), store(), 7);
        config.window_orders = GATHERED as u16;
        let now = Instant::from_millis(1);
        let mut receiver = Receiver::<_, 4>::new(config, Memory::new(), now);
        let mut scratch = vec![0; 4_096];
        let conn = receiver.handle_connected(now, ([10, 0, 0, 1], 40_000).into()).expect("a slot");
        let hello = hello_bytes(&mut scratch);
        assert_eq!(receiver.handle_bytes(now, conn, &hello).expect("is a HELLO").consumed, hello.len());
        let mut rig = Self { receiver, conn, now, number: 0, scratch, frames: vec![0; 512 * GATHERED] };
        rig.answer();
        while rig.receiver.poll_event().is_some() {}
        rig
    }

    /// So many new orders, one after the other; their bytes.
    fn encode(&mut self, orders: usize) -> usize {
        let mut at = 0;
        for _ in 0..orders {
            at += self.encode_at(at, 0, 0);
        }
        at
    }

    /// A new order at this place, under these keys; its bytes.
    fn encode_at(&mut self, at: usize, order_key: u64, supersede_key: u64) -> usize {
        self.now = self.now + Duration::from_micros(10);
        self.number += 1;
        let supersede_version = if supersede_key == 0 { 0 } else { self.number };
        let order = Order { order_key, supersede_key, supersede_version, ..order(self.number, &[0x5A; 200]) };
        order.emit(&delivery(LIFETIME), &mut self.frames[at..]).expect("fits")
    }

    /// Writes all that is due; bytes written.
    fn answer(&mut self) -> usize {
        let mut bytes = 0;
        while let Some(transmit) = self.receiver.poll_transmit(self.now, &mut self.scratch) {
            let (conn, len) = (transmit.conn, transmit.head.len() + transmit.body.len());
            self.receiver.handle_written(self.now, conn, len);
            bytes += len;
        }
        bytes
    }

    /// The server has every outcome so far.
    fn settle(&mut self) {
        let settled = Settled { durable: false, lane: Lane::Normal, number: self.number };
        let len = settled.emit(&mut self.frames).expect("fits");
        self.receiver.handle_bytes(self.now, self.conn, &self.frames[..len]).expect("is taken");
    }
}

/// One order through a device: encoded, read, handed over, answered at once, and its SETTLED read.
fn inline() -> Box<dyn FnMut()> {
    let mut rig = Rig::new();
    Box::new(move || {
        let len = rig.encode(1);
        let input = rig.receiver.handle_bytes(rig.now, rig.conn, &rig.frames[..len]).expect("an order");
        let ticket = input.order().expect("is handed over").ticket;
        rig.receiver.complete(rig.now, ticket, Verdict::Applied, None);
        assert_eq!(rig.answer(), 36, "one OUTCOME with one entry");
        rig.settle();
    })
}

/// The same, answered later; an ACK may leave before.
fn later() -> Box<dyn FnMut()> {
    let mut rig = Rig::new();
    Box::new(move || {
        let len = rig.encode(1);
        let input = rig.receiver.handle_bytes(rig.now, rig.conn, &rig.frames[..len]).expect("an order");
        let ticket = input.order().expect("is handed over").ticket;
        rig.receiver.complete(rig.now, ticket, Verdict::Later, None);
        assert!(rig.answer() <= 16, "an ACK at most");
        rig.receiver.complete(rig.now, ticket, Verdict::Applied, None);
        assert_eq!(rig.answer(), 36, "one OUTCOME with one entry");
        rig.settle();
    })
}

/// One order with a key of its own that supersedes the one before: both tables of keys are asked and written.
fn keyed() -> Box<dyn FnMut()> {
    let mut rig = Rig::new();
    Box::new(move || {
        let len = rig.encode_at(0, rig.number + 1, 7);
        let input = rig.receiver.handle_bytes(rig.now, rig.conn, &rig.frames[..len]).expect("an order");
        let ticket = input.order().expect("is handed over").ticket;
        rig.receiver.complete(rig.now, ticket, Verdict::Applied, None);
        assert_eq!(rig.answer(), 36, "one OUTCOME with one entry");
        rig.settle();
    })
}

/// 64 orders of one read, answered by one OUTCOME. Counted per order.
fn gathered() -> Box<dyn FnMut()> {
    let mut rig = Rig::new();
    Box::new(move || {
        let len = rig.encode(GATHERED);
        let mut at = 0;
        while at < len {
            let input = rig.receiver.handle_bytes(rig.now, rig.conn, &rig.frames[at..len]).expect("an order");
            at += input.consumed;
            let ticket = input.order().expect("is handed over").ticket;
            rig.receiver.complete(rig.now, ticket, Verdict::Applied, None);
        }
        assert_eq!(rig.answer(), 16 + 16 * GATHERED + 4, "one OUTCOME");
        rig.settle();
    })
}

/// A HELLO for device 0, as a fleet sends it.
fn hello_bytes(scratch: &mut [u8]) -> Vec<u8> {
    let config = FleetConfig::new(NodeId([0xFE; 16]), store(), Lineage([3; 16]));
    let now = Instant::from_millis(1);
    let devices = DeviceTables { slots: [DeviceSlot::EMPTY], logs: [TrackSlot::EMPTY] };
    let mut fleet: Fleet<_, _, Vec<u8>, Vec<u8>> =
        Fleet::new(config, devices, [const { OrderSlot::EMPTY }; 1], now, 1);
    fleet
        .add_device(now, NewDevice { id: Some(id(0)), address: Some(([10, 0, 0, 1], 8081).into()) })
        .expect("room");
    let later = now + Duration::from_secs(1);
    fleet.handle_timeout(later);
    let dial = fleet.poll_dial(later).expect("is dialled");
    fleet.handle_connected(later, dial.device);
    let transmit = fleet.poll_transmit(later, scratch).expect("says HELLO");
    [transmit.head, transmit.body].concat()
}
