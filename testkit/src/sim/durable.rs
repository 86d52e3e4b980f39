//! A server's durable side: the outbox over its disk, and the one writer that commits to it.
//!
//! Jobs queue up while a commit is under way; then all of them go into the next one. What a commit was for happens when its
//! time on the disk is over, in the order of the jobs: orders go to the fleet, outcomes count, sessions may get orders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use push::fleet::{Event as FleetEvent, LogEntry, Trace};
use push::outbox::log::{CommitError, Settings};
use push::outbox::{AppendError, Batch, Device, Entry, Frame, Now, Outbox, Outcome, Session, Targets};
use wire_format::frame::outcome::Code;
use wire_format::ids::{DeviceKind, Lineage, Tags};
use wire_format::time::Instant;

use super::device::device_id;
use super::ledger::Wish;
use super::names::Probe;
use super::plan::MS;
use super::server::{Server, address};
use super::world::{Act, World};
use crate::disk::SimDisk;
use crate::history::OrderId;

/// How long a commit takes on a disk that is well.
const COMMIT: Duration = Duration::from_millis(2);
/// A commit that failed is tried again after this.
pub(super) const AGAIN: Duration = Duration::from_millis(200);
/// 2020-01-01, in milliseconds since 1970: when worlds begin.
const BEGINNING_MS: u64 = 1_577_836_800_000;

/// An order on its way into the outbox, and what is known of it until it is answered for.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) wish: Wish,
    pub(super) targets: BTreeSet<usize>,
    /// The places of its targets in the fleet.
    pub(super) places: Vec<push::DeviceIndex>,
    pub(super) cancel_after: Option<Duration>,
}

/// What the writer writes down.
#[derive(Debug)]
pub(super) enum Job {
    Order(Waiting),
    Cancel {
        number: u64,
    },
    Device {
        number: u32,
    },
    Removed {
        number: u32,
        /// The place of a device whose fleet does not know it yet.
        index: Option<push::DeviceIndex>,
    },
    Fence {
        fence: u64,
    },
    /// What the fleet told, as the fleet told it.
    Batch {
        batch: Batch,
        entries: Vec<LogEntry>,
        traces: Vec<Trace>,
    },
}

/// A job that was appended, with the number it got if it is an order.
type Written = (Job, Result<u64, AppendError>);

/// The durable side of a server. The disk and what the simulator knows of it outlive the process.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) disk: SimDisk,
    pub(super) outbox: Option<Outbox<SimDisk>>,
    pub(super) lineage: Lineage,
    /// What this lineage, or this continuation of it, is called in the history.
    pub(super) log: u64,
    queue: Vec<Job>,
    /// The commit under way.
    writing: Option<(Vec<Written>, bool, Instant)>,
    batch: Batch,
    entries: Vec<LogEntry>,
    traces: Vec<Trace>,
    armed: Instant,
    /// Commits take so long, until then.
    pub(super) slow: (Duration, Instant),
    /// How far the wall clock is off, in milliseconds, and where it stands still.
    pub(super) wall_off_ms: i64,
    pub(super) wall_frozen_ms: Option<u64>,
    /// Whose number it is, for every number there ever was.
    pub(super) numbers: BTreeMap<u32, usize>,
    /// Orders that were appended and not answered for.
    pub(super) unanswered: BTreeMap<u64, Waiting>,
    /// Orders that were accepted and have not settled, as the application knows them.
    pub(super) accepted: BTreeMap<u64, (OrderId, Wish, BTreeSet<usize>)>,
    /// Orders that have settled, and those of them that a start has found once more: the last word on them was the end of
    /// an attempt, which the log does not know to be the last.
    pub(super) settled: BTreeMap<u64, (OrderId, Wish, BTreeSet<usize>)>,
    pub(super) ghosts: BTreeSet<u64>,
    /// Orders and devices of which a start has found such a word.
    pub(super) last_attempts: BTreeSet<(u64, usize)>,
    /// Outcomes that were handed to the outbox, whether it kept them or not.
    pub(super) handed: BTreeMap<(u64, usize), Code>,
    /// The highest number and the highest fence there ever were.
    pub(super) head: u64,
    pub(super) fence: u64,
    /// A device knows more of the log than the log does: it is given up before anything else is written.
    pub(super) renews: bool,
}

impl Durable {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            outbox: None,
            lineage: Lineage([0; 16]),
            log: 0,
            queue: Vec::new(),
            writing: None,
            batch: Batch::default(),
            entries: Vec::new(),
            traces: Vec::new(),
            armed: Instant::NEVER,
            slow: (Duration::ZERO, Instant::ZERO),
            wall_off_ms: 0,
            wall_frozen_ms: None,
            numbers: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            accepted: BTreeMap::new(),
            settled: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            last_attempts: BTreeSet::new(),
            handed: BTreeMap::new(),
            head: 0,
            fence: 0,
            renews: false,
        }
    }

    /// Segments are small, so that a run of half a minute sees many. A list of thousands of devices needs the least that a
    /// server takes.
    pub(super) const fn settings(devices: usize) -> Settings {
        if devices > 1_000 {
            Settings { segment_bytes: 256 << 10, bytes_max: 16 << 20 }
        } else {
            Settings { segment_bytes: 8 << 10, bytes_max: 1 << 20 }
        }
    }

    /// What the server's clocks show.
    pub(super) fn now(&self, now: Instant) -> Now {
        let wall = BEGINNING_MS + now.as_millis();
        let wall_ms = self.wall_frozen_ms.unwrap_or_else(|| wall.saturating_add_signed(self.wall_off_ms));
        Now { wall_ms, awake_ms: now.as_millis() }
    }

    /// The process is gone, and what only its memory held.
    pub(super) fn forget(&mut self) {
        self.outbox = None;
        self.queue.clear();
        self.writing = None;
        self.drop_batches();
        self.armed = Instant::NEVER;
        self.renews = false;
    }

    /// Nothing that the fleet told of the log is written down any more, nor asked for.
    pub(super) fn drop_batches(&mut self) {
        self.batch.clear();
        self.entries.clear();
        self.traces.clear();
        self.queue.retain(|job| match job {
            Job::Order(waiting) => waiting.wish.repeats.is_none(),
            Job::Cancel { .. } | Job::Batch { .. } => false,
            Job::Device { .. } | Job::Removed { .. } | Job::Fence { .. } => true,
        });
    }

    /// The orders of this log are of no interest any more.
    pub(super) fn forget_orders(&mut self) {
        self.accepted.clear();
        self.settled.clear();
        self.ghosts.clear();
        self.last_attempts.clear();
        self.handed.clear();
    }

    /// Orders are on disk, and nobody was told yet.
    pub(super) fn has_untold(&self) -> bool {
        let orders = |jobs: &[Written]| jobs.iter().any(|(job, _)| matches!(job, Job::Order(_)));
        self.writing.as_ref().is_some_and(|(jobs, committed, _)| *committed && orders(jobs))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.writing.is_none() && self.batch.is_empty() && !self.renews
    }

    /// Jobs that wait for a commit, or for its end.
    pub(super) fn waits(&self) -> usize {
        self.queue.len() + self.writing.as_ref().map_or(0, |(jobs, ..)| jobs.len())
    }

    pub(super) fn put(&mut self, job: Job) {
        self.queue.push(job);
    }

    /// What is tried again comes before what was put meanwhile.
    fn put_again(&mut self, jobs: Vec<Job>) {
        self.queue.splice(0..0, jobs);
    }
}

impl World {
    /// What the fleet wants written down.
    pub(super) fn collect(&mut self, at: usize, event: &FleetEvent<Vec<u8>, Vec<u8>>) {
        let now = self.now;
        let server = &mut self.servers[at];
        let number = |index: push::DeviceIndex| server.numbers.get(&index.0).copied().unwrap_or(u32::MAX);
        let durable = &mut server.durable;
        match *event {
            FleetEvent::Log(entry) => {
                self.ledger.note(now, None, format_args!("to be logged: {entry:?}"));
                let LogEntry { number: order, code, first_code, .. } = entry;
                let by_device = entry.by == push::fleet::By::Device;
                let last = !by_device && first_code.is_attempt_end();
                let device = number(entry.device);
                durable.batch.push(now, Outcome { number: order, device, code, first_code, by_device, last });
                if server.fleet.as_ref().is_some_and(|fleet| fleet.waits_for_log(entry.device)) {
                    durable.batch.hasten();
                }
                durable.entries.push(entry);
                let of_attempt = server.wishes.get(&order).is_some_and(|wish| wish.repeats.is_some());
                if !first_code.is_attempt_end() || last || of_attempt {
                    let code = if first_code.0 == 0 { code } else { first_code };
                    let device = durable.numbers.get(&device).copied().unwrap_or(usize::MAX);
                    durable.handed.insert((order, device), code);
                    // What ends an attempt for good ends its order.
                    let root = server.wishes.get(&order).and_then(|wish| wish.repeats);
                    if let Some((root, _)) = root.filter(|_| !code.is_attempt_end()) {
                        durable.handed.insert((root, device), code);
                    }
                }
            }
            FleetEvent::Trace(trace) => {
                let session = Session {
                    device: number(trace.device),
                    boot: trace.boot,
                    open: trace.open,
                    upto: trace.upto,
                    ended: trace.ended,
                };
                durable.batch.push_session(now, session);
                durable.traces.push(trace);
            }
            _ => {}
        }
    }

    /// Begins the next commit if there is something to write and none is under way, or says when.
    pub(super) fn kick_writer(&mut self, at: usize) {
        let now = self.now;
        // All that the last event led to is written by now.
        let alone = self.servers[at].fleet.as_ref().is_some_and(|fleet| fleet.durable_out() == 0);
        let durable = &mut self.servers[at].durable;
        if durable.writing.is_some() || durable.outbox.is_none() {
            return;
        }
        let idle = durable.queue.is_empty() && !durable.renews;
        let due = if idle { durable.batch.poll_timeout(alone) } else { Some(now) };
        let Some(due) = due.map(|due| due.max(now)) else { return };
        if due < durable.armed {
            durable.armed = due;
            let boot = self.servers[at].boot;
            self.at(due, Act::Write { server: at, boot });
        }
    }

    /// Everything that waits goes into one commit.
    pub(super) fn write_down(&mut self, at: usize, boot: u64) {
        let now = self.now;
        let server = &mut self.servers[at];
        if server.boot != boot || server.fleet.is_none() {
            return;
        }
        let durable = &mut server.durable;
        durable.armed = Instant::NEVER;
        if durable.writing.is_some() {
            return;
        }
        if durable.renews {
            return self.renew(at);
        }
        let mut jobs = core::mem::take(&mut durable.queue);
        if !durable.batch.is_empty() {
            let batch = durable.batch.take(Batch::default());
            let entries = core::mem::take(&mut durable.entries);
            jobs.push(Job::Batch { batch, entries, traces: core::mem::take(&mut durable.traces) });
        }
        let orders = jobs.iter().any(|job| matches!(job, Job::Order(_)));
        let mut written = Vec::new();
        for job in jobs {
            let appended = self.append(at, &job);
            written.push((job, appended));
            if self.server_dies(at) {
                return self.probe(if orders { Probe::S1 } else { Probe::S6 });
            }
        }
        let Server { durable, fleet, .. } = &mut self.servers[at];
        let times = durable.now(now);
        let Some(outbox) = &mut durable.outbox else { return };
        let frame = |number| fleet.as_ref().and_then(|fleet| fleet.frame(number));
        let mended = outbox.stats().mended;
        let committed = outbox.commit_with(times, frame);
        let mended = outbox.stats().mended > mended;
        self.ledger.note(now, None, format_args!("committed {} {written:?}", committed.is_ok()));
        if durable.disk.is_dead() {
            self.probe(if orders { Probe::S2 } else { Probe::S6 });
            let power = self.power_goes();
            return self.crash_server(at, power, MS * 500);
        }
        if let Err(error) = &committed {
            self.commit_failed(error);
        }
        if mended {
            self.probe(Probe::Mended);
        }
        self.check_losses(at);
        self.servers[at].durable.writing = Some((written, committed.is_ok(), now));
        let slow = self.servers[at].durable.slow;
        let takes = if now < slow.1 { slow.0 } else { COMMIT };
        self.later(takes, Act::Written { server: at, boot });
        self.server_dies(at);
    }

    fn commit_failed(&mut self, error: &CommitError) {
        self.probe(Probe::CommitFailed);
        self.note(format_args!("a commit failed: {error}"));
    }

    fn append(&mut self, at: usize, job: &Job) -> Result<u64, AppendError> {
        let now = self.now;
        let times = self.servers[at].durable.now(now);
        if let Job::Order(waiting) = job {
            return self.append_order(at, waiting, times);
        }
        let durable = &mut self.servers[at].durable;
        let Some(outbox) = &mut durable.outbox else { return Ok(0) };
        let entry = match job {
            Job::Cancel { number } => Entry::Cancel { number: *number },
            Job::Removed { number, .. } => Entry::Removed { device: *number },
            Job::Fence { fence } => Entry::Fence { fence: *fence },
            Job::Batch { batch, .. } => return outbox.append_batch(times, batch).map(|()| 0),
            Job::Device { number } => {
                let Some(device) = durable.numbers.get(number).copied() else { return Ok(0) };
                let slot = self.devices[device].slot;
                let known = Device {
                    device: *number,
                    id: self.plan.devices[device].listed.then(|| device_id(device)),
                    kind: DeviceKind::TILL,
                    zone: 0,
                    tags: Tags::EMPTY,
                    address: Some(address(slot)),
                };
                return outbox.append(times, &Entry::Device(&known)).map(|()| 0);
            }
            Job::Order(_) => return Ok(0),
        };
        outbox.append(times, &entry).map(|()| 0)
    }

    /// An order gets its number when it is appended: numbers rise in the log.
    fn append_order(&mut self, at: usize, waiting: &Waiting, times: Now) -> Result<u64, AppendError> {
        let now = self.now;
        let server = &mut self.servers[at];
        let number = server.next_number;
        server.next_number += 1;
        let numbers: BTreeSet<u32> = waiting.places.iter().map(|index| server.numbers[&index.0]).collect();
        let durable = &mut server.durable;
        let Some(outbox) = &mut durable.outbox else { return Ok(0) };
        let invalid = AppendError::Invalid { field: "targets" };
        let targets = Targets::from_sorted(numbers).ok_or(invalid)?;
        let wish = &waiting.wish;
        if let Some((root, attempt)) = wish.repeats {
            outbox.append(
                times,
                &Entry::Retry { number, root, attempt, after: Duration::ZERO, targets: &targets },
            )?;
        } else {
            let lifetime = wish.until.map(|until| until.since(now).max(MS));
            let frame = wish.frame(number, lifetime, true);
            let frame = Frame::new(&frame).map_err(|_| AppendError::Invalid { field: "frame" })?;
            outbox.append(times, &Entry::Order { frame, targets: &targets })?;
        }
        durable.unanswered.insert(number, waiting.clone());
        Ok(number)
    }

    /// The commit has returned: what it was for happens now.
    pub(super) fn written(&mut self, at: usize, boot: u64) {
        let server = &mut self.servers[at];
        if server.boot != boot || server.fleet.is_none() {
            return;
        }
        let Some((jobs, committed, since)) = server.durable.writing.take() else { return };
        let mut again = Vec::new();
        for (job, appended) in jobs {
            if self.servers[at].fleet.is_none() {
                return;
            }
            let kept = committed && appended.is_ok();
            match job {
                Job::Order(waiting) => self.order_written(at, waiting, appended, committed.then_some(since)),
                job if kept => self.job_written(at, job),
                // It is gone, whatever the disk says: only the record waits.
                Job::Removed { number, index } => {
                    index.into_iter().for_each(|index| self.is_removed(at, index));
                    again.push(Job::Removed { number, index: None });
                }
                job => again.push(job),
            }
            self.tell_events(at);
        }
        if !again.is_empty() && self.servers[at].fleet.is_some() {
            self.servers[at].durable.put_again(again);
            // Not at once: the disk has just said that it cannot.
            self.servers[at].durable.armed = self.now + AGAIN;
            self.later(AGAIN, Act::Write { server: at, boot });
        }
        self.serve_server(at);
    }

    fn order_written(
        &mut self,
        at: usize,
        waiting: Waiting,
        appended: Result<u64, AppendError>,
        since: Option<Instant>,
    ) {
        match (appended, since) {
            (Ok(number), Some(since)) => {
                self.servers[at].durable.unanswered.remove(&number);
                let durable = &mut self.servers[at].durable;
                durable.head = durable.head.max(number);
                self.accept_durable(at, number, waiting, since);
            }
            // The application is told that it was not taken. What is on disk of it may still be found after a crash.
            (Ok(_), None) => self.attempt_not_kept(at, &waiting),
            (Err(AppendError::Full { .. }), _) => {
                self.probe(Probe::OutboxFull);
                self.attempt_not_kept(at, &waiting);
            }
            // Its order has ended meanwhile.
            (Err(AppendError::Invalid { field: "root" }), _) if waiting.wish.repeats.is_some() => {
                self.attempt_without_order(at, &waiting);
            }
            (Err(error), _) => self.ledger.fail(self.now, "AppendRefused", None, &[], error),
        }
    }

    fn job_written(&mut self, at: usize, job: Job) {
        let now = self.now;
        match job {
            Job::Cancel { number } => self.cancel_now(at, number),
            Job::Fence { fence } => self.fence_written(at, fence),
            Job::Batch { entries, traces, .. } => {
                for entry in entries {
                    while self.servers[at].fleet.as_mut().is_some_and(|fleet| !fleet.logged(now, entry)) {
                        self.tell_events(at);
                    }
                    if self.server_dies(at) {
                        return;
                    }
                }
                for trace in traces.into_iter().filter(|trace| trace.open) {
                    if let Some(fleet) = &mut self.servers[at].fleet {
                        fleet.traced(now, trace.device, trace.boot);
                    }
                }
            }
            Job::Removed { index, .. } => {
                index.into_iter().for_each(|index| self.is_removed(at, index));
            }
            Job::Device { .. } | Job::Order(_) => {}
        }
    }

    /// The fence is on disk: now it may be said.
    fn fence_written(&mut self, at: usize, fence: u64) {
        let server = &mut self.servers[at];
        server.durable.fence = server.durable.fence.max(fence);
        (server.fence, server.took_over) = (fence, true);
        if let Some(fleet) = &mut server.fleet {
            fleet.take_over(self.now, fence);
        }
        self.fence_raised(at, fence);
    }
}
