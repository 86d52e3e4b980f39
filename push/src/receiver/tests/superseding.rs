//! Keys across lineages: what replaces what, and what was done before.

use super::*;

const APPLIED: Code = Code::APPLIED;

fn price(durable: bool, number: u64, version: u64) -> Vec<u8> {
    keyed(durable, Lane::Normal, number, [0, 77, version])
}

fn entries(durable: bool, entries: &[(u64, Code, u8)]) -> Said {
    let entries = entries.iter().map(|(number, code, detail)| (Lane::Normal, *number, *code, *detail));
    Said::Outcomes { durable, entries: entries.collect() }
}

#[test]
fn an_older_version_from_another_log_is_superseded() {
    let mut world = World::new(8);
    let conn = world.session();
    world
        .feed(conn, &[price(true, 1, 5), price(false, 1, 4), price(false, 2, 5), price(false, 3, 6)].concat())
        .unwrap();
    let said = [
        entries(true, &[(1, APPLIED, 0)]),
        entries(false, &[(1, Code::SUPERSEDED, 0), (2, Code::SUPERSEDED, 0), (3, APPLIED, 0)]),
    ];
    assert_eq!(world.said(conn), said);
    assert_eq!((world.begun(), world.receiver.stats().superseded), (vec![1, 3], 2));
}

#[test]
fn another_attempt_at_a_version_is_no_older_version() {
    let mut world = World::new(8);
    let conn = world.session();
    world.verdict = Verdict::Busy { retry_after: Duration::from_secs(1) };
    world.feed(conn, &price(false, 1, 5)).unwrap();
    world.verdict = Verdict::Applied;
    world.feed(conn, &[price(false, 2, 5), price(false, 3, 5)].concat()).unwrap();
    let ends = [(1, Code::BUSY, 0), (2, APPLIED, 0), (3, Code::SUPERSEDED, 0)];
    let said: Vec<_> = world.said(conn);
    assert_eq!(said, [entries(false, &ends[..1]), entries(false, &ends[1..])]);
}

#[test]
fn a_newer_version_at_work_supersedes_one_that_comes_in_another_lane() {
    let mut world = World::new(8);
    let conn = world.session();
    world.verdict = Verdict::Later;
    world.feed(conn, &price(true, 1, 5)).unwrap();
    world.feed(conn, &keyed(false, Lane::Urgent, 1, [0, 77, 4])).unwrap();
    assert_eq!((world.begun(), world.receiver.stats().superseded), (vec![1], 1));
}

#[test]
fn a_request_repeated_by_another_server_is_a_duplicate_with_its_first_end() {
    let mut world = World::new(8);
    let conn = world.session();
    let request = |number, key| keyed(false, Lane::Normal, number, [key, 0, 0]);
    world.feed(conn, &[request(1, 70), request(2, 70)].concat()).unwrap();
    assert_eq!(world.begun(), [1, 2], "inside a lineage a key means nothing");
    world.verdict = Verdict::Failed { detail: 4 };
    world.feed(conn, &request(3, 71)).unwrap();
    world.verdict = Verdict::RejectedKind;
    world.feed(conn, &request(4, 72)).unwrap();
    world.begun();
    world.receiver.handle_closed(world.now, conn);
    world.drain();
    world.verdict = Verdict::Applied;
    let volatile = LogHead { lineage: Lineage([0xEF; 16]), run: 80, head: 0 };
    let conn = world.session_with(&Hello { volatile, ..hello() });
    world.feed(conn, &[request(1, 70), request(2, 71), request(3, 72), request(4, 0)].concat()).unwrap();
    let duplicate = |number, first: Code| (number, Code::DUPLICATE, first.0);
    let ends = [duplicate(1, APPLIED), duplicate(2, Code::FAILED), (3, APPLIED, 0), (4, APPLIED, 0)];
    assert_eq!((world.said(conn), world.begun()), (vec![entries(false, &ends)], vec![3, 4]));
}

#[test]
fn a_request_at_work_in_another_lineage_may_be_tried_again() {
    let mut world = World::new(8);
    let conn = world.session();
    world.verdict = Verdict::Later;
    world.feed(conn, &keyed(true, Lane::Normal, 1, [70, 0, 0])).unwrap();
    world.said(conn);
    world.feed(conn, &keyed(false, Lane::Urgent, 1, [70, 0, 0])).unwrap();
    let busy = Said::Outcomes { durable: false, entries: vec![(Lane::Urgent, 1, Code::BUSY, 0)] };
    assert_eq!(world.said(conn), [busy]);
    world.complete(1, Verdict::Applied);
    world.said(conn);
    world.feed(conn, &keyed(false, Lane::Urgent, 2, [70, 0, 0])).unwrap();
    let entries = vec![(Lane::Urgent, 2, Code::DUPLICATE, APPLIED.0)];
    assert_eq!(world.said(conn), [Said::Outcomes { durable: false, entries }]);
}
