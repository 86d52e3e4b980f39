//! One of the tasks that serve devices: its share of them, their fleet and every socket of theirs.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;
use wire_format::frame::outcome::Code;
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::ServerConfig;
use super::addition::Addition;
use super::ask::Waiting;
use super::directory::Place;
use super::fan_out::{Ledger, Part};
use super::frame::Frame;
use super::logging::Logging;
use super::positions::Positions;
use super::retry::{Chain, RETRIES_MAX, Retries};
use super::shared::{Mailbox, Message, NumberedOrder, Shared, Word, lock};
use super::sockets::{Look, Read, Sockets};
use super::tables::Tables;
use crate::config::{DRAIN_WITHIN_MAX, FleetConfig};
use crate::driver::{Clock, trace};
use crate::fleet::{
    AskId, Closed, DeviceIndex, DeviceTrace, DialError, Fleet, Input, NewDevice, OrderSlot, SubmitError,
    SubmitFault, Submitted,
};
use crate::histogram::Histogram;
use crate::mark::Mark;

/// Bytes read from a socket at once.
const READ_MAX: usize = 64 << 10;
/// Bytes of small orders gathered into one write.
const SCRATCH_MAX: usize = 64 << 10;
/// Reads from one socket before the others get their turn: a peer that never stops sending delays nobody.
const READS_PER_TURN: usize = 4;
/// Writes before reads get their turn.
const WRITES_PER_TURN: usize = 256;
/// Turns before other tasks of the runtime get theirs.
const TURNS_PER_POLL: usize = 16;
/// The fleet's timers are for seconds: what is due in the same span of this length is done in one go, because a PING that
/// has the task woken for itself costs twice as much as an order. Shorter than what dials may catch up (10 ms).
const GRAIN: Duration = Duration::from_micros(8_192);
/// Time after which no further turn begins: on a runtime whose threads all serve flooded shards, others wait this long.
const POLL_WITHIN: Duration = Duration::from_millis(2);
/// How long a stopping server waits for its last bytes to leave.
const STOP_WITHIN: Duration = Duration::from_secs(2);

type ServerFleet = Fleet<Tables, Box<[OrderSlot<Frame, Ledger>]>, Frame, Ledger>;

pub(super) struct Shard {
    pub(super) index: usize,
    pub(super) fleet: ServerFleet,
    /// Where its devices stand in the directory, by their index.
    pub(super) positions: Vec<u32>,
    pub(super) sockets: Sockets,
    /// Devices that are listed again before they were taken out: at most as many as are listed.
    pub(super) additions: Vec<Addition>,
    pub(super) shared: Arc<Shared>,
    clock: Clock,
    messages: VecDeque<Message>,
    inbox: Box<[u8]>,
    scratch: Box<[u8]>,
    timer: Option<Pin<Box<Sleep>>>,
    pub(super) latency: Box<Histogram>,
    /// A device that was refused as soon as it had said who it is: its session is not told.
    pub(super) refused: Option<DeviceIndex>,
    pub(super) retries: Retries,
    pub(super) logging: Logging,
    /// Who waits for the answers of devices.
    pub(super) asked: HashMap<AskId, Waiting>,
    stopping: Option<Instant>,
}

/// One shard's part of what the server as a whole may do.
fn paced(config: &FleetConfig, shards: usize) -> FleetConfig {
    let parts = u32::try_from(shards).unwrap_or(u32::MAX);
    let part = |whole: u32| whole.div_ceil(parts).max(1);
    FleetConfig {
        dials_per_s: part(config.dials_per_s),
        announced_dials_per_s: part(config.announced_dials_per_s),
        half_open_max: part(config.half_open_max),
        strangers_max: part(config.strangers_max),
        ..config.clone()
    }
}

/// The end of the span of [`GRAIN`] that `due` is in.
fn grained(due: Instant) -> Instant {
    let grain = u64::try_from(GRAIN.as_micros()).unwrap_or(1);
    Instant::from_micros(due.as_micros().div_ceil(grain).saturating_mul(grain))
}

impl Shard {
    /// The shards of a server. Boxed: 28 kB each would travel through the stack of whoever starts it, several times.
    pub(super) fn all(config: &ServerConfig, shared: &Arc<Shared>) -> Vec<Box<Self>> {
        let shards = shared.mailboxes.len();
        (0..shards).map(|index| Box::new(Self::new(config, index, Arc::clone(shared)))).collect()
    }

    fn new(config: &ServerConfig, index: usize, shared: Arc<Shared>) -> Self {
        let (clock, shards) = (Clock::start(), shared.mailboxes.len());
        let capacity = config.devices.div_ceil(shards);
        let logs = if config.fleet.durable.is_some() { 2 } else { 1 };
        let devices = Tables::new(capacity, capacity.saturating_mul(logs));
        let orders = (0..config.orders.saturating_add(RETRIES_MAX)).map(|_| OrderSlot::EMPTY).collect();
        let seed = config.seed.wrapping_add(index as u64);
        let fleet = Fleet::new(paced(&config.fleet, shards), devices, orders, clock.now(), seed);
        Self {
            index,
            fleet,
            positions: Vec::with_capacity(capacity),
            sockets: Sockets::new(config.conn, capacity),
            additions: Vec::new(),
            shared,
            clock,
            messages: VecDeque::new(),
            inbox: vec![0; READ_MAX].into(),
            scratch: vec![0; SCRATCH_MAX].into(),
            timer: None,
            latency: Box::default(),
            refused: None,
            retries: Retries::default(),
            logging: Logging::default(),
            asked: HashMap::new(),
            stopping: None,
        }
    }

    pub(super) async fn run(mut self: Box<Self>) {
        core::future::poll_fn(|cx| self.poll(cx)).await;
        // What has ended shall not be forgotten: the outbox is closed after the last shard.
        self.hand_over_all();
        self.shared.shard_ended(self.index);
    }

    /// The positions of the devices an order is for.
    pub(super) fn positions(&self, first: DeviceIndex, marks: &[u8]) -> Positions {
        let meant = (first.0..).zip(marks).filter(|&(_, &mark)| mark != Mark::NOT_TARGETED.0);
        let position = |(local, _)| self.positions.get(local as usize).copied();
        meant.filter_map(position).collect()
    }

    /// Where a device of this shard is served.
    pub(super) const fn place(&self, local: DeviceIndex) -> Place {
        Place { shard: self.index, local }
    }

    /// The time, on this shard's clock.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    fn mailbox(&self) -> Option<&Mailbox> {
        self.shared.mailboxes.get(self.index)
    }

    /// One turn after the other until nothing is left to do; then the timer is set and the task sleeps.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(mailbox) = self.mailbox() {
            mailbox.bell.register(cx.waker());
        }
        let began = self.clock.now();
        for _ in 0..TURNS_PER_POLL {
            let now = self.clock.now();
            if now.since(began) > POLL_WITHIN {
                break;
            }
            let busy = self.turn(now, cx);
            if self.stopped(now) {
                return Poll::Ready(());
            }
            if !busy && self.sleep(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Everything that is due now, in bounded amounts. True if there may be more at once.
    fn turn(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut busy = self.mailbox().is_some_and(|mailbox| mailbox.bell.heard());
        self.fleet.note_head(false, self.shared.head());
        self.fleet.note_head(true, self.shared.kept_head());
        busy |= self.take_messages(now);
        busy |= self.serve_ready(now, cx);
        self.fleet.handle_timeout(now);
        self.expire_dials(now);
        self.dial(now);
        busy |= self.retry(now);
        busy |= self.transmit(now);
        self.drain(now);
        // What waited for events to be taken can be written now.
        busy |= !self.fleet.is_idle(now);
        self.hand_over_log(now, busy);
        busy
    }

    fn take_messages(&mut self, now: Instant) -> bool {
        if let Some(mailbox) = self.shared.mailboxes.get(self.index) {
            core::mem::swap(&mut *lock(&mailbox.messages), &mut self.messages);
        }
        let mut any = false;
        while let Some(message) = self.messages.pop_front() {
            any = true;
            self.take(now, message);
        }
        any
    }

    fn take(&mut self, now: Instant, message: Message) {
        match message {
            Message::Submit(order) => self.submit(now, order),
            Message::Add(device, position, word, reply) => {
                self.take_in(now, Addition { device, position, word, reply });
            }
            Message::SetAddress(position, address, word) => self.set_address(now, position, address, word),
            Message::Remove(local) => self.remove(now, local),
            Message::Cancel(number) => self.cancel(now, number),
            Message::Logged(batch) => self.logged(now, batch),
            Message::Abandon(renewals, done) => self.abandon(now, renewals, &done),
            Message::Renew(log, head) => self.renew(now, *log, head),
            Message::NotKept(order) => self.attempt_not_kept(now, *order),
            Message::Listen(state, listener) => self.listen(&state, listener),
            Message::Marks(number, reply) => self.reply_marks(number, reply),
            Message::Find(number, reply) => {
                let first = self.fleet.ledger(number).filter(|ledger| ledger.chain.is_none());
                drop(reply.send(first.map(|ledger| Arc::clone(&ledger.state))));
            }
            Message::Frame(number, reply) => {
                // Who asks needs one, of whatever shard.
                let _ = self.fleet.frame(number).map(|frame| reply.send(frame.clone()));
            }
            Message::Publish => self.publish(),
            Message::View(local, reply) => drop(reply.send(self.fleet.view(local))),
            Message::FenceHeard(reply) => drop(reply.send(self.fence_heard())),
            Message::TakeOver(fence) => self.take_over(now, fence),
            Message::Ask(position, inquiry, to) => self.ask(now, position, &inquiry, to),
            Message::Status(position, numbers, to) => self.ask_status(now, position, &numbers, to),
            Message::Reply(question, reply) => self.reply(now, &question, &reply),
            Message::Drain(within) => {
                self.stopping.get_or_insert_with(|| now + within.min(DRAIN_WITHIN_MAX));
                self.fleet.drain(now, within);
            }
            Message::Stop => {
                self.stopping = Some(now);
                self.fleet.stop(now);
            }
        }
        self.drain(now);
    }

    fn submit(&mut self, now: Instant, mut order: NumberedOrder) {
        let (number, chain) = (order.number, order.marks.chain);
        if chain.is_none() {
            order.marks.deadline = order.lifetime.map_or(Instant::NEVER, |lifetime| now + lifetime);
        }
        use SubmitFault::{KeyLane, ShorterLife, VersionNotRising};
        let submitted = match self.fleet.submit(now, order) {
            // A version that waited for the disk comes after a newer one that did not: the device sees to it.
            Err(SubmitError { why: VersionNotRising { .. } | KeyLane { .. } | ShorterLife, order })
                if order.marks.state.durable =>
            {
                self.fleet.restore(now, order)
            }
            submitted => submitted,
        };
        match submitted {
            Ok(Submitted { refused: 0, .. }) => {}
            Ok(_) => self.count_refused(now, number, chain),
            Err(SubmitError { order, .. }) => self.unsubmitted(now, order),
        }
    }

    /// What ended at submit makes no event.
    fn count_refused(&mut self, now: Instant, number: u64, chain: Option<Chain>) {
        let Some((first, marks)) = self.fleet.marks(number) else { return };
        let refused = (first.0..).zip(marks).filter_map(|(local, &mark)| Some((local, Mark(mark).code()?)));
        let refused: Vec<_> = refused.collect();
        for (local, code) in refused {
            match (chain, self.fleet.ledger(number)) {
                (Some(chain), _) => {
                    self.attempt_outcome(now, (number, chain), DeviceIndex(local), code);
                    self.drain_events(now);
                }
                (None, Some(ledger)) => ledger.state.count(code),
                (None, None) => {}
            }
        }
    }

    /// The handle reserved a place, resolved real devices and checked the rest, so only a stop between the two leads here,
    /// or an attempt that cannot be made.
    fn unsubmitted(&mut self, now: Instant, order: NumberedOrder) {
        let NumberedOrder { number, first, frame, marks: ledger, .. } = order;
        // What is in the outbox goes on when the server is started again.
        let goes_on = ledger.state.durable && self.stopping.is_some();
        if let Some(chain) = ledger.chain.filter(|_| !goes_on) {
            for (local, &mark) in (first.0..).zip(&ledger.marks) {
                if mark == Mark::PENDING.0 {
                    self.fleet.resolve(now, chain.root, DeviceIndex(local), Code::BUSY);
                    self.drain_events(now);
                }
            }
        }
        self.settled(number, first, frame, ledger);
    }

    /// Takes in a device of an earlier run. It is not dialled before [`Shard::restore_address`].
    pub(super) fn restore_device(&mut self, position: u32, id: Option<NodeId>, trace: DeviceTrace) {
        let now = self.clock.now();
        let Ok(local) = self.fleet.add_device(now, NewDevice { id, address: None }) else { return };
        debug_assert_eq!(local.0 as usize, self.positions.len(), "nothing was removed yet");
        self.positions.push(position);
        self.sockets.add(local);
        self.fleet.restore_device(local, trace);
    }

    /// Where a device of an earlier run listens.
    pub(super) fn restore_address(&mut self, local: DeviceIndex, address: std::net::SocketAddr, word: Word) {
        self.address(self.clock.now(), local, address, word);
    }

    /// A device of an earlier run is gone, and orders name it.
    pub(super) fn restore_removed(&mut self, local: DeviceIndex) {
        let now = self.clock.now();
        self.fleet.remove_device(now, local);
        self.drain_events(now);
    }

    /// Takes in an order of an earlier run.
    pub(super) fn restore_order(&mut self, mut order: NumberedOrder) {
        let now = self.clock.now();
        let number = order.number;
        order.marks.deadline = order.lifetime.map_or(Instant::NEVER, |lifetime| now + lifetime);
        if let Some(chain) = order.marks.chain {
            self.attempt_begins(chain, number);
        }
        let open = order.marks.marks.iter().any(|&mark| mark != 0 && !Mark(mark).is_final());
        // What is over here already settles without the fleet.
        let over =
            if open { self.fleet.restore(now, order).err().map(|error| error.order) } else { Some(order) };
        if let Some(order) = over {
            self.unsubmitted(now, order);
        }
        self.drain_events(now);
    }

    /// Cancels an order of an earlier run once more.
    pub(super) fn restore_cancel(&mut self, number: u64) {
        self.cancel(self.clock.now(), number);
    }

    fn set_address(&mut self, now: Instant, position: u32, address: std::net::SocketAddr, word: Word) {
        // Another shard's by now, if it was removed and its position given again.
        let Some((_, Some(local))) =
            self.shared.directory().place(position).filter(|&(shard, _)| shard == self.index)
        else {
            return;
        };
        let place = self.place(local);
        self.shared.update(|directory| directory.update(place, |entry| entry.address = Some(address)));
        if word == Word::Operator {
            self.shared.record_device(position);
        }
        self.address(now, local, address, word);
    }

    pub(super) fn address(
        &mut self,
        now: Instant,
        local: DeviceIndex,
        address: std::net::SocketAddr,
        word: Word,
    ) {
        match word {
            Word::Operator => self.fleet.set_address(now, local, address),
            Word::Announce => self.fleet.announce_address(now, local, address),
        }
    }

    fn reply_marks(&self, number: u64, reply: oneshot::Sender<Part>) {
        if let (Some((first, _)), Some(ledger)) = (self.fleet.marks(number), self.fleet.ledger(number)) {
            let part = Part { first, marks: ledger.marks.clone(), latency: ledger.latency.clone() };
            drop(reply.send(part));
        }
    }

    fn serve_ready(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let any = self.sockets.poll_ready(cx);
        while let Some((device, look)) = self.sockets.next_ready() {
            self.serve(now, device, look);
        }
        any
    }

    fn serve(&mut self, now: Instant, device: DeviceIndex, look: Look) {
        match look {
            Look::Nothing => {}
            Look::Dialled(Ok(())) => {
                self.fleet.handle_connected(now, device);
                self.read(now, device);
            }
            Look::Dialled(Err(error)) => self.dial_failed(now, device, error),
            Look::Open { writable } => {
                if writable {
                    self.fleet.handle_writable(now, device);
                }
                self.read(now, device);
            }
        }
        self.drain(now);
    }

    /// Reads until the socket is empty, or its turn is over; the tail of a cut frame waits in the connection. Whoever fills
    /// the inbox has had its turn: a device that is well sends a hundredth of that.
    fn read(&mut self, now: Instant, device: DeviceIndex) {
        for _ in 0..READS_PER_TURN {
            let read = self.sockets.read(device, &mut self.inbox);
            match read {
                Read::Empty => return,
                Read::Bytes(len) | Read::Full(len) => {
                    if !self.digest(now, device, len) {
                        return;
                    }
                }
                Read::End(how) => return self.closed(now, device, how),
            }
            if matches!(read, Read::Full(_)) {
                break;
            }
        }
        self.sockets.relist(device);
    }

    /// Hands the first `len` bytes of the inbox to the core. False if the session ended over it.
    fn digest(&mut self, now: Instant, device: DeviceIndex, len: usize) -> bool {
        // What a device says is borrowed from it while the rest of the shard acts on it.
        let inbox = core::mem::take(&mut self.inbox);
        let goes_on = self.digest_frames(now, device, inbox.get(..len).unwrap_or_default());
        self.inbox = inbox;
        goes_on
    }

    /// Frame by frame.
    fn digest_frames(&mut self, now: Instant, device: DeviceIndex, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.fleet.handle_bytes(now, device, bytes) {
                Ok(Input { consumed: 0, .. }) => break,
                Ok(Input { consumed, item }) => {
                    bytes = bytes.get(consumed..).unwrap_or_default();
                    if let Some(item) = item {
                        self.hear(now, device, item);
                    }
                }
                Err(_) => {
                    self.drain(now);
                    return false;
                }
            }
            self.drain_events(now);
        }
        if !bytes.is_empty() {
            self.sockets.keep(device, bytes);
        }
        true
    }

    fn closed(&mut self, now: Instant, device: DeviceIndex, how: Closed) {
        self.sockets.close(device);
        self.fleet.handle_closed(now, device, how);
    }

    fn dial_failed(&mut self, now: Instant, device: DeviceIndex, error: DialError) {
        self.sockets.close(device);
        let (id, address) = self.shared.known(self.place(device)).unwrap_or_default();
        trace::dial_failed(id, address, error);
        self.fleet.handle_dial_failed(now, device, error);
    }

    fn dial(&mut self, now: Instant) {
        while let Some(dial) = self.fleet.poll_dial(now) {
            if let Err(error) = self.sockets.dial(now, dial.device, dial.address) {
                self.dial_failed(now, dial.device, error);
            }
        }
    }

    fn expire_dials(&mut self, now: Instant) {
        while let Some(device) = self.sockets.poll_expired(now) {
            self.dial_failed(now, device, DialError::TimedOut);
        }
    }

    /// Writes what is planned, at most a turn's worth. True if more is planned.
    fn transmit(&mut self, now: Instant) -> bool {
        for _ in 0..WRITES_PER_TURN {
            let Some(transmit) = self.fleet.poll_transmit(now, &mut self.scratch) else { return false };
            let device = transmit.device;
            match self.sockets.write(device, transmit.head, transmit.body) {
                Ok(written) => self.fleet.handle_written(now, device, written),
                Err(_) => self.closed(now, device, Closed::Reset),
            }
        }
        true
    }

    fn drain(&mut self, now: Instant) {
        while let Some((device, _)) = self.fleet.poll_close() {
            self.sockets.close(device);
        }
        self.drain_events(now);
    }

    /// Whether a stop has come to its end: every BYE written, or no more patience.
    fn stopped(&self, now: Instant) -> bool {
        self.stopping.is_some_and(|since| self.fleet.is_stopped() || now.since(since) > STOP_WITHIN)
    }

    /// Sets the timer to the next thing that is due, or leaves it at an earlier time: setting it forward and back with
    /// every order costs a system call each, a look for nothing now and then does not. False if something is due now, or
    /// the time of such a look has come.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let dial = self.sockets.poll_timeout();
        let stop = self.stopping.map(|since| since + STOP_WITHIN);
        let retry = self.retries.poll_timeout();
        let fleet = self.fleet.poll_timeout().map(grained);
        let log = self.logging.poll_timeout(false);
        let Some(due) = [fleet, dial, retry, stop, log].into_iter().flatten().min() else {
            return true;
        };
        let at = self.clock.tokio(due);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() > at || timer.is_elapsed() {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_pending()
    }
}
