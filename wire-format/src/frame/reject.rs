//! REJECT: no session, and why.
//!
//! The device sends it instead of a WELCOME, the server instead of going on after a WELCOME it does not accept. Its
//! sender closes the connection after it.
//!
//! ```text
//! server                          device
//!   │── HELLO ────────────────────▶│  not for me, not now, not from you
//!   │◀───────────────────── REJECT │  and closed
//! ```
//!
//! Header: no flags; `aux16` the code (below), never 0; `aux32` the milliseconds before which another try is useless, 0
//! not said. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | detail | by code: STALE_FENCE the fence known, VERSION lowest and highest version spoken (bytes 0 and 1), else 0 |
//! | 8 | 4 | checksum | CRC-32C of the body before it |

use super::codes::codes;
use super::{Flags, Header, Kind, Raw, emit_checked, header};
use crate::bytes::Reader;
use crate::error::{EmitError, Fault, ParseError};

/// Bytes of the body.
pub const BODY_LEN: usize = 8 + super::CHECKSUM_LEN;

codes! {
    /// Why there is no session. A number without a name is kept.
    Code(u16) {
        /// The HELLO names another device.
        WRONG_DEVICE = 1, "wrong-device";
        /// Another legal entity or store code.
        WRONG_STORE = 2, "wrong-store";
        /// One side is staging, the other production.
        STAGING = 3, "staging";
        /// The device has accepted a higher fence, or this one from another server.
        STALE_FENCE = 4, "stale-fence";
        /// Another server's lease is still running; `aux32` says how long.
        LEASE_HELD = 5, "lease-held";
        /// No version both speak.
        VERSION = 6, "version";
        /// Not on the list of servers, or not proved.
        UNAUTHORIZED = 7, "unauthorized";
        /// Not now.
        BUSY = 8, "busy";
        /// Every slot for unproved peers is taken.
        TOO_MANY_PEERS = 9, "too-many-peers";
        /// The device is about to leave.
        DRAINING = 10, "draining";
    }
}

/// The refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub code: Code,
    /// Milliseconds before which another try is useless, 0 if not said.
    pub retry_after_ms: u32,
    /// By code, see the table.
    pub detail: u64,
}

impl Reject {
    /// Reads a REJECT frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::REJECT, Flags::NONE)?;
        if raw.header.aux16 == 0 {
            return Err(ParseError::new("aux16", 6, Fault::Range));
        }
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        let detail = reader.u64("detail")?;
        reader.end("length")?;
        Ok(Self { code: Code(raw.header.aux16), retry_after_ms: raw.header.aux32, detail })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        if self.code.0 == 0 {
            return Err(EmitError::Invalid { field: "aux16" });
        }
        let header =
            Header { aux16: self.code.0, aux32: self.retry_after_ms, ..Header::new(Kind::REJECT, 0) };
        emit_checked(header, buffer, |writer| writer.u64(self.detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const REJECT: Reject = Reject { code: Code::STALE_FENCE, retry_after_ms: 60_000, detail: 12 };

    fn check(reject: &Reject) {
        let bytes = testing::emit(|buffer| reject.emit(buffer));
        assert_eq!(bytes.len(), header::LEN + BODY_LEN);
        assert_eq!(Reject::parse(&Raw::parse(&bytes).unwrap()), Ok(*reject));
        testing::frame(&bytes, |raw, buffer| Ok(Reject::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| REJECT.emit(buffer)), testing::vector("REJECT"));
    }

    #[test]
    fn a_reject_without_a_reason_is_refused() {
        let wrong = Reject { code: Code(0), ..REJECT };
        assert_eq!(wrong.emit(&mut [0; 64]), Err(EmitError::Invalid { field: "aux16" }));
        let mut bytes = testing::vector("REJECT");
        bytes[6] = 0;
        testing::repair(&mut bytes);
        let error = ParseError::new("aux16", 6, Fault::Range);
        assert_eq!(Reject::parse(&Raw::parse(&bytes).unwrap()), Err(error));
    }

    #[test]
    fn a_later_reason_is_kept_and_shown() {
        check(&Reject { code: Code(11), ..REJECT });
        assert_eq!((Code(11).name(), Code(11).to_string().as_str()), ("unnamed", "11"));
        for (code, name) in Code::NAMES {
            assert_eq!((code.name(), code.to_string().as_str()), (*name, *name));
        }
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(code in 1_u16.., retry_after_ms: u32, detail: u64) {
            check(&Reject { code: Code(code), retry_after_ms, detail });
        }
    }
}
