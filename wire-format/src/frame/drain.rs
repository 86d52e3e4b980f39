//! DRAIN: I shall leave, send nothing new.
//!
//! Either side announces a planned end. The other sends no new ORDER or ASK, what is in flight is still answered, and a
//! BYE follows.
//!
//! ```text
//! server                          device
//!   │◀───────────────── DRAIN 5 s │  about to restart
//!   │◀─────────────────── OUTCOME │  of what it had
//!   │◀─────────────────────── BYE │
//! ```
//!
//! Header: no flags; `aux16` the reason (below); `aux32` the milliseconds after which the sender leaves in any case. No body.

use super::codes::codes;
use super::{Flags, Header, Kind, Raw, emit_bare};
use crate::error::{EmitError, ParseError};

codes! {
    /// Why the sender will leave. A number without a name is kept.
    Reason(u16) {
        /// No reason given.
        LEAVING = 0, "leaving";
        /// It will be back soon.
        RESTARTING = 1, "restarting";
        /// It installs something first.
        UPDATING = 2, "updating";
    }
}

/// The announcement of a planned end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Why.
    pub reason: Reason,
    /// Milliseconds after which the sender leaves in any case.
    pub after_ms: u32,
}

impl Drain {
    /// Reads a DRAIN frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::DRAIN, Flags::NONE)?;
        raw.expect_no_body()?;
        Ok(Self { reason: Reason(raw.header.aux16), after_ms: raw.header.aux32 })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let header = Header { aux16: self.reason.0, aux32: self.after_ms, ..Header::new(Kind::DRAIN, 0) };
        emit_bare(header, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(drain: &Drain) {
        let bytes = testing::emit(|buffer| drain.emit(buffer));
        assert_eq!(Drain::parse(&Raw::parse(&bytes).unwrap()), Ok(*drain));
        testing::frame(&bytes, |raw, buffer| Ok(Drain::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        let drain = Drain { reason: Reason::RESTARTING, after_ms: 5_000 };
        assert_eq!(testing::emit(|buffer| drain.emit(buffer)), testing::vector("DRAIN"));
        assert_eq!(drain.reason.to_string(), "restarting");
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(reason: u16, after_ms: u32) {
            check(&Drain { reason: Reason(reason), after_ms });
        }
    }
}
