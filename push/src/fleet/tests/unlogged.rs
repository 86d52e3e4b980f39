//! Ends that the log does not have yet: what they stand against, and what waits for them.

use super::durable::{answer, codes, keeping, logged, stalled};
use super::*;

#[test]
fn an_outcome_repeated_before_it_is_logged_is_told_once() {
    for forgets in [false, true] {
        let mut world = stalled(1, 8);
        let number = world.submit_once(Lane::Normal);
        if forgets {
            world.devices[0].reboot();
        }
        world.cut(0);
        world.advance(20_000);
        assert_eq!(world.fleet.stats().outcomes_repeated, u64::from(!forgets));
        assert_eq!(world.devices[0].numbers(), [number], "it is not sent again");
        assert_eq!((world.outcomes(), logged(&world).len()), (vec![], 1));
        assert!(world.mark(number, 0).is_lingering(), "it holds no credit of the new session");
        let view = world.fleet.view(DeviceIndex(0)).unwrap();
        assert_eq!((view.window_orders_used, view.unlogged), (0, 1));
        world.log();
        world.advance(5_000);
        assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
        assert_eq!(world.devices[0].durable.settled[2], if forgets { 0 } else { number });
        assert_eq!((world.settled(), world.devices[0].effects[&number]), (vec![number], 1));
    }
}

#[test]
fn what_is_not_logged_stands_against_a_cancel_an_expiry_and_a_newer_version() {
    let mut world = stalled(1, 8);
    let number = world.submit_to(Lane::Normal, Some(Duration::from_secs(5)), 8, &[0]);
    let marks = vec![Mark::PENDING.0];
    let sort = (Lane::Bulk, KindFlags::IDEMPOTENT);
    let older = keyed_order(2, sort, (9, 1), None, Some(HOUR), 8, marks.clone());
    world.hand_in(older);
    world.number = 3;
    world.drain();
    let newer = keyed_order(3, sort, (9, 2), None, Some(HOUR), 8, marks);
    world.hand_in(newer);
    assert!(world.fleet.cancel(world.now, number), "it lives until it is logged");
    world.advance(6_000);
    world.log();
    world.advance(100);
    let ended: Vec<(u64, Code)> = [1, 2, 3].map(|number| (number, Code::APPLIED)).into();
    assert_eq!(codes(&world), ended);
    assert_eq!(logged(&world).len(), 3);
}

#[test]
fn an_attempt_is_told_once_its_end_is_logged() {
    let mut world = keeping(8);
    let number = world.submit(Lane::Normal);
    world.logs = false;
    answer(&mut world, number, Lane::Normal, Code::BUSY, 0);
    assert_eq!(logged(&world), [(number, 0, Code::BUSY, By::Device)]);
    assert!(!world.fleet.retry_begins(number, DeviceIndex(0)), "not before it is logged");
    assert_eq!(world.fleet.stats().attempts, 0);
    world.log();
    let told = world.events.iter().any(|event| {
        let wait = Duration::from_millis(7);
        *event == Event::Attempt { device: DeviceIndex(0), number, code: Code::BUSY, retry_after: wait }
    });
    assert!(told && world.mark(number, 0) == Mark::RETRY_BUSY);
    assert!(world.fleet.retry_begins(number, DeviceIndex(0)));
    assert!(world.fleet.resolve(world.now, number, DeviceIndex(0), Code::APPLIED));
    world.drain();
    assert_eq!(world.outcomes(), [], "what ends it is logged first");
    world.log();
    assert_eq!(codes(&world), [(number, Code::APPLIED)]);
    assert_eq!(logged(&world)[1], (number, 0, Code::APPLIED, By::Server));
}

#[test]
fn an_attempt_that_waits_to_be_logged_is_not_repeated_if_something_else_ended_it() {
    let end = |change: fn(&mut World, u64)| {
        let mut world = keeping(8);
        let sort = (Lane::Normal, KindFlags::IDEMPOTENT);
        let lifetime = Some(Duration::from_secs(30));
        world.number = 1;
        world.hand_in(keyed_order(1, sort, (9, 1), None, lifetime, 8, vec![Mark::PENDING.0]));
        world.drain();
        world.logs = false;
        answer(&mut world, 1, Lane::Normal, Code::BUSY, 0);
        change(&mut world, 1);
        world.drain();
        world.log();
        world.log();
        let logged: Vec<_> = logged(&world).into_iter().filter(|entry| entry.0 == 1).collect();
        (world.outcomes().into_iter().find(|told| told.1 == 1).unwrap().2, logged.len())
    };
    let cancelled = end(|world, number| assert!(world.fleet.cancel(world.now, number)));
    assert_eq!(cancelled, (Code::CANCELLED, 2));
    let superseded = end(|world, _| {
        let sort = (Lane::Normal, KindFlags::IDEMPOTENT);
        world.hand_in(keyed_order(2, sort, (9, 2), None, Some(HOUR), 8, vec![Mark::PENDING.0]));
    });
    assert_eq!(superseded, (Code::SUPERSEDED, 2));
    let expired = end(|world, _| world.advance(31_000));
    // Once as the end of the attempt, which is what the log makes of it, and once as that of the order.
    assert_eq!(expired, (Code::BUSY, 2));
    let removed = end(|world, _| assert!(world.fleet.remove_device(world.now, DeviceIndex(0))));
    assert_eq!(removed, (Code::BUSY, 2));
}

#[test]
fn what_ended_unsent_is_in_the_log_before_anything_is_written_behind_it() {
    let mut world = World::durable(1, 8);
    world.logs = false;
    let never = world.submit_to(Lane::Normal, None, 60_000, &[0]);
    let behind = world.submit(Lane::Normal);
    world.durable = false;
    let volatile = world.submit(Lane::Normal);
    assert_eq!(logged(&world), [(never, 0, Code::TOO_LARGE, By::Server)]);
    // After a crash in this moment nobody would know that it shall not be sent any more, and it would come after the other.
    assert_eq!(world.devices[0].numbers(), [volatile]);
    world.log();
    assert_eq!(world.devices[0].numbers(), [volatile, behind]);
}

#[test]
fn settled_stays_below_what_is_not_logged_whatever_is_logged_behind_it() {
    let mut world = World::durable(1, 16);
    world.devices[0].window_orders = 6;
    world.cut(0);
    world.advance(2_000);
    world.logs = false;
    let numbers: Vec<u64> = (0..3).map(|_| world.submit(Lane::Normal)).collect();
    assert_eq!(world.devices[0].numbers(), numbers);
    let entries: Vec<LogEntry> = world.unlogged.drain(..).collect();
    world.confirm(entries[2]);
    world.confirm(entries[0]);
    world.advance(5_000);
    assert_eq!(world.devices[0].durable.settled[2], numbers[0]);
    // The third one holds its credit still: the scripted device counts what is in its window.
    world.logs = true;
    world.durable = false;
    for _ in 0..8 {
        world.submit(Lane::Normal);
    }
    world.durable = true;
    for _ in 0..8 {
        world.submit(Lane::Normal);
    }
    world.confirm(entries[1]);
    world.advance(5_000);
    assert_eq!(world.devices[0].durable.settled[2], world.number);
    assert_eq!(world.settled().len(), 19);
}

#[test]
fn who_leaves_does_not_wait_for_the_log() {
    for drain in [true, false] {
        let mut world = stalled(2, 8);
        world.devices[1].habit = Habit::Ack;
        let number = world.submit(Lane::Normal);
        if drain {
            world.fleet.drain(world.now, Duration::from_secs(3));
            world.drain();
            assert_eq!(world.devices[0].byes, [bye::Code::DRAINING], "nothing is out there");
            assert_eq!(world.devices[1].byes, []);
            world.devices[1].finish(Code::APPLIED);
        } else {
            world.fleet.stop(world.now);
        }
        world.drain();
        assert!(world.fleet.is_stopped());
        assert!(world.mark(number, 0).is_unlogged());
        // What is written down meanwhile still counts.
        world.log();
        assert_eq!(codes(&world)[0], (number, Code::APPLIED));
    }
}

#[test]
fn a_removed_device_is_gone_once_its_last_end_is_logged() {
    let mut world = World::durable(1, 8);
    let ended = [world.submit(Lane::Normal), 0];
    world.devices[0].habit = Habit::Ack;
    world.logs = false;
    let out = world.submit(Lane::Normal);
    answer(&mut world, out, Lane::Normal, Code::FAILED, 0);
    let written = world.submit(Lane::Normal);
    world.devices[0].window_orders = 1;
    world.devices[0].send(&Frame::Window(wire_format::frame::Window { orders: 1, bytes: 1_000 }));
    world.drain();
    let pending = world.submit(Lane::Normal);
    assert!(world.fleet.remove_device(world.now, DeviceIndex(0)));
    world.drain();
    let expected = [
        (ended[0], 0, Code::APPLIED, By::Device),
        (out, 0, Code::FAILED, By::Device),
        (pending, 0, Code::NOT_TARGETED, By::Server),
        (written, 0, Code::UNKNOWN, By::Server),
    ];
    assert_eq!(logged(&world), expected);
    let new = NewDevice { id: Some(id(7)), address: None };
    assert_eq!(world.fleet.add_device(world.now, new), Err(AddError::Full), "marks still name it");
    world.log();
    assert_eq!(world.settled().len(), 4);
    assert_eq!(world.fleet.add_device(world.now, new), Ok(DeviceIndex(0)));
}

#[test]
fn what_was_not_told_to_be_logged_is_not_logged() {
    let mut world = stalled(1, 80);
    let number = world.submit(Lane::Normal);
    let entry = world.unlogged[0];
    for stranger in [
        LogEntry { number: 99, ..entry },
        LogEntry { first_code: Code::FAILED, ..entry },
        LogEntry { device: DeviceIndex(7), ..entry },
    ] {
        assert!(world.fleet.logged(world.now, stranger));
        world.drain();
        assert!(world.mark(number, 0).is_unlogged());
    }
    world.durable = false;
    let volatile = world.submit(Lane::Normal);
    assert!(world.fleet.logged(world.now, LogEntry { number: volatile, ..entry }));
    world.confirm(entry);
    world.confirm(entry);
    assert_eq!(codes(&world), [(volatile, Code::APPLIED), (number, Code::APPLIED)]);
}

#[test]
fn a_confirmation_waits_for_room_among_the_events() {
    let mut world = World::with(1, 80, durable_log);
    world.durable = true;
    world.devices[0].window_orders = 200;
    world.logs = false;
    world.advance(100);
    world.log();
    for _ in 0..70 {
        world.submit(Lane::Normal);
    }
    let entries: Vec<LogEntry> = world.unlogged.drain(..).collect();
    let taken = entries.iter().take_while(|entry| world.fleet.logged(world.now, **entry)).count();
    assert_eq!(taken, 64);
    world.drain();
    for entry in &entries[taken..] {
        assert!(world.fleet.logged(world.now, *entry));
    }
    world.drain();
    assert_eq!(world.settled().len(), 70);
}

#[test]
fn a_repetition_that_is_taken_back_holds_back_what_comes_behind_it_until_it_is_logged() {
    let mut world = keeping(8);
    let first = world.submit(Lane::Normal);
    world.cut(0);
    world.meet_again(448);
    assert_eq!(world.mark(first, 0), Mark::REPEAT);
    world.logs = false;
    assert!(world.fleet.cancel(world.now, first));
    assert_eq!(world.mark(first, 0), Mark::RECALLED);
    world.drain();
    assert!(world.mark(first, 0).is_lingering());
    world.devices[0].habit = Habit::Apply;
    world.devices[0].room = usize::MAX;
    world.fleet.handle_writable(world.now, DeviceIndex(0));
    let cancelled = world.unlogged.pop_front().unwrap();
    world.log();
    let second = world.submit(Lane::Normal);
    world.log();
    world.advance(6_000);
    // A crash now brings the first one back: behind the second it would be taken for a duplicate.
    assert!(!world.devices[0].effects.contains_key(&second));
    world.confirm(cancelled);
    world.logs = true;
    world.advance(6_000);
    assert_eq!(world.devices[0].durable.settled[2], second);
    assert_eq!(codes(&world), [(first, Code::CANCELLED), (second, Code::APPLIED)]);
    assert!(!world.devices[0].effects.contains_key(&first));
}

#[test]
fn an_outcome_that_comes_while_its_repetition_is_cut_counts_once() {
    for dies in [false, true] {
        let mut world = keeping(8);
        let number = world.submit(Lane::Normal);
        world.cut(0);
        // The device is told of the session and of a part of the order; its outcome of the first delivery comes late.
        world.meet_again(448 + 60);
        assert_eq!(world.mark(number, 0), Mark::SENT);
        world.logs = false;
        answer(&mut world, number, Lane::Normal, Code::APPLIED, 0);
        assert!(world.mark(number, 0).is_unlogged());
        world.log();
        assert_eq!(
            (codes(&world), world.settled()),
            (vec![(number, Code::APPLIED)], vec![]),
            "its frame is pinned"
        );
        if dies {
            world.cut(0);
        } else {
            world.devices[0].room = usize::MAX;
            world.fleet.handle_writable(world.now, DeviceIndex(0));
        }
        world.drain();
        assert_eq!(world.settled(), [number]);
    }
}
