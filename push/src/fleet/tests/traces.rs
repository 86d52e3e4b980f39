//! Sessions are written down before they get anything of the durable log.

use super::*;

pub(super) fn traces(world: &World) -> Vec<(u32, u64, bool, [u64; 4])> {
    let traces = world.events.iter().filter_map(|event| match event {
        Event::Trace(trace) => Some((trace.device.0, trace.boot, trace.open, trace.upto)),
        _ => None,
    });
    traces.collect()
}

/// A device that is connected, in a log that takes nothing yet.
fn untraced() -> World {
    let mut world = World::with(1, 16, durable_log);
    world.durable = true;
    world.logs = false;
    world.advance(100);
    assert!(world.fleet.is_open(DeviceIndex(0)));
    world
}

fn reconnect(world: &mut World) {
    let sessions = world.fleet.stats().sessions;
    world.cut(0);
    while world.fleet.stats().sessions == sessions {
        world.advance(500);
    }
}

#[test]
fn nothing_durable_is_sent_before_the_session_is_in_the_log() {
    let mut world = untraced();
    assert_eq!(traces(&world), [(0, 1, true, [0; 4])]);
    let durable = world.submit(Lane::Urgent);
    world.durable = false;
    let volatile = world.submit(Lane::Bulk);
    world.advance(10_000);
    assert_eq!(world.devices[0].numbers(), [volatile], "the other log goes on");
    assert_eq!(world.mark(durable, 0), Mark::PENDING);
    world.fleet.traced(world.now, DeviceIndex(0), 1);
    world.drain();
    assert_eq!(world.devices[0].numbers(), [volatile, durable]);
}

#[test]
fn its_end_says_what_was_written() {
    let mut world = World::durable(1, 16);
    world.devices[0].habit = Habit::Ack;
    let normal = world.submit(Lane::Normal);
    let bulk = world.submit(Lane::Bulk);
    world.devices[0].send(&Frame::Window(wire_format::frame::Window { orders: 1, bytes: 1_000 }));
    world.drain();
    world.submit(Lane::Urgent);
    world.cut(0);
    world.drain();
    assert_eq!(traces(&world), [(0, 1, false, [0, 0, normal, bulk])], "a cut one and its like are in it");
    let told: Vec<bool> = world.events.iter().map(|event| matches!(event, Event::Trace(_))).collect();
    let gone = world.events.iter().position(|event| matches!(event, Event::Disconnected { .. }));
    assert_eq!(told.iter().position(|is| *is).map(|at| at + 1), gone);
    world.advance(20_000);
    assert_eq!(traces(&world)[1], (0, 1, true, [0, 0, normal, bulk]));
}

#[test]
fn a_part_of_an_order_counts_as_written() {
    let mut world = World::durable(1, 16);
    world.devices[0].room = 20;
    let number = world.submit(Lane::Normal);
    world.cut(0);
    world.drain();
    assert_eq!(world.mark(number, 0), Mark::PENDING);
    assert_eq!(traces(&world), [(0, 1, false, [0, 0, number, 0])]);
}

#[test]
fn each_beginning_is_confirmed_before_the_last_session_gets_anything() {
    let mut world = untraced();
    let number = world.submit(Lane::Normal);
    reconnect(&mut world);
    reconnect(&mut world);
    assert_eq!(world.untraced.len(), 3);
    for _ in 0..2 {
        world.fleet.traced(world.now, DeviceIndex(0), 1);
        world.drain();
        assert_eq!(world.devices[0].numbers(), []);
    }
    world.fleet.traced(world.now, DeviceIndex(0), 1);
    world.drain();
    assert_eq!(world.devices[0].numbers(), [number]);
}

#[test]
fn a_new_boot_is_written_down_once_what_the_old_one_left_in_doubt_is() {
    let mut world = World::durable(1, 16);
    world.devices[0].habit = Habit::Ack;
    let doubted = [world.submit_once(Lane::Normal), world.submit_once(Lane::Bulk)];
    let ended = world.submit_once(Lane::Urgent);
    world.logs = false;
    world.devices[0].kept.retain(|kept| kept.number != ended);
    let entry = Entry { number: ended, code: Code::APPLIED, detail: 0, lane: Lane::Urgent, ms: 0 };
    world.devices[0].send_outcomes(&[entry]);
    world.drain();
    world.events.clear();
    world.devices[0].reboot();
    reconnect(&mut world);
    let volatile = {
        world.durable = false;
        let number = world.submit(Lane::Normal);
        world.durable = true;
        number
    };
    let waiting = world.submit_once(Lane::Normal);
    assert_eq!(traces(&world), [(0, 1, false, [ended, 0, doubted[0], doubted[1]])]);
    assert_eq!(world.devices[0].numbers()[3..], [volatile]);
    let entries: Vec<LogEntry> = world.unlogged.drain(..).collect();
    let told: Vec<(u64, Code)> = entries.iter().map(|entry| (entry.number, entry.first_code)).collect();
    let expected = [(ended, Code::APPLIED), (doubted[0], Code::IN_DOUBT), (doubted[1], Code::IN_DOUBT)];
    assert_eq!(told, expected);
    for (at, entry) in entries.into_iter().enumerate() {
        assert_eq!(traces(&world).len(), 1, "{at} of 3 are logged");
        world.confirm(entry);
    }
    assert_eq!(traces(&world)[1], (0, 2, true, [ended, 0, doubted[0], doubted[1]]));
    assert_eq!(world.devices[0].numbers()[3..], [volatile]);
    world.log();
    assert_eq!(world.devices[0].numbers()[3..], [volatile, waiting]);
}

#[test]
fn a_session_that_ends_before_it_was_told_has_no_trace() {
    let mut world = World::durable(1, 16);
    world.devices[0].habit = Habit::Ack;
    world.submit_once(Lane::Normal);
    world.logs = false;
    world.devices[0].reboot();
    reconnect(&mut world);
    world.events.clear();
    reconnect(&mut world);
    assert_eq!(traces(&world), []);
    world.log();
    assert_eq!(traces(&world).len(), 1);
    assert!(world.untraced.is_empty() && world.unlogged.is_empty());
}

#[test]
fn a_slot_is_not_used_again_before_its_last_beginning_is_confirmed() {
    let mut world = untraced();
    assert!(world.fleet.remove_device(world.now, DeviceIndex(0)));
    world.drain();
    let new = NewDevice { id: Some(id(7)), address: None };
    assert_eq!(world.fleet.add_device(world.now, new), Err(AddError::Full));
    world.log();
    assert_eq!(world.fleet.add_device(world.now, new), Ok(DeviceIndex(0)));
}

#[test]
fn without_a_durable_log_nothing_is_traced() {
    let mut world = World::connected(1, 4);
    world.submit(Lane::Normal);
    world.cut(0);
    world.advance(20_000);
    assert_eq!((traces(&world), world.fleet.stats().sessions), (vec![], 2));
}
