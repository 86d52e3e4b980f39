//! Attempts that ended and are made again: under a new number, for the devices that ended them, as long as the order lives.
//!
//! The first order stays live and keeps its place in the report; each further attempt is a record of its own whose end is
//! told to the first one. Devices that may be tried again at the same time share a record.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use wire_format::frame::order::{Delivery, OPTIONS_MAX, Order as WireOrder, OrderOption};
use wire_format::frame::outcome::Code;
use wire_format::frame::{Raw, header};
use wire_format::time::Instant;

use super::fan_out::Ledger;
use super::frame::{Frame, Frames};
use super::shard::Shard;
use super::shared::{Message, NumberedOrder, lock};
use super::writer::{Job, Origin, Waiting};
use crate::fleet::DeviceIndex;
use crate::mark::Mark;

/// Records of further attempts that live at a shard at a time, beside the orders that were pushed. More wait for a place.
pub const RETRIES_MAX: usize = 1_024;
/// When an attempt that found no place is made.
const NO_PLACE_AGAIN: Duration = Duration::from_secs(1);
/// When an attempt is made that ended before the server was started: what the device asked for is not known any more.
const AGAIN_AFTER_START: Duration = Duration::from_secs(1);
/// A device that says "try again at once" is taken at its word this long after.
const SOONEST: Duration = Duration::from_millis(100);

/// An attempt to be made. Ordered by its time, then by its order, so that what goes together comes out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    due: Instant,
    /// The first order.
    root: u64,
    device: DeviceIndex,
    /// 1 for the first repetition.
    attempt: u16,
    /// How the last one ended.
    code: u8,
}

/// The attempts that wait for their time.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: BinaryHeap<Reverse<Attempt>>,
    /// Those whose time has come; kept for its memory.
    due: Vec<Attempt>,
    /// Records that live.
    live: usize,
    /// Ends of further attempts that this shard gave itself, of which the fleet has not told yet: at most as many as there
    /// are pairs under way.
    given: HashSet<(u64, DeviceIndex)>,
}

impl Retries {
    /// When the next attempt is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(attempt)| attempt.due)
    }

    const fn has_place(&self) -> bool {
        self.live < RETRIES_MAX
    }
}

/// What a record of a further attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The first order.
    pub(super) root: u64,
    /// 1 for the first repetition.
    pub(super) attempt: u16,
}

/// What a further attempt sends: the first order with what is left of its lifetime and a RETRY option, and the frame for
/// it, in which the order itself has still to be written, under its number. What follows the first order's frame (the
/// pieces of a large payload) follows this one and is there.
pub(super) fn attempt_frame<'a>(
    frames: &Frames,
    whole: &'a Frame,
    chain: Chain,
    lifetime: Duration,
    options: &'a mut [u8; OPTIONS_MAX],
) -> Option<(Frame, Delivery, WireOrder<'a>)> {
    let bytes = whole.as_ref();
    let length = header::Header::parse(bytes.first_chunk()?).ok()?.length as usize;
    let (frame, pieces) = bytes.split_at_checked(header::LEN + length)?;
    let (delivery, order) = WireOrder::parse(&Raw::parse(frame).ok()?).ok()?;
    let retry = OrderOption::Retry { first: chain.root, attempt: chain.attempt };
    let mut len = retry.emit(options).ok()?;
    options.get_mut(len..)?.get_mut(..order.options.len())?.copy_from_slice(order.options);
    len += order.options.len();
    let order = WireOrder { options: options.get(..len)?, ..order };
    let remaining_ms = delivery.remaining_ms.map(|_| Delivery::millis(lifetime));
    let written = header::LEN + order.body_len();
    let mut frame = frames.take(written + pieces.len());
    frame.bytes_mut()?.get_mut(written..)?.copy_from_slice(pieces);
    Some((frame, Delivery { remaining_ms, ..delivery }, order))
}

impl Shard {
    /// A device ended an attempt. Another one is made if there is time for it.
    pub(super) fn attempt_ended(
        &mut self,
        now: Instant,
        number: u64,
        device: DeviceIndex,
        code: Code,
        after: Duration,
    ) {
        let Some(ledger) = self.fleet.ledger(number) else { return };
        let (chain, deadline) = (ledger.chain, ledger.deadline);
        let Chain { root, attempt } = chain.unwrap_or(Chain { root: number, attempt: 0 });
        if chain.is_some() && self.fleet.resolve(now, number, device, code) {
            // This record is done with the device; the first one goes on.
            self.retries.given.insert((number, device));
        }
        let due = now + after.max(SOONEST);
        if due >= deadline || attempt == u16::MAX {
            self.fleet.resolve(now, root, device, code);
            return;
        }
        let attempt = Attempt { due, root, device, attempt: attempt + 1, code: code.0 };
        self.retries.waiting.push(Reverse(attempt));
    }

    /// Makes the attempts whose time has come; true if there were any.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        let mut due = core::mem::take(&mut self.retries.due);
        while let Some(Reverse(attempt)) = self.retries.waiting.peek().copied()
            && attempt.due <= now
        {
            self.retries.waiting.pop();
            due.push(attempt);
        }
        let any = !due.is_empty();
        due.sort_unstable_by_key(|attempt| (attempt.root, attempt.attempt, attempt.device));
        for group in due.chunk_by(|a, b| (a.root, a.attempt) == (b.root, b.attempt)) {
            self.retry_group(now, group);
            self.drain_events(now);
        }
        due.clear();
        self.retries.due = due;
        any
    }

    /// One record for devices of one order.
    fn retry_group(&mut self, now: Instant, group: &[Attempt]) {
        if !self.retries.has_place() {
            let later = group.iter().map(|&attempt| Attempt { due: now + NO_PLACE_AGAIN, ..attempt });
            return self.retries.waiting.extend(later.map(Reverse));
        }
        let Some(&Attempt { root, attempt, .. }) = group.first() else { return };
        let mut marks = self.shared.pools.take_marks();
        let first = self.begin(root, group, &mut marks);
        let chain = Chain { root, attempt };
        let submitted = first.and_then(|first| {
            let marks = core::mem::take(&mut marks);
            self.put_attempt(now, chain, first, marks)
        });
        if submitted.is_none() {
            self.shared.pools.put_marks(marks);
            for attempt in group {
                self.fleet.resolve(now, root, attempt.device, Code(attempt.code));
                self.drain_events(now);
            }
        }
    }

    /// Marks the devices that still wait for an attempt; the first of them.
    fn begin(&mut self, root: u64, group: &[Attempt], marks: &mut Vec<u8>) -> Option<DeviceIndex> {
        marks.clear();
        let mut first = None;
        for attempt in group {
            let mark = self.mark_of(root, attempt.device);
            if !(self.fleet.retry_begins(root, attempt.device) || mark == Some(Mark::RETRYING)) {
                continue;
            }
            let DeviceIndex(first) = *first.get_or_insert(attempt.device);
            // The group is sorted: every further device lies behind.
            marks.resize((attempt.device.0 - first) as usize, Mark::NOT_TARGETED.0);
            marks.push(Mark::PENDING.0);
        }
        first
    }

    fn mark_of(&self, number: u64, device: DeviceIndex) -> Option<Mark> {
        let (first, marks) = self.fleet.marks(number)?;
        marks.get(device.0.checked_sub(first.0)? as usize).map(|&mark| Mark(mark))
    }

    /// Numbers the record and puts it into this shard's own mailbox, behind every number given before; or into the outbox, if
    /// the first order is there, which puts it into the mailbox once it is kept.
    fn put_attempt(&mut self, now: Instant, chain: Chain, first: DeviceIndex, marks: Vec<u8>) -> Option<()> {
        let ledger = self.fleet.ledger(chain.root)?;
        let (deadline, state) = (ledger.deadline, Arc::clone(&ledger.state));
        let whole = self.fleet.frame(chain.root)?.clone();
        let lifetime = Some(deadline.since(now)).filter(|left| *left >= Duration::from_millis(1))?;
        let mut options = [0; OPTIONS_MAX];
        // Up to 8 MiB of pieces are copied before the numbers are held: every push waits for them.
        let (mut frame, delivery, order) =
            attempt_frame(&self.shared.pools.frames, &whole, chain, lifetime, &mut options)?;
        let targets = state.durable.then(|| self.positions(first, &marks));
        let shared = Arc::clone(&self.shared);
        let numbers = &mut *lock(&shared.numbers);
        let order = WireOrder { number: numbers.next, ..order };
        order.emit(&delivery, frame.bytes_mut()?).ok()?;
        let number = self.shared.number(numbers);
        let latency = self.shared.pools.take_histogram();
        let ledger = Ledger { chain: Some(chain), deadline, ..Ledger::new(state, marks, latency) };
        let order = NumberedOrder {
            number,
            lane: order.lane,
            kind_flags: order.kind_flags,
            lifetime: (deadline != Instant::NEVER).then_some(lifetime),
            frame,
            first,
            marks: ledger,
        };
        self.attempt_begins(chain, number);
        match (&self.shared.outbox, targets) {
            (Some(queue), Some(targets)) => {
                let orders = vec![(self.index, order)];
                let since = self.shared.clock.now();
                let waiting = Waiting { number, targets, orders, origin: Origin::Retry(chain), since };
                // Refused by a queue that is closed: the next run of this server makes the attempt.
                let _ = queue.put(Job::Order(Box::new(waiting)));
            }
            _ => self.shared.put(self.index, Message::Submit(order)),
        }
        Some(())
    }

    /// The record of an attempt lives.
    pub(super) fn attempt_begins(&mut self, chain: Chain, number: u64) {
        self.retries.live += 1;
        if let Some(root) = self.fleet.ledger_mut(chain.root) {
            root.attempts.push(number);
        }
    }

    /// An attempt of an earlier run has ended, the last of so many: another one is made soon.
    pub(super) fn attempt_again(&mut self, root: u64, device: DeviceIndex, attempts: u16, mark: Mark) {
        let code = mark.attempt_code().unwrap_or(Code::BUSY).0;
        let (due, attempt) = (self.now() + AGAIN_AFTER_START, attempts.saturating_add(1));
        self.retries.waiting.push(Reverse(Attempt { due, root, device, attempt, code }));
    }

    /// Nobody knows what came of the last attempt.
    pub(super) fn in_doubt(&mut self, root: u64, device: DeviceIndex) {
        let now = self.now();
        self.fleet.resolve(now, root, device, Code::IN_DOUBT);
        self.drain_events(now);
    }

    /// The outbox could not keep a further attempt: it is made later, under another number.
    pub(super) fn attempt_not_kept(&mut self, now: Instant, order: NumberedOrder) {
        let NumberedOrder { number, first, frame, marks: ledger, .. } = order;
        let Some(Chain { root, attempt }) = ledger.chain else { return };
        let code = Code::BUSY.0;
        for (local, _) in (first.0..).zip(&ledger.marks).filter(|&(_, &mark)| mark == Mark::PENDING.0) {
            let attempt =
                Attempt { due: now + NO_PLACE_AGAIN, root, device: DeviceIndex(local), attempt, code };
            self.retries.waiting.push(Reverse(attempt));
        }
        self.shared.pools.frames.put(frame);
        self.shared.pools.recycle(ledger.into_part(first));
        self.attempt_settled(number, Chain { root, attempt });
    }

    /// The record of an attempt has an outcome on a device: it is the outcome of the first order, unless this shard only
    /// closed the record because another attempt follows. A device that is busy when there is no time left, or whose server
    /// was fenced meanwhile, has said its last word.
    pub(super) fn attempt_outcome(
        &mut self,
        now: Instant,
        (number, chain): (u64, Chain),
        device: DeviceIndex,
        code: Code,
    ) {
        if !self.retries.given.remove(&(number, device)) {
            self.fleet.resolve(now, chain.root, device, code);
        }
    }

    /// The record of an attempt is done.
    pub(super) fn attempt_settled(&mut self, number: u64, chain: Chain) {
        self.retries.live -= 1;
        // As a rule none is left.
        self.retries.given.retain(|(given, _)| *given != number);
        if let Some(root) = self.fleet.ledger_mut(chain.root) {
            root.attempts.retain(|&attempt| attempt != number);
        }
    }

    /// Cancels an order and the attempts made at it; those that wait for their time are not made.
    pub(super) fn cancel(&mut self, now: Instant, number: u64) {
        let Some(ledger) = self.fleet.ledger_mut(number) else { return };
        let attempts = core::mem::take(&mut ledger.attempts);
        self.fleet.cancel(now, number);
        for &attempt in &attempts {
            self.fleet.cancel(now, attempt);
        }
        if let Some(ledger) = self.fleet.ledger_mut(number) {
            ledger.attempts = attempts;
        }
        // The fleet ends what waits for its first repetition; what waits for a later one is RETRYING without a record.
        let waiting = core::mem::take(&mut self.retries.waiting).into_vec();
        let (cancelled, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|Reverse(attempt)| attempt.root == number);
        self.retries.waiting = waiting.into();
        for Reverse(attempt) in cancelled {
            self.drain_events(now);
            self.fleet.resolve(now, number, attempt.device, Code::CANCELLED);
        }
        self.drain_events(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_attempts_at_their_limit_and_one_past_it() {
        let mut retries = Retries { live: RETRIES_MAX - 1, ..Retries::default() };
        assert!(retries.has_place());
        retries.live += 1;
        assert!(!retries.has_place());
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let attempt = |due, root| Attempt { due, root, device: DeviceIndex(0), attempt: 1, code: 16 };
        let mut retries = Retries::default();
        assert_eq!(retries.poll_timeout(), None);
        retries.waiting.extend([attempt(at(3), 1), attempt(at(1), 9), attempt(at(2), 5)].map(Reverse));
        assert_eq!(retries.poll_timeout(), Some(at(1)));
    }
}
