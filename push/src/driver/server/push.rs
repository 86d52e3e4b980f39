//! From an order and a target to messages for the shards.

use std::sync::Arc;
use std::time::Duration;

use super::directory::Share;
use super::error::PushError;
use super::fan_out::{FanOut, Ledger, State};
use super::shared::{Message, NumberedOrder, Shared, lock};
use super::{Server, Target};
use crate::driver::trace;
use crate::order::Order;

impl Server {
    /// Pushes an order: resolves the target, encodes once, numbers it, hands it to the shards. Returns at once; the
    /// outcomes come through the [`FanOut`].
    pub fn push(&self, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        order.check().map_err(PushError::Order)?;
        self.shared.push(order, target)
    }

    /// Pushes an order, and waits at most `within` for room if there is none. Any other error comes at once.
    pub async fn push_wait(
        &self,
        order: &Order<'_>,
        target: &Target,
        within: Duration,
    ) -> Result<FanOut, PushError> {
        let mut full = None;
        let push = async {
            loop {
                let mut freed = std::pin::pin!(self.shared.room.freed().notified());
                // Room that becomes free from here on is not missed.
                freed.as_mut().enable();
                match self.push(order, target) {
                    Err(error @ PushError::Full { retry_after, .. }) => {
                        full = Some(error);
                        // Time frees room as well: remembered keys grow old.
                        let _ = tokio::time::timeout(retry_after, freed).await;
                    }
                    pushed => return pushed,
                }
            }
        };
        match tokio::time::timeout(within, push).await {
            Ok(pushed) => pushed,
            Err(_) => full.map_or_else(|| self.push(order, target), Err),
        }
    }
}

impl Shared {
    fn push(self: &Arc<Self>, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        let len = order.encoded_len();
        self.room.reserve(len)?;
        let pushed = self.resolve(order, target);
        if pushed.is_err() {
            self.room.release(len);
        }
        pushed
    }

    /// The directory stays as it is until the order is in the mailboxes: see [`Shared::remove`].
    fn resolve(self: &Arc<Self>, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        let directory = self.directory();
        let (shares, targets) = directory.resolve(target, || self.pools.take_marks());
        if targets == 0 {
            return Err(PushError::NoTarget { target: target.clone() });
        }
        self.submit(order, shares, targets)
    }

    fn submit(
        self: &Arc<Self>,
        order: &Order<'_>,
        shares: Vec<Share>,
        targets: usize,
    ) -> Result<FanOut, PushError> {
        let mut frame = self.pools.frames.take(order.encoded_len());
        let going = shares.iter().fold(0_u64, |bits, share| bits | 1 << share.shard);
        let state = {
            let mut numbers = lock(&self.numbers);
            if numbers.stopped {
                drop(numbers);
                self.pools.recycle_shares(shares);
                return Err(PushError::Stopped);
            }
            let number = numbers.next;
            let bytes = frame.bytes_mut().map_or(&mut [][..], Vec::as_mut_slice);
            order.emit(number, bytes).map_err(PushError::Order)?;
            self.number(&mut numbers);
            let state = Arc::new(State::new(number, targets, going, self.mailboxes.len()));
            // One reference per shard and none here: the last shard that is done has the only one.
            for (share, frame) in
                shares.into_iter().zip(std::iter::repeat_n(frame, going.count_ones() as usize))
            {
                let shard = share.shard;
                self.put(shard, Message::Submit(self.numbered(order, number, share, frame, &state)));
            }
            state
        };
        (0..self.mailboxes.len()).filter(|shard| going >> shard & 1 == 1).for_each(|shard| self.ring(shard));
        trace::order_accepted(state.number, order, targets, order.encoded_len());
        Ok(FanOut::new(&state, self))
    }

    fn numbered(
        &self,
        order: &Order<'_>,
        number: u64,
        share: Share,
        frame: super::frame::Frame,
        state: &Arc<State>,
    ) -> NumberedOrder {
        let Share { first, marks, .. } = share;
        NumberedOrder {
            number,
            lane: order.lane,
            kind_flags: order.kind_flags,
            lifetime: Some(order.lifetime),
            frame,
            first,
            marks: Ledger { marks, latency: self.pools.take_histogram(), state: Arc::clone(state) },
        }
    }
}
