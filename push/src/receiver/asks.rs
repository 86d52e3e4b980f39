//! What travels beside orders: questions both ways, results, progress, and what became of orders.
//!
//! All of it is appended to one queue of whole frames and gone with the session. What finds no room is not sent, and
//! counted.

use core::time::Duration;

use wire_format::error::ParseError;
use wire_format::frame::ask::{self, Ask};
use wire_format::frame::outcome::Code;
use wire_format::frame::progress::PER_MILLE_MAX;
use wire_format::frame::result::{self, OrderResult};
use wire_format::frame::status::{ROWS_MAX, STATE_LEN, State, StateEntry, States, Status, StatusRows};
use wire_format::frame::{CHECKSUM_LEN, Progress, Raw, Reply, header};
use wire_format::ids::{Lane, OrderKind};
use wire_format::time::Instant;

use super::config::{ASKS_MAX, PROGRESS_EVERY};
use super::floors::Log;
use super::handler::{Answer, AnswerBuffer, AnswerCode, AskId, Question, QuestionId, Ticket};
use super::input::{NO_SUCH_LOG, Step};
use super::item::{AskError, Item};
use super::orders::clock_ms;
use super::session::Leaving;
use super::{DeskSlot, Receiver, Storage};

/// A question of this device.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: AskId,
    kind: OrderKind,
    /// When it lapses; [`Instant::ZERO`] once it has.
    until: Instant,
}

/// The questions of this device: 4 open ones at most.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    open: [Option<Open>; ASKS_MAX],
    next: u32,
}

impl Asks {
    pub(super) const fn new() -> Self {
        Self { open: [None; ASKS_MAX], next: 0 }
    }

    /// When the first of them lapses.
    pub(super) fn due(&self) -> Option<Instant> {
        self.open.iter().flatten().map(|open| open.until).min()
    }

    /// Those whose time is over by `now` will not be answered any more.
    pub(super) fn lapse(&mut self, now: Instant) {
        for open in self.open.iter_mut().flatten().filter(|open| open.until <= now) {
            open.until = Instant::ZERO;
        }
    }

    /// One that lapsed and was not told.
    pub(super) fn take_lapsed(&mut self) -> Option<AskId> {
        let is_lapsed = |open: &Option<Open>| open.is_some_and(|open| open.until == Instant::ZERO);
        let open = self.open.iter_mut().find(|open| is_lapsed(open))?;
        open.take().map(|open| open.id)
    }
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// Asks the server something, at most [`ASKS_MAX`] questions at a time. Its answer comes as [`Item::Answer`], or
    /// [`super::Event::Unanswered`] says that none came `within` the time given, 1 ms to 49 days.
    pub fn ask(
        &mut self,
        now: Instant,
        kind: OrderKind,
        schema: u16,
        within: Duration,
        payload: &[u8],
    ) -> Result<AskId, AskError> {
        self.touch(now);
        if self.session.conn.is_none() || self.session.leaving != Leaving::No || self.is_leaving() {
            return Err(AskError::NotServed);
        }
        if !self.session.answers {
            return Err(AskError::NotAnswered);
        }
        if kind.0 == 0 || payload.len() > ask::PAYLOAD_MAX {
            return Err(AskError::Invalid);
        }
        let Some(DeskSlot { asks, .. }) = self.desk.as_mut().first_mut() else {
            return Err(AskError::NoRoom);
        };
        let id = AskId(asks.next);
        let deadline_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1);
        let ask = Ask {
            correlation: id.0,
            generation: self.session.number.into(),
            kind,
            schema,
            deadline_ms,
            payload,
        };
        let Some(free) = asks.open.iter_mut().find(|open| open.is_none()) else {
            return Err(AskError::TooMany);
        };
        let need = frame_len(ask::FIXED_LEN, payload.len());
        if need.saturating_sub(header::LEN) > self.session.max_body as usize {
            return Err(AskError::Invalid);
        }
        if !self.queue.push(need, |buffer| ask.emit(buffer)) {
            return Err(AskError::NoRoom);
        }
        *free = Some(Open { id, kind, until: now + Duration::from_millis(deadline_ms.into()) });
        asks.next = asks.next.wrapping_add(1);
        self.count_desk(|counts| &mut counts.asked);
        Ok(id)
    }

    /// Questions whose time is over by `now` are not open any more.
    pub(super) fn lapse(&mut self, now: Instant) {
        if let Some(desk) = self.desk.as_mut().first_mut() {
            desk.asks.lapse(now);
        }
    }

    /// REPLY: the answer to a question of this device, if it is still open.
    pub(super) fn step_reply<'a>(&mut self, raw: &Raw<'a>) -> Result<Step<'a>, ParseError> {
        let reply = Reply::parse(raw)?;
        let is_it = |open: &Option<Open>| {
            open.is_some_and(|open| {
                open.id.0 == reply.correlation && open.kind == reply.kind && open.until != Instant::ZERO
            })
        };
        let asks = self.desk.as_mut().first_mut().map(|desk| &mut desk.asks);
        let open = asks.and_then(|asks| asks.open.iter_mut().find(|open| is_it(open)));
        let Some(open) = open.filter(|_| reply.generation == u32::from(self.session.number)) else {
            self.count_desk(|counts| &mut counts.late_replies);
            return Ok(Step::Used);
        };
        *open = None;
        let (ask, age) = (AskId(reply.correlation), Duration::from_millis(reply.age_ms.into()));
        let Reply { code, schema, payload, .. } = reply;
        Ok(Step::Item(Item::Answer(Answer { ask, code, schema, age, payload })))
    }

    /// ASK: a question of the server's.
    pub(super) fn step_ask<'a>(&mut self, raw: &Raw<'a>) -> Result<Step<'a>, ParseError> {
        let Ask { correlation, generation, kind, schema, deadline_ms, payload } = Ask::parse(raw)?;
        if !self.answers_questions() {
            self.count_desk(|counts| &mut counts.unanswered);
            return Ok(Step::Used);
        }
        self.count_desk(|counts| &mut counts.questions);
        let id = QuestionId { correlation, generation, kind, session: self.session.number };
        let within = Duration::from_millis(deadline_ms.into());
        Ok(Step::Item(Item::Question(Question { id, kind, schema, within, payload })))
    }

    /// Answers a question of the server's. `false` if its session is over, there is no room, or the answer is
    /// [`AnswerCode::Later`]; an answer that is larger than the server takes becomes "failed".
    pub fn reply(
        &mut self,
        now: Instant,
        id: QuestionId,
        code: AnswerCode,
        answer: &AnswerBuffer<'_>,
    ) -> bool {
        self.touch(now);
        let Some(mut code) = code.code() else { return false };
        if self.session.conn.is_none() || id.session != self.session.number {
            self.count_desk(|counts| &mut counts.unanswered);
            return false;
        }
        let QuestionId { correlation, generation, kind, .. } = id;
        let mut payload = answer.bytes.written();
        let max = (self.session.max_body as usize).saturating_sub(header::LEN);
        if payload.len() > ask::PAYLOAD_MAX || frame_len(ask::FIXED_LEN, payload.len()) > max {
            (code, payload) = (wire_format::frame::reply::Code::FAILED, &[]);
        }
        let age_ms = u32::try_from(answer.age.as_millis()).unwrap_or(u32::MAX);
        let reply = Reply { correlation, generation, kind, schema: answer.schema, code, age_ms, payload };
        let need = frame_len(ask::FIXED_LEN, payload.len());
        let sent = self.queue.push(need, |buffer| reply.emit(buffer));
        self.count_desk(|counts| if sent { &mut counts.replies } else { &mut counts.unanswered });
        sent
    }

    /// Says how far the order of `ticket` is, at most twice a second: tells the server that it is not stuck. `false` if
    /// it was not said: too soon after the last, not at work, no session of its log, or no room.
    pub fn progress(&mut self, now: Instant, ticket: Ticket, per_mille: u16, phase: u16) -> bool {
        self.touch(now);
        let state = self.lane_mut(ticket.lane);
        if !state.is_of(&ticket) || !state.is_started() {
            return false;
        }
        let soon = !state.may_tell(clock_ms(now), PROGRESS_EVERY.as_millis() as u32);
        let durable = ticket.log.is_durable();
        let told = !soon && self.session.conn.is_some() && self.session.logs.has(ticket.log) && {
            let per_mille = per_mille.min(PER_MILLE_MAX);
            let progress = Progress { durable, number: ticket.number, per_mille, phase };
            self.queue.push(frame_len(12, 0), |buffer| progress.emit(buffer))
        };
        if !told {
            self.count_desk(|counts| &mut counts.progress_dropped);
        }
        told
    }

    /// The result of an order that has its end, ahead of its outcome; lost if it cannot be sent in this session.
    pub(super) fn send_result(&mut self, ticket: Ticket, payload: &[u8]) {
        let state = self.lane(ticket.lane);
        if !state.needs_result() || state.is_orphan() {
            return;
        }
        let need = frame_len(result::FIXED_LEN, payload.len());
        let fits = need.saturating_sub(header::LEN) <= self.session.max_body as usize;
        let served = self.session.conn.is_some() && self.session.logs.has(ticket.log);
        let (durable, number) = (ticket.log.is_durable(), ticket.number);
        let result = OrderResult { durable, number, payload };
        let sent = served && fits && self.queue.push(need, |buffer| result.emit(buffer));
        self.count_desk(|counts| if sent { &mut counts.results } else { &mut counts.results_lost });
    }

    /// STATUS: what became of some orders, answered from the ring and the floors.
    pub(super) fn step_status(&mut self, now: Instant, raw: &Raw<'_>) -> Result<(), ParseError> {
        let status = Status::parse(raw)?;
        let log = self.session.logs.of(status.durable).ok_or(NO_SUCH_LOG)?;
        let StatusRows::Question(numbers) = status.rows else { return Ok(()) };
        let mut states = [StateEntry { number: 0, state: State::Unknown, elapsed_ms: 0 }; ROWS_MAX];
        let count_rows = numbers.len().min(ROWS_MAX);
        for (entry, number) in states.iter_mut().zip(numbers.iter()) {
            *entry = self.state_of(now, log, number);
        }
        let rows = StatusRows::Answer(States::from(states.get(..count_rows).unwrap_or(&[])));
        let answer = Status { durable: status.durable, rows };
        let need =
            header::LEN.saturating_add(count_rows.saturating_mul(STATE_LEN)).saturating_add(CHECKSUM_LEN);
        if !self.queue.push(need, |buffer| answer.emit(buffer)) {
            self.count_desk(|counts| &mut counts.unanswered);
        }
        Ok(())
    }

    fn state_of(&self, now: Instant, log: Log, number: u64) -> StateEntry {
        let (state, elapsed_ms) = match self.ring.by_number(log, number) {
            Some(slot) if slot.is_started() => {
                (State::Started, clock_ms(now).wrapping_sub(self.lane(slot.lane()).started_ms()))
            }
            Some(slot) if slot.is_open() => (State::Received, clock_ms(now).wrapping_sub(slot.ms())),
            Some(slot) => (State::Ended(slot.code()), 0),
            None if Lane::ALL.into_iter().any(|lane| number <= self.floors.floor(log, lane)) => {
                (State::Forgotten, 0)
            }
            None => (State::Unknown, 0),
        };
        debug_assert!(!matches!(state, State::Ended(Code(0))));
        StateEntry { number, state, elapsed_ms }
    }

    /// Whether there is room for the smallest answer, and the application wants questions.
    pub(super) fn answers_questions(&self) -> bool {
        self.config.questions && self.queue.capacity() >= frame_len(ask::FIXED_LEN, 0)
    }

    /// Whether there is room for the largest answer to STATUS.
    pub(super) fn answers_status(&self) -> bool {
        self.queue.capacity() >= header::LEN + ROWS_MAX * STATE_LEN + CHECKSUM_LEN
    }
}

/// Bytes of a frame with `fixed` bytes and a payload padded to 4.
const fn frame_len(fixed: usize, payload: usize) -> usize {
    let padded = payload.saturating_add(3) & !3;
    header::LEN.saturating_add(fixed).saturating_add(padded).saturating_add(CHECKSUM_LEN)
}
