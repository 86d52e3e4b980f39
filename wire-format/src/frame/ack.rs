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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(ack: &Ack) {
        let bytes = testing::emit(|buffer| ack.emit(buffer));
        assert_eq!(Ack::parse(&Raw::parse(&bytes).unwrap()), Ok(*ack));
        testing::frame(&bytes, |raw, buffer| Ok(Ack::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        let ack = Ack { durable: true, lane: Lane::Normal, number_low: 0x0506_0708 };
        assert_eq!(testing::emit(|buffer| ack.emit(buffer)), testing::vector("ACK"));
    }

    #[test]
    fn the_lane_past_the_last_is_refused() {
        check(&Ack { durable: false, lane: Lane::Bulk, number_low: 0 });
        let header = Header { aux16: 4, ..Header::new(Kind::ACK, 0) };
        let raw = Raw { header, body: &[] };
        assert_eq!(Ack::parse(&raw), Err(ParseError::new("aux16", 6, Fault::Range)));
        assert_eq!(Ack::parse(&Raw { body: &[0], ..raw }), Err(ParseError::new("length", 0, Fault::Length)));
    }

    #[test]
    fn the_whole_number_is_the_nearest_to_the_last() {
        let ack = |number: u64| Ack { durable: false, lane: Lane::Normal, number_low: number as u32 };
        for (last, number) in [(0, 1), (7, 7), (0xFFFF_FFFF, 0x1_0000_0003), (0x1_0000_0003, 0xFFFF_FFF0)] {
            assert_eq!(ack(number).number(last), number, "{last:#x}");
        }
        assert_eq!(ack(u64::MAX).number(0), 0, "below the first number there is none");
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(durable: bool, lane in 0_u8..4, number_low: u32) {
            check(&Ack { durable, lane: Lane::new(lane).unwrap(), number_low });
        }

        #[test]
        fn numbers_within_a_window_are_found_again(last: u64, ahead in 0_u64..1 << 31) {
            let number = last.saturating_add(ahead);
            let ack = Ack { durable: false, lane: Lane::Normal, number_low: number as u32 };
            proptest::prop_assert_eq!(ack.number(last), number);
        }
    }
}
