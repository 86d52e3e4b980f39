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
