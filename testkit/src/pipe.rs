//! One direction of a TCP connection, as far as a protocol can see it: bytes on their way, with a buffer that fills.

use wire_format::time::Instant;

/// One direction of a connection. Who simulates the network says when what was written arrives.
#[derive(Debug)]
pub struct Pipe {
    /// What was written; of what lies behind the first `taken`, which were read, the first `arrived` can be read.
    bytes: Vec<u8>,
    taken: usize,
    /// Bytes that can be read.
    pub arrived: usize,
    /// Bytes it takes before a write is cut.
    capacity: usize,
    /// A write was cut: its writer wants to know when there is room.
    pub waited_for: bool,
    /// Nothing arrives before what was written before it.
    pub last: Instant,
    /// What was read and not used yet: the reader's buffer.
    pub unread: Vec<u8>,
    /// The writer closed: true if its bytes are lost with it.
    pub closed: Option<bool>,
}

impl Pipe {
    /// An empty one that takes `capacity` bytes before a write is cut.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            arrived: 0,
            capacity,
            waited_for: false,
            last: Instant::ZERO,
            unread: Vec::new(),
            closed: None,
        }
    }

    /// How much of `bytes` the buffer takes.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let waiting = self.bytes.len() - self.taken;
        let fits = bytes.len().min(self.capacity.saturating_sub(waiting));
        if self.bytes.len() + fits > self.capacity {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(&bytes[..fits]);
        self.waited_for |= fits < bytes.len();
        fits
    }

    /// Moves at most `max` bytes from what has arrived to the reader's buffer. Whether there were any.
    pub fn read(&mut self, max: usize) -> bool {
        let read = self.arrived.min(max);
        if read == 0 {
            return false;
        }
        self.arrived -= read;
        if self.unread.is_empty() && (self.taken, read) == (0, self.bytes.len()) {
            // As a rule: nothing is copied.
            core::mem::swap(&mut self.unread, &mut self.bytes);
            return true;
        }
        let end = self.taken + read;
        self.unread.extend_from_slice(&self.bytes[self.taken..end]);
        self.taken = end;
        if end == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
        true
    }

    /// A read gives nothing, and nothing says that there will never be anything more.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.arrived == 0 && self.closed.is_none()
    }

    /// The end is reached: nothing more can be read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed.is_some_and(|reset| reset || self.bytes.len() == self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pipe_takes_no_more_until_somebody_reads() {
        let mut pipe = Pipe::new(4);
        assert_eq!(pipe.write(b"abcdef"), 4);
        assert!(pipe.waited_for);
        assert!(!pipe.read(10), "nothing has arrived");
        pipe.arrived = 3;
        assert!(pipe.read(2) && pipe.unread == b"ab" && pipe.arrived == 1);
        assert_eq!(pipe.write(b"ef"), 2);
    }

    #[test]
    fn a_reset_loses_what_is_on_its_way_and_a_close_does_not() {
        let mut pipe = Pipe::new(4);
        pipe.write(b"ab");
        pipe.closed = Some(false);
        assert!(!pipe.is_over());
        pipe.closed = Some(true);
        assert!(pipe.is_over());
    }
}
