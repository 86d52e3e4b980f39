//! Under keys: what was recorded, a moment or a month ago, is told from what is said now.

use super::auth::{STORE, belief, judged, key, keys, memory, registered, resigned, spoken, taped};
use super::datagrams::{self, SERVER};
use super::*;
use crate::event::{Dropped, Fields};

/// A morning of a store on tape: it comes up, a device changes, one moves, one reboots, one leaves and returns.
fn recorded() -> (World, usize) {
    let mut world = World::new(5);
    (world.tape, world.check) = (Some(vec![]), true);
    world.keys = Some(keys(1..=6));
    let server = world.server(server_config(), 16, address(99), Duration::ZERO);
    world.devices(6, secs(1));
    world.run(secs(60));
    let config = DeviceConfig { zone: Some(3), ..device_config(2) };
    world.with_seeker(2, |seeker, now| seeker.reconfigure(now, config));
    world.off(3);
    world.device(DeviceConfig { epoch: 2, ..device_config(3) }, address(3), secs(1));
    world.off(4);
    world.device(DeviceConfig { epoch: 2, ..device_config(4) }, address(40), secs(1));
    world.with_seeker(5, Seeker::stop);
    world.run(secs(1));
    world.off(5);
    world.device(DeviceConfig { epoch: 2, ..device_config(5) }, address(5), secs(2));
    world.run(secs(60));
    assert_eq!(world.present(server), 6);
    (world, server)
}

/// Everything on the tape once more, each from where it came and from a stranger's address, within a few seconds.
fn replay(world: &mut World, server: usize) {
    let tape = world.tape.take().unwrap();
    let stranger = address(66);
    for taped in &tape {
        for source in [taped.source, stranger] {
            // As fast as one address may speak.
            world.now = world.now + ms(63);
            let _reason = judged(world, server, source, taped.broadcast, &taped.bytes);
            for device in 1..=2 {
                world.inject(device, source, taped.broadcast, &taped.bytes);
            }
        }
    }
}

#[test]
fn a_whole_morning_played_again_changes_nothing() {
    let (mut world, server) = recorded();
    let (before, first) = (memory(&world, server), (belief(&world, 1), belief(&world, 2)));
    let (said, tape) = (spoken(&world, server), world.tape.as_ref().unwrap().len());
    let dropped = world.roster(server).stats().dropped_replayed;
    replay(&mut world, server);
    assert_eq!(memory(&world, server), before);
    assert_eq!((belief(&world, 1), belief(&world, 2)), first);
    let stats = *world.roster(server).stats();
    assert!(stats.dropped_replayed > dropped && stats.dropped_unproven > 6);
    assert!(spoken(&world, server) - said < tape, "fewer answers than questions");
    world.run(secs(300));
    assert_eq!(world.present(server), 6, "and nobody was lost over it");
    assert!(world.nodes[server].events.iter().all(|(_, event)| event.what != What::Suspect));
}

/// A server starts cold, nobody is there, and only recordings speak; what it believes.
fn ghosts(keyed: bool) -> (World, usize) {
    let mut world = World::new(2);
    (world.keys, world.tape) = (keyed.then(|| keys(1..=5)), Some(vec![]));
    let first = world.server(server_config(), 16, address(99), Duration::ZERO);
    world.devices(5, secs(1));
    world.run(secs(120));
    assert_eq!(world.present(first), 5);
    (0..=5).for_each(|node| world.off(node));
    let config = ServerConfig { epoch: 2, ..server_config() };
    let second = world.server(config, 16, address(99), Duration::ZERO);
    world.run(secs(5));
    let tape = world.tape.take().unwrap();
    for taped in tape.iter().filter(|taped| taped.source != address(99)) {
        world.now = world.now + ms(63);
        let _reason = judged(&mut world, second, taped.source, taped.broadcast, &taped.bytes);
    }
    (world, second)
}

#[test]
fn recordings_fill_the_roster_of_a_cold_start_in_clear_mode_and_not_under_keys() {
    let (world, server) = ghosts(false);
    assert_eq!(world.present(server), 5, "what keys are for");
    let (world, server) = ghosts(true);
    assert_eq!((world.present(server), world.roster(server).iter().count()), (0, 0));
    assert!(world.roster(server).stats().dropped_unproven >= 5);
    assert!(world.nodes[server].events.is_empty());
}

/// A snapshot keeps boots and numbers: nobody is asked, and what was recorded before it is known.
#[test]
fn a_warm_start_asks_nobody_and_takes_no_recording() {
    let (mut world, first) = registered(5, 4);
    world.tape = Some(vec![]);
    world.run(secs(40));
    let (mut snapshot, mut buffer) = (vec![], [0; crate::roster::RECORD_LEN]);
    let mut pieces = world.roster(first).snapshot();
    while let Some(piece) = pieces.next_piece(&mut buffer) {
        snapshot.extend_from_slice(piece);
    }
    world.off(first);
    let second = world.server(ServerConfig { epoch: 2, ..server_config() }, 16, address(99), Duration::ZERO);
    let restored = world.with_roster(second, |roster, now| roster.restore(now, &snapshot)).unwrap();
    assert_eq!(restored.unconfirmed, 5);
    let tape = world.tape.take().unwrap();
    for taped in tape.iter().filter(|taped| taped.bytes[5] == ANNOUNCE) {
        world.now = world.now + ms(63);
        assert_eq!(judged(&mut world, second, taped.source, false, &taped.bytes), Err(Dropped::Replayed));
    }
    assert_eq!(world.present(second), 0);
    world.run_until(secs(30), |world| world.present(second) == 5).expect("all come back");
    let stats = world.roster(second).stats();
    assert_eq!((stats.sent_challenge, stats.dropped_unproven), (0, 0));
}

#[test]
fn recordings_do_not_starve_the_boot_that_is_real() {
    let (mut world, server) = registered(1, 3);
    world.tape = Some(vec![]);
    world.run(secs(40));
    let old = taped(&world, ANNOUNCE, address(1));
    world.off(1);
    // Another boot: what is on tape is of the one before, and comes ten times a second from all over.
    let node = world.device(DeviceConfig { epoch: 2, ..device_config(1) }, address(1), Duration::ZERO);
    let start = world.now;
    while world.roster(server).find(id(1)).unwrap().epoch != 2 {
        world.run(ms(100));
        let source = address(1_000 + u32::try_from(world.now.as_millis() / 100 % 64).unwrap());
        let _reason = judged(&mut world, server, source, false, &old);
        assert!(world.now.since(start) < secs(15), "starved");
    }
    assert!(world.seeker(node).server().is_some());
    let asked = world.tape.as_ref().unwrap().iter().filter(|taped| taped.bytes[5] == CHALLENGE).count();
    let seconds = usize::try_from(world.now.since(start).as_secs()).unwrap() + 1;
    assert!(asked <= 2 * seconds, "{asked} questions in {seconds} s for two boots");
}

/// A boot with an epoch that rose, one that fell, one drawn at random, and one that is the same as before.
#[test]
fn any_other_boot_is_asked_and_then_taken_at_once() {
    for (epoch, random) in [(2, false), (1, false), (900, true), (7, false), (7, true)] {
        let mut world = World::new(u64::from(epoch));
        (world.keys, world.check) = (Some(keys([1])), true);
        let server = world.server(server_config(), 4, address(99), Duration::ZERO);
        let config = DeviceConfig { epoch: 7, ..device_config(1) };
        let before = world.device(config, address(1), Duration::ZERO);
        world.run_until(secs(10), |world| world.present(server) == 1).expect("registers");
        world.off(before);
        world.run(secs(5));
        let asked = world.roster(server).stats().sent_challenge;
        let config = DeviceConfig { epoch, epoch_random: random, ..device_config(1) };
        let after = world.device(config, address(1), Duration::ZERO);
        world.run(secs(20));
        let registered = world.seeker(after).server().is_some_and(|server| server.registered);
        assert!(registered, "epoch {epoch}, random {random}");
        assert_eq!(world.roster(server).find(id(1)).unwrap().epoch, epoch);
        let rebooted = world.news(server, 1).contains(&What::Rebooted { before: 7, epoch });
        assert_eq!(rebooted, epoch != 7);
        assert!(world.roster(server).stats().sent_challenge <= asked + 1);
    }
}

#[test]
fn a_device_that_moved_proves_it_and_a_recording_does_not_move_it() {
    let (mut world, server) = registered(1, 6);
    world.tape = Some(vec![]);
    world.run(secs(40));
    world.off(1);
    // A new announce of this boot that never arrived, held back and sent from elsewhere.
    let held = taped(&world, ANNOUNCE, address(1));
    let held = resigned(&held, &key(1, 1), |bytes| bytes[36] = bytes[36].wrapping_add(50));
    assert_eq!(judged(&mut world, server, address(66), false, &held), Err(Dropped::Unproven));
    world.run(secs(5));
    assert_eq!(world.roster(server).find(id(1)).unwrap().source, address(1));
    let moved = world.device(DeviceConfig { epoch: 2, ..device_config(1) }, address(40), Duration::ZERO);
    world.run(secs(15));
    assert!(world.seeker(moved).server().unwrap().registered);
    assert_eq!(world.roster(server).find(id(1)).unwrap().source, address(40));
    assert!(world.news(server, 1).iter().any(|what| matches!(what, What::Moved { .. })));
}

/// Two disks of one image: both have the key. The one known first stays, and a conflict is told.
#[test]
fn clones_with_one_key_are_told_apart() {
    let (mut world, server) = registered(1, 8);
    let clone = world.device(DeviceConfig { epoch: 1, ..device_config(1) }, address(50), Duration::ZERO);
    world.run(secs(30));
    assert_eq!(world.roster(server).find(id(1)).unwrap().source, address(1));
    let conflict = What::Conflict { rival: address(50) };
    assert_eq!(world.news(server, 1).iter().filter(|what| **what == conflict).count(), 1);
    assert!(!world.seeker(clone).server().unwrap().registered);
    assert!(world.seeker(1).server().unwrap().registered);
}

#[test]
fn a_beacon_and_an_ack_of_last_month_do_not_capture_a_till_that_boots() {
    let mut world = World::new(9);
    (world.keys, world.tape) = (Some(keys([1])), Some(vec![]));
    let old = world.server(server_config(), 4, address(98), Duration::ZERO);
    let before = world.device(device_config(1), address(1), Duration::ZERO);
    world.run_until(secs(10), |world| world.present(old) == 1).expect("registers");
    let (beacon, ack) = (taped(&world, BEACON, address(98)), taped(&world, 4, address(98)));
    let challenge = taped(&world, CHALLENGE, address(98));
    world.off(old);
    world.off(before);
    world.run(secs(60));
    // The server of today is elsewhere and in another boot; the till boots, and the tape never stops.
    let config = ServerConfig { epoch: 2, ..server_config() };
    let server = world.server(config, 4, address(99), Duration::ZERO);
    let till = world.device(DeviceConfig { epoch: 2, ..device_config(1) }, address(1), secs(4));
    let mut registered = None;
    let start = world.now;
    for _ in 0..1_200 {
        world.run(ms(100));
        if !world.nodes[till].on {
            continue;
        }
        for (bytes, broadcast) in [(&beacon, true), (&ack, false), (&challenge, false)] {
            world.inject(till, address(98), broadcast, bytes);
        }
        if world.present(server) == 1 && registered.is_none() {
            registered = Some(world.now.since(start));
        }
        let known = world.seeker(till).server().filter(|server| server.registered);
        assert!(known.is_none_or(|known| known.source == address(99)), "captured");
    }
    let registered = registered.expect("registers with the server of today");
    assert!(registered <= secs(30), "{registered:?}");
    assert_eq!(world.seeker(till).server().unwrap().source, address(99));
    assert_eq!(
        world.nodes[till]
            .told
            .iter()
            .filter(|(_, event)| matches!(event, SeekerEvent::ServerLost { .. }))
            .count(),
        0
    );
}

/// A thief has the store's key: his beacons are worth an announce now and then, and no server.
#[test]
fn beacons_of_a_thief_do_not_move_a_registered_device_and_end_no_session() {
    let (mut world, server) = registered(1, 10);
    world.tape = Some(vec![]);
    world.run(secs(25));
    let beacon = taped(&world, BEACON, address(99));
    let start = world.now;
    let linked = |world: &World| world.now.since(start) > secs(60);
    for round in 0..1_800_u32 {
        world.run(ms(100));
        if linked(&world) {
            world.with_roster(server, |roster, now| roster.set_linked(now, id(1), true));
            world.with_seeker(1, |seeker, now| seeker.set_linked(now, true));
        }
        // Another boot, another port, from elsewhere; and goodbyes of the boot that is known.
        let forged = resigned(&beacon, &key(STORE, 1), |bytes| {
            bytes[32..36].copy_from_slice(&(100 + round / 10).to_le_bytes());
            bytes[40] = 81;
        });
        world.inject(1, address(66), true, &forged);
        let same_boot = resigned(&beacon, &key(STORE, 1), |bytes| {
            let sequence = u32::from_le_bytes(bytes[36..40].try_into().unwrap()) + 5_000 + round;
            bytes[36..40].copy_from_slice(&sequence.to_le_bytes());
            bytes[40] = 81;
        });
        world.inject(1, address(66), true, &same_boot);
        let known = world.seeker(1).server().expect("a server");
        assert_eq!((known.source, known.address.port(), known.registered), (address(99), 80, true));
    }
    let (stray, seconds) = (announces_to_nobody(&world), world.now.since(start).as_secs());
    assert!(stray as u64 <= 4 + seconds / 30 + 1, "{stray} announces to the thief in {seconds} s");
    assert_eq!(world.present(server), 1);
    assert_eq!(world.nodes[1].told.len(), 2, "{:?}", world.nodes[1].told);
    assert!(world.seeker(1).stats().dropped_rate > 0);
}

/// Announces of device 1 that the server never got.
fn announces_to_nobody(world: &World) -> usize {
    let sent = world.nodes[1].sent.iter().filter(|(_, kind)| *kind == ANNOUNCE).count();
    let stats = world.roster(0).stats();
    sent - usize::try_from(stats.received_announce + stats.dropped_unproven).unwrap()
}

#[test]
fn a_goodbye_of_a_thief_is_not_believed_while_a_session_lives() {
    let (mut world, _) = registered(1, 12);
    let server = world.seeker(1).server().unwrap();
    let (epoch, wanted) = (server.epoch, server.registered);
    assert!(wanted);
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, true));
    let bye = datagrams::signed_bye(SERVER, epoch, 1 << 30);
    let bye = resigned(&bye, &key(STORE, 1), |_| {});
    let sequence_ahead = resigned(&bye, &key(STORE, 1), |bytes| {
        bytes[36..40].copy_from_slice(&(world_sequence(&world) + 100).to_le_bytes());
    });
    world.inject(1, address(99), true, &sequence_ahead);
    assert!(world.seeker(1).server().is_some());
    assert_eq!(world.seeker(1).stats().dropped_unexpected, 1);
}

/// A number the server of this world has not reached.
fn world_sequence(world: &World) -> u32 {
    world.roster(0).first_sequence().wrapping_add(10_000)
}

/// The server boots again at the same address, and at another one: everybody follows, by way of a hint.
#[test]
fn a_server_that_booted_or_moved_is_found_again() {
    for (seed, at) in [(1, 99), (2, 98)] {
        let (mut world, first) = registered(5, seed);
        world.run(secs(60));
        world.off(first);
        world.run(secs(2));
        let config = ServerConfig { epoch: 2, ..server_config() };
        let second = world.server(config, 64, address(at), Duration::ZERO);
        let took = world.run_until(secs(60), |world| world.present(second) == 5).expect("all register");
        assert!(took <= secs(3), "{took:?}");
        world.run(ms(10));
        for device in 1..=5 {
            let known = world.seeker(device).server().unwrap();
            assert_eq!((known.source, known.epoch, known.registered), (address(at), 2, true));
        }
    }
}

#[test]
fn a_question_played_again_is_not_answered() {
    let (mut world, server) = registered(1, 14);
    world.tape = Some(vec![]);
    // A rival makes the server ask the device.
    let clone = world.device(DeviceConfig { epoch: 1, ..device_config(1) }, address(50), Duration::ZERO);
    world.run(secs(5));
    let question = taped(&world, CHALLENGE, address(99));
    world.off(clone);
    let tape = world.tape.as_ref().unwrap();
    let to_incumbent: Vec<_> = tape
        .iter()
        .filter(|taped| taped.bytes[5] == CHALLENGE && taped.source == address(99))
        .cloned()
        .collect();
    let said = spoken(&world, 1);
    for taped in to_incumbent {
        world.now = world.now + ms(100);
        world.inject(1, address(99), false, &taped.bytes);
        world.inject(1, address(66), false, &taped.bytes);
    }
    assert!(spoken(&world, 1) - said <= 1, "only the one meant for the clone is new to it");
    assert!(world.seeker(1).stats().dropped_replayed >= 1 && world.seeker(1).stats().dropped_unknown >= 1);
    assert_eq!(question[5], CHALLENGE);
    assert_eq!(world.present(server), 1);
}

#[test]
fn what_is_on_tape_has_no_effect_on_a_device_that_changed_since() {
    let (mut world, server) = registered(1, 15);
    world.tape = Some(vec![]);
    world.run(secs(40));
    let old = taped(&world, ANNOUNCE, address(1));
    let config = DeviceConfig { zone: Some(9), ..device_config(1) };
    world.with_seeker(1, |seeker, now| seeker.reconfigure(now, config));
    world.run(secs(2));
    assert!(world.news(server, 1).contains(&What::Changed { fields: Fields::ZONE }));
    assert_eq!(judged(&mut world, server, address(1), false, &old), Err(Dropped::Replayed));
    assert_eq!(world.roster(server).find(id(1)).unwrap().zone, Some(9));
}
