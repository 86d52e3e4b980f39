//! A server that leaves.

use super::*;

#[test]
fn a_drain_waits_for_what_is_out_and_takes_nothing_new() {
    let mut world = World::connected(3, 8);
    world.devices[1].habit = Habit::Ack;
    world.cut(2);
    world.answer_dials = false;
    world.drain();
    world.closed.clear();
    let number = world.submit(Lane::Normal);
    world.fleet.drain(world.now, Duration::from_secs(3));
    world.drain();
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Stopped)], "nothing was out there");
    assert_eq!(world.devices[0].byes, [bye::Code::DRAINING]);
    assert_eq!((world.devices[1].drains.clone(), world.devices[1].byes.len()), (vec![3_000], 0));
    let order = new_order(9, Lane::Normal, KindFlags::NONE, Some(HOUR), 8, vec![Mark::PENDING.0; 3]);
    assert_eq!(world.fleet.submit(world.now, order).unwrap_err().why, SubmitFault::Stopped);
    world.devices[1].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED), (1, number, Code::APPLIED)]);
    assert_eq!(world.devices[1].byes, [bye::Code::DRAINING]);
    assert!(world.fleet.is_stopped());
    assert_eq!(world.mark(number, 2), Mark::PENDING);
}

#[test]
fn a_drain_lasts_five_seconds_at_most() {
    for (within, lasts) in
        [(Duration::from_secs(5), 5_000), (Duration::from_secs(6), 5_000), (Duration::ZERO, 0)]
    {
        let mut world = World::connected(1, 8);
        world.devices[0].habit = Habit::Ack;
        world.submit(Lane::Normal);
        let pending = world.submit(Lane::Normal);
        world.fleet.drain(world.now, within);
        if lasts != 0 {
            world.advance(lasts - 1);
            assert!(!world.fleet.is_stopped(), "{within:?}");
        }
        world.advance(1 + 2);
        assert!(world.fleet.is_stopped(), "{within:?}");
        assert_eq!(world.devices[0].byes, [bye::Code::DRAINING]);
        assert_eq!(world.mark(pending, 0), Mark::RECEIVED);
    }
}

#[test]
fn a_stop_ends_the_patience_of_a_drain() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    world.submit(Lane::Normal);
    world.fleet.drain(world.now, Duration::from_secs(5));
    world.drain();
    world.fleet.stop(world.now);
    world.drain();
    assert!(world.fleet.is_stopped());
}
