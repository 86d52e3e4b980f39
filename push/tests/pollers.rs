//! The server's driver and real devices, with either poller, through sockets so small that large orders are cut.
#![cfg(feature = "tokio")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use push::config::FleetConfig;
use push::driver::device::Listener;
use push::driver::server::{ConnConfig, Device, Poller, Server, ServerConfig, Target};
use push::order::Order;
use push::receiver::{Delivered, ReceiverConfig, Verdict};
use wire_format::frame::outcome::Code;
use wire_format::ids::{DeviceKind, Lineage, NodeId, OrderKind, Store, Tags};

const DEVICES: u8 = 24;
const SOON: Duration = Duration::from_secs(30);
/// Sizes of the orders' payloads, in the order they are pushed.
const SIZES: [usize; 9] = [65_536, 0, 200, 65_536, 30_000, 1, 4_096, 65_536, 17];

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ len as u8).collect()
}

/// What a device was handed: sizes of payloads, and whether every byte was right.
type Seen = Arc<Mutex<Vec<(usize, bool)>>>;

fn device(n: u8, seen: Seen) -> Listener {
    let config = ReceiverConfig::new(NodeId([n; 16]), store(), u64::from(n));
    let handler = move |delivered: &Delivered<'_>| {
        let bytes = delivered.order.payload;
        seen.lock().unwrap().push((bytes.len(), bytes == payload(bytes.len())));
        Verdict::Applied
    };
    Listener::spawn("127.0.0.1:0".parse().unwrap(), config, handler).unwrap()
}

async fn serve(conn: ConnConfig, shards: usize) -> u64 {
    let seen: Vec<Seen> = (0..DEVICES).map(|_| Seen::default()).collect();
    let devices: Vec<_> = (1..).zip(&seen).map(|(n, seen)| device(n, Arc::clone(seen))).collect();
    let server = Server::spawn(ServerConfig {
        fleet: FleetConfig::new(NodeId([0xAA; 16]), store(), Lineage([7; 16])),
        conn,
        devices: DEVICES.into(),
        orders: 64,
        bytes: 1 << 20,
        seed: 7,
        shards: Some(shards),
    });
    for (n, device) in (1..).zip(&devices) {
        let new = Device {
            id: Some(NodeId([n; 16])),
            address: device.address(),
            kind: DeviceKind(1),
            zone: 0,
            tags: Tags::default(),
        };
        server.set_device(new).await.unwrap();
    }
    let mut fan_outs = Vec::new();
    for len in SIZES {
        let bytes = payload(len);
        let order = Order::new(OrderKind::SHOW_PAGE, 1, &bytes);
        fan_outs.push(server.push(&order, &Target::all()).await.unwrap());
    }
    for fan_out in fan_outs {
        let report = fan_out.settled(SOON).await;
        assert_eq!(report.count(Code::APPLIED), usize::from(DEVICES), "{:?}", report.outcomes());
    }
    for seen in &seen {
        assert_eq!(*seen.lock().unwrap(), SIZES.map(|len| (len, true)));
    }
    let stats = server.stats().await.unwrap();
    server.stop(SOON).await;
    for device in devices {
        device.shutdown(SOON).await;
    }
    stats.fleet.writes_cut
}

fn config(poller: Poller) -> ConnConfig {
    let mut config = ConnConfig::default();
    config.poller = poller;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_of_all_sizes_arrive_with_either_poller() {
    for poller in [Poller::System, Poller::Portable] {
        for shards in [1, 2] {
            serve(config(poller), shards).await;
        }
    }
}

#[tokio::test]
async fn cut_writes_go_on_where_they_stopped() {
    for poller in [Poller::System, Poller::Portable] {
        let mut config = config(poller);
        config.send_buffer = Some(32 << 10);
        config.notsent_max = Some(1);
        let cut = serve(config, 1).await;
        assert!(cut > 0, "{poller:?}: a send buffer of half an order takes no whole one");
    }
}
