//! Attempts that end, and orders that follow them.

use super::*;

fn busy(code: Code) -> (World, u64) {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit_to(Lane::Normal, Some(HOUR), 100, &[0]);
    world.drain();
    world.devices[0].finish(code);
    world.drain();
    (world, number)
}

#[test]
fn the_end_of_an_attempt_is_told_and_settled_and_the_order_waits() {
    for (code, mark) in [
        (Code::BUSY, Mark::RETRY_BUSY),
        (Code::NO_SPACE, Mark::RETRY_NO_SPACE),
        (Code::FAILED_RETRYABLE, Mark::RETRY_FAILED),
    ] {
        let (mut world, number) = busy(code);
        let retry_after = Duration::from_millis(1);
        assert_eq!(world.events, [Event::Attempt { device: DeviceIndex(0), number, code, retry_after }]);
        assert_eq!((world.mark(number, 0), world.fleet.stats().attempts), (mark, 1));
        assert_eq!(world.fleet.view(DeviceIndex(0)).map(|view| (view.retried, view.out)), Some((1, 0)));
        world.advance(5_000);
        assert_eq!(world.devices[0].settled[2], number, "the device may forget it");
        assert_eq!(world.fleet.view(DeviceIndex(0)).map(|view| view.window_orders_used), Some(0));
        // The attempts go by a number of their own; the order ends with the last one.
        assert!(world.fleet.retry_begins(number, DeviceIndex(0)));
        assert!(!world.fleet.retry_begins(number, DeviceIndex(0)), "one runs");
        assert_eq!(world.mark(number, 0), Mark::RETRYING);
        assert!(!world.fleet.resolve(world.now, number, DeviceIndex(0), Code(0xF0)), "ends nothing");
        assert!(world.fleet.resolve(world.now, number, DeviceIndex(0), Code::APPLIED));
        world.drain();
        assert_eq!((world.outcomes(), world.settled()), (vec![(0, number, Code::APPLIED)], vec![number]));
        assert!(!world.fleet.resolve(world.now, number, DeviceIndex(0), Code::APPLIED));
        assert!(!world.fleet.retry_begins(number, DeviceIndex(0)));
    }
}

#[test]
fn a_lifetime_ends_with_the_code_of_its_last_attempt_unless_one_runs() {
    let (mut world, number) = busy(Code::NO_SPACE);
    world.advance(3_601_000);
    assert_eq!(world.outcomes(), [(0, number, Code::NO_SPACE)]);
    assert_eq!(world.settled(), [number]);

    let (mut world, number) = busy(Code::BUSY);
    world.fleet.retry_begins(number, DeviceIndex(0));
    world.advance(3_601_000);
    assert_eq!((world.outcomes(), world.mark(number, 0)), (vec![], Mark::RETRYING));
    world.advance(7 * 86_400_000);
    assert_eq!(world.outcomes(), [(0, number, Code::UNKNOWN)], "nobody told its end for a week");
}

#[test]
fn an_attempt_that_ends_after_the_lifetime_is_the_end() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit_to(Lane::Normal, Some(Duration::from_secs(1)), 100, &[0]);
    world.advance(1_500);
    world.devices[0].finish(Code::BUSY);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::BUSY)]);
}

#[test]
fn a_cancelled_order_makes_no_other_attempt() {
    let (mut world, number) = busy(Code::BUSY);
    world.fleet.cancel(world.now, number);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::CANCELLED)]);

    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    world.devices[0].features = 0;
    let number = world.submit(Lane::Normal);
    world.fleet.cancel(world.now, number);
    world.devices[0].finish(Code::BUSY);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::CANCELLED)]);
}

#[test]
fn the_attempts_of_a_removed_device_end_as_they_stand() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    let numbers: Vec<u64> = (0..3).map(|_| world.submit(Lane::Normal)).collect();
    world.devices[0].finish(Code::BUSY);
    world.drain();
    world.fleet.retry_begins(numbers[1], DeviceIndex(0));
    world.fleet.remove_device(world.now, DeviceIndex(0));
    world.drain();
    let codes: Vec<Code> = world.outcomes().iter().map(|&(_, _, code)| code).collect();
    assert_eq!(codes, [Code::BUSY, Code::UNKNOWN, Code::BUSY]);
    assert_eq!(world.settled().len(), 3);
    assert_eq!(world.fleet.view(DeviceIndex(0)), None);
}

#[test]
fn an_attempt_in_doubt_gives_back_no_credit_of_another_order() {
    let (mut world, number) = busy(Code::BUSY);
    assert!(world.fleet.retry_begins(number, DeviceIndex(0)));
    world.submit_to(Lane::Normal, Some(HOUR), 100, &[0]);
    world.drain();
    let used = |world: &World| world.fleet.view(DeviceIndex(0)).map(|view| view.window_orders_used);
    assert_eq!(used(&world), Some(1));
    assert!(world.fleet.resolve(world.now, number, DeviceIndex(0), Code::IN_DOUBT));
    assert_eq!(used(&world), Some(1));
}

#[test]
fn an_attempt_that_is_repeated_by_the_device_is_told_once() {
    let (mut world, number) = busy(Code::BUSY);
    world.cut(0);
    world.advance(20_000);
    assert_eq!(world.fleet.stats().sessions, 2, "the device tells it again");
    assert_eq!((world.fleet.stats().attempts, world.fleet.stats().outcomes_repeated), (1, 1));
    assert_eq!((world.mark(number, 0), world.devices[0].settled[2]), (Mark::RETRY_BUSY, number));
}

/// An attempt at the order `first`, as who keeps the log writes it.
fn try_again(world: &mut World, first: u64) -> u64 {
    world.fleet.retry_begins(first, DeviceIndex(0));
    assert_eq!(world.mark(first, 0), Mark::RETRYING);
    world.number += 1;
    let (sort, marks) = ((Lane::Normal, KindFlags::IDEMPOTENT), vec![Mark::PENDING.0]);
    let order = keyed_order(world.number, sort, (0, 0), Some(first), Some(HOUR), 100, marks);
    world.fleet.submit(world.now, order).expect("taken");
    world.drain();
    world.number
}

#[test]
fn an_order_that_was_tried_again_counts_one_outcome() {
    let (mut world, first) = busy(Code::BUSY);
    let second = try_again(&mut world, first);
    world.devices[0].finish(Code::BUSY);
    world.drain();
    // The record is done; the order waits for its third attempt.
    assert!(world.fleet.resolve(world.now, second, DeviceIndex(0), Code::BUSY));
    let third = try_again(&mut world, first);
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert!(world.fleet.resolve(world.now, first, DeviceIndex(0), Code::APPLIED));
    world.drain();
    assert_eq!(world.settled(), [second, third, first], "each record is handed back");
    let stats = world.fleet.stats();
    assert_eq!((stats.outcomes.of(Code::APPLIED), stats.outcomes.of(Code::BUSY)), (1, 0));
    assert_eq!(stats.attempts, 2);
}

#[test]
fn an_attempt_that_is_refused_counts_where_its_order_ends() {
    let (mut world, first) = busy(Code::BUSY);
    world.fleet.remove_device(world.now, DeviceIndex(0));
    world.drain();
    assert_eq!(world.fleet.stats().outcomes.of(Code::BUSY), 1);
    world.number += 1;
    let (sort, marks) = ((Lane::Normal, KindFlags::IDEMPOTENT), vec![Mark::PENDING.0]);
    let order = keyed_order(world.number, sort, (0, 0), Some(first), Some(HOUR), 100, marks);
    let submitted = world.fleet.submit(world.now, order).expect("taken");
    assert_eq!((submitted.targets, submitted.refused), (0, 1));
    assert_eq!(world.fleet.stats().outcomes.of(Code::NOT_TARGETED), 0);
}

/// Numbers, and how they ended.
type Ends = Vec<(u64, Code)>;

/// How the first order of the durable log ended that was tried again, on a device that is removed `before` the log has the
/// end of that attempt; as the log is told, and as it is reported.
fn removed_while(before: impl FnOnce(&mut World)) -> (Ends, Ends) {
    let mut world = World::durable(1, 8);
    world.devices[0].habit = Habit::Ack;
    let first = world.submit(Lane::Normal);
    world.devices[0].finish(Code::BUSY);
    world.drain();
    world.fleet.retry_begins(first, DeviceIndex(0));
    // An attempt at another order, and one that has not begun, are nothing to it.
    let other = world.submit(Lane::Normal);
    world.logs = false;
    world.number += 1;
    let (sort, marks) = ((Lane::Normal, KindFlags::IDEMPOTENT), vec![Mark::PENDING.0]);
    let order = keyed_order(world.number, sort, (0, 0), Some(first), Some(HOUR), 100, marks);
    world.hand_in(order);
    world.drain();
    before(&mut world);
    world.drain();
    world.fleet.remove_device(world.now, DeviceIndex(0));
    world.drain();
    assert_eq!(world.outcomes(), [], "nothing of it is on disk");
    let last =
        |entries: Vec<(u64, Code)>| entries.into_iter().filter(|&(number, _)| number != other).collect();
    let told = world.unlogged.iter().map(|entry| (entry.number, entry.first_code)).collect();
    world.log();
    let outcomes = world.outcomes().into_iter().map(|(_, number, code)| (number, code)).collect();
    assert_eq!(world.settled().len(), 3);
    (last(told), last(outcomes))
}

#[test]
fn a_removal_does_not_overtake_the_end_of_an_attempt_on_its_way_to_the_log() {
    for code in [Code::APPLIED, Code::EXPIRED, Code::BUSY] {
        let (told, outcomes) = removed_while(|world| world.devices[0].finish(code));
        assert_eq!(told, [(3, code), (1, code)]);
        assert!(outcomes.contains(&(3, code)) && outcomes.contains(&(1, code)), "{outcomes:?}");
    }
    // Nobody knows what came of it.
    let (told, outcomes) = removed_while(|_| {});
    assert_eq!(told, [(3, Code::UNKNOWN), (1, Code::UNKNOWN)]);
    assert_eq!(outcomes, told);
}
