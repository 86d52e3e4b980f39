//! The entries after a datagram's header: type, length, value, zeros up to a multiple of 4.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 2 | type | number in bits 0 to 14; bit 15 is "critical": whoever does not know the number drops the datagram |
//! | 2 | 2 | length | bytes of the value, padding not counted |
//! | 4 | – | value | by type |
//! | – | 0–3 | padding | zero, to a multiple of 4 |
//!
//! At most 32 entries, in any order but AUTH last; a known one stands once. A known one that
//! the kind does not use is skipped like an unknown one. Sent in ascending order, none critical but AUTH.
//!
//! | type | name | value | rule |
//! | --- | --- | --- | --- |
//! | 1 | STORE | legal entity 4, store code | code 1 to 32 bytes of clean text |
//! | 2 | NAME | text | 1 to 32 bytes of clean text, for display only |
//! | 3 | SERVICES | entries of 8 | 1 to 32 entries |
//! | 4 | ADDR | entries of 8 or 20 | 1 to 4 entries |
//! | 5 | FIRMWARE | version 4, build 4 | the product's numbers |
//! | 6 | CAPS | bits 8 | bit set, unknown bits kept |
//! | 7 | ZONE | zone 4 | the product's number |
//! | 8 | NONCE | bytes | 8 or 16 bytes |
//! | 9 | STATUS | code 1, retry after 1, detail 2 | seconds; see ACK |
//! | 10 | PAD | zeros | any length that fits |
//! | 11 | APP | bytes | 1 to 128 bytes, opaque |
//! | 12 | PRIORITY | priority 2 | lower wins |
//! | 13 | TAGS | packed tags | 1 to 48 bytes, at most 8 tags, none twice |
//! | 0x80FF | AUTH | key id 2, algorithm 1, tag length 1, tag 16 | last; present if and only if flag AUTH is set |

use super::ack::Code;
use super::addr::Addrs;
use super::entry::{self, Auth, Firmware, Nonce, Status, StoreRef, TagsRef, TextRef};
use super::header::{self, Kind, Node};
use super::service::Services;
use crate::bytes::{Writer, u16_at, u32_at};
use crate::error::{EmitError, Fault, ParseError};

mod kind {
    pub(super) const STORE: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const SERVICES: u16 = 3;
    pub(super) const ADDR: u16 = 4;
    pub(super) const FIRMWARE: u16 = 5;
    pub(super) const CAPS: u16 = 6;
    pub(super) const ZONE: u16 = 7;
    pub(super) const NONCE: u16 = 8;
    pub(super) const STATUS: u16 = 9;
    pub(super) const PAD: u16 = 10;
    pub(super) const APP: u16 = 11;
    pub(super) const PRIORITY: u16 = 12;
    pub(super) const TAGS: u16 = 13;
    pub(super) const AUTH: u16 = 0x80FF;
}

/// Bit 15 of a type: whoever does not know the number drops the datagram.
pub const CRITICAL: u16 = 0x8000;
/// Entries of one datagram: bounds the walk.
pub const COUNT_MAX: usize = 32;
/// Bytes of APP.
pub const APP_MAX: usize = 128;
/// Everything stands on multiples of 4 bytes; type and length fill one such word.
const WORD: usize = 4;
const AUTH_NUMBER: u16 = kind::AUTH & !CRITICAL;
/// Where [`Opened`] keeps AUTH, whose number is beyond its table.
const AUTH_SLOT: u16 = 15;
/// Bytes of AUTH's value.
const AUTH_LEN: usize = WORD + entry::TAG_LEN;
/// What AUTH's tag length must be.
const TAG_LEN: u8 = 16;
const _: () = assert!(TAG_LEN as usize == entry::TAG_LEN);
/// Which bits of an entry's last word are padding, by the value's length modulo 4.
const PADDING: [u32; 4] = [0, 0xFFFF_FF00, 0xFFFF_0000, 0xFF00_0000];

/// An arrived datagram: its header, and where its known entries stand. A kind reads those it uses; the others are
/// skipped like unknown ones. Filled in place, for moving it about costs more than reading the datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened<'a> {
    bytes: &'a [u8],
    fixed: &'a [u8; header::LEN],
    /// By number: the index of the value's first word and its length in bytes. AUTH is the last.
    spots: [(u16, u16); 16],
    /// By number: a bit for each that is there.
    seen: u16,
}

impl<'a> Opened<'a> {
    /// Nothing yet.
    #[inline]
    pub(super) const fn new() -> Self {
        Self { bytes: &[], fixed: &[0; header::LEN], spots: [(0, 0); 16], seen: 0 }
    }

    /// Checks the header of the datagram `bytes`, then walks over its entries, word by word.
    #[inline]
    pub(super) fn open(&mut self, bytes: &'a [u8], kind: Kind) -> Result<(), ParseError> {
        let (fixed, mut at) = header::check(bytes, kind)?;
        let auth = header::has_auth(fixed);
        let (words, rest) = bytes.as_chunks::<WORD>();
        let (mut seen, mut count) = (0_u16, 0_usize);
        while let Some(head) = words.get(at) {
            let (number, len) = (u16_at::<0, WORD>(head), u16_at::<2, WORD>(head));
            let last = at.wrapping_add(usize::from(len).div_ceil(WORD));
            let Some(last_word) = words.get(last) else {
                return Err(error("TLV length", at, Fault::Truncated));
            };
            if u32::from_le_bytes(*last_word) & PADDING[usize::from(len & 3)] != 0 {
                return Err(error("TLV padding", last, Fault::NotZero));
            }
            if count == COUNT_MAX {
                return Err(error("TLV", at, Fault::TooMany));
            }
            count = count.wrapping_add(1);
            let known = number & !CRITICAL;
            let next = last.wrapping_add(1);
            let slot = if let kind::STORE..=kind::TAGS = known {
                known
            } else if number & CRITICAL != 0 || number == AUTH_NUMBER {
                check_critical(number, at, auth && next == words.len())?;
                AUTH_SLOT
            } else {
                at = next;
                continue;
            };
            let bit = 1 << slot;
            if seen & bit != 0 {
                return Err(error(name(slot), at, Fault::Repeated));
            }
            seen |= bit;
            #[expect(clippy::cast_possible_truncation, reason = "at < words.len() <= DATAGRAM_MAX / WORD")]
            let spot = (at.wrapping_add(1) as u16, len);
            self.spots[usize::from(slot & 15)] = spot;
            at = next;
        }
        if !rest.is_empty() {
            return Err(error("TLV", words.len(), Fault::Truncated));
        }
        if auth && seen & (1 << AUTH_SLOT) == 0 {
            return Err(error("AUTH", words.len(), Fault::Missing));
        }
        (self.bytes, self.fixed, self.seen) = (bytes, fixed, seen);
        Ok(())
    }

    /// Who sends.
    #[inline]
    pub(super) fn from(&self) -> Node {
        header::node(self.fixed)
    }

    /// Meaning by kind.
    #[inline]
    pub(super) fn aux(&self) -> u32 {
        header::aux(self.fixed)
    }

    /// The value of the known entry `number` and its offset.
    #[inline]
    fn value(&self, number: u16) -> Option<(&'a [u8], usize)> {
        if self.seen & (1 << (number & 15)) == 0 {
            return None;
        }
        let (word, len) = self.spots[usize::from(number & 15)];
        let start = usize::from(word).wrapping_mul(WORD);
        Some((self.bytes.get(start..start.wrapping_add(usize::from(len)))?, start))
    }

    /// What `read` makes of the entry `number`, if there is one.
    #[inline]
    fn read<T>(
        &self,
        number: u16,
        read: impl FnOnce(&'a [u8]) -> Result<T, Fault>,
    ) -> Result<Option<T>, ParseError> {
        match self.value(number) {
            None => Ok(None),
            Some((value, start)) => match read(value) {
                Ok(value) => Ok(Some(value)),
                Err(fault) => Err(error(name(number), (start / WORD).wrapping_sub(1), fault)),
            },
        }
    }

    #[inline]
    pub(super) fn store(&self) -> Result<Option<StoreRef<'a>>, ParseError> {
        self.read(kind::STORE, StoreRef::parse)
    }

    #[inline]
    pub(super) fn name(&self) -> Result<Option<TextRef<'a>>, ParseError> {
        self.read(kind::NAME, TextRef::parse)
    }

    #[inline]
    pub(super) fn services(&self) -> Result<Option<Services<'a>>, ParseError> {
        self.read(kind::SERVICES, Services::parse)
    }

    #[inline]
    pub(super) fn addrs(&self) -> Result<Option<Addrs<'a>>, ParseError> {
        self.read(kind::ADDR, Addrs::parse)
    }

    #[inline]
    pub(super) fn firmware(&self) -> Result<Option<Firmware>, ParseError> {
        self.read(kind::FIRMWARE, |value| {
            let value = exact::<8>(value)?;
            Ok(Firmware { version: u32_at::<0, 8>(value), build: u32_at::<4, 8>(value) })
        })
    }

    #[inline]
    pub(super) fn caps(&self) -> Result<Option<u64>, ParseError> {
        self.read(kind::CAPS, |value| exact(value).map(|bytes| u64::from_le_bytes(*bytes)))
    }

    #[inline]
    pub(super) fn zone(&self) -> Result<Option<u32>, ParseError> {
        self.read(kind::ZONE, |value| exact(value).map(|bytes| u32::from_le_bytes(*bytes)))
    }

    #[inline]
    pub(super) fn nonce(&self) -> Result<Option<Nonce>, ParseError> {
        self.read(kind::NONCE, Nonce::parse)
    }

    #[inline]
    pub(super) fn status(&self) -> Result<Option<Status>, ParseError> {
        self.read(kind::STATUS, |value| {
            let &[code, retry_after_s, detail0, detail1] = exact(value)?;
            Ok(Status { code: Code(code), retry_after_s, detail: u16::from_le_bytes([detail0, detail1]) })
        })
    }

    /// The datagram's length if it holds PAD, otherwise 0: what it must be padded to, to come out the same.
    #[inline]
    pub(super) fn pad_to(&self) -> Result<u16, ParseError> {
        let zeros =
            |value: &[u8]| if value.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(Fault::NotZero) };
        Ok(self.read(kind::PAD, zeros)?.map_or(0, |()| u16::try_from(self.bytes.len()).unwrap_or(0)))
    }

    #[inline]
    pub(super) fn app(&self) -> Result<Option<&'a [u8]>, ParseError> {
        let limits =
            |value: &'a [u8]| if let 1..=APP_MAX = value.len() { Ok(value) } else { Err(Fault::Length) };
        self.read(kind::APP, limits)
    }

    #[inline]
    pub(super) fn priority(&self) -> Result<Option<u16>, ParseError> {
        self.read(kind::PRIORITY, |value| exact(value).map(|bytes| u16::from_le_bytes(*bytes)))
    }

    #[inline]
    pub(super) fn tags(&self) -> Result<Option<TagsRef<'a>>, ParseError> {
        self.read(kind::TAGS, TagsRef::parse)
    }

    #[inline]
    pub(super) fn auth(&self) -> Result<Option<Auth<'a>>, ParseError> {
        self.read(AUTH_SLOT, |value| {
            let (head, tag) = exact::<AUTH_LEN>(value)?.split_first_chunk::<WORD>().ok_or(Fault::Length)?;
            let tag = tag.first_chunk().ok_or(Fault::Length)?;
            match *head {
                [key0, key1, algorithm, TAG_LEN] => {
                    Ok(Auth { key_id: u16::from_le_bytes([key0, key1]), algorithm, tag })
                }
                _ => Err(Fault::Range),
            }
        })
    }
}

/// An error about what begins with the word `at`.
#[cold]
const fn error(field: &'static str, at: usize, fault: Fault) -> ParseError {
    ParseError::new(field, at.saturating_mul(WORD), fault)
}

/// AUTH is announced by its flag and the last entry. Other critical entries are not known.
#[cold]
fn check_critical(number: u16, at: usize, allowed: bool) -> Result<(), ParseError> {
    match number {
        kind::AUTH if allowed => Ok(()),
        // AUTH without its critical bit would be a second form of the same.
        kind::AUTH | AUTH_NUMBER => Err(error("AUTH", at, Fault::Misplaced)),
        _ => Err(error("TLV", at, Fault::UnknownCritical)),
    }
}

#[inline]
fn exact<const N: usize>(value: &[u8]) -> Result<&[u8; N], Fault> {
    value.try_into().map_err(|_| Fault::Length)
}

/// The name of a known type, for errors.
const fn name(number: u16) -> &'static str {
    match number {
        kind::STORE => "STORE",
        kind::NAME => "NAME",
        kind::SERVICES => "SERVICES",
        kind::ADDR => "ADDR",
        kind::FIRMWARE => "FIRMWARE",
        kind::CAPS => "CAPS",
        kind::ZONE => "ZONE",
        kind::NONCE => "NONCE",
        kind::STATUS => "STATUS",
        kind::PAD => "PAD",
        kind::APP => "APP",
        kind::PRIORITY => "PRIORITY",
        kind::TAGS => "TAGS",
        AUTH_SLOT => "AUTH",
        _ => "TLV",
    }
}

/// The entries of a datagram to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tlvs<'a> {
    pub(super) store: Option<StoreRef<'a>>,
    pub(super) name: Option<TextRef<'a>>,
    pub(super) services: Option<Services<'a>>,
    pub(super) addrs: Option<Addrs<'a>>,
    pub(super) firmware: Option<Firmware>,
    pub(super) caps: Option<u64>,
    pub(super) zone: Option<u32>,
    pub(super) nonce: Option<Nonce>,
    pub(super) status: Option<Status>,
    /// The datagram is padded to at least this length; 0 for no padding.
    pub(super) pad_to: u16,
    pub(super) app: Option<&'a [u8]>,
    pub(super) priority: Option<u16>,
    pub(super) tags: Option<TagsRef<'a>>,
    pub(super) auth: Option<Auth<'a>>,
}

impl Tlvs<'_> {
    /// No entry.
    pub(super) const NONE: Self = Self {
        store: None,
        name: None,
        services: None,
        addrs: None,
        firmware: None,
        caps: None,
        zone: None,
        nonce: None,
        status: None,
        pad_to: 0,
        app: None,
        priority: None,
        tags: None,
        auth: None,
    };

    /// What `parse` would refuse is not sent.
    pub(super) fn check(&self) -> Result<(), EmitError> {
        match self.app {
            Some([]) => Err(EmitError::Invalid { field: "APP" }),
            Some(app) if app.len() > APP_MAX => Err(EmitError::TooLarge { field: "APP", limit: APP_MAX }),
            _ => Ok(()),
        }
    }

    /// Bytes of the whole datagram, padding included.
    pub(super) fn emitted_len(&self) -> usize {
        let mut counter = Writer::new(&mut []);
        counter.zeros(header::LEN);
        self.emit(&mut counter);
        counter.len()
    }

    /// Writes the entries behind the header.
    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        self.emit_before_pad(writer);
        if self.pad_to != 0 {
            let mut counter = Writer::new(&mut []);
            self.emit_after_pad(&mut counter);
            let len = writer.len().saturating_add(counter.len());
            let missing = usize::from(self.pad_to).next_multiple_of(4).saturating_sub(len);
            if let Some(zeros) = missing.checked_sub(WORD) {
                put(writer, kind::PAD, zeros, |writer| writer.zeros(zeros));
            }
        }
        self.emit_after_pad(writer);
    }

    fn emit_before_pad(&self, writer: &mut Writer<'_>) {
        if let Some(StoreRef { entity, code }) = self.store {
            put(writer, kind::STORE, code.as_bytes().len().saturating_add(4), |writer| {
                writer.u32(entity);
                writer.bytes(code.as_bytes());
            });
        }
        if let Some(name) = self.name {
            bytes(writer, kind::NAME, name.as_bytes());
        }
        if let Some(services) = &self.services {
            bytes(writer, kind::SERVICES, services.as_bytes());
        }
        if let Some(addrs) = &self.addrs {
            bytes(writer, kind::ADDR, addrs.as_bytes());
        }
        if let Some(Firmware { version, build }) = self.firmware {
            put(writer, kind::FIRMWARE, 8, |writer| {
                writer.u32(version);
                writer.u32(build);
            });
        }
        if let Some(caps) = self.caps {
            bytes(writer, kind::CAPS, &caps.to_le_bytes());
        }
        if let Some(zone) = self.zone {
            bytes(writer, kind::ZONE, &zone.to_le_bytes());
        }
        if let Some(nonce) = &self.nonce {
            bytes(writer, kind::NONCE, nonce.as_bytes());
        }
        if let Some(Status { code, retry_after_s, detail }) = self.status {
            put(writer, kind::STATUS, 4, |writer| {
                writer.u8(code.0);
                writer.u8(retry_after_s);
                writer.u16(detail);
            });
        }
    }

    fn emit_after_pad(&self, writer: &mut Writer<'_>) {
        if let Some(app) = self.app {
            bytes(writer, kind::APP, app);
        }
        if let Some(priority) = self.priority {
            bytes(writer, kind::PRIORITY, &priority.to_le_bytes());
        }
        if let Some(tags) = &self.tags {
            bytes(writer, kind::TAGS, tags.as_packed());
        }
        if let Some(Auth { key_id, algorithm, tag }) = &self.auth {
            put(writer, kind::AUTH, AUTH_LEN, |writer| {
                writer.u16(*key_id);
                writer.u8(*algorithm);
                writer.u8(TAG_LEN);
                writer.bytes(*tag);
            });
        }
    }
}

/// One entry: type, length, what `value` writes, padding.
fn put(writer: &mut Writer<'_>, number: u16, len: usize, value: impl FnOnce(&mut Writer<'_>)) {
    writer.u16(number);
    writer.u16(u16::try_from(len).unwrap_or(u16::MAX));
    value(writer);
    writer.pad(4);
}

fn bytes(writer: &mut Writer<'_>, number: u16, value: &[u8]) {
    put(writer, number, value.len(), |writer| writer.bytes(value));
}
