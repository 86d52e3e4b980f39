//! The outbox on a disk, as the thread sees it.

use super::super::directory::Entry as Listed;
use super::super::error::OutboxFault;
use super::super::frame::Frame as Kept;
use super::super::positions::Positions;
use super::{Keeper, Record};
use crate::config::LogId;
use crate::driver::{Clock, wall_ms};
use crate::outbox::log::Disk;
use crate::outbox::{AppendError, Batch, Device, Entry, Frame, Lost, Now, Outbox, Stats, Targets};

/// An outbox, and the clocks it is told.
#[derive(Debug)]
pub(in super::super) struct OnDisk<D> {
    outbox: Outbox<D>,
    clock: Clock,
}

impl<D: Disk> OnDisk<D> {
    pub(in super::super) const fn new(outbox: Outbox<D>, clock: Clock) -> Self {
        Self { outbox, clock }
    }

    fn now(&self) -> Now {
        now(&self.clock)
    }
}

/// What the clocks say.
pub(in super::super) fn now(clock: &Clock) -> Now {
    Now { wall_ms: wall_ms(), awake_ms: clock.now().as_micros() / 1_000 }
}

/// A device of the directory as the outbox knows it.
fn device(position: u32, entry: &Listed) -> Device {
    let Listed { id, address, kind, zone, tags, .. } = *entry;
    Device { device: position, id, kind, zone, tags, address }
}

fn targets(positions: &Positions) -> Result<Targets, AppendError> {
    Targets::from_sorted(positions.iter()).ok_or(AppendError::Invalid { field: "device" })
}

impl<D: Disk + Send + 'static> Keeper for OnDisk<D> {
    fn append(&mut self, record: &Record<'_>) -> Result<(), OutboxFault> {
        let now = self.now();
        let meant;
        let known;
        let entry = match *record {
            Record::Order { frame, targets: positions } => {
                meant = targets(positions)?;
                let frame = Frame::new(frame).map_err(|error| AppendError::Invalid { field: error.field })?;
                Entry::Order { frame, targets: &meant }
            }
            Record::Retry { number, root, attempt, targets: positions } => {
                meant = targets(positions)?;
                Entry::Retry { number, root, attempt, after: core::time::Duration::ZERO, targets: &meant }
            }
            Record::Cancel { number } => Entry::Cancel { number },
            Record::Device { position, entry } => {
                known = device(position, entry);
                Entry::Device(&known)
            }
            Record::Removed { position } => Entry::Removed { device: position },
            Record::Fence { fence } => Entry::Fence { fence },
            Record::Note { id, bytes } => Entry::Note { id, bytes },
        };
        Ok(self.outbox.append(now, &entry)?)
    }

    fn check_room(&self) -> Result<(), OutboxFault> {
        Ok(self.outbox.check_room()?)
    }

    fn append_batch(&mut self, batch: &Batch) -> Result<(), OutboxFault> {
        let now = self.now();
        Ok(self.outbox.append_batch(now, batch)?)
    }

    fn commit(&mut self, frames: &mut dyn FnMut(u64) -> Option<Kept>) -> Result<(), OutboxFault> {
        let now = self.now();
        self.outbox.commit_with(now, frames).map_err(|error| (&error).into())
    }

    fn is_pending(&self) -> bool {
        self.outbox.pending() > 0
    }

    fn take_lost(&mut self) -> Vec<Lost> {
        self.outbox.take_lost()
    }

    fn take_undescribed(&mut self) -> Vec<u32> {
        self.outbox.take_undescribed()
    }

    fn renew(&mut self) -> Result<LogId, OutboxFault> {
        let now = self.now();
        let renewed = self.outbox.renew(now).map_err(|error| OutboxFault::from(&error))?;
        Ok(LogId::new(renewed.lineage, renewed.run, renewed.first))
    }

    fn lowest_live(&self) -> u64 {
        self.outbox.lowest_live().unwrap_or(u64::MAX)
    }

    fn stats(&mut self) -> Stats {
        self.outbox.stats()
    }
}
