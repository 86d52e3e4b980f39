//! Both drivers on real sockets of this host: every node has an address of 127.0.0.0/8, every test a port of its own.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::net::UdpSocket;

use discovery::driver::device::{self, DeviceDriver, DeviceEvent};
use discovery::driver::server::{self, ServerDriver, ServerEvent};
use discovery::driver::{Net, OpenErrorKind, Opening};
use discovery::{DeviceConfig, SeekerEvent, ServerConfig, State, What};
use tokio::time::timeout;
use wire_format::datagram::{Announce, Node, StoreRef};
use wire_format::ids::{DeviceKind, NodeId, Store};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of a stack on which a server must still start, without optimisation.
const SMALL_STACK: usize = 512 << 10;

/// Broadcasts of 127.0.0.0/8.
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

fn host(block: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 61, block, number)
}

fn net(bind: Ipv4Addr, port: u16) -> Net {
    Net { bind: Some(bind), broadcast: Some(EVERYBODY), port, ..Net::default() }
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn store() -> Store {
    Store::new(7, "LYON-01").unwrap()
}

fn server_at(net: Net) -> ServerDriver {
    server::spawn(net, ServerConfig::new(id(0xEE), store()), 100, 1).unwrap()
}

fn device_at(net: Net, number: u8) -> DeviceDriver {
    device::spawn(net, DeviceConfig::new(id(number), store()), u64::from(number)).unwrap()
}

async fn server_says(driver: &mut ServerDriver, wanted: impl Fn(&ServerEvent) -> bool) -> ServerEvent {
    let search = async {
        loop {
            let event = driver.next_event().await.expect("the server runs");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, search).await.expect("the server says so in time")
}

async fn device_says(driver: &mut DeviceDriver, wanted: impl Fn(&DeviceEvent) -> bool) -> DeviceEvent {
    let search = async {
        loop {
            let event = driver.next_event().await.expect("the device runs");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, search).await.expect("the device says so in time")
}

fn is_registered(event: &DeviceEvent) -> bool {
    matches!(event.event, SeekerEvent::Registered { .. })
}

fn joined(number: u8) -> impl Fn(&ServerEvent) -> bool {
    move |told| told.event.id == id(number) && told.event.what == What::Joined
}

#[tokio::test]
async fn fifty_devices_and_a_server_find_each_other_with_no_address_given() {
    const DEVICES: u8 = 50;
    let mut server = server_at(net(host(1, 200), 41_101));
    let mut devices: Vec<_> =
        (1..=DEVICES).map(|number| device_at(net(host(1, number), 41_101), number)).collect();
    for (device, number) in devices.iter_mut().zip(1..) {
        let told = device_says(device, is_registered).await;
        let found = told.server.unwrap();
        assert_eq!((found.id, *found.address.ip()), (id(0xEE), host(1, 200)), "device {number}");
    }
    let mut ids = Vec::new();
    while ids.len() < usize::from(DEVICES) {
        let told = server_says(&mut server, |told| told.event.what == What::Joined).await;
        let device = told.device.unwrap();
        assert_eq!(told.event.address, SocketAddrV4::new(host(1, device.id.0[0]), 8_081));
        assert!(!ids.contains(&device.id), "{} joined twice", device.id);
        ids.push(device.id);
    }
    let roster = server.handle().devices().await;
    assert_eq!(roster.len(), usize::from(DEVICES));
    assert!(
        roster
            .iter()
            .all(|device| device.state == State::Fresh && *device.source.ip() == host(1, device.id.0[0]))
    );
    let stats = server.handle().stats().await.unwrap();
    assert_eq!((stats.devices, stats.capacity, stats.net.links), (usize::from(DEVICES), 100, 1));
    assert_eq!((stats.net.off_link, stats.net.receive_errors, stats.net.send_errors), (0, 0, 0));
}

#[tokio::test]
async fn a_smaller_receive_buffer_can_be_asked_for() {
    for bytes in [8 << 10, 64 << 10] {
        let net = Net { receive_buffer_bytes: bytes, ..net(host(9, 200), 41_509) };
        let server = server_at(net);
        let granted = server.handle().stats().await.unwrap().net.receive_buffer_bytes;
        assert!((bytes..=2 * bytes).contains(&granted), "{granted} for {bytes}");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_seed_is_enough() {
    // Each listens at a broadcast address of its own, so no broadcast reaches anybody.
    let alone = |bind: Ipv4Addr, last| Net {
        broadcast: Some(Ipv4Addr::new(127, 62, 255, last)),
        ..net(bind, 41_102)
    };
    let at = SocketAddrV4::new(host(2, 200), 41_102);
    let mut server = server_at(alone(*at.ip(), 1));
    let mut config = DeviceConfig::new(id(1), store());
    config.seeds[0] = Some(at);
    let mut device = device::spawn(alone(host(2, 1), 2), config, 1).unwrap();
    let mut lost = device_at(alone(host(2, 2), 3), 2);
    device_says(&mut device, is_registered).await;
    let told = server_says(&mut server, joined(1)).await;
    assert_eq!(told.event.address, SocketAddrV4::new(host(2, 1), 8_081));
    assert_eq!(server.handle().devices().await.len(), 1);
    let nothing = timeout(Duration::from_millis(100), lost.next_event()).await;
    assert!(nothing.is_err(), "no seed and no broadcast, yet {nothing:?}");
}

#[tokio::test]
async fn garbage_of_every_length_is_counted_and_hurts_nobody() {
    let mut server = server_at(net(host(3, 200), 41_103));
    let mut first = device_at(net(host(3, 1), 41_103), 1);
    device_says(&mut first, is_registered).await;
    let vandal = UdpSocket::bind((host(3, 99), 0)).unwrap();
    vandal.set_broadcast(true).unwrap();
    let mut bytes = [0_u8; 1_501];
    let mut state = 7_u32;
    bytes.fill_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    for len in 0..=1_500_usize {
        let to = if len.is_multiple_of(2) { host(3, 200) } else { EVERYBODY };
        if len.is_multiple_of(3) {
            bytes[..4].copy_from_slice(b"TWLD");
        }
        vandal.send_to(&bytes[..len], (to, 41_103)).unwrap();
        if len.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
    let mut second = device_at(net(host(3, 2), 41_103), 2);
    device_says(&mut second, is_registered).await;
    server_says(&mut server, joined(2)).await;
    let stats = server.handle().stats().await.unwrap();
    assert!(stats.net.received >= 1_501, "{stats:?}");
    assert!(stats.protocol.dropped() >= 1_501, "{stats:?}");
    assert_eq!((stats.devices, stats.net.receive_errors), (2, 0));
    let heard = first.handle().stats().await.unwrap();
    assert!(
        heard.protocol.dropped() >= 750
            && first.handle().server().await.is_some_and(|found| found.registered)
    );
}

/// An ANNOUNCE of a device that will not be there for the answer.
fn announce(number: u16) -> Vec<u8> {
    let (store, mut id) = (store(), [0xA0; 16]);
    id[..2].copy_from_slice(&number.to_le_bytes());
    let node = Node::new(NodeId(id), DeviceKind::TILL);
    let announce = Announce {
        store: Some(StoreRef::from(&store)),
        pad_to: 96,
        ..Announce::without_entries(
            Node { scope: store.scope(), port: 8_081, lease_s: 90, want_ack: true, ..node },
            0,
        )
    };
    let mut bytes = [0; 1_200];
    let len = announce.emit(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

#[tokio::test]
async fn a_thousand_answers_to_ports_that_were_closed_hurt_nobody() {
    // As when a thousand devices lose their power at once: each answer comes back as "port unreachable".
    const GONE: u16 = 1_000;
    let config = ServerConfig::new(id(0xEE), store());
    let mut server = server::spawn(net(host(9, 200), 41_414), config, 2_000, 1).unwrap();
    for number in 0..GONE {
        let [low, high] = number.to_le_bytes();
        let gone = UdpSocket::bind((Ipv4Addr::new(127, 63, high, low), 0)).unwrap();
        gone.send_to(&announce(number), (host(9, 200), 41_414)).unwrap();
        drop(gone);
        if number.is_multiple_of(50) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut device = device_at(net(host(9, 1), 41_414), 1);
    device_says(&mut device, is_registered).await;
    server_says(&mut server, joined(1)).await;
    let stats = server.handle().stats().await.unwrap();
    assert_eq!((stats.devices, stats.net.receive_drops), (usize::from(GONE) + 1, 0));
    assert!(stats.protocol.sent_ack > u64::from(GONE), "{stats:?}");
    if cfg!(target_os = "linux") {
        assert_eq!(
            (stats.net.receive_errors, stats.net.send_errors),
            (0, 0),
            "a socket that is not connected hears of none"
        );
    }
}

#[tokio::test]
async fn strangers_are_counted_before_the_protocol_sees_them() {
    // Without `bind`, loopback is no link; and no other interface may be touched here.
    let net = Net { port: 41_109, deny: vec!["*".into()], ..Net::default() };
    let server = server_at(net);
    let stranger = UdpSocket::bind((host(8, 99), 0)).unwrap();
    for len in 0..=1_500_usize {
        stranger.send_to(&[7; 1_500][..len], (host(8, 200), 41_109)).unwrap();
        if len.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
    let stats = async {
        loop {
            let stats = server.handle().stats().await.unwrap();
            if stats.net.received >= 1_501 {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let stats = timeout(PATIENCE, stats).await.unwrap();
    assert_eq!((stats.net.received, stats.net.off_link, stats.protocol.received), (1_501, 1_501, 0));
    assert_eq!((stats.net.links, stats.net.sent), (0, 0));
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_a_name_and_nothing_is_half_started() {
    let spawn = |net: Net| device::spawn(net, DeviceConfig::new(id(1), store()), 1).map(drop).unwrap_err();
    let at = SocketAddrV4::new(host(4, 1), 41_104);

    let rival = UdpSocket::bind(at).unwrap();
    let error = spawn(net(*at.ip(), at.port()));
    assert_eq!((error.kind(), error.what, error.addr), (OpenErrorKind::PortInUse, Opening::Unicast, at));
    let text = error.to_string();
    assert!(text.contains("127.61.4.1:41104") && text.contains("in use"), "{text}");
    drop(rival);

    let rival = UdpSocket::bind((EVERYBODY, at.port())).unwrap();
    let error = spawn(net(*at.ip(), at.port()));
    assert_eq!((error.kind(), error.what), (OpenErrorKind::PortInUse, Opening::Broadcast));
    UdpSocket::bind(at).expect("the unicast socket is closed again");
    drop(rival);

    let rival = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 41_105)).unwrap();
    let error = spawn(Net { port: 41_105, ..Net::default() });
    assert_eq!((error.kind(), error.what), (OpenErrorKind::PortInUse, Opening::Wildcard));
    drop(rival);
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_errors_with_a_name() {
    let spawn =
        |net: Net| server::spawn(net, ServerConfig::new(id(1), store()), 1, 1).map(drop).unwrap_err().kind();
    // An address of the documentation range: no host has it.
    let nowhere = Ipv4Addr::new(203, 0, 113, 7);
    let net = Net { bind: Some(nowhere), port: 41_106, ..Net::default() };
    assert_eq!(spawn(net.clone()), OpenErrorKind::NoInterface);
    let broadcast = Some(Ipv4Addr::new(203, 0, 113, 255));
    assert_eq!(spawn(Net { broadcast, ..net }), OpenErrorKind::NoSuchAddress);
    assert_eq!(spawn(Net { port: 0, ..Net::default() }), OpenErrorKind::NoPort);
}

#[tokio::test]
async fn a_shutdown_says_goodbye_and_frees_the_port_at_once() {
    let mut server = server_at(net(host(6, 200), 41_107));
    let (mut leaving, mut staying) =
        (device_at(net(host(6, 1), 41_107), 1), device_at(net(host(6, 2), 41_107), 2));
    server_says(&mut server, joined(1)).await;
    device_says(&mut leaving, is_registered).await;
    device_says(&mut staying, is_registered).await;
    let handle = leaving.handle().clone();
    leaving.shutdown().await;
    UdpSocket::bind((host(6, 1), 41_107)).expect("the device's port is free");
    assert!(handle.stats().await.is_none() && handle.server().await.is_none());
    server_says(&mut server, |told| told.event.id == id(1) && told.event.what == What::Left).await;

    server.shutdown().await;
    UdpSocket::bind((host(6, 200), 41_107)).expect("the server's port is free");
    device_says(&mut staying, |told| matches!(told.event, SeekerEvent::ServerLeft { .. })).await;
}

#[tokio::test]
async fn a_handle_says_what_is_linked() {
    let mut server = server_at(net(host(7, 200), 41_108));
    let mut device = device_at(net(host(7, 1), 41_108), 1);
    device_says(&mut device, is_registered).await;
    server_says(&mut server, joined(1)).await;
    server.handle().set_linked(id(1), true).await;
    device.handle().set_linked(true).await;
    assert_eq!(server.handle().find(id(1)).await.map(|device| device.state), Some(State::Linked));
    server.handle().set_linked(id(1), false).await;
    assert_eq!(server.handle().find(id(1)).await.map(|device| device.state), Some(State::Fresh));
    assert!(server.handle().find(id(9)).await.is_none());
}

/// Some systems give a program's first thread 1 MiB, and some programs start their servers deep inside.
#[test]
fn a_server_starts_on_a_small_stack() {
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = server_at(net(host(29, 1), 41_629));
            assert!(server.handle().stats().await.is_some());
            server.shutdown().await;
        });
    };
    std::thread::Builder::new().stack_size(SMALL_STACK).spawn(start).unwrap().join().unwrap();
}
