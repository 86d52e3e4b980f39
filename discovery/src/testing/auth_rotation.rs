//! Under keys: new ones come, old ones go, and nobody is lost over it.

use super::auth::{STORE, key, keys, registered, ring};
use super::*;

/// Every order in which a server and a device can pass through the steps of a rotation, one step at a time.
fn orders() -> Vec<Vec<bool>> {
    (0..1_u32 << 6)
        .filter(|bits| bits.count_ones() == 3)
        .map(|bits| (0..6).map(|at| bits >> at & 1 == 1).collect())
        .collect()
}

/// A rotation from key 1 to key 2, in steps: it is the next, the current, the only one.
fn step(owner: u32, number: u8) -> KeyRing {
    match number {
        0 => ring(owner, 1),
        1 => ring(owner, 1).with_next(2, key(owner, 2)).unwrap(),
        2 => ring(owner, 2).with_previous(1, key(owner, 1)).unwrap(),
        _ => ring(owner, 2),
    }
}

/// Whether both sides have a key the other one uses, so that they should understand each other all the time.
fn may_talk(server: u8, device: u8) -> bool {
    !matches!((server, device), (0, 2 | 3) | (1.., _) if server.abs_diff(device) > 1)
        && server.abs_diff(device) < 2
}

#[test]
fn rotation_in_every_order_loses_nobody_who_keeps_step() {
    for order in orders() {
        let (mut world, server) = registered(1, 1);
        let (mut at_server, mut at_device, mut kept_step) = (0, 0, true);
        for server_first in order {
            if server_first {
                at_server += 1;
                world.with_roster(server, |roster, _| {
                    let keys = roster.keys_mut().as_mut().unwrap();
                    keys.announce.insert(id(1), step(1, at_server));
                    roster.set_beacon_keys(step(STORE, at_server));
                });
            } else {
                at_device += 1;
                let keys = DeviceKeys { announce: step(1, at_device), beacon: step(STORE, at_device) };
                world.with_seeker(1, |seeker, now| seeker.set_keys(now, keys));
            }
            kept_step &= may_talk(at_server, at_device);
            world.run(secs(75));
            if kept_step {
                assert_eq!(world.state(server, 1), Some(State::Fresh), "{at_server} and {at_device}");
                assert!(world.seeker(1).server().unwrap().registered);
            }
        }
        // Whoever was out of step is back once both have the same keys.
        world.run(secs(120));
        assert_eq!(world.state(server, 1), Some(State::Fresh));
        assert!(world.seeker(1).server().unwrap().registered);
        if kept_step {
            let told: Vec<_> = world.news(server, 1);
            assert_eq!(told, [What::Joined]);
            assert_eq!(world.nodes[1].told.len(), 2);
        }
    }
}

#[test]
fn a_revoked_device_is_lost_when_its_lease_ends_or_at_once() {
    let (mut world, server) = registered(2, 2);
    world.with_roster(server, |roster, now| {
        let keys = roster.keys_mut().as_mut().unwrap();
        keys.announce.remove(&id(1));
        keys.announce.remove(&id(2));
        assert!(roster.revoke(now, id(2)));
        assert!(!roster.revoke(now, id(2)) && !roster.revoke(now, id(3)), "nobody is lost twice");
    });
    assert_eq!((world.state(server, 1), world.state(server, 2)), (Some(State::Fresh), Some(State::Lost)));
    world.run(secs(120));
    assert_eq!((world.state(server, 1), world.state(server, 2)), (Some(State::Lost), Some(State::Lost)));
    let stats = *world.roster(server).stats();
    assert!(stats.dropped_unknown_device > 4);
    assert!(stats.answers_dropped >= 1, "a device without a key cannot be asked");
    assert_eq!(world.news(server, 2), [What::Joined, What::Lost]);
}

#[test]
fn a_linked_device_can_be_revoked() {
    let (mut world, server) = registered(1, 3);
    world.with_roster(server, |roster, now| roster.set_linked(now, id(1), true));
    world.with_roster(server, |roster, now| {
        roster.keys_mut().as_mut().unwrap().announce.remove(&id(1));
        assert!(roster.revoke(now, id(1)));
    });
    assert_eq!(world.state(server, 1), Some(State::Lost));
    world.with_roster(server, |roster, now| roster.set_linked(now, id(1), false));
    assert_eq!((world.state(server, 1), world.present(server)), (Some(State::Lost), 0));
}

#[test]
fn keys_that_come_later_end_clear_mode_on_a_device() {
    let mut world = World::new(4);
    let clear = world.server(server_config(), 4, address(98), Duration::ZERO);
    let device = world.device(device_config(1), address(1), Duration::ZERO);
    world.run_until(secs(10), |world| world.present(clear) == 1).expect("registers");
    world.keys = Some(keys([1]));
    let config = ServerConfig { id: id(1_000_001), ..server_config() };
    let keyed = world.server(config, 4, address(99), Duration::ZERO);
    let mine = DeviceKeys { announce: ring(1, 1), beacon: ring(STORE, 1) };
    world.with_seeker(device, |seeker, now| seeker.set_keys(now, mine));
    assert!(world.seeker(device).server().is_none(), "what was known has proven nothing");
    world.run(secs(20));
    let known = world.seeker(device).server().unwrap();
    assert_eq!((known.source, known.registered), (address(99), true));
    assert_eq!(world.present(keyed), 1);
    assert!(world.seeker(device).stats().dropped_no_tag > 0);
}

#[test]
fn a_question_goes_out_under_the_key_the_device_uses() {
    let (mut world, server) = registered(1, 5);
    world.with_roster(server, |roster, _| {
        // The server is ahead: what the device uses is the previous key.
        roster.keys_mut().as_mut().unwrap().announce.insert(id(1), step(1, 2));
    });
    world.device(DeviceConfig { epoch: 9, ..device_config(1) }, address(50), Duration::ZERO);
    world.run(secs(5));
    assert_eq!(world.roster(server).find(id(1)).unwrap().source, address(1), "asked, and it could answer");
    assert_eq!(world.seeker(1).stats().dropped_unknown_key, 0);
}
