//! PART: a piece of a large payload.
//!
//! The server sends the payload of an order that is over the inline limit ahead of the order, in pieces on the bulk lane,
//! so that nothing urgent waits behind more than one of them. The order that follows names the blob and its hash in a
//! PARTS option.
//!
//! ```text
//! server                          device
//!   │── PART blob 3, 0, MORE ─────▶│
//!   │── PART blob 3, 4096, MORE ──▶│
//!   │── PART blob 3, 8192 ────────▶│  the last one
//!   │── ORDER 7 (PARTS: blob 3) ──▶│  hash compared, then applied
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
