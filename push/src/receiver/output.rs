//! Bytes out: one block at a time per connection, derived from state.

use wire_format::frame::outcome::{self, ENTRIES_MAX, ENTRY_LEN, Entry, frame_len};
use wire_format::frame::welcome::{self, Started, Welcome};
use wire_format::frame::{CHECKSUM_LEN, Pong, bye, header, hello, reject};
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::config::SCRATCH_MIN;
use super::session::{Block, Control, Live, State, Words, goodbye};
use super::stats::add;
use super::{ConnId, Receiver, Storage, Transmit};
use crate::ended::Ended;

const WELCOME_LEN: usize = header::LEN + welcome::FIXED_LEN + CHECKSUM_LEN;
const REJECT_LEN: usize = header::LEN + reject::BODY_LEN;
const _: () = assert!(WELCOME_LEN == SCRATCH_MIN);

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// Bytes to write now, built in `scratch`: at least [`SCRATCH_MIN`] bytes, and the same length in every call.
    ///
    /// Write them, then report how many the transport took with [`Receiver::handle_written`], before any other input.
    pub fn poll_transmit<'a>(&mut self, now: Instant, scratch: &'a mut [u8]) -> Option<Transmit<'a>> {
        self.touch(now);
        let (slot, from, to) = (0..CONNS).find_map(|slot| {
            let block = self.block(now, slot, scratch.len())?;
            self.emit(slot, &block, scratch)?;
            Some((slot, block.written as usize, block.len as usize))
        })?;
        Some(Transmit { conn: self.id(slot), head: scratch.get(from..to)?, body: &[] })
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
        if matches!(block.control, Control::Words) {
            conn.close(conn.why);
        }
        if block.outcomes > 0 {
            add(&mut self.stats.outcomes, block.outcomes.into());
            self.ring.end_block();
        }
    }

    /// The block this connection is writing, or a new one if it has something to say.
    fn block(&mut self, now: Instant, slot: usize, room: usize) -> Option<Block> {
        let conn = self.conns.get(slot)?;
        if conn.blocked {
            return None;
        }
        if conn.block.is_none() {
            let block = match conn.state {
                State::Serving(live) => self.compose(now, slot, live, room)?,
                State::Parting(words) => words_block(words),
                State::Free | State::Greeting | State::Closed => return None,
            };
            self.conns.get_mut(slot)?.block = Some(block);
        }
        self.conns.get(slot)?.block
    }

    fn compose(&mut self, now: Instant, slot: usize, live: Live, room: usize) -> Option<Block> {
        let (control, control_len) = match live {
            Live { welcome_due: true, .. } => (Control::Welcome, WELCOME_LEN),
            Live { pong: Some(token), .. } => (Control::Pong(token), header::LEN),
            _ => (Control::None, 0),
        };
        let max = entries_in(room.saturating_sub(control_len), self.session.piece);
        let said = if max > 0 { self.ring.begin_block(self.session.logs.both(), max) } else { None };
        if control_len == 0 && said.is_none() {
            if self.is_stopping() && self.pending.is_none() {
                let words = goodbye(bye::Code::NORMAL);
                self.part(now, slot, Ended::Stopped, words);
                return Some(words_block(words));
            }
            return None;
        }
        let live = self.conns.get_mut(slot)?.live_mut()?;
        match control {
            Control::Welcome => live.welcome_due = false,
            Control::Pong(_) => live.pong = None,
            Control::None | Control::Words => {}
        }
        let (durable, outcomes) = said.map_or((false, 0), |(log, count)| (log.is_durable(), count));
        let len = control_len.saturating_add(outcomes_len(outcomes, self.session.piece));
        Some(Block { control, durable, outcomes, len: u32::try_from(len).ok()?, written: 0 })
    }

    /// Writes the whole block into `scratch`. `None` if that is shorter than it was when the block was composed.
    fn emit(&self, slot: usize, block: &Block, scratch: &mut [u8]) -> Option<()> {
        let mut at = match (block.control, self.conns.get(slot)?.state) {
            (Control::Welcome, _) => self.emit_welcome(scratch)?,
            (Control::Pong(token), _) => Pong { token }.emit(scratch).ok()?,
            (Control::Words, State::Parting(Words::Reject(reject))) => reject.emit(scratch).ok()?,
            (Control::Words, State::Parting(Words::Bye(bye))) => bye.emit(scratch).ok()?,
            (Control::Words | Control::None, _) => 0,
        };
        if block.outcomes > 0 {
            for piece in self.ring.pieces(self.session.piece) {
                let entries = piece.in_lane_order().map(|slot| Entry {
                    number: slot.number(),
                    code: slot.code(),
                    detail: slot.detail(),
                    lane: slot.lane(),
                    ms: slot.elapsed_ms(),
                });
                let entries = Counted { entries, left: piece.len() };
                at = at.saturating_add(outcome::emit(block.durable, entries, scratch.get_mut(at..)?).ok()?);
            }
        }
        (at == block.len as usize).then_some(())
    }

    fn emit_welcome(&self, scratch: &mut [u8]) -> Option<usize> {
        let (config, known) = (&self.config, self.known());
        let welcome = Welcome {
            version: hello::VERSION,
            staging: config.staging,
            floors_persisted: false,
            journal_lost: false,
            kind: config.kind,
            device: config.id,
            boot: config.boot,
            fence: known.map_or(0, |known| known.fence),
            server: known.map_or(NodeId::NONE, |known| known.server),
            zone: config.zone,
            window_orders: self.session.window,
            window_bytes: config.window_bytes,
            max_body: config.max_body,
            features: 0,
            tags: config.tags,
            durable: self.floors.of(self.session.logs.durable),
            volatile: self.floors.of(self.session.logs.volatile),
            started: Started::EMPTY,
        };
        welcome.emit(scratch).ok()
    }
}

fn words_block(words: Words) -> Block {
    let len = match words {
        Words::Reject(_) => REJECT_LEN,
        Words::Bye(_) => header::LEN,
    };
    Block { control: Control::Words, durable: false, outcomes: 0, len: len as u32, written: 0 }
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
