//! Orders that wait for their lane: copies of their frames, one after the other in the caller's bytes.
//!
//! ```text
//!   │ meta 40 │ ORDER frame │ meta 40 │ ORDER frame │ … │ free │
//!      gone ones stay where they are until the room is needed, or nothing else is left
//! ```

use wire_format::bytes::{u8_at, u32_at, u64_at};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::floors::Log;
use super::queue::move_down;
use super::ring::Place;

/// Bytes of the park beside an order's frame.
pub(super) const META_LEN: usize = 40;

const NUMBER: usize = 0;
const RECEIVED: usize = 8;
const UNTIL: usize = 16;
const LEN: usize = 24;
const LOG: usize = 28;
const LANE: usize = 29;
const WAITS: usize = 30;

/// What is known of a waiting order beside its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) place: Place,
    pub(super) received: Instant,
    /// When its lifetime is over.
    pub(super) until: Instant,
    /// Bytes of its frame.
    pub(super) len: usize,
}

/// Where a waiting order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot(usize);

/// The park.
#[derive(Debug)]
pub(super) struct Park<P> {
    bytes: P,
    len: u32,
    count: u16,
}

impl<P: AsRef<[u8]> + AsMut<[u8]>> Park<P> {
    pub(super) const fn new(bytes: P) -> Self {
        Self { bytes, len: 0, count: 0 }
    }

    /// Bytes in all.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.as_ref().len()
    }

    /// Keeps a copy of an order's frame. `false` if there is no room.
    pub(super) fn push(&mut self, meta: &Meta, frame: &[u8]) -> bool {
        let need = META_LEN.saturating_add(frame.len());
        if self.capacity().saturating_sub(self.len as usize) < need {
            self.sweep();
        }
        let len = self.len as usize;
        let Some(room) = self.bytes.as_mut().get_mut(len..).and_then(|free| free.get_mut(..need)) else {
            return false;
        };
        let Some((head, body)) = room.split_first_chunk_mut::<META_LEN>() else { return false };
        *head = encode(meta, frame.len());
        if body.len() != frame.len() {
            return false;
        }
        let Ok(need) = u32::try_from(need) else { return false };
        body.copy_from_slice(frame);
        self.len = self.len.saturating_add(need);
        self.count = self.count.saturating_add(1);
        true
    }

    /// The first waiting order that fits.
    pub(super) fn find(&self, mut fits: impl FnMut(&Meta) -> bool) -> Option<(Spot, Meta)> {
        self.spots().find_map(|(spot, meta, waits)| (waits && fits(&meta)).then_some((spot, meta)))
    }

    /// The frame of a waiting order, or of one that was just taken.
    pub(super) fn frame(&self, spot: Spot) -> &[u8] {
        let bytes = self.bytes.as_ref();
        let meta = bytes.get(spot.0..).and_then(|at| at.split_first_chunk::<META_LEN>());
        meta.and_then(|(meta, rest)| rest.get(..decode(meta)?.0.len)).unwrap_or(&[])
    }

    /// It waits no longer. Its frame stays readable until the next [`Park::push`].
    pub(super) fn take(&mut self, spot: Spot) {
        if let Some(waits) = self.bytes.as_mut().get_mut(spot.0.saturating_add(WAITS))
            && *waits != 0
        {
            *waits = 0;
            self.count = self.count.saturating_sub(1);
        }
    }

    /// Takes every waiting order that fits.
    pub(super) fn take_where(&mut self, mut fits: impl FnMut(&Meta) -> bool) {
        while let Some((spot, _)) = self.find(&mut fits) {
            self.take(spot);
        }
    }

    pub(super) fn clear(&mut self) {
        (self.len, self.count) = (0, 0);
    }

    fn spots(&self) -> impl Iterator<Item = (Spot, Meta, bool)> + '_ {
        let bytes = self.bytes.as_ref().get(..self.len as usize).unwrap_or(&[]);
        let mut at = 0_usize;
        core::iter::from_fn(move || {
            let (meta, _) = bytes.get(at..)?.split_first_chunk::<META_LEN>()?;
            let (meta, waits) = decode(meta)?;
            let spot = Spot(at);
            at = at.saturating_add(META_LEN).saturating_add(meta.len);
            Some((spot, meta, waits))
        })
    }

    /// Moves what waits to the front, in its order.
    fn sweep(&mut self) {
        if self.count == 0 {
            self.len = 0;
            return;
        }
        let (mut from, mut to) = (0_usize, 0_usize);
        while from < self.len as usize {
            let bytes = self.bytes.as_mut();
            let Some((meta, waits)) = bytes
                .get(from..)
                .and_then(|at| at.split_first_chunk::<META_LEN>())
                .and_then(|(m, _)| decode(m))
            else {
                break;
            };
            let end = from.saturating_add(META_LEN).saturating_add(meta.len);
            if waits {
                move_down(bytes, to, from, end);
                to = to.saturating_add(end.saturating_sub(from));
            }
            from = end;
        }
        self.len = u32::try_from(to).unwrap_or(0);
    }
}

fn encode(meta: &Meta, len: usize) -> [u8; META_LEN] {
    use wire_format::bytes::{put_u8, put_u32, put_u64};
    let mut bytes = [0; META_LEN];
    put_u64::<NUMBER, META_LEN>(&mut bytes, meta.place.number);
    put_u64::<RECEIVED, META_LEN>(&mut bytes, meta.received.as_micros());
    put_u64::<UNTIL, META_LEN>(&mut bytes, meta.until.as_micros());
    put_u32::<LEN, META_LEN>(&mut bytes, u32::try_from(len).unwrap_or(u32::MAX));
    put_u8::<LOG, META_LEN>(&mut bytes, meta.place.log.0);
    put_u8::<LANE, META_LEN>(&mut bytes, meta.place.lane as u8);
    put_u8::<WAITS, META_LEN>(&mut bytes, 1);
    bytes
}

fn decode(bytes: &[u8; META_LEN]) -> Option<(Meta, bool)> {
    let place = Place {
        log: Log(u8_at::<LOG, META_LEN>(bytes)),
        lane: Lane::new(u8_at::<LANE, META_LEN>(bytes))?,
        number: u64_at::<NUMBER, META_LEN>(bytes),
    };
    let meta = Meta {
        place,
        received: Instant::from_micros(u64_at::<RECEIVED, META_LEN>(bytes)),
        until: Instant::from_micros(u64_at::<UNTIL, META_LEN>(bytes)),
        len: u32_at::<LEN, META_LEN>(bytes) as usize,
    };
    Some((meta, u8_at::<WAITS, META_LEN>(bytes) != 0))
}

#[cfg(test)]
#[path = "tests/park.rs"]
mod tests;
