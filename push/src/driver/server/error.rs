//! Why the server does not do what it was asked.

use std::time::Duration;

use wire_format::error::EmitError;

use super::Target;
use crate::fleet::SubmitFault;
use crate::outbox::AppendError;
use crate::outbox::log::{CommitError, Doing};

/// Something a server keeps a limited number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Orders that wait for outcomes.
    Orders,
    /// Bytes of the orders that wait for outcomes.
    Bytes,
    /// Order keys that are remembered.
    Keys,
    /// Durable orders that wait for the disk.
    Unsynced,
    /// Bytes of the durable orders that wait for the disk.
    UnsyncedBytes,
    /// Rollouts that go on.
    Rollouts,
}

impl Resource {
    /// A stable lower-case word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Bytes => "bytes",
            Self::Keys => "keys",
            Self::Unsynced => "unsynced orders",
            Self::UnsyncedBytes => "unsynced bytes",
            Self::Rollouts => "rollouts",
        }
    }
}

impl core::fmt::Display for Resource {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// Why an order was not accepted. Nothing was sent, nothing is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// No device known to this server matches the target.
    #[error("no known device matches {target}")]
    NoTarget {
        /// The target, in words.
        target: Target,
    },
    /// The order breaks a limit of the protocol.
    #[error("the order cannot be sent: {0}")]
    Order(EmitError),
    /// There is no room. [`super::Server::push_wait`] waits for it.
    #[error(
        "the server keeps at most {limit} {what}; try again in {retry_after:?}, or when an order has settled"
    )]
    Full {
        /// What is full.
        what: Resource,
        /// The most of it this server keeps.
        limit: usize,
        /// When another try is worth while, if nothing tells sooner.
        retry_after: Duration,
    },
    /// Its supersede key is at odds with an order that lives: another lane, a version that does not rise, a shorter life.
    #[error("the order cannot supersede: {0}")]
    Superseding(SubmitFault),
    /// The outbox could not keep it. Orders that need not survive a restart ([`crate::order::Order::volatile`]) are taken as
    /// ever.
    #[error("the outbox cannot keep the order: {fault}")]
    Outbox {
        /// Why.
        fault: OutboxFault,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

/// Why the outbox did not keep something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxFault {
    /// It is full, or cannot hold such a thing. Orders that end make room.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// The disk is full, gone or broken. Nothing of what was to be kept is there, now or after a restart.
    #[error("{doing} failed: {kind}")]
    Disk {
        /// What was done.
        doing: Doing,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
}

impl From<&CommitError> for OutboxFault {
    fn from(error: &CommitError) -> Self {
        Self::Disk { doing: error.doing, kind: error.source.kind() }
    }
}

/// Why a store was not taken over: the new fence could not be kept, so it is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeoverError<E> {
    /// Whoever asked could not keep it.
    #[error("the new fence could not be kept")]
    Keep(E),
    /// The outbox could not keep it.
    #[error("the outbox cannot keep the new fence: {fault}")]
    Outbox {
        /// Why.
        fault: OutboxFault,
    },
}

/// Why a device was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// As many devices as there is room for are listed.
    #[error("{capacity} devices are listed, the most this server was started for")]
    Full {
        /// The limit the server was started with.
        capacity: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}
