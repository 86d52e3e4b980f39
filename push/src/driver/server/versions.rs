//! Supersede keys of live orders: what would be refused is known at the push.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use wire_format::frame::order::Order as WireOrder;
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::shared::lock;
use crate::fleet::SubmitFault;
use crate::order::{LIFETIME_MAX, Order};

/// A shard reads a message within this time.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// What lives under a key.
#[derive(Debug)]
struct Live {
    lane: Lane,
    version: u64,
    /// The latest end of a lifetime, and the longest lifetime.
    deadline: Instant,
    lifetime: Duration,
    orders: usize,
}

/// The keys of live orders. There are no more than live orders.
#[derive(Debug, Default)]
pub(super) struct Versions(Mutex<HashMap<u64, Live>>);

impl Versions {
    /// Writes a new order down, or says why no fleet would take it. For an order without such a key there is nothing to do.
    /// The highest version that lives before it, for [`Versions::undo`].
    pub(super) fn begin(&self, now: Instant, order: &Order<'_>) -> Result<u64, SubmitFault> {
        if order.supersede_key == 0 {
            return Ok(0);
        }
        let (lane, version, deadline) = (order.lane, order.supersede_version, now + order.lifetime);
        let mut keys = lock(&self.0);
        let live = keys.entry(order.supersede_key);
        let (none, zero) = (Instant::ZERO, Duration::ZERO);
        let live = live.or_insert(Live { lane, version: 0, deadline: none, lifetime: zero, orders: 0 });
        if live.orders > 0 && live.lane != lane {
            return Err(SubmitFault::KeyLane { lane: live.lane });
        }
        if live.orders > 0 && version <= live.version {
            return Err(SubmitFault::VersionNotRising { last: live.version });
        }
        // The shard counts from the moment it reads its message, which for the older one may have been later.
        if order.lifetime < live.lifetime && deadline < live.deadline + READ_WITHIN {
            return Err(SubmitFault::ShorterLife);
        }
        let before = core::mem::replace(&mut live.version, version);
        live.deadline = live.deadline.max(deadline);
        live.lifetime = live.lifetime.max(order.lifetime);
        live.orders += 1;
        Ok(before)
    }

    /// An order of an earlier run lives on.
    pub(super) fn restore(&self, now: Instant, order: &WireOrder<'_>, remaining: Option<Duration>) {
        if order.supersede_key == 0 {
            return;
        }
        let lifetime = remaining.unwrap_or(LIFETIME_MAX);
        let (none, zero) = (Instant::ZERO, Duration::ZERO);
        let new = Live { lane: order.lane, version: 0, deadline: none, lifetime: zero, orders: 0 };
        let mut keys = lock(&self.0);
        let live = keys.entry(order.supersede_key).or_insert(new);
        live.version = live.version.max(order.supersede_version);
        live.deadline = live.deadline.max(now + lifetime);
        live.lifetime = live.lifetime.max(lifetime);
        live.orders += 1;
    }

    /// The order was not accepted after all: its version may come again.
    pub(super) fn undo(&self, key: u64, version: u64, before: u64) {
        if let Some(live) = lock(&self.0).get_mut(&key).filter(|live| live.version == version) {
            live.version = before;
        }
        self.end(key);
    }

    /// An order with this key (0 none) does not live any more.
    pub(super) fn end(&self, key: u64) {
        if key == 0 {
            return;
        }
        let mut keys = lock(&self.0);
        if let Some(live) = keys.get_mut(&key) {
            live.orders -= 1;
            if live.orders == 0 {
                keys.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_format::ids::OrderKind;

    #[test]
    fn a_key_has_one_lane_rising_versions_and_no_shorter_life() {
        let (versions, now) = (Versions::default(), Instant::ZERO);
        let order = Order::new(OrderKind::SHOW_PAGE, 1, b"").lifetime(Duration::from_secs(60));
        let page = |version| order.superseding("page", version);
        let key = page(1).supersede_key;
        assert_eq!(versions.begin(now, &page(3)), Ok(0));
        let urgent = versions.begin(now, &page(4).lane(Lane::Urgent));
        assert_eq!(urgent, Err(SubmitFault::KeyLane { lane: Lane::Normal }));
        assert_eq!(versions.begin(now, &page(3)), Err(SubmitFault::VersionNotRising { last: 3 }));
        let short = page(4).lifetime(Duration::from_secs(59));
        assert_eq!(versions.begin(now, &short), Err(SubmitFault::ShorterLife));
        assert_eq!(versions.begin(now, &page(4)), Ok(3));
        versions.end(key);
        assert_eq!(versions.begin(now, &page(4)), Err(SubmitFault::VersionNotRising { last: 4 }));
        versions.end(key);
        assert_eq!(versions.begin(now, &page(1).lane(Lane::Bulk)), Ok(0), "nothing of it lives");
    }

    #[test]
    fn a_version_that_was_not_accepted_may_come_again() {
        let (versions, now) = (Versions::default(), Instant::ZERO);
        let page = |version| Order::new(OrderKind::SHOW_PAGE, 1, b"").superseding("page", version);
        let key = page(1).supersede_key;
        assert_eq!(versions.begin(now, &page(3)), Ok(0));
        assert_eq!(versions.begin(now, &page(5)), Ok(3));
        versions.undo(key, 5, 3);
        assert_eq!(versions.begin(now, &page(4)), Ok(3));
        versions.undo(key, 3, 0);
        assert_eq!(versions.begin(now, &page(4)), Err(SubmitFault::VersionNotRising { last: 4 }));
    }
}
