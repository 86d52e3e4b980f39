//! HELLOs that come late: their server has started again since, and the device knows the new run already.

use super::*;

const APPLIED: Code = Code::APPLIED;

/// What the run before the one of `hello` said, when it had given numbers up to 3.
fn late() -> Hello {
    Hello {
        epoch: 0,
        durable: LogHead { run: 61, head: 3, ..hello().durable },
        volatile: LogHead { lineage: Lineage([0xEC; 16]), run: 60, head: 3 },
        ..hello()
    }
}

/// What the run says that gave the orders of these tests.
fn present() -> Hello {
    Hello { durable: LogHead { head: 9, ..hello().durable }, ..hello() }
}

/// The WELCOME that answers this HELLO: window, volatile and durable floors.
fn welcomed(world: &mut World, hello: &Hello) -> (ConnId, u16, LogFloors, LogFloors) {
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello.emit(buffer))).unwrap();
    match world.said(conn).first() {
        Some(&Said::Welcome { window, volatile, durable, .. }) => (conn, window, volatile, durable),
        other => panic!("no WELCOME: {other:?}"),
    }
}

fn worlds() -> [World; 2] {
    [World::new(4), World::journalled(4)]
}

#[test]
fn a_late_hello_takes_nothing_of_the_run_that_is() {
    for mut world in worlds() {
        let journalled = world.tape.is_some();
        let conn = world.session_with(&present());
        world.feed(conn, &order(4)).unwrap();
        world.verdict = Verdict::Later;
        world.feed(conn, &order(5)).unwrap();
        assert_eq!(world.begun(), [4, 5]);
        let (_, _, volatile, _) = welcomed(&mut world, &late());
        let named = if journalled { Lineage::NONE } else { Lineage([0xEC; 16]) };
        assert_eq!(volatile, LogFloors { lineage: named, ..LogFloors::default() }, "nothing is known of it");
        let (conn, _, volatile, _) = welcomed(&mut world, &present());
        assert_eq!((volatile.lineage, volatile.lanes[2].floor), (Lineage([0xEE; 16]), 4));
        let again = Delivery { replay: true, ..FOREVER };
        world.feed(conn, &order_as(again, Lane::Normal, 5)).unwrap();
        world.complete(5, Verdict::Applied);
        assert_eq!(world.begun(), [], "it is at work");
        assert_eq!(world.said(conn).last(), Some(&outcomes(&[(5, APPLIED, 0)])));
        assert_eq!(world.receiver.stats().forgotten, 0);
    }
}

#[test]
fn another_run_takes_the_place_of_the_one_before_with_its_first_frame() {
    for mut world in worlds() {
        let conn = world.session_with(&late());
        let four: Vec<u8> = (1..=4).flat_map(order).collect();
        world.feed(conn, &four).unwrap();
        world.begun();
        let (conn, window, ..) = welcomed(&mut world, &present());
        assert_eq!((window, world.receiver.owed(), world.receiver.stats().forgotten), (4, 4, 0));
        let four: Vec<u8> = (1..=4).flat_map(order).collect();
        world.feed(conn, &four).unwrap();
        assert_eq!((world.begun(), world.receiver.owed()), (vec![1, 2, 3, 4], 4));
        assert_eq!(world.receiver.stats().forgotten, 4);
        let (_, _, volatile, _) = welcomed(&mut world, &present());
        assert_eq!((volatile.lineage, volatile.lanes[2].floor), (Lineage([0xEE; 16]), 4));
        assert_eq!(volatile.lanes[2].run, 70);
    }
}

#[test]
fn goodbyes_are_no_sign_of_a_run() {
    let mut world = World::new(4);
    let conn = world.session_with(&present());
    world.feed(conn, &order(4)).unwrap();
    let conn = world.session_with(&late());
    let bye = Bye { code: bye::Code::RESTARTING, retry_after_ms: 0 };
    world.feed(conn, &frame(|buffer| bye.emit(buffer))).unwrap_err();
    let (_, _, volatile, _) = welcomed(&mut world, &present());
    assert_eq!((volatile.lineage, volatile.lanes[2].floor), (Lineage([0xEE; 16]), 4));
}

/// A floor under a run that cannot have known its number is taken for a proof that the log was copied.
#[test]
fn what_ends_after_a_late_hello_did_not_end_in_the_run_that_said_it() {
    for mut world in worlds() {
        let durable = Delivery { durable: true, ..FOREVER };
        let conn = world.session_with(&present());
        world.verdict = Verdict::Later;
        world.feed(conn, &order_as(durable, Lane::Normal, 9)).unwrap();
        world.session_with(&late());
        world.complete(9, Verdict::Applied);
        let (conn, _, _, floors) = welcomed(&mut world, &present());
        assert_eq!((floors.lanes[2].floor, floors.lanes[2].run), (9, 71));
        // What has ended is known as well.
        world.session_with(&late());
        let next = Hello { durable: LogHead { run: 81, head: 9, ..hello().durable }, ..present() };
        world.session_with(&next);
        world.verdict = Verdict::Applied;
        world.receiver.handle_closed(world.now, conn);
        let conn = world.session_with(&next);
        world.feed(conn, &order_as(durable, Lane::Bulk, 10)).unwrap();
        let (_, _, _, floors) = welcomed(&mut world, &next);
        assert_eq!(
            (floors.lanes[3].floor, floors.lanes[3].run),
            (10, 81),
            "a run that knows them all counts"
        );
    }
}
