//! From an order and a target to messages for the shards.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wire_format::frame::order::PAYLOAD_MAX;
use wire_format::frame::part::BLOB_MAX;
use wire_format::ids::Lane;

use super::directory::{Directory, Share};
use super::error::PushError;
use super::fan_out::{FanOut, Ledger, State};
use super::frame::Frame;
use super::keys::Table;
use super::positions::Positions;
use super::shared::{Message, NumberedOrder, Shared, lock};
use super::writer::{Job, Origin, Waiting};
use super::{Server, Target};
use crate::blob::Blob;
use crate::driver::trace;
use crate::histogram::Histogram;
use crate::order::Order;

impl Server {
    /// Pushes an order: resolves the target, encodes once, numbers it, hands it to the shards. The outcomes come through the
    /// [`FanOut`].
    ///
    /// With an outbox the order is durable, unless it says otherwise ([`Order::volatile`]): this returns once it is on disk,
    /// and nothing of it is sent before. A volatile order waits for nothing. Dropping the future while the disk is waited for
    /// leaves open whether the order is accepted: push it again under the same key ([`Order::key`]).
    ///
    /// A payload over 65,536 bytes goes as pieces that each device fetches when nothing else is owed to it, in the bulk
    /// lane, whatever lane the order names; up to 8,388,608 bytes. Its SHA-256 is computed here, on the caller's thread.
    pub async fn push(&self, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        self.begin(order, target)?.kept().await
    }

    fn begin(&self, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        with_options(order, |order, blob| self.shared.push(order, blob, target))
    }

    /// Pushes an order, and waits at most `within` for room if there is none. Any other error comes at once.
    pub async fn push_wait(
        &self,
        order: &Order<'_>,
        target: &Target,
        within: Duration,
    ) -> Result<FanOut, PushError> {
        self.shared.with_room(within, || self.begin(order, target)).await
    }
}

impl Shared {
    /// Pushes again and again until there is room, `within` at most; then waits for the outbox, if it is to have the order.
    pub(super) async fn with_room(
        &self,
        within: Duration,
        push: impl Fn() -> Result<FanOut, PushError>,
    ) -> Result<FanOut, PushError> {
        let mut full = None;
        let pushed = async {
            loop {
                let mut freed = std::pin::pin!(self.room.freed().notified());
                // Room that becomes free from here on is not missed.
                freed.as_mut().enable();
                match push() {
                    Err(error @ PushError::Full { retry_after, .. }) => {
                        full = Some(error);
                        // Time frees room as well: remembered keys grow old.
                        let _ = tokio::time::timeout(retry_after, freed).await;
                    }
                    pushed => return pushed,
                }
            }
        };
        match tokio::time::timeout(within, pushed).await {
            Ok(pushed) => pushed,
            Err(_) => full.map_or_else(&push, Err),
        }?
        .kept()
        .await
    }
}

/// A large payload: as the PART frames behind its order.
pub(super) type Parts<'a> = Option<Blob<'a>>;

/// Room that was taken for an order, and its frame, in which the order itself has still to be written.
struct Prepared {
    frame: Frame,
    len: usize,
    durable: bool,
}

/// Whom an order is for.
struct Meant {
    shares: Vec<Share>,
    targets: usize,
    /// Of a durable order.
    positions: Option<Positions>,
}

/// Calls `push` with the order as it is sent: one with a large payload has an option that names it, and no payload.
pub(super) fn with_options<T>(
    order: &Order<'_>,
    push: impl FnOnce(&Order<'_>, Parts<'_>) -> Result<T, PushError>,
) -> Result<T, PushError> {
    if order.payload.len() <= PAYLOAD_MAX || order.payload.len() > BLOB_MAX as usize {
        order.check().map_err(PushError::Order)?;
        return push(order, None);
    }
    // The digest names the payload well enough: the same bytes are the same blob.
    let sha256: [u8; 32] = Sha256::digest(order.payload).into();
    let id = sha256.first_chunk().map_or(1, |head| u64::from_le_bytes(*head)).max(1);
    let blob = Blob::new(id, order.payload, sha256);
    let mut options = order.options.to_vec();
    options.extend_from_slice(&blob.option().map_err(PushError::Order)?);
    let order = Order { payload: &[], options: &options, lane: Lane::Bulk, ..*order };
    order.check().map_err(PushError::Order)?;
    push(&order, Some(blob))
}

impl Shared {
    fn push(
        self: &Arc<Self>,
        order: &Order<'_>,
        blob: Parts<'_>,
        target: &Target,
    ) -> Result<FanOut, PushError> {
        self.push_resolved(order, blob, true, |directory| self.resolve(directory, target))
    }

    /// Pushes to the devices that `resolve` finds, or finds the order that was pushed under the same key, if that is looked
    /// up.
    pub(super) fn push_resolved(
        self: &Arc<Self>,
        order: &Order<'_>,
        blob: Parts<'_>,
        by_key: bool,
        resolve: impl FnOnce(&Directory) -> Result<(Vec<Share>, usize), PushError>,
    ) -> Result<FanOut, PushError> {
        if order.order_key == 0 || !by_key {
            return self.push_new(order, blob, resolve);
        }
        if let Some(state) = self.keys.open(self.clock.now()).find(order.order_key) {
            return Ok(FanOut::new(state, self));
        }
        // Up to 8 MiB are copied before the keys are held: shards wait for them when a keyed order settles.
        let prepared = self.prepare(order, blob)?;
        let mut keys = self.keys.open(self.clock.now());
        if let Some(state) = keys.find(order.order_key) {
            self.discard(prepared);
            return Ok(FanOut::new(state, self));
        }
        if let Err(error) = keys.check() {
            self.discard(prepared);
            return Err(error);
        }
        let fan_out = self.push_prepared(order, prepared, resolve)?;
        self.remember_in(&mut keys, &fan_out.state);
        Ok(fan_out)
    }

    /// Remembers the order of an earlier run by its key.
    pub(super) fn remember(&self, state: &Arc<State>) {
        self.remember_in(&mut self.keys.open(self.clock.now()), state);
    }

    fn remember_in(&self, keys: &mut Table, state: &Arc<State>) {
        let histograms = self.mailboxes.len() * size_of::<Histogram>();
        keys.insert(state.key, Arc::clone(state), state.targets + histograms + size_of::<State>());
    }

    /// The devices of a target, or the error that there are none.
    fn resolve(&self, directory: &Directory, target: &Target) -> Result<(Vec<Share>, usize), PushError> {
        let (shares, targets) = directory.resolve(target, || self.pools.take_marks());
        if targets == 0 { Err(PushError::NoTarget { target: target.clone() }) } else { Ok((shares, targets)) }
    }

    /// Pushes whatever its key. The directory stays as it is until the order is in the mailboxes: see
    /// [`Shared::remove`].
    fn push_new(
        self: &Arc<Self>,
        order: &Order<'_>,
        blob: Parts<'_>,
        resolve: impl FnOnce(&Directory) -> Result<(Vec<Share>, usize), PushError>,
    ) -> Result<FanOut, PushError> {
        let prepared = self.prepare(order, blob)?;
        self.push_prepared(order, prepared, resolve)
    }

    /// Takes room for an order and writes what stands behind it: the pieces of a large payload. No lock is held.
    fn prepare(&self, order: &Order<'_>, blob: Parts<'_>) -> Result<Prepared, PushError> {
        let len = order.encoded_len() + blob.map_or(0, |blob| blob.frames_len());
        let durable = self.outbox.is_some() && !order.is_volatile();
        self.room.reserve(len, durable)?;
        let mut frame = self.pools.frames.take(len);
        if let Some(blob) = blob {
            let room = frame.bytes_mut().and_then(|bytes| bytes.get_mut(order.encoded_len()..));
            // There is room by construction.
            let _ = blob.emit_frames(room.unwrap_or_default());
        }
        Ok(Prepared { frame, len, durable })
    }

    /// Gives back what was taken for an order that is not pushed.
    fn discard(&self, Prepared { frame, len, durable }: Prepared) {
        self.pools.frames.put(frame);
        self.room.release(len, durable);
    }

    fn push_prepared(
        self: &Arc<Self>,
        order: &Order<'_>,
        Prepared { frame, len, durable }: Prepared,
        resolve: impl FnOnce(&Directory) -> Result<(Vec<Share>, usize), PushError>,
    ) -> Result<FanOut, PushError> {
        let directory = self.directory();
        let pushed = resolve(&directory).and_then(|(shares, targets)| {
            let before = self.versions.begin(self.clock.now(), order).map_err(PushError::Superseding)?;
            let positions = durable.then(|| directory.positions(&shares));
            let pushed = self.submit(order, frame, Meant { shares, targets, positions }, before);
            if pushed.is_err() {
                self.versions.undo(order.supersede_key, order.supersede_version, before);
            }
            pushed
        });
        if pushed.is_err() {
            self.room.release(len, durable);
        }
        pushed
    }

    fn submit(
        self: &Arc<Self>,
        order: &Order<'_>,
        frame: Frame,
        meant: Meant,
        before: u64,
    ) -> Result<FanOut, PushError> {
        let (len, queue) = (frame.len(), self.outbox.as_ref().filter(|_| meant.positions.is_some()));
        if let Some(queue) = queue {
            queue.admit(len)?;
        }
        let submitted = self.submit_admitted(order, frame, meant, before);
        if let Some(queue) = queue.filter(|_| submitted.is_err()) {
            queue.dismiss(len);
        }
        let state = submitted?;
        trace::order_accepted(state.number, order, state.targets, order.encoded_len());
        Ok(FanOut::new(&state, self))
    }

    fn submit_admitted(
        &self,
        order: &Order<'_>,
        mut frame: Frame,
        Meant { shares, targets, positions }: Meant,
        before: u64,
    ) -> Result<Arc<State>, PushError> {
        let going = shares.iter().fold(0_u64, |bits, share| bits | 1 << share.shard);
        let mut numbers = lock(&self.numbers);
        if numbers.stopped || numbers.draining {
            drop(numbers);
            self.pools.recycle_shares(shares);
            return Err(PushError::Stopped);
        }
        let (number, durable) = (numbers.next, positions.is_some());
        let bytes = frame.bytes_mut().map_or(&mut [][..], Vec::as_mut_slice);
        let emitted = if durable { order.emit_durable(number, bytes) } else { order.emit(number, bytes) };
        emitted.map_err(PushError::Order)?;
        self.number(&mut numbers);
        let state = State::new(number, targets, going, self.mailboxes.len()).in_outbox(durable);
        let state = Arc::new(state.of(order, &self.results));
        // One reference per shard and none here: the last shard that is done has the only one.
        let frames = std::iter::repeat_n(frame, going.count_ones() as usize);
        let orders = shares.into_iter().zip(frames).map(|(share, frame)| {
            let shard = share.shard;
            (shard, self.numbered(order, number, share, frame, &state))
        });
        match (&self.outbox, positions) {
            (Some(queue), Some(targets)) => {
                let origin =
                    Origin::Push { state: Arc::clone(&state), version: order.supersede_version, before };
                let since = self.clock.now();
                let waiting = Waiting { number, targets, orders: orders.collect(), origin, since };
                // Refused by a queue that is closed, whose end whoever waits is told.
                let _ = queue.put(Job::Order(Box::new(waiting)));
            }
            _ => orders.for_each(|(shard, order)| self.put(shard, Message::Submit(order))),
        }
        drop(numbers);
        if !durable {
            self.ring_all(going);
        }
        Ok(state)
    }

    fn numbered(
        &self,
        order: &Order<'_>,
        number: u64,
        share: Share,
        frame: Frame,
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
