//! What a restart keeps: written, read back, damaged, foreign, hostile.

use proptest::prelude::*;
use wire_format::datagram::{Announce, CodeRef, Firmware, Service, ServiceList, TagsRef, TextRef};
use wire_format::ids::{DeviceKind, Store, Tags};

use super::*;
use crate::event::Fields;
use crate::link::LinkId;
use crate::roster::{HEADER_LEN, RECORD_LEN, Restored, SnapshotError};
use crate::testing::{BEACON, World, ms, secs, store};

fn snapshot<K: crate::auth::Keys>(roster: &Roster<Vec<Slot>, K>) -> Vec<u8> {
    let (mut cursor, mut buffer, mut bytes) = (roster.snapshot(), [0xAA; RECORD_LEN], vec![]);
    let len = cursor.len();
    while let Some(piece) = cursor.next_piece(&mut buffer) {
        bytes.extend_from_slice(piece);
        assert_eq!(bytes.len() + cursor.len(), len);
    }
    bytes
}

/// A roster with three devices: one that says everything, one that is lost, one that left.
fn three() -> Desk {
    let mut desk = Desk::with(ServerConfig { forget_s: 3_600, ..server_config() }, 8);
    let (store, tags) = (store(), Tags::new(["bakery", "self-service"]).unwrap());
    let mut services = ServiceList::<8>::EMPTY;
    for port in 0..8 {
        assert!(services.push(Service { id: 1, port, protocol: Service::TCP, flags: 9, version: 2 }));
    }
    for number in [2, 3] {
        desk.say(number, number, 5).unwrap();
    }
    desk.bye(3).unwrap_err();
    desk.sequence += 1;
    let bye = datagrams::bye(3, 5, desk.sequence);
    desk.roster.handle_datagram(desk.now, &arrival(3), &bye).unwrap();
    desk.wait(secs(91));
    desk.sequence += 1;
    let announce = Announce {
        name: TextRef::new("Kiosk 3"),
        code: CodeRef::new("KIO-0003"),
        services: services.as_services(),
        firmware: Some(Firmware { version: 7, build: 8 }),
        caps: Some(0x0102_0304_0506_0708),
        zone: Some(0),
        tags: TagsRef::new(&tags),
        ..datagrams::announce_of(datagrams::node(1, 4, desk.sequence), &store)
    };
    let bytes = datagrams::bytes(Datagram::Announce(announce));
    desk.roster.handle_datagram(desk.now, &arrival(1), &bytes).unwrap();
    assert_eq!(desk.told().len(), 5);
    desk
}

#[test]
fn everything_comes_back_as_it_was_but_unconfirmed() {
    let before = three();
    let bytes = snapshot(&before.roster);
    assert_eq!(bytes.len(), HEADER_LEN + 3 * RECORD_LEN);
    let mut after = Desk::with(before.roster.config().clone(), 8);
    let restored = after.roster.restore(after.now, &bytes).unwrap();
    assert_eq!(restored, Restored { unconfirmed: 1, gone: 2, ..Restored::default() });
    assert_eq!(after.told(), [], "nothing happened yet");
    assert_eq!(after.roster.generation(), 5);
    assert!(after.roster.is_empty());
    for number in 1..=3 {
        let (was, is) = (before.roster.find(id(number)).unwrap(), after.roster.find(id(number)).unwrap());
        let state = if number == 1 { State::Unconfirmed } else { was.state };
        assert_eq!(is, crate::DeviceView { link: LinkId::ROUTED, heard: after.now, state, ..was });
    }
    assert_eq!(after.roster.find(id(1)).unwrap().kind, DeviceKind::KIOSK);
    assert_eq!((after.state(2), after.state(3)), (Some(State::Lost), Some(State::Left)));
    // And once more: what was restored is written as it was read.
    assert_eq!(snapshot(&after.roster), bytes);
}

#[test]
fn who_had_a_session_is_told_from_who_only_announced_itself() {
    let mut before = Desk::new(4);
    for number in 1..=3 {
        before.say(number, number, 5).unwrap();
    }
    before.roster.set_linked(before.now, id(1), true);
    before.roster.set_linked(before.now, id(2), true);
    before.roster.set_linked(before.now, id(2), false);
    let mut after = Desk::new(4);
    after.roster.restore(after.now, &snapshot(&before.roster)).unwrap();
    let served = |desk: &Desk| [1, 2, 3].map(|number| desk.roster.find(id(number)).unwrap().served);
    assert_eq!((served(&before), served(&after)), ([true, true, false], [true, true, false]));
    after.say(1, 1, 6).unwrap();
    assert!(served(&after)[0], "it stays so when the device is heard");
}

/// Written by the first version. If this fails, snapshots of servers in the field are not read any more: raise the
/// version, or take your change back.
#[test]
fn version_1_is_frozen() {
    let mut desk = Desk::new(2);
    desk.say(1, 1, 4).unwrap();
    let hex: String = snapshot(&desk.roster).iter().map(|byte| format!("{byte:02x}")).collect();
    let zeros = |count: usize| "00".repeat(count);
    let header = format!(
        "54574c52 0100 e800 01000000 00000000 0000000000000000 07000000 08000000 50415249532d3132 {}",
        zeros(24)
    );
    let record = format!(
        "01000000a5a5a5a5a5a5a5a5a5a5a5a5 0a000001 fee1 911f 0200 00 00 04000000 01000000 01000000 0000 00 00 00 00 0000 {}",
        zeros(180)
    );
    let plain = |text: String| text.replace(' ', "");
    assert_eq!(hex[..128], plain(header));
    assert_eq!(hex[136..592], plain(record));
    // Both checksums by another program than this one.
    assert_eq!((&hex[128..136], &hex[592..600]), ("b1bf5d69", "b54a92d2"));
}

#[test]
fn a_restored_device_is_joined_once_by_whatever_comes_first() {
    let restored = || {
        let mut desk = Desk::new(4);
        desk.say(1, 1, 4).unwrap();
        let bytes = snapshot(&desk.roster);
        let sequence = desk.sequence;
        let mut desk = Desk { sequence, ..Desk::new(4) };
        desk.roster.restore(desk.now, &bytes).unwrap();
        desk
    };
    // It announces itself, booted meanwhile.
    let mut desk = restored();
    desk.say(1, 1, 5).unwrap();
    assert_eq!((desk.told(), desk.state(1)), (vec![What::Joined], Some(State::Fresh)));
    desk.say(1, 1, 6).unwrap();
    assert_eq!(desk.told(), [What::Rebooted { before: 5, epoch: 6 }]);
    // An old copy of its last announce proves nothing.
    let mut desk = restored();
    desk.sequence -= 1;
    assert_eq!(desk.say(1, 1, 4), Err(Dropped::Duplicate));
    assert_eq!(desk.state(1), Some(State::Unconfirmed));
    // From another address: the old one is asked, and silent.
    assert_eq!(desk.say(1, 2, 4), Err(Dropped::Contested));
    assert_eq!(desk.questions().len(), 1);
    desk.wait(secs(1));
    assert_eq!(desk.told(), [What::Joined]);
    assert_eq!(desk.roster.find(id(1)).unwrap().source, address(2));
    // Asked, and it answers.
    let mut desk = restored();
    assert_eq!(desk.say(1, 2, 4), Err(Dropped::Contested));
    let [nonce] = desk.questions()[..] else { panic!("one question") };
    let answer = datagrams::challenge(1, 4, 50, true, nonce);
    desk.roster.handle_datagram(desk.now, &arrival(1), &answer).unwrap();
    assert_eq!(desk.told(), [What::Joined, What::Conflict { rival: address(2) }]);
    // A session for orders.
    let mut desk = restored();
    assert!(desk.roster.set_linked(desk.now, id(1), true));
    assert_eq!((desk.told(), desk.state(1)), (vec![What::Joined], Some(State::Linked)));
    desk.say(1, 1, 4).unwrap();
    assert_eq!(desk.told(), []);
}

#[test]
fn a_restored_device_nobody_hears_is_lost_after_a_lease_and_may_come_back() {
    let bytes = snapshot(&three().roster);
    let mut desk = Desk::with(three().roster.config().clone(), 8);
    desk.roster.restore(desk.now, &bytes).unwrap();
    desk.wait(secs(89));
    assert_eq!((desk.told(), desk.state(1)), (vec![], Some(State::Unconfirmed)));
    assert_eq!(desk.questions(), [], "10,000 questions at once would be a storm");
    desk.wait(secs(2));
    assert_eq!((desk.told(), desk.state(1)), (vec![What::Lost], Some(State::Lost)));
    desk.sequence = 1_000;
    desk.say(1, 1, 4).unwrap();
    let all = [
        Fields::NAME,
        Fields::CODE,
        Fields::ZONE,
        Fields::TAGS,
        Fields::SERVICES,
        Fields::FIRMWARE,
        Fields::CAPS,
    ];
    let [What::Back, What::Changed { fields }] = desk.told()[..] else { panic!("back, and says less") };
    assert!(all.into_iter().all(|field| fields.contains(field)));
    // Those that were gone before are told to be back, too.
    desk.say(3, 3, 5).unwrap();
    assert_eq!(desk.told(), [What::Back]);
}

#[test]
fn a_snapshot_of_something_else_is_refused_with_its_reason() {
    let bytes = snapshot(&three().roster);
    let refuse = |config: ServerConfig, bytes: &[u8]| {
        let mut desk = Desk::with(config, 8);
        let error = desk.roster.restore(desk.now, bytes).unwrap_err();
        assert_eq!((desk.roster.iter().count(), desk.roster.generation()), (0, 0));
        error
    };
    let other = Store::new(7, "PARIS-13").unwrap();
    let elsewhere = ServerConfig { store: other, ..server_config() };
    assert_eq!(refuse(elsewhere, &bytes), SnapshotError::OtherStore { found: store() });
    let staging = ServerConfig { staging: true, ..server_config() };
    assert_eq!(refuse(staging, &bytes), SnapshotError::OtherSide { staging: false });
    for len in [0, 3] {
        assert_eq!(refuse(server_config(), &bytes[..len]), SnapshotError::Truncated { len });
    }
    assert_eq!(
        refuse(server_config(), &bytes[..HEADER_LEN - 1]),
        SnapshotError::Truncated { len: HEADER_LEN - 1 }
    );
    let changed = |at: usize, bit: u8| {
        let mut bytes = bytes.clone();
        bytes[at] ^= bit;
        bytes
    };
    assert_eq!(refuse(server_config(), &changed(0, 1)), SnapshotError::Foreign);
    assert_eq!(refuse(server_config(), &changed(4, 3)), SnapshotError::Version { found: 2 });
    for at in 6..HEADER_LEN {
        assert_eq!(refuse(server_config(), &changed(at, 0x10)), SnapshotError::Damaged, "byte {at}");
    }
    for (error, says) in [
        (SnapshotError::OtherStore { found: other }, "a snapshot of store 7/PARIS-13"),
        (SnapshotError::OtherSide { staging: true }, "a snapshot of a staging server"),
        (SnapshotError::Version { found: 2 }, "a snapshot of version 2, which is not read here"),
    ] {
        assert_eq!(error.to_string(), says);
    }
}

#[test]
fn a_damaged_record_costs_itself_alone() {
    let bytes = snapshot(&three().roster);
    for at in HEADER_LEN..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let mut desk = Desk::with(ServerConfig { forget_s: 3_600, ..server_config() }, 8);
        let restored = desk.roster.restore(desk.now, &bytes).unwrap();
        assert_eq!((restored.damaged, restored.unconfirmed + restored.gone), (1, 2), "byte {at}");
        desk.roster.check();
    }
    // A record of another snapshot of the same roster is no record of this one.
    let mut desk = three();
    desk.say(4, 4, 1).unwrap();
    assert_eq!(desk.told().len(), 1);
    let later = snapshot(&desk.roster);
    let mixed = [&later[..HEADER_LEN], &bytes[HEADER_LEN..]].concat();
    let restored = Desk::new(8).roster.restore(Instant::ZERO, &mixed).unwrap();
    assert_eq!((restored.damaged, restored.missing), (3, 1));
}

#[test]
fn what_is_cut_off_is_missing_and_what_is_behind_the_end_is_left_alone() {
    let bytes = snapshot(&three().roster);
    let restore = |bytes: &[u8]| Desk::new(8).roster.restore(Instant::ZERO, bytes).unwrap();
    let cut = restore(&bytes[..HEADER_LEN + RECORD_LEN]);
    assert_eq!((cut.unconfirmed + cut.gone, cut.damaged, cut.missing), (1, 0, 2));
    let cut = restore(&bytes[..bytes.len() - 1]);
    assert_eq!((cut.unconfirmed + cut.gone, cut.damaged, cut.missing), (2, 1, 0));
    let twice = [&bytes[..], &bytes[HEADER_LEN..]].concat();
    assert_eq!(restore(&twice), restore(&bytes));
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut desk = Desk::with(ServerConfig { devices_per_address: 3, ..server_config() }, 8);
    for number in 1..=6 {
        desk.say(number, if number < 4 { 1 } else { number }, 1).unwrap();
    }
    let bytes = snapshot(&desk.roster);
    let restore = |devices_per_address, capacity| {
        let config = ServerConfig { devices_per_address, ..server_config() };
        let mut desk = Desk::with(config, capacity);
        let restored = desk.roster.restore(desk.now, &bytes).unwrap();
        desk.roster.check();
        let again = desk.roster.restore(desk.now, &bytes).unwrap();
        assert_eq!(again.known, restored.unconfirmed);
        restored
    };
    assert_eq!(restore(3, 8), Restored { unconfirmed: 6, ..Restored::default() });
    assert_eq!(restore(3, 4), Restored { unconfirmed: 4, full: 2, ..Restored::default() });
    assert_eq!(restore(2, 8), Restored { unconfirmed: 5, crowded: 1, ..Restored::default() });
    assert_eq!(restore(3, 0), Restored { full: 6, ..Restored::default() });
    // The device whose id this server has.
    let mut desk = Desk::with(ServerConfig { id: id(5), ..server_config() }, 8);
    assert_eq!(desk.roster.restore(desk.now, &bytes).unwrap().damaged, 1);
}

#[test]
fn ten_thousand_devices_are_back_in_the_warm_window_and_no_census_is_asked() {
    let mut world = World::new(11);
    let config = ServerConfig { expected_devices: 10_000, rate_per_s: 5_000, ..server_config() };
    let first = world.server(config, 10_000, address(0xF0_0000), Duration::ZERO);
    world.devices(10_000, ms(500));
    world.run(secs(20));
    assert_eq!(world.present(first), 10_000);
    let bytes = snapshot(world.roster(first));
    let generation = world.roster(first).generation();
    world.off(first);
    world.run(secs(2));
    // It knows nothing but its snapshot.
    world.loss = 1;
    world.broadcast_loss = 10;
    let config = ServerConfig { epoch: 2, rate_per_s: 5_000, ..server_config() };
    let second = world.server(config, 10_000, address(0xF0_0000), Duration::ZERO);
    let restored = world.with_roster(second, |roster, now| roster.restore(now, &bytes)).unwrap();
    assert_eq!(restored, Restored { unconfirmed: 10_000, ..Restored::default() });
    let took = world.run_until(secs(60), |world| world.present(second) == 10_000).expect("all register");
    println!("10,000 devices, warm restart at 5,000/s, 1 %/0.1 % lost: {took:?}");
    assert!(took <= secs(5), "{took:?}");
    let events = &world.nodes[second].events;
    let joined = events.iter().filter(|(_, event)| event.what == What::Joined).count();
    assert_eq!((joined, events.len()), (10_000, 10_000), "one event each");
    assert!(events.iter().map(|(_, event)| event.generation).eq(generation + 1..=generation + 10_000));
    let first_beacon = world.nodes[second].sent.iter().find(|(_, kind)| *kind == BEACON).unwrap().0;
    assert!(
        took >= ms(2_000) && first_beacon.since(Instant::ZERO) > secs(22),
        "over the window, not at once"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Any bytes, and any bytes behind a header that is right: nothing but counts comes of it.
    #[test]
    fn hostile_bytes_are_counted(tail in proptest::collection::vec(any::<u8>(), 0..1_000), keep: bool) {
        let mut bytes = if keep { snapshot(&three().roster)[..HEADER_LEN].to_vec() } else { vec![] };
        bytes.extend_from_slice(&tail);
        let mut desk = Desk::new(8);
        let restored = desk.roster.restore(desk.now, &bytes);
        prop_assert_eq!(restored.is_ok(), keep);
        if let Ok(restored) = restored {
            prop_assert_eq!(restored.damaged + restored.missing, 3);
        }
        prop_assert_eq!(desk.roster.iter().count(), 0);
        desk.roster.check();
    }

    /// A record whose checksum is right and whose content is not: whatever was written there.
    #[test]
    fn a_record_with_a_right_checksum_is_still_looked_at(
        changes in proptest::collection::vec((0..RECORD_LEN - 4, any::<u8>()), 1..6),
    ) {
        let mut bytes = snapshot(&three().roster);
        let seed = u32::from_le_bytes(bytes[HEADER_LEN - 4..HEADER_LEN].try_into().unwrap());
        for (at, byte) in changes {
            bytes[HEADER_LEN + at] = byte;
        }
        let sum = wire_format::crc::append(seed, &bytes[HEADER_LEN..HEADER_LEN + RECORD_LEN - 4]);
        bytes[HEADER_LEN + RECORD_LEN - 4..][..4].copy_from_slice(&sum.to_le_bytes());
        let mut desk = Desk::new(8);
        let restored = desk.roster.restore(desk.now, &bytes).unwrap();
        prop_assert_eq!(restored.damaged + restored.unconfirmed + restored.gone + restored.known, 3);
        desk.roster.check();
        // What was taken is written again as it stands.
        let again = snapshot(&desk.roster);
        let mut third = Desk::new(8);
        let kept = third.roster.restore(third.now, &again).unwrap();
        prop_assert_eq!((kept.damaged, kept.unconfirmed + kept.gone), (0, restored.unconfirmed + restored.gone));
    }
}
