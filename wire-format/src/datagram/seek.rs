//! SEEK: is there a server for my store?

use super::entry::{Auth, StoreRef, TextRef};
use super::header::{Kind, Node};
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, ParseError};

/// The question of a device that knows no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek<'a> {
    /// The device.
    pub from: Node,
    /// SEEKs this device did not send since its last one, because it heard enough of others.
    pub suppressed: u32,
    /// The store it looks for; absent while not provisioned.
    pub store: Option<StoreRef<'a>>,
    /// Its display name.
    pub name: Option<TextRef<'a>>,
    /// The datagram is padded to at least this many bytes (at most 1,200; rounded up to a multiple of 4), so that the
    /// answer is no amplification; 0 for no padding. When read: the datagram's length if it holds PAD, otherwise 0.
    pub pad_to: u16,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl<'a> Seek<'a> {
    /// Reads a SEEK.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let opened = Opened::new(bytes, Kind::Seek)?;
        let (from, suppressed, len) = (opened.from(), opened.aux(), opened.len());
        let mut seek = Self { from, suppressed, store: None, name: None, pad_to: 0, auth: None };
        opened.each(|number, value| {
            match number {
                number::STORE => seek.store = Some(StoreRef::parse(value)?),
                number::NAME => seek.name = Some(TextRef::parse(value)?),
                number::PAD => seek.pad_to = tlv::pad(value).map(|()| len)?,
                number::AUTH => seek.auth = Some(tlv::auth(value)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(seek)
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self { from, suppressed, store, name, pad_to, auth } = *self;
        let tlvs = Tlvs { store, name, pad_to, auth, ..Tlvs::NONE };
        super::write(from, Kind::Seek, suppressed, &tlvs, buffer)
    }
}
