//! Writes that are cut anywhere, and drivers that report nothing or nonsense.

use super::*;

/// Runs a world whose device takes `first` bytes, then blocks, then takes one byte at a time, `times` of them.
fn cut_at(first: usize, times: usize, mut run: impl FnMut(&mut World)) -> World {
    let mut world = World::new(1, 16);
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    world.devices[0].room = first;
    run(&mut world);
    world.trickle(times);
    world
}

#[test]
fn a_session_survives_a_cut_at_every_byte() {
    // HELLO, then a PONG and three orders in one write.
    let total = 448 + 16 + 3 * 168;
    for at in 0..=total {
        let world = cut_at(at, 3, |world| {
            world.drain();
            for lane in [Lane::Normal, Lane::Urgent, Lane::Normal] {
                world.submit_to(lane, Some(HOUR), 100, &[0]);
            }
            if !world.devices[0].hellos.is_empty() {
                world.devices[0].send(&Frame::Ping(wire_format::frame::Ping { token: 5 }));
            }
            world.drain();
        });
        assert_eq!(world.devices[0].numbers(), [2, 1, 3], "cut at {at}");
        assert_eq!(world.outcomes().len(), 3, "cut at {at}");
        assert!(world.devices[0].effects.values().all(|&times| times == 1));
        assert_eq!(world.closed, []);
    }
}

#[test]
fn every_byte_alone() {
    let mut world = World::new(1, 16);
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    world.devices[0].room = 0;
    world.submit_to(Lane::Normal, Some(HOUR), 100, &[0]);
    world.advance(900);
    for _ in 0..448 + 168 + 28 {
        world.unblock(1);
    }
    assert_eq!(world.devices[0].effects[&1], 1);
    assert_eq!(
        world.devices[0].orders[0].0.remaining_ms,
        Some(3_600_000 - 900),
        "the header stays as it was cut"
    );
    world.devices[0].room = usize::MAX;
    world.fleet.handle_writable(world.now, DeviceIndex(0));
    world.advance(4_000);
    assert_eq!(world.devices[0].settled[2], 1);
}

#[test]
fn what_is_not_reported_has_not_left() {
    let mut world = World::connected(1, 4);
    world.submit_to(Lane::Normal, Some(HOUR), 100, &[0]);
    let mut scratch = vec![0; 2_048];
    for _ in 0..3 {
        let transmit = world.fleet.poll_transmit(world.now, &mut scratch).expect("still owed");
        assert_eq!(transmit.body.len(), 168);
    }
    world.fleet.handle_written(world.now, DeviceIndex(0), 0);
    assert!(world.fleet.poll_transmit(world.now, &mut scratch).is_none(), "blocked");
    assert_eq!(world.mark(1, 0), Mark::PENDING);
    world.fleet.handle_writable(world.now, DeviceIndex(0));
    world.drain();
    assert_eq!(world.devices[0].effects[&1], 1);
    assert_eq!(world.fleet.stats().orders_sent, 1);
}

#[test]
fn bytes_reported_without_a_plan_end_the_session() {
    let mut world = World::connected(2, 4);
    world.fleet.handle_written(world.now, DeviceIndex(1), 1);
    world.drain();
    assert_eq!(world.closed, [(DeviceIndex(1), Ended::LostTrack)]);
    assert!(world.fleet.is_open(DeviceIndex(0)));
}

#[test]
fn a_scratch_buffer_at_the_limit_and_one_below() {
    let mut world = World::new(1, 4);
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    let mut scratch = vec![0; crate::config::SCRATCH_MIN];
    assert!(world.fleet.poll_transmit(world.now, &mut scratch[1..]).is_none());
    assert!(world.fleet.poll_transmit(world.now, &mut scratch).is_some());
    world.scratch = crate::config::SCRATCH_MIN;
    for _ in 0..4 {
        world.submit_to(Lane::Normal, Some(HOUR), 1_500, &[0]);
    }
    world.drain();
    assert_eq!(world.devices[0].numbers(), [1, 2, 3, 4], "none can be copied: one write each");
}

#[test]
fn an_order_cut_in_two_is_finished_though_its_lifetime_ends() {
    let mut world = World::connected(1, 4);
    world.devices[0].room = 100;
    let number = world.submit_to(Lane::Normal, Some(Duration::from_secs(1)), 100, &[0]);
    world.drain();
    world.advance(1_500);
    assert_eq!(world.outcomes(), []);
    world.unblock(usize::MAX);
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
}

#[test]
fn an_order_cut_by_the_end_of_the_session_was_not_sent() {
    let mut world = World::connected(1, 4);
    world.devices[0].room = 100;
    let number = world.submit_once(Lane::Normal);
    assert_eq!(world.mark(number, 0), Mark::SENT);
    world.devices[0].reboot();
    world.cut(0);
    world.drain();
    assert_eq!(world.mark(number, 0), Mark::PENDING, "no device can have had it");
    world.advance(2_000);
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)], "not in doubt");
    assert!(!world.devices[0].orders[0].0.replay);
}

#[test]
fn a_repetition_answered_while_it_is_cut_keeps_its_frame() {
    let mut world = World::connected(1, 4);
    world.devices[0].habit = Habit::Ack;
    let number = world.submit(Lane::Normal);
    world.cut(0);
    world.meet_again(448 + 50);
    // The device had begun it all the same, and was done just now.
    let entry = Entry { number, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 1 };
    world.devices[0].apply(entry);
    world.devices[0].send_outcomes(&[entry]);
    world.drain();
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
    assert_eq!(world.settled(), [], "the frame is still needed");
    world.unblock(usize::MAX);
    assert_eq!(world.settled(), [number]);
    assert!(world.devices[0].orders.last().unwrap().0.replay);
    assert_eq!(world.fleet.stats().outcomes_repeated + world.fleet.stats().numbers_unknown, 1);
}

fn used(world: &mut World, bytes: &[u8]) -> usize {
    world.fleet.handle_bytes(world.now, DeviceIndex(0), bytes).unwrap().consumed
}

#[test]
fn frames_of_devices_may_come_byte_by_byte() {
    let mut world = World::connected(1, 4);
    world.devices[0].frozen = true;
    world.submit(Lane::Normal);
    world.devices[0].frozen = false;
    world.devices[0].read(&[]);
    let bytes = core::mem::take(&mut world.devices[0].answers);
    for len in 0..bytes.len() {
        assert_eq!(used(&mut world, &bytes[..len]), 0);
    }
    assert_eq!(used(&mut world, &bytes), bytes.len());
    // Until its events are drained, nothing more is used.
    assert_eq!(used(&mut world, &bytes), 0);
    world.drain();
    assert_eq!(world.outcomes().len(), 1);
}
