//! What handles and shards share: numbers, mailboxes, the directory, room, and buffers that go round.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, oneshot};
use wire_format::ids::NodeId;

use super::ask::{AnswerTo, Flights, Inquiry, Reply, StatusTo};
use super::bell::Bell;
use super::directory::{Directory, Place, Share};
use super::error::{AddError, PushError};
use super::fan_out::{Ledger, Part, State};
use super::frame::{Frame, Frames};
use super::keys::Keys;
use super::rollout::Rollouts;
use super::room::{ResultRoom, Room};
use super::stream::Listener;
use super::versions::Versions;
use super::writer::{Batch, Job, Notes, Queue};
use super::{Device, Event, ServerConfig};
use crate::config::LogId;
use crate::driver::Clock;
use crate::fleet::{DeviceIndex, DeviceView, Question, Stats};
use crate::histogram::Histogram;
use crate::outbox;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) type NumberedOrder = crate::fleet::NewOrder<Frame, Ledger>;

/// Who says where a device listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The application: it is dialled at full pace.
    Operator,
    /// Whoever sends announces.
    Announce,
}

/// What a shard is told and asked.
pub(super) enum Message {
    Submit(NumberedOrder),
    /// Take this device in, at its position.
    Add(Device, u32, Word, oneshot::Sender<Result<(), AddError>>),
    SetAddress(u32, std::net::SocketAddr, Word),
    /// Take this device out.
    Remove(DeviceIndex),
    Cancel(u64),
    /// A further attempt of this shard's could not be kept: it is made later.
    NotKept(Box<NumberedOrder>),
    /// This batch of the shard's is in the log.
    Logged(Box<Batch>),
    /// Give up every order of the durable log, whose name changes for the so manieth time; tell when it is done.
    Abandon(u32, std::sync::mpsc::Sender<()>),
    /// The durable log goes on under this name, behind this number.
    Renew(Box<LogId>, u64),
    /// Tell each outcome of this order, those there are and those that come.
    Listen(Arc<State>, Listener),
    Marks(u64, oneshot::Sender<Part>),
    /// Who waits for this order, if it lives here.
    Find(u64, oneshot::Sender<Option<Arc<State>>>),
    /// The bytes of this order, if it lives here.
    Frame(u64, std::sync::mpsc::Sender<Frame>),
    /// Write the counters down where the handle reads them.
    Publish,
    View(DeviceIndex, oneshot::Sender<Option<DeviceView>>),
    /// The highest fence a device has named.
    FenceHeard(oneshot::Sender<u64>),
    /// This server takes the store over with this fence.
    TakeOver(u64),
    /// Ask a device, at most so long.
    Ask(u32, Box<Inquiry>, AnswerTo),
    /// Ask a device what became of orders.
    Status(u32, Vec<u64>, StatusTo),
    /// The answer to a device's question.
    Reply(Question, Arc<Reply>),
    /// Leave when what is out has ended, or after this time.
    Drain(Duration),
    Stop,
}

/// The way to one shard.
#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) messages: Mutex<VecDeque<Message>>,
    pub(super) bell: Bell,
    /// What the shard counted, as of the last [`Message::Publish`].
    pub(super) counted: Mutex<Counted>,
    /// Told when that was answered.
    pub(super) published: Notify,
}

/// What a shard counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// How often it was written down.
    pub(super) times: u64,
    pub(super) fleet: Stats,
    pub(super) latency: Histogram,
}

/// Numbers in log order. Whoever holds them puts messages into mailboxes in that order.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) next: u64,
    pub(super) stopped: bool,
    /// No order is accepted any more.
    pub(super) draining: bool,
}

/// Buffers that go round: after warm-up a push allocates no body, no marks, no histogram.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pub(super) frames: Frames,
    marks: Mutex<Vec<Vec<u8>>>,
    #[expect(clippy::vec_box, reason = "they move between pool, shard and handle: 8 bytes instead of 2 kB")]
    histograms: Mutex<Vec<Box<Histogram>>>,
}

/// Buffers of one sort that are kept for reuse.
const POOL_MAX: usize = 1_024;

impl Pools {
    fn take<T: Default>(pool: &Mutex<Vec<T>>) -> T {
        lock(pool).pop().unwrap_or_default()
    }

    fn put<T>(pool: &Mutex<Vec<T>>, item: T) {
        let mut pool = lock(pool);
        if pool.len() < POOL_MAX {
            pool.push(item);
        }
    }

    pub(super) fn take_marks(&self) -> Vec<u8> {
        Self::take(&self.marks)
    }

    pub(super) fn put_marks(&self, marks: Vec<u8>) {
        Self::put(&self.marks, marks);
    }

    pub(super) fn take_histogram(&self) -> Box<Histogram> {
        Self::take(&self.histograms)
    }

    pub(super) fn recycle(&self, part: Part) {
        let Part { marks, mut latency, .. } = part;
        latency.clear();
        Self::put(&self.marks, marks);
        Self::put(&self.histograms, latency);
    }

    pub(super) fn recycle_shares(&self, shares: Vec<Share>) {
        shares.into_iter().for_each(|share| self.put_marks(share.marks));
    }
}

/// What handles and shards share.
pub(super) struct Shared {
    pub(super) numbers: Mutex<Numbers>,
    /// The highest number given so far.
    head: AtomicU64,
    pub(super) mailboxes: Box<[Mailbox]>,
    directory: RwLock<Directory>,
    pub(super) pools: Pools,
    pub(super) room: Room,
    pub(super) keys: Keys,
    pub(super) flights: Flights,
    pub(super) versions: Versions,
    pub(super) rollouts: Rollouts,
    pub(super) results: Arc<ResultRoom>,
    pub(super) clock: Clock,
    pub(super) seed: u64,
    pub(super) devices_max: usize,
    pub(super) events: broadcast::Sender<Event>,
    /// The way to the thread that keeps durable orders, where there is one.
    pub(super) outbox: Option<Queue>,
    /// The highest number the outbox has kept: no device can honestly know a higher one of its log.
    kept: AtomicU64,
    pub(super) outbox_stats: Mutex<outbox::Stats>,
    /// Every durable order below this number is over.
    pub(super) lowest_kept: AtomicU64,
    /// Shards that run.
    running: AtomicUsize,
    /// Told once, when the last shard has ended.
    pub(super) ended: Notify,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("room", &self.room).finish_non_exhaustive()
    }
}

impl Shared {
    /// `kept`: with an outbox, whose highest number so far is this one.
    pub(super) fn new(config: &ServerConfig, shards: usize, kept: Option<u64>) -> Self {
        let (events, _) = broadcast::channel(super::EVENTS_MAX);
        let head = kept.unwrap_or(0);
        Self {
            numbers: Mutex::new(Numbers { next: head.saturating_add(1), stopped: false, draining: false }),
            head: AtomicU64::new(head),
            mailboxes: std::iter::repeat_with(Mailbox::default).take(shards).collect(),
            directory: RwLock::new(Directory::new(shards, config.devices)),
            pools: Pools::default(),
            room: Room::new(config.orders, config.bytes),
            keys: Keys::default(),
            flights: Flights::default(),
            versions: Versions::default(),
            rollouts: Rollouts::default(),
            results: Arc::default(),
            clock: Clock::start(),
            seed: config.seed,
            devices_max: config.devices,
            events,
            outbox: kept.map(|_| Queue::default()),
            kept: AtomicU64::new(head),
            outbox_stats: Mutex::default(),
            lowest_kept: AtomicU64::new(u64::MAX),
            running: AtomicUsize::new(shards),
            ended: Notify::new(),
        }
    }

    /// With a clock that was started before.
    pub(super) fn with_clock(self, clock: Clock) -> Self {
        let mut shared = self;
        shared.clock = clock;
        shared
    }

    pub(super) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Directory) -> T) -> T {
        change(&mut self.directory.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a shard has ended, and with it the server.
    pub(super) fn is_stopped(&self) -> bool {
        lock(&self.numbers).stopped
    }

    /// Whether it takes no order any more.
    pub(super) fn is_ending(&self) -> bool {
        let numbers = lock(&self.numbers);
        numbers.stopped || numbers.draining
    }

    /// A number that no order has.
    pub(super) fn take_number(&self) -> Result<u64, PushError> {
        let mut numbers = lock(&self.numbers);
        if numbers.stopped || numbers.draining {
            return Err(PushError::Stopped);
        }
        Ok(self.number(&mut numbers))
    }

    /// Numbers up to this one were taken by an earlier run.
    pub(super) fn skip_numbers(&self, number: u64) {
        let mut numbers = lock(&self.numbers);
        numbers.next = numbers.next.max(number.saturating_add(1));
        self.head.fetch_max(number, Ordering::Relaxed);
    }

    /// Whether the last shard has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    /// The highest number given so far: no device can honestly know a higher one.
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// The highest number the outbox has kept.
    pub(super) fn kept_head(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// The outbox has kept the order with this number.
    pub(super) fn note_kept(&self, number: u64) {
        self.kept.fetch_max(number, Ordering::AcqRel);
    }

    /// The next number; the caller holds `numbers` until its messages are in their mailboxes.
    pub(super) fn number(&self, numbers: &mut Numbers) -> u64 {
        let number = numbers.next;
        numbers.next += 1;
        self.head.store(number, Ordering::Relaxed);
        number
    }

    /// Puts a message into a mailbox; the bell is rung by the caller. Nobody reads it once the shard has ended.
    pub(super) fn put(&self, shard: usize, message: Message) {
        if let Some(mailbox) = self.mailboxes.get(shard) {
            lock(&mailbox.messages).push_back(message);
        }
    }

    pub(super) fn ring(&self, shard: usize) {
        if let Some(mailbox) = self.mailboxes.get(shard) {
            mailbox.bell.ring();
        }
    }

    /// Rings the bells of these shards, a bit each.
    pub(super) fn ring_all(&self, shards: u64) {
        (0..self.mailboxes.len()).filter(|shard| shards >> shard & 1 == 1).for_each(|shard| self.ring(shard));
    }

    /// Hands a message to a shard; false if the server has stopped.
    pub(super) fn send(&self, shard: usize, message: Message) -> bool {
        {
            let numbers = lock(&self.numbers);
            if numbers.stopped {
                return false;
            }
            self.put(shard, message);
        }
        self.ring(shard);
        true
    }

    /// Tells every shard to end, also those that come after one that has ended already.
    pub(super) fn tell_all(&self, message: impl Fn() -> Message) {
        for shard in 0..self.mailboxes.len() {
            self.put(shard, message());
            self.ring(shard);
        }
    }

    /// Asks every shard; fewer answers than shards if the server has stopped.
    pub(super) async fn ask_all<T>(&self, message: impl Fn(oneshot::Sender<T>) -> Message) -> Vec<T> {
        let mut answers = Vec::with_capacity(self.mailboxes.len());
        for shard in 0..self.mailboxes.len() {
            let (reply, answer) = oneshot::channel();
            if self.send(shard, message(reply)) {
                answers.push(answer);
            }
        }
        let mut given = Vec::with_capacity(answers.len());
        for answer in answers {
            given.extend(answer.await.ok());
        }
        given
    }

    /// Takes a device off the list and tells its shard; false if there is none at this position.
    ///
    /// Both happen under one lock: an order that was resolved before is in the mailbox before, so its mark never falls
    /// to a device that gets the same index later. With an outbox the order may still wait for the disk, and so does the
    /// removal, behind it.
    pub(super) fn remove(&self, position: u32) -> bool {
        let removed = self.update(|directory| {
            let place = directory.remove(position)?;
            let notes = self.rollouts.note_removed(position);
            if let Some(queue) = self.outbox.as_ref().filter(|_| !notes.is_empty()) {
                // A stopped server keeps no more, nor the removal.
                let _ = queue.put(Job::Notes(Notes::of_known(notes)));
            }
            let waits = self
                .outbox
                .as_ref()
                .is_some_and(|queue| queue.put(Job::Removed(position, Some(place))).is_ok());
            if !waits {
                directory.vacate(position, 0);
                self.put(place.shard, Message::Remove(place.local));
            }
            Some(place.shard)
        });
        removed.inspect(|&shard| self.ring(shard)).is_some()
    }

    /// What is known of the device at this position has changed: the outbox shall have it, unless it has.
    pub(super) fn record_device(&self, position: u32) {
        if let Some(queue) = &self.outbox
            && self.update(|directory| directory.note_changed(position))
        {
            // A stopped server keeps no more.
            let _ = queue.put(Job::Device(position));
        }
    }

    /// Cancels an order at all its shards; false if the server has stopped.
    pub(super) fn cancel(&self, state: &State) -> bool {
        let shards = (0..self.mailboxes.len()).filter(|&shard| state.goes_to(shard));
        let sent = shards.filter(|&shard| self.send(shard, Message::Cancel(state.number)));
        sent.count() == state.shards()
    }

    /// Who a device is, as far as that is known, and where.
    pub(super) fn known(&self, place: Place) -> Option<(Option<NodeId>, Option<std::net::SocketAddr>)> {
        let directory = self.directory();
        let (_, entry) = directory.holder(place, u64::MAX);
        entry.map(|entry| (entry.id, entry.address))
    }

    /// A shard has ended. The last one tells everybody who waits.
    pub(super) fn shard_ended(&self, shard: usize) {
        lock(&self.numbers).stopped = true;
        if let Some(mailbox) = self.mailboxes.get(shard) {
            // Whoever asked in the last moment learns from the dropped reply that there will be none.
            let unread = core::mem::take(&mut *lock(&mailbox.messages));
            drop(unread);
            mailbox.published.notify_waiters();
        }
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_waiters();
            self.room.freed().notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_stops_at_once_keeps_no_other_from_hearing_it() {
        let fleet = crate::config::FleetConfig::new(
            NodeId([1; 16]),
            wire_format::ids::Store::new(1, "PARIS-12").unwrap(),
            wire_format::ids::Lineage([2; 16]),
        );
        let conn = crate::driver::server::ConnConfig::default();
        let config = ServerConfig { fleet, conn, devices: 2, orders: 1, bytes: 1, seed: 0, shards: Some(2) };
        let shared = Shared::new(&config, 2, None);
        shared.shard_ended(0);
        assert!(!shared.send(1, Message::Stop), "no new work");
        shared.tell_all(|| Message::Stop);
        assert!(matches!(lock(&shared.mailboxes[1].messages).pop_front(), Some(Message::Stop)));
        assert!(shared.mailboxes[1].bell.heard());
    }
}
