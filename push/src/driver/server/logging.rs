//! What a shard's fleet wants in the log before it counts: collected, handed over a batch at a time, and told when it is there.

use std::sync::mpsc;

use wire_format::time::Instant;

use super::Event;
use super::shard::Shard;
use super::writer::{Batch, Job, Traced};
use crate::config::LogId;
use crate::fleet::{DeviceIndex, LogEntry, Trace};

/// Batches of one shard that wait for the disk at a time: one is written, the next one waits. What comes meanwhile is
/// collected in a third.
const BATCHES_MAX: usize = 2;

/// A shard's way to the log.
#[derive(Debug, Default)]
pub(super) struct Logging {
    /// What is collected.
    batch: Box<Batch>,
    /// Batches that wait for the disk.
    under_way: usize,
    /// Empty ones, kept for their memory.
    #[expect(clippy::vec_box, reason = "they move between shard and writer: 8 bytes")]
    spare: Vec<Box<Batch>>,
    /// How often the log got another name. What was collected before counts for nothing.
    renewals: u32,
}

impl Logging {
    /// When the collected batch is to be handed over, if there is anything in it and it can be. While another one is under way
    /// it collects for its whole time, so that a slow disk gets more at once.
    pub(super) fn poll_timeout(&self, alone: bool) -> Option<Instant> {
        match self.under_way {
            0 => self.batch.poll_timeout(alone),
            1..BATCHES_MAX => self.batch.poll_timeout(false),
            _ => None,
        }
    }

    /// An empty batch. The first one is made with all there will ever be: none has to be made while sockets wait.
    fn next(&mut self) -> Box<Batch> {
        if self.spare.capacity() == 0 {
            self.spare.reserve_exact(BATCHES_MAX);
            self.spare.resize_with(BATCHES_MAX, || Box::new(Batch::with_room()));
            // The one that is collected may hold sessions only.
            self.batch.make_room();
        }
        self.spare.pop().unwrap_or_default()
    }
}

impl Shard {
    /// An order of the durable log has ended on a device, or an attempt at one.
    pub(super) fn log(&mut self, now: Instant, entry: LogEntry) {
        self.logging.batch.push(now, entry);
        if self.fleet.waits_for_log(entry.device) {
            self.logging.batch.hasten();
        }
    }

    /// A session began, or is over.
    pub(super) fn trace(&mut self, now: Instant, trace: Trace) {
        self.logging.batch.push_trace(now, trace);
    }

    /// Hands the collected batch over if it is due. `busy`: this turn had something to do, and the next one may.
    pub(super) fn hand_over_log(&mut self, now: Instant, busy: bool) {
        let alone = !busy && self.fleet.durable_out() == 0;
        if self.logging.poll_timeout(alone).is_some_and(|due| due <= now) {
            self.hand_over_all();
        }
    }

    /// Hands the collected batch over, due or not.
    pub(super) fn hand_over_all(&mut self) {
        let Some(queue) = self.shared.outbox.as_ref().filter(|_| !self.logging.batch.is_empty()) else {
            return;
        };
        let next = self.logging.next();
        let mut batch = core::mem::replace(&mut self.logging.batch, next);
        batch.renewals = self.logging.renewals;
        // Refused by a queue that is closed: what is not in the log has not happened.
        if queue.put(Job::Logs(self.index, batch)).is_ok() {
            self.logging.under_way += 1;
        }
    }

    /// What was handed over is in the log: now it counts.
    pub(super) fn logged(&mut self, now: Instant, mut batch: Box<Batch>) {
        self.logging.under_way -= 1;
        if batch.renewals == self.logging.renewals {
            self.count_logged(now, &batch);
        }
        batch.clear();
        self.logging.spare.push(batch);
    }

    fn count_logged(&mut self, now: Instant, batch: &Batch) {
        for entry in batch.entries() {
            while !self.fleet.logged(now, entry) {
                self.drain_events(now);
            }
        }
        for Traced { trace, opened } in batch.traces() {
            for _ in 0..*opened {
                self.fleet.traced(now, trace.device, trace.boot);
            }
        }
        self.drain_events(now);
    }

    /// A device knows more of the log than the log does: it is given up, by all shards.
    pub(super) fn forked(&mut self, device: DeviceIndex) {
        self.announce(device, |id, address| Some(Event::Forked { id, address }));
        if let Some(queue) = &self.shared.outbox {
            // A stopped server gives nothing up; the next run finds out again.
            let _ = queue.put(Job::Forked(self.logging.renewals));
        }
    }

    /// Ends every order of the durable log; nothing that was collected counts.
    pub(super) fn abandon(&mut self, now: Instant, renewals: u32, done: &mpsc::Sender<()>) {
        self.fleet.abandon_durable(now);
        self.drain_events(now);
        self.logging.batch.clear();
        self.logging.renewals = renewals;
        // The thread that asked waits for it.
        let _ = done.send(());
    }

    /// The durable log goes on under another name.
    pub(super) fn renew(&mut self, now: Instant, log: LogId, head: u64) {
        let renewed = self.fleet.renew(now, log, head);
        debug_assert!(renewed, "every durable order was given up, and none came since");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::Duration;

    use wire_format::frame::outcome::Code;
    use wire_format::ids::{Lineage, NodeId, Store};

    use super::super::shared::Shared;
    use super::super::{ConnConfig, ServerConfig};
    use super::*;
    use crate::config::FleetConfig;
    use crate::fleet::By;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn a_dead_disk_makes_a_shard_collect_one_batch_however_long() {
        let fleet = FleetConfig::new(NodeId([1; 16]), Store::new(1, "PARIS-12").unwrap(), Lineage([2; 16]));
        let conn = ConnConfig::default();
        let config = ServerConfig { fleet, conn, devices: 8, orders: 8, bytes: 1, seed: 0, shards: Some(1) };
        let shared = Arc::new(Shared::new(&config, 1, Some(0)));
        let mut shard = Shard::all(&config, &shared).remove(0);
        let (queue, mut jobs) = (shared.outbox.as_ref().unwrap(), VecDeque::new());
        let end = |number| {
            let (device, code, by) = (DeviceIndex(0), Code::APPLIED, By::Device);
            LogEntry { number, device, device_ms: 7, code, first_code: code, by }
        };
        for ms in 0..5_000 {
            shard.log(at(ms), end(ms));
            shard.hand_over_log(at(ms), true);
        }
        assert!(queue.take(&mut jobs, &shared.clock, None, Duration::ZERO));
        assert_eq!(jobs.len(), BATCHES_MAX);
        assert_eq!(shard.logging.poll_timeout(true), None, "nothing is due while these wait");
        let mut logged = 0;
        while let Some(Job::Logs(0, batch)) = jobs.pop_front() {
            logged += batch.entries().count();
            shard.logged(at(5_000), batch);
            shard.hand_over_log(at(5_000), true);
            assert!(shard.logging.batch.is_empty(), "all of it at once");
            // Nothing waits any more after the last one.
            if logged < 5_000 {
                assert!(queue.take(&mut jobs, &shared.clock, Some(at(0)), Duration::ZERO));
            }
        }
        assert_eq!((logged, shard.logging.under_way, shard.logging.spare.len()), (5_000, 0, 2));
    }
}
