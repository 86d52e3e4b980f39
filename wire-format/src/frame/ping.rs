//! PING: are you there? PONG: I am.
//!
//! Either side sends a PING after a silence; the other answers with the same token at once, before anything queued.
//!
//! ```text
//! server                          device
//!   │── PING 5 ───────────────────▶│
//!   │◀───────────────────── PONG 5 │  also the round trip time
//! ```
//!
//! Header: no flags; `aux16` zero; `aux32` the token, any number. No body.

use super::{Flags, Header, Kind, Raw, emit_bare};
use crate::error::{EmitError, ParseError};

/// The question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the PONG.
    pub token: u32,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The token of the PING.
    pub token: u32,
}

impl Ping {
    /// Reads a PING frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        parse_token(raw, Kind::PING).map(|token| Self { token })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        emit_bare(Header { aux32: self.token, ..Header::new(Kind::PING, 0) }, buffer)
    }

    /// Its answer.
    #[must_use]
    pub const fn pong(self) -> Pong {
        Pong { token: self.token }
    }
}

impl Pong {
    /// Reads a PONG frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        parse_token(raw, Kind::PONG).map(|token| Self { token })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        emit_bare(Header { aux32: self.token, ..Header::new(Kind::PONG, 0) }, buffer)
    }
}

fn parse_token(raw: &Raw<'_>, kind: Kind) -> Result<u32, ParseError> {
    raw.header.expect(kind, Flags::NONE)?;
    raw.header.expect_aux16_zero()?;
    raw.expect_no_body()?;
    Ok(raw.header.aux32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;
    use crate::testing;

    #[test]
    fn golden_vectors() {
        let ping = Ping { token: 0x1234_5678 };
        assert_eq!(testing::emit(|buffer| ping.emit(buffer)), testing::vector("PING"));
        assert_eq!(testing::emit(|buffer| ping.pong().emit(buffer)), testing::vector("PONG"));
    }

    #[test]
    fn one_is_not_the_other() {
        let bytes = testing::vector("PONG");
        let error = ParseError::new("kind", 4, Fault::Misplaced);
        assert_eq!(Ping::parse(&Raw::parse(&bytes).unwrap()), Err(error));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(token: u32) {
            let ping = testing::emit(|buffer| Ping { token }.emit(buffer));
            proptest::prop_assert_eq!(Ping::parse(&Raw::parse(&ping).unwrap()), Ok(Ping { token }));
            testing::frame(&ping, |raw, buffer| Ok(Ping::parse(raw)?.emit(buffer)));
            let pong = testing::emit(|buffer| Pong { token }.emit(buffer));
            proptest::prop_assert_eq!(Pong::parse(&Raw::parse(&pong).unwrap()), Ok(Pong { token }));
            testing::frame(&pong, |raw, buffer| Ok(Pong::parse(raw)?.emit(buffer)));
        }
    }
}
