//! Orders come in: checked against their frame, put into their track, owed to every device meant.

use core::num::NonZeroU64;
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
use super::track::Track;
use crate::blob;
use crate::config::{FRESH_MAX, LIFETIME_MAX, OWED_MAX};
use crate::mark::Mark;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Takes an order for every device whose mark is PENDING: O(devices), whatever else is under way. Frame and marks
    /// come back with [`super::Event::Settled`], or at once if the order is refused.
    ///
    /// An order whose frame says DURABLE is one of the durable log: it is in that log, and synced, already. Its `lifetime` may
    /// be below what the frame's header states, if the sync took a part of it.
    pub fn submit(
        &mut self,
        now: Instant,
        mut order: NewOrder<B, M>,
    ) -> Result<Submitted, SubmitError<B, M>> {
        self.observe(now);
        let checked = match self.check_order(now, &order) {
            Ok(checked) => checked,
            Err(why) => return Err(SubmitError { why, order }),
        };
        let Checked { slot, track, key, .. } = checked;
        let first = order.first.0;
        if key.key != 0 {
            self.overtake(key, first, order.marks.as_ref(), |mark| mark == Mark::PENDING);
        }
        let mut submitted = Submitted { targets: 0, refused: 0 };
        for (offset, mark) in order.marks.as_mut().iter_mut().enumerate() {
            if *mark == Mark::PENDING.0 {
                let index = u32::try_from(offset).map_or(u32::MAX, |offset| first.saturating_add(offset));
                if let Some(code) = self.owe(index, slot, track, key) {
                    *mark = self.refuse(index, track, key, code).0;
                    submitted.refused = submitted.refused.saturating_add(1);
                } else {
                    submitted.targets = submitted.targets.saturating_add(1);
                }
            }
        }
        let refused = if track.is_durable() { submitted.refused } else { 0 };
        let open = submitted.targets.saturating_add(refused);
        let live = OrderSlot { open, unsent: submitted.targets, ..self.live(now, order, &checked) };
        self.keep(slot, live);
        if refused != 0 {
            self.sweep_again(slot);
        }
        Ok(submitted)
    }

    /// Everything that can be wrong with an order, before anything changes.
    fn check_order(&self, now: Instant, order: &NewOrder<B, M>) -> Result<Checked, SubmitFault> {
        if order.lifetime.is_some_and(|lifetime| lifetime.is_zero() || lifetime > LIFETIME_MAX) {
            return Err(SubmitFault::Lifetime);
        }
        let checked = self.check_any(order, |header| {
            let (stated, left) = (header.aux32, millis(order.lifetime));
            stated == left || left < stated && stated != u32::MAX && header.flags.contains(Flags::DURABLE)
        })?;
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
        self.check_key(checked.key, order.lane, deadline(now, order.lifetime))?;
        Ok(checked)
    }

    /// What can be wrong with an order, new or restored; `timed` judges what its header says of the lifetime.
    pub(super) fn check_any(
        &self,
        order: &NewOrder<B, M>,
        timed: impl FnOnce(&Header) -> bool,
    ) -> Result<Checked, SubmitFault> {
        if self.stopped {
            return Err(SubmitFault::Stopped);
        }
        let flags = order.frame.as_ref().get(FLAGS_AT).copied().unwrap_or(0);
        let track = Track::new(flags & Flags::DURABLE.bits() != 0, order.lane);
        if track.is_durable() && (self.config.durable.is_none() || self.abandoned) {
            return Err(SubmitFault::NoLog);
        }
        let last = self.last.of(track.is_durable());
        if order.number <= last {
            return Err(SubmitFault::NumberNotRising { last });
        }
        let (header, key) =
            check_frame(order).filter(|(header, _)| timed(header)).ok_or(SubmitFault::Frame)?;
        check_blob(order, &header).ok_or(SubmitFault::Frame)?;
        let slot = self.orders.vacant().ok_or(SubmitFault::Full)?;
        Ok(Checked { slot, track, header, key })
    }

    /// Owes the order to a device, or says why not.
    #[inline]
    fn owe(&mut self, index: u32, slot: u32, track: Track, key: Key) -> Option<Code> {
        if !self.has_device(index) {
            return Some(Code::NOT_TARGETED);
        }
        // No device has more than there are: with few, nobody counts.
        if self.orders.used >= OWED_MAX.into() && self.devices.unended(index) >= OWED_MAX {
            return Some(Code::OVERFLOW);
        }
        if key.is_retry() && key.key != 0 && self.is_overtaken(key, index) {
            return Some(Code::SUPERSEDED);
        }
        self.owe_one(index, slot, track);
        None
    }

    /// Whether there is such a device, and it was not removed.
    #[inline]
    pub(super) fn has_device(&self, index: u32) -> bool {
        let device = self.devices.at(index);
        index < self.fresh && device.state != State::Free && !device.is(flag::REMOVED)
    }

    #[inline]
    pub(super) fn owe_one(&mut self, index: u32, slot: u32, track: Track) {
        let device = self.devices.at_mut(index);
        device.busy |= track.bit();
        device.owing |= track.bit();
        let writable = device.state == State::Open && !device.is(flag::BLOCKED);
        let state = self.devices.track_mut(index, track);
        if state.owed == 0 {
            state.next = slot;
        }
        state.owed = state.owed.saturating_add(1);
        if writable {
            self.ready.push_back(&mut self.devices, index);
        }
    }

    /// The mark of a target that does not get the order. Of the durable log it ends as soon as the log has that.
    fn refuse(&mut self, index: u32, track: Track, key: Key, code: Code) -> Mark {
        if track.is_durable() {
            let mark = match code {
                Code::OVERFLOW => Mark::OVERFLOWED,
                Code::SUPERSEDED => Mark::OVERTAKEN,
                _ => return Mark::UNMEANT,
            };
            self.count_unsaid(index);
            return mark;
        }
        if !key.is_retry() {
            self.stats.outcomes.count(code);
        }
        Mark::ended(code)
    }

    /// The slot's new content, but for its counts.
    pub(super) fn live(&self, now: Instant, order: NewOrder<B, M>, checked: &Checked) -> OrderSlot<B, M> {
        let Checked { track, ref header, key, .. } = *checked;
        let NewOrder { number, kind_flags, lifetime, frame, first, marks, .. } = order;
        let fresh = lifetime.map_or(Duration::MAX, |lifetime| FRESH_MAX.min(lifetime / 64));
        let (blob, blob_size) = blob_of(frame.as_ref()).unwrap_or((0, 0));
        OrderSlot {
            live: Some(Live { frame, marks, first: first.0 }),
            number,
            track,
            kind_flags,
            needs_result: header.flags.contains(Flags::NEEDS_RESULT),
            stale: header.aux32 != millis(lifetime),
            key,
            len: header.length.saturating_add(header::LEN as u32),
            blob,
            blob_size,
            submitted: now,
            fresh_until: now + fresh,
            deadline: deadline(now, lifetime),
            ..OrderSlot::EMPTY
        }
    }

    /// Puts an order into its slot, and into every list it belongs to.
    pub(super) fn keep(&mut self, slot: u32, live: OrderSlot<B, M>) {
        let (number, durable, deadline) = (live.number, live.track.is_durable(), live.deadline);
        *self.last.of_mut(durable) = number;
        self.note_head(durable, number);
        self.stats.orders = self.stats.orders.wrapping_add(1);
        self.orders.insert(slot, live);
        self.deadlines.arm(&mut self.orders, slot, deadline);
        self.alarm = self.alarm.min(deadline);
        self.finish_if_over(slot);
    }
}

/// Where the flags of a frame stand.
const FLAGS_AT: usize = 5;

/// What an order was found to be.
pub(super) struct Checked {
    pub(super) slot: u32,
    pub(super) track: Track,
    pub(super) header: Header,
    pub(super) key: Key,
}

/// What a header states of a lifetime.
fn millis(lifetime: Option<Duration>) -> u32 {
    lifetime.map_or(u32::MAX, Delivery::millis)
}

fn deadline(now: Instant, lifetime: Option<Duration>) -> Instant {
    lifetime.map_or(Instant::NEVER, |lifetime| now + lifetime)
}

/// The frame is a fresh ORDER and says what stands beside it.
fn check_frame<B: AsRef<[u8]>, M>(order: &NewOrder<B, M>) -> Option<(Header, Key)> {
    let (head, body) = order.frame.as_ref().split_first_chunk::<{ header::LEN }>()?;
    let (fixed, rest) = body.split_first_chunk::<{ wire::FIXED_LEN }>()?;
    let header = Header::parse(head).ok()?;
    let whole = header.length as usize <= body.len() && header.length as usize <= wire::BODY_MAX;
    let same = u64_at::<0, { wire::FIXED_LEN }>(fixed) == order.number
        && u8_at::<34, { wire::FIXED_LEN }>(fixed) == order.lane as u8
        && u8_at::<35, { wire::FIXED_LEN }>(fixed) == kind_flag_bits(order.kind_flags);
    let right = whole && same && header.kind == Kind::ORDER && !header.flags.contains(Flags::REPLAY);
    let key = u64_at::<16, { wire::FIXED_LEN }>(fixed);
    let options = rest.get(..usize::from(u16_at::<38, { wire::FIXED_LEN }>(fixed)))?;
    let root = wire::options(options).find_map(|option| match option {
        Ok(OrderOption::Retry { first, .. }) => NonZeroU64::new(first),
        _ => None,
    });
    right.then_some((header, Key { key, version: u64_at::<24, { wire::FIXED_LEN }>(fixed), root }))
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
