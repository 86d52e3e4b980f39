//! What is written next. A plan is made for one device and one system call; nothing of it counts until it was reported.
//!
//! ```text
//!  scratch  ┌ rest of a cut frame │ PONG │ PING │ SETTLED … │ small orders … │ new header ┐   ─▶ head
//!  shared                                                     the last order's one encoding  ─▶ body
//! ```
//!
//! The usual fan-out to an idle device is an empty head and one whole shared frame: no byte is copied or made.

use wire_format::frame::order::Delivery;
use wire_format::frame::outcome::Code;
use wire_format::frame::{Ping, Pong, Reply, header, reply};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::credit::Credit;
use super::device::{Partial, State, due, flag};
use super::devices::{DeviceStorage, Devices};
use super::event::Transmit;
use super::list::NONE;
use super::log::PerLog;
use super::marks::End;
use super::order::{MarkBytes, OrderStorage, Orders};
use super::plan::{Body, Entry, Head, Scratch, Shared, What, emit_cancel, emit_farewell, emit_settled};
use super::posts::{BUSY_LEN, Sort, Stage};
use super::track::{Track, Tracks};
use super::{DeviceIndex, Fleet};
use crate::mark::Mark;

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
        let head = scratch.get(..head).unwrap_or(&[]);
        Some(Transmit { device: DeviceIndex(index), head, body: self.shared(body) })
    }

    /// The bytes that are not copied.
    fn shared(&self, body: Option<Body>) -> &[u8] {
        let Some(Body { of, from, to }) = body else { return &[] };
        let bytes = match of {
            Shared::Order(slot) => self.orders.at(slot).frame(),
            Shared::Post(post) => self.posts.frame(post),
        };
        bytes.get(from..to).unwrap_or(&[])
    }

    /// Makes room for something behind the shared bytes: they are copied, if they and `more` bytes fit. False if not.
    fn copy_shared(&self, head: &mut Scratch<'_>, body: &mut Option<Body>, more: usize) -> bool {
        let before = self.shared(*body);
        if before.len().saturating_add(more) > head.room() {
            return false;
        }
        head.copy(before);
        *body = None;
        true
    }

    /// Plans one write to a device.
    fn plan(&mut self, now: Instant, index: u32, head: &mut Scratch<'_>) -> Option<Body> {
        self.plan.clear(index);
        let device = self.devices.at(index);
        if device.state == State::Open && matches!(device.partial, Partial::None) {
            return self.plan_session(now, index, head);
        }
        self.plan_rarer(now, index, head)
    }

    /// The same, if something was cut or no session is open.
    #[inline(never)]
    fn plan_rarer(&mut self, now: Instant, index: u32, head: &mut Scratch<'_>) -> Option<Body> {
        match self.devices.at(index).partial {
            Partial::None => {}
            Partial::Control { bytes, len, offset } => {
                let rest = bytes.get(usize::from(offset)..usize::from(len)).unwrap_or(&[]);
                let len = head.copy(rest);
                self.plan.push(What::Rest, len);
            }
            Partial::Hello { offset, heads } => {
                self.plan_rest_of_hello(index, offset, heads, head);
                return None;
            }
            Partial::Order { slot, offset, header, .. } => {
                return Some(self.plan_rest_of_order(slot, offset, &header, head));
            }
            Partial::Piece { slot, piece, offset } => {
                return self.plan_rest_of_piece(slot, piece, offset);
            }
            Partial::Post { post, offset } => return self.plan_rest_of_post(post, offset, head),
        }
        match self.devices.at(index).state {
            State::Greeting if self.devices.at(index).due & due::HELLO != 0 => {
                let heads = self.heads;
                let hello = self.hello(index, heads);
                let len = head.emit(|room| hello.emit(room));
                if len != 0 {
                    self.plan.push(What::Hello { heads }, len);
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

    fn plan_rest_of_hello(&mut self, index: u32, offset: u16, heads: PerLog, head: &mut Scratch<'_>) {
        let hello = self.hello(index, heads);
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
        let to = self.orders.at(slot).len as usize;
        self.plan.push(What::Rest, to.saturating_sub(offset));
        Body { of: Shared::Order(slot), from: offset.max(header::LEN), to }
    }

    fn plan_rest_of_post(&mut self, post: u8, offset: u32, head: &mut Scratch<'_>) -> Option<Body> {
        let offset = offset as usize;
        let mut busy = [0; BUSY_LEN];
        if let Some(whole) = self.busy_frame(post, &mut busy) {
            let len = head.copy(busy.get(offset..whole).unwrap_or(&[]));
            self.plan.push(What::Rest, len);
            return None;
        }
        let to = self.posts.frame(post).len();
        self.plan.push(What::Rest, to.saturating_sub(offset));
        Some(Body { of: Shared::Post(post), from: offset, to })
    }

    /// Makes the answer "busy", if that is what the entry is. Bytes written.
    fn busy_frame(&self, post: u8, room: &mut [u8]) -> Option<usize> {
        let (Stage::Waiting(sort) | Stage::Cut(sort)) = self.posts.at(post)?.stage else { return None };
        let Sort::Busy { correlation, generation, kind } = sort else { return None };
        let code = reply::Code::BUSY;
        Reply { correlation, generation, kind, schema: 0, code, age_ms: 0, payload: &[] }.emit(room).ok()
    }

    /// Questions and answers, oldest first, as far as there is room.
    fn plan_posts(&mut self, index: u32, head: &mut Scratch<'_>) -> Option<Body> {
        let (mut body, mut last) = (None, None);
        while let Some((post, generation, _)) = self.posts.waiting(index, last)
            && !self.plan.is_full()
        {
            let mut busy = [0; BUSY_LEN];
            let made = self.busy_frame(post, &mut busy);
            if !self.copy_shared(head, &mut body, made.unwrap_or(0)) {
                return body;
            }
            let len = match made {
                Some(len) => head.copy(busy.get(..len).unwrap_or(&[])),
                None => self.posts.frame(post).len(),
            };
            if made.is_none() {
                body = Some(Body { of: Shared::Post(post), from: 0, to: len });
            }
            self.plan.push(What::Post { post }, len);
            last = Some(generation);
        }
        body
    }

    fn plan_session(&mut self, now: Instant, index: u32, head: &mut Scratch<'_>) -> Option<Body> {
        let device = self.devices.at(index);
        let dues = device.due;
        let (takes_orders, mut credit) = (device.takes_orders(), Credit::new(&self.devices, index));
        if dues & (due::PONG | due::PING | due::DRAIN | due::CANCEL) != 0 {
            self.plan_dues(now, index, head);
        }
        let orders = takes_orders && credit.owed;
        let before = (head.len, self.plan.len);
        // SETTLED goes with whatever leaves, or in its own time: a packet of its own would cost as much as the order did.
        let settle = self.plan.len != 0 || dues & (due::SETTLED | due::POST) != 0;
        if settle || orders {
            self.plan_settled(index, head, &mut credit);
        }
        let settled = self.plan.len;
        let mut body = if dues & due::POST != 0 { self.plan_posts(index, head) } else { None };
        if orders {
            self.plan_orders(now, index, head, credit, &mut body);
        }
        if self.plan.len == settled && !settle {
            (head.len, self.plan.len) = before;
        }
        if self.plan.len == 0 {
            let device = self.devices.at(index);
            if device.due & due::PING != 0 {
                // It is due since a moment ago.
                self.plan_dues(now, index, head);
            } else if Self::wants_piece(device) {
                body = self.plan_piece(index);
            }
        }
        body
    }

    /// Frames that are due whatever else leaves.
    #[inline(never)]
    fn plan_dues(&mut self, now: Instant, index: u32, head: &mut Scratch<'_>) {
        let device = self.devices.at(index);
        let (dues, pong, ping) = (device.due, device.pong_token, device.ping_token.wrapping_add(1));
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
    }

    /// Names the cancelled orders out there that were not named yet, in the order they were cancelled. What follows in the
    /// same write was not cancelled, so no CANCEL overtakes its order.
    fn plan_cancels(&mut self, index: u32, head: &mut Scratch<'_>) {
        let mut told = self.devices.at(index).cancel_told;
        while !self.plan.is_full()
            && let Some(named) = self.next_cancel(index, told)
        {
            let len = head.emit(|room| emit_cancel(named, room));
            if len == 0 {
                return;
            }
            self.plan.push(What::Cancel(named), len);
            told = named.seq;
        }
        if told == self.devices.at(index).cancel_told {
            // They ended meanwhile.
            self.devices.at_mut(index).due &= !due::CANCEL;
        }
    }

    fn plan_settled(&mut self, index: u32, head: &mut Scratch<'_>, credit: &mut Credit) {
        let before = self.plan.len;
        for track in self.devices.at(index).busy() {
            let device = self.devices.at(index);
            let state = self.devices.track(index, track);
            if state.over() <= state.settled || track.is_durable() && self.forked {
                continue;
            }
            let number = self.settled_upto(state);
            if number <= state.settled {
                continue;
            }
            let left = state.held_after(number, device.in_turn(track));
            credit.settle(track, state.held, left);
            let len = head.emit(|room| emit_settled(track, number, room));
            self.plan.push(What::Settled { track, number }, len);
        }
        if self.plan.len == before {
            // Its log was given up meanwhile.
            self.devices.at_mut(index).due &= !due::SETTLED;
        }
    }

    /// As many orders as the window and the buffer take, most urgent lane first. All but the last are copied.
    fn plan_orders(
        &mut self,
        now: Instant,
        index: u32,
        head: &mut Scratch<'_>,
        mut credit: Credit,
        body: &mut Option<Body>,
    ) {
        let owing = self.devices.at(index).owing;
        let mut durable = owing & Tracks::DURABLE != 0 && self.takes_durable(index);
        let (mut lanes, mut whole) = (Tracks(owing), true);
        while let Some(lane) = lanes.next_lane() {
            let mut ours = Queue::of(&self.devices, index, Track::new(false, lane));
            let mut theirs = Queue { track: Track::new(true, lane), ..Queue::NONE };
            if durable {
                theirs = Queue::of(&self.devices, index, theirs.track);
            }
            loop {
                // Of the two logs the lower number goes first; one that may not be sent never stops the other one.
                let theirs_first = theirs.next != NONE && self.is_lower(theirs.next, ours.next);
                let Queue { track, next: slot, .. } = if theirs_first { theirs } else { ours };
                if slot == NONE {
                    break;
                }
                if theirs_first {
                    theirs.step(&self.orders, index);
                } else {
                    ours.step(&self.orders, index);
                }
                let judged = self.judge_order(now, index, slot);
                match judged {
                    Judged::Send | Judged::Repeat if theirs_first && !credit.allows_durable() => {
                        (durable, theirs.next, whole) = (false, NONE, false);
                    }
                    Judged::Send | Judged::Repeat => {
                        let len = self.orders.at(slot).len;
                        let room = !self.plan.is_full() && credit.allows(lane) && credit.has_bytes(len);
                        if !room || !self.place(now, slot, judged == Judged::Repeat, head, body) {
                            return self.end_forgotten(now, index, &credit);
                        }
                        credit.take(track, len);
                    }
                    Judged::Never(_) if self.told.is_full() => return,
                    Judged::Never(code) => {
                        self.mark_ended(now, index, slot, End::by_server(code));
                        if durable && !self.takes_durable(index) {
                            (durable, theirs.next) = (false, NONE);
                        }
                    }
                }
            }
        }
        if !whole {
            self.end_forgotten(now, index, &credit);
        }
    }

    /// An order that has ended on the device, which did not repeat how: the log has lost what the device was told to forget.
    /// As a rule it is sent (again), and answered as a duplicate. Where the window has no place for it that answer is not
    /// waited for: what ended beside it is not settled before it is, and may be what fills the window, and all the room the
    /// device has. One that the device can never take ends as that. But first two PINGs have to be answered: however slow the
    /// network, what the device had to repeat has come by then, since the first answer may leave beside it and the second does not.
    #[inline(never)]
    fn end_forgotten(&mut self, now: Instant, index: u32, credit: &Credit) {
        let Some((slot, end)) = self.first_forgotten(now, index).filter(|_| !self.told.is_full()) else {
            return;
        };
        if !self.devices.at(index).is(flag::ECHOED) {
            return self.ask_for_echo(index);
        }
        let track = self.orders.at(slot).track;
        if !end.by_device || !credit.allows(track.lane()) || track.is_durable() && !credit.allows_durable() {
            self.mark_ended(now, index, slot, end);
        }
    }

    fn ask_for_echo(&mut self, index: u32) {
        let device = self.devices.at_mut(index);
        if !device.is(flag::ECHO | flag::ECHO_AGAIN) {
            device.set(flag::ECHO, true);
            device.due |= due::PING;
        }
    }

    /// A PING of those is answered.
    #[inline(never)]
    pub(super) fn echoed(&mut self, index: u32) {
        let device = self.devices.at_mut(index);
        let first = device.is(flag::ECHO);
        device.set(flag::ECHO | flag::ECHO_AGAIN, false);
        device.set(if first { flag::ECHO_AGAIN } else { flag::ECHOED }, true);
        if first {
            device.due |= due::PING;
        }
        self.wake(index);
    }

    fn first_forgotten(&self, now: Instant, index: u32) -> Option<(u32, End)> {
        let (device, durable) = (self.devices.at(index), self.takes_durable(index));
        let planned = |slot| {
            let is_it = |entry: &Entry| matches!(entry.what, What::Order { slot: of, .. } if of == slot);
            self.plan.entries().iter().any(is_it)
        };
        Tracks(device.owing).filter(|track| durable || !track.is_durable()).find_map(|track| {
            let state = self.devices.track(index, track);
            let (next, number) = (state.next, self.orders.at(state.next).number);
            let is_below = next != NONE && number <= state.floor;
            // Behind it; or before it, and nobody knows how many of those are settled.
            let holds_up = state.ended > number || state.held > state.holding();
            (is_below && holds_up && !planned(next)).then(|| match self.judge_order(now, index, next) {
                Judged::Never(code) => (next, End::by_server(code)),
                Judged::Send | Judged::Repeat => (next, End::forgotten_there()),
            })
        })
    }

    /// Whether an order comes before another one, if there is one.
    fn is_lower(&self, slot: u32, other: u32) -> bool {
        other == NONE || self.orders.at(slot).number < self.orders.at(other).number
    }

    /// Whether orders of the durable log may be written to the device: its session is in that log, and so is the end of
    /// everything that will not be written (again).
    fn takes_durable(&self, index: u32) -> bool {
        let device = self.devices.at(index);
        let traced = device.flags & (flag::TRACE | flag::TRACED) == flag::TRACED && device.untraced == 0;
        let said = || {
            device.unsaid == 0 && self.devices.durable(index).tracks.iter().all(|track| track.lingering == 0)
        };
        traced && !self.forked && said()
    }

    #[inline(always)]
    fn judge_order(&self, now: Instant, index: u32, slot: u32) -> Judged {
        let (order, device) = (self.orders.at(slot), self.devices.at(index));
        let too_large = order.has_no_place_on(device)
            || order.len > device.window_bytes
            || order.len.saturating_sub(header::LEN as u32) > device.max_body;
        match order.mark(index) {
            Mark::PENDING if order.deadline <= now => Judged::Never(Code::EXPIRED),
            _ if too_large => Judged::Never(Code::TOO_LARGE),
            Mark::REPEAT => Judged::Repeat,
            _ => Judged::Send,
        }
    }

    /// Makes an order the last one of the write; the one before is copied for it. False if there is no room.
    #[inline(always)]
    fn place(
        &mut self,
        now: Instant,
        slot: u32,
        replay: bool,
        head: &mut Scratch<'_>,
        body: &mut Option<Body>,
    ) -> bool {
        let order = self.orders.at(slot);
        let fresh = !replay && !order.stale && now <= order.fresh_until;
        let made = if fresh { 0 } else { header::LEN };
        let (number, len) = (order.number, order.len);
        let what = if fresh {
            Head::Fresh
        } else {
            let limited = order.deadline != Instant::NEVER;
            let remaining_ms = limited.then(|| Delivery::millis(order.deadline.since(now)));
            Head::New { remaining_ms, replay }
        };
        if !self.copy_shared(head, body, made) {
            return false;
        }
        if let Some(bytes) = self.header_of(slot, what) {
            head.copy(&bytes);
        }
        *body = Some(Body { of: Shared::Order(slot), from: made, to: len as usize });
        self.plan.push(What::Order { slot, number, head: what }, len as usize);
        true
    }

    /// The header an order gets in place of its own, if it gets one.
    pub(super) fn header_of(&self, slot: u32, head: Head) -> Option<[u8; header::LEN]> {
        let Head::New { remaining_ms, replay } = head else { return None };
        let order = self.orders.at(slot);
        let (durable, needs_result) = (order.track.is_durable(), order.needs_result);
        let delivery = Delivery { durable, replay, needs_result, remaining_ms };
        Some(delivery.header(order.len.saturating_sub(header::LEN as u32)).emit())
    }
}

/// What a device is owed of one track, as the plan goes through it.
#[derive(Clone, Copy)]
struct Queue {
    track: Track,
    next: u32,
    left: u16,
}

impl Queue {
    const NONE: Self = Self { track: Track::new(false, Lane::Bulk), next: NONE, left: 0 };

    #[inline]
    fn of(devices: &Devices<impl DeviceStorage>, index: u32, track: Track) -> Self {
        let state = devices.track(index, track);
        Self { track, next: state.next, left: state.owed }
    }

    #[inline]
    fn step<B: AsRef<[u8]>, M: MarkBytes>(
        &mut self,
        orders: &Orders<impl OrderStorage<B, M>, B, M>,
        index: u32,
    ) {
        self.left = self.left.saturating_sub(1);
        self.next = if self.left == 0 { NONE } else { orders.next_of(self.next, index, Mark::is_owed) };
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
