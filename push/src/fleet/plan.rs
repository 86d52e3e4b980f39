//! What a plan is made of: the frames of one write, the scratch buffer they are made in, and the bytes that are not copied.

use wire_format::error::EmitError;
use wire_format::frame::{Bye, Cancel, Drain, Ping, Pong, Reject, Settled, drain};

use super::cancel::Named;
use super::device::{CARRY, Farewell};
use super::list::NONE;
use super::log::PerLog;
use super::track::Track;
use crate::config::PLAN_MAX;

/// A planned frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) what: What,
    /// Bytes that are planned of it.
    pub(super) len: u32,
}

/// What a planned frame is, with all it takes to make it again.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The rest of a cut frame.
    Rest,
    Hello {
        heads: PerLog,
    },
    Pong {
        token: u32,
    },
    Ping {
        token: u32,
    },
    Settled {
        track: Track,
        number: u64,
    },
    Cancel(Named),
    Drain {
        after_ms: u32,
    },
    Farewell(Farewell),
    /// A piece of the blob of the order in this slot.
    Piece {
        slot: u32,
        piece: u16,
    },
    /// An entry of the posts.
    Post {
        post: u8,
    },
    /// The number tells whether the slot still holds the order that was planned.
    Order {
        slot: u32,
        number: u64,
        head: Head,
    },
}

/// The header an order is sent with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// The one it was encoded with.
    Fresh,
    /// Another, with what is left of the lifetime.
    New { remaining_ms: Option<u32>, replay: bool },
}

/// The frames of one write.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) device: u32,
    entries: [Entry; PLAN_MAX],
    pub(super) len: usize,
}

impl Plan {
    pub(super) const EMPTY: Self =
        Self { device: NONE, entries: [Entry { what: What::Rest, len: 0 }; PLAN_MAX], len: 0 };

    pub(super) fn entries(&self) -> &[Entry] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    pub(super) const fn clear(&mut self, device: u32) {
        self.device = device;
        self.len = 0;
    }

    pub(super) fn entry(&self, at: usize) -> Option<Entry> {
        self.entries().get(at).copied()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len >= PLAN_MAX
    }

    pub(super) fn push(&mut self, what: What, len: usize) {
        if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = Entry { what, len: u32::try_from(len).unwrap_or(u32::MAX) };
            self.len = self.len.wrapping_add(1);
        }
    }
}

/// The scratch buffer while it fills.
pub(super) struct Scratch<'s> {
    pub(super) bytes: &'s mut [u8],
    pub(super) len: usize,
}

impl Scratch<'_> {
    pub(super) const fn room(&self) -> usize {
        self.bytes.len().saturating_sub(self.len)
    }

    /// Appends what `emit` writes; its length, or 0 if it does not fit.
    pub(super) fn emit(&mut self, emit: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>) -> usize {
        let len = self.bytes.get_mut(self.len..).and_then(|room| emit(room).ok()).unwrap_or(0);
        self.len = self.len.saturating_add(len);
        len
    }

    pub(super) fn copy(&mut self, bytes: &[u8]) -> usize {
        self.emit(|room| match room.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Ok(bytes.len())
            }
            None => Err(EmitError::NoRoom { need: bytes.len() }),
        })
    }
}

/// Bytes that go out as they lie in their slot: no copy is made of them.
#[derive(Clone, Copy)]
pub(super) struct Body {
    pub(super) of: Shared,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Whose bytes a [`Body`] are.
#[derive(Clone, Copy)]
pub(super) enum Shared {
    Order(u32),
    Post(u8),
}

pub(super) fn emit_farewell(farewell: Farewell, room: &mut [u8]) -> Result<usize, EmitError> {
    match farewell {
        Farewell::Reject(code) => Reject { code, retry_after_ms: 0, detail: 0 }.emit(room),
        Farewell::Bye(code) => Bye { code, retry_after_ms: 0 }.emit(room),
    }
}

pub(super) fn emit_settled(track: Track, number: u64, room: &mut [u8]) -> Result<usize, EmitError> {
    Settled { durable: track.is_durable(), lane: track.lane(), number }.emit(room)
}

pub(super) fn emit_cancel(named: Named, room: &mut [u8]) -> Result<usize, EmitError> {
    let Named { number, durable, .. } = named;
    Cancel { durable, numbers: (&[number]).into() }.emit(room)
}

/// The bytes of a planned control frame, for the part of it that did not leave.
pub(super) fn control_bytes(what: What) -> ([u8; CARRY], usize) {
    let mut bytes = [0; CARRY];
    let len = match what {
        What::Pong { token } => Pong { token }.emit(&mut bytes),
        What::Ping { token } => Ping { token }.emit(&mut bytes),
        What::Settled { track, number } => emit_settled(track, number, &mut bytes),
        What::Cancel(named) => emit_cancel(named, &mut bytes),
        What::Drain { after_ms } => Drain { reason: drain::Reason::LEAVING, after_ms }.emit(&mut bytes),
        What::Farewell(farewell) => emit_farewell(farewell, &mut bytes),
        What::Rest | What::Hello { .. } | What::Post { .. } | What::Piece { .. } | What::Order { .. } => {
            Ok(0)
        }
    };
    (bytes, len.unwrap_or(0))
}
