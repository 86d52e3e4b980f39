//! After a boot: what the journal told is known again, and what it did not tell never was.

use wire_format::frame::reject;

use super::recording::{end, idempotent, served, start};
use super::*;

const APPLIED: Code = Code::APPLIED;

fn floor(said: &Said, lane: usize) -> u64 {
    match said {
        Said::Welcome { volatile, .. } => volatile.lanes[lane].floor,
        other => panic!("no WELCOME: {other:?}"),
    }
}

#[test]
fn what_ended_is_said_again_until_it_is_settled_and_never_runs_again() {
    let (mut world, conn, _) = served(8);
    world.feed(conn, &[idempotent(3), order(4)].concat()).unwrap();
    assert_eq!(world.begun(), [3, 4]);
    let mut world = world.reboot(0);
    let (conn, said) = world.meet();
    assert!(matches!(said[0], Said::Welcome { persisted: true, lost: false, .. }));
    assert_eq!((floor(&said[0], 2), &said[1..]), (4, &[outcomes(&[(3, APPLIED, 0), (4, APPLIED, 0)])][..]));
    world.feed(conn, &[idempotent(3), order(4)].concat()).unwrap();
    let code = APPLIED.0;
    assert_eq!(world.said(conn), [outcomes(&[(3, Code::DUPLICATE, code), (4, Code::DUPLICATE, code)])]);
    world.feed(conn, &settled(Lane::Normal, 3)).unwrap();
    // Settled is told with the next write, whatever that is.
    world.feed(conn, &urgent(5)).unwrap();
    let mut world = world.reboot(0);
    let (_, said) = world.meet();
    let entries = vec![(Lane::Urgent, 5, APPLIED, 0), (Lane::Normal, 4, APPLIED, 0)];
    assert_eq!(said[1..], [Said::Outcomes { durable: false, entries }]);
    assert_eq!((floor(&said[0], 2), floor(&said[0], 0), world.begun()), (4, 5, vec![]));
}

#[test]
fn an_end_that_was_not_synced_never_was() {
    for unsynced in 0..=1 {
        let (mut world, conn, _) = served(8);
        // Its end is appended, and the sync does not return.
        world.tape().good = Some(1);
        world.feed(conn, &idempotent(3)).unwrap();
        assert_eq!((world.begun(), world.tape().records.len() - world.tape().synced), (vec![3], 1));
        assert!(world.said(conn).iter().all(|said| !matches!(said, Said::Outcomes { .. })));
        world.tape().good = None;
        let mut world = world.reboot(unsynced);
        let (conn, said) = world.meet();
        assert_eq!((floor(&said[0], 2), said.len()), (2 + unsynced as u64, 2));
        world.feed(conn, &idempotent(3)).unwrap();
        assert_eq!(world.begun().len(), 1 - unsynced);
    }
}

#[test]
fn what_began_and_must_not_run_twice_is_in_doubt_and_its_end_is_recorded_before_it_is_said() {
    let (mut world, conn, _) = served(8);
    world.verdict = Verdict::Later;
    world.feed(conn, &order(3)).unwrap();
    let ticket = world.tickets[world.tickets.len() - 1];
    let mut world = world.reboot(0);
    assert_eq!(world.tape().read().last(), Some(&end(3, 2, Code::IN_DOUBT)));
    let (conn, said) = world.meet();
    assert_eq!((floor(&said[0], 2), &said[1..]), (3, &[outcomes(&[(3, Code::IN_DOUBT, 0)])][..]));
    // Nothing of that boot can be completed any more.
    world.receiver.complete(world.now, ticket, Verdict::Applied, None);
    world.drain();
    assert_eq!(world.said(conn), []);
    world.feed(conn, &order(3)).unwrap();
    assert_eq!(world.begun(), []);
    // Not after another boot either.
    let mut world = world.reboot(0);
    let (_, said) = world.meet();
    assert_eq!(said[1..], [outcomes(&[(3, Code::IN_DOUBT, 0)])]);
}

#[test]
fn what_began_and_may_run_twice_runs_again() {
    let (mut world, conn, _) = served(8);
    world.verdict = Verdict::Later;
    world.feed(conn, &idempotent(3)).unwrap();
    let ticket = world.tickets[world.tickets.len() - 1];
    let mut world = world.reboot(0);
    let (conn, said) = world.meet();
    // That the one before it is settled was not written yet.
    assert_eq!((floor(&said[0], 2), &said[1..]), (2, &[outcomes(&[(2, APPLIED, 0)])][..]));
    world.verdict = Verdict::Later;
    let order = Order { number: 3, kind_flags: KindFlags::IDEMPOTENT, ..plain() };
    world.feed(conn, &frame(|buffer| order.emit(&Delivery { replay: true, ..FOREVER }, buffer))).unwrap();
    assert_eq!(world.applied, [(Lane::Normal, 3, true)]);
    world.said(conn);
    // The ticket of the boot before is dead; that of this one is not.
    world.receiver.complete(world.now, ticket, Verdict::RejectedKind, None);
    world.drain();
    assert_eq!(world.said(conn), []);
    world.complete(3, Verdict::Applied);
    assert_eq!(world.said(conn), [outcomes(&[(3, APPLIED, 0)])]);
}

#[test]
fn a_start_whose_order_never_went_to_its_handler_is_undone_by_what_follows_it() {
    for unsettled in [false, true] {
        let (mut world, conn, _) = served(8);
        world.feed(conn, &idempotent(3)).unwrap();
        if !unsettled {
            world.feed(conn, &settled(Lane::Normal, 3)).unwrap();
        }
        let bytes = order(4);
        let tape = world.tape.take().unwrap();
        assert_eq!(world.feed(conn, &bytes), Ok(0));
        world.tape = Some(tape);
        world.keep();
        assert_eq!(world.tape().read().last(), Some(&start(4, if unsettled { 2 } else { 3 })));
        // The server takes it back while the device is away, and goes on behind it.
        let (conn, _) = world.reconnect(conn);
        world.feed(conn, &idempotent(5)).unwrap();
        let mut world = world.reboot(0);
        let (_, said) = world.meet();
        let all = [(3, APPLIED, 0), (5, APPLIED, 0)];
        assert_eq!(said[1..], [outcomes(if unsettled { &all } else { &all[1..] })]);
    }
}

#[test]
fn the_fence_survives_and_keeps_a_fenced_server_out() {
    let mut world = World::journalled(4);
    world.session_with(&Hello { server: B, fence: 6, ..hello() });
    let mut world = world.reboot(0);
    assert_eq!(world.receiver.known(), Some(Known { server: B, fence: 6 }));
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap_err();
    assert!(matches!(world.said(conn)[..], [Said::Reject(Reject { code: reject::Code::STALE_FENCE, .. })]));
}

#[test]
fn keys_and_versions_survive_across_lineages() {
    let mut world = World::journalled(8);
    let conn = world.session();
    world.feed(conn, &keyed(true, Lane::Normal, 1, [7, 0, 0])).unwrap();
    world.feed(conn, &keyed(true, Lane::Normal, 2, [0, 9, 5])).unwrap();
    world.verdict = Verdict::RejectedKind;
    world.feed(conn, &keyed(true, Lane::Normal, 3, [6, 10, 5])).unwrap();
    world.verdict = Verdict::Later;
    world.feed(conn, &keyed(true, Lane::Normal, 4, [8, 11, 5])).unwrap();
    for snapshot in [false, true] {
        world.tape().grown = snapshot;
        if snapshot {
            // As a whole, instead of record by record.
            world.feed(conn, &idempotent(9)).ok();
        }
    }
    let mut world = world.reboot(0);
    world.verdict = Verdict::Applied;
    world.receiver.handle_timeout(world.now);
    let other = LogHead { lineage: Lineage([0xDE; 16]), run: 1, head: 0 };
    let conn = world.session_with(&Hello { durable: other, ..hello() });
    for (number, keys, code, detail) in [
        (1, [7, 0, 0], Code::DUPLICATE, APPLIED.0),
        (2, [6, 0, 0], APPLIED, 0),
        (3, [8, 0, 0], Code::DUPLICATE, Code::IN_DOUBT.0),
        (4, [0, 9, 4], Code::SUPERSEDED, 0),
        (5, [0, 9, 5], Code::SUPERSEDED, 0),
        (6, [0, 9, 6], APPLIED, 0),
        (7, [0, 10, 5], APPLIED, 0),
        (8, [0, 11, 5], Code::SUPERSEDED, 0),
    ] {
        world.feed(conn, &keyed(true, Lane::Normal, number, keys)).unwrap();
        let entries = vec![(Lane::Normal, number, code, detail)];
        assert_eq!(world.said(conn), [Said::Outcomes { durable: true, entries }], "{keys:?}");
        world
            .feed(conn, &frame(|buffer| Settled { durable: true, lane: Lane::Normal, number }.emit(buffer)))
            .unwrap();
    }
}

#[test]
fn an_evicted_lineage_comes_back_as_a_stranger_over_a_boot_too() {
    let mut world = World::journalled(4);
    let head = |byte| LogHead { lineage: Lineage([byte; 16]), run: 1, head: 0 };
    let named = |world: &mut World, byte: u8| {
        let conn = world.connect();
        world.feed(conn, &frame(|buffer| Hello { durable: head(byte), ..hello() }.emit(buffer))).unwrap();
        let said = world.said(conn);
        world.feed(conn, &ping(1)).unwrap();
        match &said[0] {
            Said::Welcome { durable, .. } => {
                (durable.lineage == Lineage([byte; 16])).then(|| durable.lanes[2].floor)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(named(&mut world, 1), None);
    let conn =
        world.receiver.served().map(|_| world.session_with(&Hello { durable: head(1), ..hello() })).unwrap();
    world.feed(conn, &keyed(true, Lane::Normal, 5, [0; 3])).unwrap();
    assert_eq!((named(&mut world, 2), named(&mut world, 1)), (None, Some(5)));
    // The one used least lately goes, also by the device's memory of what was used when.
    let mut world = world.reboot(0);
    assert_eq!(named(&mut world, 3), None);
    let mut world = world.reboot(0);
    assert_eq!(named(&mut world, 1), Some(5));
    // That its server knows goes into the journal only with the next write.
    assert_eq!((named(&mut world, 3), named(&mut world, 3)), (None, Some(0)));
    assert_eq!(named(&mut world, 2), None);
    let mut world = world.reboot(0);
    assert_eq!(named(&mut world, 1), None);
}

#[test]
fn a_damaged_journal_holds_what_stood_before_the_damage_and_names_no_lineage() {
    let (mut world, conn, _) = served(8);
    world.feed(conn, &[idempotent(3), order(4)].concat()).unwrap();
    let tape = world.tape();
    // What was written of order 4 is behind the damage.
    tape.records.truncate(tape.records.len() - 2);
    (tape.synced, tape.damaged) = (tape.records.len(), true);
    let mut world = world.reboot(0);
    assert_eq!(world.tape().snapshots, 1 + 1, "the first write makes it whole");
    for _ in 0..2 {
        let (conn, said) = world.meet();
        let nothing = LogFloors::default();
        let welcome =
            Said::Welcome { window: 8, volatile: nothing, durable: nothing, persisted: true, lost: true };
        let Said::Welcome { volatile, persisted, lost, .. } = said[0] else { panic!("{said:?}") };
        assert_eq!((volatile, persisted, lost), (nothing, true, true), "{welcome:?}");
        // What it still knows to have ended it says, and does not do again.
        assert_eq!(said[1..], [outcomes(&[(3, APPLIED, 0)])]);
        world.receiver.handle_closed(world.now, conn);
    }
    // The boot after it: nothing is damaged, and still its server has not shown that it knows.
    let mut world = world.reboot(0);
    let (conn, said) = world.meet();
    assert!(matches!(said[0], Said::Welcome { volatile, lost: false, .. } if volatile.lineage.is_none()));
    world.feed(conn, &idempotent(3)).unwrap();
    assert_eq!(world.begun(), []);
    let (_, said) = world.reconnect(conn);
    assert!(matches!(said[0], Said::Welcome { volatile, .. } if volatile.lanes[2].floor == 3));
}

#[test]
fn the_journal_of_another_device_and_bytes_that_are_no_record_are_damage() {
    let (mut world, conn, _) = served(8);
    world.feed(conn, &idempotent(3)).unwrap();
    let tape = world.tape.take().unwrap();
    let stranger = ReceiverConfig { id: NodeId([0xE; 16]), ..config() };
    let world = World::booted(stranger, tape.clone());
    assert_eq!((world.receiver.owed(), world.receiver.known()), (0, None));
    for (at, bytes) in [(0, vec![0xFF; 3]), (2, vec![]), (tape.records.len(), vec![8; 70])] {
        let mut broken = tape.clone();
        broken.records.insert(at, bytes);
        broken.synced += 1;
        let mut world = World::booted(config(), broken);
        let (_, said) = world.meet();
        assert!(matches!(said[0], Said::Welcome { lost: true, .. }), "{at}");
    }
}

#[test]
fn a_snapshot_says_the_same_as_the_records_it_replaces() {
    let (mut world, conn, _) = served(8);
    world.verdict = Verdict::Later;
    world.feed(conn, &keyed(false, Lane::Bulk, 3, [5, 6, 7])).unwrap();
    world.verdict = Verdict::Failed { detail: 3 };
    world.feed(conn, &[order(4), urgent(5), keyed(true, Lane::Normal, 1, [1, 2, 3])].concat()).unwrap();
    let tape = world.tape.take().unwrap();
    let mut cursor = Cursor::START;
    let mut whole = Tape::default();
    whole.replace(&mut |into| world.receiver.poll_snapshot(&mut cursor, into)).unwrap();
    let mut all = [Vec::new(), Vec::new()];
    for (said, tape) in all.iter_mut().zip([tape, whole]) {
        let mut world = World::booted(ReceiverConfig { boot: 78, ..config() }, tape);
        world.now = world.now + Duration::from_secs(3);
        let (_, meeting) = world.meet();
        *said = meeting;
    }
    assert_eq!(all[0], all[1]);
    let in_doubt = |said: &Said| matches!(said, Said::Outcomes { entries, .. } if entries.contains(&(Lane::Bulk, 3, Code::IN_DOUBT, 0)));
    assert!(all[0].iter().any(in_doubt), "{:?}", all[0]);
}

proptest::proptest! {
    /// Whatever a journal holds, a device boots with it, serves, and writes it anew.
    #[test]
    fn any_records_are_taken_without_harm(
        seed: u64,
        wild in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..70), 0..40),
    ) {
        let mut rng = wire_format::rng::Rng::new(seed);
        let (mut world, conn, _) = served(8);
        world.verdict = Verdict::Later;
        world.feed(conn, &[keyed(true, Lane::Bulk, 3, [1, 2, 3]), urgent(4)].concat()).unwrap();
        world.verdict = Verdict::Applied;
        world.feed(conn, &[order(5), idempotent(6), keyed(false, Lane::Interactive, 7, [4, 0, 0])].concat()).unwrap();
        // Right records in any order, with bytes changed, and bytes that are none among them.
        let known = world.tape().records.clone();
        let mut records = vec![known[0].clone()];
        for wild in wild {
            let mut record = known[rng.below(known.len() as u64) as usize].clone();
            match rng.below(4) {
                0 => record = wild,
                1 => {
                    let at = rng.below(record.len() as u64) as usize;
                    record[at] = wild.first().copied().unwrap_or(0);
                }
                _ => {}
            }
            records.push(record);
        }
        let tape = Tape { synced: records.len(), records, ..Tape::default() };
        let mut world = World::booted(ReceiverConfig { boot: 78, window_orders: 2, ..config() }, tape);
        proptest::prop_assert!(world.receiver.owed() <= 4);
        let conn = world.connect();
        let _ = world.feed(conn, &frame(|buffer| Hello { fence: u64::MAX, ..hello() }.emit(buffer)));
        world.pass(Duration::from_secs(1));
        let _ = world.feed(conn, &[order(100), urgent(101)].concat());
        let world = world.reboot(0);
        proptest::prop_assert!(world.receiver.owed() <= 4);
    }
}
