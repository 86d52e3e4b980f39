//! One order on its way to many devices, as the application holds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::directory::Place;
use super::error::PushError;
use super::frame::Frame;
use super::report::{DeviceResult, Report};
use super::retry::Chain;
use super::room::ResultRoom;
use super::shared::{Message, Shared, lock};
use super::stream::Listener;
use super::writer::Job;
use crate::fleet::DeviceIndex;
use crate::histogram::Histogram;
use crate::mark::Mark;
use crate::order::Order;

/// Codes are counted below this; all that exist are.
const CODES: usize = 64;

/// What a shard keeps with a live order: the marks the core works on, and whom to tell.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) marks: Vec<u8>,
    pub(super) latency: Box<Histogram>,
    pub(super) state: Arc<State>,
    /// Set for the record of a further attempt.
    pub(super) chain: Option<Chain>,
    /// Records of further attempts that live.
    pub(super) attempts: Vec<u64>,
    /// The end of its lifetime, on the shard's clock.
    pub(super) deadline: Instant,
    /// Who wants each outcome as it comes.
    pub(super) listeners: Vec<Listener>,
}

impl Ledger {
    /// Of an order that was pushed. Marks and histogram come from pools.
    pub(super) fn new(state: Arc<State>, marks: Vec<u8>, latency: Box<Histogram>) -> Self {
        let (attempts, listeners) = (Vec::new(), Vec::new());
        Self { marks, latency, state, chain: None, attempts, deadline: Instant::NEVER, listeners }
    }

    /// The part of the shard, once it is done.
    pub(super) fn into_part(self, first: DeviceIndex) -> Part {
        Part { first, marks: self.marks, latency: self.latency }
    }
}

impl AsRef<[u8]> for Ledger {
    fn as_ref(&self) -> &[u8] {
        &self.marks
    }
}

impl AsMut<[u8]> for Ledger {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.marks
    }
}

/// How an order stands on the devices of one shard.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) first: DeviceIndex,
    pub(super) marks: Vec<u8>,
    pub(super) latency: Box<Histogram>,
}

/// The parts of the shards that are done.
#[derive(Debug)]
struct Parts {
    /// By shard.
    settled: Box<[Option<Part>]>,
    /// Shards that are not done.
    open: usize,
}

/// Outcomes so far, counted while they come.
///
/// One shard counts, others may; readers see each counter on its own: sums may be a moment apart.
#[derive(Debug)]
struct Counters([AtomicU32; CODES]);

impl Counters {
    fn count(&self, code: Code) {
        if let Some(count) = self.0.get(usize::from(code.0)) {
            // With the load of `watchers` that follows: either that sees the watcher, or the watcher sees this.
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn sum(&self, mut counts: impl FnMut(Code) -> bool) -> usize {
        let codes = (0..).zip(&self.0).filter(|&(code, _)| counts(Code(code)));
        codes.map(|(_, count)| count.load(Ordering::SeqCst) as usize).sum()
    }
}

/// What handle and shards share about one fan-out.
#[derive(Debug)]
pub(super) struct State {
    pub(super) number: u64,
    pub(super) targets: usize,
    /// Shards it goes to, a bit each.
    shards: u64,
    parts: Mutex<Parts>,
    counters: Counters,
    /// Handles that wait for a number of outcomes.
    watchers: AtomicUsize,
    pub(super) handles: AtomicUsize,
    changed: Notify,
    /// What the application called the order; 0 nothing.
    pub(super) key: u64,
    pub(super) supersede_key: u64,
    /// It is in the durable log.
    pub(super) durable: bool,
    /// Whether the outbox has it. Unset while the disk is waited for, and where there is nothing to keep.
    kept: OnceLock<Result<(), PushError>>,
    /// It was cancelled.
    cancelled: AtomicBool,
    results: Mutex<HashMap<Place, Arc<[u8]>>>,
    room: Arc<ResultRoom>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.forget_results();
    }
}

impl State {
    /// For an order that goes to these shards (a bit each), of so many in all.
    pub(super) fn new(number: u64, targets: usize, going: u64, shards: usize) -> Self {
        let settled = std::iter::repeat_with(|| None).take(shards).collect();
        Self {
            number,
            targets,
            shards: going,
            parts: Mutex::new(Parts { settled, open: going.count_ones() as usize }),
            counters: Counters(std::array::from_fn(|_| AtomicU32::new(0))),
            watchers: AtomicUsize::new(0),
            handles: AtomicUsize::new(0),
            changed: Notify::new(),
            key: 0,
            supersede_key: 0,
            durable: false,
            kept: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            results: Mutex::default(),
            room: Arc::default(),
        }
    }

    /// With the order's keys, and the room for its results.
    pub(super) fn of(self, order: &Order<'_>, room: &Arc<ResultRoom>) -> Self {
        self.named(order.order_key, order.supersede_key, room)
    }

    /// The same, where the keys are known.
    pub(super) fn named(self, key: u64, supersede_key: u64, room: &Arc<ResultRoom>) -> Self {
        // Nothing was kept yet, so nothing is given back.
        let mut state = self;
        (state.key, state.supersede_key, state.room) = (key, supersede_key, Arc::clone(room));
        state
    }

    /// In the durable log.
    pub(super) fn in_outbox(self, durable: bool) -> Self {
        let mut state = self;
        state.durable = durable;
        state
    }

    /// The outbox has it, or not.
    pub(super) fn keep(&self, kept: Result<(), PushError>) {
        // Said once.
        let _ = self.kept.set(kept);
        self.tell();
    }

    /// Keeps a device's result if there is room, or `make_room` finds some. It is lost otherwise, and counted.
    pub(super) fn keep_result(&self, place: Place, result: &[u8], make_room: impl FnOnce() -> bool) {
        let len = result.len();
        if self.room.take(len) || (make_room() && self.room.take(len)) {
            let before = lock(&self.results).insert(place, result.into());
            self.room.give_back(before.map_or(0, |before| before.len()));
        } else {
            self.room.lose();
        }
    }

    /// Gives up the results if nobody holds a handle; true if there were any.
    pub(super) fn forget_results(&self) -> bool {
        if self.handles.load(Ordering::Acquire) > 0 {
            return false;
        }
        let results = core::mem::take(&mut *lock(&self.results));
        self.room.give_back(results.values().map(|result| result.len()).sum());
        !results.is_empty()
    }

    /// A device's result, if it was kept.
    pub(super) fn result(&self, place: Place) -> Option<Arc<[u8]>> {
        lock(&self.results).get(&place).cloned()
    }

    /// Looks at the part of a shard that is done.
    pub(super) fn with_part<T>(&self, shard: usize, look: impl FnOnce(&Part) -> T) -> Option<T> {
        self.lock().settled.get(shard).and_then(Option::as_ref).map(look)
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        lock(&self.parts)
    }

    fn is_settled(&self) -> bool {
        self.lock().open == 0
    }

    /// A device has its outcome.
    pub(super) fn count(&self, code: Code) {
        self.counters.count(code);
        if self.watchers.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Every device of a shard has its outcome. The last shard gets the frame back, which nobody else refers to then.
    pub(super) fn settle(&self, shard: usize, part: Part, frame: Frame) -> Option<Frame> {
        let mut parts = self.lock();
        if let Some(place) = parts.settled.get_mut(shard) {
            *place = Some(part);
        }
        parts.open = parts.open.saturating_sub(1);
        // All but the last give their reference up under the lock, so the last one holds the only one.
        (parts.open == 0).then_some(frame)
    }

    /// Tells who waits for the end.
    pub(super) fn tell(&self) {
        self.changed.notify_waiters();
    }

    /// How many shards it goes to.
    pub(super) const fn shards(&self) -> usize {
        self.shards.count_ones() as usize
    }

    pub(super) fn goes_to(&self, shard: usize) -> bool {
        self.shards >> shard & 1 == 1
    }
}

/// How many devices are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// So many devices, or all if there are fewer.
    Count(usize),
    /// So many of a hundred devices, rounded up; 100 is the most.
    Percent(u8),
}

impl Quorum {
    /// So many devices, or all if there are fewer.
    #[must_use]
    pub const fn count(devices: usize) -> Self {
        Self::Count(devices)
    }

    /// So many of a hundred devices, rounded up.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self::Percent(percent)
    }

    /// The number of devices, out of `targets`.
    #[must_use]
    pub fn of(self, targets: usize) -> usize {
        match self {
            Self::Count(devices) => devices.min(targets),
            Self::Percent(percent) => (targets * usize::from(percent.min(100))).div_ceil(100),
        }
    }
}

/// How far a fan-out is, as its counters say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Devices the order goes to.
    pub targets: usize,
    /// Devices that have their outcome.
    pub ended: usize,
    /// Of these, those with an outcome that was asked for.
    pub matching: usize,
    /// Whether the quorum is reached.
    pub reached: bool,
}

/// One order, pushed to some devices. Dropping it does not stop the order; a clone is a second handle of the same one.
#[derive(Debug)]
pub struct FanOut {
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
}

impl Clone for FanOut {
    fn clone(&self) -> Self {
        Self::new(&self.state, &self.shared)
    }
}

impl FanOut {
    pub(super) fn new(state: &Arc<State>, shared: &Arc<Shared>) -> Self {
        state.handles.fetch_add(1, Ordering::AcqRel);
        Self { state: Arc::clone(state), shared: Arc::clone(shared) }
    }

    /// The order's number in its log, the same on every device.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.state.number
    }

    /// Whether the order survives a restart of this server.
    #[must_use]
    pub fn durable(&self) -> bool {
        self.state.durable
    }

    /// Itself, once the outbox has the order; at once, if it need not have it.
    pub(super) async fn kept(self) -> Result<Self, PushError> {
        let Some(queue) = self.shared.outbox.as_ref().filter(|_| self.state.durable) else { return Ok(self) };
        loop {
            let mut changed = std::pin::pin!(self.state.changed.notified());
            let mut over = std::pin::pin!(queue.ended.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            over.as_mut().enable();
            if let Some(kept) = self.state.kept.get() {
                return kept.clone().map(|()| self.clone());
            }
            if queue.is_over() {
                return Err(PushError::Stopped);
            }
            tokio::select! {
                () = changed => {}
                () = over => {}
            }
        }
    }

    /// How many devices it goes to.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.state.targets
    }

    /// Devices that ended with this outcome so far: one atomic load, no message to anybody.
    #[must_use]
    pub fn count(&self, code: Code) -> usize {
        self.state.counters.sum(|counted| counted == code)
    }

    /// Devices that have their outcome so far.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.state.counters.sum(|_| true)
    }

    /// Cancels the order: where no byte of it left it ends as CANCELLED, where it did the device is asked and says what
    /// came of it. Waits for nothing; the outcomes tell. False if the server has stopped.
    ///
    /// A device that does not take CANCEL, or has begun, ends the order as it would have.
    ///
    /// A durable order stays cancelled over a restart of the server: the shards are told once the outbox has that.
    pub fn cancel(&self) -> bool {
        if let Some(queue) = self.shared.outbox.as_ref().filter(|_| self.state.durable) {
            let again = self.state.cancelled.swap(true, Ordering::AcqRel);
            return again || queue.put(Job::Cancel(Arc::clone(&self.state))).is_ok();
        }
        self.shared.cancel(&self.state)
    }

    /// Waits until every device has its one final outcome, `within` is over or the server stops, and says how things stand.
    ///
    /// Cancel safe: it can be called again, and the report can be asked for as often as wanted.
    pub async fn settled(&self, within: Duration) -> Report {
        self.until(within, || self.state.is_settled()).await;
        self.report().await
    }

    /// Waits until `quorum` devices have an outcome that `counts`, or cannot have it any more, or `within` is over or the
    /// server stops.
    ///
    /// ```no_run
    /// # use push::driver::server::{FanOut, Quorum};
    /// # use std::time::Duration;
    /// # use wire_format::frame::outcome::Code;
    /// # async fn example(fan_out: FanOut) {
    /// let most = fan_out.wait(Quorum::percent(95), |code| code == Code::APPLIED, Duration::from_secs(5)).await;
    /// if !most.reached {
    ///     println!("only {} of {}", most.matching, most.targets);
    /// }
    /// # }
    /// ```
    pub async fn wait(&self, quorum: Quorum, counts: impl Fn(Code) -> bool, within: Duration) -> Progress {
        let targets = self.state.targets;
        let needed = quorum.of(targets);
        let progress = || {
            // In this order: what ends in between counts as still possible.
            let ended = self.state.counters.sum(|_| true);
            let matching = self.state.counters.sum(&counts);
            Progress { targets, ended: ended.max(matching), matching, reached: matching >= needed }
        };
        let decided = || {
            let now = progress();
            now.reached
                || now.matching + (targets - now.ended.min(targets)) < needed
                || self.state.is_settled()
        };
        let _watch = Watch::new(&self.state.watchers);
        self.until(within, decided).await;
        progress()
    }

    /// Until `done`, the time is over or the server has stopped. `done` is asked after every change.
    async fn until(&self, within: Duration, done: impl Fn() -> bool) {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.state.changed.notified());
                let mut stopped = std::pin::pin!(self.shared.ended.notified());
                // From here on no change is missed.
                changed.as_mut().enable();
                stopped.as_mut().enable();
                if done() || self.shared.has_ended() {
                    return;
                }
                tokio::select! {
                    () = changed => {}
                    () = stopped => return,
                }
            }
        };
        // Whoever asks finds out how things stand, in time or not.
        let _ = tokio::time::timeout(within, wait).await;
    }

    /// How things stand now.
    pub async fn report(&self) -> Report {
        if let Some(report) = self.final_report() {
            return report;
        }
        let shards = self.shared.mailboxes.len();
        let mut parts: Vec<Option<Part>> = Vec::with_capacity(shards);
        for shard in 0..shards {
            let part = if self.state.goes_to(shard) { self.part(shard).await } else { None };
            parts.push(part);
        }
        self.report_of(&parts)
    }

    /// How things stand at one shard; `None` if the server stopped and took what was pending with it.
    async fn part(&self, shard: usize) -> Option<Part> {
        let settled = || self.state.lock().settled.get(shard).cloned().flatten();
        if let Some(part) = settled() {
            return Some(part);
        }
        let (reply, answer) = oneshot::channel();
        if self.shared.send(shard, Message::Marks(self.state.number, reply))
            && let Ok(part) = answer.await
        {
            return Some(part);
        }
        // It settled in between.
        settled()
    }

    fn final_report(&self) -> Option<Report> {
        let parts = self.state.lock();
        (parts.open == 0).then(|| self.report_of(&parts.settled))
    }

    fn report_of(&self, parts: &[Option<Part>]) -> Report {
        let directory = self.shared.directory();
        let mut latency = Histogram::new();
        // One allocation: a filter does not know how many it lets through, the fan-out does.
        let mut found: Vec<Found> = Vec::with_capacity(self.state.targets);
        let kept = lock(&self.state.results);
        for (shard, part) in parts.iter().enumerate() {
            let Some(part) = part else { continue };
            latency.merge(&part.latency);
            let marks = (part.first.0..).zip(&part.marks).filter(|&(_, &mark)| mark != Mark::NOT_TARGETED.0);
            found.extend(marks.map(|(local, &mark)| {
                let place = Place { shard, local: DeviceIndex(local) };
                let (position, entry) = directory.holder(place, self.state.number);
                (position, DeviceResult::new(Mark(mark), entry), kept.get(&place).cloned())
            }));
        }
        drop(kept);
        if !found.is_sorted_by_key(|&(position, ..)| position) {
            found.sort_by_key(|&(position, ..)| position);
        }
        let devices = found.into_iter().map(|(_, device, result)| (device, result));
        Report::new(self.state.number, self.state.targets, devices, &latency)
    }
}

impl Drop for FanOut {
    fn drop(&mut self) {
        if self.state.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // The memory of a key holds the order's end for whoever pushes it again.
        if self.state.key != 0 {
            return;
        }
        for part in self.state.lock().settled.iter_mut().filter_map(Option::take) {
            self.shared.pools.recycle(part);
        }
    }
}

/// A device of a report: its position, how the order stands there, its result.
type Found = (u32, DeviceResult, Option<Arc<[u8]>>);

/// Counts a waiting handle for as long as it waits.
struct Watch<'a>(&'a AtomicUsize);

impl<'a> Watch<'a> {
    fn new(watchers: &'a AtomicUsize) -> Self {
        watchers.fetch_add(1, Ordering::SeqCst);
        Self(watchers)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_round_up_and_never_ask_for_more_than_there_are() {
        assert_eq!(Quorum::percent(95).of(10), 10);
        assert_eq!(Quorum::percent(50).of(3), 2);
        assert_eq!((Quorum::percent(0).of(7), Quorum::percent(255).of(7)), (0, 7));
        assert_eq!((Quorum::count(4).of(7), Quorum::count(8).of(7)), (4, 7));
    }
}
