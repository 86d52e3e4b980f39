//! One device and its server: leases, goodbyes, reboots, moves, sleep.

use super::*;
use crate::event::Fields;

/// A server (node 0) and a registered device (node 1, number 1).
fn pair(seed: u64) -> World {
    let mut world = World::new(seed);
    world.check = true;
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    world.device(device_config(1), address(1), ms(3_500));
    world.run(secs(6));
    assert_eq!(world.present(server), 1);
    assert_eq!(world.news(server, 1), [What::Joined]);
    assert!(world.seeker(1).server().is_some_and(|server| server.registered));
    world
}

/// When a server told this about device 1, after `since`.
fn told(world: &World, what: What, since: Instant) -> Duration {
    let events = &world.nodes[0].events;
    let at = events.iter().find(|(at, event)| *at > since && event.what == what);
    at.unwrap_or_else(|| panic!("{what:?} was not told: {events:?}")).0.since(since)
}

#[test]
fn refreshes_keep_a_device_fresh_and_a_healthy_session_needs_none() {
    let mut world = pair(1);
    world.run(secs(300));
    let announces = world.sent(ANNOUNCE);
    assert!((9..=14).contains(&announces), "{announces} announces in 5 minutes");
    assert_eq!(world.news(0, 1), [What::Joined]);
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, true));
    assert!(world.with_roster(0, |roster, now| roster.set_linked(now, id(1), true)));
    world.run(secs(600));
    assert_eq!(world.sent(ANNOUNCE), announces, "none while linked");
    assert_eq!(world.state(0, 1), Some(State::Linked));
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, false));
    world.with_roster(0, |roster, now| roster.set_linked(now, id(1), false));
    assert_eq!(world.state(0, 1), Some(State::Fresh));
    world.run(secs(100));
    assert!(world.sent(ANNOUNCE) > announces);
    assert_eq!(world.news(0, 1), [What::Joined]);
    assert!(!world.with_roster(0, |roster, now| roster.set_linked(now, id(2), true)), "not in the roster");
}

#[test]
fn a_silent_device_is_suspect_at_sixty_seconds_and_lost_at_ninety() {
    let mut world = pair(2);
    world.off(1);
    let heard = world.roster(0).find(id(1)).unwrap().heard;
    world.run(secs(100));
    let suspect = told(&world, What::Suspect, heard);
    assert!((secs(60)..secs(60) + ms(20)).contains(&suspect), "{suspect:?}");
    let lost = told(&world, What::Lost, heard);
    assert!((secs(90)..secs(90) + ms(20)).contains(&lost), "{lost:?}");
    let probes: Vec<Duration> = world.nodes[0]
        .sent
        .iter()
        .filter(|(_, kind)| *kind == CHALLENGE)
        .map(|(at, _)| at.since(heard))
        .collect();
    assert_eq!(probes.len(), 2);
    assert_eq!(probes[1] - probes[0], ms(500));
    assert_eq!((world.present(0), world.state(0, 1)), (0, Some(State::Lost)));
    world.run(secs(601));
    assert_eq!(world.state(0, 1), None, "forgotten");
}

#[test]
fn a_suspect_that_answers_is_back_without_an_announce() {
    let mut world = pair(3);
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, true));
    world.run(secs(65));
    assert_eq!(world.news(0, 1), [What::Joined, What::Suspect, What::Back]);
    assert_eq!(world.sent(ANNOUNCE), 1);
}

#[test]
fn a_lost_device_comes_back() {
    let mut world = pair(4);
    world.off(1);
    world.run(secs(95));
    world.device(DeviceConfig { epoch: 2, ..device_config(1) }, address(1), Duration::ZERO);
    world.run(secs(2));
    let rebooted = What::Rebooted { before: 1, epoch: 2 };
    assert_eq!(world.news(0, 1), [What::Joined, What::Suspect, What::Lost, What::Back, rebooted]);
}

#[test]
fn a_goodbye_is_obeyed_once_the_device_is_silent() {
    let mut world = pair(5);
    let start = world.now;
    world.with_seeker(1, |seeker, now| seeker.stop(now));
    world.run(secs(3));
    assert!(world.seeker(1).is_stopped());
    let left = told(&world, What::Left, start);
    assert!((ms(1_000)..ms(1_010)).contains(&left), "{left:?}");
    assert_eq!((world.sent(BYE), world.sent(CHALLENGE)), (2, 2));
    assert_eq!(world.state(0, 1), Some(State::Left));
}

#[test]
fn a_restarting_device_is_seen_at_its_first_announce() {
    let mut world = pair(6);
    world.off(1);
    world.run(ms(300));
    world.device(DeviceConfig { epoch: 2, ..device_config(1) }, address(1), Duration::ZERO);
    world.run(secs(2));
    assert_eq!(world.news(0, 1), [What::Joined, What::Rebooted { before: 1, epoch: 2 }]);
    // Another boot that forgot everything, and says so.
    world.off(2);
    let config = DeviceConfig { epoch: 0, epoch_random: true, ..device_config(1) };
    let third = world.device(config, address(1), Duration::ZERO);
    world.run(secs(2));
    let epoch = world.seeker(third).config().epoch;
    assert_eq!(world.news(0, 1)[2..], [What::Rebooted { before: 2, epoch }]);
}

#[test]
fn a_device_whose_epoch_fell_is_believed_once_its_former_self_is_silent() {
    let mut world = pair(7);
    world.off(1);
    let config = DeviceConfig { epoch: 0, epoch_random: false, ..device_config(1) };
    let second = world.device(config, address(1), Duration::ZERO);
    world.run(secs(5));
    assert_eq!(world.news(0, 1), [What::Joined, What::Rebooted { before: 1, epoch: 0 }]);
    assert!(world.seeker(second).server().is_some_and(|server| server.registered));
    assert_eq!(world.roster(0).stats().dropped_stale, 1);
}

#[test]
fn a_device_that_moves_is_followed_after_one_question() {
    let mut world = pair(8);
    world.off(1);
    let start = world.now;
    world.device(DeviceConfig { epoch: 2, ..device_config(1) }, address(2), Duration::ZERO);
    world.run(secs(5));
    let push = |number| SocketAddrV4::new(*address(number).ip(), 8_081);
    let moved = What::Moved { from: push(1) };
    assert_eq!(world.news(0, 1), [What::Joined, What::Rebooted { before: 1, epoch: 2 }, moved]);
    assert!(told(&world, moved, start) <= ms(1_260 + 502), "{:?}", told(&world, moved, start));
    assert_eq!(world.roster(0).find(id(1)).unwrap().address, push(2));
    assert_eq!(world.sent(CHALLENGE), 1);
}

#[test]
fn a_change_is_told_with_what_changed() {
    let mut world = pair(9);
    let config = DeviceConfig { zone: Some(3), port: 9_000, ..device_config(1) };
    world.with_seeker(1, |seeker, now| seeker.reconfigure(now, config));
    world.run(secs(2));
    let [What::Joined, What::Changed { fields }] = world.news(0, 1)[..] else {
        panic!("{:?}", world.news(0, 1))
    };
    assert!(fields.contains(Fields::ZONE) && fields.contains(Fields::PORT));
    assert!(!fields.contains(Fields::NAME) && !fields.contains(Fields::TAGS));
    assert!(!fields.contains(Fields::CODE));
    let view = world.roster(0).find(id(1)).unwrap();
    assert_eq!((view.zone, view.address.port()), (Some(3), 9_000));
}

#[test]
fn a_device_frozen_for_a_minute_says_one_thing_when_it_wakes() {
    let mut world = pair(10);
    world.freeze(1);
    world.run(secs(70));
    assert_eq!(world.news(0, 1), [What::Joined, What::Suspect]);
    let before = world.nodes[1].sent.len();
    world.thaw(1);
    world.run(ms(1_100));
    let sent: Vec<u8> = world.nodes[1].sent[before..].iter().map(|sent| sent.1).collect();
    let announces = sent.iter().filter(|kind| **kind == ANNOUNCE).count();
    assert_eq!((announces, sent.contains(&SEEK)), (1, false), "{sent:?}");
    assert_eq!(world.news(0, 1), [What::Joined, What::Suspect, What::Back]);
    assert_eq!(world.nodes[1].told.len(), 2, "its server was not lost: {:?}", world.nodes[1].told);
}

#[test]
fn a_seeking_device_frozen_for_a_minute_asks_once_when_it_wakes() {
    let mut world = World::new(11);
    let device = world.device(device_config(1), address(1), Duration::ZERO);
    world.run(secs(10));
    world.freeze(device);
    world.run(secs(60));
    let before = world.sent(SEEK);
    world.thaw(device);
    assert_eq!(world.sent(SEEK), before);
    world.run(ms(1_010));
    assert_eq!(world.sent(SEEK), before + 1);
}

#[test]
fn a_server_frozen_for_minutes_loses_nobody() {
    let mut world = World::new(12);
    world.check = true;
    let server = world.server(server_config(), 50, address(99), Duration::ZERO);
    world.devices(50, secs(1));
    world.run(secs(20));
    assert_eq!(world.present(server), 50);
    world.freeze(server);
    // Shorter than the devices' patience, longer than two leases would be without mercy.
    world.run(secs(30));
    world.thaw(server);
    world.run(secs(1));
    world.freeze(server);
    world.run(secs(200));
    let before = world.nodes[server].sent.len();
    world.nodes[server].held.clear();
    world.thaw(server);
    assert_eq!(world.nodes[server].sent.len(), before + 1, "one beacon, no probes");
    world.run(secs(120));
    assert_eq!(world.present(server), 50);
    let doubts = world.nodes[server].events.iter().filter(|(_, event)| event.what == What::Lost).count();
    assert_eq!(doubts, 0);
    assert_eq!(world.roster(server).stats().pauses, 2);
}

#[test]
fn a_lost_server_is_looked_for_again() {
    let mut world = pair(13);
    let start = world.now;
    world.off(0);
    world.run(secs(50));
    let lost = SeekerEvent::ServerLost { id: id(1_000_000) };
    let at = world.nodes[1].told.iter().find(|told| told.1 == lost).expect("is told").0.since(start);
    assert!((secs(25)..=secs(38)).contains(&at), "{at:?}");
    assert!(world.sent(SEEK) >= 2);
    assert_eq!(world.seeker(1).server(), None);
}

#[test]
fn a_linked_device_does_not_lose_its_server() {
    let mut world = pair(14);
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, true));
    world.off(0);
    world.run(secs(300));
    assert!(world.seeker(1).server().is_some());
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, false));
    world.run(secs(39));
    assert!(world.seeker(1).server().is_none());
}

#[test]
fn a_seed_is_announced_to_without_a_broadcast() {
    let mut world = World::new(15);
    let mut config = device_config(1);
    config.seeds[0] = Some(address(98));
    config.seeds[1] = Some(address(99));
    let device = world.device(config, address(1), Duration::ZERO);
    world.run(secs(20));
    assert_eq!((world.sent(SEEK), world.seeker(device).server()), (0, None));
    let tries = world.sent(ANNOUNCE);
    assert!((4..=7).contains(&tries), "{tries} announces in 20 s");
    // Behind a router: beacons do not get there.
    world.loss = 0;
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    world.run_until(secs(70), |world| world.present(server) == 1).expect("registers at the seed");
    world.run(secs(1));
    let view = world.seeker(device).server().unwrap();
    assert!(view.registered && view.source == address(99));
    assert_eq!(world.sent(SEEK), 0);
}

#[test]
fn a_link_that_goes_and_comes_is_followed() {
    let mut world = pair(16);
    world.with_seeker(1, |seeker, now| seeker.link_down(now, LINK));
    assert!(matches!(world.nodes[1].told.last(), Some((_, SeekerEvent::ServerLost { .. }))));
    world.with_seeker(1, |seeker, now| seeker.link_up(now, LINK));
    world.run(secs(2));
    assert!(world.seeker(1).server().is_some_and(|server| server.registered));
    assert_eq!(world.news(0, 1), [What::Joined]);
}

#[test]
fn without_a_link_nothing_is_said() {
    let mut world = World::new(17);
    let device = world.device(device_config(1), address(1), Duration::ZERO);
    world.run(secs(5));
    let sent = world.sent(SEEK);
    assert!(sent >= 2);
    world.with_seeker(device, |seeker, now| seeker.link_down(now, LINK));
    world.run(secs(100));
    assert_eq!((world.sent(SEEK), world.seeker(device).poll_timeout()), (sent, None));
    world.with_seeker(device, |seeker, now| seeker.link_up(now, LINK));
    world.run(ms(1_001));
    assert_eq!(world.sent(SEEK), sent + 1);
}

#[test]
fn a_device_whose_socket_lost_everything_in_its_sleep_does_not_lose_its_server() {
    let mut world = pair(18);
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, true));
    world.with_seeker(1, |seeker, now| seeker.set_linked(now, false));
    world.freeze(1);
    world.run(secs(60));
    world.nodes[1].held.clear();
    world.thaw(1);
    world.run(secs(5));
    assert!(world.seeker(1).server().is_some_and(|server| server.registered));
    let lost = world.nodes[1].told.iter().filter(|told| matches!(told.1, SeekerEvent::ServerLost { .. }));
    assert_eq!(lost.count(), 0);
}
