//! One byte per (order, device): where that order stands on that device.

use core::fmt;

use wire_format::frame::outcome::Code;

/// Bits of the marks of ends that are not logged: beside each of them a code, all of which are below 48.
const WAITING: u8 = 0x80;
const LINGERING: u8 = 0x40;
const UNLOGGED: u8 = WAITING | LINGERING;
const CODE: u8 = 0x3F;

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
/// An outcome of the durable log counts only once it is on disk. In between the mark is the outcome's code with one or two
/// bits above it:
///
/// ```text
/// … ──OUTCOME──▶ unlogged: 0x80, 0x40 or 0xC0 with the code ──logged──▶ final, or RETRY_BUSY …
/// ```
///
/// Bytes below 0x40, 0 aside, are final and never change again: the number of the [`Code`] the report shows.
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
    /// Of the durable log: cancelled after it was written in an earlier session, and not begun; CANCELLED as soon as the
    /// event is told. Not seen once events are drained.
    pub const RECALLED: Self = Self(0xFC);
    /// Of the durable log: the device owed too much at submit; OVERFLOW as soon as the event is told. Not seen once events
    /// are drained.
    pub const OVERFLOWED: Self = Self(0xFD);
    /// Of the durable log: there was no such device at submit; NOT_TARGETED as soon as the event is told. Not seen once
    /// events are drained.
    pub const UNMEANT: Self = Self(0xFE);
    /// Of the durable log: it may have been written, in an earlier run, to a device that is not here any more; UNKNOWN as
    /// soon as the event is told. Not seen once events are drained.
    pub const LOST: Self = Self(0xFF);

    /// The mark that ends an order.
    #[must_use]
    pub const fn ended(code: Code) -> Self {
        Self(code.0)
    }

    /// Whether it never changes again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.0 != 0 && self.0 < LINGERING
    }

    /// Whether its end is known and not in the durable log yet: it counts once it is.
    #[must_use]
    pub const fn is_unlogged(self) -> bool {
        self.0 >= LINGERING && self.0 < Self::PENDING.0
    }

    /// How it ended, if its end is known and not logged yet.
    #[must_use]
    pub const fn unlogged_code(self) -> Option<Code> {
        if self.is_unlogged() { Some(Code(self.0 & CODE)) } else { None }
    }

    /// Ended in this session, not logged: no SETTLED covers it, and it keeps its order credit.
    pub(crate) const fn waiting(code: Code) -> Self {
        Self(WAITING | code.0 & CODE)
    }

    /// Written once and ended without the device, or in an earlier session; not logged: no SETTLED covers it, and it holds
    /// no credit.
    pub(crate) const fn lingering(code: Code) -> Self {
        Self(LINGERING | code.0 & CODE)
    }

    /// Ended before it was written, or on a device that is gone; not logged: nothing waits for it on the device's side.
    pub(crate) const fn unlogged(code: Code) -> Self {
        Self(UNLOGGED | code.0 & CODE)
    }

    /// Made by [`Mark::waiting`].
    pub(crate) const fn is_waiting(self) -> bool {
        self.0 & UNLOGGED == WAITING
    }

    /// Made by [`Mark::lingering`], or about to be.
    pub(crate) const fn is_lingering(self) -> bool {
        self.0 & UNLOGGED == LINGERING || self.0 == Self::RECALLED.0
    }

    /// Of the durable log: whether its end came before a byte of it left, and the log does not have it.
    pub(crate) const fn is_unsaid(self) -> bool {
        let told = self.0 >= UNLOGGED && self.0 < Self::PENDING.0;
        told || matches!(self, Self::WITHDRAWN | Self::OVERTAKEN | Self::OVERFLOWED)
    }

    /// Whether no SETTLED may cover it yet: it was written, and has no outcome or none that is logged.
    pub(crate) const fn is_held(self) -> bool {
        self.is_out() || self.is_waiting() || self.is_lingering()
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
        matches!(self.0, 0xFA..=0xFF)
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
            Self::RECALLED => f.pad("recalled"),
            Self::OVERFLOWED => f.pad("overflowed"),
            Self::UNMEANT => f.pad("unmeant"),
            Self::LOST => f.pad("lost"),
            mark if mark.is_unlogged() => {
                f.write_str("unlogged ")?;
                fmt::Display::fmt(&Code(mark.0 & CODE), f)
            }
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
            assert_eq!(mark.is_final(), (1..0x40).contains(&byte), "{byte}");
            assert_eq!(mark.is_unlogged(), (0x40..0xF0).contains(&byte), "{byte}");
            let sorts = [
                mark.is_owed(),
                mark.is_out(),
                mark.is_retried(),
                mark.is_withdrawn(),
                mark.is_final(),
                mark.is_unlogged(),
            ];
            assert!(sorts.iter().filter(|is| **is).count() <= 1, "{byte}");
            assert_eq!(mark.attempt_code().and_then(Mark::attempt).unwrap_or(mark), mark);
        }
        assert_eq!(Mark::ended(Code::APPLIED).code(), Some(Code::APPLIED));
        assert_eq!(Mark::SENT.code(), None);
        assert_eq!(Mark::STARTED.to_string(), "started");
    }

    #[test]
    fn every_code_fits_beside_the_bits_of_what_is_not_logged() {
        for (code, _) in Code::NAMES {
            assert!(code.0 < 0x30 && Mark::ended(*code).is_final(), "{code}");
            let (waiting, lingering) = (Mark::waiting(*code), Mark::lingering(*code));
            let unlogged = Mark::unlogged(*code);
            for mark in [waiting, lingering, unlogged] {
                assert_eq!((mark.unlogged_code(), mark.code()), (Some(*code), None));
            }
            assert!(waiting.is_waiting() && waiting.is_held() && !waiting.is_lingering());
            assert!(lingering.is_lingering() && lingering.is_held() && !lingering.is_waiting());
            assert!(!unlogged.is_held());
        }
        assert!(Mark::RECALLED.is_lingering() && !Mark::RECALLED.is_unlogged());
        assert_eq!(Mark::waiting(Code::APPLIED).to_string(), "unlogged applied");
    }
}
