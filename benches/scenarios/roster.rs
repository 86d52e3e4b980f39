//! Floor 1, the server's half of discovery.

use std::time::Duration;

use discovery::{Arrival, LinkId, Roster, Slot};
use wire_format::datagram::{Announce, CodeRef, Firmware, Node, Nonce, TextRef};
use wire_format::ids::{DeviceKind, NodeId};
use wire_format::rng::Rng;
use wire_format::time::Instant;

use super::{Scenario, id, store};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "roster_refresh", build: roster_refresh, operations: 1 },
        Scenario { name: "roster_refresh_10k", build: roster_refresh_10k, operations: 1 },
        Scenario { name: "roster_life_10k", build: roster_life_10k, operations: 1 },
        Scenario { name: "announce_verify", build: announce_verify, operations: 1 },
    ]
}

/// An announce of usual size is read and its tag verified under a key that is looked up: what authenticated mode costs a
/// server before it believes anything.
fn announce_verify() -> Box<dyn FnMut()> {
    use discovery::auth::{Key, KeyMap, KeyRing, Keys};
    use wire_format::datagram::{Announce, Auth, Firmware, Node, Nonce, TextRef, covered, seal};
    use wire_format::ids::DeviceKind;

    let keys: KeyMap = (0..1_024).map(|device| (id(device), KeyRing::new(1, Key::new([7; 32])))).collect();
    let store = store();
    let announce = Announce {
        from: Node { scope: store.scope(), port: 8_081, ..Node::new(id(77), DeviceKind::KIOSK) },
        answers: 0,
        store: Some((&store).into()),
        name: TextRef::new("Kiosk 3"),
        services: None,
        addrs: None,
        firmware: Some(Firmware { version: 1, build: 2 }),
        caps: None,
        zone: Some(3),
        tags: None,
        nonce: Some(Nonce::Short([7; 8])),
        app: None,
        code: None,
        pad_to: 160,
        auth: Some(Auth::open(1, Auth::HMAC_SHA256_128)),
    };
    let mut buffer = [0; 200];
    let len = announce.emit(&mut buffer).expect("fits");
    seal(&mut buffer[..len], |covered| Key::new([7; 32]).tag(covered));
    Box::new(move || {
        let bytes = std::hint::black_box(&buffer[..len]);
        let announce = Announce::parse(bytes).expect("an announce");
        let auth = announce.auth.expect("a tag");
        let key = keys.announce_key(announce.from.id, auth.key_id).expect("a key");
        let (before, tag) = covered(bytes).expect("a tag");
        assert!(key.verifies(before, tag));
    })
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

const DEVICES: usize = 10_000;

/// The announce of a till as it is in the field, 152 bytes.
fn till(number: u64, sequence: u32) -> Vec<u8> {
    let store = store();
    let from = Node {
        scope: store.scope(),
        epoch: 7,
        sequence,
        port: 8_081,
        lease_s: 90,
        want_ack: true,
        ..Node::new(number_id(number), DeviceKind::TILL)
    };
    let announce = Announce {
        from,
        answers: 0,
        store: Some((&store).into()),
        name: TextRef::new("Till 12, entrance"),
        services: None,
        addrs: None,
        firmware: Some(Firmware { version: 0x0001_0203, build: 4_711 }),
        caps: None,
        zone: Some(3),
        tags: None,
        code: CodeRef::new("TIL-0012"),
        nonce: Some(Nonce::Short(*b"a nonce!")),
        app: None,
        pad_to: 0,
        auth: None,
    };
    let mut buffer = [0; 256];
    let len = announce.emit(&mut buffer).expect("an announce");
    buffer[..len].to_vec()
}

/// Ids as they are in the field: nothing about them is in order.
fn number_id(number: u64) -> NodeId {
    let mut rng = Rng::new(number);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    NodeId(id)
}

fn arrival(number: u64) -> Arrival {
    let host = u32::from_be_bytes([10, 0, 0, 0]) + u32::try_from(number % 0x00FF_FFFF).unwrap_or(0);
    let source = std::net::SocketAddrV4::new(host.into(), 57_854);
    Arrival { link: LinkId(0), source, broadcast: false }
}

/// One of 10,000 known devices refreshes its registration, each in its turn and the turns in random order: from the
/// datagram to the ACK that wants to leave. (Writing the ACK is in `roster_refresh`.)
/// The datagram stands in one buffer, as it does in a driver's: what is measured are the roster's cache misses.
fn roster_refresh_10k() -> Box<dyn FnMut()> {
    let mut now = Instant::from_millis(10_000);
    let slots = vec![Slot::EMPTY; DEVICES].into_boxed_slice();
    let mut config = discovery::ServerConfig::new(NodeId([0xFE; 16]), store());
    config.rate_per_s = 1_000_000;
    let mut roster = Roster::new(config, slots, now, 1);
    let mut announce = till(0, 1);
    let mut devices: Vec<_> =
        (0..DEVICES as u64).map(|number| (arrival(number), number_id(number))).collect();
    for (arrival, id) in &devices {
        announce[16..32].copy_from_slice(&id.0);
        now = now + Duration::from_micros(400);
        roster.handle_datagram(now, arrival, &announce).expect("a newcomer");
        while roster.poll_transmit(now, &mut [0; 1_200]).is_some() {}
        while roster.poll_event().is_some() {}
    }
    assert_eq!(roster.len(), DEVICES);
    let mut rng = Rng::new(7);
    for at in (1..DEVICES).rev() {
        devices.swap(at, usize::try_from(rng.below(at as u64 + 1)).expect("small"));
    }
    let (mut turn, mut sequence) = (0, 1_u32);
    Box::new(move || {
        if turn == 0 {
            sequence += 1;
            announce[36..40].copy_from_slice(&sequence.to_le_bytes());
        }
        let (arrival, id) = &devices[turn];
        announce[16..32].copy_from_slice(&id.0);
        turn = (turn + 1) % DEVICES;
        // 2,500 a second: slow enough for the limit per source.
        now = now + Duration::from_micros(400);
        roster.handle_datagram(now, arrival, &announce).expect("a refresh");
        // Nowhere to write to: it is dropped.
        while roster.poll_transmit(now, &mut []).is_some() {}
    })
}

/// Every device is a new one: it joins, is suspected, asked twice, lost and forgotten, about 9,000 of them at a time.
fn roster_life_10k() -> Box<dyn FnMut()> {
    let mut now = Instant::from_millis(10_000);
    let slots = vec![Slot::EMPTY; DEVICES].into_boxed_slice();
    let mut config = discovery::ServerConfig::new(NodeId([0xFE; 16]), store());
    (config.lease_s, config.forget_s, config.rate_per_s) = (10, 1, 1_000_000);
    let mut roster = Roster::new(config, slots, now, 1);
    let (mut number, mut announce) = (0_u64, till(0, 1));
    let mut live = move || {
        number += 1;
        announce[16..32].copy_from_slice(&number_id(number).0);
        now = now + Duration::from_micros(1_250);
        roster.handle_datagram(now, &arrival(number), &announce).expect("a newcomer");
        if roster.poll_timeout().is_some_and(|at| at <= now) {
            roster.handle_timeout(now);
        }
        while roster.poll_transmit(now, &mut []).is_some() {}
        while roster.poll_event().is_some() {}
        roster.len()
    };
    let present = (0..2 * DEVICES).map(|_| live()).last();
    assert!(present.is_some_and(|present| (7_500..8_500).contains(&present)), "{present:?}");
    Box::new(move || {
        live();
    })
}
