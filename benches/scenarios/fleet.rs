//! Floor 1, the server's half of order push, with the devices played by bytes made on the spot.
//!
//! Every scenario takes an order from its encoding to its end, for only then its memory can be used again: what one step
//! takes is the difference of two scenarios. Acknowledging is `fleet_one_order_acked` less `fleet_one_order`; what a
//! further device costs a fan-out is `fleet_fan_out_per_device`; what gathering saves is `fleet_one_order` less
//! `fleet_pipelined_per_order`.

use std::time::Duration;

use push::config::LogId;
use push::fleet::{
    DeviceIndex, DeviceSlot, DeviceTables, Event, Fleet, NewDevice, NewOrder, OrderSlot, Trace, TrackSlot,
};
use push::{FleetConfig, Mark};
use wire_format::frame::order::Delivery;
use wire_format::frame::outcome::{self, Code, ENTRIES_MAX, Entry};
use wire_format::frame::welcome::{LogFloors, Started, Welcome};
use wire_format::frame::{Ack, Order};
use wire_format::ids::{DeviceKind, Lane, Lineage, NodeId, Tags};
use wire_format::time::Instant;

use super::wire::{delivery, order};
use super::{Scenario, id, store};

/// Devices of a fan-out.
const DEVICES: usize = 100;
/// Orders of a pipelined write: the most a plan gathers, and the most an OUTCOME answers.
const PIPELINED: usize = ENTRIES_MAX;
const LIFETIME: Duration = Duration::from_secs(86_400);
/// Bytes of everything gathered into one write.
const SCRATCH: usize = 64 << 10;

pub(super) fn scenarios() -> Vec<Scenario> {
    let one = |name, build| Scenario { name, build, operations: 1 };
    vec![
        Scenario { name: "fleet_fan_out_per_device", build: fan_out, operations: DEVICES as u64 },
        Scenario { name: "fleet_withdrawn_per_device", build: withdrawn, operations: DEVICES as u64 },
        Scenario { name: "fleet_superseded_per_device", build: superseded, operations: DEVICES as u64 },
        Scenario { name: "fleet_pipelined_per_order", build: pipelined, operations: PIPELINED as u64 },
        one("fleet_one_order", one_order),
        one("fleet_one_order_acked", one_order_acked),
        one("fleet_durable_order", durable_order),
        one("fleet_idle_turn", idle_turn),
    ]
}

type Slots = DeviceTables<Box<[DeviceSlot]>, Box<[TrackSlot]>>;
type BenchFleet = Fleet<Slots, Box<[OrderSlot<Vec<u8>, Vec<u8>>]>, Vec<u8>, Vec<u8>>;

/// A fleet, and the buffers its orders go round in.
struct Rig {
    fleet: BenchFleet,
    scratch: Vec<u8>,
    frames: Vec<Vec<u8>>,
    marks: Vec<Vec<u8>>,
    number: u64,
    devices: usize,
    /// Orders that ended since this was looked at.
    ended: usize,
}

impl Rig {
    /// Devices that are known and away, and room for so many orders.
    fn away(devices: usize, orders: usize) -> Self {
        let mut config = FleetConfig::new(NodeId([0xFE; 16]), store(), Lineage([3; 16]));
        config.durable = Some(LogId::new(Lineage([4; 16]), 5, 1));
        let slots = DeviceTables {
            slots: (0..devices).map(|_| DeviceSlot::EMPTY).collect(),
            logs: (0..2 * devices).map(|_| TrackSlot::EMPTY).collect(),
        };
        let now = Instant::from_millis(1);
        let mut fleet = Fleet::new(config, slots, (0..orders).map(|_| OrderSlot::EMPTY).collect(), now, 1);
        for n in 0..devices {
            let address = ([10, 0, 0, n as u8 + 1], 8081).into();
            fleet.add_device(now, NewDevice { id: Some(id(n)), address: Some(address) }).expect("room");
        }
        Self {
            fleet,
            scratch: vec![0; SCRATCH],
            frames: vec![vec![0; 512]; orders],
            marks: vec![Vec::with_capacity(devices); orders],
            number: 0,
            devices,
            ended: 0,
        }
    }

    /// The same with an open session each, and a window of so many orders.
    fn open(devices: usize, orders: usize) -> Self {
        let mut rig = Self::away(devices, orders);
        let window = u16::try_from(orders + 2).expect("a window");
        let mut now = Instant::from_millis(1);
        let mut open = 0;
        while open < devices {
            now = now + Duration::from_millis(1);
            rig.fleet.handle_timeout(now);
            while let Some(dial) = rig.fleet.poll_dial(now) {
                rig.fleet.handle_connected(now, dial.device);
            }
            while let Some((device, _)) = rig.transmit(now) {
                let mut frame = [0; 512];
                let len = welcome(id(device.0 as usize), window).emit(&mut frame).expect("fits");
                rig.hear(now, device, &frame[..len]);
                open += 1;
            }
        }
        rig
    }

    /// Time goes on a little with each order.
    fn now(&self) -> Instant {
        Instant::from_millis(1_000) + Duration::from_micros(self.number)
    }

    /// Encodes an order for everybody and submits it.
    fn submit(&mut self, now: Instant) -> u64 {
        self.submit_as(now, 0, false)
    }

    /// The same under a supersede key, 0 for none, in one of the two logs.
    fn submit_as(&mut self, now: Instant, supersede_key: u64, durable: bool) -> u64 {
        self.number += 1;
        let supersede_version = if supersede_key == 0 { 0 } else { self.number };
        let order = Order { supersede_key, supersede_version, ..order(self.number, &[0x5A; 200]) };
        let mut frame = self.frames.pop().expect("one for each order");
        frame.resize(512, 0);
        let len = order.emit(&Delivery { durable, ..delivery(LIFETIME) }, &mut frame).expect("fits");
        frame.truncate(len);
        let mut marks = self.marks.pop().expect("one for each order");
        marks.clear();
        marks.resize(self.devices, Mark::PENDING.0);
        let new = NewOrder {
            number: self.number,
            lane: Lane::Normal,
            kind_flags: order.kind_flags,
            lifetime: Some(LIFETIME),
            frame,
            first: DeviceIndex(0),
            marks,
        };
        self.fleet.submit(now, new).expect("there is room");
        self.number
    }

    /// One write, reported as whole.
    fn transmit(&mut self, now: Instant) -> Option<(DeviceIndex, usize)> {
        let transmit = self.fleet.poll_transmit(now, &mut self.scratch)?;
        let (device, len) = (transmit.device, transmit.head.len() + transmit.body.len());
        self.fleet.handle_written(now, device, len);
        Some((device, len))
    }

    /// One frame of a device.
    fn hear(&mut self, now: Instant, device: DeviceIndex, bytes: &[u8]) {
        let consumed = self.fleet.handle_bytes(now, device, bytes).expect("a frame").consumed;
        assert_eq!(consumed, bytes.len());
        self.drain();
    }

    /// What is to be logged is on disk at once: what that takes is the outbox's.
    fn drain(&mut self) {
        let now = self.now();
        while let Some(event) = self.fleet.poll_event() {
            match event {
                Event::Settled { frame, marks, .. } => {
                    self.frames.push(frame);
                    self.marks.push(marks);
                    self.ended += 1;
                }
                Event::Log(entry) => assert!(self.fleet.logged(now, entry), "there is room to tell it"),
                Event::Trace(Trace { device, boot, open: true, .. }) => self.fleet.traced(now, device, boot),
                _ => {}
            }
        }
    }

    fn expect_ended(&mut self, orders: usize) {
        assert_eq!(core::mem::take(&mut self.ended), orders, "every order settles");
    }
}

fn welcome(device: NodeId, window_orders: u16) -> Welcome<'static> {
    Welcome {
        version: 1,
        staging: false,
        floors_persisted: false,
        journal_lost: false,
        kind: DeviceKind::TILL,
        device,
        boot: 7,
        fence: 1,
        server: NodeId([0xFE; 16]),
        zone: 0,
        window_orders,
        window_bytes: 256 << 10,
        max_body: 65_536,
        features: 0,
        tags: Tags::EMPTY,
        durable: LogFloors::default(),
        volatile: LogFloors { lineage: Lineage([3; 16]), ..LogFloors::default() },
        started: Started::EMPTY,
    }
}

/// An OUTCOME of so many orders from `first`.
fn applied(first: u64, count: usize, room: &mut [u8]) -> usize {
    applied_in(false, first, count, room)
}

fn applied_in(durable: bool, first: u64, count: usize, room: &mut [u8]) -> usize {
    let entry = |number| Entry { number, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 0 };
    outcome::emit(durable, (0..count).map(|at| entry(first + at as u64)), room).expect("fits")
}

/// One order to every device: encoded, submitted, planned, written, answered and settled. Counted per device.
fn fan_out() -> Box<dyn FnMut()> {
    let mut rig = Rig::open(DEVICES, 1);
    Box::new(move || {
        let now = rig.now();
        let number = rig.submit(now);
        let mut answer = [0; 64];
        let len = applied(number, 1, &mut answer);
        while rig.transmit(now).is_some() {}
        for n in 0..DEVICES {
            rig.hear(now, DeviceIndex(n as u32), &answer[..len]);
        }
        rig.expect_ended(1);
    })
}

/// One order to devices that are away, withdrawn at once: what submitting, cancelling and ending take. Counted per device.
fn withdrawn() -> Box<dyn FnMut()> {
    let mut rig = Rig::away(DEVICES, 1);
    Box::new(move || {
        let now = rig.now();
        let number = rig.submit(now);
        assert!(rig.fleet.cancel(now, number));
        rig.drain();
        rig.expect_ended(1);
    })
}

/// An order to devices that are away takes the place of the one before under its key. Counted per device.
fn superseded() -> Box<dyn FnMut()> {
    let mut rig = Rig::away(DEVICES, 2);
    rig.submit_as(rig.now(), 7, false);
    Box::new(move || {
        let now = rig.now();
        rig.submit_as(now, 7, false);
        rig.drain();
        rig.expect_ended(1);
    })
}

/// 64 orders to one device in one write, answered by one OUTCOME. Counted per order.
fn pipelined() -> Box<dyn FnMut()> {
    let mut rig = Rig::open(1, PIPELINED);
    Box::new(move || {
        let now = rig.now();
        let first = rig.number + 1;
        for _ in 0..PIPELINED {
            rig.submit(now);
        }
        let mut writes = 0;
        while rig.transmit(now).is_some() {
            writes += 1;
        }
        // A SETTLED for the orders before takes a place in the plan.
        assert!(writes <= 2, "they leave together");
        let mut answer = [0; 1_100];
        let len = applied(first, PIPELINED, &mut answer);
        rig.hear(now, DeviceIndex(0), &answer[..len]);
        rig.expect_ended(PIPELINED);
    })
}

/// One order to one device, from the push to its end.
fn one_order() -> Box<dyn FnMut()> {
    one_order_after(|_| None)
}

/// The same with an ACK before the outcome.
fn one_order_acked() -> Box<dyn FnMut()> {
    one_order_after(|number| Some(Ack { durable: false, lane: Lane::Normal, number_low: number as u32 }))
}

fn one_order_after(ack: impl Fn(u64) -> Option<Ack> + 'static) -> Box<dyn FnMut()> {
    let mut rig = Rig::open(1, 1);
    Box::new(move || {
        let now = rig.now();
        let number = rig.submit(now);
        while rig.transmit(now).is_some() {}
        let mut answer = [0; 64];
        if let Some(ack) = ack(number) {
            let len = ack.emit(&mut answer).expect("fits");
            rig.hear(now, DeviceIndex(0), &answer[..len]);
        }
        let len = applied(number, 1, &mut answer);
        rig.hear(now, DeviceIndex(0), &answer[..len]);
        rig.expect_ended(1);
    })
}

/// One order of the durable log to one device, its end told, logged, and told again.
fn durable_order() -> Box<dyn FnMut()> {
    let mut rig = Rig::open(1, 1);
    Box::new(move || {
        let now = rig.now();
        let number = rig.submit_as(now, 0, true);
        while rig.transmit(now).is_some() {}
        let mut answer = [0; 64];
        let len = applied_in(true, number, 1, &mut answer);
        rig.hear(now, DeviceIndex(0), &answer[..len]);
        rig.expect_ended(1);
    })
}

/// A driver's turn with nothing to do, over 100 devices with open sessions.
fn idle_turn() -> Box<dyn FnMut()> {
    let mut rig = Rig::open(DEVICES, 1);
    let now = rig.now();
    rig.fleet.handle_timeout(now);
    Box::new(move || {
        rig.fleet.handle_timeout(now);
        assert!(rig.fleet.poll_dial(now).is_none());
        assert!(rig.transmit(now).is_none());
        assert!(rig.fleet.poll_close().is_none());
        rig.drain();
        assert!(rig.fleet.poll_timeout().is_some());
    })
}
