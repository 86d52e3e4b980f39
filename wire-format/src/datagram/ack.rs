//! ACK: what became of an ANNOUNCE.
//!
//! The server sends it to the address the ANNOUNCE came from, once for each ANNOUNCE, and never longer than that was.
//!
//! ```text
//! device                                                server
//!   │── ANNOUNCE (sequence 5, nonce n) ─────────────────▶│
//!   │◀─────────────────────────── ACK (5, n, ok, lease) ─│
//! ```
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 10 | 2 | role | 0xFFFF |
//! | 42 | 2 | lease | seconds the registration lasts |
//! | 44 | 4 | announce sequence | sequence of the ANNOUNCE |
//! | 48 | – | NONCE | that of the ANNOUNCE, if it had one |
//! | – | – | STATUS | required |
//! | – | – | AUTH | optional |

use core::fmt;

use super::entry::{Auth, Nonce, Status};
use super::header::{Kind, Node};
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, Fault, ParseError};

/// The result of an announce. Unknown numbers are kept: a device treats them like [`Code::BUSY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
            /// Every code of this version and its name.
            pub const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

codes! {
    /// Registered.
    OK = 0, "ok";
    /// The server serves another store.
    WRONG_STORE = 1, "wrong-store";
    /// One is staging, the other production.
    STAGING_MISMATCH = 2, "staging-mismatch";
    /// Another live device has this id.
    DUPLICATE_ID = 3, "duplicate-id";
    /// Not now; see `retry_after_s`.
    BUSY = 4, "busy";
    /// The server takes announces with a MAC only.
    AUTH_REQUIRED = 5, "auth-required";
    /// The server does not speak this version.
    VERSION = 6, "version";
    /// The roster is full.
    ROSTER_FULL = 7, "roster-full";
    /// The server does not know the key.
    UNKNOWN_KEY = 8, "unknown-key";
}

/// The server's answer to an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The server; `lease_s` is the lease it grants.
    pub from: Node,
    /// `sequence` of the ANNOUNCE.
    pub announce_sequence: u32,
    /// What became of it.
    pub status: Status,
    /// The announce's nonce.
    pub nonce: Option<Nonce>,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl<'a> Ack<'a> {
    /// Reads an ACK.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let opened = Opened::new(bytes, Kind::Ack)?;
        let (mut status, mut nonce, mut auth) = (None, None, None);
        opened.each(|number, value| {
            match number {
                number::STATUS => status = Some(tlv::status(value)?),
                number::NONCE => nonce = Some(tlv::nonce(value)?),
                number::AUTH => auth = Some(tlv::auth(value)?),
                _ => {}
            }
            Ok(())
        })?;
        let status = status.ok_or_else(|| ParseError::new("STATUS", bytes.len(), Fault::Missing))?;
        Ok(Self { from: opened.from(), announce_sequence: opened.aux(), status, nonce, auth })
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self { from, announce_sequence, status, nonce, auth } = *self;
        let tlvs = Tlvs { status: Some(status), nonce, auth, ..Tlvs::NONE };
        super::write(from, Kind::Ack, announce_sequence, &tlvs, buffer)
    }
}

impl Code {
    /// A stable lower-case word for logs; `unknown` for numbers of later versions.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(code, _)| *code == self).map_or("unknown", |(_, name)| name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(code, _)| code == self) {
            Some((_, name)) => f.pad(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{Datagram, samples};
    use crate::testing;

    fn ack() -> Ack<'static> {
        Ack {
            from: samples::server(),
            announce_sequence: 0x0102_0304,
            status: Status { code: Code::BUSY, retry_after_s: 5, detail: 0 },
            nonce: Some(Nonce::Short(*b"a nonce!")),
            auth: None,
        }
    }

    #[test]
    fn golden_vector() {
        samples::check_vector("datagram ACK", &Datagram::Ack(ack()));
    }

    #[test]
    fn an_ack_says_something() {
        let bytes = samples::with_length(testing::vector("datagram ACK")[..48].to_vec());
        assert_eq!(Ack::parse(&bytes), Err(ParseError::new("STATUS", 48, Fault::Missing)));
        let bytes = samples::with_entry(&bytes, 9, &[0; 5]);
        assert_eq!(Ack::parse(&bytes), Err(ParseError::new("STATUS", 48, Fault::Length)));
    }

    #[test]
    fn devices_send_no_ack() {
        let ack = Ack { from: samples::device(), ..ack() };
        assert_eq!(ack.emit(&mut [0; 100]), Err(EmitError::Invalid { field: "role" }));
    }

    #[test]
    fn codes_have_names() {
        assert_eq!(Code::NAMES.len(), 9);
        for (at, (code, name)) in Code::NAMES.iter().enumerate() {
            assert_eq!((usize::from(code.0), code.name(), code.to_string().as_str()), (at, *name, *name));
        }
        assert_eq!((Code(9).name(), Code(9).to_string().as_str()), ("unknown", "9"));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(parts in samples::parts()) {
            let (status, nonce, auth) = (parts.status, parts.nonce, parts.auth());
            let ack = Ack { from: parts.server, announce_sequence: parts.aux, status, nonce, auth };
            samples::check(&Datagram::Ack(ack));
        }
    }
}
