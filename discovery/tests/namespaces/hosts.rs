//! Hosts on one LAN with plain addresses.

use discovery::driver::Net;
use testkit::netns::Lan;
use wire_format::datagram::header::Kind;

use crate::node::{SOON, device_config, kind, seek, seek_with, serve, serve_with, server_config, until};

pub(crate) fn two_hosts_with_plain_addresses() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         d  eth0  shop  10.57.1.2/24",
    ) else {
        return;
    };
    let mut server = serve(&lan, "s");
    let mut device = seek(&lan, "d", 1);
    device.says("registered 200 10.57.1.1", SOON);
    server.says("1 10.57.1.2:8081 Joined", SOON);
    drop(device);
    server.says("1 10.57.1.2:8081 Left", SOON);
    assert_eq!(server.said().len(), 2, "{:?}", server.said());
}

pub(crate) fn several_bound_devices_of_one_host_hear_a_server_that_is_not_bound() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         d  eth0  shop  10.57.1.2/24 10.57.1.3/24",
    ) else {
        return;
    };
    let bound = |number: u8| {
        let net = Net { bind: Some([10, 57, 1, number].into()), ..Net::default() };
        seek_with(&lan, "d", net, device_config(number))
    };
    let mut devices = [bound(2), bound(3)];
    let mut server = serve(&lan, "s");
    for device in &mut devices {
        device.says("registered 200 10.57.1.1", SOON);
    }
    server.has_said(&["2 10.57.1.2:8081 Joined", "3 10.57.1.3:8081 Joined"]);
}

pub(crate) fn a_bound_server_serves_the_interface_it_is_bound_to_and_no_other() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         s  eth1  back  10.57.2.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  back  10.57.2.2/24",
    ) else {
        return;
    };
    let beside = lan.tap("b");
    let net = Net { bind: Some([10, 57, 1, 1].into()), ..Net::default() };
    let mut server = serve_with(&lan, "s", net, server_config());
    let (mut a, b) = (seek(&lan, "a", 1), seek(&lan, "b", 2));
    a.says("registered 200 10.57.1.1", SOON);
    until("the other one asked", || b.stats().protocol.sent_seek >= 2);
    server.has_said(&["1 10.57.1.2:8081 Joined"]);
    assert_eq!(b.server(), None);
    assert!(beside.packets().iter().all(|packet| kind(packet) == Some(Kind::Seek)));
}

pub(crate) fn a_directed_broadcast_goes_out_besides_the_limited_one() {
    for directed in [false, true] {
        let Some(lan) = Lan::new(
            "s  eth0  shop  10.57.1.1/24
             l  eth0  shop  10.57.1.2/24",
        ) else {
            return;
        };
        let tap = lan.tap("l");
        let _server = serve_with(&lan, "s", Net { directed, ..Net::default() }, server_config());
        let mut to = Vec::new();
        until("two beacons", || {
            to.extend(tap.packets().iter().map(|packet| packet.destination.to_string()));
            to.len() >= if directed { 4 } else { 2 }
        });
        let (limited, subnet) = ("255.255.255.255:57854", "10.57.1.255:57854");
        let beacon = if directed { vec![limited, subnet] } else { vec![limited] };
        assert_eq!(to, beacon.repeat(2));
    }
}
