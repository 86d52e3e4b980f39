//! Static servers: behind a router no broadcast goes either way, and devices announce themselves to addresses.

use super::*;
use wire_format::datagram::ack::Code;

/// A device behind a router, with these seeds.
fn routed(world: &mut World, seeds: &[u32]) -> usize {
    let mut config = device_config(1);
    for (place, &seed) in config.seeds.iter_mut().zip(seeds) {
        *place = Some(address(seed));
    }
    let device = world.device(config, address(1), Duration::ZERO);
    world.nodes[device].routed = true;
    device
}

fn is_registered_at(world: &World, device: usize, host: u32) -> bool {
    world.seeker(device).server().is_some_and(|server| server.registered && server.source == address(host))
}

/// Where node `node` sent announces, in order, from `since` on.
fn announced_to(world: &World, node: usize, since: Instant) -> Vec<SocketAddrV4> {
    let sent = world.tape.iter().flatten().filter(|sent| sent.node == node && sent.at >= since);
    sent.filter(|sent| sent.bytes[5] == ANNOUNCE)
        .map(|sent| match sent.to {
            Destination::Unicast(link, to) => {
                assert_eq!(link, LinkId::ROUTED, "the routing table decides");
                to
            }
            Destination::Broadcast(_) => panic!("an announce as a broadcast"),
        })
        .collect()
}

#[test]
fn a_device_behind_a_router_registers_at_its_seed_in_a_second_and_refreshes_there() {
    let mut world = World::new(1);
    world.check = true;
    world.tape = Some(vec![]);
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    world.run(secs(30));
    let device = routed(&mut world, &[99]);
    let took = world.run_until(secs(5), |world| is_registered_at(world, device, 99)).expect("registers");
    assert!(took <= ms(770), "{took:?}");
    world.run(secs(600));
    assert!(is_registered_at(&world, device, 99), "kept by refreshes alone");
    assert_eq!(world.news(server, 1), [What::Joined]);
    assert_eq!(world.seeker(device).server().unwrap().link, LinkId::ROUTED);
    let announces = announced_to(&world, device, Instant::ZERO);
    assert!((16..=28).contains(&announces.len()) && announces.iter().all(|to| *to == address(99)));
    assert_eq!(world.sent(SEEK), 0);
}

#[test]
fn no_answer_from_a_seed_is_answered_by_ever_longer_waits_for_ever() {
    let mut world = World::new(2);
    world.tape = Some(vec![]);
    let device = routed(&mut world, &[98]);
    world.run(secs(3_600));
    let times: Vec<Instant> = world.nodes[device].sent.iter().map(|sent| sent.0).collect();
    let gaps = times.windows(2).map(|pair| pair[1].since(pair[0]));
    for (gap, nominal) in gaps.zip([1, 2, 4, 8, 16, 32].into_iter().chain(core::iter::repeat(60))) {
        assert!(
            (secs(nominal) / 2..=secs(nominal) * 3 / 2 + ms(1)).contains(&gap),
            "{gap:?} for {nominal} s"
        );
    }
    assert!((50..=90).contains(&times.len()), "{} announces in an hour", times.len());
    // After an hour it is there at once when its server is: within a minute and a half.
    world.server(server_config(), 8, address(98), Duration::ZERO);
    let took = world.run_until(secs(91), |world| is_registered_at(world, device, 98));
    assert!(took.is_some(), "still asking after an hour");
}

#[test]
fn dead_seeds_are_passed_over_and_the_one_that_answered_is_kept() {
    let mut world = World::new(3);
    world.tape = Some(vec![]);
    let device = routed(&mut world, &[95, 96, 97, 98]);
    world.server(server_config(), 8, address(97), Duration::ZERO);
    let took = world.run_until(secs(20), |world| is_registered_at(world, device, 97)).expect("registers");
    assert!(took <= secs(6), "two dead ones: {took:?}");
    let registered = world.now;
    world.run(secs(1_200));
    assert!(announced_to(&world, device, registered).iter().all(|to| *to == address(97)));
    let told = &world.nodes[device].told;
    assert_eq!(told.len(), 2, "found and registered, once: {told:?}");
}

#[test]
fn a_seed_that_dies_makes_room_for_the_next_one() {
    let mut world = World::new(4);
    world.tape = Some(vec![]);
    let device = routed(&mut world, &[97, 98]);
    let first = world.server(server_config(), 8, address(97), Duration::ZERO);
    let other = ServerConfig { id: id(1_000_001), ..server_config() };
    let second = world.server(other, 8, address(98), Duration::ZERO);
    world.run(secs(10));
    assert!(is_registered_at(&world, device, 97) && world.present(second) == 0);
    world.off(first);
    let took = world.run_until(secs(120), |world| is_registered_at(world, device, 98)).expect("changes");
    assert!(took <= secs(100), "a lease of silence, then the next: {took:?}");
    let lost = SeekerEvent::ServerLost { id: id(1_000_000) };
    assert!(world.nodes[device].told.iter().any(|told| told.1 == lost));
}

#[test]
fn a_seed_that_refuses_does_not_keep_a_device_from_the_next() {
    let mut world = World::new(5);
    world.tape = Some(vec![]);
    let device = routed(&mut world, &[97, 98]);
    world.server(server_config(), 0, address(97), Duration::ZERO);
    let other = ServerConfig { id: id(1_000_001), ..server_config() };
    world.server(other, 8, address(98), Duration::ZERO);
    world.run(secs(5));
    let refused = SeekerEvent::Refused { id: id(1_000_000), status: Code::ROSTER_FULL };
    assert!(world.nodes[device].told.iter().any(|told| told.1 == refused), "{:?}", world.nodes[device].told);
    assert!(world.run_until(secs(91), |world| is_registered_at(world, device, 98)).is_some());
}

#[test]
fn a_seed_that_restarts_elsewhere_in_time_is_the_same_server_again() {
    let mut world = World::new(6);
    world.tape = Some(vec![]);
    let device = routed(&mut world, &[97]);
    let first = world.server(server_config(), 8, address(97), Duration::ZERO);
    world.run(secs(20));
    world.off(first);
    let config = ServerConfig { epoch: 2, ..server_config() };
    let second = world.server(config, 8, address(97), secs(5));
    // No beacon crosses the router: its next refresh finds the new boot.
    world.run_until(secs(45), |world| world.present(second) == 1).expect("registers again");
    assert_eq!(world.seeker(device).server().map(|server| server.epoch), Some(2));
    let lost =
        world.nodes[device].told.iter().filter(|told| matches!(told.1, SeekerEvent::ServerLost { .. }));
    assert_eq!(lost.count(), 0);
}

#[test]
fn a_seed_on_this_very_lan_is_followed_when_it_moves() {
    let mut world = World::new(7);
    let mut config = device_config(1);
    config.seeds[0] = Some(address(97));
    let device = world.device(config, address(1), Duration::ZERO);
    let first = world.server(server_config(), 8, address(97), Duration::ZERO);
    world.run(secs(20));
    assert!(is_registered_at(&world, device, 97));
    assert_eq!(world.sent(SEEK), 0);
    world.off(first);
    let config = ServerConfig { epoch: 2, ..server_config() };
    world.server(config, 8, address(98), secs(5));
    assert!(world.run_until(secs(10), |world| is_registered_at(world, device, 98)).is_some());
}
