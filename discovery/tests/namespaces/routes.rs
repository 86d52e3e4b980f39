//! Routing tables and masks that are not as they should be.

use discovery::driver::Net;
use testkit::netns::Lan;
use wire_format::datagram::header::Kind;

use crate::node::{SOON, device_config, kind, seek, seek_with, serve, until};

pub(crate) fn without_any_default_route_beacons_are_heard_on_every_interface_and_no_send_fails() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         s  eth1  back  10.57.2.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  back  10.57.2.2/24",
    ) else {
        return;
    };
    let taps = [lan.tap("a"), lan.tap("b")];
    let server = serve(&lan, "s");
    for (tap, source) in taps.iter().zip(["10.57.1.1:57854", "10.57.2.1:57854"]) {
        let beacon = tap.wait("a beacon", |packet| kind(packet) == Some(Kind::Beacon));
        assert_eq!(beacon.source.to_string(), source);
    }
    // The first of the start and the one a second later, on both.
    until("four beacons", || server.stats().protocol.sent_beacon >= 4);
    let net = server.stats().net;
    assert_eq!((net.send_errors, net.no_link, net.links), (0, 0, 2), "{net:?}");
    assert_eq!(net.sent, server.stats().protocol.sent);
}

pub(crate) fn with_the_default_route_on_the_wrong_interface_both_networks_are_served_from_their_own_address() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         s  eth1  back  10.57.2.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  back  10.57.2.2/24
         g  eth0  back  10.57.2.254/24",
    ) else {
        return;
    };
    lan.ip("s", "route add default via 10.57.2.254");
    let taps = [lan.tap("a"), lan.tap("b")];
    let gateway = lan.tap("g");
    let mut server = serve(&lan, "s");
    let (mut a, mut b) = (seek(&lan, "a", 1), seek(&lan, "b", 2));
    a.says("registered 200 10.57.1.1", SOON);
    b.says("registered 200 10.57.2.1", SOON);
    server.has_said(&["1 10.57.1.2:8081 Joined", "2 10.57.2.2:8081 Joined"]);
    for (tap, subnet) in taps.iter().zip([[10, 57, 1], [10, 57, 2]]) {
        let packets = tap.packets();
        assert!(packets.iter().any(|packet| kind(packet) == Some(Kind::Ack)));
        let wrong = packets.iter().find(|packet| packet.source.ip().octets()[..3] != subnet);
        assert_eq!(wrong, None, "answered from the address of that network");
    }
    // The gateway hears what is for everybody on its LAN, and nothing of the other one.
    let passed = gateway.packets();
    assert!(!passed.is_empty());
    assert!(passed.iter().all(|packet| packet.source.ip().octets()[2] == 2), "{passed:?}");
}

pub(crate) fn a_wrong_mask_on_either_side_is_no_obstacle_as_long_as_each_is_in_the_others_subnet() {
    for (server, device) in [("10.57.1.1/24", "10.57.1.2/16"), ("10.57.1.1/16", "10.57.1.2/24")] {
        let Some(lan) = Lan::new(&format!("s eth0 shop {server}\nd eth0 shop {device}")) else { return };
        let mut roster = serve(&lan, "s");
        seek(&lan, "d", 1).says("registered 200 10.57.1.1", SOON);
        roster.says("1 10.57.1.2:8081 Joined", SOON);
    }
}

pub(crate) fn a_mask_that_leaves_the_server_out_is_counted_and_mended_by_an_allowed_source() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/16
         d  eth0  shop  10.57.2.2/24",
    ) else {
        return;
    };
    let _server = serve(&lan, "s");
    let device = seek(&lan, "d", 1);
    until("the beacon was seen and not taken", || device.stats().net.off_link >= 2);
    let stats = device.stats().protocol;
    assert_eq!((device.server(), stats.received - stats.dropped_own), (None, 0));
    drop(device);
    // What an operator can say without touching the mask: where the server lives, and how to get there.
    lan.ip("d", "route add 10.57.0.0/16 dev eth0");
    let mut config = device_config(1);
    config.seeds[0] = Some("10.57.1.1:57854".parse().unwrap());
    seek_with(&lan, "d", Net::default(), config).says("registered 200 10.57.1.1", SOON);
}
