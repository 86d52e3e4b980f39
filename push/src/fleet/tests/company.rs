//! When ends that wait to be logged have company to wait for, and whom they hold up.

use super::durable::{answer, stalled};
use super::*;

#[test]
fn what_is_out_of_the_durable_log_is_known_over_sessions() {
    let mut world = World::durable(2, 16);
    world.devices[0].habit = Habit::Ack;
    let numbers: Vec<_> = (0..3).map(|_| world.submit(Lane::Normal)).collect();
    assert_eq!(world.fleet.durable_out(), 3, "one device keeps them, the other one is done");
    world.cut(0);
    assert_eq!(world.fleet.durable_out(), 0, "nothing ends in a session that is over");
    world.advance(20_000);
    assert_eq!(world.fleet.durable_out(), 3);
    answer(&mut world, numbers[0], Lane::Normal, Code::APPLIED, 0);
    world.fleet.check();
    assert_eq!(world.fleet.durable_out(), 2);
    world.durable = false;
    world.submit(Lane::Normal);
    assert_eq!(world.fleet.durable_out(), 2, "the volatile log is nobody's company");
}

#[test]
fn orders_wait_for_the_log_once_it_holds_half_of_what_they_may_have() {
    let mut world = stalled(1, 32);
    let half = world.devices[0].window_orders / 4;
    assert!(half > 1);
    world.devices[0].habit = Habit::Ack;
    let numbers: Vec<_> = (0..4 * half).map(|_| world.submit(Lane::Normal)).collect();
    assert!(world.fleet.durable_out() < numbers.len() as u32, "more than the window takes");
    for (ended, &number) in (0..half).zip(&numbers) {
        assert!(!world.fleet.waits_for_log(DeviceIndex(0)), "{ended} ends are not logged");
        answer(&mut world, number, Lane::Normal, Code::APPLIED, 0);
    }
    assert!(world.fleet.waits_for_log(DeviceIndex(0)));
    world.log();
    assert!(!world.fleet.waits_for_log(DeviceIndex(0)));
}
