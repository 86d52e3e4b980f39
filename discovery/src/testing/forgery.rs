//! Forged and recorded datagrams in clear mode: who is known keeps its address, and nobody is made to send more than he got.

use std::collections::HashMap;

use wire_format::datagram::Nonce;

use super::datagrams::{self, SERVER};
use super::*;
use crate::config::BEACON_LEN_MAX;

const ATTACKER: u32 = 66;

/// A server (node 0) and a registered device (node 1, number 1), everything recorded from the start.
fn recorded(seed: u64) -> World {
    let mut world = World::new(seed);
    world.check = true;
    world.tape = Some(vec![]);
    world.server(server_config(), 8, address(99), Duration::ZERO);
    world.device(device_config(1), address(1), ms(3_500));
    world.run(secs(100));
    assert_eq!(world.news(0, 1), [What::Joined]);
    world
}

/// What the device said until now; the tape is over.
fn of_the_device(world: &mut World) -> Vec<Taped> {
    let tape = world.tape.take().unwrap_or_default();
    tape.into_iter().filter(|taped| taped.source == address(1)).collect()
}

fn known_address(world: &World) -> SocketAddrV4 {
    world.roster(0).find(id(1)).expect("it is known").source
}

#[test]
fn a_recorded_device_played_back_from_anywhere_changes_nothing() {
    let mut world = recorded(1);
    let device = of_the_device(&mut world);
    assert!(device.len() >= 4, "{} datagrams", device.len());
    for host in [1, ATTACKER] {
        for recorded in device.iter().cycle().take(40) {
            world.inject(0, address(host), recorded.broadcast, &recorded.bytes);
            world.run(ms(700));
        }
    }
    world.run(secs(200));
    assert_eq!(known_address(&world), address(1));
    let news = world.news(0, 1);
    let harm =
        |what: &What| matches!(what, What::Lost | What::Left | What::Moved { .. } | What::Rebooted { .. });
    assert!(!news.iter().any(harm), "{news:?}");
    let stats = world.roster(0).stats();
    assert!(stats.dropped_duplicate >= 20 && stats.dropped_contested >= 10, "{stats:?}");
}

#[test]
fn the_recorded_boot_before_this_one_is_not_believed() {
    let mut world = recorded(2);
    let before = of_the_device(&mut world);
    world.off(1);
    world.run(secs(1));
    let config = DeviceConfig { epoch: 2, ..device_config(1) };
    let device = world.device(config, address(1), Duration::ZERO);
    world.run(secs(3));
    let news = world.news(0, 1);
    assert_eq!(news, [What::Joined, What::Rebooted { before: 1, epoch: 2 }]);
    for host in [1, ATTACKER] {
        for recorded in &before {
            world.inject(0, address(host), recorded.broadcast, &recorded.bytes);
            world.run(ms(900));
        }
    }
    world.run(secs(120));
    let harm = |what: &What| matches!(what, What::Lost | What::Left | What::Moved { .. });
    let news = world.news(0, 1);
    assert!(
        !news.iter().any(harm)
            && news.iter().filter(|what| matches!(what, What::Rebooted { .. })).count() == 1,
        "{news:?}"
    );
    assert_eq!(known_address(&world), address(1));
    assert!(world.seeker(device).server().is_some_and(|server| server.registered));
    assert!(world.roster(0).stats().dropped_stale >= 2);
}

#[test]
fn forged_announces_for_a_known_device_move_it_only_while_it_is_silent() {
    for (number, epoch) in [(1, 1), (1, 2), (1, 0)] {
        let mut world = recorded(3);
        for try_ in 0..60 {
            world.inject(
                0,
                address(ATTACKER),
                false,
                &datagrams::announce(number, epoch, 0x7000_0000 + try_),
            );
            world.run(ms(1_500));
        }
        assert_eq!(known_address(&world), address(1), "epoch {epoch}");
        let news = world.news(0, 1);
        assert!(news.iter().all(|what| matches!(what, What::Joined | What::Conflict { .. })), "{news:?}");
        let conflicts = news.iter().filter(|what| matches!(what, What::Conflict { .. })).count();
        assert!((1..=2).contains(&conflicts), "{conflicts} in a minute and a half");
        assert!(world.roster(0).stats().sent_challenge <= 12, "one question in ten seconds");
    }
}

#[test]
fn forged_goodbyes_of_device_and_server_end_nothing() {
    let mut world = recorded(4);
    for try_ in 0..30 {
        world.inject(0, address(1), false, &datagrams::bye(1, 1, 0x7000_0000 + try_));
        world.inject(0, address(ATTACKER), false, &datagrams::bye(1, 1, 0x7800_0000 + try_));
        world.inject(1, address(99), true, &datagrams::bye(SERVER, 1, 0x7000_0000 + try_));
        world.inject(1, address(ATTACKER), true, &datagrams::bye(SERVER + 1, 1, try_));
        world.run(secs(12));
    }
    world.run(secs(60));
    assert_eq!(known_address(&world), address(1));
    let news = world.news(0, 1);
    assert!(!news.iter().any(|what| matches!(what, What::Left | What::Lost)), "{news:?}");
    assert!(world.seeker(1).server().is_some_and(|server| server.registered), "the next beacon mends it");
    assert!(world.roster(0).stats().bye_refuted >= 25);
}

/// What one input made a node send, in bytes.
fn left(core: &mut Core, now: Instant) -> usize {
    let mut buffer = [0; 1_200];
    core::iter::from_fn(|| match core {
        Core::Server(roster) => roster.poll_transmit(now, &mut buffer),
        Core::Device(seeker) => seeker.poll_transmit(now, &mut buffer),
    })
    .map(|sent| sent.len)
    .sum()
}

/// Bytes that came and that left because of them, by source.
#[derive(Default)]
struct Account {
    sources: HashMap<SocketAddrV4, (usize, usize)>,
}

impl Account {
    fn forge(&mut self, core: &mut Core, now: Instant, source: SocketAddrV4, broadcast: bool, bytes: &[u8]) {
        let arrival = Arrival { link: LINK, source, broadcast };
        let _reason = match core {
            Core::Server(roster) => roster.handle_datagram(now, &arrival, bytes),
            Core::Device(seeker) => seeker.handle_datagram(now, &arrival, bytes),
        };
        let (came, went) = self.sources.entry(source).or_default();
        *came += bytes.len();
        *went += left(core, now);
        assert!(*went <= *came, "{went} bytes left for {came} of {source}");
    }

    fn sums(&self) -> (usize, usize) {
        self.sources.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

#[test]
fn ten_thousand_forged_datagrams_from_anywhere_earn_no_more_bytes_than_they_had_and_no_room() {
    let mut rng = Rng::new(7);
    let mut world = World::new(1);
    let server = world.server(server_config(), 256, address(99), Duration::ZERO);
    world.run(ms(10));
    let start = world.now;
    let core = &mut world.nodes[server].core;
    let mut account = Account::default();
    for n in 0..10_000_u32 {
        let now = start + Duration::from_micros(u64::from(n) * 40);
        // A few sources come again and again, most never.
        let host = if n % 4 == 0 { 200 + n % 16 } else { 0x1_0000 + rng.next_u64() as u32 % 0x10_0000 };
        let number = if n % 3 == 0 { n % 50 } else { rng.next_u64() as u32 % 900_000 };
        let (broadcast, bytes) = match n % 5 {
            0 => (true, datagrams::seek(number, n, BEACON_LEN_MAX)),
            1 => (false, datagrams::bye(number, 1, n)),
            2 => (false, datagrams::challenge(number, 1, n, true, Nonce::Short([0; 8]))),
            _ => (false, datagrams::announce(number, n % 3, n)),
        };
        account.forge(core, now, address(host), broadcast, &bytes);
    }
    let (came, went) = account.sums();
    println!("10,000 forged: {came} bytes came, {went} left");
    assert!(went <= came && went > 0);
    let roster = world.roster(server);
    roster.check();
    assert!(roster.iter().count() <= 256 && roster.capacity() == 256);
    assert!(account.sources.len() > 7_000);
}

#[test]
fn a_device_answers_forged_servers_with_no_more_bytes_than_they_had() {
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    let mut core = Core::Device(Box::new(seeker));
    let mut account = Account::default();
    for n in 0..10_000_u32 {
        let now = Instant::from_millis(1) + Duration::from_micros(u64::from(n) * 20);
        let source = address(100 + n % 5_000);
        let (broadcast, bytes) = match n % 4 {
            0 => (false, datagrams::challenge(SERVER + n % 9, 1, n, false, Nonce::Short([n as u8; 8]))),
            1 => (false, datagrams::challenge(SERVER, 1, n, false, Nonce::Long([n as u8; 16]))),
            2 => (true, datagrams::bye(SERVER, n % 2, n)),
            _ => (true, datagrams::beacon(SERVER + n % 100, n, n, 60_000, 0)),
        };
        account.forge(&mut core, now, source, broadcast, &bytes);
    }
    let (came, went) = account.sums();
    assert!(went <= came && went > 0, "{went} for {came}");
}
