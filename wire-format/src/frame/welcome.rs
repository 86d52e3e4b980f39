//! WELCOME: that is me, this is what I have.
//!
//! The device answers a HELLO it accepts. From this frame on the session is open: the server knows with whom it speaks,
//! what of its two logs has arrived there, and how much it may send.
//!
//! ```text
//! server                          device
//!   │── HELLO ────────────────────▶│
//!   │◀──────────────────── WELCOME │  floors, started orders, window
//!   │◀──────────────────── OUTCOME │  everything the server has not settled yet, again
//!   │── ORDER (above the floors) ─▶│
//! ```
//!
//! Header: no flags, `aux16` and `aux32` zero. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | `TWLP` |
//! | 4 | 1 | version | the version both will speak, inside the server's range |
//! | 5 | 1 | flags | 1 STAGING, 2 FLOORS_PERSISTED, 4 JOURNAL_LOST; unknown bits must be zero |
//! | 6 | 2 | device kind | 0xFFFF is refused |
//! | 8 | 16 | device | the device's id, never zero |
//! | 24 | 8 | boot | random per boot of the device, never 0 |
//! | 32 | 8 | fence | highest fence the device has accepted; 0 none yet |
//! | 40 | 16 | server | the server that held it; zero none yet |
//! | 56 | 4 | zone | where in the store; 0 not set |
//! | 60 | 2 | window orders | orders that may be unsettled at a time, 1 or more |
//! | 62 | 1 | tags length | 0 to 48 |
//! | 63 | 1 | started count | n, 0 to 8 |
//! | 64 | 4 | window bytes | bytes of ORDER frames that may be unanswered at a time, at least 64 |
//! | 68 | 4 | max body | largest frame body the device accepts, at least 432 |
//! | 72 | 4 | features | what the device can do beyond this version's minimum; unknown bits are ignored |
//! | 76 | 4 | zero | zero |
//! | 80 | 16 | durable lineage | the durable log the floors belong to; zero none |
//! | 96 | 64 | durable floors | lanes 0 to 3: floor (8 bytes), run id of that number (8 bytes); zero if there is no lineage |
//! | 160 | 16 | volatile lineage | the volatile log the floors belong to; zero none |
//! | 176 | 64 | volatile floors | as above |
//! | 240 | 48 | tags | each a length byte and its text; padded with zeros |
//! | 288 | 16 n | started | orders begun and not ended, rows as below |
//! | 288 + 16 n | 4 | checksum | CRC-32C of the body before it |
//!
//! A started order:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | never 0 |
//! | 8 | 1 | log | 0 volatile, 1 durable |
//! | 9 | 1 | lane | 0 to 3 |
//! | 10 | 1 | started flags | 1 idempotent; unknown bits must be zero |
//! | 11 | 5 | zero | zero |

use super::rows::{Row, Rows};
use super::{Flags, Header, Kind, Raw, emit_checked, header, hello, parse_number};
use crate::bytes::{Reader, Writer};
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::{DeviceKind, Lane, Lineage, NodeId, Tags};

/// Bytes of the body before the started orders.
pub const FIXED_LEN: usize = 288;
/// Started orders: four lanes of two logs, one each.
pub const STARTED_MAX: usize = 8;
/// Bytes of one started order.
pub const STARTED_LEN: usize = 16;
/// Bytes of the largest body.
pub const BODY_MAX: usize = FIXED_LEN + STARTED_MAX * STARTED_LEN + super::CHECKSUM_LEN;
/// The smallest byte window: one ORDER frame without options and payload.
pub const WINDOW_BYTES_MIN: u32 = 64;
const _: () = assert!(80 + 2 * 80 + Tags::BYTES_MAX == FIXED_LEN);
const _: () = assert!(BODY_MAX <= hello::BODY_LEN, "an answer is never larger than what caused it");
const _: () = assert!(WINDOW_BYTES_MIN as usize == header::LEN + super::order::FIXED_LEN);

const STAGING: u8 = 0x01;
const FLOORS_PERSISTED: u8 = 0x02;
const JOURNAL_LOST: u8 = 0x04;
const IDEMPOTENT: u8 = 0x01;

/// How far one lane of one log has come on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneFloor {
    /// Every order of the lane sent to this device with a number up to here has ended; 0 none.
    pub floor: u64,
    /// The run of the log that order was sent in.
    pub run: u64,
}

/// How far one log has come on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFloors {
    /// The log; [`Lineage::NONE`] if the device knows none, then all floors are zero.
    pub lineage: Lineage,
    /// By lane.
    pub lanes: [LaneFloor; 4],
}

/// An order that was begun and whose end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartedEntry {
    /// Its number.
    pub number: u64,
    /// It is in the durable log.
    pub durable: bool,
    /// Its lane.
    pub lane: Lane,
    /// It may run again.
    pub idempotent: bool,
}

impl Row<STARTED_LEN> for StartedEntry {
    fn parse(bytes: &[u8; STARTED_LEN]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let number = parse_number(&mut reader)?;
        let at = reader;
        let durable = match reader.u8("log")? {
            0 => false,
            1 => true,
            _ => return Err(at.error("log", Fault::Range)),
        };
        let at = reader;
        let lane = Lane::new(reader.u8("lane")?).ok_or_else(|| at.error("lane", Fault::Range))?;
        let at = reader;
        let flags = reader.u8("started flags")?;
        if flags & !IDEMPOTENT != 0 {
            return Err(at.error("started flags", Fault::NotZero));
        }
        reader.zeros("zero", 5)?;
        Ok(Self { number, durable, lane, idempotent: flags & IDEMPOTENT != 0 })
    }

    fn emit(&self) -> [u8; STARTED_LEN] {
        let mut bytes = [0; STARTED_LEN];
        let mut writer = Writer::new(&mut bytes);
        writer.u64(self.number);
        writer.u8(u8::from(self.durable));
        writer.u8(self.lane as u8);
        writer.u8(u8::from(self.idempotent) * IDEMPOTENT);
        bytes
    }
}

/// The started orders of a [`Welcome`].
pub type Started<'a> = Rows<'a, StartedEntry, STARTED_LEN>;

/// The device's answer that opens the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The version both speak from here on.
    pub version: u8,
    /// A test device: meets staging servers only.
    pub staging: bool,
    /// The floors survive a reboot of the device.
    pub floors_persisted: bool,
    /// The device had a journal and lost it.
    pub journal_lost: bool,
    /// What it is.
    pub kind: DeviceKind,
    /// Who it is.
    pub device: NodeId,
    /// Random per boot.
    pub boot: u64,
    /// The highest fence it has accepted, 0 for none.
    pub fence: u64,
    /// The server that held that fence, [`NodeId::NONE`] for none.
    pub server: NodeId,
    /// Where in the store, 0 if not set.
    pub zone: u32,
    /// Orders that may be unsettled at a time.
    pub window_orders: u16,
    /// Bytes of ORDER frames that may be unanswered at a time.
    pub window_bytes: u32,
    /// Largest frame body it accepts, in bytes.
    pub max_body: u32,
    /// Feature bits; none is defined.
    pub features: u32,
    /// Its tags.
    pub tags: Tags,
    /// What has arrived of the durable log.
    pub durable: LogFloors,
    /// What has arrived of the volatile log.
    pub volatile: LogFloors,
    /// Orders begun and not ended.
    pub started: Started<'a>,
}

impl<'a> Welcome<'a> {
    /// Reads a WELCOME frame.
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::WELCOME, Flags::NONE)?;
        raw.header.expect_aux16_zero()?;
        raw.header.expect_aux32_zero()?;
        hello::parse_magic(raw.body)?;
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        reader.bytes("magic", hello::MAGIC.len())?;
        let at = reader;
        let version = reader.u8("version")?;
        if version != hello::VERSION {
            return Err(at.error("version", Fault::Version));
        }
        let at = reader;
        let flags = reader.u8("flags")?;
        if flags & !(STAGING | FLOORS_PERSISTED | JOURNAL_LOST) != 0 {
            return Err(at.error("flags", Fault::NotZero));
        }
        let at = reader;
        let kind = DeviceKind(reader.u16("device kind")?);
        if kind == DeviceKind::SERVER {
            return Err(at.error("device kind", Fault::Range));
        }
        let device = hello::parse_id(&mut reader, "device")?;
        let boot = not_zero(&mut reader, "boot", Reader::u64)?;
        let fence = reader.u64("fence")?;
        let server = NodeId(*reader.array("server")?);
        let zone = reader.u32("zone")?;
        let window_orders = not_zero(&mut reader, "window orders", Reader::u16)?;
        let tags_length = reader;
        let tags_len = usize::from(reader.u8("tags length")?);
        let started_count = reader;
        let count = usize::from(reader.u8("started count")?);
        let window_bytes = parse_window_bytes(&mut reader)?;
        let max_body = hello::parse_max_body(&mut reader)?;
        let features = reader.u32("features")?;
        reader.zeros("zero", 4)?;
        let durable = parse_floors(&mut reader, "durable lineage")?;
        let volatile = parse_floors(&mut reader, "volatile lineage")?;
        let tags = parse_tags(&mut reader, tags_len, &tags_length)?;
        if count > STARTED_MAX {
            return Err(started_count.error("started count", Fault::TooMany));
        }
        let started = Started::parse(reader.rest(), reader.offset())?;
        if started.len() != count {
            return Err(started_count.error("started count", Fault::Length));
        }
        Ok(Self {
            version,
            staging: flags & STAGING != 0,
            floors_persisted: flags & FLOORS_PERSISTED != 0,
            journal_lost: flags & JOURNAL_LOST != 0,
            kind,
            device,
            boot,
            fence,
            server,
            zone,
            window_orders,
            window_bytes,
            max_body,
            features,
            tags,
            durable,
            volatile,
            started,
        })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        self.check()?;
        emit_checked(Header::new(Kind::WELCOME, 0), buffer, |writer| {
            let tags = self.tags.as_packed();
            writer.bytes(&hello::MAGIC);
            writer.u8(self.version);
            writer.u8(self.flags());
            writer.u16(self.kind.0);
            writer.bytes(&self.device.0);
            writer.u64(self.boot);
            writer.u64(self.fence);
            writer.bytes(&self.server.0);
            writer.u32(self.zone);
            writer.u16(self.window_orders);
            writer.u8(u8::try_from(tags.len()).unwrap_or(u8::MAX));
            writer.u8(u8::try_from(self.started.len()).unwrap_or(u8::MAX));
            writer.u32(self.window_bytes);
            writer.u32(self.max_body);
            writer.u32(self.features);
            writer.zeros(4);
            emit_floors(writer, &self.durable);
            emit_floors(writer, &self.volatile);
            writer.bytes(tags);
            writer.zeros(Tags::BYTES_MAX.saturating_sub(tags.len()));
            self.started.emit(writer);
        })
    }

    fn flags(&self) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(self.staging, STAGING)
            | bit(self.floors_persisted, FLOORS_PERSISTED)
            | bit(self.journal_lost, JOURNAL_LOST)
    }

    fn check(&self) -> Result<(), EmitError> {
        let invalid = |field| Err(EmitError::Invalid { field });
        let lost = |log: &LogFloors| log.lineage.is_none() && *log != LogFloors::default();
        if self.started.len() > STARTED_MAX {
            return Err(EmitError::TooLarge { field: "started count", limit: STARTED_MAX });
        }
        match self {
            _ if self.version != hello::VERSION => invalid("version"),
            _ if self.kind == DeviceKind::SERVER => invalid("device kind"),
            _ if self.device.is_none() => invalid("device"),
            _ if self.boot == 0 => invalid("boot"),
            _ if self.window_orders == 0 => invalid("window orders"),
            _ if self.window_bytes < WINDOW_BYTES_MIN => invalid("window bytes"),
            _ if self.max_body < hello::MAX_BODY_MIN => invalid("max body"),
            _ if lost(&self.durable) => invalid("durable lineage"),
            _ if lost(&self.volatile) => invalid("volatile lineage"),
            _ => self.started.check(),
        }
    }
}

/// A number that must not be 0.
fn not_zero<'a, T: Default + PartialEq>(
    reader: &mut Reader<'a>,
    field: &'static str,
    read: impl FnOnce(&mut Reader<'a>, &'static str) -> Result<T, ParseError>,
) -> Result<T, ParseError> {
    let at = *reader;
    let value = read(reader, field)?;
    if value == T::default() { Err(at.error(field, Fault::Range)) } else { Ok(value) }
}

fn parse_window_bytes(reader: &mut Reader<'_>) -> Result<u32, ParseError> {
    let at = *reader;
    match reader.u32("window bytes")? {
        bytes @ WINDOW_BYTES_MIN.. => Ok(bytes),
        _ => Err(at.error("window bytes", Fault::Range)),
    }
}

fn parse_tags(reader: &mut Reader<'_>, len: usize, length: &Reader<'_>) -> Result<Tags, ParseError> {
    let at = *reader;
    let Some((packed, padding)) = reader.bytes("tags", Tags::BYTES_MAX)?.split_at_checked(len) else {
        return Err(length.error("tags length", Fault::Range));
    };
    if padding.iter().any(|&byte| byte != 0) {
        return Err(at.error("tags", Fault::NotZero));
    }
    Tags::from_packed(packed).ok_or_else(|| at.error("tags", Fault::Text))
}

fn parse_floors(reader: &mut Reader<'_>, field: &'static str) -> Result<LogFloors, ParseError> {
    let at = *reader;
    let mut log = LogFloors { lineage: Lineage(*reader.array(field)?), ..LogFloors::default() };
    for lane in &mut log.lanes {
        *lane = LaneFloor { floor: reader.u64(field)?, run: reader.u64(field)? };
    }
    if log.lineage.is_none() && log != LogFloors::default() {
        return Err(at.error(field, Fault::Missing));
    }
    Ok(log)
}

fn emit_floors(writer: &mut Writer<'_>, log: &LogFloors) {
    writer.bytes(&log.lineage.0);
    for lane in &log.lanes {
        writer.u64(lane.floor);
        writer.u64(lane.run);
    }
}
