//! What of the ring is in the journal: nothing of a slot, part of the way there, or all of it.

use wire_format::ids::Lane;

use super::super::floors::Log;
use super::{Ending, LIVE, Note, OutcomeSlot, PENDING, Place, Ring, TOLD};

impl<R: AsRef<[OutcomeSlot]> + AsMut<[OutcomeSlot]>> Ring<R> {
    /// An order that has ended, as the journal tells it: it is owed again. `false` if there is no room.
    pub(in super::super) fn restore(&mut self, place: Place, ending: Ending, note: Note) -> bool {
        if let Some(slot) = self.find_mut(place) {
            (slot.code, slot.detail, slot.ms) = (ending.code.0, ending.detail, ending.ms);
            return true;
        }
        if !self.put(place, ending, LIVE) {
            return false;
        }
        if let Some(slot) = self.find_mut(place) {
            slot.log_lane |= note.0;
        }
        true
    }

    /// An order is about to begin, and the journal has to know before it does.
    pub(in super::super) fn note(&mut self, place: Place) {
        if let Some(slot) = self.find_mut(place) {
            slot.log_lane |= PENDING;
        }
    }

    /// Whether the journal knows what became of an order that is in the ring.
    pub(in super::super) fn is_recorded(&self, place: Place) -> bool {
        self.find(place).is_some_and(|slot| !slot.is_unrecorded())
    }

    /// The first slot the journal has not been told of, and its index.
    pub(in super::super) fn pending(&self) -> Option<(u16, OutcomeSlot)> {
        let pending = |slot: &OutcomeSlot| slot.is(LIVE) && slot.log_lane & PENDING != 0;
        let (at, slot) = self.used().iter().enumerate().find(|(_, slot)| pending(slot))?;
        Some((u16::try_from(at).ok()?, *slot))
    }

    /// The first order from this index on that has ended and may be said, and its index.
    pub(in super::super) fn ended_from(&self, at: u16) -> Option<(u16, OutcomeSlot)> {
        let mut slots = self.used().iter().enumerate().skip(usize::from(at));
        let (at, slot) = slots.find(|(_, slot)| slot.is_ended())?;
        Some((u16::try_from(at).ok()?, *slot))
    }

    /// Outcomes of this lane up to this number are settled, as far as the ring knows: below the first one it owes.
    pub(in super::super) fn settled_below(&self, log: Log, lane: Lane) -> Option<u64> {
        let first = self.used().iter().find(|slot| slot.is_owed_in(log, lane))?;
        Some(first.number.saturating_sub(1))
    }

    /// The journal was told of this slot.
    pub(in super::super) fn tell(&mut self, at: u16) {
        if let Some(slot) = self.used_mut().get_mut(usize::from(at)) {
            slot.log_lane = (slot.log_lane & !PENDING) | TOLD;
        }
    }

    /// The journal was told of everything.
    pub(in super::super) fn tell_all(&mut self) {
        for slot in self.used_mut().iter_mut().filter(|slot| slot.log_lane & PENDING != 0) {
            slot.log_lane = (slot.log_lane & !PENDING) | TOLD;
        }
    }

    /// What the journal was told it has synced.
    pub(in super::super) fn recorded(&mut self) {
        for slot in self.used_mut() {
            slot.log_lane &= !TOLD;
        }
    }

    /// What the journal was told it may have lost.
    pub(in super::super) fn untell(&mut self) {
        for slot in self.used_mut().iter_mut().filter(|slot| slot.log_lane & TOLD != 0) {
            slot.log_lane = (slot.log_lane & !TOLD) | PENDING;
        }
    }
}
