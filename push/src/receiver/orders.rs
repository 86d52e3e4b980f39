//! Orders from their arrival to their end: parked, judged, started, cancelled, ended.

use core::time::Duration;

use wire_format::error::ParseError;
use wire_format::frame::order::{Delivery, OrderOption, options};
use wire_format::frame::outcome::Code;
use wire_format::frame::{Kind, Order, Raw, bye};
use wire_format::ids::Lane;
use wire_format::splitter::{Split, split};
use wire_format::time::Instant;

use super::config::{AT_WORK_RETRY, PARK_RETRY};
use super::handler::{Delivered, Ticket, Verdict};
use super::input::{NO_SUCH_LOG, Step, too_much};
use super::keys::{Judgement, OrderKeys};
use super::lanes::{LaneState, Stage, Traits};
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
    /// The journal has to know first that it starts.
    Begins,
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
        let received = self.live(slot).map_or(now, |live| live.unread_since(now));
        // The sender rounds up, and says 1 for what is over: an order that may have been sent before has to be answered.
        let lifetime = delivery.remaining_ms.map(|ms| Duration::from_millis(ms.saturating_sub(1).into()));
        let until = lifetime.map_or(Instant::NEVER, |lifetime| received + lifetime);
        let open = self.lane(place.lane).open;
        if open > 0 {
            if self.is_beginning(place) && self.park.find(|meta| meta.place == place).is_none() {
                return Ok(match self.go_on(now, place, until) {
                    Some(Start::Goes(ticket)) => {
                        Step::Order(self.deliver(now, ticket, delivery, order, until))
                    }
                    Some(_) => Step::Used,
                    None => Step::Wait,
                });
            }
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
        if let Some(step) = self.without_room() {
            return Ok(step);
        }
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
            Start::Goes(ticket) => Step::Order(self.deliver(now, ticket, delivery, order, until)),
            // The same bytes are offered again.
            Start::Begins => Step::Wait,
            Start::Ended | Start::Fetches => Step::Used,
        })
    }

    fn deliver<'a>(
        &self,
        now: Instant,
        ticket: Ticket,
        delivery: Delivery,
        order: Order<'a>,
        until: Instant,
    ) -> Delivered<'a> {
        Delivered {
            ticket,
            lineage: self.floors.lineage(ticket.log),
            order,
            redelivered: delivery.replay,
            remaining: remaining(now, until),
            durable: delivery.durable,
            needs_result: delivery.needs_result,
        }
    }

    /// Whether this order waits in its lane until the journal knows that it starts.
    pub(super) fn is_beginning(&self, place: Place) -> bool {
        let lane = self.lane(place.lane);
        lane.is_beginning() && lane.is_with(place.log, place.number)
    }

    /// An order that waited for the journal goes to the handler, unless its lifetime is over now. `None` if the journal
    /// does not know yet.
    fn go_on(&mut self, now: Instant, place: Place, until: Instant) -> Option<Start> {
        if !self.ring.is_recorded(place) {
            return None;
        }
        self.lane_mut(place.lane).begin();
        if until <= now {
            count(&mut self.stats.expired);
            self.unpark(place);
            self.leave_lane(now, place.lane, Code::EXPIRED, 0, None);
            return Some(Start::Ended);
        }
        self.hand_over(place);
        Some(Start::Goes(self.lane(place.lane).ticket(place.lane)))
    }

    /// It is at work from here on.
    fn hand_over(&mut self, place: Place) {
        count(&mut self.stats.delivered);
        self.ring.start(place);
        self.at_hand = Some(place.lane);
    }

    /// What comes of a frame that needs a place in the ring, if there is none.
    fn without_room<'a>(&mut self) -> Option<Step<'a>> {
        if self.ring.has_room() {
            return None;
        }
        // Answers to duplicates give their place back once they are written; SETTLED is behind this frame.
        if self.ring.has_answers() {
            return Some(Step::Wait);
        }
        // One order is the least a WELCOME can allow, and what this server has not settled yet takes its room too.
        let full = Step::End(Ended::NoRoom, Some(bye::Code::STORAGE));
        if self.give_way() { None } else { Some(full) }
    }

    /// What the device owes to a server that was fenced off, or of a log that was given up, is kept as long as there is room:
    /// the oldest goes.
    fn give_way(&mut self) -> bool {
        let logs = self.session.logs;
        let Some(place) = self.ring.first_ended(|log| !logs.has(log)) else { return false };
        let freed = self.ring.settle(place.log, place.lane, place.number);
        add(&mut self.stats.forgotten, freed.ended.into());
        if self.is_journalled() {
            self.floors.set_settled(place.log, place.lane, true);
        }
        self.ring.has_room()
    }

    /// An order that had ended came again.
    fn answer_again<'a>(&mut self, place: Place) -> Step<'a> {
        if let Some(step) = self.without_room() {
            return step;
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
        if candidate.until <= now {
            count(&mut self.stats.expired);
            return self.end_unbegun(now, place, Code::EXPIRED, 0, None);
        }
        match self.keys.judge(place.log, keys) {
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
                    let ticket = self.occupy(now, place, Stage::Fetching, Traits::default());
                    if let Some(blob) = self.blob_mut() {
                        blob.set_turn(ticket.turn);
                    }
                    return Start::Fetches;
                }
            }
            Payload::Inline => {}
        }
        let ring = &self.ring;
        self.keys.start(place, keys, |log_lane, number| ring.owes(log_lane, number));
        let Candidate { idempotent, needs_result, .. } = *candidate;
        let traits = Traits { idempotent, needs_result, keyed: keys.key != 0 || keys.supersede != 0 };
        if self.is_journalled() && !idempotent {
            // Its ticket is given with the order.
            let _ = self.occupy(now, place, Stage::Beginning, traits);
            self.note_start(place);
            return Start::Begins;
        }
        self.hand_over(place);
        Start::Goes(self.occupy(now, place, Stage::AtWork, traits))
    }

    /// The order takes its lane, under a new ticket or the one it had while its payload was fetched.
    fn occupy(&mut self, now: Instant, place: Place, stage: Stage, traits: Traits) -> Ticket {
        let known = self.blob().and_then(|blob| blob.turn_of(place));
        let turn = known.unwrap_or_else(|| {
            self.turns = self.turns.wrapping_add(1);
            self.turns
        });
        self.lane_mut(place.lane).occupy(place, clock_ms(now), stage, traits, turn)
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
            if let Some((spot, meta)) = self.next_begun() {
                match self.go_on(now, meta.place, meta.until) {
                    Some(Start::Goes(ticket)) => break (spot, meta, ticket),
                    Some(_) => continue,
                    None => return None,
                }
            }
            let (spot, meta) = self.next_ready()?;
            let Some(candidate) = self.parked(spot, &meta) else {
                // A copy that does not read as what was put in: the memory is faulty.
                self.park.take(spot);
                self.end(now, meta.place, Code::REJECTED_PAYLOAD, 0, None);
                continue;
            };
            match self.start(now, &candidate) {
                Start::Ended => self.park.take(spot),
                Start::Fetches | Start::Begins => {}
                Start::Goes(ticket) => break (spot, meta, ticket),
            }
        };
        self.park.take(spot);
        self.forget_blob(meta.place);
        let (delivery, order) = parse_order(self.park.frame(spot))?;
        Some(self.deliver(now, ticket, delivery, order, meta.until))
    }

    /// The first waiting order of which the journal knows by now that it starts.
    fn next_begun(&self) -> Option<(Spot, Meta)> {
        let begun = |lane: &Lane| {
            let state = self.lane(*lane);
            let place = Place { log: state.log(), lane: *lane, number: state.number() };
            let begun = state.is_beginning() && self.ring.is_recorded(place);
            begun.then(|| self.park.find(|meta| meta.place == place)).flatten()
        };
        Lane::ALL.iter().find_map(begun)
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
        let lane = self.lane(ticket.lane);
        if lane.is_of(&ticket) && !lane.is_put_off() && !lane.is_beginning() {
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
}

fn remaining(now: Instant, until: Instant) -> Option<Duration> {
    (until != Instant::NEVER).then(|| until.since(now))
}

fn parse_order(frame: &[u8]) -> Option<(Delivery, Order<'_>)> {
    let Ok(Split::Frame(raw)) = split(frame, u32::MAX) else { return None };
    Order::parse(&raw).ok()
}
