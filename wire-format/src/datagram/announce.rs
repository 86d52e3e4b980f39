//! ANNOUNCE: here I am.

use super::addr::Addrs;
use super::entry::{Auth, Firmware, Nonce, StoreRef, TagsRef, TextRef};
use super::header::{Kind, Node};
use super::service::Services;
use super::tlv::{Opened, Tlvs};
use crate::error::{EmitError, ParseError};

/// A device's statement to its server: registration, refresh, change. Always complete: what is absent does not hold
/// any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce<'a> {
    /// The device; `port` is where it listens for orders.
    pub from: Node,
    /// `Beacon::token` of the BEACON it answers, 0 if nobody asked.
    pub answers: u32,
    /// Its store.
    pub store: Option<StoreRef<'a>>,
    /// Its display name.
    pub name: Option<TextRef<'a>>,
    /// What it offers.
    pub services: Option<Services<'a>>,
    /// Where it can be reached; believed only under a MAC.
    pub addrs: Option<Addrs<'a>>,
    /// What runs on it.
    pub firmware: Option<Firmware>,
    /// Its capabilities.
    pub caps: Option<u64>,
    /// Where it stands.
    pub zone: Option<u32>,
    /// Its tags.
    pub tags: Option<TagsRef<'a>>,
    /// Comes back in the ACK.
    pub nonce: Option<Nonce>,
    /// Opaque, 1 to 128 bytes.
    pub app: Option<&'a [u8]>,
    /// Padded to at least this many bytes, as in SEEK; 0 for no padding.
    pub pad_to: u16,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl<'a> Announce<'a> {
    /// Reads an ANNOUNCE.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut opened = Opened::new();
        opened.open(bytes, Kind::Announce)?;
        Ok(Self {
            from: opened.from(),
            answers: opened.aux(),
            store: opened.store()?,
            name: opened.name()?,
            services: opened.services()?,
            addrs: opened.addrs()?,
            firmware: opened.firmware()?,
            caps: opened.caps()?,
            zone: opened.zone()?,
            tags: opened.tags()?,
            nonce: opened.nonce()?,
            app: opened.app()?,
            pad_to: opened.pad_to()?,
            auth: opened.auth()?,
        })
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let tlvs = Tlvs {
            store: self.store,
            name: self.name,
            services: self.services,
            addrs: self.addrs,
            firmware: self.firmware,
            caps: self.caps,
            zone: self.zone,
            tags: self.tags,
            nonce: self.nonce,
            app: self.app,
            pad_to: self.pad_to,
            auth: self.auth,
            ..Tlvs::NONE
        };
        super::write(self.from, Kind::Announce, self.answers, &tlvs, buffer)
    }
}
