//! BYE: leaving.
//!
//! A device sends it to its server, a server to everybody, twice. It is a hint: a device that answers a CHALLENGE stays
//! registered, whoever said goodbye in its name.
//!
//! ```text
//! device                                                server
//!   │── BYE (leaving) ──────────────────────────────────▶│
//!   │◀──────────────────────────── CHALLENGE (question) ─│  gone once nothing comes back
//! ```
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 44 | 2 | reason | 0 leaving, 1 restarting, 2 replaced; unknown ones are kept |
//! | 46 | 2 | retry after | seconds after which looking for the sender again makes sense, 0 unknown |
//! | 48 | – | STORE | the sender's store; without it nobody listens |
//! | – | – | AUTH | optional |

use super::entry::{Auth, StoreRef};
use super::header::{Kind, Node};
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, ParseError};

/// Why a node leaves. Unknown numbers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub u16);

impl Reason {
    /// For good, or nobody knows for how long.
    pub const LEAVING: Self = Self(0);
    /// Back soon; see `retry_after_s`.
    pub const RESTARTING: Self = Self(1);
    /// Another node takes its place.
    pub const REPLACED: Self = Self(2);
}

/// The last word of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye<'a> {
    /// Who leaves.
    pub from: Node,
    /// Why.
    pub reason: Reason,
    /// Seconds after which it makes sense to look for the sender again; 0 for unknown.
    pub retry_after_s: u16,
    /// Its store.
    pub store: Option<StoreRef<'a>>,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl<'a> Bye<'a> {
    /// Reads a BYE.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let opened = Opened::new(bytes, Kind::Bye)?;
        let (mut store, mut auth) = (None, None);
        opened.each(|number, value| {
            match number {
                number::STORE => store = Some(StoreRef::parse(value)?),
                number::AUTH => auth = Some(tlv::auth(value)?),
                _ => {}
            }
            Ok(())
        })?;
        let [reason0, reason1, retry0, retry1] = opened.aux().to_le_bytes();
        let reason = Reason(u16::from_le_bytes([reason0, reason1]));
        Ok(Self {
            from: opened.from(),
            reason,
            retry_after_s: u16::from_le_bytes([retry0, retry1]),
            store,
            auth,
        })
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self { from, reason, retry_after_s, store, auth } = *self;
        let [reason0, reason1] = reason.0.to_le_bytes();
        let [retry0, retry1] = retry_after_s.to_le_bytes();
        let aux = u32::from_le_bytes([reason0, reason1, retry0, retry1]);
        super::write(from, Kind::Bye, aux, &Tlvs { store, auth, ..Tlvs::NONE }, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{Datagram, samples};
    use crate::testing;

    #[test]
    fn golden_vector() {
        let store = samples::store();
        let bye = Bye {
            from: Node { broadcast_copy: true, ..samples::server() },
            reason: Reason::RESTARTING,
            retry_after_s: 20,
            store: Some((&store).into()),
            auth: None,
        };
        samples::check_vector("datagram BYE", &Datagram::Bye(bye));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(parts in samples::parts(), reason: u16, retry_after_s: u16) {
            let from = if parts.flag { parts.server } else { parts.device };
            let (reason, store, auth) = (Reason(reason), parts.store(), parts.auth());
            samples::check(&Datagram::Bye(Bye { from, reason, retry_after_s, store, auth }));
        }
    }
}
