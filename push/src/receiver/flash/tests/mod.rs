mod chip;
mod cuts;
mod damage;
mod records;

use super::*;
use chip::{Chip, Cut};
use records::{record, records, snapshot};

type Flash = FlashJournal<Chip>;
type Records = Vec<Vec<u8>>;

const SMALL: FlashShape = FlashShape { pages: 2, page_bytes: 512, unit_bytes: 8 };

fn open(chip: Chip) -> (Flash, Found, Records) {
    let mut flash = Flash::new(chip).unwrap();
    let mut told = Vec::new();
    let found = flash.replay(&mut |record| told.push(record.to_vec())).unwrap();
    (flash, found, told)
}

fn new(shape: FlashShape) -> Flash {
    let (flash, found, told) = open(Chip::new(shape));
    assert_eq!((found, told), (Found::New, vec![]));
    flash
}

fn reopened(flash: Flash) -> (Flash, Found, Records) {
    let mut chip = flash.into_pages();
    chip.boot();
    open(chip)
}

#[test]
fn what_was_appended_is_told_again_in_order() {
    let mut flash = new(SMALL);
    for n in 0..8 {
        flash.append(&record(n)).unwrap();
        flash.sync().unwrap();
        let (again, found, told) = reopened(flash);
        assert_eq!((found, told), (Found::Whole, records(0..=n)));
        flash = again;
    }
}

#[test]
fn a_snapshot_replaces_what_was_there() {
    let mut flash = new(FlashShape { pages: 5, ..SMALL });
    for n in 0..30 {
        flash.append(&record(n)).unwrap();
    }
    assert_eq!(flash.now.pages, 3, "page after page");
    flash.replace(&mut snapshot(&records(15..30))).unwrap();
    flash.append(&record(30)).unwrap();
    let (flash, found, told) = reopened(flash);
    assert_eq!((found, told), (Found::Whole, records(15..=30)));
    assert_eq!((flash.now.first, flash.now.pages), (3, 2), "behind the old one");
}

#[test]
fn shapes_at_their_limits_and_one_past_each() {
    let possible = |pages, page_bytes, unit_bytes| {
        let shape = FlashShape { pages, page_bytes, unit_bytes };
        match Flash::new(Chip::new(shape)) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, FlashError::Shape(shape));
                false
            }
        }
    };
    assert!(possible(2, 512, 1) && possible(PAGES_MAX, PAGE_BYTES_MIN, UNIT_MAX));
    assert!(!possible(1, 512, 1) && !possible(PAGES_MAX + 1, 512, 1));
    assert!(!possible(2, PAGE_BYTES_MIN - 4, 4) && !possible(2, 520, 16) && !possible(2, (1 << 24) + 64, 4));
    assert!(!possible(2, 1_024, 2 * UNIT_MAX) && !possible(2, 528, 3) && !possible(2, 514, 2));
}

#[test]
fn what_cannot_be_is_said() {
    let mut flash = Flash::new(Chip::new(SMALL)).unwrap();
    assert_eq!(flash.append(b"early"), Err(FlashError::NotReplayed));
    assert_eq!(flash.sync(), Err(FlashError::NotReplayed));
    assert_eq!(flash.replace(&mut |_| None), Err(FlashError::NotReplayed));
    flash.replay(&mut |_| {}).unwrap();
    assert_eq!(flash.append(&[]), Err(FlashError::Record { len: 0 }));
    assert_eq!(flash.append(&[1; RECORD_MAX + 1]), Err(FlashError::Record { len: RECORD_MAX + 1 }));
    assert_eq!(flash.replace(&mut |_| Some(RECORD_MAX + 1)), Err(FlashError::Record { len: RECORD_MAX + 1 }));
    // 496 bytes behind the head are six of the longest and one of 56.
    let longest = vec![vec![7; RECORD_MAX]; 7];
    assert_eq!(flash.replace(&mut snapshot(&longest)), Err(FlashError::TooLarge { pages: 1 }));
    flash.replace(&mut snapshot(&longest[..6])).unwrap();
    assert_eq!((flash.room(), flash.wants_snapshot()), (64, false));
    assert_eq!(flash.append(&[7; 57]), Err(FlashError::Full));
    flash.append(&[7; 56]).unwrap();
    assert_eq!((flash.room(), flash.append(&[1]), flash.wants_snapshot()), (0, Err(FlashError::Full), true));
    let (_, found, told) = reopened(flash);
    assert_eq!((found, told.len()), (Found::Whole, 7));
}

#[test]
fn a_snapshot_is_wanted_while_there_is_still_room_for_four_records() {
    let mut flash = new(FlashShape { page_bytes: 2_048, ..SMALL });
    while !flash.wants_snapshot() {
        flash.append(&[7; RECORD_MAX]).unwrap();
    }
    for _ in 0..3 {
        flash.append(&[7; RECORD_MAX]).unwrap();
    }
    assert!(flash.append(&[7; RECORD_MAX]).is_err());
    flash.replace(&mut |_| None).unwrap();
    assert!(!flash.wants_snapshot());
}

#[test]
fn every_page_is_erased_as_often_as_any_other() {
    for pages in [2, 3, 5, 8] {
        let mut flash = new(FlashShape { pages, ..SMALL });
        for n in 0..20_000 {
            if flash.wants_snapshot() {
                flash.replace(&mut snapshot(&records([n]))).unwrap();
            }
            flash.append(&record(n)).unwrap();
        }
        let erases = &flash.pages.erases;
        let (least, most) = (erases.iter().min().unwrap(), erases.iter().max().unwrap());
        assert!(*least > 200 && most - least <= 1, "{pages} pages: {erases:?}");
    }
}

#[test]
fn a_boot_costs_one_erase_more_at_most() {
    let mut flash = new(SMALL);
    let mut replaced = 0;
    for n in 0..2_000 {
        if flash.wants_snapshot() {
            flash.replace(&mut snapshot(&records([n]))).unwrap();
            replaced += 1;
        }
        flash.append(&record(n)).unwrap();
        if n % 50 == 0 {
            flash = reopened(flash).0;
        }
    }
    let erases: u32 = flash.pages.erases.iter().sum();
    assert!(erases <= replaced + 1 + 2_000 / 50, "{erases} erases, {replaced} snapshots");
}

/// The table in `docs/JOURNAL.md`.
#[test]
fn wear_is_what_the_document_says() {
    let document = include_str!("../../../../../docs/JOURNAL.md");
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.contains(" × "));
    let mut seen = 0;
    for row in rows.filter(|row| !row.contains("bytes")) {
        let numbers = row.split(['|', '×']).filter_map(|cell| cell.trim().parse::<u32>().ok());
        let [pages, page_bytes, orders, erases] = numbers.collect::<Vec<_>>()[..] else { panic!("{row}") };
        let mut flash = new(FlashShape { pages, page_bytes, unit_bytes: 8 });
        let mut snapshots = 0;
        for _ in 0..10_000 {
            for _ in 0..2 {
                if flash.wants_snapshot() {
                    flash.replace(&mut snapshot(&vec![vec![7; 28]; 33])).unwrap();
                    snapshots += 1;
                }
                flash.append(&[7; 24]).unwrap();
            }
        }
        let most = flash.pages.erases.iter().max().unwrap();
        assert_eq!((10_000 / snapshots, *most), (orders, erases), "{row}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// A journal is as large as the firmware that uses it expects.
#[test]
fn it_takes_little_memory() {
    let bytes = size_of::<Flash>() - size_of::<Chip>();
    assert!(bytes <= 72, "{bytes}");
}

#[test]
fn a_flash_full_of_something_else_is_new() {
    let mut chip = Chip::new(SMALL);
    for (at, byte) in chip.bytes.iter_mut().flatten().enumerate() {
        *byte = at.to_le_bytes()[0].wrapping_mul(167);
    }
    let (mut flash, found, told) = open(chip);
    assert_eq!((found, told), (Found::New, vec![]));
    flash.append(&record(1)).unwrap();
    assert_eq!(reopened(flash).2, records([1]));
}

#[test]
fn a_failed_append_closes_the_page_and_a_snapshot_opens_the_next() {
    let mut flash = new(SMALL);
    flash.append(&record(1)).unwrap();
    flash.pages.cut_after(1, 5);
    assert_eq!(flash.append(&record(2)), Err(FlashError::Pages(Cut)));
    // The hardware failed once, the power stayed.
    flash.pages.boot();
    assert_eq!(
        (flash.append(&record(3)), flash.wants_snapshot(), flash.room()),
        (Err(FlashError::Full), true, 0)
    );
    flash.replace(&mut snapshot(&records([1, 2]))).unwrap();
    flash.append(&record(3)).unwrap();
    assert_eq!(reopened(flash).2, records([1, 2, 3]));
}
