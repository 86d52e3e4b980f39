//! The orders received that are not known to be settled at the server, in the caller's storage.
//!
//! ```text
//!   received ──▶ waiting ──▶ started ──▶ ended ──▶ said ──▶ gone (SETTLED)
//!                   └───────────────────▶ held, while an earlier one of its lane and log has not ended
//! ```
//!
//! An order takes its slot when it is received, so there is room for its outcome when it ends. Slots stand in the order of
//! receipt, so each lane of each log stands in log order, and outcomes are said in it: one that ended before its
//! predecessor is *held* until that has ended too. SETTLED kills slots where they stand; the gaps are closed when the end
//! of the storage is reached, which costs O(1) per slot because at least half of it is free then. A new session says
//! again what SETTLED did not cover.

mod notes;
mod pieces;

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use pieces::Pieces;

use super::floors::Log;

/// One order on the device: 16 bytes of the storage given to [`super::Receiver::new`].
#[derive(Clone, Copy, Debug)]
pub struct OutcomeSlot {
    number: u64,
    /// Of an order that has not ended: when it was received, in milliseconds on the device's clock, modulo 2^32.
    /// Then what the outcome's `ms` says.
    ms: u32,
    code: u8,
    detail: u8,
    /// Log and lane, and what the journal does not know of it.
    log_lane: u8,
    state: u8,
}

const _: () = assert!(size_of::<OutcomeSlot>() == 16);

/// The log and lane of a slot.
const LOG_LANE: u8 = 0x1F;
/// Beside them: what became of the order is not in the journal.
const PENDING: u8 = 0x80;
/// The journal has it and has not synced it.
const TOLD: u8 = 0x40;

/// Not covered by SETTLED (or, for a duplicate's answer, not written).
const LIVE: u8 = 0x01;
/// In the block being written: stays where it is, even if it is settled meanwhile.
const WRITING: u8 = 0x02;
/// The answer to a duplicate: gone as soon as it is written, never looked up.
const ANSWER: u8 = 0x04;
/// Received in the present session: counts against the session's window.
const RECENT: u8 = 0x08;
/// Has not ended.
const OPEN: u8 = 0x10;
/// With OPEN: is at work.
const STARTED: u8 = 0x20;
/// Its outcome was written in the present session.
const SAID: u8 = 0x40;
/// Has ended before an earlier one of its lane and log.
const HELD: u8 = 0x80;

impl OutcomeSlot {
    /// A free slot, to fill the storage with.
    pub const EMPTY: Self = Self { number: 0, ms: 0, code: 0, detail: 0, log_lane: 0, state: 0 };

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn code(&self) -> Code {
        Code(self.code)
    }

    pub(super) const fn detail(&self) -> u8 {
        self.detail
    }

    pub(super) const fn ms(&self) -> u32 {
        self.ms
    }

    pub(super) const fn place(&self) -> Place {
        let lane = match self.log_lane & 0x03 {
            0 => Lane::Urgent,
            1 => Lane::Interactive,
            2 => Lane::Normal,
            _ => Lane::Bulk,
        };
        Place { log: self.log(), lane, number: self.number }
    }

    const fn log(&self) -> Log {
        Log((self.log_lane & LOG_LANE) >> 2)
    }

    /// How it ended.
    pub(super) const fn ending(&self) -> Ending {
        Ending { code: Code(self.code), detail: self.detail, ms: self.ms }
    }

    pub(super) fn lane(&self) -> Lane {
        Lane::new(self.log_lane & 0x03).unwrap_or_default()
    }

    /// It has not ended.
    pub(super) const fn is_open(&self) -> bool {
        self.is(LIVE | OPEN)
    }

    /// It has been begun and has not ended.
    pub(super) const fn is_started(&self) -> bool {
        self.is(LIVE | OPEN | STARTED)
    }

    const fn is(&self, bits: u8) -> bool {
        self.state & bits == bits
    }

    const fn is_in(&self, log: Log) -> bool {
        self.log().0 == log.0
    }

    /// What became of it is not in the journal for good.
    const fn is_unrecorded(&self) -> bool {
        self.is(LIVE) && self.log_lane & (PENDING | TOLD) != 0
    }

    /// It has ended and may be said: what the journal keeps of it.
    fn is_ended(&self) -> bool {
        self.is_owed() && self.state & (OPEN | HELD) == 0
    }

    /// It is not held any more: from here on it has ended for good.
    const fn release(&mut self, note: Note) {
        if self.is(HELD) {
            self.state &= !HELD;
            self.log_lane |= note.0;
        }
    }

    /// An order that SETTLED has not covered.
    const fn is_owed(&self) -> bool {
        self.state & (LIVE | ANSWER) == LIVE
    }

    /// The same, of this log and lane.
    const fn is_owed_in(&self, log: Log, lane: Lane) -> bool {
        self.is_owed() && self.log_lane & LOG_LANE == pack(log, lane)
    }

    /// Ended or held without having begun: what a new session judges anew.
    const fn is_unbegun(&self) -> bool {
        self.state & (OPEN | STARTED) == OPEN || self.is(HELD)
    }
}

/// A log and a lane in one byte.
pub(super) const fn pack(log: Log, lane: Lane) -> u8 {
    (log.0 << 2) | lane as u8
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) log: Log,
    pub(super) lane: Lane,
    pub(super) number: u64,
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) code: Code,
    pub(super) detail: u8,
    pub(super) ms: u32,
}

/// Whether what happens to a slot is for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note(u8);

impl Note {
    /// There is no journal.
    pub(super) const NONE: Self = Self(0);
    /// It is to be recorded.
    pub(super) const RECORD: Self = Self(PENDING);
}

/// What a SETTLED freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freed {
    /// Orders that had ended.
    pub(super) ended: u16,
    /// Orders that had not: the server has given up on them.
    pub(super) open: u16,
}

/// The ring. Its capacity is the storage's length, 65,535 at most.
#[derive(Debug)]
pub(super) struct Ring<R> {
    slots: R,
    head: u16,
    /// What stands before it is said, settled, or of no log of this session.
    sent: u16,
    span: u16,
    len: u16,
    live: u16,
    recent: u16,
}

impl<R: AsRef<[OutcomeSlot]> + AsMut<[OutcomeSlot]>> Ring<R> {
    pub(super) fn new(mut slots: R) -> Self {
        slots.as_mut().fill(OutcomeSlot::EMPTY);
        Self { slots, head: 0, sent: 0, span: 0, len: 0, live: 0, recent: 0 }
    }

    pub(super) fn capacity(&self) -> u16 {
        u16::try_from(self.slots.as_ref().len()).unwrap_or(u16::MAX)
    }

    /// Slots in use, answers to duplicates included.
    pub(super) const fn live(&self) -> u16 {
        self.live
    }

    /// Orders of the present session that SETTLED has not covered.
    pub(super) const fn recent(&self) -> u16 {
        self.recent
    }

    /// Slots in use by one log.
    pub(super) fn live_in(&self, log: Log) -> u16 {
        let slots = self.used().iter().filter(|slot| slot.is(LIVE) && slot.is_in(log));
        u16::try_from(slots.count()).unwrap_or(u16::MAX)
    }

    /// Whether one more can be kept.
    pub(super) fn has_room(&mut self) -> bool {
        if self.len == self.capacity() {
            self.close_gaps();
        }
        self.len < self.capacity()
    }

    /// Whether an answer to a duplicate waits to be written.
    pub(super) fn has_answers(&self) -> bool {
        self.used().iter().any(|slot| slot.is(LIVE | ANSWER))
    }

    /// Keeps an order of this session that has arrived. `false` if there is no room.
    pub(super) fn open(&mut self, place: Place, received_ms: u32) -> bool {
        let kept =
            self.put(place, Ending { code: Code(0), detail: 0, ms: received_ms }, LIVE | RECENT | OPEN);
        self.recent = self.recent.saturating_add(u16::from(kept));
        kept
    }

    /// An order that has not ended came again, in a new session: it counts in this one. `None` if there is no such.
    pub(super) fn receive_again(&mut self, place: Place) -> Option<()> {
        let slot = self.find_mut(place)?;
        let fresh = !slot.is(RECENT);
        slot.state |= RECENT;
        self.recent = self.recent.saturating_add(u16::from(fresh));
        Some(())
    }

    /// The number received last in a lane, as far as the ring holds any.
    pub(super) fn last(&self, log: Log, lane: Lane) -> Option<u64> {
        self.used().iter().rev().find(|slot| slot.is_owed_in(log, lane)).map(|slot| slot.number)
    }

    /// The order with this number, in whatever lane.
    pub(super) fn by_number(&self, log: Log, number: u64) -> Option<&OutcomeSlot> {
        self.used().iter().rev().find(|slot| slot.number == number && slot.is_owed() && slot.is_in(log))
    }

    /// Whether an order with these low bits of its number is in the ring.
    pub(super) fn owes(&self, log_lane: u8, number: u32) -> bool {
        let low = u64::from(u32::MAX);
        let is_it = |slot: &OutcomeSlot| {
            slot.log_lane & LOG_LANE == log_lane && slot.number & low == u64::from(number)
        };
        self.used().iter().any(|slot| slot.is_owed() && is_it(slot))
    }

    /// The order begins.
    pub(super) fn start(&mut self, place: Place) {
        if let Some(slot) = self.find_mut(place) {
            slot.state |= STARTED;
        }
    }

    /// The order has ended; `now_ms` gives the time it took, unless the ending says when to try again. It is held until
    /// [`Ring::release`]. `false` if it is not in the ring: settled, or of a lineage that is gone.
    pub(super) fn end(
        &mut self,
        place: Place,
        now_ms: u32,
        code: Code,
        detail: u8,
        retry: Option<u32>,
    ) -> bool {
        let Some(slot) = self.find_mut(place).filter(|slot| slot.is_open()) else { return false };
        slot.ms = retry.unwrap_or_else(|| now_ms.wrapping_sub(slot.ms));
        (slot.code, slot.detail) = (code.0, detail);
        slot.state = (slot.state & !(OPEN | STARTED)) | HELD;
        true
    }

    /// `place` alone is not held any more: nothing of its lane is open.
    pub(super) fn release_one(&mut self, place: Place, note: Note) {
        if let Some(slot) = self.find_mut(place) {
            slot.release(note);
        }
    }

    /// What of this lane and log has ended with everything before it is not held any more; the last of it.
    pub(super) fn release(&mut self, log: Log, lane: Lane, note: Note) -> Option<u64> {
        let mut last = None;
        let head = usize::from(self.head);
        for slot in self.used_mut().iter_mut().skip(head).filter(|slot| slot.is_owed_in(log, lane)) {
            if slot.is(OPEN) {
                break;
            }
            slot.release(note);
            last = Some(slot.number);
        }
        last
    }

    /// Answers an order that ended before: DUPLICATE with the code it ended with, 0 if that is forgotten.
    pub(super) fn push_answer(&mut self, place: Place) -> bool {
        let first = self.find(place).filter(|slot| !slot.is_open());
        let detail = first.map_or(0, |slot| slot.code);
        self.put(place, Ending { code: Code::DUPLICATE, detail, ms: 0 }, LIVE | ANSWER)
    }

    fn put(&mut self, place: Place, ending: Ending, state: u8) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(slot) = self.slots.as_mut().get_mut(usize::from(self.len)) else { return false };
        *slot = OutcomeSlot {
            number: place.number,
            ms: ending.ms,
            code: ending.code.0,
            detail: ending.detail,
            log_lane: pack(place.log, place.lane),
            state,
        };
        self.len = self.len.saturating_add(1);
        self.live = self.live.saturating_add(1);
        true
    }

    /// Forgets what the server has logged: all of this lane up to `number`.
    ///
    /// Ends at the first slot of the lane above `number`: what it visits is what it frees, and what other lanes owe
    /// between.
    pub(super) fn settle(&mut self, log: Log, lane: Lane, number: u64) -> Freed {
        let (mut freed, mut recent) = (Freed::default(), 0_u16);
        let head = usize::from(self.head);
        for slot in self.used_mut().iter_mut().skip(head).filter(|slot| slot.is_owed_in(log, lane)) {
            if slot.number > number {
                break;
            }
            recent = recent.saturating_add(u16::from(slot.is(RECENT)));
            let kind = if slot.is(OPEN) { &mut freed.open } else { &mut freed.ended };
            *kind = kind.saturating_add(1);
            slot.state &= WRITING;
        }
        self.recent = self.recent.saturating_sub(recent);
        self.live = self.live.saturating_sub(freed.ended).saturating_sub(freed.open);
        self.skip_dead();
        freed
    }

    /// The lineage behind `log` is gone, and with it whoever waited for its outcomes. How many were dropped.
    pub(super) fn forget(&mut self, log: Log) -> u16 {
        let before = self.live;
        self.drop_where(|slot| slot.is_in(log));
        before.saturating_sub(self.live)
    }

    /// The session is over: what was not begun in it goes, because the next one brings it again; so do answers nobody
    /// waits for any more. Nothing has been said in the next one.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.span) = (0, 0);
        for slot in self.used_mut() {
            slot.state &= !(WRITING | RECENT | SAID);
        }
        self.drop_where(|slot| slot.is(ANSWER) || slot.is_unbegun());
        self.sent = self.head;
    }

    /// Fixes what the next block says: unsaid outcomes of one of the two logs, at most `max`, in the order of receipt. The
    /// log and how many; `None` if nothing of these logs is unsaid.
    pub(super) fn begin_block(&mut self, logs: [Option<Log>; 2], max: u16) -> Option<(Log, u16)> {
        self.skip_said(logs);
        let mut chosen = None;
        let mut count = 0_u16;
        let (mut at, mut end) = (self.sent, self.sent);
        let from = usize::from(self.sent);
        for slot in self.used_mut().iter_mut().skip(from) {
            at = at.saturating_add(1);
            let log = logs.into_iter().flatten().find(|log| slot.is_in(*log));
            let Some(log) = log.filter(|_| slot.state & (LIVE | OPEN | HELD | SAID) == LIVE) else {
                continue;
            };
            if count == max || chosen.is_some_and(|chosen| chosen != log) {
                break;
            }
            chosen = Some(log);
            slot.state |= WRITING;
            count = count.saturating_add(1);
            end = at;
        }
        self.span = end.saturating_sub(self.sent);
        chosen.map(|log| (log, count))
    }

    /// Whether there are outcomes that were not looked at since the last one was said.
    pub(super) const fn may_have_unsaid(&self) -> bool {
        self.sent < self.len
    }

    /// Moves `sent` to the first slot that may have to be said in this session.
    fn skip_said(&mut self, logs: [Option<Log>; 2]) {
        let said = |slot: &&OutcomeSlot| {
            !slot.is(LIVE) || slot.is(SAID) || !logs.into_iter().flatten().any(|log| slot.is_in(log))
        };
        let skipped = self.used().iter().skip(usize::from(self.sent)).take_while(said).count();
        self.sent = self.sent.saturating_add(u16::try_from(skipped).unwrap_or(u16::MAX)).min(self.len);
    }

    /// The block in pieces of at most `max` entries: what one OUTCOME frame holds.
    pub(super) fn pieces(&self, max: u16) -> Pieces<'_> {
        let (from, end) = (usize::from(self.sent), usize::from(self.sent.saturating_add(self.span)));
        Pieces { slots: self.used().get(from..end).unwrap_or(&[]), max: max.max(1) }
    }

    /// The block has left as a whole.
    pub(super) fn end_block(&mut self) {
        let from = usize::from(self.sent);
        let end = self.sent.saturating_add(self.span);
        let mut answers = 0_u16;
        for slot in self.used_mut().get_mut(from..usize::from(end)).unwrap_or(&mut []) {
            if slot.is(WRITING | ANSWER) {
                slot.state = 0;
                answers = answers.saturating_add(1);
            } else if slot.is(WRITING) {
                slot.state = (slot.state & !WRITING) | SAID;
            }
        }
        self.live = self.live.saturating_sub(answers);
        self.span = 0;
        self.skip_dead();
    }

    /// The block was given up.
    pub(super) fn drop_block(&mut self) {
        for slot in self.used_mut() {
            slot.state &= !WRITING;
        }
        self.span = 0;
        self.skip_dead();
    }

    /// The order of one of these logs that has ended first, and is in the journal.
    pub(super) fn first_ended(&self, of: impl Fn(Log) -> bool) -> Option<Place> {
        let goes = |slot: &&OutcomeSlot| slot.is_ended() && !slot.is_unrecorded() && of(slot.log());
        self.used().iter().find(goes).map(OutcomeSlot::place)
    }

    fn find(&self, place: Place) -> Option<&OutcomeSlot> {
        let Place { log, lane, number } = place;
        self.used().iter().rev().find(|slot| slot.number == number && slot.is_owed_in(log, lane))
    }

    fn find_mut(&mut self, place: Place) -> Option<&mut OutcomeSlot> {
        let Place { log, lane, number } = place;
        self.used_mut().iter_mut().rev().find(|slot| slot.number == number && slot.is_owed_in(log, lane))
    }

    fn used(&self) -> &[OutcomeSlot] {
        self.slots.as_ref().get(..usize::from(self.len)).unwrap_or(&[])
    }

    fn used_mut(&mut self) -> &mut [OutcomeSlot] {
        self.slots.as_mut().get_mut(..usize::from(self.len)).unwrap_or(&mut [])
    }

    fn drop_where(&mut self, goes: impl Fn(&OutcomeSlot) -> bool) {
        let (mut live, mut recent) = (0_u16, 0_u16);
        for slot in self.used_mut() {
            if goes(slot) {
                slot.state = 0;
            }
            live = live.saturating_add(u16::from(slot.is(LIVE)));
            recent = recent.saturating_add(u16::from(slot.is(LIVE | RECENT)));
        }
        (self.live, self.recent) = (live, recent);
        self.skip_dead();
    }

    /// Moves `head` to the first live slot, and everything back to the start of the storage if there is none.
    fn skip_dead(&mut self) {
        let dead = |slot: &&OutcomeSlot| slot.state & (LIVE | WRITING) == 0;
        let skipped = self.used().iter().skip(usize::from(self.head)).take_while(dead).count();
        self.head = self.head.saturating_add(u16::try_from(skipped).unwrap_or(u16::MAX));
        if self.head == self.len && self.span == 0 {
            (self.head, self.sent, self.len) = (0, 0, 0);
        }
    }

    /// Moves what is live or being written to the front, in its order.
    fn close_gaps(&mut self) {
        let (mut to, mut sent, mut span) = (0_u16, 0_u16, 0_u16);
        for from in 0..self.len {
            let Some(slot) = self.used().get(usize::from(from)).copied() else { break };
            if slot.state & (LIVE | WRITING) == 0 {
                continue;
            }
            if from < self.sent {
                sent = sent.saturating_add(1);
            } else if from < self.sent.saturating_add(self.span) {
                span = span.saturating_add(1);
            }
            if let Some(place) = self.slots.as_mut().get_mut(usize::from(to)) {
                *place = slot;
            }
            to = to.saturating_add(1);
        }
        (self.head, self.sent, self.span, self.len) = (0, sent, span, to);
    }
}

#[cfg(test)]
#[path = "tests/ring.rs"]
mod tests;
