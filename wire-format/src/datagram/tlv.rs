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
//! | 14 | CODE | text | 1 to 16 bytes of clean text, for display only |
//! | 0x80FF | AUTH | key id 2, algorithm 1, tag length 1, tag 16 | last; present if and only if flag AUTH is set |

use super::ack::Code;
use super::addr::Addrs;
use super::entry::{self, Auth, CodeRef, Firmware, Nonce, Status, StoreRef, TagsRef, TextRef};
use super::header::{self, Kind, Node};
use super::service::Services;
use crate::bytes::{Writer, u16_at, u32_at};
use crate::error::{EmitError, Fault, ParseError};

/// The types, without bit 15.
pub(super) mod number {
    pub(in super::super) const STORE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const SERVICES: u16 = 3;
    pub(in super::super) const ADDR: u16 = 4;
    pub(in super::super) const FIRMWARE: u16 = 5;
    pub(in super::super) const CAPS: u16 = 6;
    pub(in super::super) const ZONE: u16 = 7;
    pub(in super::super) const NONCE: u16 = 8;
    pub(in super::super) const STATUS: u16 = 9;
    pub(in super::super) const PAD: u16 = 10;
    pub(in super::super) const APP: u16 = 11;
    pub(in super::super) const PRIORITY: u16 = 12;
    pub(in super::super) const TAGS: u16 = 13;
    pub(in super::super) const CODE: u16 = 14;
    pub(in super::super) const AUTH: u16 = 0x00FF;
}

/// Bit 15 of a type: whoever does not know the number drops the datagram.
pub const CRITICAL: u16 = 0x8000;
/// Entries of one datagram: bounds the walk.
pub const COUNT_MAX: u32 = 32;
/// Bytes of APP.
pub const APP_MAX: usize = 128;
/// Everything stands on multiples of 4 bytes; type and length fill one such word.
const WORD: usize = 4;
/// Which bits of an entry's last word are padding, by the value's length modulo 4.
const PADDING: [u32; 4] = [0, 0xFFFF_FF00, 0xFFFF_0000, 0xFF00_0000];
/// Bytes of AUTH's value.
pub(super) const AUTH_LEN: usize = WORD + entry::TAG_LEN;
/// What AUTH's tag length must be.
const TAG_LEN: u8 = 16;
const _: () = assert!(TAG_LEN as usize == entry::TAG_LEN);

/// An arrived datagram whose header was right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened<'a> {
    fixed: &'a [u8; header::LEN],
    words: &'a [[u8; WORD]],
    /// Where the entries begin.
    start: usize,
}

impl<'a> Opened<'a> {
    /// Checks the header of the datagram `bytes`.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], kind: Kind) -> Result<Self, ParseError> {
        let (fixed, start) = header::check(bytes, kind)?;
        match bytes.as_chunks() {
            (words, []) => Ok(Self { fixed, words, start }),
            _ => Err(header::length_error()),
        }
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

    /// Bytes of the datagram.
    #[inline]
    pub(super) fn len(&self) -> u16 {
        header::total_len(self.fixed)
    }

    /// The entries as every sender writes them: in ascending order, each of its usual length.
    #[inline]
    pub(super) fn usual(&self) -> Usual<'a> {
        Usual { rest: self.words.get(self.start..).unwrap_or(&[]).as_flattened() }
    }

    /// Whether the last entry must be AUTH.
    #[inline]
    pub(super) fn has_auth(&self) -> bool {
        header::has_auth(self.fixed)
    }

    /// Walks over the entries and gives every known one to `take`, its number and its value. The kind uses it or not.
    #[inline]
    pub(super) fn each(
        &self,
        mut take: impl FnMut(u16, &'a [u8]) -> Result<(), Fault>,
    ) -> Result<(), ParseError> {
        let fixed = self.fixed;
        let mut rest = self.words.get(self.start..).unwrap_or(&[]);
        let (mut count, mut seen, mut auth) = (0_u32, 0_u32, None);
        while let Some((head, behind)) = rest.split_first() {
            // Errors count from the first byte of the datagram.
            let at = || self.words.len().wrapping_sub(behind.len()).wrapping_sub(1);
            let (number, len) = (u16_at::<0, WORD>(head), usize::from(u16_at::<2, WORD>(head)));
            let Some((padded, next)) = behind.split_at_checked(len.div_ceil(WORD)) else {
                return Err(error("TLV length", at(), Fault::Truncated));
            };
            let Some(value) = padded.as_flattened().get(..len) else {
                return Err(error("TLV length", at(), Fault::Truncated));
            };
            if let Some(last) = padded.last()
                && u32::from_le_bytes(*last) & PADDING[len & 3] != 0
            {
                return Err(error("TLV padding", at().wrapping_add(padded.len()), Fault::NotZero));
            }
            if let known @ number::STORE..=number::CODE = number & !CRITICAL {
                if seen >> known & 1 != 0 {
                    return Err(error(name(known), at(), Fault::Repeated));
                }
                seen |= 1 << known;
                if let Err(fault) = take(known, value) {
                    return Err(error(name(known), at(), fault));
                }
            } else if number & CRITICAL != 0 || number == number::AUTH {
                check_auth(number, at(), header::has_auth(fixed) && next.is_empty())?;
                auth = Some((at(), value));
            }
            count = count.wrapping_add(1);
            rest = next;
        }
        if count > COUNT_MAX {
            return Err(error("TLV", self.start, Fault::TooMany));
        }
        match auth {
            Some((at, value)) => take(number::AUTH, value).map_err(|fault| error("AUTH", at, fault)),
            None if header::has_auth(fixed) => Err(error("AUTH", self.words.len(), Fault::Missing)),
            None => Ok(()),
        }
    }
}

/// Entries in ascending order, asked for one type after the other: quicker than [`Opened::each`], which has to be ready for
/// anything. What is not as usual is not taken, and nothing behind it: whoever sees [`Usual::is_over`] say no reads the
/// datagram again the other way, which finds the fault if there is one.
#[derive(Debug)]
pub(super) struct Usual<'a> {
    /// A multiple of 4 bytes.
    rest: &'a [u8],
}

impl<'a> Usual<'a> {
    /// The value of the next entry, if it is of this type and in order.
    #[inline]
    pub(super) fn value(&mut self, number: u16) -> Option<&'a [u8]> {
        let (head, behind) = self.rest.split_first_chunk::<WORD>()?;
        let head = u32::from_le_bytes(*head);
        if head & 0xFFFF != u32::from(number) {
            return None;
        }
        let len = (head >> 16) as usize;
        let (value, padded) = behind.split_at_checked(len)?;
        let (padding, next) = padded.split_at_checked(len.wrapping_neg() % WORD)?;
        if padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        self.rest = next;
        Some(value)
    }

    /// The value of the next entry, if it is of this type and has `N` bytes, a multiple of 4.
    #[inline]
    pub(super) fn exact<const N: usize>(&mut self, number: u16) -> Option<&'a [u8; N]> {
        const { assert!(N.is_multiple_of(WORD)) };
        let (head, behind) = self.rest.split_first_chunk::<WORD>()?;
        let (value, next) = behind.split_first_chunk()?;
        if u32::from_le_bytes(*head) != u32::from(number) | const { (N as u32) << 16 } {
            return None;
        }
        self.rest = next;
        Some(value)
    }

    /// Whether everything was taken.
    #[inline]
    pub(super) const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }
}

/// AUTH must be announced by its flag and be the last entry; without its critical bit it would be a second form of the
/// same. Other critical entries are not known.
#[cold]
fn check_auth(number: u16, at: usize, auth_allowed: bool) -> Result<(), ParseError> {
    match number & !CRITICAL {
        number::AUTH if auth_allowed && number & CRITICAL != 0 => Ok(()),
        number::AUTH => Err(error("AUTH", at, Fault::Misplaced)),
        _ => Err(error("TLV", at, Fault::UnknownCritical)),
    }
}

/// `N` bytes.
#[inline]
fn exact<const N: usize>(value: &[u8]) -> Result<&[u8; N], Fault> {
    value.try_into().map_err(|_| Fault::Length)
}

/// The value of ZONE.
#[inline]
pub(super) fn u32_value(value: &[u8]) -> Result<u32, Fault> {
    exact(value).map(|bytes| u32::from_le_bytes(*bytes))
}

/// The value of CAPS.
#[inline]
pub(super) fn u64_value(value: &[u8]) -> Result<u64, Fault> {
    exact(value).map(|bytes| u64::from_le_bytes(*bytes))
}

/// The value of PRIORITY.
#[inline]
pub(super) fn u16_value(value: &[u8]) -> Result<u16, Fault> {
    exact(value).map(|bytes| u16::from_le_bytes(*bytes))
}

/// The value of FIRMWARE.
#[inline]
pub(super) fn firmware(value: &[u8]) -> Result<Firmware, Fault> {
    exact(value).map(firmware_of)
}

/// The value of FIRMWARE, of the right length.
#[inline]
pub(super) fn firmware_of(value: &[u8; 8]) -> Firmware {
    Firmware { version: u32_at::<0, 8>(value), build: u32_at::<4, 8>(value) }
}

/// The value of STATUS.
#[inline]
pub(super) fn status(value: &[u8]) -> Result<Status, Fault> {
    let &[code, retry_after_s, detail0, detail1] = exact(value)?;
    Ok(Status { code: Code(code), retry_after_s, detail: u16::from_le_bytes([detail0, detail1]) })
}

/// The value of NONCE.
#[inline]
pub(super) fn nonce(value: &[u8]) -> Result<Nonce, Fault> {
    Nonce::from_bytes(value).ok_or(Fault::Length)
}

/// PAD holds zeros.
#[inline]
pub(super) fn pad(value: &[u8]) -> Result<(), Fault> {
    if value.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(Fault::NotZero) }
}

/// The value of APP.
#[inline]
pub(super) const fn app(value: &[u8]) -> Result<&[u8], Fault> {
    if let 1..=APP_MAX = value.len() { Ok(value) } else { Err(Fault::Length) }
}

/// The value of AUTH.
#[inline]
pub(super) fn auth(value: &[u8]) -> Result<Auth<'_>, Fault> {
    let (&[key0, key1, algorithm, tag_len], tag) = value.split_first_chunk().ok_or(Fault::Length)?;
    if tag_len != TAG_LEN {
        return Err(Fault::Range);
    }
    Ok(Auth { key_id: u16::from_le_bytes([key0, key1]), algorithm, tag: exact(tag)? })
}

/// An error about what begins with the word `at`.
#[cold]
const fn error(field: &'static str, at: usize, fault: Fault) -> ParseError {
    ParseError::new(field, at.saturating_mul(WORD), fault)
}

/// The name of a known type, for errors.
const fn name(number: u16) -> &'static str {
    match number {
        number::STORE => "STORE",
        number::NAME => "NAME",
        number::SERVICES => "SERVICES",
        number::ADDR => "ADDR",
        number::FIRMWARE => "FIRMWARE",
        number::CAPS => "CAPS",
        number::ZONE => "ZONE",
        number::NONCE => "NONCE",
        number::STATUS => "STATUS",
        number::PAD => "PAD",
        number::APP => "APP",
        number::PRIORITY => "PRIORITY",
        number::TAGS => "TAGS",
        number::CODE => "CODE",
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
    pub(super) code: Option<CodeRef<'a>>,
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
        code: None,
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

    /// Writes the entries behind the header.
    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        self.emit_before_pad(writer);
        if self.pad_to != 0 {
            let mut counter = Writer::new(&mut []);
            self.emit_after_pad(&mut counter);
            let len = writer.len().saturating_add(counter.len());
            let missing = usize::from(self.pad_to).next_multiple_of(4).saturating_sub(len);
            if let Some(zeros) = missing.checked_sub(WORD) {
                put(writer, number::PAD, zeros, |writer| writer.zeros(zeros));
            }
        }
        self.emit_after_pad(writer);
    }

    fn emit_before_pad(&self, writer: &mut Writer<'_>) {
        if let Some(StoreRef { entity, code }) = self.store {
            put(writer, number::STORE, code.as_bytes().len().saturating_add(4), |writer| {
                writer.u32(entity);
                writer.bytes(code.as_bytes());
            });
        }
        if let Some(name) = self.name {
            bytes(writer, number::NAME, name.as_bytes());
        }
        if let Some(services) = &self.services {
            bytes(writer, number::SERVICES, services.as_bytes());
        }
        if let Some(addrs) = &self.addrs {
            bytes(writer, number::ADDR, addrs.as_bytes());
        }
        if let Some(Firmware { version, build }) = self.firmware {
            put(writer, number::FIRMWARE, 8, |writer| {
                writer.u32(version);
                writer.u32(build);
            });
        }
        if let Some(caps) = self.caps {
            bytes(writer, number::CAPS, &caps.to_le_bytes());
        }
        if let Some(zone) = self.zone {
            bytes(writer, number::ZONE, &zone.to_le_bytes());
        }
        if let Some(nonce) = &self.nonce {
            bytes(writer, number::NONCE, nonce.as_bytes());
        }
        if let Some(Status { code, retry_after_s, detail }) = self.status {
            put(writer, number::STATUS, 4, |writer| {
                writer.u8(code.0);
                writer.u8(retry_after_s);
                writer.u16(detail);
            });
        }
    }

    fn emit_after_pad(&self, writer: &mut Writer<'_>) {
        if let Some(app) = self.app {
            bytes(writer, number::APP, app);
        }
        if let Some(priority) = self.priority {
            bytes(writer, number::PRIORITY, &priority.to_le_bytes());
        }
        if let Some(tags) = &self.tags {
            bytes(writer, number::TAGS, tags.as_packed());
        }
        if let Some(code) = self.code {
            bytes(writer, number::CODE, code.as_bytes());
        }
        if let Some(Auth { key_id, algorithm, tag }) = &self.auth {
            put(writer, number::AUTH | CRITICAL, AUTH_LEN, |writer| {
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
