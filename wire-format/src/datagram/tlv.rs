//! The entries after a datagram's header: type, length, value, zeros up to a multiple of 4.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 2 | type | number in bits 0 to 14; bit 15 is "critical": whoever does not know the number drops the datagram |
//! | 2 | 2 | length | bytes of the value, padding not counted |
//! | 4 | – | value | by type |
//! | – | 0–3 | padding | zero, to a multiple of 4 |
//!
//! At most 32 entries, in any order but AUTH last; a known one stands once. Known ones are checked whether the kind
//! uses them or not. Sent in ascending order, none critical but AUTH.
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
use super::entry::{Auth, Firmware, Nonce, Status, StoreRef, TagsRef, TextRef};
use super::header::{self, Header};
use super::service::Services;
use crate::bytes::{Reader, Writer, u32_at};
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
/// Bytes of type and length.
const HEAD_LEN: usize = 4;
const AUTH_NUMBER: u16 = kind::AUTH & !CRITICAL;
/// Bytes of AUTH's value.
const AUTH_LEN: usize = 4 + Auth::TAG_LEN;
/// What AUTH's tag length must be.
const TAG_LEN: u8 = 16;
const _: () = assert!(TAG_LEN as usize == Auth::TAG_LEN);

/// Everything the entries of a datagram say. A kind takes what it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a> {
    /// STORE.
    pub store: Option<StoreRef<'a>>,
    /// NAME, 1 to 32 bytes.
    pub name: Option<TextRef<'a>>,
    /// SERVICES.
    pub services: Option<Services<'a>>,
    /// ADDR.
    pub addrs: Option<Addrs<'a>>,
    /// FIRMWARE.
    pub firmware: Option<Firmware>,
    /// CAPS.
    pub caps: Option<u64>,
    /// ZONE.
    pub zone: Option<u32>,
    /// NONCE.
    pub nonce: Option<Nonce>,
    /// STATUS.
    pub status: Option<Status>,
    /// PAD, as the length of the datagram it fills up to: the datagram's own when read, at least this when written.
    /// 0 for none.
    pub pad_to: u16,
    /// APP, 1 to 128 bytes.
    pub app: Option<&'a [u8]>,
    /// PRIORITY.
    pub priority: Option<u16>,
    /// TAGS.
    pub tags: Option<TagsRef<'a>>,
    /// AUTH.
    pub auth: Option<Auth>,
}

impl<'a> Tlvs<'a> {
    /// No entry.
    pub const NONE: Self = Self {
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

    /// Reads the entries of the datagram `bytes`, whose header is `header`.
    #[inline]
    pub fn parse(bytes: &'a [u8], header: &Header) -> Result<Self, ParseError> {
        let start = usize::from(header.header_len);
        let mut reader = Reader::at(bytes.get(start..).unwrap_or(&[]), start);
        let mut tlvs = Self::NONE;
        let mut seen = 0_u16;
        let mut count = 0_usize;
        while !reader.rest().is_empty() {
            if count == COUNT_MAX {
                return Err(reader.error("TLV", Fault::TooMany));
            }
            count = count.wrapping_add(1);
            let at = reader;
            let [type0, type1, len0, len1] = *reader.array::<4>("TLV")?;
            let number = u16::from_le_bytes([type0, type1]);
            let len = usize::from(u16::from_le_bytes([len0, len1]));
            let value = reader.bytes("TLV length", len)?;
            reader.zeros("TLV padding", len.wrapping_neg() & 3)?;
            if number == kind::AUTH {
                tlvs.auth = Some(parse_auth(&at, value, header, reader.rest())?);
                continue;
            }
            let bit = known_bit(number);
            if seen & bit != 0 {
                return Err(at.error(name(number), Fault::Repeated));
            }
            seen |= bit;
            tlvs.take(number, value, &at, header.len)?;
        }
        if header.auth && tlvs.auth.is_none() {
            return Err(reader.error("AUTH", Fault::Missing));
        }
        Ok(tlvs)
    }

    /// Keeps one entry other than AUTH. `at` stands at its first byte.
    #[inline]
    fn take(
        &mut self,
        number: u16,
        value: &'a [u8],
        at: &Reader<'_>,
        datagram_len: u16,
    ) -> Result<(), ParseError> {
        let fault = |fault| at.error(name(number), fault);
        match number & !CRITICAL {
            kind::STORE => self.store = Some(StoreRef::parse(value).map_err(fault)?),
            kind::NAME => self.name = Some(TextRef::parse(value).map_err(fault)?),
            kind::SERVICES => self.services = Some(Services::parse(value).map_err(fault)?),
            kind::ADDR => self.addrs = Some(Addrs::parse(value, at.offset().wrapping_add(HEAD_LEN))?),
            kind::FIRMWARE => self.firmware = Some(parse_firmware(value).map_err(fault)?),
            kind::CAPS => self.caps = Some(u64::from_le_bytes(exact(value).map_err(fault)?)),
            kind::ZONE => self.zone = Some(u32::from_le_bytes(exact(value).map_err(fault)?)),
            kind::NONCE => self.nonce = Some(Nonce::parse(value).map_err(fault)?),
            kind::STATUS => self.status = Some(parse_status(value).map_err(fault)?),
            kind::PAD if value.iter().any(|&byte| byte != 0) => return Err(fault(Fault::NotZero)),
            kind::PAD => self.pad_to = datagram_len,
            kind::APP if value.is_empty() || value.len() > APP_MAX => return Err(fault(Fault::Length)),
            kind::APP => self.app = Some(value),
            kind::PRIORITY => self.priority = Some(u16::from_le_bytes(exact(value).map_err(fault)?)),
            kind::TAGS => self.tags = Some(TagsRef::parse(value).map_err(fault)?),
            // AUTH without its critical bit: one meaning, one form.
            AUTH_NUMBER => return Err(fault(Fault::Misplaced)),
            _ if number & CRITICAL != 0 => return Err(fault(Fault::UnknownCritical)),
            _ => {}
        }
        Ok(())
    }

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
            if let Some(zeros) = missing.checked_sub(HEAD_LEN) {
                entry(writer, kind::PAD, zeros, |writer| writer.zeros(zeros));
            }
        }
        self.emit_after_pad(writer);
    }

    fn emit_before_pad(&self, writer: &mut Writer<'_>) {
        if let Some(StoreRef { entity, code }) = self.store {
            entry(writer, kind::STORE, code.as_bytes().len().saturating_add(4), |writer| {
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
            entry(writer, kind::FIRMWARE, 8, |writer| {
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
            entry(writer, kind::STATUS, 4, |writer| {
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
            entry(writer, kind::AUTH, AUTH_LEN, |writer| {
                writer.u16(*key_id);
                writer.u8(*algorithm);
                writer.u8(TAG_LEN);
                writer.bytes(tag);
            });
        }
    }
}

/// One entry: type, length, what `value` writes, padding.
fn entry(writer: &mut Writer<'_>, number: u16, len: usize, value: impl FnOnce(&mut Writer<'_>)) {
    writer.u16(number);
    writer.u16(u16::try_from(len).unwrap_or(u16::MAX));
    value(writer);
    writer.pad(4);
}

fn bytes(writer: &mut Writer<'_>, number: u16, value: &[u8]) {
    entry(writer, number, value.len(), |writer| writer.bytes(value));
}

/// The bit of a known type in the set of those seen; 0 for the others, which may repeat.
#[inline]
const fn known_bit(number: u16) -> u16 {
    match number & !CRITICAL {
        known @ kind::STORE..=kind::TAGS => 1 << known,
        _ => 0,
    }
}

/// The name of a type, for errors.
const fn name(number: u16) -> &'static str {
    match number & !CRITICAL {
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
        AUTH_NUMBER => "AUTH",
        _ => "TLV",
    }
}

#[inline]
fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], Fault> {
    value.try_into().map_err(|_| Fault::Length)
}

fn parse_firmware(value: &[u8]) -> Result<Firmware, Fault> {
    let value: [u8; 8] = exact(value)?;
    Ok(Firmware { version: u32_at::<0, 8>(&value), build: u32_at::<4, 8>(&value) })
}

fn parse_status(value: &[u8]) -> Result<Status, Fault> {
    let [code, retry_after_s, detail0, detail1] = exact(value)?;
    Ok(Status { code: Code(code), retry_after_s, detail: u16::from_le_bytes([detail0, detail1]) })
}

/// AUTH: announced by its flag, the last entry, a tag of 16 bytes.
fn parse_auth(at: &Reader<'_>, value: &[u8], header: &Header, rest: &[u8]) -> Result<Auth, ParseError> {
    if !header.auth || !rest.is_empty() {
        return Err(at.error("AUTH", Fault::Misplaced));
    }
    let value: [u8; AUTH_LEN] = exact(value).map_err(|fault| at.error("AUTH", fault))?;
    let [key0, key1, algorithm, TAG_LEN, tag @ ..] = value else {
        return Err(at.error("AUTH", Fault::Range));
    };
    Ok(Auth { key_id: u16::from_le_bytes([key0, key1]), algorithm, tag })
}
