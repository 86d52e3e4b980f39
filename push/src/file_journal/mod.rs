//! A device's journal in two files of fixed size.
//!
//! ```text
//!   0000…1.log   ┌────┬──────────┬────────┬───┬───────┬─────────────┐
//!                │head│ snapshot │ sync 1 │ 2 │ sync 3│ zeros       │  counts: its head is there
//!                └────┴──────────┴────────┴───┴───────┴─────────────┘
//!   0000…2.log   ┌────┬─────────────────────────────────────────────┐
//!                │ 0  │ what the last generation left               │  the next snapshot is written here
//!                └────┴─────────────────────────────────────────────┘
//! ```
//!
//! Records wait in memory until [`Journal::sync`], which is one write and one sync. A snapshot goes into the other file:
//! all of it but the head, a sync; the head, a sync; then the old head is wiped, a third. Both files have their size from
//! the beginning, so a disk that fills up later does not stop the device, and a sync changes no length.
//!
//! What a power cut leaves of a sync that had not returned is cut off and not told. What was synced is there, or the
//! damage is told: see `docs/JOURNAL.md`. It reads and writes through a [`Disk`], as the outbox does.

mod walk;

use std::io;
use std::path::Path;

use crate::outbox::log::{Directory, Disk};
use crate::receiver::journal::{Found, Journal, RECORD_MAX};
use crate::receiver::sealed::{self, HEAD_LEN, SEALED_MAX, Stamp};
use walk::{FIRST, Head, Walked};

/// Bytes of each of the two files: the largest snapshot of a device takes a third of it.
pub const FILE_BYTES: usize = 256 << 10;
/// Bytes of the smallest file: a head and a dozen records.
pub const FILE_BYTES_MIN: usize = 1 << 10;
/// Syncs of a generation: their number stands in fifteen bits of each record.
pub const SYNCS_MAX: u16 = 0x7FFF;

/// The files.
const FILES: [u64; 2] = [1, 2];

/// Why a journal in files failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileJournalError {
    /// The system could not.
    #[error("{doing} failed")]
    Disk {
        /// What it was to do.
        doing: Doing,
        /// What it said.
        source: io::Error,
    },
    /// An empty record, or one longer than 64 bytes.
    #[error("a record of {len} bytes: it has 1 to {RECORD_MAX}")]
    Record {
        /// Its length.
        len: usize,
    },
    /// Nothing more can be appended before a snapshot replaces what is there.
    #[error("no room before a snapshot is taken")]
    Full,
    /// A snapshot larger than a file.
    #[error("a snapshot of more than {limit} bytes")]
    TooLarge {
        /// Bytes of a file.
        limit: usize,
    },
    /// [`Journal::replay`] comes first.
    #[error("the journal was not replayed")]
    NotReplayed,
}

impl From<FileJournalError> for io::Error {
    fn from(error: FileJournalError) -> Self {
        match error {
            FileJournalError::Disk { source, .. } => source,
            other => Self::other(other),
        }
    }
}

/// A step of reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doing {
    /// Looking for the files.
    #[error("looking for the files of the journal")]
    List,
    /// Reading one.
    #[error("reading the journal")]
    Read,
    /// Making one: the disk is full, as a rule.
    #[error("making a file of the journal")]
    Create,
    /// Writing.
    #[error("writing to the journal")]
    Write,
    /// Waiting for the disk.
    #[error("syncing the journal")]
    Sync,
}

impl Doing {
    fn failed(self) -> impl Fn(io::Error) -> FileJournalError {
        move |source| FileJournalError::Disk { doing: self, source }
    }
}

/// The generation that counts.
#[derive(Clone, Copy, Debug)]
struct Live {
    file: u64,
    number: u64,
    /// Where the next sync writes.
    end: usize,
    /// Number of the next sync.
    sync: u16,
    /// Something stands behind the snapshot.
    appended: bool,
    /// Nothing more is written here.
    closed: bool,
    /// Something was put right in it.
    repaired: bool,
}

/// A journal in two files; see the [module](self).
#[derive(Debug)]
pub struct FileJournal<D = Directory> {
    disk: D,
    bytes: usize,
    live: Option<Live>,
    /// Files that are there and have their size.
    made: [bool; 2],
    /// A file whose head must go before anything else is written.
    stale: Option<u64>,
    /// Records of the next sync.
    pending: Vec<u8>,
    /// Where the last of them begins.
    last_at: usize,
    replayed: bool,
    /// Nothing was ever here.
    is_new: bool,
}

impl FileJournal<Directory> {
    /// A journal in this directory, made if it is not there, and locked while this lives
    /// ([`io::ErrorKind::WouldBlock`] if another process uses it). No file is made before something is written.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(Directory::open(path)?, FILE_BYTES))
    }
}

impl<D: Disk> FileJournal<D> {
    /// A journal on this disk, in files of so many bytes: at least [`FILE_BYTES_MIN`], [`FILE_BYTES`] unless there is a
    /// reason. A file of another size is read as it is and made anew when it is written again.
    #[must_use]
    pub fn new(disk: D, bytes: usize) -> Self {
        Self {
            disk,
            bytes: bytes.max(FILE_BYTES_MIN) / 8 * 8,
            live: None,
            made: [false; 2],
            stale: None,
            pending: Vec::with_capacity(4 << 10),
            last_at: 0,
            replayed: false,
            is_new: false,
        }
    }

    fn write(&mut self, file: u64, at: usize, bytes: &[u8]) -> Result<(), FileJournalError> {
        self.disk.write(file, at as u64, bytes).map_err(Doing::Write.failed())?;
        self.disk.sync(file).map_err(Doing::Sync.failed())
    }

    /// Wipes a head that must not count any more.
    fn settle(&mut self) -> Result<(), FileJournalError> {
        if let Some(file) = self.stale {
            if self.is_made(file) {
                self.write(file, 0, &[0; FIRST])?;
            } else {
                // One of another size.
                self.disk.remove(file).map_err(Doing::Create.failed())?;
            }
            self.stale = None;
        }
        Ok(())
    }

    fn is_made(&self, file: u64) -> bool {
        FILES.iter().zip(self.made).any(|(&known, made)| known == file && made)
    }

    /// Makes a file of the right size, unless it is there.
    fn make(&mut self, file: u64) -> Result<(), FileJournalError> {
        if self.is_made(file) {
            return Ok(());
        }
        // One of another size, or half made.
        if self.disk.segments().map_err(Doing::List.failed())?.contains(&file) {
            self.disk.remove(file).map_err(Doing::Create.failed())?;
        }
        self.disk.create(file, self.bytes as u64, &[]).map_err(Doing::Create.failed())?;
        for (known, made) in FILES.into_iter().zip(&mut self.made) {
            *made |= known == file;
        }
        Ok(())
    }

    /// Begins a generation with this body, whose first bytes are left for the head.
    fn write_generation(
        &mut self,
        head: Head,
        mut body: Vec<u8>,
        end: usize,
    ) -> Result<(), FileJournalError> {
        let file = match self.live {
            Some(Live { file: 1, .. }) => 2,
            _ => 1,
        };
        self.make(file)?;
        body.resize(self.bytes, 0);
        self.write(file, 0, &body)?;
        let old = self.live.map(|live| live.file);
        // Its head may be there from now on, or come to be there when the power goes, also if this fails.
        self.stale = Some(file);
        if let Some(live) = &mut self.live {
            live.closed = true;
        }
        self.write(file, 0, &head.emit())?;
        self.live = Some(Live {
            file,
            number: head.generation,
            end,
            sync: 1,
            appended: false,
            closed: false,
            repaired: false,
        });
        (self.stale, self.is_new) = (old, false);
        self.settle()
    }

    /// An empty generation, so that a first snapshot cut short is not taken for a damaged one.
    fn begin(&mut self) -> Result<(), FileJournalError> {
        self.settle()?;
        let head = Head { generation: 1, records: 0, bytes: self.bytes as u64 };
        self.write_generation(head, Vec::new(), FIRST)
    }

    /// The snapshot as a file, its end, and how many records it has.
    fn body(
        &self,
        number: u64,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(Vec<u8>, u32), FileJournalError> {
        let mut body = vec![0; FIRST];
        let (mut count, mut last_at) = (0_u32, None);
        let mut record = [0; RECORD_MAX];
        while let Some(len) = records(&mut record) {
            last_at = Some(body.len());
            let record = record.get(..len).ok_or(FileJournalError::Record { len })?;
            put(&mut body, number, 0, record)?;
            count += 1;
            if body.len() > self.bytes {
                return Err(FileJournalError::TooLarge { limit: self.bytes });
            }
        }
        if let Some(at) = last_at {
            mark_last(&mut body, at);
        }
        Ok((body, count))
    }

    /// Reads a file; an empty one if there is none.
    fn read(&mut self, file: u64) -> Result<Vec<u8>, FileJournalError> {
        let mut bytes = Vec::new();
        if self.disk.segments().map_err(Doing::List.failed())?.contains(&file) {
            self.disk.read(file, &mut bytes).map_err(Doing::Read.failed())?;
        }
        Ok(bytes)
    }

    /// The head, or the last sync, may have been under way when the process went, or their sync failed: then they stand in the
    /// system's memory alone, and after a failed sync no later one would write them. So they are written once more before
    /// anything is believed, and before the head of the other file goes.
    fn write_again(&mut self, file: u64, bytes: &[u8], walked: &Walked) -> Result<(), FileJournalError> {
        for stretch in [0..FIRST, walked.last..walked.end] {
            let at = stretch.start as u64;
            let bytes = bytes.get(stretch).unwrap_or_default();
            self.disk.write(file, at, bytes).map_err(Doing::Write.failed())?;
        }
        self.disk.sync(file).map_err(Doing::Sync.failed())
    }

    fn read_all(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, FileJournalError> {
        let [a, b] = FILES;
        let files = [(a, self.read(a)?), (b, self.read(b)?)];
        self.made = files.each_ref().map(|(_, bytes)| bytes.len() == self.bytes);
        let heads = files.each_ref().map(|(_, bytes)| Head::parse(bytes));
        let (newest, older) = match heads {
            [Some((one, _)), Some((two, _))] if one.generation > two.generation => (0, Some(1)),
            [Some(_), Some(_)] => (1, Some(0)),
            [Some(_), None] => (0, None),
            [None, Some(_)] => (1, None),
            [None, None] => {
                self.is_new = !files.iter().any(|(_, bytes)| walk::has_records(bytes));
                return Ok(if self.is_new { Found::New } else { Found::Damaged });
            }
        };
        self.stale = older.and_then(|at: usize| FILES.get(at).copied());
        let (Some((file, bytes)), Some(Some((head, repaired)))) = (files.get(newest), heads.get(newest))
        else {
            return Ok(Found::New);
        };
        let walked = Walked::through(bytes, head, tell);
        self.write_again(*file, bytes, &walked)?;
        self.live = Some(Live {
            file: *file,
            number: head.generation,
            end: walked.end,
            sync: walked.sync,
            appended: walked.sync > 1,
            closed: walked.closed || walked.damaged || bytes.len() != self.bytes,
            repaired: walked.repaired || *repaired,
        });
        Ok(if walked.damaged { Found::Damaged } else { Found::Whole })
    }
}

/// Adds a record, padded with zeros to eight bytes.
fn put(to: &mut Vec<u8>, generation: u64, sync: u16, record: &[u8]) -> Result<(), FileJournalError> {
    let stamp = Stamp { generation: walk::low(generation), sequence: sync << 1 };
    let mut sealed = [0; SEALED_MAX];
    let len =
        sealed::seal(record, stamp, &mut sealed).ok_or(FileJournalError::Record { len: record.len() })?;
    to.extend_from_slice(sealed.get(..len).unwrap_or_default());
    to.resize(to.len().next_multiple_of(8), 0);
    Ok(())
}

/// Says of the record at `at` that it is the last one of its sync.
fn mark_last(bytes: &mut [u8], at: usize) {
    let Some(place) = bytes.get_mut(at..) else { return };
    let Some(opened) = sealed::open(place) else { return };
    let (len, stamp) = (opened.sealed_len(), Stamp { sequence: opened.stamp.sequence | 1, ..opened.stamp });
    let mut again = [0; SEALED_MAX];
    if sealed::seal(opened.record, stamp, &mut again).is_some() {
        let (to, from) = (place.get_mut(..HEAD_LEN.min(len)), again.get(..HEAD_LEN.min(len)));
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(from);
        }
    }
}

impl<D: Disk> Journal for FileJournal<D> {
    type Error = FileJournalError;

    fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, Self::Error> {
        self.pending.clear();
        (self.live, self.stale, self.replayed) = (None, None, false);
        let found = self.read_all(tell)?;
        self.replayed = true;
        Ok(found)
    }

    fn append(&mut self, record: &[u8]) -> Result<(), Self::Error> {
        if !self.replayed {
            return Err(FileJournalError::NotReplayed);
        }
        if self.is_new {
            self.begin()?;
        }
        let live = self.live.filter(|live| !live.closed && live.sync <= SYNCS_MAX);
        let live = live.ok_or(FileJournalError::Full)?;
        let at = self.pending.len();
        put(&mut self.pending, live.number, live.sync, record)?;
        if live.end + self.pending.len() > self.bytes {
            self.pending.truncate(at);
            return Err(FileJournalError::Full);
        }
        self.last_at = at;
        Ok(())
    }

    /// One write, one sync; none if nothing was appended.
    fn sync(&mut self) -> Result<(), Self::Error> {
        if !self.replayed {
            return Err(FileJournalError::NotReplayed);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        self.settle()?;
        mark_last(&mut self.pending, self.last_at);
        let mut pending = core::mem::take(&mut self.pending);
        let written = match self.live {
            Some(live) => self.write(live.file, live.end, &pending),
            None => Err(FileJournalError::Full),
        };
        if let Some(live) = &mut self.live {
            live.closed |= written.is_err();
            live.end += pending.len();
            live.sync += 1;
            live.appended = true;
        }
        pending.clear();
        self.pending = pending;
        written
    }

    /// When three quarters of the file are used, after a power cut in a sync, after a failure, and after a repair.
    fn wants_snapshot(&self) -> bool {
        match self.live {
            Some(live) => {
                let grown = live.end + self.pending.len() > self.bytes / 4 * 3 || live.sync >= SYNCS_MAX;
                live.closed || live.repaired || live.appended && grown
            }
            None => self.replayed && !self.is_new,
        }
    }

    /// Three writes and three syncs; the first writes a whole file.
    fn replace(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), Self::Error> {
        if !self.replayed {
            return Err(FileJournalError::NotReplayed);
        }
        self.pending.clear();
        if self.is_new {
            self.begin()?;
        }
        self.settle()?;
        let generation = self.live.map_or(0, |live| live.number) + 1;
        let (body, records) = self.body(generation, records)?;
        let end = body.len();
        self.write_generation(Head { generation, records, bytes: self.bytes as u64 }, body, end)
    }
}
