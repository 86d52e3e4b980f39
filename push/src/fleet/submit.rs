//! Orders come in: checked against their frame, put into their lane, owed to every device meant.

use core::time::Duration;

use wire_format::bytes::{u8_at, u16_at, u64_at};
use wire_format::frame::order::{self as wire, Delivery, KindFlags, OrderOption};
use wire_format::frame::outcome::Code;
use wire_format::frame::{Flags, Header, Kind, header};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::Fleet;
use super::device::{State, flag};
use super::devices::DeviceStorage;
use super::event::{SubmitError, SubmitFault, Submitted};
use super::order::{Live, MarkBytes, NewOrder, OrderSlot, OrderStorage};
use super::supersede::Key;
use crate::blob;
use crate::config::{FRESH_MAX, LIFETIME_MAX, OWED_MAX};
use crate::mark::Mark;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Takes an order for every device whose mark is PENDING: O(devices), whatever else is under way. Frame and marks
    /// come back with [`super::Event::Settled`], or at once if the order is refused.
    pub fn submit(
        &mut self,
        now: Instant,
        mut order: NewOrder<B, M>,
    ) -> Result<Submitted, SubmitError<B, M>> {
        self.observe(now);
        let Checked { slot, header, key } = match self.check_order(now, &order) {
            Ok(checked) => checked,
            Err(why) => return Err(SubmitError { why, order }),
        };
        let (lane, first) = (order.lane, order.first.0);
        if key.key != 0 {
            self.overtake(key, first, order.marks.as_ref());
        }
        let mut submitted = Submitted { targets: 0, refused: 0 };
        for (offset, mark) in order.marks.as_mut().iter_mut().enumerate() {
            if *mark == Mark::PENDING.0 {
                let index = u32::try_from(offset).map_or(u32::MAX, |offset| first.saturating_add(offset));
                if let Some(code) = self.owe(index, lane, slot, key) {
                    *mark = code.0;
                    if !key.retry {
                        self.stats.outcomes.count(code);
                    }
                    submitted.refused = submitted.refused.saturating_add(1);
                } else {
                    submitted.targets = submitted.targets.saturating_add(1);
                }
            }
        }
        self.last_number = order.number;
        self.note_head(order.number);
        self.stats.orders = self.stats.orders.wrapping_add(1);
        self.keep(now, order, Checked { slot, header, key }, submitted.targets);
        Ok(submitted)
    }

    /// Everything that can be wrong with an order, before anything changes.
    fn check_order(&self, now: Instant, order: &NewOrder<B, M>) -> Result<Checked, SubmitFault> {
        if self.stopped {
            return Err(SubmitFault::Stopped);
        }
        if order.number <= self.last_number {
            return Err(SubmitFault::NumberNotRising { last: self.last_number });
        }
        if order.lifetime.is_some_and(|lifetime| lifetime.is_zero() || lifetime > LIFETIME_MAX) {
            return Err(SubmitFault::Lifetime);
        }
        let (header, key) = check_frame(order).ok_or(SubmitFault::Frame)?;
        check_blob(order, &header).ok_or(SubmitFault::Frame)?;
        let mut targets = false;
        for &mark in order.marks.as_ref() {
            match Mark(mark) {
                Mark::NOT_TARGETED => {}
                Mark::PENDING => targets = true,
                _ => return Err(SubmitFault::Marks),
            }
        }
        if !targets {
            return Err(SubmitFault::NoTarget);
        }
        self.check_key(key, order.lane, deadline(now, order.lifetime))?;
        let slot = self.orders.vacant().ok_or(SubmitFault::Full)?;
        Ok(Checked { slot, header, key })
    }

    /// Owes the order to a device, or says why not.
    #[inline]
    fn owe(&mut self, index: u32, lane: Lane, slot: u32, key: Key) -> Option<Code> {
        if index >= self.fresh {
            return Some(Code::NOT_TARGETED);
        }
        let device = self.devices.at_mut(index);
        if device.state == State::Free || device.is(flag::REMOVED) {
            return Some(Code::NOT_TARGETED);
        }
        if device.unended() >= OWED_MAX {
            return Some(Code::OVERFLOW);
        }
        if key.retry && key.key != 0 && self.is_overtaken(key, index) {
            return Some(Code::SUPERSEDED);
        }
        let device = self.devices.at_mut(index);
        let state = device.lane_mut(lane);
        if state.owed == 0 {
            state.next = slot;
        }
        state.owed = state.owed.saturating_add(1);
        if device.state == State::Open && !device.is(flag::BLOCKED) {
            self.ready.push_back(&mut self.devices, index);
        }
        None
    }

    fn keep(&mut self, now: Instant, order: NewOrder<B, M>, checked: Checked, targets: u32) {
        let Checked { slot, header, key } = checked;
        let NewOrder { number, lane, kind_flags, lifetime, frame, first, marks } = order;
        let fresh = lifetime.map_or(Duration::MAX, |lifetime| FRESH_MAX.min(lifetime / 64));
        let deadline = deadline(now, lifetime);
        let (blob, blob_size) = blob_of(frame.as_ref()).unwrap_or((0, 0));
        let live = OrderSlot {
            live: Some(Live { frame, marks, first: first.0 }),
            number,
            lane,
            kind_flags,
            needs_result: header.flags.contains(Flags::NEEDS_RESULT),
            open: targets,
            unsent: targets,
            key,
            len: header.length.saturating_add(header::LEN as u32),
            blob,
            blob_size,
            submitted: now,
            fresh_until: now + fresh,
            deadline,
            ..OrderSlot::EMPTY
        };
        self.orders.insert(slot, live);
        self.deadlines.arm(&mut self.orders, slot, deadline);
        self.alarm = self.alarm.min(deadline);
        self.finish_if_over(slot);
    }
}

/// What an order was found to be.
struct Checked {
    slot: u32,
    header: Header,
    key: Key,
}

fn deadline(now: Instant, lifetime: Option<Duration>) -> Instant {
    lifetime.map_or(Instant::NEVER, |lifetime| now + lifetime)
}

/// The frame is a fresh ORDER of the volatile log and says what stands beside it.
fn check_frame<B: AsRef<[u8]>, M>(order: &NewOrder<B, M>) -> Option<(Header, Key)> {
    let (head, body) = order.frame.as_ref().split_first_chunk::<{ header::LEN }>()?;
    let (fixed, rest) = body.split_first_chunk::<{ wire::FIXED_LEN }>()?;
    let header = Header::parse(head).ok()?;
    let aux32 = order.lifetime.map_or(u32::MAX, Delivery::millis);
    let whole = header.length as usize <= body.len() && header.length as usize <= wire::BODY_MAX;
    let plain = header.kind == Kind::ORDER && !header.flags.contains(Flags::DURABLE);
    let same = u64_at::<0, { wire::FIXED_LEN }>(fixed) == order.number
        && u8_at::<34, { wire::FIXED_LEN }>(fixed) == order.lane as u8
        && u8_at::<35, { wire::FIXED_LEN }>(fixed) == kind_flag_bits(order.kind_flags)
        && header.aux32 == aux32;
    let right = whole && plain && same && !header.flags.contains(Flags::REPLAY);
    let key = u64_at::<16, { wire::FIXED_LEN }>(fixed);
    let options = rest.get(..usize::from(u16_at::<38, { wire::FIXED_LEN }>(fixed)))?;
    let is_retry = |option| matches!(option, Ok(OrderOption::Retry { .. }));
    let retry = wire::options(options).any(is_retry);
    right.then_some((header, Key { key, version: u64_at::<24, { wire::FIXED_LEN }>(fixed), retry }))
}

/// Behind the ORDER frame lie the pieces of the blob it names, all of them and nothing else.
fn check_blob<B: AsRef<[u8]>, M>(order: &NewOrder<B, M>, header: &Header) -> Option<()> {
    let frame = order.frame.as_ref();
    let behind = frame.get((header.length as usize).saturating_add(header::LEN)..)?;
    let Some((_, size)) = blob_of(frame) else { return behind.is_empty().then_some(()) };
    (behind.len() == blob::frames_len(size as usize) && order.lane == Lane::Bulk).then_some(())
}

/// Id and size of the blob an ORDER frame names.
fn blob_of(frame: &[u8]) -> Option<(u64, u32)> {
    let (fixed, rest) = frame.get(header::LEN..)?.split_first_chunk::<{ wire::FIXED_LEN }>()?;
    blob::named_by(rest.get(..u16_at::<38, { wire::FIXED_LEN }>(fixed).into())?)
}

fn kind_flag_bits(flags: KindFlags) -> u8 {
    let bit = |flag, bit| if flags.contains(flag) { bit } else { 0 };
    bit(KindFlags::IDEMPOTENT, 1) | bit(KindFlags::PERISHABLE, 2) | bit(KindFlags::CANCELLABLE, 4)
}
