//! ASK: a question.
//!
//! Either side asks what only the other knows now: how many of an article the back store has, what a till shows. It is
//! no order: it is not logged, not repeated, and dies with its deadline or its session.
//!
//! ```text
//! device                          server
//!   │── ASK 5, within 800 ms ─────▶│
//!   │◀──────────────────── REPLY 5 │  or nothing, and the asker stops waiting
//! ```
//!
//! Header: no flags; `aux16` zero; `aux32` the milliseconds the asker will wait, 1 or more. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | correlation | the asker's number for the question |
//! | 4 | 4 | generation | the asker's number for the session: tells an answer from an earlier one |
//! | 8 | 2 | ask kind | what is asked, as order kinds; 0 is refused |
//! | 10 | 2 | schema | version of the payload's encoding |
//! | 12 | 1 | code | 0 |
//! | 13 | 3 | zero | zero |
//! | 16 | 4 | payload length | bytes of payload, at most 4,096 |
//! | 20 | – | payload | opaque to the protocol |
//! | – | 0–3 | padding | zero, to a multiple of 4 |
//! | – | 4 | checksum | CRC-32C of the body before it |

use super::{Flags, Header, Kind, Raw, emit_checked, header, parse_blob};
use crate::bytes::Reader;
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::OrderKind;

/// Bytes of payload of a question and of its answer.
pub const PAYLOAD_MAX: usize = 4_096;
/// Bytes of the body before the payload.
pub const FIXED_LEN: usize = 20;
/// Bytes of the largest body.
pub const BODY_MAX: usize = FIXED_LEN + PAYLOAD_MAX + super::CHECKSUM_LEN;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The asker's number for the question.
    pub correlation: u32,
    /// The asker's number for the session.
    pub generation: u32,
    /// What is asked.
    pub kind: OrderKind,
    /// Version of the payload's encoding.
    pub schema: u16,
    /// Milliseconds the asker will wait, 1 or more.
    pub deadline_ms: u32,
    /// Opaque to the protocol, at most 4,096 bytes. Never card data.
    pub payload: &'a [u8],
}

impl<'a> Ask<'a> {
    /// Reads an ASK frame.
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        let body = Body::parse(raw, Kind::ASK)?;
        if raw.header.aux32 == 0 {
            return Err(ParseError::new("aux32", 8, Fault::Range));
        }
        if body.code != 0 {
            return Err(ParseError::new("code", header::LEN + CODE, Fault::NotZero));
        }
        let Body { correlation, generation, kind, schema, payload, .. } = body;
        Ok(Self { correlation, generation, kind, schema, deadline_ms: raw.header.aux32, payload })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        if self.deadline_ms == 0 {
            return Err(EmitError::Invalid { field: "aux32" });
        }
        let Self { correlation, generation, kind, schema, payload, .. } = *self;
        Body { correlation, generation, kind, schema, code: 0, payload }.emit(
            Kind::ASK,
            self.deadline_ms,
            buffer,
        )
    }
}

/// Where the code stands in the body.
const CODE: usize = 12;

/// What ASK and REPLY share.
pub(super) struct Body<'a> {
    pub(super) correlation: u32,
    pub(super) generation: u32,
    pub(super) kind: OrderKind,
    pub(super) schema: u16,
    pub(super) code: u8,
    pub(super) payload: &'a [u8],
}

impl<'a> Body<'a> {
    pub(super) fn parse(raw: &Raw<'a>, frame: Kind) -> Result<Self, ParseError> {
        raw.header.expect(frame, Flags::NONE)?;
        raw.header.expect_aux16_zero()?;
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        let correlation = reader.u32("correlation")?;
        let generation = reader.u32("generation")?;
        let at = reader;
        let kind = OrderKind(reader.u16("ask kind")?);
        if kind.0 == 0 {
            return Err(at.error("ask kind", Fault::Range));
        }
        let schema = reader.u16("schema")?;
        let code = reader.u8("code")?;
        reader.zeros("zero", 3)?;
        let payload = parse_blob(&mut reader, "payload length", PAYLOAD_MAX, 0)?;
        Ok(Self { correlation, generation, kind, schema, code, payload })
    }

    pub(super) fn emit(&self, frame: Kind, aux32: u32, buffer: &mut [u8]) -> Result<usize, EmitError> {
        if self.kind.0 == 0 {
            return Err(EmitError::Invalid { field: "ask kind" });
        }
        if self.payload.len() > PAYLOAD_MAX {
            return Err(EmitError::TooLarge { field: "payload length", limit: PAYLOAD_MAX });
        }
        emit_checked(Header { aux32, ..Header::new(frame, 0) }, buffer, |writer| {
            writer.u32(self.correlation);
            writer.u32(self.generation);
            writer.u16(self.kind.0);
            writer.u16(self.schema);
            writer.u8(self.code);
            writer.zeros(3);
            writer.u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
            writer.bytes(self.payload);
            writer.pad(4);
        })
    }
}
