//! What the application on a device does with an order: at once, while everything waits for it, or later.

use std::time::Duration;

use push::receiver::{Ticket, Verdict};
use testkit::history::OrderId;
use testkit::script::draw_verdict;
use wire_format::frame::{Drain, drain};

use crate::oracle::{order_id, run_of};
use crate::world::{Act, MS, World};

/// An order that is at work, and how it will end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) ticket: Ticket,
    pub(crate) order: OrderId,
    pub(crate) verdict: Verdict,
}

impl World {
    /// The handler is called: it answers at once, later, or only after a while in which the device does nothing else.
    pub(crate) fn begin(&mut self, at: usize, (ticket, order): (Ticket, OrderId)) {
        let work = Work { ticket, order, verdict: draw_verdict(&mut self.rng, self.knobs.attempts) };
        self.note(format_args!("device {at} begins {order}: {:?}", work.verdict));
        let boot = self.devices[at].boot;
        let later = self.rng.below(100) < self.knobs.later;
        if later {
            self.totals.later += 1;
            let after = self.rng.between(MS, MS * 2_500);
            self.later(after, Act::Finish { device: at, boot, work });
            self.complete(at, work, Verdict::Later);
        } else if self.rng.below(2) == 0 {
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
        let device = &mut self.devices[at];
        if verdict != Verdict::Later {
            self.oracle.answered(now, at, device.boot, work.order, verdict);
        }
        if let Some(receiver) = &mut device.receiver {
            receiver.complete(now, work.ticket, verdict, None);
        }
    }

    /// Orders that waited for their lane.
    pub(crate) fn take_waiting(&mut self, at: usize) {
        while self.devices[at].work.is_none() {
            let (now, boot) = (self.now, self.devices[at].boot);
            let Some(receiver) = &mut self.devices[at].receiver else { return };
            let Some(delivered) = receiver.poll_order(now) else { return };
            self.oracle.handed_over(now, at, boot, &delivered);
            let order = order_id(run_of(delivered.lineage), delivered.order.number);
            let given = (delivered.ticket, order);
            self.totals.parked += 1;
            self.begin(at, given);
        }
    }

    /// The handler for which everything waited is done.
    pub(crate) fn done(&mut self, at: usize, boot: u64) {
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
    pub(crate) fn finish(&mut self, at: usize, boot: u64, work: Work) {
        if self.devices[at].boot != boot {
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

    /// The device says that it will leave, and for how long it goes on.
    pub(crate) fn drain_device(&mut self, at: usize) -> Duration {
        let after_ms = self.rng.below(4_000) as u32;
        let words = Drain { reason: drain::Reason::LEAVING, after_ms };
        self.with_receiver(at, |receiver, now| receiver.drain(now, words));
        self.totals.device_drains += 1;
        Duration::from_millis(after_ms.into())
    }
}
