//! One order to many: what is written, what comes back, limits of the tables, lanes and windows.

use super::*;

#[test]
fn a_fan_out_to_1_000_devices_writes_the_shared_frame_and_settles() {
    let mut world = World::connected(1_000, 4);
    world.advance(200);
    let number = world.submit(Lane::Normal);
    for device in &world.devices {
        assert_eq!(device.writes.last(), Some(&(0, 16 + 48 + 104)), "one shared slice and no copy");
        assert_eq!(device.effects[&number], 1);
    }
    assert_eq!(world.outcomes().len(), 1_000);
    let Some(Event::Settled { number: settled, frame, first, marks }) = world.events.last() else { panic!() };
    assert_eq!((*settled, *first, frame.len()), (number, DeviceIndex(0), 168));
    assert!(marks.iter().all(|&mark| mark == Code::APPLIED.0));
    assert_eq!(world.fleet.live_orders(), 0);
    let writes: usize = world.devices.iter().map(|device| device.writes.len()).sum();
    world.advance(3_050);
    assert!(world.devices.iter().all(|device| device.settled[2] == number && device.pings >= 1));
    let with_ping: usize = world.devices.iter().map(|device| device.writes.len()).sum();
    assert!(with_ping - writes <= 2 * world.devices.len(), "SETTLED rides on the PING");
    assert_eq!(world.fleet.stats().orders_sent, 1_000);
    assert_eq!(world.fleet.stats().outcomes.of(Code::APPLIED), 1_000);
}

#[test]
fn settled_travels_with_the_next_order() {
    let mut world = World::connected(1, 4);
    world.submit(Lane::Normal);
    world.submit(Lane::Normal);
    assert_eq!(world.devices[0].writes.last(), Some(&(28, 168)));
    assert_eq!(world.devices[0].settled[2], 1);
}

#[test]
fn only_the_marked_devices_get_it() {
    let mut world = World::connected(5, 4);
    let number = world.submit_to(Lane::Urgent, None, 8, &[1, 3]);
    world.drain();
    let got: Vec<usize> = (0..5).filter(|&device| !world.devices[device].orders.is_empty()).collect();
    assert_eq!(got, [1, 3]);
    assert_eq!(world.outcomes(), [(1, number, Code::APPLIED), (3, number, Code::APPLIED)]);
    assert_eq!(world.devices[1].orders[0].0.remaining_ms, None);
}

#[test]
fn many_small_orders_leave_in_one_write() {
    let mut world = World::new(1, 64);
    world.answer_dials = false;
    for _ in 0..8 {
        world.submit_to(Lane::Normal, Some(HOUR), 100, &[0]);
    }
    world.drain();
    world.connect(0);
    world.drain();
    let (head, body) = world.devices[0].writes[1];
    assert_eq!((head, body), (7 * 168, 168), "all but the last are copied");
    assert_eq!(world.devices[0].numbers(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn lanes_are_strict_and_in_log_order_inside() {
    let mut world = World::new(1, 64);
    world.answer_dials = false;
    for lane in [Lane::Bulk, Lane::Normal, Lane::Urgent, Lane::Interactive, Lane::Normal, Lane::Urgent] {
        world.submit_to(lane, Some(HOUR), 8, &[0]);
    }
    world.drain();
    world.connect(0);
    world.drain();
    assert_eq!(world.devices[0].numbers(), [3, 6, 4, 2, 5, 1]);
}

#[test]
fn the_order_window_holds_and_keeps_a_place_for_each_urgent_lane() {
    let mut world = World::connected(1, 64);
    world.devices[0].habit = Habit::Ack;
    for _ in 0..20 {
        world.submit(Lane::Normal);
    }
    assert_eq!(world.devices[0].orders.len(), 14, "16, two of them kept free");
    world.submit(Lane::Interactive);
    world.submit(Lane::Interactive);
    assert_eq!(world.devices[0].orders.len(), 15, "one more, and one kept for lane 0");
    world.submit(Lane::Urgent);
    world.submit(Lane::Urgent);
    assert_eq!(world.devices[0].orders.len(), 16);
    // Credit comes back with SETTLED, which leaves together with what waited for it.
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.devices[0].orders.len(), 24);
}

#[test]
fn the_byte_window_holds_and_comes_back_with_receipts() {
    let mut world = World::new(1, 64);
    world.devices[0].window_bytes = 168 * 3;
    world.devices[0].habit = Habit::Silent;
    world.advance(100);
    for _ in 0..5 {
        world.submit(Lane::Normal);
    }
    assert_eq!(world.devices[0].orders.len(), 3);
    world.devices[0].send(&Frame::Ack(wire_format::frame::Ack {
        durable: false,
        lane: Lane::Normal,
        number_low: 2,
    }));
    world.drain();
    assert_eq!(world.devices[0].orders.len(), 5, "a cumulative receipt of two");
    assert_eq!(world.mark(2, 0), Mark::RECEIVED);
    assert_eq!(world.mark(3, 0), Mark::SENT);
}

#[test]
fn an_order_of_the_window_s_size_goes_and_one_byte_more_is_too_large() {
    let mut world = World::new(1, 8);
    world.devices[0].window_bytes = 16 + 48 + 104;
    world.advance(100);
    let fits = world.submit_to(Lane::Normal, Some(HOUR), 104, &[0]);
    let over = world.submit_to(Lane::Normal, Some(HOUR), 105, &[0]);
    let next = world.submit_to(Lane::Normal, Some(HOUR), 104, &[0]);
    world.advance(200);
    assert_eq!(
        world.outcomes(),
        [(0, over, Code::TOO_LARGE), (0, fits, Code::APPLIED), (0, next, Code::APPLIED)]
    );
}

#[test]
fn an_order_of_the_largest_body_goes_and_one_above_is_too_large() {
    let mut world = World::new(1, 8);
    world.devices[0].max_body = 48 + 1_000;
    world.advance(100);
    world.submit_to(Lane::Normal, Some(HOUR), 1_000, &[0]);
    world.submit_to(Lane::Normal, Some(HOUR), 1_001, &[0]);
    world.advance(200);
    assert_eq!(world.outcomes(), [(0, 2, Code::TOO_LARGE), (0, 1, Code::APPLIED)]);
}

/// Nothing was written, and yet there is something to write once it was told: a driver that goes to sleep is late.
#[test]
fn a_fleet_that_waits_for_its_events_to_be_taken_is_not_idle() {
    let mut world = World::connected(100, 4);
    assert!(world.fleet.is_idle(world.now));
    let marks = vec![Mark::PENDING.0; 100];
    world.hand_in(new_order(1, Lane::Normal, KindFlags::NONE, Some(HOUR), 17_000, marks));
    let mut turns = Vec::new();
    while !world.fleet.is_idle(world.now) {
        assert!(!world.write(), "the window of no device takes it");
        let before = world.outcomes().len();
        world.tell();
        turns.push(world.outcomes().len() - before);
    }
    assert_eq!(turns, [64, 36]);
}

#[test]
fn more_too_large_orders_than_events_fit() {
    let mut world = World::new(1, 200);
    world.devices[0].window_bytes = 64;
    for _ in 0..200 {
        world.submit_to(Lane::Normal, Some(HOUR), 100, &[0]);
    }
    world.advance(100);
    assert_eq!(world.outcomes().len(), 200);
    assert!(world.outcomes().iter().all(|(_, _, code)| *code == Code::TOO_LARGE));
}

#[test]
fn a_smaller_window_is_obeyed_from_then_on() {
    let mut world = World::connected(1, 64);
    world.devices[0].habit = Habit::Ack;
    world.devices[0].send(&Frame::Window(wire_format::frame::Window { orders: 1, bytes: 16_384 }));
    world.drain();
    for _ in 0..3 {
        world.submit(Lane::Normal);
    }
    assert_eq!(world.devices[0].orders.len(), 1, "one may always be under way");
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.devices[0].orders.len(), 2);
}

#[test]
fn progress_and_every_final_code_reach_the_marks() {
    let mut world = World::connected(1, 64);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    assert_eq!(world.mark(number, 0), Mark::RECEIVED);
    let progress = wire_format::frame::Progress { durable: false, number, per_mille: 500, phase: 0 };
    world.devices[0].send(&Frame::Progress(progress));
    world.drain();
    assert_eq!(world.mark(number, 0), Mark::STARTED);
    for code in [Code::FAILED, Code::REJECTED_KIND, Code::EXPIRED, Code::SUPERSEDED, Code::IN_DOUBT] {
        world.devices[0].finish(code);
        world.drain();
        assert_eq!(world.outcomes().last().unwrap().2, code);
        world.submit(Lane::Normal);
    }
}

#[test]
fn outcomes_for_unknown_numbers_wrong_lanes_and_settled_pairs_change_nothing() {
    let mut world = World::connected(2, 8);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    let entry = Entry { number, code: Code::FAILED, detail: 0, lane: Lane::Normal, ms: 0 };
    world.devices[0].send_outcomes(&[
        Entry { number: 77, ..entry },
        Entry { lane: Lane::Bulk, ..entry },
        Entry { number: u64::MAX, ..entry },
    ]);
    world.devices[1].send_outcomes(&[entry]);
    world.drain();
    assert_eq!(world.mark(number, 0), Mark::RECEIVED);
    assert_eq!(world.mark(number, 1), Mark::ended(Code::APPLIED), "the first outcome stays");
    assert_eq!((world.fleet.stats().numbers_unknown, world.fleet.stats().outcomes_repeated), (3, 1));
}

#[test]
fn what_was_never_sent_cannot_be_answered() {
    let mut world = World::new(2, 8);
    world.answer_dials = false;
    let number = world.submit(Lane::Normal);
    world.connect(0);
    world.drain();
    let entry = Entry { number, code: Code::FAILED, detail: 0, lane: Lane::Normal, ms: 0 };
    assert!(world.outcomes().contains(&(0, number, Code::APPLIED)));
    world.devices[0].send_outcomes(&[Entry { number: number + 1, ..entry }]);
    let later = world.submit_to(Lane::Normal, Some(HOUR), 8, &[1]);
    world.devices[0].send_outcomes(&[Entry { number: later, ..entry }]);
    world.drain();
    assert_eq!(world.mark(later, 1), Mark::PENDING);
    assert_eq!(world.mark(later, 0), Mark::NOT_TARGETED);
}

#[test]
fn order_slots_to_the_last_and_one_past() {
    let mut world = World::new(1, 4);
    world.answer_dials = false;
    for _ in 0..4 {
        world.submit(Lane::Normal);
    }
    let order = new_order(9, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0]);
    let refused = world.fleet.submit(world.now, order.clone()).unwrap_err();
    assert_eq!((refused.why, refused.order), (SubmitFault::Full, order.clone()));
    world.connect(0);
    world.drain();
    assert_eq!(world.settled(), [1, 2, 3, 4]);
    assert_eq!(world.fleet.submit(world.now, order), Ok(Submitted { targets: 1, refused: 0 }));
}

#[test]
fn orders_that_are_not_what_they_say_are_handed_back() {
    let mut world = World::connected(1, 4);
    world.submit(Lane::Normal);
    let good = new_order(2, Lane::Normal, KindFlags::NONE, Some(HOUR), 8, vec![Mark::PENDING.0]);
    let mut flipped = good.clone();
    flipped.frame[0] ^= 1;
    let mut short = good.clone();
    short.frame.truncate(63);
    for (order, why) in [
        (NewOrder { number: 1, ..good.clone() }, SubmitFault::NumberNotRising { last: 1 }),
        (NewOrder { number: 3, ..good.clone() }, SubmitFault::Frame),
        (NewOrder { lane: Lane::Bulk, ..good.clone() }, SubmitFault::Frame),
        (NewOrder { kind_flags: KindFlags::IDEMPOTENT, ..good.clone() }, SubmitFault::Frame),
        (NewOrder { lifetime: None, ..good.clone() }, SubmitFault::Frame),
        (NewOrder { lifetime: Some(Duration::ZERO), ..good.clone() }, SubmitFault::Lifetime),
        (NewOrder { lifetime: Some(HOUR * 24 * 30 + HOUR), ..good.clone() }, SubmitFault::Lifetime),
        (NewOrder { marks: vec![Mark::SENT.0], ..good.clone() }, SubmitFault::Marks),
        (NewOrder { marks: vec![0], ..good.clone() }, SubmitFault::NoTarget),
        (NewOrder { marks: vec![], ..good.clone() }, SubmitFault::NoTarget),
        (flipped, SubmitFault::Frame),
        (short, SubmitFault::Frame),
    ] {
        let refused = world.fleet.submit(world.now, order.clone()).unwrap_err();
        assert_eq!((refused.why, refused.order), (why, order));
    }
    assert!(world.fleet.submit(world.now, good).is_ok());
}

#[test]
fn a_device_that_owes_too_much_overflows_at_submit() {
    let max = usize::from(crate::config::OWED_MAX);
    let mut world = World::new(2, max + 2);
    world.answer_dials = false;
    for _ in 0..max {
        world.submit_to(Lane::Normal, None, 8, &[0]);
    }
    world.number += 1;
    let order = new_order(
        world.number,
        Lane::Urgent,
        KindFlags::NONE,
        None,
        8,
        vec![Mark::PENDING.0, Mark::PENDING.0],
    );
    assert_eq!(world.fleet.submit(world.now, order), Ok(Submitted { targets: 1, refused: 1 }));
    assert_eq!(world.mark(world.number, 0), Mark::ended(Code::OVERFLOW));
    assert_eq!(world.mark(world.number, 1), Mark::PENDING);
}

#[test]
fn devices_that_do_not_exist_are_not_targeted() {
    let mut world = World::empty(3, 4, |_| {});
    let new = NewDevice { id: Some(id(0)), address: None };
    world.fleet.add_device(world.now, new).unwrap();
    let order = new_order(1, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0; 3]);
    assert_eq!(world.fleet.submit(world.now, order), Ok(Submitted { targets: 1, refused: 2 }));
    let order = NewOrder {
        first: DeviceIndex(u32::MAX - 1),
        ..new_order(2, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0; 2])
    };
    assert_eq!(world.fleet.submit(world.now, order), Ok(Submitted { targets: 0, refused: 2 }));
    let Some(Event::Settled { number: 2, marks, .. }) = world.fleet.poll_event() else { panic!() };
    assert_eq!(marks, [Code::NOT_TARGETED.0; 2]);
}

#[test]
fn a_late_delivery_says_what_is_left_of_the_lifetime() {
    let mut world = World::new(2, 8);
    world.answer_dials = false;
    world.submit_to(Lane::Normal, Some(Duration::from_secs(64)), 100, &[0, 1]);
    world.drain();
    world.advance(100);
    world.connect(0);
    world.drain();
    assert_eq!(world.devices[0].orders[0].0.remaining_ms, Some(64_000), "fresh for 100 ms");
    assert_eq!(world.devices[0].writes[1], (0, 168));
    world.advance(1_000);
    world.connect(1);
    world.drain();
    assert_eq!(world.devices[1].orders[0].0.remaining_ms, Some(62_900));
    assert_eq!(world.devices[1].writes[1], (16, 152), "a new header, the body shared");
    assert!(!world.devices[1].orders[0].0.replay);
}

#[test]
fn what_was_not_written_in_its_lifetime_expires_once_written_it_never_does() {
    let mut world = World::new(3, 8);
    world.devices[0].habit = Habit::Ack;
    world.devices[1].frozen = true;
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    world.drain();
    let number = world.submit_to(Lane::Normal, Some(Duration::from_secs(2)), 100, &[0, 1, 2]);
    world.drain();
    world.advance(1_990);
    assert_eq!(world.outcomes(), []);
    world.advance(20);
    assert_eq!(world.outcomes(), [(1, number, Code::EXPIRED), (2, number, Code::EXPIRED)]);
    assert_eq!(world.mark(number, 0), Mark::RECEIVED);
    world.connect(2);
    world.drain();
    assert!(world.devices[2].orders.is_empty());
    world.devices[0].finish(Code::EXPIRED);
    world.drain();
    assert_eq!(world.settled(), [number]);
}

#[test]
fn an_order_nobody_will_answer_ends_as_unknown_a_week_after_its_lifetime() {
    let mut world = World::with(1, 8, |config| config.unknown_after = Duration::from_secs(60));
    world.devices[0].habit = Habit::Ack;
    world.advance(100);
    let number = world.submit_to(Lane::Normal, Some(Duration::from_secs(30)), 100, &[0]);
    world.drain();
    world.answer_dials = false;
    world.cut(0);
    world.advance(89_990);
    assert_eq!(world.outcomes(), []);
    world.advance(20);
    assert_eq!(world.outcomes(), [(0, number, Code::UNKNOWN)]);
    assert_eq!(world.settled(), [number]);
}

#[test]
fn a_write_holds_64_frames_and_not_one_more() {
    for (orders, writes) in [(64, 1), (65, 2)] {
        let mut world = World::new(1, 80);
        world.devices[0].window_orders = 100;
        world.answer_dials = false;
        for _ in 0..orders {
            world.submit_to(Lane::Normal, Some(HOUR), 8, &[0]);
        }
        world.drain();
        world.connect(0);
        world.drain();
        assert_eq!(world.devices[0].writes.len(), 1 + writes, "{orders} orders after the HELLO");
        assert_eq!(world.outcomes().len(), orders);
    }
}

#[test]
fn the_longest_lifetime_and_the_largest_payload() {
    let mut world = World::new(1, 4);
    world.devices[0].window_bytes = 1 << 20;
    world.advance(100);
    let number = world.submit_to(Lane::Bulk, Some(crate::config::LIFETIME_MAX), 65_536, &[0]);
    world.drain();
    assert_eq!(world.devices[0].writes.last(), Some(&(0, 16 + 48 + 65_536)));
    assert_eq!(world.devices[0].orders[0].0.remaining_ms, Some(30 * 86_400_000));
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
}
