//! Push: any bytes as what a device finds in its flash or its files at the boot, and any records behind right checksums.
//!
//! What is told is found again when it was taken as a snapshot. A receiver takes any records, writes down what it made of
//! them, and finds that whole; after that, a boot changes nothing any more.

use core::convert::Infallible;

use push::file_journal::{FILE_BYTES_MIN, FileJournal};
use push::receiver::journal::{Found, Journal, RECORD_MAX};
use push::receiver::{Cursor, Firmware, FlashJournal, FlashPages, FlashShape, Receiver, ReceiverConfig};
use wire_format::ids::{NodeId, Store};
use wire_format::time::Instant;

use super::{Seed, Source};
use crate::disk::SimDisk;

type Records = Vec<Vec<u8>>;

const NOW: Instant = Instant::from_millis(1_000);
/// As small as flash may be, so that an input fills it.
const SMALL: FlashShape = FlashShape { pages: 2, page_bytes: 512, unit_bytes: 4 };
/// Room for the snapshot of a receiver.
const LARGE: FlashShape = FlashShape { pages: 2, page_bytes: 8_192, unit_bytes: 8 };

/// Any bytes as a journal.
///
/// # Panics
///
/// If an invariant is broken.
pub fn journal(data: &[u8]) {
    let mut source = Source(data);
    match source.u8() % 3 {
        0 => again(FlashJournal::new(Chip::holding(SMALL, source.0)).expect("a shape"), |journal| {
            FlashJournal::new(journal.into_pages()).expect("a shape")
        }),
        1 => {
            let disk = SimDisk::new(1);
            for (file, bytes) in [1, 2].into_iter().zip(source.0.chunks(FILE_BYTES_MIN)) {
                disk.put(file, bytes.to_vec());
            }
            let open = || FileJournal::new(disk.clone(), FILE_BYTES_MIN);
            again(open(), |_| open());
        }
        _ => boots(&records(source)),
    }
}

/// Records as a list of lengths and bytes.
fn records(mut source: Source<'_>) -> Records {
    let mut records = Vec::new();
    while !source.is_empty() {
        let len = usize::from(source.u8()) % RECORD_MAX + 1;
        records.push(source.bytes(len).to_vec());
    }
    records.retain(|record| !record.is_empty());
    records
}

/// Replays whatever is there, takes it as a snapshot, and finds that.
fn again<J: Journal<Error: core::fmt::Debug>>(mut journal: J, reopen: impl FnOnce(J) -> J) {
    let (_, told) = replay(&mut journal);
    let mut left = told.iter();
    let snapshot = &mut |into: &mut [u8; RECORD_MAX]| {
        let record = left.next()?;
        into[..record.len()].copy_from_slice(record);
        Some(record.len())
    };
    journal.replace(snapshot).expect("what was there fits");
    let (found, second) = replay(&mut reopen(journal));
    assert_eq!((found, second), (Found::Whole, told));
}

fn replay<J: Journal<Error: core::fmt::Debug>>(journal: &mut J) -> (Found, Records) {
    let mut told = Vec::new();
    let found = journal.replay(&mut |record| told.push(record.to_vec())).expect("it can be read");
    assert!(told.iter().all(|record| (1..=RECORD_MAX).contains(&record.len())));
    (found, told)
}

/// A receiver begins with these records; then boots until nothing changes.
fn boots(records: &Records) {
    let mut flash = FlashJournal::new(Chip::holding(LARGE, &[])).expect("a shape");
    replay(&mut flash);
    for record in records {
        // A page full of them is enough.
        if flash.append(record).is_err() {
            break;
        }
    }
    // What they say of no journal, or of another device's, is not known after the next boot.
    boot(&mut flash);
    let second = boot(&mut flash);
    let third = boot(&mut flash);
    assert_eq!(second, third, "a boot changes nothing");
}

/// The device boots, writes down what it has to, and says what it knows.
fn boot(flash: &mut FlashJournal<Chip>) -> Records {
    let store = Store::new(7, "PARIS-12").expect("a store");
    let config = ReceiverConfig::new(NodeId([0x11; 16]), store, 1);
    let mut receiver: Receiver<_, 2> = Receiver::new(config, Firmware::new(), NOW);
    receiver.replay(NOW, flash).expect("it can be read");
    while receiver.record(NOW, flash).expect("it fits") {}
    assert!(!receiver.wants_record(NOW));
    let (mut cursor, mut into, mut all) = (Cursor::START, [0; RECORD_MAX], Vec::new());
    while let Some(len) = receiver.poll_snapshot(&mut cursor, &mut into) {
        all.push(into[..len].to_vec());
    }
    all
}

/// A flash that holds what it was given.
struct Chip {
    shape: FlashShape,
    bytes: Vec<Vec<u8>>,
}

impl Chip {
    fn holding(shape: FlashShape, bytes: &[u8]) -> Self {
        let len = shape.page_bytes as usize;
        let mut pages = bytes.chunks(len);
        let page = || {
            let mut page = pages.next().unwrap_or_default().to_vec();
            page.resize(len, 0xFF);
            page
        };
        Self { shape, bytes: std::iter::repeat_with(page).take(shape.pages as usize).collect() }
    }

    fn at(&mut self, page: u32, offset: u32, len: usize) -> &mut [u8] {
        &mut self.bytes[page as usize][offset as usize..][..len]
    }
}

impl FlashPages for Chip {
    type Error = Infallible;

    fn shape(&self) -> FlashShape {
        self.shape
    }

    fn erase(&mut self, page: u32) -> Result<(), Infallible> {
        self.bytes[page as usize].fill(0xFF);
        Ok(())
    }

    fn program(&mut self, page: u32, offset: u32, bytes: &[u8]) -> Result<(), Infallible> {
        let place = self.at(page, offset, bytes.len());
        assert!(place.iter().all(|byte| *byte == 0xFF), "it is erased first");
        place.copy_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, page: u32, offset: u32, into: &mut [u8]) -> Result<(), Infallible> {
        into.copy_from_slice(self.at(page, offset, into.len()));
        Ok(())
    }
}

/// The records of the specification, as they are and in flash and files.
pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    let records = specified();
    let mut listed = vec![2];
    for record in &records {
        listed.push(u8::try_from(record.len() - 1).expect("64 at most"));
        listed.extend(record);
    }
    seeds.push(Seed { target: "journal", name: "records".to_owned(), bytes: listed });
    let mut flash = FlashJournal::new(Chip::holding(SMALL, &[])).expect("a shape");
    replay(&mut flash);
    let disk = SimDisk::new(1);
    let mut files = FileJournal::new(disk.clone(), FILE_BYTES_MIN);
    replay(&mut files);
    for record in &records {
        flash.append(record).expect("it fits");
        files.append(record).and_then(|()| files.sync()).expect("it fits");
    }
    let flash = [vec![0], flash.into_pages().bytes.concat()].concat();
    let files = disk.files().into_iter().map(|(_, bytes)| bytes);
    let files = [vec![1], files.collect::<Vec<_>>().concat()].concat();
    for (name, bytes) in [("flash", flash), ("files", files)] {
        seeds.push(Seed { target: "journal", name: name.to_owned(), bytes });
    }
}

/// The records in `docs/JOURNAL.md`.
fn specified() -> Records {
    let blocks = include_str!("../../../docs/JOURNAL.md").split("```record ").skip(1);
    let hex = |block: &str| {
        let (_, block) = block.split_once('\n').expect("a name, and bytes");
        let bytes = block.split("```").next().unwrap_or_default().split_whitespace();
        bytes.map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect()
    };
    blocks.map(hex).collect()
}
