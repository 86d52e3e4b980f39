//! Two of something: devices with one id, servers of one store, stores on one LAN, copies of one datagram.

use super::*;
use crate::event::Dropped;
use wire_format::datagram::{Datagram, Nonce, ack::Code};

#[test]
fn of_two_live_devices_with_one_id_the_first_stays_and_one_conflict_a_minute_is_told() {
    let mut world = World::new(1);
    world.check = true;
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    let first = world.device(device_config(1), address(1), secs(4));
    world.run(secs(6));
    let clone = world.device(device_config(1), address(2), Duration::ZERO);
    world.run(secs(600));
    let view = world.roster(server).find(id(1)).unwrap();
    assert_eq!((view.source, view.state), (address(1), State::Fresh));
    let conflicts: Vec<Instant> = world.nodes[server]
        .events
        .iter()
        .filter(|(_, event)| event.what == What::Conflict { rival: address(2) })
        .map(|(at, _)| *at)
        .collect();
    assert!((5..=11).contains(&conflicts.len()), "{} conflicts in ten minutes", conflicts.len());
    assert!(conflicts.windows(2).all(|pair| pair[1].since(pair[0]) >= secs(60)));
    assert!(!world.news(server, 1).iter().any(|what| matches!(what, What::Moved { .. })));
    assert!(world.seeker(first).server().is_some_and(|server| server.registered));
    assert!(world.seeker(clone).server().is_some_and(|server| !server.registered));
    let refused = SeekerEvent::Refused { id: id(1_000_000), status: Code::DUPLICATE_ID };
    assert_eq!(world.nodes[clone].told.iter().filter(|told| told.1 == refused).count(), 1);
}

#[test]
fn of_two_servers_devices_choose_the_lower_priority_and_both_tell() {
    let mut world = World::new(2);
    let poor = world.server(server_config(), 60, address(98), Duration::ZERO);
    let config = ServerConfig { id: id(1_000_001), priority: 50, ..server_config() };
    let good = world.server(config, 60, address(99), ms(1));
    world.devices(50, secs(5));
    world.run(secs(150));
    let chosen = (0..50).filter(|at| world.seeker(2 + at).server().unwrap().id == id(1_000_001)).count();
    assert!(world.present(good) == chosen && world.present(poor) == 50 - chosen);
    for server in [good, poor] {
        let dual = world.nodes[server].events.iter().filter(|(_, event)| event.what == What::DualServer);
        assert!((2..=3).contains(&dual.count()), "told once a minute");
    }
    // Whoever hears both before it is registered takes the better one.
    let late = world.device(device_config(77), address(77), Duration::ZERO);
    world.run(ms(200));
    assert!(world.seeker(late).server().is_none());
    world.run(secs(30));
    assert!(world.seeker(late).server().is_some_and(|server| server.registered));
}

#[test]
fn an_unregistered_device_changes_to_the_better_server() {
    let mut world = World::new(3);
    // Too busy to let anybody in soon: its window is a minute.
    let config = ServerConfig { expected_devices: 1_000_000, ..server_config() };
    world.server(config, 8, address(98), Duration::ZERO);
    let device = world.device(device_config(1), address(1), Duration::ZERO);
    world.run(secs(4));
    assert!(world.seeker(device).server().is_some_and(|server| !server.registered));
    let config = ServerConfig { id: id(1_000_001), priority: 50, ..server_config() };
    let good = world.server(config, 8, address(99), Duration::ZERO);
    world.run(secs(1));
    assert_eq!(world.present(good), 1);
    assert_eq!(world.seeker(device).server().map(|server| server.id), Some(id(1_000_001)));
}

#[test]
fn stores_and_staging_never_mix_on_one_lan() {
    let mut world = World::new(4);
    let other = Store::new(7, "PARIS-13").unwrap();
    let configs = [
        server_config(),
        ServerConfig { id: id(1_000_001), staging: true, ..server_config() },
        ServerConfig { id: id(1_000_002), store: other, ..server_config() },
    ];
    for (at, config) in (90..).zip(configs) {
        world.server(config, 100, address(at), Duration::ZERO);
    }
    for number in 1..=60 {
        let mut config = device_config(number);
        config.staging = number % 3 == 1;
        config.store = Some(if number % 3 == 2 { other } else { store() });
        world.device(config, address(number), ms(u64::from(number) * 50));
    }
    world.run(secs(60));
    for (server, remainder) in [(0, 0), (1, 1), (2, 2)] {
        assert_eq!(world.present(server), 20);
        for number in 1..=60 {
            assert_eq!(world.state(server, number).is_some(), number % 3 == remainder, "device {number}");
        }
        let stats = world.roster(server).stats();
        assert!(stats.dropped_staging > 0 && stats.dropped_staging + stats.dropped_store >= 10);
        assert!(world.nodes[server].events.iter().all(|(_, event)| event.what != What::DualServer));
    }
}

#[test]
fn copies_of_datagrams_make_one_device_one_event_and_a_count() {
    let mut world = World::new(5);
    world.check = true;
    world.duplicates = 1_000;
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    world.device(device_config(1), address(1), secs(4));
    world.run(secs(100));
    assert_eq!(world.news(server, 1), [What::Joined]);
    let announces = world.sent(ANNOUNCE) as u64;
    assert_eq!(world.roster(server).stats().dropped_duplicate, announces, "copies minus one each");
    assert_eq!(world.roster(server).stats().sent_ack, announces);
}

#[test]
fn a_full_roster_turns_the_next_device_away_and_takes_it_when_somebody_is_gone() {
    let mut world = World::new(6);
    world.check = true;
    let server = world.server(server_config(), 3, address(99), Duration::ZERO);
    for number in 1..=3 {
        world.device(device_config(number), address(number), secs(4));
    }
    world.run(secs(8));
    assert_eq!((world.present(server), world.roster(server).capacity()), (3, 3));
    let late = world.device(device_config(4), address(4), Duration::ZERO);
    world.run(secs(5));
    let why = Code::ROSTER_FULL;
    assert_eq!(world.news(server, 4), [What::Refused { why }]);
    assert!(
        matches!(world.nodes[late].told.last(), Some((_, SeekerEvent::Refused { status, .. })) if *status == why)
    );
    assert!(world.roster(server).stats().dropped_full >= 1);
    world.off(1);
    world.run(secs(190));
    assert_eq!((world.state(server, 1), world.state(server, 4)), (None, Some(State::Fresh)));
    assert_eq!(world.present(server), 3);
}

#[test]
fn one_address_holds_four_devices_and_a_fifth_once_one_is_gone() {
    let mut roster = Roster::new(server_config(), vec![Slot::EMPTY; 8], Instant::ZERO, 1);
    let arrival = Arrival { link: LINK, source: address(1), broadcast: false };
    let now = Instant::from_millis(1_000);
    for number in 1..=4 {
        assert_eq!(roster.handle_datagram(now, &arrival, &datagrams::announce(number, 1, 1)), Ok(()));
    }
    let fifth = datagrams::announce(5, 1, 1);
    assert_eq!(roster.handle_datagram(now, &arrival, &fifth), Err(Dropped::Crowded));
    let elsewhere = Arrival { source: address(2), ..arrival };
    assert_eq!(roster.handle_datagram(now, &elsewhere, &fifth), Ok(()));
    let mut later = now;
    while !roster.is_empty() {
        later = later + secs(1);
        roster.handle_timeout(later);
    }
    assert_eq!(roster.handle_datagram(later, &arrival, &datagrams::announce(6, 1, 1)), Ok(()));
    roster.check();
}

#[test]
fn a_device_that_is_refused_tries_another_server() {
    let mut world = World::new(7);
    let full = world.server(ServerConfig { priority: 1, ..server_config() }, 0, address(98), Duration::ZERO);
    let device = world.device(device_config(1), address(1), Duration::ZERO);
    world.run(secs(4));
    assert!(world.seeker(device).server().is_some_and(|server| !server.registered));
    assert_eq!((world.present(full), world.roster(full).capacity()), (0, 0));
    let config = ServerConfig { id: id(1_000_001), ..server_config() };
    let roomy = world.server(config, 8, address(99), Duration::ZERO);
    world.run(secs(2));
    assert_eq!(world.present(roomy), 1);
}

#[test]
fn one_seek_heard_twice_is_one() {
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    let now = Instant::from_millis(10);
    let seek = datagrams::seek(2, 1, 0);
    for (link, expected) in [(0, Ok(())), (1, Err(Dropped::Duplicate))] {
        let arrival = Arrival { link: LinkId(link), source: address(2), broadcast: true };
        assert_eq!(seeker.handle_datagram(now, &arrival, &seek), expected);
    }
}

/// Takes what a server sends; the cookie of the question in it, if there is one.
fn question(roster: &mut Roster<Vec<Slot>>, now: Instant) -> Option<Nonce> {
    let (mut buffer, mut asked) = ([0; 1_200], None);
    while let Some(Transmit { len, .. }) = roster.poll_transmit(now, &mut buffer) {
        if let Ok(Datagram::Challenge(challenge)) = Datagram::parse(&buffer[..len]) {
            asked = Some(challenge.nonce);
        }
    }
    asked
}

#[test]
fn a_rival_that_never_tires_makes_one_conflict_a_minute_and_few_questions() {
    let mut roster = Roster::new(server_config(), vec![Slot::EMPTY; 8], Instant::ZERO, 1);
    let from = |number| Arrival { link: LINK, source: address(number), broadcast: false };
    roster.handle_datagram(Instant::ZERO, &from(1), &datagrams::announce(1, 1, 100)).unwrap();
    let (mut conflicts, mut questions) = (0, 0);
    for second in 1..=300 {
        let now = Instant::ZERO + secs(second);
        roster.handle_timeout(now);
        let sequence = 1_000 + second as u32;
        let rival = datagrams::announce(1, 1, sequence);
        assert_eq!(roster.handle_datagram(now, &from(2), &rival), Err(Dropped::Contested));
        if let Some(nonce) = question(&mut roster, now) {
            questions += 1;
            let guess = datagrams::challenge(1, 1, sequence, true, Nonce::Short([0; 8]));
            assert_eq!(roster.handle_datagram(now, &from(1), &guess), Err(Dropped::Cookie));
            let answer = datagrams::challenge(1, 1, sequence, true, nonce);
            assert_eq!(roster.handle_datagram(now, &from(2), &answer), Err(Dropped::Unknown));
            assert_eq!(roster.handle_datagram(now, &from(1), &answer), Ok(()));
            assert_eq!(roster.handle_datagram(now, &from(1), &answer), Err(Dropped::Unexpected));
        }
        let told = core::iter::from_fn(|| roster.poll_event());
        conflicts += told.filter(|event| matches!(event.what, What::Conflict { .. })).count();
    }
    assert_eq!((conflicts, questions), (5, 30), "one a minute; one in ten seconds");
    assert_eq!(roster.find(id(1)).unwrap().source, address(1));
}
