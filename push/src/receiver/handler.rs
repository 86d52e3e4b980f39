//! What the application sees of an order, and what it answers.

use core::time::Duration;

use wire_format::frame::Order;
use wire_format::frame::outcome::Code;
use wire_format::ids::{Lane, Lineage};

use super::floors::Log;

/// The application's half of a device: it applies orders, one at a time.
///
/// The same trait serves firmware (a poll loop) and the drivers. Any `FnMut(&Delivered) -> Verdict` is one.
///
/// Rules: answer within one second, because the device hears and says nothing meanwhile (after five the sessions end and
/// the outcome waits for the next one). Answer [`Verdict::Applied`] only when the effect has happened. An order that is
/// not idempotent is handed over at most once per boot; one that is may come again after a reboot, flagged
/// [`Delivered::redelivered`].
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
    /// The order, borrowed from the bytes given to [`super::Receiver::handle_bytes`].
    pub order: Order<'a>,
    /// The server may have sent it before: to this device before its last boot, or in a session that was cut.
    pub redelivered: bool,
    /// Lifetime left now, on the device's own clock; `None` for no limit. Never zero.
    pub remaining: Option<Duration>,
    /// The order stands in the server's durable log, not in the volatile one.
    pub durable: bool,
}

/// The right to say, once, how an order ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an order handed over has to be completed: the device waits for it"]
pub struct Ticket {
    pub(super) log: Log,
    pub(super) lane: Lane,
    pub(super) number: u64,
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

/// How an order ended on this device: final, and reported to the server exactly so.
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
}

impl Verdict {
    /// The outcome's code and detail on the wire.
    #[must_use]
    pub const fn code(self) -> (Code, u8) {
        match self {
            Self::Applied => (Code::APPLIED, 0),
            Self::RejectedKind => (Code::REJECTED_KIND, 0),
            Self::RejectedPayload => (Code::REJECTED_PAYLOAD, 0),
            Self::Failed { detail } => (Code::FAILED, detail),
        }
    }
}
