//! Floor 1: the state machines, with the other side played by bytes made on the spot.

use std::time::Duration;

use discovery::{Arrival, LinkId, Roster, Slot};
use push::fleet::{DeviceIndex, DeviceSlot, Event, Fleet, NewDevice, NewOrder, OrderSlot};
use push::receiver::{Fixed, Receiver, ReceiverConfig, Verdict};
use push::{FleetConfig, Mark};
use wire_format::frame::outcome::{self, Code, Entry};
use wire_format::frame::settled::Settled;
use wire_format::frame::welcome::{LogFloors, Started, Welcome};
use wire_format::ids::{DeviceKind, Lane, Lineage, NodeId, Store, Tags};
use wire_format::time::Instant;

use super::Scenario;
use super::wire::order;

const DEVICES: usize = 100;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "fleet_fan_out_per_device", build: fleet_fan_out, operations: DEVICES as u64 },
        Scenario { name: "receiver_order", build: receiver_order, operations: 1 },
        Scenario { name: "roster_refresh", build: roster_refresh, operations: 1 },
    ]
}

fn store() -> Store {
    Store::new(1, "PARIS-12").expect("a store")
}

fn id(n: usize) -> NodeId {
    NodeId((n as u128 + 1).to_le_bytes())
}

fn delivery_ms(lifetime: Duration) -> Option<u32> {
    Some(wire_format::frame::order::Delivery::millis(lifetime))
}

type BenchFleet = Fleet<Box<[DeviceSlot]>, Box<[OrderSlot<Vec<u8>, Vec<u8>>]>, Vec<u8>, Vec<u8>>;

/// A fleet whose devices all have an open session.
fn open_fleet(scratch: &mut [u8]) -> BenchFleet {
    let config = FleetConfig::new(NodeId([0xFE; 16]), store(), Lineage([3; 16]));
    let devices = (0..DEVICES).map(|_| DeviceSlot::EMPTY).collect();
    let orders = (0..4).map(|_| OrderSlot::EMPTY).collect();
    let mut now = Instant::from_millis(1);
    let mut fleet = BenchFleet::new(config, devices, orders, now, 1);
    for n in 0..DEVICES {
        let address = ([10, 0, 0, n as u8 + 1], 8081).into();
        fleet.add_device(now, NewDevice { id: Some(id(n)), address: Some(address) }).expect("room");
    }
    let mut open = 0;
    while open < DEVICES {
        now = now + Duration::from_millis(1);
        fleet.handle_timeout(now);
        while let Some(dial) = fleet.poll_dial(now) {
            fleet.handle_connected(now, dial.device);
        }
        while let Some(device) = transmit(&mut fleet, now, scratch) {
            let mut frame = [0; 512];
            let len = welcome(id(device.0 as usize)).emit(&mut frame).expect("fits");
            let input = fleet.handle_bytes(now, device, &frame[..len]).expect("a WELCOME");
            assert_eq!(input.consumed, len);
            while fleet.poll_event().is_some() {}
            open += 1;
        }
    }
    fleet
}

fn transmit(fleet: &mut BenchFleet, now: Instant, scratch: &mut [u8]) -> Option<DeviceIndex> {
    let transmit = fleet.poll_transmit(now, scratch)?;
    let (device, len) = (transmit.device, transmit.head.len() + transmit.body.len());
    fleet.handle_written(now, device, len);
    Some(device)
}

fn welcome(device: NodeId) -> Welcome<'static> {
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
        window_orders: 16,
        window_bytes: 16 << 10,
        max_body: 65_536,
        features: 0,
        tags: Tags::EMPTY,
        durable: LogFloors::default(),
        volatile: LogFloors { lineage: Lineage([3; 16]), ..LogFloors::default() },
        started: Started::EMPTY,
    }
}

/// One order to every device: submitted, planned, written, answered and settled. Counted per device.
fn fleet_fan_out() -> Box<dyn FnMut()> {
    let mut scratch = vec![0; 4_096];
    let mut fleet = open_fleet(&mut scratch);
    let lifetime = Duration::from_secs(86_400);
    let (mut frame, mut marks) = (vec![0; 512], vec![Mark::PENDING.0; DEVICES]);
    let mut number = 0;
    Box::new(move || {
        number += 1;
        let now = Instant::from_millis(1_000) + Duration::from_micros(number);
        let order = order(number, &[0x5A; 200]);
        let delivery = wire_format::frame::order::Delivery {
            durable: false,
            replay: false,
            needs_result: false,
            remaining_ms: delivery_ms(lifetime),
        };
        frame.resize(512, 0);
        let len = order.emit(&delivery, &mut frame).expect("fits");
        frame.truncate(len);
        marks.fill(Mark::PENDING.0);
        let new = NewOrder {
            number,
            lane: Lane::Normal,
            kind_flags: order.kind_flags,
            lifetime: Some(lifetime),
            frame: core::mem::take(&mut frame),
            first: DeviceIndex(0),
            marks: core::mem::take(&mut marks),
        };
        fleet.submit(now, new).expect("there is room");
        let mut answer = [0; 64];
        let entry = Entry { number, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 0 };
        let len = outcome::emit(false, [entry].into_iter(), &mut answer).expect("fits");
        while transmit(&mut fleet, now, &mut scratch).is_some() {}
        for n in 0..DEVICES {
            let input = fleet.handle_bytes(now, DeviceIndex(n as u32), &answer[..len]).expect("an OUTCOME");
            assert_eq!(input.consumed, len);
            while let Some(event) = fleet.poll_event() {
                if let Event::Settled { frame: back, marks: done, .. } = event {
                    frame = back;
                    marks = done;
                }
            }
        }
        assert_eq!(marks.len(), DEVICES, "the last outcome settles the order");
    })
}

/// A device with the default window.
type Memory = Fixed<32, 16, 4_096, 4_096>;

/// One order through a device: read, handed over, answered, and its SETTLED read.
fn receiver_order() -> Box<dyn FnMut()> {
    let config = ReceiverConfig::new(id(0), store(), 7);
    let mut now = Instant::from_millis(1);
    let mut receiver = Receiver::<_, 4>::new(config, Memory::new(), now);
    let mut scratch = vec![0; 4_096];
    let conn = receiver.handle_connected(now, ([10, 0, 0, 1], 40_000).into()).expect("a slot");
    let hello = hello_bytes(&mut scratch);
    assert_eq!(receiver.handle_bytes(now, conn, &hello).expect("is a HELLO").consumed, hello.len());
    answer(&mut receiver, now, &mut scratch);
    while receiver.poll_event().is_some() {}
    let mut number = 0;
    let mut frame = vec![0; 512];
    Box::new(move || {
        number += 1;
        now = now + Duration::from_micros(10);
        let delivery = wire_format::frame::order::Delivery {
            durable: false,
            replay: false,
            needs_result: false,
            remaining_ms: Some(60_000),
        };
        let len = order(number, &[0x5A; 200]).emit(&delivery, &mut frame).expect("fits");
        let input = receiver.handle_bytes(now, conn, &frame[..len]).expect("an order");
        let delivered = input.order().expect("is handed over");
        receiver.complete(now, delivered.ticket, Verdict::Applied, None);
        assert_eq!(answer(&mut receiver, now, &mut scratch), 36, "one OUTCOME with one entry");
        let settled = Settled { durable: false, lane: Lane::Normal, number };
        let len = settled.emit(&mut frame).expect("fits");
        receiver.handle_bytes(now, conn, &frame[..len]).expect("is taken");
    })
}

/// Writes all that is due; bytes written.
fn answer(receiver: &mut Receiver<Memory, 4>, now: Instant, scratch: &mut [u8]) -> usize {
    let mut bytes = 0;
    while let Some(transmit) = receiver.poll_transmit(now, scratch) {
        let (conn, len) = (transmit.conn, transmit.head.len() + transmit.body.len());
        receiver.handle_written(now, conn, len);
        bytes += len;
    }
    bytes
}

/// A HELLO for device 0, as a fleet sends it.
fn hello_bytes(scratch: &mut [u8]) -> Vec<u8> {
    let config = FleetConfig::new(NodeId([0xFE; 16]), store(), Lineage([3; 16]));
    let now = Instant::from_millis(1);
    let mut fleet: Fleet<_, _, Vec<u8>, Vec<u8>> =
        Fleet::new(config, [const { DeviceSlot::EMPTY }; 1], [const { OrderSlot::EMPTY }; 1], now, 1);
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

/// A device refreshes its registration: read, matched, acknowledged.
fn roster_refresh() -> Box<dyn FnMut()> {
    let slots = vec![Slot::EMPTY; 1_024].into_boxed_slice();
    let mut now = Instant::from_millis(1);
    let mut roster = Roster::new(discovery::ServerConfig::new(NodeId([0xFE; 16]), store()), slots, now, 1);
    let link = LinkId(0);
    roster.link_up(now, link);
    let mut device = discovery::Seeker::new(discovery::DeviceConfig::new(id(0), store()), now, 2);
    device.link_up(now, link);
    let server_at = std::net::SocketAddrV4::new([10, 0, 0, 254].into(), 57_854);
    let device_at = std::net::SocketAddrV4::new([10, 0, 0, 1].into(), 57_854);
    let mut buffer = [0; 1_200];
    let mut announce = Vec::new();
    // Let the two find each other; the last ANNOUNCE is the one that is repeated.
    for _ in 0..2_000 {
        now = now + Duration::from_millis(10);
        roster.handle_timeout(now);
        device.handle_timeout(now);
        while let Some(sent) = roster.poll_transmit(now, &mut buffer) {
            let broadcast = matches!(sent.to, discovery::Destination::Broadcast(_));
            let arrival = Arrival { link, source: server_at, broadcast };
            let _ = device.handle_datagram(now, &arrival, &buffer[..sent.len]);
        }
        while let Some(sent) = device.poll_transmit(now, &mut buffer) {
            let broadcast = matches!(sent.to, discovery::Destination::Broadcast(_));
            if !broadcast {
                announce = buffer[..sent.len].to_vec();
            }
            let _ = roster.handle_datagram(
                now,
                &Arrival { link, source: device_at, broadcast },
                &buffer[..sent.len],
            );
        }
        while roster.poll_event().is_some() {}
        while device.poll_event().is_some() {}
    }
    assert_eq!(roster.len(), 1, "they found each other");
    let mut sequence = u32::from_le_bytes(announce[36..40].try_into().expect("4 bytes"));
    let arrival = Arrival { link, source: device_at, broadcast: false };
    Box::new(move || {
        sequence += 1;
        // Slow enough for the limit per source.
        now = now + Duration::from_millis(100);
        announce[36..40].copy_from_slice(&sequence.to_le_bytes());
        roster.handle_datagram(now, &arrival, &announce).expect("a refresh");
        while roster.poll_transmit(now, &mut buffer).is_some() {}
    })
}
