//! ACK: what became of an ANNOUNCE.

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
