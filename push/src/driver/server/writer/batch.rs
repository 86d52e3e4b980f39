//! What a shard collected to be logged.

use wire_format::time::Instant;

use crate::fleet::{DeviceIndex, LogEntry, Trace};
use crate::outbox::{BATCH_MAX, Pace, SESSIONS_KEPT};

/// The same end on devices that follow each other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: LogEntry,
    count: u32,
}

impl Run {
    fn entries(self) -> impl Iterator<Item = LogEntry> {
        let Self { first, count } = self;
        (0..count).map(move |at| LogEntry { device: DeviceIndex(first.device.0 + at), ..first })
    }

    /// Adds the next device, if it is that.
    fn extend(&mut self, entry: LogEntry) -> bool {
        let next = DeviceIndex(self.first.device.0.wrapping_add(self.count));
        let extends = entry == LogEntry { device: next, ..self.first };
        self.count += u32::from(extends);
        extends
    }
}

/// What was last told of a device's sessions.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Traced {
    pub(in super::super) trace: Trace,
    /// Sessions that wait for it.
    pub(in super::super) opened: u32,
}

/// Ends and sessions of one shard.
///
/// While the disk is dead it grows, and no further than this: by 32 bytes for each end that a device told, of which its window
/// allows a few; by 32 bytes for the ends that the server gives to neighbours, once per order and device; and by 92 bytes
/// for each device that comes and goes, however often.
#[derive(Debug, Default)]
pub(in super::super) struct Batch {
    runs: Vec<Run>,
    ends: usize,
    traces: Vec<Traced>,
    /// By device, behind which of `traces` it is; 0 none.
    places: Vec<u32>,
    pace: Pace,
    /// Which name of the log it is for: how often that had changed.
    pub(in super::super) renewals: u32,
}

impl Batch {
    /// With room for all the ends of a usual one.
    pub(in super::super) fn with_room() -> Self {
        let mut batch = Self::default();
        batch.make_room();
        batch
    }

    /// Takes the room for all the ends of a usual one at once, so that no later batch has to grow while sockets wait.
    pub(in super::super) fn make_room(&mut self) {
        if self.runs.capacity() == 0 {
            self.runs.reserve_exact(BATCH_MAX);
        }
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.traces.is_empty()
    }

    /// When it is to be handed over; `alone` as for [`Pace::due`].
    pub(in super::super) fn poll_timeout(&self, alone: bool) -> Option<Instant> {
        self.pace.due(self.ends, alone)
    }

    /// The last end holds up other orders of its device.
    pub(in super::super) const fn hasten(&mut self) {
        self.pace.hasten();
    }

    /// Adds an end.
    pub(in super::super) fn push(&mut self, now: Instant, entry: LogEntry) {
        self.pace.begin(now);
        self.ends += 1;
        self.make_room();
        if !self.runs.last_mut().is_some_and(|last| last.extend(entry)) {
            self.runs.push(Run { first: entry, count: 1 });
        }
    }

    /// Adds a session that began or is over; the last word on a device is what is kept.
    pub(in super::super) fn push_trace(&mut self, now: Instant, trace: Trace) {
        self.pace.begin(now);
        self.pace.hasten();
        let device = trace.device.0 as usize;
        if device >= self.places.len() {
            self.places.resize(device + 1, 0);
        }
        let Some(place) = self.places.get_mut(device) else { return };
        let known = place.checked_sub(1).and_then(|at| self.traces.get_mut(at as usize));
        match known {
            Some(known) => *known = Traced { trace, opened: known.opened + u32::from(trace.open) },
            None => {
                self.traces.push(Traced { trace, opened: u32::from(trace.open) });
                *place = u32::try_from(self.traces.len()).unwrap_or(0);
            }
        }
    }

    /// The ends, in the order in which they came.
    pub(in super::super) fn entries(&self) -> impl Iterator<Item = LogEntry> {
        self.runs.iter().flat_map(|run| run.entries())
    }

    pub(in super::super) fn traces(&self) -> &[Traced] {
        &self.traces
    }

    /// Empties it; it keeps its memory for ends. Sessions come seldom, or all at once.
    pub(in super::super) fn clear(&mut self) {
        self.runs.clear();
        self.traces.clear();
        self.traces.shrink_to(SESSIONS_KEPT);
        self.places = Vec::new();
        (self.ends, self.pace) = (0, Pace::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::By;
    use crate::outbox::BATCH_WITHIN;
    use std::time::Duration;
    use wire_format::frame::outcome::Code;

    fn entry(number: u64, device: u32, code: Code) -> LogEntry {
        let device = DeviceIndex(device);
        LogEntry { number, device, device_ms: 0, code, first_code: code, by: By::Server }
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn ends_come_out_as_they_came_and_neighbours_cost_nothing() {
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        let told: Vec<_> = (0..5_000)
            .map(|device| entry(7, device, Code::EXPIRED))
            .chain([entry(8, 5_000, Code::EXPIRED), entry(8, 4, Code::APPLIED), entry(8, 5, Code::EXPIRED)])
            .chain([entry(8, 7, Code::EXPIRED), entry(8, 6, Code::EXPIRED)])
            .collect();
        told.iter().for_each(|&entry| batch.push(at(1), entry));
        assert!(batch.entries().eq(told));
        assert_eq!(batch.runs.len(), 6);
        batch.clear();
        assert!(batch.is_empty() && batch.poll_timeout(true).is_none());
    }

    #[test]
    fn a_batch_is_due_at_its_limits_and_not_before() {
        let mut batch = Batch::default();
        for device in 0..BATCH_MAX as u32 {
            assert_eq!(batch.poll_timeout(false), (device > 0).then(|| at(5) + BATCH_WITHIN), "{device}");
            batch.push(at(5 + u64::from(device)), entry(1, device, Code::APPLIED));
        }
        assert_eq!(batch.poll_timeout(false), Some(at(5)));
    }

    #[test]
    fn a_session_does_not_wait_and_of_a_device_the_last_word_is_kept() {
        let trace = |device, boot, open| {
            let (device, upto, ended) = (DeviceIndex(device), [boot; 4], [boot; 4]);
            Trace { device, boot, open, upto, ended }
        };
        let mut batch = Batch::default();
        for round in 0..3 {
            batch.push(at(0), entry(1, 0, Code::APPLIED));
            for boot in 1..=4 {
                batch.push_trace(at(3), trace(9, boot, true));
                batch.push_trace(at(3), trace(2, boot, boot < 4));
            }
            assert_eq!(batch.poll_timeout(false), Some(at(0)));
            let kept: Vec<_> = batch.traces().iter().map(|traced| (traced.trace, traced.opened)).collect();
            assert_eq!(kept, [(trace(9, 4, true), 4), (trace(2, 4, false), 3)], "{round}");
            batch.clear();
        }
    }
}
