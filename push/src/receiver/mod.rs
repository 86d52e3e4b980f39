//! The device's half of order push: it listens, serves one server at a time, and hands orders over one by one.
//!
//! [`Receiver`] is a state machine without sockets, clock, thread or allocation. Time comes in as an argument, bytes come
//! in from the driver and go out through the driver's scratch, and the only memory besides its own is what the caller hands
//! to [`Receiver::new`].
//!
//! # Shape
//!
//! ```text
//!                 handle_bytes ─▶ Input { consumed, item }
//!                                         │ Order     ─▶ Handler::handle ──▶ complete(ticket, verdict, result)
//!   poll_order ─▶ an order that waited ───┘                    │ Later ─▶ progress …, complete at any time
//!                                         │ Piece     ─▶ Handler::part ────▶ verified(ticket, matches) at the last one
//!                                         │ Question  ─▶ Handler::question ▶ reply(id, code, answer)
//!                                         │ Answer    ─▶ Handler::answer      to an earlier ask(…)
//!   poll_transmit ◀─ WELCOME, PONG, DRAIN, ACK │ results, progress, questions, answers │ OUTCOME
//! ```
//!
//! Each lane has one order at work. What comes behind it waits in the *park*; other lanes go on. Results, progress,
//! questions and answers wait in the *queue*. Both, like the ring of outcomes and the tables of keys, are memory the caller
//! gives ([`Storage`]): [`Firmware`] has neither park nor queue, and what would have to wait is answered BUSY.
//!
//! # Calling contract
//!
//! One input, then drain. After any `handle_…` call, [`Receiver::complete`], [`Receiver::ask`] and their like:
//!
//! 0. With a journal: [`Receiver::record`]. If it wrote something, offer unread bytes again and come back here after step 1.
//! 1. [`Receiver::poll_order`] until `None`: each order it gives is handled and completed like one that just came.
//! 2. [`Receiver::poll_transmit`] until `None`: write what it gives, report it with [`Receiver::handle_written`] before the
//!    next input. What is not reported as written has not left; a short count blocks the connection until
//!    [`Receiver::handle_writable`].
//! 3. [`Receiver::poll_close`] until `None`: close each connection it names. Until then keep it open: it has last words.
//! 4. [`Receiver::poll_event`] until `None`.
//! 5. Sleep until [`Receiver::poll_timeout`], then call [`Receiver::handle_timeout`]. Call that before reads too: a device
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
//! # What is remembered over a boot
//!
//! With a [`Journal`], read once with [`Receiver::replay`] before the first connection, floors, outcomes, keys and the fence
//! survive. Then an order that is not idempotent is handed over only when its START is synced: the bytes of such an order
//! are not used (0 bytes), and a waiting one does not come out of `poll_order`, until [`Receiver::record`] has written it.
//! Nothing that says how an order ended leaves before its END is synced. A journal that fails ends the session, and nobody
//! is served until it takes a write again. What is written, when, and to the byte: `docs/JOURNAL.md`.
//!
//! # What the server may rely on
//!
//! - Nothing is answered before a valid HELLO, and the answer is smaller than it.
//! - An order is handed over at most once per boot and lineage, each lane in log order, and only while its lifetime lasts:
//!   that is looked at when it starts, also after it waited. With a journal: once in all, unless it is idempotent and its
//!   end was not synced.
//! - Each order that arrived is owed one outcome, said in every session of its lineage until SETTLED covers it. In a new
//!   session everything owed is said again first, right behind the WELCOME. Outcomes of a lane are said in log order: one
//!   that ended early (cancelled, busy) is held until what came before it has ended.
//! - OUTCOME implies receipt. What has not ended when the device says something next, is acknowledged there.
//! - **What waits goes with its session.** Nothing that has not started survives it: the server sends it again, and may have
//!   ended it as cancelled or expired meanwhile. What is at work stays, its ticket too; the next WELCOME of its lineage
//!   lists it as started, it is not taken a second time, and its outcome is owed to that lineage alone. A large payload goes
//!   on from the piece where it stood.
//! - A supersede key remembers the newest version that *began*: an older one ends as SUPERSEDED, the same one too unless
//!   it ended without an effect. An order key that had an effect, or may have had one, is DUPLICATE under any other lineage,
//!   and BUSY while it is at work. Both tables forget the oldest when they are full.
//!
//! What the device relies on in turn: credit taken by an order whose outcome it owes comes back with SETTLED, so in a new
//! session SETTLED for what is settled already comes before the first ORDER. WELCOME states how many orders the ring can
//! still take. Numbers of a lane rise while any of its orders has not ended.
//!
//! # How it leaves
//!
//! [`Receiver::drain`] says DRAIN, lets in nobody new, ends what it has, then BYE DRAINING. [`Receiver::stop`] says BYE
//! after what has ended; with [`Receiver::stop_with`] it says that it restarts, and for how long. A server that takes the
//! store over is let in by its higher fence alone; its TAKEOVER is its own affair.

mod asks;
mod boot;
mod config;
mod conns;
mod ends;
mod fence;
mod flash;
mod floors;
mod handler;
mod input;
mod item;
pub mod journal;
mod keep;
mod keys;
mod lanes;
mod orders;
mod output;
mod park;
mod parts;
mod queue;
mod record;
mod ring;
pub(crate) mod sealed;
mod session;
mod stats;
mod storage;
#[cfg(test)]
mod tests;

use wire_format::frame::drain::Reason;
use wire_format::frame::{Bye, Drain, bye};
use wire_format::ids::{Lane, NodeId};
use wire_format::time::Instant;

pub use config::{
    ASKS_MAX, AT_WORK_RETRY, DEAD_AFTER, FAREWELL_WITHIN, FROZEN_AFTER, HEARTBEAT, HELLO_BYTES, HELLO_WITHIN,
    JOURNAL_RETRY, KEYS, LOGS, LOGS_FIRMWARE, MAX_BODY, PARK_BYTES, PARK_RETRY, PIECES, PROGRESS_EVERY,
    QUEUE_BYTES, ReceiverConfig, SCRATCH_MIN, SILENT_MAX, WINDOW_BYTES, WINDOW_ORDERS,
};
pub use fence::{Known, LEASE};
pub use flash::{FlashError, FlashJournal, FlashPages, FlashShape, PAGE_BYTES_MIN, PAGES_MAX, UNIT_MAX};
pub use floors::LogSlot;
pub use handler::{
    Answer, AnswerBuffer, AnswerCode, AskId, Delivered, Handler, Piece, Question, QuestionId, ResultBuffer,
    ResultFull, Ticket, Verdict,
};
pub use item::{AskError, Event, Input, Item, TooManyPeers, Transmit};
pub use journal::{Found, Journal, NoJournal, RECORD_MAX};
pub use keep::Cursor;
pub use keys::{KeySlot, VersionSlot};
pub use ring::OutcomeSlot;
pub use session::ConnId;
pub use stats::Stats;
#[cfg(feature = "tokio")]
pub use storage::Boxed;
pub use storage::{DeskSlot, Firmware, Fixed, Memory, Storage};

use fence::Fence;
use floors::Floors;
use keep::Keep;
use keys::Keys;
use lanes::LaneState;
use park::Park;
use queue::Queue;
use ring::Ring;
use session::{Conn, Session};
use stats::{Counts, DeskCounts, count};

/// How the device leaves.
#[derive(Debug)]
struct Farewell {
    /// Its last word.
    bye: Bye,
    /// What it announced before, if `by` says that it did.
    drain: Drain,
    /// When it leaves in any case; NEVER if it did not announce that.
    by: Instant,
}

/// A device: up to `CONNS` connections, of which one is served, over the memory in `S`.
///
/// `S` is a [`Fixed`] on firmware and a `Boxed` elsewhere. With 2 connections and [`Firmware`] (a window of 4 orders) a
/// receive buffer of 448 bytes and a scratch of [`SCRATCH_MIN`] a whole device stays under 2 KiB.
pub struct Receiver<S: Storage, const CONNS: usize = 4> {
    config: ReceiverConfig,
    conns: [Conn; CONNS],
    ring: Ring<S::Ring>,
    floors: Floors<S::Logs>,
    fence: Fence,
    session: Session,
    lanes: [LaneState; 4],
    keys: Keys<S::Keys, S::Versions>,
    park: Park<S::Park>,
    queue: Queue<S::Queue>,
    desk: S::Desk,
    /// Counts tickets.
    turns: u16,
    /// The lane whose order is with the handler now.
    at_hand: Option<Lane>,
    farewell: Farewell,
    polled: Instant,
    reported: Option<ConnId>,
    /// When the device began to stop; NEVER before.
    stopping: Instant,
    stats: Counts,
    keep: Keep,
}

const _: () = assert!(size_of::<Receiver<Firmware, 2>>() + HELLO_BYTES + SCRATCH_MIN <= 2_048);

impl<S: Storage, const CONNS: usize> core::fmt::Debug for Receiver<S, CONNS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut this = f.debug_struct("Receiver");
        this.field("id", &self.config.id).field("served", &self.session.conn).field("stats", &self.stats());
        this.finish_non_exhaustive()
    }
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// A device that knows no server yet. `storage` is overwritten; its ring bounds the window to half its slots (at
    /// least 2 slots are needed to serve at all). `CONNS` is 2 to 255: one to serve and one to be replaced by.
    #[must_use]
    pub fn new(config: ReceiverConfig, storage: S, now: Instant) -> Self {
        const { assert!(CONNS >= 2 && CONNS <= 255, "one connection to serve, one that replaces it") };
        let Memory { ring, logs, keys, versions, park, queue, mut desk } = storage.into_memory();
        let ring = Ring::new(ring);
        desk.as_mut().fill(DeskSlot::EMPTY);
        let config = config.clamped(ring.capacity());
        Self {
            fence: Fence::new(),
            conns: [Conn::FREE; CONNS],
            ring,
            floors: Floors::new(logs),
            session: Session::NONE,
            lanes: [LaneState::FREE; 4],
            keys: Keys::new(keys, versions),
            park: Park::new(park),
            queue: Queue::new(queue),
            desk,
            // So that no ticket of an earlier boot is taken for one of this.
            turns: u16::try_from(config.boot & u64::from(u16::MAX)).unwrap_or(0),
            at_hand: None,
            farewell: Farewell {
                bye: Bye { code: bye::Code::NORMAL, retry_after_ms: 0 },
                drain: Drain { reason: Reason::LEAVING, after_ms: 0 },
                by: Instant::NEVER,
            },
            polled: now,
            reported: None,
            stopping: Instant::NEVER,
            stats: Counts::default(),
            keep: Keep::NONE,
            config,
        }
    }

    /// What it says of itself, with every value clamped to its range, and `known` as it is now.
    #[must_use]
    pub const fn config(&self) -> &ReceiverConfig {
        &self.config
    }

    /// The fence accepted and who holds it.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        self.config.known.filter(|known| !known.server.is_none())
    }

    /// The server served now.
    #[must_use]
    pub fn served(&self) -> Option<NodeId> {
        self.session.conn.and_then(|_| self.known()).map(|known| known.server)
    }

    /// Orders received that the server has not confirmed the outcomes of.
    #[must_use]
    pub const fn owed(&self) -> usize {
        self.ring.live() as usize
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.stats, self.desk.as_ref().first().map(|desk| &desk.counts))
    }

    /// Counts something only a device with a desk counts.
    fn count_desk(&mut self, counter: impl FnOnce(&mut DeskCounts) -> &mut u32) {
        if let Some(desk) = self.desk.as_mut().first_mut() {
            count(counter(&mut desk.counts));
        }
    }

    fn id(&self, slot: usize) -> ConnId {
        let generation = self.conns.get(slot).map_or(0, |conn| conn.generation);
        ConnId::new(slot, generation)
    }

    /// The slot of a connection that is still known.
    fn slot(&self, conn: ConnId) -> Option<usize> {
        let slot = conn.index();
        let known = self.conns.get(slot)?;
        (known.generation == conn.generation && !known.is_free()).then_some(slot)
    }
}
