//! Orders of the durable log come back after a restart of the server.

use wire_format::time::Instant;

use super::Fleet;
use super::devices::DeviceStorage;
use super::event::{SubmitError, SubmitFault, Submitted};
use super::order::{MarkBytes, NewOrder, OrderSlot, OrderStorage};
use super::submit::Checked;
use super::track::Track;
use crate::config::LIFETIME_MAX;
use crate::mark::Mark;
use wire_format::frame::outcome::Code;

/// What the marks of a restored order add up to.
#[derive(Clone, Copy, Default)]
struct Restored {
    targets: u32,
    refused: u32,
    unsent: u32,
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Takes an order of the durable log that an earlier run of the server submitted: as [`Fleet::submit`], but for this.
    ///
    /// - `lifetime` is what remains of it, perhaps nothing; the frame states the whole, and never leaves as it is.
    /// - Marks say where it stands: PENDING or REPEAT (see [`super::DeviceTrace::mark`]), RETRY_BUSY and its like,
    ///   RETRYING, or how it ended. What is final is not told again; what ends from here on is logged as ever. Where there
    ///   is no such device it ends as NOT_TARGETED, or as UNKNOWN where it may have been written.
    /// - Nothing overflows, and versions of a supersede key are taken whatever their lifetimes; older ones that wait to be
    ///   sent where a newer one was meant are superseded.
    ///
    /// What is left of the log is restored in the order of its numbers, after [`Fleet::restore_device`] and before the first
    /// device is dialled. A cancelled order is restored, then cancelled.
    pub fn restore(
        &mut self,
        now: Instant,
        mut order: NewOrder<B, M>,
    ) -> Result<Submitted, SubmitError<B, M>> {
        self.observe(now);
        let checked = match self.check_restored(&order) {
            Ok(checked) => checked,
            Err(why) => return Err(SubmitError { why, order }),
        };
        let Checked { slot, track, key, .. } = checked;
        let first = order.first.0;
        if key.key != 0 {
            let meant = |mark: Mark| {
                let refused = matches!(mark.code(), Some(Code::OVERFLOW | Code::NOT_TARGETED));
                mark != Mark::NOT_TARGETED && !refused
            };
            self.overtake(key, first, order.marks.as_ref(), meant);
        }
        let mut restored = Restored::default();
        for (offset, mark) in order.marks.as_mut().iter_mut().enumerate() {
            let was = Mark(*mark);
            if was != Mark::NOT_TARGETED && !was.is_final() {
                let index = u32::try_from(offset).map_or(u32::MAX, |offset| first.saturating_add(offset));
                if was == Mark::REPEAT {
                    self.restore_upto(index, track, order.number);
                }
                *mark = self.restore_one(index, slot, track, was, &mut restored).0;
            }
        }
        let Restored { targets, refused, unsent } = restored;
        let open = targets.saturating_add(refused);
        let live = OrderSlot { open, unsent, stale: true, ..self.live(now, order, &checked) };
        self.keep(slot, live);
        if refused != 0 {
            self.sweep_again(slot);
        }
        Ok(Submitted { targets, refused })
    }

    /// What may have been written stays so: a trace that says less would be believed after the next restart.
    fn restore_upto(&mut self, index: u32, track: Track, number: u64) {
        if self.has_device(index) {
            self.devices.note_written(index, track, number);
        }
    }

    fn check_restored(&self, order: &NewOrder<B, M>) -> Result<Checked, SubmitFault> {
        if order.lifetime.is_some_and(|lifetime| lifetime > LIFETIME_MAX) {
            return Err(SubmitFault::Lifetime);
        }
        let for_ever = order.lifetime.is_none();
        let checked = self.check_any(order, |header| (header.aux32 == u32::MAX) == for_ever)?;
        if !checked.track.is_durable() {
            return Err(SubmitFault::NoLog);
        }
        let stands =
            |mark: Mark| mark == Mark::NOT_TARGETED || mark.is_final() || mark.is_owed() || mark.is_retried();
        let marks = order.marks.as_ref();
        marks.iter().all(|&mark| stands(Mark(mark))).then_some(checked).ok_or(SubmitFault::Marks)
    }

    /// Owes a restored order to a device as it was. Its mark.
    fn restore_one(&mut self, index: u32, slot: u32, track: Track, was: Mark, sum: &mut Restored) -> Mark {
        if !self.has_device(index) {
            sum.refused = sum.refused.saturating_add(1);
            return if was.is_unsent() { Mark::UNMEANT } else { Mark::LOST };
        }
        sum.targets = sum.targets.saturating_add(1);
        sum.unsent = sum.unsent.saturating_add(u32::from(was.is_unsent()));
        if was.is_owed() {
            self.owe_one(index, slot, track);
        } else {
            let device = self.devices.at_mut(index);
            device.retried = device.retried.saturating_add(1);
        }
        was
    }
}
