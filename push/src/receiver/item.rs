//! What goes in and out of a receiver beside its own state.

use core::net::IpAddr;

use wire_format::frame::Drain;

use super::config::ASKS_MAX;
use super::fence::Known;
use super::handler::{Answer, AskId, Delivered, Piece, Question};
use super::session::ConnId;
use crate::ended::Ended;

/// Every slot is in use by a session or by strangers that came within the last [`super::SILENT_MAX`]: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every slot for connections is in use")]
pub struct TooManyPeers;

/// What came of the bytes offered.
#[derive(Debug)]
pub struct Input<'a> {
    /// Bytes used, from the first: one frame, or 0 if the frame is not whole or has to wait.
    pub consumed: usize,
    /// What the frame brought for the application, if anything.
    pub item: Option<Item<'a>>,
}

impl<'a> Input<'a> {
    pub(super) const NOTHING: Self = Self { consumed: 0, item: None };

    pub(super) const fn used(consumed: usize) -> Self {
        Self { consumed, item: None }
    }

    /// The order to apply now, for devices that take nothing else.
    #[must_use]
    pub fn order(self) -> Option<Delivered<'a>> {
        if let Some(Item::Order(order)) = self.item { Some(order) } else { None }
    }
}

/// What a frame of the server brings for the application.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// An order to apply now, to be answered with [`super::Receiver::complete`] before anything else is handed over.
    Order(Delivered<'a>),
    /// A question, to be answered with [`super::Receiver::reply`] at any time.
    Question(Question<'a>),
    /// The answer to a question of this device.
    Answer(Answer<'a>),
    /// A piece of the payload of a large order: keep it, or end the order with [`super::Receiver::complete`].
    Piece(Piece<'a>),
}

/// Why a question of this device was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No server is served now, or one of the two leaves.
    #[error("no server is there to answer")]
    NotServed,
    /// The server declared that it answers no questions.
    #[error("the server answers no questions")]
    NotAnswered,
    /// [`super::ASKS_MAX`] questions are open.
    #[error("{ASKS_MAX} questions are open")]
    TooMany,
    /// No room for its frame until others have left.
    #[error("no room for the question")]
    NoRoom,
    /// More than 4,096 bytes, more than the server takes, or a kind of 0.
    #[error("the question cannot be sent")]
    Invalid,
}

/// Bytes to write to one connection, `head` first, in one write. Either may be empty, not both.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub conn: ConnId,
    /// The first bytes.
    pub head: &'a [u8],
    /// The bytes after them.
    pub body: &'a [u8],
}

/// What the application may want to know. Derived from state: if nobody polls, only the latest is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A server is served now.
    Served {
        /// Its connection.
        conn: ConnId,
        /// Where it dialled from.
        peer: IpAddr,
        /// Who it is, and its fence: worth persisting for [`super::ReceiverConfig::known`].
        known: Known,
    },
    /// The server said that it will leave.
    Leaving(Drain),
    /// The session is over.
    Unserved {
        /// Why.
        why: Ended,
    },
    /// The journal did not take a write. The session ends, and nobody is served until it takes one.
    JournalFailed,
    /// A question of this device will not be answered any more: its time is over, or its session.
    Unanswered {
        /// Which.
        ask: AskId,
    },
}
