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
            assert!(!(mark.is_owed() && mark.is_out()));
        }
        assert_eq!(Mark::ended(Code::APPLIED).code(), Some(Code::APPLIED));
        assert_eq!(Mark::SENT.code(), None);
        assert_eq!(Mark::STARTED.to_string(), "started");
    }
}
