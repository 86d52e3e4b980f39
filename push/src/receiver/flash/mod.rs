//! A journal in the pages of a flash memory: no file system, no allocation.
//!
//! ```text
//!   page 0            page 1            page 2            page 3
//!   ┌────┬─────────┐  ┌────┬─────────┐  ┌────┬─────────┐  ┌──────────────┐
//!   │head│snapshot │  │head│records  │  │head│records  │  │ erased       │
//!   │ 7.0│records …│  │ 7.1│ …       │  │ 7.2│ …  free │  │              │
//!   └────┴─────────┘  └────┴─────────┘  └────┴─────────┘  └──────────────┘
//!    generation 7: page after page, in turn                 8 begins here
//! ```
//!
//! A *generation* is a snapshot and what was appended since. It takes pages one after the other, at most half of them
//! (rounded up) before it must be replaced. The next one begins in the page behind it: its records are written first, the
//! head of its first page last, and that head is what makes it count. Then the pages of the old one are erased. So pages
//! are used in turn for ever, and each is erased as often as any other, give or take one for each boot.
//!
//! # What a power cut leaves
//!
//! Whatever was being programmed or erased may read as anything; the rest is as it was. A record cut short is not there. A
//! generation whose head is not there does not count, and the old one is still whole. An erase that was cut is repeated.
//! Behind a record that was cut nothing is written any more: [`Journal::wants_snapshot`] says so, and a replacement goes
//! into pages of its own.
//!
//! # What a changed bit does
//!
//! One bit of a record or of a head is found and put right. More of them are [`Found::Damaged`], and the records before
//! them are told. Only the very last record can look as if a power cut had torn it, if two of its bits or more change.
//!
//! # What an order costs
//!
//! A record of *n* bytes takes *n* + 8, rounded up to the program unit (4 at least), in one call of
//! [`FlashPages::program`]. With *p* pages of *b* bytes and a snapshot of *s* bytes, pages are erased once per
//! (*p* − *p*/2) · (*b* − 16) − *s* bytes appended. An order that is not idempotent appends two records, any other one.
//!
//! ```
//! use push::receiver::{FlashJournal, FlashPages, FlashShape, Found, Journal};
//!
//! /// Two pages of 2 KiB, programmed eight bytes at a time.
//! struct Chip([[u8; 2_048]; 2]);
//!
//! impl FlashPages for Chip {
//!     type Error = core::convert::Infallible;
//!
//!     fn shape(&self) -> FlashShape {
//!         FlashShape { pages: 2, page_bytes: 2_048, unit_bytes: 8 }
//!     }
//!     fn erase(&mut self, page: u32) -> Result<(), Self::Error> {
//!         Ok(self.0[page as usize].fill(0xFF))
//!     }
//!     fn program(&mut self, page: u32, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
//!         Ok(self.0[page as usize][offset as usize..][..bytes.len()].copy_from_slice(bytes))
//!     }
//!     fn read(&mut self, page: u32, offset: u32, into: &mut [u8]) -> Result<(), Self::Error> {
//!         Ok(into.copy_from_slice(&self.0[page as usize][offset as usize..][..into.len()]))
//!     }
//! }
//!
//! let mut journal = FlashJournal::new(Chip([[0xFF; 2_048]; 2]))?;
//! assert_eq!(journal.replay(&mut |_| {})?, Found::New);
//! journal.append(b"started 17")?;
//! journal.sync()?;
//!
//! // After a reboot:
//! let mut journal = FlashJournal::new(journal.into_pages())?;
//! let mut told = 0;
//! let found = journal.replay(&mut |record| told += usize::from(record == b"started 17"))?;
//! assert_eq!((found, told), (Found::Whole, 1));
//! # Ok::<(), push::receiver::FlashError<core::convert::Infallible>>(())
//! ```

mod page;
mod replay;
#[cfg(test)]
mod tests;

use super::journal::{Found, Journal, RECORD_MAX};
use super::sealed::{self, SEALED_MAX, Stamp};
use page::Head;

/// Bytes of the largest program unit: a word of an STM32H7.
pub const UNIT_MAX: u32 = 32;
/// Pages that are used at most: what is erased is kept as a bit each.
pub const PAGES_MAX: u32 = 64;
/// Bytes of the smallest page: its head and six of the longest records.
pub const PAGE_BYTES_MIN: u32 = 512;

/// What an erased byte reads as.
const ERASED: u8 = 0xFF;
/// Longest records there must be room for; with less left a snapshot is wanted.
const SPARE_RECORDS: u32 = 4;
/// Bytes programmed at a time: the longest record, padded to the largest unit.
const BUFFER: usize = SEALED_MAX.next_multiple_of(UNIT_MAX as usize);

/// How a flash memory is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlashShape {
    /// Pages: 2 to [`PAGES_MAX`].
    pub pages: u32,
    /// Bytes of a page, what one erase erases: at least [`PAGE_BYTES_MIN`], a multiple of the unit and of 4.
    pub page_bytes: u32,
    /// Bytes programmed at once: 1, 2, 4, 8, 16 or 32.
    pub unit_bytes: u32,
}

impl FlashShape {
    const fn is_possible(self) -> bool {
        self.pages >= 2
            && self.pages <= PAGES_MAX
            && self.unit_bytes.is_power_of_two()
            && self.unit_bytes <= UNIT_MAX
            && self.page_bytes >= PAGE_BYTES_MIN
            && self.page_bytes <= 1 << 24
            && self.page_bytes.is_multiple_of(self.step())
    }

    /// What lies in a page begins at multiples of this.
    const fn step(self) -> u32 {
        if self.unit_bytes < 4 { 4 } else { self.unit_bytes }
    }

    /// Bytes a thing of `len` bytes takes.
    const fn padded(self, len: usize) -> u32 {
        // A unit is a power of two, nothing here is longer than 96 bytes.
        let mask = self.step().wrapping_sub(1);
        (len as u32).wrapping_add(mask) & !mask
    }

    /// Where the first record of a page begins.
    const fn start(self) -> u32 {
        self.padded(page::HEAD_LEN)
    }

    /// Pages of a generation at most.
    const fn generation_max(self) -> u32 {
        self.pages.saturating_sub(self.snapshot_max())
    }

    /// Pages of a snapshot at most.
    const fn snapshot_max(self) -> u32 {
        self.pages / 2
    }

    /// The page `by` pages behind `page`.
    const fn behind(self, page: u32, by: u32) -> u32 {
        match page.wrapping_add(by).checked_rem(self.pages) {
            Some(page) => page,
            None => 0,
        }
    }
}

/// The caller's flash memory. A flash that is cleared to zeros when it is erased is turned over in these functions.
///
/// Each call returns when it is done: what was programmed is there after a power cut.
pub trait FlashPages {
    /// What the hardware says when it cannot.
    type Error;

    /// How it is cut; always the same.
    fn shape(&self) -> FlashShape;

    /// Makes every byte of the page 0xFF.
    fn erase(&mut self, page: u32) -> Result<(), Self::Error>;

    /// Programs bytes that are erased: `offset` and the length are multiples of the unit, and no unit is programmed twice.
    fn program(&mut self, page: u32, offset: u32, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Reads. A unit the hardware cannot read any more (its error correction gives up: a power cut tore it) is no error:
    /// give zeros for it.
    fn read(&mut self, page: u32, offset: u32, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// Why a journal in flash failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlashError<E> {
    /// The hardware failed.
    #[error("the flash failed")]
    Pages(E),
    /// A shape that cannot be used.
    #[error("{0:?} is no shape for a journal")]
    Shape(FlashShape),
    /// [`Journal::replay`] comes first.
    #[error("the journal was not replayed")]
    NotReplayed,
    /// An empty record, or one longer than 64 bytes.
    #[error("a record of {len} bytes: it has 1 to {RECORD_MAX}")]
    Record {
        /// Its length.
        len: usize,
    },
    /// Nothing more can be appended before a snapshot replaces what is there.
    #[error("no room before a snapshot is taken")]
    Full,
    /// A snapshot that takes more than half of the pages.
    #[error("the snapshot does not fit into {pages} pages")]
    TooLarge {
        /// Pages it may take.
        pages: u32,
    },
}

/// A generation, and where its next record goes.
#[derive(Clone, Copy, Debug)]
struct Generation {
    number: u32,
    /// Its first page.
    first: u32,
    /// Its pages; 0 if there is none.
    pages: u32,
    /// Where the next record goes in the last of them.
    end: u32,
    /// Its records.
    records: u32,
    /// Of them, those of the snapshot.
    snapshot: u32,
    /// Nothing more is written behind the last record.
    closed: bool,
    /// Something in it had to be repaired.
    repaired: bool,
}

impl Generation {
    const NONE: Self = Self {
        number: 0,
        first: 0,
        pages: 0,
        end: 0,
        records: 0,
        snapshot: 0,
        closed: false,
        repaired: false,
    };
}

const fn bit(page: u32) -> u64 {
    1_u64.wrapping_shl(page)
}

/// A journal in flash; see the text above the module for its promises.
#[derive(Debug)]
pub struct FlashJournal<P> {
    pages: P,
    shape: FlashShape,
    now: Generation,
    /// A generation that was replaced and is not erased yet: its first page, and how many.
    old: (u32, u32),
    /// Pages that this run has erased and not used since, a bit each.
    erased: u64,
    replayed: bool,
}

impl<P: FlashPages> FlashJournal<P> {
    /// A journal in these pages. Nothing is read or written before [`Journal::replay`].
    pub fn new(pages: P) -> Result<Self, FlashError<P::Error>> {
        let shape = pages.shape();
        if !shape.is_possible() {
            return Err(FlashError::Shape(shape));
        }
        Ok(Self { pages, shape, now: Generation::NONE, old: (0, 0), erased: 0, replayed: false })
    }

    /// The pages, given back.
    pub fn into_pages(self) -> P {
        self.pages
    }

    /// Bytes that can still be appended before a snapshot must be taken, heads of records included.
    #[must_use]
    pub const fn room(&self) -> u32 {
        if self.now.closed || self.now.pages == 0 {
            return 0;
        }
        let whole = self.shape.page_bytes.saturating_sub(self.shape.start());
        let unused = self.shape.generation_max().saturating_sub(self.now.pages);
        self.shape.page_bytes.saturating_sub(self.now.end).saturating_add(unused.saturating_mul(whole))
    }

    fn program(&mut self, page: u32, offset: u32, bytes: &[u8]) -> Result<(), FlashError<P::Error>> {
        let mut padded = [ERASED; BUFFER];
        for (to, from) in padded.iter_mut().zip(bytes) {
            *to = *from;
        }
        let len = self.shape.padded(bytes.len()) as usize;
        self.pages.program(page, offset, padded.get(..len).unwrap_or_default()).map_err(FlashError::Pages)
    }

    fn program_head(&mut self, page: u32, head: Head) -> Result<(), FlashError<P::Error>> {
        self.program(page, 0, &head.emit())
    }

    fn erase(&mut self, page: u32) -> Result<(), P::Error> {
        self.pages.erase(page)?;
        self.erased |= bit(page);
        Ok(())
    }

    /// Makes a page ready to be programmed.
    fn take(&mut self, page: u32) -> Result<(), FlashError<P::Error>> {
        if self.erased & bit(page) == 0 {
            self.erase(page).map_err(FlashError::Pages)?;
        }
        self.erased &= !bit(page);
        Ok(())
    }

    /// Writes a record behind the last one of `to`, into a further page if `pages_max` allows for it.
    fn put(
        &mut self,
        to: &mut Generation,
        record: &[u8],
        pages_max: u32,
    ) -> Result<(), FlashError<P::Error>> {
        let [generation, ..] = to.number.to_le_bytes();
        let [low, high, ..] = to.records.to_le_bytes();
        let stamp = Stamp { generation, sequence: u16::from_le_bytes([low, high]) };
        let mut bytes = [ERASED; SEALED_MAX];
        let len = sealed::seal(record, stamp, &mut bytes).ok_or(FlashError::Record { len: record.len() })?;
        let padded = self.shape.padded(len);
        if to.end.saturating_add(padded) > self.shape.page_bytes {
            if to.pages >= pages_max {
                return Err(FlashError::Full);
            }
            let page = self.shape.behind(to.first, to.pages);
            self.take(page)?;
            let index = u16::try_from(to.pages).unwrap_or(u16::MAX);
            self.program_head(page, Head { index, generation: to.number, records: to.records })?;
            to.pages = to.pages.saturating_add(1);
            to.end = self.shape.start();
        }
        let page = self.shape.behind(to.first, to.pages.saturating_sub(1));
        self.program(page, to.end, bytes.get(..len).unwrap_or_default())?;
        to.end = to.end.saturating_add(padded);
        to.records = to.records.saturating_add(1);
        Ok(())
    }

    /// Erases what a replacement has left.
    fn erase_old(&mut self) -> Result<(), FlashError<P::Error>> {
        let (first, pages) = self.old;
        for page in 0..pages {
            self.erase(self.shape.behind(first, page)).map_err(FlashError::Pages)?;
        }
        self.old = (0, 0);
        Ok(())
    }

    /// Writes a generation and erases the present one.
    fn commit(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), FlashError<P::Error>> {
        self.erase_old()?;
        let next = self.write_generation(records)?;
        self.old = (self.now.first, self.now.pages);
        self.now = next;
        self.erase_old()
    }

    /// Writes a generation behind the present one; its first head last.
    fn write_generation(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<Generation, FlashError<P::Error>> {
        let mut next = Generation {
            number: self.now.number.wrapping_add(1),
            first: self.shape.behind(self.now.first, self.now.pages),
            pages: 1,
            end: self.shape.start(),
            ..Generation::NONE
        };
        let snapshot_max = self.shape.snapshot_max();
        self.take(next.first)?;
        let mut record = [0; RECORD_MAX];
        while let Some(len) = records(&mut record) {
            let bytes = record.get(..len).ok_or(FlashError::Record { len })?;
            self.put(&mut next, bytes, snapshot_max).map_err(|error| match error {
                FlashError::Full => FlashError::TooLarge { pages: snapshot_max },
                other => other,
            })?;
        }
        next.snapshot = next.records;
        let head = Head { index: 0, generation: next.number, records: next.records };
        self.program_head(next.first, head)?;
        Ok(next)
    }
}

impl<P: FlashPages> Journal for FlashJournal<P> {
    type Error = FlashError<P::Error>;

    fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, Self::Error> {
        (self.replayed, self.erased, self.old) = (false, 0, (0, 0));
        let found = self.read_all(tell).map_err(FlashError::Pages)?;
        self.replayed = true;
        Ok(found)
    }

    /// One call of [`FlashPages::program`]; with a new page, another one and an erase.
    fn append(&mut self, record: &[u8]) -> Result<(), Self::Error> {
        if !self.replayed {
            return Err(FlashError::NotReplayed);
        }
        if !(1..=RECORD_MAX).contains(&record.len()) {
            return Err(FlashError::Record { len: record.len() });
        }
        // What a replacement left must be gone before anything stands in the new generation alone.
        self.erase_old()?;
        if self.now.pages == 0 {
            self.commit(&mut |_| None)?;
        }
        if self.now.closed {
            return Err(FlashError::Full);
        }
        let mut now = self.now;
        let done = self.put(&mut now, record, self.shape.generation_max());
        // A record or a head may be there in part: nothing goes behind it.
        now.closed = matches!(done, Err(FlashError::Pages(_)));
        self.now = now;
        done
    }

    /// Does nothing: what was programmed is there.
    fn sync(&mut self) -> Result<(), Self::Error> {
        if self.replayed { Ok(()) } else { Err(FlashError::NotReplayed) }
    }

    /// With room for less than four of the longest records, after a power cut in the middle of one, and after a repair.
    fn wants_snapshot(&self) -> bool {
        let now = &self.now;
        let grown = now.records > now.snapshot && self.room() < SPARE_RECORDS * self.shape.padded(SEALED_MAX);
        now.pages > 0 && (grown || now.closed || now.repaired)
    }

    /// Programs every record and a head per page, erases the pages of the old generation.
    fn replace(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), Self::Error> {
        if !self.replayed {
            return Err(FlashError::NotReplayed);
        }
        if self.now.pages == 0 {
            // Cut short, records without a head would be taken for a damaged generation: an empty one comes first.
            self.commit(&mut |_| None)?;
        }
        self.commit(records)
    }
}
