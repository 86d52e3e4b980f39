//! An order that waits for the disk.

use std::sync::Arc;
use std::time::Duration;

use wire_format::time::Instant;

use super::super::error::{OutboxFault, PushError};
use super::super::fan_out::State;
use super::super::positions::Positions;
use super::super::retry::Chain;
use super::super::shared::{Message, NumberedOrder, Shared};
use super::Record;
use crate::config::FRESH_MAX;

/// An order as it will go to the shards.
#[derive(Debug)]
pub(in super::super) struct Waiting {
    pub(in super::super) number: u64,
    /// Whom it is for.
    pub(in super::super) targets: Positions,
    /// What each shard has to do, with its index. Never empty.
    pub(in super::super) orders: Vec<(usize, NumberedOrder)>,
    pub(in super::super) origin: Origin,
    /// When it was pushed.
    pub(in super::super) since: Instant,
}

/// Who waits for it.
#[derive(Debug)]
pub(in super::super) enum Origin {
    /// Whoever pushed it.
    Push {
        state: Arc<State>,
        /// Its version under its supersede key.
        version: u64,
        /// The highest version under its supersede key before it.
        before: u64,
    },
    /// A shard that tries again.
    Retry(Chain),
}

impl Waiting {
    /// The bytes that were admitted: a further attempt is bounded by the records a shard may have.
    pub(super) fn admitted(&self) -> Option<usize> {
        matches!(self.origin, Origin::Push { .. }).then(|| self.frame().len())
    }

    fn frame(&self) -> &[u8] {
        self.orders.first().map_or(&[], |(_, order)| order.frame.as_ref())
    }

    /// What is kept of it.
    pub(super) fn record(&self) -> Record<'_> {
        let (number, targets, frame) = (self.number, &self.targets, self.frame());
        match &self.origin {
            Origin::Push { .. } => Record::Order { targets, frame },
            &Origin::Retry(Chain { root, attempt }) => Record::Retry { number, root, attempt, targets },
        }
    }

    /// It is kept: the shards get it, and who pushed it hears so. The bits of the shards whose bells are to be rung.
    pub(super) fn hand_over(self, shared: &Shared) -> u64 {
        let mut bells = 0;
        let waited = shared.clock.now().since(self.since);
        for (shard, mut order) in self.orders {
            // What its header says was so when it was pushed: one that waited long is sent with what is left.
            order.lifetime = order.lifetime.map(|lifetime| {
                let is_fresh = waited <= FRESH_MAX.min(lifetime / 64);
                let left = lifetime.saturating_sub(waited).max(Duration::from_millis(1));
                if is_fresh { lifetime } else { left }
            });
            shared.put(shard, Message::Submit(order));
            bells |= 1 << shard;
        }
        if let Origin::Push { state, .. } = self.origin {
            state.keep(Ok(()));
        }
        bells
    }

    /// It could not be kept: nothing of it is sent. A further attempt goes back to its shard, which makes it later.
    pub(super) fn fail(self, shared: &Shared, fault: OutboxFault) {
        let (state, version, before) = match self.origin {
            Origin::Push { state, version, before } => (state, version, before),
            Origin::Retry(_) => {
                for (shard, order) in self.orders {
                    shared.put(shard, Message::NotKept(Box::new(order)));
                    shared.ring(shard);
                }
                return;
            }
        };
        let len = self.orders.first().map_or(0, |(_, order)| order.frame.len());
        for (_, order) in self.orders {
            // The last reference brings the bytes back.
            shared.pools.frames.put(order.frame);
            shared.pools.recycle(order.marks.into_part(order.first));
        }
        shared.versions.undo(state.supersede_key, version, before);
        if state.key != 0 {
            shared.keys.remove(state.key, &state);
        }
        shared.room.release(len, true);
        state.keep(Err(PushError::Outbox { fault }));
    }
}
