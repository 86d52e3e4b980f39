//! The payload of a large order, put together from its pieces.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::receiver::{Piece, Ticket, Verdict};

/// A device without memory for a large payload is asked again after this long.
const NO_SPACE_FOR: Duration = Duration::from_secs(60);
/// Bytes taken for a payload that has begun: a piece says how many will come, but only what has come is paid for.
const ROOM_FIRST: usize = 64 << 10;

/// The one payload that is being put together, or waits to be handed over: bulk orders come one at a time.
#[derive(Default)]
pub(super) struct Blob {
    ticket: Option<Ticket>,
    bytes: Vec<u8>,
    sha256: Sha256,
}

/// What a piece led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// More will come.
    Piece,
    /// That was the last one; the digest is the announced one, or not.
    Whole {
        /// It is.
        matches: bool,
    },
    /// It cannot be kept.
    Not(Verdict),
}

impl Blob {
    /// Adds a piece. The buffer grows as pieces come, never by the size they announce.
    pub(super) fn take(&mut self, piece: &Piece<'_>) -> Kept {
        if piece.offset == 0 {
            *self = Self { ticket: Some(piece.ticket), ..Self::default() };
        }
        if self.ticket != Some(piece.ticket) || piece.offset as usize != self.bytes.len() {
            // The receiver gives pieces in order and without gaps; what it cannot have meant is not guessed at.
            return Kept::Not(Verdict::RejectedPayload);
        }
        if !self.has_room(piece.bytes.len()) {
            *self = Self::default();
            return Kept::Not(Verdict::NoSpace { retry_after: NO_SPACE_FOR });
        }
        self.bytes.extend_from_slice(piece.bytes);
        self.sha256.update(piece.bytes);
        match piece.sha256 {
            Some(announced) => Kept::Whole { matches: self.sha256.finalize_reset()[..] == announced },
            None => Kept::Piece,
        }
    }

    /// Doubles the buffer when it is full. False if the allocator has nothing more.
    fn has_room(&mut self, len: usize) -> bool {
        let free = self.bytes.capacity() - self.bytes.len();
        free >= len || self.bytes.try_reserve(len.max(self.bytes.len()).max(ROOM_FIRST)).is_ok()
    }

    /// The payload of the order of `ticket`, if it came in pieces.
    pub(super) fn of(&self, ticket: Ticket) -> Option<&[u8]> {
        (self.ticket == Some(ticket)).then_some(&self.bytes)
    }

    /// The order of `ticket` has ended: its payload is forgotten, the memory given back.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        if self.ticket == Some(ticket) {
            *self = Self::default();
        }
    }
}
