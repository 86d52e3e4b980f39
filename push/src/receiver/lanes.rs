//! The four lanes: what is at work in each, and how many wait behind it.
//!
//! ```text
//!            an order starts              complete, not Later
//!   free ────────────────────▶ at work ───────────────────────▶ free
//!    │  its START has to be recorded        ▲  it is
//!    ├────────────────────▶ beginning ──────┤
//!    │  a large one fetches its pieces      │  all pieces are there and right
//!    └────────────────────▶ fetching ───────┘──▶ free: cancelled, given up, session over
//! ```
//!
//! A lane takes one order at a time from both logs together; what comes meanwhile waits behind it.

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use super::floors::Log;
use super::handler::Ticket;
use super::ring::{Ending, Place};

/// An order is at work.
const AT_WORK: u8 = 0x01;
/// It fetches its pieces and has not started.
const FETCHING: u8 = 0x02;
/// It waits until the journal knows that it starts.
const BEGINNING: u8 = AT_WORK | FETCHING;
/// It may run twice.
const IDEMPOTENT: u8 = 0x04;
/// The server waits for its result.
const NEEDS_RESULT: u8 = 0x08;
/// Its lineage is gone: nobody waits for its outcome.
const ORPHAN: u8 = 0x10;
/// Some of the lane ended before an earlier one.
const HELD: u8 = 0x20;
/// It has ended, and that is to be noted when the WELCOME being written has left.
const PUT_OFF: u8 = 0x40;
/// It carries keys that are noted.
const KEYED: u8 = 0x80;

/// What belongs to an order at work, for its whole stay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traits {
    pub(super) idempotent: bool,
    pub(super) needs_result: bool,
    pub(super) keyed: bool,
}

/// How an order takes its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Fetching,
    Beginning,
    AtWork,
}

impl Stage {
    const fn flags(self) -> u8 {
        match self {
            Self::Fetching => FETCHING,
            Self::Beginning => BEGINNING,
            Self::AtWork => AT_WORK,
        }
    }
}

/// One lane: 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneState {
    /// Of the order at work, or the last one that was.
    number: u64,
    /// When it started, in milliseconds modulo 2^32; when to try again, once its end is put off.
    started_ms: u32,
    /// When PROGRESS was told last.
    told_ms: u32,
    turn: u16,
    /// Orders received and not ended, that at work included.
    pub(super) open: u16,
    log: Log,
    flags: u8,
    code: u8,
    detail: u8,
}

const _: () = assert!(size_of::<LaneState>() <= 24);

impl LaneState {
    pub(super) const FREE: Self = Self {
        number: 0,
        started_ms: 0,
        told_ms: 0,
        turn: 0,
        open: 0,
        log: Log(0),
        flags: 0,
        code: 0,
        detail: 0,
    };

    const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// An order is at work, waits for the journal, or fetches its pieces.
    pub(super) const fn is_busy(&self) -> bool {
        self.flags & BEGINNING != 0
    }

    /// An order has started and not ended, so that the server has to know.
    pub(super) const fn is_started(&self) -> bool {
        self.flags & (BEGINNING | ORPHAN | PUT_OFF) == AT_WORK
    }

    /// The same, whoever waits for its end.
    pub(super) const fn is_at_work(&self) -> bool {
        self.flags & BEGINNING == AT_WORK
    }

    pub(super) const fn is_fetching(&self) -> bool {
        self.flags & BEGINNING == FETCHING
    }

    pub(super) const fn is_beginning(&self) -> bool {
        self.has(BEGINNING)
    }

    /// It is busy with this order.
    pub(super) fn is_with(&self, log: Log, number: u64) -> bool {
        self.is_busy() && self.log == log && self.number == number
    }

    /// The journal knows that it starts: it is at work.
    pub(super) const fn begin(&mut self) {
        self.flags &= !FETCHING;
    }

    pub(super) const fn is_orphan(&self) -> bool {
        self.has(ORPHAN)
    }

    pub(super) const fn is_keyed(&self) -> bool {
        self.has(KEYED)
    }

    pub(super) const fn is_idempotent(&self) -> bool {
        self.has(IDEMPOTENT)
    }

    pub(super) const fn needs_result(&self) -> bool {
        self.has(NEEDS_RESULT)
    }

    pub(super) const fn has_held(&self) -> bool {
        self.has(HELD)
    }

    pub(super) const fn set_held(&mut self, held: bool) {
        self.flags = if held { self.flags | HELD } else { self.flags & !HELD };
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn log(&self) -> Log {
        self.log
    }

    pub(super) const fn started_ms(&self) -> u32 {
        self.started_ms
    }

    /// Whether `ticket` is of the order in this lane.
    pub(super) fn is_of(&self, ticket: &Ticket) -> bool {
        let is_in_its_log = self.log == ticket.log || self.is_orphan();
        self.is_busy() && self.turn == ticket.turn && self.number == ticket.number && is_in_its_log
    }

    /// An order takes the lane; the turn tells its ticket from every other.
    pub(super) fn occupy(
        &mut self,
        place: Place,
        now_ms: u32,
        stage: Stage,
        traits: Traits,
        turn: u16,
    ) -> Ticket {
        let Place { log, lane, number } = place;
        let flag = |flag, set: bool| if set { flag } else { 0 };
        self.turn = turn;
        self.flags = (self.flags & HELD)
            | stage.flags()
            | flag(IDEMPOTENT, traits.idempotent)
            | flag(NEEDS_RESULT, traits.needs_result)
            | flag(KEYED, traits.keyed);
        (self.number, self.log, self.started_ms) = (number, log, now_ms);
        // Its first word may be said at once.
        self.told_ms = now_ms.wrapping_sub(u32::MAX / 2);
        Ticket { number, log, lane, turn: self.turn }
    }

    pub(super) const fn ticket(&self, lane: Lane) -> Ticket {
        Ticket { number: self.number, log: self.log, lane, turn: self.turn }
    }

    pub(super) const fn free(&mut self) {
        self.flags &= HELD;
    }

    /// Nobody waits for the outcome of what is at work here any more: the caller takes it off `open`.
    pub(super) const fn disown(&mut self) {
        self.flags |= ORPHAN;
    }

    /// The same, and its lineage is not kept any more.
    pub(super) const fn lose_log(&mut self) {
        self.disown();
        self.log = Log::GONE;
        self.open = 0;
    }

    /// What waits goes with its session; what is at work stays.
    pub(super) fn end_session(&mut self) {
        if self.has(FETCHING) {
            self.free();
        }
        self.set_held(false);
        self.open = u16::from(self.has(AT_WORK) && !self.is_orphan());
    }

    /// Whether PROGRESS may be told now; then it was.
    pub(super) const fn may_tell(&mut self, now_ms: u32, every_ms: u32) -> bool {
        let due = now_ms.wrapping_sub(self.told_ms) >= every_ms;
        if due {
            self.told_ms = now_ms;
        }
        due
    }

    /// It ends, but that shall not show yet.
    pub(super) const fn put_off(&mut self, code: Code, detail: u8, retry: Option<u32>) {
        self.flags |= PUT_OFF;
        (self.code, self.detail) = (code.0, detail);
        if let Some(retry) = retry {
            self.started_ms = retry;
        }
    }

    pub(super) const fn is_put_off(&self) -> bool {
        self.has(AT_WORK | PUT_OFF)
    }

    /// The end that was put off.
    pub(super) const fn take_put_off(&mut self) -> Option<Ending> {
        if !self.is_put_off() {
            return None;
        }
        self.flags &= !PUT_OFF;
        Some(Ending { code: Code(self.code), detail: self.detail, ms: self.started_ms })
    }
}
