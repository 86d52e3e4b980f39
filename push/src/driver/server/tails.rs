//! Frames that did not end in the read they began in: few at a time, so that a device has four bytes for them, not a buffer.

/// Buffers that keep their memory while nobody uses them.
const IDLE_MAX: usize = 64;
/// A buffer that grew beyond this gives its memory back: the largest frame a device sends is a little larger than 16 KiB.
const IDLE_BYTES_MAX: usize = 32 << 10;

/// What one connection keeps: a buffer of [`Tails`], or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail(u32);

impl Tail {
    /// Nothing.
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// The buffers. Which connection has which is written down there.
#[derive(Debug, Default)]
pub(super) struct Tails {
    buffers: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl Tails {
    /// What is kept.
    pub(super) fn get(&self, tail: Tail) -> &[u8] {
        self.buffers.get(tail.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Keeps more, behind what is kept already.
    pub(super) fn keep(&mut self, tail: &mut Tail, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if *tail == Tail::NONE {
            *tail = Tail(self.free.pop().unwrap_or_else(|| {
                self.buffers.push(Vec::new());
                u32::try_from(self.buffers.len() - 1).unwrap_or(u32::MAX)
            }));
        }
        if let Some(buffer) = self.buffers.get_mut(tail.0 as usize) {
            buffer.extend_from_slice(bytes);
        }
    }

    /// Forgets what is kept.
    pub(super) fn release(&mut self, tail: &mut Tail) {
        let at = core::mem::replace(tail, Tail::NONE).0;
        let Some(buffer) = self.buffers.get_mut(at as usize) else { return };
        buffer.clear();
        if self.free.len() >= IDLE_MAX || buffer.capacity() > IDLE_BYTES_MAX {
            *buffer = Vec::new();
        }
        self.free.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_grows_and_is_forgotten() {
        let mut tails = Tails::default();
        let (mut one, mut two) = (Tail::NONE, Tail::NONE);
        assert_eq!(tails.get(one), b"");
        tails.keep(&mut one, b"");
        assert_eq!(one, Tail::NONE, "nothing needs no buffer");
        tails.keep(&mut one, b"ab");
        tails.keep(&mut two, b"x");
        tails.keep(&mut one, b"c");
        assert_eq!((tails.get(one), tails.get(two)), (&b"abc"[..], &b"x"[..]));
        tails.release(&mut one);
        tails.release(&mut one);
        assert_eq!((tails.get(one), tails.get(two)), (&b""[..], &b"x"[..]));
        let mut three = Tail::NONE;
        tails.keep(&mut three, b"de");
        assert_eq!(tails.get(three), b"de");
        assert_eq!(tails.buffers.len(), 2, "a buffer is used again");
    }

    #[test]
    fn idle_buffers_at_their_limits_and_one_past_each() {
        let mut tails = Tails::default();
        let mut all = vec![Tail::NONE; IDLE_MAX + 1];
        all.iter_mut().for_each(|tail| tails.keep(tail, b"kept"));
        all.iter_mut().for_each(|tail| tails.release(tail));
        assert_eq!(tails.buffers.iter().filter(|buffer| buffer.capacity() != 0).count(), IDLE_MAX);
        let mut tails = Tails::default();
        for (len, stays) in [(IDLE_BYTES_MAX, true), (IDLE_BYTES_MAX + 1, false)] {
            let mut tail = Tail::NONE;
            tails.keep(&mut tail, &vec![0; len]);
            tails.release(&mut tail);
            assert_eq!(tails.buffers[0].capacity() != 0, stays, "{len}");
        }
    }
}
