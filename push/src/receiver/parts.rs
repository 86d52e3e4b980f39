//! The payload of a large order, fetched in pieces before the order starts.
//!
//! ```text
//!   ORDER with PARTS ──▶ fetching ── WANT ─▶ pieces in order ──▶ checking ──▶ whole ──▶ the order starts
//!                           ▲                                       │ digest wrong: once more from 0
//!                           └── session over: kept, goes on from where it stood └─────▶ REJECTED_PAYLOAD
//! ```
//!
//! The core keeps no byte of a payload and computes no digest: pieces are handed out as they come, and the driver says at
//! the end whether the digest is right.

use wire_format::error::ParseError;
use wire_format::frame::order::{Order, OrderOption, options};
use wire_format::frame::outcome::Code;
use wire_format::frame::part::{self, PIECE_MAX};
use wire_format::frame::want::{self, Want};
use wire_format::frame::{Part, Raw, header};
use wire_format::splitter::{Split, split};
use wire_format::time::Instant;

use super::config::PIECES;
use super::handler::{Piece, Ticket};
use super::input::Step;
use super::item::Item;
use super::ring::Place;
use super::stats::count;
use super::{Receiver, Storage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was begun, or it is of no use any more.
    None,
    Fetching,
    /// Its session is over; it goes on when the order comes again.
    Paused,
    /// Every piece came; the driver compares the digest.
    Checking,
    /// It is right.
    Whole,
}

/// The one payload a device fetches at a time: 48 bytes.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    place: Place,
    blob: u64,
    size: u32,
    /// Bytes that came.
    offset: u32,
    /// Bytes asked for so far, from the start.
    asked: u32,
    /// The turn of its ticket, the same in every session.
    turn: Option<u16>,
    state: State,
    again: bool,
    want_due: bool,
}

impl Blob {
    pub(super) const NONE: Self = Self {
        place: Place { log: super::floors::Log(0), lane: wire_format::ids::Lane::Bulk, number: 0 },
        blob: 0,
        size: 0,
        offset: 0,
        asked: 0,
        turn: None,
        state: State::None,
        again: false,
        want_due: false,
    };

    /// Whether the payload of this order is here and right.
    pub(super) fn is_whole(&self, place: Place) -> bool {
        self.state == State::Whole && self.place == place
    }

    /// The turn this order's ticket had before.
    pub(super) fn turn_of(&self, place: Place) -> Option<u16> {
        self.turn.filter(|_| self.place == place && self.state != State::None)
    }

    /// Begins to fetch, or goes on where it stood. The ticket comes with [`Blob::set_turn`].
    pub(super) fn fetch(&mut self, place: Place, blob: u64, size: u32) {
        let known = self.place == place && self.blob == blob && self.size == size;
        if !known || self.state == State::None || self.offset >= self.size {
            let turn = self.turn_of(place);
            *self = Self { place, blob, size, turn, ..Self::NONE };
        }
        self.state = State::Fetching;
        (self.asked, self.want_due) = (self.offset, true);
    }

    pub(super) const fn set_turn(&mut self, turn: u16) {
        self.turn = Some(turn);
    }

    /// The order has started, or ended without: what came is of no use for another one.
    pub(super) fn forget(&mut self, place: Place) {
        if self.place == place {
            *self = Self::NONE;
        }
    }

    /// The session is over.
    pub(super) fn pause(&mut self) {
        if matches!(self.state, State::Fetching | State::Checking) {
            self.state = State::Paused;
        }
    }

    /// The lineage behind a log is gone.
    pub(super) fn disown(&mut self, log: super::floors::Log) {
        if self.place.log == log {
            *self = Self::NONE;
        }
    }

    /// Whether a piece is the next one that was asked for.
    fn fits(&self, part: &Part<'_>) -> bool {
        let end = part.offset.saturating_add(u32::try_from(part.bytes.len()).unwrap_or(u32::MAX));
        self.state == State::Fetching
            && part.blob == self.blob
            && part.offset == self.offset
            && end <= self.size
            && end <= self.asked
            && (part.more == (end < self.size))
            && (part.bytes.len() == PIECE_MAX || end == self.size)
    }
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    pub(super) fn blob(&self) -> Option<&Blob> {
        self.desk.as_ref().first().map(|desk| &desk.blob)
    }

    pub(super) fn blob_mut(&mut self) -> Option<&mut Blob> {
        self.desk.as_mut().first_mut().map(|desk| &mut desk.blob)
    }

    /// What came of an order's payload is of no use any more.
    pub(super) fn forget_blob(&mut self, place: Place) {
        if let Some(blob) = self.blob_mut() {
            blob.forget(place);
        }
    }

    /// Whether this device takes large payloads.
    pub(super) fn takes_parts(&self) -> bool {
        self.config.parts
            && self.config.max_body as usize >= part::BODY_MAX
            && !self.desk.as_ref().is_empty()
            && self.park.capacity() > super::park::META_LEN
            && self.queue.capacity() >= header::LEN + want::BODY_LEN
    }

    /// PART: the next piece goes out to the application; what was not asked for is dropped and counted.
    pub(super) fn step_part<'a>(&mut self, now: Instant, raw: &Raw<'a>) -> Result<Step<'a>, ParseError> {
        let part = Part::parse(raw)?;
        let Some(place) = self.blob().filter(|blob| blob.fits(&part)).map(|blob| blob.place) else {
            self.count_desk(|counts| &mut counts.pieces_dropped);
            return Ok(Step::Used);
        };
        let Some((spot, meta)) = self.park.find(|meta| meta.place == place) else { return Ok(Step::Used) };
        if meta.until <= now {
            count(&mut self.stats.expired);
            self.leave_lane(now, place.lane, Code::EXPIRED, 0, None);
            return Ok(Step::Used);
        }
        self.count_desk(|counts| &mut counts.pieces);
        let Some(blob) = self.desk.as_mut().first_mut().map(|desk| &mut desk.blob) else {
            return Ok(Step::Used);
        };
        blob.offset = blob.offset.saturating_add(u32::try_from(part.bytes.len()).unwrap_or(0));
        let mut sha256 = None;
        if blob.offset == blob.size {
            blob.state = State::Checking;
            sha256 = digest(self.park.frame(spot));
        } else if blob.asked < blob.size && blob.asked.saturating_sub(blob.offset) <= span(PIECES / 2) {
            blob.want_due = true;
        }
        let (blob, size) = (blob.blob, blob.size);
        let ticket = self.lane(place.lane).ticket(place.lane);
        let Part { offset, bytes, .. } = part;
        Ok(Step::Item(Item::Piece(Piece { ticket, blob, size, offset, bytes, sha256 })))
    }

    /// The digest of a payload that came in pieces was compared, after the last [`Piece`]. If it is wrong the pieces are
    /// fetched once more, and the second time the order ends as REJECTED_PAYLOAD; otherwise [`Receiver::poll_order`]
    /// hands the order over.
    pub fn verified(&mut self, now: Instant, ticket: Ticket, matches: bool) {
        let state = self.lane(ticket.lane);
        if state.is_of(&ticket)
            && state.is_fetching()
            && let Some(blob) = self.blob_mut().filter(|blob| blob.state == State::Checking)
        {
            if matches {
                blob.state = State::Whole;
                self.lane_mut(ticket.lane).free();
            } else if blob.again {
                self.leave_lane(now, ticket.lane, Code::REJECTED_PAYLOAD, 0, None);
            } else {
                (blob.again, blob.state) = (true, State::Fetching);
                (blob.offset, blob.asked, blob.want_due) = (0, 0, true);
            }
        }
        self.touch(now);
    }

    /// Puts the WANT that is due into the queue. If there is no room now, there is once something has left.
    pub(super) fn ask_for_pieces(&mut self) {
        let Some(blob) = self.desk.as_mut().first_mut().map(|desk| &mut desk.blob) else { return };
        if !blob.want_due || blob.state != State::Fetching {
            return;
        }
        let want = Want { blob: blob.blob, offset: blob.offset, pieces: PIECES };
        if self.queue.push(header::LEN + want::BODY_LEN, |buffer| want.emit(buffer)) {
            blob.asked = blob.offset.saturating_add(span(PIECES)).min(blob.size);
            blob.want_due = false;
        }
    }
}

const fn span(pieces: u16) -> u32 {
    (pieces as u32).saturating_mul(PIECE_MAX as u32)
}

/// The digest a parked order names.
fn digest(frame: &[u8]) -> Option<[u8; 32]> {
    let Ok(Split::Frame(raw)) = split(frame, u32::MAX) else { return None };
    let (_, order) = Order::parse(&raw).ok()?;
    options(order.options).find_map(|option| match option {
        Ok(OrderOption::Parts { sha256, .. }) => Some(sha256),
        _ => None,
    })
}
