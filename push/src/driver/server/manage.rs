//! What an operator wants to know and to do: counters, one device, taking a store over, leaving in peace.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::shard::Shard;
use super::shared::{Message, lock};
use super::writer::Job;
use super::{Server, Snapshot, TakeoverError};
use crate::fleet::{DeviceView, Stats};

/// How long the outbox has at least to write what waits when the server leaves.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

impl Server {
    /// Counters, added up over all shards; `None` once the server has stopped.
    pub async fn stats(&self) -> Option<Box<Snapshot>> {
        let mut snapshot = Box::default();
        self.stats_into(&mut snapshot).await.then_some(snapshot)
    }

    /// The same into memory the caller keeps: nothing is allocated per call. False once the server has stopped.
    pub async fn stats_into(&self, snapshot: &mut Snapshot) -> bool {
        snapshot.fleet = Stats::default();
        snapshot.latency.clear();
        for (shard, mailbox) in self.shared.mailboxes.iter().enumerate() {
            let before = lock(&mailbox.counted).times;
            if !self.shared.send(shard, Message::Publish) {
                return false;
            }
            loop {
                let mut published = std::pin::pin!(mailbox.published.notified());
                // From here on no answer is missed.
                published.as_mut().enable();
                if lock(&mailbox.counted).times != before {
                    break;
                }
                if self.shared.is_stopped() {
                    return false;
                }
                published.await;
            }
            let counted = lock(&mailbox.counted);
            snapshot.fleet.merge(&counted.fleet);
            snapshot.latency.merge(&counted.latency);
        }
        snapshot.live_orders = self.shared.room.live_orders();
        snapshot.outbox = self.shared.outbox.as_ref().map(|_| *lock(&self.shared.outbox_stats));
        snapshot.results_lost = self.shared.results.lost();
        let directory = self.shared.directory();
        snapshot.devices = directory.len();
        snapshot.connected = directory.entries().filter(|(_, entry)| entry.connected).count();
        true
    }

    /// How one device stands now: its session, what it is owed, its window, its counters. `None` if it is not listed, or
    /// the server has stopped.
    pub async fn view(&self, device: NodeId) -> Option<DeviceView> {
        let place = {
            let directory = self.shared.directory();
            directory.place(directory.find(device)?)?
        };
        let (shard, Some(local)) = place else { return None };
        let (reply, view) = oneshot::channel();
        self.shared.send(shard, Message::View(local, reply)).then_some(())?;
        view.await.ok()?
    }

    /// Takes the store over from another server: from now on every session names a fence above the highest any device has
    /// named, and devices obey it once the other server's lease is over (9 s, or at once after its goodbye). The answer is
    /// that fence: keep it, and start with it next time. `None` once the server has stopped.
    ///
    /// An explicit step, taken by an operator: two servers that take each other's devices over in turn serve nobody.
    pub async fn takeover(&self) -> Result<Option<u64>, TakeoverError<Infallible>> {
        self.takeover_with(|_| Ok(())).await
    }

    /// [`Server::takeover`] for a server that keeps its fence: `keep` writes it down before any device is told. If that
    /// fails, nothing is taken over. A server that lost a fence it had used would find its own devices refusing it. An outbox
    /// keeps it as well, and names it at the next start.
    pub async fn takeover_with<E>(
        &self,
        keep: impl FnOnce(u64) -> Result<(), E>,
    ) -> Result<Option<u64>, TakeoverError<E>> {
        let heard = self.shared.ask_all(Message::FenceHeard).await;
        let Some(highest) = heard.into_iter().max() else { return Ok(None) };
        let fence = highest.saturating_add(1);
        keep(fence).map_err(TakeoverError::Keep)?;
        if let Some(queue) = &self.shared.outbox {
            let (reply, kept) = oneshot::channel();
            if queue.put(Job::Fence(fence, reply)).is_err() {
                return Ok(None);
            }
            match kept.await {
                Ok(kept) => kept.map_err(|fault| TakeoverError::Outbox { fault })?,
                Err(_) => return Ok(None),
            }
        }
        for shard in 0..self.shared.mailboxes.len() {
            self.shared.send(shard, Message::TakeOver(fence));
        }
        Ok(Some(fence))
    }

    /// Leaves in peace: accepts and sends no order any more, tells devices so, and ends when what is out has its outcome,
    /// or after `within` (5 s at most).
    pub async fn drain(&self, within: Duration) {
        lock(&self.shared.numbers).draining = true;
        self.shared.tell_all(|| Message::Drain(within));
        // A shard ends itself: when it is done, and a while after `within` in any case.
        self.ended(None).await;
        self.close_outbox(FLUSH_WITHIN).await;
    }

    /// Says BYE on every session, closes the sockets and ends the tasks; at most `within`. Orders that have no outcome
    /// yet stay without one: the log in memory ends here, and what the outbox has goes on with the next start from it. What
    /// waits for its disk is written, if that takes no longer. A second call finds nothing to do.
    pub async fn stop(&self, within: Duration) {
        let began = self.shared.clock.now();
        self.shared.tell_all(|| Message::Stop);
        self.ended(Some(within)).await;
        let left = within.saturating_sub(self.shared.clock.now().since(began));
        self.close_outbox(left.max(FLUSH_WITHIN.min(within))).await;
    }

    /// Ends the thread that keeps what is durable, once it has written what waits. One that hangs is left behind.
    async fn close_outbox(&self, within: Duration) {
        let Some(queue) = &self.shared.outbox else { return };
        queue.close();
        let over = async {
            loop {
                let mut ended = std::pin::pin!(queue.ended.notified());
                // From here on its end is not missed.
                ended.as_mut().enable();
                if queue.is_over() {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(within, over).await.is_err() {
            queue.abandon();
        }
    }

    async fn ended(&self, within: Option<Duration>) {
        let mut tasks = core::mem::take(&mut *lock(&self.tasks));
        let all = async {
            for task in &mut tasks {
                let _ = task.await;
            }
        };
        let in_time = match within {
            Some(within) => tokio::time::timeout(within, all).await.is_ok(),
            None => {
                all.await;
                true
            }
        };
        if !in_time {
            tasks.iter().for_each(JoinHandle::abort);
        }
    }
}

impl Shard {
    /// Writes the counters down where handles read them.
    pub(super) fn publish(&self) {
        let Some(mailbox) = self.shared.mailboxes.get(self.index) else { return };
        {
            let mut counted = lock(&mailbox.counted);
            counted.times += 1;
            counted.fleet.clone_from(self.fleet.stats());
            counted.latency.clone_from(&self.latency);
        }
        mailbox.published.notify_waiters();
    }

    /// The fences of devices and this server's own.
    pub(super) fn fence_heard(&self) -> u64 {
        self.fleet.fence_heard().max(self.fleet.fence())
    }

    /// Takes over, and dials at once whom another server had: they are patient with it after a refusal.
    pub(super) fn take_over(&mut self, now: Instant, fence: u64) {
        self.fleet.take_over(now, fence);
        let mine: Vec<_> = {
            let directory = self.shared.directory();
            let away = directory.entries().filter(|(_, entry)| !entry.connected);
            let places =
                away.filter_map(|(position, entry)| Some((directory.place(position)?, entry.address?)));
            let mine = places.filter(|((shard, _), _)| *shard == self.index);
            mine.filter_map(|((_, local), address)| Some((local?, address))).collect()
        };
        for (local, address) in mine {
            self.fleet.set_address(now, local, address);
        }
    }
}
