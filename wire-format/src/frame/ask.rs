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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const ASK: Ask<'static> = Ask {
        correlation: 5,
        generation: 6,
        kind: OrderKind::STOCK_QUESTION,
        schema: 1,
        deadline_ms: 800,
        payload: b"3760001",
    };

    fn check(ask: &Ask<'_>) {
        let bytes = testing::emit(|buffer| ask.emit(buffer));
        assert_eq!(Ask::parse(&Raw::parse(&bytes).unwrap()), Ok(*ask));
        testing::frame(&bytes, |raw, buffer| Ok(Ask::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| ASK.emit(buffer)), testing::vector("ASK"));
        check(&ASK);
    }

    #[test]
    fn what_is_refused_and_where() {
        let fault = |at: usize, bytes: &[u8]| {
            let mut frame = testing::vector("ASK");
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            testing::repair(&mut frame);
            Ask::parse(&Raw::parse(&frame).unwrap()).unwrap_err()
        };
        let error = ParseError::new;
        assert_eq!(fault(8, &[0; 4]), error("aux32", 8, Fault::Range));
        assert_eq!(fault(24, &[0; 2]), error("ask kind", 24, Fault::Range));
        assert_eq!(fault(28, &[1]), error("code", 28, Fault::NotZero));
        assert_eq!(fault(31, &[1]), error("zero", 29, Fault::NotZero));
        assert_eq!(fault(32, &[9]), error("payload length", 32, Fault::Length));
        assert_eq!(fault(32, &4_097_u32.to_le_bytes()), error("payload length", 32, Fault::Range));
        assert_eq!(fault(43, &[1]), error("padding", 43, Fault::NotZero));
    }

    #[test]
    fn limits_and_one_past_each() {
        let payload = [7; PAYLOAD_MAX + 1];
        let full = Ask { payload: &payload[..PAYLOAD_MAX], deadline_ms: u32::MAX, ..ASK };
        let bytes = testing::emit(|buffer| full.emit(buffer));
        assert_eq!(bytes.len(), header::LEN + BODY_MAX);
        assert_eq!(Ask::parse(&Raw::parse(&bytes).unwrap()), Ok(full));
        check(&Ask { payload: &[], deadline_ms: 1, ..ASK });
        let mut buffer = [0; 8_192];
        for (wrong, error) in [
            (
                Ask { payload: &payload, ..ASK },
                EmitError::TooLarge { field: "payload length", limit: PAYLOAD_MAX },
            ),
            (Ask { deadline_ms: 0, ..ASK }, EmitError::Invalid { field: "aux32" }),
            (Ask { kind: OrderKind(0), ..ASK }, EmitError::Invalid { field: "ask kind" }),
        ] {
            assert_eq!(wrong.emit(&mut buffer), Err(error));
        }
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(
            correlation: u32, generation: u32, kind in 1_u16.., schema: u16, deadline_ms in 1_u32..,
            payload in proptest::collection::vec(0_u8.., 0..300),
        ) {
            check(&Ask { correlation, generation, kind: OrderKind(kind), schema, deadline_ms, payload: &payload });
        }
    }
}
