//! What is written, when, and what waits for it.

use super::super::floors::{Kept, Log};
use super::super::keys::OrderKeys;
use super::super::record::Record;
use super::super::ring::{Ending, Place, pack};
use super::cancelling::cancel;
use super::*;

const APPLIED: Code = Code::APPLIED;
const VOLATILE: Log = Log(0);

pub(super) fn idempotent(number: u64) -> Vec<u8> {
    let order = Order { number, kind_flags: KindFlags::IDEMPOTENT, ..plain() };
    frame(|buffer| order.emit(&FOREVER, buffer))
}

pub(super) fn place(number: u64) -> Place {
    Place { log: VOLATILE, lane: Lane::Normal, number }
}

pub(super) fn start(number: u64, settled: u64) -> Record {
    Record::Start { place: place(number), settled, keys: OrderKeys::NONE }
}

pub(super) fn end(number: u64, settled: u64, code: Code) -> Record {
    let ending = Ending { code, detail: 0, ms: 0 };
    Record::End { place: place(number), settled, ending, keys: OrderKeys::NONE }
}

/// A journalled device with a session, nothing of which is left to look at.
pub(super) fn served(window: u16) -> (World, ConnId, usize) {
    let mut world = World::journalled(window);
    let conn = world.session();
    // Its server shows that it has read the WELCOME.
    world.feed(conn, &[ping(1), idempotent(1), settled(Lane::Normal, 1)].concat()).unwrap();
    world.feed(conn, &idempotent(2)).unwrap();
    world.feed(conn, &settled(Lane::Normal, 2)).unwrap();
    world.begun();
    world.said(conn);
    let seen = world.tape().records.len();
    (world, conn, seen)
}

#[test]
fn a_new_journal_begins_with_who_we_are_and_a_session_with_whom_we_serve() {
    let mut world = World::journalled(4);
    assert_eq!(world.tape().read(), [Record::Head { device: DEVICE }]);
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    let lineage = |log, run, byte| {
        let (log, lineage) = (Log(log), Lineage([byte; 16]));
        Record::Lineage(Kept { log, named: false, newest: true, run, lineage })
    };
    let fence = Record::Fence(Known { server: A, fence: 5 });
    let known = [fence, lineage(0, 70, 0xEE), lineage(1, 71, 0xDD)];
    assert_eq!(world.tape().read()[1..], known);
    assert_eq!((world.tape().syncs, world.tape().snapshots), (1, 1));
    // It is new here: that is what a lineage that is not named says.
    let none = LogFloors::default();
    let welcome = Said::Welcome { window: 4, volatile: none, durable: none, persisted: true, lost: false };
    assert_eq!(world.said(conn), [welcome]);
    // The same server once more has nothing new to tell, and a restarted one its new runs.
    let (conn, _) = world.reconnect(conn);
    assert_eq!(world.tape().syncs, 1);
    world.receiver.handle_closed(world.now, conn);
    let restarted = Hello {
        volatile: LogHead { lineage: Lineage([0xEF; 16]), run: 80, head: 0 },
        durable: LogHead { run: 81, ..hello().durable },
        ..hello()
    };
    let conn = world.session_with(&restarted);
    assert_eq!((&world.tape().read()[4..], world.tape().syncs), (&[lineage(1, 81, 0xDD)][..], 2));
    // Its new volatile lineage takes the place of the other one when it has said something; that can wait.
    world.feed(conn, &ping(1)).unwrap();
    assert_eq!(world.tape().syncs, 2);
    world.feed(conn, &idempotent(1)).unwrap();
    let named = |log, run, byte| match lineage(log, run, byte) {
        Record::Lineage(kept) => Record::Lineage(Kept { named: true, ..kept }),
        other => other,
    };
    assert_eq!(world.tape().read()[5..], [named(0, 80, 0xEF), named(1, 81, 0xDD), end(1, 0, APPLIED)]);
    assert_eq!(world.tape().syncs, 3);
}

#[test]
fn a_lineage_is_named_once_its_server_has_shown_that_it_read_that_it_was_not() {
    let mut world = World::journalled(4);
    let conn = world.session();
    let (conn, said) = world.reconnect(conn);
    let named = |said: &Said| matches!(said, Said::Welcome { volatile, .. } if !volatile.lineage.is_none());
    assert!(!named(&said[0]), "nothing came of its server in the first session");
    world.feed(conn, &ping(1)).unwrap();
    let (_, said) = world.reconnect(conn);
    assert!(named(&said[0]));
}

#[test]
fn an_idempotent_order_costs_one_record_and_one_sync_and_another_two_of_each() {
    let (mut world, conn, mut seen) = served(8);
    let syncs = world.tape().syncs;
    world.feed(conn, &idempotent(3)).unwrap();
    assert_eq!(world.tape().news(&mut seen), [end(3, 2, APPLIED)]);
    assert_eq!(world.tape().syncs - syncs, 1);
    assert_eq!(world.said(conn), [outcomes(&[(3, APPLIED, 0)])]);
    world.feed(conn, &settled(Lane::Normal, 3)).unwrap();
    assert_eq!((world.tape().news(&mut seen), world.tape().syncs - syncs), (vec![], 1));
    world.feed(conn, &order(4)).unwrap();
    assert_eq!(world.tape().news(&mut seen), [start(4, 3), end(4, 3, APPLIED)]);
    assert_eq!(world.tape().syncs - syncs, 3);
    // Of many that come together, the end of each goes with what begins behind it.
    world.feed(conn, &[order(5), order(6), order(7)].concat()).unwrap();
    let all =
        [start(5, 3), end(5, 3, APPLIED), start(6, 3), end(6, 3, APPLIED), start(7, 3), end(7, 3, APPLIED)];
    assert_eq!((world.tape().news(&mut seen), world.tape().syncs - syncs), (all.to_vec(), 7));
    world.feed(conn, &settled(Lane::Normal, 7)).unwrap();
    world.feed(conn, &[idempotent(8), idempotent(9), idempotent(10)].concat()).unwrap();
    let all = [8, 9, 10].map(|number| end(number, 7, APPLIED));
    assert_eq!((world.tape().news(&mut seen), world.tape().syncs - syncs), (all.to_vec(), 8));
    assert_eq!(world.begun(), [3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn what_is_settled_in_another_lane_goes_with_the_next_write() {
    let (mut world, conn, mut seen) = served(8);
    world.feed(conn, &urgent(3)).unwrap();
    world.feed(conn, &settled(Lane::Urgent, 3)).unwrap();
    world.tape().news(&mut seen);
    assert_eq!(world.tape().records.len(), seen);
    world.feed(conn, &idempotent(4)).unwrap();
    let floor = wire_format::frame::welcome::LaneFloor { floor: 3, run: 70 };
    let lane = Record::Lane { log: VOLATILE, lane: Lane::Urgent, settled: 3, floor };
    assert_eq!(world.tape().news(&mut seen), [lane, end(4, 3, APPLIED)]);
}

#[test]
fn no_handler_runs_before_its_start_is_synced_and_no_outcome_leaves_before_its_end_is() {
    let (mut world, conn, mut seen) = served(8);
    let bytes = order(3);
    let tape = world.tape.take().unwrap();
    // Nobody writes: the order waits, and with it what comes behind it.
    assert_eq!(world.feed(conn, &bytes), Ok(0));
    assert_eq!(world.feed(conn, &bytes), Ok(0));
    assert_eq!((world.begun(), world.receiver.wants_record(world.now)), (vec![], true));
    assert_eq!(world.said(conn), [Said::Ack { durable: false, lane: Lane::Normal, number: 3 }]);
    world.tape = Some(tape);
    world.keep();
    assert_eq!(world.tape().news(&mut seen), [start(3, 2)]);
    let tape = world.tape.take().unwrap();
    assert_eq!(world.feed(conn, &[bytes, ping(7)].concat()), Ok(72 + 16));
    assert_eq!((world.begun(), world.said(conn)), (vec![3], vec![Said::Pong(7)]));
    world.tape = Some(tape);
    world.drain();
    assert_eq!(world.tape().news(&mut seen), [end(3, 2, APPLIED)]);
    assert_eq!(world.said(conn), [outcomes(&[(3, APPLIED, 0)])]);
}

#[test]
fn a_welcome_waits_for_what_it_says_and_an_end_under_the_pen_for_the_welcome() {
    let mut world = World::journalled(4);
    let tape = world.tape.take().unwrap();
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    assert_eq!(world.said(conn), []);
    world.tape = Some(tape);
    world.drain();
    assert!(matches!(world.said(conn)[..], [Said::Welcome { .. }]));
    world.verdict = Verdict::Later;
    world.feed(conn, &order(1)).unwrap();
    // The next WELCOME is half written when it ends: its END is written behind it, and said in the end.
    world.receiver.handle_closed(world.now, conn);
    world.room = Some(100);
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    let seen = world.tape().records.len();
    world.complete(1, Verdict::Applied);
    assert_eq!(world.tape().records.len(), seen);
    world.room = None;
    world.receiver.handle_writable(world.now, conn);
    world.drain();
    world.drain();
    assert!(world.tape().read()[seen..].contains(&end(1, 0, APPLIED)));
    let said = world.said(conn);
    assert!(matches!(&said[0], Said::Welcome { volatile, .. } if volatile.lanes[2].floor == 0));
    assert_eq!(said[1], outcomes(&[(1, APPLIED, 0)]));
}

#[test]
fn an_order_that_waited_begins_only_when_its_start_is_synced() {
    let (mut world, conn, mut seen) = served(8);
    world.verdict = Verdict::Later;
    world.feed(conn, &[idempotent(3), order(4), order(5)].concat()).unwrap();
    assert_eq!((world.begun(), world.tape().news(&mut seen)), (vec![3], vec![]));
    world.verdict = Verdict::Applied;
    let tape = world.tape.take().unwrap();
    world.complete(3, Verdict::Applied);
    assert_eq!(world.begun(), []);
    world.tape = Some(tape);
    world.drain();
    assert_eq!(world.begun(), [4, 5]);
    let all = [end(3, 2, APPLIED), start(4, 2), end(4, 2, APPLIED), start(5, 2), end(5, 2, APPLIED)];
    assert_eq!(world.tape().news(&mut seen), all);
    assert_eq!(world.receiver.stats().delivered, 5);
}

#[test]
fn an_order_that_waits_for_its_start_may_be_cancelled_given_up_or_expire() {
    for case in 0..3 {
        let (mut world, conn, mut seen) = served(8);
        world.verdict = Verdict::Later;
        world.feed(conn, &[idempotent(3), living(4, 2_000)].concat()).unwrap();
        let tape = world.tape.take().unwrap();
        world.complete(3, Verdict::Applied);
        let cancelled = cancel(&[4]);
        let bytes = match case {
            0 => cancelled,
            1 => settled(Lane::Normal, 4),
            _ => {
                world.pass(Duration::from_millis(2_000));
                ping(1)
            }
        };
        world.feed(conn, &bytes).unwrap();
        world.tape = Some(tape);
        world.drain();
        assert_eq!(world.begun(), [3]);
        let news = world.tape().news(&mut seen);
        let code = if case == 0 { Code::CANCELLED } else { Code::EXPIRED };
        let ended = |record: &Record| matches!(record, Record::End { place, ending, .. } if place.number == 4 && ending.code == code);
        assert_eq!(news.iter().any(ended), case != 1, "{case}: {news:?}");
        // The lane is free again.
        world.verdict = Verdict::Applied;
        world.feed(conn, &order(5)).unwrap();
        assert_eq!(world.begun(), [5], "{case}");
    }
}

#[test]
fn what_has_not_begun_goes_with_its_session_and_leaves_no_doubt() {
    let (mut world, conn, mut seen) = served(8);
    let bytes = keyed(false, Lane::Normal, 3, [7, 8, 1]);
    let tape = world.tape.take().unwrap();
    assert_eq!(world.feed(conn, &bytes), Ok(0));
    world.tape = Some(tape);
    world.keep();
    assert_eq!(world.tape().news(&mut seen).len(), 1);
    let (conn, said) = world.reconnect(conn);
    assert_eq!((said.len(), world.receiver.owed()), (1, 0));
    // It comes again, begins, and its START is written once more.
    world.feed(conn, &bytes).unwrap();
    assert_eq!((world.begun(), world.said(conn)), (vec![3], vec![outcomes(&[(3, APPLIED, 0)])]));
    assert_eq!(world.tape().news(&mut seen).len(), 2);
}

#[test]
fn duplicates_and_attempts_that_ended_are_recorded_like_any_end() {
    let (mut world, conn, mut seen) = served(8);
    world.verdict = Verdict::Busy { retry_after: Duration::from_millis(1_500) };
    world.feed(conn, &idempotent(3)).unwrap();
    let ending = Ending { code: Code::BUSY, detail: 0, ms: 1_500 };
    let busy = Record::End { place: place(3), settled: 2, ending, keys: OrderKeys::NONE };
    assert_eq!(world.tape().news(&mut seen), [busy]);
    world.said(conn);
    // The answer to a duplicate says what is recorded already.
    world.feed(conn, &idempotent(3)).unwrap();
    assert_eq!(world.tape().news(&mut seen), []);
    assert_eq!(world.said(conn), [outcomes(&[(3, Code::DUPLICATE, Code::BUSY.0)])]);
}

#[test]
fn a_device_without_a_journal_writes_nothing_and_waits_for_nothing() {
    let mut world = World::new(4);
    let mut none = NoJournal;
    assert_eq!(world.receiver.replay(world.now, &mut none), Ok(Found::NoJournal));
    let conn = world.session();
    world.feed(conn, &order(1)).unwrap();
    assert_eq!(world.receiver.record(world.now, &mut none), Ok(false));
    assert!(!world.receiver.wants_record(world.now) && !world.receiver.wants_snapshot());
    assert_eq!(world.receiver.poll_record(&mut [0; 64]), None);
    assert_eq!((world.begun(), world.said(conn)), (vec![1], vec![outcomes(&[(1, APPLIED, 0)])]));
}

#[test]
fn what_is_at_work_when_its_lineage_goes_ends_for_its_key_alone() {
    for reboot in [false, true] {
        let mut world = World::journalled(4);
        let head = |byte| LogHead { lineage: Lineage([byte; 16]), run: 1, head: 0 };
        let hello = |byte| Hello { durable: head(byte), ..hello() };
        let conn = world.session_with(&hello(1));
        world.verdict = Verdict::Later;
        world.feed(conn, &keyed(true, Lane::Normal, 5, [77, 0, 0])).unwrap();
        for byte in [2, 3] {
            world.session_with(&hello(byte));
        }
        assert_eq!((world.begun(), world.receiver.owed(), world.receiver.stats().forgotten), (vec![5], 0, 1));
        if reboot {
            world = world.reboot(0);
        } else {
            let mut seen = world.tape().records.len();
            world.complete(5, Verdict::Applied);
            let log_lane = pack(Log::GONE, Lane::Normal);
            let alone = Record::Key { log_lane, code: APPLIED, number: 5, key: 77 };
            assert_eq!(world.tape().news(&mut seen), [alone], "nobody waits for its end");
        }
        world.verdict = Verdict::Applied;
        let conn = world.session_with(&hello(3));
        world.feed(conn, &keyed(true, Lane::Normal, 9, [77, 0, 0])).unwrap();
        let first = if reboot { Code::IN_DOUBT } else { APPLIED };
        let entries = vec![(Lane::Normal, 9, Code::DUPLICATE, first.0)];
        assert_eq!(world.said(conn), [Said::Outcomes { durable: true, entries }]);
        assert_eq!(world.begun(), []);
        // Its lane is free.
        world.feed(conn, &keyed(true, Lane::Normal, 10, [0; 3])).unwrap();
        assert_eq!(world.begun(), [10]);
    }
}

/// How an order loses the server that waited for its end.
#[derive(Clone, Copy, Debug)]
enum Alone {
    /// Another start of it, with a log of its own.
    Restarted,
    /// It has given up.
    GivenUp,
}

/// A device whose order, with an order key and version 3 of a supersede key, ends for nobody; then the power goes.
fn ended_alone(alone: Alone, kind_flags: KindFlags, verdict: Verdict, grown: bool) -> World {
    let (mut world, conn, _) = served(4);
    world.verdict = Verdict::Later;
    let keys = Order { order_key: 7, supersede_key: 9, supersede_version: 3, ..plain() };
    let order = Order { number: 5, kind_flags, ..keys };
    world.feed(conn, &frame(|buffer| order.emit(&FOREVER, buffer))).unwrap();
    match alone {
        Alone::Restarted => {
            let volatile = LogHead { lineage: Lineage([0xEC; 16]), run: 1, head: 0 };
            let conn = world.session_with(&Hello { volatile, ..hello() });
            world.feed(conn, &ping(2)).unwrap();
        }
        Alone::GivenUp => {
            world.feed(conn, &settled(Lane::Normal, 5)).unwrap();
        }
    }
    assert_eq!((world.begun(), world.receiver.owed()), (vec![5], 0));
    world.tape().grown = grown;
    let writes = |tape: &Tape| tape.syncs + tape.snapshots;
    let before = writes(world.tape());
    world.complete(5, verdict);
    assert_eq!(writes(world.tape()), before + 1, "one, for both keys");
    assert!(!world.receiver.wants_record(world.now));
    world.reboot(0)
}

#[test]
fn the_keys_of_what_ended_for_nobody_outlive_a_power_cut() {
    let busy = Verdict::Busy { retry_after: Duration::from_secs(1) };
    let duplicate = (Code::DUPLICATE, APPLIED.0);
    for (verdict, again, same_version) in
        [(Verdict::Applied, duplicate, (Code::SUPERSEDED, 0)), (busy, (APPLIED, 0), (APPLIED, 0))]
    {
        for (alone, kind_flags, grown) in [
            (Alone::Restarted, KindFlags::IDEMPOTENT, false),
            (Alone::Restarted, KindFlags::NONE, false),
            (Alone::GivenUp, KindFlags::IDEMPOTENT, false),
            (Alone::GivenUp, KindFlags::NONE, false),
            (Alone::GivenUp, KindFlags::NONE, true),
        ] {
            let mut world = ended_alone(alone, kind_flags, verdict, grown);
            let conn = world.session();
            for (number, keys, (code, detail)) in [
                (1, [7, 0, 0], again),
                (2, [0, 9, 2], (Code::SUPERSEDED, 0)),
                (3, [0, 9, 3], same_version),
                (4, [0, 9, 4], (APPLIED, 0)),
            ] {
                world.feed(conn, &keyed(true, Lane::Normal, number, keys)).unwrap();
                let entries = vec![(Lane::Normal, number, code, detail)];
                let said = world.said(conn);
                let what = format_args!("{keys:?} after {verdict:?}, {alone:?} {kind_flags:?} {grown}");
                assert_eq!(said, [Said::Outcomes { durable: true, entries }], "{what}");
            }
        }
    }
}

#[test]
fn what_ends_behind_one_at_work_costs_nothing_before_that_has_ended() {
    let (mut world, conn, _) = served(8);
    world.feed(conn, &idempotent(3)).unwrap();
    world.verdict = Verdict::Later;
    world.feed(conn, &[order(4), order(5)].concat()).unwrap();
    let (mut seen, syncs) = (world.tape().records.len(), world.tape().syncs);
    world.feed(conn, &cancel(&[5])).unwrap();
    assert_eq!((world.tape().syncs, world.receiver.wants_record(world.now)), (syncs, false));
    world.complete(4, Verdict::Applied);
    assert_eq!(world.tape().news(&mut seen), [end(4, 2, APPLIED), end(5, 2, Code::CANCELLED)]);
    assert_eq!(world.tape().syncs, syncs + 1);
}
