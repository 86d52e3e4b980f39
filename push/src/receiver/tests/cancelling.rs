//! CANCEL: what waits ends, what is at work ends as it ends, what is not there is ignored.

use wire_format::frame::Cancel;

use super::*;

pub(super) fn cancel(numbers: &[u64]) -> Vec<u8> {
    frame(|buffer| Cancel { durable: false, numbers: numbers.into() }.emit(buffer))
}

#[test]
fn what_waits_is_cancelled_in_log_order_and_what_is_at_work_ends_as_it_ends() {
    let mut world = World::new(8);
    world.verdict = Verdict::Later;
    let conn = world.session();
    world.feed(conn, &[order(1), order(2), order(3), order(4)].concat()).unwrap();
    world.said(conn);
    world.feed(conn, &cancel(&[1, 2, 4, 99])).unwrap();
    assert_eq!(world.said(conn), []);
    world.verdict = Verdict::Applied;
    world.complete(1, Verdict::Applied);
    let ends =
        [(1, Code::APPLIED, 0), (2, Code::CANCELLED, 0), (3, Code::APPLIED, 0), (4, Code::CANCELLED, 0)];
    assert_eq!(world.said(conn), [outcomes(&ends)]);
    assert_eq!((world.begun(), world.receiver.stats().cancelled), (vec![1, 3], 2));
    // A second CANCEL of what has ended changes nothing.
    world.feed(conn, &cancel(&[1, 2, 3, 4])).unwrap();
    assert_eq!((world.said(conn), world.receiver.stats().cancelled), (vec![], 2));
}

#[test]
fn a_cancelled_order_gives_its_place_in_the_park_back() {
    let mut world = World::new(16);
    world.verdict = Verdict::Later;
    world.receiver = Receiver::new(
        world.receiver.config().clone(),
        Memory { park: vec![0; 1_024].into(), ..boxes(world.receiver.config()) },
        world.now,
    );
    let conn = world.session();
    // Nine of 112 bytes fill the park; one more is busy.
    world.feed(conn, &(1..=11).flat_map(order).collect::<Vec<_>>()).unwrap();
    assert_eq!((world.receiver.stats().parked, world.receiver.stats().park_full), (9, 1));
    world.feed(conn, &[cancel(&[3]), order(12)].concat()).unwrap();
    assert_eq!((world.receiver.stats().parked, world.receiver.stats().park_full), (10, 1));
}

#[test]
fn a_cancel_in_the_other_log_is_for_another_order() {
    let mut world = World::new(8);
    world.verdict = Verdict::Later;
    let conn = world.session();
    let durable = Delivery { durable: true, ..FOREVER };
    world.feed(conn, &[order(1), order_as(durable, Lane::Normal, 2), cancel(&[2])].concat()).unwrap();
    world.verdict = Verdict::Applied;
    world.complete(1, Verdict::Applied);
    assert_eq!((world.begun(), world.receiver.stats().cancelled), (vec![1, 2], 0));
}
