//! What a device writes into its [`super::Journal`], to the byte. Little-endian, no checksum: the journal has one.
//!
//! Every record begins with its kind. A byte `place` names a lane of a log: bits 0 and 1 the lane, bits 2 to 4 the log, 0
//! for the volatile one and 1 to 6 for the durable ones, as the LINEAGE before it has set them. Unknown kinds, other
//! lengths and set bits that have no meaning make a journal damaged.
//!
//! HEAD, the first record of every snapshot: whose journal it is.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 1 |
//! | 1 | 1 | version | 1; a journal of another version is damaged |
//! | 2 | 6 | zero | zero |
//! | 8 | 16 | device | the device's id; a journal of another device is damaged |
//!
//! FENCE: the fence that is obeyed, and whose it is.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 2 |
//! | 1 | 7 | zero | zero |
//! | 8 | 8 | fence | the number |
//! | 16 | 16 | server | never zero |
//!
//! LINEAGE: a log is of this lineage from here on. Another lineage than before: what was known of the log is forgotten.
//! The same: only its run, its flags, or its turn to be forgotten are others.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 3 |
//! | 1 | 1 | log | 0 to 6 |
//! | 2 | 1 | flags | 1 its server knows that this device knows it, 2 of the durable ones it was used last |
//! | 3 | 5 | zero | zero |
//! | 8 | 8 | run | the run of the log that orders come in from here on |
//! | 16 | 16 | lineage | never zero |
//!
//! LANE: how far a lane is settled, and its floor.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 4 |
//! | 1 | 1 | place | of a log that has a lineage |
//! | 2 | 6 | zero | zero |
//! | 8 | 8 | settled | outcomes up to this number are forgotten |
//! | 16 | 8 | floor | the lane's floor, unless it is higher already; 0 says nothing |
//! | 24 | 8 | run | the run the floor's number came in |
//!
//! KEY: an order key, and how its order ended. In snapshots each that had an effect, or may have had one, the one to be
//! forgotten first in front. Elsewhere that of an order that ended for nobody; a code without an effect
//! takes back what its START said.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 5 |
//! | 1 | 1 | place | where it came; log 7 for a lineage that is gone |
//! | 2 | 1 | code | how it ended, never 0 |
//! | 3 | 1 | zero | zero |
//! | 4 | 4 | number | low bits of the number it came under |
//! | 8 | 8 | key | never 0 |
//!
//! VERSION: the newest version begun of a supersede key. In snapshots, and of an order that ended for nobody.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 6 |
//! | 1 | 1 | place | where it came; log 7 for a lineage that is gone; bit 5: the same version may begin again |
//! | 2 | 2 | age | uses of the table since |
//! | 4 | 4 | number | low bits of the number it came under |
//! | 8 | 8 | key | never 0 |
//! | 16 | 8 | version | the version |
//!
//! START: an order that is not idempotent is about to begin.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 7 |
//! | 1 | 1 | place | of a log that has a lineage; bit 5: an order key follows, bit 6: a supersede key |
//! | 2 | 6 | zero | zero |
//! | 8 | 8 | number | never 0 |
//! | 16 | 8 | settled | as in LANE |
//! | 24 | 8 | key | if bit 5 of the place is set: the order key, never 0 |
//! | 24 + 8 k | 8 | supersede | if bit 6 is set: the supersede key, never 0; k is 1 behind an order key, else 0 |
//! | 32 + 8 k | 8 | version | if bit 6 is set: its version |
//!
//! END: an order has ended. The floor of its lane is its number.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | kind | 8 |
//! | 1 | 1 | place | as in START |
//! | 2 | 1 | code | the outcome's, never 0 |
//! | 3 | 1 | detail | the outcome's |
//! | 4 | 4 | ms | the outcome's |
//! | 8 | 8 | number | never 0 |
//! | 16 | 8 | settled | as in LANE |
//! | 24 | 24 | keys | as in START, as far as the device remembers them: 0, 8, 16 or 24 bytes |

use wire_format::bytes::{Reader, Writer};
use wire_format::error::{EmitError, Fault, ParseError};
use wire_format::frame::outcome::Code;
use wire_format::frame::welcome::LaneFloor;
use wire_format::ids::{Lane, Lineage, NodeId};

use super::fence::Known;
use super::floors::{Kept, Log};
use super::journal::RECORD_MAX;
use super::keys::OrderKeys;
use super::ring::{Ending, Place, pack};

/// The version HEAD states.
const VERSION: u8 = 1;

const HEAD: u8 = 1;
const FENCE: u8 = 2;
const LINEAGE: u8 = 3;
const LANE: u8 = 4;
const KEY: u8 = 5;
const VERSIONS: u8 = 6;
const START: u8 = 7;
const END: u8 = 8;

/// Flags of LINEAGE.
const NAMED: u8 = 0x01;
const NEWEST: u8 = 0x02;
/// Bit of a place in VERSION.
const AGAIN: u8 = 0x20;
/// Bits of a place in START and END.
const HAS_KEY: u8 = 0x20;
const HAS_SUPERSEDE: u8 = 0x40;
/// The lane and log of a place.
const LOG_LANE: u8 = 0x1F;

/// Bytes of the longest record: an END with keys of both sorts.
const LONGEST: usize = 24 + 24;
const _: () = assert!(LONGEST <= RECORD_MAX);

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Head { device: NodeId },
    Fence(Known),
    Lineage(Kept),
    Lane { log: Log, lane: Lane, settled: u64, floor: LaneFloor },
    Key { log_lane: u8, code: Code, number: u32, key: u64 },
    Version { log_lane: u8, again: bool, age: u16, number: u32, key: u64, version: u64 },
    Start { place: Place, settled: u64, keys: OrderKeys },
    End { place: Place, settled: u64, ending: Ending, keys: OrderKeys },
}

impl Record {
    /// Reads a record.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let record = match reader.u8("kind")? {
            HEAD => parse_head(&mut reader),
            FENCE => parse_fence(&mut reader),
            LINEAGE => parse_lineage(&mut reader),
            LANE => parse_lane(&mut reader),
            KEY => parse_key(&mut reader),
            VERSIONS => parse_version(&mut reader),
            START => parse_start(&mut reader),
            END => parse_end(&mut reader),
            _ => Err(ParseError::new("kind", 0, Fault::UnknownKind)),
        }?;
        reader.end("length")?;
        Ok(record)
    }

    /// Writes it; bytes written.
    pub(super) fn emit(&self, into: &mut [u8; RECORD_MAX]) -> Result<usize, EmitError> {
        let mut writer = Writer::new(into);
        match *self {
            Self::Head { device } => {
                lead(&mut writer, HEAD, VERSION, 6);
                writer.bytes(&device.0);
            }
            Self::Fence(Known { server, fence }) => {
                lead(&mut writer, FENCE, 0, 6);
                writer.u64(fence);
                writer.bytes(&server.0);
            }
            Self::Lineage(Kept { log, named, newest, run, lineage }) => {
                lead(&mut writer, LINEAGE, log.0, 0);
                writer.u8(if named { NAMED } else { 0 } | if newest { NEWEST } else { 0 });
                writer.zeros(5);
                writer.u64(run);
                writer.bytes(&lineage.0);
            }
            Self::Lane { log, lane, settled, floor } => {
                lead(&mut writer, LANE, pack(log, lane), 6);
                for value in [settled, floor.floor, floor.run] {
                    writer.u64(value);
                }
            }
            Self::Key { log_lane, code, number, key } => {
                lead(&mut writer, KEY, log_lane, 0);
                writer.u8(code.0);
                writer.u8(0);
                writer.u32(number);
                writer.u64(key);
            }
            Self::Version { log_lane, again, age, number, key, version } => {
                lead(&mut writer, VERSIONS, log_lane | if again { AGAIN } else { 0 }, 0);
                writer.u16(age);
                writer.u32(number);
                writer.u64(key);
                writer.u64(version);
            }
            Self::Start { place, settled, keys } => {
                lead(&mut writer, START, pack(place.log, place.lane) | flags(keys), 6);
                emit_order(&mut writer, place, settled, keys);
            }
            Self::End { place, settled, ending, keys } => {
                lead(&mut writer, END, pack(place.log, place.lane) | flags(keys), 0);
                writer.u8(ending.code.0);
                writer.u8(ending.detail);
                writer.u32(ending.ms);
                emit_order(&mut writer, place, settled, keys);
            }
        }
        writer.finish()
    }
}

fn lead(writer: &mut Writer<'_>, kind: u8, second: u8, zeros: usize) {
    writer.u8(kind);
    writer.u8(second);
    writer.zeros(zeros);
}

fn flags(keys: OrderKeys) -> u8 {
    let key = if keys.key == 0 { 0 } else { HAS_KEY };
    key | if keys.supersede == 0 { 0 } else { HAS_SUPERSEDE }
}

/// What START and END have in common behind their first 8 bytes.
fn emit_order(writer: &mut Writer<'_>, place: Place, settled: u64, keys: OrderKeys) {
    writer.u64(place.number);
    writer.u64(settled);
    if keys.key != 0 {
        writer.u64(keys.key);
    }
    if keys.supersede != 0 {
        writer.u64(keys.supersede);
        writer.u64(keys.version);
    }
}

fn parse_head(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    if reader.u8("version")? != VERSION {
        return Err(reader.error("version", Fault::Version));
    }
    reader.zeros("zero", 6)?;
    Ok(Record::Head { device: NodeId(*reader.array("device")?) })
}

fn parse_fence(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    reader.zeros("zero", 7)?;
    let fence = reader.u64("fence")?;
    let server = NodeId(*reader.array("server")?);
    nonzero(reader, "server", !server.is_none())?;
    Ok(Record::Fence(Known { server, fence }))
}

fn parse_lineage(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let log = Log(reader.u8("log")?);
    nonzero(reader, "log", log.0 < Log::GONE.0)?;
    let flags = reader.u8("flags")?;
    nonzero(reader, "flags", flags & !(NAMED | NEWEST) == 0)?;
    reader.zeros("zero", 5)?;
    let run = reader.u64("run")?;
    let lineage = Lineage(*reader.array("lineage")?);
    nonzero(reader, "lineage", !lineage.is_none())?;
    let (named, newest) = (flags & NAMED != 0, flags & NEWEST != 0);
    Ok(Record::Lineage(Kept { log, named, newest, run, lineage }))
}

fn parse_lane(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let (log, lane) = parse_place(reader, 0)?.0;
    reader.zeros("zero", 6)?;
    let settled = reader.u64("settled")?;
    let floor = LaneFloor { floor: reader.u64("floor")?, run: reader.u64("run")? };
    Ok(Record::Lane { log, lane, settled, floor })
}

fn parse_key(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let log_lane = reader.u8("place")?;
    nonzero(reader, "place", log_lane & !LOG_LANE == 0)?;
    let code = Code(reader.u8("code")?);
    nonzero(reader, "code", code.0 != 0)?;
    reader.zeros("zero", 1)?;
    let number = reader.u32("number")?;
    Ok(Record::Key { log_lane, code, number, key: parse_nonzero(reader, "key")? })
}

fn parse_version(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let place = reader.u8("place")?;
    nonzero(reader, "place", place & !(LOG_LANE | AGAIN) == 0)?;
    let age = reader.u16("age")?;
    let number = reader.u32("number")?;
    let key = parse_nonzero(reader, "key")?;
    let version = reader.u64("version")?;
    let (log_lane, again) = (place & LOG_LANE, place & AGAIN != 0);
    Ok(Record::Version { log_lane, again, age, number, key, version })
}

fn parse_start(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let (at, flags) = parse_place(reader, HAS_KEY | HAS_SUPERSEDE)?;
    reader.zeros("zero", 6)?;
    let (place, settled, keys) = parse_order(reader, at, flags)?;
    Ok(Record::Start { place, settled, keys })
}

fn parse_end(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let (at, flags) = parse_place(reader, HAS_KEY | HAS_SUPERSEDE)?;
    let code = Code(reader.u8("code")?);
    nonzero(reader, "code", code.0 != 0)?;
    let ending = Ending { code, detail: reader.u8("detail")?, ms: reader.u32("ms")? };
    let (place, settled, keys) = parse_order(reader, at, flags)?;
    Ok(Record::End { place, settled, ending, keys })
}

/// A place of a log that is kept, and those of its bits that say something else.
fn parse_place(reader: &mut Reader<'_>, allowed: u8) -> Result<((Log, Lane), u8), ParseError> {
    let place = reader.u8("place")?;
    let (log, lane) = (Log((place & LOG_LANE) >> 2), Lane::new(place & 0x03).unwrap_or_default());
    nonzero(reader, "place", place & !(LOG_LANE | allowed) == 0 && log != Log::GONE)?;
    Ok(((log, lane), place & allowed))
}

fn parse_order(
    reader: &mut Reader<'_>,
    (log, lane): (Log, Lane),
    flags: u8,
) -> Result<(Place, u64, OrderKeys), ParseError> {
    let place = Place { log, lane, number: parse_nonzero(reader, "number")? };
    let settled = reader.u64("settled")?;
    let mut keys = OrderKeys::NONE;
    if flags & HAS_KEY != 0 {
        keys.key = parse_nonzero(reader, "key")?;
    }
    if flags & HAS_SUPERSEDE != 0 {
        keys.supersede = parse_nonzero(reader, "supersede")?;
        keys.version = reader.u64("version")?;
    }
    Ok((place, settled, keys))
}

fn parse_nonzero(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, ParseError> {
    let value = reader.u64(field)?;
    nonzero(reader, field, value != 0)?;
    Ok(value)
}

fn nonzero(reader: &Reader<'_>, field: &'static str, is_right: bool) -> Result<(), ParseError> {
    if is_right { Ok(()) } else { Err(reader.error(field, Fault::Range)) }
}

#[cfg(test)]
#[path = "tests/record.rs"]
mod tests;
