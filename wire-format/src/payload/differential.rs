//! A second reader, written from the specification's table alone and without bincode, against the real one.

use super::{Handover, Payload, PrepareCollect};
use crate::testing;

struct Line<'a> {
    article: u64,
    quantity_milli: u32,
    name: &'a str,
    substitute: bool,
}

struct Collect<'a> {
    collect: u64,
    customer: &'a str,
    handover: (u32, Option<u32>, Option<&'a str>),
    due_in_s: Option<u32>,
    paid: bool,
    lines: Vec<Line<'a>>,
    note: &'a str,
}

/// What a stranger would write in an afternoon: `None` for anything the table does not allow.
struct Hand<'a>(&'a [u8]);

impl<'a> Hand<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        Some(self.take(len)?.iter().rev().fold(0, |number, &byte| (number << 8) | u64::from(byte)))
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number(4)?).ok()
    }

    fn bool(&mut self) -> Option<bool> {
        match self.take(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number(8)?).ok()?;
        self.take(len)
    }

    fn text(&mut self, limit: usize, lines: bool) -> Option<&'a str> {
        let text = str::from_utf8(self.bytes()?).ok()?;
        let clean = text.chars().all(|c| !c.is_control() || (lines && (c == '\n' || c == '\t')));
        (clean && text.len() <= limit).then_some(text)
    }

    fn line(&mut self) -> Option<Line<'a>> {
        let line = Line {
            article: self.number(8)?,
            quantity_milli: self.u32()?,
            name: self.text(64, false)?,
            substitute: self.bool()?,
        };
        (line.article != 0 && line.quantity_milli != 0).then_some(line)
    }

    fn handover(&mut self) -> Option<(u32, Option<u32>, Option<&'a str>)> {
        Some(match self.u32()? {
            0 => (0, None, None),
            1 => (1, Some(self.u32()?), None),
            2 => (2, None, Some(self.text(16, false).filter(|bay| !bay.is_empty())?)),
            _ => return None,
        })
    }

    fn collect(bytes: &'a [u8]) -> Option<Collect<'a>> {
        let mut hand = Self(bytes);
        let collect = hand.number(8).filter(|&collect| collect != 0)?;
        let customer = hand.text(64, false)?;
        let handover = hand.handover()?;
        let due_in_s = if hand.bool()? { Some(hand.u32().filter(|&due| due <= 604_800)?) } else { None };
        let paid = hand.bool()?;
        let mut list = Self(hand.bytes()?);
        let mut lines = Vec::new();
        while !list.0.is_empty() {
            lines.push(list.line()?);
        }
        let note = hand.text(256, true)?;
        let complete = hand.0.is_empty() && (1..=64).contains(&lines.len());
        complete.then_some(Collect { collect, customer, handover, due_in_s, paid, lines, note })
    }
}

fn compare(bytes: &[u8]) -> bool {
    let (real, hand) = (PrepareCollect::decode(bytes), Hand::collect(bytes));
    assert_eq!(real.is_ok(), hand.is_some(), "the two readers disagree on {bytes:02x?}: {real:?}");
    let (Ok(real), Some(hand)) = (real, hand) else { return false };
    let handover = match real.handover {
        Handover::Counter => (0, None, None),
        Handover::Locker(number) => (1, Some(number), None),
        Handover::Kerbside(bay) => (2, None, Some(bay)),
    };
    assert_eq!((real.collect, real.customer, real.note), (hand.collect, hand.customer, hand.note));
    assert_eq!((handover, real.due_in_s, real.paid), (hand.handover, hand.due_in_s, hand.paid));
    assert_eq!(real.lines.len(), hand.lines.len());
    for (a, b) in real.lines.iter().zip(&hand.lines) {
        assert_eq!(
            (a.article, a.quantity_milli, a.name, a.substitute),
            (b.article, b.quantity_milli, b.name, b.substitute)
        );
    }
    true
}

#[test]
fn both_readers_read_the_vector_and_every_byte_changed() {
    let bytes = testing::block("payload", "PREPARE-COLLECT");
    assert!(compare(&bytes));
    let mut accepted = 0;
    for at in 0..bytes.len() {
        for change in 1..=255 {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            accepted += usize::from(compare(&changed));
        }
        compare(&bytes[..at]);
    }
    assert!(accepted > 1_000, "most changes of numbers and letters mean something: {accepted}");
}

proptest::proptest! {
    #[test]
    fn both_readers_agree_on_spliced_bytes(
        from: proptest::sample::Index, to: proptest::sample::Index, noise: Vec<u8>,
    ) {
        let bytes = testing::block("payload", "PREPARE-COLLECT");
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        compare(&[&bytes[..from], &noise, &bytes[to..]].concat());
        compare(&noise);
    }
}
