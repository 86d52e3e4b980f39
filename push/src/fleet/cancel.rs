//! Orders that shall not be done any more: withdrawn where no byte of them left, named in a CANCEL where they are out.

use wire_format::time::Instant;

use super::Fleet;
use super::device::{State, due, flag};
use super::devices::DeviceStorage;
use super::order::{MarkBytes, OrderStorage, Walk};
use super::track::Track;
use crate::mark::Mark;

/// A cancelled order that a device has to be told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    /// Its `cancel_seq`.
    pub(super) seq: u32,
    pub(super) number: u64,
    pub(super) durable: bool,
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Cancels an order on every device: O(devices). False if no such order lives.
    ///
    /// Where it was not written it ends as CANCELLED, now. Where it is out, a device with an open session is sent a CANCEL
    /// and decides: CANCELLED if it had not begun, else what comes of it. Any other device is asked when it comes back: what
    /// it did not begin is CANCELLED and not sent again. An attempt that ended is not repeated; where one is under way
    /// (RETRYING), cancel the order it goes by. Twice is as good as once.
    pub fn cancel(&mut self, now: Instant, number: u64) -> bool {
        self.observe(now);
        let Some(slot) = self.orders.find(number).filter(|&slot| self.orders.at(slot).open != 0) else {
            return false;
        };
        if self.orders.at(slot).cancel_seq != 0 {
            return true;
        }
        self.cancels = self.cancels.saturating_add(1);
        self.orders.at_mut(slot).cancel_seq = self.cancels;
        let (first, count) = self.orders.at(slot).targets();
        let mut withdrawn = false;
        for index in first..first.saturating_add(count) {
            withdrawn |= self.cancel_on(index, slot);
        }
        if withdrawn {
            self.sweep_again(slot);
        }
        true
    }

    /// Cancels an order on one device; true if its end has to be told.
    fn cancel_on(&mut self, index: u32, slot: u32) -> bool {
        let order = self.orders.at(slot);
        let mark = order.mark(index);
        let withdrawn = match mark {
            Mark::PENDING => true,
            Mark::REPEAT => self.is_unbegun(index, order.number, order.track),
            mark => mark.attempt_code().is_some(),
        };
        if withdrawn {
            self.mark_withdrawn(index, slot, Mark::WITHDRAWN);
        } else if mark.is_out() {
            let device = self.devices.at_mut(index);
            if device.state == State::Open && device.takes_cancel() {
                device.due |= due::CANCEL;
                self.wake(index);
            }
        }
        withdrawn
    }

    /// Of the orders out on a device that were cancelled after `told`, the one cancelled first.
    pub(super) fn next_cancel(&self, index: u32, told: u32) -> Option<Named> {
        let mut first: Option<Named> = None;
        for track in self.devices.at(index).busy().filter(|track| !(track.is_durable() && self.forked)) {
            let mut walk = Walk::over(self.devices.track(index, track));
            while let Some(slot) = self.orders.walk(&mut walk, index) {
                let order = self.orders.at(slot);
                let later = first.is_some_and(|first| order.cancel_seq >= first.seq);
                if order.cancel_seq > told && !later && order.mark(index).is_out() {
                    let (number, durable) = (order.number, track.is_durable());
                    first = Some(Named { seq: order.cancel_seq, number, durable });
                }
            }
        }
        first
    }

    /// A cancelled order was written all the same, since the device may have begun it: it is named after that.
    pub(super) fn cancel_sent(&mut self, index: u32, slot: u32) {
        let before = self.orders.at(slot).cancel_seq.saturating_sub(1);
        let device = self.devices.at_mut(index);
        if device.takes_cancel() {
            device.cancel_told = device.cancel_told.min(before);
            device.due |= due::CANCEL;
        }
    }

    /// Whether the WELCOME of the open session said that an order which is owed again was not begun there.
    fn is_unbegun(&self, index: u32, number: u64, track: Track) -> bool {
        let device = self.devices.at(index);
        device.state == State::Open
            && !device.is(flag::BEGUN)
            && number > self.devices.track(index, track).floor
    }

    /// An order whose write was cut and that is PENDING again: it may have been cancelled or replaced in between.
    pub(super) fn reconsider(&mut self, index: u32, slot: u32) {
        let order = self.orders.at(slot);
        if order.mark(index) != Mark::PENDING {
            return;
        }
        let mark = if order.cancel_seq != 0 {
            Mark::WITHDRAWN
        } else if self.is_overtaken(order.key, index) {
            Mark::OVERTAKEN
        } else {
            return;
        };
        self.mark_withdrawn(index, slot, mark);
        self.sweep_again(slot);
    }
}
