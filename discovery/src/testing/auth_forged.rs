//! Under keys: whoever cannot make a tag changes nothing and gets nothing.

use wire_format::datagram::{Auth, Datagram, Kind, Nonce};
use wire_format::ids::Store;

use super::auth::{STORE, belief, judged, key, keys, memory, registered, resigned, ring, spoken, taped};
use super::datagrams::{self, SERVER};
use super::*;
use crate::config::BEACON_LEN_MAX;
use crate::event::Dropped;

/// One datagram of each kind that a server takes, as a store under keys sends it: what it is, its sender, its key.
fn genuine(world: &mut World) -> Vec<(Vec<u8>, SocketAddrV4, bool, Key)> {
    let announce = taped(world, ANNOUNCE, address(1));
    let next = |bytes: &[u8], key: &Key| {
        resigned(bytes, key, |bytes| {
            let sequence = u32::from_le_bytes(bytes[36..40].try_into().unwrap()) + 100;
            bytes[36..40].copy_from_slice(&sequence.to_le_bytes());
        })
    };
    let own = key(1, 1);
    let announce = next(&announce, &own);
    world.with_seeker(1, Seeker::stop);
    let bye = next(&taped(world, BYE, address(1)), &own);
    let seek = taped(world, SEEK, address(1));
    vec![
        (announce, address(1), false, own.clone()),
        (bye, address(1), false, own),
        (seek, address(1), true, key(STORE, 1)),
    ]
}

#[test]
fn a_flip_of_any_bit_of_any_byte_changes_nothing() {
    let (mut world, server) = registered_taped(3);
    let genuine = genuine(&mut world);
    world.run(secs(1));
    let (before, said) = (memory(&world, server), spoken(&world, server));
    let mut tried = 0;
    for (bytes, source, broadcast, _) in &genuine {
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(judged(&mut world, server, *source, *broadcast, &flipped).is_err(), "bit {at}");
            tried += 1;
            // Not more than one address may say.
            world.now = world.now + ms(63);
        }
    }
    assert!(tried > 2_000, "{tried}");
    assert_eq!((memory(&world, server), spoken(&world, server)), (before, said));
}

/// As [`registered`], with a tape that holds everything.
fn registered_taped(devices: u32) -> (World, usize) {
    let mut world = World::new(7);
    (world.keys, world.tape) = (Some(keys(1..=devices)), Some(vec![]));
    let server = world.server(server_config(), 64, address(99), secs(3));
    world.devices(devices, secs(1));
    // Nodes are numbered in the order they were made: the server 0, then the devices by their numbers.
    world.run_until(secs(30), |world| world.present(server) == devices as usize).expect("all register");
    world.run(secs(1));
    (world, server)
}

#[test]
fn each_reason_is_counted_and_nothing_is_answered() {
    let (mut world, server) = registered_taped(2);
    let announce = taped(&world, ANNOUNCE, address(1));
    let (before, said) = (memory(&world, server), spoken(&world, server));
    let mut judge = |bytes: &[u8], broadcast: bool| {
        world.now = world.now + ms(100);
        judged(&mut world, server, address(1), broadcast, bytes)
    };
    assert_eq!(judge(&datagrams::announce(1, 1, 9), false), Err(Dropped::NoTag));
    assert_eq!(judge(&datagrams::bye(1, 1, 9), false), Err(Dropped::NoTag));
    assert_eq!(judge(&datagrams::challenge(1, 1, 9, true, Nonce::Short([1; 8])), false), Err(Dropped::NoTag));
    assert_eq!(judge(&datagrams::seek(1, 9, BEACON_LEN_MAX + 24), true), Err(Dropped::NoTag));
    assert_eq!(judge(&datagrams::beacon(SERVER + 1, 1, 9, 250, 0), true), Err(Dropped::NoTag));
    // The number of the key, the algorithm, another device's id, another key.
    let len = announce.len();
    let change = |at: usize, to: u8, with: &Key| resigned(&announce, with, |bytes| bytes[at] = to);
    assert_eq!(judge(&change(len - 20, 9, &key(1, 9)), false), Err(Dropped::UnknownKey));
    assert_eq!(judge(&change(len - 18, 2, &key(1, 1)), false), Err(Dropped::UnknownKey));
    assert_eq!(judge(&change(16, 77, &key(77, 1)), false), Err(Dropped::UnknownDevice));
    assert_eq!(judge(&change(16, 2, &key(1, 1)), false), Err(Dropped::WrongTag), "device 1 as device 2");
    assert_eq!(judge(&change(0, b'T', &key(STORE, 1)), false), Err(Dropped::WrongTag), "the store's key");
    assert_eq!(judge(&announce, false), Err(Dropped::Replayed));
    let stats = *world.roster(server).stats();
    assert_eq!((stats.dropped_no_tag, stats.dropped_unknown_key, stats.dropped_unknown_device), (5, 2, 1));
    assert_eq!((stats.dropped_wrong_tag, stats.dropped_replayed), (2, 1));
    assert_eq!(stats.received_auth_unverified, 0, "there are keys");
    assert_eq!((memory(&world, server), spoken(&world, server)), (before, said));
}

#[test]
fn in_clear_mode_tags_are_counted_and_not_looked_at() {
    let mut world = World::new(1);
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    world.run(ms(1));
    assert_eq!(judged(&mut world, server, address(4), false, &datagrams::signed_announce(4, 1)), Ok(()));
    let stats = world.roster(server).stats();
    assert_eq!((stats.received_auth_unverified, stats.received_authentic), (1, 0));
    assert_eq!(stats.sent_ack, 1);
}

#[test]
fn what_comes_back_to_its_sender_is_nobodys() {
    let (mut world, server) = registered_taped(2);
    world.run(secs(60));
    let tape = world.tape.take().unwrap();
    let (before, said) = (memory(&world, server), spoken(&world, server));
    for (at, taped) in tape.iter().filter(|taped| taped.source == address(99)).enumerate() {
        world.now = world.now + ms(100);
        let source = address(u32::try_from(at % 2 + 1).unwrap());
        assert_eq!(judged(&mut world, server, source, taped.broadcast, &taped.bytes), Err(Dropped::Own));
    }
    assert_eq!((memory(&world, server), spoken(&world, server)), (before, said));
    // A device's own words, and those meant for the other one, from the server's address.
    let (first, second) = (1, 2);
    let (before, said) = (belief(&world, first), spoken(&world, first));
    let other =
        tape.iter().filter(|taped| matches!(Kind::new(taped.bytes[5]), Some(Kind::Ack | Kind::Challenge)));
    let own = tape.iter().filter(|taped| taped.source == address(1));
    for taped in own.chain(other) {
        world.now = world.now + ms(100);
        world.inject(first, address(99), taped.broadcast, &taped.bytes);
    }
    assert_eq!((belief(&world, first), spoken(&world, first)), (before, said));
    let stats = world.seeker(first).stats();
    assert!(stats.dropped_wrong_tag > 0 && stats.dropped_own > 0);
    assert_eq!(world.seeker(second).stats().dropped_wrong_tag, 0);
}

#[test]
fn keys_of_another_store_or_side_open_nothing() {
    let (mut world, server) = registered_taped(1);
    let announce = taped(&world, ANNOUNCE, address(1));
    let (before, said) = (memory(&world, server), spoken(&world, server));
    let elsewhere = Store::new(7, "PARIS-13").unwrap();
    // The other side of staging, another store, and another store under our hash.
    let cases = [
        (6..7, vec![announce[6] ^ 1], Dropped::Staging),
        (12..16, elsewhere.scope().to_le_bytes().to_vec(), Dropped::Store),
        (63..64, vec![b'3'], Dropped::Store),
    ];
    for (at, to, why) in cases {
        let bytes = resigned(&announce, &key(1, 1), |bytes| bytes[at].copy_from_slice(&to));
        assert_eq!(judged(&mut world, server, address(1), false, &bytes), Err(why));
    }
    assert_eq!((memory(&world, server), spoken(&world, server)), (before, said));
}

/// Floods of everything without a tag, and of right announces without their cookie: nobody gets more than he sent.
#[test]
fn nobody_gets_more_bytes_than_he_sent_and_nothing_without_a_tag() {
    let (mut world, server) = registered(2, 9);
    let start = world.now;
    world.tape = Some(vec![]);
    for round in 0..2_000_u32 {
        world.now = world.now + ms(1);
        for bytes in datagrams::all_kinds() {
            let source = address(1_000 + round);
            assert!(judged(&mut world, server, source, bytes[5] < 3, &bytes).is_err());
        }
    }
    assert_eq!(world.tape.as_ref().unwrap().len(), 0, "something was answered");
    // A device that was never seen, in boots that were never seen, from everywhere.
    world.with_roster(server, |roster, _| {
        roster.keys_mut().as_mut().unwrap().announce.insert(id(5), ring(5, 1));
    });
    let mut taken = 0;
    for round in 0..4_000_u32 {
        world.now = world.now + ms(1);
        let bytes = announce_of_5(1, round);
        taken += bytes.len();
        let source = address(1_000 + round % 100);
        assert_eq!(judged(&mut world, server, source, false, &bytes), Err(Dropped::Unproven));
    }
    let tape = world.tape.take().unwrap();
    let given: usize = tape.iter().filter(|taped| !taped.broadcast).map(|taped| taped.bytes.len()).sum();
    assert!((3..=4).contains(&tape.len()), "one question a second: {}", tape.len());
    assert!(given <= taken && tape.iter().all(|taped| taped.bytes.len() <= 96));
    assert_eq!(world.state(server, 5), None);
    assert!(world.now.since(start) < secs(10));
}

fn announce_of_5(epoch: u32, sequence: u32) -> Vec<u8> {
    let store = store();
    let announce = datagrams::announce_of(datagrams::node(5, epoch, sequence), &store);
    let auth = Some(Auth::open(1, Auth::HMAC_SHA256_128));
    let bytes = datagrams::bytes(Datagram::Announce(wire_format::datagram::Announce { auth, ..announce }));
    resigned(&bytes, &key(5, 1), |_| {})
}

#[test]
fn a_device_takes_nothing_without_the_right_tag() {
    let (mut world, _) = registered(1, 11);
    let device = 1;
    let before = (belief(&world, device), spoken(&world, device));
    for bytes in datagrams::all_kinds() {
        world.now = world.now + ms(100);
        world.inject(device, address(99), bytes[5] < 3 || bytes[5] == 5, &bytes);
        world.inject(device, address(66), bytes[5] < 3 || bytes[5] == 5, &bytes);
    }
    assert_eq!((belief(&world, device), spoken(&world, device)), before);
    assert!(world.seeker(device).stats().dropped_no_tag >= 4);
    assert_eq!(world.seeker(device).stats().dropped_malformed, 0);
}

#[test]
fn devices_without_a_key_or_with_a_wrong_one_stay_outside() {
    let mut world = World::new(4);
    world.keys = Some(keys([1, 2, 3]));
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    let good = world.device(device_config(1), address(1), Duration::ZERO);
    world.keys.as_mut().unwrap().announce.remove(&id(2));
    let without = world.device(device_config(2), address(2), Duration::ZERO);
    world.keys.as_mut().unwrap().announce.insert(id(3), ring(4, 1));
    let wrong = world.device(device_config(3), address(3), Duration::ZERO);
    world.run(secs(120));
    assert!(world.seeker(good).server().unwrap().registered);
    assert_eq!(world.present(server), 1);
    assert!(!world.seeker(without).server().is_some_and(|server| server.registered));
    assert!(!world.seeker(wrong).server().is_some_and(|server| server.registered));
    let stats = world.roster(server).stats();
    assert!(stats.dropped_no_tag > 0 && stats.dropped_wrong_tag > 0);
    assert_eq!((stats.sent_ack > 0, stats.sent_challenge), (true, 1), "nobody else was answered");
}
