//! From an order and a target to messages for the shards.

use std::sync::Arc;
use std::time::Duration;

use super::directory::{Directory, Share};
use super::error::PushError;
use super::fan_out::{FanOut, Ledger, State};
use super::shared::{Message, NumberedOrder, Shared, lock};
use super::{Server, Target};
use crate::driver::trace;
use crate::histogram::Histogram;
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
        if order.order_key == 0 {
            return self.push_new(order, |directory| self.resolve(directory, target));
        }
        let mut keys = self.keys.open(self.clock.now());
        if let Some(state) = keys.find(order.order_key) {
            return Ok(FanOut::new(state, self));
        }
        keys.check()?;
        let fan_out = self.push_new(order, |directory| self.resolve(directory, target))?;
        let histograms = self.mailboxes.len() * size_of::<Histogram>();
        let bytes = fan_out.targets() + histograms + size_of::<State>();
        keys.insert(order.order_key, Arc::clone(&fan_out.state), bytes);
        Ok(fan_out)
    }

    /// The devices of a target, or the error that there are none.
    fn resolve(&self, directory: &Directory, target: &Target) -> Result<(Vec<Share>, usize), PushError> {
        let (shares, targets) = directory.resolve(target, || self.pools.take_marks());
        if targets == 0 { Err(PushError::NoTarget { target: target.clone() }) } else { Ok((shares, targets)) }
    }

    /// Pushes whatever its key. The directory stays as it is until the order is in the mailboxes: see
    /// [`Shared::remove`].
    pub(super) fn push_new(
        self: &Arc<Self>,
        order: &Order<'_>,
        resolve: impl FnOnce(&Directory) -> Result<(Vec<Share>, usize), PushError>,
    ) -> Result<FanOut, PushError> {
        let len = order.encoded_len();
        self.room.reserve(len)?;
        let directory = self.directory();
        let pushed = resolve(&directory).and_then(|(shares, targets)| {
            self.versions.begin(self.clock.now(), order).map_err(PushError::Superseding)?;
            let pushed = self.submit(order, shares, targets);
            if pushed.is_err() {
                self.versions.end(order.supersede_key);
            }
            pushed
        });
        if pushed.is_err() {
            self.room.release(len);
        }
        pushed
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
            let state = State::new(number, targets, going, self.mailboxes.len());
            let state = Arc::new(state.of(order, &self.results));
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
            marks: Ledger::new(Arc::clone(state), marks, self.pools.take_histogram()),
        }
    }
}
