//! One LAN seen twice, and frames that arrive more than once: one device, one event, and the copies counted.

use testkit::netns::Lan;
use wire_format::datagram::header::Kind;

use crate::node::{SOON, kind, seek, serve, until};

pub(crate) fn a_server_with_two_interfaces_on_one_lan_has_each_device_once() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         s  eth1  shop  10.57.1.11/24
         d  eth0  shop  10.57.1.2/24",
    ) else {
        return;
    };
    let tap = lan.tap("d");
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    until("beacons of the start on both", || server.stats().protocol.sent_beacon >= 6);
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    assert_eq!(server.stats().devices, 1);
    // It hears itself on the other interface, and takes that for nothing.
    until("its own beacons", || server.stats().protocol.dropped_own >= 2);
    let sources: std::collections::BTreeSet<_> = tap
        .packets()
        .iter()
        .filter(|packet| kind(packet) == Some(Kind::Beacon))
        .map(|packet| packet.source.ip().octets()[3])
        .collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), [1, 11]);
    assert_eq!(device.said().len(), 2, "one server, found and registered with once: {:?}", device.said());
}

pub(crate) fn a_device_with_two_interfaces_on_one_lan_is_one_device() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         d  eth0  shop  10.57.1.2/24
         d  eth1  shop  10.57.1.12/24",
    ) else {
        return;
    };
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    until("beacons of the start", || server.stats().protocol.sent_beacon >= 3);
    server.says("1 10.57.1.", SOON);
    let said = server.said();
    assert!(said.len() == 1 && said[0].ends_with("Joined"), "{said:?}");
    assert_eq!(server.stats().devices, 1);
    // Each beacon is heard on both interfaces, and counts once.
    until("a copy", || device.stats().protocol.dropped_duplicate >= 1);
    assert_eq!(device.said().len(), 2, "{:?}", device.said());
}

pub(crate) fn four_copies_of_everything_are_one_device_and_three_counted_copies() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         d  eth0  shop  10.57.1.2/24",
    ) else {
        return;
    };
    lan.mirror(("d", "eth0"), &[("s", "eth0"); 3]);
    lan.mirror(("s", "eth0"), &[("d", "eth0"); 3]);
    let tap = lan.tap("s");
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    let announces = || {
        let stats = server.stats().protocol;
        (stats.received_announce, stats.dropped_duplicate)
    };
    until("all four copies", || announces() == (1, 3));
    let arrived = tap.packets().iter().filter(|packet| kind(packet) == Some(Kind::Announce)).count();
    assert_eq!(arrived, 4, "the switches do copy");
    assert_eq!(server.stats().protocol.sent_ack, 1, "a copy is not answered");
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    // The same on the device: one answer taken, and the rest counted under what they are.
    until("all four answers", || device.stats().protocol.dropped_unexpected >= 3);
    assert_eq!(device.stats().protocol.received_ack, 1);
    assert_eq!(device.said().len(), 2, "{:?}", device.said());
}
