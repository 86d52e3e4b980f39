//! Bytes out: one block at a time per connection, derived from state.

use wire_format::frame::hello::{self, feature};
use wire_format::frame::outcome::{self, ENTRIES_MAX, ENTRY_LEN, Entry, frame_len};
use wire_format::frame::welcome::{self, LogFloors, Started, StartedEntry, Welcome};
use wire_format::frame::{Ack, CHECKSUM_LEN, Pong, header, reject};
use wire_format::ids::{Lane, NodeId};
use wire_format::time::Instant;

use super::config::SCRATCH_MIN;
use super::floors::Log;
use super::session::{Block, Control, Frames, Live, Phase, State, Words, ack_bit};
use super::stats::add;
use super::{ConnId, Receiver, Storage, Transmit};
use crate::ended::Ended;

const WELCOME_LEN: usize = header::LEN + welcome::FIXED_LEN + CHECKSUM_LEN;
const REJECT_LEN: usize = header::LEN + reject::BODY_LEN;
const _: () = assert!(WELCOME_LEN + 4 * welcome::STARTED_LEN == SCRATCH_MIN);
const _: () = assert!(6 * header::LEN <= SCRATCH_MIN, "PONG, DRAIN and every ACK fit together");

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// Bytes to write now, built in `scratch`: at least [`SCRATCH_MIN`] bytes, and the same length in every call.
    ///
    /// Write them, then report how many the transport took with [`Receiver::handle_written`], before any other input.
    pub fn poll_transmit<'a>(&'a mut self, now: Instant, scratch: &'a mut [u8]) -> Option<Transmit<'a>> {
        self.touch(now);
        let (slot, block, head) = (0..CONNS).find_map(|slot| {
            let block = self.block(now, slot, scratch.len())?;
            let head = self.emit(slot, &block, scratch)?;
            Some((slot, block, head))
        })?;
        let written = block.written as usize;
        let direct = if block.direct { self.queue.front(block.queued) } else { &[] };
        let (head, body) = if written <= head {
            (scratch.get(written..head)?, direct)
        } else {
            (&[][..], direct.get(written.saturating_sub(head)..)?)
        };
        Some(Transmit { conn: self.id(slot), head, body })
    }

    /// The transport took the first `n` bytes of what [`Receiver::poll_transmit`] gave for this connection. Fewer than all
    /// means that it takes no more until [`Receiver::handle_writable`].
    pub fn handle_written(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.touch(now);
        let Some(slot) = self.slot(conn) else { return };
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Some(block) = &mut conn.block else { return };
        let rest = block.len.saturating_sub(block.written) as usize;
        if n > rest {
            return self.close(slot, Ended::LostTrack);
        }
        block.written = block.written.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        if n < rest {
            conn.blocked = true;
            return;
        }
        let block = *block;
        conn.block = None;
        if let (Control::Words, Some(why)) = (block.control, conn.why()) {
            conn.close(why);
        }
        self.written(now, &block);
    }

    /// A block has left as a whole.
    fn written(&mut self, now: Instant, block: &Block) {
        if block.outcomes > 0 {
            add(&mut self.stats.outcomes, block.outcomes.into());
            self.ring.end_block();
        }
        self.queue.pop(block.queued);
        match block.control {
            Control::Welcome { .. } => self.catch_up(now),
            Control::Frames(frames) => add(&mut self.stats.acks, frames.acks.count_ones() as usize),
            Control::Words => {}
        }
    }

    /// The block this connection is writing, or a new one if it has something to say.
    fn block(&mut self, now: Instant, slot: usize, room: usize) -> Option<Block> {
        let conn = self.conns.get(slot)?;
        if conn.is_free() || conn.blocked {
            return None;
        }
        if conn.block.is_none() {
            let block = match conn.state {
                State::Serving(live) => self.compose(now, slot, live, room)?,
                State::Parting(words, _) => words_block(words),
                State::Free | State::Greeting | State::Closed(_) => return None,
            };
            self.conns.get_mut(slot)?.block = Some(block);
        }
        self.conns.get(slot)?.block
    }

    fn compose(&mut self, now: Instant, slot: usize, live: Live, room: usize) -> Option<Block> {
        self.ask_for_pieces();
        let unrecorded = self.is_unrecorded();
        if self.is_silent(live) {
            return if unrecorded { None } else { self.compose_farewell(now, slot) };
        }
        let control = if live.welcome_due {
            if unrecorded {
                return None;
            }
            Control::Welcome { started: self.started() }
        } else {
            let acks = self.fix_acks();
            Control::Frames(Frames { pong: live.pong.is_some(), drain: self.session.drain_due, acks })
        };
        let control_len = control_len(control);
        let left = room.saturating_sub(control_len);
        // What the journal does not know is not said: neither an outcome nor a result of it, nor how an order stands.
        let queued = if unrecorded { 0 } else { self.queue.len() };
        let direct = queued as usize > left;
        // A result leaves before its outcome: as long as the queue does not fit, no outcome goes.
        let may_say = !direct && !unrecorded && self.ring.may_have_unsaid();
        let piece = if may_say { self.session.piece() } else { 1 };
        let max = if may_say { entries_in(left.saturating_sub(queued as usize), piece) } else { 0 };
        let said = if max > 0 { self.ring.begin_block(self.session.logs.both(), max) } else { None };
        if control_len == 0 && queued == 0 && said.is_none() {
            if unrecorded {
                return None;
            }
            return self.compose_farewell(now, slot);
        }
        let live = self.conns.get_mut(slot)?.live_mut()?;
        match control {
            Control::Welcome { .. } => live.welcome_due = false,
            Control::Frames(frames) => {
                if let (Some(token), Some(answers)) = (live.pong.take(), self.session.answers_mut()) {
                    answers.ponging = token;
                }
                self.session.drain_due &= !frames.drain;
            }
            Control::Words => {}
        }
        let (durable, outcomes) = said.map_or((false, 0), |(log, count)| (log.is_durable(), count));
        let said_len = if outcomes > 0 { outcomes_len(outcomes, piece) } else { 0 };
        let len = control_len.saturating_add(queued as usize).saturating_add(said_len);
        Some(Block { control, durable, direct, outcomes, queued, len: u32::try_from(len).ok()?, written: 0 })
    }

    /// Every second time that is asked: there is nothing to say.
    fn is_silent(&self, live: Live) -> bool {
        let frames =
            live.welcome_due || live.pong.is_some() || self.session.drain_due || self.session.acks != 0;
        !frames && self.queue.len() == 0 && !self.ring.may_have_unsaid()
    }

    /// Nothing is left to say: a device that leaves says goodbye.
    fn compose_farewell(&mut self, now: Instant, slot: usize) -> Option<Block> {
        let idle = || self.lanes.iter().all(|lane| lane.open == 0);
        if self.is_leaving() && self.at_hand.is_none() && idle() {
            self.begin_stop(now);
        }
        if !self.is_stopping() || self.at_hand.is_some() {
            return None;
        }
        let words = Words::Bye(self.farewell.bye);
        self.part(now, slot, Ended::Stopped, words);
        Some(words_block(words))
    }

    /// The lanes in which an order is at work that this session is about.
    fn started(&self) -> u8 {
        let ours = |lane: &Lane| {
            let state = self.lane(*lane);
            state.is_started() && self.session.logs.has(state.log())
        };
        Lane::ALL.into_iter().filter(ours).fold(0, |bits, lane| bits | 1 << lane as u8)
    }

    /// Whether a WELCOME is on its way: what it says must not change.
    pub(super) fn is_writing_welcome(&self) -> bool {
        let conn = self.session.conn.and_then(|conn| self.slot(conn)).and_then(|slot| self.conns.get(slot));
        let block = conn.and_then(|conn| conn.block);
        block.is_some_and(|block| matches!(block.control, Control::Welcome { .. }))
    }

    /// Fixes the ACKs of one log that are due: of lanes in which something received has not ended, up to the last that came.
    fn fix_acks(&mut self) -> u8 {
        if self.session.acks == 0 {
            return 0;
        }
        // What ended meanwhile needs none: then it is the other log's turn.
        match self.fix_acks_of_a_log() {
            0 => self.fix_acks_of_a_log(),
            acks => acks,
        }
    }

    fn fix_acks_of_a_log(&mut self) -> u8 {
        let due = self.session.take_acks();
        let mut acks = 0;
        for (durable, lane) in ack_lanes(due) {
            let Some(log) = self.session.logs.of(durable).filter(|_| self.lane(lane).open > 0) else {
                continue;
            };
            let Some(last) = self.ring.last(log, lane) else { continue };
            let answers = self.session.answers_mut();
            if let Some(number) = answers.and_then(|answers| answers.acking.get_mut(lane.index())) {
                *number = u32::try_from(last & u64::from(u32::MAX)).unwrap_or(0);
                acks |= ack_bit(durable, lane);
            }
        }
        acks
    }

    /// Writes what of the block goes through `scratch`; bytes written. `None` if that is shorter than it was when the
    /// block was composed.
    fn emit(&self, slot: usize, block: &Block, scratch: &mut [u8]) -> Option<usize> {
        let mut at = match (block.control, self.conns.get(slot)?.state) {
            (Control::Welcome { started }, _) => self.emit_welcome(started, scratch)?,
            (Control::Frames(frames), _) => self.emit_frames(frames, scratch)?,
            (Control::Words, State::Parting(Words::Reject(reject), _)) => reject.emit(scratch).ok()?,
            (Control::Words, State::Parting(Words::Bye(bye), _)) => bye.emit(scratch).ok()?,
            (Control::Words, _) => 0,
        };
        if block.queued > 0 && !block.direct {
            let queued = self.queue.front(block.queued);
            scratch.get_mut(at..)?.get_mut(..queued.len())?.copy_from_slice(queued);
            at = at.saturating_add(queued.len());
        }
        if block.outcomes > 0 {
            for piece in self.ring.pieces(self.session.piece()) {
                let entries = piece.in_lane_order().map(|slot| Entry {
                    number: slot.number(),
                    code: slot.code(),
                    detail: slot.detail(),
                    lane: slot.lane(),
                    ms: slot.ms(),
                });
                let entries = Counted { entries, left: piece.len() };
                at = at.saturating_add(outcome::emit(block.durable, entries, scratch.get_mut(at..)?).ok()?);
            }
        }
        let direct = if block.direct { block.queued as usize } else { 0 };
        (at.saturating_add(direct) == block.len as usize).then_some(at)
    }

    fn emit_frames(&self, frames: Frames, scratch: &mut [u8]) -> Option<usize> {
        let mut at = 0_usize;
        if frames.pong {
            at = Pong { token: self.session.answers().ponging }.emit(scratch).ok()?;
        }
        if frames.drain {
            at = at.saturating_add(self.farewell.drain.emit(scratch.get_mut(at..)?).ok()?);
        }
        for (durable, lane) in ack_lanes(frames.acks) {
            let number = self.session.answers().acking.get(lane.index()).copied()?;
            let ack = Ack { durable, lane, number_low: number };
            at = at.saturating_add(ack.emit(scratch.get_mut(at..)?).ok()?);
        }
        Some(at)
    }

    /// What this device takes beyond the minimum.
    fn features(&self) -> u32 {
        let bit = |bit, set: bool| if set { bit } else { 0 };
        feature::CANCEL
            | bit(feature::ASK, self.answers_questions())
            | bit(feature::STATUS, self.answers_status())
            | bit(feature::PARTS, self.takes_parts())
    }

    /// The floors of a log as WELCOME states them. A device with a journal names no lineage it has taken anew, or may have
    /// forgotten something of, until its server has read that.
    fn floors_named(&self, log: Option<Log>) -> LogFloors {
        self.floors.of(log.filter(|log| !self.is_journalled() || self.floors.is_named(*log)))
    }

    /// The same of the volatile log, of which nothing is known if it has not taken the place of another one yet.
    fn volatile_named(&self) -> LogFloors {
        match self.session.phase {
            Phase::Replacing { lineage, .. } if !self.is_journalled() => {
                LogFloors { lineage, ..LogFloors::default() }
            }
            Phase::Replacing { .. } | Phase::Speaking(_) => self.floors_named(self.session.logs.volatile),
        }
    }

    fn emit_welcome(&self, started: u8, scratch: &mut [u8]) -> Option<usize> {
        let none = StartedEntry { number: 0, durable: false, lane: Lane::Urgent, idempotent: false };
        let mut entries = [none; 4];
        let mut count = 0_usize;
        for lane in Lane::ALL.into_iter().filter(|lane| started & 1 << *lane as u8 != 0) {
            let (state, entry) = (self.lane(lane), entries.get_mut(count)?);
            let (number, durable, idempotent) =
                (state.number(), state.log().is_durable(), state.is_idempotent());
            *entry = StartedEntry { number, durable, lane, idempotent };
            count = count.saturating_add(1);
        }
        let (config, known) = (&self.config, self.known());
        let welcome = Welcome {
            version: hello::VERSION,
            staging: config.staging,
            floors_persisted: self.is_journalled(),
            journal_lost: self.keep.is_lost(),
            kind: config.kind,
            device: config.id,
            boot: config.boot,
            fence: known.map_or(0, |known| known.fence),
            server: known.map_or(NodeId::NONE, |known| known.server),
            zone: config.zone,
            window_orders: self.session.window,
            window_bytes: config.window_bytes,
            max_body: config.max_body,
            features: self.features(),
            tags: config.tags,
            durable: self.floors_named(self.session.logs.durable),
            volatile: self.volatile_named(),
            started: Started::from(entries.get(..count)?),
        };
        welcome.emit(scratch).ok()
    }
}

/// Bytes of the frames a block begins with.
fn control_len(control: Control) -> usize {
    match control {
        Control::Welcome { started } => {
            let entries = welcome::STARTED_LEN.saturating_mul(started.count_ones() as usize);
            WELCOME_LEN.saturating_add(entries)
        }
        Control::Frames(Frames { pong, drain, acks }) => {
            let frames = u32::from(pong).saturating_add(drain.into()).saturating_add(acks.count_ones());
            header::LEN.saturating_mul(frames as usize)
        }
        // The last words are a block of their own.
        Control::Words => 0,
    }
}

/// The lanes of a set of ACKs, with their log.
fn ack_lanes(acks: u8) -> impl Iterator<Item = (bool, Lane)> {
    let mut left = acks;
    core::iter::from_fn(move || {
        let bit = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        let lane = *Lane::ALL.get(bit % 4)?;
        (bit < 8).then_some((bit >= 4, lane))
    })
}

fn words_block(words: Words) -> Block {
    let len = match words {
        Words::Reject(_) => REJECT_LEN,
        Words::Bye(_) => header::LEN,
    };
    let len = len as u32;
    Block { control: Control::Words, durable: false, direct: false, outcomes: 0, queued: 0, len, written: 0 }
}

/// Entries of one OUTCOME frame for a peer that takes bodies of `max_body` bytes.
pub(super) fn entries_within(max_body: u32) -> u16 {
    let room = usize::try_from(max_body).unwrap_or(usize::MAX).saturating_sub(CHECKSUM_LEN);
    u16::try_from((room / ENTRY_LEN).clamp(1, ENTRIES_MAX)).unwrap_or(1)
}

/// Entries that fit `room` bytes in frames of at most `piece` entries.
fn entries_in(room: usize, piece: u16) -> u16 {
    let piece = usize::from(piece);
    let rest = (room % frame_len(piece)).saturating_sub(frame_len(0)) / ENTRY_LEN;
    let all = (room / frame_len(piece)).saturating_mul(piece).saturating_add(rest);
    u16::try_from(all).unwrap_or(u16::MAX)
}

/// Bytes of `entries` entries in frames of at most `piece`, which is not 0.
fn outcomes_len(entries: u16, piece: u16) -> usize {
    let piece = piece.max(1);
    let (full, rest) = (usize::from(entries / piece), usize::from(entries % piece));
    let tail = if rest == 0 { 0 } else { frame_len(rest) };
    full.saturating_mul(frame_len(piece.into())).saturating_add(tail)
}

/// An iterator whose length is known from elsewhere.
struct Counted<I> {
    entries: I,
    left: usize,
}

impl<I: Iterator<Item = Entry>> Iterator for Counted<I> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let entry = self.entries.next()?;
        self.left = self.left.saturating_sub(1);
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator<Item = Entry>> ExactSizeIterator for Counted<I> {}
