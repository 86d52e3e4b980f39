//! TCP as far as the protocol can see it: two pipes of bytes, each with a buffer that fills.

use std::collections::VecDeque;

use push::receiver::ConnId;
use wire_format::time::Instant;

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// What was written and not read; the first `arrived` of them can be read.
    bytes: VecDeque<u8>,
    pub(crate) arrived: usize,
    /// Bytes it takes before a write is cut.
    capacity: usize,
    /// A write was cut: its writer wants to know when there is room.
    pub(crate) waited_for: bool,
    /// Nothing arrives before what was written before it.
    pub(crate) last: Instant,
    /// What was read and not used yet: the reader's buffer.
    pub(crate) unread: Vec<u8>,
    /// The writer closed: true if its bytes are lost with it.
    pub(crate) closed: Option<bool>,
}

impl Pipe {
    pub(crate) fn new(capacity: usize) -> Self {
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
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.capacity.saturating_sub(self.bytes.len()));
        self.bytes.extend(&bytes[..taken]);
        self.waited_for |= taken < bytes.len();
        taken
    }

    /// Moves at most `max` bytes from what has arrived to the reader's buffer. Whether there were any.
    pub(crate) fn read(&mut self, max: usize) -> bool {
        let taken = self.arrived.min(max);
        self.arrived -= taken;
        self.unread.extend(self.bytes.drain(..taken));
        taken > 0
    }
}

/// One connection, from its dial to the moment both ends are gone.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) device: usize,
    /// The device's name for it, once accepted.
    pub(crate) conn: Option<ConnId>,
    /// Bytes to the device, and to the server.
    pub(crate) down: Pipe,
    pub(crate) up: Pipe,
    /// Which ends are open.
    pub(crate) server: bool,
    pub(crate) client: bool,
    /// The cable is out: nothing arrives any more, and nobody is told.
    pub(crate) cut: bool,
    /// The server reads no more.
    pub(crate) deaf: bool,
}

impl Link {
    pub(crate) fn new(device: usize, capacity: usize) -> Self {
        Self {
            device,
            conn: None,
            down: Pipe::new(capacity),
            up: Pipe::new(capacity),
            server: true,
            client: true,
            cut: false,
            deaf: false,
        }
    }
}
