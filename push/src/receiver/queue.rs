//! Whole frames on their way out, one after the other in the caller's bytes: results, progress, questions, answers.
//!
//! What is in it goes with the session. Frames are appended at the end and leave from the front; the bytes of the block
//! being written stay in place relative to the front until they have left.

use wire_format::error::EmitError;

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<Q> {
    bytes: Q,
    head: u32,
    len: u32,
}

impl<Q: AsRef<[u8]> + AsMut<[u8]>> Queue<Q> {
    pub(super) const fn new(bytes: Q) -> Self {
        Self { bytes, head: 0, len: 0 }
    }

    /// Bytes in all.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.as_ref().len()
    }

    /// Bytes that wait.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// Appends a frame of `need` bytes. `false` if there is no room, or it cannot be written.
    pub(super) fn push(
        &mut self,
        need: usize,
        emit: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>,
    ) -> bool {
        let end = self.head.saturating_add(self.len) as usize;
        if self.capacity().saturating_sub(end) < need {
            self.close_up();
        }
        let end = self.head.saturating_add(self.len) as usize;
        let Some(free) = self.bytes.as_mut().get_mut(end..) else { return false };
        if free.len() < need {
            return false;
        }
        let Some(len) = emit(free).ok().and_then(|len| u32::try_from(len).ok()) else { return false };
        self.len = self.len.saturating_add(len);
        true
    }

    /// The first `n` bytes that wait.
    pub(super) fn front(&self, n: u32) -> &[u8] {
        let waiting = self.bytes.as_ref().get(self.head as usize..).unwrap_or(&[]);
        waiting.get(..n.min(self.len) as usize).unwrap_or(&[])
    }

    /// The first `n` bytes have left.
    pub(super) fn pop(&mut self, n: u32) {
        let n = n.min(self.len);
        self.head = self.head.saturating_add(n);
        self.len = self.len.saturating_sub(n);
        if self.len == 0 {
            self.head = 0;
        }
    }

    pub(super) const fn clear(&mut self) {
        (self.head, self.len) = (0, 0);
    }

    fn close_up(&mut self) {
        let (from, end) = (self.head as usize, self.head.saturating_add(self.len) as usize);
        if move_down(self.bytes.as_mut(), 0, from, end) {
            self.head = 0;
        }
    }
}

/// Moves `from..end` down to `to`. `false`, and nothing happens, if these are not in order.
pub(super) fn move_down(bytes: &mut [u8], to: usize, from: usize, end: usize) -> bool {
    let span = bytes.get_mut(to..end).unwrap_or_default();
    let by = from.saturating_sub(to);
    let fits = by <= span.len();
    if fits {
        span.copy_within(by.., 0);
    }
    fits
}
