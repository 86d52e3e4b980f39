//! The datagrams of discovery (UDP 57854): one file each, in the order of the specification's table.
//!
//! ```
//! use wire_format::datagram::{Datagram, Node, Seek};
//! use wire_format::ids::{DeviceKind, NodeId, Store};
//! let store = Store::new(7, "PARIS-12")?;
//! let from = Node { scope: store.scope(), ..Node::new(NodeId([1; 16]), DeviceKind::KIOSK) };
//! let seek = Seek { from, suppressed: 0, store: Some((&store).into()), name: None, pad_to: 256, auth: None };
//! let mut buffer = [0; 512];
//! let len = seek.emit(&mut buffer)?;
//! assert_eq!(len, 256);
//! assert_eq!(Datagram::parse(&buffer[..len])?, Datagram::Seek(seek));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod ack;
pub mod addr;
pub mod announce;
pub mod beacon;
pub mod bye;
pub mod challenge;
pub mod entry;
pub mod header;
#[cfg(test)]
mod samples;
pub mod seek;
pub mod service;
#[cfg(test)]
mod tests;
mod text;
pub mod tlv;

pub use ack::Ack;
pub use addr::{Addr, AddrList, Addrs};
pub use announce::Announce;
pub use beacon::Beacon;
pub use bye::Bye;
pub use challenge::Challenge;
pub use entry::{Auth, CodeRef, Firmware, Nonce, Status, StoreRef, TagsRef, TextRef};
pub use header::{DATAGRAM_MAX, Header, Kind, Node, peek};
pub use seek::Seek;
pub use service::{Service, ServiceList, Services};
use tlv::Tlvs;

use crate::bytes::Writer;
use crate::error::{EmitError, ParseError};

/// The UDP port of discovery, on both sides.
pub const PORT: u16 = 57_854;

/// A datagram of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Device to LAN.
    Seek(Seek<'a>),
    /// Server to LAN.
    Beacon(Beacon<'a>),
    /// Device to server.
    Announce(Announce<'a>),
    /// Server to device.
    Ack(Ack<'a>),
    /// Either side.
    Bye(Bye<'a>),
    /// Either side.
    Challenge(Challenge<'a>),
}

impl<'a> Datagram<'a> {
    /// Reads one datagram as it arrived.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Ok(match peek(bytes)? {
            Kind::Seek => Self::Seek(Seek::parse(bytes)?),
            Kind::Beacon => Self::Beacon(Beacon::parse(bytes)?),
            Kind::Announce => Self::Announce(Announce::parse(bytes)?),
            Kind::Ack => Self::Ack(Ack::parse(bytes)?),
            Kind::Bye => Self::Bye(Bye::parse(bytes)?),
            Kind::Challenge => Self::Challenge(Challenge::parse(bytes)?),
        })
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        match self {
            Self::Seek(seek) => seek.emit(buffer),
            Self::Beacon(beacon) => beacon.emit(buffer),
            Self::Announce(announce) => announce.emit(buffer),
            Self::Ack(ack) => ack.emit(buffer),
            Self::Bye(bye) => bye.emit(buffer),
            Self::Challenge(challenge) => challenge.emit(buffer),
        }
    }

    /// Who sent it.
    #[must_use]
    pub const fn from(&self) -> &Node {
        match self {
            Self::Seek(Seek { from, .. })
            | Self::Beacon(Beacon { from, .. })
            | Self::Announce(Announce { from, .. })
            | Self::Ack(Ack { from, .. })
            | Self::Bye(Bye { from, .. })
            | Self::Challenge(Challenge { from, .. }) => from,
        }
    }

    /// Its MAC, if it has one.
    #[must_use]
    pub const fn auth(&self) -> Option<Auth<'a>> {
        match *self {
            Self::Seek(Seek { auth, .. })
            | Self::Beacon(Beacon { auth, .. })
            | Self::Announce(Announce { auth, .. })
            | Self::Ack(Ack { auth, .. })
            | Self::Bye(Bye { auth, .. })
            | Self::Challenge(Challenge { auth, .. }) => auth,
        }
    }

    /// What for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Seek(_) => Kind::Seek,
            Self::Beacon(_) => Kind::Beacon,
            Self::Announce(_) => Kind::Announce,
            Self::Ack(_) => Kind::Ack,
            Self::Bye(_) => Kind::Bye,
            Self::Challenge(_) => Kind::Challenge,
        }
    }
}

/// What the tag of an authenticated datagram covers (every byte before it), and the tag. Meant for bytes that were
/// parsed and had an `auth`, or were emitted with one.
#[must_use]
pub fn covered(datagram: &[u8]) -> Option<(&[u8], &[u8; entry::TAG_LEN])> {
    datagram.split_last_chunk()
}

/// Puts the tag `mac` gives for the bytes before it at the end of a datagram that was emitted with an `auth`.
pub fn seal(datagram: &mut [u8], mac: impl FnOnce(&[u8]) -> [u8; entry::TAG_LEN]) {
    if let Some((covered, tag)) = datagram.split_last_chunk_mut() {
        *tag = mac(covered);
    }
}

/// Writes header and entries; bytes written.
fn write(from: Node, kind: Kind, aux: u32, tlvs: &Tlvs<'_>, buffer: &mut [u8]) -> Result<usize, EmitError> {
    let header = Header { from, kind, auth: tlvs.auth.is_some(), header_len: header::LEN, len: 0, aux };
    header.check()?;
    tlvs.check()?;
    let mut writer = Writer::new(buffer);
    writer.bytes(&header.emit());
    tlvs.emit(&mut writer);
    header::patch_len(&mut writer)?;
    writer.finish()
}
