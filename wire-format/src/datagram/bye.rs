//! BYE: leaving.

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
