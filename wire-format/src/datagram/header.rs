//! The 48 bytes every datagram on UDP 57854 begins with.
//!
//! Sent by both sides. Everything a receiver needs to drop a stranger's datagram stands here, at fixed places: whose
//! protocol, which store (as a fast filter), staging or not, who and since which boot.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | the bytes `TWLD` |
//! | 4 | 1 | version | major in the high nibble, 1; minor in the low one, any |
//! | 5 | 1 | kind | 1 SEEK, 2 BEACON, 3 ANNOUNCE, 4 ACK, 5 BYE, 6 CHALLENGE; others are refused |
//! | 6 | 1 | flags | 0x01 STAGING, 0x02 AUTH, 0x04 EPOCH_RANDOM, 0x08 BROADCAST_COPY, 0x10 RETRANSMIT, 0x20 WANT_ACK; 0xC0 sent as zero, ignored on receipt |
//! | 7 | 1 | header words | length of the header divided by 4, at least 12; sent as 12, the words after the 12th are skipped |
//! | 8 | 2 | total length | bytes of the whole datagram; a multiple of 4, at most 1,200, equal to what arrived |
//! | 10 | 2 | role | the sender's device kind; 0xFFFF is the store server |
//! | 12 | 4 | scope | hash of legal entity and store code; 0 not provisioned |
//! | 16 | 16 | node id | never all zero |
//! | 32 | 4 | boot epoch | rises at each boot; random with EPOCH_RANDOM |
//! | 36 | 4 | sequence | rises with each datagram of one boot, one count for all kinds and interfaces |
//! | 40 | 2 | port | device: its push port; server: its HTTP base port |
//! | 42 | 2 | lease | seconds this statement stays valid |
//! | 44 | 4 | aux | meaning by kind |

use core::fmt;

use crate::bytes::{Writer, bytes16_at, id_at, put_bytes16, put_u8, put_u16, put_u32, u8_at, u16_at, u32_at};
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::{DeviceKind, NodeId};

mod field {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 4;
    pub(super) const KIND: usize = 5;
    pub(super) const FLAGS: usize = 6;
    pub(super) const HEADER_WORDS: usize = 7;
    pub(super) const TOTAL_LENGTH: usize = 8;
    pub(super) const ROLE: usize = 10;
    pub(super) const SCOPE: usize = 12;
    pub(super) const NODE_ID: usize = 16;
    pub(super) const BOOT_EPOCH: usize = 32;
    pub(super) const SEQUENCE: usize = 36;
    pub(super) const PORT: usize = 40;
    pub(super) const LEASE: usize = 42;
    pub(super) const AUX: usize = 44;
}

/// Bytes of a header as this version sends it.
pub const LEN: usize = 48;
/// Bytes of the largest datagram sent or accepted: it crosses every LAN and VPN in one piece, so nothing is fragmented.
pub const DATAGRAM_MAX: usize = 1_200;
/// What every datagram begins with.
pub const MAGIC: [u8; 4] = *b"TWLD";
/// The version this code sends: major 1, minor 0.
pub const VERSION: u8 = 0x10;
const MAJOR_MASK: u8 = 0xF0;
/// Words of 4 bytes in a header of this version.
const WORDS: usize = LEN / 4;
const _: () = assert!(field::AUX + 4 == LEN && LEN.is_multiple_of(4));
const _: () = assert!(DATAGRAM_MAX.is_multiple_of(4), "every entry ends on a multiple of 4");

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// 1, device to LAN: is there a server for my store?
    Seek = 1,
    /// 2, server to LAN: who serves this store.
    Beacon = 2,
    /// 3, device to server: here I am.
    Announce = 3,
    /// 4, server to device: what became of an announce.
    Ack = 4,
    /// 5, either side: leaving.
    Bye = 5,
    /// 6, either side: are you alive, at this address, now?
    Challenge = 6,
}

impl Kind {
    /// Every kind of this version.
    pub const ALL: [Self; 6] =
        [Self::Seek, Self::Beacon, Self::Announce, Self::Ack, Self::Bye, Self::Challenge];

    /// The kind with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Seek),
            2 => Some(Self::Beacon),
            3 => Some(Self::Announce),
            4 => Some(Self::Ack),
            5 => Some(Self::Bye),
            6 => Some(Self::Challenge),
            _ => None,
        }
    }

    /// Its name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seek => "SEEK",
            Self::Beacon => "BEACON",
            Self::Announce => "ANNOUNCE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Challenge => "CHALLENGE",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The flag bits of a datagram header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The sender belongs to a test installation. Staging and production never talk.
    pub const STAGING: Self = Self(0x01);
    /// The last TLV is AUTH.
    pub const AUTH: Self = Self(0x02);
    /// The sender keeps no epoch across boots and draws a random one.
    pub const EPOCH_RANDOM: Self = Self(0x04);
    /// The sender sent this copy as a broadcast.
    pub const BROADCAST_COPY: Self = Self(0x08);
    /// The sender sent this before and saw no answer.
    pub const RETRANSMIT: Self = Self(0x10);
    /// The sender waits for an ACK.
    pub const WANT_ACK: Self = Self(0x20);
    const KNOWN: u8 = 0x3F;

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self`, with `other` if `on`.
    #[must_use]
    pub const fn with_if(self, other: Self, on: bool) -> Self {
        if on { self.with(other) } else { self }
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits as on the wire; the reserved ones are zero.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// Who sends: the part of the header that means the same in every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who it is; never all zero.
    pub id: NodeId,
    /// What it is; [`DeviceKind::SERVER`] for the store server.
    pub role: DeviceKind,
    /// The store's fast filter (`ids::Store::scope`), 0 while not provisioned.
    pub scope: u32,
    /// Rises at each boot of this node.
    pub epoch: u32,
    /// `epoch` is random: the node keeps nothing across boots, and only "different" means something.
    pub epoch_random: bool,
    /// Rises with each datagram of this boot.
    pub sequence: u32,
    /// Belongs to a test installation.
    pub staging: bool,
    /// Device: the TCP port where it listens for orders. Server: its HTTP base port.
    pub port: u16,
    /// Seconds this statement stays valid, as the sender wishes; receivers clamp it.
    pub lease_s: u16,
    /// This copy was sent as a broadcast.
    pub broadcast_copy: bool,
    /// Sent before without an answer.
    pub retransmit: bool,
    /// The sender waits for an ACK.
    pub want_ack: bool,
}

impl Node {
    /// A node of this id and role: every number zero, every flag off.
    #[must_use]
    pub const fn new(id: NodeId, role: DeviceKind) -> Self {
        Self {
            id,
            role,
            scope: 0,
            epoch: 0,
            epoch_random: false,
            sequence: 0,
            staging: false,
            port: 0,
            lease_s: 0,
            broadcast_copy: false,
            retransmit: false,
            want_ack: false,
        }
    }

    /// Whether this is a store server.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        self.role.0 == DeviceKind::SERVER.0
    }

    const fn flags(&self) -> Flags {
        Flags::NONE
            .with_if(Flags::STAGING, self.staging)
            .with_if(Flags::EPOCH_RANDOM, self.epoch_random)
            .with_if(Flags::BROADCAST_COPY, self.broadcast_copy)
            .with_if(Flags::RETRANSMIT, self.retransmit)
            .with_if(Flags::WANT_ACK, self.want_ack)
    }
}

/// A datagram header whose magic, version, length and node id were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who sends.
    pub from: Node,
    /// What for.
    pub kind: Kind,
    /// The last TLV must be AUTH.
    pub auth: bool,
    /// Bytes of this header, 48 or more: where the TLVs begin. Sent as 48.
    pub header_len: usize,
    /// Bytes of the whole datagram, at most 1,200.
    pub len: usize,
    /// Meaning by kind.
    pub aux: u32,
}

/// The kind of a datagram that is ours, speaks our major version and arrived whole. Reads 10 bytes, so that routing
/// and dropping strangers costs nothing more.
#[inline]
pub fn peek(bytes: &[u8]) -> Result<Kind, ParseError> {
    let fixed = fixed_part(bytes)?;
    Kind::new(u8_at::<{ field::KIND }, LEN>(fixed)).ok_or_else(|| kind_error(fixed))
}

#[inline]
fn fixed_part(bytes: &[u8]) -> Result<&[u8; LEN], ParseError> {
    let error = |field, at, fault| Err(ParseError::new(field, at, fault));
    let Some(fixed) = bytes.first_chunk::<LEN>() else {
        return error("header", bytes.len(), Fault::Truncated);
    };
    if u32_at::<{ field::MAGIC }, LEN>(fixed) != u32::from_le_bytes(MAGIC) {
        return error("magic", field::MAGIC, Fault::Mismatch);
    }
    if u8_at::<{ field::VERSION }, LEN>(fixed) & MAJOR_MASK != VERSION & MAJOR_MASK {
        return error("version", field::VERSION, Fault::Version);
    }
    if usize::from(u16_at::<{ field::TOTAL_LENGTH }, LEN>(fixed)) != bytes.len() {
        return error("total length", field::TOTAL_LENGTH, Fault::Length);
    }
    if bytes.len() > DATAGRAM_MAX {
        return error("total length", field::TOTAL_LENGTH, Fault::Range);
    }
    Ok(fixed)
}

/// The kind is unknown, or known and not the one that was asked for.
#[cold]
fn kind_error(fixed: &[u8; LEN]) -> ParseError {
    let known = Kind::new(u8_at::<{ field::KIND }, LEN>(fixed)).is_some();
    ParseError::new("kind", field::KIND, if known { Fault::Misplaced } else { Fault::UnknownKind })
}

/// The fixed part and the length in words of the header of a datagram of this kind.
#[inline]
pub(super) fn check(bytes: &[u8], kind: Kind) -> Result<(&[u8; LEN], usize), ParseError> {
    let error = |field, at, fault| Err(ParseError::new(field, at, fault));
    let fixed = fixed_part(bytes)?;
    if u8_at::<{ field::KIND }, LEN>(fixed) != kind as u8 {
        return Err(kind_error(fixed));
    }
    let words = usize::from(u8_at::<{ field::HEADER_WORDS }, LEN>(fixed));
    if words < WORDS || words > bytes.len() / 4 {
        return error("header words", field::HEADER_WORDS, Fault::Range);
    }
    if id_at::<{ field::NODE_ID }, LEN>(fixed) == 0 {
        return error("node id", field::NODE_ID, Fault::Range);
    }
    if !side_allowed(kind, DeviceKind(u16_at::<{ field::ROLE }, LEN>(fixed))) {
        return error("role", field::ROLE, Fault::Misplaced);
    }
    Ok((fixed, words))
}

/// Whether the last TLV must be AUTH.
#[inline]
pub(super) fn has_auth(fixed: &[u8; LEN]) -> bool {
    Flags(u8_at::<{ field::FLAGS }, LEN>(fixed)).contains(Flags::AUTH)
}

/// Bytes of the whole datagram.
#[inline]
pub(super) fn total_len(fixed: &[u8; LEN]) -> u16 {
    u16_at::<{ field::TOTAL_LENGTH }, LEN>(fixed)
}

/// The aux field.
#[inline]
pub(super) fn aux(fixed: &[u8; LEN]) -> u32 {
    u32_at::<{ field::AUX }, LEN>(fixed)
}

/// Who sends.
#[inline]
pub(super) fn node(fixed: &[u8; LEN]) -> Node {
    let flags = Flags(u8_at::<{ field::FLAGS }, LEN>(fixed) & Flags::KNOWN);
    Node {
        id: NodeId(bytes16_at::<{ field::NODE_ID }, LEN>(fixed)),
        role: DeviceKind(u16_at::<{ field::ROLE }, LEN>(fixed)),
        scope: u32_at::<{ field::SCOPE }, LEN>(fixed),
        epoch: u32_at::<{ field::BOOT_EPOCH }, LEN>(fixed),
        epoch_random: flags.contains(Flags::EPOCH_RANDOM),
        sequence: u32_at::<{ field::SEQUENCE }, LEN>(fixed),
        staging: flags.contains(Flags::STAGING),
        port: u16_at::<{ field::PORT }, LEN>(fixed),
        lease_s: u16_at::<{ field::LEASE }, LEN>(fixed),
        broadcast_copy: flags.contains(Flags::BROADCAST_COPY),
        retransmit: flags.contains(Flags::RETRANSMIT),
        want_ack: flags.contains(Flags::WANT_ACK),
    }
}

impl Header {
    /// Reads the header of the datagram `bytes`: whether it is ours first, then its length, kind and values.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let kind = peek(bytes)?;
        let (fixed, words) = check(bytes, kind)?;
        let (auth, header_len) = (has_auth(fixed), words.wrapping_mul(4));
        Ok(Self { from: node(fixed), kind, auth, header_len, len: bytes.len(), aux: aux(fixed) })
    }

    /// The 48 bytes, in this version's form: no extra words, reserved bits zero.
    #[must_use]
    pub fn emit(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let Node { id, role, scope, epoch, sequence, port, lease_s, .. } = self.from;
        let flags = self.from.flags().with_if(Flags::AUTH, self.auth);
        put_u32::<{ field::MAGIC }, LEN>(&mut bytes, u32::from_le_bytes(MAGIC));
        put_u8::<{ field::VERSION }, LEN>(&mut bytes, VERSION);
        put_u8::<{ field::KIND }, LEN>(&mut bytes, self.kind as u8);
        put_u8::<{ field::FLAGS }, LEN>(&mut bytes, flags.bits());
        put_u8::<{ field::HEADER_WORDS }, LEN>(&mut bytes, 12);
        put_u16::<{ field::TOTAL_LENGTH }, LEN>(&mut bytes, u16::try_from(self.len).unwrap_or(u16::MAX));
        put_u16::<{ field::ROLE }, LEN>(&mut bytes, role.0);
        put_u32::<{ field::SCOPE }, LEN>(&mut bytes, scope);
        put_bytes16::<{ field::NODE_ID }, LEN>(&mut bytes, id.0);
        put_u32::<{ field::BOOT_EPOCH }, LEN>(&mut bytes, epoch);
        put_u32::<{ field::SEQUENCE }, LEN>(&mut bytes, sequence);
        put_u16::<{ field::PORT }, LEN>(&mut bytes, port);
        put_u16::<{ field::LEASE }, LEN>(&mut bytes, lease_s);
        put_u32::<{ field::AUX }, LEN>(&mut bytes, self.aux);
        bytes
    }

    /// What `parse` would refuse is not sent.
    pub(super) fn check(&self) -> Result<(), EmitError> {
        if self.from.id.is_none() {
            Err(EmitError::Invalid { field: "node id" })
        } else if !side_allowed(self.kind, self.from.role) {
            Err(EmitError::Invalid { field: "role" })
        } else {
            Ok(())
        }
    }
}

/// Puts the length of the whole datagram, now that it is known, into the header at its beginning.
pub(super) fn patch_len(writer: &mut Writer<'_>) -> Result<(), EmitError> {
    match u16::try_from(writer.len()) {
        Ok(len) if writer.len() <= DATAGRAM_MAX => {
            writer.patch(field::TOTAL_LENGTH, &len.to_le_bytes());
            Ok(())
        }
        _ => Err(EmitError::TooLarge { field: "total length", limit: DATAGRAM_MAX }),
    }
}

/// The length is not a multiple of 4.
#[cold]
pub(super) const fn length_error() -> ParseError {
    ParseError::new("total length", field::TOTAL_LENGTH, Fault::Length)
}

/// An error about the aux field.
pub(super) const fn aux_error(fault: Fault) -> ParseError {
    ParseError::new("aux", field::AUX, fault)
}

/// SEEK and ANNOUNCE come from devices, BEACON and ACK from servers, BYE and CHALLENGE from both.
#[inline]
fn side_allowed(kind: Kind, role: DeviceKind) -> bool {
    match kind {
        Kind::Seek | Kind::Announce => role != DeviceKind::SERVER,
        Kind::Beacon | Kind::Ack => role == DeviceKind::SERVER,
        Kind::Bye | Kind::Challenge => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn refused(change: impl FnOnce(&mut Vec<u8>), field: &'static str, offset: usize, fault: Fault) {
        let mut bytes = testing::vector("datagram SEEK");
        change(&mut bytes);
        assert_eq!(Header::parse(&bytes), Err(ParseError::new(field, offset, fault)));
    }

    #[test]
    fn strangers_are_told_apart_in_this_order() {
        refused(|bytes| bytes.truncate(47), "header", 47, Fault::Truncated);
        refused(|bytes| bytes[0] = b'M', "magic", 0, Fault::Mismatch);
        refused(|bytes| bytes[4] = 0x20, "version", 4, Fault::Version);
        refused(|bytes| bytes[4] = 0x00, "version", 4, Fault::Version);
        refused(|bytes| bytes.push(0), "total length", 8, Fault::Length);
        refused(|bytes| bytes[8] += 1, "total length", 8, Fault::Length);
        refused(|bytes| bytes[5] = 7, "kind", 5, Fault::UnknownKind);
        refused(|bytes| bytes[7] = 11, "header words", 7, Fault::Range);
        refused(|bytes| bytes[7] = 26, "header words", 7, Fault::Range);
        refused(|bytes| bytes[16..32].fill(0), "node id", 16, Fault::Range);
        refused(|bytes| bytes[10..12].fill(0xFF), "role", 10, Fault::Misplaced);
    }

    #[test]
    fn later_minor_versions_and_reserved_flags_are_read() {
        let bytes = testing::vector("datagram SEEK");
        let header = Header::parse(&bytes).unwrap();
        for minor in 1..16 {
            let mut later = bytes.clone();
            (later[4], later[6]) = (0x10 | minor, later[6] | 0xC0);
            assert_eq!(Header::parse(&later), Ok(header));
        }
    }

    #[test]
    fn a_header_that_fills_the_datagram() {
        let mut bytes = testing::vector("datagram SEEK");
        bytes[7] = 25;
        assert_eq!(Header::parse(&bytes).map(|header| header.header_len), Ok(100));
    }

    #[test]
    fn every_flag_has_its_bit() {
        let node = Node::new(NodeId([1; 16]), DeviceKind::TILL);
        for (node, bits) in [
            (node, 0x00),
            (Node { staging: true, ..node }, 0x01),
            (Node { epoch_random: true, ..node }, 0x04),
            (Node { broadcast_copy: true, ..node }, 0x08),
            (Node { retransmit: true, ..node }, 0x10),
            (Node { want_ack: true, ..node }, 0x20),
        ] {
            let header =
                Header { from: node, kind: Kind::Challenge, auth: false, header_len: LEN, len: LEN, aux: 1 };
            assert_eq!(header.emit()[6], bits);
            assert_eq!(Header::parse(&header.emit()), Ok(header));
            let auth = Header { auth: true, ..header };
            assert_eq!(auth.emit()[6], bits | 0x02);
            assert_eq!(Header::parse(&auth.emit()), Ok(auth));
        }
    }
}
