//! REPLY: the answer to an ASK.
//!
//! The side that was asked sends it, once, within the deadline or not at all. Who receives one whose correlation and
//! generation are not those of an open question drops it and counts it.
//!
//! ```text
//! device                          server
//!   │── ASK 5, within 800 ms ─────▶│
//!   │◀──────────────────── REPLY 5 │  true as of "age" milliseconds ago
//! ```
//!
//! Header: no flags; `aux16` zero; `aux32` the age of the answer in milliseconds, 0 fresh. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | correlation | as in the ASK |
//! | 4 | 4 | generation | as in the ASK |
//! | 8 | 2 | ask kind | as in the ASK |
//! | 10 | 2 | schema | version of the payload's encoding |
//! | 12 | 1 | code | 0 ok, 1 busy, 2 unknown kind, 3 failed; others count as failed |
//! | 13 | 3 | zero | zero |
//! | 16 | 4 | payload length | bytes of payload, at most 4,096 |
//! | 20 | – | payload | opaque to the protocol |
//! | – | 0–3 | padding | zero, to a multiple of 4 |
//! | – | 4 | checksum | CRC-32C of the body before it |

use super::ask::Body;
use super::codes::codes;
use super::{Kind, Raw};
use crate::error::{EmitError, ParseError};
use crate::ids::OrderKind;

codes! {
    /// How a question ended. A number without a name counts as [`Code::FAILED`].
    Code(u8) {
        /// The payload is the answer.
        OK = 0, "ok";
        /// Too many questions at once.
        BUSY = 1, "busy";
        /// Nobody here answers this kind.
        UNKNOWN_KIND = 2, "unknown-kind";
        /// There was an answer to find and it was not found.
        FAILED = 3, "failed";
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// As in the question.
    pub correlation: u32,
    /// As in the question.
    pub generation: u32,
    /// As in the question.
    pub kind: OrderKind,
    /// Version of the payload's encoding.
    pub schema: u16,
    /// How it ended.
    pub code: Code,
    /// The answer was true this many milliseconds ago.
    pub age_ms: u32,
    /// Opaque to the protocol, at most 4,096 bytes. Never card data.
    pub payload: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Reads a REPLY frame.
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        let Body { correlation, generation, kind, schema, code, payload } = Body::parse(raw, Kind::REPLY)?;
        let (code, age_ms) = (Code(code), raw.header.aux32);
        Ok(Self { correlation, generation, kind, schema, code, age_ms, payload })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self { correlation, generation, kind, schema, code: Code(code), age_ms, payload } = *self;
        Body { correlation, generation, kind, schema, code, payload }.emit(Kind::REPLY, age_ms, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::PAYLOAD_MAX;
    use super::*;
    use crate::testing;

    const REPLY: Reply<'static> = Reply {
        correlation: 5,
        generation: 6,
        kind: OrderKind::STOCK_QUESTION,
        schema: 1,
        code: Code::OK,
        age_ms: 40,
        payload: b"12",
    };

    fn check(reply: &Reply<'_>) {
        let bytes = testing::emit(|buffer| reply.emit(buffer));
        assert_eq!(Reply::parse(&Raw::parse(&bytes).unwrap()), Ok(*reply));
        testing::frame(&bytes, |raw, buffer| Ok(Reply::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| REPLY.emit(buffer)), testing::vector("REPLY"));
    }

    #[test]
    fn limits_and_one_past_each() {
        let payload = [7; PAYLOAD_MAX + 1];
        let full = Reply { payload: &payload[..PAYLOAD_MAX], ..REPLY };
        let bytes = testing::emit(|buffer| full.emit(buffer));
        assert_eq!(Reply::parse(&Raw::parse(&bytes).unwrap()), Ok(full));
        let error = EmitError::TooLarge { field: "payload length", limit: PAYLOAD_MAX };
        assert_eq!(Reply { payload: &payload, ..REPLY }.emit(&mut [0; 8_192]), Err(error));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(
            correlation: u32, generation: u32, kind in 1_u16.., schema: u16, code: u8, age_ms: u32,
            payload in proptest::collection::vec(0_u8.., 0..300),
        ) {
            let (kind, code) = (OrderKind(kind), Code(code));
            check(&Reply { correlation, generation, kind, schema, code, age_ms, payload: &payload });
        }
    }
}
