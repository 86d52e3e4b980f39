//! What the application sees of orders and questions, and what it answers.

use core::time::Duration;

use wire_format::frame::Order;
use wire_format::frame::outcome::Code;
use wire_format::frame::reply::Code as ReplyCode;
use wire_format::ids::{Lane, Lineage, OrderKind};

use super::floors::Log;

/// The application's half of a device: it applies orders, one at a time.
///
/// The same trait serves firmware (a poll loop) and the drivers. Any `FnMut(&Delivered) -> Verdict` is one.
///
/// Rules: answer within one second, because the device hears and says nothing meanwhile (after five the sessions end and
/// the outcome waits for the next one); what takes longer is answered [`Verdict::Later`] and completed when it is done.
/// Answer [`Verdict::Applied`] only when the effect has happened. An order that is not idempotent is handed over at most
/// once per boot; one that is may come again after a reboot, flagged [`Delivered::redelivered`].
///
/// ```
/// use push::receiver::{Delivered, Handler, Verdict};
/// use wire_format::ids::OrderKind;
///
/// struct Screen { page: [u8; 32], len: usize }
///
/// impl Handler for Screen {
///     fn handle(&mut self, delivered: &Delivered<'_>) -> Verdict {
///         if delivered.order.kind != OrderKind::SHOW_PAGE {
///             return Verdict::RejectedKind;
///         }
///         let Some(room) = self.page.get_mut(..delivered.order.payload.len()) else {
///             return Verdict::RejectedPayload;
///         };
///         room.copy_from_slice(delivered.order.payload);
///         self.len = room.len();
///         Verdict::Applied
///     }
/// }
/// # let _ = Screen { page: [0; 32], len: 0 };
/// ```
pub trait Handler {
    /// Applies one order and says how it ended. What it borrows is gone when this returns.
    fn handle(&mut self, order: &Delivered<'_>) -> Verdict;

    /// The same, with room for a result. It travels only if the server asked for one ([`Delivered::needs_result`]) and
    /// the session lasts until it has left; without, the order keeps its outcome.
    fn handle_with_result(&mut self, order: &Delivered<'_>, result: &mut ResultBuffer<'_>) -> Verdict {
        let _ = result;
        self.handle(order)
    }

    /// The server asks something. Unless implemented, nobody here answers any kind of question.
    fn question(&mut self, question: &Question<'_>, answer: &mut AnswerBuffer<'_>) -> AnswerCode {
        let _ = (question, answer);
        AnswerCode::UnknownKind
    }

    /// The server answers what this device asked.
    fn answer(&mut self, answer: &Answer<'_>) {
        let _ = answer;
    }

    /// A piece of the payload of a large order: store it at its offset. Pieces come in order and without gaps; offset 0
    /// begins anew, whatever was there before. When all have come and the digest is right, the order follows, with an
    /// empty payload. An error ends the order so; unless implemented, a device takes no large payloads.
    fn part(&mut self, piece: &Piece<'_>) -> Result<(), Verdict> {
        let _ = piece;
        Err(Verdict::RejectedKind)
    }
}

impl<F: FnMut(&Delivered<'_>) -> Verdict> Handler for F {
    fn handle(&mut self, order: &Delivered<'_>) -> Verdict {
        self(order)
    }
}

/// An order that is to be applied now. Nothing else is handed over until its ticket is completed.
#[derive(Debug)]
#[must_use = "an order handed over has to be completed: the device waits for it"]
pub struct Delivered<'a> {
    /// What [`super::Receiver::complete`] wants back.
    pub ticket: Ticket,
    /// The log the order stands in: with [`Order::number`] its identity, the same on every device.
    pub lineage: Lineage,
    /// The order, borrowed from the bytes given to [`super::Receiver::handle_bytes`], or from the park.
    pub order: Order<'a>,
    /// The server may have sent it before: to this device before its last boot, or in a session that was cut.
    pub redelivered: bool,
    /// Lifetime left now, on the device's own clock; `None` for no limit. Never zero.
    pub remaining: Option<Duration>,
    /// The order stands in the server's durable log, not in the volatile one.
    pub durable: bool,
    /// The server waits for a result.
    pub needs_result: bool,
}

/// The right to say, once, how an order ended. Good until then, across sessions, for one boot of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "an order handed over has to be completed: the device waits for it"]
pub struct Ticket {
    pub(super) number: u64,
    pub(super) log: Log,
    pub(super) lane: Lane,
    /// Which occupation of its lane it is.
    pub(super) turn: u16,
}

impl Ticket {
    /// The order's number in its log.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The order's lane.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }
}

/// How an order ended on this device, or its attempt: reported to the server exactly so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It had its effect.
    Applied,
    /// This device does not do that kind of thing; nothing happened.
    RejectedKind,
    /// The payload makes no sense; nothing happened.
    RejectedPayload,
    /// It was tried and did not work, and trying again would not help.
    Failed {
        /// The application's own reason, carried to the report.
        detail: u8,
    },
    /// It is at work: [`super::Receiver::complete`] will be called with its ticket. Its lane waits, the others go on.
    Later,
    /// Not now; nothing happened. The server tries again, not before `retry_after`.
    Busy {
        /// Before which another attempt is useless; at most 49 days.
        retry_after: Duration,
    },
    /// No room for it; nothing happened. The server tries again, not before `retry_after`.
    NoSpace {
        /// Before which another attempt is useless; at most 49 days.
        retry_after: Duration,
    },
    /// It was tried, had no effect, and may work another time.
    FailedRetryable {
        /// The application's own reason, carried to the report if no attempt succeeds.
        detail: u8,
        /// Before which another attempt is useless; at most 49 days.
        retry_after: Duration,
    },
}

impl Verdict {
    /// The outcome's code and detail on the wire. [`Verdict::Later`] is none: its code is 0.
    #[must_use]
    pub const fn code(self) -> (Code, u8) {
        match self {
            Self::Applied => (Code::APPLIED, 0),
            Self::RejectedKind => (Code::REJECTED_KIND, 0),
            Self::RejectedPayload => (Code::REJECTED_PAYLOAD, 0),
            Self::Failed { detail } => (Code::FAILED, detail),
            Self::Later => (Code(0), 0),
            Self::Busy { .. } => (Code::BUSY, 0),
            Self::NoSpace { .. } => (Code::NO_SPACE, 0),
            Self::FailedRetryable { detail, .. } => (Code::FAILED_RETRYABLE, detail),
        }
    }

    /// Milliseconds before which another attempt is useless, for the codes that end an attempt.
    pub(super) fn retry_after_ms(self) -> Option<u32> {
        match self {
            Self::Busy { retry_after }
            | Self::NoSpace { retry_after }
            | Self::FailedRetryable { retry_after, .. } => {
                Some(u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX))
            }
            _ => None,
        }
    }
}

/// Room for bytes of the application, in a buffer of the driver's.
#[derive(Debug)]
pub struct ResultBuffer<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

/// More bytes than a [`ResultBuffer`] has room for; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the result is longer than the {room} bytes left")]
pub struct ResultFull {
    /// Bytes that are free.
    pub room: usize,
}

impl<'b> ResultBuffer<'b> {
    /// An empty one over `bytes`.
    #[must_use]
    pub const fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// Appends `bytes`, all or nothing.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ResultFull> {
        let free = self.bytes.get_mut(self.len..).unwrap_or_default();
        let room = free.len();
        free.get_mut(..bytes.len()).ok_or(ResultFull { room })?.copy_from_slice(bytes);
        self.len = self.len.saturating_add(bytes.len());
        Ok(())
    }

    /// What is free, to be filled in place; then call [`ResultBuffer::advance`].
    pub fn spare(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..).unwrap_or_default()
    }

    /// The first `len` bytes of [`ResultBuffer::spare`] are filled.
    pub fn advance(&mut self, len: usize) {
        self.len = self.len.saturating_add(len).min(self.bytes.len());
    }

    /// Forgets what was written.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Names a question of the server's until it is answered or its session is over. Good for one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuestionId {
    pub(super) correlation: u32,
    pub(super) generation: u32,
    pub(super) kind: OrderKind,
    /// The session it came in.
    pub(super) session: u16,
}

/// A question of the server's.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What [`super::Receiver::reply`] wants back.
    pub id: QuestionId,
    /// What is asked.
    pub kind: OrderKind,
    /// Version of the payload's encoding.
    pub schema: u16,
    /// How long the server waits, from now.
    pub within: Duration,
    /// Opaque to the protocol, at most 4,096 bytes.
    pub payload: &'a [u8],
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnswerCode {
    /// The bytes written are the answer.
    Ok,
    /// Not now.
    Busy,
    /// Nobody here answers this kind.
    UnknownKind,
    /// There was an answer to find and it was not found.
    Failed,
    /// The answer will be given with [`super::Receiver::reply`].
    Later,
}

impl AnswerCode {
    /// The code on the wire; `None` for [`AnswerCode::Later`].
    #[must_use]
    pub const fn code(self) -> Option<ReplyCode> {
        match self {
            Self::Ok => Some(ReplyCode::OK),
            Self::Busy => Some(ReplyCode::BUSY),
            Self::UnknownKind => Some(ReplyCode::UNKNOWN_KIND),
            Self::Failed => Some(ReplyCode::FAILED),
            Self::Later => None,
        }
    }
}

/// Room for an answer, at most 4,096 bytes, in a buffer of the driver's.
#[derive(Debug)]
pub struct AnswerBuffer<'b> {
    /// The bytes of the answer.
    pub bytes: ResultBuffer<'b>,
    /// Version of their encoding.
    pub schema: u16,
    /// How old the answer is.
    pub age: Duration,
}

impl<'b> AnswerBuffer<'b> {
    /// An empty answer of schema 0, fresh, over `bytes`.
    #[must_use]
    pub const fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes: ResultBuffer::new(bytes), schema: 0, age: Duration::ZERO }
    }
}

/// Names a question this device asked; unique for one boot, but for a wrap after 4 billion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskId(pub u32);

/// The server's answer to a question of this device.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Which question.
    pub ask: AskId,
    /// How it ended.
    pub code: ReplyCode,
    /// Version of the payload's encoding.
    pub schema: u16,
    /// How old the answer was when it was written.
    pub age: Duration,
    /// Opaque to the protocol, at most 4,096 bytes.
    pub payload: &'a [u8],
}

/// A piece of the payload of a large order.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The order it belongs to: what [`super::Receiver::complete`] wants if the pieces cannot be kept, and
    /// [`super::Receiver::verified`] after the last one.
    pub ticket: Ticket,
    /// The blob's id at the server.
    pub blob: u64,
    /// Bytes of the whole payload.
    pub size: u32,
    /// Where the piece belongs.
    pub offset: u32,
    /// The piece, 1 to 4,096 bytes.
    pub bytes: &'a [u8],
    /// With the last piece: the SHA-256 the whole payload must have. Compare it and call [`super::Receiver::verified`].
    pub sha256: Option<[u8; 32]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_takes_what_its_buffer_holds_and_no_byte_more() {
        let mut room = [0; 8];
        let mut result = ResultBuffer::new(&mut room);
        assert_eq!(result.write(b"stock"), Ok(()));
        assert_eq!(result.write(b"1234"), Err(ResultFull { room: 3 }));
        assert_eq!(result.write(b" 57"), Ok(()));
        assert!(result.spare().is_empty());
        assert_eq!(result.written(), b"stock 57");
        result.advance(9);
        assert_eq!(result.written().len(), 8);
        result.clear();
        result.spare()[..2].copy_from_slice(b"no");
        result.advance(2);
        assert_eq!(result.written(), b"no");
    }

    #[test]
    fn a_verdict_says_when_to_try_again_only_where_that_makes_sense() {
        let retry_after = Duration::from_millis(1_500);
        for verdict in [Verdict::Busy { retry_after }, Verdict::NoSpace { retry_after }] {
            assert_eq!(verdict.retry_after_ms(), Some(1_500));
        }
        let endless = Verdict::FailedRetryable { detail: 3, retry_after: Duration::MAX };
        assert_eq!((endless.retry_after_ms(), endless.code().1), (Some(u32::MAX), 3));
        assert_eq!(Verdict::Failed { detail: 1 }.retry_after_ms(), None);
    }
}
