//! The thread that keeps what must survive this process: it takes everything that waits, writes it with one sync, and only
//! then lets it go on.
//!
//! ```text
//! push ──▶ order ──┐                                    ┌──▶ the shards' mailboxes, in log order; push returns
//! shard ─▶ batch ──┼──▶ queue ──▶ append … commit ──────┼──▶ the shard: its outcomes count
//! else ──▶ record ─┘     ▲            │ fails           └──▶ removals, cancels
//!                        └── kept ◀───┴──▶ orders: their push fails, nothing of them was sent
//! ```
//!
//! Nobody else waits for the disk, and no lock is held while it is waited for: orders that need no disk go past it. What
//! waits here is bounded: orders by [`WAITING_MAX`] and [`WAITING_BYTES_MAX`], everything else by what it is about.
//!
//! | file | what for |
//! | --- | --- |
//! | `queue` | what waits |
//! | `batch` | what a shard collected to be logged |
//! | `scribe` | the thread |
//! | `on_disk` | the outbox it writes to |
//! | `waiting` | an order on its way to the shards, or back to who pushed it |

mod batch;
mod on_disk;
mod queue;
mod scribe;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;

use super::directory::Entry;
use super::error::OutboxFault;
use super::frame::Frame;
use super::positions::Positions;
use super::shared::Shared;
use crate::config::LogId;
use crate::outbox;

pub(super) use batch::{Batch, Traced};
pub(super) use on_disk::{OnDisk, now};
use queue::JOBS_KEPT;
pub(super) use queue::{Job, Notes, Queue};
pub use queue::{WAITING_BYTES_MAX, WAITING_MAX};
use scribe::Scribe;
pub(super) use waiting::{Origin, Waiting};

/// What keeps records: [`OnDisk`], or what a test puts in its place.
pub(super) trait Keeper: Send + 'static {
    /// Adds a record to the next commit.
    fn append(&mut self, record: &Record<'_>) -> Result<(), OutboxFault>;

    /// Whether there is room for something as large as an order that is none.
    fn check_room(&self) -> Result<(), OutboxFault>;

    /// Adds how orders ended and how far devices got. On an error some of it may have been added; again is no harm.
    fn append_batch(&mut self, batch: &outbox::Batch) -> Result<(), OutboxFault>;

    /// What was appended is there after a power cut, once this has returned. On an error none of it is there, now or later.
    /// To be called now and then also without anything to write. `frames` is asked for the frame of an order that cannot be
    /// read any more.
    fn commit(&mut self, frames: &mut dyn FnMut(u64) -> Option<Frame>) -> Result<(), OutboxFault>;

    /// Whether there is something for the next commit: compaction leaves some behind the one before.
    fn is_pending(&self) -> bool;

    /// What was found to be lost since this was asked last.
    fn take_lost(&mut self) -> Vec<outbox::Lost>;

    /// Devices that are to be written down again.
    fn take_undescribed(&mut self) -> Vec<u32>;

    /// Goes on under a new name: no order and no session that was kept is there any more.
    fn renew(&mut self) -> Result<LogId, OutboxFault>;

    /// Every order with a lower number is over. [`u64::MAX`] if none lives.
    fn lowest_live(&self) -> u64;

    /// Counters, for an operator.
    fn stats(&mut self) -> outbox::Stats;
}

/// Something to keep.
#[derive(Clone, Copy, Debug)]
pub(super) enum Record<'a> {
    /// An order, with the frame as it goes to the devices.
    Order { targets: &'a Positions, frame: &'a [u8] },
    /// A further attempt at an order.
    Retry { number: u64, root: u64, attempt: u16, targets: &'a Positions },
    /// An order shall not be done any more.
    Cancel { number: u64 },
    /// What is known of a device.
    Device { position: u32, entry: &'a Entry },
    /// A device is not listed any more.
    Removed { position: u32 },
    /// This server goes by this fence.
    Fence { fence: u64 },
    /// Something to be found again; nothing takes it away.
    Note { id: u64, bytes: &'a [u8] },
}

/// The body of the thread. It ends when the queue of `shared` is closed. The log has the devices at `recorded` already.
pub(super) fn run(keeper: impl Keeper, recorded: Positions, shared: Arc<Shared>) {
    Scribe::new(keeper, recorded, shared).run();
}

/// Starts the thread.
pub(super) fn spawn(body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("tillwire-outbox".to_owned()).spawn(body).map(drop)
}
