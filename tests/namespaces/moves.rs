//! Devices and servers that come back elsewhere.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::netns::{Lan, Protocol, Tap};
use tillwire::DeviceBuilder;

use crate::host::{device, serve, server, sleep, till};

/// Connections that were tried to an address.
fn calls(tap: &Tap, to: [u8; 4]) -> usize {
    let calls = tap.packets().into_iter().filter(|one| one.protocol == Protocol::Tcp { syn: true });
    calls.filter(|one| *one.destination.ip() == Ipv4Addr::from(to)).count()
}

#[test]
fn after_a_power_cut_a_device_with_another_address_gets_what_it_is_owed_there_and_nothing_goes_to_the_old_one()
 {
    let counted: fn(DeviceBuilder, u32) -> DeviceBuilder = |device, boot| device.epoch(boot);
    // The second one keeps nothing across boots: its epoch is random.
    for epoch in [counted, |device, _| device] {
        let Some(lan) = Lan::new(
            "s  eth0  shop  10.57.1.1/24
             d  eth0  shop  10.57.1.2/24",
        ) else {
            return;
        };
        let server = serve(&lan, "s", server());
        let before = till(&lan, "d", epoch(device(1), 5));
        server.says("1 10.57.1.2:8081 connected");
        server.applied(b"one", &[1]);
        assert_eq!(before.orders(), [b"one"]);

        lan.remove("d");
        drop(before);
        lan.add("d eth0 shop 10.57.1.9/24");
        let after = till(&lan, "d", epoch(device(1), 6));
        server.says("1 10.57.1.9:8081 Rebooted");
        server.says("1 10.57.1.9:8081 Moved { from: 10.57.1.2:8081 }");
        let tap = lan.tap("s");
        server.says("1 10.57.1.9:8081 connected");
        server.applied(b"two", &[1]);
        assert_eq!(after.orders(), [b"two"]);
        // Long enough for several dials of a device that does not answer.
        sleep(Duration::from_secs(3));
        assert_eq!(calls(&tap, [10, 57, 1, 2]), 0);
    }
}

#[test]
fn two_devices_that_swap_their_addresses_each_get_their_own_orders() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  shop  10.57.1.3/24",
    ) else {
        return;
    };
    let server = serve(&lan, "s", server());
    let (a, b) = (till(&lan, "a", device(1)), till(&lan, "b", device(2)));
    server.says("1 10.57.1.2:8081 connected");
    server.says("2 10.57.1.3:8081 connected");
    for (host, old, new) in [("a", 2, 3), ("b", 3, 2)] {
        lan.ip(host, &format!("addr del 10.57.1.{old}/24 dev eth0"));
        lan.ip(host, &format!("addr add 10.57.1.{new}/24 dev eth0"));
    }
    server.says("1 10.57.1.3:8081 connected");
    server.says("2 10.57.1.2:8081 connected");
    server.applied(b"for a", &[1]);
    server.applied(b"for b", &[2]);
    assert_eq!((a.orders(), b.orders()), (vec![b"for a".to_vec()], vec![b"for b".to_vec()]));
}

#[test]
fn a_server_that_moves_to_its_other_interface_keeps_serving() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         s  eth1  shop
         d  eth0  shop  10.57.1.2/24",
    ) else {
        return;
    };
    let server = serve(&lan, "s", server());
    let till = till(&lan, "d", device(1));
    server.says("1 10.57.1.2:8081 connected");
    server.applied(b"one", &[1]);
    let tap = lan.tap("d");
    lan.ip("s", "link set eth0 down");
    lan.ip("s", "addr flush dev eth0");
    lan.ip("s", "addr add 10.57.1.9/24 dev eth1");
    lan.ip("s", "link set eth1 up");
    server.applied(b"two", &[1]);
    assert_eq!(till.orders(), [b"one", b"two"]);
    let from: Vec<_> =
        tap.packets().into_iter().filter(|one| one.protocol == Protocol::Tcp { syn: true }).collect();
    assert!(
        !from.is_empty() && from.iter().all(|one| one.source.ip().octets() == [10, 57, 1, 9]),
        "{from:?}"
    );
    let lost =
        server.said().into_iter().filter(|line| line.contains("Lost") || line.contains("Left")).count();
    assert_eq!(lost, 0, "{:?}", server.said());
}
