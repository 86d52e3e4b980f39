//! A durable log that turns out to be a copy: devices have seen what it never gave.

use super::*;
use crate::config::Runs;

const OTHER: Lineage = Lineage([9; 16]);

/// A log of two runs, 1 to 10 and from 11 on, whose head is 20; and a device that has never been here.
fn second_run(change: impl FnOnce(&mut Device)) -> World {
    let mut world = World::empty(2, 16, |config| {
        let mut runs = Runs::NONE;
        runs.push(RUN, 1);
        runs.push(RUN + 1, 11);
        config.durable = Some(LogId { lineage: DURABLE, run: RUN + 1, runs });
    });
    world.durable = true;
    world.number = 20;
    world.fleet.note_head(true, 20);
    world.devices[0].durable.lineage = DURABLE;
    change(&mut world.devices[0]);
    for number in 0..2 {
        let new = NewDevice { id: Some(id(number)), address: Some(address(number)) };
        world.fleet.add_device(world.now, new).unwrap();
    }
    world.advance(1_000);
    world
}

fn floor(run: u64, floor: u64) -> impl FnOnce(&mut Device) {
    move |device: &mut Device| device.durable.floors[2] = LaneFloor { floor, run }
}

fn forked(world: &World) -> bool {
    world.events.contains(&Event::Forked { device: DeviceIndex(0) })
}

#[test]
fn floors_of_runs_the_log_had_are_welcome() {
    for (run, number) in [(RUN, 10), (RUN, 0), (RUN + 1, 20), (RUN + 1, 3), (0xBAD, 0)] {
        let world = second_run(floor(run, number));
        assert!(!forked(&world) && world.fleet.is_open(DeviceIndex(0)), "{run} {number}");
    }
    // Another log's floors say nothing about this one.
    let world = second_run(|device| {
        floor(0xBAD, 99)(device);
        device.durable.lineage = OTHER;
    });
    assert!(!forked(&world) && world.fleet.is_open(DeviceIndex(0)));
}

#[test]
fn a_floor_the_log_never_gave_ends_the_session_before_an_order_left() {
    for (run, number) in [(RUN, 11), (RUN + 1, 21), (0xBAD, 5), (RUN, u64::MAX)] {
        let mut world = second_run(floor(run, number));
        assert!(forked(&world), "{run} {number}");
        assert_eq!(world.closed[0], (DeviceIndex(0), Ended::FloorAhead));
        assert!(world.devices[0].rejects.iter().all(|&code| code == reject::Code::UNAUTHORIZED));
        assert_eq!(world.fleet.stats().forked, world.devices[0].rejects.len() as u64);
        // Nobody gets anything of that log any more; what is volatile goes on.
        let durable = world.submit(Lane::Normal);
        world.durable = false;
        let volatile = world.submit(Lane::Normal);
        assert_eq!(world.devices[1].numbers(), [volatile]);
        assert_eq!(world.mark(durable, 1), Mark::PENDING);
    }
}

#[test]
fn an_order_begun_that_the_log_never_gave_is_as_bad() {
    for (number, ahead) in [(20, false), (21, true)] {
        let world = second_run(|device| {
            device.started = vec![StartedEntry { durable: true, ..begun(number, Lane::Bulk, false) }];
        });
        assert_eq!(forked(&world), ahead);
    }
}

#[test]
fn a_floor_of_the_volatile_log_alarms_nobody() {
    let mut world = World::durable(1, 4);
    world.devices[0].floors[1] = 99;
    world.cut(0);
    world.advance(20_000);
    assert!(!forked(&world));
    assert_eq!(world.closed[0], (DeviceIndex(0), Ended::FloorAhead));
}

/// A world in which everything is under way at once, that turns out to be forked.
fn in_the_middle() -> World {
    let mut world = World::durable(3, 16);
    world.devices[1].habit = Habit::Ack;
    world.logs = false;
    world.submit(Lane::Normal);
    let busy = world.submit(Lane::Bulk);
    let entry = Entry { number: busy, code: Code::BUSY, detail: 0, lane: Lane::Bulk, ms: 0 };
    world.devices[1].kept.retain(|kept| kept.number != busy);
    world.devices[1].send_outcomes(&[entry]);
    world.drain();
    world.devices[2].durable.floors[0] = LaneFloor { floor: 77, run: RUN };
    world.cut(2);
    world.advance(1_500);
    world
}

#[test]
fn every_order_of_a_log_that_is_given_up_comes_back() {
    let mut world = in_the_middle();
    let told = world.unlogged.len();
    world.fleet.abandon_durable(world.now);
    world.drain();
    let mut outcomes = world.outcomes();
    outcomes.sort_unstable_by_key(|&(device, number, _)| (number, device));
    let expected = [
        (0, 1, Code::APPLIED),
        (1, 1, Code::IN_DOUBT),
        (2, 1, Code::APPLIED),
        (0, 2, Code::APPLIED),
        (1, 2, Code::IN_DOUBT),
        (2, 2, Code::APPLIED),
    ];
    assert_eq!(outcomes, expected, "what is known stays known");
    assert_eq!((world.settled(), world.unlogged.len()), (vec![1, 2], told), "nothing is logged any more");
    let order = new_order(3, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0; 3]);
    let refused = world.fleet.submit(world.now, as_durable(order.clone())).unwrap_err();
    assert_eq!(refused.why, SubmitFault::NoLog);
    assert!(world.fleet.submit(world.now, order).is_ok());
    // What comes in late changes nothing.
    world.log();
    assert_eq!(world.outcomes().len(), 7);
}

#[test]
fn another_log_begins_once_the_old_one_is_empty() {
    let mut world = in_the_middle();
    let log = LogId::new(OTHER, 500, 4);
    assert!(!world.fleet.renew(world.now, log, 3), "orders of the old one live");
    world.fleet.abandon_durable(world.now);
    world.drain();
    world.unlogged.clear();
    world.untraced.clear();
    assert!(world.fleet.renew(world.now, log, 3));
    world.logs = true;
    world.events.clear();
    world.advance(3_000);
    for (index, device) in (0..).zip(&world.devices) {
        assert!(world.fleet.is_open(DeviceIndex(index)), "{index}");
        let hello = device.hellos.last().unwrap();
        assert_eq!((hello.durable.lineage, hello.durable.run, hello.durable.head), (OTHER, 500, 3));
        assert_eq!(device.byes.last(), (index != 2).then_some(&bye::Code::RESTARTING));
    }
    world.number = 3;
    let number = world.submit(Lane::Normal);
    world.devices[1].finish(Code::APPLIED);
    world.advance(6_000);
    assert_eq!(world.settled(), [number]);
    assert!(world.devices.iter().all(|device| device.durable.settled[2] == number));
    assert_eq!(world.fleet.live_orders(), 0);
}
