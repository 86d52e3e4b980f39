//! Orders that shall not be done any more.

use super::*;

#[test]
fn what_was_not_sent_is_cancelled_at_once() {
    let mut world = World::connected(3, 8);
    world.devices[1].habit = Habit::Ack;
    world.devices[2].habit = Habit::Ack;
    world.devices[2].features = 0;
    world.cut(2);
    world.cut(0);
    world.answer_dials = false;
    world.drain();
    let number = world.submit(Lane::Normal);
    world.fleet.handle_timeout(world.now);
    assert!(world.fleet.cancel(world.now, number));
    assert!(world.fleet.cancel(world.now, number), "twice is as good");
    assert_eq!(world.fleet.poll_transmit(world.now, &mut [0; 2_048]).map(|write| write.device.0), Some(1));
    world.drain();
    assert_eq!(
        world.outcomes(),
        [(0, number, Code::CANCELLED), (2, number, Code::CANCELLED), (1, number, Code::CANCELLED)]
    );
    assert_eq!(world.devices[1].cancels, [number]);
    assert_eq!(world.settled(), [number]);
    assert!(!world.fleet.cancel(world.now, number), "it is over");
    assert!(!world.fleet.cancel(world.now, 77), "no such order");
}

#[test]
fn a_cancel_names_each_order_once_and_never_overtakes_it() {
    let mut world = World::connected(1, 32);
    world.devices[0].habit = Habit::Ack;
    let numbers: Vec<u64> =
        (0..6).map(|round| world.submit([Lane::Normal, Lane::Bulk, Lane::Urgent][round % 3])).collect();
    for &number in [4, 1, 3].iter() {
        world.fleet.cancel(world.now, numbers[number]);
    }
    let later = world.submit(Lane::Urgent);
    assert_eq!(world.devices[0].cancels, [numbers[4], numbers[1], numbers[3]], "as they were cancelled");
    world.fleet.cancel(world.now, later);
    world.drain();
    assert_eq!(world.devices[0].cancels.len(), 4);
    let bulk = [(0, numbers[1], Code::CANCELLED), (0, numbers[4], Code::CANCELLED)];
    assert_eq!(world.outcomes(), bulk, "the others stand behind orders that go on");
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!((world.outcomes().len(), world.settled().len()), (7, 7));
}

#[test]
fn a_cancel_that_was_cut_is_sent_to_its_end() {
    for room in 0..28 {
        let mut world = World::connected(1, 8);
        world.devices[0].habit = Habit::Ack;
        let number = world.submit(Lane::Normal);
        world.devices[0].room = room;
        world.fleet.cancel(world.now, number);
        world.drain();
        world.unblock(usize::MAX);
        assert_eq!((world.devices[0].cancels.clone(), world.outcomes().len()), (vec![number], 1), "{room}");
    }
}

#[test]
fn a_device_that_takes_no_cancel_is_not_sent_one() {
    let mut world = World::connected(1, 8);
    world.devices[0].features = 0;
    world.cut(0);
    world.advance(20_000);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    world.fleet.cancel(world.now, number);
    world.drain();
    assert!(world.devices[0].cancels.is_empty() && world.outcomes().is_empty());
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
}

#[test]
fn an_order_cancelled_while_its_write_was_cut_is_not_sent_again() {
    let mut world = World::connected(1, 8);
    world.devices[0].room = 40;
    let number = world.submit(Lane::Normal);
    assert_eq!(world.mark(number, 0), Mark::SENT);
    assert!(world.fleet.cancel(world.now, number));
    world.drain();
    world.cut(0);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::CANCELLED)], "it never left whole");
    world.advance(20_000);
    assert_eq!(world.devices[0].orders, []);
}

/// Two orders that were sent and acknowledged, cancelled while the device was away.
fn cancelled_while_away(change: impl FnOnce(&mut Device, u64, u64)) -> (World, u64, u64) {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    let idempotent = world.submit(Lane::Normal);
    let once = world.submit_once(Lane::Urgent);
    world.cut(0);
    world.drain();
    change(&mut world.devices[0], idempotent, once);
    assert!(world.fleet.cancel(world.now, idempotent) && world.fleet.cancel(world.now, once));
    world.drain();
    assert_eq!(world.outcomes(), [], "the device is asked");
    world.advance(20_000);
    assert_eq!(
        (world.fleet.stats().sessions, world.devices[0].orders.len()),
        (2, 2),
        "nothing is sent again"
    );
    (world, idempotent, once)
}

#[test]
fn what_was_cancelled_while_the_device_was_away_is_not_sent_again() {
    let (world, idempotent, once) = cancelled_while_away(|device, _, _| device.kept.clear());
    assert_eq!(world.outcomes(), [(0, once, Code::CANCELLED), (0, idempotent, Code::CANCELLED)]);
    assert_eq!(world.settled().len(), 2);
    assert_eq!(world.fleet.view(DeviceIndex(0)).map(|view| view.window_orders_used), Some(0));
}

#[test]
fn what_had_ended_when_it_was_cancelled_ends_as_it_ended() {
    let (world, idempotent, once) = cancelled_while_away(|device, _, _| {
        device.finish(Code::APPLIED);
        device.answers.clear();
    });
    let mut outcomes = world.outcomes();
    outcomes.sort_unstable_by_key(|&(_, number, _)| number);
    assert_eq!(outcomes, [(0, idempotent, Code::APPLIED), (0, once, Code::APPLIED)]);
}

#[test]
fn what_was_begun_when_it_was_cancelled_ends_with_what_comes_of_it() {
    let (mut world, idempotent, once) = cancelled_while_away(|device, idempotent, _| {
        device.started = vec![begun(idempotent, Lane::Normal, true)];
        device.kept.retain(|entry| entry.number == idempotent);
    });
    assert_eq!(world.outcomes(), [(0, once, Code::CANCELLED)]);
    assert_eq!(world.mark(idempotent, 0), Mark::STARTED);
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.outcomes().last(), Some(&(0, idempotent, Code::APPLIED)));
}

#[test]
fn what_was_cancelled_and_forgotten_is_in_doubt_and_not_sent_again() {
    let (world, idempotent, once) = cancelled_while_away(|device, _, _| device.reboot());
    assert_eq!(world.outcomes(), [(0, once, Code::IN_DOUBT), (0, idempotent, Code::IN_DOUBT)]);
}

#[test]
fn a_repetition_that_waits_is_cancelled_at_once_if_it_was_not_begun() {
    for begun_too in [false, true] {
        let mut world = World::connected(1, 8);
        world.devices[0].persisted = true;
        world.devices[0].habit = Habit::Ack;
        let numbers = [Lane::Normal, Lane::Interactive, Lane::Bulk].map(|lane| world.submit(lane));
        world.devices[0].reboot();
        world.devices[0].started = Vec::from_iter(begun_too.then(|| begun(numbers[2], Lane::Bulk, true)));
        world.answer_dials = false;
        world.cut(0);
        world.advance(20_000);
        world.connect(0);
        world.devices[0].room = 448;
        world.drain();
        assert_eq!(world.mark(numbers[1], 0), Mark::REPEAT);
        world.fleet.cancel(world.now, numbers[1]);
        world.drain();
        world.unblock(usize::MAX);
        // If one of them was begun, nobody knows here which: the device decides.
        let cancelled = world.outcomes() == [(0, numbers[1], Code::CANCELLED)];
        assert!(cancelled, "{:?}", world.outcomes());
        assert_eq!(world.devices[0].cancels, if begun_too { vec![numbers[1]] } else { vec![] });
        world.devices[0].finish(Code::APPLIED);
        world.drain();
        assert_eq!(world.settled().len(), 3);
    }
}
