//! An operator makes this server take the shop over: every device hears of the new fence.

use super::*;

#[test]
fn an_open_session_ends_and_greets_with_the_new_fence() {
    let mut world = World::connected(2, 8);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    world.fleet.take_over(world.now, 5);
    world.advance(1_500);
    for device in &world.devices {
        assert_eq!(device.byes, [bye::Code::RESTARTING]);
        let fences: Vec<(u64, bool)> =
            device.hellos.iter().map(|hello| (hello.fence, hello.takeover)).collect();
        assert_eq!(fences, [(1, false), (5, true)]);
    }
    assert!((0..2).all(|index| world.fleet.is_open(DeviceIndex(index))));
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.settled(), [number], "what was out goes on");
    assert_eq!(world.ends(), [(0, Ended::Renewed), (1, Ended::Renewed)]);
    world.fleet.take_over(world.now, 5);
    world.advance(1_500);
    assert_eq!(world.devices[0].hellos.len(), 2, "that is no other fence");
}

#[test]
fn a_hello_that_was_cut_is_not_finished_with_another_fence() {
    let mut world = World::new(1, 8);
    world.devices[0].room = 100;
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    world.drain();
    world.fleet.take_over(world.now, 5);
    world.drain();
    world.unblock(usize::MAX);
    world.answer_dials = true;
    world.advance(1_500);
    assert_eq!(world.devices[0].hellos.len(), 1, "the other one never became a frame");
    assert_eq!(world.devices[0].hellos[0].fence, 5);
    assert!(world.fleet.is_open(DeviceIndex(0)));
}

#[test]
fn a_hello_of_which_nothing_left_is_the_new_one() {
    let mut world = World::new(1, 8);
    world.devices[0].room = 0;
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    world.drain();
    world.fleet.take_over(world.now, 5);
    world.unblock(usize::MAX);
    assert_eq!(world.devices[0].hellos[0].fence, 5);
    assert!(world.fleet.is_open(DeviceIndex(0)) && world.closed.is_empty());
}

/// A device keeps one volatile log. Between this server's two sessions it may have served another one, which is why the
/// operator raised the fence; what it had of the first then is gone, and it does not say so.
#[test]
fn a_device_that_shows_nothing_of_the_volatile_log_after_a_takeover_may_have_served_another_server() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    let (once, again) = (world.submit_once(Lane::Normal), world.submit(Lane::Bulk));
    world.devices[0].forget();
    world.fleet.take_over(world.now, 5);
    world.advance(1_500);
    assert_eq!(world.outcomes(), [(0, once, Code::IN_DOUBT)]);
    assert_eq!(world.devices[0].numbers(), [once, again, again]);
}

#[test]
fn a_device_that_shows_something_of_the_volatile_log_after_a_takeover_has_kept_it() {
    let mut world = World::connected(1, 8);
    let ended = world.submit(Lane::Urgent);
    world.devices[0].habit = Habit::Ack;
    let once = world.submit_once(Lane::Normal);
    world.fleet.take_over(world.now, 5);
    world.advance(1_500);
    assert_eq!(world.outcomes(), [(0, ended, Code::APPLIED)]);
    assert_eq!(world.devices[0].numbers(), [ended, once, once], "the floor of another lane says so");
    // One at work says so as well, also when no floor does.
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    let once = world.submit_once(Lane::Normal);
    world.devices[0].started = vec![begun(once, Lane::Normal, false)];
    world.fleet.take_over(world.now, 5);
    world.advance(1_500);
    assert_eq!(world.outcomes(), []);
    assert_eq!(world.devices[0].numbers(), [once], "its outcome is waited for");
    // It is asked once: at the next session nothing was raised.
    world.cut(0);
    world.advance(20_000);
    assert_eq!(world.outcomes(), []);
}
