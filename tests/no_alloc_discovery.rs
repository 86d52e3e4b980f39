//! A datagram costs neither driver an allocation, from the socket through the state machine to the answer and the event.
//!
//! What is not per datagram may allocate: the looks at the interfaces (every 3 s, none at all for addresses of loopback),
//! and the event channel, which takes a block of memory now and then and keeps a few.

use core::net::Ipv4Addr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::net::UdpSocket;
use std::sync::Arc;

use discovery::driver::device::{self, DeviceDriver};
use discovery::driver::server::{self, ServerDriver};
use discovery::driver::{Net, NetStats};
use discovery::{DeviceConfig, SeekerEvent, ServerConfig};
use testkit::alloc::Counts;
use wire_format::datagram::ack::Code;
use wire_format::datagram::bye::Reason;
use wire_format::datagram::header::{Header, Kind, Node};
use wire_format::datagram::{Ack, Announce, Beacon, Bye, Challenge, Nonce, Seek, Status, StoreRef};
use wire_format::ids::{DeviceKind, NodeId, Store};

#[global_allocator]
static ALLOCATOR: testkit::alloc::Counting = testkit::alloc::Counting;

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 61, 9, 200);
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
const DEVICES: u8 = 100;

fn store() -> Store {
    Store::new(7, "LYON-01").unwrap()
}

fn node(number: u8, role: DeviceKind, sequence: u32) -> Node {
    let (scope, port, epoch, lease_s) = (store().scope(), 8_081, 1, 90);
    Node { scope, epoch, sequence, port, lease_s, ..Node::new(NodeId([number; 16]), role) }
}

fn kiosk(number: u8, sequence: u32) -> Node {
    Node { want_ack: true, ..node(number, DeviceKind::KIOSK, sequence) }
}

fn announce(number: u8, sequence: u32, buffer: &mut [u8]) -> usize {
    announce_as(kiosk(number, sequence), buffer)
}

fn announce_as(from: Node, buffer: &mut [u8]) -> usize {
    let store = store();
    let announce =
        Announce { store: Some(StoreRef::from(&store)), pad_to: 96, ..Announce::without_entries(from, 0) };
    announce.emit(buffer).unwrap()
}

/// One host of loopback that does not wait.
fn host(number: u8, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 61, 9, number), port)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.set_broadcast(true).unwrap();
    socket
}

/// The next datagram of this kind that comes to `socket`; its length.
async fn next(socket: &UdpSocket, kind: Kind, buffer: &mut [u8]) -> usize {
    loop {
        match socket.recv_from(buffer) {
            Ok((len, _)) if Header::parse(&buffer[..len]).is_ok_and(|header| header.kind == kind) => {
                return len;
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Each device announces itself and waits for its answer.
async fn announces(devices: &[UdpSocket], port: u16, sequence: u32) {
    let mut buffer = [0; 1_200];
    for (device, number) in devices.iter().zip(1..) {
        let len = announce(number, sequence, &mut buffer);
        device.send_to(&buffer[..len], (SERVER, port)).unwrap();
    }
    for device in devices {
        next(device, Kind::Ack, &mut buffer).await;
    }
}

/// Each of these says goodbye, is asked whether it means it, and says that it is there.
async fn goodbyes_taken_back(devices: &[UdpSocket], port: u16, sequence: u32) {
    let mut buffer = [0; 1_200];
    for (device, number) in devices.iter().zip(1..) {
        let (from, store) = (kiosk(number, sequence), store());
        let bye = Bye {
            from,
            reason: Reason::LEAVING,
            retry_after_s: 0,
            store: Some(StoreRef::from(&store)),
            auth: None,
        };
        let len = bye.emit(&mut buffer).unwrap();
        device.send_to(&buffer[..len], (SERVER, port)).unwrap();
    }
    for (device, number) in devices.iter().zip(1..) {
        let len = next(device, Kind::Challenge, &mut buffer).await;
        let Nonce::Short(nonce) = Challenge::parse(&buffer[..len]).unwrap().nonce else { panic!("a cookie") };
        let (from, nonce) = (kiosk(number, sequence + 1), Nonce::Short(nonce));
        let len = Challenge { from, answer: true, nonce, auth: None }.emit(&mut buffer).unwrap();
        device.send_to(&buffer[..len], (SERVER, port)).unwrap();
    }
}

/// Strangers ask who is there.
fn seeks(devices: &[UdpSocket], to: Ipv4Addr, port: u16, sequence: u32) {
    let (mut buffer, store) = ([0; 1_200], store());
    for (device, number) in devices.iter().zip(1..) {
        let from = Node { broadcast_copy: true, ..node(number, DeviceKind::TILL, sequence) };
        let (store, pad_to) = (Some(StoreRef::from(&store)), 200);
        let seek = Seek { from, suppressed: 0, store, name: None, pad_to, auth: None };
        let len = seek.emit(&mut buffer).unwrap();
        device.send_to(&buffer[..len], (to, port)).unwrap();
    }
}

/// Nothing was taken, unless this machine was so slow that a look at the interfaces came in between.
fn assert_none(counts: Counts, net: &NetStats, what: &str) {
    if net.scans == 1 {
        assert_eq!(counts, Counts::default(), "for {what}");
    } else {
        println!("not judged: the interfaces were looked at {} times", net.scans);
    }
}

fn server(runtime: &tokio::runtime::Runtime, net: Net) -> ServerDriver {
    let config = ServerConfig::new(NodeId([0xEE; 16]), store());
    runtime.block_on(async { server::spawn(net, config, 200, 1).unwrap() })
}

fn check(net: Net, seek_to: Ipv4Addr) {
    let port = net.port;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = server(&runtime, net);
    let devices: Vec<_> = (1..=DEVICES).map(|number| host(number, 0)).collect();
    let (strangers, few) = (&devices[90..], &devices[..20]);
    runtime.block_on(async {
        for sequence in 1..4 {
            announces(&devices, port, sequence).await;
        }
        goodbyes_taken_back(few, port, 10).await;
        seeks(strangers, seek_to, port, 10);
    });
    let counts = testkit::alloc::count(|| {
        runtime.block_on(async {
            for sequence in 14..21 {
                announces(&devices, port, sequence).await;
            }
            goodbyes_taken_back(few, port, 30).await;
            seeks(strangers, seek_to, port, 30);
            announces(few, port, 40).await;
        });
    });
    let stats = runtime.block_on(server.handle().stats()).unwrap();
    assert_none(counts, &stats.net, "announces, goodbyes, questions and their answers");
    let protocol = &stats.protocol;
    let devices = u64::from(DEVICES);
    assert_eq!((stats.devices as u64, protocol.sent_ack), (devices, 10 * devices + 20));
    assert_eq!((protocol.sent_challenge, protocol.received_challenge), (40, 40));
    assert_eq!((protocol.received_seek, protocol.dropped() - protocol.dropped_own), (20, 0));
}

#[test]
fn none_through_the_sockets_of_one_address() {
    let net = Net { bind: Some(SERVER), broadcast: Some(EVERYBODY), port: 41_410, ..Net::default() };
    check(net, EVERYBODY);
}

#[test]
fn none_through_the_socket_for_every_address() {
    // Loopback is no link of it, so the devices count as neighbours of a router; and no other interface is touched.
    let sources = vec!["127.0.0.0/8".parse().unwrap()];
    check(Net { port: 41_411, deny: vec!["*".into()], sources, ..Net::default() }, SERVER);
}

/// A device of each of these numbers, new, at each address.
async fn newcomers(hosts: &[UdpSocket], port: u16, numbers: core::ops::Range<u8>) {
    let mut buffer = [0; 1_200];
    for new in numbers {
        for (host, number) in hosts.iter().zip(1..) {
            let mut from = kiosk(number, 1);
            from.id.0[15] = new;
            let len = announce_as(from, &mut buffer);
            host.send_to(&buffer[..len], (Ipv4Addr::new(127, 61, 9, 201), port)).unwrap();
        }
        for host in hosts {
            next(host, Kind::Ack, &mut buffer).await;
        }
    }
}

/// The channel's memory is taken in blocks of 32 events, which come back when they are fetched.
#[test]
fn next_to_none_for_events_that_are_fetched() {
    let port = 41_412;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let net = Net { bind: Some(Ipv4Addr::new(127, 61, 9, 201)), port, ..Net::default() };
    let mut config = ServerConfig::new(NodeId([0xEE; 16]), store());
    config.devices_per_address = 100;
    let joined = Arc::new(AtomicUsize::new(0));
    let mut server = runtime.block_on(async { server::spawn(net, config, 1_500, 1).unwrap() });
    let handle = server.handle().clone();
    let count = Arc::clone(&joined);
    runtime.spawn(async move {
        while server.next_event().await.is_some() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let hosts: Vec<_> = (1..=DEVICES).map(|number| host(number, 0)).collect();
    runtime.block_on(newcomers(&hosts, port, 0..3));
    let counts = testkit::alloc::count(|| runtime.block_on(newcomers(&hosts, port, 3..13)));
    let stats = runtime.block_on(handle.stats()).unwrap();
    assert_eq!((stats.devices, joined.load(Ordering::Relaxed)), (1_300, 1_300));
    assert!(counts.allocations <= 8, "{counts:?} for 1,000 events");
}

/// A device that has registered at `fake`, which plays the server.
async fn registered(port: u16, fake: &UdpSocket) -> DeviceDriver {
    let net = Net {
        bind: Some(Ipv4Addr::new(127, 61, 9, 150)),
        broadcast: Some(EVERYBODY),
        port,
        ..Net::default()
    };
    let mut device = device::spawn(net, DeviceConfig::new(NodeId([150; 16]), store()), 1).unwrap();
    let mut buffer = [0; 1_200];
    tokio::time::sleep(Duration::from_millis(20)).await;
    beacon(fake, port, 1, &mut buffer);
    let len = next(fake, Kind::Announce, &mut buffer).await;
    let (announce_sequence, nonce) = {
        let announce = Announce::parse(&buffer[..len]).unwrap();
        let Some(Nonce::Short(nonce)) = announce.nonce else { panic!("{announce:?}") };
        (announce.from.sequence, Some(Nonce::Short(nonce)))
    };
    let from = node(0xEE, DeviceKind::SERVER, 2);
    let status = Status { code: Code::OK, retry_after_s: 0, detail: 0 };
    let len = Ack { from, announce_sequence, status, nonce, auth: None }.emit(&mut buffer).unwrap();
    fake.send_to(&buffer[..len], (Ipv4Addr::new(127, 61, 9, 150), port)).unwrap();
    while !matches!(device.next_event().await.unwrap().event, SeekerEvent::Registered { .. }) {}
    device
}

fn beacon(fake: &UdpSocket, port: u16, sequence: u32, buffer: &mut [u8]) {
    let from = Node { broadcast_copy: true, ..node(0xEE, DeviceKind::SERVER, sequence) };
    let store = store();
    let beacon = Beacon {
        from,
        window_ms: 250,
        select_bits: 0,
        select_salt: 0,
        store: Some(StoreRef::from(&store)),
        name: None,
        services: None,
        addrs: None,
        priority: None,
        caps: None,
        auth: None,
    };
    let len = beacon.emit(buffer).unwrap();
    fake.send_to(&buffer[..len], (EVERYBODY, port)).unwrap();
}

/// BEACONs, each of which says something, and questions, each of which is answered.
async fn asked(fake: &UdpSocket, port: u16, first: u32) {
    let mut buffer = [0; 1_200];
    for sequence in (first..first + 10).step_by(2) {
        beacon(fake, port, sequence, &mut buffer);
        let (from, nonce) = (node(0xEE, DeviceKind::SERVER, sequence + 1), [7; 8]);
        let question = Challenge { from, answer: false, nonce: Nonce::Short(nonce), auth: None };
        let len = question.emit(&mut buffer).unwrap();
        fake.send_to(&buffer[..len], (Ipv4Addr::new(127, 61, 9, 150), port)).unwrap();
        next(fake, Kind::Challenge, &mut buffer).await;
    }
}

#[test]
fn none_on_a_device() {
    let port = 41_413;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fake = host(202, port);
    let device = runtime.block_on(async {
        let device = registered(port, &fake).await;
        asked(&fake, port, 10).await;
        device
    });
    let counts = testkit::alloc::count(|| {
        runtime.block_on(asked(&fake, port, 30));
    });
    let stats = runtime.block_on(device.handle().stats()).unwrap();
    assert_none(counts, &stats.net, "beacons, questions and their answers");
    assert_eq!((stats.protocol.received_beacon, stats.protocol.sent_challenge), (11, 10), "{stats:?}");
}
