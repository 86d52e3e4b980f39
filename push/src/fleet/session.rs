//! A session's beginning and end: HELLO and WELCOME, what is resumed, what is given up.
//!
//! ```text
//! server                                device
//!   │── HELLO (target id) ──────────────▶│
//!   │◀────────── WELCOME (id, boot, floors, window)   no order byte left before this was checked
//!   │◀────────── OUTCOME …               │  everything not covered by a SETTLED, again
//!   │── SETTLED, ORDER (REPLAY) … ──────▶│  what lies above the floors
//! ```

use wire_format::frame::{Hello, Welcome, bye, hello, reject};
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::device::{Farewell, Partial, State, due, flag};
use super::devices::DeviceStorage;
use super::event::Facts;
use super::log::PerLog;
use super::order::{MarkBytes, OrderStorage};
use super::parts::Transfer;
use super::tell::Greeted;
use super::{DeviceIndex, Fleet};
use crate::config::{FAREWELL_WITHIN, POISON_WITHIN};
use crate::ended::{Closed, Ended};

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// The opening for a device; `heads` are the highest numbers of the logs when it was first made.
    pub(super) fn hello(&self, index: u32, heads: PerLog) -> Hello {
        let ping_ms = u16::try_from(self.config.ping_after.as_millis()).unwrap_or(u16::MAX);
        let (lineage, run) = (self.config.lineage, self.config.run);
        let volatile = hello::LogHead { lineage, run, head: heads.volatile };
        let durable = self.config.durable.as_ref().map(|log| {
            let (lineage, run) = (log.lineage, log.run);
            hello::LogHead { lineage, run, head: heads.durable }
        });
        Hello {
            version_min: hello::VERSION,
            version_max: hello::VERSION,
            staging: self.config.staging,
            takeover: self.config.takeover,
            store: self.config.store,
            max_body: self.config.body_max.max(hello::MAX_BODY_MIN),
            target: self.devices.at(index).id,
            server: self.config.server,
            fence: self.config.fence,
            epoch: self.config.epoch,
            ping_interval_ms: ping_ms.max(1),
            features: if self.config.answers_questions { hello::feature::ASK } else { 0 },
            durable: durable.unwrap_or_default(),
            volatile,
        }
    }

    /// The device answered. Either the session opens, or it is refused and no order byte ever left.
    pub(super) fn handle_welcome(
        &mut self,
        now: Instant,
        index: u32,
        welcome: &Welcome<'_>,
    ) -> Result<(), Ended> {
        if let Err((why, code)) = self.judge(index, welcome) {
            self.note_fork(index, welcome, why);
            self.part(now, index, why, Farewell::Reject(code));
            return Err(why);
        }
        self.half_open_ends(index);
        let learned = self.devices.at(index).id.is_none();
        if learned {
            self.devices.index_id(index, welcome.device);
        }
        let rebooted =
            !matches!(self.devices.at(index).boot, 0) && self.devices.at(index).boot != welcome.boot;
        self.stats.sessions = self.stats.sessions.wrapping_add(1);
        self.stats.reboots = self.stats.reboots.wrapping_add(u64::from(rebooted));
        let cancels = self.cancels;
        self.fence_heard = self.fence_heard.max(welcome.fence);
        let since = self.awake(now);
        let device = self.devices.at_mut(index);
        device.state = State::Open;
        device.since = since;
        device.boot = welcome.boot;
        device.window_orders = welcome.window_orders;
        device.window_bytes = welcome.window_bytes;
        device.max_body = welcome.max_body;
        device.cancel_told = cancels;
        device.tally.sessions = device.tally.sessions.saturating_add(1);
        device.features = welcome.features.to_le_bytes()[0];
        device.set(flag::KNOWN | flag::OPENED, true);
        // A session proves the address it was dialled at, not one that was heard of meanwhile.
        if !device.is(flag::REDIAL) {
            device.set(flag::ANNOUNCED, false);
        }
        self.durable_out = self.durable_out.saturating_add(self.devices.durable_out(index));
        self.resume(index, welcome, rebooted);
        self.told.greeted = Some(Greeted { device: index, facts: facts(welcome), rebooted, learned });
        self.settle_if_owed(now, index);
        self.arm(index, now + self.config.suspect_after);
        self.wake(index);
        Ok(())
    }

    /// Whether this is the device that was meant, of our sort, with a history that can be ours.
    fn judge(&self, index: u32, welcome: &Welcome<'_>) -> Result<(), (Ended, reject::Code)> {
        let id = self.devices.at(index).id;
        if !id.is_none() && id != welcome.device {
            return Err((Ended::WrongDevice { found: welcome.device }, reject::Code::WRONG_DEVICE));
        }
        if id == NodeId::NONE
            && let Some(first) = self.devices.find(welcome.device)
        {
            return Err((Ended::DuplicateDevice { first }, reject::Code::WRONG_DEVICE));
        }
        if welcome.staging != self.config.staging {
            let code = reject::Code::STAGING;
            return Err((Ended::Refused { code }, code));
        }
        let ours = welcome.volatile.lineage == self.config.lineage;
        let ahead = ours && welcome.volatile.lanes.iter().any(|lane| lane.floor > self.heads.volatile);
        if ahead || self.is_ahead(welcome) {
            return Err((Ended::FloorAhead, reject::Code::UNAUTHORIZED));
        }
        Ok(())
    }

    /// A device that was added by its address alone has said who it is, and the caller reaches it elsewhere already, as
    /// number `first`: its session ends with REJECT WRONG_DEVICE before an order left, and its id is forgotten again.
    /// Meant as the answer to [`super::Event::Learned`], before the next `poll_transmit`.
    pub fn refuse_duplicate(&mut self, now: Instant, device: DeviceIndex, first: u32) {
        self.observe(now);
        let index = device.0;
        if self.devices.at(index).state != State::Open {
            return;
        }
        if !self.devices.at(index).id.is_none() {
            self.devices.unindex_id(index);
            let slot = self.devices.at_mut(index);
            (slot.id, slot.chain) = (NodeId::NONE, super::list::NONE);
        }
        let why = Ended::DuplicateDevice { first };
        self.part(now, index, why, Farewell::Reject(reject::Code::WRONG_DEVICE));
    }

    /// The connection is gone.
    pub fn handle_closed(&mut self, now: Instant, device: DeviceIndex, how: Closed) {
        self.observe(now);
        let index = device.0;
        match self.devices.at(index).state {
            State::Dialling => self.handle_dial_failed(now, device, crate::ended::DialError::Unreachable),
            State::Greeting | State::Open => {
                self.over(now, index, Ended::Closed(how));
                self.connection_gone(index);
            }
            State::Ending | State::Closing => self.connection_gone(index),
            State::Free | State::Idle | State::Queued | State::Leaving => {}
        }
    }

    /// Ends a session with a last frame, if one can be written; the connection closes after it.
    pub(super) fn part(&mut self, now: Instant, index: u32, why: Ended, farewell: Farewell) {
        let device = self.devices.at(index);
        let strange = device.due & due::HELLO != 0;
        if device.is(flag::BLOCKED) || device.partial != Partial::None || strange {
            return self.end(now, index, why);
        }
        self.over(now, index, why);
        let since = self.awake(now);
        let device = self.devices.at_mut(index);
        device.state = State::Ending;
        device.since = since;
        device.farewell = farewell;
        device.due = due::FAREWELL;
        self.arm(index, now + FAREWELL_WITHIN);
        self.wake(index);
    }

    /// Ends a session, a handshake or a dial: the driver is asked to close.
    pub(super) fn end(&mut self, now: Instant, index: u32, why: Ended) {
        match self.devices.at(index).state {
            // It waits to be closed already.
            State::Closing => return,
            State::Ending => {}
            _ => self.over(now, index, why),
        }
        self.close_now(index);
    }

    /// Nothing more is written: the driver closes.
    pub(super) fn close_now(&mut self, index: u32) {
        self.timers.cancel(&mut self.devices, index);
        self.ready.remove(&mut self.devices, index);
        let device = self.devices.at_mut(index);
        device.state = State::Closing;
        device.due = 0;
        self.close.push_back(&mut self.devices, index);
    }

    /// The session is over: nothing is expected any more, what was cut has not left, the backoff is set.
    fn over(&mut self, now: Instant, index: u32, why: Ended) {
        self.half_open_ends(index);
        self.drop_partial(now, index);
        self.end_posts(index);
        let (cap, retry_after_ms) = Self::patience(&why);
        self.back_off(now, index, cap, retry_after_ms);
        self.count_end(&why);
        self.timers.cancel(&mut self.devices, index);
        self.ready.remove(&mut self.devices, index);
        self.settle.remove(&mut self.devices, index);
        self.nothing_out(index);
        let awake = self.awake(now);
        let device = self.devices.at_mut(index);
        let connected = device.state != State::Dialling;
        device.transfer = Transfer::NONE;
        device.why = why;
        if device.state == State::Open {
            device.set(flag::SHORT, awake.since(device.since) <= POISON_WITHIN);
        }
        device.tally.deads = device.tally.deads.saturating_add(u16::from(why == Ended::Dead));
        device.due = 0;
        device.await_since = Instant::NEVER;
        let gone = flag::BLOCKED
            | flag::SUSPECT
            | flag::DRAINING
            | flag::REPEATS
            | flag::PINGED
            | flag::OPENED
            | flag::TRACE
            | flag::LEAVING
            | flag::ECHO
            | flag::ECHO_AGAIN
            | flag::ECHOED;
        device.set(gone, false);
        if connected {
            device.set(flag::ENDED, true);
            if let Ended::Rejected { code: reject::Code::STALE_FENCE, detail, .. } = why {
                self.fence_heard = self.fence_heard.max(detail);
                device.set(flag::FENCED, detail > self.config.fence);
            }
            self.tell.push_back(&mut self.devices, index);
        }
    }

    fn drop_partial(&mut self, now: Instant, index: u32) {
        let partial = core::mem::replace(&mut self.devices.at_mut(index).partial, Partial::None);
        if let Partial::Piece { slot, .. } = partial {
            self.unpin(slot);
        }
        if let Partial::Order { slot, was, .. } = partial {
            self.mark_owed(index, slot, was);
            self.reconsider(index, slot);
            if self.orders.at(slot).deadline <= now {
                // The sweep passed it by while it was cut.
                self.sweep_again(slot);
            }
            self.unpin(slot);
        }
    }

    /// A cut write does not need the order's frame any more.
    pub(super) fn unpin(&mut self, slot: u32) {
        let order = self.orders.at_mut(slot);
        order.pins = order.pins.saturating_sub(1);
        self.finish_if_over(slot);
    }

    const fn count_end(&mut self, why: &Ended) {
        let stats = &mut self.stats;
        let counter = match why {
            Ended::Broken(_) | Ended::Unexpected(_) => &mut stats.broken,
            Ended::Rejected { .. } => &mut stats.rejected,
            Ended::WrongDevice { .. } => {
                stats.wrong_device = stats.wrong_device.wrapping_add(1);
                &mut stats.refused
            }
            Ended::Refused { .. } | Ended::DuplicateDevice { .. } | Ended::FloorAhead => &mut stats.refused,
            Ended::Dead => &mut stats.dead,
            Ended::HandshakeTimeout => &mut stats.handshake_timeouts,
            Ended::DialTimeout => &mut stats.dials_failed,
            _ => return,
        };
        *counter = counter.wrapping_add(1);
    }
}

/// The BYE that answers broken bytes.
pub(super) const fn protocol_bye(fault: wire_format::error::Fault) -> Farewell {
    Farewell::Bye(match fault {
        wire_format::error::Fault::UnknownKind => bye::Code::UNKNOWN_KIND,
        _ => bye::Code::PROTOCOL_ERROR,
    })
}

fn facts(welcome: &Welcome<'_>) -> Facts {
    Facts {
        id: welcome.device,
        kind: welcome.kind,
        zone: welcome.zone,
        tags: welcome.tags,
        boot: welcome.boot,
        window_orders: welcome.window_orders,
        window_bytes: welcome.window_bytes,
        max_body: welcome.max_body,
        floors_persisted: welcome.floors_persisted,
        journal_lost: welcome.journal_lost,
    }
}
