//! More of something than a LAN should have: clones, servers of one store, stores on the bench where servers are prepared.

use super::*;
use wire_format::datagram::ack::Code;

/// When a conflict was told of device 1.
fn conflicts(world: &World, server: usize) -> Vec<Instant> {
    let events = world.nodes[server].events.iter();
    events.filter(|(_, event)| matches!(event.what, What::Conflict { .. })).map(|(at, _)| *at).collect()
}

/// `count` live devices with one id; who is registered after ten minutes, by node.
fn clones(count: u32, seed: u64) -> (World, Vec<usize>) {
    let mut world = World::new(seed);
    world.check = true;
    let server = world.server(server_config(), 32, address(99), Duration::ZERO);
    let nodes: Vec<usize> = (0..count)
        .map(|copy| {
            let config = DeviceConfig { epoch: 0, epoch_random: true, ..device_config(1) };
            let after = if copy == 0 { secs(4) } else { secs(7) + ms(u64::from(copy) * 400) };
            world.device(config, address(1 + copy), after)
        })
        .collect();
    world.run(secs(600));
    let told = conflicts(&world, server);
    assert!((4..=11).contains(&told.len()), "{} conflicts in ten minutes", told.len());
    assert!(told.windows(2).all(|pair| pair[1].since(pair[0]) >= secs(60)), "{told:?}");
    assert_eq!((world.present(server), world.roster(server).iter().count()), (1, 1));
    let registered = |node: &&usize| world.seeker(**node).server().is_some_and(|server| server.registered);
    let winners = nodes.iter().filter(registered).copied().collect();
    (world, winners)
}

#[test]
fn of_two_and_of_ten_cloned_devices_the_first_stays_and_the_others_are_told_so() {
    for (count, seed) in [(2, 1), (10, 2), (10, 3)] {
        let (world, winners) = clones(count, seed);
        assert_eq!(winners, [1], "of {count}: the one that was there first");
        let view = world.roster(0).find(id(1)).unwrap();
        assert_eq!(view.source, address(1));
        for clone in 2..=count as usize {
            let refused = SeekerEvent::Refused { id: id(1_000_000), status: Code::DUPLICATE_ID };
            assert!(world.nodes[clone].told.iter().any(|told| told.1 == refused), "clone {clone}");
        }
        let moved = world.news(0, 1).iter().filter(|what| matches!(what, What::Moved { .. })).count();
        assert_eq!(moved, 0);
    }
}

#[test]
fn a_clone_takes_over_once_the_first_is_switched_off() {
    let (mut world, _) = clones(2, 4);
    world.off(1);
    world.run(secs(120));
    assert_eq!(world.roster(0).find(id(1)).unwrap().source, address(2));
    assert!(world.seeker(2).server().is_some_and(|server| server.registered));
}

#[test]
fn devices_of_two_servers_stay_where_they_are_while_their_server_lives() {
    let mut world = World::new(5);
    let config = |number: u32, epoch| ServerConfig {
        id: id(1_000_000 + number),
        priority: 100 - number as u16,
        epoch,
        ..server_config()
    };
    let poor = world.server(config(0, 1), 64, address(98), Duration::ZERO);
    world.devices(50, secs(3));
    world.run(secs(20));
    assert_eq!(world.present(poor), 50);
    // A better one comes: nobody who is registered moves, in ten minutes.
    let good = world.server(config(1, 1), 64, address(99), Duration::ZERO);
    world.run(secs(600));
    assert_eq!((world.present(poor), world.present(good)), (50, 0));
    // The good one restarts, and then the poor one: its devices register again with it.
    world.off(good);
    world.run(secs(2));
    let good = world.server(config(1, 2), 64, address(99), Duration::ZERO);
    world.off(poor);
    world.run(secs(2));
    let poor =
        world.server(ServerConfig { expected_devices: 50, ..config(0, 2) }, 64, address(98), Duration::ZERO);
    world.run(secs(30));
    assert_eq!((world.present(poor), world.present(good)), (50, 0));
    // It stays away: all change to the other, none is left out.
    world.off(poor);
    world.run(secs(60));
    assert_eq!(world.present(good), 50);
    let servers = [poor, good].map(|server| {
        world.nodes[server].events.iter().filter(|(_, event)| event.what == What::DualServer).count()
    });
    assert!(servers[0] >= 1 && servers[1] >= 1, "both say so: {servers:?}");
}

#[test]
fn devices_that_hear_two_servers_before_they_register_all_choose_the_same() {
    for seed in 6..16 {
        let mut world = World::new(seed);
        world.devices(30, ms(1));
        world.run(ms(200));
        // Equal priorities: the lower id wins. Both speak in the same millisecond, in either order.
        let order = if seed % 2 == 0 { [0, 1] } else { [1, 0] };
        let servers = order.map(|number| {
            let config =
                ServerConfig { id: id(1_000_000 + number), expected_devices: 500, ..server_config() };
            world.server(config, 64, address(98 + number), Duration::ZERO)
        });
        world.run(secs(20));
        let winner = servers[usize::from(order[0] != 0)];
        // Who drew the very first moments of the window may have registered before it heard the other.
        assert!(world.present(winner) >= 29, "{} of 30 with seed {seed}", world.present(winner));
        assert_eq!(servers.map(|server| world.present(server)).iter().sum::<usize>(), 30);
    }
}

#[test]
fn five_stores_and_a_test_server_on_one_bench_never_mix() {
    const EACH: u32 = 200;
    let mut world = World::new(17);
    let code = |at: u32| Store::new(7, &format!("BENCH-{at}")).unwrap();
    // Servers 0 to 4 serve a store each; server 5 is the test server of store 0.
    for at in 0..6 {
        let config =
            ServerConfig { id: id(1_000_000 + at), store: code(at % 5), staging: at == 5, ..server_config() };
        world.server(config, 300, address(0xF0_0000 + at), ms(u64::from(at) * 100));
    }
    for number in 1..=6 * EACH {
        let at = number % 6;
        let mut config = DeviceConfig { store: Some(code(at % 5)), ..device_config(number) };
        config.staging = at == 5;
        world.device(config, address(number), ms(u64::from(number) * 5));
    }
    world.run(secs(60));
    for server in 0..6 {
        assert_eq!(world.present(server), EACH as usize, "server {server}");
        let strangers = world.roster(server).iter().filter(|view| {
            let number = u32::from_le_bytes(view.id.0[..4].try_into().unwrap());
            number % 6 != server as u32
        });
        assert_eq!(strangers.count(), 0, "of another store or side at server {server}");
        let dual = world.nodes[server].events.iter().filter(|(_, event)| event.what == What::DualServer);
        assert_eq!(dual.count(), 0, "no two of them serve one store");
    }
    for number in 1..=6 * EACH {
        let found = world.seeker(5 + number as usize).server().expect("a server");
        assert!(found.registered && found.id == id(1_000_000 + number % 6), "device {number}");
    }
    let stats = world.roster(5).stats();
    assert!(stats.dropped_staging > 0 && stats.dropped_store == 0, "production is told from staging first");
    assert!(world.roster(1).stats().dropped_store > 0);
}
