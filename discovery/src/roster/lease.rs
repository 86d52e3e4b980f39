//! Leases and questions: who becomes suspect, lost, left or forgotten when.
//!
//! ```text
//! heard ──── 2/3 lease ────▶ Suspect, CHALLENGE ── 500 ms ─▶ CHALLENGE ──── until a whole lease ────▶ Lost
//! BYE ─────▶ CHALLENGE (a second one for the second BYE) ── 500 ms ── 500 ms ─▶ silent: Left
//! ANNOUNCE from elsewhere ─▶ CHALLENGE to the known address ── 500 ms ─▶ silent: Moved
//! restored ─────────────────────────────────────────────────────────── a whole lease, not asked ──▶ Lost
//! ```
//!
//! All of it runs on the lease clock, which stands still while this process sleeps.

use core::time::Duration;

use wire_format::time::Instant;

use super::Roster;
use super::slot::{Ask, News, Slot};
use super::table::{Queue, Ring};
use crate::auth::Keys;
use crate::event::Fields;

/// How long an asked device may take before the next step.
pub(super) const ANSWER_TIME: Duration = Duration::from_millis(500);

/// A monotonic clock that does not count the time this process was asleep.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaseClock {
    slept: Duration,
}

impl LeaseClock {
    pub(super) const fn sleep(&mut self, span: Duration) {
        self.slept = self.slept.saturating_add(span);
    }

    pub(super) fn at(self, now: Instant) -> Instant {
        Instant::ZERO + now.since(Instant::ZERO + self.slept)
    }

    pub(super) fn real(self, at: Instant) -> Instant {
        at + self.slept
    }
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>, K: Keys> Roster<S, K> {
    /// When the next lease or question ends, on the real clock.
    pub(super) fn lease_due(&self) -> Instant {
        let due = |queue, due: fn(&Slot) -> Instant| {
            self.table.head(queue).map_or(Instant::NEVER, |at| due(self.table.at(at)))
        };
        let leases = due(Queue::Fresh, |slot| slot.lease_due)
            .min(due(Queue::Suspect, |slot| slot.lease_due))
            .min(due(Queue::Unconfirmed, |slot| slot.lease_due))
            .min(due(Queue::Gone, |slot| slot.lease_due));
        let asked = due(Queue::Asked, |slot| slot.ask_due).min(due(Queue::AskedAgain, |slot| slot.ask_due));
        self.lease_clock.real(leases.min(asked))
    }

    /// Everything that is due: each device moves one step at most.
    pub(super) fn expire(&mut self, now: Instant) {
        let at_lease = self.lease_clock.at(now);
        while let Some(at) = self.asked_out(Queue::AskedAgain, at_lease) {
            self.asked_in_vain(at, now);
        }
        while let Some(at) = self.asked_out(Queue::Asked, at_lease) {
            self.asked_once(at, now);
        }
        while let Some(at) = self.lease_out(Queue::Gone, at_lease) {
            self.forget(at, now);
        }
        while let Some(at) = self.lease_out(Queue::Unconfirmed, at_lease) {
            self.gone(at, now, News::LOST);
        }
        while let Some(at) = self.lease_out(Queue::Suspect, at_lease) {
            self.gone(at, now, News::LOST);
        }
        while let Some(at) = self.lease_out(Queue::Fresh, at_lease) {
            self.suspect(at, now);
        }
    }

    fn lease_out(&self, queue: Queue, at_lease: Instant) -> Option<u32> {
        self.table.head(queue).filter(|&at| self.table.at(at).lease_due <= at_lease)
    }

    fn asked_out(&self, queue: Queue, at_lease: Instant) -> Option<u32> {
        self.table.head(queue).filter(|&at| self.table.at(at).ask_due <= at_lease)
    }

    /// Puts the slot into a lease queue, due after `span`.
    fn lease(&mut self, at: u32, now: Instant, queue: Queue, span: Duration) {
        self.table.at_mut(at).lease_due = self.lease_clock.at(now) + span;
        self.table.push(queue, at);
    }

    /// The device was heard: its lease begins again, unless a push session vouches for it.
    pub(super) fn fresh(&mut self, at: u32, now: Instant) {
        let slot = self.table.at_mut(at);
        slot.heard = now;
        slot.left = false;
        match slot.wiring.lease_queue() {
            Some(Queue::Linked) => return,
            Some(Queue::Suspect | Queue::Gone) => self.tell(at, News::BACK),
            Some(Queue::Unconfirmed) => self.tell(at, News::JOINED),
            _ => {}
        }
        self.lease(at, now, Queue::Fresh, self.config.lease() * 2 / 3);
    }

    /// A restored device has a whole lease to be heard. It is not asked: every BEACON of this boot does that.
    pub(super) fn wait_for(&mut self, at: u32, now: Instant) {
        self.lease(at, now, Queue::Unconfirmed, self.config.lease());
    }

    fn suspect(&mut self, at: u32, now: Instant) {
        self.lease(at, now, Queue::Suspect, self.config.lease() / 3);
        self.tell(at, News::SUSPECT);
        if self.table.at(at).ask == Ask::Nothing {
            self.ask(at, now, Ask::Suspect);
        }
    }

    /// Lost or left: kept while there is room, to be recognised when it comes back.
    pub(super) fn gone(&mut self, at: u32, now: Instant, news: News) {
        self.settle(at);
        self.table.at_mut(at).left = news == News::LEFT;
        self.lease(at, now, Queue::Gone, self.config.forget());
        self.tell(at, news);
    }

    /// Its time in the roster is over, once whoever follows the events was told that it is gone.
    fn forget(&mut self, at: u32, now: Instant) {
        if self.table.at(at).news.is_empty() {
            self.table.release(at);
        } else {
            self.lease(at, now, Queue::Gone, self.config.forget());
        }
    }

    /// Asks the device whether it is there, with a new cookie.
    pub(super) fn ask(&mut self, at: u32, now: Instant, why: Ask) {
        self.ask_number = self.ask_number.wrapping_add(1);
        let slot = self.table.at_mut(at);
        slot.ask = why;
        slot.ask_number = self.ask_number;
        slot.ask_due = self.lease_clock.at(now) + ANSWER_TIME;
        self.table.push(Queue::Asked, at);
        self.table.push(Queue::Probe, at);
    }

    /// No question is open any more.
    pub(super) fn settle(&mut self, at: u32) {
        self.table.at_mut(at).ask = Ask::Nothing;
        self.table.remove(Ring::Ask, at);
        self.table.remove(Ring::Probe, at);
    }

    fn asked_once(&mut self, at: u32, now: Instant) {
        match self.table.at(at).ask {
            Ask::Contest => self.give_way(at, now),
            ask => {
                self.table.at_mut(at).ask_due = self.lease_clock.at(now) + ANSWER_TIME;
                self.table.push(Queue::AskedAgain, at);
                if ask == Ask::Suspect {
                    self.table.push(Queue::Probe, at);
                }
            }
        }
    }

    fn asked_in_vain(&mut self, at: u32, now: Instant) {
        match self.table.at(at).ask {
            Ask::Leaving => self.gone(at, now, News::LEFT),
            _ => self.settle(at),
        }
    }

    /// The known address was silent: whoever announced from elsewhere is the device.
    pub(super) fn give_way(&mut self, at: u32, now: Instant) {
        self.settle(at);
        let slot = self.table.at_mut(at);
        let rival = slot.rival;
        let moved = rival.source.ip() != slot.origin.source.ip();
        slot.changed.insert_if(Fields::PORT, rival.port != slot.origin.port);
        let changed = !slot.changed.is_empty();
        let rebooted = rival.epoch != slot.origin.epoch;
        let before = slot.origin.epoch;
        self.table.set_origin(at, rival);
        let slot = self.table.at_mut(at);
        slot.see(before, &rival);
        slot.proofs = slot.proofs.wrapping_add(1);
        self.tell_if(at, News::REBOOTED, rebooted);
        self.tell_if(at, News::MOVED, moved);
        self.tell_if(at, News::CHANGED, changed);
        self.fresh(at, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_clock_stands_still_in_sleep() {
        let mut clock = LeaseClock::default();
        let due = clock.at(Instant::from_millis(1_000)) + Duration::from_secs(60);
        clock.sleep(Duration::from_secs(600));
        assert_eq!(clock.real(due), Instant::from_millis(661_000));
        assert_eq!(clock.at(Instant::from_millis(661_000)), due);
    }
}
