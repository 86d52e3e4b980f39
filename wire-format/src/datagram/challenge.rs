//! CHALLENGE: are you alive, at this address, now?
//!
//! Either side asks with bytes nobody can guess and believes the answer that repeats them. The answer is as long as the
//! question, and goes where the question came from.
//!
//! ```text
//! server                                                device
//!   │── CHALLENGE (question, nonce n) ──────────────────▶│
//!   │◀─────────────────────── CHALLENGE (answer, nonce n)│
//! ```
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 44 | 4 | aux | 0 question, 1 answer; others are refused |
//! | 48 | – | NONCE | required; the answer repeats that of the question |
//! | – | – | AUTH | optional |

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{Datagram, samples};
    use crate::testing;

    #[test]
    fn golden_vector() {
        let nonce = Nonce::Long(*b"unguessable 16 B");
        let challenge = Challenge { from: samples::server(), answer: false, nonce, auth: None };
        samples::check_vector("datagram CHALLENGE", &Datagram::Challenge(challenge));
    }

    #[test]
    fn neither_question_nor_answer() {
        let mut bytes = testing::vector("datagram CHALLENGE");
        bytes[44] = 2;
        assert_eq!(Challenge::parse(&bytes), Err(ParseError::new("aux", 44, Fault::Range)));
    }

    #[test]
    fn a_nonce_has_8_or_16_bytes() {
        let bare = samples::with_length(testing::vector("datagram CHALLENGE")[..48].to_vec());
        assert_eq!(Challenge::parse(&bare), Err(ParseError::new("NONCE", 48, Fault::Missing)));
        for len in 0..=17 {
            let parsed = Challenge::parse(&samples::with_entry(&bare, 8, &[7; 17][..len])).map(|_| ());
            let wrong = Err(ParseError::new("NONCE", 48, Fault::Length));
            assert_eq!(parsed, if len == 8 || len == 16 { Ok(()) } else { wrong }, "{len}");
        }
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(parts in samples::parts()) {
            let from = if parts.flag { parts.server } else { parts.device };
            let nonce = parts.nonce.unwrap_or(Nonce::Short([0; 8]));
            samples::check(&Datagram::Challenge(Challenge { from, answer: parts.aux & 1 == 1, nonce, auth: parts.auth() }));
        }
    }
}
