//! More devices on one LAN than the kernel's neighbour table holds: `gc_thresh3`, 1,024 on a stock Linux, and one table
//! for all namespaces of a host, which is why this test has a program of its own.
//!
//! The system says nothing: each send succeeds, and what has no neighbour entry is thrown away. So discovery has to go by
//! answers. No device may take itself for registered without one, and those without one keep asking.
//!
//! Linux, root and `ip` are needed; elsewhere the test says so and passes (or fails: `TILLWIRE_SKIP=never`).
#![cfg(target_os = "linux")]

use std::net::Ipv4Addr;
use std::time::Duration;

use discovery::ServerConfig;
use discovery::driver::Net;
use discovery::driver::server::{self, ServerStats};
use testkit::farm::{Farm, FarmConfig};
use testkit::netns::{Lan, skip};
use tillwire::{NodeId, Store, discovery};
use tokio::sync::oneshot;
use wire_format::datagram::header::Kind;

/// A farm of so many hosts behind one interface.
const DEVICES: u32 = 3_000;
/// Past the reply window of 3.3 s and the first repeats.
const RUN: Duration = Duration::from_secs(6);

fn store() -> Store {
    Store::new(7, "LYON-01").unwrap()
}

/// Neighbours the kernel holds at most, in all namespaces together.
fn neighbours_max() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").ok()?;
    text.trim().parse().ok()
}

/// Datagrams this host's namespace threw away after a send that succeeded.
fn thrown_away() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut udp = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
    let at = names.split_whitespace().position(|name| name == "SndbufErrors").unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}

/// Runs a server until `end`; its counters then.
fn serve(end: oneshot::Receiver<()>) -> ServerStats {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config =
            ServerConfig { expected_devices: DEVICES, ..ServerConfig::new(NodeId([200; 16]), store()) };
        let mut driver = server::spawn(Net::default(), config, DEVICES as usize, 1).unwrap();
        let handle = driver.handle().clone();
        let told = async { while driver.next_event().await.is_some() {} };
        tokio::select! {
            () = told => unreachable!("it runs"),
            _ = end => {}
        }
        handle.stats().await.unwrap()
    })
}

#[test]
fn devices_that_no_answer_reaches_stay_unregistered_and_keep_asking() {
    match neighbours_max() {
        Some(max) if max < DEVICES / 2 => {}
        max => return skip(&format!("the neighbour table is not too small: {max:?}")),
    }
    let Some(lan) = Lan::new(
        "s     eth0  shop  10.57.0.1/16
         farm  eth0  shop  10.57.0.2/16",
    ) else {
        return;
    };
    lan.ip("farm", "route add local 10.57.64.0/18 dev lo");
    let (end, ended) = oneshot::channel();
    let (stats, lost) = std::thread::scope(|threads| {
        let serving = threads.spawn(|| lan.enter("s", || (serve(ended), thrown_away())));
        lan.enter("farm", || {
            let mut config = FarmConfig::new(DEVICES, Ipv4Addr::new(10, 57, 64, 1), 57_854, store());
            config.broadcast = Ipv4Addr::new(10, 57, 255, 255);
            config.source_port = 57_854;
            let mut farm = Farm::open(&config).unwrap();
            farm.boot_within(Duration::from_millis(500));
            farm.run_for(RUN).unwrap();
            check(&farm);
        });
        end.send(()).unwrap();
        serving.join().unwrap()
    });
    // The roster knows them all: their announces arrived. That their answers did not is seen in the repeats, and in a
    // counter of the system that no send reports.
    assert_eq!(stats.devices, DEVICES as usize);
    assert!(stats.protocol.received_announce > u64::from(DEVICES), "{stats:?}");
    assert_eq!(stats.net.send_errors, 0, "the system says nothing");
    assert!(lost > 0);
}

/// What the devices can know is what reached them.
fn check(farm: &Farm) {
    let (mut registered, mut asking) = (0, 0);
    for seeker in (0..DEVICES).filter_map(|device| farm.crowd.seeker(device)) {
        let stats = seeker.stats();
        if seeker.server().is_some_and(|server| server.registered) {
            assert!(stats.received_ack >= 1, "no device registers without an answer");
            registered += 1;
        } else {
            assert_eq!(stats.received_ack, 0);
            assert!(seeker.poll_timeout().is_some(), "it asks again");
            asking += u32::from(stats.sent_announce >= 2);
        }
    }
    let acks = farm.crowd.counts.heard(Kind::Ack);
    assert!(u64::from(registered) <= acks, "{registered} registered by {acks} answers");
    assert!(registered > 0 && registered < DEVICES, "{registered} of {DEVICES} fit the table");
    assert!(asking > (DEVICES - registered) / 2, "{asking} of {} have asked again", DEVICES - registered);
    assert_eq!(farm.own_drops(), 0);
    println!("{registered} of {DEVICES} registered, {asking} of the others have asked again");
}
