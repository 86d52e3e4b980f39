//! Which way orders go: out of the right interface, and past firewalls that stop discovery.

use discovery::driver::Net;
use testkit::netns::{Lan, Protocol};
use tillwire::StaticDevice;

use crate::host::{device, id, serve, server, till, until};

#[test]
fn each_device_is_dialled_from_the_address_of_its_own_network() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         s  eth1  back  10.57.2.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  back  10.57.2.2/24
         g  eth0  back  10.57.2.254/24",
    ) else {
        return;
    };
    // The default route is on the wrong interface for the shop floor.
    lan.ip("s", "route add default via 10.57.2.254");
    let taps = [lan.tap("a"), lan.tap("b")];
    let gateway = lan.tap("g");
    let server = serve(&lan, "s", server());
    let (a, b) = (till(&lan, "a", device(1)), till(&lan, "b", device(2)));
    server.says("1 10.57.1.2:8081 connected");
    server.says("2 10.57.2.2:8081 connected");
    server.applied(b"page", &[1, 2]);
    assert_eq!((a.orders(), b.orders()), (vec![b"page".to_vec()], vec![b"page".to_vec()]));
    for (tap, source) in taps.iter().zip(["10.57.1.1", "10.57.2.1"]) {
        let calls: Vec<_> =
            tap.packets().into_iter().filter(|one| one.protocol == Protocol::Tcp { syn: true }).collect();
        assert!(
            !calls.is_empty() && calls.iter().all(|one| one.source.ip().to_string() == source),
            "{calls:?}"
        );
    }
    let astray = gateway.packets().into_iter().filter(|one| one.protocol != Protocol::Udp).count();
    assert_eq!(astray, 0);
}

#[test]
fn a_server_bound_to_an_address_has_more_devices_than_the_host_has_ports_for_dials() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         a  eth0  shop  10.57.1.101/24 10.57.1.102/24 10.57.1.103/24 10.57.1.104/24 10.57.1.105/24 10.57.1.106/24",
    ) else {
        return;
    };
    lan.sysctl("s", "net/ipv4/ip_local_port_range", "40000 40003");
    let numbers = [1, 2, 3, 4, 5, 6];
    let address = |n: u8| std::net::Ipv4Addr::new(10, 57, 1, 100 + n);
    let tills = numbers.map(|n| till(&lan, "a", device(n).bind(address(n)).no_discovery()));
    let listed = |n: u8| StaticDevice { id: Some(id(n)), ..StaticDevice::at((address(n), 8_081).into()) };
    let bound = server().bind([10, 57, 1, 1].into()).no_discovery();
    let server = serve(&lan, "s", numbers.into_iter().fold(bound, |server, n| server.device(listed(n))));
    server.applied(b"page", &numbers);
    assert!(tills.iter().all(|till| till.orders() == [b"page"]));
}

/// Nothing of discovery gets in or out.
const NO_DISCOVERY: &str = "table inet wall {
    chain arriving { type filter hook input priority 0; udp dport 57854 drop; };
    chain leaving { type filter hook output priority 0; udp dport 57854 drop; }; }";

#[test]
fn with_discovery_blocked_listed_devices_get_their_orders_and_are_found_once_it_is_not() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  shop  10.57.1.3/24",
    ) else {
        return;
    };
    if !["s", "a", "b"].iter().all(|host| lan.firewall(host, NO_DISCOVERY)) {
        return;
    }
    let listed =
        |n: u8| StaticDevice { id: Some(id(n)), ..StaticDevice::at(([10, 57, 1, n + 1], 8_081).into()) };
    let server = serve(&lan, "s", server().device(listed(1)).device(listed(2)));
    let (a, b) = (till(&lan, "a", device(1)), till(&lan, "b", device(2)));
    server.says("1 10.57.1.2:8081 connected");
    server.says("2 10.57.1.3:8081 connected");
    server.applied(b"one", &[1, 2]);
    assert_eq!(server.said().len(), 2, "discovery knows nobody: {:?}", server.said());
    for host in ["s", "a", "b"] {
        assert!(lan.firewall(host, "delete table inet wall"));
    }
    server.says("1 10.57.1.2:8081 Joined");
    server.says("2 10.57.1.3:8081 Joined");
    server.applied(b"two", &[1, 2]);
    assert_eq!(server.said().len(), 4, "the sessions they have are kept: {:?}", server.said());
    let all = vec![b"one".to_vec(), b"two".to_vec()];
    assert_eq!((a.orders(), b.orders()), (all.clone(), all));
}

#[test]
fn a_device_behind_a_router_is_found_through_its_seed_and_gets_its_orders() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         r  eth0  shop  10.57.1.254/24
         r  eth1  back  10.57.2.254/24
         d  eth0  back  10.57.2.2/24",
    ) else {
        return;
    };
    lan.forward("r");
    lan.ip("s", "route add default via 10.57.1.254");
    lan.ip("d", "route add default via 10.57.2.254");
    let net = Net { sources: vec!["10.57.2.0/24".parse().unwrap()], ..Net::default() };
    let server = serve(&lan, "s", server().discovery_net(net));
    let till = till(&lan, "d", device(1).seed("10.57.1.1:57854".parse().unwrap()));
    server.says("1 10.57.2.2:8081 connected");
    server.applied(b"page", &[1]);
    assert_eq!(till.orders(), [b"page"]);
    until("nothing but that happened", || server.said().len() == 2);
}
