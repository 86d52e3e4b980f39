//! A device that is taken out of the list and listed again still has what its former place sent it.

use super::*;

/// One device that has begun an order of either log when it is removed, and is listed again: in the same slot. The number
/// of the order.
fn listed_again(durable: bool, begins: bool) -> (World, u64) {
    let mut world = if durable { World::durable(1, 8) } else { World::connected(1, 8) };
    world.devices[0].persisted = true;
    world.devices[0].window_orders = 1;
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    if begins {
        world.devices[0].started = vec![StartedEntry { durable, ..begun(number, Lane::Normal, true) }];
    }
    assert!(world.fleet.remove_device(world.now, DeviceIndex(0)));
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::UNKNOWN)]);
    if !begins {
        world.devices[0].kept.clear();
        let ended = Entry { number, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 1 };
        world.devices[0].apply(ended);
    }
    world.events.clear();
    world.list(id(0));
    (world, number)
}

/// Nobody says of the device that it has lost its journal.
fn lost_nothing(world: &World) -> bool {
    !world.events.contains(&Event::JournalLost { device: DeviceIndex(0) })
}

fn settled(world: &World, durable: bool) -> u64 {
    let device = &world.devices[0];
    if durable { device.durable.settled[2] } else { device.settled[2] }
}

#[test]
fn what_was_begun_for_a_former_place_is_settled_before_the_next_order() {
    for durable in [false, true] {
        let (mut world, number) = listed_again(durable, true);
        world.advance(2_000);
        world.devices[0].started.clear();
        world.devices[0].kept.clear();
        world.devices[0].habit = Habit::Apply;
        let next = world.submit(Lane::Normal);
        assert_eq!(settled(&world, durable), number, "its place on the device is free again");
        assert_eq!(world.outcomes(), [(0, next, Code::APPLIED)]);
        world.advance(5_000);
        assert_eq!(settled(&world, durable), next);
    }
}

#[test]
fn it_is_settled_in_time_if_no_order_follows() {
    for durable in [false, true] {
        let (mut world, number) = listed_again(durable, true);
        world.advance(8_000);
        assert_eq!(settled(&world, durable), number);
    }
}

#[test]
fn that_a_settled_was_lost_does_not_mean_that_the_device_forgot() {
    for durable in [false, true] {
        let (mut world, number) = listed_again(durable, true);
        world.advance(2_000);
        world.devices[0].frozen = true;
        let next = world.submit_once(Lane::Normal);
        world.devices[0].frozen = false;
        world.cut(0);
        world.advance(20_000);
        assert_eq!(settled(&world, durable), number);
        assert_eq!(world.mark(next, 0), Mark::RECEIVED, "it was sent again");
        world.devices[0].kept.retain(|entry| entry.number == next);
        world.devices[0].finish(Code::APPLIED);
        world.drain();
        assert_eq!(world.outcomes(), [(0, next, Code::APPLIED)]);
        assert!(lost_nothing(&world));
    }
}

#[test]
fn an_outcome_owed_to_a_former_place_is_settled_though_the_log_is_not_named() {
    let (mut world, number) = listed_again(true, false);
    world.devices[0].unnamed = true;
    world.advance(2_000);
    assert_eq!((world.devices[0].hellos.len(), settled(&world, true)), (2, 0));
    // Its session breaks first: who told an outcome and does not name the log has not forgotten it.
    world.cut(0);
    world.advance(20_000);
    assert_eq!(settled(&world, true), number);
    assert!(lost_nothing(&world));
}

#[test]
fn another_device_in_the_slot_of_one_that_was_removed_has_lost_nothing() {
    let mut world = World::durable(1, 8);
    world.devices[0].persisted = true;
    world.submit(Lane::Normal);
    assert!(world.fleet.remove_device(world.now, DeviceIndex(0)));
    world.advance(2_000);
    world.devices[0] = Device { id: id(7), persisted: true, ..Device::new(0) };
    world.list(id(7));
    world.advance(2_000);
    assert_eq!(world.devices[0].hellos.len(), 1);
    assert!(lost_nothing(&world));
}
