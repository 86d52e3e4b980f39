//! Results, progress, and what became of orders.

use wire_format::frame::status::State;

use super::*;

const WANTED: Delivery = Delivery { needs_result: true, ..FOREVER };

#[test]
fn a_result_leaves_before_its_outcome_if_it_was_asked_for() {
    let mut world = World::new(4);
    world.result = Some(b"stock 5".to_vec());
    let conn = world.session();
    world.feed(conn, &[order_as(WANTED, Lane::Normal, 1), order(2)].concat()).unwrap();
    let ends = outcomes(&[(1, Code::APPLIED, 0), (2, Code::APPLIED, 0)]);
    assert_eq!(world.said(conn), [Said::Result(1, b"stock 5".to_vec()), ends]);
    // Only an end has a result; an attempt's does not.
    world.verdict = Verdict::Busy { retry_after: Duration::from_secs(1) };
    world.feed(conn, &order_as(WANTED, Lane::Normal, 3)).unwrap();
    assert_eq!(world.said(conn), [outcomes(&[(3, Code::BUSY, 0)])]);
    assert_eq!((world.receiver.stats().results, world.receiver.stats().results_lost), (1, 0));
}

#[test]
fn a_result_larger_than_the_scratch_leaves_whole_and_first() {
    for quota in [usize::MAX, 700, 1] {
        let mut world = World::new(4);
        (world.scratch, world.quota) = (512, quota);
        world.result = Some(vec![7; 3_000]);
        let conn = world.session();
        world.feed(conn, &[order_as(WANTED, Lane::Normal, 1), ping(9)].concat()).unwrap();
        let result = Said::Result(1, vec![7; 3_000]);
        assert_eq!(world.said(conn), [Said::Pong(9), result, outcomes(&[(1, Code::APPLIED, 0)])]);
    }
}

#[test]
fn a_result_that_finds_no_room_or_no_session_is_lost_and_the_outcome_is_not() {
    let mut world = World::new(4);
    let conn = world.session_with(&Hello { max_body: 1_000, ..hello() });
    // More than the server takes.
    world.result = Some(vec![7; 1_000]);
    world.feed(conn, &order_as(WANTED, Lane::Normal, 1)).unwrap();
    assert_eq!(world.said(conn), [outcomes(&[(1, Code::APPLIED, 0)])]);
    // More than the queue holds: its bytes wait for a transport that is stuck.
    world.room = Some(0);
    world.result = Some(vec![7; 900]);
    let orders: Vec<u8> = (2..=4).flat_map(|number| order_as(WANTED, Lane::Normal, number)).collect();
    world.feed(conn, &orders).unwrap();
    assert_eq!((world.receiver.stats().results, world.receiver.stats().results_lost), (3, 1));
    world.room = None;
    // Its session is over before it ends.
    world.verdict = Verdict::Later;
    let (conn, _) = world.reconnect(conn);
    world.feed(conn, &settled(Lane::Normal, 4)).unwrap();
    world.feed(conn, &order_as(WANTED, Lane::Normal, 5)).unwrap();
    world.receiver.handle_closed(world.now, conn);
    world.complete(5, Verdict::Applied);
    assert_eq!((world.receiver.stats().results_lost, world.receiver.owed()), (2, 1));
}

#[test]
fn the_queue_at_its_limit_and_one_past_it() {
    // Frames of 16 + 16 + payload + 4 bytes: 8,192 in all.
    for (payload, lost) in [(8_192 - 36, 0), (8_192 - 35, 1)] {
        let mut world = World::new(4);
        world.result = Some(vec![7; payload]);
        let conn = world.session_with(&Hello { max_body: 60_000, ..hello() });
        world.feed(conn, &order_as(WANTED, Lane::Normal, 1)).unwrap();
        assert_eq!(world.receiver.stats().results_lost, lost, "{payload}");
    }
}

#[test]
fn progress_is_told_twice_a_second_at_most() {
    let mut world = World::new(4);
    world.verdict = Verdict::Later;
    let conn = world.session();
    world.feed(conn, &order(1)).unwrap();
    world.said(conn);
    let ticket = world.tickets[0];
    let tell = |world: &mut World, per_mille| {
        let told = world.receiver.progress(world.now, ticket, per_mille, 2);
        world.drain();
        (told, world.said(conn))
    };
    assert_eq!(tell(&mut world, 1), (true, vec![Said::Progress(1, 1, 2)]));
    world.pass(PROGRESS_EVERY - Duration::from_millis(1));
    assert_eq!(tell(&mut world, 2), (false, vec![]));
    world.pass(Duration::from_millis(1));
    // More than everything is everything.
    assert_eq!(tell(&mut world, 1_001), (true, vec![Said::Progress(1, 1_000, 2)]));
    assert_eq!(world.receiver.stats().progress_dropped, 1);
    world.complete(1, Verdict::Applied);
    world.said(conn);
    world.pass(PROGRESS_EVERY);
    assert_eq!(tell(&mut world, 3), (false, vec![]));
}

#[test]
fn status_tells_what_the_device_holds() {
    let mut world = World::new(8);
    let conn = world.session();
    world.feed(conn, &[order(1), order(2), settled(Lane::Normal, 1)].concat()).unwrap();
    world.verdict = Verdict::Later;
    world.feed(conn, &[order(3), order(4)].concat()).unwrap();
    world.said(conn);
    world.pass(Duration::from_millis(20));
    let numbers = [1_u64, 2, 3, 4, 5];
    let ask = Status { durable: false, rows: StatusRows::Question((&numbers[..]).into()) };
    world.feed(conn, &frame(|buffer| ask.emit(buffer))).unwrap();
    let Some(Said::States(states)) = world.said(conn).pop() else { panic!("an answer") };
    let told: Vec<_> = states.iter().map(|entry| (entry.number, entry.state, entry.elapsed_ms)).collect();
    let expected = [
        (1, State::Forgotten, 0),
        (2, State::Ended(Code::APPLIED), 0),
        (3, State::Started, 20),
        (4, State::Received, 20),
        (5, State::Unknown, 0),
    ];
    assert_eq!(told, expected);
}
