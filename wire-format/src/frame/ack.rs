//! ACK: received up to here.
//!
//! The device sends it for orders it cannot answer with an OUTCOME at once. It gives byte credit back and promises
//! nothing across a reboot.
//!
//! ```text
//! server                          device
//!   │── ORDER 7 ──────────────────▶│  parsed, whole, kept
//!   │◀────────────────────── ACK 7 │  the lane is received up to 7
//!   │◀────────────────── OUTCOME 7 │  later
//! ```
//!
//! Header: flag DURABLE says which log; `aux16` the lane, 0 to 3; `aux32` the low 32 bits of the number received last in
//! that lane. No body.

use super::{Flags, Header, Kind, Raw, emit_bare};
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::Lane;

/// Cumulative receipt in one lane of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The durable log is meant.
    pub durable: bool,
    /// The lane.
    pub lane: Lane,
    /// The low 32 bits of the number of the order received last.
    pub number_low: u32,
}

impl Ack {
    /// Reads an ACK frame.
    #[inline]
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::ACK, Flags::DURABLE)?;
        raw.expect_no_body()?;
        Ok(Self {
            durable: raw.header.flags.contains(Flags::DURABLE),
            lane: raw.header.lane()?,
            number_low: raw.header.aux32,
        })
    }

    /// Writes the frame; bytes written.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let header = Header {
            flags: Flags::NONE.with_if(Flags::DURABLE, self.durable),
            aux16: self.lane as u16,
            aux32: self.number_low,
            ..Header::new(Kind::ACK, 0)
        };
        emit_bare(header, buffer)
    }

    /// The whole number: the one with these low bits that is nearest to `last`, a number of that lane already known.
    /// Right as long as the two lie less than 2^31 apart.
    #[inline]
    #[must_use]
    pub const fn number(&self, last: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what is compared")]
        let ahead = self.number_low.wrapping_sub(last as u32).cast_signed();
        last.saturating_add_signed(ahead as i64)
    }
}

impl Header {
    /// `aux16` is a lane.
    #[inline]
    pub(crate) fn lane(&self) -> Result<Lane, ParseError> {
        u8::try_from(self.aux16).ok().and_then(Lane::new).ok_or(ParseError::new("aux16", 6, Fault::Range))
    }
}
