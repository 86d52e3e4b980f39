//! The device's half of order push: it listens, serves one server at a time, and hands orders over one by one.
//!
//! [`Receiver`] is a state machine without sockets, clock, thread or allocation. Time comes in as an argument, bytes come
//! in from the driver and go out through the driver's scratch, and the only memory besides its own is the outcome ring
//! the caller hands to [`Receiver::new`].
//!
//! # Calling contract
//!
//! One input, then drain. After any `handle_…` call, [`Receiver::complete`] or [`Receiver::stop`]:
//!
//! 1. [`Receiver::poll_transmit`] until `None`: write what it gives, report it with [`Receiver::handle_written`] before the
//!    next input. What is not reported as written has not left; a short count blocks the connection until
//!    [`Receiver::handle_writable`].
//! 2. [`Receiver::poll_close`] until `None`: close each connection it names. Until then keep it open: it has last words.
//! 3. [`Receiver::poll_event`] until `None`.
//! 4. Sleep until [`Receiver::poll_timeout`], then call [`Receiver::handle_timeout`]. Call that before reads too: a device
//!    that stood still ends its sessions there, and what waits unread must not be applied.
//!
//! Bytes are offered with [`Receiver::handle_bytes`], always from the first unread one, and at most one frame is used per
//! call. An order in the answer goes to the [`Handler`], its ticket to [`Receiver::complete`]; until then no call uses any
//! bytes. Orders may be taken one after the other before draining: their outcomes then leave in one frame. When 0 bytes
//! are used, offer them again together with more, and after the next drain.
//!
//! ```
//! use core::time::Duration;
//! use push::receiver::{Firmware, Handler, Receiver, ReceiverConfig, Verdict};
//! use wire_format::ids::{NodeId, Store};
//! use wire_format::time::Instant;
//!
//! let config = ReceiverConfig::new(NodeId([7; 16]), Store::new(1, "PARIS-12")?, 0x5EED);
//! let mut receiver: Receiver<_, 2> = Receiver::new(config, Firmware::new(), Instant::ZERO);
//! let mut handler = |_: &push::receiver::Delivered<'_>| Verdict::Applied;
//!
//! let now = Instant::from_millis(5);
//! let peer = "192.0.2.1:40000".parse()?;
//! let conn = receiver.handle_connected(now, peer).expect("a slot is free");
//! let mut unread: &[u8] = b"GET / HTTP/1.1\r\n"; // what the socket gave
//! while let Ok(input) = receiver.handle_bytes(now, conn, unread) {
//!     unread = &unread[input.consumed..];
//!     let Some(order) = input.order() else { break };
//!     let verdict = handler.handle(&order);
//!     receiver.complete(now, order.ticket, verdict, None);
//! }
//! // A stranger gets no answer; the connection closes.
//! assert!(receiver.poll_transmit(now, &mut [0; 1_024]).is_none());
//! assert_eq!(receiver.poll_close().map(|(closed, _)| closed), Some(conn));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # What the server may rely on
//!
//! - Nothing is answered before a valid HELLO, and the answer is smaller than it.
//! - An order is handed over at most once per boot and lineage, each lane in log order, and only while its lifetime lasts.
//! - Each order that was handed over, or expired here, is owed one outcome, said in every session of its lineage until
//!   SETTLED covers it. In a new session everything owed is said again first, right behind the WELCOME.
//! - OUTCOME implies receipt. This version ends an order before it reads the next frame, so an ACK would say nothing: none
//!   is sent.
//!
//! What the device relies on in turn: credit taken by an order whose outcome it owes comes back with SETTLED, so in a new
//! session SETTLED for what is settled already comes before the first ORDER. WELCOME states how many orders the ring can
//! still take.
//!
//! PART, CANCEL, ASK, REPLY and STATUS belong to features this version does not declare (WELCOME says 0); a server that
//! sends one gets BYE "unknown kind".

mod config;
mod fence;
mod floors;
mod handler;
mod input;
mod keys;
mod output;
mod ring;
mod session;
mod stats;
mod storage;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use wire_format::frame::Drain;
use wire_format::frame::hello::Hello;
use wire_format::frame::outcome::Code;
use wire_format::ids::{NodeId, OrderKind};
use wire_format::time::Instant;

pub use config::{
    ASKS_MAX, DEAD_AFTER, FAREWELL_WITHIN, FROZEN_AFTER, HEARTBEAT, HELLO_BYTES, HELLO_WITHIN, KEYS,
    MAX_BODY, PARK_BYTES, QUEUE_BYTES, ReceiverConfig, SCRATCH_MIN, SILENT_MAX, WINDOW_BYTES, WINDOW_ORDERS,
};
pub use fence::{Known, LEASE};
pub use handler::{
    Answer, AnswerBuffer, AnswerCode, AskId, Delivered, Handler, Piece, Question, QuestionId, ResultBuffer,
    ResultFull, Ticket, Verdict,
};
pub use keys::{KeySlot, VersionSlot};
pub use ring::OutcomeSlot;
pub use session::ConnId;
pub use stats::Stats;
#[cfg(feature = "tokio")]
pub use storage::Boxed;
pub use storage::{Firmware, Fixed, Memory, Storage};

use crate::ended::{Closed, Ended};
use fence::Fence;
use floors::{Floors, Logs};
use ring::{Ending, Ring};
use session::{Conn, Live, State};
use stats::{add, count};

/// Every slot is in use by a session or by strangers that came within the last [`SILENT_MAX`]: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every slot for connections is in use")]
pub struct TooManyPeers;

/// What came of the bytes offered.
#[derive(Debug)]
pub struct Input<'a> {
    /// Bytes used, from the first: one frame, or 0 if the frame is not whole or has to wait.
    pub consumed: usize,
    /// What the frame brought for the application, if anything.
    pub item: Option<Item<'a>>,
}

impl<'a> Input<'a> {
    const NOTHING: Self = Self { consumed: 0, item: None };

    const fn used(consumed: usize) -> Self {
        Self { consumed, item: None }
    }

    /// The order to apply now, for devices that take nothing else.
    #[must_use]
    pub fn order(self) -> Option<Delivered<'a>> {
        if let Some(Item::Order(order)) = self.item { Some(order) } else { None }
    }
}

/// What a frame of the server brings for the application.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// An order to apply now, to be answered with [`Receiver::complete`] before anything else is handed over.
    Order(Delivered<'a>),
    /// A question, to be answered with [`Receiver::reply`] at any time.
    Question(Question<'a>),
    /// The answer to a question of this device.
    Answer(Answer<'a>),
    /// A piece of the payload of a large order: keep it, or end the order with [`Receiver::complete`].
    Piece(Piece<'a>),
}

/// Why a question of this device was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No server is served now, or one of the two leaves.
    #[error("no server is there to answer")]
    NotServed,
    /// The server declared that it answers no questions.
    #[error("the server answers no questions")]
    NotAnswered,
    /// [`ASKS_MAX`] questions are open.
    #[error("{ASKS_MAX} questions are open")]
    TooMany,
    /// No room for its frame until others have left.
    #[error("no room for the question")]
    NoRoom,
    /// More than 4,096 bytes, more than the server takes, or a kind of 0.
    #[error("the question cannot be sent")]
    Invalid,
}

/// Bytes to write to one connection, `head` first. They are one write; `body` is empty in this version.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub conn: ConnId,
    /// The first bytes.
    pub head: &'a [u8],
    /// The bytes after them.
    pub body: &'a [u8],
}

/// What the application may want to know. Derived from state: if nobody polls, only the latest is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A server is served now.
    Served {
        /// Its connection.
        conn: ConnId,
        /// Where it dialled from.
        peer: IpAddr,
        /// Who it is, and its fence: worth persisting for [`ReceiverConfig::known`].
        known: Known,
    },
    /// The server said that it will leave.
    Leaving(Drain),
    /// The session is over.
    Unserved {
        /// Why.
        why: Ended,
    },
    /// A question of this device will not be answered any more: its time is over, or its session.
    Unanswered {
        /// Which.
        ask: AskId,
    },
}

/// The session that was opened last; what it says of the logs stays valid after its connection is gone.
#[derive(Debug)]
struct Session {
    conn: Option<ConnId>,
    logs: Logs,
    /// Orders the server may have unsettled.
    window: u16,
    /// Entries the server takes in one OUTCOME frame.
    piece: u16,
    drain: Option<Drain>,
    /// Why the one before it, or this one, ended.
    why: Ended,
}

/// The order that was handed over and not completed.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    received: Instant,
}

/// A device: up to `CONNS` connections, of which one is served, over the memory in `S`.
///
/// `S` is a [`Fixed`] on firmware and a `Boxed` elsewhere. With 2 connections and [`Firmware`] (a window of 4 orders) a
/// receive buffer of 448 bytes and a scratch of [`SCRATCH_MIN`] a whole device stays under 2 KiB.
pub struct Receiver<S: Storage, const CONNS: usize = 4> {
    config: ReceiverConfig,
    conns: [Conn; CONNS],
    ring: Ring<S::Ring>,
    floors: Floors,
    fence: Fence,
    session: Session,
    pending: Option<Pending>,
    polled: Instant,
    reported: Option<ConnId>,
    /// When the device began to stop; NEVER before.
    stopping: Instant,
    stats: Stats,
}

const _: () = assert!(size_of::<Receiver<Firmware, 2>>() + HELLO_BYTES + SCRATCH_MIN <= 2_048);

impl<S: Storage, const CONNS: usize> core::fmt::Debug for Receiver<S, CONNS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut this = f.debug_struct("Receiver");
        this.field("id", &self.config.id).field("served", &self.session.conn).field("stats", &self.stats);
        this.finish_non_exhaustive()
    }
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// A device that knows no server yet. `storage` is overwritten; its ring bounds the window to half its slots (at
    /// least 2 slots are needed to serve at all). `CONNS` is 2 to 255: one to serve and one to be replaced by.
    #[must_use]
    pub fn new(config: ReceiverConfig, storage: S, now: Instant) -> Self {
        const { assert!(CONNS >= 2 && CONNS <= 255, "one connection to serve, one that replaces it") };
        let Memory { ring, .. } = storage.into_memory();
        let ring = Ring::new(ring);
        let config = config.clamped(ring.capacity());
        Self {
            fence: Fence::new(config.known),
            config,
            conns: [Conn::FREE; CONNS],
            ring,
            floors: Floors::new(),
            session: Session {
                conn: None,
                logs: Logs::default(),
                window: 0,
                piece: 1,
                drain: None,
                why: Ended::Stopped,
            },
            pending: None,
            polled: now,
            reported: None,
            stopping: Instant::NEVER,
            stats: Stats::default(),
        }
    }

    /// What it says of itself, with every value clamped to its range.
    #[must_use]
    pub const fn config(&self) -> &ReceiverConfig {
        &self.config
    }

    /// The fence accepted and who holds it.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        self.fence.known()
    }

    /// The server served now.
    #[must_use]
    pub fn served(&self) -> Option<NodeId> {
        self.session.conn.and_then(|_| self.known()).map(|known| known.server)
    }

    /// Outcomes the server has not confirmed yet.
    #[must_use]
    pub const fn owed(&self) -> usize {
        self.ring.live() as usize
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Somebody connected. If this fails, close it: nobody is told why.
    pub fn handle_connected(&mut self, now: Instant, peer: SocketAddr) -> Result<ConnId, TooManyPeers> {
        self.touch(now);
        let free = self.conns.iter().position(Conn::is_free);
        let Some(slot) = free.filter(|_| !self.is_stopping()) else {
            self.evict(now);
            count(&mut self.stats.too_many_peers);
            return Err(TooManyPeers);
        };
        count(&mut self.stats.connections);
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.open(now, peer.ip());
        }
        Ok(self.id(slot))
    }

    /// The connection is gone; it will not be named again. An order handed over from it may still be completed.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        self.touch(now);
        let Some(slot) = self.slot(conn) else { return };
        self.close(slot, Ended::Closed(Closed::Eof));
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.free();
        }
    }

    /// The connection takes bytes again.
    pub fn handle_writable(&mut self, now: Instant, conn: ConnId) {
        self.touch(now);
        if let Some(conn) = self.slot(conn).and_then(|slot| self.conns.get_mut(slot)) {
            conn.blocked = false;
        }
    }

    /// How the order of `ticket` ended. The outcome is kept until the server has confirmed it; `result` travels ahead of
    /// it if the server asked for one.
    pub fn complete(&mut self, now: Instant, ticket: Ticket, verdict: Verdict, result: Option<&[u8]>) {
        let _ = result;
        if verdict != Verdict::Later && self.pending.as_ref().is_some_and(|pending| pending.ticket == ticket)
        {
            let since = self.pending.take().map_or(now, |pending| pending.received);
            let (code, detail) = verdict.code();
            let elapsed = verdict
                .retry_after_ms()
                .map_or_else(|| now.since(since), |ms| Duration::from_millis(ms.into()));
            self.end_order(&ticket, code, detail, elapsed);
        }
        // Only now: an effect that took too long still has its outcome, in the next session.
        self.touch(now);
    }

    /// An order that waited for its lane and may start now: to be called until `None` in every drain. It is answered with
    /// [`Receiver::complete`] like one from [`Receiver::handle_bytes`]; what it borrows is good until the next call.
    pub fn poll_order(&mut self, now: Instant) -> Option<Delivered<'_>> {
        self.touch(now);
        None
    }

    /// Says how far the order of `ticket` is, at most twice a second: tells the server that it is not stuck. `false` if
    /// it was not said: too soon after the last, not at work, no session, or no room.
    pub fn progress(&mut self, now: Instant, ticket: Ticket, per_mille: u16, phase: u16) -> bool {
        self.touch(now);
        let _ = (ticket, per_mille, phase);
        false
    }

    /// Asks the server something, at most [`ASKS_MAX`] questions at a time. Its answer comes as [`Item::Answer`], or
    /// [`Event::Unanswered`] says why none came.
    pub fn ask(
        &mut self,
        now: Instant,
        kind: OrderKind,
        schema: u16,
        within: Duration,
        payload: &[u8],
    ) -> Result<AskId, AskError> {
        self.touch(now);
        let _ = (kind, schema, within, payload);
        Err(AskError::NotAnswered)
    }

    /// Answers a question of the server's. `false` if its session is over or there is no room.
    pub fn reply(
        &mut self,
        now: Instant,
        id: QuestionId,
        code: AnswerCode,
        answer: &AnswerBuffer<'_>,
    ) -> bool {
        self.touch(now);
        let _ = (id, code, answer);
        false
    }

    /// The digest of a payload that came in pieces was compared, after the last [`Piece`]. If it is wrong the pieces are
    /// fetched once more, and the second time the order ends as REJECTED_PAYLOAD; otherwise [`Receiver::poll_order`]
    /// hands it over.
    pub fn verified(&mut self, now: Instant, ticket: Ticket, matches: bool) {
        self.touch(now);
        let _ = (ticket, matches);
    }

    /// Time has come, or bytes are about to be read.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.touch(now);
        for slot in 0..CONNS {
            if self.deadline(slot).is_some_and(|due| due <= now) {
                self.expire(slot);
            }
        }
    }

    /// When [`Receiver::handle_timeout`] is due at the latest; `None` if no connection is open.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = (0..CONNS).filter_map(|slot| self.deadline(slot)).min()?;
        Some(due.min(self.polled + HEARTBEAT))
    }

    /// A connection to close now, and why it ended.
    pub fn poll_close(&mut self) -> Option<(ConnId, Ended)> {
        let slot = self.conns.iter().position(|conn| matches!(conn.state, State::Closed))?;
        let id = self.id(slot);
        let conn = self.conns.get_mut(slot)?;
        let why = conn.why;
        conn.free();
        Some((id, why))
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.reported != self.session.conn {
            if self.reported.take().is_some() {
                return Some(Event::Unserved { why: self.session.why });
            }
            let conn = self.session.conn?;
            let peer = self.slot(conn).and_then(|slot| self.conns.get(slot)).map(|conn| conn.peer)?;
            let known = self.known()?;
            self.reported = Some(conn);
            return Some(Event::Served { conn, peer, known });
        }
        self.session.drain.take().map(Event::Leaving)
    }

    /// The device leaves: strangers are dropped, the server gets the outcomes that are ready and a BYE.
    pub fn stop(&mut self, now: Instant) {
        self.touch(now);
        self.stopping = self.stopping.min(now);
        for slot in 0..CONNS {
            if self.conns.get(slot).is_some_and(|conn| matches!(conn.state, State::Greeting)) {
                self.close(slot, Ended::Stopped);
            }
        }
    }

    /// After [`Receiver::stop`]: every connection is gone.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopping() && self.conns.iter().all(Conn::is_free)
    }

    fn is_stopping(&self) -> bool {
        self.stopping != Instant::NEVER
    }

    /// Every input comes through here: a gap in time too long for anything unread to be fresh ends all sessions.
    fn touch(&mut self, now: Instant) {
        let gap = now.since(self.polled);
        self.polled = self.polled.max(now);
        if gap > FROZEN_AFTER {
            for slot in 0..CONNS {
                self.close(slot, Ended::Frozen);
            }
        }
    }

    /// Makes room for the next newcomer if a stranger only holds its slot.
    fn evict(&mut self, now: Instant) {
        let strangers =
            self.conns.iter().enumerate().filter(|(_, conn)| matches!(conn.state, State::Greeting));
        let oldest = strangers.min_by_key(|(_, conn)| conn.since).map(|(slot, conn)| (slot, conn.since));
        if let Some((slot, since)) = oldest
            && now.since(since) >= SILENT_MAX
        {
            count(&mut self.stats.evicted);
            self.close(slot, Ended::HandshakeTimeout);
        }
    }

    fn deadline(&self, slot: usize) -> Option<Instant> {
        let conn = self.conns.get(slot)?;
        match conn.state {
            State::Greeting => Some(conn.since + HELLO_WITHIN),
            State::Serving(_) => Some((conn.since + DEAD_AFTER).min(self.stopping + FAREWELL_WITHIN)),
            State::Parting(_) => Some(conn.since.min(self.stopping) + FAREWELL_WITHIN),
            State::Free | State::Closed => None,
        }
    }

    fn expire(&mut self, slot: usize) {
        let Some((state, why)) = self.conns.get(slot).map(|conn| (conn.state, conn.why)) else { return };
        match state {
            State::Greeting => {
                count(&mut self.stats.hello_timeouts);
                self.close(slot, Ended::HandshakeTimeout);
            }
            State::Serving(_) if self.is_stopping() => self.close(slot, Ended::Stopped),
            State::Serving(_) => self.close(slot, Ended::Dead),
            State::Parting(_) => self.close(slot, why),
            State::Free | State::Closed => {}
        }
    }

    /// Ends a connection without another byte, unless it has ended before.
    fn close(&mut self, slot: usize, why: Ended) {
        self.leave(slot, why);
        if let Some(conn) = self.conns.get_mut(slot) {
            match conn.state {
                State::Greeting | State::Serving(_) => conn.close(why),
                State::Parting(_) => conn.close(conn.why),
                State::Free | State::Closed => {}
            }
        }
    }

    /// If this connection is served, it is so no longer.
    fn leave(&mut self, slot: usize, why: Ended) {
        if self.session.conn != Some(self.id(slot)) {
            return;
        }
        self.session.conn = None;
        self.session.why = why;
        self.session.drain = None;
        self.ring.drop_block();
        let stats = &mut self.stats;
        match why {
            Ended::Broken(_) => count(&mut stats.broken),
            Ended::Unexpected(_) => count(&mut stats.unexpected),
            Ended::WindowExceeded => count(&mut stats.window_exceeded),
            Ended::Replaced => count(&mut stats.replaced),
            Ended::Dead => count(&mut stats.dead),
            Ended::Frozen => count(&mut stats.frozen),
            Ended::Bye { .. } => count(&mut stats.byes),
            _ => count(&mut stats.closed),
        }
    }

    /// A HELLO that passed opens its session in the place of any other.
    fn open(&mut self, now: Instant, slot: usize, hello: &Hello) {
        if let Some(old) = self.session.conn.and_then(|conn| self.slot(conn)) {
            self.part(now, old, Ended::Replaced, session::goodbye(wire_format::frame::bye::Code::REPLACED));
        }
        self.fence.accept(now, hello);
        let (floors, ring) = (&mut self.floors, &mut self.ring);
        let mut forgotten = 0_u16;
        let logs = floors.open(hello, |log| forgotten = forgotten.saturating_add(ring.forget(log)));
        ring.rewind();
        let room = ring.capacity().saturating_sub(ring.live());
        let window = room.min(self.config.window_orders).max(1);
        let piece = output::entries_within(hello.max_body);
        let (conn, why) = (Some(self.id(slot)), self.session.why);
        self.session = Session { conn, logs, window, piece, drain: None, why };
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.state = State::Serving(Live::new(now));
            conn.since = now;
        }
        add(&mut self.stats.forgotten, forgotten.into());
        count(&mut self.stats.sessions);
    }

    /// Ends a connection with last words.
    fn part(&mut self, now: Instant, slot: usize, why: Ended, words: session::Words) {
        self.leave(slot, why);
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.part(now, why, words);
        }
    }

    /// An order has its end: the outcome is owed, and the floor of its lane rises.
    fn end_order(&mut self, ticket: &Ticket, code: Code, detail: u8, elapsed: Duration) {
        let elapsed_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        let (log, lane, number) = (ticket.log, ticket.lane, ticket.number);
        // There is room: it was made sure of before the order was taken, and only orders take any.
        self.ring.push(Ending { log, lane, number, code, detail, elapsed_ms });
        self.floors.raise(&self.session.logs, log, lane, number);
    }

    fn id(&self, slot: usize) -> ConnId {
        let generation = self.conns.get(slot).map_or(0, |conn| conn.generation);
        ConnId { slot: u8::try_from(slot).unwrap_or(u8::MAX), generation }
    }

    /// The slot of a connection that is still known.
    fn slot(&self, conn: ConnId) -> Option<usize> {
        let slot = conn.index();
        let known = self.conns.get(slot)?;
        (known.generation == conn.generation && !known.is_free()).then_some(slot)
    }
}
