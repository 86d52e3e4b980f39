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

use wire_format::frame::{Bye, Reject, bye};
use wire_format::time::Instant;

use crate::ended::Ended;

/// Names a connection of a [`super::Receiver`]; never given twice in a row for the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(super) slot: u8,
    pub(super) generation: u16,
}

impl ConnId {
    /// The connection's slot, below CONNS: an index for a driver's own array.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}

/// The states of the drawing above.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Free,
    Greeting,
    Serving(Live),
    /// Has its last frame to write.
    Parting(Words),
    Closed,
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

/// The frame a block begins with, if it is not only outcomes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    None,
    Welcome,
    Pong(u32),
    Words,
}

/// Bytes that leave together: one control frame, then OUTCOME frames. From the moment it is composed its content is fixed
/// by the state it is derived from, so that a write cut anywhere goes on with the next byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) control: Control,
    /// The outcomes are of the durable log.
    pub(super) durable: bool,
    pub(super) outcomes: u16,
    pub(super) len: u32,
    pub(super) written: u32,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    pub(super) state: State,
    /// Why it ended, once it is Parting or Closed.
    pub(super) why: Ended,
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
        why: Ended::Stopped,
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

    pub(super) const fn live_mut(&mut self) -> Option<&mut Live> {
        if let State::Serving(live) = &mut self.state { Some(live) } else { None }
    }

    /// Ends without another byte.
    pub(super) const fn close(&mut self, why: Ended) {
        self.state = State::Closed;
        self.why = why;
        self.block = None;
    }

    /// Ends with last words; without them if a block was cut in the middle, because nothing can follow it.
    pub(super) fn part(&mut self, now: Instant, why: Ended, words: Words) {
        if self.block.is_some_and(|block| block.written > 0) {
            self.close(why);
            return;
        }
        self.state = State::Parting(words);
        self.why = why;
        self.since = now;
        self.block = None;
    }

    /// The WELCOME has not left as a whole.
    pub(super) fn is_welcoming(&self) -> bool {
        matches!(self.state, State::Serving(live) if live.welcome_due)
            || self.block.is_some_and(|block| matches!(block.control, Control::Welcome))
    }
}

/// A BYE as last words.
pub(super) const fn goodbye(code: bye::Code) -> Words {
    Words::Bye(Bye { code, retry_after_ms: 0 })
}
