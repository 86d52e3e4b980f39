//! How much of what is limited is in use: places and bytes of live orders, and bytes of results.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::error::{PushError, Resource};

/// When a push that found no room is worth trying again, if nothing tells sooner: an order to a whole store settles in
/// about this time.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Bytes of results that are kept, all fan-outs together.
pub const RESULTS_BYTES_MAX: usize = 64 << 20;

/// Room for results.
#[derive(Debug, Default)]
pub(super) struct ResultRoom {
    bytes: AtomicUsize,
    /// Results for which there was none.
    lost: AtomicU64,
}

impl ResultRoom {
    /// Takes room for a result; false if there is none.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = held.saturating_add(bytes) <= RESULTS_BYTES_MAX;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    /// A result was lost for want of room.
    pub(super) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Results for which there was no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Of what is limited, one in so many is kept for volatile orders: durable ones may wait long for a disk.
const VOLATILE_PART: usize = 4;

/// How much of what is limited is in use.
#[derive(Debug)]
pub(super) struct Room {
    all: Use,
    /// What durable orders have of it.
    durable: Use,
    /// Told whenever something becomes free.
    freed: Notify,
}

/// Places and bytes in use, and how many there are.
#[derive(Debug)]
struct Use {
    orders: AtomicUsize,
    bytes: AtomicUsize,
    orders_max: usize,
    bytes_max: usize,
}

impl Use {
    const fn new(orders_max: usize, bytes_max: usize) -> Self {
        Self { orders: AtomicUsize::new(0), bytes: AtomicUsize::new(0), orders_max, bytes_max }
    }

    /// Takes a place, or says what is full.
    fn reserve(&self, bytes: usize) -> Result<(), PushError> {
        let (live, held) = self.take(bytes);
        let (what, limit) = if live >= self.orders_max {
            (Resource::Orders, self.orders_max)
        } else if held.saturating_add(bytes) > self.bytes_max {
            (Resource::Bytes, self.bytes_max)
        } else {
            return Ok(());
        };
        self.give_back(bytes);
        Err(PushError::Full { what, limit, retry_after: RETRY_AFTER })
    }

    /// Takes a place, be there one or not. What was in use before.
    fn take(&self, bytes: usize) -> (usize, usize) {
        (self.orders.fetch_add(1, Ordering::Relaxed), self.bytes.fetch_add(bytes, Ordering::Relaxed))
    }

    fn give_back(&self, bytes: usize) {
        self.orders.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Room {
    pub(super) fn new(orders: usize, bytes: usize) -> Self {
        let share = |whole: usize| whole - whole / VOLATILE_PART;
        let (all, durable) = (Use::new(orders, bytes), Use::new(share(orders), share(bytes)));
        Self { all, durable, freed: Notify::new() }
    }

    /// Takes a place among the live orders, or says what is full.
    pub(super) fn reserve(&self, bytes: usize, durable: bool) -> Result<(), PushError> {
        if durable {
            self.durable.reserve(bytes)?;
        }
        // Nothing becomes free by an error: who waits for that is not told.
        self.all.reserve(bytes).inspect_err(|_| {
            if durable {
                self.durable.give_back(bytes);
            }
        })
    }

    /// Takes a place for a durable order of an earlier run, be there one or not.
    pub(super) fn restore(&self, bytes: usize) {
        let _full = (self.all.take(bytes), self.durable.take(bytes));
    }

    pub(super) fn release(&self, bytes: usize, durable: bool) {
        self.all.give_back(bytes);
        if durable {
            self.durable.give_back(bytes);
        }
        self.freed.notify_waiters();
    }

    pub(super) fn live_orders(&self) -> usize {
        self.all.orders.load(Ordering::Relaxed)
    }

    pub(super) const fn freed(&self) -> &Notify {
        &self.freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_at_their_limit_and_one_past_it() {
        let room = ResultRoom::default();
        assert!(room.take(RESULTS_BYTES_MAX));
        assert!(!room.take(1));
        room.give_back(1);
        assert!(room.take(1));
    }

    #[test]
    fn a_quarter_is_kept_for_orders_that_wait_for_no_disk() {
        let room = Room::new(8, 800);
        for _ in 0..6 {
            assert_eq!(room.reserve(100, true), Ok(()));
        }
        let full = |what, limit| Err(PushError::Full { what, limit, retry_after: RETRY_AFTER });
        assert_eq!(room.reserve(1, true), full(Resource::Orders, 6));
        assert_eq!((room.reserve(100, false), room.reserve(100, false)), (Ok(()), Ok(())));
        assert_eq!(room.reserve(0, false), full(Resource::Orders, 8));
        room.release(100, true);
        room.release(100, true);
        assert_eq!(room.reserve(201, true), full(Resource::Bytes, 600));
        assert_eq!(room.reserve(200, true), Ok(()));
        assert_eq!(room.live_orders(), 7);
    }
}
