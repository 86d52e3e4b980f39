//! ANNOUNCE: here I am.

use super::addr::Addrs;
use super::entry::{Auth, Firmware, Nonce, StoreRef, TagsRef, TextRef};
use super::header::{Kind, Node};
use super::service::Services;
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, Fault, ParseError};

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
        let opened = Opened::new(bytes, Kind::Announce)?;
        let len = opened.len();
        let mut announce = Self::without_entries(opened.from(), opened.aux());
        opened.each(|number, value| announce.take(number, value, len))?;
        Ok(announce)
    }

    #[inline]
    fn take(&mut self, number: u16, value: &'a [u8], len: u16) -> Result<(), Fault> {
        match number {
            number::STORE => self.store = Some(StoreRef::parse(value)?),
            number::NAME => self.name = Some(TextRef::parse(value)?),
            number::SERVICES => self.services = Some(Services::parse(value)?),
            number::ADDR => self.addrs = Some(Addrs::parse(value)?),
            number::FIRMWARE => self.firmware = Some(tlv::firmware(value)?),
            number::CAPS => self.caps = Some(tlv::u64_value(value)?),
            number::ZONE => self.zone = Some(tlv::u32_value(value)?),
            number::TAGS => self.tags = Some(TagsRef::parse(value)?),
            number::NONCE => self.nonce = Some(tlv::nonce(value)?),
            number::APP => self.app = Some(tlv::app(value)?),
            number::PAD => self.pad_to = tlv::pad(value).map(|()| len)?,
            number::AUTH => self.auth = Some(tlv::auth(value)?),
            _ => {}
        }
        Ok(())
    }

    #[inline]
    const fn without_entries(from: Node, answers: u32) -> Self {
        Self {
            from,
            answers,
            store: None,
            name: None,
            services: None,
            addrs: None,
            firmware: None,
            caps: None,
            zone: None,
            tags: None,
            nonce: None,
            app: None,
            pad_to: 0,
            auth: None,
        }
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
