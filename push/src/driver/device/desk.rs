//! The application's side of the device's task: what the server sends goes to the handler, what the handler and other
//! tasks say goes to the receiver.

use std::time::Duration;

use wire_format::frame::{ask, result};
use wire_format::time::Instant;

use super::blob::{Blob, Kept};
use super::handle::{Answer, AskError};
use super::mailbox::{AnswerTo, Post, Posts};
use crate::driver::Clock;
use crate::receiver::{
    self, ASKS_MAX, AnswerBuffer, AnswerCode, AskId, Boxed, Delivered, Handler, Item, Piece, Question,
    Receiver, ResultBuffer, Ticket, Verdict,
};

/// Connections at once: the server's session, and strangers that have not said HELLO yet.
pub(super) const CONNS: usize = 4;

/// The receiver of a device with an operating system.
pub(super) type Served = Receiver<Boxed, CONNS>;

/// The handler, and the buffers it works with. They are taken when they are first needed: most devices never give a result
/// or an answer.
pub(super) struct Desk<H> {
    handler: H,
    result: Vec<u8>,
    answer: Vec<u8>,
    blob: Blob,
    /// Questions of this device that are open, and who waits for the answers.
    asks: Vec<(AskId, AnswerTo)>,
}

impl<H: Handler> Desk<H> {
    pub(super) fn new(handler: H) -> Self {
        Self {
            handler,
            result: Vec::new(),
            answer: Vec::new(),
            blob: Blob::default(),
            asks: Vec::with_capacity(ASKS_MAX),
        }
    }

    /// Serves what a frame of the server brought.
    pub(super) fn take(&mut self, clock: &Clock, receiver: &mut Served, item: Item<'_>) {
        match item {
            Item::Order(order) => {
                let (ticket, verdict, len) = self.apply(order);
                self.applied(clock.now(), receiver, ticket, verdict, len);
            }
            Item::Question(question) => self.question(clock, receiver, &question),
            Item::Answer(answer) => self.answered(&answer),
            Item::Piece(piece) => self.piece(clock.now(), receiver, &piece),
        }
    }

    /// Hands over the orders that waited for their lane and may start now. True if there was one.
    pub(super) fn serve_parked(&mut self, clock: &Clock, receiver: &mut Served) -> bool {
        let mut any = false;
        while let Some(order) = receiver.poll_order(clock.now()) {
            let (ticket, verdict, len) = self.apply(order);
            self.applied(clock.now(), receiver, ticket, verdict, len);
            any = true;
        }
        any
    }

    /// Calls the handler; the number is that of the bytes of its result, if the server wants one.
    fn apply<'a>(&'a mut self, mut order: Delivered<'a>) -> (Ticket, Verdict, Option<usize>) {
        if let Some(payload) = self.blob.of(order.ticket) {
            order.order.payload = payload;
        }
        if !order.needs_result {
            return (order.ticket, self.handler.handle(&order), None);
        }
        self.result.resize(result::PAYLOAD_MAX, 0);
        let mut result = ResultBuffer::new(&mut self.result);
        let verdict = self.handler.handle_with_result(&order, &mut result);
        (order.ticket, verdict, Some(result.written().len()))
    }

    fn applied(
        &mut self,
        now: Instant,
        receiver: &mut Served,
        ticket: Ticket,
        verdict: Verdict,
        len: Option<usize>,
    ) {
        let result = len.filter(|&len| len > 0).and_then(|len| self.result.get(..len));
        receiver.complete(now, ticket, verdict, result);
        if verdict != Verdict::Later {
            self.blob.forget(ticket);
        }
    }

    fn question(&mut self, clock: &Clock, receiver: &mut Served, question: &Question<'_>) {
        self.answer.resize(ask::PAYLOAD_MAX, 0);
        let mut answer = AnswerBuffer::new(&mut self.answer);
        let code = self.handler.question(question, &mut answer);
        if code != AnswerCode::Later {
            // Its session is over, or nothing can be said now: the server stops waiting by itself.
            let _ = receiver.reply(clock.now(), question.id, code, &answer);
        }
    }

    fn answered(&mut self, answer: &receiver::Answer<'_>) {
        self.handler.answer(answer);
        let receiver::Answer { ask, code, schema, age, payload } = *answer;
        self.tell(ask, || Ok(Answer { code, schema, age, payload: payload.to_vec() }));
    }

    /// No answer will come.
    pub(super) fn unanswered(&mut self, ask: AskId) {
        self.tell(ask, || Err(AskError::Unanswered));
    }

    fn tell(&mut self, ask: AskId, answer: impl FnOnce() -> Result<Answer, AskError>) {
        if let Some(at) = self.asks.iter().position(|(open, _)| *open == ask) {
            // Whoever asked may have gone.
            let _ = self.asks.swap_remove(at).1.send(answer());
        }
    }

    fn piece(&mut self, now: Instant, receiver: &mut Served, piece: &Piece<'_>) {
        match self.blob.take(piece) {
            Kept::Piece => {}
            Kept::Whole { matches } => receiver.verified(now, piece.ticket, matches),
            Kept::Not(verdict) => receiver.complete(now, piece.ticket, verdict, None),
        }
    }

    /// Serves what other tasks handed over. If that is to leave: how long that may take.
    pub(super) fn serve_posts(
        &mut self,
        clock: &Clock,
        receiver: &mut Served,
        posts: &mut Posts,
    ) -> Option<Duration> {
        let mut leave = None;
        let Posts { list, bytes } = posts;
        for post in list.drain(..) {
            let now = clock.now();
            match post {
                Post::Complete { ticket, verdict, result } => {
                    if verdict != Verdict::Later {
                        receiver.complete(now, ticket, verdict, result.and_then(|place| bytes.get(place)));
                        self.blob.forget(ticket);
                    }
                }
                Post::Progress { ticket, per_mille, phase } => {
                    // Too soon, or without a session: the next one says more.
                    let _ = receiver.progress(now, ticket, per_mille, phase);
                }
                Post::Ask { kind, schema, within, payload, answer } => {
                    let payload = bytes.get(payload).unwrap_or_default();
                    self.ask(receiver.ask(now, kind, schema, within, payload), answer);
                }
                Post::Reply { question, code, schema, age, payload } => {
                    let len = payload.len();
                    let mut answer = AnswerBuffer::new(bytes.get_mut(payload).unwrap_or_default());
                    answer.bytes.advance(len);
                    (answer.schema, answer.age) = (schema, age);
                    let _ = receiver.reply(now, question, code, &answer);
                }
                Post::Stats(reply) => drop(reply.send(Box::new(receiver.stats().clone()))),
                Post::Leave { within } => leave = Some(within),
            }
        }
        bytes.clear();
        leave
    }

    fn ask(&mut self, asked: Result<AskId, receiver::AskError>, answer: AnswerTo) {
        match asked {
            Ok(ask) => self.asks.push((ask, answer)),
            Err(why) => drop(answer.send(Err(why.into()))),
        }
    }
}
