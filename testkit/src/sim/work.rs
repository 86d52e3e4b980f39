//! What the application on a device does with an order: at once, while everything waits for it, or later.

use push::receiver::{Ticket, Verdict};
use wire_format::ids::Lane;

use super::device::Given;
use super::memory::Answered;
use super::names::Probe;
use super::plan::MS;
use super::world::{Act, World};
use crate::history::{Event, OrderId};
use crate::script::draw_verdict;

/// An order that is at work, and how it will end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    ticket: Ticket,
    order: OrderId,
    lane: Lane,
    verdict: Verdict,
}

impl World {
    /// The handler is called: it answers at once, later, or only after a while in which the device does nothing else.
    pub(super) fn begin(&mut self, at: usize, given: Given) {
        let Given { ticket, order, lane, redelivered } = given;
        let work =
            Work { ticket, order, lane, verdict: draw_verdict(&mut self.rng, self.plan.knobs.attempts) };
        let boot = self.devices[at].boot;
        if redelivered {
            self.probe(Probe::Redelivered);
        }
        self.ledger.record(self.now, Event::Effect { order, device: at as u32, boot, redelivered });
        self.check_memory(at, order, lane);
        if self.dies(at) {
            return self.probe(Probe::D6);
        }
        let later = self.rng.below(100) < self.plan.knobs.later;
        if later {
            self.probe(Probe::Later);
            let after = self.rng.between(MS, MS * 2_500);
            self.later(after, Act::Finish { device: at, boot, work });
            self.complete(at, work, Verdict::Later);
        } else if self.plan.chunk > 65_536 || self.rng.below(2) == 0 {
            self.complete(at, work, work.verdict);
        } else {
            self.devices[at].work = Some(work);
            let after = self.rng.between(MS, MS * 400);
            self.later(after, Act::Done { device: at, boot });
        }
    }

    /// Tells the receiver what became of an order. It is not drained.
    fn complete(&mut self, at: usize, work: Work, verdict: Verdict) {
        let now = self.now;
        if verdict != Verdict::Later {
            let (boot, (code, _)) = (self.devices[at].boot, verdict.code());
            self.ledger.record(now, Event::Answer { order: work.order, device: at as u32, boot, code });
        }
        let device = &mut self.devices[at];
        if let Some(receiver) = &mut device.receiver {
            receiver.complete(now, work.ticket, verdict, None);
            if verdict != Verdict::Later {
                let (code, _) = verdict.code();
                device.answered.push(Answered { order: work.order, lane: work.lane, code });
            }
        }
    }

    /// The handler for which everything waited is done.
    pub(super) fn done(&mut self, at: usize, boot: u64) {
        if self.devices[at].boot != boot {
            return;
        }
        if self.devices[at].frozen {
            return self.later(MS * 10, Act::Done { device: at, boot });
        }
        if let Some(work) = self.devices[at].work.take() {
            self.complete(at, work, work.verdict);
            self.with_receiver(at, |_, _| ());
            self.read_all(at);
        }
    }

    /// What was to be done later is done; or says how far it is, and takes longer.
    pub(super) fn finish(&mut self, at: usize, boot: u64, work: Work) {
        if self.devices[at].boot != boot || self.devices[at].receiver.is_none() {
            return;
        }
        if self.devices[at].frozen {
            return self.later(MS * 10, Act::Finish { device: at, boot, work });
        }
        if self.chance(30) {
            let per_mille = self.rng.below(1_001) as u16;
            self.with_receiver(at, |receiver, now| {
                receiver.progress(now, work.ticket, per_mille, 1);
            });
            let after = self.rng.between(MS, MS * 1_000);
            return self.later(after, Act::Finish { device: at, boot, work });
        }
        self.complete(at, work, work.verdict);
        self.with_receiver(at, |_, _| ());
        self.read_all(at);
    }
}
