//! What a restart finds.

use core::time::Duration;

use push::Mark;
use push::outbox::{AppendError, Entry, Frame, Now, Outbox, Restored, RestoredOrder, Targets};
use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use super::shop::{SMALL, Shop, device, frame};

fn marks(order: &RestoredOrder) -> Vec<(u32, Mark)> {
    order.marks.iter().collect()
}

const APPLIED: Mark = Mark::ended(Code::APPLIED);

#[test]
fn what_was_committed_is_found_and_what_was_not_is_not() {
    let mut shop = Shop::new();
    shop.order(1, 0, &[0, 1, 2]);
    shop.session(1, 77, true, [0, 0, 1, 0], [0; 4]);
    shop.append(&Entry::Fence { fence: 4 }).unwrap();
    shop.append(&Entry::Note { id: 9, bytes: b"rollout" }).unwrap();
    shop.commit();
    shop.ended(1, Code::APPLIED, &[1]);
    shop.commit();
    shop.order(2, 0, &[3]);
    let run = shop.outbox.run();
    let (shop, found) = shop.restart(0);
    assert_eq!((found.lineage, found.head, found.fence), (shop.outbox.lineage(), 1, 4));
    assert_eq!(found.runs.iter().map(|run| run.run).collect::<Vec<_>>(), [run, found.run]);
    assert_eq!((found.runs[0].first, found.runs[1].first), (1, 2));
    assert_eq!(found.notes, [(9, b"rollout".to_vec())]);
    assert_eq!(
        found.devices.iter().map(|found| found.device).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(device)
    );
    let session = found.devices[1].session;
    assert_eq!(
        (session.boot, session.open, session.upto, session.ended),
        (77, true, [0, 0, 1, 0], [0, 0, 1, 0])
    );
    let [order] = &found.orders[..] else { panic!("one order lives: {:?}", found.orders) };
    assert_eq!(order.frame, frame(1, 0, Lane::Normal, 3_600_000, b"order"));
    assert_eq!(marks(order), [(0, Mark::PENDING), (1, APPLIED), (2, Mark::PENDING)]);
    assert_eq!((found.recovery.damaged_records, found.unreadable_records), (0, 0));
}

#[test]
fn numbers_are_never_given_twice_also_when_every_order_is_gone() {
    let mut shop = Shop::new();
    let mut number = 0;
    for _ in 0..6 {
        for _ in 0..200 {
            number += 1;
            shop.order(number, 0, &[0]);
            shop.commit();
            shop.ended(number, Code::APPLIED, &[0]);
            shop.commit();
        }
        assert!(shop.outbox.stats().bytes < 10 * SMALL.segment_bytes, "segments go");
        let found;
        (shop, found) = shop.restart(0);
        assert!(found.orders.is_empty());
        assert_eq!(found.head, number);
        let refused = Targets::one(0).map(|targets| {
            let bytes = frame(number, 0, Lane::Normal, 1_000, b"");
            shop.append(&Entry::Order { frame: Frame::new(&bytes).unwrap(), targets: &targets })
        });
        assert_eq!(refused, Some(Err(AppendError::Number { number, head: number })));
    }
}

#[test]
fn lifetimes_go_on_whatever_the_wall_clock_does() {
    let left = |orders: &[RestoredOrder]| orders[0].remaining.unwrap();
    let mut shop = Shop::new();
    shop.order(1, 0, &[0]);
    shop.commit();
    // Two minutes pass and are written down, and the server is off for five.
    shop.pass(120_000);
    shop.commit();
    let (mut shop, found) = shop.restart(300_000);
    assert_eq!(left(&found.orders), Duration::from_millis(3_600_000 - 420_000));
    // The wall clock goes back by a year: the time the outbox was running counts.
    shop.now.wall_ms -= 365 * 86_400_000;
    shop.pass(600_000);
    shop.commit();
    let (shop, found) = shop.restart(0);
    assert_eq!(left(&found.orders), Duration::from_millis(3_600_000 - 720_000));
    // And forward, past the end of it.
    let (_, found) = shop.restart(3 * 365 * 86_400_000);
    assert_eq!(left(&found.orders), Duration::from_millis(1));
}

#[test]
fn a_key_outlives_its_order_by_seven_days_of_running() {
    let mut shop = Shop::new();
    shop.order(1, 42, &[0, 1]);
    shop.commit();
    shop.ended(1, Code::APPLIED, &[0]);
    shop.ended(1, Code::FAILED, &[1]);
    shop.commit();
    let (shop, found) = shop.restart(0);
    assert!(found.orders.is_empty());
    let key = &found.keys[0];
    assert_eq!((key.key, key.number, key.marks.get(1)), (42, 1, Some(Mark::ended(Code::FAILED))));
    let (mut shop, found) = shop.restart(30 * 86_400_000);
    assert_eq!(found.keys.len(), 1, "a clock that jumps does not make it forget");
    shop.pass(push::outbox::KEYS_KEPT_MS);
    shop.commit();
    let (_, found) = shop.restart(0);
    assert!(found.keys.is_empty());
}

#[test]
fn attempts_end_the_order_they_belong_to() {
    let mut shop = Shop::new();
    shop.order(1, 0, &[0, 1]);
    shop.commit();
    shop.ended(1, Code::BUSY, &[0, 1]);
    shop.commit();
    let (root, after) = (1, Duration::from_secs(3));
    let targets = &Targets::from_sorted([0, 1]).unwrap();
    shop.append(&Entry::Retry { number: 2, root, attempt: 1, after, targets }).unwrap();
    shop.commit();
    shop.ended(2, Code::NO_SPACE, &[0]);
    shop.ended(2, Code::APPLIED, &[1]);
    shop.commit();
    let (mut shop, found) = shop.restart(0);
    let [order] = &found.orders[..] else { panic!("the attempt is over: {:?}", found.orders) };
    assert_eq!(marks(order), [(0, Mark::RETRY_NO_SPACE), (1, APPLIED)]);
    assert_eq!((order.attempts, order.attempt), (1, None));
    let targets = &Targets::one(0).unwrap();
    shop.append(&Entry::Retry { number: 3, root, attempt: 2, after, targets }).unwrap();
    shop.append(&Entry::Cancel { number: 1 }).unwrap();
    shop.commit();
    let (mut shop, found) = shop.restart(0);
    let [order, attempt] = &found.orders[..] else { panic!("{:?}", found.orders) };
    assert_eq!((marks(order)[0], order.cancelled), ((0, Mark::RETRYING), true));
    assert_eq!(
        attempt.attempt.map(|attempt| (attempt.root, attempt.attempt, attempt.after)),
        Some((1, 2, after))
    );
    assert_eq!((attempt.remaining, attempt.frame.is_empty()), (order.remaining, true));
    // Its lifetime is over: the first order says so, and both are gone.
    let last = |number| Entry::Outcomes {
        number,
        code: Code::BUSY,
        first_code: Code::BUSY,
        by_device: false,
        last: true,
        targets,
    };
    shop.append(&last(1)).unwrap();
    shop.commit();
    let (_, found) = shop.restart(0);
    assert!(found.orders.is_empty(), "{:?}", found.orders);
}

#[test]
fn a_removed_device_is_gone_and_its_number_stays_named() {
    let mut shop = Shop::new();
    shop.order(1, 0, &[3, 4]);
    shop.session(3, 5, false, [0, 0, 1, 0], [0; 4]);
    shop.append(&Entry::Removed { device: 3 }).unwrap();
    shop.commit();
    assert!(shop.outbox.names(3) && !shop.outbox.names(5));
    let (mut shop, found) = shop.restart(0);
    assert!(found.devices.iter().all(|found| found.device.device != 3));
    assert!(shop.outbox.names(3));
    shop.append(&Entry::Device(&device(3))).unwrap();
    shop.commit();
    let (_, found) = shop.restart(0);
    assert_eq!(found.devices[3].session.upto, [0; 4], "another device");
}

#[test]
fn another_lineage_keeps_devices_keys_and_numbers_and_no_order() {
    let mut shop = Shop::new();
    let old = shop.outbox.lineage();
    shop.order(7, 42, &[0, 1]);
    shop.order(8, 0, &[0]);
    shop.append(&Entry::Fence { fence: 2 }).unwrap();
    shop.append(&Entry::Note { id: 1, bytes: b"n" }).unwrap();
    shop.session(1, 9, true, [0, 0, 7, 0], [0; 4]);
    shop.commit();
    shop.ended(7, Code::APPLIED, &[0]);
    shop.commit();
    let renewed = shop.outbox.renew(shop.now).unwrap();
    assert!(renewed.lineage != old && renewed.first == 9);
    shop.order(9, 0, &[2]);
    shop.commit();
    assert!(!shop.disk.aside().is_empty(), "the old files are kept");
    let (_, found) = shop.restart(0);
    assert_eq!((found.lineage, found.fence, found.devices.len()), (renewed.lineage, 2, 10));
    assert_eq!(found.orders.iter().map(|order| order.number).collect::<Vec<_>>(), [9]);
    assert_eq!(found.devices[1].session.boot, 0);
    assert_eq!(found.runs[0].run, renewed.run);
    assert_eq!(found.notes.len(), 1);
    let key = &found.keys[0];
    assert_eq!(key.marks.iter().collect::<Vec<_>>(), [(0, APPLIED), (1, Mark::ended(Code::IN_DOUBT))]);
}

#[test]
fn keys_at_their_limit_and_one_past_it() {
    let mut shop = Shop::new();
    let now = shop.now;
    let settings = push::outbox::log::Settings::default();
    (shop.outbox, _) = Outbox::open(testkit::disk::SimDisk::new(3), settings, now, 3).unwrap();
    for number in 1..=push::outbox::KEYS_MAX as u64 {
        shop.order(number, number, &[0]);
    }
    let refused = |shop: &mut Shop, number, key| {
        let bytes = frame(number, key, Lane::Normal, 1_000, b"");
        let targets = &Targets::one(0).unwrap();
        shop.append(&Entry::Order { frame: Frame::new(&bytes).unwrap(), targets })
    };
    let full = Err(AppendError::Keys { limit: push::outbox::KEYS_MAX });
    assert_eq!(refused(&mut shop, 100_000, 100_000), full);
    shop.commit();
    assert_eq!(refused(&mut shop, 100_000, 100_000), full);
    assert_eq!(refused(&mut shop, 100_000, 0), Ok(()));
}

#[test]
fn notes_at_their_limit_and_one_past_it() {
    let mut shop = Shop::new();
    let bytes = vec![1; push::outbox::NOTE_MAX + 1];
    let (len, limit) = (bytes.len(), bytes.len() - 1);
    assert_eq!(shop.append(&Entry::Note { id: 1, bytes: &bytes }), Err(AppendError::TooLong { len, limit }));
    shop.append(&Entry::Note { id: 1, bytes: &bytes[1..] }).unwrap();
    shop.commit();
    let (mut shop, found) = shop.restart(0);
    assert_eq!(found.notes[0].1.len(), limit);
    shop.append(&Entry::Note { id: 1, bytes: &[] }).unwrap();
    shop.commit();
    let (_, found) = shop.restart(0);
    assert!(found.notes.is_empty());
}

#[test]
fn runs_at_their_limit_and_one_past_it() {
    let mut shop = Shop::new();
    let mut runs = vec![shop.outbox.run()];
    for opening in 2..=push::outbox::RUNS_MAX + 3 {
        let found;
        (shop, found) = shop.restart(0);
        runs.push(found.run);
        let kept = opening.min(push::outbox::RUNS_MAX);
        assert_eq!(found.runs.iter().map(|run| run.run).collect::<Vec<_>>(), runs[runs.len() - kept..]);
    }
}

#[test]
fn a_server_that_is_started_over_and_over_fills_no_log_with_its_starts() {
    let mut shop = Shop::new();
    shop.order(7, 0, &[0, 3]);
    shop.commit();
    let starts = 2 * SMALL.bytes_max / SMALL.segment_bytes;
    for start in 0..starts {
        shop.disk.crash();
        let settings = push::outbox::log::Settings { bytes_max: 16 * SMALL.segment_bytes, ..SMALL };
        let (outbox, found) = Outbox::open(shop.disk.clone(), settings, shop.now, start + 2)
            .unwrap_or_else(|error| panic!("start {start}: {error}"));
        assert_eq!(found.orders.iter().map(|order| order.number).collect::<Vec<_>>(), [7]);
        assert_eq!((found.devices.len(), found.head), (10, 7));
        drop(outbox);
    }
}

#[test]
fn a_full_outbox_refuses_orders_and_still_takes_how_they_end() {
    let mut shop = Shop::new();
    let mut taken = 0;
    let full = loop {
        let bytes = frame(taken + 1, 0, Lane::Normal, 1_000_000, &[7; 2_000]);
        let targets = &Targets::one(0).unwrap();
        match shop.append(&Entry::Order { frame: Frame::new(&bytes).unwrap(), targets }) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        shop.commit();
    };
    assert!(matches!(full, AppendError::Full { limit, .. } if limit <= SMALL.bytes_max), "{full}");
    for number in 1..=taken / 2 {
        shop.ended(number, Code::APPLIED, &[0]);
        shop.commit();
    }
    shop.order(taken + 1, 0, &[0]);
    shop.commit();
    let (_, found) = shop.restart(0);
    assert_eq!(found.orders.len() as u64, taken - taken / 2 + 1);
}

#[test]
fn the_clock_of_the_process_begins_anew_and_the_age_does_not() {
    let mut shop = Shop::new();
    shop.order(1, 0, &[0]);
    shop.commit();
    shop.pass(59_999);
    shop.commit();
    let records = shop.outbox.stats().records;
    shop.pass(1);
    shop.commit();
    assert_eq!(shop.outbox.stats().records, records + 1, "a minute is written down");
    shop.now = Now { wall_ms: 0, ..shop.now };
    let (shop, _) = shop.restart(0);
    let (_, found) = shop.restart(0);
    assert_eq!(found.orders[0].remaining, Some(Duration::from_millis(3_600_000 - 60_000)));
}

/// What a device forgot is not held against it for ever: the server has said so once.
#[test]
fn a_session_says_what_its_device_still_knows_and_outcomes_behind_it_raise_that() {
    let mut shop = Shop::new();
    for number in 1..=3 {
        shop.order(number, 0, &[1, 2]);
    }
    shop.session(1, 70, true, [0; 4], [0; 4]);
    shop.commit();
    shop.ended(2, Code::APPLIED, &[1]);
    shop.commit();
    shop.session(1, 71, true, [0, 0, 2, 0], [0; 4]);
    shop.commit();
    let (mut shop, found) = shop.restart(0);
    let session = found.devices[1].session;
    assert_eq!((session.boot, session.upto, session.ended), (71, [0, 0, 2, 0], [0; 4]), "it forgot 2");
    shop.session(1, 71, false, [0; 4], [0; 4]);
    shop.ended(3, Code::APPLIED, &[1]);
    shop.commit();
    let (_, found) = shop.restart(0);
    let session = found.devices[1].session;
    assert_eq!(
        (session.upto, session.ended),
        ([0, 0, 2, 0], [0, 0, 3, 0]),
        "nothing unwrites what was written"
    );
}

/// A record that is written again says what was known then, also that something was forgotten.
#[test]
fn what_a_device_forgot_is_not_remembered_by_compaction() {
    let mut shop = Shop::new();
    shop.order(1, 0, &[1]);
    shop.commit();
    shop.ended(1, Code::APPLIED, &[1]);
    shop.session(1, 70, true, [0, 0, 1, 0], [0, 0, 1, 0]);
    shop.commit();
    shop.session(1, 71, true, [0; 4], [0; 4]);
    shop.commit();
    let carried = shop.outbox.stats().carried;
    for number in 2..1_500 {
        shop.order(number, 0, &[0]);
        shop.commit();
        shop.ended(number, Code::APPLIED, &[0]);
        shop.commit();
    }
    assert!(shop.outbox.stats().carried > carried);
    let (_, found) = shop.restart(0);
    assert_eq!((found.devices[1].session.boot, found.devices[1].session.ended), (71, [0; 4]));
}

/// The process is killed, or dies of it, behind a commit whose sync failed: the system still shows what was written, and will
/// never write it to the disk.
#[test]
fn what_a_restart_found_is_on_disk_before_it_is_believed() {
    for seed in 0..40 {
        let mut shop = Shop::seeded(seed);
        shop.order(1, 0, &[0]);
        shop.commit();
        shop.order(2, 0, &[1]);
        shop.order(3, 42, &[2]);
        // Of the commit, and of the second try in another segment: the one made last is used first.
        shop.disk.fail_after(2);
        shop.disk.fail_after(1);
        assert!(shop.outbox.commit(shop.now).is_err());
        let orders = |found: &Restored| found.orders.iter().map(|order| order.number).collect::<Vec<_>>();
        let (shop, found) = shop.killed();
        assert_eq!(orders(&found), [1, 2, 3]);
        let (_, found) = shop.restart(0);
        assert_eq!(orders(&found), [1, 2, 3], "seed {seed}");
        assert_eq!((&found.recovery.damaged[..], found.recovery.torn_records), (&[][..], 0));
    }
}
