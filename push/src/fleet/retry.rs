//! Attempts: what a device ended for now, and what becomes of the order.
//!
//! The fleet repeats nothing itself: an attempt is a new record of the log, with a number of its own, and who keeps the log
//! writes it. The order that was pushed keeps its place meanwhile, so its report follows the chain.

use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::devices::DeviceStorage;
use super::marks::End;
use super::order::{MarkBytes, OrderStorage};
use super::{DeviceIndex, Fleet};
use crate::mark::Mark;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Another attempt at an order was submitted for this device: the order waits for [`Fleet::resolve`], however long
    /// that takes. False if it does not wait for an attempt there (its lifetime is over, it was cancelled, or one runs).
    pub fn retry_begins(&mut self, number: u64, device: DeviceIndex) -> bool {
        let Some(slot) = self.orders.find(number) else { return false };
        let order = self.orders.at_mut(slot);
        let waits = order.mark(device.0).attempt_code().is_some();
        if waits {
            order.set_mark(device.0, Mark::RETRYING);
            order.unsent = order.unsent.saturating_sub(1);
        }
        waits
    }

    /// Ends an order on a device whose attempt ended, with the final code of its last attempt: the event is the order's
    /// [`super::Event::Outcome`] (of the durable log, after its [`super::Event::Log`]). False if it does not wait for that, if `code` is none that ends an order, or if 64 events
    /// wait in [`Fleet::poll_event`].
    pub fn resolve(&mut self, now: Instant, number: u64, device: DeviceIndex, code: Code) -> bool {
        self.observe(now);
        let Some(slot) = self.orders.find(number) else { return false };
        let waits = self.orders.at(slot).mark(device.0).is_retried();
        if !waits || !(code.is_final() || code.is_attempt_end()) || self.told.is_full() {
            return false;
        }
        self.mark_ended(now, device.0, slot, End::by_server(code));
        true
    }

    /// What becomes of an order whose attempt a device ended: the mark it waits with, or none if there is no other
    /// attempt. Then `end` says what the report shows.
    pub(super) fn judge_attempt(&self, now: Instant, index: u32, slot: u32, end: &mut End) -> Option<Mark> {
        let order = self.orders.at(slot);
        if order.cancel_seq != 0 {
            end.first_code = Code::CANCELLED;
            return None;
        }
        if self.is_overtaken(order.key, index) {
            end.first_code = Code::SUPERSEDED;
            return None;
        }
        Mark::attempt(end.first_code).filter(|_| now < order.deadline)
    }
}
