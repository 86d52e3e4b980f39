//! The task that owns the fleet and every socket.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::directory::Entry;
use super::fan_out::Ledger;
use super::sockets::{Look, Read, Sockets};
use super::{AddError, Device, Event, Message, ServerConfig, Shared, Snapshot, lock};
use crate::driver::{Clock, trace};
use crate::ended::Ended;
use crate::fleet::{
    Closed, DeviceIndex, DeviceSlot, DialError, Event as FleetEvent, Fleet, Input, NewDevice, OrderSlot,
    SubmitError,
};
use crate::histogram::Histogram;

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
/// How long a stopping server waits for its last bytes to leave.
const STOP_WITHIN: Duration = Duration::from_secs(2);

type ServerFleet = Fleet<Box<[DeviceSlot]>, Box<[OrderSlot<Vec<u8>, Ledger>]>, Vec<u8>, Ledger>;

pub(super) struct Shard {
    fleet: ServerFleet,
    sockets: Sockets,
    shared: Arc<Shared>,
    clock: Clock,
    messages: VecDeque<Message>,
    inbox: Box<[u8]>,
    scratch: Box<[u8]>,
    timer: Option<Pin<Box<Sleep>>>,
    latency: Box<Histogram>,
    connected: usize,
    stopping: Option<Instant>,
}

impl Shard {
    pub(super) fn new(config: ServerConfig, shared: Arc<Shared>) -> Self {
        let clock = Clock::start();
        let devices = (0..config.devices).map(|_| DeviceSlot::EMPTY).collect();
        let orders = (0..config.orders).map(|_| OrderSlot::EMPTY).collect();
        let fleet = Fleet::new(config.fleet, devices, orders, clock.now(), config.seed);
        Self {
            fleet,
            sockets: Sockets::new(config.conn, config.devices),
            shared,
            clock,
            messages: VecDeque::new(),
            inbox: vec![0; READ_MAX].into(),
            scratch: vec![0; SCRATCH_MAX].into(),
            timer: None,
            latency: Box::default(),
            connected: 0,
            stopping: None,
        }
    }

    pub(super) async fn run(mut self) {
        core::future::poll_fn(|cx| self.poll(cx)).await;
        let unread = {
            let mut outbox = lock(&self.shared.outbox);
            outbox.stopped = true;
            core::mem::take(&mut outbox.messages)
        };
        // Whoever asked in the last moment learns from the dropped reply that there will be none.
        drop(unread);
        self.shared.ended.notify_waiters();
    }

    /// One turn after the other until nothing is left to do; then the timer is set and the task sleeps.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.bell.register(cx.waker());
        for _ in 0..TURNS_PER_POLL {
            let now = self.clock.now();
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
    fn turn(&mut self, now: Instant, cx: &Context<'_>) -> bool {
        let mut busy = self.shared.bell.heard();
        busy |= self.take_messages(now);
        busy |= self.serve_ready(now, cx);
        self.fleet.handle_timeout(now);
        self.expire_dials(now);
        self.dial(now);
        busy |= self.transmit(now);
        self.drain();
        busy
    }

    fn take_messages(&mut self, now: Instant) -> bool {
        core::mem::swap(&mut lock(&self.shared.outbox).messages, &mut self.messages);
        let mut any = false;
        while let Some(message) = self.messages.pop_front() {
            any = true;
            self.take(now, message);
        }
        any
    }

    fn take(&mut self, now: Instant, message: Message) {
        match message {
            Message::Submit(order) => {
                if let Err(SubmitError { order, .. }) = self.fleet.submit(now, order) {
                    self.unsubmitted(order);
                }
            }
            Message::Add(device, reply) => drop(reply.send(self.add(now, device))),
            Message::SetAddress(index, address) => {
                self.shared
                    .update(|directory| directory.update(index, |entry| entry.address = Some(address)));
                self.fleet.set_address(now, index, address);
            }
            Message::Marks(number, reply) => self.reply_marks(number, reply),
            Message::Stats(reply) => drop(reply.send(Box::new(self.snapshot()))),
            Message::Stop => {
                self.stopping.get_or_insert(now);
                self.fleet.stop(now);
            }
        }
        self.drain();
    }

    /// The handle reserved a place and resolved real devices, so only a stop between the two leads here.
    fn unsubmitted(&self, order: super::NumberedOrder) {
        self.shared.release(order.frame.len());
        self.shared.pools.recycle_frame(order.frame);
        let Ledger { marks, latency, state } = order.marks;
        state.settle(marks, latency);
    }

    fn add(&mut self, now: Instant, device: Device) -> Result<DeviceIndex, AddError> {
        let capacity = self.shared.devices_max;
        let new = NewDevice { id: device.id, address: Some(device.address) };
        let index = self.fleet.add_device(now, new).map_err(|_| AddError::Full { capacity })?;
        let entry = Entry {
            id: device.id,
            address: Some(device.address),
            kind: device.kind,
            zone: device.zone,
            tags: device.tags,
            connected: false,
        };
        self.shared.update(|directory| directory.set(index, entry));
        self.sockets.add(index);
        Ok(index)
    }

    fn reply_marks(&self, number: u64, reply: oneshot::Sender<(Vec<u8>, Histogram)>) {
        if let Some(ledger) = self.fleet.ledger(number) {
            drop(reply.send((ledger.marks.clone(), (*ledger.latency).clone())));
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            fleet: self.fleet.stats().clone(),
            devices: self.sockets.len(),
            connected: self.connected,
            live_orders: self.shared.live_orders.load(core::sync::atomic::Ordering::Relaxed),
            latency: (*self.latency).clone(),
        }
    }

    fn serve_ready(&mut self, now: Instant, cx: &Context<'_>) -> bool {
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
        self.drain();
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

    /// Hands the first `len` bytes of the inbox to the core, frame by frame. False if the session ended over it.
    fn digest(&mut self, now: Instant, device: DeviceIndex, len: usize) -> bool {
        let mut at = 0;
        while let Some(bytes @ [_, ..]) = self.inbox.get(at..len) {
            match self.fleet.handle_bytes(now, device, bytes) {
                Ok(Input { consumed: 0, .. }) => break,
                Ok(input) => at += input.consumed,
                Err(_) => {
                    self.drain();
                    return false;
                }
            }
            self.drain_events();
        }
        if let Some(rest) = self.inbox.get(at..len) {
            self.sockets.keep(device, rest);
        }
        true
    }

    fn closed(&mut self, now: Instant, device: DeviceIndex, how: Closed) {
        self.sockets.close(device);
        self.fleet.handle_closed(now, device, how);
    }

    fn dial_failed(&mut self, now: Instant, device: DeviceIndex, error: DialError) {
        self.sockets.close(device);
        let (id, address) = self.known(device).unwrap_or_default();
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

    fn drain(&mut self) {
        while let Some((device, _)) = self.fleet.poll_close() {
            self.sockets.close(device);
        }
        self.drain_events();
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.fleet.poll_event() {
            match event {
                FleetEvent::Outcome { number, latency, .. } => {
                    self.latency.record(latency);
                    if let Some(ledger) = self.fleet.ledger_mut(number) {
                        ledger.latency.record(latency);
                    }
                }
                FleetEvent::Attempt { device, number, code, .. } => {
                    let _ = self.fleet.resolve(self.clock.now(), number, device, code);
                }
                // This driver asks nothing, so nothing stays unanswered.
                FleetEvent::Fenced { .. } | FleetEvent::Unanswered { .. } => {}
                FleetEvent::Settled { number, frame, marks, .. } => {
                    trace::order_settled(number);
                    self.shared.release(frame.len());
                    self.shared.pools.recycle_frame(frame);
                    let Ledger { marks, latency, state } = marks;
                    state.settle(marks, latency);
                }
                FleetEvent::Learned { device, id } => {
                    self.shared.update(|directory| directory.update(device, |entry| entry.id = Some(id)));
                }
                FleetEvent::Connected { device, facts, rebooted } => {
                    self.connected += 1;
                    self.shared.update(|directory| {
                        directory.update(device, |entry| {
                            entry.id = Some(facts.id);
                            entry.kind = facts.kind;
                            entry.zone = facts.zone;
                            entry.tags = facts.tags;
                            entry.connected = true;
                        });
                    });
                    self.announce(device, |id, address| {
                        trace::session_opened(facts.id, address, rebooted);
                        Some(Event::Connected { id: id?, address: address?, rebooted })
                    });
                }
                FleetEvent::Disconnected { device, why } => self.disconnected(device, why),
            }
        }
    }

    fn disconnected(&mut self, device: DeviceIndex, why: Ended) {
        let mut was_connected = false;
        self.shared.update(|directory| {
            directory.update(device, |entry| was_connected = core::mem::take(&mut entry.connected));
        });
        self.connected -= usize::from(was_connected);
        self.announce(device, |id, address| {
            trace::session_ended(id, address, why, was_connected);
            Some(Event::Disconnected { id, address, why })
        });
    }

    fn announce(
        &self,
        device: DeviceIndex,
        event: impl FnOnce(Option<NodeId>, Option<SocketAddr>) -> Option<Event>,
    ) {
        if let Some(event) = self.known(device).and_then(|(id, address)| event(id, address)) {
            // Nobody listening is not an error.
            let _ = self.shared.events.send(event);
        }
    }

    /// Who a device is, as far as that is known, and where.
    fn known(&self, device: DeviceIndex) -> Option<(Option<NodeId>, Option<SocketAddr>)> {
        self.shared.directory().entries().get(device.0 as usize).map(|entry| (entry.id, entry.address))
    }

    /// Whether a stop has come to its end: every BYE written, or no more patience.
    fn stopped(&self, now: Instant) -> bool {
        self.stopping.is_some_and(|since| self.fleet.is_stopped() || now.since(since) > STOP_WITHIN)
    }

    /// Sets the timer to the next thing that is due. False if that is now.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let dial = self.sockets.poll_timeout();
        let stop = self.stopping.map(|since| since + STOP_WITHIN);
        let Some(due) = [self.fleet.poll_timeout(), dial, stop].into_iter().flatten().min() else {
            return true;
        };
        let at = self.clock.tokio(due);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_pending()
    }
}
