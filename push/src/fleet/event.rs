//! What the fleet tells, and what it asks its driver to do.

use core::net::SocketAddr;
use core::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::ids::{DeviceKind, Lane, NodeId, Tags};

use super::DeviceIndex;
use super::log::{LogEntry, Trace};
use super::order::NewOrder;
use super::posts::{AskId, Unanswered};
use crate::ended::Ended;

/// A device to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// Who it is; `None` if only its address is known: its first WELCOME tells.
    pub id: Option<NodeId>,
    /// Where it listens; `None` until somebody finds it.
    pub address: Option<SocketAddr>,
}

/// The device cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Every slot is taken (or still named by a live order).
    #[error("every device slot is taken")]
    Full,
    /// A device with this id is in the fleet.
    #[error("the device is in the fleet already, as number {}", device.0)]
    Known {
        /// Its index.
        device: DeviceIndex,
    },
}

/// An order that was not taken, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order was not taken: {why}")]
pub struct SubmitError<B, M> {
    /// Why.
    pub why: SubmitFault,
    /// The order, as it came.
    pub order: NewOrder<B, M>,
}

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitFault {
    /// Every order slot holds a live order.
    #[error("every order slot is taken")]
    Full,
    /// The number is not above all before it in its log.
    #[error("the number is not above {last}, the last one")]
    NumberNotRising {
        /// The highest number of its log so far.
        last: u64,
    },
    /// No mark is PENDING.
    #[error("no device is meant")]
    NoTarget,
    /// A mark is neither PENDING nor NOT_TARGETED; of a restored order, one that stands for a session.
    #[error("a mark is none an order can begin with")]
    Marks,
    /// The order is one of the durable log, and the fleet has none, or gave it up.
    #[error("there is no durable log")]
    NoLog,
    /// The frame is no fresh ORDER, or says something else than the fields beside it.
    #[error("the frame is not what the fields beside it say")]
    Frame,
    /// A lifetime of zero, or above 30 days.
    #[error("the lifetime is zero or above 30 days")]
    Lifetime,
    /// An order with this supersede key is live in another lane: versions replace each other inside one lane.
    #[error("the supersede key is bound to the {lane:?} lane while an order with it lives")]
    KeyLane {
        /// The key's lane.
        lane: Lane,
    },
    /// Versions of a supersede key rise.
    #[error("version {last} of the supersede key was submitted already")]
    VersionNotRising {
        /// The highest version that lives.
        last: u64,
    },
    /// It would end before an order it replaces: a device that comes back in between would get neither.
    #[error("it does not live as long as the order it would replace")]
    ShorterLife,
    /// The fleet was stopped, or drains.
    #[error("the fleet is stopped")]
    Stopped,
}

/// What became of a submitted order's targets at once. Of a volatile order, marks that ended at submit make no
/// [`Event::Outcome`]; of a durable one they are told to be logged, and then as outcomes, like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Devices the order will be sent to.
    pub targets: u32,
    /// Devices that get it not: OVERFLOW (they owe too much), NOT_TARGETED (no such device), or, of an order with a RETRY
    /// option, SUPERSEDED (a newer version is on its way).
    pub refused: u32,
}

/// A dial the driver must start, with a timeout of [`crate::config::CONNECT_WITHIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Whom.
    pub device: DeviceIndex,
    /// Where.
    pub address: SocketAddr,
}

/// One write: `head`, then `body`, to this device, in one system call if the platform can.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// To whom.
    pub device: DeviceIndex,
    /// Bytes made for this device, in the scratch buffer; may be empty.
    pub head: &'a [u8],
    /// Bytes shared by all devices: an order's one encoding, or its end; may be empty.
    pub body: &'a [u8],
}

/// What a device said about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who it is.
    pub id: NodeId,
    /// What it is.
    pub kind: DeviceKind,
    /// Where in the store; 0 not set.
    pub zone: u32,
    /// Its tags.
    pub tags: Tags,
    /// Random per boot.
    pub boot: u64,
    /// Orders it takes unsettled.
    pub window_orders: u16,
    /// Bytes of orders it takes unacknowledged.
    pub window_bytes: u32,
    /// Largest body it takes.
    pub max_body: u32,
    /// Its floors survive a reboot.
    pub floors_persisted: bool,
    /// It had a journal and lost it.
    pub journal_lost: bool,
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<B, M> {
    /// A device that was added without an id has one.
    Learned {
        /// The device.
        device: DeviceIndex,
        /// Its id.
        id: NodeId,
    },
    /// A session is open.
    Connected {
        /// The device.
        device: DeviceIndex,
        /// What it said about itself.
        facts: Facts,
        /// It was connected before in another boot.
        rebooted: bool,
    },
    /// A session, or a connection that never became one, is over.
    Disconnected {
        /// The device.
        device: DeviceIndex,
        /// Why.
        why: Ended,
    },
    /// An order of the durable log, or an attempt at one, came to its end on a device: write it down, and tell
    /// [`super::Fleet::logged`] when it is on disk. Its [`Event::Outcome`] or [`Event::Attempt`] follows then.
    Log(LogEntry),
    /// A session begins or is over: write it down. One that begins gets no order of the durable log before
    /// [`super::Fleet::traced`]; it is told once every older end of an order on that device is logged.
    Trace(Trace),
    /// The device has seen numbers or runs that the durable log never gave: the log was restored from a backup, or this
    /// server is a copy. Its session is refused, and nothing of the log is sent to anybody any more: give it up
    /// ([`super::Fleet::abandon_durable`], here and in every fleet that serves it) and begin another
    /// ([`super::Fleet::renew`]).
    Forked {
        /// The device.
        device: DeviceIndex,
    },
    /// A device that keeps a journal knows less of the durable log than it told once: what was written to it and has no
    /// end is in doubt, or is sent again if it may run twice.
    JournalLost {
        /// The device.
        device: DeviceIndex,
    },
    /// An order came to its end on one device: exactly once per device that was pending after submit.
    Outcome {
        /// The device.
        device: DeviceIndex,
        /// The order.
        number: u64,
        /// What was reported (or given by the server).
        code: Code,
        /// What the report shows: `code`, but for DUPLICATE how it ended the first time, where the device still knows.
        first_code: Code,
        /// From submit to now.
        latency: Duration,
        /// What the device counted, in ms: its own time for the order; after BUSY and its like, when to try again.
        device_ms: u32,
    },
    /// A device ended an attempt at an order and not the order: BUSY, NO_SPACE or FAILED_RETRYABLE. Submit it again under a
    /// new number with a RETRY option, not before `retry_after`, and tell [`super::Fleet::retry_begins`]; tell the end of
    /// that one with [`super::Fleet::resolve`]. At the end of the lifetime the fleet ends what was not tried again.
    Attempt {
        /// The device.
        device: DeviceIndex,
        /// The order.
        number: u64,
        /// How the attempt ended.
        code: Code,
        /// Before which another is useless.
        retry_after: Duration,
    },
    /// The device obeys another server that took the shop over: what it was owed ends as FENCED, what it was sent as
    /// UNKNOWN, each with an [`Event::Outcome`].
    Fenced {
        /// The device.
        device: DeviceIndex,
        /// The fence it has accepted; see [`super::Fleet::take_over`].
        fence: u64,
    },
    /// A question has no answer and will get none.
    Unanswered {
        /// The device that was asked.
        device: DeviceIndex,
        /// The question.
        ask: AskId,
        /// Why.
        why: Unanswered,
    },
    /// Every target has its outcome: here is everything back. The order's slot is free.
    Settled {
        /// The order.
        number: u64,
        /// Its frame.
        frame: B,
        /// The device the first mark belongs to.
        first: DeviceIndex,
        /// The final marks.
        marks: M,
    },
}
