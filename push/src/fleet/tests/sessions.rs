//! Dialling and pacing, who may be a device, how sessions end.

use super::*;

#[test]
fn devices_are_dialled_at_2_000_a_second_at_most() {
    let mut world = World::new(3_000, 1);
    world.advance(500);
    let after = world.dialled.len();
    assert!((980..=1_040).contains(&after), "{after} dials in half a second");
    world.advance(1_100);
    assert_eq!(world.fleet.stats().sessions, 3_000);
}

#[test]
fn strangers_that_never_answer_leave_room_for_those_that_did() {
    let mut world = World::with(400, 1, |config| config.half_open_max = 200);
    world.advance(1_000);
    assert_eq!(world.fleet.stats().sessions, 400);
    for index in 0..400 {
        world.cut(index);
    }
    world.answer_dials = false;
    world.dialled.clear();
    world.advance(600);
    assert_eq!(world.dialled.len(), 200, "half-open at most");

    let mut world = World::new(400, 1);
    world.answer_dials = false;
    world.advance(1_000);
    assert_eq!(world.dialled.len(), 128, "strangers at most");
    for (_, device) in world.dialled.clone() {
        world.fleet.handle_dial_failed(world.now, device, DialError::TimedOut);
    }
    world.advance(100);
    assert_eq!(world.dialled.len(), 256);
}

#[test]
fn backoff_doubles_with_jitter_up_to_its_cap() {
    for (error, cap) in [(DialError::TimedOut, 15_000), (DialError::Refused, 2_000)] {
        let mut world = World::new(1, 1);
        world.answer_dials = false;
        let mut gaps = Vec::new();
        for n in 0..60 {
            world.drain();
            let (at, device) = world.dialled.pop_back().expect("dialled");
            world.fleet.handle_dial_failed(world.now, device, error);
            let limit = (200_u64 << n.min(16)).min(cap);
            while world.dialled.is_empty() {
                world.advance(1);
            }
            let gap = world.now.since(at).as_millis() as u64;
            assert!(gap <= limit + 6, "{gap} ms after failure {n}");
            gaps.push(gap);
        }
        let late = &gaps[10..];
        let mean = late.iter().sum::<u64>() / late.len() as u64;
        assert!((cap / 3..cap * 2 / 3).contains(&mean), "full jitter: {mean} ms on average");
    }
}

#[test]
fn an_announce_dials_at_once_but_not_twice_a_second() {
    let mut world = World::new(1, 1);
    world.answer_dials = false;
    world.drain();
    let fail = |world: &mut World| {
        let (_, device) = world.dialled.pop_back().expect("dialled");
        world.fleet.handle_dial_failed(world.now, device, DialError::TimedOut);
    };
    for _ in 0..12 {
        while world.dialled.is_empty() {
            world.advance(100);
        }
        world.advance(1_000);
        fail(&mut world);
    }
    world.fleet.set_address(world.now, DeviceIndex(0), address(0));
    world.drain();
    assert_eq!(world.dialled.len(), 1, "at once");
    fail(&mut world);
    for _ in 0..9 {
        world.fleet.set_address(world.now, DeviceIndex(0), address(0));
        world.advance(100);
    }
    let early = world.dialled.len();
    world.advance(110);
    assert!(early <= 1 && world.dialled.len() == 1);
}

#[test]
fn a_dial_nobody_reports_is_given_up() {
    let mut world = World::new(1, 1);
    world.answer_dials = false;
    world.advance(4_990);
    assert_eq!(world.closed, []);
    world.advance(30);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::DialTimeout)]);
    assert_eq!(world.ends(), [], "there was no connection");
}

#[test]
fn a_welcome_must_come_within_3_s() {
    let mut world = World::new(1, 1);
    world.devices[0].frozen = true;
    world.advance(2_990);
    assert_eq!(world.closed, []);
    world.answer_dials = false;
    world.advance(20);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::HandshakeTimeout)]);
    assert_eq!(world.ends(), [(0, Ended::HandshakeTimeout)]);
    assert_eq!(world.fleet.stats().handshake_timeouts, 1);
}

#[test]
fn hello_says_who_is_meant_and_welcome_is_told() {
    let mut world = World::new(1, 1);
    world.advance(100);
    let hello = world.devices[0].hellos[0];
    assert_eq!((hello.target, hello.server, hello.volatile.lineage), (id(0), NodeId([0xAA; 16]), LINEAGE));
    assert_eq!((hello.max_body, hello.ping_interval_ms, hello.staging), (4_120, 3_000, false));
    let Some(Event::Connected { device: DeviceIndex(0), facts, rebooted: false }) = world.events.first()
    else {
        panic!("{:?}", world.events)
    };
    assert_eq!((facts.id, facts.kind, facts.zone, facts.boot), (id(0), DeviceKind::KIOSK, 3, 1));
}

#[test]
fn the_wrong_device_at_the_address_gets_no_order_byte() {
    let mut world = World::new(2, 4);
    world.at = vec![1, 0];
    world.submit(Lane::Urgent);
    world.advance(200);
    for (index, found) in [(0, id(1)), (1, id(0))] {
        let device = &world.devices[world.at[index]];
        assert!(!device.hellos.is_empty() && device.orders.is_empty());
        assert!(device.rejects.iter().all(|&code| code == reject::Code::WRONG_DEVICE));
        assert!(world.closed.contains(&(DeviceIndex(index as u32), Ended::WrongDevice { found })));
    }
    assert!(world.fleet.stats().wrong_device >= 2);
    world.at = vec![0, 1];
    world.advance(70_000);
    assert_eq!(world.outcomes().len(), 2, "back in their places they get it");
}

#[test]
fn staging_and_production_do_not_meet() {
    let mut world = World::new(1, 1);
    world.devices[0].staging = true;
    world.advance(50);
    let code = reject::Code::STAGING;
    assert_eq!(world.closed[0], (DeviceIndex(0), Ended::Refused { code }));
    assert_eq!(world.devices[0].rejects[0], code);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Connected { .. })));
}

#[test]
fn a_device_known_by_its_address_tells_its_id_once() {
    let mut world = World::empty(2, 1, |_| {});
    for number in 0..2 {
        world.fleet.add_device(world.now, NewDevice { id: None, address: Some(address(number)) }).unwrap();
    }
    world.devices[1].id = id(0);
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    world.drain();
    assert_eq!(world.devices[0].hellos[0].target, NodeId::NONE);
    assert!(
        matches!(world.events[0], Event::Learned { device: DeviceIndex(0), id: learned } if learned == id(0))
    );
    assert_eq!(world.fleet.find(id(0)), Some(DeviceIndex(0)));
    world.connect(1);
    world.drain();
    assert_eq!(world.closed, [(DeviceIndex(1), Ended::DuplicateDevice { first: 0 })]);
    assert_eq!(world.devices[1].rejects, [reject::Code::WRONG_DEVICE]);
}

#[test]
fn device_slots_to_the_last_and_one_past() {
    let mut world = World::empty(2, 1, |_| {});
    for number in 0..2 {
        let new = NewDevice { id: Some(id(number)), address: None };
        assert_eq!(world.fleet.add_device(world.now, new), Ok(DeviceIndex(number as u32)));
        assert_eq!(
            world.fleet.add_device(world.now, new),
            Err(AddError::Known { device: DeviceIndex(number as u32) })
        );
    }
    let new = NewDevice { id: Some(id(2)), address: None };
    assert_eq!(world.fleet.add_device(world.now, new), Err(AddError::Full));
    assert!(world.fleet.remove_device(world.now, DeviceIndex(0)));
    assert!(!world.fleet.remove_device(world.now, DeviceIndex(0)));
    world.drain();
    assert_eq!(world.fleet.find(id(0)), None);
    assert_eq!(world.fleet.add_device(world.now, new), Ok(DeviceIndex(0)));
}

#[test]
fn a_removed_device_ends_its_orders_and_its_index_waits_for_theirs() {
    let mut world = World::connected(2, 8);
    world.devices[0].habit = Habit::Ack;
    world.devices[1].habit = Habit::Ack;
    let sent = world.submit(Lane::Normal);
    world.devices[0].frozen = true;
    world.devices[0].room = 0;
    let unsent = world.submit(Lane::Normal);
    world.devices[0].room = usize::MAX;
    world.fleet.handle_writable(world.now, DeviceIndex(0));
    assert!(world.fleet.remove_device(world.now, DeviceIndex(0)));
    world.drain();
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Removed)]);
    assert_eq!(world.outcomes(), [(0, unsent, Code::NOT_TARGETED), (0, sent, Code::UNKNOWN)]);
    let new = NewDevice { id: Some(id(5)), address: None };
    assert_eq!(world.fleet.add_device(world.now, new), Err(AddError::Full), "live orders name the index");
    world.devices[1].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.settled(), [sent, unsent]);
    assert_eq!(world.fleet.add_device(world.now, new), Ok(DeviceIndex(0)));
}

#[test]
fn removing_a_device_that_is_dialled_or_waits() {
    let mut world = World::with(3, 1, |config| config.half_open_max = 1);
    world.answer_dials = false;
    world.drain();
    for index in 0..3 {
        assert!(world.fleet.remove_device(world.now, DeviceIndex(index)));
    }
    world.advance(10_000);
    assert_eq!(world.closed, [(DeviceIndex(0), Ended::Removed)]);
    assert_eq!(world.dialled.len(), 1);
}

#[test]
fn a_reject_is_told_and_waits_as_long_as_it_asks() {
    let mut world = World::new(1, 1);
    world.answer_dials = false;
    world.drain();
    world.devices[0].frozen = true;
    world.connect(0);
    world.drain();
    let reject = Reject { code: reject::Code::LEASE_HELD, retry_after_ms: 9_000, detail: 0 };
    world.devices[0].send(&Frame::Reject(reject));
    world.drain();
    let why = Ended::Rejected { code: reject.code, retry_after_ms: 9_000, detail: 0 };
    assert_eq!((world.closed.clone(), world.ends()), (vec![(DeviceIndex(0), why)], vec![(0, why)]));
    world.dialled.clear();
    world.advance(8_990);
    assert_eq!(world.dialled.len(), 0);
    world.advance(300);
    assert_eq!(world.dialled.len(), 1);
}

#[test]
fn broken_bytes_end_the_session_with_a_bye() {
    let mut world = World::connected(2, 1);
    world.answer_dials = false;
    world.devices[0].answers = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    world.drain();
    assert!(matches!(world.closed[..], [(DeviceIndex(0), Ended::Broken(_))]));
    assert_eq!(world.devices[0].byes, [bye::Code::PROTOCOL_ERROR]);
    let order = new_order(1, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0]);
    world.devices[1].answers = order.frame;
    world.drain();
    assert_eq!(world.closed[1].1, Ended::Unexpected(wire_format::frame::Kind::ORDER));
    assert_eq!(world.fleet.stats().broken, 2);
}

#[test]
fn a_stranger_on_the_port_gets_no_bye() {
    let mut world = World::new(1, 1);
    world.devices[0].frozen = true;
    world.answer_dials = false;
    world.drain();
    world.connect(0);
    world.drain();
    world.devices[0].answers = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    world.drain();
    assert!(matches!(world.closed[..], [(DeviceIndex(0), Ended::Broken(_))]));
    assert_eq!(world.devices[0].writes, [(448, 0)], "a HELLO and nothing else");
}

#[test]
fn unknown_kinds_are_skipped_if_they_allow_it() {
    use wire_format::frame::{Flags, Header, Kind};
    let mut world = World::connected(1, 1);
    let header = Header { flags: Flags::IGNORABLE, ..Header::new(Kind(0x7E), 0) };
    world.devices[0].answers = header.emit().to_vec();
    world.drain();
    assert_eq!((world.closed.len(), world.fleet.stats().frames_ignored), (0, 1));
    world.devices[0].answers = Header::new(Kind(0x7E), 0).emit().to_vec();
    world.drain();
    assert_eq!(world.devices[0].byes, [bye::Code::UNKNOWN_KIND]);
}

#[test]
fn a_draining_device_gets_nothing_new_until_it_is_back() {
    let mut world = World::connected(1, 4);
    let drain =
        wire_format::frame::Drain { reason: wire_format::frame::drain::Reason::RESTARTING, after_ms: 5_000 };
    world.devices[0].send(&Frame::Drain(drain));
    world.drain();
    world.submit(Lane::Urgent);
    assert!(world.devices[0].orders.is_empty());
    world.devices[0]
        .send(&Frame::Bye(wire_format::frame::Bye { code: bye::Code::DRAINING, retry_after_ms: 3_000 }));
    world.drain();
    assert_eq!(world.ends(), [(0, Ended::Bye { code: bye::Code::DRAINING, retry_after_ms: 3_000 })]);
    world.advance(2_900);
    assert_eq!(world.fleet.stats().sessions, 1);
    world.advance(400);
    assert_eq!(world.outcomes().len(), 1);
}

#[test]
fn stop_says_goodbye_and_ends() {
    let mut world = World::connected(3, 4);
    world.devices[1].room = 0;
    world.submit(Lane::Normal);
    world.fleet.stop(world.now);
    assert!(!world.fleet.is_stopped());
    world.drain();
    assert!(world.fleet.is_stopped());
    assert_eq!(world.devices[0].byes, [bye::Code::NORMAL]);
    assert!(world.devices[1].byes.is_empty(), "blocked: it is closed without");
    assert_eq!(world.closed.len(), 3);
    world.advance(60_000);
    assert_eq!(world.dialled.len(), 3, "nobody is dialled any more");
    let order = new_order(9, Lane::Normal, KindFlags::NONE, None, 8, vec![Mark::PENDING.0]);
    assert_eq!(world.fleet.submit(world.now, order).unwrap_err().why, SubmitFault::Stopped);
    assert_eq!(world.mark(1, 1), Mark::PENDING);
}

#[test]
fn a_session_of_30_s_forgives_earlier_failures() {
    for (alive_ms, forgiven) in [(29_000, false), (31_000, true)] {
        let mut world = World::new(1, 1);
        world.answer_dials = false;
        for _ in 0..10 {
            world.drain();
            let (_, device) = world.dialled.pop_back().expect("dialled");
            world.fleet.handle_dial_failed(world.now, device, DialError::TimedOut);
            while world.dialled.is_empty() {
                world.advance(10);
            }
        }
        world.connect(0);
        world.dialled.clear();
        world.advance(alive_ms);
        let mut quick = true;
        world.cut(0);
        world.advance(210);
        quick &= !world.dialled.is_empty();
        assert_eq!(quick, forgiven, "after {alive_ms} ms");
    }
}

#[test]
fn an_open_session_whose_device_is_seen_elsewhere_is_probed() {
    let mut world = World::connected(1, 1);
    world.fleet.set_address(world.now, DeviceIndex(0), address(0));
    world.drain();
    assert_eq!(world.devices[0].pings, 0);
    world.fleet.set_address(world.now, DeviceIndex(0), address(1));
    world.drain();
    assert_eq!((world.devices[0].pings, world.closed.len()), (1, 0));
}

#[test]
fn a_device_that_announced_its_end_and_stays_gets_orders_again() {
    let mut world = World::connected(1, 4);
    let drain =
        wire_format::frame::Drain { reason: wire_format::frame::drain::Reason::UPDATING, after_ms: 5_000 };
    world.devices[0].send(&Frame::Drain(drain));
    world.drain();
    world.submit(Lane::Normal);
    world.advance(4_900);
    assert!(world.devices[0].orders.is_empty());
    world.advance(2_200);
    assert_eq!(world.devices[0].orders.len(), 1);
}

#[test]
fn a_farewell_cut_in_two_is_said_once_and_one_that_cannot_be_said_is_dropped() {
    for finishes in [true, false] {
        let mut world = World::connected(1, 4);
        world.answer_dials = false;
        world.devices[0].room = 5;
        world.devices[0].answers = b"HTTP/1.1 400 Bad Request".to_vec();
        world.drain();
        assert_eq!(world.closed, [], "a last frame is on its way");
        if finishes {
            world.unblock(usize::MAX);
        } else {
            world.advance(990);
            assert_eq!(world.closed, []);
            world.advance(20);
        }
        assert!(matches!(world.closed[..], [(DeviceIndex(0), Ended::Broken(_))]));
        assert_eq!(world.devices[0].byes.len(), usize::from(finishes));
    }
}

#[test]
fn a_frame_of_the_largest_body_is_read_and_one_byte_more_is_not() {
    use wire_format::frame::{Flags, Header, Kind};
    for (more, ends) in [(0, false), (1, true)] {
        let mut world = World::connected(1, 1);
        let length = crate::config::BODY_MAX + more;
        let header = Header { flags: Flags::IGNORABLE, ..Header::new(Kind(0x7E), length) };
        world.devices[0].answers = [&header.emit()[..], &vec![0; length as usize]].concat();
        world.drain();
        assert_eq!(!world.closed.is_empty(), ends);
        assert_eq!(world.fleet.stats().frames_ignored, u64::from(!ends));
    }
}

#[test]
fn with_a_durable_log_there_are_as_many_devices_as_both_tables_hold() {
    for (slots, logs, has_log, room) in [
        (3, 4, true, 2),
        (3, 5, true, 2),
        (2, 6, true, 2),
        (3, 0, true, 0),
        (3, 3, false, 3),
        (3, 1, false, 1),
    ] {
        let now = Instant::from_millis(1_000);
        let store = Store::new(7, "PARIS-12").unwrap();
        let mut config = FleetConfig::new(NodeId([0xAA; 16]), store, LINEAGE);
        let log = || LogId::new(Lineage([0xDD; 16]), 5, 1);
        config.durable = has_log.then(log);
        let devices =
            DeviceTables { slots: vec![DeviceSlot::EMPTY; slots], logs: vec![TrackSlot::EMPTY; logs] };
        let mut fleet: TestFleet = Fleet::new(config, devices, vec![OrderSlot::EMPTY], now, 1);
        let new = |number| NewDevice { id: Some(id(number)), address: None };
        let added = (0..4).take_while(|&number| fleet.add_device(now, new(number)).is_ok()).count();
        assert_eq!(added, room, "{slots} slots and {logs} of logs");
        assert_eq!(fleet.renew(now, log(), 0), has_log, "without a log there is none to renew");
    }
}
