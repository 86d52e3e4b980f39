//! CHALLENGE: are you alive, at this address, now?

use super::entry::{Auth, Nonce};
use super::header::{self, Kind, Node};
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, Fault, ParseError};

/// A question to an address, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// Who sends.
    pub from: Node,
    /// The answer; `false` for the question.
    pub answer: bool,
    /// The asker's cookie; the answer repeats it.
    pub nonce: Nonce,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl<'a> Challenge<'a> {
    /// Reads a CHALLENGE.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let opened = Opened::new(bytes, Kind::Challenge)?;
        let answer = match opened.aux() {
            0 => false,
            1 => true,
            _ => return Err(header::aux_error(Fault::Range)),
        };
        let (mut nonce, mut auth) = (None, None);
        opened.each(|number, value| {
            match number {
                number::NONCE => nonce = Some(tlv::nonce(value)?),
                number::AUTH => auth = Some(tlv::auth(value)?),
                _ => {}
            }
            Ok(())
        })?;
        let nonce = nonce.ok_or_else(|| ParseError::new("NONCE", bytes.len(), Fault::Missing))?;
        Ok(Self { from: opened.from(), answer, nonce, auth })
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self { from, answer, nonce, auth } = *self;
        let tlvs = Tlvs { nonce: Some(nonce), auth, ..Tlvs::NONE };
        super::write(from, Kind::Challenge, answer.into(), &tlvs, buffer)
    }
}
