//! One connection: what it is doing, and the block of bytes it is writing.
//!
//! ```text
//!         handle_connected            HELLO passed, older session ─▶ replaced
//!   Free ─────────────────▶ Greeting ────────────────────────────────────────▶ Serving
//!    ▲                        │    │                                              │
//!    │                        │    └─ HELLO refused ─────▶ Parting ◀── broken, unexpected, too much, replaced, stopped
//!    │ poll_close             │                              │  REJECT or BYE written,
//!    │                        │ stranger, 3 s                │  or 1 s passed
//!    └──────── Closed ◀───────┴──────────────────────────────┘◀── BYE heard, 10 s of silence, frozen ─── Serving
//! ```
//!
//! From every state but Free, `handle_closed` leads to Free at once. Only one connection is Serving at a time.

use core::net::{IpAddr, Ipv4Addr};
use core::num::NonZeroU8;

use wire_format::frame::drain::Reason;
use wire_format::frame::{Bye, Drain, Reject, bye};
use wire_format::ids::{Lane, Lineage};
use wire_format::time::Instant;

use super::floors::{Log, Logs};
use super::output;
use crate::ended::Ended;

/// Names a connection of a [`super::Receiver`]; never given twice in a row for the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Its slot, counted from 1.
    place: NonZeroU8,
    pub(super) generation: u16,
}

impl ConnId {
    pub(super) fn new(slot: usize, generation: u16) -> Self {
        let place = u8::try_from(slot).unwrap_or(u8::MAX).saturating_add(1);
        Self { place: NonZeroU8::new(place).unwrap_or(NonZeroU8::MAX), generation }
    }

    /// The connection's slot, below CONNS: an index for a driver's own array.
    #[must_use]
    pub const fn index(self) -> usize {
        self.place.get() as usize - 1
    }
}

/// The session that was opened last; what it says of the logs stays valid after its connection is gone.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: Option<ConnId>,
    pub(super) logs: Logs,
    /// Counts the sessions of this boot.
    pub(super) number: u16,
    /// Orders the server may have unsettled.
    pub(super) window: u16,
    /// The server answers questions.
    pub(super) answers: bool,
    /// Largest body the server takes.
    pub(super) max_body: u32,
    pub(super) leaving: Leaving,
    /// This device's DRAIN is not in a block yet.
    pub(super) drain_due: bool,
    /// ACKs that are not in a block yet, as in [`Frames::acks`].
    pub(super) acks: u8,
    pub(super) phase: Phase,
    /// Why the one before it, or this one, ended.
    pub(super) why: Ended,
}

impl Session {
    pub(super) const NONE: Self = Self {
        conn: None,
        logs: Logs { volatile: None, durable: None },
        number: 0,
        window: 0,
        max_body: 0,
        answers: false,
        leaving: Leaving::No,
        drain_due: false,
        acks: 0,
        phase: Phase::Speaking(Answers::NONE),
        why: Ended::Stopped,
    };

    /// Entries the server takes in one OUTCOME frame.
    pub(super) fn piece(&self) -> u16 {
        output::entries_within(self.max_body)
    }

    /// What the block being written answers; nothing before the server has said something.
    pub(super) const fn answers_mut(&mut self) -> Option<&mut Answers> {
        if let Phase::Speaking(answers) = &mut self.phase { Some(answers) } else { None }
    }

    /// The same, to be read.
    pub(super) const fn answers(&self) -> Answers {
        if let Phase::Speaking(answers) = self.phase { answers } else { Answers::NONE }
    }

    /// What this lane received and did not end at once is to be said.
    pub(super) const fn owe_ack(&mut self, log: Log, lane: Lane) {
        self.acks |= ack_bit(log.is_durable(), lane);
    }

    /// The ACKs of one log that are due; the other log's stay due.
    pub(super) const fn take_acks(&mut self) -> u8 {
        let volatile = self.acks & 0x0F;
        let taken = if volatile != 0 { volatile } else { self.acks };
        self.acks &= !taken;
        taken
    }
}

/// Whether the server has said DRAIN: then it takes no questions any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// So it said, and nobody was told yet: the fields of a [`Drain`], which take less room here.
    Said {
        reason: Reason,
        after_ms: u32,
    },
    Told,
}

impl Leaving {
    pub(super) const fn said(drain: Drain) -> Self {
        let Drain { reason, after_ms } = drain;
        Self::Said { reason, after_ms }
    }

    /// What was said, once.
    pub(super) const fn take(&mut self) -> Option<Drain> {
        let Self::Said { reason, after_ms } = *self else { return None };
        *self = Self::Told;
        Some(Drain { reason, after_ms })
    }
}

/// What has to be remembered before the server has said something behind its HELLO, and what after that.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// The HELLO alone came, and this volatile log shall take the place of another one. It may have come late, from a run of the
    /// server that is over: then nothing follows it, and what is known of the run that is must not go.
    Replacing {
        lineage: Lineage,
        /// Its run, in eight bytes: so it fits where the answers will stand.
        run: [u8; 8],
    },
    Speaking(Answers),
}

/// What the block being written answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    /// Low bits of the numbers that its ACKs say.
    pub(super) acking: [u32; 4],
    /// The token that its PONG says.
    pub(super) ponging: u32,
}

impl Answers {
    pub(super) const NONE: Self = Self { acking: [0; 4], ponging: 0 };
}

/// The bit of a lane in [`Frames::acks`].
pub(super) const fn ack_bit(durable: bool, lane: Lane) -> u8 {
    (if durable { 0x10 } else { 0x01 }) << lane as u8
}

/// The states of the drawing above.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Free,
    Greeting,
    Serving(Live),
    /// Has its last frame to write, and why it ended.
    Parting(Words, Ended),
    Closed(Ended),
}

/// What only the served connection has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    /// The first `unread_len` of the unread bytes were there at `unread_at`.
    unread_at: Instant,
    unread_len: u32,
    /// The token of the PING to answer.
    pub(super) pong: Option<u32>,
    /// The WELCOME is not in a block yet.
    pub(super) welcome_due: bool,
}

impl Live {
    pub(super) const fn new(now: Instant) -> Self {
        Self { unread_at: now, unread_len: 0, pong: None, welcome_due: true }
    }

    /// When the first unread byte came, as far as known: what is offered now was there at the latest now.
    pub(super) const fn unread_since(&self, now: Instant) -> Instant {
        if self.unread_len > 0 { self.unread_at } else { now }
    }

    /// `consumed` of `offered` bytes were used.
    pub(super) fn note_unread(&mut self, now: Instant, offered: usize, consumed: usize) {
        let rest = u32::try_from(offered.saturating_sub(consumed)).unwrap_or(u32::MAX);
        let known = self.unread_len.saturating_sub(u32::try_from(consumed).unwrap_or(u32::MAX));
        if known == 0 {
            (self.unread_at, self.unread_len) = (now, rest);
        } else {
            self.unread_len = known;
        }
    }
}

/// The last frame of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Words {
    Reject(Reject),
    Bye(Bye),
}

/// The frames a block begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// WELCOME with the orders at work in these lanes, a bit for each.
    Welcome { started: u8 },
    /// What the session has to say between orders.
    Frames(Frames),
    /// The last words.
    Words,
}

/// Control frames, in the order in which they leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Frames {
    /// PONG with the token in [`Answers::ponging`].
    pub(super) pong: bool,
    pub(super) drain: bool,
    /// An ACK per bit: 4 lanes of the volatile log, or else 4 of the durable one. Their numbers are in
    /// [`Answers::acking`].
    pub(super) acks: u8,
}

/// Bytes that leave together: control frames, then whole frames of the queue, then OUTCOME frames. From the moment it is
/// composed its content is fixed by the state it is derived from, so that a write cut anywhere goes on with the next byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) control: Control,
    /// The outcomes are of the durable log.
    pub(super) durable: bool,
    /// The queue's bytes go out from where they are, behind the scratch, and no outcome with them.
    pub(super) direct: bool,
    pub(super) outcomes: u16,
    /// Bytes of the queue.
    pub(super) queued: u32,
    pub(super) len: u32,
    pub(super) written: u32,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    pub(super) state: State,
    /// When it connected (Greeting), was last heard (Serving), or began to part (Parting).
    pub(super) since: Instant,
    pub(super) block: Option<Block>,
    pub(super) peer: IpAddr,
    /// The transport takes nothing more until it says so.
    pub(super) blocked: bool,
    pub(super) generation: u16,
}

impl Conn {
    pub(super) const FREE: Self = Self {
        state: State::Free,
        since: Instant::ZERO,
        block: None,
        peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        blocked: false,
        generation: 0,
    };

    pub(super) const fn open(&mut self, now: Instant, peer: IpAddr) {
        let generation = self.generation.wrapping_add(1);
        *self = Self { state: State::Greeting, generation, since: now, peer, ..Self::FREE };
    }

    pub(super) const fn free(&mut self) {
        *self = Self { generation: self.generation, ..Self::FREE };
    }

    pub(super) const fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    /// Why it ended, once it has.
    pub(super) const fn why(&self) -> Option<Ended> {
        match self.state {
            State::Parting(_, why) | State::Closed(why) => Some(why),
            State::Free | State::Greeting | State::Serving(_) => None,
        }
    }

    pub(super) const fn live_mut(&mut self) -> Option<&mut Live> {
        if let State::Serving(live) = &mut self.state { Some(live) } else { None }
    }

    /// Ends without another byte.
    pub(super) const fn close(&mut self, why: Ended) {
        self.state = State::Closed(why);
        self.block = None;
    }

    /// Ends with last words; without them if a block was cut in the middle, because nothing can follow it.
    pub(super) fn part(&mut self, now: Instant, why: Ended, words: Words) {
        if self.block.is_some_and(|block| block.written > 0) {
            self.close(why);
            return;
        }
        self.state = State::Parting(words, why);
        self.since = now;
        self.block = None;
    }

    /// The WELCOME has not left as a whole.
    pub(super) fn is_welcoming(&self) -> bool {
        matches!(self.state, State::Serving(live) if live.welcome_due)
            || self.block.is_some_and(|block| matches!(block.control, Control::Welcome { .. }))
    }
}

/// A BYE as last words.
pub(super) const fn goodbye(code: bye::Code) -> Words {
    Words::Bye(Bye { code, retry_after_ms: 0 })
}
