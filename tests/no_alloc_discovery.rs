//! A datagram costs the server's driver no allocation, from the socket through the roster to the answer.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::net::UdpSocket;

use discovery::ServerConfig;
use discovery::driver::{Net, server};
use wire_format::datagram::header::Node;
use wire_format::datagram::{Announce, StoreRef};
use wire_format::ids::{DeviceKind, NodeId, Store};

#[global_allocator]
static ALLOCATOR: testkit::alloc::Counting = testkit::alloc::Counting;

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 61, 9, 200);
const DEVICES: u8 = 100;

fn announce(number: u8, sequence: u32, buffer: &mut [u8]) -> usize {
    let store = Store::new(7, "LYON-01").unwrap();
    let from = Node {
        id: NodeId([number; 16]),
        role: DeviceKind::KIOSK,
        scope: store.scope(),
        epoch: 1,
        epoch_random: false,
        sequence,
        staging: false,
        port: 8_081,
        lease_s: 90,
        broadcast_copy: false,
        retransmit: false,
        want_ack: true,
    };
    let announce = Announce {
        from,
        answers: 0,
        store: Some(StoreRef::from(&store)),
        name: None,
        services: None,
        addrs: None,
        firmware: None,
        caps: None,
        zone: None,
        tags: None,
        code: None,
        nonce: None,
        app: None,
        pad_to: 96,
        auth: None,
    };
    announce.emit(buffer).unwrap()
}

/// Every device announces itself and waits for its answer.
async fn round(devices: &[UdpSocket], port: u16, sequence: u32) {
    let mut buffer = [0; 1_200];
    for (device, number) in devices.iter().zip(1..) {
        let len = announce(number, sequence, &mut buffer);
        device.send_to(&buffer[..len], (SERVER, port)).unwrap();
    }
    for device in devices {
        while device.recv_from(&mut buffer).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn check(net: Net) {
    let port = net.port;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ServerConfig::new(NodeId([0xEE; 16]), Store::new(7, "LYON-01").unwrap());
    let server = runtime.block_on(async { server::spawn(net, config, 200, 1).unwrap() });
    let devices: Vec<_> = (1..=DEVICES)
        .map(|number| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 61, 9, number), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    runtime.block_on(async {
        for sequence in 1..4 {
            round(&devices, port, sequence).await;
        }
    });
    let counts = testkit::alloc::count(|| {
        runtime.block_on(async {
            for sequence in 4..14 {
                round(&devices, port, sequence).await;
            }
        });
    });
    let stats = runtime.block_on(server.handle().stats()).unwrap();
    // A look at the interfaces allocates; there is one every three seconds, should this machine be that slow.
    if stats.net.scans == 1 {
        let expected = testkit::alloc::Counts::default();
        assert_eq!(counts, expected, "for {} announces and as many answers", 10 * usize::from(DEVICES));
    }
    assert_eq!((stats.devices, stats.protocol.sent_ack), (usize::from(DEVICES), 13 * u64::from(DEVICES)));
}

#[test]
fn none_through_the_sockets_of_one_address() {
    check(Net { bind: Some(SERVER), port: 41_110, ..Net::default() });
}

#[test]
fn none_through_the_socket_for_every_address() {
    // Loopback is no link of it, so the devices count as neighbours of a router; and no other interface is touched.
    let sources = vec!["127.0.0.0/8".parse().unwrap()];
    check(Net { port: 41_111, deny: vec!["*".into()], sources, ..Net::default() });
}
