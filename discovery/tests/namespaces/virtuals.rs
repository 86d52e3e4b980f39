//! Interfaces of containers and tunnels: nothing leaves there, unless it is allowed.

use discovery::driver::Net;
use testkit::netns::Lan;
use wire_format::datagram::header::Kind;

use crate::node::{SOON, device_config, kind, seek, seek_with, serve, serve_with, server_config, until};

/// A host between a shop and four networks of its own, with a box on each.
const CROWDED: &str = "s    eth0       shop    10.57.1.1/24
                       s    docker0    docker  172.17.0.1/16
                       s    br-1f00aa  bridge  172.18.0.1/16
                       s    wg0        vpn     10.99.0.1/24
                       s    tun0       tunnel  10.98.0.1/24
                       d    eth0       shop    10.57.1.2/24
                       box  eth0       docker  172.17.0.2/16
                       box  eth1       bridge  172.18.0.2/16
                       box  eth2       vpn     10.99.0.2/24
                       box  eth3       tunnel  10.98.0.2/24";

pub(crate) fn a_server_leaves_the_networks_of_containers_and_tunnels_alone() {
    let Some(lan) = Lan::new(CROWDED) else { return };
    let (inside, outside) = (lan.tap("box"), lan.tap("d"));
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    let stranger = seek(&lan, "box", 9);
    until("it asked on all four", || stranger.stats().protocol.sent_seek >= 4);
    until("the beacons of the start", || server.stats().protocol.sent_beacon >= 3);
    until("the questions arrived", || server.stats().net.off_link >= 4);
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    assert_eq!(server.stats().net.links, 1);
    let passed = inside.packets();
    assert!(passed.iter().all(|packet| kind(packet) == Some(Kind::Seek)), "{passed:?}");
    assert_eq!(stranger.server(), None);
    // No address of theirs is ever a source on the shop floor.
    let sources = outside.packets();
    assert!(sources.iter().all(|packet| packet.source.ip().octets()[..3] == [10, 57, 1]), "{sources:?}");
}

pub(crate) fn a_device_leaves_them_alone_too() {
    let Some(lan) = Lan::new(CROWDED) else { return };
    let inside = lan.tap("box");
    let device = seek(&lan, "s", 1);
    until("it asked on the shop floor", || device.stats().protocol.sent_seek >= 2);
    let _stranger = serve(&lan, "box");
    let mut server = serve(&lan, "d");
    server.says("1 10.57.1.1:8081 Joined", SOON);
    until("registered", || device.server().as_deref() == Some("10.57.1.2"));
    let passed = inside.packets();
    assert!(passed.iter().all(|packet| kind(packet) == Some(Kind::Beacon)), "{passed:?}");
}

pub(crate) fn what_is_allowed_is_used_and_the_rest_is_still_left_alone() {
    let Some(lan) = Lan::new(CROWDED) else { return };
    let inside = lan.tap("box");
    let net = Net { allow: vec!["wg0".into()], ..Net::default() };
    let mut server = serve_with(&lan, "s", net, server_config());
    let mut peer = seek_with(&lan, "box", Net::default(), device_config(9));
    peer.says("registered 200 10.99.0.1", SOON);
    server.says("9 10.99.0.2:8081 Joined", SOON);
    assert_eq!(server.stats().net.links, 2);
    let from_server = inside.packets().into_iter().filter(|packet| kind(packet) != Some(Kind::Seek));
    let foreign = from_server.filter(|packet| packet.source.ip().octets()[..3] != [10, 99, 0]).count();
    assert_eq!(foreign, 0, "nothing on the other three");
}
