//! BYE: the last frame.
//!
//! Either side sends it before it closes the connection, whenever it still can. What comes after it is not read. From
//! the server it ends its lease.
//!
//! ```text
//! server                          device
//!   │── BYE restarting ───────────▶│  no alarm; expect me again
//!   │            (closed)          │
//! ```
//!
//! Header: no flags; `aux16` the code (below); `aux32` the milliseconds before which another session is useless, 0 not
//! said. No body.

use super::codes::codes;
use super::{Flags, Header, Kind, Raw, emit_bare};
use crate::error::{EmitError, ParseError};

codes! {
    /// Why the session ends. A number without a name is kept.
    Code(u16) {
        /// Nothing is wrong.
        NORMAL = 0, "normal";
        /// The sender will be back soon.
        RESTARTING = 1, "restarting";
        /// The other side sent bytes, or a frame in a place, the protocol does not allow.
        PROTOCOL_ERROR = 2, "protocol-error";
        /// The other side sent a kind this one does not know and must not skip.
        UNKNOWN_KIND = 3, "unknown-kind";
        /// A newer session takes this one's place.
        REPLACED = 4, "replaced";
        /// Nothing was heard for too long.
        IDLE = 5, "idle";
        /// The end of a DRAIN.
        DRAINING = 6, "draining";
        /// A frame was larger than declared.
        TOO_LARGE = 7, "too-large";
        /// The sender cannot write down what it must not forget.
        STORAGE = 8, "storage";
    }
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye {
    /// Why.
    pub code: Code,
    /// Milliseconds before which another session is useless, 0 if not said.
    pub retry_after_ms: u32,
}

impl Bye {
    /// Reads a BYE frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::BYE, Flags::NONE)?;
        raw.expect_no_body()?;
        Ok(Self { code: Code(raw.header.aux16), retry_after_ms: raw.header.aux32 })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let header = Header { aux16: self.code.0, aux32: self.retry_after_ms, ..Header::new(Kind::BYE, 0) };
        emit_bare(header, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(bye: &Bye) {
        let bytes = testing::emit(|buffer| bye.emit(buffer));
        assert_eq!(Bye::parse(&Raw::parse(&bytes).unwrap()), Ok(*bye));
        testing::frame(&bytes, |raw, buffer| Ok(Bye::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        let bye = Bye { code: Code::RESTARTING, retry_after_ms: 2_000 };
        assert_eq!(testing::emit(|buffer| bye.emit(buffer)), testing::vector("BYE"));
        assert_eq!(bye.code.to_string(), "restarting");
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(code: u16, retry_after_ms: u32) {
            check(&Bye { code: Code(code), retry_after_ms });
        }
    }
}
