//! Bits that change while they lie there.

use super::*;

fn filled(pages: u32) -> (Chip, Records) {
    let mut flash = new(FlashShape { pages, ..SMALL });
    // Round to page 0.
    while flash.now.first != 0 || flash.now.records == 0 {
        flash.replace(&mut snapshot(&records(0..4))).unwrap();
    }
    let mut n = 4;
    while flash.append(&record(n)).is_ok() {
        n += 1;
    }
    (flash.into_pages(), records(0..n))
}

/// Bytes of a record in flash, its head and padding included.
fn padded(record: &[u8]) -> usize {
    (record.len() + 8).next_multiple_of(8)
}

#[test]
fn one_changed_bit_anywhere_changes_nothing() {
    for pages in [2, 4] {
        let (chip, all) = filled(pages);
        for page in 0..pages as usize {
            for bit in 0..512 * 8 {
                let mut chip = chip.clone();
                chip.bytes[page][bit / 8] ^= 1 << (bit % 8);
                let (_, found, told) = open(chip);
                assert_eq!((found, &told), (Found::Whole, &all), "page {page} bit {bit}");
            }
        }
    }
}

#[test]
fn after_a_repair_a_snapshot_is_wanted_and_mends_it() {
    let (mut chip, all) = filled(4);
    for place in [5, 30] {
        chip.bytes[0][place] ^= 4;
    }
    let (mut flash, found, _) = open(chip);
    assert!(found == Found::Whole && flash.wants_snapshot());
    flash.replace(&mut snapshot(&all[all.len() - 5..])).unwrap();
    let (flash, _, told) = reopened(flash);
    assert_eq!((flash.wants_snapshot(), &told[..]), (false, &all[all.len() - 5..]));
}

#[test]
fn a_destroyed_record_is_damage_and_what_stands_before_it_is_told() {
    let (chip, all) = filled(4);
    let (mut page, mut at) = (0, 16);
    for (n, record) in all.iter().enumerate().take(all.len() - 1) {
        if at + padded(record) > 512 {
            (page, at) = (page + 1, 16);
        }
        for (what, len) in [("all of it", record.len() + 8), ("its head", 8), ("its length", 1)] {
            let mut chip = chip.clone();
            chip.bytes[page][at..at + len].fill(0xC3);
            let (_, found, told) = open(chip);
            assert_eq!((found, &told[..]), (Found::Damaged, &all[..n]), "{what} of record {n}");
        }
        at += padded(record);
    }
    assert_eq!(page, 1, "over both pages");
}

/// What cannot be told from a cut write, and is said in the documentation.
#[test]
fn of_the_very_last_record_two_changed_bits_look_like_a_cut() {
    let (mut chip, all) = filled(2);
    let end = chip.bytes[0].iter().rposition(|byte| *byte != 0xFF).unwrap();
    chip.bytes[0][end] ^= 3;
    let (flash, found, told) = open(chip);
    assert_eq!((found, &told[..]), (Found::Whole, &all[..all.len() - 1]));
    assert!(flash.wants_snapshot());
}

#[test]
fn a_destroyed_head_of_a_page_is_damage_and_what_stands_before_it_is_told() {
    for pages in [2, 4, 7] {
        let (chip, all) = filled(pages);
        let used: Vec<usize> = (0..pages as usize).filter(|page| chip.bytes[*page][16] != 0xFF).collect();
        for page in used {
            let mut chip = chip.clone();
            chip.bytes[page][..16].fill(0x5A);
            let (mut flash, found, told) = open(chip);
            // Behind the head of the first page every record is there and in order.
            let before = if page == 0 { all.len() } else { told.len() };
            assert_eq!((found, &told[..]), (Found::Damaged, &all[..before]), "page {page} of {pages}");
            assert!(before >= page * 5, "{before} records");
            // It can be used on, once a snapshot was taken.
            assert!(flash.wants_snapshot());
            flash.replace(&mut snapshot(&all[..3])).unwrap();
            flash.append(&all[3]).unwrap();
            let (_, found, told) = reopened(flash);
            assert_eq!((found, &told[..]), (Found::Whole, &all[..4]));
        }
    }
}

#[test]
fn a_destroyed_head_with_the_first_record_leaves_nothing() {
    let (mut chip, all) = filled(4);
    chip.bytes[0][..16 + padded(&all[0])].fill(0);
    let (_, found, told) = open(chip);
    assert_eq!((found, &told[..]), (Found::Damaged, &all[..0]));
}

#[test]
fn a_lost_page_is_told() {
    let (chip, all) = filled(6);
    for (page, with) in [(0, 0xFF), (1, 0xFF), (0, 0), (1, 0)] {
        let mut chip = chip.clone();
        chip.bytes[page].fill(with);
        let (_, found, told) = open(chip);
        assert_eq!(found, Found::Damaged, "page {page}");
        assert_eq!(told, all[..told.len()], "nothing behind a gap");
        assert_eq!(told.is_empty(), page == 0);
    }
    let mut chip = Chip::new(SMALL);
    chip.bytes[0].fill(0);
    assert_eq!(open(chip).1, Found::New, "nothing here was ever a journal");
}

#[test]
fn an_older_generation_never_stands_for_one_whose_head_is_lost() {
    let mut flash = new(SMALL);
    flash.append(&record(1)).unwrap();
    // Page 1 now; the power goes when page 0 is to be erased.
    flash.pages.cut_after((1 + padded(&record(2)) / 8 + 2) as u64, 3);
    assert_eq!(flash.replace(&mut snapshot(&records([2]))), Err(FlashError::Pages(Cut)));
    let (mut flash, _, told) = reopened(flash);
    assert_eq!(told, records([2]), "the new one counts");
    flash.append(&record(3)).unwrap();
    let mut chip = flash.into_pages();
    chip.bytes[1][..16].fill(0);
    let (_, found, told) = open(chip);
    assert_eq!((found, told), (Found::Damaged, records([2, 3])));
}

proptest::proptest! {
    /// Whatever stands in the flash is read to its end.
    #[test]
    fn any_contents_are_read_without_a_panic(bytes: Vec<u8>, at in 0_usize..1_024, mask: u8) {
        let (mut chip, _) = filled(2);
        let len = bytes.len().min(512 - at % 512);
        for (place, byte) in chip.bytes[at / 512][at % 512..].iter_mut().zip(&bytes[..len]) {
            *place ^= byte & mask;
        }
        let (mut flash, _, told) = open(chip);
        flash.replace(&mut snapshot(&told)).unwrap();
        proptest::prop_assert_eq!(reopened(flash).2, told);
    }
}

#[test]
fn damage_is_not_forgotten_when_the_power_goes_while_it_is_mended() {
    let (mut chip, all) = filled(4);
    // The last record of page 0, which is only missed on page 1.
    let mut last = 16;
    for lens in all.windows(2).map(|pair| [padded(&pair[0]), padded(&pair[1])]) {
        if last + lens[0] + lens[1] > 512 {
            break;
        }
        last += lens[0];
    }
    chip.bytes[0][last..last + 8].fill(0x11);
    let (_, found, before) = open(chip.clone());
    assert_eq!((found, &before[..]), (Found::Damaged, &all[..before.len()]));
    for at in 0.. {
        let (mut flash, _, _) = open(chip.clone());
        flash.pages.cut_after(at, at);
        let done = flash.replace(&mut snapshot(&all[..2])).is_ok();
        let (_, found, told) = reopened(flash);
        if told.len() == 2 && found == Found::Whole {
            assert_eq!(told, all[..2]);
        } else {
            assert_eq!((found, &told), (Found::Damaged, &before), "cut at {at}");
        }
        if done {
            assert!(at > 8, "{at} steps");
            break;
        }
    }
}
