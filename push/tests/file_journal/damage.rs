//! Bits that change, files that are cut or gone.

use super::*;

/// A journal with a snapshot and syncs behind it; its records, and how many of them the last sync has.
fn filled() -> (SimDisk, Records) {
    let disk = SimDisk::new(1);
    let (mut journal, ..) = open(disk.clone());
    keep(&mut journal, &record(0)).unwrap();
    journal.replace(&mut snapshot(&records(0..4))).unwrap();
    for n in 4..10 {
        journal.append(&record(2 * n)).unwrap();
        keep(&mut journal, &record(2 * n + 1)).unwrap();
    }
    (disk, records((0..4).chain(8..20)))
}

/// Bytes of a record in its file.
fn padded(record: &[u8]) -> usize {
    (record.len() + 8).next_multiple_of(8)
}

fn bytes(disk: &SimDisk, file: u64) -> Vec<u8> {
    disk.files().into_iter().find(|(number, _)| *number == file).unwrap().1
}

#[test]
fn one_changed_bit_anywhere_changes_nothing() {
    let (disk, all) = filled();
    for file in [1, 2] {
        for bit in 0..SMALL * 8 {
            assert!(disk.flip(file, bit));
            let (_, found, told) = open(disk.clone());
            assert_eq!((found, &told), (Found::Whole, &all), "file {file} bit {bit}");
            disk.flip(file, bit);
        }
    }
}

#[test]
fn a_repair_is_written_down_by_the_next_snapshot() {
    let (disk, all) = filled();
    for bit in [3, 8 * 32 + 70] {
        disk.flip(2, bit);
        let (mut journal, ..) = open(disk.clone());
        assert!(journal.wants_snapshot(), "bit {bit}");
        journal.replace(&mut snapshot(&all)).unwrap();
        let (mut journal, found, told) = open(disk.clone());
        assert_eq!((found, journal.wants_snapshot(), told), (Found::Whole, false, all.clone()));
        journal.replace(&mut snapshot(&all)).unwrap();
    }
}

#[test]
fn a_file_cut_at_any_byte_is_damaged_and_what_stands_before_is_told() {
    let (disk, all) = filled();
    let whole = bytes(&disk, 2);
    for len in 0..SMALL {
        disk.put(2, whole[..len].to_vec());
        let (mut journal, found, told) = open(disk.copy(1));
        assert_eq!(told, all[..told.len()], "cut to {len} bytes");
        assert_eq!(found, Found::Damaged, "cut to {len} bytes");
        assert!(journal.wants_snapshot());
        journal.replace(&mut snapshot(&told)).unwrap();
        keep(&mut journal, &record(77)).unwrap();
    }
    assert_eq!(open(disk).2, all, "what was cut off last was zeros");
}

#[test]
fn a_destroyed_record_is_damage_unless_it_is_of_the_last_sync() {
    let (disk, all) = filled();
    let whole = bytes(&disk, 2);
    let mut at = 32;
    for (n, record) in all.iter().enumerate() {
        let mut bytes = whole.clone();
        bytes[at..at + 8].fill(0xC3);
        disk.put(2, bytes);
        let (journal, found, told) = open(disk.clone());
        // Two records in each sync.
        let expected = if n < all.len() - 2 { Found::Damaged } else { Found::Whole };
        assert_eq!((found, &told[..]), (expected, &all[..n]), "record {n}");
        assert!(journal.wants_snapshot());
        at += padded(record);
    }
}

#[test]
fn a_lost_head_or_file_is_damage_and_an_older_snapshot_never_stands_for_it() {
    let (disk, _) = filled();
    let (whole, old) = (bytes(&disk, 2), bytes(&disk, 1));
    assert!(old[..32].iter().all(|byte| *byte == 0) && old[32..].iter().any(|byte| *byte != 0));
    let mut headless = whole.clone();
    headless[..32].fill(0x3C);
    disk.put(2, headless);
    let (mut journal, found, told) = open(disk.clone());
    assert_eq!((found, told), (Found::Damaged, vec![]));
    assert!(journal.wants_snapshot() && journal.append(&record(1)).is_err());
    journal.replace(&mut snapshot(&records([5]))).unwrap();
    keep(&mut journal, &record(6)).unwrap();
    assert_eq!(open(disk.clone()).2, records([5, 6]));
    disk.put(1, old);
    disk.take(2);
    assert_eq!(open(disk.clone()).1, Found::Damaged, "records without a head");
    disk.take(1);
    assert_eq!(open(disk).1, Found::New, "an empty place");
}

#[test]
fn files_of_another_size_are_read_and_made_anew() {
    let (disk, all) = filled();
    let mut journal = FileJournal::new(disk.clone(), 2 * SMALL);
    let mut told = Vec::new();
    assert_eq!(journal.replay(&mut |record| told.push(record.to_vec())).unwrap(), Found::Whole);
    assert_eq!((&told, journal.wants_snapshot()), (&all, true));
    for _ in 0..2 {
        journal.replace(&mut snapshot(&all)).unwrap();
    }
    let sizes: Vec<_> = disk.files().iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(sizes, [2 * SMALL, 2 * SMALL]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn any_contents_are_read_without_a_panic_and_can_be_replaced(
        places in proptest::collection::vec((1_u64..3, 0..SMALL * 8), 0..60),
    ) {
        let (disk, _) = filled();
        for (file, bit) in places {
            disk.flip(file, bit);
        }
        let (mut journal, _, told) = open(disk.clone());
        journal.replace(&mut snapshot(&told)).unwrap();
        keep(&mut journal, &record(1)).unwrap();
        let (_, found, again) = open(disk);
        proptest::prop_assert_eq!((found, again.len()), (Found::Whole, told.len() + 1));
    }
}
