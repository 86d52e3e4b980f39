//! The state machines allocate nothing: a device registers, a session opens, orders are pushed and applied, all under the
//! counting allocator. Only the caller's storage is used.

use std::net::{SocketAddr, SocketAddrV4};

use discovery::auth::{DeviceKeys, Key, KeyRing, Keys, SortedKeys};
use discovery::{Arrival, DeviceConfig, LinkId, Roster, Seeker, ServerConfig, Slot};
use push::fleet::{DeviceSlot, DeviceTables, Event, NewDevice, NewOrder, OrderSlot, TrackSlot};
use push::receiver::{ConnId, Firmware, Receiver, ReceiverConfig, Verdict};
use push::{DeviceIndex, Fleet, FleetConfig, Mark};
use testkit::alloc::{Counting, Counts, count};
use wire_format::frame::order::{Delivery, KindFlags, Order};
use wire_format::frame::outcome::Code;
use wire_format::ids::{Lane, Lineage, NodeId, OrderKind, Store};
use wire_format::time::Instant;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERVER: NodeId = NodeId([0xA; 16]);
const DEVICE: NodeId = NodeId([1; 16]);

fn store() -> Store {
    Store::new(7, "PARIS-12").unwrap()
}

#[test]
fn discovery_allocates_nothing() {
    let mut registered = false;
    let counts = count(|| {
        let now = Instant::from_millis(1_000);
        let roster = Roster::new(ServerConfig::new(SERVER, store()), [Slot::EMPTY; 8], now, 1);
        let seeker = Seeker::new(DeviceConfig::new(DEVICE, store()), now, 2);
        registered = find_each_other(now, roster, seeker);
    });
    assert!(registered, "the device never registered");
    assert_eq!(counts, Counts::default());
}

#[test]
fn discovery_under_keys_allocates_nothing() {
    let ring = |byte| KeyRing::new(1, Key::new([byte; 32]));
    let mut registered = false;
    let counts = count(|| {
        let now = Instant::from_millis(1_000);
        let keys = SortedKeys::new([(DEVICE, ring(1))]).unwrap();
        let config = ServerConfig::new(SERVER, store());
        let roster = Roster::with_keys(config, [Slot::EMPTY; 8], now, 1, keys, ring(2));
        let keys = DeviceKeys { announce: ring(1), beacon: ring(2) };
        let seeker = Seeker::with_keys(DeviceConfig::new(DEVICE, store()), now, 2, keys);
        registered = find_each_other(now, roster, seeker);
    });
    assert!(registered, "the device never registered");
    assert_eq!(counts, Counts::default());
}

/// A server and a device on one link for ten seconds; whether both know each other.
fn find_each_other<K: Keys>(start: Instant, mut roster: Roster<[Slot; 8], K>, mut seeker: Seeker) -> bool {
    let (mut now, mut registered) = (start, false);
    roster.link_up(now, LinkId(0));
    seeker.link_up(now, LinkId(0));
    let from = |last| SocketAddrV4::new([10, 0, 0, last].into(), 57_854);
    let mut buffer = [0; 1_200];
    for _ in 0..200 {
        now = now + core::time::Duration::from_millis(50);
        roster.handle_timeout(now);
        seeker.handle_timeout(now);
        while let Some(transmit) = roster.poll_transmit(now, &mut buffer) {
            let broadcast = matches!(transmit.to, discovery::Destination::Broadcast(_));
            let arrival = Arrival { link: LinkId(0), source: from(2), broadcast };
            let _why = seeker.handle_datagram(now, &arrival, &buffer[..transmit.len]);
        }
        while let Some(transmit) = seeker.poll_transmit(now, &mut buffer) {
            let broadcast = matches!(transmit.to, discovery::Destination::Broadcast(_));
            let arrival = Arrival { link: LinkId(0), source: from(1), broadcast };
            let _why = roster.handle_datagram(now, &arrival, &buffer[..transmit.len]);
        }
        while roster.poll_event().is_some() {}
        while seeker.poll_event().is_some() {}
        registered |= roster.len() == 1 && seeker.server().is_some_and(|server| server.registered);
    }
    registered
}

type Orders<'a> = [OrderSlot<&'a [u8], [u8; 1]>; 4];
type OneDevice<'a> = Fleet<DeviceTables<[DeviceSlot; 1], [TrackSlot; 1]>, Orders<'a>, &'a [u8], [u8; 1]>;

/// Bytes under way in one direction.
struct Pipe {
    bytes: [u8; 4_096],
    len: usize,
}

impl Pipe {
    fn write(&mut self, parts: [&[u8]; 2]) -> usize {
        for part in parts {
            self.bytes[self.len..][..part.len()].copy_from_slice(part);
            self.len += part.len();
        }
        parts[0].len() + parts[1].len()
    }

    fn used(&mut self, len: usize) {
        self.bytes.copy_within(len..self.len, 0);
        self.len -= len;
    }
}

/// Everything both sides have to say reaches the other one.
fn exchange(
    now: Instant,
    fleet: &mut OneDevice<'_>,
    receiver: &mut Receiver<Firmware, 2>,
    conn: ConnId,
    applied: &mut u32,
) {
    let (mut down, mut up) = (Pipe { bytes: [0; 4_096], len: 0 }, Pipe { bytes: [0; 4_096], len: 0 });
    let mut scratch = [0; 1_024];
    for _ in 0..20 {
        while let Some(transmit) = fleet.poll_transmit(now, &mut scratch) {
            let (device, len) = (transmit.device, down.write([transmit.head, transmit.body]));
            fleet.handle_written(now, device, len);
        }
        loop {
            let input = receiver.handle_bytes(now, conn, &down.bytes[..down.len]).unwrap();
            let used = input.consumed;
            if let Some(order) = input.order() {
                *applied += 1;
                receiver.complete(now, order.ticket, Verdict::Applied, None);
            }
            down.used(used);
            if used == 0 {
                break;
            }
        }
        while let Some(transmit) = receiver.poll_transmit(now, &mut scratch) {
            let (conn, len) = (transmit.conn, up.write([transmit.head, transmit.body]));
            receiver.handle_written(now, conn, len);
        }
        while let Ok(input) = fleet.handle_bytes(now, DeviceIndex(0), &up.bytes[..up.len])
            && input.consumed != 0
        {
            let used = input.consumed;
            up.used(used);
        }
        while let Some(event) = fleet.poll_event() {
            if let Event::Outcome { code, .. } = event {
                assert_eq!(code, Code::APPLIED);
            }
        }
        while receiver.poll_event().is_some() {}
    }
}

#[test]
fn push_allocates_nothing() {
    let order = Order {
        number: 1,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: OrderKind::SHOW_PAGE,
        lane: Lane::Normal,
        kind_flags: KindFlags::IDEMPOTENT,
        schema: 1,
        options: &[],
        payload: b"home",
    };
    let delivery = Delivery { durable: false, replay: false, needs_result: false, remaining_ms: None };
    let mut frame = [0; 128];
    let len = order.emit(&delivery, &mut frame).unwrap();
    let frame = &frame[..len];
    let mut applied = 0;
    let counts = count(|| {
        let now = Instant::from_millis(1_000);
        let config = FleetConfig::new(SERVER, store(), Lineage([3; 16]));
        let orders: Orders<'_> = [const { OrderSlot::EMPTY }; 4];
        let devices = DeviceTables { slots: [DeviceSlot::EMPTY], logs: [TrackSlot::EMPTY] };
        let mut fleet: OneDevice<'_> = Fleet::new(config, devices, orders, now, 1);
        let config = ReceiverConfig::new(DEVICE, store(), 9);
        let mut receiver: Receiver<_, 2> = Receiver::new(config, Firmware::new(), now);
        let address = SocketAddr::from(([10, 0, 0, 1], 8_081));
        fleet.add_device(now, NewDevice { id: Some(DEVICE), address: Some(address) }).unwrap();
        let dial = fleet.poll_dial(now).expect("a device with an address is dialled");
        let conn = receiver.handle_connected(now, address).unwrap();
        fleet.handle_connected(now, dial.device);
        exchange(now, &mut fleet, &mut receiver, conn, &mut applied);
        let marks = [Mark::PENDING.0];
        let (first, kind_flags) = (DeviceIndex(0), KindFlags::IDEMPOTENT);
        let new = NewOrder { number: 1, lane: Lane::Normal, kind_flags, lifetime: None, frame, first, marks };
        assert!(fleet.submit(now, new).is_ok());
        exchange(now, &mut fleet, &mut receiver, conn, &mut applied);
        assert_eq!(fleet.live_orders(), 0);
    });
    assert_eq!(applied, 1, "the order was not applied");
    assert_eq!(counts, Counts::default());
}
