//! Who is dialled when: paced over the fleet, backed off per device, devices that answered before first.

use core::time::Duration;

use wire_format::time::Instant;

use super::device::{Partial, State, due, flag};
use super::devices::{DeviceStorage, Devices};
use super::event::Dial;
use super::list::List;
use super::order::{MarkBytes, OrderStorage};
use super::{DeviceIndex, Fleet, link};
use crate::config::{
    BACKOFF_MAX, BACKOFF_REFUSED_MAX, BACKOFF_REJECTED_MAX, BACKOFF_STEP, REDIAL_MIN, STABLE_AFTER,
    WELCOME_WITHIN,
};
use crate::ended::{DialError, Ended};

/// Dials that may leave in one go when none left for a while: this much of the pace.
const BURST: Duration = Duration::from_millis(10);

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// A dial to start now, until the pace or the number of half-open ones says no. Report what became of it with
    /// [`Fleet::handle_connected`] or [`Fleet::handle_dial_failed`].
    pub fn poll_dial(&mut self, now: Instant) -> Option<Dial> {
        self.observe(now);
        if now < self.dial_gate_at()? {
            return None;
        }
        let index = self.next_to_dial(now)?;
        self.dial_gate = paced(self.dial_gate, now, self.config.dials_per_s);
        self.half_open = self.half_open.saturating_add(1);
        self.connections = self.connections.saturating_add(1);
        self.stats.dials = self.stats.dials.wrapping_add(1);
        let since = self.awake(now);
        let device = self.devices.at_mut(index);
        device.state = State::Dialling;
        device.since = since;
        device.dialled_at = now;
        device.set(flag::REDIAL, false);
        let stranger = !device.is(flag::KNOWN) || device.is(flag::ANNOUNCED);
        device.set(flag::STRANGER, stranger);
        let address = device.address.get();
        self.half_open_strangers = self.half_open_strangers.saturating_add(u32::from(stranger));
        self.arm(index, now + crate::config::DIAL_GUARD);
        Some(Dial { device: DeviceIndex(index), address })
    }

    /// Whose turn it is: devices that answered before, then the others, listed and announced ones in turns.
    fn next_to_dial(&mut self, now: Instant) -> Option<u32> {
        if let Some(index) = self.queue.pop_front(&mut self.devices) {
            return Some(index);
        }
        let announced = !self.announced.is_empty() && self.announced_gate <= now;
        if announced && (self.announced_turn || self.strangers.is_empty()) {
            self.announced_turn = false;
            self.announced_gate = paced(self.announced_gate, now, self.config.announced_dials_per_s);
            return self.announced.pop_front(&mut self.devices);
        }
        self.announced_turn = true;
        self.strangers.pop_front(&mut self.devices)
    }

    /// When the next dial may start; `None` if none waits or too many are under way.
    pub(super) fn dial_gate_at(&self) -> Option<Instant> {
        if self.half_open >= self.config.half_open_max {
            return None;
        }
        let strangers = self.half_open_strangers < self.config.strangers_max;
        if !self.queue.is_empty() || strangers && !self.strangers.is_empty() {
            Some(self.dial_gate)
        } else if strangers && !self.announced.is_empty() {
            Some(self.dial_gate.max(self.announced_gate))
        } else {
            None
        }
    }

    /// The connection a [`Dial`] asked for stands. The HELLO is ready to be written.
    pub fn handle_connected(&mut self, now: Instant, device: DeviceIndex) {
        self.observe(now);
        let (index, since) = (device.0, self.awake(now));
        let slot = self.devices.at_mut(index);
        if slot.state != State::Dialling {
            return;
        }
        slot.state = State::Greeting;
        slot.since = since;
        slot.wrote_at = now;
        slot.due = due::HELLO;
        self.arm(index, now + WELCOME_WITHIN);
        self.wake(index);
    }

    /// A dial failed. The next one comes after a backoff that depends on why.
    pub fn handle_dial_failed(&mut self, now: Instant, device: DeviceIndex, error: DialError) {
        self.observe(now);
        let index = device.0;
        if self.devices.at(index).state != State::Dialling {
            return;
        }
        self.stats.dials_failed = self.stats.dials_failed.wrapping_add(1);
        let cap = match error {
            DialError::Refused => BACKOFF_REFUSED_MAX,
            DialError::TimedOut | DialError::Unreachable => BACKOFF_MAX,
        };
        self.half_open_ends(index);
        self.back_off(now, index, cap, 0);
        self.connection_gone(index);
    }

    /// A dial or a handshake is no longer under way.
    pub(super) fn half_open_ends(&mut self, index: u32) {
        let device = self.devices.at(index);
        if matches!(device.state, State::Dialling | State::Greeting) {
            self.half_open = self.half_open.saturating_sub(1);
            let stranger = u32::from(device.is(flag::STRANGER));
            self.half_open_strangers = self.half_open_strangers.saturating_sub(stranger);
        }
    }

    /// Sets the time of the next dial after a failure or the end of a session: full jitter under a doubling limit.
    pub(super) fn back_off(&mut self, now: Instant, index: u32, cap: Duration, retry_after_ms: u32) {
        let device = self.devices.at(index);
        let stable = device.state == State::Open && self.awake(now).since(device.since) >= STABLE_AFTER;
        let attempts = if stable { 0 } else { device.attempts };
        let limit = BACKOFF_STEP.saturating_mul(1 << u32::from(attempts.min(16))).min(cap);
        let jitter = self.rng.between(Duration::ZERO, limit);
        let asked = Duration::from_millis(u64::from(retry_after_ms)).min(BACKOFF_REJECTED_MAX);
        let device = self.devices.at_mut(index);
        device.attempts = attempts.saturating_add(1);
        device.dial_at = now + jitter.max(asked);
    }

    /// The longest backoff after a session that ended so, and what the peer asked for, in ms.
    pub(super) const fn patience(why: &Ended) -> (Duration, u32) {
        match *why {
            Ended::Rejected { retry_after_ms, .. } => (BACKOFF_REJECTED_MAX, retry_after_ms),
            Ended::Bye { retry_after_ms, .. } => (BACKOFF_MAX, retry_after_ms),
            Ended::Refused { .. }
            | Ended::WrongDevice { .. }
            | Ended::DuplicateDevice { .. }
            | Ended::FloorAhead => (BACKOFF_REJECTED_MAX, 0),
            Ended::Renewed => (Duration::ZERO, 0),
            _ => (BACKOFF_MAX, 0),
        }
    }

    /// The connection, or the attempt at one, is gone on the driver's side too.
    pub(super) fn connection_gone(&mut self, index: u32) {
        self.connections = self.connections.saturating_sub(1);
        self.close.remove(&mut self.devices, index);
        let device = self.devices.at_mut(index);
        device.state = State::Idle;
        // A farewell may have been cut.
        device.partial = Partial::None;
        device.set(flag::BLOCKED, false);
        if device.is(flag::REMOVED) {
            self.leave(index);
        } else if self.stopped {
            self.rest(index);
        } else if device.is(flag::REDIAL) {
            device.set(flag::REDIAL, false);
            self.hasten_dial(self.now, index);
        } else {
            let at = device.dial_at;
            self.arm(index, at);
        }
    }

    /// Somebody heard of the device: dial it now, but not more than once a second.
    pub(super) fn hasten_dial(&mut self, now: Instant, index: u32) {
        let device = self.devices.at_mut(index);
        if self.stopped || device.state != State::Idle {
            return;
        }
        device.attempts = 0;
        let earliest = if device.dialled_at == Instant::NEVER { now } else { device.dialled_at + REDIAL_MIN };
        device.dial_at = device.dial_at.min(earliest.max(now));
        if device.dial_at <= now {
            self.enqueue_dial(index);
        } else {
            let at = device.dial_at;
            self.arm(index, at);
        }
    }

    /// It is this device's turn to wait for its dial.
    pub(super) fn enqueue_dial(&mut self, index: u32) {
        let device = self.devices.at_mut(index);
        if self.stopped || device.state != State::Idle || !device.is(flag::ADDRESSED) {
            return;
        }
        device.state = State::Queued;
        device.dial_at = Instant::NEVER;
        self.timers.cancel(&mut self.devices, index);
        let (queue, devices) = self.queue_of(index);
        queue.push_back(devices, index);
    }

    /// Nobody dials this device any more.
    pub(super) fn rest(&mut self, index: u32) {
        self.unqueue(index);
        self.timers.cancel(&mut self.devices, index);
        self.devices.at_mut(index).state = State::Idle;
    }

    /// A removed device has no connection: its orders come to their end.
    pub(super) fn leave(&mut self, index: u32) {
        self.rest(index);
        self.devices.at_mut(index).state = State::Leaving;
        self.tell.push_back(&mut self.devices, index);
    }

    /// A device that waits for its dial does not wait any more.
    pub(super) fn unqueue(&mut self, index: u32) {
        if self.devices.at(index).state == State::Queued {
            let (queue, devices) = self.queue_of(index);
            queue.remove(devices, index);
            self.devices.at_mut(index).state = State::Idle;
        }
    }

    /// Where a device waits for its dial.
    fn queue_of(&mut self, index: u32) -> (&mut List<{ link::QUEUE }>, &mut Devices<D>) {
        let device = self.devices.at(index);
        let queue = if device.is(flag::ANNOUNCED) {
            &mut self.announced
        } else if device.is(flag::KNOWN) {
            &mut self.queue
        } else {
            &mut self.strangers
        };
        (queue, &mut self.devices)
    }
}

/// When the next one may follow what leaves now, at so many a second and a burst of [`BURST`].
fn paced(gate: Instant, now: Instant, per_s: u32) -> Instant {
    let burst = u64::try_from(BURST.as_micros()).unwrap_or(u64::MAX);
    let earliest = Instant::from_micros(now.as_micros().saturating_sub(burst));
    gate.max(earliest) + Duration::from_secs(1) / per_s.max(1)
}
