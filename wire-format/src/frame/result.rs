//! RESULT: the payload of a result.
//!
//! The device sends it before the OUTCOME of an order whose delivery was flagged NEEDS_RESULT, if there is something to
//! say. It is not repeated in a later session: a lost one leaves the order applied and its result unknown.
//!
//! ```text
//! server                          device
//!   │── ORDER 7, NEEDS_RESULT ────▶│
//!   │◀─────────────────── RESULT 7 │
//!   │◀────────────────── OUTCOME 7 │
//! ```
//!
//! Header: flag DURABLE says which log; `aux16` and `aux32` zero. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | the order's number, never 0 |
//! | 8 | 4 | payload length | bytes of payload, at most 16,384 |
//! | 12 | 4 | zero | zero |
//! | 16 | – | payload | opaque to the protocol |
//! | – | 0–3 | padding | zero, to a multiple of 4 |
//! | – | 4 | checksum | CRC-32C of the body before it |

use super::{Flags, Header, Kind, Raw, emit_checked, header, parse_blob, parse_number};
use crate::bytes::Reader;
use crate::error::{EmitError, ParseError};

/// Bytes of payload.
pub const PAYLOAD_MAX: usize = 16_384;
/// Bytes of the body before the payload.
pub const FIXED_LEN: usize = 16;
/// Bytes of the largest body.
pub const BODY_MAX: usize = FIXED_LEN + PAYLOAD_MAX + super::CHECKSUM_LEN;

/// What an order brought to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderResult<'a> {
    /// The order is in the durable log.
    pub durable: bool,
    /// Its number.
    pub number: u64,
    /// Opaque to the protocol, at most 16,384 bytes. Never card data.
    pub payload: &'a [u8],
}

impl<'a> OrderResult<'a> {
    /// Reads a RESULT frame.
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::RESULT, Flags::DURABLE)?;
        raw.header.expect_aux16_zero()?;
        raw.header.expect_aux32_zero()?;
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        let number = parse_number(&mut reader)?;
        let payload = parse_blob(&mut reader, "payload length", PAYLOAD_MAX, 4)?;
        Ok(Self { durable: raw.header.flags.contains(Flags::DURABLE), number, payload })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        if self.number == 0 {
            return Err(EmitError::Invalid { field: "number" });
        }
        if self.payload.len() > PAYLOAD_MAX {
            return Err(EmitError::TooLarge { field: "payload length", limit: PAYLOAD_MAX });
        }
        let flags = Flags::NONE.with_if(Flags::DURABLE, self.durable);
        emit_checked(Header { flags, ..Header::new(Kind::RESULT, 0) }, buffer, |writer| {
            writer.u64(self.number);
            writer.u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
            writer.u32(0);
            writer.bytes(self.payload);
            writer.pad(4);
        })
    }
}
