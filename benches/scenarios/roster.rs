//! Floor 1, the server's half of discovery.

use std::time::Duration;

use discovery::{Arrival, LinkId, Roster, Slot};
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::{Scenario, id, store};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario { name: "roster_refresh", build: roster_refresh, operations: 1 }]
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
