//! Interfaces that go, come back, come late, and addresses that change, all without a restart.

use core::time::Duration;
use std::net::UdpSocket;

use discovery::ServerConfig;
use discovery::driver::Net;
use testkit::netns::{Lan, Packet};
use wire_format::datagram::header::Kind;

use crate::node::{RECOVERY, SOON, kind, now, seek, serve, serve_with, server_config, sleep, until};

/// A server and a device on one LAN.
const PAIR: &str = "s  eth0  shop  10.57.1.1/24
                    d  eth0  shop  10.57.1.2/24";

pub(crate) fn a_device_recovers_when_its_network_comes_late_and_when_its_address_changes() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         d  eth0  shop",
    ) else {
        return;
    };
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    until("it looked, and found nothing", || device.stats().net.scans >= 1);
    assert_eq!(device.stats().net.links, 0);
    lan.ip("d", "link set eth0 up");
    lan.ip("d", "addr add 10.57.1.2/24 dev eth0");
    device.says("registered 200 10.57.1.1", RECOVERY);
    server.says("1 10.57.1.2:8081 Joined", SOON);
    lan.ip("d", "addr flush dev eth0");
    lan.ip("d", "addr add 10.57.1.3/24 dev eth0");
    server.says("1 10.57.1.3:8081 Moved { from: 10.57.1.2:8081 }", RECOVERY);
    assert_eq!(server.said().len(), 2, "neither lost nor joined again: {:?}", server.said());
    assert_eq!(server.stats().net.send_errors, 0);
}

pub(crate) fn a_device_whose_interface_was_down_registers_again_and_nobody_is_told() {
    let Some(lan) = Lan::new(PAIR) else { return };
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    let before = device.stats();
    lan.ip("d", "link set eth0 down");
    device.says("lost 200", RECOVERY);
    lan.ip("d", "link set eth0 up");
    device.says("registered 200 10.57.1.1", RECOVERY);
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    // The system told of both changes. The first question afterwards was enough, or the second, or a beacon came first.
    let after = device.stats();
    assert!(after.net.interface_hints >= before.net.interface_hints + 2, "{after:?}");
    let asked = after.protocol.sent_seek - before.protocol.sent_seek;
    assert!(asked <= 2, "{asked} questions");
}

pub(crate) fn a_cable_that_was_pulled_is_a_link_that_was_down() {
    let Some(lan) = Lan::new(PAIR) else { return };
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    lan.cable("d", "eth0", "down");
    device.says("lost 200", RECOVERY);
    lan.cable("d", "eth0", "up");
    device.says("registered 200 10.57.1.1", RECOVERY);
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
}

pub(crate) fn an_interface_added_later_is_used_by_servers_and_devices() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         a  eth0  back  10.57.2.2/24
         b  eth0  cold  10.57.3.2/24",
    ) else {
        return;
    };
    let mut server = serve(&lan, "s");
    let (mut a, mut b) = (seek(&lan, "a", 1), seek(&lan, "b", 2));
    until("both asked in vain", || [&a, &b].iter().all(|device| device.stats().protocol.sent_seek >= 1));
    lan.add("s eth1 back 10.57.2.1/24");
    a.says("registered 200 10.57.2.1", RECOVERY);
    lan.add("b eth1 shop 10.57.1.3/24");
    b.says("registered 200 10.57.1.1", RECOVERY);
    server.has_said(&["1 10.57.2.2:8081 Joined", "2 10.57.1.3:8081 Joined"]);
    assert_eq!((server.stats().net.links, b.stats().net.links), (2, 2));
}

/// A server with a shop floor on `eth0` and the default route behind `eth1`, whose gateway is watched.
const WITH_GATEWAY: &str = "s  eth0  shop  10.57.1.1/24
                            s  eth1  wan   10.57.9.1/24
                            d  eth0  shop  10.57.1.2/24
                            g  eth0  wan   10.57.9.254/24";

/// What the gateway may see: what is for everybody on its own LAN.
fn is_of_the_wan(packet: &Packet) -> bool {
    let to = packet.destination.ip().octets();
    let for_all = to == [255, 255, 255, 255] || to == [10, 57, 9, 255];
    packet.source.ip().octets() == [10, 57, 9, 1] && for_all
}

pub(crate) fn a_server_recovers_when_its_network_was_down_and_leaks_nothing_meanwhile() {
    let Some(lan) = Lan::new(WITH_GATEWAY) else { return };
    lan.ip("s", "route add default via 10.57.9.254");
    let gateway = lan.tap("g");
    // The device is suspected, and asked, while its network is down.
    let config = ServerConfig { lease_s: 10, beacon_interval_s: 2, ..server_config() };
    let mut server = serve_with(&lan, "s", Net::default(), config);
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    lan.ip("s", "link set eth0 down");
    until("it noticed", || server.stats().net.links == 1);
    server.says("1 10.57.1.2:8081 Suspect", SOON);
    sleep(Duration::from_secs(1));
    let passed = gateway.packets();
    let leaked: Vec<_> = passed.iter().filter(|packet| !is_of_the_wan(packet)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(!passed.is_empty(), "the gateway listens");
    assert!(server.stats().net.no_link >= 1, "what could not be asked was counted");
    lan.ip("s", "link set eth0 up");
    server.says("1 10.57.1.2:8081 Back", RECOVERY);
    assert_eq!(device.said().last().map(String::as_str), Some("registered 200 10.57.1.1"));
}

pub(crate) fn directed_broadcasts_do_not_leak_either_while_nobody_has_noticed_yet() {
    let bind = Some([10, 57, 1, 1].into());
    for net in [Net { directed: true, ..Net::default() }, Net { bind, ..Net::default() }] {
        let Some(lan) = Lan::new(WITH_GATEWAY) else { return };
        lan.ip("s", "route add default via 10.57.9.254");
        let gateway = lan.tap("g");
        let everywhere = net.bind.is_none();
        let server = serve_with(&lan, "s", net, ServerConfig { beacon_interval_s: 2, ..server_config() });
        until("a beacon", || server.stats().protocol.sent_beacon >= 1);
        // Again and again, so that one of the five beacons of the first eight seconds falls between a change and its
        // discovery.
        for _ in 0..12 {
            lan.ip("s", "link set eth0 down");
            sleep(Duration::from_millis(500));
            lan.ip("s", "link set eth0 up");
            sleep(Duration::from_millis(100));
        }
        let passed = gateway.packets();
        let leaked: Vec<_> = passed.iter().filter(|packet| !is_of_the_wan(packet)).collect();
        assert!(leaked.is_empty(), "{leaked:?}");
        assert_eq!(!passed.is_empty(), everywhere);
    }
}

pub(crate) fn a_network_that_was_down_for_a_while_costs_no_device() {
    let Some(lan) = Lan::new(WITH_GATEWAY) else { return };
    lan.ip("s", "route add default via 10.57.9.254");
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    lan.ip("s", "link set eth0 down");
    until("it noticed", || server.stats().net.links == 1);
    let tap = lan.tap("d");
    lan.ip("s", "link set eth0 up");
    let up = now();
    tap.wait("a beacon", |packet| kind(packet) == Some(Kind::Beacon));
    assert!(up.elapsed() < RECOVERY);
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    assert_eq!(device.server().as_deref(), Some("10.57.1.1"));
}

pub(crate) fn two_devices_that_swap_their_addresses_are_told_apart() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  shop  10.57.1.3/24",
    ) else {
        return;
    };
    let mut server = serve(&lan, "s");
    let (mut a, mut b) = (seek(&lan, "a", 1), seek(&lan, "b", 2));
    a.says("registered", SOON);
    b.says("registered", SOON);
    for (host, old, new) in [("a", 2, 3), ("b", 3, 2)] {
        lan.ip(host, &format!("addr del 10.57.1.{old}/24 dev eth0"));
        lan.ip(host, &format!("addr add 10.57.1.{new}/24 dev eth0"));
    }
    // The neighbour tables still hold who was where; nobody tells them but the traffic itself.
    until("both moved", || {
        (server.address(1).as_deref(), server.address(2).as_deref()) == (Some("10.57.1.3"), Some("10.57.1.2"))
    });
    server.has_said(&[
        "1 10.57.1.2:8081 Joined",
        "2 10.57.1.3:8081 Joined",
        "1 10.57.1.3:8081 Moved { from: 10.57.1.2:8081 }",
        "2 10.57.1.2:8081 Moved { from: 10.57.1.3:8081 }",
    ]);
    until("both know it", || [&a, &b].iter().all(|device| device.server().as_deref() == Some("10.57.1.1")));
}

pub(crate) fn a_server_with_a_new_address_is_followed_and_loses_nobody() {
    let Some(lan) = Lan::new(PAIR) else { return };
    let config = ServerConfig { beacon_interval_s: 2, ..server_config() };
    let mut server = serve_with(&lan, "s", Net::default(), config);
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    lan.ip("s", "addr flush dev eth0");
    lan.ip("s", "addr add 10.57.1.9/24 dev eth0");
    let changed = now();
    // It is followed after two beacon intervals in which the old address was silent: until then it may be one of two.
    while device.server().as_deref() != Some("10.57.1.9") {
        assert!(changed.elapsed() < SOON * 2, "{:?}", device.said());
        sleep(Duration::from_millis(50));
    }
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    assert_eq!(server.address(1).as_deref(), Some("10.57.1.2"));
}

pub(crate) fn a_server_whose_address_moves_to_another_interface_keeps_its_devices() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         s  eth1  shop
         d  eth0  shop  10.57.1.2/24",
    ) else {
        return;
    };
    let config = ServerConfig { lease_s: 12, ..server_config() };
    let mut server = serve_with(&lan, "s", Net::default(), config);
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    lan.ip("s", "link set eth0 down");
    lan.ip("s", "addr flush dev eth0");
    lan.ip("s", "addr add 10.57.1.1/24 dev eth1");
    lan.ip("s", "link set eth1 up");
    // What the host's network service does: the neighbours hear of the new hardware address, or they would look for the
    // server where it was for 8 s more.
    lan.enter("s", || UdpSocket::bind("10.57.1.1:0")?.send_to(&[], "10.57.1.2:9")).expect("sends");
    let before = server.stats().protocol.received_announce;
    until("it refreshes there", || server.stats().protocol.received_announce > before);
    until("the answer arrives", || device.stats().protocol.received_ack >= 2);
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    assert_eq!(device.server().as_deref(), Some("10.57.1.1"));
}
