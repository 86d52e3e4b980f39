//! What waits for the disk.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use wire_format::time::Instant;

use super::super::directory::Place;
use super::super::error::{OutboxFault, PushError, Resource};
use super::super::fan_out::State;
use super::super::positions::Positions;
use super::super::room::RETRY_AFTER;
use super::super::shared::lock;
use super::{Batch, Waiting};
use crate::driver::Clock;

/// Durable orders that wait for the disk; a push beyond it is refused as full. At 20,000 a second and 5 ms for a sync a tenth
/// of them wait.
pub const WAITING_MAX: usize = 1_024;
/// Bytes of the durable orders that wait for the disk: eight of the largest payloads, or 1,024 of the largest orders.
pub const WAITING_BYTES_MAX: usize = 64 << 20;

/// Something to be kept, with what goes on when it is.
#[derive(Debug)]
pub(in super::super) enum Job {
    /// Boxed: it goes through three queues.
    Order(Box<Waiting>),
    /// What is known of the device at this position may have changed. At most one per device waits.
    Device(u32),
    /// The device at this position is not listed any more. Its shard is told once everything before it was handed over.
    Removed(u32, Option<Place>),
    /// An order shall not be done any more. At most one per order.
    Cancel(Arc<State>),
    /// What this shard wants in the log.
    Logs(usize, Box<Batch>),
    /// The log was restored from a backup: it goes on under another name. Said by a shard that has heard of so many such
    /// changes.
    Forked(u32),
    /// This server goes by this fence from now on; who asked waits.
    Fence(u64, oneshot::Sender<Result<(), OutboxFault>>),
    /// To be found again after a restart.
    Notes(Notes),
}

/// Notes that are kept together.
#[derive(Debug)]
pub(in super::super) struct Notes {
    /// The devices they name: the log knows them before it has the notes.
    pub(in super::super) devices: Positions,
    /// Their ids and bytes.
    pub(in super::super) notes: Vec<(u64, Vec<u8>)>,
    /// Who waits for them: they are as large as an order may be, and what cannot be kept is not tried again.
    pub(in super::super) reply: Option<oneshot::Sender<Result<(), OutboxFault>>>,
}

impl Notes {
    /// Of devices the log knows already, for nobody who waits.
    pub(in super::super) fn of_known(notes: Vec<(u64, Vec<u8>)>) -> Self {
        Self { devices: Positions::default(), notes, reply: None }
    }
}

/// Jobs there stays room for when more of them are done: every device of a shop may be one.
pub(super) const JOBS_KEPT: usize = 128;

/// How the queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    /// What is in it is still kept.
    Closing,
    /// Nobody waits any more.
    Closed,
}

#[derive(Debug)]
struct Jobs {
    waiting: VecDeque<Job>,
    orders: usize,
    bytes: usize,
    door: Door,
}

/// The way to the thread.
#[derive(Debug)]
pub(in super::super) struct Queue {
    jobs: Mutex<Jobs>,
    /// Something waits, or the door moved.
    rung: Condvar,
    /// The thread has ended, or is not waited for any more.
    over: AtomicBool,
    pub(in super::super) ended: Notify,
}

impl Default for Queue {
    fn default() -> Self {
        let jobs = Jobs { waiting: VecDeque::new(), orders: 0, bytes: 0, door: Door::Open };
        Self {
            jobs: Mutex::new(jobs),
            rung: Condvar::new(),
            over: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }
}

impl Queue {
    /// Takes room for an order of so many bytes, or says what is full. One that is alone always has room.
    pub(in super::super) fn admit(&self, bytes: usize) -> Result<(), PushError> {
        let mut jobs = lock(&self.jobs);
        if jobs.door != Door::Open {
            return Err(PushError::Stopped);
        }
        let (what, limit) = if jobs.orders >= WAITING_MAX {
            (Resource::Unsynced, WAITING_MAX)
        } else if jobs.orders > 0 && jobs.bytes.saturating_add(bytes) > WAITING_BYTES_MAX {
            (Resource::UnsyncedBytes, WAITING_BYTES_MAX)
        } else {
            jobs.orders += 1;
            jobs.bytes += bytes;
            return Ok(());
        };
        Err(PushError::Full { what, limit, retry_after: RETRY_AFTER })
    }

    /// Gives the room back of an order that was admitted.
    pub(in super::super) fn dismiss(&self, bytes: usize) {
        let mut jobs = lock(&self.jobs);
        jobs.orders -= 1;
        jobs.bytes -= bytes;
    }

    /// Puts something in; back if nobody will look at it any more.
    pub(in super::super) fn put(&self, job: Job) -> Result<(), Job> {
        {
            let mut jobs = lock(&self.jobs);
            if jobs.door == Door::Closed {
                return Err(job);
            }
            jobs.waiting.push_back(job);
        }
        self.rung.notify_one();
        Ok(())
    }

    /// Moves what waits behind what is in `into`, once there is something or `idle` is over; false at the end. `until`: what failed is tried
    /// again then, and before that only an order is a reason to try.
    pub(in super::super) fn take(
        &self,
        into: &mut VecDeque<Job>,
        clock: &Clock,
        until: Option<Instant>,
        idle: Duration,
    ) -> bool {
        let mut jobs = lock(&self.jobs);
        while jobs.door == Door::Open {
            let left = until.map(|until| until.since(clock.now()));
            let ready = match left {
                None => !jobs.waiting.is_empty(),
                Some(left) => left.is_zero() || jobs.waiting.iter().any(|job| matches!(job, Job::Order(_))),
            };
            if ready {
                break;
            }
            let left = left.unwrap_or(idle);
            let (again, waited) = self.rung.wait_timeout(jobs, left).unwrap_or_else(PoisonError::into_inner);
            jobs = again;
            if waited.timed_out() {
                break;
            }
        }
        into.append(&mut jobs.waiting);
        jobs.waiting.shrink_to(JOBS_KEPT);
        jobs.door != Door::Closed
    }

    /// Whether what waits is the last: no more is taken in.
    pub(super) fn is_closing(&self) -> bool {
        lock(&self.jobs).door != Door::Open
    }

    /// No order is taken in any more; what waits is tried once, and the thread ends.
    pub(in super::super) fn close(&self) {
        self.shut(Door::Closing);
    }

    /// Whoever waits is told that it is over; the thread ends when the disk lets it.
    pub(in super::super) fn abandon(&self) {
        self.shut(Door::Closed);
        self.end();
    }

    fn shut(&self, door: Door) {
        let left = {
            let mut jobs = lock(&self.jobs);
            if jobs.door != Door::Closed {
                jobs.door = door;
            }
            if jobs.door == Door::Closed { core::mem::take(&mut jobs.waiting) } else { VecDeque::new() }
        };
        drop(left);
        self.rung.notify_one();
    }

    /// Nothing comes from the thread any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    pub(in super::super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}
