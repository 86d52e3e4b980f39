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
//! | 32 | 8 | fence | highest fence the device has accepted |
//! | 40 | 16 | server | the server that holds it; zero not said |
//! | 56 | 4 | zone | where in the store; 0 not set |
//! | 60 | 2 | window orders | orders that may be unsettled at a time, 1 or more |
//! | 62 | 1 | tags length | 0 to 48 |
//! | 63 | 1 | started count | n, 0 to 8 |
//! | 64 | 4 | window bytes | bytes of ORDER frames that may be unanswered at a time, at least 64 |
//! | 68 | 4 | max body | largest frame body the device accepts, at least 432 |
//! | 72 | 4 | features | what the device takes beyond the minimum, see Features; unknown bits are ignored |
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
    /// The highest fence it has accepted.
    pub fence: u64,
    /// The server that holds it, [`NodeId::NONE`] if it does not say.
    pub server: NodeId,
    /// Where in the store, 0 if not set.
    pub zone: u32,
    /// Orders that may be unsettled at a time.
    pub window_orders: u16,
    /// Bytes of ORDER frames that may be unanswered at a time.
    pub window_bytes: u32,
    /// Largest frame body it accepts, in bytes.
    pub max_body: u32,
    /// What it takes beyond the minimum: bits of [`hello::feature`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::{Strategy, any};

    fn floors(seed: u8) -> LogFloors {
        let lane = |lane: u8| LaneFloor { floor: u64::from(seed + lane), run: u64::from(seed) + 0x100 };
        LogFloors { lineage: Lineage([seed; 16]), lanes: [lane(0), lane(1), lane(2), lane(3)] }
    }

    const STARTED: [StartedEntry; 2] = [
        StartedEntry { number: 9, durable: true, lane: Lane::Normal, idempotent: false },
        StartedEntry { number: 4, durable: false, lane: Lane::Bulk, idempotent: true },
    ];

    fn welcome() -> Welcome<'static> {
        Welcome {
            version: 1,
            staging: true,
            floors_persisted: true,
            journal_lost: false,
            kind: DeviceKind::KIOSK,
            device: NodeId([0x11; 16]),
            boot: 0x0102_0304_0506_0708,
            fence: 3,
            server: NodeId([0x22; 16]),
            zone: 3,
            window_orders: 16,
            window_bytes: 16_384,
            max_body: 65_840,
            features: 0,
            tags: Tags::new(["bakery", "till-2"]).unwrap(),
            durable: floors(0x33),
            volatile: floors(0x44),
            started: Started::from(&STARTED),
        }
    }

    fn check(welcome: &Welcome<'_>) {
        let bytes = testing::emit(|buffer| welcome.emit(buffer));
        assert_eq!(Welcome::parse(&Raw::parse(&bytes).unwrap()), Ok(*welcome));
        testing::frame(&bytes, |raw, buffer| Ok(Welcome::parse(raw)?.emit(buffer)));
    }

    /// The error after the bytes at `at` of the body were replaced and the checksums made right.
    fn fault(at: usize, bytes: &[u8]) -> ParseError {
        let mut frame = testing::emit(|buffer| welcome().emit(buffer));
        frame[header::LEN + at..header::LEN + at + bytes.len()].copy_from_slice(bytes);
        testing::repair(&mut frame);
        Welcome::parse(&Raw::parse(&frame).unwrap()).unwrap_err()
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| welcome().emit(buffer)), testing::vector("WELCOME"));
        check(&welcome());
    }

    #[test]
    fn what_is_refused_and_where() {
        let error = ParseError::new;
        assert_eq!(fault(0, b"TWLQ"), error("magic", 16, Fault::Mismatch));
        assert_eq!(fault(4, &[2]), error("version", 20, Fault::Version));
        assert_eq!(fault(5, &[8]), error("flags", 21, Fault::NotZero));
        assert_eq!(fault(6, &[0xFF; 2]), error("device kind", 22, Fault::Range));
        assert_eq!(fault(8, &[0; 16]), error("device", 24, Fault::Missing));
        assert_eq!(fault(24, &[0; 8]), error("boot", 40, Fault::Range));
        assert_eq!(fault(60, &[0; 2]), error("window orders", 76, Fault::Range));
        assert_eq!(fault(62, &[49]), error("tags length", 78, Fault::Range));
        assert_eq!(fault(62, &[13]), error("tags", 256, Fault::NotZero));
        assert_eq!(fault(62, &[0]), error("tags", 256, Fault::NotZero));
        assert_eq!(fault(63, &[3]), error("started count", 79, Fault::Length));
        assert_eq!(fault(63, &[9]), error("started count", 79, Fault::TooMany));
        assert_eq!(fault(64, &63_u32.to_le_bytes()), error("window bytes", 80, Fault::Range));
        assert_eq!(fault(68, &431_u32.to_le_bytes()), error("max body", 84, Fault::Range));
        assert_eq!(fault(76, &[1]), error("zero", 92, Fault::NotZero));
        assert_eq!(fault(80, &[0; 16]), error("durable lineage", 96, Fault::Missing));
        assert_eq!(fault(160, &[0; 16]), error("volatile lineage", 176, Fault::Missing));
        assert_eq!(fault(241, &[0xFF]), error("tags", 256, Fault::Text));
        assert_eq!(fault(288, &[0; 8]), error("number", 304, Fault::Range));
        assert_eq!(fault(288 + 8, &[2]), error("log", 312, Fault::Range));
        assert_eq!(fault(288 + 16 + 9, &[4]), error("lane", 329, Fault::Range));
        assert_eq!(fault(288 + 10, &[2]), error("started flags", 314, Fault::NotZero));
        assert_eq!(fault(288 + 15, &[1]), error("zero", 315, Fault::NotZero));
    }

    #[test]
    fn limits_and_one_past_each() {
        let nine = [STARTED[0]; STARTED_MAX + 1];
        let full = Welcome {
            started: Started::from(&nine[..STARTED_MAX]),
            tags: Tags::new([&*"a".repeat(15), &*"b".repeat(15), &*"c".repeat(15)]).unwrap(),
            ..welcome()
        };
        check(&full);
        assert_eq!(testing::emit(|buffer| full.emit(buffer)).len(), header::LEN + BODY_MAX);
        check(&Welcome {
            window_orders: 1,
            window_bytes: WINDOW_BYTES_MIN,
            max_body: hello::MAX_BODY_MIN,
            server: NodeId::NONE,
            tags: Tags::EMPTY,
            durable: LogFloors::default(),
            volatile: LogFloors::default(),
            started: Started::EMPTY,
            ..welcome()
        });
        let mut buffer = [0; 512];
        let too_many = Welcome { started: Started::from(&nine), ..welcome() };
        let error = EmitError::TooLarge { field: "started count", limit: STARTED_MAX };
        assert_eq!(too_many.emit(&mut buffer), Err(error));
        let zero = [StartedEntry { number: 0, ..STARTED[0] }];
        let lost = LogFloors { lineage: Lineage::NONE, ..floors(1) };
        for (wrong, field) in [
            (Welcome { version: 2, ..welcome() }, "version"),
            (Welcome { kind: DeviceKind::SERVER, ..welcome() }, "device kind"),
            (Welcome { device: NodeId::NONE, ..welcome() }, "device"),
            (Welcome { boot: 0, ..welcome() }, "boot"),
            (Welcome { window_orders: 0, ..welcome() }, "window orders"),
            (Welcome { window_bytes: WINDOW_BYTES_MIN - 1, ..welcome() }, "window bytes"),
            (Welcome { max_body: hello::MAX_BODY_MIN - 1, ..welcome() }, "max body"),
            (Welcome { durable: lost, ..welcome() }, "durable lineage"),
            (Welcome { volatile: lost, ..welcome() }, "volatile lineage"),
            (Welcome { started: Started::from(&zero), ..welcome() }, "number"),
        ] {
            assert_eq!(wrong.emit(&mut buffer), Err(EmitError::Invalid { field }));
        }
    }

    fn log_floors() -> impl Strategy<Value = LogFloors> {
        (1_u128.., any::<[(u64, u64); 4]>()).prop_map(|(id, lanes)| LogFloors {
            lineage: Lineage(id.to_le_bytes()),
            lanes: lanes.map(|(floor, run)| LaneFloor { floor, run }),
        })
    }

    fn started() -> impl Strategy<Value = StartedEntry> {
        (1_u64.., any::<bool>(), 0_u8..4, any::<bool>()).prop_map(|(number, durable, lane, idempotent)| {
            StartedEntry { number, durable, lane: Lane::new(lane).unwrap(), idempotent }
        })
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(
            bits: [bool; 3], kind in 0_u16..0xFFFF, device in 1_u128.., boot in 1_u64.., fence: u64, server: [u8; 16],
            zone: u32, window_orders in 1_u16.., window_bytes in WINDOW_BYTES_MIN..,
            max_body in hello::MAX_BODY_MIN.., features: u32,
            tags in proptest::collection::hash_set("[a-z]{1,5}", 0..=8), durable in log_floors(),
            volatile in log_floors(), started in proptest::collection::vec(started(), 0..=STARTED_MAX),
        ) {
            check(&Welcome {
                version: 1, staging: bits[0], floors_persisted: bits[1], journal_lost: bits[2],
                kind: DeviceKind(kind), device: NodeId(device.to_le_bytes()), boot, fence, server: NodeId(server),
                zone, window_orders, window_bytes, max_body, features,
                tags: Tags::new(tags.iter().map(String::as_str)).unwrap(), durable, volatile,
                started: Started::from(&started[..]),
            });
        }
    }
}
