//! Order keys: a second push under the same key is answered with the fan-out of the first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wire_format::time::Instant;

use super::error::{PushError, Resource};
use super::fan_out::State;
use super::room::RETRY_AFTER;
use super::shared::lock;

/// Order keys remembered at a time.
pub const KEYS_MAX: usize = 16_384;
/// Bytes of marks and latencies that are kept for remembered keys.
pub const KEYS_BYTES_MAX: usize = 128 << 20;
/// How long a key is remembered after its order has settled.
pub const KEYS_KEPT: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug)]
struct Kept {
    state: Arc<State>,
    bytes: usize,
}

/// The keys of orders that live, or settled a while ago.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Table>);

#[derive(Debug, Default)]
pub(super) struct Table {
    by_key: HashMap<u64, Kept>,
    bytes: usize,
    /// Keys whose orders have settled, with the time until which they are kept, soonest first.
    settled: VecDeque<(Instant, u64)>,
}

impl Keys {
    /// The table, with what is too old taken out.
    pub(super) fn open(&self, now: Instant) -> std::sync::MutexGuard<'_, Table> {
        let mut table = lock(&self.0);
        table.forget(now);
        table
    }

    /// Gives up the results of remembered orders of which nobody holds a handle, all at once: those that come now are
    /// waited for. True if there were any.
    pub(super) fn forget_results(&self) -> bool {
        let table = lock(&self.0);
        table.by_key.values().fold(false, |any, kept| kept.state.forget_results() | any)
    }

    /// This order was not accepted after all: its key is free again.
    pub(super) fn remove(&self, key: u64, state: &Arc<State>) {
        let mut table = lock(&self.0);
        if let Some(kept) = table.by_key.get(&key).filter(|kept| Arc::ptr_eq(&kept.state, state)) {
            let bytes = kept.bytes;
            table.bytes -= bytes;
            table.by_key.remove(&key);
        }
    }

    /// The order of a key has settled.
    pub(super) fn settled(&self, now: Instant, key: u64) {
        self.settled_until(now + KEYS_KEPT, key);
    }

    /// The order of a key has settled, and it is remembered until then.
    pub(super) fn settled_until(&self, until: Instant, key: u64) {
        let mut table = lock(&self.0);
        if table.by_key.contains_key(&key) {
            let at = table.settled.partition_point(|&(before, _)| before <= until);
            table.settled.insert(at, (until, key));
        }
    }
}

impl Table {
    /// The first fan-out under this key.
    pub(super) fn find(&self, key: u64) -> Option<&Arc<State>> {
        self.by_key.get(&key).map(|kept| &kept.state)
    }

    /// Whether there is room for one more.
    pub(super) fn check(&self) -> Result<(), PushError> {
        let full = self.by_key.len() >= KEYS_MAX || self.bytes >= KEYS_BYTES_MAX;
        let limit = if self.by_key.len() >= KEYS_MAX { KEYS_MAX } else { self.by_key.len() };
        let error = PushError::Full { what: Resource::Keys, limit, retry_after: RETRY_AFTER };
        if full { Err(error) } else { Ok(()) }
    }

    /// Remembers a key, with what its order's end takes.
    pub(super) fn insert(&mut self, key: u64, state: Arc<State>, bytes: usize) {
        self.bytes += bytes;
        self.by_key.insert(key, Kept { state, bytes });
        // Settling happens on a thread that serves sockets: it shall not have to grow anything.
        let wanted = self.by_key.len().saturating_sub(self.settled.len());
        self.settled.reserve(wanted);
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(until, key)) = self.settled.front()
            && until <= now
        {
            self.settled.pop_front();
            if let Some(kept) = self.by_key.remove(&key) {
                self.bytes -= kept.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use wire_format::ids::OrderKind;

    use super::super::directory::Place;
    use super::super::room::{RESULTS_BYTES_MAX, ResultRoom};
    use super::*;
    use crate::fleet::DeviceIndex;
    use crate::order::Order;

    fn state(number: u64) -> Arc<State> {
        Arc::new(State::new(number, 1, 1, 1))
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn keys_at_their_limit_and_one_past_it() {
        let keys = Keys::default();
        for key in 1..=KEYS_MAX as u64 {
            let mut table = keys.open(at(0));
            assert_eq!(table.check(), Ok(()));
            table.insert(key, state(key), 100);
        }
        let full = Err(PushError::Full { what: Resource::Keys, limit: KEYS_MAX, retry_after: RETRY_AFTER });
        assert_eq!(keys.open(at(0)).check(), full);
        assert_eq!(keys.open(at(0)).find(7).unwrap().number, 7, "known ones are answered");
        keys.settled(at(5), 7);
        let kept = KEYS_KEPT.as_secs();
        assert_eq!(keys.open(at(4 + kept)).check(), full);
        assert_eq!(keys.open(at(5 + kept)).check(), Ok(()));
        assert!(keys.open(at(5 + kept)).find(7).is_none());
    }

    #[test]
    fn results_nobody_holds_make_room_for_those_that_come() {
        let (keys, room) = (Keys::default(), Arc::new(ResultRoom::default()));
        let order = Order::new(OrderKind::MESSAGE, 1, b"").key("request");
        let remembered = |number| Arc::new(State::new(number, 1, 1, 1).of(&order, &room));
        let place = Place { shard: 0, local: DeviceIndex(0) };
        let (held, let_go) = (remembered(1), remembered(2));
        held.handles.store(1, Ordering::Relaxed);
        for (key, state) in [(1, &held), (2, &let_go)] {
            keys.open(at(0)).insert(key, Arc::clone(state), 0);
            state.keep_result(place, &[7; 3], || false);
        }
        assert!(room.take(RESULTS_BYTES_MAX - 6));
        let comes = remembered(3);
        comes.keep_result(place, &[9; 3], || keys.forget_results());
        assert_eq!((comes.result(place).as_deref(), room.lost()), (Some(&[9; 3][..]), 0));
        assert_eq!((held.result(place).is_some(), let_go.result(place)), (true, None));
        comes.keep_result(Place { shard: 1, ..place }, &[9; 3], || keys.forget_results());
        assert_eq!(room.lost(), 1, "nothing is left to give up");
    }

    #[test]
    fn the_bytes_behind_keys_at_their_limit_and_one_past_it() {
        let keys = Keys::default();
        keys.open(at(0)).insert(1, state(1), KEYS_BYTES_MAX - 1);
        assert_eq!(keys.open(at(0)).check(), Ok(()));
        keys.open(at(0)).insert(2, state(2), 1);
        assert!(matches!(keys.open(at(0)).check(), Err(PushError::Full { what: Resource::Keys, .. })));
        keys.settled(at(0), 1);
        assert_eq!(keys.open(at(KEYS_KEPT.as_secs())).check(), Ok(()));
    }
}
