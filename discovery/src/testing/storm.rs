//! Ten thousand devices and no server: how often they ask, that all register once one comes, and the silence after that.

use super::*;

const COUNT: u32 = 10_000;

/// SEEKs a second, second by second.
fn seeks(world: &World) -> Vec<u32> {
    let mut bins = vec![];
    for (at, kind) in world.nodes.iter().flat_map(|node| &node.sent) {
        if *kind == SEEK {
            let bin = usize::try_from(at.as_millis() / 1_000 - 1).unwrap();
            bins.resize(bins.len().max(bin + 1), 0);
            bins[bin] += 1;
        }
    }
    bins
}

/// Ten minutes without a server, then one; the SEEKs of each second.
fn ten_minutes(seed: u64, loss: u64, tail: Duration) -> (World, usize, Vec<u32>) {
    let mut world = World::new(seed);
    world.loss = loss;
    world.devices(COUNT, secs(30));
    world.run(secs(600));
    let bins = seeks(&world);
    let (all, peak) = (bins.iter().sum::<u32>(), bins.iter().skip(2).max().unwrap());
    let early: u32 = bins.iter().take(180).sum();
    println!("{loss} per 1,000 lost: {early} SEEKs in 3 minutes, {all} in 10, at most {peak} a second");
    assert!(*peak <= 10, "{peak} SEEKs in a second");
    assert!(all <= 1_000, "{all} SEEKs in ten minutes");
    assert_eq!(world.sent(ANNOUNCE), 0);
    let config = ServerConfig { expected_devices: COUNT, ..server_config() };
    let server = world.server(config, COUNT as usize, address(0xF0_0000), Duration::ZERO);
    let everybody = |world: &World| world.present(server) == COUNT as usize;
    let took = world.run_until(secs(11) + tail, everybody).expect("all register");
    println!("the server comes: all after {took:?}");
    (world, server, bins)
}

#[test]
fn ten_minutes_without_a_server_are_quiet_and_so_is_the_time_after() {
    let (mut world, server, bins) = ten_minutes(1, 0, ms(100));
    let early: u32 = bins.iter().take(180).sum();
    assert!(early <= 150, "{early} SEEKs in three minutes");
    let sent = |world: &World| world.sent(SEEK) + world.sent(BEACON);
    world.run(secs(5));
    let before = sent(&world);
    world.run(secs(100));
    let broadcasts = sent(&world) - before;
    assert!((9..=12).contains(&broadcasts), "{broadcasts} broadcasts in 100 s");
    assert_eq!(world.present(server), COUNT as usize);
}

#[test]
fn ten_minutes_without_a_server_on_a_bad_network_are_quiet_too() {
    let (world, server, _) = ten_minutes(2, 200, secs(100));
    assert!(world.roster(server).stats().dropped_malformed == 0);
}

#[test]
fn the_steady_state_is_a_tenth_of_a_broadcast_a_second_and_nothing_else_while_sessions_are_up() {
    for count in [10, 1_000] {
        let mut world = World::new(u64::from(count));
        let server = world.server(server_config(), count as usize, address(0xF0_0000), Duration::ZERO);
        let first = world.devices(count, secs(2));
        world.run(secs(20));
        assert_eq!(world.present(server), count as usize);
        for number in 1..=count {
            world.with_seeker(first + number as usize - 1, |seeker, now| seeker.set_linked(now, true));
            world.with_roster(server, |roster, now| assert!(roster.set_linked(now, id(number), true)));
        }
        let before = world.nodes.iter().map(|node| node.sent.len()).sum::<usize>();
        world.run(secs(600));
        let sent = world.nodes.iter().map(|node| node.sent.len()).sum::<usize>() - before;
        assert!((54..=67).contains(&sent), "{sent} datagrams in ten minutes, of {count} devices");
        assert_eq!(world.nodes[server].sent.last().map(|sent| sent.1), Some(BEACON));
    }
}
