//! The order every contestant fans out, over and over.

use tillwire::{Lane, Order, OrderKind};
use wire_format::frame::order::KindFlags;

/// Its kind; the devices of a benchmark do not look at it.
pub(super) const KIND: OrderKind = OrderKind::SHOW_PAGE;
/// Version of its payload.
pub(super) const SCHEMA: u16 = 1;
/// Its priority class.
pub(super) const LANE: Lane = Lane::Normal;
/// What it may do.
pub(super) const FLAGS: KindFlags = KindFlags::IDEMPOTENT;

/// This many bytes of payload.
pub(super) fn payload(len: u32) -> Vec<u8> {
    (0..len).map(|at| at.to_le_bytes()[0]).collect()
}

/// The order as the library takes it.
pub(super) const fn order(payload: &[u8]) -> Order<'_> {
    Order::new(KIND, SCHEMA, payload).lane(LANE).with_flags(FLAGS)
}
