//! Devices that only ever announced themselves must not keep others off the list.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use testkit::farm::{Farm, FarmConfig};
use tillwire::push::config::FleetConfig;
use tillwire::push::driver::server::{ConnConfig, Device as Listed, Server, ServerConfig};
use tillwire::{AddError, Device, DeviceKind, Lineage, NodeId, Security, StoreServer, Tags, Verdict};
use tokio::time::{Instant, sleep};

use super::{WITHIN, at, runtime, store};

fn listed(number: u8, port: u16) -> Listed {
    Listed {
        id: Some(NodeId([number; 16])),
        address: SocketAddr::from((Ipv4Addr::new(127, 69, 0, number), port)),
        kind: DeviceKind::TILL,
        zone: 0,
        tags: Tags::EMPTY,
    }
}

#[test]
fn whoever_was_only_announced_can_be_forgotten_and_nobody_else() {
    const PORT: u16 = 41_560;
    let runtime = runtime();
    runtime.block_on(async {
        let server = Server::spawn(ServerConfig {
            fleet: FleetConfig::new(NodeId([0xEE; 16]), store(), Lineage([5; 16])),
            conn: ConnConfig::default(),
            devices: 6,
            orders: 4,
            bytes: 1 << 20,
            shards: Some(1),
            seed: 3,
        });
        // One with a session, one from the list, one that is here, and three nobody knows.
        let real = Device::builder(store(), NodeId([1; 16]))
            .security(Security::open_network())
            .no_discovery()
            .bind(Ipv4Addr::new(127, 69, 0, 1))
            .port(PORT)
            .start(|_: &tillwire::Delivered<'_>| Verdict::Applied)
            .await
            .unwrap();
        server.announce_device(listed(1, PORT)).await.unwrap();
        server.announce_device(listed(2, PORT)).await.unwrap();
        server.set_device(listed(2, PORT)).await.unwrap();
        for number in 3..=6 {
            server.announce_device(listed(number, PORT)).await.unwrap();
        }
        let begun = Instant::now();
        while !server.devices().iter().any(|device| device.connected) {
            assert!(begun.elapsed() < WITHIN, "no session");
            sleep(Duration::from_millis(5)).await;
        }
        assert!(matches!(server.announce_device(listed(7, PORT)).await, Err(AddError::Full { capacity: 6 })));
        assert_eq!(server.forget_announced(|id| id == NodeId([3; 16])), 3);
        assert_eq!(server.forget_announced(|id| id == NodeId([3; 16])), 0);
        let mut left: Vec<_> = server.devices().iter().filter_map(|device| device.id).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 2, 3].map(|number| NodeId([number; 16])));
        server.announce_device(listed(7, PORT)).await.unwrap();
        server.stop(Duration::from_secs(1)).await;
        real.shutdown().await;
    });
}

#[test]
fn devices_that_left_and_never_had_a_session_make_room_for_those_that_come() {
    const DEVICES: u32 = 20;
    let (runtime, at) = (runtime(), at(40, 41_561));
    let server = StoreServer::builder(store())
        .security(Security::open_network())
        .bind(*at.ip())
        .discovery_port(at.port())
        .capacity(DEVICES as usize)
        .expected_devices(DEVICES)
        .start();
    let server = runtime.block_on(server).unwrap();
    let ids = || {
        let mut ids: Vec<_> =
            runtime.block_on(server.devices()).into_iter().filter_map(|device| device.push.id).collect();
        ids.sort_unstable();
        ids
    };
    let config = FarmConfig::new(DEVICES, Ipv4Addr::new(127, 68, 0, 1), at.port(), store());
    let mut first = Farm::open(&config).unwrap();
    first.boot_within(Duration::from_millis(100));
    assert!(first.run_until(WITHIN, |crowd| crowd.all_registered()).unwrap());
    let begun = Instant::now();
    while ids().len() < DEVICES as usize {
        assert!(begun.elapsed() < WITHIN);
        first.run_for(Duration::from_millis(20)).unwrap();
    }
    let before = ids();
    (0..DEVICES).for_each(|number| first.leave(number));
    let begun = Instant::now();
    while runtime.block_on(server.stats()).unwrap().discovery.unwrap().devices > 0 {
        assert!(begun.elapsed() < WITHIN, "they said goodbye");
        first.run_for(Duration::from_millis(50)).unwrap();
    }
    assert_eq!(ids(), before, "nobody needs their place yet");

    let config = FarmConfig { first: Ipv4Addr::new(127, 68, 1, 1), ..config };
    let mut second = Farm::open(&config).unwrap();
    for number in 0..DEVICES {
        second.crowd.configure(number, |config| config.id.0[0] = b'F');
    }
    second.boot_within(Duration::from_millis(100));
    let begun = Instant::now();
    while ids().len() < DEVICES as usize || ids().iter().any(|id| before.contains(id)) {
        assert!(begun.elapsed() < WITHIN, "{} of {DEVICES}", second.crowd.registered());
        second.run_for(Duration::from_millis(50)).unwrap();
    }
    runtime.block_on(server.shutdown());
}
