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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;
    use crate::testing;

    const RESULT: OrderResult<'static> = OrderResult { durable: true, number: 7, payload: b"stock 5" };

    fn check(result: &OrderResult<'_>) {
        let bytes = testing::emit(|buffer| result.emit(buffer));
        assert_eq!(OrderResult::parse(&Raw::parse(&bytes).unwrap()), Ok(*result));
        testing::frame(&bytes, |raw, buffer| Ok(OrderResult::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| RESULT.emit(buffer)), testing::vector("RESULT"));
        check(&RESULT);
    }

    #[test]
    fn limits_and_one_past_each() {
        let payload = vec![7; PAYLOAD_MAX + 1];
        let full = OrderResult { payload: &payload[..PAYLOAD_MAX], ..RESULT };
        let mut bytes = testing::emit(|buffer| full.emit(buffer));
        assert_eq!(bytes.len(), header::LEN + BODY_MAX);
        assert_eq!(OrderResult::parse(&Raw::parse(&bytes).unwrap()), Ok(full));
        bytes[24] = 1;
        testing::repair(&mut bytes);
        let error = ParseError::new("payload length", 24, Fault::Range);
        assert_eq!(OrderResult::parse(&Raw::parse(&bytes).unwrap()), Err(error));
        let mut buffer = vec![0; 20_000];
        let too_large = EmitError::TooLarge { field: "payload length", limit: PAYLOAD_MAX };
        assert_eq!(OrderResult { payload: &payload, ..RESULT }.emit(&mut buffer), Err(too_large));
        let nobody = EmitError::Invalid { field: "number" };
        assert_eq!(OrderResult { number: 0, ..RESULT }.emit(&mut buffer), Err(nobody));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(durable: bool, number in 1_u64.., payload in proptest::collection::vec(0_u8.., 0..300)) {
            check(&OrderResult { durable, number, payload: &payload });
        }
    }
}
