//! Every named limit: at it, and one past it.

use wire_format::datagram::{Announce, Beacon, Datagram, Seek, Service, ServiceList, ack::Code};
use wire_format::ids::Name;

use super::datagrams::{self, SERVER};
use super::*;
use crate::config::{ANNOUNCE_LEN_MIN, BEACON_LEN_MAX, LEASE_MAX_S, LEASE_MIN_S, SERVICES_MAX, Services};
use crate::event::Dropped;

const NOW: Instant = Instant::from_millis(1_000);

fn arrival(number: u32) -> Arrival {
    Arrival { link: LINK, source: address(number), broadcast: false }
}

fn roster(config: ServerConfig) -> Roster<Vec<Slot>> {
    let mut roster = Roster::new(config, vec![Slot::EMPTY; 64], Instant::ZERO, 1);
    roster.link_up(Instant::ZERO, LINK);
    roster
}

fn services(count: u16) -> ServiceList {
    let mut list = ServiceList::EMPTY;
    for port in 8_000..8_000 + count {
        assert!(list.push(Service { id: Service::HTTP, port, protocol: Service::TCP, flags: 0, version: 1 }));
    }
    list
}

#[test]
fn the_longest_beacon_is_as_long_as_a_seek() {
    let mut config = server_config();
    config.store = Store::new(u32::MAX, &"x".repeat(32)).unwrap();
    config.name = Name::new(&"n".repeat(32)).unwrap();
    config.services = Services::copy_of(services(8).as_services().unwrap());
    let mut roster = roster(config.clone());
    let mut buffer = [0; 1_200];
    let len = roster.poll_transmit(Instant::ZERO, &mut buffer).unwrap().len;
    assert_eq!(len, BEACON_LEN_MAX);
    assert_eq!(Beacon::parse(&buffer[..len]).unwrap().services.unwrap().count(), SERVICES_MAX);

    let mut seeker = Seeker::new(
        DeviceConfig { store: Some(config.store), name: config.name, ..device_config(1) },
        Instant::ZERO,
        1,
    );
    seeker.link_up(Instant::ZERO, LINK);
    seeker.handle_timeout(NOW);
    let len = seeker.poll_transmit(NOW, &mut buffer).unwrap().len;
    assert!(Seek::parse(&buffer[..len]).is_ok());
    assert_eq!(len, BEACON_LEN_MAX);
}

#[test]
fn a_seek_of_the_beacons_length_is_answered_and_a_shorter_one_is_not() {
    // 48 + STORE 16 + PRIORITY 8.
    for (len, expected) in [(72, Ok(())), (68, Err(Dropped::Short))] {
        let seek = datagrams::seek(1, 1, len);
        assert_eq!(seek.len(), len);
        let heard = Arrival { broadcast: true, ..arrival(1) };
        assert_eq!(roster(server_config()).handle_datagram(NOW, &heard, &seek), expected);
    }
}

#[test]
fn an_announce_of_ninety_six_bytes_is_taken_and_a_shorter_one_is_not() {
    for (pad_to, expected) in [(ANNOUNCE_LEN_MIN, Ok(())), (ANNOUNCE_LEN_MIN - 4, Err(Dropped::Short))] {
        let (from, store) = (datagrams::node(1, 1, 1), store());
        let pad_to = u16::try_from(pad_to).unwrap();
        let announce = Announce { pad_to, ..datagrams::announce_of(from, &store) };
        let bytes = datagrams::bytes(Datagram::Announce(announce));
        assert_eq!(bytes.len(), usize::from(pad_to));
        assert_eq!(roster(server_config()).handle_datagram(NOW, &arrival(1), &bytes), expected);
    }
}

#[test]
fn eight_services_are_kept_and_a_ninth_is_counted() {
    for (count, cut) in [(8, 0), (9, 1)] {
        let (from, store, list) = (datagrams::node(1, 1, 1), store(), services(count));
        let announce = Announce { services: list.as_services(), ..datagrams::announce_of(from, &store) };
        let mut roster = roster(server_config());
        let bytes = datagrams::bytes(Datagram::Announce(announce));
        roster.handle_datagram(NOW, &arrival(1), &bytes).unwrap();
        let view = roster.find(id(1)).unwrap();
        assert_eq!(view.services.iter().count(), SERVICES_MAX);
        assert_eq!(roster.stats().services_cut, cut);
        // The same again is no change.
        while roster.poll_event().is_some() {}
        let again = Announce { from: datagrams::node(1, 1, 2), ..announce };
        roster.handle_datagram(NOW, &arrival(1), &datagrams::bytes(Datagram::Announce(again))).unwrap();
        assert_eq!(roster.poll_event(), None);
    }
}

#[test]
fn sixteen_answers_wait_for_a_caller_that_does_not_drain_and_a_seventeenth_does_not() {
    let mut roster = roster(server_config());
    for number in 1..=17 {
        roster.handle_datagram(NOW, &arrival(number), &datagrams::announce(number, 1, 1)).unwrap();
    }
    assert_eq!(roster.stats().answers_dropped, 1);
    let (mut buffer, mut acks) = ([0; 1_200], 0);
    while let Some(Transmit { .. }) = roster.poll_transmit(NOW, &mut buffer) {
        acks += usize::from(buffer[5] == 4);
    }
    assert_eq!((acks, roster.len()), (16, 17));
}

#[test]
fn a_buffer_too_small_costs_the_datagram_and_not_the_loop() {
    let mut roster = roster(server_config());
    roster.handle_datagram(NOW, &arrival(1), &datagrams::announce(1, 1, 1)).unwrap();
    assert_eq!(roster.poll_transmit(NOW, &mut [0; 40]), None);
    assert_eq!(roster.stats().answers_dropped, 2, "an ACK and a BEACON");
}

#[test]
fn leases_and_intervals_are_kept_in_their_ranges() {
    let cases =
        [(0, LEASE_MIN_S), (LEASE_MIN_S, 10), (90, 90), (LEASE_MAX_S, 3_600), (LEASE_MAX_S + 1, 3_600)];
    for (lease_s, granted) in cases {
        let roster = roster(ServerConfig { lease_s, ..server_config() });
        assert_eq!(roster.config().lease_s, granted);
    }
    for (beacon_interval_s, kept) in [(1, 2), (2, 2), (10, 10), (11, 10)] {
        assert_eq!(
            roster(ServerConfig { beacon_interval_s, ..server_config() }).config().beacon_interval_s,
            kept
        );
    }
    assert_eq!(roster(ServerConfig { rate_per_s: 0, ..server_config() }).config().rate_per_s, 1);
}

#[test]
fn an_open_epoch_is_drawn_and_a_counted_one_is_kept() {
    let drawn = |seed| Seeker::new(DeviceConfig::new(id(1), store()), Instant::ZERO, seed).config().epoch;
    assert!(drawn(1) != 0 && drawn(1) != drawn(2));
    let counted = Seeker::new(DeviceConfig { epoch: 0, ..device_config(1) }, Instant::ZERO, 1);
    assert_eq!(counted.config().epoch, 0);
}

#[test]
fn a_goodbye_silences_for_five_to_seventy_seconds_whatever_it_says() {
    for (retry_after_s, from, to) in [(0, 5, 15), (5, 5, 15), (60, 60, 70), (61, 60, 70), (u16::MAX, 60, 70)]
    {
        let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
        seeker.link_up(Instant::ZERO, LINK);
        let heard = Arrival { broadcast: true, ..arrival(99) };
        seeker.handle_datagram(NOW, &heard, &datagrams::beacon(SERVER, 1, 1, 250, 0)).unwrap();
        let mut bye = datagrams::bye(SERVER, 1, 2);
        bye[46..48].copy_from_slice(&retry_after_s.to_le_bytes());
        seeker.handle_datagram(NOW, &heard, &bye).unwrap();
        assert_eq!(seeker.server(), None);
        let due = seeker.poll_timeout().unwrap().since(NOW);
        assert!((secs(from)..secs(to)).contains(&due), "{due:?} for {retry_after_s}");
        assert_eq!(seeker.handle_datagram(NOW, &heard, &bye), Err(Dropped::Duplicate));
    }
}

#[test]
fn a_busy_server_is_asked_again_when_it_says_and_a_refusal_is_told_once() {
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    let heard = Arrival { broadcast: true, ..arrival(99) };
    seeker.handle_datagram(NOW, &heard, &datagrams::beacon(SERVER, 1, 1, 250, 0)).unwrap();
    let mut now = NOW;
    let mut told = vec![];
    for code in [Code::BUSY, Code(200), Code::ROSTER_FULL, Code::ROSTER_FULL, Code::BUSY] {
        now = seeker.poll_timeout().unwrap();
        seeker.handle_timeout(now);
        let mut buffer = [0; 1_200];
        let len = seeker.poll_transmit(now, &mut buffer).unwrap().len;
        let announce = Announce::parse(&buffer[..len]).unwrap();
        let ack = datagrams::ack(SERVER, announce.from.sequence, code, announce.nonce);
        seeker.handle_datagram(now, &arrival(99), &ack).unwrap();
        let wait = seeker.poll_timeout().unwrap().since(now);
        assert!((secs(5)..ms(7_500)).contains(&wait), "{wait:?}");
        told.extend(core::iter::from_fn(|| seeker.poll_event()));
    }
    assert!(now > NOW);
    let refused = SeekerEvent::Refused { id: id(SERVER), status: Code::ROSTER_FULL };
    assert_eq!(told.iter().filter(|event| **event == refused).count(), 1);
}

#[test]
fn a_place_is_not_given_away_before_its_loss_was_told() {
    let mut roster = Roster::new(server_config(), vec![Slot::EMPTY; 1], Instant::ZERO, 1);
    roster.handle_datagram(NOW, &arrival(1), &datagrams::announce(1, 1, 1)).unwrap();
    let mut now = NOW;
    while !roster.is_empty() {
        now = roster.poll_timeout().unwrap();
        roster.handle_timeout(now);
    }
    let late = datagrams::announce(2, 1, 1);
    assert_eq!(roster.handle_datagram(now, &arrival(2), &late), Err(Dropped::Full));
    let told: Vec<What> = core::iter::from_fn(|| roster.poll_event()).map(|event| event.what).collect();
    assert_eq!(told, [What::Joined, What::Lost, What::Refused { why: Code::ROSTER_FULL }]);
    assert_eq!(roster.handle_datagram(now, &arrival(2), &late), Ok(()));
    roster.check();
}
