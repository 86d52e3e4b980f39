//! Orders: once each, in order, within the window and the lifetime; outcomes until they are settled.

use wire_format::error::Fault;
use wire_format::frame::header::{Flags, Header};
use wire_format::frame::{Kind, header};

use super::*;

const APPLIED: Code = Code::APPLIED;

#[test]
fn an_order_is_handed_over_and_its_outcome_said() {
    let mut world = World::new(4);
    let conn = world.session();
    for (number, verdict, code, detail) in [
        (1, Verdict::Applied, APPLIED, 0),
        (5, Verdict::RejectedKind, Code::REJECTED_KIND, 0),
        (6, Verdict::RejectedPayload, Code::REJECTED_PAYLOAD, 0),
        (9, Verdict::Failed { detail: 42 }, Code::FAILED, 42),
    ] {
        world.verdict = verdict;
        world.feed(conn, &order(number)).unwrap();
        assert_eq!(world.said(conn), [outcomes(&[(number, code, detail)])]);
    }
    assert_eq!((world.numbers(), world.receiver.owed()), (vec![1, 5, 6, 9], 4));
    assert_eq!(world.receiver.stats().delivered, 4);
}

#[test]
fn what_is_handed_over_says_where_it_comes_from() {
    let mut world = World::new(4);
    let conn = world.session();
    for (delivery, lineage) in [
        (FOREVER, Lineage([0xEE; 16])),
        (Delivery { durable: true, replay: true, remaining_ms: Some(250), ..FOREVER }, Lineage([0xDD; 16])),
    ] {
        let bytes = order_as(delivery, Lane::Urgent, 3);
        let input = world.receiver.handle_bytes(world.now, conn, &bytes).unwrap();
        let consumed = input.consumed;
        let delivered = input.order().unwrap();
        assert_eq!((consumed, delivered.lineage), (bytes.len(), lineage));
        assert_eq!((delivered.redelivered, delivered.durable), (delivery.replay, delivery.durable));
        assert_eq!(
            delivered.remaining,
            delivery.remaining_ms.map(|ms| Duration::from_millis(u64::from(ms) - 1))
        );
        assert_eq!((delivered.order.payload, delivered.ticket.number()), (&b"home"[..], 3));
        world.receiver.complete(world.now, delivered.ticket, Verdict::Applied, None);
        world.drain();
        let said = Said::Outcomes { durable: delivery.durable, entries: vec![(Lane::Urgent, 3, APPLIED, 0)] };
        assert_eq!(world.said(conn), [said]);
    }
}

#[test]
fn nothing_is_read_while_an_order_is_being_applied() {
    let mut world = World::new(4);
    let conn = world.session();
    let stranger = world.connect();
    let bytes = [order(1), order(2)].concat();
    let delivered = world.receiver.handle_bytes(world.now, conn, &bytes).unwrap().order().unwrap();
    assert_eq!(world.feed(conn, &bytes[72..]), Ok(0));
    assert_eq!(world.feed(stranger, &frame(|buffer| hello().emit(buffer))), Ok(0));
    // Its connection may go meanwhile: the outcome is said in the next session.
    world.receiver.handle_closed(world.now, conn);
    world.receiver.complete(world.now, delivered.ticket, Verdict::Applied, None);
    assert_eq!(world.feed(stranger, &frame(|buffer| hello().emit(buffer))), Ok(448));
    let said = world.said(stranger);
    assert!(matches!(&said[0], Said::Welcome { volatile, .. } if volatile.lanes[2].floor == 1));
    assert_eq!(said[1], outcomes(&[(1, APPLIED, 0)]));
}

#[test]
fn many_outcomes_leave_in_one_frame_in_lane_order() {
    let mut world = World::new(16);
    let conn = world.session();
    let lanes = [(Lane::Bulk, 1), (Lane::Normal, 2), (Lane::Urgent, 3), (Lane::Normal, 4), (Lane::Urgent, 9)];
    let bytes: Vec<u8> = lanes.iter().flat_map(|(lane, number)| order_as(FOREVER, *lane, *number)).collect();
    world.feed(conn, &bytes).unwrap();
    assert_eq!(world.numbers(), [1, 2, 3, 4, 9]);
    let entries = vec![
        (Lane::Urgent, 3, APPLIED, 0),
        (Lane::Urgent, 9, APPLIED, 0),
        (Lane::Normal, 2, APPLIED, 0),
        (Lane::Normal, 4, APPLIED, 0),
        (Lane::Bulk, 1, APPLIED, 0),
    ];
    assert_eq!(world.said(conn), [Said::Outcomes { durable: false, entries }]);
}

#[test]
fn outcomes_of_the_two_logs_leave_in_frames_of_their_own() {
    let mut world = World::new(16);
    let conn = world.session();
    let durable = Delivery { durable: true, ..FOREVER };
    let bytes = [order(1), order(2), order_as(durable, Lane::Normal, 1), order(3)].concat();
    world.feed(conn, &bytes).unwrap();
    let kept = Said::Outcomes { durable: true, entries: vec![(Lane::Normal, 1, APPLIED, 0)] };
    let expected = [outcomes(&[(1, APPLIED, 0), (2, APPLIED, 0)]), kept, outcomes(&[(3, APPLIED, 0)])];
    assert_eq!(world.said(conn), expected);
}

#[test]
fn a_frame_holds_64_outcomes_and_no_more_than_the_server_takes() {
    for (max_body, scratch, pieces) in [
        (4_096, 4_096, vec![64, 6]),
        (4_096, 1_044, vec![64, 6]),
        (4_096, 1_043, vec![63, 7]),
        (432, 4_096, vec![26, 26, 18]),
        (4_096, SCRATCH_MIN, vec![22, 22, 22, 4]),
    ] {
        let mut world = World::new(70);
        world.scratch = scratch;
        let conn = world.session_with(&Hello { max_body, ..hello() });
        let bytes: Vec<u8> = (1..=70).flat_map(order).collect();
        world.feed(conn, &bytes).unwrap();
        let said = world.said(conn);
        let lens = said.iter().map(|said| match said {
            Said::Outcomes { entries, .. } => entries.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(lens.collect::<Vec<_>>(), pieces);
    }
}

#[test]
fn a_duplicate_is_answered_with_its_first_end_and_never_handed_over() {
    let mut world = World::new(4);
    let conn = world.session();
    world.verdict = Verdict::Failed { detail: 3 };
    world.feed(conn, &order(7)).unwrap();
    world.said(conn);
    world.verdict = Verdict::Applied;
    let replay = Delivery { replay: true, ..FOREVER };
    world.feed(conn, &[order_as(replay, Lane::Normal, 7), order(6)].concat()).unwrap();
    let answers = outcomes(&[(7, Code::DUPLICATE, Code::FAILED.0), (6, Code::DUPLICATE, 0)]);
    assert_eq!(world.said(conn), [answers]);
    assert_eq!((world.numbers(), world.receiver.owed()), (vec![7], 1));
    // Another lane counts for itself.
    world.feed(conn, &order_as(FOREVER, Lane::Urgent, 7)).unwrap();
    assert_eq!(world.applied.last(), Some(&(Lane::Urgent, 7, false)));
    assert_eq!(world.receiver.stats().duplicates, 2);
}

#[test]
fn duplicates_are_known_across_sessions_and_settling() {
    let mut world = World::new(4);
    let conn = world.session();
    world.feed(conn, &[order(1), order(2)].concat()).unwrap();
    let (conn, said) = world.reconnect(conn);
    let floor = |said: &[Said]| match &said[0] {
        Said::Welcome { volatile, .. } => (volatile.lanes[2].floor, volatile.lanes[2].run),
        other => panic!("{other:?}"),
    };
    assert_eq!(floor(&said), (2, 70));
    assert_eq!(said[1..], [outcomes(&[(1, APPLIED, 0), (2, APPLIED, 0)])]);
    world.feed(conn, &[settled(Lane::Normal, 1), order(1), order(2)].concat()).unwrap();
    let answers = outcomes(&[(1, Code::DUPLICATE, 0), (2, Code::DUPLICATE, APPLIED.0)]);
    assert_eq!(world.said(conn), [answers]);
    let (conn, said) = world.reconnect(conn);
    assert_eq!((floor(&said), &said[1..]), ((2, 70), &[outcomes(&[(2, APPLIED, 0)])][..]));
    world.feed(conn, &settled(Lane::Normal, 2)).unwrap();
    let (_, said) = world.reconnect(conn);
    assert_eq!((floor(&said), said.len(), world.receiver.owed()), ((2, 70), 1, 0));
    assert_eq!((world.numbers(), world.receiver.stats().settled), (vec![1, 2], 2));
}

#[test]
fn settled_forgets_one_lane_of_one_log_up_to_its_number() {
    let mut world = World::new(16);
    let conn = world.session();
    let durable = Delivery { durable: true, ..FOREVER };
    let bytes = [order(1), order_as(FOREVER, Lane::Urgent, 2), order_as(durable, Lane::Normal, 1), order(3)];
    world.feed(conn, &bytes.concat()).unwrap();
    world.feed(conn, &settled(Lane::Normal, 2)).unwrap();
    assert_eq!((world.receiver.owed(), world.receiver.stats().settled), (3, 1));
    world.feed(conn, &settled(Lane::Normal, 3)).unwrap();
    assert_eq!(world.receiver.owed(), 2);
    world.feed(conn, &[order(4), settled(Lane::Bulk, 9)].concat()).unwrap();
    assert_eq!(world.receiver.owed(), 3);
    world.said(conn);
    let (_, said) = world.reconnect(conn);
    let entries = vec![(Lane::Urgent, 2, APPLIED, 0)];
    let kept = Said::Outcomes { durable: true, entries: vec![(Lane::Normal, 1, APPLIED, 0)] };
    assert_eq!(said[1..], [Said::Outcomes { durable: false, entries }, kept, outcomes(&[(4, APPLIED, 0)])]);
}

#[test]
fn a_new_volatile_lineage_starts_anew_and_owes_nothing() {
    let mut world = World::new(4);
    let conn = world.session();
    world.feed(conn, &[order(1), order(2)].concat()).unwrap();
    world.receiver.handle_closed(world.now, conn);
    let volatile = LogHead { lineage: Lineage([0xEF; 16]), run: 80, head: 0 };
    let conn = world.session_with(&Hello { volatile, ..hello() });
    assert_eq!((world.receiver.owed(), world.receiver.stats().forgotten), (2, 0), "it may have come late");
    world.feed(conn, &order(1)).unwrap();
    assert_eq!((world.receiver.owed(), world.receiver.stats().forgotten), (1, 2));
    assert_eq!((world.numbers(), world.said(conn)), (vec![1, 2, 1], vec![outcomes(&[(1, APPLIED, 0)])]));
}

#[test]
fn what_is_owed_to_a_server_that_was_fenced_off_gives_way_to_orders_of_the_one_that_leads() {
    for journal in [false, true] {
        let mut world = if journal { World::journalled(1) } else { World::new(1) };
        let durable = |number| keyed(true, Lane::Normal, number, [0; 3]);
        for number in [1, 2] {
            let conn = world.session();
            world.feed(conn, &durable(number)).unwrap();
            world.receiver.handle_closed(world.now, conn);
        }
        assert_eq!(world.receiver.owed(), 2, "all the room there is");
        let head = LogHead { lineage: Lineage([0xDE; 16]), run: 1, head: 0 };
        let volatile = LogHead { lineage: Lineage([0xEF; 16]), run: 1, head: 0 };
        let other = Hello { server: B, fence: 6, durable: head, volatile, ..hello() };
        world.pass(Duration::from_secs(10));
        let conn = world.session_with(&other);
        world.feed(conn, &durable(7)).unwrap();
        let said = |number, code, detail| Said::Outcomes {
            durable: true,
            entries: vec![(Lane::Normal, number, code, detail)],
        };
        assert_eq!(world.said(conn), [said(7, APPLIED, 0)]);
        assert_eq!((world.receiver.owed(), world.receiver.stats().forgotten), (2, 1));
        // What the other server is still owed goes last, and what it is not owed any more is a duplicate.
        let mut world = if journal { world.reboot(0) } else { world };
        assert_eq!(world.receiver.owed(), 2);
        if !journal {
            world.receiver.handle_closed(world.now, conn);
        }
        world.pass(Duration::from_secs(10));
        let conn = world.connect();
        let back = Hello { fence: 7, takeover: true, ..hello() };
        world.feed(conn, &frame(|buffer| back.emit(buffer))).unwrap();
        assert_eq!(world.said(conn)[1..], [said(2, APPLIED, 0)]);
        let settled = frame(|buffer| Settled { durable: true, lane: Lane::Normal, number: 2 }.emit(buffer));
        world.feed(conn, &[settled, durable(1)].concat()).unwrap();
        assert_eq!(world.said(conn), [said(1, Code::DUPLICATE, 0)]);
    }
}

#[test]
fn the_outcomes_of_another_durable_log_wait_for_its_server() {
    let mut world = World::new(4);
    let conn = world.session();
    let durable = Delivery { durable: true, ..FOREVER };
    world.feed(conn, &order_as(durable, Lane::Normal, 1)).unwrap();
    world.receiver.handle_closed(world.now, conn);
    let other = LogHead { lineage: Lineage([0xDE; 16]), run: 1, head: 0 };
    let conn = world.session_with(&Hello { durable: other, ..hello() });
    world.feed(conn, &order(1)).unwrap();
    assert_eq!(world.said(conn), [outcomes(&[(1, APPLIED, 0)])]);
    let (_, said) = world.reconnect(conn);
    let kept = Said::Outcomes { durable: true, entries: vec![(Lane::Normal, 1, APPLIED, 0)] };
    assert_eq!(said[1..], [kept, outcomes(&[(1, APPLIED, 0)])]);
}

#[test]
fn the_window_and_one_past_it() {
    let mut world = World::new(4);
    let conn = world.session();
    let four: Vec<u8> = (1..=4).flat_map(order).collect();
    world.feed(conn, &four).unwrap();
    world.feed(conn, &[settled(Lane::Normal, 1), order(5)].concat()).unwrap();
    world.said(conn);
    assert_eq!(world.feed(conn, &order(6)), Err(Ended::WindowExceeded));
    assert_eq!(world.said(conn), [Said::Bye(bye::Code::PROTOCOL_ERROR)]);
    assert_eq!(world.closed, [(conn, Ended::WindowExceeded)]);
    assert_eq!((world.numbers(), world.receiver.stats().window_exceeded), (vec![1, 2, 3, 4, 5], 1));
}

#[test]
fn what_is_owed_from_before_makes_the_window_smaller_and_never_the_ring_too_small() {
    let mut world = World::new(4);
    let mut conn = world.session();
    let mut number = 0;
    let window = |said: &[Said]| match said[0] {
        Said::Welcome { window, .. } => window,
        ref other => panic!("{other:?}"),
    };
    // A server that never settles: 4, then 4 more fill the ring.
    for round in [4, 4] {
        for _ in 0..round {
            number += 1;
            world.feed(conn, &order(number)).unwrap();
        }
        let said;
        (conn, said) = world.reconnect(conn);
        assert_eq!(usize::from(window(&said)), (8 - world.receiver.owed()).clamp(1, 4));
    }
    assert_eq!(world.receiver.owed(), 8);
    // One order is the least a WELCOME can allow; there is no place for it until something is settled.
    world.said(conn);
    assert_eq!(world.feed(conn, &order(9)), Err(Ended::NoRoom));
    assert_eq!(world.said(conn), [Said::Bye(bye::Code::STORAGE)]);
    assert_eq!(world.receiver.stats().window_exceeded, 0);
    let conn = world.session();
    world.feed(conn, &[settled(Lane::Normal, 3), order(9)].concat()).unwrap();
    assert_eq!(world.numbers(), (1..=9).collect::<Vec<_>>());
}

#[test]
fn answers_to_duplicates_wait_for_room_and_then_go_on() {
    let mut world = World::new(2);
    let conn = world.session();
    world.feed(conn, &[order(1), order(2)].concat()).unwrap();
    world.said(conn);
    world.room = Some(0);
    let again = [order(1), order(2), order(1), ping(4)].concat();
    // Two places are left for answers; nobody takes them.
    assert_eq!(world.feed(conn, &again), Ok(2 * order(1).len()));
    world.room = None;
    world.receiver.handle_writable(world.now, conn);
    world.drain();
    assert_eq!(world.feed(conn, &again[2 * order(1).len()..]), Ok(order(1).len() + 16));
    let code = Code::DUPLICATE;
    let said = world.said(conn);
    assert_eq!(said[0], outcomes(&[(1, code, 1), (2, code, 1)]));
    assert_eq!(said[1..], [Said::Pong(4), outcomes(&[(1, code, 1)])]);
}

#[test]
fn an_order_whose_lifetime_is_over_before_it_starts_expires() {
    let mut world = World::new(4);
    let conn = world.session();
    let short = |ms| Delivery { remaining_ms: Some(ms), ..FOREVER };
    let bytes =
        [order(1), order_as(short(1_001), Lane::Normal, 2), order_as(short(1_002), Lane::Normal, 3)].concat();
    // All three came at once; the first takes a second.
    world.effort = Duration::from_secs(1);
    let first = world.receiver.handle_bytes(world.now, conn, &bytes).unwrap();
    world.now = world.now + world.effort;
    let used = first.consumed;
    world.receiver.complete(world.now, first.order().unwrap().ticket, Verdict::Applied, None);
    let rest = &bytes[used..];
    let second = world.receiver.handle_bytes(world.now, conn, rest).unwrap();
    assert!(second.item.is_none() && second.consumed > 0);
    let third =
        world.receiver.handle_bytes(world.now, conn, &rest[second.consumed..]).unwrap().order().unwrap();
    assert_eq!(third.remaining, Some(Duration::from_millis(1)));
    world.receiver.complete(world.now, third.ticket, Verdict::Applied, None);
    world.drain();
    let said = outcomes(&[(1, APPLIED, 0), (2, Code::EXPIRED, 0), (3, APPLIED, 0)]);
    assert_eq!((world.said(conn), world.receiver.stats().expired), (vec![said], 1));
    // An expired order has ended like any other.
    world.feed(conn, &order(2)).unwrap();
    assert_eq!(world.said(conn), [outcomes(&[(2, Code::DUPLICATE, Code::EXPIRED.0)])]);
}

#[test]
fn a_lifetime_runs_from_the_first_byte_of_the_frame() {
    for (wait, code) in [(98, APPLIED), (99, Code::EXPIRED)] {
        let mut world = World::new(4);
        let conn = world.session();
        let bytes = order_as(Delivery { remaining_ms: Some(100), ..FOREVER }, Lane::Normal, 1);
        assert_eq!(world.feed(conn, &bytes[..20]), Ok(0));
        world.pass(Duration::from_millis(wait));
        world.feed(conn, &bytes).unwrap();
        assert_eq!(world.said(conn), [outcomes(&[(1, code, 0)])]);
    }
}

#[test]
fn a_lifetime_of_one_millisecond_is_over_when_it_arrives() {
    for (ms, code) in [(1, Code::EXPIRED), (2, APPLIED)] {
        let mut world = World::new(4);
        let conn = world.session();
        let delivery = Delivery { replay: true, remaining_ms: Some(ms), ..FOREVER };
        world.feed(conn, &order_as(delivery, Lane::Normal, 1)).unwrap();
        assert_eq!(world.said(conn), [outcomes(&[(1, code, 0)])]);
    }
}

#[test]
fn the_time_an_effect_took_is_in_its_outcome() {
    let mut world = World::new(4);
    world.effort = Duration::from_millis(1_234);
    let conn = world.session();
    world.feed(conn, &order(1)).unwrap();
    let bytes = world.out[conn.index()].clone();
    let Ok(Split::Frame(raw)) = split(&bytes, 512) else { panic!() };
    assert_eq!(Outcome::parse(&raw).unwrap().entries.iter().next().unwrap().ms, 1_234);
}

#[test]
fn broken_frames_end_the_session_with_a_bye() {
    let mut flipped = order(1);
    flipped[60] ^= 1;
    let mut header_flipped = order(1);
    header_flipped[5] ^= 1;
    let large = Header::new(Kind::ORDER, 1_025).emit().to_vec();
    for (bytes, fault, code) in [
        (flipped, Fault::Checksum, bye::Code::PROTOCOL_ERROR),
        (header_flipped, Fault::Checksum, bye::Code::PROTOCOL_ERROR),
        (large, Fault::Range, bye::Code::TOO_LARGE),
        (b"GET / HTTP/1.1\r\n".to_vec(), Fault::Checksum, bye::Code::PROTOCOL_ERROR),
    ] {
        let mut world = World::new(4);
        let conn = world.session();
        let why = world.feed(conn, &bytes).unwrap_err();
        assert!(matches!(why, Ended::Broken(error) if error.fault == fault), "{why}");
        assert_eq!((world.said(conn), &world.closed[..]), (vec![Said::Bye(code)], &[(conn, why)][..]));
        assert_eq!((world.applied.len(), world.receiver.stats().broken), (0, 1));
        // The device listens on, and nothing has moved.
        let again = world.session();
        world.feed(again, &order(1)).unwrap();
        assert_eq!(world.numbers(), [1]);
    }
}

#[test]
fn a_body_at_the_limit_is_taken() {
    let mut world = World::new(4);
    let conn = world.session();
    let payload = [7; 1_024 - 48];
    let order = Order { payload: &payload, ..wire_order() };
    let bytes = frame(|buffer| order.emit(&FOREVER, buffer));
    assert_eq!(bytes.len(), header::LEN + 1_024);
    assert_eq!(world.feed(conn, &bytes), Ok(bytes.len()));
}

fn wire_order() -> Order<'static> {
    Order {
        number: 1,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: OrderKind::PRINT,
        lane: Lane::Normal,
        kind_flags: KindFlags::NONE,
        schema: 0,
        options: &[],
        payload: &[],
    }
}

#[test]
fn an_order_of_a_log_the_server_does_not_have_is_an_error() {
    let mut world = World::new(4);
    let conn = world.session_with(&Hello { durable: LogHead::default(), ..hello() });
    let durable = Delivery { durable: true, ..FOREVER };
    let why = world.feed(conn, &order_as(durable, Lane::Normal, 1)).unwrap_err();
    assert!(matches!(why, Ended::Broken(error) if error.fault == Fault::Misplaced));
    assert_eq!(world.numbers(), []);
}

#[test]
fn kinds_of_other_versions_are_skipped_or_end_the_session() {
    let bare = |kind, flags| Header { flags, ..Header::new(Kind(kind), 0) }.emit().to_vec();
    let mut world = World::new(4);
    let conn = world.session();
    assert_eq!(world.feed(conn, &bare(0x77, Flags::IGNORABLE)), Ok(16));
    assert_eq!((world.said(conn), world.receiver.stats().ignored), (vec![], 1));
    for (kind, flags, code) in [
        (0x77, Flags::NONE, bye::Code::UNKNOWN_KIND),
        (Kind::PART.0, Flags::NONE, bye::Code::UNKNOWN_KIND),
        (Kind::HELLO.0, Flags::NONE, bye::Code::PROTOCOL_ERROR),
        (Kind::WELCOME.0, Flags::NONE, bye::Code::PROTOCOL_ERROR),
        (Kind::OUTCOME.0, Flags::NONE, bye::Code::PROTOCOL_ERROR),
        (Kind::ACK.0, Flags::NONE, bye::Code::PROTOCOL_ERROR),
    ] {
        let conn = world.session();
        world.closed.clear();
        assert_eq!(world.feed(conn, &bare(kind, flags)), Err(Ended::Unexpected(Kind(kind))));
        assert_eq!(world.said(conn), [Said::Bye(code)], "{kind:#x}");
        assert_eq!(world.closed, [(conn, Ended::Unexpected(Kind(kind)))]);
    }
    assert_eq!(world.receiver.stats().unexpected, 6);
}

#[test]
fn a_settled_above_the_floor_is_the_new_floor() {
    let mut world = World::new(4);
    let conn = world.session();
    world.feed(conn, &[order(1), settled(Lane::Normal, 5), order(5), order(6)].concat()).unwrap();
    let said = Said::Outcomes {
        durable: false,
        entries: vec![(Lane::Normal, 5, Code::DUPLICATE, 0), (Lane::Normal, 6, APPLIED, 0)],
    };
    assert_eq!((world.numbers(), world.said(conn)), (vec![1, 6], vec![said]));
}
