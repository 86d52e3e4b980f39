//! Datagrams of later versions, of other majors, with leases nobody should believe, and garbage of every length.

use super::datagrams::{self, SERVER};
use super::*;
use crate::config::{LEASE_MAX_S, LEASE_MIN_S};
use crate::event::Dropped;
use wire_format::datagram::{Announce, ack::Code};

const NOW: Instant = Instant::from_millis(10_000);

/// As a later minor version may send it: two header words more, reserved flags, an entry nobody knows.
fn of_a_later_minor(bytes: &[u8], critical: bool) -> Vec<u8> {
    let mut later = bytes[..48].to_vec();
    later[4] = 0x17;
    later[6] |= 0xC0;
    later[7] = 14;
    later.extend([0xEE; 8]);
    let number: u16 = if critical { 0xC321 } else { 0x4321 };
    later.extend(number.to_le_bytes());
    later.extend([3, 0, b'n', b'e', b'w', 0]);
    later.extend(&bytes[48..]);
    let len = u16::try_from(later.len()).unwrap();
    later[8..10].copy_from_slice(&len.to_le_bytes());
    later
}

fn from(number: u32) -> Arrival {
    Arrival { link: LINK, source: address(number), broadcast: false }
}

fn server() -> Roster<Vec<Slot>> {
    let mut roster = Roster::new(server_config(), vec![Slot::EMPTY; 8], Instant::ZERO, 1);
    roster.link_up(Instant::ZERO, LINK);
    while roster.poll_transmit(Instant::ZERO, &mut [0; 1_200]).is_some() {}
    roster
}

#[test]
fn a_later_minor_version_is_understood_and_what_it_declares_critical_or_another_major_is_not() {
    let announce = datagrams::announce(1, 1, 1);
    let mut roster = server();
    assert_eq!(roster.handle_datagram(NOW, &from(1), &of_a_later_minor(&announce, false)), Ok(()));
    assert_eq!(roster.len(), 1);
    let critical = of_a_later_minor(&datagrams::announce(2, 1, 1), true);
    assert!(matches!(roster.handle_datagram(NOW, &from(2), &critical), Err(Dropped::Malformed(_))));
    for version in [0x00, 0x0F, 0x20, 0xF0] {
        let mut other = datagrams::announce(3, 1, 1);
        other[4] = version;
        assert!(roster.handle_datagram(NOW, &from(3), &other).is_err());
    }
    assert_eq!((roster.len(), roster.stats().dropped_version), (1, 4));
    assert_eq!(roster.stats().dropped_malformed, 1);

    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    seeker.link_up(Instant::ZERO, LINK);
    let everybody = Arrival { broadcast: true, ..from(99) };
    let beacon = datagrams::beacon(SERVER, 1, 1, 250, 0);
    assert!(seeker.handle_datagram(Instant::ZERO, &everybody, &of_a_later_minor(&beacon, true)).is_err());
    assert_eq!(seeker.server(), None);
    assert_eq!(seeker.handle_datagram(Instant::ZERO, &everybody, &of_a_later_minor(&beacon, false)), Ok(()));
    assert!(seeker.server().is_some());
}

#[test]
fn leases_of_a_second_and_of_eighteen_hours_are_brought_into_their_range() {
    for (lease_s, believed) in [(1_u16, LEASE_MIN_S), (u16::MAX, LEASE_MAX_S)] {
        // What a device asks for decides nothing.
        let mut roster = server();
        let mut announce = datagrams::announce(1, 1, 1);
        announce[42..44].copy_from_slice(&lease_s.to_le_bytes());
        roster.handle_datagram(NOW, &from(1), &announce).unwrap();
        let mut now = NOW;
        while !roster.is_empty() {
            now = roster.poll_timeout().unwrap();
            roster.handle_timeout(now);
            while roster.poll_transmit(now, &mut [0; 1_200]).is_some() {}
        }
        assert_eq!(now.since(NOW), secs(90), "the server's own lease holds");

        // What a server grants is believed within bounds.
        let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
        seeker.link_up(Instant::ZERO, LINK);
        let everybody = Arrival { broadcast: true, ..from(99) };
        seeker.handle_datagram(NOW, &everybody, &datagrams::beacon(SERVER, 1, 1, 0, 0)).unwrap();
        seeker.handle_timeout(NOW);
        let mut buffer = [0; 1_200];
        let len = seeker.poll_transmit(NOW, &mut buffer).unwrap().len;
        let announce = Announce::parse(&buffer[..len]).unwrap();
        let mut ack = datagrams::ack(SERVER, announce.from.sequence, Code::OK, announce.nonce);
        ack[42..44].copy_from_slice(&lease_s.to_le_bytes());
        seeker.handle_datagram(NOW, &from(99), &ack).unwrap();
        // Linked, so that only the refresh tells what is believed once the session ends.
        seeker.set_linked(NOW, true);
        seeker.set_linked(NOW, false);
        let mut due = seeker.poll_timeout().unwrap();
        // A long lease: its server is lost by silence before the refresh is due.
        if believed == LEASE_MAX_S {
            assert!((secs(35)..=secs(38)).contains(&due.since(NOW)), "{due:?}");
            seeker.handle_datagram(due, &everybody, &datagrams::beacon(SERVER, 1, 2, 250, 0)).unwrap();
            due = due + secs(35);
            assert!(seeker.poll_timeout().unwrap() >= due);
        } else {
            let third = secs(u64::from(believed)) / 3;
            assert!((third * 4 / 5..=third * 6 / 5).contains(&due.since(NOW)), "{due:?}");
        }
    }
}

#[test]
fn garbage_of_every_length_is_counted_and_nothing_else() {
    let mut rng = Rng::new(3);
    let mut roster = server();
    let mut seeker = Seeker::new(device_config(1), Instant::ZERO, 1);
    let mut lister = Seeker::new(DeviceConfig::unprovisioned(id(2)), Instant::ZERO, 1);
    let lengths = (0..=1_300).chain([1_499, 1_500, 4_096, 9_000, 65_507]);
    let mut count = 0;
    let header = datagrams::announce(1, 1, 1);
    for len in lengths {
        // Noise, and noise behind a beginning that looks right.
        for good in [0, 4, 8, 48] {
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            let good = good.min(bytes.len());
            bytes[..good].copy_from_slice(&header[..good]);
            if good == 48 {
                let len = u16::try_from(bytes.len()).unwrap();
                bytes[8..10].copy_from_slice(&len.to_le_bytes());
                // Not even by chance an announce that stands.
                bytes[7] = 11;
            }
            let arrival =
                Arrival { link: LINK, source: address(count % 4_000 + 1), broadcast: count % 2 == 0 };
            assert!(roster.handle_datagram(NOW, &arrival, &bytes).is_err());
            assert!(seeker.handle_datagram(NOW, &arrival, &bytes).is_err());
            assert!(lister.handle_datagram(NOW, &arrival, &bytes).is_err());
            count += 1;
        }
    }
    for stats in [roster.stats(), seeker.stats(), lister.stats()] {
        assert_eq!((stats.received, stats.dropped()), (u64::from(count), u64::from(count)));
        assert_eq!(stats.dropped_foreign + stats.dropped_version + stats.dropped_malformed, u64::from(count));
    }
    assert!(roster.is_empty() && seeker.server().is_none() && lister.candidates().next().is_none());
}
