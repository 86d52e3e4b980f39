//! ORDER: do this.
//!
//! The server sends it to every targeted device. All that differs between deliveries stands in the 16-byte header; the
//! body is encoded once, by the outbox, and the same bytes serve every socket and the stored record.
//!
//! ```text
//! server                          device
//!   │── ORDER 7 ──────────────────▶│  received, and applied when its lane is free
//!   │◀───────────── OUTCOME 7 ─────│  exactly one, final (an ACK 7 before it, if it takes a while)
//!   │── SETTLED 7 ────────────────▶│  logged; the device may forget
//! ```
//!
//! Header: `aux16` zero; `aux32` the remaining lifetime in milliseconds, 0xFFFFFFFF for none, never 0. Flags DURABLE,
//! REPLAY, NEEDS_RESULT. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | position in its log, never 0 |
//! | 8 | 8 | order key | the application's idempotency key, 0 none |
//! | 16 | 8 | supersede key | 0 none |
//! | 24 | 8 | supersede version | 0 if there is no supersede key |
//! | 32 | 2 | order kind | 0 is refused; 0x8000 and above are the integrator's |
//! | 34 | 1 | lane | 0 to 3 |
//! | 35 | 1 | kind flags | 1 IDEMPOTENT, 2 PERISHABLE, 4 CANCELLABLE; unknown bits must be zero |
//! | 36 | 2 | schema | version of the payload's encoding |
//! | 38 | 2 | options length | bytes of options, a multiple of 4, at most 256 |
//! | 40 | 4 | payload length | bytes of payload, at most 65,536 |
//! | 44 | 4 | body checksum | CRC-32C of bytes 0 to 44, then of all that follows byte 48 |
//! | 48 | – | options | entries as under Options |
//! | – | – | payload | opaque to the protocol |
//! | – | 0–7 | padding | zero, to a multiple of 8 |

use core::time::Duration;

pub use super::options::{Options, OrderOption, options};

use super::{Flags, Header, Kind, Raw, header};
use crate::bytes::{Writer, put_u8, put_u16, put_u32, put_u64, u8_at, u16_at, u32_at, u64_at};
use crate::crc;
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::{Lane, OrderKind};

mod field {
    pub(super) const NUMBER: usize = 0;
    pub(super) const ORDER_KEY: usize = 8;
    pub(super) const SUPERSEDE_KEY: usize = 16;
    pub(super) const SUPERSEDE_VERSION: usize = 24;
    pub(super) const ORDER_KIND: usize = 32;
    pub(super) const LANE: usize = 34;
    pub(super) const KIND_FLAGS: usize = 35;
    pub(super) const SCHEMA: usize = 36;
    pub(super) const OPTIONS_LENGTH: usize = 38;
    pub(super) const PAYLOAD_LENGTH: usize = 40;
    pub(super) const BODY_CHECKSUM: usize = 44;
    pub(super) const OPTIONS: usize = 48;
}

/// Bytes of an ORDER body before options and payload.
pub const FIXED_LEN: usize = 48;
/// Bytes of options.
pub const OPTIONS_MAX: usize = 256;
/// Bytes of payload; more travels as PARTs or over HTTP.
pub const PAYLOAD_MAX: usize = 65_536;
/// Bytes of the largest body.
pub const BODY_MAX: usize = FIXED_LEN + OPTIONS_MAX + PAYLOAD_MAX;
const _: () = assert!(field::OPTIONS == FIXED_LEN && BODY_MAX.is_multiple_of(8));
const _: () = assert!(header::LEN + FIXED_LEN == 64, "one cache line before options and payload");

/// What an order may do, for retries: set by its kind, carried so that a device needs no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KindFlags(u8);

impl KindFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Applying it twice does what applying it once does; only such an order may ever run again.
    pub const IDEMPOTENT: Self = Self(0x01);
    /// Worthless after its lifetime; expires when the lifetime is in doubt.
    pub const PERISHABLE: Self = Self(0x02);
    /// A CANCEL is worth sending.
    pub const CANCELLABLE: Self = Self(0x04);
    const KNOWN: u8 = 0x07;

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What differs between two deliveries of one order: its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The order is in the durable log.
    pub durable: bool,
    /// This may be a repetition.
    pub replay: bool,
    /// The sender waits for a RESULT.
    pub needs_result: bool,
    /// Lifetime that is left, in milliseconds; `None` for no limit. 0 and 0xFFFFFFFF are not lifetimes.
    pub remaining_ms: Option<u32>,
}

impl Delivery {
    /// The header of an ORDER whose body has `length` bytes. A lifetime of 0 is sent as 1 ms.
    #[inline]
    #[must_use]
    pub fn header(&self, length: u32) -> Header {
        Header {
            flags: Flags::NONE
                .with_if(Flags::DURABLE, self.durable)
                .with_if(Flags::REPLAY, self.replay)
                .with_if(Flags::NEEDS_RESULT, self.needs_result),
            aux32: self.remaining_ms.map_or(u32::MAX, |ms| ms.clamp(1, u32::MAX - 1)),
            ..Header::new(Kind::ORDER, length)
        }
    }

    /// `lifetime` as milliseconds for [`Delivery::remaining_ms`], rounded up, saturated below "no limit".
    #[must_use]
    pub fn millis(lifetime: Duration) -> u32 {
        u32::try_from(lifetime.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX).min(u32::MAX - 1)
    }
}

/// An order: the immutable body.
///
/// ```
/// use wire_format::frame::{Raw, order::{Delivery, KindFlags, Order}};
/// use wire_format::ids::{Lane, OrderKind};
/// let order = Order {
///     number: 7, order_key: 0, supersede_key: 0, supersede_version: 0, kind: OrderKind::SHOW_PAGE,
///     lane: Lane::Normal, kind_flags: KindFlags::IDEMPOTENT, schema: 1, options: &[], payload: b"home",
/// };
/// let delivery = Delivery { durable: false, replay: false, needs_result: false, remaining_ms: Some(60_000) };
/// let mut buffer = [0; 128];
/// let len = order.emit(&delivery, &mut buffer)?;
/// let raw = Raw::parse(&buffer[..len])?;
/// assert_eq!(Order::parse(&raw)?, (delivery, order));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// Position in its log, never 0. With the log's lineage it is the order's identity on every device.
    pub number: u64,
    /// The application's idempotency key, 0 for none.
    pub order_key: u64,
    /// Orders with the same key replace each other, 0 for none.
    pub supersede_key: u64,
    /// Higher replaces lower; 0 if there is no key.
    pub supersede_version: u64,
    /// What is asked for.
    pub kind: OrderKind,
    /// Its priority class.
    pub lane: Lane,
    /// What it may do.
    pub kind_flags: KindFlags,
    /// Version of the payload's encoding.
    pub schema: u16,
    /// TLVs, at most 256 bytes, a multiple of 4.
    pub options: &'a [u8],
    /// Opaque to the protocol, at most 65,536 bytes. Never card data.
    pub payload: &'a [u8],
}

impl<'a> Order<'a> {
    /// Bytes of the body.
    #[must_use]
    pub const fn body_len(&self) -> usize {
        (FIXED_LEN + self.options.len() + self.payload.len()).next_multiple_of(8)
    }

    /// Reads an ORDER frame: lengths, checksum, then values.
    #[inline]
    pub fn parse(raw: &Raw<'a>) -> Result<(Delivery, Self), ParseError> {
        let delivery = parse_delivery(&raw.header)?;
        let parts = Parts::cut(raw.body).map_err(|error| error.shifted(header::LEN))?;
        Ok((delivery, parts.order()))
    }

    /// Reads an ORDER body, as an outbox stores it. Offsets of errors count from the body's first byte.
    #[inline]
    pub fn parse_body(body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Parts::cut(body)?.order())
    }

    /// Writes the body alone; bytes written.
    pub fn emit_body(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        self.check()?;
        let Some((fixed, rest)) = buffer.split_first_chunk_mut::<FIXED_LEN>() else {
            return Err(EmitError::NoRoom { need: self.body_len() });
        };
        self.put_fixed(fixed);
        let mut writer = Writer::new(rest);
        writer.bytes(self.options);
        writer.bytes(self.payload);
        writer.pad(8);
        let Ok(len) = writer.finish() else {
            return Err(EmitError::NoRoom { need: self.body_len() });
        };
        let [covered @ .., _, _, _, _] = &*fixed;
        let checksum = crc::append(crc::crc32c(covered), rest.get(..len).unwrap_or_default());
        put_u32::<{ field::BODY_CHECKSUM }, FIXED_LEN>(fixed, checksum);
        Ok(FIXED_LEN.saturating_add(len))
    }

    /// The fixed part but its checksum, at places the compiler knows: a few stores.
    #[inline]
    fn put_fixed(&self, fixed: &mut [u8; FIXED_LEN]) {
        put_u64::<{ field::NUMBER }, FIXED_LEN>(fixed, self.number);
        put_u64::<{ field::ORDER_KEY }, FIXED_LEN>(fixed, self.order_key);
        put_u64::<{ field::SUPERSEDE_KEY }, FIXED_LEN>(fixed, self.supersede_key);
        put_u64::<{ field::SUPERSEDE_VERSION }, FIXED_LEN>(fixed, self.supersede_version);
        put_u16::<{ field::ORDER_KIND }, FIXED_LEN>(fixed, self.kind.0);
        put_u8::<{ field::LANE }, FIXED_LEN>(fixed, self.lane as u8);
        put_u8::<{ field::KIND_FLAGS }, FIXED_LEN>(fixed, self.kind_flags.0);
        put_u16::<{ field::SCHEMA }, FIXED_LEN>(fixed, self.schema);
        let options = u16::try_from(self.options.len()).unwrap_or(u16::MAX);
        put_u16::<{ field::OPTIONS_LENGTH }, FIXED_LEN>(fixed, options);
        let payload = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        put_u32::<{ field::PAYLOAD_LENGTH }, FIXED_LEN>(fixed, payload);
    }

    /// Writes the whole frame; bytes written.
    #[inline]
    pub fn emit(&self, delivery: &Delivery, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let need = header::LEN.saturating_add(self.body_len());
        let Some((head, body)) = buffer.split_first_chunk_mut::<{ header::LEN }>() else {
            return Err(EmitError::NoRoom { need });
        };
        let len = self.emit_body(body).map_err(|error| match error {
            EmitError::NoRoom { .. } => EmitError::NoRoom { need },
            other => other,
        })?;
        *head = delivery.header(u32::try_from(len).unwrap_or(u32::MAX)).emit();
        Ok(header::LEN.saturating_add(len))
    }

    #[inline]
    fn check(&self) -> Result<(), EmitError> {
        if self.options.len() > OPTIONS_MAX {
            return Err(EmitError::TooLarge { field: "options", limit: OPTIONS_MAX });
        }
        if self.payload.len() > PAYLOAD_MAX {
            return Err(EmitError::TooLarge { field: "payload", limit: PAYLOAD_MAX });
        }
        let invalid = |field| Err(EmitError::Invalid { field });
        match self {
            _ if self.number == 0 => invalid("number"),
            _ if self.kind.0 == 0 => invalid("order kind"),
            _ if !self.options.len().is_multiple_of(4) => invalid("options"),
            _ if self.supersede_key == 0 && self.supersede_version != 0 => invalid("supersede version"),
            _ => Ok(()),
        }
    }
}

/// A body whose lengths, checksum and values were right. Judged first and taken apart afterwards: an [`Order`] that is handed
/// on inside one `Result` after the other is copied each time, and that takes longer than all the rest.
struct Parts<'a> {
    fixed: &'a [u8; FIXED_LEN],
    lane: Lane,
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Parts<'a> {
    fn cut(body: &'a [u8]) -> Result<Self, ParseError> {
        let error = ParseError::new;
        let Some((fixed, rest)) = body.split_first_chunk::<FIXED_LEN>() else {
            return Err(error("body", body.len(), Fault::Truncated));
        };
        let options_len = usize::from(u16_at::<{ field::OPTIONS_LENGTH }, FIXED_LEN>(fixed));
        if options_len > OPTIONS_MAX || options_len % 4 != 0 {
            return Err(error("options length", field::OPTIONS_LENGTH, Fault::Range));
        }
        let payload_len = u32_at::<{ field::PAYLOAD_LENGTH }, FIXED_LEN>(fixed) as usize;
        if payload_len > PAYLOAD_MAX {
            return Err(error("payload length", field::PAYLOAD_LENGTH, Fault::Range));
        }
        let used = options_len.wrapping_add(payload_len);
        if body.len() != FIXED_LEN.wrapping_add(used).next_multiple_of(8) {
            return Err(error("payload length", field::PAYLOAD_LENGTH, Fault::Length));
        }
        let [covered @ .., _, _, _, _] = fixed;
        if crc::append(crc::crc32c(covered), rest) != u32_at::<{ field::BODY_CHECKSUM }, FIXED_LEN>(fixed) {
            return Err(error("body checksum", field::BODY_CHECKSUM, Fault::Checksum));
        }
        let (Some((options, rest)), true) = (rest.split_at_checked(options_len), used <= rest.len()) else {
            return Err(error("options", FIXED_LEN, Fault::Length));
        };
        let Some((payload, padding)) = rest.split_at_checked(payload_len) else {
            return Err(error("payload", FIXED_LEN.wrapping_add(options_len), Fault::Length));
        };
        if padding.iter().any(|&byte| byte != 0) {
            return Err(error("padding", FIXED_LEN.wrapping_add(used), Fault::NotZero));
        }
        Ok(Self { fixed, lane: judge(fixed)?, options, payload })
    }

    #[inline]
    fn order(&self) -> Order<'a> {
        let fixed = self.fixed;
        Order {
            number: u64_at::<{ field::NUMBER }, FIXED_LEN>(fixed),
            order_key: u64_at::<{ field::ORDER_KEY }, FIXED_LEN>(fixed),
            supersede_key: u64_at::<{ field::SUPERSEDE_KEY }, FIXED_LEN>(fixed),
            supersede_version: u64_at::<{ field::SUPERSEDE_VERSION }, FIXED_LEN>(fixed),
            kind: OrderKind(u16_at::<{ field::ORDER_KIND }, FIXED_LEN>(fixed)),
            lane: self.lane,
            kind_flags: KindFlags(u8_at::<{ field::KIND_FLAGS }, FIXED_LEN>(fixed)),
            schema: u16_at::<{ field::SCHEMA }, FIXED_LEN>(fixed),
            options: self.options,
            payload: self.payload,
        }
    }
}

/// The values of the fixed part that have rules; the lane.
fn judge(fixed: &[u8; FIXED_LEN]) -> Result<Lane, ParseError> {
    let error = |field, at, fault| Err(ParseError::new(field, at, fault));
    let Some(lane) = Lane::new(u8_at::<{ field::LANE }, FIXED_LEN>(fixed)) else {
        return error("lane", field::LANE, Fault::Range);
    };
    if u8_at::<{ field::KIND_FLAGS }, FIXED_LEN>(fixed) & !KindFlags::KNOWN != 0 {
        return error("kind flags", field::KIND_FLAGS, Fault::NotZero);
    }
    if u64_at::<{ field::NUMBER }, FIXED_LEN>(fixed) == 0 {
        return error("number", field::NUMBER, Fault::Range);
    }
    if u16_at::<{ field::ORDER_KIND }, FIXED_LEN>(fixed) == 0 {
        return error("order kind", field::ORDER_KIND, Fault::Range);
    }
    let keyless = u64_at::<{ field::SUPERSEDE_KEY }, FIXED_LEN>(fixed) == 0;
    if keyless && u64_at::<{ field::SUPERSEDE_VERSION }, FIXED_LEN>(fixed) != 0 {
        return error("supersede version", field::SUPERSEDE_VERSION, Fault::NotZero);
    }
    Ok(lane)
}

#[inline]
fn parse_delivery(header: &Header) -> Result<Delivery, ParseError> {
    let allowed = Flags::DURABLE.with(Flags::REPLAY).with(Flags::NEEDS_RESULT);
    header.expect(Kind::ORDER, allowed)?;
    header.expect_aux16_zero()?;
    let remaining_ms = match header.aux32 {
        0 => return Err(ParseError::new("aux32", 8, Fault::Range)),
        u32::MAX => None,
        ms => Some(ms),
    };
    Ok(Delivery {
        durable: header.flags.contains(Flags::DURABLE),
        replay: header.flags.contains(Flags::REPLAY),
        needs_result: header.flags.contains(Flags::NEEDS_RESULT),
        remaining_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn order() -> Order<'static> {
        Order {
            number: 0x0102_0304_0506_0708,
            order_key: 0x1111_1111_1111_1111,
            supersede_key: 0x2222_2222_2222_2222,
            supersede_version: 3,
            kind: OrderKind::PRICE_LIST,
            lane: Lane::Normal,
            kind_flags: KindFlags::IDEMPOTENT.with(KindFlags::CANCELLABLE),
            schema: 1,
            options: &[],
            payload: b"prices",
        }
    }

    const DELIVERY: Delivery =
        Delivery { durable: true, replay: false, needs_result: false, remaining_ms: Some(86_400_000) };

    fn emit(order: &Order<'_>) -> Vec<u8> {
        testing::emit(|buffer| order.emit(&DELIVERY, buffer))
    }

    fn check(bytes: &[u8]) {
        testing::frame(bytes, |raw, buffer| {
            let (delivery, order) = Order::parse(raw)?;
            Ok(order.emit(&delivery, buffer))
        });
    }

    #[test]
    fn golden_vector() {
        let bytes = testing::vector("ORDER");
        assert_eq!(emit(&order()), bytes);
        assert_eq!(Order::parse(&Raw::parse(&bytes).unwrap()), Ok((DELIVERY, order())));
        check(&bytes);
    }

    #[test]
    fn limits_and_one_past_each() {
        let payload = vec![7; PAYLOAD_MAX + 1];
        let options = [0; OPTIONS_MAX + 4];
        let full = Order { options: &options[..OPTIONS_MAX], payload: &payload[..PAYLOAD_MAX], ..order() };
        let bytes = emit(&full);
        assert_eq!(bytes.len(), header::LEN + BODY_MAX);
        assert_eq!(Order::parse(&Raw::parse(&bytes).unwrap()).unwrap().1, full);
        let mut buffer = vec![0; 80_000];
        for (wrong, error) in [
            (Order { payload: &payload, ..order() }, EmitError::TooLarge { field: "payload", limit: 65_536 }),
            (Order { options: &options, ..order() }, EmitError::TooLarge { field: "options", limit: 256 }),
            (Order { options: &[0; 3], ..order() }, EmitError::Invalid { field: "options" }),
            (Order { number: 0, ..order() }, EmitError::Invalid { field: "number" }),
            (Order { kind: OrderKind(0), ..order() }, EmitError::Invalid { field: "order kind" }),
            (Order { supersede_key: 0, ..order() }, EmitError::Invalid { field: "supersede version" }),
        ] {
            assert_eq!(wrong.emit(&DELIVERY, &mut buffer), Err(error));
        }
    }

    #[test]
    fn a_lifetime_of_zero_is_never_sent_and_never_believed() {
        let delivery = Delivery { remaining_ms: Some(0), ..DELIVERY };
        assert_eq!(delivery.header(0).aux32, 1);
        let header = Header { aux32: 0, ..delivery.header(0) };
        assert_eq!(parse_delivery(&header), Err(ParseError::new("aux32", 8, Fault::Range)));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(
            number in 1_u64.., order_key: u64, supersede in proptest::option::of((1_u64.., 0_u64..)),
            kind in 1_u16.., lane in 0_u8..4, kind_flags in 0_u8..8, schema: u16,
            options in proptest::collection::vec(0_u8.., 0..65), payload in proptest::collection::vec(0_u8.., 0..300),
            durable: bool, replay: bool, needs_result: bool, remaining_ms in proptest::option::of(1_u32..u32::MAX),
        ) {
            let options = options.repeat(4);
            let (supersede_key, supersede_version) = supersede.unwrap_or_default();
            let order = Order {
                number, order_key, supersede_key, supersede_version, kind: OrderKind(kind),
                lane: Lane::new(lane).unwrap(), kind_flags: KindFlags(kind_flags), schema,
                options: &options, payload: &payload,
            };
            let delivery = Delivery { durable, replay, needs_result, remaining_ms };
            let bytes = testing::emit(|buffer| order.emit(&delivery, buffer));
            proptest::prop_assert_eq!(bytes.len(), header::LEN + order.body_len());
            proptest::prop_assert_eq!(Order::parse(&Raw::parse(&bytes).unwrap()), Ok((delivery, order)));
            check(&bytes);
        }
    }
}
