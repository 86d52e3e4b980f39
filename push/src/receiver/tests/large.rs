//! Large payloads: fetched in pieces, checked, gone on with after a cut.

use wire_format::frame::order::OrderOption;
use wire_format::frame::{Cancel, Part};

use super::*;

const APPLIED: Code = Code::APPLIED;
/// Bytes of a piece.
const PIECE: u32 = 4_096;
/// Twenty-five pieces, the last one shorter: more than one WANT.
const SIZE: u32 = 24 * PIECE + 100;

fn world() -> World {
    let config = ReceiverConfig { parts: true, window_orders: 8, max_body: 70_000, ..config() };
    World::with(config)
}

/// An order whose payload is the blob of this number.
fn large(number: u64, blob: u64, remaining_ms: Option<u32>) -> Vec<u8> {
    let mut options = [0; 64];
    let parts = OrderOption::Parts { blob, size: SIZE, sha256: [0xAB; 32] };
    let len = parts.emit(&mut options).unwrap();
    let order = Order { number, lane: Lane::Bulk, options: &options[..len], payload: b"", ..plain() };
    frame(|buffer| order.emit(&Delivery { remaining_ms, ..FOREVER }, buffer))
}

fn part(blob: u64, offset: u32) -> Vec<u8> {
    let len = (SIZE - offset).min(PIECE);
    let bytes = vec![7; len as usize];
    let part = Part { blob, offset, more: offset + len < SIZE, bytes: &bytes };
    frame(|buffer| part.emit(buffer))
}

/// What was asked for since the last look.
fn wanted(world: &mut World, conn: ConnId) -> Vec<(u32, u16)> {
    let said = world.said(conn).into_iter();
    let wants = said.filter_map(|said| if let Said::Want(want) = said { Some(want) } else { None });
    wants.map(|want| (want.offset, want.pieces)).collect()
}

/// Sends what is asked for until nothing is, at most up to `until`.
fn serve(world: &mut World, conn: ConnId, blob: u64, mut at: u32, until: u32) {
    let mut asked = at;
    loop {
        for (offset, pieces) in wanted(world, conn) {
            at = if offset < at && offset == 0 { 0 } else { at };
            assert!(offset <= at, "asked beyond what came");
            asked = (offset + u32::from(pieces) * PIECE).min(SIZE);
        }
        if at >= asked.min(until) {
            return;
        }
        world.feed(conn, &part(blob, at)).unwrap();
        at = (at + PIECE).min(SIZE);
    }
}

#[test]
fn a_large_order_starts_when_its_pieces_are_there_and_right() {
    let mut world = world();
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    let ack = Said::Ack { durable: false, lane: Lane::Bulk, number: 5 };
    let want = Said::Want(Want { blob: 3, offset: 0, pieces: PIECES });
    assert_eq!(world.said(conn), [ack, want]);
    assert_eq!((world.begun(), world.pieces.len()), (vec![], 0));
    // Eight pieces later more is asked for, so that the link is never idle.
    for at in 0..7 {
        world.feed(conn, &part(3, at * PIECE)).unwrap();
    }
    assert_eq!(wanted(&mut world, conn), []);
    world.feed(conn, &part(3, 7 * PIECE)).unwrap();
    assert_eq!(wanted(&mut world, conn), [(8 * PIECE, PIECES)]);
    // Meanwhile other lanes go on.
    world.feed(conn, &urgent(6)).unwrap();
    assert_eq!(world.begun(), [6]);
    for at in 8..24 {
        world.feed(conn, &part(3, at * PIECE)).unwrap();
    }
    world.said(conn);
    assert_eq!(world.begun(), []);
    world.feed(conn, &part(3, 24 * PIECE)).unwrap();
    assert_eq!((world.begun(), world.pieces.len(), world.pieces[24].2), (vec![5], 25, 100));
    assert!(world.pieces.iter().map(|piece| piece.1).eq((0..25).map(|at| at * PIECE)));
    let ticket = world.tickets[1];
    assert!(world.pieces.iter().all(|piece| piece.0 == ticket), "one ticket from the first piece to the end");
    let entries = vec![(Lane::Bulk, 5, APPLIED, 0)];
    assert_eq!(world.said(conn), [Said::Outcomes { durable: false, entries }]);
}

#[test]
fn a_new_session_goes_on_where_the_last_one_stood() {
    let mut world = world();
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    serve(&mut world, conn, 3, 0, 11 * PIECE);
    assert_eq!(world.pieces.len(), 11);
    let (conn, said) = world.reconnect(conn);
    assert_eq!(said.len(), 1);
    // A late piece of the old session's has no place.
    world.feed(conn, &part(3, 11 * PIECE)).unwrap();
    assert_eq!((world.pieces.len(), world.receiver.stats().pieces_dropped), (11, 1));
    world.feed(conn, &large(5, 3, None)).unwrap();
    let asked = wanted(&mut world, conn);
    assert_eq!(asked, [(11 * PIECE, PIECES)]);
    for at in 11..25 {
        world.feed(conn, &part(3, at * PIECE)).unwrap();
    }
    assert_eq!((world.begun(), world.pieces.len()), (vec![5], 25));
    let ticket = world.tickets[0];
    assert!(world.pieces.iter().all(|piece| piece.0 == ticket), "one ticket in both sessions");
}

#[test]
fn another_large_order_begins_anew() {
    let mut world = world();
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    serve(&mut world, conn, 3, 0, 2 * PIECE);
    let (conn, _) = world.reconnect(conn);
    // The server has ended 5 meanwhile.
    world.feed(conn, &large(6, 4, None)).unwrap();
    assert_eq!(wanted(&mut world, conn), [(0, PIECES)]);
}

#[test]
fn a_wrong_digest_fetches_once_more_and_then_refuses() {
    for right_at_last in [true, false] {
        let mut world = world();
        world.digest = Some(false);
        let conn = world.session();
        world.feed(conn, &large(5, 3, None)).unwrap();
        world.said(conn);
        for at in 0..25 {
            world.feed(conn, &part(3, at * PIECE)).unwrap();
        }
        assert_eq!(world.begun(), []);
        assert_eq!(wanted(&mut world, conn).last(), Some(&(0, PIECES)));
        world.digest = Some(right_at_last);
        for at in 0..25 {
            world.feed(conn, &part(3, at * PIECE)).unwrap();
        }
        let (begun, code) = if right_at_last { (vec![5], APPLIED) } else { (vec![], Code::REJECTED_PAYLOAD) };
        let entries = vec![(Lane::Bulk, 5, code, 0)];
        let last = world.said(conn).pop();
        assert_eq!((world.begun(), last), (begun, Some(Said::Outcomes { durable: false, entries })));
    }
}

#[test]
fn pieces_that_were_not_asked_for_are_dropped() {
    let mut world = world();
    let conn = world.session();
    world.feed(conn, &part(3, 0)).unwrap();
    world.feed(conn, &large(5, 3, None)).unwrap();
    // Another blob, a gap, and a piece that is no whole one.
    let short = Part { blob: 3, offset: 0, more: true, bytes: &[7; 100] };
    let strange = [part(4, 0), part(3, PIECE), frame(|buffer| short.emit(buffer))];
    world.feed(conn, &strange.concat()).unwrap();
    assert_eq!((world.pieces.len(), world.receiver.stats().pieces_dropped), (0, 4));
    // What was asked for, and one piece more.
    for at in 0..u32::from(PIECES) {
        let bytes = part(3, at * PIECE);
        let input = world.receiver.handle_bytes(world.now, conn, &bytes).unwrap();
        assert!(matches!(input.item, Some(Item::Piece(_))), "{at}");
    }
    let bytes = part(3, u32::from(PIECES) * PIECE);
    assert!(world.receiver.handle_bytes(world.now, conn, &bytes).unwrap().item.is_none());
}

#[test]
fn a_large_order_is_cancelled_while_it_is_fetched_and_its_lane_goes_on() {
    let mut world = world();
    let conn = world.session();
    world.feed(conn, &[large(5, 3, None), order_as(FOREVER, Lane::Bulk, 6)].concat()).unwrap();
    serve(&mut world, conn, 3, 0, PIECE);
    let cancel = Cancel { durable: false, numbers: (&[5_u64][..]).into() };
    world.feed(conn, &frame(|buffer| cancel.emit(buffer))).unwrap();
    let entries = vec![(Lane::Bulk, 5, Code::CANCELLED, 0), (Lane::Bulk, 6, APPLIED, 0)];
    assert_eq!(world.said(conn).pop(), Some(Said::Outcomes { durable: false, entries }));
    assert_eq!(world.begun(), [6]);
}

#[test]
fn a_large_order_the_server_gave_up_leaves_its_lane_and_its_pieces_have_no_place() {
    let mut world = world();
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    serve(&mut world, conn, 3, 0, PIECE);
    world.feed(conn, &[settled(Lane::Bulk, 5), part(3, PIECE)].concat()).unwrap();
    assert_eq!((world.receiver.owed(), world.receiver.stats().pieces_dropped), (0, 1));
    world.feed(conn, &order_as(FOREVER, Lane::Bulk, 6)).unwrap();
    assert_eq!(world.begun(), [6]);
}

#[test]
fn a_lifetime_that_ends_while_a_payload_is_fetched_ends_the_order() {
    let mut world = world();
    let conn = world.session();
    world.feed(conn, &large(5, 3, Some(1_001))).unwrap();
    serve(&mut world, conn, 3, 0, PIECE);
    world.pass(Duration::from_secs(1));
    world.feed(conn, &part(3, PIECE)).unwrap();
    let entries = vec![(Lane::Bulk, 5, Code::EXPIRED, 0)];
    assert_eq!(world.said(conn).pop(), Some(Said::Outcomes { durable: false, entries }));
}

#[test]
fn pieces_that_cannot_be_kept_end_the_attempt() {
    let mut world = world();
    world.digest = None;
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    world.feed(conn, &part(3, 0)).unwrap();
    world.said(conn);
    let ticket = world.pieces[0].0;
    let verdict = Verdict::NoSpace { retry_after: Duration::from_secs(60) };
    world.receiver.complete(world.now, ticket, verdict, None);
    world.drain();
    let entries = vec![(Lane::Bulk, 5, Code::NO_SPACE, 0)];
    assert_eq!(world.said(conn), [Said::Outcomes { durable: false, entries }]);
    // The same one again, under its new number, begins at 0.
    world.feed(conn, &large(7, 3, None)).unwrap();
    assert_eq!(wanted(&mut world, conn), [(0, PIECES)]);
}

#[test]
fn without_parts_a_large_order_is_refused() {
    let mut world = World::new(4);
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    let entries = vec![(Lane::Bulk, 5, Code::REJECTED_PAYLOAD, 0)];
    assert_eq!(world.said(conn), [Said::Outcomes { durable: false, entries }]);
    let why = Ended::Unexpected(wire_format::frame::Kind::PART);
    let small = Part { blob: 3, offset: 0, more: false, bytes: b"7" };
    assert_eq!(world.feed(conn, &frame(|buffer| small.emit(buffer))), Err(why));
}

#[test]
fn an_option_this_device_must_know_and_does_not_refuses_the_order() {
    let mut world = World::new(4);
    let conn = world.session();
    for (kind, code) in [(0x8077_u16, Code::REJECTED_PAYLOAD), (0x0077, APPLIED)] {
        let [low, high] = kind.to_le_bytes();
        let options = [low, high, 0, 0];
        let number = kind.into();
        let order = Order { number, options: &options, ..plain() };
        // The higher number would make the lower one a duplicate.
        let lane = if code == APPLIED { Lane::Urgent } else { Lane::Normal };
        let bytes = frame(|buffer| Order { lane, ..order }.emit(&FOREVER, buffer));
        world.feed(conn, &bytes).unwrap();
        let entries = vec![(lane, number, code, 0)];
        assert_eq!(world.said(conn), [Said::Outcomes { durable: false, entries }]);
    }
}

fn journalled() -> World {
    let config = world().receiver.config().clone();
    World::booted(config, Tape::default())
}

#[test]
fn fetching_is_no_start_and_a_power_cut_amid_it_leaves_no_doubt() {
    let mut world = journalled();
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    let seen = world.tape().records.len();
    serve(&mut world, conn, 3, 0, 11 * PIECE);
    assert_eq!((world.pieces.len(), world.tape().records.len()), (11, seen));
    let mut world = world.reboot(0);
    let (conn, said) = world.meet();
    assert_eq!(said.len(), 1, "nothing began: {said:?}");
    world.feed(conn, &large(5, 3, None)).unwrap();
    // This boot has no piece of it.
    serve(&mut world, conn, 3, 0, SIZE);
    assert_eq!((world.begun(), world.pieces.len()), (vec![5], 25));
}

#[test]
fn a_large_order_begins_when_it_is_whole_and_its_start_is_synced() {
    let mut world = journalled();
    let conn = world.session();
    world.feed(conn, &large(5, 3, None)).unwrap();
    serve(&mut world, conn, 3, 0, 24 * PIECE);
    let tape = world.tape.take().unwrap();
    world.feed(conn, &part(3, 24 * PIECE)).unwrap();
    assert_eq!((world.begun(), world.receiver.wants_record(world.now)), (vec![], true));
    // Its session ends before it begins: what was fetched is kept, and nothing is asked for again.
    world.tape = Some(tape);
    let (conn, _) = world.reconnect(conn);
    world.feed(conn, &large(5, 3, None)).unwrap();
    assert_eq!((world.begun(), world.pieces.len()), (vec![5], 25));
    assert!(world.pieces.iter().all(|piece| piece.0 == world.tickets[0]));
    let entries = vec![(Lane::Bulk, 5, APPLIED, 0)];
    let said = world.said(conn);
    assert_eq!(said, [Said::Outcomes { durable: false, entries }], "no WANT");
    let world = world.reboot(0);
    assert_eq!(world.receiver.owed(), 1);
}
