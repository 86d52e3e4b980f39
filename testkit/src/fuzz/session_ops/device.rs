//! The device's application: it takes orders, some of them for later, answers, asks and tells how far it is.

use core::time::Duration;

use push::receiver::{AnswerBuffer, AnswerCode, Delivered, Item, QuestionId, Ticket, Verdict};
use wire_format::frame::{Bye, Drain, bye, drain};
use wire_format::ids::{Lane, Lineage, OrderKind};

use super::{LINEAGE, World};

/// Orders at work and questions the application keeps in mind; the lanes bound the first, nothing bounds the second.
const QUESTIONS_MAX: usize = 8;

/// An order the application has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    ticket: Ticket,
    lineage: Lineage,
    redelivered: bool,
}

/// What is checked of an order that is handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    work: Work,
    number: u64,
    lane: Lane,
    durable: bool,
    remaining: Option<Duration>,
}

impl Handed {
    pub(super) const fn of(order: &Delivered<'_>) -> Self {
        let Delivered { ticket, lineage, redelivered, durable, remaining, .. } = *order;
        let work = Work { ticket, lineage, redelivered };
        Self { work, number: order.order.number, lane: order.order.lane, durable, remaining }
    }
}

/// What the application has in mind.
#[derive(Default)]
pub(super) struct Application {
    /// The order it looks at now.
    pub(super) work: Option<Work>,
    /// Orders answered "later".
    pub(super) later: Vec<Work>,
    questions: Vec<QuestionId>,
    /// The large payload that comes in pieces: whose it is, and how far it is.
    piece: Option<(Ticket, u32)>,
    pub(super) pieces: u32,
    wrong_digest: bool,
}

impl World {
    pub(super) fn take_item(&mut self, item: Item<'_>) {
        match item {
            Item::Order(order) => {
                let work = self.handed_over(Handed::of(&order));
                self.application.work = Some(work);
            }
            Item::Question(question) => {
                assert!(question.payload.len() <= 4_096);
                self.application.questions.truncate(QUESTIONS_MAX - 1);
                self.application.questions.push(question.id);
            }
            Item::Piece(piece) => {
                // In order, without gaps, each one once: from 0, or from where the last one of the order ended.
                let expected = self.application.piece.filter(|(ticket, _)| *ticket == piece.ticket);
                let expected = expected.map_or(0, |(_, end)| end);
                assert!(piece.offset == expected || piece.offset == 0, "a piece out of order");
                let end = piece.offset + u32::try_from(piece.bytes.len()).unwrap();
                assert!(end <= piece.size && piece.sha256.is_some() == (end == piece.size));
                self.application.piece = Some((piece.ticket, end));
                self.application.pieces += 1;
                if piece.sha256.is_some() {
                    let matches = !self.application.wrong_digest;
                    self.receiver.verified(self.now, piece.ticket, matches);
                }
            }
            _ => {}
        }
    }

    /// An order goes to the application: in its lane no other is at work, and its number is the next one.
    pub(super) fn handed_over(&mut self, order: Handed) -> Work {
        assert!(self.application.work.is_none(), "an order while another is being looked at");
        let Handed { work, number, lane, durable, remaining } = order;
        let lineage = work.lineage;
        let busy = self.application.later.iter().any(|work| work.ticket.lane() == lane);
        assert!(!busy, "two orders at work in lane {lane:?}");
        assert!(remaining.is_none_or(|left| !left.is_zero()), "an order started after its lifetime");
        let (known, last) = self.handed.entry(durable).or_insert((lineage, [0; 4]));
        if *known != lineage {
            (*known, *last) = (lineage, [0; 4]);
        }
        assert!(number > last[lane.index()], "order {number} of lane {lane:?} out of order");
        last[lane.index()] = number;
        work
    }

    /// The application makes up its mind about the order it looks at, or ends one that it put off.
    pub(super) fn complete(&mut self, how: u8) {
        let retry_after = Duration::from_millis(u64::from(how) * 4);
        let verdict = match (how & 1, how >> 1 & 7) {
            (_, 1 | 5) => Verdict::Later,
            (0, 2) => Verdict::Busy { retry_after },
            (1, 2) => Verdict::NoSpace { retry_after },
            (_, 3) => Verdict::FailedRetryable { detail: how, retry_after },
            (0, _) => Verdict::Applied,
            _ => Verdict::Failed { detail: how },
        };
        if let Some(work) = self.application.work.take() {
            if verdict == Verdict::Later {
                self.application.later.push(work);
            }
            return self.end(work, verdict, how);
        }
        if verdict != Verdict::Later && !self.application.later.is_empty() {
            let work = self.application.later.remove(0);
            self.end(work, verdict, how);
        }
    }

    fn end(&mut self, work: Work, verdict: Verdict, how: u8) {
        let Work { ticket, lineage, redelivered } = work;
        let number = ticket.number();
        if lineage == LINEAGE && verdict == Verdict::Applied {
            let times = self.applied.entry(number).or_default();
            *times += 1;
            let may_repeat = self.idempotent.contains(&number) && redelivered;
            assert!(*times == 1 || may_repeat, "order {number} took effect {times} times");
        }
        let result = [how; 256];
        let result = (how & 0x10 != 0).then_some(&result[..usize::from(how)]);
        self.receiver.complete(self.now, ticket, verdict, result);
        if how & 0x20 != 0 && verdict != Verdict::Later {
            // A second time a ticket is worth nothing.
            self.receiver.complete(self.now, ticket, Verdict::Failed { detail: 1 }, None);
        }
    }

    /// The application says something of its own.
    pub(super) fn speak(&mut self, how: u8) {
        match how & 7 {
            0 | 1 => {
                if let Some(work) = self.application.later.first() {
                    self.receiver.progress(self.now, work.ticket, u16::from(how) * 8, 1);
                }
            }
            2 | 3 => {
                let within = Duration::from_millis(u64::from(how) * 10);
                let _ = self.receiver.ask(self.now, OrderKind::STOCK_QUESTION, 1, within, &[how; 16]);
            }
            4 | 5 => {
                let mut room = [0; 64];
                let mut answer = AnswerBuffer::new(&mut room);
                answer.bytes.advance(usize::from(how >> 2));
                if let Some(id) = self.application.questions.pop() {
                    let _ = self.receiver.reply(self.now, id, AnswerCode::Ok, &answer);
                }
            }
            6 => self.application.wrong_digest = how & 8 != 0,
            _ if how & 0xF8 == 0xF8 => {
                let bye = Bye { code: bye::Code::RESTARTING, retry_after_ms: 5 };
                self.receiver.stop_with(self.now, bye);
            }
            _ if how & 0xF8 == 0xF0 => {
                let drain = Drain { reason: drain::Reason::UPDATING, after_ms: u32::from(how) };
                self.receiver.drain(self.now, drain);
            }
            _ => drop(self.fleet.cancel(self.now, u64::from(how >> 3))),
        }
    }
}
