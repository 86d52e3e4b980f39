//! The farm against a server's driver: what it counts is what the server counts.
#![cfg(all(feature = "farm", target_os = "linux"))]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use discovery::ServerConfig;
use discovery::driver::Net;
use discovery::driver::server::{self, ServerDriver};
use testkit::farm::{Announces, Farm, FarmConfig, Forger, Loss, Sockets, receive_drops};
use wire_format::datagram::header::Kind;
use wire_format::ids::{NodeId, Store};

const WITHIN: Duration = Duration::from_secs(30);

fn store() -> Store {
    Store::new(7, "FARM").unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn server_at(at: SocketAddrV4, capacity: usize) -> ServerDriver {
    let config = ServerConfig { rate_per_s: 5_000, ..ServerConfig::new(NodeId([0xEE; 16]), store()) };
    let net = Net { bind: Some(*at.ip()), port: at.port(), ..Net::default() };
    server::spawn(net, config, capacity, 7).unwrap()
}

fn at(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 57, 5, host), port)
}

#[test]
fn two_hundred_devices_register_and_both_sides_count_the_same() {
    let (runtime, at) = (runtime(), at(1, 41_520));
    let mut farm = Farm::open(&FarmConfig::new(200, Ipv4Addr::new(127, 58, 1, 1), 41_520, store())).unwrap();
    farm.boot_within(Duration::from_millis(200));
    let server = runtime.block_on(async { server_at(at, 200) });
    assert!(farm.run_until(WITHIN, |crowd| crowd.all_registered()).unwrap(), "{:?}", farm.crowd);
    let stats = runtime.block_on(server.handle().stats()).unwrap();
    let counts = &farm.crowd.counts;
    assert_eq!((stats.devices, counts.registered, counts.refused, counts.astray), (200, 200, 0, 0));
    assert_eq!(counts.heard(Kind::Ack), stats.protocol.sent_ack);
    assert_eq!(counts.sent(Kind::Announce), stats.protocol.received_announce);
    assert_eq!((farm.send_errors(), farm.own_drops(), receive_drops(at)), (0, 0, Some(0)));

    // Power off, goodbye, another address, a clone.
    farm.power_off(0);
    farm.leave(1);
    farm.power_off(2);
    farm.crowd.readdress(2, Ipv4Addr::new(127, 58, 9, 2));
    farm.boot(2);
    let other = farm.crowd.seeker(3).unwrap().config().id;
    farm.crowd.configure(4, |config| config.id = other);
    farm.boot(4);
    let refused = farm.run_until(WITHIN, |crowd| crowd.registered() == 197 && crowd.counts.refused > 0);
    assert!(refused.unwrap(), "{:?} {:?}", farm.crowd, farm.crowd.counts);
    runtime.block_on(server.shutdown());
}

#[test]
fn devices_that_lose_every_tenth_datagram_register_all_the_same() {
    let runtime = runtime();
    let config = FarmConfig {
        loss: Loss::all(0.1),
        ..FarmConfig::new(100, Ipv4Addr::new(127, 58, 16, 1), 41_521, store())
    };
    let mut farm = Farm::open(&config).unwrap();
    farm.boot_within(Duration::from_millis(100));
    let server = runtime.block_on(async { server_at(at(2, 41_521), 100) });
    assert!(farm.run_until(WITHIN, |crowd| crowd.all_registered()).unwrap(), "{:?}", farm.crowd);
    assert!(farm.crowd.counts.lost > 0);
    runtime.block_on(server.shutdown());
}

#[test]
fn announces_made_in_advance_are_each_acknowledged() {
    let (runtime, at) = (runtime(), at(3, 41_522));
    let server = runtime.block_on(async { server_at(at, 300) });
    let config = FarmConfig::new(300, Ipv4Addr::new(127, 58, 32, 1), 41_522, store());
    let mut announces = Announces::new(&config, 1);
    assert!((120..=192).contains(&announces.len_each()), "as a shop's: {}", announces.len_each());
    let mut sockets = Sockets::open(0, SocketAddrV4::new(config.broadcast, 41_522)).unwrap();
    for per_s in [None, Some(3_000)] {
        let fired = announces.fire(&mut sockets, at, per_s, WITHIN).unwrap();
        assert_eq!((fired.acked, fired.refused), (300, 0), "{fired:?}");
        assert!(fired.sent >= 300 && (per_s.is_none() || fired.elapsed > Duration::from_millis(50)));
    }
    runtime.block_on(server.shutdown());
}

#[test]
fn forged_datagrams_come_from_many_and_what_comes_back_is_counted() {
    let (runtime, at) = (runtime(), at(4, 41_523));
    let server = runtime.block_on(async { server_at(at, 100) });
    let sources = (Ipv4Addr::new(127, 59, 0, 1), 50);
    let mut forger = Forger::new(at, Ipv4Addr::new(127, 255, 255, 255), store(), sources, 1).unwrap();
    for _ in 0..300 {
        let source = forger.announce(8_081).unwrap();
        assert!((sources.0..=Ipv4Addr::new(127, 59, 0, 50)).contains(&source));
    }
    for _ in 0..10 {
        forger.seek().unwrap();
    }
    forger.listen(Duration::from_millis(300)).unwrap();
    assert_eq!(forger.sent, 310);
    assert!(forger.heard > 0 && forger.heard_bytes <= forger.sent_bytes);
    let stats = runtime.block_on(server.handle().stats()).unwrap();
    assert!((1..=100).contains(&stats.devices), "{} forged ones", stats.devices);
    runtime.block_on(server.shutdown());
}
