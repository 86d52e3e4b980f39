//! A device's handle: what its other tasks do while one task serves the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wire_format::frame::ask;
use wire_format::frame::reply::Code;
use wire_format::frame::result;
use wire_format::ids::OrderKind;

use super::mailbox::{Mailbox, Post};
use crate::receiver::{self, AnswerCode, QuestionId, Stats, Ticket, Verdict};

/// A way to a listening device, for other tasks and threads; clones lead to the same one. None of its calls waits for the
/// network but [`Handle::ask`].
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) mailbox: Arc<Mailbox>,
}

/// Why something was not handed to the device's task. Nothing of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The device has stopped.
    #[error("the device has stopped")]
    Stopped,
    /// The device's task has not taken what was handed over before: a handler blocks it. Try again.
    #[error("the device's task is busy, and what waits for it is as much as may wait")]
    Full,
    /// More bytes than a frame carries.
    #[error("{len} bytes are more than the {limit} that fit")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes that fit.
        limit: usize,
    },
}

/// Why a question to the server has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It was not asked.
    #[error(transparent)]
    NotAsked(#[from] receiver::AskError),
    /// It was not handed to the device's task.
    #[error(transparent)]
    NotHandedOver(#[from] HandOverError),
    /// No answer came in time, or the session ended before.
    #[error("no answer came in time")]
    Unanswered,
}

/// The server's answer to a question of this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ended; only with [`Code::OK`] the payload is an answer.
    pub code: Code,
    /// Version of the payload's encoding.
    pub schema: u16,
    /// How old the answer was when it was written.
    pub age: Duration,
    /// Opaque to the protocol, at most 4,096 bytes.
    pub payload: Vec<u8>,
}

impl Handle {
    /// How an order ended that the handler answered with [`Verdict::Later`], from any task or thread. A `result` (at most
    /// 16,384 bytes) travels ahead of the outcome if the server asked for one and its session lasts until then.
    ///
    /// A ticket is good once, and also after the session in which its order came: the outcome waits for the next one. A
    /// ticket that was completed, or is of another device, changes nothing. [`Verdict::Later`] says nothing new.
    ///
    /// Nothing is kept if this fails: on [`HandOverError::Full`] call it again.
    pub fn complete(
        &self,
        ticket: Ticket,
        verdict: Verdict,
        result: Option<&[u8]>,
    ) -> Result<(), HandOverError> {
        let payload = fits(result.unwrap_or_default(), result::PAYLOAD_MAX)?;
        self.mailbox.hand(payload, |place| Post::Complete {
            ticket,
            verdict,
            result: result.is_some().then_some(place),
        })
    }

    /// Says how far an order is, in 0 to 1,000 parts and a phase of the application's own. What comes more than twice a
    /// second is left out. The server counts an order as stuck after 60 s without.
    pub fn progress(&self, ticket: Ticket, per_mille: u16, phase: u16) -> Result<(), HandOverError> {
        self.mailbox.hand(&[], |_| Post::Progress { ticket, per_mille, phase })
    }

    /// Asks the server what only it knows now (how many of an article are in the back store), and waits for its answer,
    /// `within` at most. Four questions may be open at a time. Nothing is repeated: whoever needs the answer asks again.
    ///
    /// Cancel safe: a question whose future was dropped is answered into the void.
    pub async fn ask(
        &self,
        kind: OrderKind,
        schema: u16,
        payload: &[u8],
        within: Duration,
    ) -> Result<Answer, AskError> {
        let payload = fits(payload, ask::PAYLOAD_MAX)?;
        let (answer, answered) = oneshot::channel();
        self.mailbox.hand(payload, |payload| Post::Ask { kind, schema, within, payload, answer })?;
        answered.await.unwrap_or(Err(AskError::NotHandedOver(HandOverError::Stopped)))
    }

    /// Answers a question of the server's that the handler answered with [`AnswerCode::Later`]. `age` says how old the
    /// answer is. It is dropped if the question's session is over.
    pub fn reply(
        &self,
        question: QuestionId,
        code: AnswerCode,
        schema: u16,
        age: Duration,
        payload: &[u8],
    ) -> Result<(), HandOverError> {
        let payload = fits(payload, ask::PAYLOAD_MAX)?;
        self.mailbox.hand(payload, |payload| Post::Reply { question, code, schema, age, payload })
    }

    /// Counters; `None` once the device has stopped.
    pub async fn stats(&self) -> Option<Box<Stats>> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.hand(&[], |_| Post::Stats(reply)).ok()?;
        answer.await.ok()
    }

    /// Ends what is at work, says goodbye and ends the task.
    pub(super) fn leave(&self, within: Duration) {
        // Full: the task does not run, and whoever shuts it down aborts it after a while.
        let _ = self.mailbox.hand(&[], |_| Post::Leave { within });
    }
}

const fn fits(payload: &[u8], limit: usize) -> Result<&[u8], HandOverError> {
    if payload.len() > limit {
        return Err(HandOverError::TooLong { len: payload.len(), limit });
    }
    Ok(payload)
}
