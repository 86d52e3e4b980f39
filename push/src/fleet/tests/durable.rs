//! Orders of the durable log: what ended counts once it is on disk.

use super::*;

/// A world whose log has stopped taking anything.
pub(super) fn stalled(devices: usize, orders: usize) -> World {
    let mut world = World::durable(devices, orders);
    world.logs = false;
    world
}

fn logged(world: &World) -> Vec<(u64, u32, Code, By)> {
    let entries = world.events.iter().filter_map(|event| match event {
        Event::Log(entry) => Some((entry.number, entry.device.0, entry.first_code, entry.by)),
        _ => None,
    });
    entries.collect()
}

#[test]
fn an_outcome_counts_once_it_is_logged() {
    let mut world = stalled(2, 8);
    let number = world.submit(Lane::Normal);
    assert!(world.devices.iter().all(|device| device.orders[0].0.durable));
    let applied = |device| (number, device, Code::APPLIED, By::Device);
    assert_eq!(logged(&world), [applied(0), applied(1)]);
    assert_eq!((world.outcomes(), world.settled()), (vec![], vec![]));
    assert_eq!(world.mark(number, 0).unlogged_code(), Some(Code::APPLIED));
    assert_eq!(world.fleet.view(DeviceIndex(0)).map(|view| (view.out, view.unlogged)), Some((0, 1)));
    world.advance(10_000);
    assert_eq!(world.devices[0].durable.settled, [0; 4], "nobody may forget what is not on disk");
    let entry = world.unlogged.pop_front().unwrap();
    world.confirm(entry);
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
    world.log();
    assert_eq!(world.settled(), [number]);
    world.advance(5_000);
    assert_eq!(world.devices[0].durable.settled[2], number);
    assert!(world.devices.iter().all(|device| device.ring.is_empty()));
    assert_eq!(world.fleet.stats().outcomes.of(Code::APPLIED), 2);
}

#[test]
fn a_hello_names_both_logs_and_their_heads() {
    let mut world = World::durable(1, 8);
    world.submit(Lane::Normal);
    world.durable = false;
    world.submit(Lane::Normal);
    world.cut(0);
    world.advance(20_000);
    let hello = world.devices[0].hellos[1];
    assert_eq!((hello.durable.lineage, hello.durable.run, hello.durable.head), (DURABLE, RUN, 1));
    assert_eq!((hello.volatile.lineage, hello.volatile.head), (LINEAGE, 2));
}

/// One device that keeps what it gets.
fn keeping(orders: usize) -> World {
    let mut world = World::durable(1, orders);
    world.devices[0].habit = Habit::Ack;
    world
}

/// It ends an order in its own way.
pub(super) fn answer(world: &mut World, number: u64, lane: Lane, code: Code, detail: u8) {
    world.devices[0].kept.retain(|kept| kept.number != number);
    let entry = Entry { number, code, detail, lane, ms: 7 };
    world.devices[0].apply(entry);
    world.devices[0].send_outcomes(&[entry]);
    world.drain();
}

fn codes(world: &World) -> Vec<(u64, Code)> {
    world.outcomes().into_iter().map(|(_, number, code)| (number, code)).collect()
}

#[test]
fn numbers_rise_in_each_log_and_the_lower_one_of_a_lane_goes_first() {
    let mut world = World::new(1, 16);
    let refused = new_order(1, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0]);
    let refused = world.fleet.submit(world.now, as_durable(refused)).unwrap_err();
    assert_eq!(refused.why, SubmitFault::NoLog);

    let mut world = World::with(1, 16, durable_log);
    for (number, durable, lane) in [
        (10, false, Lane::Normal),
        (12, false, Lane::Normal),
        (9, true, Lane::Normal),
        (11, true, Lane::Normal),
        (13, true, Lane::Urgent),
        (14, false, Lane::Bulk),
    ] {
        let order = new_order(number, lane, KindFlags::NONE, None, 8, vec![Mark::PENDING.0]);
        let order = if durable { as_durable(order) } else { order };
        assert!(world.fleet.submit(world.now, order).is_ok(), "{number}");
    }
    for (number, durable, last) in [(12, false, 14), (13, true, 13)] {
        let order = new_order(number, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0]);
        let order = if durable { as_durable(order) } else { order };
        let refused = world.fleet.submit(world.now, order).unwrap_err();
        assert_eq!(refused.why, SubmitFault::NumberNotRising { last });
    }
    world.advance(100);
    assert_eq!(world.devices[0].numbers(), [13, 9, 10, 11, 12, 14], "lane by lane");
}

#[test]
fn a_log_that_takes_nothing_leaves_half_the_window_to_what_is_volatile() {
    for (window, half) in [(2, 1), (3, 1), (4, 2), (8, 4), (16, 8)] {
        let mut world = World::durable(1, 64);
        world.devices[0].window_orders = window;
        world.cut(0);
        world.advance(2_000);
        world.logs = false;
        let durable: Vec<u64> = (0..12).map(|_| world.submit(Lane::Normal)).collect();
        assert_eq!(world.devices[0].numbers(), durable[..half], "half of {window}");
        world.durable = false;
        let volatile: Vec<u64> = (0..20).map(|_| world.submit(Lane::Bulk)).collect();
        assert_eq!(world.settled(), volatile, "at its pace, in a window of {window}");
        world.log();
        world.logs = true;
        world.advance(100);
        assert_eq!(world.settled().len(), 32);
        assert!(world.devices[0].effects.values().all(|&times| times == 1));
    }
}

#[test]
fn a_window_of_one_order_takes_a_durable_one_too() {
    let mut world = World::durable(1, 8);
    world.devices[0].window_orders = 1;
    world.cut(0);
    world.advance(2_000);
    world.logs = false;
    let numbers = [world.submit(Lane::Normal), world.submit(Lane::Normal)];
    world.durable = false;
    world.submit(Lane::Normal);
    assert_eq!(world.devices[0].numbers(), numbers[..1]);
    world.log();
    world.logs = true;
    world.advance(100);
    assert_eq!(world.settled().len(), 3);
}

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
fn a_duplicate_is_logged_with_how_it_ended_first() {
    let mut world = keeping(8);
    let numbers = [world.submit(Lane::Normal), world.submit(Lane::Bulk), world.submit(Lane::Urgent)];
    world.logs = false;
    answer(&mut world, numbers[0], Lane::Normal, Code::DUPLICATE, Code::FAILED.0);
    answer(&mut world, numbers[1], Lane::Bulk, Code::DUPLICATE, 0);
    answer(&mut world, numbers[2], Lane::Urgent, Code::DUPLICATE, Code::BUSY.0);
    let entries: Vec<LogEntry> = world.unlogged.iter().copied().collect();
    assert!(entries.iter().all(|entry| entry.code == Code::DUPLICATE && entry.device_ms == 7));
    world.log();
    assert_eq!(codes(&world), [(numbers[0], Code::FAILED), (numbers[1], Code::DUPLICATE)]);
    assert_eq!(world.mark(numbers[2], 0), Mark::RETRY_BUSY);
}

#[test]
fn what_ends_unsent_is_logged_too() {
    let mut world = World::durable(2, 8);
    world.logs = false;
    world.cut(0);
    world.answer_dials = false;
    let marks = vec![Mark::PENDING.0; 3];
    world.number = 1;
    let order = new_order(1, Lane::Normal, KindFlags::NONE, Some(Duration::from_secs(5)), 8, marks);
    let submitted = world.fleet.submit(world.now, as_durable(order));
    assert_eq!(submitted, Ok(Submitted { targets: 2, refused: 1 }));
    world.advance(6_000);
    let mut told = logged(&world);
    told.sort_unstable_by_key(|entry| entry.1);
    let expected = [
        (1, 0, Code::EXPIRED, By::Server),
        (1, 1, Code::APPLIED, By::Device),
        (1, 2, Code::NOT_TARGETED, By::Server),
    ];
    assert_eq!((told, world.outcomes()), (expected.to_vec(), vec![]));
    world.log();
    assert_eq!((world.outcomes().len(), world.settled()), (3, vec![1]));
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
fn a_device_that_owes_too_much_overflows_in_the_log() {
    let max = usize::from(crate::config::OWED_MAX);
    let mut world = World::with(1, max + 1, durable_log);
    world.durable = true;
    world.answer_dials = false;
    world.logs = false;
    for _ in 0..=max {
        world.submit_to(Lane::Normal, None, 8, &[0]);
    }
    assert_eq!(world.mark(world.number, 0), Mark::OVERFLOWED);
    world.drain();
    assert_eq!(logged(&world), [(world.number, 0, Code::OVERFLOW, By::Server)]);
    world.log();
    assert_eq!((codes(&world), world.settled()), (vec![(world.number, Code::OVERFLOW)], vec![world.number]));
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
fn a_fenced_server_logs_what_it_owed() {
    let mut world = keeping(8);
    let written = world.submit(Lane::Normal);
    world.logs = false;
    let ended = world.submit(Lane::Bulk);
    answer(&mut world, ended, Lane::Bulk, Code::APPLIED, 0);
    world.devices[0].fence = Some(9);
    world.cut(0);
    let pending = world.submit(Lane::Normal);
    world.advance(1_000);
    let expected = [
        (ended, 0, Code::APPLIED, By::Device),
        (pending, 0, Code::FENCED, By::Server),
        (written, 0, Code::UNKNOWN, By::Server),
    ];
    assert_eq!(logged(&world), expected);
    assert!(world.events.contains(&Event::Fenced { device: DeviceIndex(0), fence: 9 }));
    world.log();
    assert_eq!(world.settled().len(), 3);
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
fn results_and_progress_of_what_has_ended_are_dropped() {
    let mut world = stalled(1, 8);
    let number = world.submit(Lane::Normal);
    let progress = wire_format::frame::Progress { durable: true, number, per_mille: 10, phase: 0 };
    world.devices[0].send(&Frame::Progress(progress));
    world.drain();
    assert_eq!((world.items.len(), world.fleet.stats().numbers_unknown), (0, 1));
    // Of the other log there is no such number either.
    world.logs = true;
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    for durable in [false, true] {
        world.devices[0].send(&Frame::Progress(wire_format::frame::Progress { number, durable, ..progress }));
    }
    world.drain();
    assert_eq!((world.items.len(), world.fleet.stats().numbers_unknown), (1, 2));
}

#[test]
fn a_cancel_says_which_log_it_means() {
    let mut world = keeping(8);
    let number = world.submit(Lane::Normal);
    world.durable = false;
    let other = world.submit(Lane::Normal);
    assert!(world.fleet.cancel(world.now, number) && world.fleet.cancel(world.now, other));
    world.advance(100);
    assert_eq!(world.devices[0].cancels, [number, other]);
    assert_eq!(codes(&world), [(number, Code::CANCELLED), (other, Code::CANCELLED)]);
}

#[test]
fn a_repetition_that_is_taken_back_holds_back_what_comes_behind_it_until_it_is_logged() {
    let mut world = keeping(8);
    let first = world.submit(Lane::Normal);
    world.cut(0);
    world.answer_dials = false;
    world.advance(20_000);
    world.connect(0);
    world.devices[0].room = 448;
    world.drain();
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
        world.answer_dials = false;
        world.advance(20_000);
        world.connect(0);
        // The device is told of the session and of a part of the order; its outcome of the first delivery comes late.
        world.devices[0].room = 448 + 60;
        world.drain();
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

#[test]
fn poison_and_what_is_too_large_are_logged() {
    let mut world = World::durable(1, 8);
    world.devices[0].max_body = 432;
    world.cut(0);
    world.advance(2_000);
    world.logs = false;
    let large = world.submit_to(Lane::Normal, None, 2_000, &[0]);
    world.drain();
    world.drain();
    assert_eq!(logged(&world), [(large, 0, Code::TOO_LARGE, By::Server)]);
    world.logs = true;
    world.devices[0].persisted = true;
    world.devices[0].habit = Habit::Ack;
    let poison = world.submit(Lane::Normal);
    for _ in 0..3 {
        world.advance(20_000);
        world.devices[0].reboot();
        world.cut(0);
    }
    world.advance(20_000);
    assert_eq!(codes(&world), [(large, Code::TOO_LARGE), (poison, Code::POISON)]);
}

#[test]
fn a_sync_that_took_a_part_of_the_lifetime_is_told_to_devices() {
    let mut world = World::durable(1, 8);
    let order = new_order(1, Lane::Normal, KindFlags::NONE, Some(HOUR), 8, vec![Mark::PENDING.0]);
    let left = Some(HOUR / 2);
    let refused = world.fleet.submit(world.now, NewOrder { lifetime: left, ..order.clone() }).unwrap_err();
    assert_eq!(refused.why, SubmitFault::Frame, "of the volatile log nothing waits for a sync");
    let order = as_durable(order);
    let longer = NewOrder { lifetime: Some(HOUR * 2), ..order.clone() };
    assert_eq!(world.fleet.submit(world.now, longer).unwrap_err().why, SubmitFault::Frame);
    assert!(world.fleet.submit(world.now, NewOrder { lifetime: left, ..order }).is_ok());
    world.drain();
    assert_eq!(world.devices[0].orders[0].0.remaining_ms, Some(1_800_000));
}
