//! What becomes of the orders of earlier sessions when a device comes back: repeated, waited for, or ended.

use wire_format::frame::Welcome;
use wire_format::frame::outcome::Code;
use wire_format::frame::welcome::LaneFloor;
use wire_format::ids::Lane;

use super::Fleet;
use super::device::{LaneState, flag};
use super::devices::DeviceStorage;
use super::list::NONE;
use super::marks::End;
use super::order::{MarkBytes, OrderStorage};
use crate::config::POISON_SESSIONS;
use crate::mark::Mark;

/// What a device that comes back still knows.
#[derive(Clone, Copy)]
struct Memory<'w> {
    welcome: &'w Welcome<'w>,
    /// It is in another boot.
    rebooted: bool,
    /// It does not know what became of what lies above its floors.
    forgot: bool,
    /// The order that brought it down too often, or NONE.
    poison: u32,
}

/// What becomes of an order that was written in an earlier session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It ended there: the device repeats the outcome.
    Repeated,
    /// It was begun there: the outcome comes.
    Begun,
    /// It is sent again.
    Again,
    /// It is over: in doubt, cancelled or poison.
    Over,
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Decides what becomes of every order written to this device that has no outcome. What is over is ended one by one
    /// as events are drained; until then nothing is read and no order written.
    ///
    /// A device that knows less than it was told to be settled has forgotten this log, which is as bad as a boot.
    pub(super) fn resume(&mut self, index: u32, welcome: &Welcome<'_>, rebooted: bool) {
        let ours = welcome.volatile.lineage == self.config.lineage;
        let lost = |(state, declared): (&LaneState, &LaneFloor)| declared.floor < state.settled;
        let evicted = self.devices.at(index).lanes.iter().zip(&welcome.volatile.lanes).any(lost);
        let keeps = welcome.floors_persisted && !welcome.journal_lost;
        let forgot = !ours || evicted || (rebooted && !keeps);
        let poison = self.strike(index, welcome, ours, rebooted);
        let memory = Memory { welcome, rebooted, forgot, poison };
        self.devices.at_mut(index).set(flag::DOUBT | flag::REPEATS | flag::BEGUN, false);
        for (lane, declared) in Lane::ALL.into_iter().zip(welcome.volatile.lanes) {
            let floor = if ours { declared.floor } else { 0 };
            self.resume_lane(index, lane, floor, &memory);
        }
        let device = self.devices.at_mut(index);
        device.set(flag::FORGOT, forgot);
        if device.is(flag::DOUBT) {
            self.tell.push_back(&mut self.devices, index);
        }
    }

    fn resume_lane(&mut self, index: u32, lane: Lane, floor: u64, memory: &Memory<'_>) {
        self.recall(index, lane);
        let state = *self.devices.at(index).lane(lane);
        let (mut slot, mut left) = (state.oldest, state.out);
        while left != 0 && slot != NONE {
            left = left.saturating_sub(1);
            let after = if left == 0 { NONE } else { self.orders.next_of(slot, index, Mark::is_out) };
            let fate = self.fate(index, slot, floor, memory);
            match fate {
                Fate::Repeated | Fate::Over => self.mark_waiting(index, slot, Mark::RECEIVED),
                Fate::Begun => self.mark_waiting(index, slot, Mark::STARTED),
                Fate::Again => self.mark_owed(index, slot, Mark::REPEAT),
            }
            let device = self.devices.at_mut(index);
            match fate {
                Fate::Repeated => device.set(flag::REPEATS, true),
                Fate::Over => device.set(flag::DOUBT, true),
                Fate::Begun | Fate::Again => {}
            }
            slot = after;
        }
        let state = self.devices.at_mut(index).lane_mut(lane);
        state.floor = floor;
        state.upto = state.upto.max(floor);
        // Who forgot its outcomes need not be told that they are settled.
        state.ended = if memory.forgot { floor } else { state.ended.max(floor) };
        state.settled = 0;
        state.held = state.out.saturating_add(state.repeats);
    }

    /// Orders that were to be sent again in the session before this one are judged anew.
    fn recall(&mut self, index: u32, lane: Lane) {
        while self.devices.at(index).lane(lane).repeats != 0 {
            // A repetition is never behind a first delivery.
            let slot = self.devices.at(index).lane(lane).next;
            if self.orders.at(slot).mark(index) != Mark::REPEAT {
                return;
            }
            self.mark_unowed(index, slot);
        }
    }

    fn fate(&mut self, index: u32, slot: u32, floor: u64, memory: &Memory<'_>) -> Fate {
        let order = self.orders.at(slot);
        let (number, lane) = (order.number, order.lane);
        let cancelled = order.cancel_seq != 0;
        if number <= floor {
            return Fate::Repeated;
        }
        let started = &mut memory.welcome.started.iter();
        let started = started.any(|begun| !begun.durable && (begun.number, begun.lane) == (number, lane));
        let fate = match (memory.forgot, order.is_idempotent()) {
            (true, false) => Fate::Over,
            // It may have been done: "cancelled" would be a guess.
            (true, true) if cancelled => Fate::Over,
            (true, true) => Fate::Again,
            (false, idempotent) if started && !(memory.rebooted && idempotent) => Fate::Begun,
            (false, _) if cancelled && !started => Fate::Over,
            (false, _) => Fate::Again,
        };
        if fate == Fate::Again && slot == memory.poison {
            return Fate::Over;
        }
        if fate == Fate::Again && started && !memory.forgot {
            self.devices.at_mut(index).set(flag::BEGUN, true);
        }
        fate
    }

    /// Ends one order that will not be sent again: it is out, above the floor, and not begun.
    pub(super) fn end_doubt(&mut self, index: u32) {
        for lane in Lane::ALL {
            let state = *self.devices.at(index).lane(lane);
            let (mut slot, mut left) = (state.oldest, state.out);
            while left != 0 && slot != NONE {
                let order = self.orders.at(slot);
                if order.number > state.floor && order.mark(index) == Mark::RECEIVED {
                    let end = End::in_doubt(self.doubt_code(index, slot));
                    return self.mark_ended(self.now, index, slot, end);
                }
                left = left.saturating_sub(1);
                slot = if left == 0 { NONE } else { self.orders.next_of(slot, index, Mark::is_out) };
            }
        }
        self.devices.at_mut(index).set(flag::DOUBT, false);
        self.wake(index);
    }

    fn doubt_code(&mut self, index: u32, slot: u32) -> Code {
        let device = self.devices.at_mut(index);
        if device.suspicion.is_sure(slot) {
            device.tally.poisons = device.tally.poisons.saturating_add(1);
            Code::POISON
        } else if device.is(flag::FORGOT) {
            Code::IN_DOUBT
        } else {
            Code::CANCELLED
        }
    }

    /// The device did not repeat the outcomes it owed: their orders are sent again, and answered as duplicates.
    pub(super) fn repeat_unanswered(&mut self, index: u32) {
        self.devices.at_mut(index).set(flag::REPEATS, false);
        for lane in Lane::ALL {
            let state = *self.devices.at(index).lane(lane);
            let (mut slot, mut left) = (state.oldest, state.out);
            while left != 0 && slot != NONE && self.orders.at(slot).number <= state.floor {
                left = left.saturating_sub(1);
                let after = if left == 0 { NONE } else { self.orders.next_of(slot, index, Mark::is_out) };
                self.mark_owed(index, slot, Mark::REPEAT);
                slot = after;
            }
        }
        self.wake(index);
    }

    /// Notes that a device went down soon after its session opened, and with which order. The order if that was once too
    /// often, else NONE.
    fn strike(&mut self, index: u32, welcome: &Welcome<'_>, ours: bool, rebooted: bool) -> u32 {
        let device = self.devices.at(index);
        let mut suspicion = Suspicion::NONE;
        if rebooted && device.is(flag::SHORT) {
            let mut lanes = Lane::ALL.into_iter().zip(welcome.volatile.lanes);
            let first = lanes.find_map(|(lane, declared)| {
                self.first_unfinished(index, lane, if ours { declared.floor } else { 0 })
            });
            suspicion = first.map_or(Suspicion::NONE, |slot| device.suspicion.again(slot));
        }
        let device = self.devices.at_mut(index);
        device.suspicion = suspicion;
        device.set(flag::NARROW, suspicion.sessions.saturating_add(1) >= POISON_SESSIONS);
        if suspicion.is_sure(suspicion.slot) { suspicion.slot } else { NONE }
    }

    /// The first order of a lane that was out on a device and did not end there.
    fn first_unfinished(&self, index: u32, lane: Lane, floor: u64) -> Option<u32> {
        let state = self.devices.at(index).lane(lane);
        let (mut slot, mut left) = (state.oldest, state.out);
        while left != 0 && slot != NONE {
            if self.orders.at(slot).number > floor {
                return Some(slot);
            }
            left = left.saturating_sub(1);
            slot = if left == 0 { NONE } else { self.orders.next_of(slot, index, Mark::is_out) };
        }
        None
    }
}

/// The order a device seems to go down with, and in how many sessions in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    pub(crate) slot: u32,
    pub(crate) sessions: u8,
}

impl Suspicion {
    pub(crate) const NONE: Self = Self { slot: NONE, sessions: 0 };

    const fn again(self, slot: u32) -> Self {
        let before = if self.slot == slot { self.sessions } else { 0 };
        Self { slot, sessions: before.saturating_add(1) }
    }

    const fn is_sure(self, slot: u32) -> bool {
        self.sessions >= POISON_SESSIONS && self.slot == slot
    }
}
