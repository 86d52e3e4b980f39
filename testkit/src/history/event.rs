//! The words of a history.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use super::rule::Violation;

/// An order: which log it stands in and its place there. A test may number as it likes, as long as later orders of a log
/// have higher numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId {
    /// The log: a run of a server, or a lineage.
    pub log: u64,
    /// The place in it.
    pub number: u64,
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.log, self.number)
    }
}

/// What was asked for when an order was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its priority class.
    pub lane: Lane,
    /// It may run again.
    pub idempotent: bool,
    /// When its lifetime is over, on the history's clock; `None` never.
    pub deadline: Option<Duration>,
    /// The application's key; 0 none.
    pub key: u64,
    /// Supersede key and version.
    pub supersede: Option<(u64, u64)>,
    /// The order whose attempt this repeats; effects of both are effects of the first.
    pub attempt_of: Option<OrderId>,
    /// Its attempts go by its own name: it may come again after one that had no effect.
    pub again: bool,
    /// The devices it is for.
    pub targets: BTreeSet<u32>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A log begins, under the fence of its server.
    Log {
        /// The log.
        log: u64,
        /// The fence.
        fence: u64,
    },
    /// The server that held a log is gone, and all it knew: what it was owed may stay without an outcome.
    Gone {
        /// The log.
        log: u64,
    },
    /// An order was accepted. Written down before anything can come of it.
    Accepted {
        /// The order.
        order: OrderId,
        /// What was asked for.
        facts: Box<Facts>,
    },
    /// The order written down as accepted was not taken after all; nothing may come of it.
    Refused {
        /// The order.
        order: OrderId,
    },
    /// The answer to the push of an order was lost, and nobody asked again: it may have been accepted or not, and its
    /// outcomes need not be told. What comes of it is held against the promises all the same.
    Unanswered {
        /// The order, written down as accepted.
        order: OrderId,
    },
    /// A device starts anew and knows nothing that lives in its memory.
    Boot {
        /// The device.
        device: u32,
        /// Which boot this is.
        boot: u64,
    },
    /// An order was handed to the handler of a device: from here on it may have had its effect.
    Effect {
        /// The order.
        order: OrderId,
        /// The device.
        device: u32,
        /// Its boot.
        boot: u64,
        /// The delivery said that it may have come before.
        redelivered: bool,
    },
    /// What the handler answered. An attempt that is over (busy, no space, failed for now) had no effect.
    Answer {
        /// The order.
        order: OrderId,
        /// The device.
        device: u32,
        /// Its boot.
        boot: u64,
        /// How it ended there.
        code: Code,
    },
    /// The server told the outcome of an order on a device.
    Outcome {
        /// The order.
        order: OrderId,
        /// The device.
        device: u32,
        /// The outcome; of a duplicate that of the first delivery.
        code: Code,
    },
    /// The server handed an order back: it has every outcome.
    Settled {
        /// The order.
        order: OrderId,
    },
    /// The application took an order back; its outcomes tell where that came in time.
    Cancel {
        /// The order.
        order: OrderId,
    },
    /// The operator took a device out of the server's list: it is owed nothing any more.
    Removed {
        /// The device.
        device: u32,
    },
    /// A device has forgotten a log of which it kept how far it had come: another one has its place. What it knows of the
    /// keys of its orders it knows without the log.
    Forgot {
        /// The device.
        device: u32,
        /// The log.
        log: u64,
    },
    /// A session has opened: from here on the device obeys the fence that its server said then, whatever that server holds by
    /// the time an order arrives.
    Heard {
        /// The device.
        device: u32,
        /// Its boot.
        boot: u64,
        /// The log; a server with two logs says the same of both.
        log: u64,
        /// The fence.
        fence: u64,
    },
    /// What a process holds now.
    Sample {
        /// Bytes of memory.
        memory: u64,
        /// Open descriptors.
        descriptors: u64,
    },
    /// Anything else a reader should know: a cut, a freeze, a fault that was placed.
    Note(String),
}

impl Event {
    /// The order it is about.
    #[must_use]
    pub const fn order(&self) -> Option<OrderId> {
        match self {
            Self::Accepted { order, .. }
            | Self::Refused { order }
            | Self::Unanswered { order }
            | Self::Effect { order, .. }
            | Self::Answer { order, .. }
            | Self::Outcome { order, .. }
            | Self::Settled { order }
            | Self::Cancel { order } => Some(*order),
            _ => None,
        }
    }

    /// The device it is about.
    #[must_use]
    pub const fn device(&self) -> Option<u32> {
        match self {
            Self::Boot { device, .. }
            | Self::Removed { device }
            | Self::Forgot { device, .. }
            | Self::Heard { device, .. }
            | Self::Effect { device, .. }
            | Self::Answer { device, .. }
            | Self::Outcome { device, .. } => Some(*device),
            _ => None,
        }
    }

    /// Whether a reader of this violation wants to see it: what happened to its orders, on its device if it names one.
    pub(crate) fn concerns(&self, violation: &Violation) -> bool {
        let order = self.order().map(|order| violation.orders.contains(&order));
        let device = self.device().zip(violation.device).map(|(ours, its)| ours == its);
        match (order, device) {
            (None, None) => !matches!(self, Self::Sample { .. }) || violation.orders.is_empty(),
            (order, device) => order.unwrap_or(true) && device.unwrap_or(true),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { log, fence } => write!(f, "log {log} begins under fence {fence}"),
            Self::Gone { log } => write!(f, "log {log} is gone with its server"),
            Self::Accepted { order, facts } => write!(f, "order {order} accepted: {facts}"),
            Self::Refused { order } => write!(f, "order {order} refused"),
            Self::Unanswered { order } => write!(f, "order {order} pushed, and the answer lost"),
            Self::Boot { device, boot } => write!(f, "device {device} boots ({boot:x})"),
            Self::Effect { order, device, redelivered, .. } => {
                let again = if *redelivered { ", again" } else { "" };
                write!(f, "order {order} handed over on device {device}{again}")
            }
            Self::Answer { order, device, code, .. } => {
                write!(f, "order {order} answered on device {device}: {code}")
            }
            Self::Outcome { order, device, code } => {
                write!(f, "order {order} ended on device {device}: {code}")
            }
            Self::Settled { order } => write!(f, "order {order} settled"),
            Self::Cancel { order } => write!(f, "order {order} taken back"),
            Self::Removed { device } => write!(f, "device {device} is taken out of the list"),
            Self::Forgot { device, log } => write!(f, "device {device} forgets log {log}"),
            Self::Heard { device, log, fence, .. } => {
                write!(f, "device {device} serves log {log} under fence {fence}")
            }
            Self::Sample { memory, descriptors } => {
                write!(f, "{memory} bytes and {descriptors} descriptors held")
            }
            Self::Note(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = if self.idempotent { "may run again" } else { "once only" };
        write!(f, "{:?} lane, {again}", self.lane)?;
        if let Some(deadline) = self.deadline {
            write!(f, ", until {:.3}", deadline.as_secs_f64())?;
        }
        if self.key != 0 {
            write!(f, ", key {:x}", self.key)?;
        }
        if let Some((key, version)) = self.supersede {
            write!(f, ", version {version} of {key:x}")?;
        }
        if let Some(first) = self.attempt_of {
            write!(f, ", repeats {first}")?;
        }
        write!(f, ", for {:?}", self.targets)
    }
}
