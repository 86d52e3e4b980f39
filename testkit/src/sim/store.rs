//! What a device keeps over its boots: nothing, two files on a disk, or pages of flash, with the library's own code above.

use std::cell::RefCell;
use std::rc::Rc;

use push::file_journal::{FileJournal, FileJournalError};
use push::receiver::journal::{Found, Journal, RECORD_MAX};
use push::receiver::{FlashError, FlashJournal, FlashPages, FlashShape};
use wire_format::rng::Rng;

use super::plan::Keeps;
use crate::disk::SimDisk;

/// Bytes of each file of a journal: small, so that snapshots are taken often.
const FILE_BYTES: usize = 4 << 10;
/// Pages of flash, and their size.
const PAGES: u32 = 8;
const PAGE_BYTES: u32 = 512;
const UNIT: u32 = 8;

/// What outlives the device's process and its power.
#[derive(Clone, Debug)]
pub(super) enum Medium {
    None,
    Files(SimDisk),
    Flash(Flash),
}

impl Medium {
    pub(super) fn new(keeps: Keeps, seed: u64) -> Self {
        match keeps {
            Keeps::Nothing => Self::None,
            Keeps::Files => Self::Files(SimDisk::new(seed)),
            Keeps::Flash => Self::Flash(Flash::new(seed)),
        }
    }

    /// The journal over it, not read yet.
    pub(super) fn open(&self) -> Option<Store> {
        Some(match self {
            Self::None => return None,
            Self::Files(disk) => Store::Files(FileJournal::new(disk.clone(), FILE_BYTES)),
            Self::Flash(flash) => Store::Flash(FlashJournal::new(flash.clone()).ok()?),
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        match self {
            Self::None => false,
            Self::Files(disk) => disk.is_dead(),
            Self::Flash(flash) => flash.0.borrow().dead,
        }
    }

    /// The power goes and comes back.
    pub(super) fn crash(&self) {
        match self {
            Self::None => {}
            Self::Files(disk) => disk.crash(),
            Self::Flash(flash) => flash.crash(),
        }
    }

    /// The device's process is gone and comes back.
    pub(super) fn kill(&self) {
        match self {
            Self::None => {}
            Self::Files(disk) => disk.kill(),
            Self::Flash(flash) => flash.crash(),
        }
    }

    /// The power, or the process, goes in the middle of the operation after so many.
    pub(super) fn die_after(&self, operations: u32) {
        match self {
            Self::None => {}
            Self::Files(disk) => disk.die_after(operations.into()),
            Self::Flash(flash) => flash.0.borrow_mut().dies_in = Some(operations),
        }
    }

    /// The operation after so many fails.
    pub(super) fn fail_after(&self, operations: u32) {
        match self {
            Self::None => {}
            Self::Files(disk) => disk.fail_after(operations),
            Self::Flash(flash) => flash.0.borrow_mut().fails_in = Some(operations),
        }
    }

    pub(super) fn fail_no_more(&self) {
        match self {
            Self::None => {}
            Self::Files(disk) => disk.fail_no_more(),
            Self::Flash(flash) => flash.0.borrow_mut().fails_in = None,
        }
    }

    /// A new one takes its place.
    pub(super) fn wipe(&mut self, seed: u64) {
        match self {
            Self::None => {}
            Self::Files(disk) => *disk = SimDisk::new(seed),
            Self::Flash(flash) => *flash = Flash::new(seed),
        }
    }

    /// One bit is another one from now on; `at` picks it.
    pub(super) fn flip(&self, at: u64) {
        match self {
            Self::None => {}
            Self::Files(disk) => {
                let files = disk.files();
                let Some((file, bytes)) = files.get(at as usize % files.len().max(1)) else { return };
                disk.flip(*file, (at / 7) as usize % (bytes.len() * 8).max(1));
            }
            Self::Flash(flash) => {
                let bytes = &mut flash.0.borrow_mut().bytes;
                let bit = (at / 7) as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

/// The library's journals.
#[derive(Debug)]
pub(super) enum Store {
    Files(FileJournal<SimDisk>),
    Flash(FlashJournal<Flash>),
}

/// What either fails with.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Files(#[from] FileJournalError),
    #[error(transparent)]
    Flash(#[from] FlashError<FlashFault>),
}

impl Journal for Store {
    type Error = StoreError;

    fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, StoreError> {
        Ok(match self {
            Self::Files(journal) => journal.replay(tell)?,
            Self::Flash(journal) => journal.replay(tell)?,
        })
    }

    fn append(&mut self, record: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Files(journal) => journal.append(record)?,
            Self::Flash(journal) => journal.append(record)?,
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Files(journal) => journal.sync()?,
            Self::Flash(journal) => journal.sync()?,
        }
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        match self {
            Self::Files(journal) => journal.wants_snapshot(),
            Self::Flash(journal) => journal.wants_snapshot(),
        }
    }

    fn replace(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Files(journal) => journal.replace(records)?,
            Self::Flash(journal) => journal.replace(records)?,
        }
        Ok(())
    }
}

/// The flash did not do as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flash failed")]
pub(super) struct FlashFault;

/// Pages that lose their power while they are erased or programmed. Clones are the same flash.
#[derive(Clone, Debug)]
pub(super) struct Flash(Rc<RefCell<Cells>>);

#[derive(Debug)]
struct Cells {
    bytes: Vec<u8>,
    rng: Rng,
    dies_in: Option<u32>,
    fails_in: Option<u32>,
    dead: bool,
}

enum Fate {
    Works,
    Fails,
    Dies,
}

impl Flash {
    fn new(seed: u64) -> Self {
        let bytes = vec![0xFF; (PAGES * PAGE_BYTES) as usize];
        let (dies_in, fails_in) = (None, None);
        Self(Rc::new(RefCell::new(Cells { bytes, rng: Rng::new(seed), dies_in, fails_in, dead: false })))
    }

    fn crash(&self) {
        let mut cells = self.0.borrow_mut();
        (cells.dead, cells.dies_in, cells.fails_in) = (false, None, None);
    }
}

impl Cells {
    fn fate(&mut self) -> Result<Fate, FlashFault> {
        if self.dead {
            return Err(FlashFault);
        }
        for (left, fate) in [(&mut self.dies_in, Fate::Dies), (&mut self.fails_in, Fate::Fails)] {
            match left {
                Some(0) => {
                    *left = None;
                    self.dead = matches!(fate, Fate::Dies);
                    return Ok(fate);
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        Ok(Fate::Works)
    }
}

impl FlashPages for Flash {
    type Error = FlashFault;

    fn shape(&self) -> FlashShape {
        FlashShape { pages: PAGES, page_bytes: PAGE_BYTES, unit_bytes: UNIT }
    }

    fn erase(&mut self, page: u32) -> Result<(), FlashFault> {
        let cells = &mut *self.0.borrow_mut();
        let fate = cells.fate()?;
        let at = (page * PAGE_BYTES) as usize;
        let range = at..at + PAGE_BYTES as usize;
        match fate {
            Fate::Works => cells.bytes[range].fill(0xFF),
            // Some bits are set already, others not.
            Fate::Fails | Fate::Dies => {
                for byte in &mut cells.bytes[range] {
                    *byte |= cells.rng.next_u64().to_le_bytes()[0];
                }
                return Err(FlashFault);
            }
        }
        Ok(())
    }

    fn program(&mut self, page: u32, offset: u32, bytes: &[u8]) -> Result<(), FlashFault> {
        let cells = &mut *self.0.borrow_mut();
        let fate = cells.fate()?;
        let at = (page * PAGE_BYTES + offset) as usize;
        let done = match fate {
            Fate::Works => bytes.len(),
            Fate::Fails | Fate::Dies => cells.rng.below(bytes.len() as u64 + 1) as usize,
        };
        cells.bytes[at..at + done].copy_from_slice(&bytes[..done]);
        if done < bytes.len() && cells.rng.below(2) == 0 {
            // The byte it was at when the power went.
            cells.bytes[at + done] &= bytes[done] | cells.rng.next_u64().to_le_bytes()[0];
        }
        if matches!(fate, Fate::Works) { Ok(()) } else { Err(FlashFault) }
    }

    fn read(&mut self, page: u32, offset: u32, into: &mut [u8]) -> Result<(), FlashFault> {
        let cells = self.0.borrow();
        if cells.dead {
            return Err(FlashFault);
        }
        let at = (page * PAGE_BYTES + offset) as usize;
        into.copy_from_slice(&cells.bytes[at..at + into.len()]);
        Ok(())
    }
}
