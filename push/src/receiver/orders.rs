//! Orders from their arrival to their end: parked, judged, started, cancelled, ended.

use core::time::Duration;

use wire_format::error::ParseError;
use wire_format::frame::order::{OrderOption, options};
use wire_format::frame::outcome::Code;
use wire_format::frame::{Cancel, Kind, Order, Raw, Settled, bye};
use wire_format::ids::Lane;
use wire_format::splitter::{Split, split};
use wire_format::time::Instant;

use super::config::{AT_WORK_RETRY, PARK_RETRY};
use super::floors::Log;
use super::handler::{Delivered, Ticket, Verdict};
use super::input::{NO_SUCH_LOG, Step, too_much};
use super::keys::{Judgement, OrderKeys};
use super::lanes::{LaneState, Traits};
use super::park::{Meta, Spot};
use super::ring::Place;
use super::stats::{add, count};
use super::{Receiver, Storage};
use crate::ended::Ended;

/// What the rules have to know of an order that may start.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    place: Place,
    until: Instant,
    keys: OrderKeys,
    idempotent: bool,
    needs_result: bool,
    payload: Payload,
}

/// Where an order's payload is.
#[derive(Clone, Copy, Debug)]
enum Payload {
    Inline,
    /// In pieces, to be fetched: the blob and its size.
    Pieces(u64, u32),
    /// The options ask for what this device does not know.
    Unreadable,
}

/// What came of an order that may start.
enum Start {
    /// It ended without having begun.
    Ended,
    /// Its pieces are fetched first.
    Fetches,
    /// It goes to the handler.
    Goes(Ticket),
}

/// Milliseconds on the device's clock, modulo 2^32.
pub(super) fn clock_ms(now: Instant) -> u32 {
    u32::try_from(now.as_millis() & u64::from(u32::MAX)).unwrap_or(0)
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    pub(super) fn lane(&self, lane: Lane) -> &LaneState {
        let [urgent, interactive, normal, bulk] = &self.lanes;
        match lane {
            Lane::Urgent => urgent,
            Lane::Interactive => interactive,
            Lane::Normal => normal,
            Lane::Bulk => bulk,
        }
    }

    pub(super) fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        let [urgent, interactive, normal, bulk] = &mut self.lanes;
        match lane {
            Lane::Urgent => urgent,
            Lane::Interactive => interactive,
            Lane::Normal => normal,
            Lane::Bulk => bulk,
        }
    }

    /// An ORDER, whose whole frame is `frame`.
    pub(super) fn step_order<'a>(
        &mut self,
        now: Instant,
        slot: usize,
        raw: &Raw<'a>,
        frame: &'a [u8],
    ) -> Result<Step<'a>, ParseError> {
        let (delivery, order) = Order::parse(raw)?;
        let log = self.session.logs.of(delivery.durable).ok_or(NO_SUCH_LOG)?;
        let place = Place { log, lane: order.lane, number: order.number };
        if place.number <= self.floors.floor(log, place.lane) {
            return Ok(self.answer_again(place));
        }
        let open = self.lane(place.lane).open;
        if open > 0 {
            if self.ring.receive_again(place).is_some() {
                self.session.owe_ack(log, place.lane);
                return Ok(if self.ring.recent() > self.session.window { too_much() } else { Step::Used });
            }
            if self.ring.last(log, place.lane).is_some_and(|last| place.number < last) {
                let why = Ended::Unexpected(Kind::ORDER);
                return Ok(Step::End(why, Some(bye::Code::PROTOCOL_ERROR)));
            }
        }
        if self.ring.recent() >= self.session.window {
            return Ok(too_much());
        }
        if !self.ring.has_room() {
            // Answers to duplicates give their place back once they are written; SETTLED is behind this frame.
            return Ok(if self.ring.has_answers() { Step::Wait } else { too_much() });
        }
        let received = self.live(slot).map_or(now, |live| live.unread_since(now));
        // The sender rounds up, and says 1 for what is over: an order that may have been sent before has to be answered.
        let lifetime = delivery.remaining_ms.map(|ms| Duration::from_millis(ms.saturating_sub(1).into()));
        let until = lifetime.map_or(Instant::NEVER, |lifetime| received + lifetime);
        self.ring.open(place, clock_ms(received));
        // Said at the next drain, unless it has ended by then.
        self.session.owe_ack(log, place.lane);
        let lane = self.lane_mut(place.lane);
        lane.open = lane.open.saturating_add(1);
        let candidate = self.candidate(place, until, &order, delivery.needs_result);
        if open > 0 || self.lane(place.lane).is_busy() || matches!(candidate.payload, Payload::Pieces(..)) {
            self.wait(now, &Meta { place, received, until, len: frame.len() }, frame);
            return Ok(Step::Used);
        }
        Ok(match self.start(now, &candidate) {
            Start::Goes(ticket) => {
                let redelivered = delivery.replay;
                let needs_result = delivery.needs_result;
                let durable = delivery.durable;
                let (lineage, remaining) = (self.floors.lineage(log), remaining(now, until));
                Step::Order(Delivered {
                    ticket,
                    lineage,
                    order,
                    redelivered,
                    remaining,
                    durable,
                    needs_result,
                })
            }
            Start::Ended | Start::Fetches => Step::Used,
        })
    }

    /// An order that had ended came again.
    fn answer_again<'a>(&mut self, place: Place) -> Step<'a> {
        if !self.ring.has_room() {
            return if self.ring.has_answers() { Step::Wait } else { too_much() };
        }
        count(&mut self.stats.duplicates);
        self.ring.push_answer(place);
        Step::Used
    }

    fn candidate(&self, place: Place, until: Instant, order: &Order<'_>, needs_result: bool) -> Candidate {
        let mut payload = Payload::Inline;
        for option in options(order.options) {
            match option {
                Ok(OrderOption::Parts { blob, size, .. }) if self.takes_parts() => {
                    payload = Payload::Pieces(blob, size);
                }
                Ok(OrderOption::Retry { .. }) => {}
                Ok(OrderOption::Parts { .. }) | Err(_) => {
                    payload = Payload::Unreadable;
                    break;
                }
            }
        }
        let keys = OrderKeys {
            key: order.order_key,
            supersede: order.supersede_key,
            version: order.supersede_version,
        };
        let idempotent = order.kind_flags.contains(wire_format::frame::order::KindFlags::IDEMPOTENT);
        Candidate { place, until, keys, idempotent, needs_result, payload }
    }

    /// The lane is taken: the order is kept until it is free, or its attempt ends.
    fn wait(&mut self, now: Instant, meta: &Meta, frame: &[u8]) {
        if self.park.push(meta, frame) {
            count(&mut self.stats.parked);
        } else {
            count(&mut self.stats.park_full);
            self.end(now, meta.place, Code::BUSY, 0, Some(millis(PARK_RETRY)));
        }
    }

    /// The rules that stand between an order and its start.
    fn start(&mut self, now: Instant, candidate: &Candidate) -> Start {
        let Candidate { place, keys, .. } = *candidate;
        let generation = self.floors.generation(place.log);
        if candidate.until <= now {
            count(&mut self.stats.expired);
            return self.end_unbegun(now, place, Code::EXPIRED, 0, None);
        }
        match self.keys.judge(generation, keys) {
            Judgement::Start => {}
            Judgement::Duplicate(first) => {
                count(&mut self.stats.duplicates);
                return self.end_unbegun(now, place, Code::DUPLICATE, first.0, None);
            }
            Judgement::AtWork => {
                return self.end_unbegun(now, place, Code::BUSY, 0, Some(millis(AT_WORK_RETRY)));
            }
            Judgement::Superseded => {
                count(&mut self.stats.superseded);
                return self.end_unbegun(now, place, Code::SUPERSEDED, 0, None);
            }
        }
        match candidate.payload {
            Payload::Unreadable => return self.end_unbegun(now, place, Code::REJECTED_PAYLOAD, 0, None),
            Payload::Pieces(id, size) => {
                if let Some(blob) = self.blob_mut().filter(|blob| !blob.is_whole(place)) {
                    blob.fetch(place, id, size);
                    let ticket = self.occupy(now, place, true, Traits::default());
                    if let Some(blob) = self.blob_mut() {
                        blob.set_turn(ticket.turn);
                    }
                    return Start::Fetches;
                }
            }
            Payload::Inline => {}
        }
        count(&mut self.stats.delivered);
        let ring = &self.ring;
        self.keys.start(generation, place, keys, |log_lane, number| ring.owes(log_lane, number));
        self.ring.start(place);
        let Candidate { idempotent, needs_result, .. } = *candidate;
        let traits = Traits { idempotent, needs_result, keyed: keys.key != 0 || keys.supersede != 0 };
        self.at_hand = Some(place.lane);
        Start::Goes(self.occupy(now, place, false, traits))
    }

    /// The order takes its lane, under a new ticket or the one it had while its payload was fetched.
    fn occupy(&mut self, now: Instant, place: Place, fetching: bool, traits: Traits) -> Ticket {
        let known = self.blob().and_then(|blob| blob.turn_of(place));
        let turn = known.unwrap_or_else(|| {
            self.turns = self.turns.wrapping_add(1);
            self.turns
        });
        self.lane_mut(place.lane).occupy(place, clock_ms(now), fetching, traits, turn)
    }

    fn end_unbegun(
        &mut self,
        now: Instant,
        place: Place,
        code: Code,
        detail: u8,
        retry: Option<u32>,
    ) -> Start {
        self.end(now, place, code, detail, retry);
        Start::Ended
    }

    /// An order that waited for its lane and may start now: to be called until `None` in every drain. It is answered with
    /// [`Receiver::complete`] like one from [`Receiver::handle_bytes`]; what it borrows is good until the next call.
    pub fn poll_order(&mut self, now: Instant) -> Option<Delivered<'_>> {
        self.touch(now);
        if self.at_hand.is_some() || self.session.conn.is_none() || self.is_stopping() {
            return None;
        }
        let (spot, meta, ticket) = loop {
            let (spot, meta) = self.next_ready()?;
            let Some(candidate) = self.parked(spot, &meta) else {
                // A copy that does not read as what was put in: the memory is faulty.
                self.park.take(spot);
                self.end(now, meta.place, Code::REJECTED_PAYLOAD, 0, None);
                continue;
            };
            match self.start(now, &candidate) {
                Start::Ended => self.park.take(spot),
                Start::Fetches => {}
                Start::Goes(ticket) => break (spot, meta, ticket),
            }
        };
        self.park.take(spot);
        self.forget_blob(meta.place);
        let lineage = self.floors.lineage(meta.place.log);
        let (delivery, order) = parse_order(self.park.frame(spot))?;
        Some(Delivered {
            ticket,
            lineage,
            order,
            redelivered: delivery.replay,
            remaining: remaining(now, meta.until),
            durable: delivery.durable,
            needs_result: delivery.needs_result,
        })
    }

    /// The first waiting order of the most urgent lane that is free.
    fn next_ready(&self) -> Option<(Spot, Meta)> {
        let ready = |lane: &Lane| self.lane(*lane).open > 0 && !self.lane(*lane).is_busy();
        let mut lanes = Lane::ALL.into_iter().filter(ready);
        lanes.find_map(|lane| self.park.find(|meta| meta.place.lane == lane))
    }

    fn parked(&self, spot: Spot, meta: &Meta) -> Option<Candidate> {
        let (delivery, order) = parse_order(self.park.frame(spot))?;
        Some(self.candidate(meta.place, meta.until, &order, delivery.needs_result))
    }

    /// How the order of `ticket` ended. The outcome is kept until the server has confirmed it; `result` travels ahead of
    /// it if the server asked for one. A ticket that was completed before changes nothing.
    pub fn complete(&mut self, now: Instant, ticket: Ticket, verdict: Verdict, result: Option<&[u8]>) {
        if self.lane(ticket.lane).is_of(&ticket) && !self.lane(ticket.lane).is_put_off() {
            if self.at_hand == Some(ticket.lane) {
                self.at_hand = None;
            }
            if verdict == Verdict::Later {
                count(&mut self.stats.later);
            } else {
                self.end_work(now, ticket, verdict, result);
            }
        }
        // Only now: an effect that took too long still has its outcome, in the next session.
        self.touch(now);
    }

    fn end_work(&mut self, now: Instant, ticket: Ticket, verdict: Verdict, result: Option<&[u8]>) {
        let (code, detail) = verdict.code();
        let retry = verdict.retry_after_ms();
        if let Some(result) = result
            && matches!(code, Code::APPLIED | Code::FAILED)
        {
            self.send_result(ticket, result);
        }
        if self.is_writing_welcome() {
            // It lists what is at work and the floors: neither may change under the pen.
            return self.lane_mut(ticket.lane).put_off(code, detail, retry);
        }
        self.leave_lane(now, ticket.lane, code, detail, retry);
    }

    /// What ended while a WELCOME was being written ends now.
    pub(super) fn catch_up(&mut self, now: Instant) {
        for lane in Lane::ALL {
            if let Some(ending) = self.lane_mut(lane).take_put_off() {
                let retry = ending.code.is_attempt_end().then_some(ending.ms);
                self.leave_lane(now, lane, ending.code, ending.detail, retry);
            }
        }
    }

    /// The order of a lane has ended: the lane is free.
    pub(super) fn leave_lane(
        &mut self,
        now: Instant,
        lane: Lane,
        code: Code,
        detail: u8,
        retry: Option<u32>,
    ) {
        let state = *self.lane(lane);
        let place = Place { log: state.log(), lane, number: state.number() };
        if state.is_keyed() {
            self.keys.end(place, code);
        }
        if state.is_fetching() {
            self.unpark(place);
        }
        self.lane_mut(lane).free();
        if !state.is_orphan() {
            self.end(now, place, code, detail, retry);
        }
    }

    fn unpark(&mut self, place: Place) {
        self.forget_blob(place);
        self.park.take_where(|meta| meta.place == place);
    }

    /// An order has its end: the outcome is owed, and the floor of its lane rises over all that ended with it.
    pub(super) fn end(&mut self, now: Instant, place: Place, code: Code, detail: u8, retry: Option<u32>) {
        if !self.ring.end(place, clock_ms(now), code, detail, retry) {
            return;
        }
        let lane = self.lane_mut(place.lane);
        lane.open = lane.open.saturating_sub(1);
        let alone = lane.open == 0 && !lane.has_held();
        if alone {
            self.ring.release_one(place);
            self.floors.raise(place.log, place.lane, place.number);
        } else {
            self.lane_mut(place.lane).set_held(true);
            self.release(place.log, place.lane);
        }
    }

    /// What ended behind an order that is gone now may be said.
    fn release(&mut self, log: Log, lane: Lane) {
        if let Some(last) = self.ring.release(log, lane) {
            self.floors.raise(log, lane, last);
        }
        let state = self.lane_mut(lane);
        if state.open == 0 {
            state.set_held(false);
        }
    }

    /// CANCEL: what has not started ends; what has, ends as it ends.
    pub(super) fn cancel(&mut self, now: Instant, raw: &Raw<'_>) -> Result<(), ParseError> {
        let cancel = Cancel::parse(raw)?;
        let log = self.session.logs.of(cancel.durable).ok_or(NO_SUCH_LOG)?;
        for number in cancel.numbers.iter() {
            let Some(slot) = self.ring.by_number(log, number) else { continue };
            if !slot.is_open() || slot.is_started() {
                continue;
            }
            let place = Place { log, lane: slot.lane(), number };
            count(&mut self.stats.cancelled);
            let lane = self.lane_mut(place.lane);
            if lane.is_fetching() && (lane.log(), lane.number()) == (log, number) {
                lane.free();
            }
            self.unpark(place);
            self.end(now, place, Code::CANCELLED, 0, None);
        }
        Ok(())
    }

    /// SETTLED: what it covers is forgotten, and what has not ended by then is not waited for any more.
    pub(super) fn settle(&mut self, raw: &Raw<'_>) -> Result<(), ParseError> {
        let settled = Settled::parse(raw)?;
        let Settled { lane, number, .. } = settled;
        let log = self.session.logs.of(settled.durable).ok_or(NO_SUCH_LOG)?;
        let freed = self.ring.settle(log, lane, number);
        add(&mut self.stats.settled, freed.ended.into());
        if freed.open > 0 {
            self.park.take_where(|meta| {
                meta.place.log == log && meta.place.lane == lane && meta.place.number <= number
            });
            let state = self.lane_mut(lane);
            state.open = state.open.saturating_sub(freed.open);
            if state.is_busy() && state.log() == log && state.number() <= number {
                if state.is_fetching() {
                    let place = Place { log, lane, number: state.number() };
                    state.free();
                    self.forget_blob(place);
                } else {
                    state.disown();
                }
            }
            self.release(log, lane);
        }
        self.floors.raise(log, lane, number);
        Ok(())
    }

    /// The session is over: what has not started goes, because the next one brings it again. What is at work stays, and
    /// its outcome is owed in the next session of its lineage.
    pub(super) fn drop_waiting(&mut self, now: Instant) {
        self.park.clear();
        if let Some(blob) = self.blob_mut() {
            blob.pause();
        }
        self.ring.drop_block();
        self.ring.rewind();
        for lane in &mut self.lanes {
            lane.end_session();
        }
        self.catch_up(now);
    }

    /// The lineage behind a log is gone.
    pub(super) fn disown(&mut self, log: Log) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_busy() && lane.log() == log) {
            lane.open = 0;
            lane.disown();
        }
    }
}

fn remaining(now: Instant, until: Instant) -> Option<Duration> {
    (until != Instant::NEVER).then(|| until.since(now))
}

fn parse_order(frame: &[u8]) -> Option<(wire_format::frame::order::Delivery, Order<'_>)> {
    let Ok(Split::Frame(raw)) = split(frame, u32::MAX) else { return None };
    Order::parse(&raw).ok()
}
