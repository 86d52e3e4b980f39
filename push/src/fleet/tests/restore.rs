//! Orders of the durable log after a restart of the server, and devices that come back to it.

use super::*;
use crate::config::Runs;

/// The same devices, and a server that has only its log. Nobody is dialled yet.
fn restarted(world: World, traces: &[DeviceTrace]) -> World {
    let mut runs = Runs::NONE;
    runs.push(RUN, 1);
    runs.push(RUN + 1, world.number + 1);
    let mut next = World::empty(world.devices.len(), 64, |config| {
        config.lineage = Lineage([5; 16]);
        config.durable = Some(LogId { lineage: DURABLE, run: RUN + 1, runs });
    });
    next.now = world.now + Duration::from_secs(60);
    next.devices = world.devices;
    (next.number, next.durable) = (world.number, true);
    next.fleet.note_head(true, world.number);
    for number in 0..next.devices.len() {
        next.devices[number].connected = false;
        let device = next.fleet.add_device(next.now, NewDevice { id: Some(id(number)), address: None });
        if let Some(trace) = traces.get(number) {
            next.fleet.restore_device(device.unwrap(), *trace);
        }
    }
    next
}

/// A session in which these numbers were written, by lane, and which is over.
fn closed(upto: [u64; 4]) -> DeviceTrace {
    DeviceTrace { boot: 1, open: false, upto, ended: [0; 4] }
}

/// A device whose journal the server knows of, with a window of so many orders.
fn keeping_floors(window: u16) -> World {
    let mut world = World::durable(1, 16);
    world.devices[0].window_orders = window;
    world.devices[0].persisted = true;
    world.cut(0);
    world.advance(20_000);
    world
}

/// What the log has of the first device: its last session.
fn last_trace(world: &World) -> DeviceTrace {
    let mut traces = world.events.iter().filter_map(|event| match *event {
        Event::Trace(Trace { boot, open, upto, ended, .. }) => Some(DeviceTrace { boot, open, upto, ended }),
        _ => None,
    });
    traces.next_back().expect("a session")
}

fn order(number: u64, flags: KindFlags, marks: &[Mark]) -> NewOrder<Vec<u8>, Vec<u8>> {
    let marks = marks.iter().map(|mark| mark.0).collect();
    as_durable(new_order(number, Lane::Normal, flags, Some(HOUR), 8, marks))
}

const ONCE: KindFlags = KindFlags::NONE;
const AGAIN: KindFlags = KindFlags::IDEMPOTENT;

impl World {
    fn restore(&mut self, order: NewOrder<Vec<u8>, Vec<u8>>) -> Submitted {
        let left = NewOrder { lifetime: order.lifetime.map(|all| all / 2), ..order };
        self.fleet.restore(self.now, left).expect("taken")
    }

    /// Dials whoever there is.
    fn start(&mut self) {
        for number in 0..self.devices.len() {
            self.fleet.set_address(self.now, DeviceIndex(number as u32), address(number));
        }
        self.advance(1_500);
    }
}

/// A device that got orders 1 (idempotent) and 2 (not) and answered neither.
fn interrupted() -> World {
    let mut world = World::durable(1, 8);
    world.devices[0].habit = Habit::Ack;
    world.submit(Lane::Normal);
    world.submit_once(Lane::Normal);
    world
}

fn replays(world: &World, from: usize) -> Vec<(u64, bool, Option<u32>)> {
    let orders = world.devices[0].orders[from..].iter();
    orders.map(|(delivery, number, _)| (*number, delivery.replay, delivery.remaining_ms)).collect()
}

#[test]
fn an_outcome_the_device_repeats_is_that_of_a_restored_order() {
    let mut world = interrupted();
    world.devices[0].finish(Code::FAILED);
    let mut world = restarted(world, &[closed([0, 0, 2, 0])]);
    world.restore(order(1, AGAIN, &[Mark::REPEAT]));
    world.restore(order(2, ONCE, &[Mark::REPEAT]));
    world.start();
    assert_eq!(world.outcomes(), [(0, 1, Code::FAILED), (0, 2, Code::FAILED)]);
    assert_eq!(world.devices[0].numbers(), [1, 2], "nothing was sent again");
    world.advance(5_000);
    assert_eq!((world.settled(), world.devices[0].durable.settled[2]), (vec![1, 2], 2));
    assert!(world.devices[0].effects.values().all(|&times| times == 1));
}

#[test]
fn what_the_same_boot_did_not_begin_is_sent_again_with_what_is_left_of_its_lifetime() {
    let mut world = restarted(interrupted(), &[closed([0, 0, 2, 0])]);
    world.restore(order(1, AGAIN, &[Mark::REPEAT]));
    world.restore(order(2, ONCE, &[Mark::REPEAT]));
    world.restore(order(3, ONCE, &[Mark::PENDING]));
    world.number = 3;
    world.start();
    let half = replays(&world, 2)[0].2;
    assert!(half.is_some_and(|half| (1_798_000..=1_800_000).contains(&half)), "{half:?}");
    assert_eq!(replays(&world, 2), [(1, true, half), (2, true, half), (3, false, half)]);
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.settled(), [1, 2, 3]);
    let new = world.submit(Lane::Normal);
    assert_eq!(replays(&world, 5), [(new, false, Some(3_600_000))]);
}

#[test]
fn what_an_unended_session_may_have_got_is_in_the_next_trace() {
    let trace = DeviceTrace { open: true, ..closed([0; 4]) };
    let mut world = restarted(interrupted(), &[trace]);
    world.logs = false;
    world.restore(order(1, AGAIN, &[trace.mark(Lane::Normal, 1)]));
    world.restore(order(2, ONCE, &[trace.mark(Lane::Normal, 2)]));
    world.start();
    // If the server goes down now, the next one must not believe that they were never written.
    assert_eq!(traces::traces(&world), [(0, 1, true, [0, 0, 2, 0])]);
}

#[test]
fn a_new_boot_without_a_journal_leaves_what_may_have_been_done_in_doubt() {
    let mut world = interrupted();
    world.devices[0].reboot();
    world.devices[0].habit = Habit::Apply;
    let mut world = restarted(world, &[closed([0, 0, 2, 0])]);
    world.restore(order(1, AGAIN, &[Mark::REPEAT]));
    world.restore(order(2, ONCE, &[Mark::REPEAT]));
    world.restore(order(3, ONCE, &[Mark::PENDING]));
    world.number = 3;
    world.start();
    let outcomes = [(0, 2, Code::IN_DOUBT), (0, 1, Code::APPLIED), (0, 3, Code::APPLIED)];
    assert_eq!(world.outcomes(), outcomes);
    assert!(!world.devices[0].effects.contains_key(&2), "it is never repeated");
    assert!(!world.events.contains(&Event::JournalLost { device: DeviceIndex(0) }), "it never had one");
    assert_eq!(world.fleet.stats().reboots, 1);
}

#[test]
fn a_new_boot_with_its_journal_gets_everything_above_its_floor() {
    let mut world = interrupted();
    world.devices[0].persisted = true;
    world.devices[0].reboot();
    world.devices[0].habit = Habit::Apply;
    let mut world = restarted(world, &[closed([0, 0, 2, 0])]);
    world.restore(order(1, AGAIN, &[Mark::REPEAT]));
    world.restore(order(2, ONCE, &[Mark::REPEAT]));
    world.start();
    assert_eq!(world.outcomes(), [(0, 1, Code::APPLIED), (0, 2, Code::APPLIED)]);
}

#[test]
fn a_floor_below_a_logged_end_means_that_the_journal_was_lost() {
    for (ended, lost) in [(3, false), (4, true)] {
        let mut world = World::durable(1, 8);
        for _ in 0..3 {
            world.submit(Lane::Normal);
        }
        world.devices[0].habit = Habit::Ack;
        world.submit_once(Lane::Normal);
        world.submit_once(Lane::Normal);
        world.devices[0].persisted = true;
        let trace = DeviceTrace { ended: [0, 0, ended, 0], ..closed([0, 0, 5, 0]) };
        let mut world = restarted(world, &[trace]);
        world.devices[0].habit = Habit::Apply;
        world.restore(order(5, ONCE, &[Mark::REPEAT]));
        world.start();
        assert_eq!(world.events.contains(&Event::JournalLost { device: DeviceIndex(0) }), lost);
        assert_eq!(world.fleet.stats().journals_lost, u64::from(lost));
        let code = if lost { Code::IN_DOUBT } else { Code::APPLIED };
        assert_eq!(world.outcomes(), [(0, 5, code)]);
    }
}

#[test]
fn what_a_device_without_a_journal_ended_in_an_earlier_boot_is_not_held_against_it() {
    let mut world = World::durable(1, 8);
    world.submit_once(Lane::Normal);
    world.devices[0].reboot();
    world.devices[0].habit = Habit::Ack;
    world.cut(0);
    world.advance(20_000);
    let number = world.submit_once(Lane::Normal);
    let trace = last_trace(&world);
    assert_eq!((trace.boot, trace.open, trace.ended), (2, true, [0; 4]));
    let mut world = restarted(world, &[trace]);
    world.restore(order(number, ONCE, &[Mark::REPEAT]));
    world.devices[0].started = vec![StartedEntry { durable: true, ..begun(number, Lane::Normal, false) }];
    world.start();
    assert_eq!(world.outcomes(), [], "it is at work there");
    world.devices[0].finish(Code::APPLIED);
    world.advance(5_000);
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
    assert_eq!(world.devices[0].durable.settled[2], number);
}

#[test]
fn a_journal_that_was_lost_and_told_of_is_not_lost_once_more_after_a_restart() {
    let lost = Event::JournalLost { device: DeviceIndex(0) };
    let mut world = World::durable(1, 8);
    world.devices[0].persisted = true;
    world.submit(Lane::Normal);
    assert_eq!(world.outcomes(), [(0, 1, Code::APPLIED)]);
    // It comes back with a new journal and does not know that it had another one.
    world.devices[0].reboot();
    world.devices[0].forget();
    world.cut(0);
    world.advance(20_000);
    assert!(world.events.contains(&lost));
    let trace = last_trace(&world);
    assert_eq!((trace.boot, trace.open, trace.ended), (2, true, [0; 4]));
    world.devices[0].habit = Habit::Ack;
    let number = world.submit_once(Lane::Normal);
    let mut world = restarted(world, &[trace]);
    world.restore(order(number, ONCE, &[Mark::REPEAT]));
    world.devices[0].started = vec![StartedEntry { durable: true, ..begun(number, Lane::Normal, false) }];
    world.start();
    assert!(!world.events.contains(&lost));
    world.devices[0].finish(Code::APPLIED);
    world.advance(5_000);
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
    let trace = last_trace(&world);
    assert_eq!(trace.ended, [0; 4], "told when the session began");
    world.cut(0);
    world.advance(100);
    assert_eq!(last_trace(&world).ended, [0, 0, number, 0]);
}

#[test]
fn a_journal_the_device_lost_is_told_of() {
    let mut world = interrupted();
    world.devices[0].persisted = true;
    world.devices[0].journal_lost = true;
    world.devices[0].reboot();
    world.cut(0);
    world.advance(20_000);
    assert!(world.events.contains(&Event::JournalLost { device: DeviceIndex(0) }));
    assert_eq!(world.outcomes(), [(0, 2, Code::IN_DOUBT)]);
}

#[test]
fn marks_stand_where_they_stood() {
    let mut world = restarted(World::durable(6, 8), &[closed([0; 4]); 6]);
    let marks = [
        Mark::ended(Code::APPLIED),
        Mark::NOT_TARGETED,
        Mark::PENDING,
        Mark::RETRY_BUSY,
        Mark::RETRYING,
        Mark::ended(Code::EXPIRED),
    ];
    assert_eq!(world.restore(order(1, AGAIN, &marks)), Submitted { targets: 3, refused: 0 });
    world.start();
    assert_eq!(world.outcomes(), [(2, 1, Code::APPLIED)], "what was final is not told again");
    assert!(world.fleet.retry_begins(1, DeviceIndex(3)));
    assert!(!world.fleet.retry_begins(1, DeviceIndex(4)));
    for device in [3, 4] {
        assert!(world.fleet.resolve(world.now, 1, DeviceIndex(device), Code::FAILED));
    }
    world.drain();
    assert_eq!(world.outcomes()[1..], [(3, 1, Code::FAILED), (4, 1, Code::FAILED)]);
    assert_eq!(world.settled(), [1]);
    let over = [Mark::ended(Code::APPLIED); 6];
    assert_eq!(world.restore(order(2, AGAIN, &over)), Submitted { targets: 0, refused: 0 });
    world.drain();
    assert_eq!(world.settled(), [1, 2]);
}

#[test]
fn a_lifetime_that_is_over_ends_what_was_never_written() {
    let mut world = World::durable(3, 8);
    world.devices[1].habit = Habit::Ack;
    world.devices[1].persisted = true;
    world.submit_to(Lane::Normal, Some(HOUR), 8, &[1]);
    world.drain();
    let mut world = restarted(world, &[closed([0; 4]), closed([0, 0, 1, 0]), closed([0; 4])]);
    let marks = [Mark::PENDING, Mark::REPEAT, Mark::RETRY_NO_SPACE];
    let order = NewOrder { lifetime: Some(Duration::ZERO), ..order(1, AGAIN, &marks) };
    assert!(world.fleet.restore(world.now, order).is_ok());
    world.fleet.handle_timeout(world.now);
    world.advance(10);
    assert_eq!(world.outcomes(), [(0, 1, Code::EXPIRED), (2, 1, Code::NO_SPACE)]);
    world.start();
    let (delivery, number, _) = world.devices[1].orders[1];
    assert_eq!((number, delivery.replay, delivery.remaining_ms), (1, true, Some(1)), "the device knows");
}

#[test]
fn a_cancelled_order_is_cancelled_again() {
    let mut world = World::durable(2, 8);
    world.devices[1].habit = Habit::Ack;
    world.submit_to(Lane::Normal, Some(HOUR), 8, &[1]);
    world.drain();
    let mut world = restarted(world, &[closed([0; 4]), closed([0, 0, 1, 0])]);
    world.restore(order(1, ONCE, &[Mark::PENDING, Mark::REPEAT]));
    assert!(world.fleet.cancel(world.now, 1));
    world.start();
    assert_eq!(world.outcomes(), [(0, 1, Code::CANCELLED), (1, 1, Code::CANCELLED)]);
    assert_eq!(world.devices[1].numbers(), [1], "it was not begun and is not sent again");
}

#[test]
fn of_versions_the_newest_is_owed() {
    let mut world = restarted(World::durable(4, 8), &[closed([0, 0, 0, 1]); 4]);
    let version = |number, lifetime, marks: [Mark; 4]| {
        let marks = marks.iter().map(|mark| mark.0).collect();
        as_durable(keyed_order(number, (Lane::Bulk, AGAIN), (7, number), None, Some(lifetime), 8, marks))
    };
    let applied = Mark::ended(Code::APPLIED);
    world.restore(version(1, HOUR, [Mark::PENDING, Mark::REPEAT, Mark::RETRY_BUSY, Mark::PENDING]));
    // What is left of its lifetime may be less than the older one has: they were rounded one by one.
    let overflow = Mark::ended(Code::OVERFLOW);
    world.restore(version(2, HOUR / 4, [applied, Mark::PENDING, Mark::PENDING, overflow]));
    world.drain();
    assert_eq!(world.outcomes(), [(0, 1, Code::SUPERSEDED), (2, 1, Code::SUPERSEDED)]);
    world.start();
    assert_eq!(world.devices[3].numbers(), [1]);
    assert_eq!(world.devices[1].numbers(), [1, 2], "what may have been begun decides on the device");
    assert_eq!(world.fleet.live_orders(), 0);
}

#[test]
fn what_cannot_be_restored_is_handed_back() {
    let mut world = restarted(World::durable(1, 8), &[closed([0; 4])]);
    let good = order(5, ONCE, &[Mark::REPEAT]);
    let volatile = new_order(5, Lane::Normal, ONCE, Some(HOUR), 8, vec![Mark::REPEAT.0]);
    let long = HOUR * 24 * 30 + HOUR;
    for (order, why) in [
        (volatile, SubmitFault::NoLog),
        (NewOrder { lifetime: None, ..good.clone() }, SubmitFault::Frame),
        (NewOrder { lifetime: Some(long), ..good.clone() }, SubmitFault::Lifetime),
        (NewOrder { marks: vec![Mark::SENT.0], ..good.clone() }, SubmitFault::Marks),
        (NewOrder { marks: vec![Mark::waiting(Code::APPLIED).0], ..good.clone() }, SubmitFault::Marks),
        (NewOrder { marks: vec![Mark::WITHDRAWN.0], ..good.clone() }, SubmitFault::Marks),
    ] {
        let refused = world.fleet.restore(world.now, order.clone()).unwrap_err();
        assert_eq!((refused.why, refused.order), (why, order));
    }
    world.restore(good.clone());
    let again = world.fleet.restore(world.now, good).unwrap_err();
    assert_eq!(again.why, SubmitFault::NumberNotRising { last: 5 });
}

#[test]
fn a_device_that_is_not_known_any_more_was_not_meant_unless_it_may_have_got_the_order() {
    let mut world = restarted(World::durable(1, 8), &[closed([0; 4])]);
    let marks = [Mark::PENDING, Mark::REPEAT, Mark::RETRY_BUSY, Mark::PENDING];
    let restored = world.restore(order(1, ONCE, &marks));
    assert_eq!(restored, Submitted { targets: 1, refused: 3 });
    world.drain();
    let not_meant = Code::NOT_TARGETED;
    assert_eq!(world.outcomes(), [(1, 1, Code::UNKNOWN), (2, 1, not_meant), (3, 1, not_meant)]);
}

#[test]
fn who_may_have_been_sent_an_order_is_read_off_the_last_trace() {
    let trace = closed([0, 3, 0, 9]);
    let marks = [0, 3, 4].map(|number| trace.mark(Lane::Interactive, number));
    assert_eq!(marks, [Mark::REPEAT, Mark::REPEAT, Mark::PENDING]);
    assert_eq!((trace.mark(Lane::Bulk, 9), trace.mark(Lane::Bulk, 10)), (Mark::REPEAT, Mark::PENDING));
    let open = DeviceTrace { open: true, ..trace };
    assert_eq!(open.mark(Lane::Urgent, 99), Mark::REPEAT, "it was open when the server stopped");
}

#[test]
fn a_backlog_of_repetitions_leaves_room_for_what_is_volatile() {
    let mut world = restarted(World::durable(1, 8), &[DeviceTrace { open: true, ..closed([0; 4]) }]);
    world.devices[0].window_orders = 4;
    for number in 1..=40 {
        world.restore(order(number, ONCE, &[Mark::REPEAT]));
    }
    world.number = 40;
    world.logs = false;
    world.start();
    world.log();
    world.advance(1_000);
    assert_eq!(world.devices[0].numbers(), [1, 2], "half the window: nothing of it is logged");
    world.durable = false;
    let volatile = world.submit(Lane::Normal);
    assert_eq!(world.devices[0].numbers()[2..], [volatile]);
    world.logs = true;
    world.log();
    world.advance(2_000);
    assert_eq!(world.settled().len(), 41);
    assert!(world.devices[0].effects.values().all(|&times| times == 1));
}

#[test]
fn a_device_that_never_heard_of_the_log_has_forgotten_nothing() {
    // Its first session broke before a byte of the first order was read.
    for (reboots, named) in [(false, false), (true, false), (false, true)] {
        let mut world = interrupted();
        if reboots {
            world.devices[0].boot += 1;
        }
        world.devices[0].persisted = true;
        world.devices[0].forget();
        let upto = if named { 1 } else { 0 };
        let mut world = restarted(world, &[DeviceTrace { open: true, ..closed([0, upto, 0, 0]) }]);
        world.devices[0].habit = Habit::Apply;
        world.devices[0].shy = true;
        world.restore(order(2, ONCE, &[Mark::REPEAT]));
        world.start();
        let code = if reboots || named { Code::IN_DOUBT } else { Code::APPLIED };
        assert_eq!(world.outcomes(), [(0, 2, code)], "{reboots} {named}");
    }
}

#[test]
fn what_ended_and_was_forgotten_is_asked_for_although_later_outcomes_fill_the_window() {
    // The log has lost an outcome that was settled: an older copy of it, or a record that has rotted.
    for window in [1, 2, 3] {
        let mut world = keeping_floors(window);
        let first = world.submit(Lane::Normal);
        world.advance(5_000);
        assert_eq!(world.devices[0].durable.settled[2], first);
        world.logs = false;
        let later: Vec<_> = (0..window).map(|_| world.submit(Lane::Normal)).collect();
        let mut world = restarted(world, &[closed([0, 0, u64::from(window) + 1, 0])]);
        world.devices[0].finish(Code::APPLIED);
        for number in first..=first + u64::from(window) {
            world.restore(order(number, AGAIN, &[Mark::REPEAT]));
        }
        // What waits for the window does not stand before what makes room in it.
        world.number = later.iter().copied().max().unwrap_or(first);
        world.submit(Lane::Urgent);
        world.start();
        world.advance(10_000);
        let forgotten = world.outcomes().into_iter().find(|(_, number, _)| *number == first);
        assert_eq!(forgotten, Some((0, first, Code::DUPLICATE)), "a window of {window}");
        assert_eq!(world.fleet.live_orders(), 0, "a window of {window}");
        assert!(world.devices[0].effects.values().all(|&times| times == 1));
    }
}

#[test]
fn what_the_window_has_no_place_for_is_forgotten_only_once_the_device_has_said_all_it_had_to() {
    let mut world = keeping_floors(1);
    let first = world.submit(Lane::Normal);
    world.advance(5_000);
    world.logs = false;
    world.submit(Lane::Normal);
    let mut world = restarted(world, &[closed([0, 0, first + 1, 0])]);
    world.devices[0].finish(Code::APPLIED);
    for number in [first, first + 1] {
        world.restore(order(number, AGAIN, &[Mark::REPEAT]));
    }
    world.start();
    // Whatever it says is on its way for seconds.
    world.devices[0].frozen = true;
    world.advance(2_500);
    let is_first = |&(_, number, _): &(u32, u64, Code)| number == first;
    assert_eq!(world.outcomes().into_iter().find(is_first), None, "it may be on its way as well");
    assert!(world.fleet.is_open(DeviceIndex(0)));
    world.devices[0].frozen = false;
    world.devices[0].read(&[]);
    world.advance(10_000);
    assert_eq!(world.outcomes().into_iter().find(is_first), Some((0, first, Code::DUPLICATE)));
    assert_eq!(world.fleet.live_orders(), 0);
}

#[test]
fn an_order_too_large_for_a_device_ends_although_its_window_is_full_of_what_waits_for_that() {
    let mut world = keeping_floors(1);
    let (urgent, large) = (world.submit(Lane::Urgent), world.submit(Lane::Bulk));
    world.advance(5_000);
    assert_eq!(world.devices[0].durable.settled, [urgent, 0, 0, large]);
    world.logs = false;
    let last = world.submit(Lane::Bulk);
    // An older copy of the log: it has none of their outcomes, and the urgent one wants a place in the window first.
    let mut world = restarted(world, &[closed([urgent, 0, 0, last])]);
    for (number, lane, payload) in
        [(urgent, Lane::Urgent, 8), (large, Lane::Bulk, 20_000), (last, Lane::Bulk, 8)]
    {
        let marks = vec![Mark::REPEAT.0];
        world.restore(as_durable(new_order(number, lane, AGAIN, Some(HOUR), payload, marks)));
    }
    world.start();
    world.advance(10_000);
    assert!(world.outcomes().contains(&(0, large, Code::TOO_LARGE)), "{:?}", world.outcomes());
    assert_eq!(world.fleet.live_orders(), 0);
}

#[test]
fn what_the_log_knows_nothing_of_any_more_ends_although_the_window_is_full_of_such_orders() {
    let mut world = keeping_floors(4);
    let numbers: Vec<_> = (0..5).map(|_| world.submit(Lane::Urgent)).collect();
    world.advance(5_000);
    assert_eq!(world.devices[0].durable.settled[0], 5);
    // An older copy of the log: only the first one had been written then.
    let mut world = restarted(world, &[closed([1, 0, 0, 0])]);
    for &number in &numbers {
        let mark = if number == 1 { Mark::REPEAT } else { Mark::PENDING };
        let order = new_order(number, Lane::Urgent, AGAIN, Some(HOUR), 8, vec![mark.0]);
        world.restore(as_durable(order));
    }
    world.start();
    world.advance(10_000);
    let all: Vec<_> = numbers.iter().map(|&number| (0, number, Code::DUPLICATE)).collect();
    let mut outcomes = world.outcomes();
    outcomes.sort_unstable_by_key(|&(_, number, _)| number);
    assert_eq!((outcomes, world.fleet.live_orders()), (all, 0));
}

#[test]
fn what_the_log_has_as_never_written_ends_as_the_device_says_that_has_ended_it() {
    for window in [1, 2, 3, 8] {
        let mut world = keeping_floors(window);
        world.logs = false;
        let numbers: Vec<_> = (0..window).map(|_| world.submit(Lane::Urgent)).collect();
        world.advance(1_000);
        let ended = world.devices[0].effects.len();
        // A copy of the log from before the session: nothing of it had left.
        let mut world = restarted(world, &[closed([0; 4])]);
        for &number in &numbers {
            let order = new_order(number, Lane::Urgent, ONCE, Some(HOUR), 8, vec![Mark::PENDING.0]);
            world.restore(as_durable(order));
        }
        world.start();
        world.advance(10_000);
        let mut outcomes = world.outcomes();
        outcomes.sort_unstable_by_key(|&(_, number, _)| number);
        let all: Vec<_> = numbers.iter().map(|&number| (0, number, Code::APPLIED)).collect();
        assert_eq!((outcomes, world.fleet.live_orders()), (all, 0), "a window of {window}, {ended} ended");
        assert!(world.devices[0].effects.values().all(|&times| times == 1));
        let reported =
            world.events.iter().any(|event| matches!(event, Event::Outcome { code: Code::DUPLICATE, .. }));
        assert!(!reported, "it said so without being asked");
    }
}
