//! PART: a piece of a large payload.
//!
//! The payload of an order that is over the inline limit follows its order in pieces, as the device asks for them with
//! WANT. A piece leaves only when nothing else waits for that device, so nothing urgent waits behind more than one of
//! them. The order names the blob, its size and its hash in a PARTS option.
//!
//! ```text
//! server                          device
//!   │── ORDER 7 (PARTS: blob 3) ──▶│  kept until the blob is there
//!   │◀────── ACK 7, WANT 0, 4 ─────│
//!   │── PART blob 3, 0, MORE ─────▶│
//!   │── PART blob 3, 4096, MORE ──▶│
//!   │── PART blob 3, 8192 ────────▶│  the last one: hash compared, then applied
//!   │◀────────────────── OUTCOME 7 │
//! ```
//!
//! Header: flag MORE on all but the last piece; `aux16` and `aux32` zero. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | blob | the blob's id, never 0 |
//! | 8 | 4 | blob offset | where the piece belongs; with its length at most 8,388,608 |
//! | 12 | 4 | length | bytes of the piece, 1 to 4,096 |
//! | 16 | – | bytes | the piece |
//! | – | 0–3 | padding | zero, to a multiple of 4 |
//! | – | 4 | checksum | CRC-32C of the body before it |

use super::{Flags, Header, Kind, Raw, emit_checked, header, parse_blob};
use crate::bytes::Reader;
use crate::error::{EmitError, Fault, ParseError};

/// Bytes of a piece: 0.33 ms on a 100 Mb/s link, the longest an urgent order waits.
pub const PIECE_MAX: usize = 4_096;
/// Bytes of a blob; larger ones are fetched over HTTP.
pub const BLOB_MAX: u32 = 8 * 1_024 * 1_024;
/// Bytes of the body before the piece.
pub const FIXED_LEN: usize = 16;
/// Bytes of the largest body.
pub const BODY_MAX: usize = FIXED_LEN + PIECE_MAX + super::CHECKSUM_LEN;

/// A piece of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The blob's id, never 0.
    pub blob: u64,
    /// Where the piece belongs, in bytes from the blob's start.
    pub offset: u32,
    /// More pieces follow.
    pub more: bool,
    /// The piece, 1 to 4,096 bytes.
    pub bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// Reads a PART frame.
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::PART, Flags::MORE)?;
        raw.header.expect_aux16_zero()?;
        raw.header.expect_aux32_zero()?;
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        let at = reader;
        let blob = reader.u64("blob")?;
        if blob == 0 {
            return Err(at.error("blob", Fault::Range));
        }
        let at = reader;
        let offset = reader.u32("blob offset")?;
        let at_length = reader;
        let bytes = parse_blob(&mut reader, "length", PIECE_MAX, 0)?;
        if bytes.is_empty() {
            return Err(at_length.error("length", Fault::Range));
        }
        if !inside(offset, bytes.len()) {
            return Err(at.error("blob offset", Fault::Range));
        }
        Ok(Self { blob, offset, more: raw.header.flags.contains(Flags::MORE), bytes })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        if self.bytes.len() > PIECE_MAX {
            return Err(EmitError::TooLarge { field: "length", limit: PIECE_MAX });
        }
        match self {
            _ if self.blob == 0 => return Err(EmitError::Invalid { field: "blob" }),
            _ if self.bytes.is_empty() => return Err(EmitError::Invalid { field: "length" }),
            _ if !inside(self.offset, self.bytes.len()) => {
                return Err(EmitError::Invalid { field: "blob offset" });
            }
            _ => {}
        }
        let flags = Flags::NONE.with_if(Flags::MORE, self.more);
        emit_checked(Header { flags, ..Header::new(Kind::PART, 0) }, buffer, |writer| {
            writer.u64(self.blob);
            writer.u32(self.offset);
            writer.u32(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
            writer.bytes(self.bytes);
            writer.pad(4);
        })
    }
}

/// The piece ends inside the largest blob.
fn inside(offset: u32, len: usize) -> bool {
    u32::try_from(len).ok().and_then(|len| offset.checked_add(len)).is_some_and(|end| end <= BLOB_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const PART: Part<'static> = Part { blob: 3, offset: 4_096, more: true, bytes: b"prices" };

    fn check(part: &Part<'_>) {
        let bytes = testing::emit(|buffer| part.emit(buffer));
        assert_eq!(Part::parse(&Raw::parse(&bytes).unwrap()), Ok(*part));
        testing::frame(&bytes, |raw, buffer| Ok(Part::parse(raw)?.emit(buffer)));
    }

    /// The error after the bytes at `at` of the body were replaced and the checksums made right.
    fn fault(at: usize, bytes: &[u8]) -> ParseError {
        let mut frame = testing::vector("PART");
        frame[header::LEN + at..header::LEN + at + bytes.len()].copy_from_slice(bytes);
        testing::repair(&mut frame);
        Part::parse(&Raw::parse(&frame).unwrap()).unwrap_err()
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| PART.emit(buffer)), testing::vector("PART"));
        check(&PART);
    }

    #[test]
    fn what_is_refused_and_where() {
        let error = ParseError::new;
        assert_eq!(fault(0, &[0; 8]), error("blob", 16, Fault::Range));
        assert_eq!(fault(8, &(BLOB_MAX - 5).to_le_bytes()), error("blob offset", 24, Fault::Range));
        assert_eq!(fault(8, &u32::MAX.to_le_bytes()), error("blob offset", 24, Fault::Range));
        assert_eq!(fault(12, &[9]), error("length", 28, Fault::Length));
        assert_eq!(fault(12, &[4]), error("length", 28, Fault::Length));
        assert_eq!(fault(12, &4_097_u32.to_le_bytes()), error("length", 28, Fault::Range));
        assert_eq!(fault(23, &[1]), error("padding", 38, Fault::NotZero));
    }

    #[test]
    fn limits_and_one_past_each() {
        let piece = [7; PIECE_MAX + 1];
        let full = Part { bytes: &piece[..PIECE_MAX], ..PART };
        let bytes = testing::emit(|buffer| full.emit(buffer));
        assert_eq!(bytes.len(), header::LEN + BODY_MAX);
        assert_eq!(Part::parse(&Raw::parse(&bytes).unwrap()), Ok(full));
        check(&Part { offset: BLOB_MAX - 6, ..PART });
        let mut buffer = [0; 8_192];
        for (wrong, error) in [
            (Part { bytes: &piece, ..PART }, EmitError::TooLarge { field: "length", limit: PIECE_MAX }),
            (Part { bytes: &[], ..PART }, EmitError::Invalid { field: "length" }),
            (Part { blob: 0, ..PART }, EmitError::Invalid { field: "blob" }),
            (Part { offset: BLOB_MAX - 5, ..PART }, EmitError::Invalid { field: "blob offset" }),
        ] {
            assert_eq!(wrong.emit(&mut buffer), Err(error));
        }
        let mut empty = [0; 36];
        let header = Header::new(Kind::PART, 0);
        emit_checked(header, &mut empty, |writer| {
            writer.u64(1);
            writer.u64(0);
        })
        .unwrap();
        assert_eq!(
            Part::parse(&Raw::parse(&empty).unwrap()),
            Err(ParseError::new("length", 28, Fault::Range))
        );
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(
            blob in 1_u64.., offset in 0..BLOB_MAX - 300, more: bool,
            bytes in proptest::collection::vec(0_u8.., 1..300),
        ) {
            check(&Part { blob, offset, more, bytes: &bytes });
        }
    }
}
