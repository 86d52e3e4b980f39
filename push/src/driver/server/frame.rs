//! An order's one encoding, shared by all shards without a copy.

use std::sync::{Arc, Mutex};

use super::shared::lock;

/// Frames that are kept for reuse.
const POOL_MAX: usize = 1_024;
/// A frame larger than this is given back to the allocator instead.
const POOLED_BYTES_MAX: usize = 8 << 10;

/// Bytes of one order, read by every shard. Cloning counts a reference and allocates nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame(Arc<Vec<u8>>);

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Frame {
    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes, to be written; `None` while another reference lives.
    pub(super) fn bytes_mut(&mut self) -> Option<&mut Vec<u8>> {
        Arc::get_mut(&mut self.0)
    }
}

/// Frames that go round: after warm-up a push allocates none.
#[derive(Debug)]
pub(super) struct Frames(Mutex<Vec<Frame>>);

impl Default for Frames {
    /// None yet, with room for all there may ever be: they come back on threads that serve sockets.
    fn default() -> Self {
        Self(Mutex::new(Vec::with_capacity(POOL_MAX)))
    }
}

impl Frames {
    /// A frame of `len` zeros nobody else refers to.
    pub(super) fn take(&self, len: usize) -> Frame {
        let mut frame = lock(&self.0).pop().unwrap_or_default();
        match frame.bytes_mut() {
            Some(bytes) => {
                bytes.clear();
                bytes.resize(len, 0);
                frame
            }
            None => Frame(Arc::new(vec![0; len])),
        }
    }

    /// Takes a frame back. One that others still refer to, or a large one, is left to the allocator.
    pub(super) fn put(&self, mut frame: Frame) {
        let fits = frame.bytes_mut().is_some_and(|bytes| bytes.capacity() <= POOLED_BYTES_MAX);
        let mut pool = lock(&self.0);
        if fits && pool.len() < POOL_MAX {
            pool.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_once_nobody_else_has_it() {
        let frames = Frames::default();
        let frame = frames.take(100);
        let (at, other) = (frame.as_ref().as_ptr(), frame.clone());
        frames.put(frame);
        assert_ne!(frames.take(100).as_ref().as_ptr(), at, "another shard still reads it");
        frames.put(other);
        let again = frames.take(40);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref()), (at, &[0; 40][..]));
        frames.put(frames.take(POOLED_BYTES_MAX + 1));
        assert!(frames.take(1).0.capacity() <= POOLED_BYTES_MAX);
    }

    #[test]
    fn however_many_come_back_the_pool_does_not_grow() {
        let frames = Frames::default();
        let room = || lock(&frames.0).capacity();
        let at_first = room();
        let all: Vec<_> = (0..=POOL_MAX).map(|_| frames.take(1)).collect();
        all.into_iter().for_each(|frame| frames.put(frame));
        assert_eq!((room(), lock(&frames.0).len()), (at_first, POOL_MAX));
    }
}
