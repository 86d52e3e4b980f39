//! One byte per (order, device): where that order stands on that device.

use core::fmt;

use wire_format::frame::outcome::Code;

/// Where one order stands on one device: one byte, so that 10,000 devices are 10 kB per order.
///
/// ```text
/// PENDING ──written──▶ SENT ──ACK──▶ RECEIVED ──PROGRESS──▶ STARTED ──OUTCOME──▶ final: an outcome::Code
///    ▲                   │  session lost, above the floor
///    └──── (REPEAT) ◀────┘
/// ```
///
/// Between STARTED and the end there is RESULTED for an order that has a result.
///
/// What ended only an attempt waits to be tried again, under another number:
///
/// ```text
/// BUSY … ──▶ RETRY_BUSY, RETRY_NO_SPACE, RETRY_FAILED ──retry_begins──▶ RETRYING ──resolve──▶ final
///                   └── lifetime over: final, the attempt's code
/// ```
///
/// Bytes below 0xF0, 0 aside, are final and never change again: the number of the [`Code`] the report shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(pub u8);

impl Mark {
    /// The order is not for this device.
    pub const NOT_TARGETED: Self = Self(0);
    /// Owed, and no byte of it ever left whole.
    pub const PENDING: Self = Self(0xF0);
    /// Written as a whole to the current session, nothing heard of it.
    pub const SENT: Self = Self(0xF1);
    /// The device has it.
    pub const RECEIVED: Self = Self(0xF2);
    /// The device works on it.
    pub const STARTED: Self = Self(0xF3);
    /// Owed again: written in an earlier session, so the device may know it. Never ends as expired by the server alone.
    pub const REPEAT: Self = Self(0xF4);

    /// The device sent the order's result; its outcome follows.
    pub const RESULTED: Self = Self(0xF9);

    /// The device was busy: it is tried again under another number.
    pub const RETRY_BUSY: Self = Self(0xF5);
    /// The device had no room for it: it is tried again under another number.
    pub const RETRY_NO_SPACE: Self = Self(0xF6);
    /// It failed in a way that may pass: it is tried again under another number.
    pub const RETRY_FAILED: Self = Self(0xF7);
    /// It is tried again: the order with the other number decides.
    pub const RETRYING: Self = Self(0xF8);
    /// Cancelled before a byte of it left; CANCELLED as soon as the event is told. Not seen once events are drained.
    pub const WITHDRAWN: Self = Self(0xFA);
    /// A newer one took its place before a byte of it left; SUPERSEDED as soon as the event is told. Not seen once
    /// events are drained.
    pub const OVERTAKEN: Self = Self(0xFB);

    /// The mark that ends an order.
    #[must_use]
    pub const fn ended(code: Code) -> Self {
        Self(code.0)
    }

    /// Whether it never changes again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.0 != 0 && self.0 < Self::PENDING.0
    }

    /// How it ended, if it did.
    #[must_use]
    pub const fn code(self) -> Option<Code> {
        if self.is_final() { Some(Code(self.0)) } else { None }
    }

    /// The mark of an attempt that ended with this code and may be repeated.
    #[must_use]
    pub const fn attempt(code: Code) -> Option<Self> {
        match code {
            Code::BUSY => Some(Self::RETRY_BUSY),
            Code::NO_SPACE => Some(Self::RETRY_NO_SPACE),
            Code::FAILED_RETRYABLE => Some(Self::RETRY_FAILED),
            _ => None,
        }
    }

    /// How the last attempt ended, if another one has not begun.
    #[must_use]
    pub const fn attempt_code(self) -> Option<Code> {
        match self {
            Self::RETRY_BUSY => Some(Code::BUSY),
            Self::RETRY_NO_SPACE => Some(Code::NO_SPACE),
            Self::RETRY_FAILED => Some(Code::FAILED_RETRYABLE),
            _ => None,
        }
    }

    /// Whether an attempt ended, and the order did not.
    #[must_use]
    pub const fn is_retried(self) -> bool {
        matches!(self, Self::RETRY_BUSY | Self::RETRY_NO_SPACE | Self::RETRY_FAILED | Self::RETRYING)
    }

    /// Whether it waits to be sent, for the first time or for another attempt: a newer version takes its place.
    pub(crate) const fn is_unsent(self) -> bool {
        matches!(self, Self::PENDING | Self::RETRY_BUSY | Self::RETRY_NO_SPACE | Self::RETRY_FAILED)
    }

    /// Whether its end is known and not told yet.
    #[must_use]
    pub const fn is_withdrawn(self) -> bool {
        matches!(self, Self::WITHDRAWN | Self::OVERTAKEN)
    }

    /// Whether the order has still to be written.
    #[must_use]
    pub const fn is_owed(self) -> bool {
        matches!(self, Self::PENDING | Self::REPEAT)
    }

    /// Whether it was written and no outcome came.
    #[must_use]
    pub const fn is_out(self) -> bool {
        matches!(self, Self::SENT | Self::RECEIVED | Self::STARTED | Self::RESULTED)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NOT_TARGETED => f.pad("-"),
            Self::PENDING => f.pad("pending"),
            Self::SENT => f.pad("sent"),
            Self::RECEIVED => f.pad("received"),
            Self::STARTED => f.pad("started"),
            Self::REPEAT => f.pad("repeat"),
            Self::RESULTED => f.pad("resulted"),
            Self::RETRY_BUSY => f.pad("retry-busy"),
            Self::RETRY_NO_SPACE => f.pad("retry-no-space"),
            Self::RETRY_FAILED => f.pad("retry-failed"),
            Self::RETRYING => f.pad("retrying"),
            Self::WITHDRAWN => f.pad("withdrawn"),
            Self::OVERTAKEN => f.pad("overtaken"),
            Self(number) => fmt::Display::fmt(&Code(number), f),
        }
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outcomes_are_final() {
        for byte in 0..=u8::MAX {
            let mark = Mark(byte);
            assert_eq!(mark.is_final(), (1..0xF0).contains(&byte), "{byte}");
            let sorts =
                [mark.is_owed(), mark.is_out(), mark.is_retried(), mark.is_withdrawn(), mark.is_final()];
            assert!(sorts.iter().filter(|is| **is).count() <= 1, "{byte}");
            assert_eq!(mark.attempt_code().and_then(Mark::attempt).unwrap_or(mark), mark);
        }
        assert_eq!(Mark::ended(Code::APPLIED).code(), Some(Code::APPLIED));
        assert_eq!(Mark::SENT.code(), None);
        assert_eq!(Mark::STARTED.to_string(), "started");
    }
}
