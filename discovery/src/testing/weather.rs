//! Bad networks: loss, copies and overtaking together, one way only, around loops, over two cards of one LAN.

use super::*;
use crate::event::Dropped;

#[test]
fn loss_overtaking_and_copies_together_keep_three_hundred_devices() {
    for seed in 1..=3 {
        let mut world = World::new(seed);
        world.check = seed == 1;
        (world.loss, world.overtaken, world.duplicates) = (200, 300, 50);
        let server = world.server(server_config(), 300, address(0xF0_0000), Duration::ZERO);
        world.devices(300, secs(10));
        let took = world.run_until(secs(120), |world| world.present(server) == 300);
        assert!(took.expect("all register") <= secs(60), "{took:?}");
        world.run(secs(600));
        let events = &world.nodes[server].events;
        let lost = events.iter().filter(|(_, event)| event.what == What::Lost).count();
        assert!(lost <= 2, "{lost} of 300 lost in ten minutes");
        let wrong =
            |what: &What| matches!(what, What::Rebooted { .. } | What::Moved { .. } | What::Conflict { .. });
        assert!(!events.iter().any(|(_, event)| wrong(&event.what)), "{events:?}");
        assert!(events.iter().map(|(_, event)| event.generation).eq(1..=events.len() as u64));
        assert!(world.roster(server).stats().dropped_duplicate > 0);
        let rate = world.sent(ANNOUNCE) as f64 / 300.0 / 600.0;
        assert!(rate <= 0.08, "{rate} announces a second of each device");
    }
}

#[test]
fn a_network_that_carries_one_way_only_makes_no_storm() {
    // Nothing reaches the devices: they ask, and suppress each other no more, for they do not hear.
    let mut world = World::new(4);
    world.loss_down = 1_000;
    let server = world.server(server_config(), 100, address(0xF0_0000), Duration::ZERO);
    world.devices(100, secs(5));
    world.run(secs(120));
    assert_eq!((world.present(server), world.sent(ANNOUNCE)), (0, 0));
    // Eight each in two minutes at most; the server answers once a second.
    assert!(world.sent(SEEK) <= 100 * 9, "{} SEEKs", world.sent(SEEK));
    assert!(world.sent(BEACON) <= 122, "{} BEACONs", world.sent(BEACON));
    world.loss_down = 0;
    world.run_until(secs(15), |world| world.present(server) == 100).expect("healed");

    // Nothing reaches the server: devices hear it and announce themselves in vain, ever more slowly.
    let mut world = World::new(5);
    world.loss_up = 1_000;
    let server = world.server(server_config(), 100, address(0xF0_0000), Duration::ZERO);
    world.devices(100, secs(5));
    world.run(secs(300));
    assert_eq!(world.present(server), 0);
    let announces = world.sent(ANNOUNCE);
    assert!((500..=2_000).contains(&announces), "{announces} announces of 100 devices in five minutes");
    world.loss_up = 0;
    world.run_until(secs(46), |world| world.present(server) == 100).expect("healed");
}

#[test]
fn a_loop_that_delivers_everything_four_times_makes_one_entry_and_three_copies_counted() {
    let mut world = World::new(6);
    world.check = true;
    world.loops = 4;
    let server = world.server(server_config(), 50, address(99), Duration::ZERO);
    let first = world.devices(50, secs(2));
    world.run(secs(100));
    assert_eq!(world.present(server), 50);
    assert!((1..=50).all(|number| world.news(server, number) == [What::Joined]));
    let (announces, seeks) = (world.sent(ANNOUNCE) as u64, world.sent(SEEK) as u64);
    let stats = world.roster(server).stats();
    assert_eq!((stats.dropped_duplicate, stats.sent_ack), (3 * announces, announces));
    // Four copies of one question are one question: nobody is suppressed by copies of a single SEEK but in its first interval.
    let counted: u64 = (first..first + 50).map(|device| world.seeker(device).stats().dropped_duplicate).sum();
    assert!(seeks > 0 && counted > 0, "{seeks} SEEKs, {counted} copies counted");
}

#[test]
fn one_lan_on_two_cards_of_a_server_makes_one_entry_and_no_move() {
    let mut roster = Roster::new(server_config(), vec![Slot::EMPTY; 8], Instant::ZERO, 1);
    for link in [0, 1] {
        roster.link_up(Instant::ZERO, LinkId(link));
    }
    for sequence in 1..=20 {
        let now = Instant::ZERO + secs(u64::from(sequence) * 5);
        roster.handle_timeout(now);
        while roster.poll_transmit(now, &mut [0; 1_200]).is_some() {}
        // Now the one copy is first, now the other.
        let links = if sequence % 2 == 0 { [0, 1] } else { [1, 0] };
        let announce = datagrams::announce(1, 1, sequence);
        let taken = links.map(|link| {
            let arrival = Arrival { link: LinkId(link), source: address(1), broadcast: false };
            roster.handle_datagram(now, &arrival, &announce)
        });
        assert_eq!(taken, [Ok(()), Err(Dropped::Duplicate)]);
        let mut buffer = [0; 1_200];
        let sent: Vec<Transmit> = core::iter::from_fn(|| roster.poll_transmit(now, &mut buffer)).collect();
        let back = Destination::Unicast(LinkId(links[0]), address(1));
        assert_eq!(
            sent.iter().map(|sent| sent.to).collect::<Vec<_>>(),
            [back],
            "one ACK, where it came from"
        );
    }
    let told: Vec<What> = core::iter::from_fn(|| roster.poll_event()).map(|event| event.what).collect();
    assert_eq!((told, roster.len()), (vec![What::Joined], 1));
    assert_eq!(roster.stats().dropped_duplicate, 20);
}

#[test]
fn a_device_on_two_cards_of_one_lan_registers_once_and_stays_on_one() {
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    for link in [0, 1] {
        seeker.link_up(Instant::ZERO, LinkId(link));
    }
    let mut announces = 0;
    for sequence in 0..60_u32 {
        let now = Instant::ZERO + secs(u64::from(sequence)) + ms(1);
        let beacon = datagrams::beacon(datagrams::SERVER, 1, sequence, 250, 0);
        for link in if sequence % 2 == 0 { [0, 1] } else { [1, 0] } {
            let arrival = Arrival { link: LinkId(link), source: address(99), broadcast: true };
            let _copy = seeker.handle_datagram(now, &arrival, &beacon);
        }
        for at in [now + ms(260), now + ms(900)] {
            seeker.handle_timeout(at);
            let mut buffer = [0; 1_200];
            while let Some(sent) = seeker.poll_transmit(at, &mut buffer) {
                assert_eq!(sent.to, Destination::Unicast(LinkId(0), address(99)));
                announces += 1;
            }
        }
    }
    let found = core::iter::from_fn(|| seeker.poll_event())
        .filter(|event| matches!(event, SeekerEvent::ServerFound { .. }));
    assert_eq!(found.count(), 1);
    assert!((4..=8).contains(&announces), "{announces} in a minute without an ACK");
}
