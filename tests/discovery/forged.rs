//! A flood of forged announces against a whole store server: it answers no more than it got, dials nobody but who seems to
//! have asked, slowly, and takes no more memory.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::farm::{Farm, FarmConfig, Forger};
use tillwire::{Security, StoreServer};
use tokio::time::Instant;

use super::{WITHIN, at, runtime, store};

const FORGED: u32 = 10_000;
/// Where the forged devices say they listen: a port that is allowed, and two that are not.
const PUSH_PORT: u16 = 41_535;
const OFF_LIMITS: [u16; 2] = [41_536, 22];
/// The addresses they come from.
const SOURCES: (Ipv4Addr, u32) = (Ipv4Addr::new(127, 130, 0, 1), 500);
/// Dials to announced addresses: a second, and at once for each of the server's shards.
const DIALS_PER_S: f64 = 200.0;
const DIALS_AT_ONCE: f64 = 20.0;
/// Memory a process may take for its own housekeeping while as much is forged again.
const GROWTH_MAX: u64 = 4 << 20;

/// Every address of this host at one port: who was dialled there.
struct Dialled(Arc<Mutex<Vec<SocketAddr>>>);

impl Dialled {
    fn listen(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let dialled = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&dialled);
        // It ends with the process.
        std::thread::spawn(move || {
            // Closed at once: nobody there speaks the protocol.
            for stream in listener.incoming().flatten() {
                told.lock().unwrap().extend(stream.local_addr());
            }
        });
        Self(dialled)
    }

    fn all(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap().clone()
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

/// Forges a round: three of four with the allowed port, and a SEEK for each tenth ANNOUNCE.
fn forge(forger: &mut Forger, sources: &mut HashSet<Ipv4Addr>) {
    for number in 0..FORGED {
        let port = match number % 8 {
            0 => OFF_LIMITS[0],
            1 => OFF_LIMITS[1],
            _ => PUSH_PORT,
        };
        sources.insert(forger.announce(port).unwrap());
        if number.is_multiple_of(10) {
            forger.seek().unwrap();
        }
        if number.is_multiple_of(64) {
            forger.listen(Duration::from_millis(1)).unwrap();
        }
    }
}

#[test]
fn forged_announces_are_neither_amplified_nor_dialled_elsewhere_nor_kept() {
    let (runtime, at) = (runtime(), at(10, 41_534));
    let (allowed, off_limits) = (Dialled::listen(PUSH_PORT), Dialled::listen(OFF_LIMITS[0]));
    let server = StoreServer::builder(store())
        .security(Security::open_network())
        .bind(*at.ip())
        .discovery_port(at.port())
        .push_port(PUSH_PORT)
        .start();
    let server = runtime.block_on(server).unwrap();
    let broadcast = Ipv4Addr::new(127, 255, 255, 255);
    let mut forger = Forger::new(at, broadcast, store(), SOURCES, 5).unwrap();
    let mut sources = HashSet::new();

    let begun = Instant::now();
    forge(&mut forger, &mut sources);
    let before = resident_bytes();
    forge(&mut forger, &mut sources);
    let mut stats = runtime.block_on(server.stats()).unwrap();
    while begun.elapsed() < Duration::from_secs(6) {
        forger.listen(Duration::from_millis(100)).unwrap();
        stats = runtime.block_on(server.stats()).unwrap();
        // Read after the dials were, so never too short.
        let (dials, seconds) = (stats.push.fleet.dials as f64, begun.elapsed().as_secs_f64());
        let most = DIALS_PER_S * seconds + DIALS_AT_ONCE;
        assert!(dials <= most, "{dials} dials within {seconds:.2} s");
    }
    assert!(resident_bytes() <= before + GROWTH_MAX, "{} after {before}", resident_bytes());

    // No more bytes out than in, the broadcast answers to SEEKs among them.
    assert!(forger.heard > 0 && forger.heard_bytes <= forger.sent_bytes, "{forger:?}");
    let found = stats.discovery.unwrap();
    assert!(found.protocol.sent_bytes <= found.protocol.received_bytes);

    // Dialled: who seems to have asked, at the port that is allowed, and some of them.
    let dialled = allowed.all();
    assert!(stats.push.fleet.dials >= 200, "{}", stats.push.fleet.dials);
    assert!(dialled.len() > 100, "{}", dialled.len());
    for to in &dialled {
        let SocketAddr::V4(to) = to else { panic!("{to}") };
        assert!(sources.contains(to.ip()) && to.port() == PUSH_PORT, "{to}");
    }
    assert_eq!(off_limits.all(), [], "a port that nobody allowed");

    // Four ids of one address at most.
    let mut ids: HashMap<_, u32> = HashMap::new();
    for device in runtime.block_on(server.devices()) {
        let roster = device.roster.expect("it was discovered");
        *ids.entry(*roster.source.ip()).or_default() += 1;
    }
    assert!(!ids.is_empty() && ids.values().all(|&count| count <= 4), "{:?}", ids.values().max());

    // And real devices register all the same.
    let config = FarmConfig::new(20, Ipv4Addr::new(127, 64, 0, 1), at.port(), store());
    let mut farm = Farm::open(&config).unwrap();
    farm.boot_within(Duration::from_millis(100));
    assert!(farm.run_until(WITHIN, |crowd| crowd.all_registered()).unwrap(), "{:?}", farm.crowd);
    runtime.block_on(server.shutdown());
}
