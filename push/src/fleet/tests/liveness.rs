//! Silent devices, and a server that stood still itself.

use super::*;

#[test]
fn a_frozen_device_is_suspect_after_2_s_and_dead_after_5() {
    let mut world = World::connected(2, 8);
    world.advance(200);
    world.devices[0].frozen = true;
    world.submit(Lane::Normal);
    world.advance(1_990);
    assert!(!world.fleet.is_suspect(DeviceIndex(0)));
    world.advance(20);
    assert!(world.fleet.is_suspect(DeviceIndex(0)) && !world.fleet.is_suspect(DeviceIndex(1)));
    let sent = world.fleet.stats().orders_sent;
    world.submit(Lane::Urgent);
    assert_eq!(world.fleet.stats().orders_sent, sent + 1, "no new order for the suspect");
    world.advance(2_970);
    assert_eq!(world.closed, []);
    world.answer_dials = false;
    world.advance(40);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Dead)]);
    assert_eq!((world.fleet.stats().suspects, world.fleet.stats().dead), (1, 1));
    assert_eq!(world.mark(1, 0), Mark::SENT, "what was sent waits for the next session");
}

#[test]
fn a_suspect_that_answers_gets_its_orders() {
    let mut world = World::connected(1, 8);
    world.devices[0].frozen = true;
    world.submit(Lane::Normal);
    world.advance(2_500);
    world.submit(Lane::Normal);
    world.devices[0].frozen = false;
    world.devices[0].read(&[]);
    world.drain();
    assert_eq!(world.outcomes().len(), 2);
    assert_eq!(world.devices[0].pings, 1);
    assert!(!world.fleet.is_suspect(DeviceIndex(0)));
}

#[test]
fn an_idle_device_is_pinged_and_found_dead_in_6_s() {
    let mut world = World::connected(100, 8);
    world.advance(3_000);
    assert!(world.devices.iter().all(|device| device.pings == 1), "within 3 s of silence");
    world.advance(60_000);
    assert!(world.devices.iter().all(|device| (20..=28).contains(&device.pings)));
    assert_eq!(world.fleet.stats().dead + world.fleet.stats().suspects, 0);
    world.devices[7].frozen = true;
    world.answer_dials = false;
    world.advance(6_010);
    assert_eq!(world.closed, [(DeviceIndex(7), Ended::Dead)]);
}

#[test]
fn pings_after_a_fan_out_are_spread() {
    let mut world = World::connected(400, 8);
    world.submit(Lane::Normal);
    world.advance(200);
    let before = world.fleet.stats().frames_out;
    world.advance(2_000);
    assert_eq!(world.fleet.stats().frames_out, before);
    world.advance(375);
    let half = world.fleet.stats().frames_out - before;
    assert!((160..640).contains(&half), "{half} of 800 in the first half of the last quarter");
    world.advance(540);
    assert_eq!(world.fleet.stats().frames_out - before, 800, "a PING and the SETTLED that rides on it");
}

#[test]
fn a_device_that_works_for_long_is_not_suspect() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Ack;
    world.submit(Lane::Normal);
    world.advance(30_000);
    assert_eq!((world.fleet.stats().suspects, world.closed.len()), (0, 0));
}

#[test]
fn a_blocked_connection_is_a_dead_one() {
    let mut world = World::connected(1, 8);
    world.devices[0].room = 0;
    world.answer_dials = false;
    world.submit(Lane::Normal);
    world.advance(5_010);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Dead)]);
    assert_eq!(world.mark(1, 0), Mark::PENDING);
}

#[test]
fn a_paused_server_declares_nobody_dead() {
    let mut world = World::connected(50, 8);
    for device in &mut world.devices {
        device.frozen = true;
    }
    world.submit(Lane::Normal);
    world.advance(1_000);
    // The machine is suspended for 30 s; the devices answered meanwhile.
    world.now = world.now + Duration::from_secs(30);
    world.fleet.handle_timeout(world.now);
    world.drain();
    assert_eq!((world.closed.len(), world.fleet.stats().pauses), (0, 1));
    world.advance(900);
    assert_eq!(world.fleet.stats().suspects, 0);
    for device in &mut world.devices {
        device.frozen = false;
        device.read(&[]);
    }
    world.drain();
    assert_eq!(world.outcomes().len(), 50);
    // The pause moved the deadlines once: the next silence counts as ever.
    world.devices[0].frozen = true;
    world.answer_dials = false;
    world.advance(200);
    world.submit(Lane::Normal);
    world.advance(5_010);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Dead)]);
}

#[test]
fn one_idle_device_does_not_make_the_server_look_paused() {
    let mut world = World::connected(1, 8);
    world.devices[0].frozen = true;
    world.answer_dials = false;
    world.submit(Lane::Normal);
    world.advance(5_010);
    assert_eq!((world.closed.len(), world.fleet.stats().pauses), (1, 0));
}

#[test]
fn bytes_served_before_the_timer_after_a_pause_do_not_lengthen_the_next_silence() {
    let mut world = World::connected(1, 8);
    world.advance(500);
    world.now = world.now + Duration::from_secs(600);
    world.devices[0].send(&Frame::Ping(wire_format::frame::Ping { token: 1 }));
    world.drain();
    world.devices[0].frozen = true;
    world.answer_dials = false;
    world.submit(Lane::Normal);
    world.advance(5_020);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Dead)]);
}

#[test]
fn an_idle_fleet_wakes_up_seldom() {
    let mut world = World::connected(1, 8);
    let mut wakes = 0;
    let end = world.now + Duration::from_secs(60);
    while world.now < end {
        world.now = world.fleet.poll_timeout().expect("a session has timers").max(world.now);
        world.fleet.handle_timeout(world.now);
        world.drain();
        wakes += 1;
    }
    assert!(wakes <= 80, "{wakes} in a minute");
}

#[test]
fn half_a_second_late_is_no_pause_and_more_is_one() {
    for (late_us, pauses) in [(500_000, 0), (500_001, 1)] {
        let mut world = World::connected(1, 8);
        world.now = world.fleet.poll_timeout().unwrap() + Duration::from_micros(late_us);
        world.fleet.handle_timeout(world.now);
        assert_eq!(world.fleet.stats().pauses, pauses);
    }
}

#[test]
fn a_device_that_answers_pings_and_takes_no_order_is_suspect_and_dead() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Silent;
    world.submit(Lane::Normal);
    world.advance(1_990);
    assert!(!world.fleet.is_suspect(DeviceIndex(0)));
    world.advance(20);
    assert!(world.fleet.is_suspect(DeviceIndex(0)));
    world.advance(1_000);
    assert_eq!(world.devices[0].pings, 1);
    assert!(world.fleet.is_suspect(DeviceIndex(0)), "a PONG is no receipt");
    world.submit(Lane::Urgent);
    assert_eq!(world.devices[0].orders.len(), 1, "no new order for the suspect");
    world.answer_dials = false;
    world.advance(1_980);
    assert_eq!(world.closed, []);
    world.advance(20);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Dead)]);
    assert_eq!(world.fleet.view(DeviceIndex(0)).map(|view| (view.suspects, view.deads)), Some((1, 1)));
}

#[test]
fn each_receipt_gives_the_rest_five_seconds_more() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Silent;
    let numbers: Vec<u64> = (0..4).map(|_| world.submit(Lane::Normal)).collect();
    for &number in &numbers {
        world.advance(4_500);
        assert!(world.fleet.is_suspect(DeviceIndex(0)));
        let number_low = number as u32;
        world.devices[0].send(&Frame::Ack(wire_format::frame::Ack {
            durable: false,
            lane: Lane::Normal,
            number_low,
        }));
        world.drain();
        assert!(!world.fleet.is_suspect(DeviceIndex(0)));
    }
    world.advance(60_000);
    assert_eq!(world.closed, [], "all are received, and nothing else is due but PONGs");
}

#[test]
fn the_round_trip_is_that_of_the_last_ping() {
    let mut world = World::connected(1, 8);
    assert_eq!(world.fleet.view(DeviceIndex(0)).and_then(|view| view.rtt), None);
    world.devices[0].frozen = true;
    world.advance(3_100);
    world.now = world.now + Duration::from_millis(250);
    world.devices[0].frozen = false;
    world.devices[0].read(&[]);
    world.drain();
    let view = world.fleet.view(DeviceIndex(0)).unwrap();
    let rtt = view.rtt.unwrap();
    assert!(rtt >= Duration::from_millis(250) && rtt < Duration::from_millis(2_000), "{rtt:?}");
    assert_eq!((view.link, view.sessions, view.suspect), (Link::Open, 1, false));
    assert_eq!(world.fleet.view(DeviceIndex(7)), None);
}
