//! This side leaves: nothing new, what is out comes to its end, BYE.

use core::time::Duration;

use wire_format::frame::{Drain, bye, drain};
use wire_format::time::Instant;

use super::Fleet;
use super::device::{Farewell, Partial, State, due, flag};
use super::devices::DeviceStorage;
use super::order::{MarkBytes, OrderStorage};
use crate::config::DRAIN_WITHIN_MAX;
use crate::ended::Ended;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Leaves in peace: nothing is dialled, submitted or sent any more, every session with orders out there is told DRAIN
    /// and ends with BYE when they have ended, or after `within` (5 s at most). Sessions with nothing out there end now.
    /// See [`Fleet::is_stopped`]; [`Fleet::stop`] ends the patience.
    pub fn drain(&mut self, now: Instant, within: Duration) {
        self.observe(now);
        if self.stopped {
            return;
        }
        self.stopped = true;
        self.drain_until = now + within.min(DRAIN_WITHIN_MAX);
        for index in 0..self.fresh {
            match self.devices.at(index).state {
                State::Open => self.begin_to_leave(now, index),
                State::Dialling | State::Greeting => self.end(now, index, Ended::Stopped),
                State::Idle | State::Queued => self.rest(index),
                State::Free | State::Ending | State::Closing | State::Leaving => {}
            }
        }
    }

    fn begin_to_leave(&mut self, now: Instant, index: u32) {
        self.devices.at_mut(index).set(flag::LEAVING, true);
        if self.leave_if_quiet(now, index) {
            return;
        }
        self.devices.at_mut(index).due |= due::DRAIN;
        let next = self.timer_of(index).map_or(self.drain_until, |at| at.min(self.drain_until));
        self.arm(index, next);
        self.wake(index);
    }

    /// Ends a session this side is about to leave, if nothing is out there any more; true if it did.
    pub(super) fn leave_if_quiet(&mut self, now: Instant, index: u32) -> bool {
        let device = self.devices.at(index);
        let late = now >= self.drain_until;
        let cut = device.is(flag::BLOCKED) || device.partial != Partial::None;
        // What waits for the log alone does not hold it up: the device repeats it, and the disk may be dead.
        let quiet = !cut && self.devices.out(index) == 0;
        let leaves = device.state == State::Open && device.is(flag::LEAVING) && (quiet || late);
        if leaves {
            self.part(now, index, Ended::Stopped, Farewell::Bye(bye::Code::DRAINING));
        }
        leaves
    }

    /// The DRAIN that is due to a device.
    pub(super) fn drain_frame(&self, now: Instant) -> Drain {
        let left = self.drain_until.since(now).as_millis();
        Drain { reason: drain::Reason::LEAVING, after_ms: u32::try_from(left).unwrap_or(u32::MAX) }
    }
}
