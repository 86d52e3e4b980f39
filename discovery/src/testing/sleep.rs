//! Processes that stood still: suspended hosts, frozen processes, clocks that jump.

use super::*;

/// A server (node 0) and `count` registered devices.
fn store_of(count: u32, seed: u64) -> World {
    let mut world = World::new(seed);
    let server = world.server(server_config(), count as usize, address(0xF0_0000), Duration::ZERO);
    world.devices(count, secs(2));
    world.run(secs(10));
    assert_eq!(world.present(server), count as usize);
    world
}

fn lost(world: &World) -> usize {
    world.nodes[0].events.iter().filter(|(_, event)| event.what == What::Lost).count()
}

/// What node `node` sent from `since` on.
fn sent_since(world: &World, node: usize, since: Instant) -> Vec<u8> {
    world.nodes[node].sent.iter().filter(|sent| sent.0 >= since).map(|sent| sent.1).collect()
}

#[test]
fn devices_that_slept_a_minute_or_a_night_wake_with_one_announce_each_and_not_all_at_once() {
    for (seed, span) in [(1, secs(60)), (2, secs(8 * 3_600))] {
        let mut world = store_of(200, seed);
        for device in 1..=200 {
            world.freeze(device);
        }
        world.run(span);
        let woken = world.now;
        for device in 1..=200 {
            // A network card that slept has nothing to hand over.
            world.nodes[device].held.clear();
            world.thaw(device);
        }
        world.run(ms(1_100));
        let mut bins = [0; 120];
        for device in 1..=200 {
            let sent = sent_since(&world, device, woken);
            assert!(sent.iter().filter(|kind| **kind != CHALLENGE).count() <= 1, "{sent:?} of {device}");
            assert!(sent.contains(&ANNOUNCE), "{sent:?}: its refresh was due");
        }
        for (at, kind) in world.nodes[1..=200].iter().flat_map(|node| &node.sent) {
            if *at >= woken && *kind == ANNOUNCE {
                bins[usize::try_from(at.since(woken).as_millis() / 10).unwrap()] += 1;
            }
        }
        let peak = bins.iter().max().unwrap();
        assert!(*peak <= 12, "{peak} of 200 in 10 ms");
        let mut servers = (1..=200).map(|device| world.seeker(device).server());
        assert!(servers.all(|server| server.is_some_and(|server| server.registered)), "after {span:?}");
        assert_eq!(world.present(0), 200);
        let told = world.nodes[1..].iter().flat_map(|node| &node.told);
        assert_eq!(told.filter(|told| matches!(told.1, SeekerEvent::ServerLost { .. })).count(), 0);
    }
}

#[test]
fn a_device_whose_next_deadline_was_its_servers_loss_still_listens_when_it_wakes() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        // The lease is long: no refresh is due before its server would be lost.
        world.server(ServerConfig { lease_s: 900, ..server_config() }, 8, address(99), Duration::ZERO);
        world.device(device_config(1), address(1), ms(500));
        world.run(secs(9));
        world.freeze(1);
        world.run(secs(3_600));
        world.nodes[1].held.clear();
        world.thaw(1);
        world.run(secs(15));
        let told = &world.nodes[1].told;
        assert!(
            !told.iter().any(|told| matches!(told.1, SeekerEvent::ServerLost { .. })),
            "seed {seed}: {told:?}"
        );
    }
}

#[test]
fn a_whole_shop_that_slept_a_night_loses_nobody() {
    let mut world = store_of(200, 3);
    for node in 0..=200 {
        world.freeze(node);
    }
    world.run(secs(8 * 3_600));
    let woken = world.now;
    for node in 0..=200 {
        world.thaw(node);
    }
    world.run(secs(2));
    assert!(sent_since(&world, 0, woken).iter().filter(|kind| **kind == BEACON).count() <= 2);
    world.run(secs(180));
    assert_eq!((world.present(0), lost(&world)), (200, 0));
    let seeks =
        world.nodes.iter().flat_map(|node| &node.sent).filter(|sent| sent.1 == SEEK && sent.0 >= woken);
    assert_eq!(seeks.count(), 0, "nobody lost its server");
}

#[test]
fn a_server_that_slept_a_night_among_waking_devices_asks_nobody_and_loses_nobody() {
    let mut world = store_of(200, 4);
    world.freeze(0);
    world.run(secs(8 * 3_600));
    // The devices have lost it meanwhile and ask: what its socket kept of that is old news.
    let woken = world.now;
    world.nodes[0].held.clear();
    world.thaw(0);
    world.run(ms(100));
    let sent = sent_since(&world, 0, woken);
    // ACKs answer the devices that hear its one beacon and announce themselves again.
    let beacons = sent.iter().filter(|kind| **kind == BEACON).count();
    assert!(beacons == 1 && !sent.contains(&CHALLENGE), "{sent:?}");
    world.run(secs(40));
    assert_eq!((world.present(0), lost(&world)), (200, 0));
}

#[test]
fn seeking_devices_that_slept_start_anew_and_still_suppress_each_other() {
    let mut world = World::new(5);
    world.devices(200, secs(5));
    world.run(secs(120));
    for device in 0..200 {
        world.freeze(device);
    }
    world.run(secs(3_600));
    let (woken, before) = (world.now, world.sent(SEEK));
    for device in 0..200 {
        world.nodes[device].held.clear();
        world.thaw(device);
    }
    assert_eq!(world.sent(SEEK), before, "nothing in the moment of waking");
    world.run(secs(60));
    let asked = world.sent(SEEK) - before;
    assert!((3..=60).contains(&asked), "{asked} SEEKs in the minute after");
    for device in 0..200 {
        let first = sent_since(&world, device, woken);
        assert!(first.len() <= 8, "{first:?}");
    }
}

#[test]
fn a_clock_that_jumps_by_a_century_breaks_nothing() {
    let century = secs(100 * 365 * 86_400);
    let far = Instant::from_millis(1_000) + century;
    let mut roster = Roster::new(server_config(), vec![Slot::EMPTY; 8], Instant::ZERO, 1);
    roster.link_up(Instant::ZERO, LINK);
    let arrival = Arrival { link: LINK, source: address(1), broadcast: false };
    roster.handle_datagram(Instant::ZERO, &arrival, &datagrams::announce(1, 1, 1)).unwrap();
    let mut seeker = Seeker::new(device_config(2), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    let mut buffer = [0; 1_200];
    for now in [far, far + century, Instant::NEVER] {
        roster.handle_timeout(now);
        seeker.handle_timeout(now);
        let beacons = core::iter::from_fn(|| roster.poll_transmit(now, &mut buffer)).count();
        let seeks = core::iter::from_fn(|| seeker.poll_transmit(now, &mut buffer)).count();
        assert!(beacons <= 3 && seeks <= 1, "{beacons} and {seeks} datagrams at {now:?}");
        roster.check();
    }
    assert!(roster.len() <= 1);
    // And a clock that stands still, or falls back a little, as clocks must not.
    let back = Instant::from_millis(500);
    roster.handle_timeout(back);
    seeker.handle_timeout(back);
    let _reason = roster.handle_datagram(back, &arrival, &datagrams::announce(1, 1, 2));
    roster.check();
}
