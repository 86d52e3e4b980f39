//! WANT: more of a large payload, from here.
//!
//! The device sends it for an order with a PARTS option that it took, and again whenever it has stored pieces. It says
//! from where it takes pieces and how many, so nothing is sent that has no place, and a transfer goes on where it stood
//! after a lost connection.
//!
//! ```text
//! server                          device
//!   │── ORDER 7 (PARTS: blob 3) ──▶│
//!   │◀────── ACK 7, WANT 0, 4 ─────│  four pieces from the start
//!   │── PART 0 … PART 12288 ──────▶│
//!   │◀────────── WANT 8192, 4 ─────│  two are stored: up to 24,576 now
//! ```
//!
//! Header: no flags; `aux16` the pieces it takes from there, 1 to 64; `aux32` the offset of the first one, a multiple of
//! 4,096 below 8,388,608. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | blob | the blob's id, never 0 |
//! | 8 | 4 | checksum | CRC-32C of the body before it |

use super::part::{BLOB_MAX, PIECE_MAX};
use super::{Flags, Header, Kind, Raw, emit_checked, header};
use crate::bytes::Reader;
use crate::error::{EmitError, Fault, ParseError};

/// Pieces a device may take at a time: 256 KiB, 21 ms of a 100 Mb/s link.
pub const PIECES_MAX: u16 = 64;
/// Bytes of the body.
pub const BODY_LEN: usize = 8 + super::CHECKSUM_LEN;

/// How much more of a blob a device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The blob's id, never 0.
    pub blob: u64,
    /// The first byte it takes, a multiple of 4,096 below 8,388,608: what lies before is stored.
    pub offset: u32,
    /// Pieces it takes from there, 1 to 64.
    pub pieces: u16,
}

impl Want {
    /// Reads a WANT frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::WANT, Flags::NONE)?;
        let (pieces, offset) = (raw.header.aux16, raw.header.aux32);
        if !is_count(pieces) {
            return Err(ParseError::new("aux16", 6, Fault::Range));
        }
        if !is_start(offset) {
            return Err(ParseError::new("aux32", 8, Fault::Range));
        }
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        let at = reader;
        let blob = reader.u64("blob")?;
        if blob == 0 {
            return Err(at.error("blob", Fault::Range));
        }
        reader.end("length")?;
        Ok(Self { blob, offset, pieces })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        match self {
            _ if self.blob == 0 => return Err(EmitError::Invalid { field: "blob" }),
            _ if !is_count(self.pieces) => return Err(EmitError::Invalid { field: "aux16" }),
            _ if !is_start(self.offset) => return Err(EmitError::Invalid { field: "aux32" }),
            _ => {}
        }
        let header = Header { aux16: self.pieces, aux32: self.offset, ..Header::new(Kind::WANT, 0) };
        emit_checked(header, buffer, |writer| writer.u64(self.blob))
    }
}

const fn is_count(pieces: u16) -> bool {
    pieces != 0 && pieces <= PIECES_MAX
}

/// A piece of the largest blob begins here.
const fn is_start(offset: u32) -> bool {
    offset < BLOB_MAX && offset & (PIECE_MAX as u32 - 1) == 0
}

const _: () = assert!(PIECE_MAX.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const WANT: Want = Want { blob: 3, offset: 8_192, pieces: 4 };

    fn check(want: &Want) {
        let bytes = testing::emit(|buffer| want.emit(buffer));
        assert_eq!(bytes.len(), header::LEN + BODY_LEN);
        assert_eq!(Want::parse(&Raw::parse(&bytes).unwrap()), Ok(*want));
        testing::frame(&bytes, |raw, buffer| Ok(Want::parse(raw)?.emit(buffer)));
    }

    /// The error after the bytes at `at` of the frame were replaced and the checksums made right.
    fn fault(at: usize, bytes: &[u8]) -> ParseError {
        let mut frame = testing::vector("WANT");
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        testing::repair(&mut frame);
        Want::parse(&Raw::parse(&frame).unwrap()).unwrap_err()
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| WANT.emit(buffer)), testing::vector("WANT"));
    }

    #[test]
    fn what_is_refused_and_where() {
        let error = |field, at| ParseError::new(field, at, Fault::Range);
        assert_eq!(fault(6, &[0, 0]), error("aux16", 6));
        assert_eq!(fault(6, &[65, 0]), error("aux16", 6));
        assert_eq!(fault(8, &[1]), error("aux32", 8), "inside a piece");
        assert_eq!(fault(8, &BLOB_MAX.to_le_bytes()), error("aux32", 8), "behind the last piece");
        assert_eq!(fault(16, &[0]), error("blob", 16));
    }

    #[test]
    fn limits_and_one_past_each() {
        check(&Want { offset: 0, pieces: 1, ..WANT });
        check(&Want { offset: BLOB_MAX - 4_096, pieces: PIECES_MAX, ..WANT });
        let mut buffer = [0; 64];
        for (wrong, field) in [
            (Want { pieces: 0, ..WANT }, "aux16"),
            (Want { pieces: PIECES_MAX + 1, ..WANT }, "aux16"),
            (Want { offset: BLOB_MAX, ..WANT }, "aux32"),
            (Want { offset: 4_095, ..WANT }, "aux32"),
            (Want { blob: 0, ..WANT }, "blob"),
        ] {
            assert_eq!(wrong.emit(&mut buffer), Err(EmitError::Invalid { field }));
        }
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(blob in 1_u64.., piece in 0..BLOB_MAX / 4_096, pieces in 1..=PIECES_MAX) {
            check(&Want { blob, offset: piece * 4_096, pieces });
        }
    }
}
