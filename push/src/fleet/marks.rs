//! The only code that changes marks. With a mark change the cursors and counts of its device's lane, so that they always
//! agree: `owed`, `sent` and `out` count marks, `next`, `unreceived` and `oldest` name the lowest order of each sort.
//!
//! A cursor moves by walking its lane from where it stands, and only if the count says that there is more: a device that
//! is owed one order costs O(1) however many orders of others lie around it.

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::Fleet;
use super::device::{LaneState, State, flag};
use super::devices::DeviceStorage;
use super::list::NONE;
use super::order::{MarkBytes, OrderStorage};
use super::parts::Transfer;
use super::resume::Suspicion;
use super::tell::Told;
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

    /// An end the server gives to an order of an earlier session that is not sent again.
    pub(super) const fn in_doubt(code: Code) -> Self {
        Self { forgotten: true, ..Self::by_server(code) }
    }
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// The order has been written to the device, or the first part of it.
    pub(super) fn mark_sent(&mut self, index: u32, slot: u32) {
        let order = self.orders.at_mut(slot);
        let (lane, number, len, was) = (order.lane, order.number, order.len, order.mark(index));
        let cancelled = order.cancel_seq != 0;
        order.set_mark(index, Mark::SENT);
        self.unowe(index, lane, slot, was);
        let state = self.devices.at(index).lane(lane);
        let (oldest, unreceived) = if number > state.upto {
            // Behind everything that is out.
            (first(state.oldest, slot), first(state.unreceived, slot))
        } else {
            (self.lower(state.oldest, slot), self.lower(state.unreceived, slot))
        };
        let awake = self.awake(self.now);
        let device = self.devices.at_mut(index);
        if device.bytes == 0 {
            device.receipt_since = awake;
        }
        device.bytes = device.bytes.saturating_add(len);
        let state = device.lane_mut(lane);
        state.oldest = oldest;
        state.unreceived = unreceived;
        state.sent = state.sent.saturating_add(1);
        state.out = state.out.saturating_add(1);
        state.held = state.held.saturating_add(u16::from(was == Mark::PENDING));
        state.upto = state.upto.max(number);
        if was == Mark::REPEAT {
            device.tally.replays = device.tally.replays.saturating_add(1);
        }
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

    /// The device has everything of the lane up to `number`.
    pub(super) fn mark_received_upto(&mut self, index: u32, lane: Lane, number: u64) {
        loop {
            let slot = self.devices.at(index).lane(lane).unreceived;
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
        let (lane, was) = (order.lane, order.mark(index));
        if !was.is_out() {
            return;
        }
        order.set_mark(index, mark);
        order.unsent = order.unsent.saturating_add(u32::from(mark == Mark::PENDING));
        if was == Mark::SENT {
            self.unsend(index, slot);
        }
        self.unout(index, lane, slot);
        let next = self.lower(self.devices.at(index).lane(lane).next, slot);
        let state = self.devices.at_mut(index).lane_mut(lane);
        state.next = next;
        state.owed = state.owed.saturating_add(1);
        if mark == Mark::REPEAT {
            state.repeats = state.repeats.saturating_add(1);
        } else {
            state.held = state.held.saturating_sub(1);
        }
    }

    /// An order that was owed again counts as written after all: its outcome is waited for, or in doubt.
    pub(super) fn mark_unowed(&mut self, index: u32, slot: u32) {
        let order = self.orders.at_mut(slot);
        let lane = order.lane;
        if order.mark(index) != Mark::REPEAT {
            return;
        }
        order.set_mark(index, Mark::RECEIVED);
        self.unowe(index, lane, slot, Mark::REPEAT);
        let oldest = self.lower(self.devices.at(index).lane(lane).oldest, slot);
        let state = self.devices.at_mut(index).lane_mut(lane);
        state.oldest = oldest;
        state.out = state.out.saturating_add(1);
    }

    /// The order is over on this device: the mark is final, the outcome is told. The caller sees to it that `told` has
    /// room and that the mark is not final yet.
    pub(super) fn mark_ended(&mut self, now: Instant, index: u32, slot: u32, end: End) {
        let mut end = end;
        let again = end.by_device && end.first_code.is_attempt_end();
        let again = if again { self.judge_attempt(now, index, slot, &mut end) } else { None };
        let order = self.orders.at_mut(slot);
        let (lane, was) = (order.lane, order.mark(index));
        if was.is_final() || was == Mark::NOT_TARGETED {
            return;
        }
        order.set_mark(index, again.unwrap_or_else(|| Mark::ended(end.first_code)));
        order.open = order.open.saturating_sub(u32::from(again.is_none()));
        order.unsent = order.unsent.saturating_add(u32::from(again.is_some()));
        let (number, latency, retry) = (order.number, now.since(order.submitted), order.key.retry);
        self.unsort(index, slot, was);
        let state = self.devices.at_mut(index).lane_mut(lane);
        if end.by_device {
            state.ended = state.ended.max(number);
        } else if was == Mark::REPEAT || end.forgotten {
            state.held = state.held.saturating_sub(1);
        }
        let device = self.devices.at_mut(index);
        if device.suspicion.sessions != 0 && (end.by_device || device.suspicion.slot == slot) {
            device.set(flag::NARROW, false);
            device.suspicion = if device.suspicion.slot == slot { Suspicion::NONE } else { device.suspicion };
        }
        if again.is_some() {
            let device = self.devices.at_mut(index);
            device.retried = device.retried.saturating_add(1);
            self.stats.attempts = self.stats.attempts.wrapping_add(1);
        } else if !retry {
            // The end of a further attempt is told to the order it belongs to, and counted there.
            self.stats.outcomes.count(end.first_code);
        }
        self.told.push(super::tell::Item { device: index, number, end, latency, again: again.is_some() });
        if !end.by_device && self.devices.at(index).state == State::Open && self.owes_settled(index) {
            // It stood before one that had ended.
            self.settle_soon(now, index);
        }
        self.finish_if_over(slot);
    }

    /// The order will not be sent (again) to this device: its end is told by the sweep, which the caller starts.
    pub(super) fn mark_withdrawn(&mut self, index: u32, slot: u32, mark: Mark) {
        let order = self.orders.at_mut(slot);
        let (lane, was) = (order.lane, order.mark(index));
        if !was.is_owed() && was.attempt_code().is_none() {
            return;
        }
        order.set_mark(index, mark);
        self.unsort(index, slot, was);
        if was == Mark::REPEAT {
            let state = self.devices.at_mut(index).lane_mut(lane);
            state.held = state.held.saturating_sub(1);
        }
        if self.devices.at(index).state == State::Open && self.owes_settled(index) {
            self.settle_soon(self.now, index);
        }
    }

    /// Takes an order that had the mark `was` out of the counts of its sort.
    #[inline]
    fn unsort(&mut self, index: u32, slot: u32, was: Mark) {
        let lane = self.orders.at(slot).lane;
        if was.is_owed() {
            self.unowe(index, lane, slot, was);
        } else if was == Mark::SENT {
            self.unsend_and_out(index, lane, slot);
        } else if was.is_out() {
            self.unout(index, lane, slot);
        } else if was.is_retried() {
            let order = self.orders.at_mut(slot);
            order.unsent = order.unsent.saturating_sub(u32::from(was.is_unsent()));
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

    /// Everything the lane sent up to this number is settled; 0 if nothing ended yet.
    pub(super) fn settled_upto(&self, index: u32, lane: Lane) -> u64 {
        let state = self.devices.at(index).lane(lane);
        let below =
            |slot| if slot == NONE { u64::MAX } else { self.orders.at(slot).number.saturating_sub(1) };
        state.ended.min(below(state.oldest)).min(below(state.next))
    }

    /// The device holds an outcome for this number of the lane: once it is settled the device is told so, whatever the
    /// number is here by now.
    pub(super) fn note_ended(&mut self, index: u32, lane: Lane, number: u64) {
        let state = self.devices.at_mut(index).lane_mut(lane);
        if number <= state.upto {
            state.ended = state.ended.max(number);
        }
    }

    /// Whether there are outcomes the device may forget and was not told so.
    pub(super) fn owes_settled(&self, index: u32) -> bool {
        let device = self.devices.at(index);
        let owed = |lane: Lane, state: &LaneState| {
            state.ended > state.settled && self.settled_upto(index, lane) > state.settled
        };
        Lane::ALL.into_iter().zip(&device.lanes).any(|(lane, state)| owed(lane, state))
    }

    #[inline]
    fn unowe(&mut self, index: u32, lane: Lane, slot: u32, was: Mark) {
        let order = self.orders.at_mut(slot);
        order.unsent = order.unsent.saturating_sub(u32::from(was == Mark::PENDING));
        let state = self.devices.at_mut(index).lane_mut(lane);
        state.owed = state.owed.saturating_sub(1);
        state.repeats = state.repeats.saturating_sub(u16::from(was == Mark::REPEAT));
        if state.next == slot {
            let more = state.owed != 0;
            let next = if more { self.orders.next_of(slot, index, Mark::is_owed) } else { NONE };
            self.devices.at_mut(index).lane_mut(lane).next = next;
        }
    }

    fn unsend(&mut self, index: u32, slot: u32) {
        let (lane, len) = (self.orders.at(slot).lane, self.orders.at(slot).len);
        let awake = self.awake(self.now);
        let device = self.devices.at_mut(index);
        device.bytes = device.bytes.saturating_sub(len);
        device.receipt_since = if device.bytes == 0 { Instant::NEVER } else { awake };
        let state = device.lane_mut(lane);
        state.sent = state.sent.saturating_sub(1);
        if state.unreceived == slot {
            let more = state.sent != 0;
            let next = if more { self.orders.next_of(slot, index, |mark| mark == Mark::SENT) } else { NONE };
            self.devices.at_mut(index).lane_mut(lane).unreceived = next;
        }
    }

    /// Both at once. Usually the order is the lowest of both sorts, and so is the one after it: one walk finds it.
    #[inline]
    fn unsend_and_out(&mut self, index: u32, lane: Lane, slot: u32) {
        let state = self.devices.at(index).lane(lane);
        if state.oldest != slot || state.unreceived != slot || state.sent != state.out {
            self.unsend(index, slot);
            return self.unout(index, lane, slot);
        }
        let more = state.out > 1;
        let next = if more { self.orders.next_of(slot, index, Mark::is_out) } else { NONE };
        let (len, awake) = (self.orders.at(slot).len, self.awake(self.now));
        let device = self.devices.at_mut(index);
        if device.transfer.slot == slot {
            device.transfer = Transfer::NONE;
        }
        device.bytes = device.bytes.saturating_sub(len);
        device.receipt_since = if device.bytes == 0 { Instant::NEVER } else { awake };
        let state = device.lane_mut(lane);
        state.sent = state.sent.saturating_sub(1);
        state.out = state.out.saturating_sub(1);
        state.unreceived = next;
        state.oldest = next;
    }

    fn unout(&mut self, index: u32, lane: Lane, slot: u32) {
        let device = self.devices.at_mut(index);
        if device.transfer.slot == slot {
            device.transfer = Transfer::NONE;
        }
        let state = self.devices.at_mut(index).lane_mut(lane);
        state.out = state.out.saturating_sub(1);
        if state.oldest == slot {
            let more = state.out != 0;
            let next = if more { self.orders.next_of(slot, index, Mark::is_out) } else { NONE };
            self.devices.at_mut(index).lane_mut(lane).oldest = next;
        }
    }

    /// Of two orders of one lane, the one with the lower number.
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
