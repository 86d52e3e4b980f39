//! What the journal has to know, worked out from state: which record comes next, and what must wait for it.
//!
//! ```text
//!   an order ends, begins, a lineage comes ──▶ pending ── poll_record ──▶ told ── recorded ──▶ known to the journal
//!                                                 ▲                        │
//!                                                 └──── record_failed ─────┘   then everything, as a snapshot
//! ```
//!
//! Until everything is known, no WELCOME, no OUTCOME and nothing of the queue leaves, and no order goes to the handler
//! whose START is not known. What SETTLED freed waits for the next record that has to be written.

mod snapshot;

use core::time::Duration;

use wire_format::frame::{Bye, bye};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::config::JOURNAL_RETRY;
use super::floors::Log;
use super::journal::{Journal, RECORD_MAX};
use super::record::Record;
use super::ring::{Note, Place};
use super::session::Words;
use super::{Receiver, Storage};
use crate::ended::Ended;

pub use snapshot::Cursor;

/// What a receiver knows of its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    /// The second in which it failed last, modulo 2^16.
    failed_s: u16,
    flags: u8,
}

/// There is one.
const USED: u8 = 0x01;
/// Something that must not wait is pending or told.
const DUE: u8 = 0x02;
/// Everything is due, as a snapshot.
const SNAPSHOT: u8 = 0x04;
/// It did not take the last write.
const FAILING: u8 = 0x08;
/// That was not said yet.
const UNSAID: u8 = 0x10;
/// What was written before this boot is not all there.
const LOST: u8 = 0x20;
/// The fence obeyed is pending.
const FENCE: u8 = 0x40;
/// A snapshot of this device was found.
const HEADED: u8 = 0x80;

impl Keep {
    pub(super) const NONE: Self = Self { flags: 0, failed_s: 0 };

    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn is_used(self) -> bool {
        self.has(USED)
    }

    pub(super) const fn is_failing(self) -> bool {
        self.has(FAILING)
    }

    pub(super) const fn is_lost(self) -> bool {
        self.has(LOST)
    }

    pub(super) const fn lose(&mut self) {
        self.flags |= LOST;
    }

    pub(super) const fn is_headed(self) -> bool {
        self.has(HEADED)
    }

    pub(super) const fn set_headed(&mut self, is_headed: bool) {
        self.flags = if is_headed { self.flags | HEADED } else { self.flags & !HEADED };
    }

    /// A journal is there from here on. Without a whole snapshot of this device in it, it gets one first of all.
    pub(super) const fn begin(&mut self, is_due: bool) {
        self.flags |= USED | if is_due { DUE } else { 0 };
        if !self.has(HEADED) || self.has(LOST) {
            self.flags |= SNAPSHOT;
        }
    }

    /// The fence obeyed is another one.
    pub(super) const fn note_fence(&mut self) {
        if self.has(USED) {
            self.flags |= FENCE | DUE;
        }
    }

    pub(super) const fn take_failure(&mut self) -> bool {
        let unsaid = self.has(UNSAID);
        self.flags &= !UNSAID;
        unsaid
    }

    /// When the next write is tried; `None` if nothing stands in its way.
    pub(super) fn retry_at(self, now: Instant) -> Option<Instant> {
        if !self.has(FAILING) {
            return None;
        }
        let gone = u64::from(second(now).wrapping_sub(self.failed_s));
        let left = JOURNAL_RETRY.as_secs().saturating_sub(gone);
        Some(now + Duration::from_secs(left))
    }
}

fn second(now: Instant) -> u16 {
    u16::try_from((now.as_millis() / 1_000) & u64::from(u16::MAX)).unwrap_or(0)
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// Writes what the journal has to know, if anything: appends and syncs, or replaces everything when the journal wants
    /// that or failed before. To be called after every input and after [`Receiver::handle_timeout`], before
    /// [`Receiver::poll_order`] and [`Receiver::poll_transmit`].
    ///
    /// `true` says that something was written: offer unread bytes and poll for orders again, because what waited for it
    /// may begin. After an error the session ends, HELLOs are refused as BUSY, and the next call after
    /// [`super::JOURNAL_RETRY`] tries again; nothing is to be done about it here.
    pub fn record<J: Journal + ?Sized>(&mut self, now: Instant, journal: &mut J) -> Result<bool, J::Error> {
        if !self.wants_record(now) {
            return Ok(false);
        }
        let written = if self.wants_snapshot() || journal.wants_snapshot() {
            let mut cursor = Cursor::START;
            journal.replace(&mut |into| self.poll_snapshot(&mut cursor, into))
        } else {
            self.append(journal)
        };
        match written {
            Ok(()) => self.recorded(now),
            Err(_) => self.record_failed(now),
        }
        written.map(|()| true)
    }

    fn append<J: Journal + ?Sized>(&mut self, journal: &mut J) -> Result<(), J::Error> {
        let mut into = [0; RECORD_MAX];
        while let Some(len) = self.poll_record(&mut into) {
            journal.append(into.get(..len).unwrap_or_default())?;
        }
        journal.sync()
    }

    /// Whether something has to be written now.
    #[must_use]
    pub fn wants_record(&self, now: Instant) -> bool {
        match self.keep.retry_at(now) {
            Some(at) => at <= now,
            None => self.keep.is_used() && self.keep.has(DUE | SNAPSHOT),
        }
    }

    /// Whether that has to be a snapshot: the journal is new, damaged, or failed before. Then [`Receiver::poll_record`]
    /// gives nothing.
    #[must_use]
    pub const fn wants_snapshot(&self) -> bool {
        self.keep.has(SNAPSHOT)
    }

    /// The next record to append; its length. `None` if there is none: sync, and call [`Receiver::recorded`].
    ///
    /// Nothing is given as long as nothing has to be written, and between the first record and `recorded` or
    /// [`Receiver::record_failed`] belongs no other input. [`Receiver::record`] does all of it.
    pub fn poll_record(&mut self, into: &mut [u8; RECORD_MAX]) -> Option<usize> {
        if !self.keep.is_used() || !self.keep.has(DUE) || self.wants_snapshot() {
            return None;
        }
        let record = self.next_record()?;
        record.emit(into).ok()
    }

    fn next_record(&mut self) -> Option<Record> {
        if let Some(known) = self.known().filter(|_| self.keep.has(FENCE)) {
            self.keep.flags &= !FENCE;
            return Some(Record::Fence(known));
        }
        if let Some(log) = self.floors.pending() {
            self.floors.tell(log);
            return self.floors.kept(log).map(Record::Lineage);
        }
        if let Some(record) = self.keys.take_due() {
            return Some(record);
        }
        let pending = self.ring.pending();
        while let Some((log, lane)) = self.floors.settled_due() {
            self.floors.set_settled(log, lane, false);
            // The next record of the same lane says it as well.
            if pending.is_none_or(|(_, slot)| (slot.place().log, slot.place().lane) != (log, lane)) {
                return Some(self.lane_record(log, lane));
            }
        }
        let (at, slot) = pending?;
        self.ring.tell(at);
        let (place, keys) = (slot.place(), self.keys.of(slot.place()));
        let settled = self.settled(place.log, place.lane);
        Some(if slot.is_open() {
            Record::Start { place, settled, keys }
        } else {
            Record::End { place, settled, ending: slot.ending(), keys }
        })
    }

    /// Up to which number the outcomes of a lane are settled.
    fn settled(&self, log: Log, lane: Lane) -> u64 {
        self.ring.settled_below(log, lane).unwrap_or_else(|| self.floors.floor(log, lane))
    }

    /// A floor is told only if nothing below it is owed: what is owed tells of it itself.
    fn lane_record(&self, log: Log, lane: Lane) -> Record {
        let settled = self.settled(log, lane);
        let mut floor = self.floors.lane_floor(log, lane);
        if floor.floor > settled {
            (floor.floor, floor.run) = (0, 0);
        }
        Record::Lane { log, lane, settled, floor }
    }

    /// Everything [`Receiver::poll_record`], or a snapshot to its end, gave is synced.
    pub fn recorded(&mut self, now: Instant) {
        self.touch(now);
        self.ring.recorded();
        self.floors.recorded();
        let is_due = self.ring.pending().is_some()
            || self.floors.pending().is_some()
            || self.keys.is_due()
            || self.keep.has(FENCE);
        if !is_due {
            self.keep.flags &= !DUE;
        }
        if !self.wants_snapshot() {
            self.keep.flags &= !FAILING;
        }
    }

    /// A write failed: nothing since the last sync is known to be there. The session ends, what has begun keeps its end
    /// in memory, and the next write, after [`super::JOURNAL_RETRY`], is a snapshot.
    pub fn record_failed(&mut self, now: Instant) {
        self.touch(now);
        self.ring.untell();
        self.floors.untell();
        self.keep.flags |= SNAPSHOT | FAILING | UNSAID;
        self.keep.failed_s = second(now);
        if let Some(slot) = self.session.conn.and_then(|conn| self.slot(conn)) {
            let retry_after_ms = u32::try_from(JOURNAL_RETRY.as_millis()).unwrap_or(u32::MAX);
            let bye = Bye { code: bye::Code::STORAGE, retry_after_ms };
            self.part(now, slot, Ended::JournalFailed, Words::Bye(bye));
        }
    }

    /// This device has a journal.
    pub(super) const fn is_journalled(&self) -> bool {
        self.keep.is_used()
    }

    /// What must leave after a record has to wait.
    pub(super) const fn is_unrecorded(&self) -> bool {
        self.keep.has(DUE | SNAPSHOT | FAILING)
    }

    /// What happens in the ring is for the journal, if there is one.
    pub(super) const fn note(&self) -> Note {
        if self.is_journalled() { Note::RECORD } else { Note::NONE }
    }

    /// Orders have ended, perhaps: what is still held has not.
    pub(super) fn note_ends(&mut self) {
        if self.is_journalled() && self.ring.pending().is_some() {
            self.keep.flags |= DUE;
        }
    }

    /// An order has ended for nobody: its keys are all the journal has to know of it.
    pub(super) const fn note_keys(&mut self) {
        if self.keys.is_due() {
            self.keep.flags |= DUE;
        }
    }

    /// An order that must not run twice is about to begin.
    pub(super) fn note_start(&mut self, place: Place) {
        self.ring.note(place);
        self.keep.flags |= DUE;
    }

    /// Lineages, or the fence, are others than before.
    pub(super) fn note_session(&mut self) {
        if self.is_journalled() && self.floors.pending().is_some() {
            self.keep.flags |= DUE;
        }
    }
}
