//! Many devices: reply windows, suppression, restarts.

use super::*;

/// Registers `count` devices that wait for a server which starts at once; how long it took until all were in.
fn cold_start(count: u32, loss: u64, seed: u64) -> (World, usize, Duration) {
    let mut world = World::new(seed);
    world.loss = loss;
    world.devices(count, ms(1));
    world.run(ms(10));
    let config = ServerConfig { expected_devices: count, ..server_config() };
    let server = world.server(config, count as usize, address(0xF0_0000), Duration::ZERO);
    let all = count as usize;
    let took = world.run_until(secs(120), |world| world.present(server) == all).expect("all register");
    (world, server, took)
}

#[test]
fn everybody_registers_within_the_window_without_loss() {
    let (mut world, server, took) = cold_start(10_000, 0, 1);
    assert!(took <= ms(11_000 + 10), "{took:?}");
    world.run(secs(5));
    assert_eq!(world.sent(ANNOUNCE), 10_000, "one announce each");
    assert_eq!(world.roster(server).stats().sent_ack, 10_000);
    let joined = world.nodes[server].events.iter().map(|(_, event)| event.generation);
    assert!(joined.eq(1..=10_000), "generations have gaps");
}

#[test]
fn everybody_registers_soon_after_the_window_with_loss() {
    for (loss, limit) in [(10, secs(10)), (50, secs(20))] {
        let (mut world, server, took) = cold_start(2_000, loss, 2);
        assert!(took <= limit, "{loss} per 1,000 lost: {took:?}");
        world.run(secs(60));
        assert_eq!(world.present(server), 2_000);
        assert!(world.roster(server).stats().dropped_malformed == 0);
    }
}

#[test]
fn ten_thousand_register_within_fifteen_seconds_though_one_datagram_in_a_hundred_is_lost() {
    for seed in 1..=3 {
        let (world, server, took) = cold_start(10_000, 10, seed);
        println!("seed {seed}: {took:?}, {} announces", world.sent(ANNOUNCE));
        assert!(took <= secs(15), "seed {seed}: {took:?}");
        assert!(world.sent(ANNOUNCE) <= 10_400, "seed {seed}: {}", world.sent(ANNOUNCE));
        assert_eq!(world.present(server), 10_000);
    }
}

#[test]
fn a_server_that_knows_nothing_counts_a_sample_and_then_has_everybody() {
    let mut world = World::new(7);
    world.devices(2_000, ms(1));
    world.run(ms(10));
    let server = world.server(server_config(), 2_000, address(0xF0_0000), Duration::ZERO);
    world.run(ms(500));
    let sample = world.present(server);
    assert!((400..600).contains(&sample), "a quarter of 2,000: {sample}");
    let took = world.run_until(secs(30), |world| world.present(server) == 2_000).expect("all register");
    assert!(took <= ms(500) + ms(2_400), "{took:?}");
    assert_eq!(world.sent(ANNOUNCE), 2_000);
}

#[test]
fn arrivals_are_spread_over_the_window() {
    let (world, _, _) = cold_start(2_000, 0, 3);
    let mut bins = [0; 300];
    let start = world.nodes[2_000].sent[0].0;
    for (at, kind) in world.nodes.iter().flat_map(|node| &node.sent) {
        if *kind == ANNOUNCE {
            bins[(at.since(start).as_millis() / 10) as usize] += 1;
        }
    }
    let peak = bins.iter().max().unwrap();
    assert!(*peak <= 30, "10 announces wanted per 10 ms, {peak} came");
}

#[test]
fn ten_thousand_devices_without_a_server_hardly_speak_and_register_when_one_comes() {
    let mut world = World::new(4);
    world.devices(10_000, secs(30));
    world.run(secs(180));
    let sent = world.sent(SEEK);
    println!("10,000 devices, no server, 3 minutes: {sent} SEEK");
    assert!(sent <= 150, "{sent} SEEKs");
    assert_eq!(world.sent(ANNOUNCE), 0);
    let config = ServerConfig { expected_devices: 10_000, ..server_config() };
    let server = world.server(config, 10_000, address(0xF0_0000), Duration::ZERO);
    let took = world.run_until(secs(30), |world| world.present(server) == 10_000).expect("all register");
    assert!(took <= ms(11_000 + 10), "{took:?}");
}

#[test]
fn a_lone_device_is_registered_within_six_tenths_of_a_second_more_often_than_not() {
    let mut took: Vec<Duration> = (0..1_000)
        .map(|seed| {
            let mut world = World::new(seed);
            let server = world.server(server_config(), 8, address(99), Duration::ZERO);
            world.run(secs(20) + ms(seed * 37));
            world.device(device_config(1), address(1), Duration::ZERO);
            world.run_until(secs(5), |world| world.present(server) == 1).expect("registers")
        })
        .collect();
    took.sort();
    let at = |per_thousand: usize| took[per_thousand];
    println!("boot to ACK: {:?} in 500 of 1,000, {:?} in 990, {:?} in all", at(500), at(990), at(999));
    assert!(at(500) <= ms(600), "median {:?}", at(500));
    assert!(at(990) <= ms(1_250), "99 % {:?}", at(990));
}

#[test]
fn a_server_that_restarts_has_everybody_again_within_the_window() {
    let mut world = World::new(5);
    let address_of_server = address(0xF0_0000);
    let first = world.server(server_config(), 1_000, address_of_server, Duration::ZERO);
    world.devices(1_000, secs(5));
    world.run(secs(60));
    assert_eq!(world.present(first), 1_000);
    world.off(first);
    world.run(secs(2));
    let config = ServerConfig { epoch: 2, expected_devices: 1_000, ..server_config() };
    let second = world.server(config, 1_000, address_of_server, Duration::ZERO);
    let took = world.run_until(secs(30), |world| world.present(second) == 1_000).expect("all register");
    assert!(took <= ms(1_100 + 10), "{took:?}");
}

#[test]
fn a_goodbye_of_the_server_starts_no_storm() {
    let mut world = World::new(6);
    let server = world.server(server_config(), 1_000, address(0xF0_0000), Duration::ZERO);
    world.devices(1_000, secs(5));
    world.run(secs(60));
    world.with_roster(server, |roster, now| roster.stop(now, crate::roster::Reason::RESTARTING, 10));
    // The goodbye is under way for a millisecond.
    world.run(ms(1));
    let (seeks, announces) = (world.sent(SEEK), world.sent(ANNOUNCE));
    world.run(secs(8));
    assert_eq!((world.sent(SEEK), world.sent(ANNOUNCE)), (seeks, announces), "silence until retry-after");
    world.run(secs(51));
    assert!(world.sent(SEEK) - seeks <= 60, "{} SEEKs in a minute", world.sent(SEEK) - seeks);
    assert_eq!(world.sent(BYE), 2);
    assert!(world.roster(server).is_stopped());
}
