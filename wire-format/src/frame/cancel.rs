//! CANCEL: do not do this any more.
//!
//! The server sends it for orders it wrote in this session and has no outcome of. It never overtakes its order, and it
//! has no answer of its own: each order it names ends in an OUTCOME as ever.
//!
//! ```text
//! server                          device
//!   │── ORDER 7, ORDER 9 ─────────▶│  7 is at work, 9 waits behind it
//!   │── CANCEL 7, 9 ──────────────▶│
//!   │◀────────────── OUTCOME 7, 9 │  7 as it ended (too late), 9 CANCELLED
//! ```
//!
//! Header: flag DURABLE says which log; `aux16` the count of numbers n, 1 to 16; `aux32` zero. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 n | numbers | the orders meant, each never 0 |
//! | 8 n | 4 | checksum | CRC-32C of the body before it |

use super::rows::Numbers;
use super::{Flags, Header, Kind, Raw, emit_checked, emit_count};
use crate::error::{EmitError, ParseError};

/// Numbers of one frame: one default window.
pub const NUMBERS_MAX: usize = 16;
/// Bytes of the largest body.
pub const BODY_MAX: usize = NUMBERS_MAX * super::rows::NUMBER_LEN + super::CHECKSUM_LEN;

/// Orders of one log that shall not be done any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel<'a> {
    /// The durable log is meant.
    pub durable: bool,
    /// 1 to 16 order numbers.
    pub numbers: Numbers<'a>,
}

impl<'a> Cancel<'a> {
    /// Reads a CANCEL frame.
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::CANCEL, Flags::DURABLE)?;
        raw.header.expect_aux32_zero()?;
        Ok(Self { durable: raw.header.flags.contains(Flags::DURABLE), numbers: raw.rows(NUMBERS_MAX)? })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let header = Header {
            flags: Flags::NONE.with_if(Flags::DURABLE, self.durable),
            aux16: emit_count(self.numbers.len(), NUMBERS_MAX)?,
            ..Header::new(Kind::CANCEL, 0)
        };
        self.numbers.check()?;
        emit_checked(header, buffer, |writer| self.numbers.emit(writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;
    use crate::testing;

    fn check(cancel: &Cancel<'_>) {
        let bytes = testing::emit(|buffer| cancel.emit(buffer));
        assert_eq!(Cancel::parse(&Raw::parse(&bytes).unwrap()), Ok(*cancel));
        testing::frame(&bytes, |raw, buffer| Ok(Cancel::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        let cancel = Cancel { durable: true, numbers: Numbers::from(&[7, 9]) };
        assert_eq!(testing::emit(|buffer| cancel.emit(buffer)), testing::vector("CANCEL"));
    }

    #[test]
    fn limits_and_one_past_each() {
        let numbers = [1; NUMBERS_MAX + 1];
        let cancel = |numbers| Cancel { durable: false, numbers };
        check(&cancel(Numbers::from(&numbers[..NUMBERS_MAX])));
        let mut buffer = [0; 256];
        for (wrong, error) in [
            (Numbers::from(&numbers), EmitError::TooLarge { field: "aux16", limit: NUMBERS_MAX }),
            (Numbers::EMPTY, EmitError::Invalid { field: "aux16" }),
            (Numbers::from(&[1, 0]), EmitError::Invalid { field: "number" }),
        ] {
            assert_eq!(cancel(wrong).emit(&mut buffer), Err(error));
        }
    }

    #[test]
    fn what_is_refused_and_where() {
        let parse = |at: usize, byte| {
            let mut bytes = testing::vector("CANCEL");
            bytes[at] = byte;
            testing::repair(&mut bytes);
            Cancel::parse(&Raw::parse(&bytes).unwrap()).unwrap_err()
        };
        assert_eq!(parse(6, 0), ParseError::new("aux16", 6, Fault::Range));
        assert_eq!(parse(6, 1), ParseError::new("aux16", 6, Fault::Length));
        assert_eq!(parse(6, 17), ParseError::new("aux16", 6, Fault::TooMany));
        assert_eq!(parse(24, 0), ParseError::new("number", 24, Fault::Range));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(durable: bool, numbers in proptest::collection::vec(1_u64.., 1..=NUMBERS_MAX)) {
            check(&Cancel { durable, numbers: Numbers::from(&numbers[..]) });
        }
    }
}
