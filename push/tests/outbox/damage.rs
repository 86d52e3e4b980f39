//! Files that were cut or changed: what stands around the damage is found, and the damage is told.

use core::time::Duration;

use push::Mark;
use push::outbox::log::{Life, Log};
use push::outbox::{Attempt, Batch, Entry, Lost, Now, Outbox, Outcome, Restored, Session, Targets};
use testkit::disk::SimDisk;
use wire_format::frame::outcome::Code;
use wire_format::ids::{Lane, Lineage};
use wire_format::time::Instant;

use super::model::Model;
use super::shop::{SMALL, Shop, device, frame};

/// A disk with records of every kind, each in a commit of its own, in two segments.
fn full_disk() -> SimDisk {
    let mut shop = Shop::new();
    for number in 1..=12 {
        shop.order(number, number % 2 * number, &[0, 1, number as u32 % 7 + 2]);
        shop.commit();
    }
    (shop, _) = shop.restart(1_000);
    for number in [1, 3, 4] {
        shop.ended(number, Code::APPLIED, &[0, 1, number as u32 % 7 + 2]);
        shop.session(1, number, true, [number; 4], [0; 4]);
        shop.commit();
    }
    shop.ended(6, Code::BUSY, &[0]);
    shop.commit();
    shop.disk
}

fn open(disk: &SimDisk) -> Restored {
    Outbox::open(disk.clone(), SMALL, Now::default(), 9).unwrap().1
}

/// Bytes of a segment up to the last that is not zero.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1
}

/// Where the records of a segment begin.
fn records(bytes: &[u8]) -> Vec<usize> {
    (128..bytes.len()).step_by(8).filter(|&at| bytes[at..].starts_with(b"TWLR")).collect()
}

#[test]
fn a_file_cut_anywhere_in_its_last_records_loses_these_and_no_other() {
    let disk = full_disk();
    let whole = Model::of(&open(&disk.copy(1)));
    let (segment, bytes) = disk.files().pop().unwrap();
    let begins = records(&bytes);
    let last = begins[begins.len() - 2];
    for cut in last..used(&bytes) {
        let copy = disk.copy(1);
        copy.put(segment, bytes[..cut].to_vec());
        let found = open(&copy);
        assert_eq!(found.recovery.damaged, [], "cut at {cut}");
        let differences = Model::of(&found).differences(&whole);
        assert!(differences.len() <= 4, "cut at {cut}: {differences:#?}");
        assert_eq!(found.head, 12);
    }
}

#[test]
fn a_file_cut_in_its_header_holds_nothing_and_is_told() {
    let disk = full_disk();
    let (segment, bytes) = disk.files().pop().unwrap();
    for cut in 0..128 {
        let copy = disk.copy(1);
        copy.put(segment, bytes[..cut].to_vec());
        let found = open(&copy);
        // What is left of it may still be what an opening had begun.
        assert_eq!(found.orders.len(), 12, "cut at {cut}");
    }
}

#[test]
fn any_flipped_bit_of_the_last_4_kib_costs_one_record_and_is_told() {
    let disk = full_disk();
    let whole = Model::of(&open(&disk.copy(1)));
    for (segment, bytes) in disk.files() {
        let end = used(&bytes);
        for bit in
            (end.saturating_sub(4_096) * 8..end * 8).step_by(if cfg!(debug_assertions) { 7 } else { 1 })
        {
            let copy = disk.copy(1);
            assert!(copy.flip(segment, bit));
            let found = open(&copy);
            let differences = Model::of(&found).differences(&whole);
            // An order's outcome is a change of the order and of its key, of a session and of what follows from it.
            assert!(differences.len() <= 5, "bit {bit} of {segment}: {differences:#?}");
            let recovery = &found.recovery;
            let told = recovery.damaged_records + recovery.torn_records + recovery.torn_bytes;
            assert!(differences.is_empty() || told > 0, "bit {bit} of {segment}: {differences:#?}");
        }
    }
}

/// A store with orders 1 to 40, whose first record rots: behind RUN, MARK and ten devices.
fn with_a_rotten_order() -> Shop {
    let mut shop = Shop::new();
    for number in 1..=40 {
        shop.order(number, 0, &[0]);
        shop.commit();
    }
    let (segment, bytes) = shop.disk.files().remove(0);
    let at = records(&bytes)[12];
    assert!(shop.disk.flip(segment, (at + 40) * 8));
    shop
}

/// Orders come and end until everything else was written again; what was found to be lost. `frames` is asked at each commit.
fn worn(shop: &mut Shop, mut frames: impl FnMut(u64) -> Option<Vec<u8>>) -> Vec<Lost> {
    let mut lost = vec![];
    for number in 41..=400 {
        shop.order(number, 0, &[0]);
        shop.outbox.commit_with(shop.now, &mut frames).unwrap();
        shop.ended(number, Code::APPLIED, &[0]);
        shop.outbox.commit_with(shop.now, &mut frames).unwrap();
        lost.extend(shop.outbox.take_lost());
    }
    lost
}

#[test]
fn a_record_that_rotted_is_written_again_by_who_still_has_its_frame() {
    let mut shop = with_a_rotten_order();
    shop.ended(1, Code::BUSY, &[0]);
    shop.append(&Entry::Cancel { number: 1 }).unwrap();
    shop.commit();
    let mut asked = vec![];
    let lost = worn(&mut shop, |number| {
        asked.push(number);
        Some(frame(number, 0, Lane::Normal, 3_600_000, b"order"))
    });
    assert_eq!((lost, asked), (vec![], vec![1]), "once, and of no order that can be read");
    assert_eq!((shop.outbox.stats().lost, shop.outbox.stats().mended), (0, 1));
    let (_, found) = shop.restart(0);
    let order = &found.orders[0];
    assert_eq!((order.number, order.cancelled), (1, true));
    assert_eq!(order.marks.get(0), Some(Mark::RETRY_BUSY));
    assert_eq!(order.frame, frame(1, 0, Lane::Normal, 3_600_000, b"order"));
    assert_eq!(order.remaining, found.orders[1].remaining, "its time goes on");
    assert_eq!((found.orders.len(), found.recovery.damaged_records), (40, 0));
}

#[test]
fn a_frame_of_another_order_mends_nothing() {
    let frames: [Vec<u8>; 2] = [frame(2, 0, Lane::Normal, 3_600_000, b"order"), vec![1; 80]];
    for wrong in frames {
        let mut shop = with_a_rotten_order();
        assert_eq!(worn(&mut shop, |_| Some(wrong.clone())), [Lost::Order(1)]);
    }
}

#[test]
fn an_attempt_whose_record_rotted_is_written_again_without_any_help() {
    let mut shop = Shop::new();
    shop.order(1, 0, &[0, 1]);
    shop.commit();
    shop.ended(1, Code::BUSY, &[0, 1]);
    shop.commit();
    let targets = &Targets::from_sorted([0, 1]).unwrap();
    shop.append(&Entry::Retry { number: 2, root: 1, attempt: 1, after: Duration::from_secs(9), targets })
        .unwrap();
    shop.commit();
    let (segment, bytes) = shop.disk.files().remove(0);
    // Behind the order and what came of it.
    let at = records(&bytes)[14];
    assert!(shop.disk.flip(segment, (at + 40) * 8));
    shop.ended(2, Code::APPLIED, &[1]);
    shop.commit();
    assert_eq!(worn(&mut shop, |_| None), []);
    let (_, found) = shop.restart(0);
    let applied = Some(Mark::ended(Code::APPLIED));
    let [root, attempt] = &found.orders[..] else { panic!("{:?}", found.orders) };
    assert_eq!((root.marks.get(0), root.marks.get(1)), (Some(Mark::RETRYING), applied));
    assert_eq!((attempt.marks.get(0), attempt.marks.get(1)), (Some(Mark::PENDING), applied));
    let Attempt { root, attempt, after } = attempt.attempt.unwrap();
    assert_eq!((root, attempt, after), (1, 1, Duration::from_secs(9)));
}

#[test]
fn a_record_that_rotted_is_lost_when_it_should_be_written_again_and_is_told() {
    let mut shop = with_a_rotten_order();
    assert_eq!(worn(&mut shop, |_| None), [Lost::Order(1)]);
    assert_eq!(shop.outbox.stats().lost, 1);
    let (_, found) = shop.restart(0);
    assert_eq!(
        found.orders.iter().map(|order| order.number).collect::<Vec<_>>(),
        (2..=40).collect::<Vec<_>>()
    );
    assert_eq!(found.recovery.damaged_records, 0, "its segment is gone");
}

#[test]
fn stretches_of_damage_at_their_limit_and_one_past_it() {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), SMALL, Lineage([1; 16]), 1, |_, _, _| Life::Live).unwrap();
    for _ in 0..65 * 2 + 1 {
        log.append(1, Life::Live, &[b"eight by"]).unwrap();
        log.commit().unwrap();
    }
    let (segment, bytes) = disk.files().remove(0);
    for (count, at) in records(&bytes).into_iter().skip(1).step_by(2).take(65).enumerate() {
        assert!(disk.flip(segment, (at + 33) * 8));
        let (_, recovery) = Log::open(disk.copy(1), SMALL, Lineage::NONE, 1, |_, _, _| Life::Live).unwrap();
        assert_eq!(recovery.damaged.len(), (count + 1).min(64));
        assert_eq!(recovery.damaged_records, count as u64 + 1);
    }
}

#[test]
fn records_that_are_not_understood_at_their_limit_and_one_past_it() {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), SMALL, Lineage([1; 16]), 1, |_, _, _| Life::Live).unwrap();
    for count in 1..=65_u64 {
        log.append(99, Life::Live, &[b"of a newer version"]).unwrap();
        log.commit().unwrap();
        let found = open(&disk.copy(1));
        assert_eq!((found.unreadable_records, found.unreadable.len() as u64), (count, count.min(64)));
        assert_eq!((found.unreadable[0].kind, found.unreadable[0].sequence), (99, 1));
    }
}

#[test]
fn a_batch_is_logged_by_order_and_code_and_twice_is_no_harm() {
    let mut shop = Shop::new();
    shop.order(1, 0, &[0, 1, 2, 3]);
    shop.order(2, 0, &[0, 1]);
    shop.commit();
    let (mut batch, now) = (Batch::new(), Instant::ZERO);
    for (number, device, code) in [(1, 3, 1), (2, 1, 8), (1, 0, 1), (1, 2, 8), (1, 0, 1)] {
        let (code, by_device, last) = (Code(code), true, false);
        batch.push(now, Outcome { number, device, code, first_code: code, by_device, last });
    }
    batch.push_session(now, Session { device: 3, boot: 5, open: true, upto: [0, 0, 1, 0], ended: [0; 4] });
    let records = shop.outbox.stats().records;
    for _ in 0..2 {
        shop.outbox.append_batch(shop.now, &batch).unwrap();
    }
    shop.commit();
    assert_eq!(shop.outbox.stats().records, records + 2 * 4, "three groups and a session");
    let (_, found) = shop.restart(0);
    let marks: Vec<_> = found
        .orders
        .iter()
        .map(|order| order.marks.iter().map(|(_, mark)| mark.0).collect::<Vec<_>>())
        .collect();
    assert_eq!(marks, [vec![1, 0xF0, 8, 1], vec![0xF0, 8]]);
    assert_eq!((found.devices[3].session.ended, found.devices[3].session.boot), ([0, 0, 1, 0], 5));
}

#[test]
fn a_device_that_rotted_is_asked_for_in_time_to_be_written_again() {
    for again in [true, false] {
        let mut shop = Shop::new();
        shop.session(3, 6, true, [0, 0, 4, 0], [0, 0, 4, 0]);
        shop.commit();
        let (segment, bytes) = shop.disk.files().remove(0);
        // The fourth device, behind RUN and MARK.
        let at = records(&bytes)[5];
        assert!(shop.disk.flip(segment, (at + 40) * 8));
        let mut undescribed = vec![];
        for number in 1..=400 {
            shop.order(number, 0, &[0]);
            shop.commit();
            shop.ended(number, Code::APPLIED, &[0]);
            shop.commit();
            let asked = shop.outbox.take_undescribed();
            if again && !asked.is_empty() {
                shop.append(&Entry::Device(&device(3))).unwrap();
            }
            undescribed.extend(asked);
        }
        assert_eq!(undescribed, [3], "once");
        assert_eq!((shop.outbox.stats().mended, shop.outbox.stats().lost), (1, 0));
        assert!(!shop.disk.files().iter().any(|(left, _)| *left == segment), "it holds nothing up");
        let (_, found) = shop.restart(0);
        let known: Vec<u32> = found.devices.iter().map(|known| known.device.device).collect();
        let all: Vec<u32> = (0..10).filter(|number| again || *number != 3).collect();
        assert_eq!(known, all);
        let session = found.devices.iter().find(|known| known.device == device(3)).map(|known| known.session);
        let expected = again.then_some((6, [0, 0, 4, 0], [0, 0, 4, 0]));
        assert_eq!(session.map(|session| (session.boot, session.upto, session.ended)), expected);
    }
}
