//! What becomes of orders without an outcome when a device comes back.

use super::*;

/// A device that took an idempotent and a non-idempotent order and lost its connection before it answered.
fn interrupted() -> (World, u64, u64) {
    let mut world = World::connected(1, 16);
    world.devices[0].habit = Habit::Ack;
    let idempotent = world.submit(Lane::Normal);
    let once = world.submit_once(Lane::Normal);
    world.cut(0);
    world.drain();
    (world, idempotent, once)
}

fn reconnect(world: &mut World) {
    world.advance(20_000);
    assert_eq!(world.fleet.stats().sessions, 2);
}

#[test]
fn same_boot_above_the_floor_is_sent_again_and_applied_once() {
    let (mut world, idempotent, once) = interrupted();
    reconnect(&mut world);
    let again: Vec<(u64, bool)> = world.devices[0]
        .orders
        .iter()
        .skip(2)
        .map(|(delivery, number, _)| (*number, delivery.replay))
        .collect();
    assert_eq!(again, [(idempotent, true), (once, true)]);
    assert_eq!(world.fleet.stats().replays, 2);
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.outcomes(), [(0, idempotent, Code::APPLIED), (0, once, Code::APPLIED)]);
}

#[test]
fn what_ended_while_the_connection_was_down_is_repeated_by_the_device_and_not_sent() {
    let (mut world, idempotent, once) = interrupted();
    world.devices[0].finish(Code::FAILED);
    world.devices[0].answers.clear();
    reconnect(&mut world);
    assert_eq!(world.devices[0].orders.len(), 2, "nothing was sent again");
    assert_eq!(world.outcomes(), [(0, idempotent, Code::FAILED), (0, once, Code::FAILED)]);
    assert_eq!(world.devices[0].settled[2], once);
    assert!(world.devices[0].effects.values().all(|&times| times == 1));
}

#[test]
fn new_boot_repeats_what_is_idempotent_and_doubts_the_rest() {
    let (mut world, idempotent, once) = interrupted();
    world.devices[0].reboot();
    world.devices[0].habit = Habit::Apply;
    let pending = world.submit_once(Lane::Normal);
    reconnect(&mut world);
    assert_eq!(
        world.outcomes(),
        [(0, once, Code::IN_DOUBT), (0, idempotent, Code::APPLIED), (0, pending, Code::APPLIED)]
    );
    assert!(!world.devices[0].effects.contains_key(&once), "it is never repeated");
    assert_eq!(world.devices[0].effects[&idempotent], 1);
    assert_eq!(world.fleet.stats().reboots, 1);
    assert!(world.events.iter().any(|event| matches!(event, Event::Connected { rebooted: true, .. })));
}

#[test]
fn a_repetition_not_written_before_the_next_boot_is_in_doubt_too() {
    let (mut world, _, once) = interrupted();
    world.meet_again(448);
    assert_eq!(world.mark(once, 0), Mark::REPEAT);
    world.cut(0);
    world.devices[0].reboot();
    world.advance(20_000);
    world.connect(0);
    world.drain();
    assert_eq!(world.outcomes(), [(0, once, Code::IN_DOUBT)]);
}

#[test]
fn a_repetition_is_never_expired_by_the_server() {
    let mut world = World::connected(1, 4);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit_to(Lane::Normal, Some(Duration::from_secs(5)), 100, &[0]);
    world.drain();
    world.answer_dials = false;
    world.cut(0);
    world.advance(20_000);
    assert_eq!(world.outcomes(), []);
    world.connect(0);
    world.drain();
    let (delivery, ..) = world.devices[0].orders[1];
    assert_eq!((delivery.remaining_ms, delivery.replay), (Some(1), true), "the device judges");
    world.devices[0].finish(Code::EXPIRED);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::EXPIRED)]);
}

#[test]
fn an_outcome_the_device_forgot_to_repeat_is_asked_for_by_sending_again() {
    let (mut world, idempotent, once) = interrupted();
    world.devices[0].finish(Code::APPLIED);
    world.devices[0].answers.clear();
    world.devices[0].ring.clear();
    world.answer_dials = false;
    world.advance(20_000);
    world.connect(0);
    world.advance(1_900);
    assert_eq!((world.outcomes(), world.mark(once, 0)), (vec![], Mark::RECEIVED));
    world.advance(200);
    assert_eq!(world.outcomes(), [(0, idempotent, Code::DUPLICATE), (0, once, Code::DUPLICATE)]);
    let told = world.events.iter().find(|event| matches!(event, Event::Outcome { .. }));
    assert!(matches!(told, Some(Event::Outcome { code: Code::DUPLICATE, first_code: Code::DUPLICATE, .. })));
    assert!(world.devices[0].effects.values().all(|&times| times == 1));
}

#[test]
fn a_server_that_stood_still_has_not_waited_for_outcomes() {
    let (mut world, idempotent, once) = interrupted();
    world.devices[0].finish(Code::FAILED);
    // They lie where the server has not read them.
    let unread = core::mem::take(&mut world.devices[0].answers);
    let owed = core::mem::take(&mut world.devices[0].ring);
    world.answer_dials = false;
    world.advance(20_000);
    world.connect(0);
    world.advance(100);
    world.now = world.now + Duration::from_secs(4);
    world.fleet.handle_timeout(world.now);
    world.drain();
    assert_eq!(
        (world.mark(once, 0), world.fleet.stats().pauses),
        (Mark::RECEIVED, 1),
        "nothing is asked again"
    );
    (world.devices[0].answers, world.devices[0].ring) = (unread, owed);
    world.drain();
    assert_eq!(world.outcomes(), [(0, idempotent, Code::FAILED), (0, once, Code::FAILED)]);
    assert_eq!(world.devices[0].orders.len(), 2, "nothing was sent again");
}

#[test]
fn duplicate_shows_how_it_ended_first() {
    let mut world = World::connected(1, 4);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    let entry = Entry { number, code: Code::DUPLICATE, detail: Code::FAILED.0, lane: Lane::Normal, ms: 0 };
    world.devices[0].send_outcomes(&[entry]);
    world.drain();
    let Some(Event::Outcome { code, first_code, .. }) = world.events.first() else { panic!() };
    assert_eq!((*code, *first_code), (Code::DUPLICATE, Code::FAILED));
    assert_eq!(world.fleet.stats().outcomes.of(Code::FAILED), 1);
}

#[test]
fn a_stale_outcome_of_an_earlier_session_is_credited_by_number() {
    let (mut world, idempotent, once) = interrupted();
    world.devices[0].habit = Habit::Silent;
    while world.fleet.stats().sessions == 1 {
        world.advance(50);
    }
    // Late bytes of the work begun in the first session, while the repetition is under way.
    let entry = Entry { number: once, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 9 };
    world.devices[0].send_outcomes(&[entry]);
    world.drain();
    assert_eq!(world.outcomes(), [(0, once, Code::APPLIED)]);
    assert_eq!(world.mark(idempotent, 0), Mark::RECEIVED, "received, since the later one was");
    assert_eq!(world.devices[0].settled[2], 0, "not settled: the one before is open");
}

#[test]
fn floors_above_the_log_are_refused() {
    let mut world = World::connected(1, 4);
    world.submit(Lane::Normal);
    world.cut(0);
    world.devices[0].floors[1] = 2;
    world.answer_dials = false;
    world.advance(20_000);
    world.connect(0);
    world.drain();
    assert_eq!(world.closed.last(), Some(&(DeviceIndex(0), Ended::FloorAhead)));
}

#[test]
fn a_device_that_forgot_the_log_within_one_boot_is_treated_like_a_boot() {
    let (mut world, idempotent, once) = interrupted();
    world.devices[0].finish(Code::APPLIED);
    world.devices[0].answers.clear();
    reconnect(&mut world);
    world.devices[0].habit = Habit::Ack;
    world.advance(200);
    let doubted = world.submit_once(Lane::Normal);
    world.cut(0);
    // Another server's log took the place of ours meanwhile.
    world.devices[0].lineage = Lineage::NONE;
    world.devices[0].kept.clear();
    world.advance(20_000);
    assert_eq!(
        world.outcomes(),
        [(0, idempotent, Code::APPLIED), (0, once, Code::APPLIED), (0, doubted, Code::IN_DOUBT)]
    );
}

#[test]
fn more_doubts_than_events_fit() {
    let mut world = World::new(1, 300);
    world.devices[0].window_orders = 300;
    world.devices[0].window_bytes = 1 << 20;
    world.devices[0].habit = Habit::Ack;
    world.advance(100);
    for _ in 0..290 {
        world.submit_once(Lane::Normal);
    }
    world.devices[0].reboot();
    world.cut(0);
    world.advance(20_000);
    assert_eq!(world.outcomes().len(), 290);
    assert!(world.outcomes().iter().all(|(_, _, code)| *code == Code::IN_DOUBT));
}

#[test]
fn an_offline_device_catches_up_in_order() {
    let mut world = World::new(2, 200);
    world.devices[0].window_orders = 4;
    world.answer_dials = false;
    world.drain();
    world.connect(1);
    for round in 0..50 {
        world.submit([Lane::Normal, Lane::Bulk][round % 2]);
    }
    world.connect(0);
    world.advance(1_000);
    let numbers = world.devices[0].numbers();
    let (normal, bulk): (Vec<u64>, Vec<u64>) = numbers.iter().partition(|&&number| number % 2 == 1);
    assert_eq!(numbers.len(), 50);
    assert!(normal.is_sorted() && bulk.is_sorted());
    assert_eq!(world.settled().len(), 50);
}

#[test]
fn repetitions_obey_a_window_that_became_smaller() {
    let mut world = World::connected(1, 16);
    world.devices[0].habit = Habit::Ack;
    for _ in 0..10 {
        world.submit(Lane::Normal);
    }
    world.devices[0].reboot();
    world.devices[0].window_orders = 3;
    world.cut(0);
    world.advance(20_000);
    assert_eq!(world.devices[0].kept.len(), 1, "one credit stays for lane 0, one for lane 1");
    world.submit(Lane::Urgent);
    world.submit(Lane::Interactive);
    world.submit(Lane::Urgent);
    assert_eq!(world.devices[0].kept.len(), 3, "a repetition takes its credit like any order");
    world.devices[0].habit = Habit::Apply;
    world.devices[0].finish(Code::APPLIED);
    world.advance(200);
    assert_eq!(world.settled().len(), 13);
    assert!(world.devices[0].effects.values().all(|&times| times == 1));
}

#[test]
fn credit_held_by_an_order_that_ended_as_unknown_comes_back_with_its_late_outcome() {
    let mut world = World::with(1, 8, |config| config.unknown_after = Duration::from_secs(10));
    world.devices[0].habit = Habit::Ack;
    world.devices[0].window_orders = 1;
    world.advance(100);
    let number = world.submit_to(Lane::Normal, Some(Duration::from_secs(1)), 8, &[0]);
    world.advance(12_000);
    assert_eq!(world.outcomes(), [(0, number, Code::UNKNOWN)]);
    let next = world.submit(Lane::Normal);
    assert_eq!(world.devices[0].numbers(), [number], "the device still has it");
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.fleet.stats().numbers_unknown, 1);
    assert_eq!(world.devices[0].numbers(), [number, next]);
}

/// A device that keeps its floors goes down with three orders received, one of them begun.
fn persisted(idempotent: bool) -> (World, [u64; 3]) {
    let mut world = World::connected(1, 16);
    world.devices[0].persisted = true;
    world.cut(0);
    world.advance(20_000);
    world.devices[0].habit = Habit::Ack;
    let submit = if idempotent { World::submit } else { World::submit_once };
    let numbers = [(); 3].map(|()| submit(&mut world, Lane::Normal));
    world.events.clear();
    world.devices[0].orders.clear();
    world.devices[0].reboot();
    world.devices[0].started = vec![begun(numbers[1], Lane::Normal, idempotent)];
    world.cut(0);
    (world, numbers)
}

#[test]
fn a_device_that_keeps_its_floors_gets_what_it_did_not_begin_again() {
    let (mut world, [first, second, third]) = persisted(false);
    world.advance(20_000);
    assert_eq!(world.devices[0].numbers(), [first, third], "the one that was begun never runs twice");
    assert!(world.devices[0].orders.iter().all(|(delivery, ..)| delivery.replay));
    assert_eq!(world.mark(second, 0), Mark::STARTED);
    let entry = Entry { number: second, code: Code::IN_DOUBT, detail: 0, lane: Lane::Normal, ms: 0 };
    world.devices[0].send_outcomes(&[entry]);
    world.drain();
    assert_eq!(world.outcomes(), [(0, second, Code::IN_DOUBT)]);
}

#[test]
fn what_was_begun_and_may_run_twice_is_sent_again() {
    let (mut world, numbers) = persisted(true);
    world.advance(20_000);
    assert_eq!(world.devices[0].numbers(), numbers);
}

#[test]
fn floors_kept_over_a_boot_are_believed_and_a_lost_journal_is_not() {
    let (mut world, numbers) = persisted(false);
    world.devices[0].floors[2] = numbers[0];
    world.advance(20_000);
    assert_eq!(world.devices[0].numbers(), [numbers[2], numbers[0]], "its outcome was waited for");
    assert_eq!(world.outcomes(), [(0, numbers[0], Code::DUPLICATE)]);

    let (mut world, numbers) = persisted(false);
    world.devices[0].journal_lost = true;
    world.devices[0].floors = [0; 4];
    world.devices[0].started.clear();
    world.advance(20_000);
    assert_eq!(world.outcomes(), numbers.map(|number| (0, number, Code::IN_DOUBT)));
}

#[test]
fn what_was_begun_in_the_same_boot_is_waited_for() {
    let (mut world, idempotent, once) = interrupted();
    world.devices[0].started = vec![begun(idempotent, Lane::Normal, true), begun(once, Lane::Normal, false)];
    reconnect(&mut world);
    assert_eq!(world.devices[0].orders.len(), 2, "nothing is sent again");
    assert_eq!((world.mark(idempotent, 0), world.mark(once, 0)), (Mark::STARTED, Mark::STARTED));
    world.devices[0].finish(Code::APPLIED);
    world.advance(5_000);
    assert_eq!(world.outcomes(), [(0, idempotent, Code::APPLIED), (0, once, Code::APPLIED)]);
    assert_eq!(world.devices[0].settled[2], once);
}

/// A device goes down `after` so long with what it has, and comes back in another boot.
fn goes_down(world: &mut World, after: u64) {
    world.advance(after);
    world.devices[0].reboot();
    world.cut(0);
    let sessions = world.fleet.stats().sessions;
    while world.fleet.stats().sessions == sessions {
        world.advance(1);
    }
}

#[test]
fn an_order_that_brings_a_device_down_three_times_is_poison() {
    let mut world = World::connected(1, 16);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    let other = world.submit(Lane::Bulk);
    goes_down(&mut world, 1_000);
    assert_eq!(world.devices[0].kept.len(), 2, "once is bad luck");
    goes_down(&mut world, 1_000);
    assert_eq!(world.devices[0].kept.len(), 1, "one at a time");
    let pending = world.submit(Lane::Urgent);
    assert_eq!(world.devices[0].kept.len(), 1, "also of those that never were there");
    goes_down(&mut world, 1_000);
    assert_eq!(world.outcomes(), [(0, number, Code::POISON)]);
    assert_eq!(world.fleet.view(DeviceIndex(0)).map(|view| view.poisons), Some(1));
    world.drain();
    assert_eq!(world.devices[0].kept.len(), 2, "the window is open again");
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    let mut outcomes = world.outcomes();
    outcomes.sort_unstable_by_key(|&(_, number, _)| number);
    assert_eq!(outcomes.iter().map(|(_, number, _)| *number).collect::<Vec<_>>(), [number, other, pending]);
}

#[test]
fn long_sessions_other_orders_and_mere_cuts_are_no_poison() {
    for (after, cut, finish) in [(60_010, false, false), (1_000, true, false), (1_000, false, true)] {
        let mut world = World::connected(1, 64);
        world.devices[0].habit = Habit::Ack;
        for _ in 0..12 {
            world.submit(Lane::Normal);
        }
        for _ in 0..5 {
            goes_down(&mut world, after);
            if finish {
                let first = world.devices[0].kept.remove(0);
                world.devices[0].apply(first);
                world.devices[0].send_outcomes(&[first]);
            }
            if cut {
                world.cut(0);
                world.advance(20_000);
            }
            world.drain();
        }
        assert_eq!(world.fleet.stats().outcomes.of(Code::POISON), 0, "{after} {cut} {finish}");
        world.devices[0].finish(Code::APPLIED);
        world.advance(1_000);
        assert_eq!(world.settled().len(), 12);
    }
}

#[test]
fn sixty_seconds_count_for_poison_and_a_little_more_does_not() {
    for (after, poisons) in [(59_990, 1), (60_010, 0)] {
        let mut world = World::connected(1, 16);
        world.devices[0].habit = Habit::Ack;
        goes_down(&mut world, 1);
        world.submit(Lane::Normal);
        for _ in 0..3 {
            goes_down(&mut world, after);
        }
        assert_eq!(world.fleet.stats().outcomes.of(Code::POISON), poisons);
    }
}

#[test]
fn a_device_that_obeys_another_server_is_owed_nothing_any_more() {
    let mut world = World::connected(2, 16);
    world.devices[0].habit = Habit::Ack;
    let written = world.submit(Lane::Normal);
    let busy = world.submit(Lane::Bulk);
    let entry = Entry { number: busy, code: Code::BUSY, detail: 0, lane: Lane::Bulk, ms: 1 };
    world.devices[0].send_outcomes(&[entry]);
    world.drain();
    world.devices[0].fence = Some(9);
    world.cut(0);
    let pending = world.submit(Lane::Normal);
    world.advance(1_000);
    let mut outcomes = world.outcomes();
    outcomes.retain(|&(device, ..)| device == 0);
    outcomes.sort_unstable_by_key(|&(_, number, _)| number);
    let expected = [(0, written, Code::UNKNOWN), (0, busy, Code::FENCED), (0, pending, Code::FENCED)];
    assert_eq!(outcomes, expected);
    assert!(world.events.contains(&Event::Fenced { device: DeviceIndex(0), fence: 9 }));
    assert_eq!((world.fleet.fence_heard(), world.settled().len()), (9, 3));
    // An operator takes the shop over: with a higher fence the device serves this one again.
    world.fleet.take_over(world.now, 10);
    world.advance(61_000);
    assert!(world.fleet.is_open(DeviceIndex(0)));
    let hello = world.devices[0].hellos.last().unwrap();
    assert_eq!((hello.fence, hello.takeover), (10, true));
}

#[test]
fn a_refusal_without_a_higher_fence_ends_nothing() {
    let mut world = World::connected(1, 4);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    world.cut(0);
    world.answer_dials = false;
    world.advance(5_000);
    world.connect(0);
    let detail = 1;
    world.devices[0].frozen = true;
    world.devices[0].send(&Frame::Reject(Reject {
        code: reject::Code::STALE_FENCE,
        retry_after_ms: 0,
        detail,
    }));
    world.drain();
    assert_eq!((world.outcomes(), world.mark(number, 0)), (vec![], Mark::RECEIVED));
}
