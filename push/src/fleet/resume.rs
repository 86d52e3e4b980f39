//! What becomes of the orders of earlier sessions when a device comes back: repeated, waited for, or ended.

use wire_format::frame::Welcome;
use wire_format::frame::outcome::Code;
use wire_format::frame::welcome::{LaneFloor, LogFloors};

use super::Fleet;
use super::device::flag;
use super::devices::DeviceStorage;
use super::list::NONE;
use super::marks::End;
use super::order::{MarkBytes, OrderStorage, Walk};
use super::track::{Track, TrackState, Tracks};
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
    /// A device that knows less of a log than it was told to be settled, or than it told itself, has forgotten that log,
    /// which is as bad as a boot.
    pub(super) fn resume(&mut self, index: u32, welcome: &Welcome<'_>, rebooted: bool) {
        let keeps = welcome.floors_persisted && !welcome.journal_lost;
        let poison = self.strike(index, welcome, rebooted);
        let forgot = flag::FORGOT | flag::FORGOT_DURABLE;
        let resumed = flag::DOUBT | flag::REPEATS | flag::BEGUN | forgot;
        self.devices.at_mut(index).set(resumed, false);
        for durable in [false, true] {
            let floors = self.floors_of(welcome, durable);
            let named = if durable { flag::NAMED_DURABLE } else { flag::NAMED };
            // Nor has it forgotten what it says when it does not name the log yet.
            let knows = floors.is_some() || self.devices.at(index).is(named);
            let evicted = knows && self.has_evicted(index, floors, durable);
            // Who never heard of the log has nothing to forget of it: its first session may have broken before that.
            let unknown = floors.is_none() && (rebooted || self.devices.at(index).is(named));
            let replaced = !durable && self.devices.at(index).is(flag::RAISED) && is_blank(floors, welcome);
            let forgot = unknown || evicted || replaced || (rebooted && !keeps);
            self.devices.at_mut(index).set(named, floors.is_some());
            let memory = Memory { welcome, rebooted, forgot, poison };
            for track in Tracks::of(durable) {
                let floor = floors.and_then(|floors| floors.lanes.get(track.lane().index()));
                self.resume_track(index, track, floor.map_or(0, |floor| floor.floor), &memory);
            }
            let device = self.devices.at_mut(index);
            device.set(if durable { flag::FORGOT_DURABLE } else { flag::FORGOT }, forgot);
            if durable && self.config.durable.is_some() {
                let lost = evicted && (keeps || !rebooted) || welcome.journal_lost;
                device.set(flag::JOURNAL_LOST, lost);
                device.set(flag::TRACE, true);
                self.stats.journals_lost = self.stats.journals_lost.wrapping_add(u64::from(lost));
            }
        }
        self.devices.at_mut(index).set(flag::RAISED, false);
        if self.devices.at(index).is(flag::DOUBT | flag::TRACE | flag::JOURNAL_LOST) {
            self.tell.push_back(&mut self.devices, index);
        }
    }

    /// What the device says of the log, if it knows it.
    fn floors_of<'w>(&self, welcome: &'w Welcome<'_>, durable: bool) -> Option<&'w LogFloors> {
        let (floors, ours) = if durable {
            (&welcome.durable, self.config.durable.as_ref().map(|log| log.lineage))
        } else {
            (&welcome.volatile, Some(self.config.lineage))
        };
        (ours == Some(floors.lineage)).then_some(floors)
    }

    /// Whether it knows less than it was told to be settled, of what it had ended. Of the durable log: than it said itself,
    /// since nothing leaves a device before it is in its journal.
    fn has_evicted(&self, index: u32, floors: Option<&LogFloors>, durable: bool) -> bool {
        let knew = |state: &TrackState| if durable { state.ended } else { state.settled.min(state.ended) };
        let declared = |track: Track| floors.and_then(|floors| floors.lanes.get(track.lane().index()));
        let floor = |track| declared(track).map_or(0, |lane: &LaneFloor| lane.floor);
        Tracks::of(durable).any(|track| floor(track) < knew(self.devices.track(index, track)))
    }

    fn resume_track(&mut self, index: u32, track: Track, floor: u64, memory: &Memory<'_>) {
        let busy = self.devices.at(index).busy & track.bit() != 0;
        let foreign = self.foreign(index, track, memory.welcome);
        if !busy && floor == 0 && foreign == 0 && self.devices.track(index, track).ended == 0 {
            return;
        }
        self.recall(index, track, floor);
        let mut walk = Walk::over(self.devices.track(index, track));
        while let Some(slot) = self.orders.walk(&mut walk, index) {
            if self.orders.at(slot).mark(index).is_out() {
                self.resume_order(index, slot, floor, memory);
            } else {
                self.mark_lingering(index, slot);
            }
        }
        let device = self.devices.at_mut(index);
        device.skewed &= !track.bit();
        device.busy |= track.bit();
        self.devices.note_written(index, track, floor.max(foreign));
        let state = self.devices.track_mut(index, track);
        state.floor = floor.max(foreign);
        // Who forgot its outcomes need not be told that they are settled.
        state.ended = if memory.forgot { floor } else { state.ended.max(floor) };
        state.settled = 0;
        state.held = state.holding();
    }

    /// The number of an order the device has begun, and that is none of this place's: it came when the device was listed
    /// before, and its outcome was told when it was removed. Nobody waits for its end, or sends it again, so it is settled:
    /// else it kept its room on the device. 0 if there is none.
    fn foreign(&self, index: u32, track: Track, welcome: &Welcome<'_>) -> u64 {
        let last = self.last.of(track.is_durable());
        let is_ours = |number| {
            let slot = self.orders.find(number).filter(|&slot| self.orders.at(slot).track == track);
            slot.is_some_and(|slot| self.orders.at(slot).mark(index) != Mark::NOT_TARGETED)
        };
        let begun = welcome.started.iter().filter(|begun| Track::new(begun.durable, begun.lane) == track);
        let foreign = begun.map(|begun| begun.number).filter(|&number| number <= last && !is_ours(number));
        foreign.max().unwrap_or(0)
    }

    fn resume_order(&mut self, index: u32, slot: u32, floor: u64, memory: &Memory<'_>) {
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
    }

    /// Orders that were to be sent again in the session before this one are judged anew. So is what the device has ended and
    /// the log has as never written: that is a copy from before it was.
    fn recall(&mut self, index: u32, track: Track, floor: u64) {
        loop {
            // A repetition is never behind a first delivery.
            let slot = self.devices.track(index, track).next;
            if slot == NONE {
                return;
            }
            let order = self.orders.at(slot);
            if order.mark(index) != Mark::REPEAT && order.number > floor {
                return;
            }
            self.mark_unowed(index, slot);
        }
    }

    fn fate(&mut self, index: u32, slot: u32, floor: u64, memory: &Memory<'_>) -> Fate {
        let order = self.orders.at(slot);
        let (number, track) = (order.number, order.track);
        let cancelled = order.cancel_seq != 0;
        if number <= floor {
            return Fate::Repeated;
        }
        let started = &mut memory.welcome.started.iter();
        let started =
            started.any(|begun| begun.number == number && Track::new(begun.durable, begun.lane) == track);
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
        for track in self.devices.at(index).busy() {
            let state = self.devices.track(index, track);
            let mut walk = Walk::over(state);
            while let Some(slot) = self.orders.walk(&mut walk, index) {
                let order = self.orders.at(slot);
                if order.number > state.floor && order.mark(index) == Mark::RECEIVED {
                    let end = End::in_doubt(self.doubt_code(index, slot));
                    return self.mark_ended(self.now, index, slot, end);
                }
            }
        }
        self.devices.at_mut(index).set(flag::DOUBT, false);
        self.wake(index);
    }

    fn doubt_code(&mut self, index: u32, slot: u32) -> Code {
        let durable = self.orders.at(slot).track.is_durable();
        let device = self.devices.at_mut(index);
        if device.suspicion.is_sure(slot) {
            device.tally.poisons = device.tally.poisons.saturating_add(1);
            Code::POISON
        } else if device.is(if durable { flag::FORGOT_DURABLE } else { flag::FORGOT }) {
            Code::IN_DOUBT
        } else {
            Code::CANCELLED
        }
    }

    /// The device did not repeat the outcomes it owed: their orders are sent again, and answered as duplicates.
    pub(super) fn repeat_unanswered(&mut self, index: u32) {
        self.devices.at_mut(index).set(flag::REPEATS, false);
        for track in self.devices.at(index).busy() {
            let state = *self.devices.track(index, track);
            let mut walk = Walk::over(&state);
            while let Some(slot) = self.orders.walk(&mut walk, index)
                && self.orders.at(slot).number <= state.floor
            {
                self.mark_owed(index, slot, Mark::REPEAT);
            }
        }
        self.wake(index);
    }

    /// Notes that a device went down soon after its session opened, and with which order. The order if that was once too
    /// often, else NONE.
    fn strike(&mut self, index: u32, welcome: &Welcome<'_>, rebooted: bool) -> u32 {
        let device = self.devices.at(index);
        let mut suspicion = Suspicion::NONE;
        if rebooted && device.is(flag::SHORT) {
            let first = device.busy().find_map(|track| {
                let floors = self.floors_of(welcome, track.is_durable());
                let floor = floors.and_then(|floors| floors.lanes.get(track.lane().index()));
                self.first_unfinished(index, track, floor.map_or(0, |floor| floor.floor))
            });
            suspicion = first.map_or(Suspicion::NONE, |slot| device.suspicion.again(slot));
        }
        let device = self.devices.at_mut(index);
        device.suspicion = suspicion;
        device.set(flag::NARROW, suspicion.sessions.saturating_add(1) >= POISON_SESSIONS);
        if suspicion.is_sure(suspicion.slot) { suspicion.slot } else { NONE }
    }

    /// The first order of a track that was out on a device and did not end there.
    fn first_unfinished(&self, index: u32, track: Track, floor: u64) -> Option<u32> {
        let mut walk = Walk::over(self.devices.track(index, track));
        while let Some(slot) = self.orders.walk(&mut walk, index) {
            let order = self.orders.at(slot);
            if order.number > floor && order.mark(index).is_out() {
                return Some(slot);
            }
        }
        None
    }
}

/// Whether a device shows nothing of the volatile log: it names no floor, and nothing that it began.
fn is_blank(floors: Option<&LogFloors>, welcome: &Welcome<'_>) -> bool {
    let has_floor = floors.is_some_and(|floors| floors.lanes.iter().any(|lane| lane.floor != 0));
    !has_floor && !welcome.started.iter().any(|begun| !begun.durable)
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
