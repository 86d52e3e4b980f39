//! SETTLED: outcomes up to here are safe, forget them.
//!
//! The server sends it once it holds the outcome of every order it sent to this device in that lane up to the number:
//! in its log for the durable one, at once for the volatile one. It gives order credit back.
//!
//! ```text
//! server                          device
//!   │◀──────────────── OUTCOME 7,9 │
//!   │── SETTLED 9 ────────────────▶│  its ring has room again
//! ```
//!
//! Header: flag DURABLE says which log; `aux16` the lane, 0 to 3; `aux32` zero. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | highest settled number of the lane, never 0 |
//! | 8 | 4 | checksum | CRC-32C of the body before it |

use super::{Flags, Header, Kind, Raw, emit_checked, header, parse_number};
use crate::bytes::Reader;
use crate::error::{EmitError, ParseError};
use crate::ids::Lane;

/// Bytes of the body.
pub const BODY_LEN: usize = 8 + super::CHECKSUM_LEN;

/// Cumulative settlement in one lane of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The durable log is meant.
    pub durable: bool,
    /// The lane.
    pub lane: Lane,
    /// Every order of the lane up to here is settled.
    pub number: u64,
}

impl Settled {
    /// Reads a SETTLED frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::SETTLED, Flags::DURABLE)?;
        raw.header.expect_aux32_zero()?;
        let lane = raw.header.lane()?;
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        let number = parse_number(&mut reader)?;
        reader.end("length")?;
        Ok(Self { durable: raw.header.flags.contains(Flags::DURABLE), lane, number })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        if self.number == 0 {
            return Err(EmitError::Invalid { field: "number" });
        }
        let header = Header {
            flags: Flags::NONE.with_if(Flags::DURABLE, self.durable),
            aux16: self.lane as u16,
            ..Header::new(Kind::SETTLED, 0)
        };
        emit_checked(header, buffer, |writer| writer.u64(self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;
    use crate::testing;

    fn check(settled: &Settled) {
        let bytes = testing::emit(|buffer| settled.emit(buffer));
        assert_eq!(bytes.len(), header::LEN + BODY_LEN);
        assert_eq!(Settled::parse(&Raw::parse(&bytes).unwrap()), Ok(*settled));
        testing::frame(&bytes, |raw, buffer| Ok(Settled::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        let settled = Settled { durable: true, lane: Lane::Normal, number: 9 };
        assert_eq!(testing::emit(|buffer| settled.emit(buffer)), testing::vector("SETTLED"));
    }

    #[test]
    fn nothing_settled_is_not_said() {
        let settled = Settled { durable: true, lane: Lane::Bulk, number: 1 };
        check(&settled);
        let wrong = Settled { number: 0, ..settled };
        assert_eq!(wrong.emit(&mut [0; 64]), Err(EmitError::Invalid { field: "number" }));
        let mut bytes = testing::vector("SETTLED");
        bytes[16] = 0;
        testing::repair(&mut bytes);
        let error = ParseError::new("number", 16, Fault::Range);
        assert_eq!(Settled::parse(&Raw::parse(&bytes).unwrap()), Err(error));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(durable: bool, lane in 0_u8..4, number in 1_u64..) {
            check(&Settled { durable, lane: Lane::new(lane).unwrap(), number });
        }
    }
}
