//! The only code that changes marks, with `log`, which confirms the ends of the durable log. With a mark change the cursors
//! and counts of its device's track, so that they always agree: `owed`, `sent` and `out` count marks, `next`, `unreceived`
//! and `oldest` name the lowest order of each sort.
//!
//! A cursor moves by walking its track from where it stands, and only if the count says that there is more: a device that
//! is owed one order costs O(1) however many orders of others lie around it.

use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::Fleet;
use super::device::{State, flag};
use super::devices::DeviceStorage;
use super::list::NONE;
use super::order::{MarkBytes, OrderStorage};
use super::resume::Suspicion;
use super::tell::{Item, Sort, Told};
use super::track::{Track, TrackState};
use crate::mark::Mark;

/// How an order ended on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) code: Code,
    pub(super) first_code: Code,
    pub(super) device_ms: u32,
    /// It came in an OUTCOME, which the device keeps until it is settled.
    pub(super) by_device: bool,
    /// The device will not take it again, so no SETTLED gives its credit back.
    pub(super) forgotten: bool,
}

impl End {
    /// An end the server gives.
    pub(super) const fn by_server(code: Code) -> Self {
        Self { code, first_code: code, device_ms: 0, by_device: false, forgotten: false }
    }

    /// What the device would answer to an order it has ended and settled: a duplicate, of which nobody knows how it ended.
    pub(super) const fn forgotten_there() -> Self {
        Self { by_device: true, ..Self::by_server(Code::DUPLICATE) }
    }

    /// An end the server gives to an order of an earlier session that is not sent again.
    pub(super) const fn in_doubt(code: Code) -> Self {
        Self { forgotten: true, ..Self::by_server(code) }
    }
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// The order has been written to the device, or the first part of it.
    pub(super) fn mark_sent(&mut self, index: u32, slot: u32) {
        let order = self.orders.at_mut(slot);
        let (track, number, len, was) = (order.track, order.number, order.len, order.mark(index));
        let cancelled = order.cancel_seq != 0;
        order.set_mark(index, Mark::SENT);
        order.unsent = order.unsent.saturating_sub(u32::from(was == Mark::PENDING));
        let state = self.devices.track_mut(index, track);
        state.owed = state.owed.saturating_sub(1);
        let (owed, is_next) = (state.owed != 0, state.next == slot);
        if !owed {
            state.next = NONE;
        }
        state.sent = state.sent.saturating_add(1);
        state.out = state.out.saturating_add(1);
        state.held = state.held.saturating_add(1);
        if was == Mark::REPEAT {
            let (oldest, unreceived) = (state.oldest, state.unreceived);
            let lowest = (self.lower(oldest, slot), self.lower(unreceived, slot));
            let state = self.devices.track_mut(index, track);
            (state.oldest, state.unreceived) = lowest;
        } else {
            // Behind everything that is out: repetitions go first.
            state.oldest = first(state.oldest, slot);
            state.unreceived = first(state.unreceived, slot);
        }
        let awake = self.awake(self.now);
        let device = self.devices.at_mut(index);
        if device.bytes == 0 {
            device.receipt_since = awake;
        }
        device.bytes = device.bytes.saturating_add(len);
        if !owed {
            device.owing &= !track.bit();
        }
        if was == Mark::REPEAT {
            device.tally.replays = device.tally.replays.saturating_add(1);
        }
        if owed && is_next {
            self.owe_next(index, track, slot);
        }
        self.devices.note_written(index, track, number);
        self.durable_out = self.durable_out.saturating_add(u32::from(track.is_durable()));
        if cancelled {
            self.cancel_sent(index, slot);
        }
    }

    /// The device has the order.
    pub(super) fn mark_received(&mut self, index: u32, slot: u32) {
        let order = self.orders.at_mut(slot);
        if order.mark(index) == Mark::SENT {
            order.set_mark(index, Mark::RECEIVED);
            self.unsend(index, slot);
        }
    }

    /// The device has everything of the track up to `number`.
    pub(super) fn mark_received_upto(&mut self, index: u32, track: Track, number: u64) {
        loop {
            let slot = self.devices.track(index, track).unreceived;
            if slot == NONE || self.orders.at(slot).number > number {
                return;
            }
            self.mark_received(index, slot);
        }
    }

    /// The device works on the order.
    pub(super) fn mark_started(&mut self, index: u32, slot: u32) {
        self.mark_received(index, slot);
        let order = self.orders.at_mut(slot);
        if order.mark(index) == Mark::RECEIVED {
            order.set_mark(index, Mark::STARTED);
        }
    }

    /// The device sent the result of the order.
    pub(super) fn mark_resulted(&mut self, index: u32, slot: u32) {
        self.mark_received(index, slot);
        let order = self.orders.at_mut(slot);
        if order.mark(index).is_out() {
            order.set_mark(index, Mark::RESULTED);
        }
    }

    /// The outcome of an order out there is waited for, however the device was heard of it.
    pub(super) fn mark_waiting(&mut self, index: u32, slot: u32, mark: Mark) {
        self.mark_received(index, slot);
        let order = self.orders.at_mut(slot);
        if order.mark(index).is_out() {
            order.set_mark(index, mark);
        }
    }

    /// An order that was written is owed again: as `mark`, REPEAT, or PENDING if it never left whole.
    pub(super) fn mark_owed(&mut self, index: u32, slot: u32, mark: Mark) {
        let order = self.orders.at_mut(slot);
        let (track, was) = (order.track, order.mark(index));
        if !was.is_out() {
            return;
        }
        order.set_mark(index, mark);
        order.unsent = order.unsent.saturating_add(u32::from(mark == Mark::PENDING));
        self.count_in(index, track);
        if was == Mark::SENT {
            self.unsend(index, slot);
        }
        self.unout(index, track, slot);
        let next = self.lower(self.devices.track(index, track).next, slot);
        let state = self.devices.track_mut(index, track);
        state.next = next;
        state.owed = state.owed.saturating_add(1);
        state.held = state.held.saturating_sub(1);
        self.devices.at_mut(index).owing |= track.bit();
    }

    /// An order that was owed (again) counts as written after all: its outcome is waited for, or in doubt.
    pub(super) fn mark_unowed(&mut self, index: u32, slot: u32) {
        self.unowe_as(index, slot, Mark::RECEIVED);
    }

    fn unowe_as(&mut self, index: u32, slot: u32, mark: Mark) {
        let order = self.orders.at_mut(slot);
        let (track, was) = (order.track, order.mark(index));
        if !was.is_owed() {
            return;
        }
        order.set_mark(index, mark);
        order.unsent = order.unsent.saturating_sub(u32::from(was == Mark::PENDING));
        self.unowe(index, track, slot);
        let oldest = self.lower(self.devices.track(index, track).oldest, slot);
        let state = self.devices.track_mut(index, track);
        state.oldest = oldest;
        state.out = state.out.saturating_add(1);
        state.lingering = state.lingering.saturating_add(u16::from(mark.is_lingering()));
        if mark.is_out() {
            self.count_out(index, track);
        }
    }

    /// The order is over on this device. Of the volatile log: the mark is final, the outcome is told. Of the durable log: it
    /// is told to be logged. The caller sees to it that `told` has room and that the order is not over there yet.
    pub(super) fn mark_ended(&mut self, now: Instant, index: u32, slot: u32, end: End) {
        let mut end = end;
        let again = end.by_device && end.first_code.is_attempt_end();
        let again = if again { self.judge_attempt(now, index, slot, &mut end) } else { None };
        let order = self.orders.at(slot);
        if order.track.is_durable() && !self.abandoned {
            return self.mark_unlogged(index, slot, end);
        }
        let (track, was) = (order.track, order.mark(index));
        if was.is_final() || was == Mark::NOT_TARGETED {
            return;
        }
        let item = self.mark_over(now, index, slot, end, again);
        if track.is_durable() {
            // Its log is given up.
            self.count_said(index, was);
            if was.is_out() {
                self.count_in(index, track);
            }
        }
        self.unsort(index, slot, was);
        let state = self.devices.track_mut(index, track);
        if end.by_device {
            state.ended = state.ended.max(item.number);
        } else if end.forgotten {
            state.held = state.held.saturating_sub(1);
        }
        self.unsuspect(index, slot, end);
        self.told.push(item);
        if !end.by_device {
            // It stood before one that had ended.
            self.settle_if_owed(now, index);
        }
        self.finish_if_over(slot);
    }

    /// Sets the mark of an end that counts, or of an attempt that is repeated, and what the order counts with it. The item
    /// to tell.
    #[inline]
    pub(super) fn mark_over(
        &mut self,
        now: Instant,
        index: u32,
        slot: u32,
        end: End,
        again: Option<Mark>,
    ) -> Item {
        let order = self.orders.at_mut(slot);
        order.set_mark(index, again.unwrap_or_else(|| Mark::ended(end.first_code)));
        order.open = order.open.saturating_sub(u32::from(again.is_none()));
        order.unsent = order.unsent.saturating_add(u32::from(again.is_some()));
        let (number, latency, retry) = (order.number, now.since(order.submitted), order.key.is_retry());
        if again.is_some() {
            let device = self.devices.at_mut(index);
            device.retried = device.retried.saturating_add(1);
            self.stats.attempts = self.stats.attempts.wrapping_add(1);
        } else if !retry {
            // The end of a further attempt is told to the order it belongs to, and counted there.
            self.stats.outcomes.count(end.first_code);
        }
        let sort = if again.is_some() { Sort::Attempt } else { Sort::Outcome };
        Item { device: index, number, end, latency, sort }
    }

    /// The order is over on this device once the log has that.
    #[inline(never)]
    fn mark_unlogged(&mut self, index: u32, slot: u32, end: End) {
        let order = self.orders.at(slot);
        let (track, number, was) = (order.track, order.number, order.mark(index));
        if was.is_final() || was.is_unlogged() || was == Mark::NOT_TARGETED {
            return;
        }
        let waits = was.is_out() && !end.forgotten;
        let was = if was == Mark::REPEAT {
            // It was written once, so it stays below every SETTLED.
            self.unowe_as(index, slot, Mark::RECALLED);
            Mark::RECALLED
        } else {
            was
        };
        let code = end.first_code;
        let device = self.devices.at_mut(index);
        let mark = if waits {
            device.waiting = device.waiting.saturating_add(1);
            Mark::waiting(code)
        } else if was.is_held() {
            Mark::lingering(code)
        } else {
            Mark::unlogged(code)
        };
        let state = self.devices.track_mut(index, track);
        if was.is_out() && !waits {
            state.lingering = state.lingering.saturating_add(1);
            state.held = state.held.saturating_sub(1);
        }
        if end.by_device {
            state.ended = state.ended.max(number);
        }
        if was.is_out() {
            self.count_in(index, track);
        }
        if was == Mark::SENT {
            self.unsend(index, slot);
        } else if !was.is_held() {
            self.unsort(index, slot, was);
        }
        self.end_transfer(index, slot);
        if mark.is_unsaid() && !was.is_unsaid() {
            self.count_unsaid(index);
        }
        self.orders.at_mut(slot).set_mark(index, mark);
        self.unsuspect(index, slot, end);
        self.tell_log(index, number, end);
    }

    /// An order of the durable log whose end was told to be logged is no part of its track's counts any more.
    pub(super) fn unhold(&mut self, index: u32, slot: u32, was: Mark) {
        let track = self.orders.at(slot).track;
        let device = self.devices.at_mut(index);
        device.waiting = device.waiting.saturating_sub(u16::from(was.is_waiting()));
        let state = self.devices.track_mut(index, track);
        state.lingering = state.lingering.saturating_sub(u16::from(was.is_lingering()));
        if was.is_held() {
            self.unout(index, track, slot);
            self.trace_if_due(index);
        }
    }

    /// What ended in an earlier session and is not logged holds no credit of this one: the device said what it takes beyond.
    pub(super) fn mark_lingering(&mut self, index: u32, slot: u32) {
        let order = self.orders.at_mut(slot);
        let track = order.track;
        let Some(code) = order.mark(index).unlogged_code().filter(|_| order.mark(index).is_waiting()) else {
            return;
        };
        order.set_mark(index, Mark::lingering(code));
        let device = self.devices.at_mut(index);
        device.waiting = device.waiting.saturating_sub(1);
        let state = self.devices.track_mut(index, track);
        state.lingering = state.lingering.saturating_add(1);
        state.held = state.held.saturating_sub(1);
    }

    /// An order ended here: the device does not go down with it.
    #[inline]
    fn unsuspect(&mut self, index: u32, slot: u32, end: End) {
        let device = self.devices.at_mut(index);
        if device.suspicion.sessions != 0 && (end.by_device || device.suspicion.slot == slot) {
            device.set(flag::NARROW, false);
            device.suspicion = if device.suspicion.slot == slot { Suspicion::NONE } else { device.suspicion };
        }
    }

    /// The order will not be sent (again) to this device: its end is told by the sweep, which the caller starts.
    pub(super) fn mark_withdrawn(&mut self, index: u32, slot: u32, mark: Mark) {
        let order = self.orders.at_mut(slot);
        let (durable, was) = (order.track.is_durable(), order.mark(index));
        if !was.is_owed() && was.attempt_code().is_none() {
            return;
        }
        if durable && was == Mark::REPEAT {
            return self.unowe_as(index, slot, Mark::RECALLED);
        }
        order.set_mark(index, mark);
        self.unsort(index, slot, was);
        if durable {
            self.count_unsaid(index);
        }
        self.settle_if_owed(self.now, index);
    }

    /// Takes an order that had the mark `was` out of the counts of its sort.
    #[inline]
    fn unsort(&mut self, index: u32, slot: u32, was: Mark) {
        let order = self.orders.at_mut(slot);
        let (track, len) = (order.track, order.len);
        order.unsent = order.unsent.saturating_sub(u32::from(was.is_unsent()));
        if was.is_owed() {
            self.unowe(index, track, slot);
        } else if was == Mark::SENT {
            self.unsend_and_out(index, track, slot, len);
        } else if was.is_out() {
            self.unout(index, track, slot);
        } else if was.is_unlogged() || was == Mark::RECALLED {
            self.unhold(index, slot, was);
        } else if was.is_retried() {
            let device = self.devices.at_mut(index);
            device.retried = device.retried.saturating_sub(1);
        }
    }

    /// Hands an order back once nobody needs it.
    pub(super) fn finish_if_over(&mut self, slot: u32) {
        let order = self.orders.at(slot);
        if order.open == 0 && order.pins == 0 && order.live.is_some() {
            self.deadlines.cancel(&mut self.orders, slot);
            self.sweep.remove(&mut self.orders, slot);
            self.done.push_back(&mut self.orders, slot);
        }
    }

    /// Everything the track sent up to this number is settled; 0 if nothing ended yet.
    pub(super) fn settled_upto(&self, state: &TrackState) -> u64 {
        let below =
            |slot| if slot == NONE { u64::MAX } else { self.orders.at(slot).number.saturating_sub(1) };
        state.over().min(below(state.oldest)).min(below(state.next))
    }

    /// The device holds an outcome for this number of the track: once it is settled the device is told so, whatever the
    /// number is here by now. A former place of the device may have sent it; what is submitted from now on lies above it.
    pub(super) fn note_ended(&mut self, index: u32, track: Track, number: u64) {
        if number <= self.last.of(track.is_durable()) {
            let state = self.devices.track_mut(index, track);
            state.ended = state.ended.max(number);
            self.devices.at_mut(index).busy |= track.bit();
        }
    }

    /// Whether there are outcomes the device may forget and was not told so.
    #[inline]
    pub(super) fn owes_settled(&self, index: u32) -> bool {
        let device = self.devices.at(index);
        device.busy().any(|track| {
            let state = self.devices.track(index, track);
            state.over() > state.settled
                && self.settled_upto(state) > state.settled
                && !(track.is_durable() && self.forked)
        })
    }

    /// Of an open session: what is settled leaves in time.
    #[inline]
    pub(super) fn settle_if_owed(&mut self, now: Instant, index: u32) {
        if self.devices.at(index).state == State::Open {
            self.settle_open(now, index);
        }
    }

    #[inline(never)]
    fn settle_open(&mut self, now: Instant, index: u32) {
        if self.owes_settled(index) {
            self.settle_soon(now, index);
        }
    }

    #[inline(always)]
    fn unowe(&mut self, index: u32, track: Track, slot: u32) {
        let state = self.devices.track_mut(index, track);
        state.owed = state.owed.saturating_sub(1);
        if state.owed == 0 {
            state.next = NONE;
            self.devices.at_mut(index).owing &= !track.bit();
        } else if state.next == slot {
            self.owe_next(index, track, slot);
        }
    }

    /// The order behind `slot` that is owed is the lowest one now.
    #[inline]
    fn owe_next(&mut self, index: u32, track: Track, slot: u32) {
        let next = self.orders.next_of(slot, index, Mark::is_owed);
        self.devices.track_mut(index, track).next = next;
    }

    fn unsend(&mut self, index: u32, slot: u32) {
        let (track, len) = (self.orders.at(slot).track, self.orders.at(slot).len);
        self.acknowledged(index, len);
        let state = self.devices.track_mut(index, track);
        state.sent = state.sent.saturating_sub(1);
        if state.sent == 0 {
            state.unreceived = NONE;
        } else if state.unreceived == slot {
            let next = self.orders.next_of(slot, index, |mark| mark == Mark::SENT);
            self.devices.track_mut(index, track).unreceived = next;
        }
    }

    /// Both at once. Usually the order is the lowest of both sorts, and so is the one after it: one walk finds it.
    #[inline]
    fn unsend_and_out(&mut self, index: u32, track: Track, slot: u32, len: u32) {
        let state = self.devices.track_mut(index, track);
        if state.oldest != slot || state.unreceived != slot || state.sent != state.out {
            self.unsend(index, slot);
            return self.unout(index, track, slot);
        }
        state.sent = state.sent.saturating_sub(1);
        state.out = state.sent;
        (state.unreceived, state.oldest) = (NONE, NONE);
        if state.out != 0 {
            let next = self.orders.next_of(slot, index, |mark| mark == Mark::SENT);
            let state = self.devices.track_mut(index, track);
            (state.unreceived, state.oldest) = (next, next);
        }
        self.acknowledged(index, len);
        if self.devices.at(index).transfer.slot == slot {
            self.hand_on_transfer(index, slot);
        }
    }

    /// So many bytes of an order are not on their way any more.
    #[inline]
    fn acknowledged(&mut self, index: u32, len: u32) {
        let awake = self.awake(self.now);
        let device = self.devices.at_mut(index);
        device.bytes = device.bytes.saturating_sub(len);
        device.receipt_since = if device.bytes == 0 { Instant::NEVER } else { awake };
    }

    fn unout(&mut self, index: u32, track: Track, slot: u32) {
        self.end_transfer(index, slot);
        let state = self.devices.track_mut(index, track);
        state.out = state.out.saturating_sub(1);
        if state.out == 0 {
            state.oldest = NONE;
        } else if state.oldest == slot {
            let next = self.orders.next_of(slot, index, Mark::is_held);
            self.devices.track_mut(index, track).oldest = next;
        }
    }

    #[inline]
    fn end_transfer(&mut self, index: u32, slot: u32) {
        if self.devices.at(index).transfer.slot == slot {
            self.hand_on_transfer(index, slot);
        }
    }

    /// Of two orders of one track, the one with the lower number.
    fn lower(&self, cursor: u32, slot: u32) -> u32 {
        if cursor == NONE || self.orders.at(slot).number < self.orders.at(cursor).number {
            slot
        } else {
            cursor
        }
    }
}

/// The cursor, or `slot` where it names nothing.
const fn first(cursor: u32, slot: u32) -> u32 {
    if cursor == NONE { slot } else { cursor }
}

const _: () = assert!(Told::CAPACITY >= wire_format::frame::outcome::ENTRIES_MAX);
