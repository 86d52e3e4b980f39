//! An order as the application words it, before a log gave it a number.

use core::time::Duration;

use wire_format::error::EmitError;
use wire_format::frame::order::{Delivery, KindFlags, OPTIONS_MAX, Order as WireOrder, PAYLOAD_MAX};
use wire_format::ids::{Lane, OrderKind};

/// How long an order is worth delivering if nothing else is said: a day.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest lifetime there is: 30 days.
pub const LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What to do, and how. Borrowed, 96 bytes at most; encoded once however many devices it goes to.
///
/// Never put card data into a payload: in clear mode anybody on the LAN reads it.
///
/// ```
/// use core::time::Duration;
/// use push::order::Order;
/// use wire_format::ids::{Lane, OrderKind};
/// let order = Order::new(OrderKind::SHOW_PAGE, 1, b"/promo")
///     .idempotent()
///     .lane(Lane::Interactive)
///     .lifetime(Duration::from_secs(300))
///     .key("promo-2026-11");
/// assert_eq!(order.encoded_len(), 16 + 48 + 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    pub(crate) kind: OrderKind,
    pub(crate) schema: u16,
    pub(crate) payload: &'a [u8],
    pub(crate) options: &'a [u8],
    pub(crate) lane: Lane,
    pub(crate) kind_flags: KindFlags,
    pub(crate) lifetime: Duration,
    pub(crate) order_key: u64,
    pub(crate) supersede_key: u64,
    pub(crate) supersede_version: u64,
    pub(crate) needs_result: bool,
    pub(crate) volatile: bool,
}

const _: () = assert!(size_of::<Order<'_>>() <= 96);

impl<'a> Order<'a> {
    /// An order of this kind whose payload is encoded in version `schema`: normal lane, a day's lifetime, no key, and
    /// not idempotent: it never runs twice on a device, at the price of an outcome "in doubt" after some crashes.
    #[must_use]
    pub const fn new(kind: OrderKind, schema: u16, payload: &'a [u8]) -> Self {
        Self {
            kind,
            schema,
            payload,
            options: &[],
            lane: Lane::Normal,
            kind_flags: KindFlags::NONE,
            lifetime: LIFETIME_DEFAULT,
            order_key: 0,
            supersede_key: 0,
            supersede_version: 0,
            needs_result: false,
            volatile: false,
        }
    }

    /// A typed payload with what its kind says about lane and repetition; encoded into `scratch`.
    #[cfg(feature = "bincode")]
    pub fn typed<P: wire_format::payload::Payload<'a>>(
        payload: &P,
        scratch: &'a mut [u8],
    ) -> Result<Self, EmitError> {
        let len = payload.encode(scratch)?;
        let order = Self::new(P::KIND, P::SCHEMA, scratch.get(..len).unwrap_or(&[]));
        Ok(Self { lane: P::LANE, kind_flags: P::FLAGS, ..order })
    }

    /// Applying it twice does what applying it once does: it may run again when its first end is unknown.
    #[must_use]
    pub const fn idempotent(self) -> Self {
        self.with_flags(KindFlags::IDEMPOTENT)
    }

    /// It is worthless once its lifetime is in doubt.
    #[must_use]
    pub const fn perishable(self) -> Self {
        self.with_flags(KindFlags::PERISHABLE)
    }

    /// Sets these kind flags in addition.
    #[must_use]
    pub const fn with_flags(self, flags: KindFlags) -> Self {
        Self { kind_flags: self.kind_flags.with(flags), ..self }
    }

    /// Its priority class.
    #[must_use]
    pub const fn lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }

    /// How long it may still be applied, counted from the push. At least 1 ms, at most [`LIFETIME_MAX`].
    #[must_use]
    pub const fn lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Its options, as [`crate::blob::Blob::option`] and its like encode them; at most 256 bytes.
    #[must_use]
    pub const fn options(self, options: &'a [u8]) -> Self {
        Self { options, ..self }
    }

    /// The application's name for this deed, carried as [`key_of`] it; the device sees it beside the order's number.
    #[must_use]
    pub const fn key(self, text: &str) -> Self {
        self.key_number(key_of(text))
    }

    /// The key as a number; 0 is none.
    #[must_use]
    pub const fn key_number(self, order_key: u64) -> Self {
        Self { order_key, ..self }
    }

    /// A version of something: on each device it takes the place of older versions under the same key, which end as
    /// superseded. The key is carried as [`key_of`] it and belongs to one lane; versions rise from push to push.
    #[must_use]
    pub const fn superseding(self, key: &str, version: u64) -> Self {
        self.superseding_number(key_of(key), version)
    }

    /// The same with the key as a number; 0 is none.
    #[must_use]
    pub const fn superseding_number(self, supersede_key: u64, supersede_version: u64) -> Self {
        Self { supersede_key, supersede_version, ..self }
    }

    /// Devices shall send a result (at most 16,384 bytes) ahead of their outcome.
    #[must_use]
    pub const fn wants_result(self) -> Self {
        Self { needs_result: true, ..self }
    }

    /// It need not survive a restart of the server: no disk is waited for, and none is needed. Without an outbox on disk
    /// every order is so.
    #[must_use]
    pub const fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// Whether it need not survive a restart of the server.
    #[must_use]
    pub const fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// What is asked for.
    #[must_use]
    pub const fn kind(&self) -> OrderKind {
        self.kind
    }

    /// Bytes of the encoded frame, header included.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        wire_format::frame::header::LEN + self.wire(1).body_len()
    }

    /// What the device will read, under this number.
    const fn wire(&self, number: u64) -> WireOrder<'a> {
        WireOrder {
            number,
            order_key: self.order_key,
            supersede_key: self.supersede_key,
            supersede_version: self.supersede_version,
            kind: self.kind,
            lane: self.lane,
            kind_flags: self.kind_flags,
            schema: self.schema,
            options: self.options,
            payload: self.payload,
        }
    }

    /// Whether it could be sent at all: the limits of the wire format and of lifetimes.
    pub fn check(&self) -> Result<(), EmitError> {
        let too_large = |field, limit| Err(EmitError::TooLarge { field, limit });
        if self.payload.len() > PAYLOAD_MAX {
            return too_large("payload", PAYLOAD_MAX);
        }
        if self.options.len() > OPTIONS_MAX {
            return too_large("options", OPTIONS_MAX);
        }
        if self.lifetime > LIFETIME_MAX {
            return too_large("lifetime", LIFETIME_MAX.as_secs() as usize);
        }
        if self.kind.0 == 0 {
            return Err(EmitError::Invalid { field: "order kind" });
        }
        if self.lifetime < Duration::from_millis(1) {
            return Err(EmitError::Invalid { field: "lifetime" });
        }
        Ok(())
    }

    /// Writes the frame of a first delivery under `number` of the volatile log. Bytes written.
    pub fn emit(&self, number: u64, buffer: &mut [u8]) -> Result<usize, EmitError> {
        self.emit_into(false, number, buffer)
    }

    /// The same under `number` of the durable log: these bytes are what the outbox keeps, and what each device is sent.
    pub fn emit_durable(&self, number: u64, buffer: &mut [u8]) -> Result<usize, EmitError> {
        self.emit_into(true, number, buffer)
    }

    fn emit_into(&self, durable: bool, number: u64, buffer: &mut [u8]) -> Result<usize, EmitError> {
        self.check()?;
        let remaining_ms = Some(Delivery::millis(self.lifetime));
        let delivery = Delivery { durable, replay: false, needs_result: self.needs_result, remaining_ms };
        self.wire(number).emit(&delivery, buffer)
    }
}

/// A text as an order key: FNV-1a over its bytes, 64 bits; 0 becomes 1, the empty text is no key (0). The same text
/// gives the same key on every server and in every release.
#[must_use]
pub const fn key_of(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01B3);
        rest = tail;
    }
    if hash == 0 { 1 } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_format::frame::Raw;

    #[test]
    fn what_is_emitted_is_what_was_said() {
        let order = Order::new(OrderKind(0x8001), 3, b"abc").idempotent().lane(Lane::Urgent).key("k");
        let mut buffer = [0; 256];
        let len = order.emit(9, &mut buffer).unwrap();
        assert_eq!(len, order.encoded_len());
        let (delivery, wire) = WireOrder::parse(&Raw::parse(&buffer[..len]).unwrap()).unwrap();
        assert_eq!(delivery.remaining_ms, Some(86_400_000));
        assert_eq!((wire.number, wire.schema, wire.payload, wire.lane), (9, 3, &b"abc"[..], Lane::Urgent));
        assert_eq!((wire.order_key, wire.kind_flags), (key_of("k"), KindFlags::IDEMPOTENT));
    }

    #[test]
    fn the_log_it_is_in_stands_in_its_header_and_nowhere_else() {
        let order = Order::new(OrderKind(0x8001), 3, b"abc");
        let (mut volatile, mut durable) = ([0; 128], [0; 128]);
        let len = order.emit(9, &mut volatile).unwrap();
        assert_eq!(order.emit_durable(9, &mut durable), Ok(len));
        let raw = Raw::parse(&durable[..len]).unwrap();
        assert!(WireOrder::parse(&raw).unwrap().0.durable);
        assert!(!WireOrder::parse(&Raw::parse(&volatile[..len]).unwrap()).unwrap().0.durable);
        assert_eq!(volatile[16..], durable[16..], "the body is the same");
        assert!(order.volatile().is_volatile() && !order.is_volatile());
    }

    #[test]
    fn versions_and_the_wish_for_a_result_travel() {
        let order = Order::new(OrderKind::PRICE_LIST, 1, b"").superseding("prices", 7).wants_result();
        let mut buffer = [0; 256];
        let len = order.emit(9, &mut buffer).unwrap();
        let (delivery, wire) = WireOrder::parse(&Raw::parse(&buffer[..len]).unwrap()).unwrap();
        assert!(delivery.needs_result);
        assert_eq!((wire.supersede_key, wire.supersede_version), (key_of("prices"), 7));
    }

    #[test]
    fn lifetimes_at_their_limits_and_one_past_each() {
        let order = Order::new(OrderKind(1), 0, b"");
        assert_eq!(order.lifetime(Duration::from_millis(1)).check(), Ok(()));
        assert_eq!(order.lifetime(LIFETIME_MAX).check(), Ok(()));
        let short = order.lifetime(Duration::from_micros(999)).check();
        assert_eq!(short, Err(EmitError::Invalid { field: "lifetime" }));
        let long = order.lifetime(LIFETIME_MAX + Duration::from_secs(1)).check();
        assert_eq!(long, Err(EmitError::TooLarge { field: "lifetime", limit: 2_592_000 }));
    }

    #[test]
    fn keys_are_fnv_1a() {
        // Check values of the FNV reference.
        assert_eq!(key_of(""), 0);
        assert_eq!(key_of("a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!(key_of("foobar"), 0x8594_4171_F739_67E8);
    }
}
