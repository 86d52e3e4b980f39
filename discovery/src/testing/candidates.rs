//! Devices without a store: what they list, what they ask, and how one is chosen for them.

use wire_format::datagram::{Beacon, Datagram, Node, Seek, StoreRef};

use super::datagrams::{self, SERVER};
use super::*;
use crate::config::BEACON_LEN_MAX;
use crate::event::Dropped;
use crate::seeker::{CANDIDATES_MAX, Candidate};

fn unprovisioned(number: u32) -> DeviceConfig {
    DeviceConfig { epoch: 1, epoch_random: false, ..DeviceConfig::unprovisioned(id(number)) }
}

fn listed(world: &World, device: usize) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = world.seeker(device).candidates().copied().collect();
    all.sort_by_key(|known| known.id.0);
    all
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + secs(seconds)
}

/// A device without a store, on its own.
fn lister() -> Seeker {
    let mut seeker = Seeker::new(unprovisioned(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    seeker
}

/// Server `number` of a store of its own speaks at `address`.
fn beacon_of(number: u32, sequence: u32) -> Vec<u8> {
    let store = Store::new(number, "BENCH").unwrap();
    let from = Node { scope: store.scope(), ..datagrams::node(SERVER + number, 1, sequence) };
    let like = datagrams::beacon(SERVER, 1, 1, 250, 0);
    let beacon = Beacon { from, store: Some((&store).into()), ..Beacon::parse(&like).unwrap() };
    datagrams::bytes(Datagram::Beacon(beacon))
}

/// A broadcast at `now`; every deadline before is kept.
fn hear(seeker: &mut Seeker, now: Instant, host: u32, bytes: &[u8]) -> Result<(), Dropped> {
    while let Some(due) = seeker.poll_timeout().filter(|due| *due < now) {
        seeker.handle_timeout(due);
        while seeker.poll_transmit(due, &mut [0; 1_200]).is_some() {}
    }
    let arrival = Arrival { link: LINK, source: address(host), broadcast: true };
    seeker.handle_datagram(now, &arrival, bytes)
}

fn told(seeker: &mut Seeker) -> Vec<SeekerEvent> {
    core::iter::from_fn(|| seeker.poll_event()).collect()
}

fn found(number: u32, host: u32) -> SeekerEvent {
    let address = SocketAddrV4::new(*address(host).ip(), 8_081);
    SeekerEvent::CandidateFound { id: id(SERVER + number), address }
}

fn gone(number: u32) -> SeekerEvent {
    SeekerEvent::CandidateGone { id: id(SERVER + number) }
}

/// Servers of two stores and a test server of the first.
fn bench(world: &mut World) -> [usize; 3] {
    let other = Store::new(8, "LYON-3").unwrap();
    let name = wire_format::ids::Name::new("Back office").unwrap();
    let configs = [
        ServerConfig { name, priority: 7, ..server_config() },
        ServerConfig { id: id(SERVER + 1), staging: true, ..server_config() },
        ServerConfig { id: id(SERVER + 2), store: other, ..server_config() },
    ];
    let mut hosts = 90..;
    configs.map(|config| world.server(config, 8, address(hosts.next().unwrap()), Duration::ZERO))
}

#[test]
fn a_device_without_a_store_lists_every_server_within_three_seconds_and_announces_itself_to_none() {
    let mut world = World::new(1);
    let servers = bench(&mut world);
    world.run(secs(20));
    let beacons = world.sent(BEACON);
    let device = world.device(unprovisioned(1), address(1), Duration::ZERO);
    world.run(secs(3));
    let list = listed(&world, device);
    let seen: Vec<_> = list.iter().map(|known| (known.store.to_string(), known.staging)).collect();
    assert_eq!(seen, [("7/PARIS-12".into(), false), ("7/PARIS-12".into(), true), ("8/LYON-3".into(), false)]);
    assert_eq!((list[0].name.as_str(), list[0].priority), ("Back office", 7));
    assert_eq!(list[0].address, SocketAddrV4::new(*address(90).ip(), 80));
    assert!(world.sent(BEACON) >= beacons + 3, "every server answered");
    world.run(secs(300));
    assert_eq!(world.sent(ANNOUNCE), 0);
    assert!(servers.iter().all(|&server| world.roster(server).is_empty()));
    let events = &world.nodes[device].told;
    assert_eq!(events.len(), 3, "each is told once: {events:?}");
    assert_eq!(world.seeker(device).server(), None);
}

#[test]
fn a_server_that_falls_silent_is_listed_for_35_seconds() {
    let mut world = World::new(2);
    let [first, ..] = bench(&mut world);
    let device = world.device(unprovisioned(1), address(1), Duration::ZERO);
    world.run(secs(15));
    assert_eq!(listed(&world, device).len(), 3);
    world.off(first);
    let heard = listed(&world, device)[0].heard;
    world.run(secs(60));
    let list = listed(&world, device);
    assert_eq!(list.iter().map(|known| known.id).collect::<Vec<_>>(), [id(SERVER + 1), id(SERVER + 2)]);
    let end = world.nodes[device].told.iter().find(|told| told.1 == gone(0)).expect("is told").0;
    assert_eq!(end.since(heard), secs(35));
}

#[test]
fn a_server_that_says_goodbye_leaves_the_list_and_one_that_says_something_else_is_told() {
    let mut world = World::new(3);
    let [first, second, _] = bench(&mut world);
    let device = world.device(unprovisioned(1), address(1), Duration::ZERO);
    world.run(secs(15));
    world.with_roster(first, |roster, now| roster.stop(now, crate::roster::Reason::RESTARTING, 10));
    world.run(secs(1));
    assert_eq!(world.nodes[device].told.last().map(|told| told.1), Some(gone(0)));
    // The same server comes back with another port.
    world.off(second);
    let config = ServerConfig { id: id(SERVER + 1), staging: true, epoch: 2, port: 8_000, ..server_config() };
    world.server(config, 8, address(91), Duration::ZERO);
    world.run(secs(1));
    let address = SocketAddrV4::new(*address(91).ip(), 8_000);
    let changed = SeekerEvent::CandidateChanged { id: id(SERVER + 1), address };
    assert_eq!(world.nodes[device].told.last().map(|told| told.1), Some(changed));
    assert_eq!(listed(&world, device).len(), 2);
}

#[test]
fn a_device_that_is_adopted_registers_at_its_store_and_side_of_staging_only() {
    for staging in [false, true] {
        let mut world = World::new(4);
        let servers = bench(&mut world);
        let device = world.device(unprovisioned(1), address(1), Duration::ZERO);
        world.run(secs(5));
        assert!(world.with_seeker(device, |seeker, now| seeker.adopt(now, store(), staging)));
        assert_eq!(listed(&world, device), []);
        world.run(secs(5));
        let expected = if staging { [0, 1, 0] } else { [1, 0, 0] };
        assert_eq!(servers.map(|server| world.present(server)), expected);
        assert!(world.seeker(device).server().is_some_and(|server| server.registered));
        let again = world.with_seeker(device, |seeker, now| seeker.adopt(now, store(), !staging));
        assert!(!again && world.seeker(device).config().staging == staging, "once");
    }
    let mut leaving = lister();
    leaving.stop(at(1));
    assert!(!leaving.adopt(at(1), store(), false));
}

#[test]
fn questions_for_any_store_neither_count_as_a_stores_nor_are_they_answered_in_kind() {
    let any = {
        let from = Node { scope: 0, ..datagrams::node(2, 1, 1) };
        let pad_to = BEACON_LEN_MAX as u16;
        Seek { from, suppressed: 0, store: None, name: None, pad_to, auth: None }
    };
    let ours = store();
    let of_scope_0 = Seek { store: Some(StoreRef::from(&ours)), ..any };
    let bytes = |seek| datagrams::bytes(Datagram::Seek(seek));
    // A device with a store: such a question does not spare its own.
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    for seek in [any, of_scope_0] {
        assert_eq!(hear(&mut seeker, at(0), 2, &bytes(seek)), Err(Dropped::Store));
    }
    seeker.handle_timeout(at(1));
    assert!(seeker.poll_transmit(at(1), &mut [0; 1_200]).is_some_and(|sent| sent.len == BEACON_LEN_MAX));
    // A device without one: it does.
    let mut seeker = lister();
    assert_eq!(hear(&mut seeker, at(0), 2, &bytes(any)), Ok(()));
    assert_eq!(hear(&mut seeker, at(0), 2, &bytes(of_scope_0)), Err(Dropped::Store));
    seeker.handle_timeout(at(1));
    assert_eq!(seeker.poll_transmit(at(1), &mut [0; 1_200]), None);
    assert_eq!(seeker.stats().seek_suppressed, 1);
    assert_eq!(hear(&mut seeker, at(2), 2, &datagrams::seek(3, 1, 300)), Err(Dropped::Store));
    // A server: a broadcast, once a second, to whoever asks at full length; a test server too.
    for staging in [false, true] {
        let config = ServerConfig { staging, ..server_config() };
        let mut roster = Roster::new(config, vec![Slot::EMPTY; 8], Instant::ZERO, 1);
        roster.link_up(Instant::ZERO, LINK);
        while roster.poll_transmit(at(0), &mut [0; 1_200]).is_some() {}
        let arrival = Arrival { link: LINK, source: address(2), broadcast: true };
        let mut beacons = 0;
        for ms in 0..900 {
            let now = at(20) + super::ms(ms);
            let mut seek = any;
            seek.from.sequence = ms as u32;
            let _rate = roster.handle_datagram(now, &arrival, &bytes(seek));
            while let Some(Transmit { to, len }) = roster.poll_transmit(now, &mut [0; 1_200]) {
                assert_eq!(to, Destination::Broadcast(LINK));
                assert!(len <= BEACON_LEN_MAX);
                beacons += 1;
            }
        }
        assert_eq!(beacons, 1);
        let later = at(30);
        let short = Seek { pad_to: 0, ..any };
        assert_eq!(roster.handle_datagram(later, &arrival, &bytes(short)), Err(Dropped::Short));
        assert_eq!(roster.handle_datagram(later, &arrival, &bytes(of_scope_0)), Err(Dropped::Store));
        assert!(roster.is_empty());
    }
}

#[test]
fn eight_servers_are_listed_and_a_ninth_once_one_is_silent() {
    let mut seeker = lister();
    for number in 0..CANDIDATES_MAX as u32 {
        assert_eq!(hear(&mut seeker, at(1), 50 + number, &beacon_of(number, 1)), Ok(()));
    }
    assert_eq!(told(&mut seeker), (0..8).map(|number| found(number, 50 + number)).collect::<Vec<_>>());
    assert_eq!(hear(&mut seeker, at(2), 60, &beacon_of(9, 1)), Err(Dropped::Full));
    // All but the third speak again; 22 s after its last word somebody else may have its place.
    for number in (0..8).filter(|number| *number != 2) {
        hear(&mut seeker, at(12), 50 + number, &beacon_of(number, 2)).unwrap();
    }
    assert_eq!(hear(&mut seeker, at(23), 60, &beacon_of(9, 2)), Err(Dropped::Full));
    assert_eq!(hear(&mut seeker, at(24), 60, &beacon_of(9, 3)), Ok(()));
    assert_eq!(told(&mut seeker), [gone(2), found(9, 60)]);
    assert_eq!(seeker.candidates().count(), CANDIDATES_MAX);
    assert_eq!(seeker.stats().dropped_full, 2);
}

#[test]
fn a_flood_from_one_address_fills_two_places_and_pushes_nobody_out() {
    let mut seeker = lister();
    hear(&mut seeker, at(1), 50, &beacon_of(0, 1)).unwrap();
    for number in 1..2_000 {
        let now = at(1) + ms(u64::from(number) * 20);
        let _refused = hear(&mut seeker, now, 66, &beacon_of(number, number));
        if number % 500 == 0 {
            hear(&mut seeker, now, 50, &beacon_of(0, 1 + number)).unwrap();
        }
    }
    let of = |host| seeker.candidates().filter(|known| *known.source.ip() == *address(host).ip()).count();
    assert_eq!((of(50), of(66), seeker.candidates().count()), (1, 2, 3));
    assert!(seeker.stats().dropped_crowded > 0 && seeker.stats().dropped_rate > 0);
}

#[test]
fn a_listed_server_keeps_its_address_against_a_forger_and_is_followed_when_it_moves() {
    let mut seeker = lister();
    hear(&mut seeker, at(1), 50, &beacon_of(0, 1)).unwrap();
    hear(&mut seeker, at(11), 50, &beacon_of(0, 2)).unwrap();
    assert_eq!(hear(&mut seeker, at(12), 66, &beacon_of(0, 3)), Err(Dropped::Unknown));
    assert_eq!(hear(&mut seeker, at(12), 50, &beacon_of(0, 2)), Err(Dropped::Duplicate), "a copy");
    let bye = |sequence| {
        let store = Store::new(0, "BENCH").unwrap();
        let mut bytes = datagrams::bye(SERVER, 1, sequence);
        bytes[12..16].copy_from_slice(&store.scope().to_le_bytes());
        bytes
    };
    assert_eq!(hear(&mut seeker, at(13), 66, &bye(9)), Err(Dropped::Unknown));
    assert_eq!(hear(&mut seeker, at(13), 50, &bye(1)), Err(Dropped::Duplicate));
    assert_eq!(told(&mut seeker), [found(0, 50)]);
    // Silent where it was for two intervals, it has moved.
    assert_eq!(hear(&mut seeker, at(34), 66, &beacon_of(0, 4)), Ok(()));
    assert!(matches!(told(&mut seeker)[..], [SeekerEvent::CandidateChanged { .. }]));
    assert_eq!(seeker.candidates().next().map(|known| known.source), Some(address(66)));
    assert_eq!(hear(&mut seeker, at(35), 66, &bye(5)), Ok(()));
    assert_eq!(told(&mut seeker), [gone(0)]);
}

#[test]
fn a_beacon_whose_store_is_not_its_scopes_lists_nobody() {
    let mut seeker = lister();
    let mut bytes = beacon_of(1, 1);
    bytes[12] ^= 1;
    assert_eq!(hear(&mut seeker, at(1), 50, &bytes), Err(Dropped::Store));
    assert_eq!(seeker.candidates().count(), 0);
}

#[test]
fn a_device_without_a_store_that_slept_gives_its_servers_the_time_back() {
    let mut world = World::new(5);
    bench(&mut world);
    let device = world.device(unprovisioned(1), address(1), Duration::ZERO);
    world.run(secs(15));
    world.freeze(device);
    world.run(secs(3_600));
    world.nodes[device].held.clear();
    world.thaw(device);
    world.run(secs(30));
    assert_eq!(listed(&world, device).len(), 3);
    assert!(!world.nodes[device].told.iter().any(|told| matches!(told.1, SeekerEvent::CandidateGone { .. })));
}

#[test]
fn a_thousand_devices_without_a_store_ask_as_rarely_as_others() {
    let mut world = World::new(6);
    for number in 1..=1_000 {
        world.device(unprovisioned(number), address(number), ms(u64::from(number) * 30));
    }
    world.run(secs(180));
    let sent = world.sent(SEEK);
    assert!((30..=150).contains(&sent), "{sent} SEEKs in three minutes");
}
