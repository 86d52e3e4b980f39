//! One direction of a TCP connection, as far as a protocol can see it: bytes on their way, with a buffer that fills.

use std::collections::VecDeque;

use wire_format::time::Instant;

/// One direction of a connection. Who simulates the network says when what was written arrives.
#[derive(Debug)]
pub struct Pipe {
    /// What was written and not read; the first `arrived` of them can be read.
    bytes: VecDeque<u8>,
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
            bytes: VecDeque::new(),
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
        let taken = bytes.len().min(self.capacity.saturating_sub(self.bytes.len()));
        self.bytes.extend(&bytes[..taken]);
        self.waited_for |= taken < bytes.len();
        taken
    }

    /// Moves at most `max` bytes from what has arrived to the reader's buffer. Whether there were any.
    pub fn read(&mut self, max: usize) -> bool {
        let taken = self.arrived.min(max);
        self.arrived -= taken;
        let (front, back) = self.bytes.as_slices();
        let first = taken.min(front.len());
        self.unread.extend_from_slice(&front[..first]);
        self.unread.extend_from_slice(&back[..taken - first]);
        if taken == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..taken);
        }
        taken > 0
    }

    /// The end is reached: nothing more can be read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed.is_some_and(|reset| reset || self.bytes.is_empty())
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
