//! Every call into the state machines of discovery. `see(&mut …)` makes their state anything it might be.

use core::hint::black_box;
use core::net::SocketAddrV4;

use discovery::{Arrival, LinkId};
use wire_format::ids::Store;
use wire_format::time::Instant;

pub(crate) fn all(bytes: &[u8], buffer: &mut [u8]) {
    let Ok(store) = Store::new(black_box(1), "S") else { return };
    let source = SocketAddrV4::new(black_box([10, 0, 0, 1]).into(), black_box(1));
    let arrival = black_box(Arrival { link: LinkId(0), source, broadcast: false });
    #[cfg(feature = "roster")]
    {
        roster(store, &arrival, bytes, buffer);
        roster_with_keys(store, &arrival, bytes, buffer);
    }
    #[cfg(feature = "seeker")]
    {
        seeker(store, &arrival, bytes, buffer);
        seeker_with_keys(store, &arrival, bytes, buffer);
    }
}

/// A time nobody knows.
fn now() -> Instant {
    Instant::from_micros(black_box(1))
}

#[cfg(feature = "roster")]
#[inline(never)]
fn roster(store: Store, arrival: &Arrival, bytes: &[u8], buffer: &mut [u8]) {
    use discovery::roster::Reason;
    use discovery::{Roster, ServerConfig, Slot};
    use wire_format::ids::NodeId;

    let config = black_box(ServerConfig::new(NodeId([1; 16]), store));
    let mut roster = Roster::new(config, [Slot::EMPTY; 8], now(), black_box(1));
    super::see(&mut roster);
    roster.link_up(now(), arrival.link);
    let _ = black_box(roster.handle_datagram(now(), arrival, bytes));
    super::see(&mut roster);
    roster.handle_timeout(now());
    black_box(roster.set_linked(now(), black_box(NodeId([2; 16])), black_box(true)));
    black_box(roster.poll_transmit(now(), buffer));
    black_box(roster.poll_event());
    black_box(roster.poll_timeout());
    black_box(roster.find(black_box(NodeId([2; 16]))));
    roster.iter().for_each(|device| super::see(device.address));
    black_box((roster.len(), roster.capacity(), roster.generation(), roster.is_stopped()));
    roster.handle_receive_drops(now(), black_box(7));
    let mut snapshot = roster.snapshot();
    let mut piece = [0; discovery::roster::RECORD_LEN];
    while let Some(piece) = snapshot.next_piece(&mut piece) {
        super::see(piece);
    }
    let _ = black_box(roster.restore(now(), bytes));
    super::see(&mut roster);
    roster.link_down(now(), arrival.link);
    roster.stop(now(), black_box(Reason::LEAVING), black_box(0));
    black_box(roster.poll_transmit(now(), buffer));
}

#[cfg(feature = "seeker")]
#[inline(never)]
fn seeker(store: Store, arrival: &Arrival, bytes: &[u8], buffer: &mut [u8]) {
    use discovery::{DeviceConfig, Seeker};
    use wire_format::ids::NodeId;

    let mut config = black_box(DeviceConfig::new(NodeId([1; 16]), store));
    if black_box(true) {
        config.store = None;
    }
    let mut seeker = Seeker::new(config.clone(), now(), black_box(1));
    super::see(&mut seeker);
    seeker.link_up(now(), arrival.link);
    let _ = black_box(seeker.handle_datagram(now(), arrival, bytes));
    super::see(&mut seeker);
    seeker.handle_timeout(now());
    seeker.set_linked(now(), black_box(true));
    seeker.reconfigure(now(), config);
    black_box(seeker.poll_transmit(now(), buffer));
    black_box(seeker.poll_event());
    black_box(seeker.poll_timeout());
    black_box(seeker.server());
    seeker.candidates().for_each(|server| super::see(server.address));
    black_box(seeker.adopt(now(), store, black_box(true)));
    super::see(&mut seeker);
    seeker.link_down(now(), arrival.link);
    seeker.stop(now());
    black_box((seeker.poll_transmit(now(), buffer), seeker.is_stopped()));
}

/// Keys nobody knows.
fn ring() -> discovery::auth::KeyRing {
    use discovery::auth::{Key, KeyRing};
    let ring = KeyRing::new(black_box(1), Key::new(black_box([1; 32])));
    let ring = match ring.with_next(black_box(2), Key::new(black_box([2; 32]))) {
        Ok(ring) => ring,
        Err(_) => KeyRing::new(black_box(3), Key::new(black_box([3; 32]))),
    };
    ring.rotated()
}

#[cfg(feature = "roster")]
#[inline(never)]
fn roster_with_keys(store: Store, arrival: &Arrival, bytes: &[u8], buffer: &mut [u8]) {
    use discovery::auth::SortedKeys;
    use discovery::{Roster, ServerConfig, Slot};
    use wire_format::ids::NodeId;

    let Ok(keys) = SortedKeys::new([(NodeId([2; 16]), ring()), (black_box(NodeId([3; 16])), ring())]) else {
        return;
    };
    let config = black_box(ServerConfig::new(NodeId([1; 16]), store));
    let mut roster = Roster::with_keys(config, [Slot::EMPTY; 8], now(), black_box(1), keys, ring());
    super::see(&mut roster);
    let _ = black_box(roster.handle_datagram(now(), arrival, bytes));
    super::see(&mut roster);
    black_box(roster.poll_transmit(now(), buffer));
    black_box(roster.revoke(now(), black_box(NodeId([2; 16]))));
    roster.set_beacon_keys(ring());
    super::see(roster.keys_mut());
    black_box(roster.poll_transmit(now(), buffer));
}

#[cfg(feature = "seeker")]
#[inline(never)]
fn seeker_with_keys(store: Store, arrival: &Arrival, bytes: &[u8], buffer: &mut [u8]) {
    use discovery::auth::DeviceKeys;
    use discovery::{DeviceConfig, Seeker};
    use wire_format::ids::NodeId;

    let config = black_box(DeviceConfig::new(NodeId([1; 16]), store));
    let keys = DeviceKeys { announce: ring(), beacon: ring() };
    let mut seeker = Seeker::with_keys(config, now(), black_box(1), keys);
    super::see(&mut seeker);
    let _ = black_box(seeker.handle_datagram(now(), arrival, bytes));
    super::see(&mut seeker);
    seeker.set_keys(now(), DeviceKeys { announce: ring(), beacon: ring() });
    black_box(seeker.poll_transmit(now(), buffer));
}
