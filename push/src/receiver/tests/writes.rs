//! Writes cut anywhere, input byte by byte.

use super::*;

/// Everything a session can say: WELCOME with outcomes owed, PONG with outcomes, more of them, and a BYE.
fn talk(world: &mut World) -> Vec<u8> {
    let first = world.session();
    world.feed(first, &[order(1), order(2), order_as(FOREVER, Lane::Urgent, 1)].concat()).unwrap();
    world.receiver.handle_closed(world.now, first);
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    world.feed(conn, &[ping(5), order(3), order(2), settled(Lane::Normal, 1)].concat()).unwrap();
    world.feed(conn, &order(4)).unwrap();
    world.feed(conn, &ping(6)).unwrap();
    world.feed(conn, &[ping(7), b"garbage that is no frame".to_vec()].concat()).unwrap_err();
    assert_eq!(world.closed.len(), 1);
    world.out[conn.index()].clone()
}

#[test]
fn a_write_cut_at_every_byte_says_the_same() {
    let whole = talk(&mut World::new(8));
    assert!(whole.len() > 500);
    for quota in 1..whole.len() {
        let mut world = World::new(8);
        world.quota = quota;
        assert_eq!(talk(&mut world), whole, "quota {quota}");
    }
}

#[test]
fn input_byte_by_byte_means_the_same() {
    let bytes =
        [order(1), settled(Lane::Normal, 1), ping(3), order_as(FOREVER, Lane::Urgent, 9), order(2)].concat();
    let mut world = World::new(4);
    let conn = world.session();
    let mut unread = Vec::new();
    for byte in bytes {
        unread.push(byte);
        let used = world.feed(conn, &unread).unwrap();
        unread.drain(..used);
    }
    assert_eq!((unread.len(), world.numbers()), (0, vec![1, 9, 2]));
    let urgent = Said::Outcomes { durable: false, entries: vec![(Lane::Urgent, 9, Code::APPLIED, 0)] };
    let expected =
        [outcomes(&[(1, Code::APPLIED, 0)]), Said::Pong(3), urgent, outcomes(&[(2, Code::APPLIED, 0)])];
    assert_eq!(world.said(conn), expected);
}

/// A block that has begun to leave stays what it is, whatever happens before its last byte.
#[test]
fn what_is_being_written_does_not_change() {
    for cut in 1..36 {
        let mut world = World::new(8);
        let conn = world.session();
        world.room = Some(cut);
        world.feed(conn, &order(1)).unwrap();
        // Settled before it was said as a whole, and new outcomes, pings and duplicates meanwhile.
        world.feed(conn, &[settled(Lane::Normal, 1), ping(1), order(2), order(1), ping(2)].concat()).unwrap();
        assert_eq!(world.receiver.stats().outcomes, 0);
        world.room = None;
        world.receiver.handle_writable(world.now, conn);
        world.drain();
        let rest = outcomes(&[(2, Code::APPLIED, 0), (1, Code::DUPLICATE, 0)]);
        assert_eq!(world.said(conn), [outcomes(&[(1, Code::APPLIED, 0)]), Said::Pong(2), rest]);
        assert_eq!(world.receiver.owed(), 1);
    }
}

#[test]
fn nothing_is_read_until_the_welcome_has_left() {
    let mut world = World::new(4);
    let conn = world.connect();
    world.room = Some(100);
    let bytes = [frame(|buffer| hello().emit(buffer)), order(1)].concat();
    assert_eq!(world.feed(conn, &bytes), Ok(448));
    assert_eq!(world.feed(conn, &bytes[448..]), Ok(0));
    world.room = None;
    world.receiver.handle_writable(world.now, conn);
    world.drain();
    assert_eq!(world.feed(conn, &bytes[448..]), Ok(order(1).len()));
    let said = world.said(conn);
    assert!(matches!(&said[0], Said::Welcome { volatile, .. } if volatile.lanes[2].floor == 0));
    assert_eq!(said[1], outcomes(&[(1, Code::APPLIED, 0)]));
}

#[test]
fn a_session_cut_inside_a_block_says_it_again_in_the_next() {
    let mut world = World::new(4);
    let conn = world.session();
    world.room = Some(20);
    world.feed(conn, &order(1)).unwrap();
    world.room = None;
    let (conn, said) = world.reconnect(conn);
    assert_eq!(said[1..], [outcomes(&[(1, Code::APPLIED, 0)])]);
    assert_eq!((world.feed(conn, &order(1)), world.numbers()), (Ok(order(1).len()), vec![1]));
}

#[test]
fn a_session_that_ends_inside_a_block_ends_without_last_words() {
    let mut world = World::new(4);
    let conn = world.session();
    world.room = Some(20);
    world.feed(conn, &order(1)).unwrap();
    let why = world.feed(conn, b"no frame at all.").unwrap_err();
    assert_eq!((world.out[conn.index()].len(), &world.closed[..]), (20, &[(conn, why)][..]));
}

#[test]
fn a_driver_that_writes_more_than_it_was_given_has_lost_track() {
    let mut world = World::new(4);
    let conn = world.session();
    world.receiver.handle_written(world.now, conn, 1);
    assert_eq!(world.receiver.served(), Some(A), "nothing was being written: nothing is wrong");
    let input = world.receiver.handle_bytes(world.now, conn, &ping(1)).unwrap().consumed;
    let len = world.receiver.poll_transmit(world.now, &mut [0; 2_048]).unwrap().head.len();
    assert_eq!((input, len), (16, 16));
    world.receiver.handle_written(world.now, conn, len + 1);
    world.drain();
    assert_eq!(world.closed, [(conn, Ended::LostTrack)]);
}

#[test]
fn a_scratch_that_shrank_loses_nothing() {
    let mut world = World::new(4);
    let conn = world.session();
    world.receiver.handle_bytes(world.now, conn, &ping(1)).unwrap();
    assert!(world.receiver.poll_transmit(world.now, &mut [0; 15]).is_none());
    world.drain();
    assert_eq!(world.said(conn), [Said::Pong(1)]);
}
