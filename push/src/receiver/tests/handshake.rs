//! Who gets in, who gets an answer, and who gets nothing.

use wire_format::error::{Fault, ParseError};
use wire_format::frame::{header, reject};

use super::*;

fn bytes(hello: &Hello) -> Vec<u8> {
    frame(|buffer| hello.emit(buffer))
}

fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 4;
    let checksum = wire_format::crc::crc32c(&bytes[header::LEN..at]);
    bytes[at..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn a_hello_opens_a_session() {
    let mut world = World::new(4);
    let conn = world.connect();
    assert_eq!(world.receiver.known(), None);
    assert_eq!(world.feed(conn, &bytes(&hello())), Ok(448));
    let floors = |lineage| LogFloors { lineage, ..LogFloors::default() };
    let welcome = Said::Welcome {
        window: 4,
        volatile: floors(Lineage([0xEE; 16])),
        durable: floors(Lineage([0xDD; 16])),
        persisted: false,
        lost: false,
    };
    assert_eq!(world.said(conn), [welcome]);
    let known = Known { server: A, fence: 5 };
    let peer = "192.0.2.1".parse().unwrap();
    assert_eq!(world.events, [Event::Served { conn, peer, known }]);
    assert_eq!(world.receiver.known(), Some(known));
}

#[test]
fn a_server_that_does_not_know_the_device_is_told() {
    let mut world = World::new(4);
    world.session_with(&Hello { target: NodeId::NONE, ..hello() });
}

/// Every refusal: a HELLO, when it comes after the last frame of A's session, and the code.
#[test]
fn every_refusal_is_answered_with_its_code_and_less_than_came() {
    let after_lease = LEASE;
    let now = Duration::ZERO;
    let own = hello();
    let table: [(Hello, Duration, reject::Code, u64, u32); 9] = [
        (Hello { staging: true, fence: 99, ..own }, now, reject::Code::STAGING, 0, 0),
        (Hello { store: Store::new(7, "PARIS-13").unwrap(), ..own }, now, reject::Code::WRONG_STORE, 0, 0),
        (Hello { store: Store::new(8, "PARIS-12").unwrap(), ..own }, now, reject::Code::WRONG_STORE, 0, 0),
        (Hello { target: B, ..own }, now, reject::Code::WRONG_DEVICE, 0, 0),
        (Hello { fence: 4, epoch: 9, ..own }, now, reject::Code::STALE_FENCE, 5, 0),
        (Hello { server: B, fence: 4, ..own }, after_lease, reject::Code::STALE_FENCE, 5, 0),
        (Hello { server: B, fence: 5, ..own }, after_lease, reject::Code::STALE_FENCE, 5, 0),
        (Hello { server: B, fence: 5, ..own }, now, reject::Code::LEASE_HELD, 0, 9_000),
        (Hello { server: B, fence: 6, takeover: true, ..own }, now, reject::Code::LEASE_HELD, 0, 9_000),
    ];
    for (refused, after, code, detail, retry_after_ms) in table {
        let mut world = World::new(4);
        let held = world.session();
        world.pass(after);
        let conn = world.connect();
        assert_eq!(world.feed(conn, &bytes(&refused)), Err(Ended::Refused { code }));
        let reject = Reject { code, retry_after_ms, detail };
        assert!(world.out[conn.index()].len() < hello::FRAME_LEN);
        assert_eq!(world.said(conn), [Said::Reject(reject)]);
        assert_eq!(world.closed, [(conn, Ended::Refused { code })]);
        // The session in place is not touched, nor is what is known.
        assert_eq!((world.receiver.served(), world.said(held)), (Some(A), vec![]));
        assert_eq!(world.receiver.known(), Some(Known { server: A, fence: 5 }));
    }
}

#[test]
fn a_staging_device_refuses_production() {
    let mut world = World::with(ReceiverConfig { staging: true, ..config() });
    let conn = world.connect();
    let refused = Ended::Refused { code: reject::Code::STAGING };
    assert_eq!(world.feed(conn, &bytes(&hello())), Err(refused));
    world.session_with(&Hello { staging: true, ..hello() });
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let mut world = World::new(4);
    let conn = world.connect();
    let mut newer = bytes(&hello());
    newer[header::LEN + 4] = 2;
    newer[header::LEN + 5] = 3;
    let code = reject::Code::VERSION;
    assert_eq!(world.feed(conn, &repaired(newer)), Err(Ended::Refused { code }));
    assert_eq!(world.said(conn), [Said::Reject(Reject { code, retry_after_ms: 0, detail: 0x0101 })]);
}

#[test]
fn a_higher_fence_takes_over_after_the_lease_or_the_bye() {
    for say_bye in [false, true] {
        let mut world = World::new(4);
        let old = world.session();
        if say_bye {
            let bye = Bye { code: bye::Code::RESTARTING, retry_after_ms: 7 };
            let why = Ended::Bye { code: bye::Code::RESTARTING, retry_after_ms: 7 };
            assert_eq!(world.feed(old, &frame(|buffer| bye.emit(buffer))), Err(why));
            assert_eq!(world.closed, [(old, why)]);
            assert_eq!(world.events.last(), Some(&Event::Unserved { why }));
        } else {
            world.receiver.handle_closed(world.now, old);
            world.pass(LEASE);
        }
        world.session_with(&Hello { server: B, fence: 6, ..hello() });
        // The old one comes back and learns it.
        let conn = world.connect();
        let code = reject::Code::STALE_FENCE;
        assert_eq!(world.feed(conn, &bytes(&hello())), Err(Ended::Refused { code }));
        assert_eq!(world.said(conn), [Said::Reject(Reject { code, retry_after_ms: 0, detail: 6 })]);
        assert_eq!(world.receiver.served(), Some(B));
    }
}

#[test]
fn every_frame_prolongs_the_lease_even_of_a_session_that_is_gone() {
    let mut world = World::new(4);
    let held = world.session();
    world.pass(Duration::from_secs(5));
    world.feed(held, &ping(1)).unwrap();
    world.receiver.handle_closed(world.now, held);
    world.pass(Duration::from_secs(4));
    let other = Hello { server: B, fence: 6, ..hello() };
    let (conn, code) = (world.connect(), reject::Code::LEASE_HELD);
    assert_eq!(world.feed(conn, &bytes(&other)), Err(Ended::Refused { code }));
    assert_eq!(world.said(conn), [Said::Reject(Reject { code, retry_after_ms: 5_000, detail: 0 })]);
    world.pass(Duration::from_secs(5));
    world.session_with(&other);
}

#[test]
fn the_same_server_replaces_its_session_at_once_whatever_its_epoch() {
    for epoch in [0, 1, 2] {
        let mut world = World::new(4);
        let old = world.session();
        let new = world.session_with(&Hello { epoch, ..hello() });
        assert_eq!(world.said(old), [Said::Bye(bye::Code::REPLACED)]);
        assert_eq!(world.closed, [(old, Ended::Replaced)]);
        assert_eq!(world.feed(new, &ping(1)), Ok(16));
        assert_eq!(world.said(new), [Said::Pong(1)]);
        assert_eq!(world.receiver.stats().replaced, 1);
    }
}

#[test]
fn a_replaced_session_hears_nothing_more() {
    let mut world = World::new(4);
    let old = world.session();
    world.room = Some(0); // Nobody reads any more, so the goodbye stays.
    let new = world.connect();
    world.receiver.handle_bytes(world.now, new, &bytes(&hello())).unwrap();
    assert_eq!(world.feed(old, &order(1)), Err(Ended::Replaced));
    assert_eq!((world.applied.len(), world.closed.len()), (0, 0));
    world.pass(FAREWELL_WITHIN);
    assert_eq!(world.closed, [(old, Ended::Replaced)]);
}

#[test]
fn strangers_get_no_answer() {
    let http = b"GET / HTTP/1.1\r\nHost: till\r\n\r\n".to_vec();
    let mut wrong_magic = bytes(&hello());
    wrong_magic[header::LEN] = b'X';
    let mut flipped = bytes(&hello());
    flipped[300] ^= 1;
    let mut short = bytes(&hello());
    short[0] -= 4;
    let checksum = wire_format::crc::crc32c(&short[..12]);
    short[12..16].copy_from_slice(&checksum.to_le_bytes());
    let broken = |field, offset, fault| Ended::Broken(ParseError::new(field, offset, fault));
    let not_clean = {
        let mut bytes = bytes(&hello());
        bytes[header::LEN + 62] = 1;
        repaired(bytes)
    };
    for (garbage, judged_at, why) in [
        (http, 16, broken("checksum", 12, Fault::Checksum)),
        (vec![0; 64], 16, broken("checksum", 12, Fault::Checksum)),
        (vec![0xFF; 64], 16, broken("checksum", 12, Fault::Checksum)),
        (ping(1), 16, broken("kind", 4, Fault::Misplaced)),
        (order(1), 16, broken("kind", 4, Fault::Misplaced)),
        (short, 16, broken("length", 0, Fault::Length)),
        (repaired(wrong_magic), 20, broken("magic", 16, Fault::Mismatch)),
        (flipped, 448, broken("body checksum", 444, Fault::Checksum)),
        (not_clean, 448, broken("zero", 78, Fault::NotZero)),
    ] {
        let mut world = World::new(4);
        let conn = world.connect();
        for len in 0..judged_at {
            assert_eq!(world.feed(conn, &garbage[..len]), Ok(0), "{len}");
        }
        assert_eq!(world.feed(conn, &garbage[..judged_at]), Err(why));
        assert_eq!((world.said(conn), &world.closed[..]), (vec![], &[(conn, why)][..]));
        assert_eq!((world.receiver.stats().strangers, world.events.len()), (1, 0));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_hello_never_opens_a_session() {
    let right = bytes(&hello());
    for bit in 0..right.len() * 8 {
        let mut world = World::new(4);
        let conn = world.connect();
        let mut flipped = right.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(world.feed(conn, &flipped).is_err(), "bit {bit}");
        assert_eq!(world.said(conn), []);
    }
}

#[test]
fn a_hello_that_trickles_in_is_used_when_it_is_whole() {
    let mut world = World::new(4);
    let conn = world.connect();
    let hello = bytes(&hello());
    for len in 0..hello.len() {
        assert_eq!(world.feed(conn, &hello[..len]), Ok(0));
    }
    assert_eq!(world.feed(conn, &hello), Ok(448));
}

#[test]
fn slow_loris_has_three_seconds_and_costs_no_session() {
    let mut world = World::new(4);
    let served = world.session();
    let hello = bytes(&hello());
    let loris: Vec<_> = (0..3).map(|_| world.connect()).collect();
    assert_eq!(world.try_connect(), Err(TooManyPeers));
    for (at, conn) in loris.iter().enumerate() {
        // A byte now and then changes nothing.
        assert_eq!(world.feed(*conn, &hello[..=at]), Ok(0));
    }
    world.pass(HELLO_WITHIN - Duration::from_micros(1));
    assert_eq!(world.closed, []);
    world.pass(Duration::from_micros(1));
    let closed: Vec<_> = world.closed.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(closed, loris);
    assert!(world.closed.iter().all(|(_, why)| *why == Ended::HandshakeTimeout));
    assert_eq!(world.feed(served, &ping(3)), Ok(16));
    assert_eq!(world.receiver.stats().hello_timeouts, 3);
    assert_eq!(world.try_connect().map(ConnId::index), Ok(loris[0].index()));
}

#[test]
fn a_silent_stranger_loses_its_slot_to_a_newcomer_after_a_second() {
    let mut world = World::new(4);
    let first = world.connect();
    world.pass(Duration::from_millis(10));
    let rest: Vec<_> = (0..3).map(|_| world.connect()).collect();
    world.pass(SILENT_MAX - Duration::from_millis(11));
    assert_eq!((world.try_connect(), world.closed.len()), (Err(TooManyPeers), 0));
    world.pass(Duration::from_millis(1));
    // This one still finds all slots taken; the next one does not.
    assert_eq!((world.try_connect(), world.closed.len()), (Err(TooManyPeers), 1));
    assert_eq!(world.closed, [(first, Ended::HandshakeTimeout)]);
    let next = world.session();
    assert_eq!(next.index(), first.index());
    assert_ne!(next, first);
    assert_eq!(world.feed(rest[0], &bytes(&hello())), Ok(448));
    assert_eq!(world.receiver.stats().evicted, 1);
}

#[test]
fn an_id_of_a_connection_that_is_gone_means_nothing() {
    let mut world = World::new(4);
    let old = world.session();
    world.receiver.handle_closed(world.now, old);
    let new = world.session();
    assert_eq!(old.index(), new.index());
    assert!(world.feed(old, &order(1)).is_err());
    world.receiver.handle_written(world.now, old, 5);
    world.receiver.handle_writable(world.now, old);
    world.receiver.handle_closed(world.now, old);
    assert_eq!(world.receiver.served(), Some(A));
    assert_eq!(world.feed(new, &order(1)), Ok(order(1).len()));
    assert_eq!(world.numbers(), [1]);
}
