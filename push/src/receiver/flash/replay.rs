//! Finding the newest generation, and every record of it.

use super::page::{self, Head};
use super::{ERASED, FlashJournal, FlashPages, Generation};
use crate::receiver::journal::Found;
use crate::receiver::sealed::{self, HEAD_LEN, Opened, SEALED_MAX};

/// A record further ahead than this is an old one.
const AHEAD_MAX: u16 = 0x7FFF;

/// How far `sequence` is ahead of the next record of `of`.
fn ahead(sequence: u16, of: &Generation) -> u16 {
    let [low, high, ..] = of.records.to_le_bytes();
    sequence.wrapping_sub(u16::from_le_bytes([low, high]))
}

fn is_of(opened: &Opened<'_>, generation: &Generation) -> bool {
    let [low, ..] = generation.number.to_le_bytes();
    opened.stamp.generation == low && ahead(opened.stamp.sequence, generation) <= AHEAD_MAX
}

/// Whether `a` came before `b`.
const fn is_older(a: u8, b: u8) -> bool {
    a.wrapping_sub(b) >= 128
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == ERASED)
}

impl<P: FlashPages> FlashJournal<P> {
    /// Reads everything, and leaves `now` behind the last record.
    pub(super) fn read_all(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, P::Error> {
        self.now = Generation::NONE;
        let Some((first, head, repaired)) = self.newest()? else { return self.salvage(tell) };
        // A replacement was cut before they were gone. They must be, before anything is appended to the new generation:
        // if its head is lost one day, no older one may stand for it.
        for page in (0..self.shape.pages).filter(|page| *page != first) {
            if self.head(page)?.is_some_and(|(head, _)| head.index == 0) {
                self.erase(page)?;
            }
        }
        self.now = Generation { number: head.generation, first, repaired, ..Generation::NONE };
        let damaged = self.walk(tell)? || self.now.records < head.records;
        self.now.snapshot = head.records;
        self.now.closed |= damaged;
        Ok(if damaged { Found::Damaged } else { Found::Whole })
    }

    /// The first page of the newest generation, what its head says, and whether that had to be repaired.
    fn newest(&mut self) -> Result<Option<(u32, Head, bool)>, P::Error> {
        let mut newest: Option<(u32, Head, bool)> = None;
        for page in 0..self.shape.pages {
            if let Some((head, repaired)) = self.head(page)?
                && head.index == 0
                && newest.is_none_or(|(_, best, _)| head.generation.wrapping_sub(best.generation) < 1 << 31)
            {
                newest = Some((page, head, repaired));
            }
        }
        Ok(newest)
    }

    fn head(&mut self, page: u32) -> Result<Option<(Head, bool)>, P::Error> {
        let mut bytes = [0; page::HEAD_LEN];
        self.pages.read(page, 0, &mut bytes)?;
        Ok(if is_blank(&bytes) { None } else { Head::parse_repaired(bytes) })
    }

    /// Without any head: the records of the oldest generation of which there are any.
    fn salvage(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, P::Error> {
        // Page, generation and sequence of the first record of it.
        let mut best: Option<(u32, u8, u16)> = None;
        for page in 0..self.shape.pages {
            let Some(at) = self.find(page, self.shape.start(), |_| true)? else { continue };
            let mut bytes = [ERASED; SEALED_MAX];
            let Some(Opened { stamp, .. }) = sealed::open(self.read(page, at, &mut bytes)?) else { continue };
            let is_better = |&(_, generation, sequence): &(u32, u8, u16)| {
                is_older(stamp.generation, generation)
                    || stamp.generation == generation && stamp.sequence < sequence
            };
            if best.as_ref().is_none_or(is_better) {
                best = Some((page, stamp.generation, stamp.sequence));
            }
        }
        let Some((first, generation, _)) = best else { return Ok(Found::New) };
        self.now = Generation { number: u32::from(generation), first, ..Generation::NONE };
        // What stands in order from the first record on is known to be so; only whether that is all is not.
        self.walk(tell)?;
        self.now.snapshot = self.now.records;
        self.now.closed = true;
        Ok(Found::Damaged)
    }

    /// Tells every record of the generation that begins in `now.first`, up to the first that is missing. True if one is.
    fn walk(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<bool, P::Error> {
        self.now.pages = 1;
        let mut damaged = self.walk_page(self.now.first, false, tell)?;
        for index in 1..self.shape.generation_max() {
            let page = self.shape.behind(self.now.first, index);
            let number = self.now.number;
            let is_next = |head: &Head| {
                u32::from(head.index) == index && head.generation.wrapping_sub(number).is_multiple_of(256)
            };
            let head = self.head(page)?.filter(|(head, _)| is_next(head));
            if let Some((head, repaired)) = head {
                damaged |= head.records != self.now.records;
                self.now.records = head.records;
                self.now.repaired |= repaired;
            } else {
                let now = self.now;
                if self.find(page, self.shape.start(), |opened| is_of(opened, &now))?.is_none() {
                    continue;
                }
                // Its head is gone, its records are not.
                damaged = true;
            }
            // The log went on: what looked torn at its end was not a record, or the count above says that it was one.
            self.now.closed = false;
            damaged |= self.now.pages != index;
            self.now.pages = index.saturating_add(1);
            damaged = self.walk_page(page, damaged, tell)?;
        }
        Ok(damaged)
    }

    /// Tells the records of one page, up to the first that is missing. True if one is, here or before.
    fn walk_page(
        &mut self,
        page: u32,
        mut damaged: bool,
        tell: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, P::Error> {
        let [generation, ..] = self.now.number.to_le_bytes();
        self.now.end = self.shape.start();
        loop {
            let mut room = [ERASED; SEALED_MAX];
            let at = self.now.end;
            let len = self.read(page, at, &mut room)?.len();
            let bytes = room.get_mut(..len).unwrap_or_default();
            let Some(head) = bytes.get(..HEAD_LEN) else { return Ok(damaged) };
            if is_blank(head) {
                // The end. Not blank behind it: a record that was cut before its front was there.
                self.now.closed |= !self.is_blank_from(page, at)?;
                return Ok(damaged);
            }
            if sealed::open(bytes).is_none() && sealed::repair(bytes, generation) {
                self.now.repaired = true;
            }
            match sealed::open(bytes).filter(|opened| is_of(opened, &self.now)) {
                Some(opened) => {
                    let missing = ahead(opened.stamp.sequence, &self.now);
                    damaged |= missing > 0;
                    if !damaged {
                        tell(opened.record);
                    }
                    self.now.records = self.now.records.saturating_add(u32::from(missing)).saturating_add(1);
                    self.now.end = at.saturating_add(self.shape.padded(opened.sealed_len()));
                }
                None => match self.behind_a_gap(page, at)? {
                    Some(next) => {
                        damaged = true;
                        self.now.end = next;
                    }
                    None => {
                        // What a power cut tore is no longer than a record.
                        let torn = at.saturating_add(self.shape.padded(SEALED_MAX));
                        self.now.closed = true;
                        return Ok(damaged || !self.is_blank_from(page, torn)?);
                    }
                },
            }
        }
    }

    /// Where the next record of the present generation stands, behind one that cannot be read at `at`.
    fn behind_a_gap(&mut self, page: u32, at: u32) -> Result<Option<u32>, P::Error> {
        let now = self.now;
        self.find(page, at.saturating_add(self.shape.step()), |opened| is_of(opened, &now))
    }

    /// Where the first record like this stands in the page, from `at` on.
    fn find(
        &mut self,
        page: u32,
        mut at: u32,
        is_it: impl Fn(&Opened<'_>) -> bool,
    ) -> Result<Option<u32>, P::Error> {
        while at < self.shape.page_bytes {
            let mut room = [ERASED; SEALED_MAX];
            if sealed::open(self.read(page, at, &mut room)?).is_some_and(|opened| is_it(&opened)) {
                return Ok(Some(at));
            }
            at = at.saturating_add(self.shape.step());
        }
        Ok(None)
    }

    fn is_blank_from(&mut self, page: u32, mut at: u32) -> Result<bool, P::Error> {
        while at < self.shape.page_bytes {
            let mut room = [ERASED; SEALED_MAX];
            let bytes = self.read(page, at, &mut room)?;
            if !is_blank(bytes) {
                return Ok(false);
            }
            at = at.saturating_add(SEALED_MAX as u32);
        }
        Ok(true)
    }

    /// Reads what stands at `at`, up to the end of the page.
    fn read<'b>(&mut self, page: u32, at: u32, into: &'b mut [u8; SEALED_MAX]) -> Result<&'b [u8], P::Error> {
        let left = self.shape.page_bytes.saturating_sub(at) as usize;
        let bytes = into.get_mut(..left.min(SEALED_MAX)).unwrap_or_default();
        if !bytes.is_empty() {
            self.pages.read(page, at, bytes)?;
        }
        Ok(bytes)
    }
}
