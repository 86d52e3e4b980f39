//! A server is restarted, or starts for the first time, and all its devices answer: spread out, so that none is lost.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::farm::{Counts, Farm, FarmConfig, Loss, receive_drops};
use tillwire::discovery::driver::server::ServerDriver;
use tokio::time::Instant;
use wire_format::datagram::header::Kind;

use super::{WITHIN, at, runtime, serve, store};

/// A machine that let neither side run for this long has no room for what arrives meanwhile: 256 datagrams.
const STALLED: Duration = Duration::from_millis(100);

/// What was seen of a registration.
struct Seen {
    elapsed: Duration,
    /// The longest time this thread was kept from its work.
    stalled: Duration,
}

/// Turns until all have registered in this round.
fn register(farm: &mut Farm) -> Seen {
    let begun = Instant::now();
    let mut seen = Seen { elapsed: Duration::ZERO, stalled: Duration::ZERO };
    while farm.crowd.registered_in_round() < farm.crowd.devices() {
        let turn = Instant::now();
        farm.turn(Duration::from_millis(5)).unwrap();
        seen.stalled = seen.stalled.max(turn.elapsed());
        let (done, of) = (farm.crowd.registered_in_round(), farm.crowd.devices());
        assert!(begun.elapsed() < WITHIN, "{done} of {of} registered");
    }
    seen.elapsed = begun.elapsed();
    assert_eq!((farm.own_drops(), farm.send_errors()), (0, 0), "the farm is not what is tested");
    seen
}

/// No datagram was dropped at the server, unless this machine stood still for longer than any buffer lasts.
fn nothing_dropped(at: std::net::SocketAddrV4, seen: &Seen) {
    let drops = receive_drops(at);
    if seen.stalled > STALLED && drops != Some(0) {
        eprintln!("skipped: {drops:?} drops, but this machine stood still for {:?}", seen.stalled);
    } else {
        assert_eq!(drops, Some(0), "stalled for {:?}", seen.stalled);
    }
}

/// Drops the server as a crash does, and waits until its port is free.
fn crash(server: ServerDriver, at: std::net::SocketAddrV4) {
    drop(server);
    let begun = Instant::now();
    while std::net::UdpSocket::bind(at).is_err() {
        assert!(begun.elapsed() < WITHIN);
        std::thread::yield_now();
    }
}

#[test]
fn ten_thousand_devices_register_with_a_restarted_server_and_no_announce_is_dropped() {
    const DEVICES: u32 = 10_000;
    let (runtime, at) = (runtime(), at(1, 41_530));
    let config = FarmConfig::new(DEVICES, Ipv4Addr::new(127, 60, 0, 1), at.port(), store());
    let mut farm = Farm::open(&config).unwrap();
    farm.boot_within(Duration::from_millis(500));
    // As it was before: warm, and quicker.
    let server = serve(&runtime, at, DEVICES as usize, DEVICES, 5_000);
    register(&mut farm);
    crash(server, at);

    farm.crowd.begin_round();
    farm.crowd.counts = Counts::default();
    let server = serve(&runtime, at, DEVICES as usize, DEVICES, 1_000);
    let seen = register(&mut farm);
    // W is 11 s: all are there within one and a half of it, and 5 s.
    assert!(seen.elapsed <= Duration::from_millis(21_500), "{:?}", seen.elapsed);
    nothing_dropped(at, &seen);
    let (peak, mean) = farm.crowd.counts.announce_peak_and_mean();
    assert!(f64::from(peak) <= 3.0 * mean, "{peak} announces in 10 ms, {mean:.1} on average");
    let stats = runtime.block_on(server.handle().stats()).unwrap();
    assert_eq!(stats.devices, DEVICES as usize);
    let counts = &farm.crowd.counts;
    assert_eq!(counts.heard(Kind::Ack), stats.protocol.sent_ack, "every acknowledgement arrived");
    assert!(counts.sent(Kind::Announce) < u64::from(DEVICES) * 11 / 10, "{}", counts.sent(Kind::Announce));
    assert!(stats.protocol.sent_bytes <= stats.protocol.received_bytes);
    runtime.block_on(server.shutdown());
}

#[test]
fn a_server_that_expects_nobody_counts_first_and_is_not_overrun() {
    const DEVICES: u32 = 2_000;
    let (runtime, at) = (runtime(), at(2, 41_531));
    let config = FarmConfig::new(DEVICES, Ipv4Addr::new(127, 61, 0, 1), at.port(), store());
    let mut farm = Farm::open(&config).unwrap();
    farm.boot_within(Duration::from_millis(500));
    // They ask for a while, and few of them.
    farm.run_for(Duration::from_secs(2)).unwrap();
    let seeks = farm.crowd.counts.sent(Kind::Seek);
    assert!((1..=150).contains(&seeks), "{seeks} of {DEVICES} devices asked");
    let server = serve(&runtime, at, 10_000, 0, 1_000);
    let seen = register(&mut farm);
    assert!(
        seen.elapsed > Duration::from_millis(1_500),
        "2,000 at 1,000 a second, after a census: {:?}",
        seen.elapsed
    );
    nothing_dropped(at, &seen);
    let stats = runtime.block_on(server.handle().stats()).unwrap();
    assert_eq!((stats.devices, stats.net.off_link), (DEVICES as usize, 0));
    runtime.block_on(server.shutdown());
}

#[test]
fn devices_that_lose_every_hundredth_datagram_register_soon_all_the_same() {
    const DEVICES: u32 = 1_000;
    let (runtime, at) = (runtime(), at(3, 41_532));
    let loss = Loss::all(0.01);
    let config =
        FarmConfig { loss, ..FarmConfig::new(DEVICES, Ipv4Addr::new(127, 62, 0, 1), at.port(), store()) };
    let mut farm = Farm::open(&config).unwrap();
    farm.boot_within(Duration::from_millis(500));
    let server = serve(&runtime, at, DEVICES as usize, DEVICES, 1_000);
    register(&mut farm);
    let counts = &farm.crowd.counts;
    assert!(counts.lost > 10, "{}", counts.lost);
    // Whoever lost its announce or its ACK has repeated the announce, and nobody else.
    assert!((1_000..=1_200).contains(&counts.sent(Kind::Announce)), "{}", counts.sent(Kind::Announce));
    assert_eq!(runtime.block_on(server.handle().stats()).unwrap().devices, DEVICES as usize);
    runtime.block_on(server.shutdown());
}

#[test]
fn a_store_at_rest_is_silent() {
    const DEVICES: u32 = 1_000;
    let (runtime, at) = (runtime(), at(4, 41_533));
    let config = FarmConfig::new(DEVICES, Ipv4Addr::new(127, 63, 0, 1), at.port(), store());
    let mut farm = Farm::open(&config).unwrap();
    farm.boot_within(Duration::from_millis(500));
    let server = serve(&runtime, at, DEVICES as usize, DEVICES, 5_000);
    register(&mut farm);
    runtime.block_on(async {
        for device in server.handle().devices().await {
            server.handle().set_linked(device.id, true).await;
        }
    });
    farm.set_linked(true);
    farm.run_for(Duration::from_secs(1)).unwrap();
    farm.crowd.counts = Counts::default();
    farm.run_for(Duration::from_secs(5)).unwrap();
    let counts = &farm.crowd.counts;
    assert_eq!(counts.sent_in_all(), 0, "a device with a session says nothing");
    assert!(counts.heard_in_all() <= 2, "a beacon every ten seconds: {}", counts.heard_in_all());
    runtime.block_on(server.shutdown());
}
