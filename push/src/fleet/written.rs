//! What has left. Whole frames take effect; a frame that was cut is remembered, so that exactly its rest follows.

use wire_format::time::Instant;

use super::device::{Partial, State, due, flag};
use super::devices::DeviceStorage;
use super::order::{MarkBytes, OrderStorage};
use super::plan::{Entry, Head, What, control_bytes};
use super::{DeviceIndex, Fleet};
use crate::ended::Ended;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// `n` bytes of the write planned last have left for this device. Fewer than planned means that its connection takes
    /// no more: nothing is planned for it until [`Fleet::handle_writable`].
    pub fn handle_written(&mut self, now: Instant, device: DeviceIndex, n: usize) {
        self.observe(now);
        let index = device.0;
        if self.plan.device != index || self.plan.entries().is_empty() {
            if n != 0 && matches!(self.devices.at(index).state, State::Greeting | State::Open | State::Ending)
            {
                self.end(now, index, Ended::LostTrack);
            }
            return;
        }
        self.stats.writes = self.stats.writes.wrapping_add(1);
        self.stats.bytes_out = self.stats.bytes_out.wrapping_add(n as u64);
        self.ready.remove(&mut self.devices, index);
        let mut left = u32::try_from(n).unwrap_or(u32::MAX);
        let (mut at, mut asks) = (0_usize, false);
        let mut cut = false;
        while let Some(entry) = self.plan.entry(at) {
            at = at.wrapping_add(1);
            asks |= matches!(entry.what, What::Ping { .. } | What::Rest);
            if left >= entry.len {
                left = left.saturating_sub(entry.len);
                self.commit(index, entry);
            } else {
                cut = true;
                if left != 0 && !self.cut(index, entry, left) {
                    self.plan.clear(index);
                    return self.end(now, index, Ended::LostTrack);
                }
                break;
            }
        }
        self.plan.clear(index);
        self.after_write(now, index, n != 0, cut, asks);
    }

    /// The connection takes bytes again.
    pub fn handle_writable(&mut self, now: Instant, device: DeviceIndex) {
        self.observe(now);
        self.devices.at_mut(device.0).set(flag::BLOCKED, false);
        self.wake(device.0);
    }

    fn after_write(&mut self, now: Instant, index: u32, some: bool, cut: bool, asks: bool) {
        let awake = self.awake(now);
        let device = self.devices.at_mut(index);
        if !matches!(device.state, State::Greeting | State::Open | State::Ending) {
            return;
        }
        if some {
            device.wrote_at = now;
        }
        // A connection that takes nothing is as silent as one that answers nothing.
        if (asks || cut) && device.await_since == Instant::NEVER {
            device.await_since = awake;
        }
        if cut {
            device.set(flag::BLOCKED, true);
            self.stats.writes_cut = self.stats.writes_cut.wrapping_add(1);
        } else if device.state == State::Ending {
            self.close_now(index);
        } else if device.due != 0
            || (device.takes_orders() && device.is_owed())
            || Self::wants_piece(self.devices.at(index))
        {
            self.wake(index);
        }
    }

    /// A frame has left as a whole.
    fn commit(&mut self, index: u32, entry: Entry) {
        self.stats.frames_out = self.stats.frames_out.wrapping_add(1);
        match entry.what {
            What::Rest => match core::mem::replace(&mut self.devices.at_mut(index).partial, Partial::None) {
                Partial::Order { slot, was, .. } => {
                    self.count_sent(was == crate::mark::Mark::REPEAT);
                    self.unpin(slot);
                }
                Partial::Piece { slot, .. } => self.unpin(slot),
                Partial::Post { post, .. } => self.post_written(index, post),
                Partial::None | Partial::Hello { .. } | Partial::Control { .. } => {}
            },
            What::Post { post } => self.post_written(index, post),
            What::Piece { slot, piece } => self.piece_written(index, slot, piece),
            What::Order { slot, number, head } => {
                let order = self.orders.at(slot);
                if order.number == number && order.mark(index).is_owed() {
                    self.mark_sent(index, slot);
                    self.count_sent(matches!(head, Head::New { replay: true, .. }));
                }
            }
            control => self.control_written(index, control),
        }
    }

    /// The first `offset` bytes of a frame have left. False if its rest cannot follow.
    fn cut(&mut self, index: u32, entry: Entry, offset: u32) -> bool {
        let small = u8::try_from(offset).unwrap_or(u8::MAX);
        match entry.what {
            What::Rest => match &mut self.devices.at_mut(index).partial {
                Partial::None => return false,
                Partial::Hello { offset: at, .. } => {
                    *at = at.saturating_add(u16::try_from(offset).unwrap_or(u16::MAX));
                }
                Partial::Control { offset: at, .. } => *at = at.saturating_add(small),
                Partial::Order { offset: at, .. }
                | Partial::Post { offset: at, .. }
                | Partial::Piece { offset: at, .. } => {
                    *at = at.saturating_add(offset);
                }
            },
            What::Piece { slot, piece } => {
                let order = self.orders.at_mut(slot);
                order.pins = order.pins.saturating_add(1);
                self.piece_written(index, slot, piece);
                self.devices.at_mut(index).partial = Partial::Piece { slot, piece, offset };
            }
            What::Post { post } => {
                self.post_cut(index, post);
                self.devices.at_mut(index).partial = Partial::Post { post, offset };
            }
            What::Hello { heads } => {
                let device = self.devices.at_mut(index);
                device.due &= !due::HELLO;
                device.partial = Partial::Hello { offset: u16::try_from(offset).unwrap_or(u16::MAX), heads };
            }
            What::Order { slot, number, head } => {
                let order = self.orders.at(slot);
                let was = order.mark(index);
                if order.number != number || !was.is_owed() {
                    return false;
                }
                let header = self.header_of(slot, head).unwrap_or_else(|| order.fresh_header());
                let order = self.orders.at_mut(slot);
                order.pins = order.pins.saturating_add(1);
                self.mark_sent(index, slot);
                self.devices.at_mut(index).partial = Partial::Order { slot, offset, header, was };
            }
            control => {
                let (bytes, len) = control_bytes(control);
                self.control_written(index, control);
                let len = u8::try_from(len).unwrap_or(0);
                self.devices.at_mut(index).partial = Partial::Control { bytes, len, offset: small };
            }
        }
        true
    }

    /// A control frame has left, or its rest will before anything else.
    fn control_written(&mut self, index: u32, what: What) {
        let device = self.devices.at_mut(index);
        match what {
            What::Hello { .. } => device.due &= !due::HELLO,
            What::Pong { .. } => device.due &= !due::PONG,
            What::Ping { token } => {
                device.due &= !due::PING;
                device.ping_token = token;
                device.set(flag::PINGED, true);
                self.ping_left(index);
            }
            What::Settled { track, number } => {
                self.devices.settled(index, track, number);
                if !self.owes_settled(index) {
                    self.devices.at_mut(index).due &= !due::SETTLED;
                    self.settle.remove(&mut self.devices, index);
                }
            }
            What::Cancel(named) => {
                device.cancel_told = device.cancel_told.max(named.seq);
                if self.next_cancel(index, named.seq).is_none() {
                    self.devices.at_mut(index).due &= !due::CANCEL;
                }
            }
            What::Drain { .. } => device.due &= !due::DRAIN,
            What::Farewell(_) => device.due &= !due::FAREWELL,
            What::Rest | What::Post { .. } | What::Piece { .. } | What::Order { .. } => {}
        }
    }

    const fn count_sent(&mut self, replay: bool) {
        self.stats.orders_sent = self.stats.orders_sent.wrapping_add(1);
        if replay {
            self.stats.replays = self.stats.replays.wrapping_add(1);
        }
    }
}
