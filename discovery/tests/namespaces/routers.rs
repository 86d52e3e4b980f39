//! A device in another subnet, behind a router: no broadcast crosses it, so a seed says where the server is.

use core::time::Duration;
use std::net::{SocketAddrV4, UdpSocket};

use discovery::driver::Net;
use discovery::{DeviceConfig, ServerConfig};
use testkit::netns::Lan;
use wire_format::datagram::header::Kind;
use wire_format::datagram::{Node, Seek, StoreRef};
use wire_format::ids::DeviceKind;

use crate::node::{
    RECOVERY, SOON, Server, device_config, id, kind, seek, seek_with, serve_with, server_config, store, until,
};

const ROUTED: &str = "s  eth0  shop  10.57.1.1/24
                      r  eth0  shop  10.57.1.254/24
                      r  eth1  back  10.57.2.254/24
                      d  eth0  back  10.57.2.2/24";

fn routed() -> Option<Lan> {
    let lan = Lan::new(ROUTED)?;
    lan.forward("r");
    lan.ip("s", "route add default via 10.57.1.254");
    lan.ip("d", "route add default via 10.57.2.254");
    Some(lan)
}

/// A server that listens to `sources`, with a lease so short that refreshes can be waited for.
fn server(lan: &Lan, sources: &[&str]) -> Server {
    let sources = sources.iter().map(|subnet| subnet.parse().expect("a subnet")).collect();
    let config = ServerConfig { lease_s: 10, ..server_config() };
    serve_with(lan, "s", Net { sources, ..Net::default() }, config)
}

fn seeded() -> DeviceConfig {
    let mut config = device_config(1);
    config.seeds[0] = Some("10.57.1.1:57854".parse().expect("an address"));
    config
}

pub(crate) fn a_device_with_a_seed_registers_through_a_router_and_survives_its_restart() {
    let Some(lan) = routed() else { return };
    let mut server = server(&lan, &["10.57.2.0/24"]);
    let mut device = seek_with(&lan, "d", Net::default(), seeded());
    device.says("registered 200 10.57.1.1", SOON);
    server.says("1 10.57.2.2:8081 Joined", SOON);
    until("a refresh and its answer", || device.stats().protocol.received_ack >= 2);
    assert_eq!(device.stats().protocol.sent_seek, 0, "a device with a seed asks nobody else");

    for interface in ["eth0", "eth1"] {
        lan.ip("r", &format!("link set {interface} down"));
    }
    let before = device.stats().protocol.sent_announce;
    until("an announce into the void", || device.stats().protocol.sent_announce > before);
    for interface in ["eth0", "eth1"] {
        lan.ip("r", &format!("link set {interface} up"));
    }
    let acks = device.stats().protocol.received_ack;
    until("the answers come back", || device.stats().protocol.received_ack > acks);
    let said = server.said();
    assert!(!said.iter().any(|line| line.contains("Moved") || line.contains("Conflict")), "{said:?}");
    assert_eq!(server.address(1).as_deref(), Some("10.57.2.2"));
    assert!(device.server().is_some());
}

pub(crate) fn without_a_seed_nothing_is_found_behind_a_router_and_without_leave_nothing_is_taken() {
    let Some(lan) = routed() else { return };
    let shop = lan.tap("s");
    let mut server = server(&lan, &[]);
    let unseeded = seek(&lan, "d", 2);
    until("it asked", || unseeded.stats().protocol.sent_seek >= 2);
    drop(unseeded);
    assert!(shop.packets().iter().all(|packet| packet.source.ip().octets()[2] == 1), "no broadcast crosses");
    // With a seed it gets through, but the server was not told of that subnet.
    let device = seek_with(&lan, "d", Net::default(), seeded());
    until("its announces arrive and are counted", || server.stats().net.off_link >= 2);
    assert_eq!(device.server(), None);
    assert_eq!(heard(&server), 0);
    assert!(server.said().is_empty());
}

/// Datagrams of others that reached the roster; its own broadcasts come back as well.
fn heard(server: &Server) -> u64 {
    let stats = server.stats().protocol;
    stats.received - stats.dropped_own
}

/// A SEEK as a device behind the router would send it, if its router forwarded broadcasts.
fn foreign_seek() -> Vec<u8> {
    let mut buffer = [0; 1_200];
    let from = Node {
        broadcast_copy: true,
        sequence: 1,
        epoch: 1,
        scope: store().scope(),
        ..Node::new(id(7), DeviceKind::TILL)
    };
    let store = store();
    let store = Some(StoreRef::from(&store));
    let seek = Seek { from, suppressed: 0, store, name: None, pad_to: 400, auth: None };
    let len = seek.emit(&mut buffer).expect("fits");
    buffer[..len].to_vec()
}

pub(crate) fn a_broadcast_that_a_router_forwards_from_a_foreign_subnet_is_not_answered() {
    let Some(lan) = routed() else { return };
    for interface in ["all", "eth0", "eth1"] {
        lan.sysctl("r", &format!("net/ipv4/conf/{interface}/bc_forwarding"), "1");
    }
    let foreigner = lan.enter("d", || UdpSocket::bind("10.57.2.2:57854")).expect("binds");
    foreigner.set_broadcast(true).expect("may");
    // Even from an allowed subnet: whoever asks for everybody there would not hear the answer.
    for (sources, number) in [(&[][..], 1), (&["10.57.2.0/24"][..], 2)] {
        let tap = lan.tap("s");
        let server = server(&lan, sources);
        until("the beacons of the start", || server.stats().protocol.sent_beacon >= 3);
        let to: SocketAddrV4 = "10.57.1.255:57854".parse().expect("an address");
        foreigner.send_to(&foreign_seek(), to).expect("sends");
        tap.wait("the forwarded broadcast", |packet| {
            kind(packet) == Some(Kind::Seek) && *packet.destination.ip() == *to.ip()
        });
        until("it is counted", || server.stats().net.off_link == 1);
        assert_eq!(heard(&server), 0, "round {number}");
    }
}

pub(crate) fn a_device_that_is_carried_from_behind_a_router_to_the_lan_of_its_server_is_one_device() {
    let Some(lan) = routed() else { return };
    let mut server = server(&lan, &["10.57.2.0/24"]);
    let mut device = seek_with(&lan, "d", Net::default(), seeded());
    device.says("registered 200 10.57.1.1", SOON);
    server.says("1 10.57.2.2:8081 Joined", SOON);
    lan.ip("d", "link set eth0 down");
    lan.add("d eth1 shop 10.57.1.2/24");
    server.says("1 10.57.1.2:8081 Moved { from: 10.57.2.2:8081 }", RECOVERY + Duration::from_secs(10));
    assert_eq!(server.said().len(), 2, "{:?}", server.said());
}
