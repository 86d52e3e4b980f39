//! A device's journal in files: crashes at every step, failing calls, a full disk, damage.

mod damage;
mod faults;
#[path = "../../src/receiver/flash/tests/records.rs"]
mod records;

use push::file_journal::{FILE_BYTES, FILE_BYTES_MIN, FileJournal, FileJournalError, SYNCS_MAX};
use push::outbox::log::Disk;
use push::receiver::journal::{Found, Journal, RECORD_MAX};
use records::{record, records, snapshot};
use testkit::disk::SimDisk;

type Records = Vec<Vec<u8>>;

/// Bytes of a file in these tests: a few dozen records.
const SMALL: usize = 2_048;

fn open<D: Disk>(disk: D) -> (FileJournal<D>, Found, Records) {
    let mut journal = FileJournal::new(disk, SMALL);
    let mut told = Vec::new();
    let found = journal.replay(&mut |record| told.push(record.to_vec())).unwrap();
    (journal, found, told)
}

fn keep<D: Disk>(journal: &mut FileJournal<D>, record: &[u8]) -> Result<(), FileJournalError> {
    journal.append(record)?;
    journal.sync()
}

#[test]
fn what_was_synced_is_told_again_in_order() {
    let disk = SimDisk::new(1);
    let (mut journal, found, told) = open(disk.clone());
    assert_eq!((found, told), (Found::New, vec![]));
    assert!(disk.files().is_empty(), "nothing is made before something is written");
    for n in 0..8 {
        keep(&mut journal, &record(3 * n)).unwrap();
        journal.append(&record(3 * n + 1)).unwrap();
        keep(&mut journal, &record(3 * n + 2)).unwrap();
        let (again, found, told) = open(disk.clone());
        assert_eq!((found, told), (Found::Whole, records(0..3 * n + 3)));
        assert!(!again.wants_snapshot());
        journal = again;
    }
    journal.append(&record(99)).unwrap();
    assert_eq!(open(disk).2, records(0..24), "the last one was not synced");
}

#[test]
fn a_sync_is_one_write_and_a_snapshot_three() {
    let disk = SimDisk::new(1);
    let (mut journal, ..) = open(disk.clone());
    keep(&mut journal, &record(1)).unwrap();
    let before = disk.counts();
    journal.append(&record(2)).unwrap();
    keep(&mut journal, &record(3)).unwrap();
    journal.sync().unwrap();
    let synced = disk.counts();
    assert_eq!((synced.writes - before.writes, synced.syncs - before.syncs), (1, 1));
    journal.replace(&mut snapshot(&records([3]))).unwrap();
    journal.replace(&mut snapshot(&records([3]))).unwrap();
    let replaced = disk.counts();
    assert_eq!((replaced.writes - synced.writes, replaced.syncs - synced.syncs), (6, 6));
    assert_eq!((replaced.creates, replaced.removes), (2, 0), "two files, for ever");
}

#[test]
fn snapshots_go_to_and_fro_between_two_files_of_their_size() {
    let disk = SimDisk::new(1);
    let (mut journal, ..) = open(disk.clone());
    let mut kept = Records::new();
    for n in 0..2_000 {
        if journal.wants_snapshot() {
            kept.drain(..kept.len() - 3);
            journal.replace(&mut snapshot(&kept)).unwrap();
        }
        kept.push(record(n));
        keep(&mut journal, &record(n)).unwrap();
        if n % 37 == 0 {
            let (again, found, told) = open(disk.clone());
            assert_eq!((found, &told), (Found::Whole, &kept));
            journal = again;
        }
    }
    let sizes: Vec<_> = disk.files().iter().map(|(number, bytes)| (*number, bytes.len())).collect();
    assert_eq!(sizes, [(1, SMALL), (2, SMALL)]);
}

#[test]
fn what_cannot_be_is_said() {
    let disk = SimDisk::new(1);
    let mut journal = FileJournal::new(disk.clone(), SMALL);
    assert!(matches!(journal.append(b"early"), Err(FileJournalError::NotReplayed)));
    assert!(matches!(journal.sync(), Err(FileJournalError::NotReplayed)));
    assert!(matches!(journal.replace(&mut |_| None), Err(FileJournalError::NotReplayed)));
    let (mut journal, ..) = open(disk);
    assert!(matches!(journal.append(&[]), Err(FileJournalError::Record { len: 0 })));
    assert!(matches!(journal.append(&[1; RECORD_MAX + 1]), Err(FileJournalError::Record { len: 65 })));
    // 2,016 bytes behind the head are 28 of the longest.
    let longest = vec![vec![7; RECORD_MAX]; 29];
    let refused = journal.replace(&mut snapshot(&longest));
    assert!(matches!(refused, Err(FileJournalError::TooLarge { limit: SMALL })), "{refused:?}");
    journal.replace(&mut snapshot(&longest[..27])).unwrap();
    assert!(!journal.wants_snapshot(), "nothing was appended: another one would be as large");
    keep(&mut journal, &longest[0]).unwrap();
    assert!(matches!(journal.append(&[1]), Err(FileJournalError::Full)) && journal.wants_snapshot());
}

#[test]
fn files_and_syncs_at_their_limits_and_one_past_each() {
    let disk = SimDisk::new(1);
    let mut journal = FileJournal::new(disk.clone(), FILE_BYTES_MIN - 1);
    journal.replay(&mut |_| {}).unwrap();
    keep(&mut journal, b"small").unwrap();
    assert_eq!(disk.files()[0].1.len(), FILE_BYTES_MIN);
    // As many syncs as a file has room for: sixteen bytes each.
    let disk = SimDisk::new(1);
    let mut journal = FileJournal::new(disk.clone(), 4 * FILE_BYTES);
    journal.replay(&mut |_| {}).unwrap();
    for _ in 0..SYNCS_MAX - 1 {
        keep(&mut journal, b"1").unwrap();
    }
    assert!(journal.wants_snapshot(), "one more");
    keep(&mut journal, b"2").unwrap();
    assert!(matches!(journal.append(b"3"), Err(FileJournalError::Full)));
    let mut journal = FileJournal::new(disk, 4 * FILE_BYTES);
    let mut told = 0;
    assert_eq!(journal.replay(&mut |_| told += 1).unwrap(), Found::Whole);
    assert_eq!(told, SYNCS_MAX);
    assert!(matches!(journal.append(b"3"), Err(FileJournalError::Full)) && journal.wants_snapshot());
}

#[test]
fn a_directory_is_locked_and_keeps_what_was_synced() {
    let path = std::env::temp_dir().join(format!("tillwire-journal-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let mut journal = FileJournal::open(&path).unwrap();
    assert_eq!(FileJournal::open(&path).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(journal.replay(&mut |_| {}).unwrap(), Found::New);
    for n in 0..100 {
        keep(&mut journal, &record(n)).unwrap();
    }
    journal.replace(&mut snapshot(&records(50..100))).unwrap();
    keep(&mut journal, &record(100)).unwrap();
    drop(journal);
    let mut journal = FileJournal::open(&path).unwrap();
    let mut told = Vec::new();
    assert_eq!(journal.replay(&mut |record| told.push(record.to_vec())).unwrap(), Found::Whole);
    assert_eq!(told, records(50..=100));
    let sizes = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let mut sizes: Vec<u64> = sizes.collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, FILE_BYTES as u64, FILE_BYTES as u64], "the lock and the two files");
    drop(journal);
    std::fs::remove_dir_all(path).unwrap();
}

/// A snapshot as large as the largest device has fits with room to spare.
#[test]
fn the_largest_snapshot_takes_a_third_of_a_file() {
    let mut journal = FileJournal::new(SimDisk::new(1), FILE_BYTES);
    journal.replay(&mut |_| {}).unwrap();
    journal.replace(&mut snapshot(&vec![vec![7; 48]; 1_500])).unwrap();
    keep(&mut journal, &[7; 48]).unwrap();
    assert!(!journal.wants_snapshot());
}

/// The process is killed behind a sync that failed: the system still shows what was written, and will never write it to the disk.
#[test]
fn what_is_told_again_is_on_disk() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut journal, ..) = open(disk.clone());
        keep(&mut journal, &record(1)).unwrap();
        journal.append(&record(2)).unwrap();
        // The write goes, the sync fails.
        disk.fail_after(1);
        keep(&mut journal, &record(3)).unwrap_err();
        drop(journal);
        assert_eq!(open(disk.clone()).2, records(1..4));
        disk.crash();
        assert_eq!(open(disk).2, records(1..4), "seed {seed}");
    }
}

/// The same behind the head of a snapshot: of the two generations one is there.
#[test]
fn a_generation_that_is_told_is_on_disk_before_the_other_one_goes() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut journal, ..) = open(disk.clone());
        journal.replace(&mut snapshot(&records(0..3))).unwrap();
        // Its body is there; of its head the write goes and the sync fails.
        disk.fail_after(3);
        // Longer than a sector: what is written behind it does not write its head along.
        journal.replace(&mut snapshot(&records(0..20))).unwrap_err();
        drop(journal);
        let (mut journal, found, told) = open(disk.clone());
        assert_eq!((found, told), (Found::Whole, records(0..20)));
        // This wipes the head of the other one.
        keep(&mut journal, &record(20)).unwrap();
        disk.crash();
        let (_, found, told) = open(disk);
        assert_eq!((found, told), (Found::Whole, records(0..21)), "seed {seed}");
    }
}
