//! How a device leaves: DRAIN, BYE, and nothing new in between.

use wire_format::frame::reject;

use super::*;

#[test]
fn a_device_that_drains_ends_what_it_has_and_says_goodbye() {
    let mut world = World::new(8);
    world.verdict = Verdict::Later;
    let conn = world.session();
    world.feed(conn, &[order(1), order(2)].concat()).unwrap();
    world.said(conn);
    world.receiver.drain(world.now, drain_frame());
    world.drain();
    assert_eq!(world.said(conn), [Said::Drain(drain_frame())]);
    // Somebody else gets in no more.
    let other = world.connect();
    let refused = world.feed(other, &frame(|buffer| hello().emit(buffer)));
    assert_eq!(refused, Err(Ended::Refused { code: reject::Code::DRAINING }));
    let reject = Reject { code: reject::Code::DRAINING, retry_after_ms: 0, detail: 0 };
    assert_eq!(world.said(other), [Said::Reject(reject)]);
    // What was on its way is taken, what waits is done.
    world.verdict = Verdict::Applied;
    world.feed(conn, &order(3)).unwrap();
    world.complete(1, Verdict::Applied);
    let ends = outcomes(&[(1, Code::APPLIED, 0), (2, Code::APPLIED, 0), (3, Code::APPLIED, 0)]);
    let said = world.said(conn);
    assert_eq!(said[said.len() - 2..], [ends, Said::Bye(bye::Code::DRAINING)]);
    assert!(world.receiver.is_stopped());
}

#[test]
fn a_device_that_drains_leaves_when_its_time_is_over() {
    let mut world = World::new(8);
    world.verdict = Verdict::Later;
    let conn = world.session();
    world.feed(conn, &order(1)).unwrap();
    world.receiver.drain(world.now, drain_frame());
    world.drain();
    world.said(conn);
    world.pass(Duration::from_millis(499));
    assert_eq!(world.said(conn), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.said(conn), [Said::Bye(bye::Code::DRAINING)]);
    assert!(world.receiver.is_stopped());
}

#[test]
fn a_device_nobody_serves_drains_at_once_and_one_that_is_cut_off_too() {
    let mut world = World::new(8);
    world.receiver.drain(world.now, drain_frame());
    assert!(world.receiver.is_stopped());
    let mut world = World::new(8);
    world.verdict = Verdict::Later;
    let conn = world.session();
    world.feed(conn, &order(1)).unwrap();
    world.receiver.drain(world.now, drain_frame());
    world.receiver.handle_closed(world.now, conn);
    assert!(world.receiver.is_stopped());
}

#[test]
fn a_restart_is_said_with_the_time_it_takes() {
    let mut world = World::new(8);
    let conn = world.session();
    let restart = Bye { code: bye::Code::RESTARTING, retry_after_ms: 2_000 };
    world.receiver.stop_with(world.now, restart);
    world.drain();
    let bytes = core::mem::take(&mut world.out[conn.index()]);
    let Ok(Split::Frame(raw)) = split(&bytes, 4_096) else { panic!("a BYE") };
    assert_eq!(Bye::parse(&raw), Ok(restart));
    assert!(world.receiver.is_stopped());
}
