//! HELLO: I am your server; are you who I think?
//!
//! The server sends it as the first frame of a connection it dialled, and nothing else before the answer. It fits one
//! packet and is never smaller than the answer, so nobody can use a device to amplify traffic.
//!
//! ```text
//! server                          device
//!   │── HELLO ────────────────────▶│  checks version, staging, store, target, fence
//!   │◀─────── WELCOME (or REJECT) ─│
//!   │── first ORDER ──────────────▶│
//! ```
//!
//! Header: no flags, `aux16` and `aux32` zero. Body, of this size in every version to come:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | `TWLP` |
//! | 4 | 1 | version min | lowest version the server speaks, 1 or more; the body has that version's layout |
//! | 5 | 1 | version max | highest version it speaks, at least version min |
//! | 6 | 1 | mode | 1 STAGING, 2 TAKEOVER; unknown bits must be zero |
//! | 7 | 1 | store code length | 1 to 32 |
//! | 8 | 4 | legal entity | the store's legal entity |
//! | 12 | 4 | max body | largest frame body the server accepts, at least 432 |
//! | 16 | 16 | target | the device meant; zero asks "who are you?" |
//! | 32 | 16 | server | the server's id, never zero |
//! | 48 | 8 | fence | the store's fence as this server holds it |
//! | 56 | 4 | epoch | the server's boot epoch |
//! | 60 | 2 | ping interval ms | silence after which the server sends a PING, never 0 |
//! | 62 | 2 | zero | zero |
//! | 64 | 16 | durable lineage | zero if there is no durable log |
//! | 80 | 8 | durable run | run id of the durable log; 0 if there is none |
//! | 88 | 8 | durable head | highest number in the durable log; 0 if there is none |
//! | 96 | 16 | volatile lineage | zero if there is no volatile log |
//! | 112 | 8 | volatile run | run id of the volatile log; 0 if there is none |
//! | 120 | 8 | volatile head | highest number in the volatile log; 0 if there is none |
//! | 128 | 32 | store code | UTF-8 without control characters, padded with zeros |
//! | 160 | 4 | features | what the server takes beyond the minimum, see Features; unknown bits are ignored |
//! | 164 | 264 | zero | zero |
//! | 428 | 4 | checksum | CRC-32C of the body before it |

use super::{Flags, Header, Kind, Raw, emit_checked, header};
use crate::bytes::{Reader, Writer};
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::{Lineage, NodeId, Store};

/// The first bytes of HELLO and WELCOME.
pub const MAGIC: [u8; 4] = *b"TWLP";
/// The version of this document, and the only one.
pub const VERSION: u8 = 1;
/// Bytes of the body, whatever it says.
pub const BODY_LEN: usize = 432;
/// Bytes of the whole frame.
pub const FRAME_LEN: usize = header::LEN + BODY_LEN;
/// The smallest "max body" either side may declare: both must be able to take the other's part of the handshake.
pub const MAX_BODY_MIN: u32 = 432;
const CODE_LEN: usize = 32;
const RESERVED_LEN: usize = 264;
const _: () = assert!(128 + CODE_LEN + 4 + RESERVED_LEN + super::CHECKSUM_LEN == BODY_LEN);
const _: () = assert!(BODY_LEN == MAX_BODY_MIN as usize && BODY_LEN.is_multiple_of(8));

/// What a side takes beyond the minimum. A frame that needs a feature is sent only to a side that declared it.
pub mod feature {
    /// Device: takes orders whose payload comes as PARTs, and asks for it with WANT.
    pub const PARTS: u32 = 0x01;
    /// Device: takes CANCEL.
    pub const CANCEL: u32 = 0x02;
    /// Either side: answers ASK.
    pub const ASK: u32 = 0x04;
    /// Device: answers STATUS.
    pub const STATUS: u32 = 0x08;
}

const STAGING: u8 = 0x01;
const TAKEOVER: u8 = 0x02;

/// One of the server's logs: who it is and how far it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogHead {
    /// The log's identity; [`Lineage::NONE`] if the server has no such log, then the rest is 0.
    pub lineage: Lineage,
    /// Random, drawn each time the log is opened: tells a restored backup from the log it was made of.
    pub run: u64,
    /// The highest number in the log.
    pub head: u64,
}

/// The server's opening.
///
/// ```
/// use wire_format::frame::{Raw, hello::{FRAME_LEN, Hello, LogHead}};
/// use wire_format::ids::{Lineage, NodeId, Store};
/// let hello = Hello {
///     version_min: 1, version_max: 1, staging: false, takeover: false, store: Store::new(7, "PARIS-12")?,
///     max_body: 4_096, target: NodeId::NONE, server: NodeId([1; 16]), fence: 1, epoch: 3,
///     ping_interval_ms: 3_000, features: 0, durable: LogHead::default(),
///     volatile: LogHead { lineage: Lineage([2; 16]), run: 9, head: 40 },
/// };
/// let mut buffer = [0; FRAME_LEN];
/// hello.emit(&mut buffer)?;
/// assert_eq!(Hello::parse(&Raw::parse(&buffer)?)?, hello);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version the server speaks.
    pub version_min: u8,
    /// Highest version the server speaks.
    pub version_max: u8,
    /// A test server: meets staging devices only.
    pub staging: bool,
    /// An operator made this server take the store over and raised the fence for it. Said for the device's log; it
    /// shortens no lease.
    pub takeover: bool,
    /// The store it serves.
    pub store: Store,
    /// Largest frame body it accepts, in bytes.
    pub max_body: u32,
    /// The device it means; [`NodeId::NONE`] asks who is there.
    pub target: NodeId,
    /// Its own id.
    pub server: NodeId,
    /// The store's fence as it holds it.
    pub fence: u64,
    /// Its boot epoch.
    pub epoch: u32,
    /// Silence after which it sends a PING, in milliseconds.
    pub ping_interval_ms: u16,
    /// What it takes beyond the minimum: bits of [`feature`].
    pub features: u32,
    /// The durable log.
    pub durable: LogHead,
    /// The volatile log.
    pub volatile: LogHead,
}

impl Hello {
    /// Reads a HELLO frame. The magic is judged first, so that a stranger is recognised; then length and checksum, then
    /// the version, whose fault is [`Fault::Version`] and asks for a REJECT.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::HELLO, Flags::NONE)?;
        raw.header.expect_aux16_zero()?;
        raw.header.expect_aux32_zero()?;
        parse_magic(raw.body)?;
        if raw.body.len() != BODY_LEN {
            return Err(ParseError::new("length", 0, Fault::Length));
        }
        let mut reader = Reader::at(raw.checked_body()?, header::LEN);
        reader.bytes("magic", MAGIC.len())?;
        let (version_min, version_max) = parse_versions(&mut reader)?;
        let at = reader;
        let mode = reader.u8("mode")?;
        if mode & !(STAGING | TAKEOVER) != 0 {
            return Err(at.error("mode", Fault::NotZero));
        }
        let code_len = reader;
        let code_bytes = usize::from(reader.u8("store code length")?);
        let entity = reader.u32("legal entity")?;
        let max_body = parse_max_body(&mut reader)?;
        let target = NodeId(*reader.array("target")?);
        let server = parse_id(&mut reader, "server")?;
        let fence = reader.u64("fence")?;
        let epoch = reader.u32("epoch")?;
        let at = reader;
        let ping_interval_ms = reader.u16("ping interval ms")?;
        if ping_interval_ms == 0 {
            return Err(at.error("ping interval ms", Fault::Range));
        }
        reader.zeros("zero", 2)?;
        let durable = parse_log_head(&mut reader, "durable lineage")?;
        let volatile = parse_log_head(&mut reader, "volatile lineage")?;
        let code = reader;
        let Some((text, padding)) = reader.bytes("store code", CODE_LEN)?.split_at_checked(code_bytes) else {
            return Err(code_len.error("store code length", Fault::Range));
        };
        let text = str::from_utf8(text).map_err(|_| code.error("store code", Fault::Text))?;
        let store = Store::new(entity, text).map_err(|_| code.error("store code", Fault::Text))?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(code.error("store code", Fault::NotZero));
        }
        let features = reader.u32("features")?;
        reader.zeros("zero", RESERVED_LEN)?;
        Ok(Self {
            version_min,
            version_max,
            staging: mode & STAGING != 0,
            takeover: mode & TAKEOVER != 0,
            store,
            max_body,
            target,
            server,
            fence,
            epoch,
            ping_interval_ms,
            features,
            durable,
            volatile,
        })
    }

    /// Writes the frame; bytes written, always [`FRAME_LEN`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        self.check()?;
        emit_checked(Header::new(Kind::HELLO, 0), buffer, |writer| {
            let code = self.store.code().as_bytes();
            writer.bytes(&MAGIC);
            writer.u8(self.version_min);
            writer.u8(self.version_max);
            writer.u8((u8::from(self.staging) * STAGING) | (u8::from(self.takeover) * TAKEOVER));
            writer.u8(u8::try_from(code.len()).unwrap_or(u8::MAX));
            writer.u32(self.store.entity());
            writer.u32(self.max_body);
            writer.bytes(&self.target.0);
            writer.bytes(&self.server.0);
            writer.u64(self.fence);
            writer.u32(self.epoch);
            writer.u16(self.ping_interval_ms);
            writer.zeros(2);
            emit_log_head(writer, &self.durable);
            emit_log_head(writer, &self.volatile);
            writer.bytes(code);
            writer.zeros(CODE_LEN.saturating_sub(code.len()));
            writer.u32(self.features);
            writer.zeros(RESERVED_LEN);
        })
    }

    fn check(&self) -> Result<(), EmitError> {
        let invalid = |field| Err(EmitError::Invalid { field });
        let headless = |log: &LogHead| log.lineage.is_none() && (log.run != 0 || log.head != 0);
        match self {
            _ if self.version_min != VERSION => invalid("version min"),
            _ if self.version_max < self.version_min => invalid("version max"),
            _ if self.max_body < MAX_BODY_MIN => invalid("max body"),
            _ if self.server.is_none() => invalid("server"),
            _ if self.ping_interval_ms == 0 => invalid("ping interval ms"),
            _ if headless(&self.durable) => invalid("durable lineage"),
            _ if headless(&self.volatile) => invalid("volatile lineage"),
            _ => Ok(()),
        }
    }
}

/// The body begins with the magic. Judged before the checksum: who fails here is a stranger and gets no answer.
pub(crate) fn parse_magic(body: &[u8]) -> Result<(), ParseError> {
    let mut reader = Reader::at(body, header::LEN);
    let at = reader;
    if *reader.array("magic")? == MAGIC { Ok(()) } else { Err(at.error("magic", Fault::Mismatch)) }
}

/// A "max body" in its range.
pub(crate) fn parse_max_body(reader: &mut Reader<'_>) -> Result<u32, ParseError> {
    let at = *reader;
    match reader.u32("max body")? {
        max_body @ MAX_BODY_MIN.. => Ok(max_body),
        _ => Err(at.error("max body", Fault::Range)),
    }
}

/// An id that names somebody.
pub(crate) fn parse_id(reader: &mut Reader<'_>, field: &'static str) -> Result<NodeId, ParseError> {
    let at = *reader;
    let id = NodeId(*reader.array(field)?);
    if id.is_none() { Err(at.error(field, Fault::Missing)) } else { Ok(id) }
}

fn parse_versions(reader: &mut Reader<'_>) -> Result<(u8, u8), ParseError> {
    let at = *reader;
    let min = reader.u8("version min")?;
    if min != VERSION {
        let fault = if min == 0 { Fault::Range } else { Fault::Version };
        return Err(at.error("version min", fault));
    }
    let at = *reader;
    let max = reader.u8("version max")?;
    if max < min { Err(at.error("version max", Fault::Range)) } else { Ok((min, max)) }
}

fn parse_log_head(reader: &mut Reader<'_>, field: &'static str) -> Result<LogHead, ParseError> {
    let at = *reader;
    let lineage = Lineage(*reader.array(field)?);
    let log = LogHead { lineage, run: reader.u64(field)?, head: reader.u64(field)? };
    if lineage.is_none() && log != LogHead::default() {
        Err(at.error(field, Fault::Missing))
    } else {
        Ok(log)
    }
}

fn emit_log_head(writer: &mut Writer<'_>, log: &LogHead) {
    writer.bytes(&log.lineage.0);
    writer.u64(log.run);
    writer.u64(log.head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::Strategy;

    fn hello() -> Hello {
        Hello {
            version_min: 1,
            version_max: 2,
            staging: true,
            takeover: false,
            store: Store::new(7, "PARIS-12").unwrap(),
            max_body: 65_840,
            target: NodeId([0x11; 16]),
            server: NodeId([0x22; 16]),
            fence: 3,
            epoch: 4,
            ping_interval_ms: 3_000,
            features: 0x8000_0000,
            durable: LogHead { lineage: Lineage([0x33; 16]), run: 5, head: 6 },
            volatile: LogHead { lineage: Lineage([0x44; 16]), run: 7, head: 8 },
        }
    }

    fn check(hello: &Hello) {
        let bytes = testing::emit(|buffer| hello.emit(buffer));
        assert_eq!(bytes.len(), FRAME_LEN);
        assert_eq!(Hello::parse(&Raw::parse(&bytes).unwrap()), Ok(*hello));
        testing::frame(&bytes, |raw, buffer| Ok(Hello::parse(raw)?.emit(buffer)));
    }

    /// The error after the bytes at `at` of the body were replaced and the checksums made right.
    fn fault(at: usize, bytes: &[u8]) -> ParseError {
        let mut frame = testing::emit(|buffer| hello().emit(buffer));
        frame[header::LEN + at..header::LEN + at + bytes.len()].copy_from_slice(bytes);
        testing::repair(&mut frame);
        Hello::parse(&Raw::parse(&frame).unwrap()).unwrap_err()
    }

    #[test]
    fn golden_vector() {
        assert_eq!(testing::emit(|buffer| hello().emit(buffer)), testing::vector("HELLO"));
        check(&hello());
    }

    #[test]
    fn what_is_refused_and_where() {
        let error = ParseError::new;
        assert_eq!(fault(0, b"GET "), error("magic", 16, Fault::Mismatch));
        assert_eq!(fault(4, &[0]), error("version min", 20, Fault::Range));
        assert_eq!(fault(4, &[2]), error("version min", 20, Fault::Version));
        assert_eq!(fault(5, &[0]), error("version max", 21, Fault::Range));
        assert_eq!(fault(6, &[4]), error("mode", 22, Fault::NotZero));
        assert_eq!(fault(7, &[33]), error("store code length", 23, Fault::Range));
        assert_eq!(fault(7, &[0]), error("store code", 144, Fault::Text));
        assert_eq!(fault(7, &[7]), error("store code", 144, Fault::NotZero));
        assert_eq!(fault(12, &431_u32.to_le_bytes()), error("max body", 28, Fault::Range));
        assert_eq!(fault(32, &[0; 16]), error("server", 48, Fault::Missing));
        assert_eq!(fault(60, &[0; 2]), error("ping interval ms", 76, Fault::Range));
        assert_eq!(fault(62, &[1]), error("zero", 78, Fault::NotZero));
        assert_eq!(fault(64, &[0; 16]), error("durable lineage", 80, Fault::Missing));
        assert_eq!(fault(96, &[0; 16]), error("volatile lineage", 112, Fault::Missing));
        assert_eq!(fault(128, &[0xFF]), error("store code", 144, Fault::Text));
        assert_eq!(fault(128, b"\n"), error("store code", 144, Fault::Text));
        assert_eq!(fault(427, &[1]), error("zero", 180, Fault::NotZero));
    }

    #[test]
    fn one_of_a_later_version_is_known_as_such_whatever_it_says() {
        let frame = |version, len| {
            testing::emit(|buffer| {
                emit_checked(Header::new(Kind::HELLO, 0), buffer, |writer| {
                    writer.bytes(&MAGIC);
                    writer.u8(version);
                    writer.u8(9);
                    writer.bytes(&[0xAA; 600][..len]);
                })
            })
        };
        let parse = |bytes: &[u8]| Hello::parse(&Raw::parse(bytes).unwrap()).unwrap_err();
        assert_eq!(parse(&frame(2, 422)), ParseError::new("version min", 20, Fault::Version));
        assert_eq!(parse(&frame(1, 422)), ParseError::new("mode", 22, Fault::NotZero));
        for wrong in [421, 423] {
            assert_eq!(parse(&frame(2, wrong)), ParseError::new("length", 0, Fault::Length));
        }
    }

    #[test]
    fn limits_and_one_past_each() {
        let none = LogHead::default();
        check(&Hello { store: Store::new(u32::MAX, &"x".repeat(32)).unwrap(), ..hello() });
        check(&Hello { max_body: MAX_BODY_MIN, ping_interval_ms: 1, target: NodeId::NONE, ..hello() });
        check(&Hello { durable: none, volatile: none, ..hello() });
        let mut buffer = [0; FRAME_LEN];
        for (wrong, field) in [
            (Hello { version_min: 0, ..hello() }, "version min"),
            (Hello { version_min: 2, ..hello() }, "version min"),
            (Hello { version_max: 0, ..hello() }, "version max"),
            (Hello { max_body: MAX_BODY_MIN - 1, ..hello() }, "max body"),
            (Hello { server: NodeId::NONE, ..hello() }, "server"),
            (Hello { ping_interval_ms: 0, ..hello() }, "ping interval ms"),
            (Hello { durable: LogHead { head: 1, ..none }, ..hello() }, "durable lineage"),
            (Hello { volatile: LogHead { run: 1, ..none }, ..hello() }, "volatile lineage"),
        ] {
            assert_eq!(wrong.emit(&mut buffer), Err(EmitError::Invalid { field }));
        }
    }

    fn log_head() -> impl Strategy<Value = LogHead> {
        (1_u8.., 0_u64.., 0_u64..).prop_map(|(id, run, head)| LogHead {
            lineage: Lineage([id; 16]),
            run,
            head,
        })
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(
            version_max in 1_u8.., staging: bool, takeover: bool, entity: u32, code in "[A-Z0-9é]{1,16}",
            max_body in MAX_BODY_MIN.., target: [u8; 16], server in 1_u128.., fence: u64, epoch: u32,
            ping_interval_ms in 1_u16.., features: u32, durable in log_head(), volatile in log_head(),
        ) {
            check(&Hello {
                version_min: 1, version_max, staging, takeover, store: Store::new(entity, &code).unwrap(), max_body,
                target: NodeId(target), server: NodeId(server.to_le_bytes()), fence, epoch, ping_interval_ms, features,
                durable, volatile,
            });
        }
    }
}
