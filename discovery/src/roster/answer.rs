//! What the server sends: ACK, CHALLENGE, BEACON, BYE.

use core::net::SocketAddrV4;

use wire_format::datagram::ack::Code;
use wire_format::datagram::{
    Ack, Announce, Beacon, Bye, Challenge, Kind, Node, Nonce, Status, StoreRef, TextRef,
};
use wire_format::error::EmitError;
use wire_format::ids::DeviceKind;
use wire_format::time::Instant;

use super::Roster;
use super::beacons::Call;
use super::slot::Slot;
use super::table::{Queue, Ring};
use crate::config::BEACON_LEN_MAX;
use crate::link::{Arrival, Destination, LinkId, Transmit};

/// ACKs waiting to leave. One input makes one; the rest is room for a caller that drains late. A device whose ACK found
/// no room announces again.
const REPLIES_MAX: usize = 16;

/// An ACK to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    to: SocketAddrV4,
    link: LinkId,
    /// Bytes of the announce: the ACK may not be longer.
    budget: usize,
    announce_sequence: u32,
    nonce: Option<Nonce>,
    status: Status,
}

/// A ring of replies.
#[derive(Debug)]
pub(super) struct Replies {
    ring: [Option<Reply>; REPLIES_MAX],
    head: usize,
    len: usize,
}

impl Replies {
    pub(super) const fn new() -> Self {
        Self { ring: [None; REPLIES_MAX], head: 0, len: 0 }
    }

    /// `false` if there is no room.
    fn push(&mut self, reply: Reply) -> bool {
        let at = self.head.wrapping_add(self.len) % REPLIES_MAX;
        match self.ring.get_mut(at) {
            Some(place) if self.len < REPLIES_MAX => *place = Some(reply),
            _ => return false,
        }
        self.len = self.len.wrapping_add(1);
        true
    }

    fn pop(&mut self) -> Option<Reply> {
        let reply = self.ring.get_mut(self.head)?.take()?;
        self.head = self.head.wrapping_add(1) % REPLIES_MAX;
        self.len = self.len.wrapping_sub(1);
        Some(reply)
    }
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Roster<S> {
    /// An ACK for `announce` wants to leave.
    pub(super) fn reply(
        &mut self,
        arrival: &Arrival,
        announce: &Announce<'_>,
        budget: usize,
        code: Code,
        retry_after_s: u8,
    ) {
        let reply = Reply {
            to: arrival.source,
            link: arrival.link,
            budget,
            announce_sequence: announce.from.sequence,
            nonce: announce.nonce,
            status: Status { code, retry_after_s, detail: 0 },
        };
        if !self.replies.push(reply) {
            self.stats.answers_dropped = self.stats.answers_dropped.wrapping_add(1);
        }
    }

    /// The next datagram. Goodbyes first, then answers, then questions, then beacons.
    pub(super) fn transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        loop {
            let (to, kind, emitted) = if let Some(link) = self.farewell.take_link() {
                (Destination::Broadcast(link), Kind::Bye, self.emit_bye(buffer))
            } else if let Some(reply) = self.replies.pop() {
                (Destination::Unicast(reply.link, reply.to), Kind::Ack, self.emit_ack(&reply, buffer))
            } else if let Some(at) = self.table.head(Queue::Probe) {
                self.table.remove(Ring::Probe, at);
                let origin = self.table.at(at).origin;
                let to = Destination::Unicast(origin.link, origin.source);
                (to, Kind::Challenge, self.emit_probe(at, buffer))
            } else {
                let link = self.beacons.take(now)?;
                (Destination::Broadcast(link), Kind::Beacon, self.emit_beacon(now, buffer))
            };
            match emitted {
                Ok(len) => {
                    self.stats.count_sent(kind, len);
                    return Some(Transmit { to, len });
                }
                Err(_) => self.stats.answers_dropped = self.stats.answers_dropped.wrapping_add(1),
            }
        }
    }

    /// Our header, with the next sequence number.
    fn node(&mut self, broadcast_copy: bool) -> Node {
        self.sequence = self.sequence.wrapping_add(1);
        Node {
            epoch: self.config.epoch,
            epoch_random: self.config.epoch_random,
            sequence: self.sequence,
            port: self.config.port,
            lease_s: self.config.lease_s,
            broadcast_copy,
            ..self.screen.node(DeviceKind::SERVER)
        }
    }

    fn emit_ack(&mut self, reply: &Reply, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Reply { announce_sequence, status, nonce, budget, .. } = *reply;
        let ack = Ack { from: self.node(false), announce_sequence, status, nonce, auth: None };
        let room = budget.min(buffer.len());
        ack.emit(buffer.get_mut(..room).unwrap_or_default())
    }

    fn emit_probe(&mut self, at: u32, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let nonce = self.cookie(at);
        Challenge { from: self.node(false), answer: false, nonce, auth: None }.emit(buffer)
    }

    /// What the answer to the question open for this slot must carry.
    pub(super) fn cookie(&self, at: u32) -> Nonce {
        let slot = self.table.at(at);
        Nonce::Short(self.secret.cookie(slot.id, u64::from(slot.ask_number)))
    }

    fn emit_beacon(&mut self, now: Instant, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let present = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let call = self.beacons.call(now, &self.config, present);
        let from = self.node(true);
        beacon(&self.config, from, call).emit(buffer)
    }

    fn emit_bye(&mut self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let from = self.node(true);
        Bye {
            from,
            reason: self.reason,
            retry_after_s: self.retry_after_s,
            store: Some(StoreRef::from(&self.config.store)),
            auth: None,
        }
        .emit(buffer)
    }
}

/// The server's statement.
fn beacon(config: &crate::config::ServerConfig, from: Node, call: Call) -> Beacon<'_> {
    Beacon {
        from,
        window_ms: call.window_ms,
        select_bits: call.select_bits,
        // Another sample after each restart.
        select_salt: from.epoch.to_le_bytes()[0],
        store: Some(StoreRef::from(&config.store)),
        name: TextRef::new(config.name.as_str()),
        services: config.services.as_services(),
        addrs: None,
        priority: Some(config.priority),
        caps: None,
        auth: None,
    }
}

/// Bytes of this server's beacons: a SEEK that is shorter is not answered.
pub(super) fn beacon_len(config: &crate::config::ServerConfig) -> usize {
    let from = Node::new(config.id, DeviceKind::SERVER);
    let call = Call { window_ms: 0, select_bits: 0 };
    beacon(config, from, call).emit(&mut [0; BEACON_LEN_MAX]).unwrap_or(BEACON_LEN_MAX)
}
