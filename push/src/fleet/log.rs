//! The durable log's half of what happens: ends that count once they are on disk, and sessions that are written down before
//! anything of that log is sent in them.
//!
//! ```text
//!  Fleet                              who keeps the log
//!    │── Log(entry) ──────────────────▶│ append
//!    │                                 │ sync
//!    │◀────────────── logged(entry) ───│
//!    │── Outcome ─────────────────────▶│      only now may a SETTLED cover it
//! ```
//!
//! Nothing else waits for it: what is volatile, and what of the durable log is out already, goes on.

use core::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::credit::Credit;
use super::device::{State, flag};
use super::devices::DeviceStorage;
use super::list::NONE;
use super::marks::End;
use super::order::{MarkBytes, OrderStorage};
use super::tell::{Item, Sort};
use super::track::{Track, Tracks};
use super::{DeviceIndex, Event, Fleet};
use crate::mark::Mark;

/// Who ended an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The device, in an OUTCOME.
    Device,
    /// The server, for it.
    Server,
}

/// The end of an order of the durable log on one device, or of an attempt at it: 24 bytes to be written down and given back
/// to [`Fleet::logged`] as they are. The order's state on the device is `first_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogEntry {
    /// The order.
    pub number: u64,
    /// The device.
    pub device: DeviceIndex,
    /// What the device counted, in ms: see [`Event::Outcome`].
    pub device_ms: u32,
    /// What was reported, or given by the server.
    pub code: Code,
    /// What the report shows; BUSY and its like of a device end an attempt.
    pub first_code: Code,
    /// Who says so.
    pub by: By,
}

const _: () = assert!(size_of::<LogEntry>() == 24);

/// The beginning or the end of a device's session, to be written down: what a restarted server knows of who may have got
/// what. 80 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace {
    /// The device.
    pub device: DeviceIndex,
    /// Its boot.
    pub boot: u64,
    /// The session begins: nothing of the durable log is sent in it until [`Fleet::traced`]. Else it is over.
    pub open: bool,
    /// By lane, the highest number of the durable log that was written to it; 0 none.
    pub upto: [u64; 4],
    /// By lane, the highest number of that log it has told the end of and not forgotten since; 0 none.
    pub ended: [u64; 4],
}

/// What the log knows of a device: its last [`Trace`], and how its orders ended. 80 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceTrace {
    /// Its boot at the last trace; 0: there is none.
    pub boot: u64,
    /// The last trace opened a session: whatever was in the log may have been written to it.
    pub open: bool,
    /// As in the last trace.
    pub upto: [u64; 4],
    /// As in the last trace, or higher: a number with a logged end that came from the device behind it.
    pub ended: [u64; 4],
}

impl DeviceTrace {
    /// The mark of an order without an end in the log: PENDING if no byte of it can have left, else REPEAT.
    #[must_use]
    pub fn mark(&self, lane: Lane, number: u64) -> Mark {
        let written = self.upto.get(lane.index()).is_some_and(|upto| number <= *upto);
        if written || self.open { Mark::REPEAT } else { Mark::PENDING }
    }
}

/// A number for each of the two logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerLog {
    pub(crate) volatile: u64,
    pub(crate) durable: u64,
}

impl PerLog {
    pub(crate) const fn of(&self, durable: bool) -> u64 {
        if durable { self.durable } else { self.volatile }
    }

    pub(crate) const fn of_mut(&mut self, durable: bool) -> &mut u64 {
        if durable { &mut self.durable } else { &mut self.volatile }
    }
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// The log that the flag DURABLE names (or the volatile one) has given numbers up to this one, here or in another fleet
    /// that serves it: a device that knows one of those has not invented it.
    pub fn note_head(&mut self, durable: bool, number: u64) {
        let head = self.heads.of_mut(durable);
        *head = number.max(*head);
    }

    /// An end that [`Event::Log`] told is on disk: now it counts. The answer to what was not told is nothing.
    ///
    /// False, and nothing changed, only if 64 events wait in [`Fleet::poll_event`]: drain them and call again.
    pub fn logged(&mut self, now: Instant, entry: LogEntry) -> bool {
        self.observe(now);
        if self.told.is_full() {
            return false;
        }
        let (number, index, code) = (entry.number, entry.device.0, entry.first_code);
        let Some(slot) = self.orders.find(number) else { return true };
        let was = self.orders.at(slot).mark(index);
        if was.unlogged_code() != Some(code) {
            return true;
        }
        self.count_logged(index, slot, was);
        self.count_said(index, was);
        let by_device = entry.by == By::Device;
        let device_ms = entry.device_ms;
        let mut end = End { code: entry.code, first_code: code, device_ms, by_device, forgotten: false };
        let again = self.judge_logged(now, index, slot, &mut end);
        let last = by_device && code.is_attempt_end();
        if again.is_none() && (end.first_code != code || last) {
            // It is not tried again, and that is an end of its own: the log would take it for an attempt's.
            self.orders.at_mut(slot).set_mark(index, Mark::unlogged(end.first_code));
            self.count_unsaid(index);
            self.tell_log(index, number, End::by_server(end.first_code));
        } else {
            let item = self.mark_over(now, index, slot, end, again);
            self.told.push(item);
        }
        self.settle_if_owed(now, index);
        self.wake_if_owed(index);
        self.finish_if_over(slot);
        true
    }

    /// Orders of the durable log that were written in open sessions and have not ended, device by device. With none, no device
    /// is about to end another one: what was told to be logged waits for no company.
    #[must_use]
    pub const fn durable_out(&self) -> u32 {
        self.durable_out
    }

    /// Whether orders of the durable log wait for this device's window, while at least half of what they may have of it is
    /// held by ends that the log does not have.
    #[must_use]
    pub fn waits_for_log(&self, device: DeviceIndex) -> bool {
        let slot = self.devices.at(device.0);
        let mut tracks = Tracks(slot.busy & Tracks::DURABLE);
        let owed = tracks.any(|track| self.devices.track(device.0, track).owed != 0);
        owed && slot.waiting.saturating_mul(2) >= Credit::durable_max(slot)
    }

    /// An order of a track has left, in an open session; or comes out to be out there still.
    pub(super) fn count_out(&mut self, index: u32, track: Track) {
        let counts = track.is_durable() && self.devices.at(index).state == State::Open;
        self.durable_out = self.durable_out.saturating_add(counts.into());
    }

    /// An order of a track is not out there any more.
    pub(super) fn count_in(&mut self, index: u32, track: Track) {
        let counts = track.is_durable() && self.devices.at(index).state == State::Open;
        self.durable_out = self.durable_out.saturating_sub(counts.into());
    }

    /// A session is over: what is out there does not end in it.
    pub(super) fn nothing_out(&mut self, index: u32) {
        let device = self.devices.at(index);
        if device.state == State::Open {
            self.durable_out = self.durable_out.saturating_sub(self.devices.durable_out(index));
        }
    }

    /// An order of the durable log ended on this device before a byte of it left.
    pub(super) fn count_unsaid(&mut self, index: u32) {
        let device = self.devices.at_mut(index);
        device.unsaid = device.unsaid.saturating_add(1);
    }

    /// The log has the end of an order of the durable log with this mark.
    pub(super) fn count_said(&mut self, index: u32, was: Mark) {
        let device = self.devices.at_mut(index);
        device.unsaid = device.unsaid.saturating_sub(u16::from(was.is_unsaid()));
    }

    /// The beginning of a session is told once every older end is logged: what a crash leaves of the log must not say that a
    /// device has a new boot, and not what its old one left in doubt.
    pub(super) fn trace_if_due(&mut self, index: u32) {
        let device = self.devices.at(index);
        if device.is(flag::TRACE) && self.devices.sum(index, |track| track.lingering) == 0 {
            self.tell.push_back(&mut self.devices, index);
        }
    }

    /// Takes it out of its track's counts; its credit comes back with the SETTLED that covers it.
    fn count_logged(&mut self, index: u32, slot: u32, was: Mark) {
        if !was.is_held() {
            return;
        }
        self.unhold(index, slot, was);
        let (track, number) = (self.orders.at(slot).track, self.orders.at(slot).number);
        let oldest = self.devices.track(index, track).oldest;
        if oldest != NONE && self.orders.at(oldest).number < number {
            self.devices.at_mut(index).skewed |= track.bit();
        }
    }

    /// What becomes of an attempt that ended, now that the log has it: as [`Fleet::judge_attempt`], for one that another
    /// device's removal or the server's own end cannot repeat any more.
    fn judge_logged(&self, now: Instant, index: u32, slot: u32, end: &mut End) -> Option<Mark> {
        let attempt = end.by_device && end.first_code.is_attempt_end();
        let device = self.devices.at(index);
        if !attempt || device.state == State::Free || device.is(flag::REMOVED) {
            return None;
        }
        self.judge_attempt(now, index, slot, end)
    }

    /// Asks for an end to be logged.
    pub(super) fn tell_log(&mut self, index: u32, number: u64, end: End) {
        self.told.push(Item { device: index, number, end, latency: Duration::ZERO, sort: Sort::Log });
        self.stats.log_entries = self.stats.log_entries.wrapping_add(1);
    }

    /// The beginning of a session that [`Event::Trace`] told is on disk. To be called once for each that was told as open,
    /// in the order they were told, also if that session is over by then; not for those told as over.
    pub fn traced(&mut self, now: Instant, device: DeviceIndex, boot: u64) {
        self.observe(now);
        let slot = self.devices.at_mut(device.0);
        slot.untraced = slot.untraced.saturating_sub(1);
        if slot.untraced == 0 && slot.boot == boot {
            self.wake_if_owed(device.0);
        }
    }

    /// Tells the beginning of a session, if it is time.
    pub(super) fn tell_beginning(&mut self, index: u32) -> Option<Event<B, M>> {
        if self.devices.sum(index, |track| track.lingering) != 0 {
            self.tell.remove(&mut self.devices, index);
            return None;
        }
        Some(self.tell_trace(index, true))
    }

    /// Tells the beginning or the end of a session.
    pub(super) fn tell_trace(&mut self, index: u32, open: bool) -> Event<B, M> {
        let device = self.devices.at_mut(index);
        device.set(flag::TRACE, false);
        device.set(flag::TRACED, open);
        device.untraced = device.untraced.saturating_add(u32::from(open));
        let boot = device.boot;
        let durable = self.devices.durable(index);
        let (upto, ended) = (durable.upto, durable.tracks.map(|state| state.ended));
        Event::Trace(Trace { device: DeviceIndex(index), boot, open, upto, ended })
    }

    /// What the log knows of a device, after a restart: to be called before it is dialled for the first time, and before
    /// orders are restored.
    pub fn restore_device(&mut self, device: DeviceIndex, trace: DeviceTrace) {
        let slot = self.devices.at_mut(device.0);
        if slot.state == State::Free {
            return;
        }
        slot.boot = trace.boot;
        let named = trace.upto.into_iter().chain(trace.ended).any(|number| number != 0);
        slot.set(flag::NAMED_DURABLE, named);
        if !named {
            return;
        }
        slot.busy |= Tracks::DURABLE;
        let slot = self.devices.durable_mut(device.0);
        for (((state, written), upto), ended) in
            slot.tracks.iter_mut().zip(&mut slot.upto).zip(trace.upto).zip(trace.ended)
        {
            *written = upto.max(ended);
            state.ended = ended;
        }
        let head = trace.upto.into_iter().chain(trace.ended).max();
        self.note_head(true, head.unwrap_or(0));
    }
}
