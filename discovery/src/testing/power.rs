//! The power goes and comes back: other addresses, other epochs, and nobody talks to where a device was.

use super::*;

/// A server (node 0) and `count` registered devices.
fn store_of(count: u32, seed: u64) -> World {
    let mut world = World::new(seed);
    world.check = true;
    let server = world.server(server_config(), count as usize, address(0xF0_0000), Duration::ZERO);
    for number in 1..=count {
        world.device(device_config(number), address(number), ms(3_500));
    }
    world.run(secs(6));
    assert_eq!(world.present(server), count as usize);
    world
}

/// Where the server sent something by unicast from `since` on.
fn spoken_to(world: &World, since: Instant) -> Vec<SocketAddrV4> {
    let from_server = |sent: &&Taped| sent.node == 0 && sent.at >= since;
    let unicast = |sent: &Taped| match sent.to {
        Destination::Unicast(_, to) => Some(to),
        Destination::Broadcast(_) => None,
    };
    world.tape.iter().flatten().filter(from_server).filter_map(unicast).collect()
}

fn push(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(*address(number).ip(), 8_081)
}

#[test]
fn a_device_that_comes_back_elsewhere_costs_one_question_and_its_old_address_is_never_used_again() {
    for (seed, epoch_random) in [(1, false), (2, true)] {
        let mut world = store_of(1, seed);
        world.off(1);
        world.run(secs(5));
        world.tape = Some(vec![]);
        let epoch = if epoch_random { 0 } else { 2 };
        let config = DeviceConfig { epoch, epoch_random, ..device_config(1) };
        let again = world.device(config, address(2), Duration::ZERO);
        world.run(secs(10));
        let epoch = world.seeker(again).config().epoch;
        let [What::Joined, What::Rebooted { before: 1, epoch: told }, What::Moved { from }] =
            world.news(0, 1)[..]
        else {
            panic!("{:?}", world.news(0, 1));
        };
        assert_eq!((told, from), (epoch, push(1)));
        assert_eq!((world.sent(CHALLENGE), world.roster(0).find(id(1)).unwrap().address), (1, push(2)));
        let moved = world.now;
        assert!(world.seeker(again).server().is_some_and(|server| server.registered));
        world.run(secs(600));
        assert_eq!(spoken_to(&world, moved).iter().find(|to| **to == address(1)), None);
        assert_eq!(world.news(0, 1).len(), 3, "{:?}", world.news(0, 1));
    }
}

#[test]
fn a_shop_whose_addresses_are_all_dealt_anew_loses_nobody_and_has_no_conflict() {
    const COUNT: u32 = 100;
    let mut world = store_of(COUNT, 3);
    for node in 1..=COUNT as usize {
        world.off(node);
    }
    world.run(secs(8));
    // Everybody gets its neighbour's address; half of them have no memory of their epoch.
    for number in 1..=COUNT {
        let random = number % 2 == 0;
        let config =
            DeviceConfig { epoch: if random { 0 } else { 2 }, epoch_random: random, ..device_config(number) };
        let after = ms(u64::from(number) * 20);
        world.device(config, address(number % COUNT + 1), after);
    }
    world.run(secs(20));
    assert_eq!(world.present(0), COUNT as usize);
    for number in 1..=COUNT {
        let view = world.roster(0).find(id(number)).unwrap();
        assert_eq!((view.address, view.state), (push(number % COUNT + 1), State::Fresh), "device {number}");
        let news = world.news(0, number);
        assert!(matches!(news[..], [What::Joined, What::Rebooted { .. }, What::Moved { .. }]), "{news:?}");
    }
    world.run(secs(300));
    let bad = |what: &What| matches!(what, What::Lost | What::Conflict { .. } | What::Suspect);
    assert!(!world.nodes[0].events.iter().any(|(_, event)| bad(&event.what)));
}

#[test]
fn two_live_devices_that_swap_addresses_are_both_followed() {
    for seed in 4..14 {
        let mut world = store_of(2, seed);
        world.run(secs(seed));
        world.readdress(&[(1, address(2)), (2, address(1))]);
        world.run(secs(5));
        for (number, other) in [(1, 2), (2, 1)] {
            let news = world.news(0, number);
            assert_eq!(news, [What::Joined, What::Moved { from: push(number) }], "device {number}");
            assert_eq!(world.roster(0).find(id(number)).unwrap().address, push(other));
            assert!(world.seeker(number as usize).server().is_some_and(|server| server.registered));
        }
        world.run(secs(200));
        assert_eq!(world.nodes[0].events.len(), 4, "{:?}", world.nodes[0].events);
    }
}

#[test]
fn a_server_that_comes_back_at_another_address_is_followed_at_its_first_beacon() {
    let mut world = store_of(20, 15);
    world.off(0);
    world.run(secs(3));
    let config = ServerConfig { epoch: 2, expected_devices: 20, ..server_config() };
    let server = world.server(config, 20, address(0xF0_0001), Duration::ZERO);
    let took = world.run_until(secs(5), |world| world.present(server) == 20).expect("all register");
    assert!(took <= ms(260), "{took:?}");
    let found = |device: usize| world.seeker(device).server().map(|found| found.source);
    assert!((1..=20).all(|device| found(device) == Some(address(0xF0_0001))));
}

#[test]
fn a_server_restarted_three_times_in_ten_seconds_makes_no_storm() {
    let mut world = store_of(1_000, 16);
    world.check = false;
    let (mut server, before) = (0, world.sent(ANNOUNCE));
    for epoch in 2..=4 {
        world.off(server);
        let config = ServerConfig { epoch, expected_devices: 1_000, ..server_config() };
        server = world.server(config, 1_000, address(0xF0_0000), ms(100));
        world.run(ms(3_300));
    }
    world.run_until(secs(60), |world| world.present(server) == 1_000).expect("all register");
    let announces = world.sent(ANNOUNCE) - before;
    assert!(announces <= 4_000, "{announces} announces for three restarts of 1,000 devices");
    assert_eq!(
        world.sent(SEEK),
        world
            .nodes
            .iter()
            .flat_map(|node| &node.sent)
            .filter(|sent| sent.1 == SEEK && sent.0 < Instant::from_millis(8_000))
            .count()
    );
}
