//! Time: silent peers, lifetimes, SETTLED that must leave, and this side's own pauses.
//!
//! Silence is measured in *awake* time: if a timer is served more than half a second late, this side stood still (a
//! suspended machine, a stopped process) and the gap counts for nobody. A device's timer is armed lazily: at most one
//! suspicion ahead, so that a write never has to move it.

use core::time::Duration;

use wire_format::rng::mix;
use wire_format::time::Instant;

use super::Fleet;
use super::device::{State, due, flag};
use super::devices::DeviceStorage;
use super::order::{MarkBytes, OrderStorage};
use crate::config::{DIAL_GUARD, FAREWELL_WITHIN, PAUSE_MIN, REPEAT_WITHIN, WELCOME_WITHIN};
use crate::ended::Ended;

/// Devices that nothing is expected of are looked at together, a few times a second: 2^18 µs apart.
const LOOKS_EVERY: u64 = 1 << 18;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Serves everything whose time has come. Call it when [`Fleet::poll_timeout`] says so; more often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        while let Some(index) = self.timers.pop(&mut self.devices, now) {
            self.fire(now, index);
        }
        while let Some(slot) = self.deadlines.pop(&mut self.orders, now) {
            self.lifetime_over(now, slot);
        }
        while let Some(index) = self.settle.front()
            && self.devices.at(index).settle_at <= now
        {
            self.settle.remove(&mut self.devices, index);
            self.devices.at_mut(index).due |= due::SETTLED;
            self.wake(index);
        }
        if self.posts.next <= now {
            self.expire_posts(now);
        }
        let settle = self.settle.front().map_or(Instant::NEVER, |index| self.devices.at(index).settle_at);
        self.alarm = self.timers.next().min(self.deadlines.next()).min(settle).min(self.posts.next);
    }

    /// When [`Fleet::handle_timeout`] and [`Fleet::poll_dial`] have something to do next; `None` if nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.dial_gate_at().map_or(self.alarm, |dial| dial.min(self.alarm));
        (next != Instant::NEVER).then_some(next)
    }

    /// Takes note of the time, and of having stood still.
    pub(super) fn observe(&mut self, now: Instant) {
        if self.alarm != Instant::NEVER && now > self.alarm + PAUSE_MIN {
            // Since the last call: whether this side was awake for a part of that time, nobody knows.
            let gap = now.as_micros().saturating_sub(self.now.as_micros());
            self.paused = self.paused.saturating_add(gap);
            self.stats.pauses = self.stats.pauses.wrapping_add(1);
            self.alarm = now;
        }
        self.now = self.now.max(now);
    }

    /// The oldest outcome that waits for its SETTLED waits `settle_within` at most.
    pub(super) fn settle_soon(&mut self, now: Instant, index: u32) {
        if !super::List::<{ super::link::SETTLE }>::has(&self.devices, index) {
            let at = now + self.config.settle_within;
            self.devices.at_mut(index).settle_at = at;
            self.settle.push_back(&mut self.devices, index);
            self.alarm = self.alarm.min(at);
        }
    }

    /// The peer said something. That is an answer to a PING; an order is answered by a receipt alone, so a device that
    /// reads no orders is not kept alive by its PONGs.
    pub(super) fn heard(&mut self, now: Instant, index: u32) {
        let awake = self.awake(now);
        let device = self.devices.at_mut(index);
        // What was cut is waited for as well: nothing else would ever be written there.
        let waits = device.is(flag::PINGED | flag::BLOCKED);
        device.await_since = if waits { awake } else { Instant::NEVER };
        if device.is(flag::SUSPECT) && silence(awake, device.receipt_since) < self.config.suspect_after {
            device.set(flag::SUSPECT, false);
            self.wake(index);
        }
        if self.stopped {
            self.leave_if_quiet(now, index);
        }
    }

    fn fire(&mut self, now: Instant, index: u32) {
        let silent = self.awake(now).since(self.devices.at(index).since);
        match self.devices.at(index).state {
            State::Idle => {
                let at = self.devices.at(index).dial_at;
                if at <= now { self.enqueue_dial(index) } else { self.arm(index, at) }
            }
            State::Dialling => self.end_or_wait(now, index, silent, DIAL_GUARD, Ended::DialTimeout),
            State::Greeting => self.end_or_wait(now, index, silent, WELCOME_WITHIN, Ended::HandshakeTimeout),
            State::Ending if silent >= FAREWELL_WITHIN => self.close_now(index),
            State::Ending => self.arm(index, now + FAREWELL_WITHIN.saturating_sub(silent)),
            State::Open => self.look_at(now, index),
            State::Free | State::Queued | State::Closing | State::Leaving => {}
        }
    }

    fn end_or_wait(&mut self, now: Instant, index: u32, silent: Duration, limit: Duration, why: Ended) {
        if silent >= limit {
            self.end(now, index, why);
        } else {
            self.arm(index, now + limit.saturating_sub(silent));
        }
    }

    /// An open session: is it alive, is a PING due, did the device repeat what it had to?
    fn look_at(&mut self, now: Instant, index: u32) {
        if self.stopped && self.leave_if_quiet(now, index) {
            return;
        }
        let (awake, suspect_after) = (self.awake(now), micros(self.config.suspect_after));
        // In microseconds from now.
        let mut next = suspect_after;
        let device = self.devices.at(index);
        // Only a PING is unanswered: it came after seconds of silence already, and a PONG takes no work.
        let idle = !device.unacknowledged() && !device.is(flag::BLOCKED);
        let pong_within = if idle { self.config.pong_within } else { self.config.dead_after };
        let waits = [(device.await_since, pong_within), (device.receipt_since, self.config.dead_after)];
        for (since, dead_after) in waits {
            if since == Instant::NEVER {
                continue;
            }
            let (silent, dead_after) = (passed(awake, since), micros(dead_after));
            if silent >= dead_after {
                return self.end(now, index, Ended::Dead);
            }
            next = next.min(dead_after.saturating_sub(silent));
            if silent >= suspect_after {
                self.suspect(index);
            } else {
                next = next.min(suspect_after.saturating_sub(silent));
            }
        }
        let device = self.devices.at(index);
        if device.is(flag::REPEATS) {
            let (open, repeat_within) = (passed(awake, device.since), micros(REPEAT_WITHIN));
            if open >= repeat_within {
                self.repeat_unanswered(index);
            } else {
                next = next.min(repeat_within.saturating_sub(open));
            }
        }
        let device = self.devices.at_mut(index);
        if device.is(flag::DRAINING) && device.dial_at <= now {
            device.set(flag::DRAINING, false);
            self.wake(index);
        }
        let device = self.devices.at_mut(index);
        if device.due & due::PING == 0 && !device.is(flag::PINGED) {
            let quiet = passed(now, device.wrote_at);
            let ping_after = ping_after(self.config.ping_after, index);
            if quiet >= ping_after {
                device.due |= due::PING;
                self.wake(index);
            } else {
                next = next.min(ping_after.saturating_sub(quiet));
            }
        }
        let at = look_at_next(now, next, suspect_after);
        self.arm(index, at.min(if self.stopped { self.drain_until } else { Instant::NEVER }));
    }

    /// Silent although it should answer: one PING, no new orders.
    fn suspect(&mut self, index: u32) {
        let device = self.devices.at_mut(index);
        if device.is(flag::SUSPECT) {
            return;
        }
        device.set(flag::SUSPECT, true);
        device.tally.suspects = device.tally.suspects.saturating_add(1);
        device.due |= due::PING;
        self.stats.suspects = self.stats.suspects.wrapping_add(1);
        self.wake(index);
    }

    /// An order's lifetime is over, or nobody will ever tell what became of it.
    fn lifetime_over(&mut self, now: Instant, slot: u32) {
        let deadline = self.orders.at(slot).deadline;
        let forgotten = deadline + self.config.unknown_after;
        let next = if now < deadline { deadline } else { forgotten };
        if now < forgotten {
            self.deadlines.arm(&mut self.orders, slot, next);
        }
        if now >= deadline {
            self.sweep_again(slot);
        }
    }

    /// Looks at every mark of an order whose time is over.
    pub(super) fn sweep_again(&mut self, slot: u32) {
        self.orders.at_mut(slot).swept = 0;
        self.sweep.push_back(&mut self.orders, slot);
    }
}

/// The silence of ours that makes a PING to this device due: spread over the last quarter, so that a fan-out to all is
/// not followed by a PING to all.
fn ping_after(longest: Duration, index: u32) -> u64 {
    let longest = micros(longest);
    let part = u128::from(mix(u64::from(index))).wrapping_mul(u128::from(longest / 4)) >> 64;
    longest.saturating_sub(u64::try_from(part).unwrap_or(0))
}

/// `next` microseconds from now. If that is for nothing but what may be written meanwhile, it may be a little sooner: then
/// one timer serves many devices.
fn look_at_next(now: Instant, next: u64, suspect_after: u64) -> Instant {
    let at = now.as_micros().saturating_add(next);
    let together = at & !LOOKS_EVERY.wrapping_sub(1);
    let lazy = next == suspect_after && together > now.as_micros();
    Instant::from_micros(if lazy { together } else { at })
}

const fn micros(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000).saturating_add(span.subsec_micros() as u64)
}

/// Microseconds from one moment to a later one.
const fn passed(now: Instant, since: Instant) -> u64 {
    now.as_micros().saturating_sub(since.as_micros())
}

/// How long something was waited for; nothing, if nothing is.
fn silence(awake: Instant, since: Instant) -> Duration {
    if since == Instant::NEVER { Duration::ZERO } else { awake.since(since) }
}
