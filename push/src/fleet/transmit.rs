//! What is written next. A plan is made for one device and one system call; nothing of it counts until it was reported.
//!
//! ```text
//!  scratch  ┌ rest of a cut frame │ PONG │ PING │ SETTLED … │ small orders … │ new header ┐   ─▶ head
//!  shared                                                     the last order's one encoding  ─▶ body
//! ```
//!
//! The usual fan-out to an idle device is an empty head and one whole shared frame: no byte is copied or made.

use wire_format::error::EmitError;
use wire_format::frame::order::Delivery;
use wire_format::frame::{Bye, Cancel, Drain, Ping, Pong, Reject, Settled, drain, header};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::credit::Credit;
use super::device::{CARRY, Farewell, Partial, State, due};
use super::devices::DeviceStorage;
use super::event::Transmit;
use super::list::NONE;
use super::marks::End;
use super::order::{MarkBytes, OrderStorage};
use super::{DeviceIndex, Fleet};
use crate::config::PLAN_MAX;
use crate::mark::Mark;
use wire_format::frame::outcome::Code;

/// A planned frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) what: What,
    /// Bytes that are planned of it.
    pub(super) len: u32,
}

/// What a planned frame is, with all it takes to make it again.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The rest of a cut frame.
    Rest,
    Hello {
        head: u64,
    },
    Pong {
        token: u32,
    },
    Ping {
        token: u32,
    },
    Settled {
        lane: Lane,
        number: u64,
    },
    /// `seq` is the order's `cancel_seq`.
    Cancel {
        number: u64,
        seq: u32,
    },
    Drain {
        after_ms: u32,
    },
    Farewell(Farewell),
    /// The number tells whether the slot still holds the order that was planned.
    Order {
        slot: u32,
        number: u64,
        head: Head,
    },
}

/// The header an order is sent with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// The one it was encoded with.
    Fresh,
    /// Another, with what is left of the lifetime.
    New { remaining_ms: Option<u32>, replay: bool },
}

/// The frames of one write.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) device: u32,
    entries: [Entry; PLAN_MAX],
    len: usize,
}

impl Plan {
    pub(super) const EMPTY: Self =
        Self { device: NONE, entries: [Entry { what: What::Rest, len: 0 }; PLAN_MAX], len: 0 };

    pub(super) fn entries(&self) -> &[Entry] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    pub(super) const fn clear(&mut self, device: u32) {
        self.device = device;
        self.len = 0;
    }

    pub(super) fn entry(&self, at: usize) -> Option<Entry> {
        self.entries().get(at).copied()
    }

    const fn is_full(&self) -> bool {
        self.len >= PLAN_MAX
    }

    fn push(&mut self, what: What, len: usize) {
        if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = Entry { what, len: u32::try_from(len).unwrap_or(u32::MAX) };
            self.len = self.len.wrapping_add(1);
        }
    }
}

/// The scratch buffer while it fills.
struct Scratch<'s> {
    bytes: &'s mut [u8],
    len: usize,
}

impl Scratch<'_> {
    const fn room(&self) -> usize {
        self.bytes.len().saturating_sub(self.len)
    }

    /// Appends what `emit` writes; its length, or 0 if it does not fit.
    fn emit(&mut self, emit: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>) -> usize {
        let len = self.bytes.get_mut(self.len..).and_then(|room| emit(room).ok()).unwrap_or(0);
        self.len = self.len.saturating_add(len);
        len
    }

    fn copy(&mut self, bytes: &[u8]) -> usize {
        self.emit(|room| match room.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Ok(bytes.len())
            }
            None => Err(EmitError::NoRoom { need: bytes.len() }),
        })
    }
}

/// The part of an order's frame that goes out as it lies in the order's slot.
#[derive(Clone, Copy)]
struct Body {
    slot: u32,
    from: usize,
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// The next write, until there is none. `scratch` takes what has to be made or copied for it: at least
    /// [`crate::config::SCRATCH_MIN`] bytes (less, and nothing is planned), 16 KiB to gather many small orders.
    ///
    /// Report what left with [`Fleet::handle_written`] before anything else is called; what is not reported has not left,
    /// and is planned again. While outcomes wait in [`Fleet::poll_event`] there may be nothing to write.
    pub fn poll_transmit<'a>(&'a mut self, now: Instant, scratch: &'a mut [u8]) -> Option<Transmit<'a>> {
        self.observe(now);
        if scratch.len() < crate::config::SCRATCH_MIN {
            return None;
        }
        let (index, head, body) = loop {
            let index = self.ready.front()?;
            let mut head = Scratch { bytes: &mut *scratch, len: 0 };
            let body = self.plan(now, index, &mut head);
            if self.plan.len != 0 {
                break (index, head.len, body);
            }
            if self.told.is_full() {
                return None;
            }
            self.ready.remove(&mut self.devices, index);
        };
        let frame = body
            .map_or(&[][..], |Body { slot, from }| self.orders.at(slot).frame().get(from..).unwrap_or(&[]));
        Some(Transmit { device: DeviceIndex(index), head: scratch.get(..head).unwrap_or(&[]), body: frame })
    }

    /// Plans one write to a device.
    fn plan(&mut self, now: Instant, index: u32, head: &mut Scratch<'_>) -> Option<Body> {
        self.plan.clear(index);
        match self.devices.at(index).partial {
            Partial::None => {}
            Partial::Control { bytes, len, offset } => {
                let rest = bytes.get(usize::from(offset)..usize::from(len)).unwrap_or(&[]);
                let len = head.copy(rest);
                self.plan.push(What::Rest, len);
            }
            Partial::Hello { offset, head: log_head } => {
                self.plan_rest_of_hello(index, offset, log_head, head);
                return None;
            }
            Partial::Order { slot, offset, header, .. } => {
                return Some(self.plan_rest_of_order(slot, offset, &header, head));
            }
        }
        match self.devices.at(index).state {
            State::Greeting if self.devices.at(index).due & due::HELLO != 0 => {
                let log_head = self.last_number;
                let hello = self.hello(index, log_head);
                let len = head.emit(|room| hello.emit(room));
                if len != 0 {
                    self.plan.push(What::Hello { head: log_head }, len);
                }
                None
            }
            State::Ending if self.devices.at(index).due & due::FAREWELL != 0 => {
                let farewell = self.devices.at(index).farewell;
                let len = head.emit(|room| emit_farewell(farewell, room));
                self.plan.push(What::Farewell(farewell), len);
                None
            }
            State::Open => self.plan_session(now, index, head),
            _ => None,
        }
    }

    fn plan_rest_of_hello(&mut self, index: u32, offset: u16, log_head: u64, head: &mut Scratch<'_>) {
        let hello = self.hello(index, log_head);
        let whole = head.emit(|room| hello.emit(room));
        let offset = usize::from(offset);
        if let Some(hello) = head.bytes.get_mut(..whole) {
            hello.copy_within(offset.min(whole).., 0);
        }
        head.len = whole.saturating_sub(offset);
        self.plan.push(What::Rest, head.len);
    }

    fn plan_rest_of_order(
        &mut self,
        slot: u32,
        offset: u32,
        header: &[u8; header::LEN],
        head: &mut Scratch<'_>,
    ) -> Body {
        let offset = offset as usize;
        head.copy(header.get(offset..).unwrap_or(&[]));
        let len = self.orders.at(slot).frame().len().saturating_sub(offset);
        self.plan.push(What::Rest, len);
        Body { slot, from: offset.max(header::LEN) }
    }

    fn plan_session(&mut self, now: Instant, index: u32, head: &mut Scratch<'_>) -> Option<Body> {
        let device = self.devices.at(index);
        let (dues, pong, ping) = (device.due, device.pong_token, device.ping_token.wrapping_add(1));
        let (orders, owed) = (device.takes_orders(), device.owed());
        if dues & due::PONG != 0 {
            let len = head.emit(|room| Pong { token: pong }.emit(room));
            self.plan.push(What::Pong { token: pong }, len);
        }
        if dues & due::PING != 0 {
            let len = head.emit(|room| Ping { token: ping }.emit(room));
            self.plan.push(What::Ping { token: ping }, len);
        }
        if dues & due::DRAIN != 0 {
            let drain = self.drain_frame(now);
            let len = head.emit(|room| drain.emit(room));
            self.plan.push(What::Drain { after_ms: drain.after_ms }, len);
        }
        if dues & due::CANCEL != 0 {
            self.plan_cancels(index, head);
        }
        let orders = orders && owed != 0;
        let before = (head.len, self.plan.len);
        let mut credit = Credit::new(self.devices.at(index));
        // SETTLED goes with an order or a PING, or in its own time.
        let settle = dues & (due::SETTLED | due::PING) != 0;
        if settle || orders {
            self.plan_settled(index, head, &mut credit);
        }
        let settled = self.plan.len;
        let body = if orders { self.plan_orders(now, index, head, credit) } else { None };
        if self.plan.len == settled && !settle {
            (head.len, self.plan.len) = before;
        }
        body
    }

    /// Names the cancelled orders out there that were not named yet, in the order they were cancelled. What follows in the
    /// same write was not cancelled, so no CANCEL overtakes its order.
    fn plan_cancels(&mut self, index: u32, head: &mut Scratch<'_>) {
        let mut told = self.devices.at(index).cancel_told;
        while !self.plan.is_full()
            && let Some((seq, number)) = self.next_cancel(index, told)
        {
            let len = head.emit(|room| emit_cancel(number, room));
            if len == 0 {
                return;
            }
            self.plan.push(What::Cancel { number, seq }, len);
            told = seq;
        }
        if told == self.devices.at(index).cancel_told {
            // They ended meanwhile.
            self.devices.at_mut(index).due &= !due::CANCEL;
        }
    }

    fn plan_settled(&mut self, index: u32, head: &mut Scratch<'_>, credit: &mut Credit) {
        for lane in Lane::ALL {
            let (number, state) = (self.settled_upto(index, lane), *self.devices.at(index).lane(lane));
            if number <= state.settled {
                continue;
            }
            let len = head.emit(|room| Settled { durable: false, lane, number }.emit(room));
            self.plan.push(What::Settled { lane, number }, len);
            if let Some(held) = credit.held.get_mut(lane.index()) {
                *held = state.held_after(number);
            }
        }
    }

    /// As many orders as the window and the buffer take, most urgent lane first. All but the last are copied.
    ///
    /// A repetition has its credit already, so it may go where nothing new may: without it the window would never open.
    fn plan_orders(
        &mut self,
        now: Instant,
        index: u32,
        head: &mut Scratch<'_>,
        mut credit: Credit,
    ) -> Option<Body> {
        let mut body = None;
        let mut repeats_only = false;
        for lane in Lane::ALL {
            let state = self.devices.at(index).lane(lane);
            let (mut next, mut left) = (state.next, state.owed);
            while left != 0 && next != NONE {
                let slot = next;
                let judged = self.judge_order(now, index, slot);
                let (repeat, len) = (judged == Judged::Repeat, self.orders.at(slot).len);
                match judged {
                    Judged::Send if repeats_only || !credit.allows(lane) => {
                        repeats_only = true;
                        break;
                    }
                    Judged::Repeat if !credit.allows_repeat() => return body,
                    Judged::Send | Judged::Repeat => {
                        let room = !self.plan.is_full() && credit.has_bytes(len);
                        if !room || !self.place(now, slot, repeat, head, &mut body) {
                            return body;
                        }
                        credit.take(lane, len, repeat);
                    }
                    Judged::Never(_) if self.told.is_full() => return body,
                    Judged::Never(code) => self.mark_ended(now, index, slot, End::by_server(code)),
                }
                left = left.saturating_sub(1);
                next = if left == 0 { NONE } else { self.orders.next_of(slot, index, Mark::is_owed) };
            }
        }
        body
    }

    fn judge_order(&self, now: Instant, index: u32, slot: u32) -> Judged {
        let (order, device) = (self.orders.at(slot), self.devices.at(index));
        let too_large =
            order.len > device.window_bytes || order.len.saturating_sub(header::LEN as u32) > device.max_body;
        match order.mark(index) {
            Mark::PENDING if order.deadline <= now => Judged::Never(Code::EXPIRED),
            _ if too_large => Judged::Never(Code::TOO_LARGE),
            Mark::REPEAT => Judged::Repeat,
            _ => Judged::Send,
        }
    }

    /// Makes an order the last one of the write; the one before is copied for it. False if there is no room.
    fn place(
        &mut self,
        now: Instant,
        slot: u32,
        replay: bool,
        head: &mut Scratch<'_>,
        body: &mut Option<Body>,
    ) -> bool {
        let order = self.orders.at(slot);
        let fresh = !replay && now <= order.fresh_until;
        let before = body
            .map_or(&[][..], |Body { slot, from }| self.orders.at(slot).frame().get(from..).unwrap_or(&[]));
        let made = if fresh { 0 } else { header::LEN };
        if before.len().saturating_add(made) > head.room() {
            return false;
        }
        head.copy(before);
        let what = if fresh {
            Head::Fresh
        } else {
            let limited = order.deadline != Instant::NEVER;
            let remaining_ms = limited.then(|| Delivery::millis(order.deadline.since(now)));
            Head::New { remaining_ms, replay }
        };
        if let Some(bytes) = self.header_of(slot, what) {
            head.copy(&bytes);
        }
        *body = Some(Body { slot, from: made });
        let (number, len) = (order.number, order.len);
        self.plan.push(What::Order { slot, number, head: what }, len as usize);
        true
    }

    /// The header an order gets in place of its own, if it gets one.
    pub(super) fn header_of(&self, slot: u32, head: Head) -> Option<[u8; header::LEN]> {
        let Head::New { remaining_ms, replay } = head else { return None };
        let order = self.orders.at(slot);
        let delivery = Delivery { durable: false, replay, needs_result: order.needs_result, remaining_ms };
        Some(delivery.header(order.len.saturating_sub(header::LEN as u32)).emit())
    }
}

/// What becomes of an owed order right now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    Send,
    /// As `Send`, for the second time.
    Repeat,
    /// Its lifetime is over, or this device can never take it.
    Never(Code),
}

fn emit_farewell(farewell: Farewell, room: &mut [u8]) -> Result<usize, EmitError> {
    match farewell {
        Farewell::Reject(code) => Reject { code, retry_after_ms: 0, detail: 0 }.emit(room),
        Farewell::Bye(code) => Bye { code, retry_after_ms: 0 }.emit(room),
    }
}

fn emit_cancel(number: u64, room: &mut [u8]) -> Result<usize, EmitError> {
    Cancel { durable: false, numbers: (&[number]).into() }.emit(room)
}

/// The bytes of a planned control frame, for the part of it that did not leave.
pub(super) fn control_bytes(what: What) -> ([u8; CARRY], usize) {
    let mut bytes = [0; CARRY];
    let len = match what {
        What::Pong { token } => Pong { token }.emit(&mut bytes),
        What::Ping { token } => Ping { token }.emit(&mut bytes),
        What::Settled { lane, number } => Settled { durable: false, lane, number }.emit(&mut bytes),
        What::Cancel { number, .. } => emit_cancel(number, &mut bytes),
        What::Drain { after_ms } => Drain { reason: drain::Reason::LEAVING, after_ms }.emit(&mut bytes),
        What::Farewell(farewell) => emit_farewell(farewell, &mut bytes),
        What::Rest | What::Hello { .. } | What::Order { .. } => Ok(0),
    };
    (bytes, len.unwrap_or(0))
}
