//! PROGRESS: an order is on its way.
//!
//! The device may send it, at most twice a second and order, while a handler works on. Nothing follows from it but that
//! the order is not stuck.
//!
//! ```text
//! server                          device
//!   │── ORDER 7 ──────────────────▶│  a long one
//!   │◀────────────── PROGRESS 250 │
//!   │◀────────────── PROGRESS 750 │
//!   │◀────────────────── OUTCOME 7 │
//! ```
//!
//! Header: flag DURABLE says which log; `aux16` and `aux32` zero. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | the order's number, never 0 |
//! | 8 | 2 | per mille | how much is done, 0 to 1,000 |
//! | 10 | 2 | phase | the application's own, 0 none |
//! | 12 | 4 | checksum | CRC-32C of the body before it |

use super::{Flags, Header, Kind, Raw, emit_checked, header, parse_number};
use crate::bytes::Reader;
use crate::error::{EmitError, Fault, ParseError};

/// All of it.
pub const PER_MILLE_MAX: u16 = 1_000;
/// Bytes of the body.
pub const BODY_LEN: usize = 12 + super::CHECKSUM_LEN;

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The order is in the durable log.
    pub durable: bool,
    /// Its number.
    pub number: u64,
    /// How much is done, 0 to 1,000.
    pub per_mille: u16,
    /// The application's own, 0 for none.
    pub phase: u16,
}

impl Progress {
    /// Reads a PROGRESS frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::PROGRESS, Flags::DURABLE)?;
        raw.header.expect_aux16_zero()?;
        raw.header.expect_aux32_zero()?;
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        let number = parse_number(&mut reader)?;
        let at = reader;
        let per_mille = reader.u16("per mille")?;
        if per_mille > PER_MILLE_MAX {
            return Err(at.error("per mille", Fault::Range));
        }
        let phase = reader.u16("phase")?;
        reader.end("length")?;
        Ok(Self { durable: raw.header.flags.contains(Flags::DURABLE), number, per_mille, phase })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        if self.number == 0 {
            return Err(EmitError::Invalid { field: "number" });
        }
        if self.per_mille > PER_MILLE_MAX {
            return Err(EmitError::TooLarge { field: "per mille", limit: usize::from(PER_MILLE_MAX) });
        }
        let flags = Flags::NONE.with_if(Flags::DURABLE, self.durable);
        emit_checked(Header { flags, ..Header::new(Kind::PROGRESS, 0) }, buffer, |writer| {
            writer.u64(self.number);
            writer.u16(self.per_mille);
            writer.u16(self.phase);
        })
    }
}
