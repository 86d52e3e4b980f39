//! The network between the drivers: bytes take their time, come in pieces, or not at all.

use push::Closed;
use testkit::pipe::Pipe;

use crate::world::{Act, MS, World, index};

impl World {
    pub(crate) fn pipe(&mut self, link: usize, down: bool) -> Option<&mut Pipe> {
        self.links.get_mut(&link).map(|link| if down { &mut link.down } else { &mut link.up })
    }

    /// What the sender's system takes; it arrives in pieces.
    pub(crate) fn write(&mut self, link: usize, down: bool, bytes: &[u8]) -> usize {
        let delay = self.some_delay();
        let now = self.now;
        let Some(pipe) = self.pipe(link, down) else { return bytes.len() };
        let written = pipe.write(bytes);
        let mut at = pipe.last.max(now + delay);
        pipe.last = at;
        let mut left = written;
        while left > 0 {
            let len = left.min(1 + self.rng.below(self.chunk.max(64)) as usize);
            left -= len;
            self.at(at, Act::Arrive { link, down, len });
            if self.chance(20) {
                at = at + MS * self.rng.below(30) as u32;
            }
        }
        if let Some(pipe) = self.pipe(link, down) {
            pipe.last = at;
        }
        written
    }

    pub(crate) fn arrive(&mut self, link: usize, down: bool, len: usize) {
        let Some(it) = self.links.get_mut(&link) else { return };
        let reader = if down { it.client } else { it.server };
        if it.cut {
            return;
        }
        if !reader {
            // Nobody reads there: the writer is told.
            self.totals.resets += 1;
            let delay = self.delay;
            return self.later(delay, Act::Close { link, down: !down, reset: true });
        }
        if let Some(pipe) = self.pipe(link, down) {
            pipe.arrived += len;
        }
        if down { self.read_device(link) } else { self.read_server(link) }
    }

    pub(crate) fn closed(&mut self, link: usize, down: bool, reset: bool) {
        let Some(pipe) = self.pipe(link, down) else { return };
        pipe.closed = Some(reset || pipe.closed == Some(true));
        if reset {
            pipe.arrived = 0;
        }
        if down {
            return self.read_device(link);
        }
        self.read_server(link);
        let Some(it) = self.links.get_mut(&link) else { return };
        let device = it.device;
        if it.server && self.linked[device] == Some(link) {
            it.server = false;
            self.linked[device] = None;
            let how = if reset { Closed::Reset } else { Closed::Eof };
            self.fleet.handle_closed(self.now, index(device), how);
            self.bury(link);
            self.serve_fleet();
        }
    }

    /// Bytes were read: a writer that was cut short may go on.
    pub(crate) fn give_room(&mut self, link: usize, down: bool) {
        let delay = self.delay;
        if let Some(pipe) = self.pipe(link, down)
            && core::mem::take(&mut pipe.waited_for)
        {
            self.later(delay, Act::Room { link, down });
        }
    }

    pub(crate) fn room(&mut self, link: usize, down: bool) {
        let Some(it) = self.links.get(&link) else { return };
        let (device, conn) = (it.device, it.conn);
        if down {
            if it.server && self.linked[device] == Some(link) {
                self.fleet.handle_writable(self.now, index(device));
                self.serve_fleet();
            }
        } else if let (true, Some(conn)) = (it.client, conn) {
            self.with_receiver(device, |receiver, now| receiver.handle_writable(now, conn));
            self.read_device(link);
        }
    }

    /// A connection without ends is forgotten.
    pub(crate) fn bury(&mut self, link: usize) {
        if self.links.get(&link).is_some_and(|link| !link.server && !link.client) {
            self.links.remove(&link);
        }
    }
}
