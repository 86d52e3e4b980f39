//! Silence, freezes, goodbyes.

use super::*;

#[test]
fn ten_seconds_of_silence_end_the_session_and_a_frame_prolongs_it() {
    let mut world = World::new(4);
    let conn = world.session();
    world.pass(DEAD_AFTER - Duration::from_micros(1));
    assert_eq!(world.feed(conn, &ping(9)), Ok(16));
    assert_eq!(world.said(conn), [Said::Pong(9)]);
    world.pass(DEAD_AFTER - Duration::from_micros(1));
    // Half a frame is no sign of life.
    assert_eq!(world.feed(conn, &ping(9)[..8]), Ok(0));
    assert_eq!(world.closed, []);
    world.pass(Duration::from_micros(1));
    assert_eq!(world.closed, [(conn, Ended::Dead)]);
    assert_eq!(world.events.last(), Some(&Event::Unserved { why: Ended::Dead }));
    assert_eq!((world.receiver.served(), world.receiver.stats().dead), (None, 1));
    world.session();
}

#[test]
fn the_receiver_wants_to_be_called_often_enough_to_know_a_freeze() {
    let mut world = World::new(4);
    assert_eq!(world.receiver.poll_timeout(), None);
    world.session();
    assert_eq!(world.receiver.poll_timeout(), Some(world.now + HEARTBEAT));
}

#[test]
fn a_thawed_device_applies_nothing_stale() {
    type Thaw = fn(&mut World, ConnId);
    let ways: [Thaw; 5] = [
        |world, _| world.receiver.handle_timeout(world.now),
        |world, conn| assert_eq!(world.feed(conn, &order(2)), Err(Ended::Frozen)),
        |world, conn| world.receiver.handle_writable(world.now, conn),
        |world, _| assert!(world.receiver.poll_transmit(world.now, &mut [0; 2_048]).is_none()),
        |world, _| assert!(world.try_connect().is_ok()),
    ];
    for thaw in ways {
        let mut world = World::new(4);
        let conn = world.session();
        let stranger = world.connect();
        world.feed(conn, &order(1)).unwrap();
        world.said(conn);
        world.now = world.now + FROZEN_AFTER + Duration::from_micros(1);
        thaw(&mut world, conn);
        assert!(world.feed(conn, &order(2)).is_err());
        world.drain();
        assert_eq!(world.closed, [(conn, Ended::Frozen), (stranger, Ended::Frozen)]);
        assert_eq!((world.numbers(), world.said(conn)), (vec![1], vec![]));
        assert_eq!(world.receiver.stats().frozen, 1);
        let (_, said) = world.reconnect(conn);
        assert_eq!(said[1..], [outcomes(&[(1, Code::APPLIED, 0)])]);
    }
}

#[test]
fn a_gap_of_exactly_five_seconds_is_no_freeze() {
    let mut world = World::new(4);
    let conn = world.session();
    world.now = world.now + FROZEN_AFTER;
    world.feed(conn, &order(1)).unwrap();
    assert_eq!((world.numbers(), world.closed.len()), (vec![1], 0));
}

#[test]
fn an_effect_that_took_too_long_has_its_outcome_in_the_next_session() {
    let mut world = World::new(4);
    let conn = world.session();
    world.effort = FROZEN_AFTER + Duration::from_secs(1);
    assert_eq!(world.feed(conn, &[order(1), order(2)].concat()), Err(Ended::Frozen));
    assert_eq!((world.numbers(), &world.closed[..]), (vec![1], &[(conn, Ended::Frozen)][..]));
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    assert_eq!(world.said(conn)[1..], [outcomes(&[(1, Code::APPLIED, 0)])]);
}

#[test]
fn a_long_wait_without_connections_is_no_freeze() {
    let mut world = World::new(4);
    world.now = world.now + Duration::from_secs(86_400);
    let conn = world.session();
    assert_eq!(world.feed(conn, &order(1)), Ok(order(1).len()));
}

#[test]
fn a_drain_is_told_and_the_session_goes_on() {
    let mut world = World::new(4);
    let conn = world.session();
    world.feed(conn, &frame(|buffer| drain_frame().emit(buffer))).unwrap();
    assert_eq!(world.events.last(), Some(&Event::Leaving(drain_frame())));
    world.feed(conn, &order(1)).unwrap();
    assert_eq!(world.said(conn), [outcomes(&[(1, Code::APPLIED, 0)])]);
}

#[test]
fn a_server_that_rejects_the_welcome_is_gone() {
    let mut world = World::new(4);
    let conn = world.session();
    let code = wire_format::frame::reject::Code::WRONG_DEVICE;
    let reject = Reject { code, retry_after_ms: 0, detail: 0 };
    let why = Ended::Rejected { code, retry_after_ms: 0, detail: 0 };
    assert_eq!(world.feed(conn, &frame(|buffer| reject.emit(buffer))), Err(why));
    assert_eq!((world.said(conn), &world.closed[..]), (vec![], &[(conn, why)][..]));
}

#[test]
fn a_device_that_stops_says_what_it_owes_and_goodbye() {
    let mut world = World::new(4);
    let conn = world.session();
    let stranger = world.connect();
    world.room = Some(0);
    world.feed(conn, &order(1)).unwrap();
    world.receiver.stop(world.now);
    world.drain();
    assert_eq!(world.closed, [(stranger, Ended::Stopped)]);
    assert_eq!(world.try_connect(), Err(TooManyPeers));
    assert_eq!(world.feed(conn, &order(2)), Ok(0));
    world.room = None;
    world.receiver.handle_writable(world.now, conn);
    world.drain();
    assert_eq!(world.said(conn), [outcomes(&[(1, Code::APPLIED, 0)]), Said::Bye(bye::Code::NORMAL)]);
    assert_eq!(world.closed.last(), Some(&(conn, Ended::Stopped)));
    assert!(world.receiver.is_stopped());
    assert_eq!(world.numbers(), [1]);
}

#[test]
fn a_device_that_stops_does_not_wait_for_a_server_that_does_not_read() {
    // Not even if it takes the last outcomes just before the time is over, and then not the goodbye.
    for taken in [0, 36] {
        let mut world = World::new(4);
        let conn = world.session();
        world.room = Some(0);
        world.feed(conn, &order(1)).unwrap();
        world.receiver.stop(world.now);
        world.pass(FAREWELL_WITHIN - Duration::from_micros(1));
        world.room = Some(taken);
        world.receiver.handle_writable(world.now, conn);
        world.drain();
        assert!(!world.receiver.is_stopped());
        world.pass(Duration::from_micros(1));
        assert_eq!(world.closed, [(conn, Ended::Stopped)]);
        assert!(world.receiver.is_stopped());
    }
}

#[test]
fn only_the_last_state_is_told_to_who_asks_late() {
    let mut world = World::new(4);
    let first = world.session();
    world.events.clear();
    world.receiver.handle_closed(world.now, first);
    let bytes = frame(|buffer| hello().emit(buffer));
    let second = world.receiver.handle_connected(world.now, "192.0.2.2:1".parse().unwrap()).unwrap();
    world.receiver.handle_bytes(world.now, second, &bytes).unwrap();
    let known = Known { server: A, fence: 5 };
    let why = Ended::Closed(Closed::Eof);
    assert_eq!(world.receiver.poll_event(), Some(Event::Unserved { why }));
    let peer = "192.0.2.2".parse().unwrap();
    assert_eq!(world.receiver.poll_event(), Some(Event::Served { conn: second, peer, known }));
    assert_eq!(world.receiver.poll_event(), None);
}
