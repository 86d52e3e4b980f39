//! Forged and random datagrams: nothing panics, nothing known is harmed, never more leaves than came.

use proptest::prelude::*;
use wire_format::datagram::{Datagram, Nonce, ack::Code};

use super::datagrams::{self, SERVER};
use super::*;
use crate::config::{ANNOUNCE_LEN_MIN, BEACON_LEN_MAX};
use crate::event::Dropped;

const NOW: Instant = Instant::from_millis(10_000);

fn from(number: u32) -> Arrival {
    Arrival { link: LINK, source: address(number), broadcast: false }
}

/// Everything a server sends now.
fn drained(roster: &mut Roster<Vec<Slot>>, now: Instant) -> Vec<(Destination, Vec<u8>)> {
    let (mut buffer, mut sent) = ([0; 1_200], vec![]);
    while let Some(Transmit { to, len }) = roster.poll_transmit(now, &mut buffer) {
        sent.push((to, buffer[..len].to_vec()));
    }
    while roster.poll_event().is_some() {}
    sent
}

fn drained_seeker(seeker: &mut Seeker, now: Instant) -> Vec<Vec<u8>> {
    let (mut buffer, mut sent) = ([0; 1_200], vec![]);
    while let Some(Transmit { len, .. }) = seeker.poll_transmit(now, &mut buffer) {
        sent.push(buffer[..len].to_vec());
    }
    while seeker.poll_event().is_some() {}
    sent
}

/// A server that knows device 1 at address 1, and has nothing to send.
fn server() -> Roster<Vec<Slot>> {
    let mut roster = Roster::new(server_config(), vec![Slot::EMPTY; 8], Instant::ZERO, 1);
    roster.link_up(Instant::ZERO, LINK);
    for at in [0, 1_000, 3_000, 5_000] {
        roster.handle_timeout(Instant::from_millis(at));
        drained(&mut roster, Instant::from_millis(at));
    }
    roster.handle_datagram(NOW, &from(1), &datagrams::announce(1, 1, 10)).unwrap();
    drained(&mut roster, NOW);
    roster
}

/// A device registered with the server at address 99.
fn device() -> Seeker {
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    let now = Instant::from_millis(100);
    let beacon = Arrival { broadcast: true, ..from(99) };
    seeker.handle_datagram(now, &beacon, &datagrams::beacon(SERVER, 1, 1, 250, 0)).unwrap();
    let later = Instant::from_millis(400);
    seeker.handle_timeout(later);
    let sent = drained_seeker(&mut seeker, later);
    let Ok(Datagram::Announce(announce)) = Datagram::parse(&sent[0]) else { panic!("{sent:?}") };
    let ack = datagrams::ack(SERVER, announce.from.sequence, Code::OK, announce.nonce);
    seeker.handle_datagram(later, &from(99), &ack).unwrap();
    assert!(seeker.server().is_some_and(|server| server.registered));
    drained_seeker(&mut seeker, later);
    seeker
}

/// A datagram of ours with some bytes changed, cut or added; or noise.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let kinds = datagrams::all_kinds();
    let mutated = (
        0..kinds.len(),
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        0..4_usize,
    )
        .prop_map(move |(kind, changes, cut)| {
            let mut bytes = kinds[kind].clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(2)));
            bytes
        });
    prop_oneof![9 => mutated, 1 => proptest::collection::vec(any::<u8>(), 0..1_300)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_server_never_sends_more_than_came(
        inputs in proptest::collection::vec((datagram(), 0..4_u32, any::<bool>(), 0..700_u64), 1..60)
    ) {
        let mut roster = server();
        let (mut now, mut came, mut left) = (NOW, 0, 0);
        for (bytes, source, broadcast, wait) in inputs {
            let arrival = Arrival { link: LINK, source: address(source + 1), broadcast };
            now = now + ms(wait / 10);
            let _reason = roster.handle_datagram(now, &arrival, &bytes);
            came += bytes.len();
            left += drained(&mut roster, now).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            prop_assert!(left <= came, "{left} bytes for {came}");
            roster.check();
        }
        let stats = roster.stats();
        let kinds: u64 = stats.each().filter(|(name, _)| {
            ["received_seek", "received_beacon", "received_announce", "received_ack", "received_bye", "received_challenge"].contains(name)
        }).map(|(_, count)| count).sum();
        prop_assert_eq!(stats.received, kinds + stats.dropped(), "every datagram is in one counter");
    }

    #[test]
    fn a_device_answers_at_once_with_no_more_than_came(
        inputs in proptest::collection::vec((datagram(), 0..4_u32, any::<bool>()), 1..60)
    ) {
        let mut seeker = device();
        let (mut came, mut left) = (0, 0);
        for (bytes, source, broadcast) in inputs {
            let arrival = Arrival { link: LINK, source: address(source + 97), broadcast };
            let _reason = seeker.handle_datagram(NOW, &arrival, &bytes);
            came += bytes.len();
            left += drained_seeker(&mut seeker, NOW).iter().map(Vec::len).sum::<usize>();
            prop_assert!(left <= came, "{left} bytes for {came}");
        }
        let stats = seeker.stats();
        prop_assert!(stats.received >= stats.dropped());
    }
}

#[test]
fn each_reason_for_a_drop_has_its_counter() {
    let short = datagrams::bytes(Datagram::Announce(wire_format::datagram::Announce {
        pad_to: 0,
        ..datagrams::announce_of(datagrams::node(5, 1, 1), &store())
    }));
    assert!(short.len() < ANNOUNCE_LEN_MIN);
    let broadcast = Arrival { broadcast: true, ..from(2) };
    let low_port = Arrival { source: SocketAddrV4::new(*address(2).ip(), 53), ..from(2) };
    let cookie = Nonce::Short([1; 8]);
    let mut elsewhere = datagrams::announce(1, 1, 11);
    elsewhere[12] ^= 1;
    let mut staging = datagrams::announce(1, 1, 11);
    staging[6] |= 1;
    let mut foreign = datagrams::announce(1, 1, 11);
    foreign[0] = 0;
    let mut version = datagrams::announce(1, 1, 11);
    version[4] = 0x20;
    let mut own = datagrams::announce(1, 1, 11);
    own[16..32].copy_from_slice(&id(SERVER).0);
    let cases: Vec<(&str, Arrival, Vec<u8>)> = vec![
        ("dropped_short", from(2), short),
        ("dropped_short", broadcast, datagrams::seek(2, 1, 0)),
        ("dropped_misdirected", broadcast, datagrams::announce(2, 1, 1)),
        ("dropped_misdirected", broadcast, datagrams::challenge(1, 1, 1, true, cookie)),
        ("dropped_misdirected", from(2), datagrams::ack(SERVER + 1, 1, Code::OK, None)),
        ("dropped_misdirected", from(2), datagrams::bye(SERVER + 1, 1, 1)),
        ("dropped_source", low_port, datagrams::announce(2, 1, 1)),
        ("dropped_unknown", from(2), datagrams::bye(2, 1, 1)),
        ("dropped_unknown", from(2), datagrams::bye(1, 1, 11)),
        ("dropped_stale", from(1), datagrams::bye(1, 2, 11)),
        ("dropped_unexpected", from(1), datagrams::challenge(1, 1, 11, true, cookie)),
        ("dropped_duplicate", from(1), datagrams::announce(1, 1, 10)),
        ("dropped_duplicate", from(1), datagrams::announce(1, 1, 9)),
        ("dropped_contested", from(2), datagrams::announce(1, 1, 11)),
        ("dropped_stale", from(1), datagrams::announce(1, 0, 11)),
        ("dropped_store", from(1), elsewhere),
        ("dropped_staging", from(1), staging),
        ("dropped_foreign", from(1), foreign),
        ("dropped_version", from(1), version),
        ("dropped_own", from(1), own),
        ("dropped_malformed", from(1), vec![0; 20]),
    ];
    for (name, arrival, bytes) in cases {
        let mut roster = server();
        let before = *roster.stats();
        assert!(roster.handle_datagram(NOW, &arrival, &bytes).is_err(), "{name}");
        let changed: Vec<&str> = before
            .each()
            .zip(roster.stats().each())
            .filter(|(before, after)| before != after)
            .map(|(before, _)| before.0)
            .collect();
        assert_eq!(changed, ["received", "received_bytes", name]);
        assert_eq!(roster.find(id(1)).unwrap().source, address(1));
    }
}

#[test]
fn a_full_store_is_compared_and_not_only_its_hash() {
    let mut roster = server();
    let other = Store::new(7, "PARIS-13").unwrap();
    let node = datagrams::node(2, 1, 1);
    assert_eq!(node.scope, store().scope(), "the hash says it is ours");
    let bytes = datagrams::bytes(Datagram::Announce(datagrams::announce_of(node, &other)));
    assert_eq!(roster.handle_datagram(NOW, &from(2), &bytes), Err(Dropped::Store));
    let mut announce = datagrams::announce_of(node, &other);
    announce.store = None;
    let bytes = datagrams::bytes(Datagram::Announce(announce));
    assert_eq!(roster.handle_datagram(NOW, &from(2), &bytes), Err(Dropped::Store));
}

#[test]
fn a_seek_is_answered_by_one_broadcast_a_second_however_many_ask() {
    let mut roster = server();
    let mut beacons = 0;
    for at in 0..3_000_u64 {
        let now = Instant::from_millis(20_000 + at);
        let seek = datagrams::seek(2, at as u32, BEACON_LEN_MAX);
        let arrival = Arrival { broadcast: true, ..from(1_000 + at as u32) };
        roster.handle_datagram(now, &arrival, &seek).unwrap();
        roster.handle_timeout(now);
        for (to, bytes) in drained(&mut roster, now) {
            assert_eq!((to, bytes[5]), (Destination::Broadcast(LINK), BEACON));
            assert!(bytes.len() <= seek.len());
            beacons += 1;
        }
    }
    assert_eq!(beacons, 3);
}

#[test]
fn a_flood_of_forged_announces_fills_the_roster_and_nothing_else() {
    let mut roster = server();
    let (mut came, mut left) = (0, 0);
    for number in 0..10_000 {
        let bytes = datagrams::announce(100 + number, 1, 1);
        let _full = roster.handle_datagram(NOW, &from(1_000 + number), &bytes);
        came += bytes.len();
        left += drained(&mut roster, NOW).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert!(left <= came);
    assert_eq!((roster.len(), roster.stats().dropped_full), (8, 10_000 - 7));
    assert_eq!(roster.find(id(1)).unwrap().source, address(1), "who was there stays");
}

#[test]
fn one_source_gets_thirty_two_answers_at_once() {
    let mut roster = server();
    let answers: usize = (0..200)
        .map(|sequence| {
            let _rate = roster.handle_datagram(NOW, &from(2), &datagrams::announce(2, 1, 1_000 + sequence));
            drained(&mut roster, NOW).len()
        })
        .sum();
    assert_eq!((answers, roster.stats().dropped_rate), (32, 200 - 32));
}

#[test]
fn a_forged_goodbye_removes_nobody_who_answers() {
    let mut world = World::new(1);
    world.check = true;
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    let device = world.device(device_config(1), address(1), ms(3_500));
    world.run(secs(6));
    assert!(world.seeker(device).server().is_some());
    world.inject(server, address(1), false, &datagrams::bye(1, 1, 0x7000_0000));
    world.run(secs(200));
    assert_eq!(world.news(server, 1), [What::Joined]);
    assert_eq!(world.roster(server).stats().bye_refuted, 1);
}

#[test]
fn a_forged_goodbye_of_the_server_costs_no_announce() {
    let mut world = World::new(2);
    let server = world.server(server_config(), 100, address(999), Duration::ZERO);
    let first = world.devices(100, secs(3));
    world.run(secs(10));
    let announces = world.sent(ANNOUNCE);
    assert_eq!((world.present(server), announces), (100, 100));
    let forged = datagrams::bye(SERVER, 1, 0);
    for device in first..first + 100 {
        let mut bytes = forged.clone();
        // The attacker has seen the last beacon and counts on.
        let next = world.roster(server).first_sequence().wrapping_add(world.nodes[server].sent.len() as u32);
        bytes[36..40].copy_from_slice(&next.to_le_bytes());
        world.inject(device, address(999), true, &bytes);
    }
    assert!(matches!(world.nodes[first].told.last(), Some((_, SeekerEvent::ServerLeft { .. }))));
    world.run(secs(11));
    assert_eq!(world.sent(ANNOUNCE), announces, "the next beacon mends it");
    assert!((first..first + 100).all(|device| world.seeker(device).server().is_some_and(|s| s.registered)));
}

#[test]
fn an_ack_without_our_nonce_registers_nobody() {
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    let now = Instant::from_millis(100);
    let beacon = datagrams::beacon(SERVER, 1, 1, 250, 0);
    seeker.handle_datagram(now, &Arrival { broadcast: true, ..from(99) }, &beacon).unwrap();
    let early = datagrams::ack(SERVER, 0, Code::OK, None);
    assert_eq!(seeker.handle_datagram(now, &from(99), &early), Err(Dropped::Unexpected));
    let later = Instant::from_millis(400);
    seeker.handle_timeout(later);
    let sent = drained_seeker(&mut seeker, later);
    let Ok(Datagram::Announce(announce)) = Datagram::parse(&sent[0]) else { panic!("{sent:?}") };
    let sequence = announce.from.sequence;
    for (nonce, why) in [(None, Dropped::Cookie), (Some(Nonce::Short([0; 8])), Dropped::Cookie)] {
        let forged = datagrams::ack(SERVER, sequence, Code::OK, nonce);
        assert_eq!(seeker.handle_datagram(later, &from(99), &forged), Err(why));
    }
    let other = datagrams::ack(SERVER + 1, sequence, Code::OK, announce.nonce);
    assert_eq!(seeker.handle_datagram(later, &from(99), &other), Err(Dropped::Unknown));
    let right = datagrams::ack(SERVER, sequence, Code::OK, announce.nonce);
    assert_eq!(seeker.handle_datagram(later, &from(99), &right), Ok(()));
    assert_eq!(seeker.handle_datagram(later, &from(99), &right), Err(Dropped::Unexpected), "once");
}

#[test]
fn forged_beacons_make_a_device_talk_four_times_then_once_in_thirty_seconds() {
    let mut seeker = device();
    let mut announces = 0;
    for at in 0..600_u32 {
        let now = NOW + ms(u64::from(at) * 100);
        let beacon = datagrams::beacon(SERVER, 100 + at, 1, 0, 0);
        let _rate = seeker.handle_datagram(now, &Arrival { broadcast: true, ..from(99) }, &beacon);
        seeker.handle_timeout(now);
        announces += drained_seeker(&mut seeker, now).len();
    }
    assert!(announces <= 20, "{announces} announces in a minute of 600 forged boots");
    assert!(seeker.stats().dropped_rate > 500);
}

#[test]
fn a_challenge_is_answered_in_as_many_bytes_and_never_as_a_broadcast() {
    let mut seeker = device();
    for nonce in [Nonce::Short([3; 8]), Nonce::Long([3; 16])] {
        let question = datagrams::challenge(SERVER, 1, 5, false, nonce);
        seeker.handle_datagram(NOW, &from(99), &question).unwrap();
        let sent = drained_seeker(&mut seeker, NOW);
        let Ok(Datagram::Challenge(answer)) = Datagram::parse(&sent[0]) else { panic!("{sent:?}") };
        assert!(answer.answer && answer.nonce == nonce && sent[0].len() == question.len());
        let everybody = Arrival { broadcast: true, ..from(99) };
        assert_eq!(seeker.handle_datagram(NOW, &everybody, &question), Err(Dropped::Misdirected));
        let answer = datagrams::challenge(SERVER, 1, 5, true, nonce);
        assert_eq!(seeker.handle_datagram(NOW, &from(99), &answer), Err(Dropped::Misdirected));
    }
}

#[test]
fn a_tag_is_carried_counted_and_not_believed() {
    let mut roster = server();
    roster.handle_datagram(NOW, &from(4), &datagrams::signed_announce(4, 1)).unwrap();
    assert_eq!(roster.stats().received_auth_unverified, 1);
    assert_eq!(roster.find(id(4)).unwrap().state, State::Fresh);
}

#[test]
fn only_selected_devices_answer_a_census() {
    let mut answered = 0;
    for number in 1..=2_000 {
        let mut seeker = Seeker::new(device_config(number), Instant::ZERO, u64::from(number));
        seeker.link_up(Instant::ZERO, LINK);
        let beacon = datagrams::beacon(SERVER, 1, 1, 100, 3);
        let everybody = Arrival { broadcast: true, ..from(99_999) };
        seeker.handle_datagram(Instant::from_millis(1), &everybody, &beacon).unwrap();
        let later = Instant::from_millis(102);
        seeker.handle_timeout(later);
        answered +=
            usize::from(drained_seeker(&mut seeker, later).first().is_some_and(|bytes| bytes[5] == ANNOUNCE));
        assert_eq!(datagrams::sender(&beacon), id(SERVER));
    }
    assert!((200..=300).contains(&answered), "{answered} of 2,000 for one in eight");
}

#[test]
fn a_goodbye_older_than_the_last_beacon_is_an_echo() {
    let mut seeker = device();
    let heard = Arrival { broadcast: true, ..from(99) };
    seeker.handle_datagram(NOW, &heard, &datagrams::beacon(SERVER, 1, 10, 250, 0)).unwrap();
    for (bytes, why) in [
        (datagrams::bye(SERVER, 1, 9), Dropped::Duplicate),
        (datagrams::bye(SERVER, 2, 11), Dropped::Stale),
        (datagrams::bye(SERVER + 1, 1, 11), Dropped::Unknown),
    ] {
        assert_eq!(seeker.handle_datagram(NOW, &heard, &bytes), Err(why));
    }
    assert!(seeker.server().is_some_and(|server| server.registered));
    assert_eq!(seeker.handle_datagram(NOW, &heard, &datagrams::bye(SERVER, 1, 11)), Ok(()));
    assert_eq!(seeker.server(), None);
}
