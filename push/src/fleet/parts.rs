//! Large payloads: pieces leave as the device asks for them, when nothing else waits for it.
//!
//! ```text
//!        WANT offset, n
//!             ▼
//!  0 ───── piece ─────────── piece + wanted ─────── last
//!   stored   │ written next     │ not asked for yet
//! ```
//!
//! The end of what is asked for only rises while a transfer goes on, so a WANT that does not raise it starts again.

use wire_format::frame::Want;
use wire_format::frame::part::PIECE_MAX;
use wire_format::ids::Lane;

use super::Fleet;
use super::device::DeviceSlot;
use super::devices::DeviceStorage;
use super::list::NONE;
use super::order::{MarkBytes, OrderSlot, OrderStorage, Walk};
use super::plan::{Body, Shared, What};
use super::track::Track;
use crate::blob;

/// The transfer under way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// The order whose blob it is; it is out on this device. NONE: no transfer.
    pub(crate) slot: u32,
    /// The piece that is written next.
    pub(crate) piece: u16,
    /// Pieces asked for from there; they may lie beyond the last one.
    pub(crate) wanted: u8,
}

impl Transfer {
    pub(crate) const NONE: Self = Self { slot: NONE, piece: 0, wanted: 0 };

    /// What WANT makes of it.
    fn asked(self, slot: u32, first: u16, pieces: u8) -> Self {
        let end = first.saturating_add(pieces.into());
        if self.slot != slot || end <= self.piece.saturating_add(self.wanted.into()) {
            return Self { slot, piece: first, wanted: pieces };
        }
        let piece = self.piece.max(first);
        let wanted = u8::try_from(end.saturating_sub(piece)).unwrap_or(u8::MAX);
        Self { slot, piece, wanted }
    }
}

impl<B, M> OrderSlot<B, M> {
    /// Whether it is one a device must take in pieces and cannot.
    pub(super) const fn has_no_place_on(&self, device: &DeviceSlot) -> bool {
        self.blob != 0 && !device.takes_parts()
    }
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// The device takes pieces of a blob.
    pub(super) fn handle_want(&mut self, index: u32, want: Want) {
        let first = u16::try_from(want.offset / PIECE_MAX as u32).unwrap_or(u16::MAX);
        let pieces = u8::try_from(want.pieces).unwrap_or(u8::MAX);
        let slot = self.find_blob(index, want.blob, NONE);
        let Some(slot) = slot.filter(|&slot| first < blob::pieces(self.orders.at(slot).blob_size)) else {
            self.stats.wants_dropped = self.stats.wants_dropped.wrapping_add(1);
            return;
        };
        self.mark_received(index, slot);
        let device = self.devices.at_mut(index);
        device.transfer = device.transfer.asked(slot, first, pieces);
        self.wake(index);
    }

    /// The order whose pieces were under way is over. WANT names the blob alone, and a device that asks for the same blob of
    /// its next order says so ahead of this one's outcome: what is asked for is that order's now.
    pub(super) fn hand_on_transfer(&mut self, index: u32, slot: u32) {
        let next = self.find_blob(index, self.orders.at(slot).blob, slot);
        let device = self.devices.at_mut(index);
        device.transfer = next.map_or(Transfer::NONE, |slot| Transfer { slot, ..device.transfer });
        if next.is_some() {
            self.wake(index);
        }
    }

    /// The order out on this device that carries this blob, other than `except`.
    fn find_blob(&self, index: u32, blob: u64, except: u32) -> Option<u32> {
        let of = |durable| {
            let track = Track::new(durable, Lane::Bulk);
            let mut walk = Walk::over(self.devices.track(index, track));
            core::iter::from_fn(move || self.orders.walk(&mut walk, index))
        };
        let carries = |&slot: &u32| {
            let order = self.orders.at(slot);
            slot != except && order.blob == blob && order.mark(index).is_out()
        };
        of(false).chain(of(true)).find(carries)
    }

    /// Whether a piece may be written to the device once nothing else has to be.
    pub(super) const fn wants_piece(device: &DeviceSlot) -> bool {
        device.transfer.wanted != 0 && device.takes_orders()
    }

    /// One piece: whatever comes up next waits for no more than that.
    pub(super) fn plan_piece(&mut self, index: u32) -> Option<Body> {
        let Transfer { slot, piece, .. } = self.devices.at(index).transfer;
        let order = self.orders.at(slot);
        let frame = blob::frame_of(piece, order.blob_size);
        if frame.is_empty() {
            return None;
        }
        let behind = order.len as usize;
        let (from, to) = (behind.saturating_add(frame.start), behind.saturating_add(frame.end));
        self.plan.push(What::Piece { slot, piece }, to.saturating_sub(from));
        Some(Body { of: Shared::Order(slot), from, to })
    }

    /// The rest of a piece that was cut.
    pub(super) fn plan_rest_of_piece(&mut self, slot: u32, piece: u16, offset: u32) -> Option<Body> {
        let order = self.orders.at(slot);
        let frame = blob::frame_of(piece, order.blob_size);
        let behind = order.len as usize;
        let from = behind.saturating_add(frame.start).saturating_add(offset as usize);
        let to = behind.saturating_add(frame.end);
        self.plan.push(What::Rest, to.saturating_sub(from));
        Some(Body { of: Shared::Order(slot), from, to })
    }

    /// A piece has left, or the first part of it.
    pub(super) fn piece_written(&mut self, index: u32, slot: u32, piece: u16) {
        let transfer = &mut self.devices.at_mut(index).transfer;
        if transfer.slot == slot && transfer.piece == piece {
            transfer.piece = piece.saturating_add(1);
            transfer.wanted = transfer.wanted.saturating_sub(1);
        }
        self.stats.pieces = self.stats.pieces.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_that_allows_more_goes_on_and_one_that_does_not_starts_again() {
        let at = |piece, wanted| Transfer { slot: 3, piece, wanted };
        assert_eq!(Transfer::NONE.asked(3, 0, 4), at(0, 4));
        assert_eq!(at(4, 0).asked(3, 2, 4), at(4, 2), "two stored, four written: two more");
        assert_eq!(at(1, 3).asked(3, 0, 8), at(1, 7));
        assert_eq!(at(4, 0).asked(3, 9, 4), at(9, 4), "it got the rest elsewhere");
        assert_eq!(at(4, 0).asked(3, 0, 4), at(0, 4), "from the start, the same again");
        assert_eq!(at(60, 4).asked(3, 0, 64), at(0, 64));
        assert_eq!(at(4, 2).asked(3, 2, 4), at(2, 4));
        assert_eq!(at(4, 2).asked(5, 0, 1), Transfer { slot: 5, piece: 0, wanted: 1 });
        assert_eq!(at(2_047, 64).asked(3, 2_047, 64), at(2_047, 64));
    }
}
