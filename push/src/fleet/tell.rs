//! Events: outcomes, and ends to be logged, wait in a small fixed array, everything else is read off the state of devices and orders.

use core::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::device::{State, flag};
use super::devices::DeviceStorage;
use super::event::{Event, Facts};
use super::list::NONE;
use super::log::{By, LogEntry};
use super::marks::End;
use super::order::{Live, MarkBytes, OrderStorage, Walk};
use super::track::{TrackState, Tracks};
use super::{DeviceIndex, Fleet};
use crate::ended::Ended;
use crate::mark::Mark;

/// An outcome to tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) device: u32,
    pub(super) number: u64,
    pub(super) end: End,
    pub(super) latency: Duration,
    pub(super) sort: Sort,
}

impl Item {
    const NONE: Self = Self {
        device: 0,
        number: 0,
        end: End::by_server(Code::UNKNOWN),
        latency: Duration::ZERO,
        sort: Sort::Outcome,
    };
}

/// What is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// The order ended.
    Outcome,
    /// Only an attempt ended.
    Attempt,
    /// Either, once it is logged.
    Log,
}

/// A session that was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeted {
    pub(super) device: u32,
    pub(super) facts: Facts,
    pub(super) rebooted: bool,
    pub(super) learned: bool,
}

/// What one input made to tell: at most one OUTCOME frame of outcomes, or one new session.
#[derive(Clone, Debug)]
pub(super) struct Told {
    items: [Item; Self::CAPACITY],
    head: usize,
    len: usize,
    pub(super) greeted: Option<Greeted>,
}

impl Told {
    pub(super) const CAPACITY: usize = 64;
    pub(super) const EMPTY: Self =
        Self { items: [Item::NONE; Self::CAPACITY], head: 0, len: 0, greeted: None };

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0 && self.greeted.is_none()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len >= Self::CAPACITY
    }

    pub(super) fn push(&mut self, item: Item) {
        let at = self.head.wrapping_add(self.len) % Self::CAPACITY;
        if self.is_full() {
            return;
        }
        if let Some(place) = self.items.get_mut(at) {
            *place = item;
            self.len = self.len.wrapping_add(1);
        }
    }

    fn pop(&mut self) -> Option<&Item> {
        if self.len == 0 {
            return None;
        }
        let at = self.head;
        self.head = at.wrapping_add(1) % Self::CAPACITY;
        self.len = self.len.wrapping_sub(1);
        self.items.get(at)
    }
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// The next event, until there is none. Outcomes of an order come before its [`Event::Settled`].
    pub fn poll_event(&mut self) -> Option<Event<B, M>> {
        // Most events are outcomes: they pay for nothing else.
        if let Some(item) = self.told.pop() {
            return Some(tell_outcome(item));
        }
        let nothing = self.told.greeted.is_none() && self.posts.untold == 0;
        if nothing && self.tell.is_empty() && self.sweep.is_empty() && self.done.is_empty() {
            return None;
        }
        self.poll_rarer()
    }

    /// Whether [`Fleet::poll_event`], [`Fleet::poll_transmit`], [`Fleet::poll_close`] and [`Fleet::poll_dial`] have nothing
    /// now, so that a driver need not ask them: in an idle store most bytes that come are a PONG, which leads to nothing.
    pub fn is_idle(&self, now: Instant) -> bool {
        let told = self.told.is_empty() && self.posts.untold == 0;
        let lists = [self.tell.is_empty(), self.sweep.is_empty(), self.done.is_empty()];
        let written = self.ready.is_empty() && self.close.is_empty();
        told && written && lists == [true; 3] && self.dial_gate_at().is_none_or(|at| at > now)
    }

    #[inline(never)]
    fn poll_rarer(&mut self) -> Option<Event<B, M>> {
        loop {
            if self.told.greeted.is_some()
                && let Some(event) = self.tell_greeted()
            {
                return Some(event);
            }
            if self.posts.untold != 0
                && let Some(event) = self.tell_unanswered()
            {
                return Some(event);
            }
            if let Some(index) = self.tell.front() {
                if let Some(event) = self.tell_device(index) {
                    return Some(event);
                }
            } else if let Some(slot) = self.sweep.front() {
                self.sweep_order(slot);
            } else {
                let slot = self.done.pop_front(&mut self.orders)?;
                self.orders.retire(slot);
                if let Some((number, Live { frame, marks, first })) = self.orders.release(slot) {
                    return Some(Event::Settled { number, frame, first: DeviceIndex(first), marks });
                }
            }
            if let Some(item) = self.told.pop() {
                return Some(tell_outcome(item));
            }
        }
    }

    #[inline(never)]
    fn tell_greeted(&mut self) -> Option<Event<B, M>> {
        let greeted = self.told.greeted.as_mut()?;
        let device = DeviceIndex(greeted.device);
        if core::mem::take(&mut greeted.learned) {
            return Some(Event::Learned { device, id: greeted.facts.id });
        }
        let Greeted { facts, rebooted, .. } = *greeted;
        self.told.greeted = None;
        Some(Event::Connected { device, facts, rebooted })
    }

    /// One step for a device with something to tell; it leaves the list when that was all.
    #[inline(never)]
    fn tell_device(&mut self, index: u32) -> Option<Event<B, M>> {
        let device = self.devices.at_mut(index);
        let at = DeviceIndex(index);
        if device.is(flag::ENDED) {
            if device.is(flag::TRACED) {
                return Some(self.tell_trace(index, false));
            }
            device.set(flag::ENDED, false);
            return Some(Event::Disconnected { device: at, why: device.why });
        }
        if device.is(flag::FORKED) {
            device.set(flag::FORKED, false);
            return Some(Event::Forked { device: at });
        }
        if device.is(flag::JOURNAL_LOST) {
            device.set(flag::JOURNAL_LOST, false);
            return Some(Event::JournalLost { device: at });
        }
        if device.is(flag::DOUBT) {
            self.end_doubt(index);
        } else if device.is(flag::TRACE) {
            return self.tell_beginning(index);
        } else if device.is(flag::FENCED) {
            return self.end_fenced(index);
        } else if device.state == State::Leaving {
            self.end_removed(index);
        } else {
            self.tell.remove(&mut self.devices, index);
        }
        None
    }

    /// Ends one order of a device that obeys another server; tells so after the last one.
    fn end_fenced(&mut self, index: u32) -> Option<Event<B, M>> {
        let waits = |mark: Mark| mark.attempt_code().is_some();
        if let Some(slot) = self.first_unended(index).or_else(|| self.first_retried(index, waits)) {
            let written = self.orders.at(slot).mark(index);
            let code = if written.is_unsent() { Code::FENCED } else { Code::UNKNOWN };
            self.mark_ended(self.now, index, slot, End::by_server(code));
            return None;
        }
        let device = self.devices.at_mut(index);
        device.set(flag::FENCED, false);
        let Ended::Rejected { detail, .. } = device.why else { return None };
        Some(Event::Fenced { device: DeviceIndex(index), fence: detail })
    }

    /// An order that is owed to a device or out on it.
    fn first_unended(&self, index: u32) -> Option<u32> {
        let busy = self.devices.at(index).busy();
        let mut tracks = busy.map(|track| self.devices.track(index, track));
        tracks.find_map(
            |state| {
                if state.next == NONE { self.first_out(index, state) } else { Some(state.next) }
            },
        )
    }

    /// The first order of a track that is out there and has not ended.
    fn first_out(&self, index: u32, state: &TrackState) -> Option<u32> {
        let mut walk = Walk::over(state);
        while let Some(slot) = self.orders.walk(&mut walk, index) {
            if self.orders.at(slot).mark(index).is_out() {
                return Some(slot);
            }
        }
        None
    }

    /// Ends one order of a device that was removed; frees the slot after the last one.
    fn end_removed(&mut self, index: u32) {
        if let Some(slot) = self.first_unended(index) {
            let unsent = self.orders.at(slot).mark(index) == Mark::PENDING;
            let code = if unsent { Code::NOT_TARGETED } else { Code::UNKNOWN };
            return self.mark_ended(self.now, index, slot, End::by_server(code));
        }
        if let Some(slot) = self.first_retried(index, Mark::is_retried) {
            let known = self.orders.at(slot).mark(index).attempt_code();
            let code = known.or_else(|| self.unlogged_attempt(index, slot)).unwrap_or(Code::UNKNOWN);
            return self.mark_ended(self.now, index, slot, End::by_server(code));
        }
        self.disown_unlogged(index);
        self.tell.remove(&mut self.devices, index);
        let newest = self.last.volatile.max(self.last.durable);
        let device = self.devices.at_mut(index);
        device.state = State::Free;
        device.boot = newest;
        self.free.push_back(&mut self.devices, index);
    }

    /// What waits to be logged of a device that is gone: nothing of the slot counts it any more.
    fn disown_unlogged(&mut self, index: u32) {
        for track in Tracks::of(true) {
            loop {
                let slot = self.devices.track(index, track).oldest;
                let mark = self.orders.at(slot).mark(index);
                let gone = match mark.unlogged_code() {
                    Some(code) => Mark::unlogged(code),
                    None if mark == Mark::RECALLED => Mark::WITHDRAWN,
                    None => break,
                };
                self.unhold(index, slot, mark);
                self.orders.at_mut(slot).set_mark(index, gone);
            }
        }
    }

    /// An order whose attempt ended on this device and that did not: found by looking at all, if the count says so.
    fn first_retried(&self, index: u32, wanted: impl Fn(Mark) -> bool + Copy) -> Option<u32> {
        if self.devices.at(index).retried == 0 {
            return None;
        }
        Tracks::ALL.map(|track| self.orders.first_with(track, index, wanted)).find(|&slot| slot != NONE)
    }

    /// How the last attempt at an order ended here, if the log does not have that yet: it goes there first, and is how the order
    /// ended to who reads it.
    fn unlogged_attempt(&self, index: u32, root: u32) -> Option<Code> {
        let (number, mut slot, mut last) = (self.orders.at(root).number, root, None);
        loop {
            slot = self.orders.next_of(slot, index, Mark::is_unlogged);
            if slot == NONE {
                return last;
            }
            let order = self.orders.at(slot);
            if order.key.root.is_some_and(|root| root.get() == number) {
                last = order.mark(index).unlogged_code();
            }
        }
    }

    /// Gives one outcome of an order whose time is over; it leaves the list after the last device.
    fn sweep_order(&mut self, slot: u32) {
        let deadline = self.orders.at(slot).deadline;
        let (over, forgotten) = (self.now >= deadline, self.now >= deadline + self.config.unknown_after);
        let order = self.orders.at_mut(slot);
        let Some(live) = &order.live else { return self.sweep.remove(&mut self.orders, slot) };
        let rest = live.marks.as_ref().get(order.swept as usize..).unwrap_or(&[]);
        let given_up = self.abandoned && order.track.is_durable();
        let end = |(at, &mark): (usize, &u8)| Some((at, end_of(Mark(mark), over, forgotten, given_up)?));
        let Some((at, code)) = rest.iter().enumerate().find_map(end) else {
            return self.sweep.remove(&mut self.orders, slot);
        };
        let index = live.first.saturating_add(order.swept).saturating_add(u32::try_from(at).unwrap_or(0));
        order.swept = index.saturating_sub(live.first).saturating_add(1);
        self.mark_ended(self.now, index, slot, End::by_server(code));
    }
}

/// The outcome the server gives to an order that is swept: its lifetime is over, nobody will hear of it any more, or its log
/// is given up.
#[inline]
fn end_of(mark: Mark, over: bool, forgotten: bool, given_up: bool) -> Option<Code> {
    match mark {
        Mark::WITHDRAWN => Some(Code::CANCELLED),
        Mark::OVERTAKEN => Some(Code::SUPERSEDED),
        mark if mark.is_withdrawn() => end_of_durable(mark),
        mark if given_up => end_of_abandoned(mark),
        _ if !over => None,
        Mark::PENDING => Some(Code::EXPIRED),
        mark if mark.attempt_code().is_some() => mark.attempt_code(),
        mark if forgotten && (mark.is_owed() || mark.is_out() || mark.is_retried()) => Some(Code::UNKNOWN),
        _ => None,
    }
}

/// The end of an order of the durable log that is known and not told yet.
#[cold]
const fn end_of_durable(mark: Mark) -> Option<Code> {
    match mark {
        Mark::RECALLED => Some(Code::CANCELLED),
        Mark::OVERFLOWED => Some(Code::OVERFLOW),
        Mark::LOST => Some(Code::UNKNOWN),
        _ => Some(Code::NOT_TARGETED),
    }
}

/// The outcome of an order whose log is given up: what is known of it, else that nobody knows.
#[cold]
fn end_of_abandoned(mark: Mark) -> Option<Code> {
    if mark == Mark::NOT_TARGETED || mark.is_final() {
        return None;
    }
    let known = mark.unlogged_code().filter(|code| !code.is_attempt_end());
    Some(known.unwrap_or(Code::IN_DOUBT))
}

#[inline]
fn tell_outcome<B, M>(&Item { device, number, end, latency, sort }: &Item) -> Event<B, M> {
    let End { code, first_code, device_ms, by_device, .. } = end;
    let device = DeviceIndex(device);
    match sort {
        Sort::Outcome => Event::Outcome { device, number, code, first_code, latency, device_ms },
        Sort::Attempt => {
            // After a DUPLICATE the milliseconds say something else.
            let ms = if code == first_code { device_ms } else { 0 };
            let retry_after = Duration::from_millis(ms.into());
            Event::Attempt { device, number, code: first_code, retry_after }
        }
        Sort::Log => {
            let by = if by_device { By::Device } else { By::Server };
            Event::Log(LogEntry { number, device, device_ms, code, first_code, by })
        }
    }
}
