//! The network between the drivers: bytes take their time, come in pieces, or not at all.

use push::Closed;
use wire_format::time::Instant;

use super::network::LinkId;
use super::plan::MS;
use super::world::{Act, IN_FLIGHT_MAX, World};

impl World {
    /// What the sender's system takes; it arrives in pieces.
    pub(super) fn write(&mut self, id: LinkId, down: bool, bytes: &[u8]) -> usize {
        let arrives = self.arrival();
        let now = self.now;
        let Some(link) = self.links.at(id) else { return bytes.len() };
        if link.mute {
            return bytes.len();
        }
        let (device, chunk) = (link.device, link.chunk);
        let reset = link.reset_after.filter(|left| *left <= bytes.len());
        link.reset_after = link.reset_after.map(|left| left.saturating_sub(bytes.len()));
        let pipe = link.pipe(down);
        let written = pipe.write(&bytes[..reset.unwrap_or(bytes.len())]);
        let mut at = pipe.last.max(arrives);
        pipe.last = at;
        let dribbles = now < self.devices[device].dribbles_until;
        if chunk > 65_536 && !dribbles {
            if written > 0 {
                self.at(at, Act::Arrive { link: id, down, len: written });
            }
        } else {
            at = self.send_pieces(id, down, at, written, if dribbles { 1 } else { chunk.max(64) });
        }
        if reset.is_some() {
            self.reset_at(id, at);
            return bytes.len();
        }
        written
    }

    /// `left` bytes arrive in pieces, the first of them `at`. When nothing can overtake them any more.
    fn send_pieces(
        &mut self,
        id: LinkId,
        down: bool,
        mut at: Instant,
        mut left: usize,
        chunk: u64,
    ) -> Instant {
        let (now, dribbles) = (self.now, chunk == 1);
        while left > 0 {
            let len = left.min(1 + self.rng.below(chunk) as usize);
            left -= len;
            self.at(at, Act::Arrive { link: id, down, len });
            let pauses = dribbles || self.chance(20);
            if pauses && at.since(now) < IN_FLIGHT_MAX {
                at = at + MS * self.rng.below(30) as u32;
            }
        }
        if let Some(link) = self.links.at(id) {
            link.pipe(down).last = at;
        }
        at
    }

    /// Both ends see a reset, each when it arrives there.
    fn reset_at(&mut self, id: LinkId, at: Instant) {
        let Some(link) = self.links.at(id) else { return };
        (link.reset_after, link.mute) = (None, true);
        for down in [true, false] {
            let after = self.some_delay();
            self.at(at + after, Act::Close { link: id, down, reset: true });
        }
    }

    /// Until when nothing passes that way.
    fn blocked_until(&mut self, id: LinkId, down: bool) -> Option<Instant> {
        let device = self.links.at(id)?.device;
        Some(self.devices[device].blocked[usize::from(!down)]).filter(|until| *until > self.now)
    }

    pub(super) fn arrive(&mut self, id: LinkId, down: bool, len: usize) {
        let Some(it) = self.links.at(id) else { return };
        // Nothing passes that way, or the server that would see it stands still.
        let until = self.devices[it.device].blocked[usize::from(!down)];
        let until = if down { until } else { until.max(self.servers[it.server].paused_until) };
        if until > self.now {
            return self.at(until, Act::Arrive { link: id, down, len });
        }
        if it.cut {
            return;
        }
        if !if down { it.device_open } else { it.server_open } {
            // Nobody reads there: the writer is told.
            let delay = self.plan.delay;
            return self.later(delay, Act::Close { link: id, down: !down, reset: true });
        }
        it.pipe(down).arrived += len;
        if down { self.read_device(id) } else { self.read_server(id) }
    }

    pub(super) fn closed(&mut self, id: LinkId, down: bool, reset: bool) {
        if let Some(until) = self.blocked_until(id, down) {
            return self.at(until, Act::Close { link: id, down, reset });
        }
        let Some(it) = self.links.at(id) else { return };
        let pipe = it.pipe(down);
        pipe.closed = Some(reset || pipe.closed == Some(true));
        if reset {
            pipe.arrived = 0;
        }
        if down { self.read_device(id) } else { self.read_server(id) }
    }

    /// The server's side of a connection is over.
    pub(super) fn server_end_is_over(&mut self, id: LinkId) {
        let Some(it) = self.links.at(id) else { return };
        let (server, index) = (it.server, it.index);
        let how = if it.up.closed == Some(true) { Closed::Reset } else { Closed::Eof };
        if !it.server_open || !self.servers[server].is_linked(index, id) {
            return;
        }
        it.server_open = false;
        self.servers[server].linked[index.0 as usize] = None;
        self.links.bury(id);
        let now = self.now;
        self.with_server(server, |fleet, _| fleet.handle_closed(now, index, how));
    }

    /// Bytes were read: a writer that was cut short may go on.
    pub(super) fn give_room(&mut self, id: LinkId, down: bool) {
        let delay = self.plan.delay;
        if let Some(link) = self.links.at(id)
            && core::mem::take(&mut link.pipe(down).waited_for)
        {
            self.later(delay, Act::Room { link: id, down });
        }
    }

    pub(super) fn room(&mut self, id: LinkId, down: bool) {
        let now = self.now;
        let Some(it) = self.links.at(id) else { return };
        let (server, index, device, conn) = (it.server, it.index, it.device, it.conn);
        if down {
            if it.server_open && self.servers[server].is_linked(index, id) {
                self.with_server(server, |fleet, _| fleet.handle_writable(now, index));
            }
        } else if let (true, Some(conn)) = (it.device_open, conn) {
            self.with_receiver(device, |receiver, now| receiver.handle_writable(now, conn));
            self.read_device(id);
        }
    }

    pub(super) fn read_on(&mut self, id: LinkId, down: bool) {
        if down { self.read_device(id) } else { self.read_server(id) }
    }

    /// One end closes; the other learns it after what was written before.
    pub(super) fn close_end(&mut self, id: LinkId, of_server: bool, reset: bool) {
        let (now, delay) = (self.now, self.plan.delay);
        let Some(it) = self.links.at(id) else { return };
        let open = if of_server { &mut it.server_open } else { &mut it.device_open };
        if !core::mem::take(open) {
            return;
        }
        let (cut, after) = (it.cut, it.pipe(of_server).last);
        if !cut {
            self.at(after.max(now) + delay, Act::Close { link: id, down: of_server, reset });
        }
        self.links.bury(id);
    }

    /// Who had this end has lost its power: nobody is told, and nobody answers.
    pub(super) fn cut_end(&mut self, id: LinkId, of_server: bool) {
        let Some(it) = self.links.at(id) else { return };
        it.cut = true;
        *(if of_server { &mut it.server_open } else { &mut it.device_open }) = false;
        self.links.bury(id);
    }
}
