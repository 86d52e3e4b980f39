//! Orders of the durable log: what ended counts once it is on disk.

use super::*;

/// A world whose log has stopped taking anything.
pub(super) fn stalled(devices: usize, orders: usize) -> World {
    let mut world = World::durable(devices, orders);
    world.logs = false;
    world
}

pub(super) fn logged(world: &World) -> Vec<(u64, u32, Code, By)> {
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
pub(super) fn keeping(orders: usize) -> World {
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

pub(super) fn codes(world: &World) -> Vec<(u64, Code)> {
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
