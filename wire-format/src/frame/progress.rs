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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const PROGRESS: Progress = Progress { durable: true, number: 7, per_mille: 250, phase: 2 };

    fn check(progress: &Progress) {
        let bytes = testing::emit(|buffer| progress.emit(buffer));
        assert_eq!(bytes.len(), header::LEN + BODY_LEN);
        assert_eq!(Progress::parse(&Raw::parse(&bytes).unwrap()), Ok(*progress));
        testing::frame(&bytes, |raw, buffer| Ok(Progress::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| PROGRESS.emit(buffer)), testing::vector("PROGRESS"));
    }

    #[test]
    fn limits_and_one_past_each() {
        check(&Progress { per_mille: PER_MILLE_MAX, ..PROGRESS });
        let over = Progress { per_mille: PER_MILLE_MAX + 1, ..PROGRESS };
        let error = EmitError::TooLarge { field: "per mille", limit: 1_000 };
        assert_eq!(over.emit(&mut [0; 64]), Err(error));
        let nobody = Progress { number: 0, ..PROGRESS };
        assert_eq!(nobody.emit(&mut [0; 64]), Err(EmitError::Invalid { field: "number" }));
        let mut bytes = testing::vector("PROGRESS");
        bytes[24..26].copy_from_slice(&1_001_u16.to_le_bytes());
        testing::repair(&mut bytes);
        let error = ParseError::new("per mille", 24, Fault::Range);
        assert_eq!(Progress::parse(&Raw::parse(&bytes).unwrap()), Err(error));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(durable: bool, number in 1_u64.., per_mille in 0..=PER_MILLE_MAX, phase: u16) {
            check(&Progress { durable, number, per_mille, phase });
        }
    }
}
