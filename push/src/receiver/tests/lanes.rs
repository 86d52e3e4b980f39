//! Orders that take longer: their lane waits, the others go on.

use super::*;

const APPLIED: Code = Code::APPLIED;

fn ack(lane: Lane, number: u32) -> Said {
    Said::Ack { durable: false, lane, number }
}

fn later() -> World {
    let mut world = World::new(16);
    world.verdict = Verdict::Later;
    world
}

#[test]
fn a_lane_waits_for_its_order_and_the_others_do_not() {
    let mut world = later();
    let conn = world.session();
    // Sixteen normal orders, of which the first is stuck: the window holds no more of them.
    let orders: Vec<u8> = (1..=14).flat_map(order).collect();
    world.feed(conn, &orders).unwrap();
    assert_eq!((world.begun(), world.said(conn)), (vec![1], vec![ack(Lane::Normal, 14)]));
    world.verdict = Verdict::Applied;
    world.feed(conn, &[urgent(101), order_as(FOREVER, Lane::Interactive, 102)].concat()).unwrap();
    let entries = vec![(Lane::Urgent, 101, APPLIED, 0), (Lane::Interactive, 102, APPLIED, 0)];
    assert_eq!(world.begun(), [101, 102]);
    assert_eq!(world.said(conn), [Said::Outcomes { durable: false, entries }]);
    // It ends: the rest follows in log order, in one frame.
    world.complete(1, Verdict::Applied);
    assert_eq!(world.begun(), (2..=14).collect::<Vec<_>>());
    let all: Vec<_> = (1..=14).map(|number| (number, APPLIED, 0)).collect();
    assert_eq!(world.said(conn), [outcomes(&all)]);
    assert_eq!((world.receiver.stats().parked, world.receiver.stats().later), (13, 1));
}

#[test]
fn each_lane_has_one_order_at_work_and_both_logs_share_it() {
    let mut world = later();
    let conn = world.session();
    for lane in Lane::ALL {
        world.feed(conn, &order_as(FOREVER, lane, 1)).unwrap();
    }
    let durable = Delivery { durable: true, ..FOREVER };
    world.feed(conn, &order_as(durable, Lane::Urgent, 1)).unwrap();
    assert_eq!(world.begun(), [1, 1, 1, 1]);
    let acks = world.said(conn);
    assert_eq!(
        acks[..4],
        [Lane::Urgent, Lane::Interactive, Lane::Normal, Lane::Bulk].map(|lane| ack(lane, 1))
    );
    assert_eq!(acks[4], Said::Ack { durable: true, lane: Lane::Urgent, number: 1 });
    // Four at work: a WELCOME lists all of them, and still fits the least scratch.
    world.scratch = SCRATCH_MIN;
    world.receiver.handle_closed(world.now, conn);
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    let welcome = world.out[conn.index()].clone();
    let Ok(Split::Frame(raw)) = split(&welcome, 4_096) else { panic!("a whole WELCOME") };
    let started: Vec<_> = Welcome::parse(&raw).unwrap().started.iter().map(|entry| entry.lane).collect();
    assert_eq!((started, welcome.len()), (Lane::ALL.to_vec(), SCRATCH_MIN));
}

#[test]
fn without_a_park_what_would_have_to_wait_is_busy_and_said_in_log_order() {
    let mut world = later();
    world.receiver = Receiver::new(world.receiver.config().clone(), no_park(), world.now);
    let conn = world.session();
    world.feed(conn, &[order(1), order(2), order(3)].concat()).unwrap();
    assert_eq!((world.begun(), world.said(conn)), (vec![1], vec![ack(Lane::Normal, 3)]));
    world.now = world.now + Duration::from_millis(30);
    world.complete(1, Verdict::Applied);
    assert_eq!(world.said(conn), [outcomes(&[(1, APPLIED, 0), (2, Code::BUSY, 0), (3, Code::BUSY, 0)])]);
    assert_eq!((world.begun(), world.receiver.stats().park_full), (vec![], 2));
    // The lane is free again, and what was busy counts as ended.
    world.feed(conn, &[order(3), order(4)].concat()).unwrap();
    assert_eq!((world.begun(), world.receiver.stats().duplicates), (vec![4], 1));
}

fn no_park() -> Boxes {
    Memory { park: Box::new([]), ..boxes(&ReceiverConfig { window_orders: 16, ..config() }) }
}

#[test]
fn an_attempt_that_ended_says_when_to_try_again() {
    let mut world = World::new(4);
    let conn = world.session();
    let retry_after = Duration::from_millis(1_234);
    for (number, verdict, code) in [
        (1, Verdict::Busy { retry_after }, Code::BUSY),
        (2, Verdict::NoSpace { retry_after }, Code::NO_SPACE),
        (3, Verdict::FailedRetryable { detail: 9, retry_after }, Code::FAILED_RETRYABLE),
    ] {
        world.verdict = verdict;
        world.feed(conn, &order(number)).unwrap();
        let bytes = core::mem::take(&mut world.out[conn.index()]);
        let Ok(Split::Frame(raw)) = split(&bytes, 4_096) else { panic!("an OUTCOME") };
        let entry = Outcome::parse(&raw).unwrap().entries.iter().next().unwrap();
        assert_eq!((entry.number, entry.code, entry.ms), (number, code, 1_234));
        assert_eq!(entry.detail, if number == 3 { 9 } else { 0 });
    }
}

#[test]
fn a_lifetime_that_ends_while_an_order_waits_is_over_when_it_would_start() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &[order(1), living(2, 1_001), living(3, 2_000), order(4)].concat()).unwrap();
    world.said(conn);
    world.pass(Duration::from_millis(1_000));
    world.verdict = Verdict::Applied;
    world.complete(1, Verdict::Applied);
    assert_eq!(world.begun(), [1, 3, 4]);
    let ends = [(1, APPLIED, 0), (2, Code::EXPIRED, 0), (3, APPLIED, 0), (4, APPLIED, 0)];
    assert_eq!((world.said(conn), world.receiver.stats().expired), (vec![outcomes(&ends)], 1));
}

#[test]
fn what_expired_on_arrival_behind_a_stuck_order_does_not_pass_it() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &[order(1), living(2, 1)].concat()).unwrap();
    assert_eq!(world.said(conn), [ack(Lane::Normal, 2)]);
    world.complete(1, Verdict::Applied);
    assert_eq!(world.said(conn), [outcomes(&[(1, APPLIED, 0), (2, Code::EXPIRED, 0)])]);
}

#[test]
fn a_ticket_outlives_its_session_and_the_outcome_is_owed_in_the_next() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &[order(1), order(2), order(3)].concat()).unwrap();
    assert_eq!(world.begun(), [1]);
    let (conn, said) = world.reconnect(conn);
    assert_eq!(said.len(), 1, "nothing has ended: {said:?}");
    // What waited has gone with its session; the server sends it again behind the one at work.
    let replay = Delivery { replay: true, ..FOREVER };
    let again: Vec<u8> = (1..=2).flat_map(|number| order_as(replay, Lane::Normal, number)).collect();
    world.feed(conn, &again).unwrap();
    assert_eq!((world.begun(), world.said(conn)), (vec![], vec![ack(Lane::Normal, 2)]));
    world.verdict = Verdict::Applied;
    world.complete(1, Verdict::Applied);
    assert_eq!(world.begun(), [2]);
    assert_eq!(world.said(conn), [outcomes(&[(1, APPLIED, 0), (2, APPLIED, 0)])]);
    // A second time the ticket is worth nothing.
    world.complete(1, Verdict::Failed { detail: 1 });
    assert_eq!((world.said(conn), world.receiver.owed()), (vec![], 2));
}

#[test]
fn an_end_between_two_sessions_is_said_first_thing() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &[order(1), order(2)].concat()).unwrap();
    world.receiver.handle_closed(world.now, conn);
    world.drain();
    world.complete(1, Verdict::Applied);
    assert_eq!(world.begun(), [1], "nothing starts without a session");
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    let said = world.said(conn);
    assert!(matches!(&said[0], Said::Welcome { volatile, .. } if volatile.lanes[2].floor == 1));
    assert_eq!(said[1..], [outcomes(&[(1, APPLIED, 0)])]);
}

#[test]
fn an_end_while_the_welcome_is_being_written_waits_until_it_has_left() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &order(1)).unwrap();
    world.receiver.handle_closed(world.now, conn);
    world.drain();
    let conn = world.connect();
    world.room = Some(100);
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    world.complete(1, Verdict::Applied);
    assert_eq!(world.out[conn.index()].len(), 100);
    world.room = None;
    world.receiver.handle_writable(world.now, conn);
    world.drain();
    let said = world.said(conn);
    assert!(matches!(&said[0], Said::Welcome { volatile, .. } if volatile.lanes[2].floor == 0));
    assert_eq!(said[1..], [outcomes(&[(1, APPLIED, 0)])]);
}

#[test]
fn an_order_of_a_lineage_that_is_gone_keeps_its_lane_and_owes_nothing() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &order(1)).unwrap();
    world.receiver.handle_closed(world.now, conn);
    let volatile = LogHead { lineage: Lineage([0xEF; 16]), run: 80, head: 0 };
    let conn = world.session_with(&Hello { volatile, ..hello() });
    world.feed(conn, &order(1)).unwrap();
    assert_eq!((world.begun(), world.said(conn)), (vec![1], vec![ack(Lane::Normal, 1)]));
    world.verdict = Verdict::Applied;
    let ticket = world.tickets[0];
    world.receiver.complete(world.now, ticket, Verdict::Applied, None);
    world.drain();
    assert_eq!((world.begun(), world.said(conn)), (vec![1], vec![outcomes(&[(1, APPLIED, 0)])]));
}

#[test]
fn an_ack_of_one_log_does_not_wait_for_the_other() {
    let mut world = later();
    let conn = world.session();
    let durable = Delivery { durable: true, ..FOREVER };
    // The volatile one is about to be acknowledged when it ends; the durable one, in another lane, is not.
    let bytes = [order(1), order_as(durable, Lane::Bulk, 7)].concat();
    let first = world.receiver.handle_bytes(world.now, conn, &bytes).unwrap();
    let (used, ticket) = (first.consumed, first.order().unwrap().ticket);
    world.receiver.complete(world.now, ticket, Verdict::Busy { retry_after: Duration::ZERO }, None);
    world.feed(conn, &bytes[used..]).unwrap();
    let ack = Said::Ack { durable: true, lane: Lane::Bulk, number: 7 };
    assert_eq!(world.said(conn), [ack, outcomes(&[(1, Code::BUSY, 0)])]);
}

#[test]
fn a_number_below_one_that_waits_is_an_error() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &[order(1), order(5)].concat()).unwrap();
    world.said(conn);
    let why = Ended::Unexpected(wire_format::frame::Kind::ORDER);
    assert_eq!(world.feed(conn, &order(4)), Err(why));
    assert_eq!(world.said(conn), [Said::Bye(bye::Code::PROTOCOL_ERROR)]);
}

#[test]
fn the_window_counts_what_waits() {
    let mut world = World::new(4);
    world.verdict = Verdict::Later;
    let conn = world.session();
    world.feed(conn, &(1..=4).flat_map(order).collect::<Vec<_>>()).unwrap();
    assert_eq!(world.feed(conn, &order(5)), Err(Ended::WindowExceeded));
}

#[test]
fn a_frozen_device_starts_nothing_that_waited() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &[order(1), order(2)].concat()).unwrap();
    assert_eq!(world.begun(), [1]);
    world.now = world.now + FROZEN_AFTER + Duration::from_micros(1);
    world.receiver.handle_timeout(world.now);
    world.complete(1, Verdict::Applied);
    assert_eq!((world.begun(), world.closed.last()), (vec![], Some(&(conn, Ended::Frozen))));
}

#[test]
fn settled_gives_up_on_what_has_not_ended() {
    let mut world = later();
    let conn = world.session();
    world.feed(conn, &[order(1), order(2), order(3)].concat()).unwrap();
    world.said(conn);
    world.begun();
    world.feed(conn, &settled(Lane::Normal, 2)).unwrap();
    assert_eq!(world.receiver.owed(), 1);
    world.complete(1, Verdict::Applied);
    assert_eq!(world.begun(), [3]);
    world.complete(3, Verdict::Applied);
    assert_eq!(world.said(conn), [outcomes(&[(3, APPLIED, 0)])]);
}
