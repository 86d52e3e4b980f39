//! The log: records that are on disk when a commit returns, and are found again after any crash.
//!
//! ```text
//!   append, append, … ──▶ one buffer ── commit ──▶ one write, one sync      (group commit)
//!
//!   0000…1.log   0000…2.log   0000…3.log
//!   ┌─────────┐  ┌─────────┐  ┌─────────┐
//!   │dead dead│  │dead live│  │live live│◀── written here
//!   │dead dead│  │live dead│  │  zeros  │
//!   └─────────┘  └─────────┘  └─────────┘
//!    removed      carried to the end when little of it lives
//! ```
//!
//! It knows nothing of orders: a record is a kind, a body, and a sequence that rises by one. Who uses it says which records
//! are dead ([`Log::dead`]); a segment in which nothing lives is removed.
//!
//! | file | what for |
//! | --- | --- |
//! | `record` | the bytes of one record |
//! | `segment` | the bytes of a segment, and the walk over what a crash has left of it |
//! | `open` | finding everything again |
//! | `disk` | the files |
//!
//! # What a crash leaves
//!
//! Records of a commit that returned are there. Of a commit that was under way some, all or none are there; nobody was told
//! that they are. A record whose bytes have changed is left out and told ([`Recovery::damaged`]); those around it stay. After
//! a crash nothing is written into an old segment any more, but for the last commit found: it is written there once more and
//! synced before anybody is told of it, since a process that is killed may leave it in the system's memory alone.

mod disk;
mod open;
mod record;
mod segment;

use std::collections::VecDeque;
use std::io;

use wire_format::crc;
use wire_format::ids::Lineage;
use wire_format::rng::Rng;

pub use disk::{Directory, Disk};
pub use open::{OpenError, Recovery};
pub use record::BODY_MAX;
use record::{HEADER_LEN, Header, record_len};
pub use segment::records;
use segment::{DATA_START, Head, Start};

/// Bytes of a segment: what compaction writes again at a time, and what the smallest outbox takes.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes of all segments: sixteen times what live orders may take in memory.
pub const BYTES_MAX: u64 = 4 << 30;

/// Bytes of memory that stay for the next commit, however large one was: all devices of a shop may come in one.
const PENDING_KEPT: usize = 64 << 10;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of a segment. Default [`SEGMENT_BYTES`], 16 MiB.
    pub segment_bytes: u64,
    /// Bytes all segments may have together; an append beyond it is refused. Default [`BYTES_MAX`], 4 GiB.
    pub bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, bytes_max: BYTES_MAX }
    }
}

/// How long a record is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until [`Log::dead`] is said of it.
    Live,
    /// As long as what stands before it: it changes what earlier records said, and segments go oldest first.
    Passing,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Longer than any record may be.
    #[error("a record of {len} bytes: the most is {BODY_MAX}")]
    TooLong {
        /// Bytes of the body.
        len: usize,
    },
    /// The log has its size. Passing records may take one segment more.
    #[error("the log has {bytes} of {limit} bytes")]
    Full {
        /// Bytes it has.
        bytes: u64,
        /// Bytes it may have.
        limit: u64,
    },
}

/// Why a commit failed. None of its records is there, now or after a restart of this process that follows another
/// commit; the log can be used on.
#[derive(Debug, thiserror::Error)]
#[error("{doing} failed")]
pub struct CommitError {
    /// What failed.
    pub doing: Doing,
    /// What the system said.
    pub source: io::Error,
}

/// A step of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doing {
    /// Making a segment: the disk is full, as a rule.
    #[error("making a new segment of the log")]
    Create,
    /// Writing.
    #[error("writing to the log")]
    Write,
    /// Waiting for the disk.
    #[error("syncing the log")]
    Sync,
    /// Reading what is to be written again.
    #[error("reading the log")]
    Read,
}

/// A segment that is there.
#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    /// Sequence of its first record.
    first: u64,
    /// Bytes on disk.
    bytes: u64,
    /// Bytes of records that are not dead.
    live: u64,
    salt: u32,
}

/// The oldest segment, if it is not the one written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// Its number: after commits that failed two segments may begin with the same sequence.
    pub number: u64,
    /// Sequence of its first record.
    pub first: u64,
    /// Sequence of the first record behind it.
    pub end: u64,
    /// Bytes of its records that are not dead.
    pub live: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A log, open.
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    settings: Settings,
    lineage: Lineage,
    rng: Rng,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Number of the next segment.
    next_segment: u64,
    /// The last segment is not written to any more: it is of before this opening, or a commit into it failed.
    full: bool,
    /// Where the next commit goes in the last segment.
    offset: u64,
    /// Records of the next commit.
    pending: Vec<u8>,
    /// Bytes of those that live.
    pending_live: u64,
    /// Where the last of them begins.
    last_at: usize,
    /// Sequence of the first of them.
    committed: u64,
    /// Sequence of the next record.
    next: u64,
    /// Number of the next commit.
    commit: u32,
    /// The lineage and the segments before a renewal that the next commit completes.
    renewing: Option<(Lineage, VecDeque<Segment>)>,
    /// Segments of an earlier lineage that have still to be set aside.
    stale: Vec<u64>,
}

impl<D: Disk> Log<D> {
    /// Whose log it is.
    #[must_use]
    pub const fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Bytes on disk, and of records that wait for the next commit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum::<u64>() + self.pending.len() as u64
    }

    /// Bytes of records on disk that are not dead.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.segments.iter().map(|segment| segment.live).sum()
    }

    /// How it is kept.
    #[must_use]
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// Records that wait for the next commit.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.next - self.committed
    }

    /// Adds a record to the next commit: its sequence. The body is the parts one after the other.
    pub fn append(&mut self, kind: u8, life: Life, parts: &[&[u8]]) -> Result<u64, AppendError> {
        self.append_over(kind, life, u64::from(life == Life::Passing), parts)
    }

    /// The same for a record that may take this many segments more than there may be.
    pub fn append_over(
        &mut self,
        kind: u8,
        life: Life,
        segments: u64,
        parts: &[&[u8]],
    ) -> Result<u64, AppendError> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let (Ok(short), true) = (u32::try_from(len), len <= BODY_MAX) else {
            return Err(AppendError::TooLong { len });
        };
        let reserve = segments.saturating_mul(self.settings.segment_bytes);
        let limit = self.settings.bytes_max.saturating_add(reserve);
        let bytes = self.used() + record_len(len) as u64;
        if bytes > limit {
            return Err(AppendError::Full { bytes, limit });
        }
        if life == Life::Live {
            self.pending_live += record_len(len) as u64;
        }
        let sequence = self.next;
        let sum = parts.iter().fold(0, |sum, part| crc::append(sum, part));
        self.last_at = self.pending.len();
        // The salt is the segment's, and which one that will be is not known yet: sealed by the commit.
        self.pending.extend_from_slice(&Header::new(sequence, kind, short, sum).emit(0));
        parts.iter().for_each(|part| self.pending.extend_from_slice(part));
        self.pending.resize(self.last_at + record_len(len), 0);
        self.next += 1;
        Ok(sequence)
    }

    /// Bytes that records take or may take: whole segments, but of the last one what is written.
    fn used(&self) -> u64 {
        let last = self.segments.back().map_or(0, |last| last.bytes.saturating_sub(self.offset));
        self.bytes() - last
    }

    /// Writes what was appended and waits until it is on disk. On an error it is tried once more in a new segment: a page
    /// the system failed to write must not be trusted again.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.commit_each(|_, _, _| {})
    }

    /// The same, and calls `visit` with sequence, kind and body of each record that is on disk now.
    pub fn commit_each(&mut self, mut visit: impl FnMut(u64, u8, &[u8])) -> Result<(), CommitError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let done = self.write_out().or_else(|_| {
            self.full = true;
            self.write_out()
        });
        match done {
            Ok(()) => {
                self.committed = self.next;
                self.commit = self.commit.wrapping_add(1);
                visit_each(&self.pending, &mut visit);
                self.stale
                    .extend(self.renewing.take().into_iter().flat_map(|(_, old)| old).map(|old| old.number));
                self.remove_dead();
            }
            Err(_) => {
                self.renew_not();
                // Their sequences are given again, in a new segment: what is on disk of them is then behind its end.
                self.full = true;
                self.next = self.committed;
            }
        }
        self.pending.clear();
        self.pending.shrink_to(PENDING_KEPT);
        self.pending_live = 0;
        done
    }

    fn write_out(&mut self) -> Result<(), CommitError> {
        let fits = self
            .segments
            .back()
            .is_some_and(|last| !self.full && self.offset + self.pending.len() as u64 <= last.bytes);
        if !fits {
            self.add_segment().map_err(|source| CommitError { doing: Doing::Create, source })?;
        }
        let Some(&mut Segment { number, salt, ref mut live, .. }) = self.segments.back_mut() else {
            return Ok(());
        };
        seal(&mut self.pending, self.last_at, self.commit, salt);
        let written = self.disk.write(number, self.offset, &self.pending);
        written.map_err(|source| CommitError { doing: Doing::Write, source })?;
        self.disk.sync(number).map_err(|source| CommitError { doing: Doing::Sync, source })?;
        self.offset += self.pending.len() as u64;
        *live += self.pending_live;
        Ok(())
    }

    fn add_segment(&mut self) -> io::Result<()> {
        let (number, first) = (self.next_segment, self.committed);
        let start = match &self.renewing {
            Some(_) => Start::Begins,
            None if self.full => Start::Follows,
            None => Start::Continues,
        };
        // Whatever becomes of it, the name is used up.
        self.next_segment = self.next_segment.saturating_add(1);
        let [b0, b1, b2, b3, ..] = self.rng.next_u64().to_le_bytes();
        let salt = u32::from_le_bytes([b0, b1, b2, b3]);
        let bytes = self.settings.segment_bytes.max((DATA_START + self.pending.len()) as u64);
        let head = Head { lineage: self.lineage, number, first, salt, start }.emit();
        self.disk.create(number, bytes, &head)?;
        self.segments.push_back(Segment { number, first, bytes, live: 0, salt });
        self.offset = head.len() as u64;
        self.full = false;
        Ok(())
    }

    /// This committed record, which lived, is needed no more. Once for each.
    pub fn dead(&mut self, sequence: u64, body_len: usize) {
        let at = self.segments.partition_point(|segment| segment.first <= sequence);
        if let Some(segment) = at.checked_sub(1).and_then(|at| self.segments.get_mut(at)) {
            segment.live = segment.live.saturating_sub(record_len(body_len) as u64);
        }
    }

    /// The oldest segment; `None` while there is one only.
    #[must_use]
    pub fn oldest(&self) -> Option<Oldest> {
        let (oldest, next) = (self.segments.front()?, self.segments.get(1)?);
        let Segment { number, first, bytes, live, .. } = *oldest;
        Some(Oldest { number, first, end: next.first, live, bytes })
    }

    /// Whether the records that live in the oldest segment should be appended again, and then be called dead: most of what is
    /// on disk is dead, and more than one segment of it.
    #[must_use]
    pub fn wants_carrying(&self) -> bool {
        let limit = self.settings.bytes_max;
        let sparse = self.bytes() > 2 * self.live() + 2 * self.settings.segment_bytes;
        self.oldest().is_some() && (sparse || self.bytes() > limit - limit / 8)
    }

    /// The bytes of the oldest segment, for [`records`]; `None` while there is one only.
    pub fn read_oldest(&mut self, into: &mut Vec<u8>) -> io::Result<Option<Oldest>> {
        let Some((oldest, number)) = self.oldest().zip(self.segments.front().map(|oldest| oldest.number))
        else {
            return Ok(None);
        };
        self.disk.read(number, into)?;
        Ok(Some(oldest))
    }

    /// The bytes of every segment, oldest first, and the sequence its records stay below.
    pub fn read_each(&mut self, mut visit: impl FnMut(&[u8], u64)) -> io::Result<()> {
        let mut bytes = Vec::new();
        for at in 0..self.segments.len() {
            let until = self.segments.get(at + 1).map_or(self.committed, |next| next.first);
            if let Some(segment) = self.segments.get(at) {
                self.disk.read(segment.number, &mut bytes)?;
                visit(&bytes, until);
            }
        }
        Ok(())
    }

    /// Nothing in the oldest segment is needed any more, whatever was said before: what cannot be read cannot be carried.
    pub fn give_up_oldest(&mut self) {
        if self.segments.len() > 1
            && let Some(oldest) = self.segments.front_mut()
        {
            oldest.live = 0;
        }
    }

    /// Forgets the records that wait for a commit.
    pub fn forget(&mut self) {
        self.pending.clear();
        (self.pending_live, self.next) = (0, self.committed);
    }

    /// The next commit begins another log, under this lineage; once it is on disk everything before it is set aside. If the
    /// commit fails the log is what it was. Records that wait for a commit are forgotten.
    pub fn renew(&mut self, lineage: Lineage) {
        self.forget();
        let before = core::mem::replace(&mut self.lineage, lineage);
        self.renewing = Some((before, core::mem::take(&mut self.segments)));
        self.full = true;
    }

    /// The commit that should have renewed the log failed.
    fn renew_not(&mut self) {
        let Some((lineage, segments)) = self.renewing.take() else { return };
        for begun in core::mem::replace(&mut self.segments, segments) {
            // What stays is taken away at the next opening.
            let _stays = self.disk.remove(begun.number);
        }
        self.lineage = lineage;
    }

    /// Removes the oldest segments while nothing lives in them.
    fn remove_dead(&mut self) {
        if !self.stale.is_empty() && self.disk.set_aside(&self.stale).is_ok() {
            self.stale.clear();
        }
        while self.oldest().is_some_and(|oldest| oldest.live == 0) {
            let Some(oldest) = self.segments.front() else { return };
            // It is tried again with the next commit.
            if self.disk.remove(oldest.number).is_err() {
                return;
            }
            self.segments.pop_front();
        }
    }
}

/// Gives every record its commit and the segment's salt, and the last one its END.
fn seal(records: &mut [u8], last_at: usize, commit: u32, salt: u32) {
    let mut at = 0;
    while let Some(head) = records.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<HEADER_LEN>) {
        let Some(header) = unsalted(head) else { return };
        *head = Header { end: at == last_at, commit, ..header }.emit(salt);
        at += record_len(header.len as usize);
    }
}

/// Walks over records that were just written.
fn visit_each(records: &[u8], visit: &mut impl FnMut(u64, u8, &[u8])) {
    let mut at = 0;
    while let Some((head, rest)) = records.get(at..).and_then(<[u8]>::split_first_chunk::<HEADER_LEN>) {
        let Some(header) = unsalted(head) else { return };
        visit(header.sequence, header.kind, rest.get(..header.len as usize).unwrap_or_default());
        at += record_len(header.len as usize);
    }
}

/// The header of a record of ours, whatever its salt.
fn unsalted(head: &[u8; HEADER_LEN]) -> Option<Header> {
    let mut plain = *head;
    let (covered, sum) = plain.split_last_chunk_mut::<4>()?;
    *sum = crc::crc32c(covered).to_le_bytes();
    Header::parse(&plain, 0)
}
