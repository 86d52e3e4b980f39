//! What the server sends: ACK, CHALLENGE, BEACON, BYE.

use core::net::SocketAddrV4;

use wire_format::datagram::ack::Code;
use wire_format::datagram::{
    Ack, Announce, Auth, Beacon, Bye, Challenge, Kind, Node, Nonce, Status, StoreRef, TextRef,
};
use wire_format::error::EmitError;
use wire_format::ids::{DeviceKind, NodeId};
use wire_format::time::Instant;

use super::Roster;
use super::beacons::Call;
use super::slot::Slot;
use super::table::{Queue, Ring};
use crate::auth::{self, Keys};
use crate::config::{AUTH_LEN, BEACON_LEN_MAX};
use crate::link::{Arrival, Destination, LinkId, Transmit};

/// ACKs waiting to leave. One input makes one; the rest is room for a caller that drains late. A device whose ACK found
/// no room announces again.
const REPLIES_MAX: usize = 16;

/// An answer to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    to: SocketAddrV4,
    link: LinkId,
    /// Bytes of the announce: the answer may not be longer.
    budget: usize,
    device: NodeId,
    /// The key of the announce.
    key_id: Option<u16>,
    what: Answer,
}

/// What an ANNOUNCE is answered with.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Ack {
        announce_sequence: u32,
        nonce: Option<Nonce>,
        status: Status,
    },
    /// A CHALLENGE: say it again with this cookie.
    Prove([u8; 8]),
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

impl<S: AsRef<[Slot]> + AsMut<[Slot]>, K: Keys> Roster<S, K> {
    /// An ACK for `announce` wants to leave.
    pub(super) fn reply(
        &mut self,
        arrival: &Arrival,
        announce: &Announce<'_>,
        budget: usize,
        code: Code,
        retry_after_s: u8,
    ) {
        let status = Status { code, retry_after_s, detail: 0 };
        let (announce_sequence, nonce) = (announce.from.sequence, announce.nonce);
        self.push_reply(arrival, announce, budget, Answer::Ack { announce_sequence, nonce, status });
    }

    /// A question wants to leave: `announce` may be a recording.
    pub(super) fn ask_for_proof(
        &mut self,
        arrival: &Arrival,
        announce: &Announce<'_>,
        budget: usize,
        cookie: [u8; 8],
    ) {
        self.push_reply(arrival, announce, budget, Answer::Prove(cookie));
    }

    fn push_reply(&mut self, arrival: &Arrival, announce: &Announce<'_>, budget: usize, what: Answer) {
        // In clear mode nobody has the key that was named.
        let key_id = announce.auth.filter(|_| self.keys.required()).map(|auth| auth.key_id);
        let (to, link, device) = (arrival.source, arrival.link, announce.from.id);
        if !self.replies.push(Reply { to, link, budget, device, key_id, what }) {
            self.stats.answers_dropped = self.stats.answers_dropped.wrapping_add(1);
        }
    }

    /// The next datagram. Goodbyes first, then answers, then questions, then beacons.
    pub(super) fn transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        loop {
            let (to, kind, emitted) = if let Some(link) = self.farewell.take_link() {
                (Destination::Broadcast(link), Kind::Bye, self.emit_bye(buffer))
            } else if let Some(reply) = self.replies.pop() {
                let kind = if let Answer::Ack { .. } = reply.what { Kind::Ack } else { Kind::Challenge };
                (Destination::Unicast(reply.link, reply.to), kind, self.emit_reply(&reply, buffer))
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

    fn emit_reply(&mut self, reply: &Reply, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Reply { device, key_id, budget, what, .. } = *reply;
        let (from, auth) = (self.node(false), key_id.map(auth::open));
        let room = budget.min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let len = match what {
            Answer::Ack { announce_sequence, nonce, status } => {
                Ack { from, announce_sequence, status, nonce, auth }.emit(buffer)
            }
            Answer::Prove(cookie) => {
                Challenge { from, answer: false, nonce: Nonce::Short(cookie), auth }.emit(buffer)
            }
        }?;
        self.sign_for(device, key_id, buffer, len)
    }

    fn emit_probe(&mut self, at: u32, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let (nonce, slot) = (self.cookie(at), self.table.at(at));
        let (device, last) = (slot.id, slot.key_id);
        let key_id = match self.keys.announce_key(device, last) {
            Ok(_) => Some(last),
            Err(_) if self.keys.required() => self.keys.current_key_id(device).ok(),
            Err(_) => None,
        };
        let question =
            Challenge { from: self.node(false), answer: false, nonce, auth: key_id.map(auth::open) };
        if key_id.is_none() && self.keys.required() {
            return Err(EmitError::Invalid { field: "AUTH" });
        }
        let len = question.emit(buffer)?;
        self.sign_for(device, key_id, buffer, len)
    }

    /// Completes a datagram for this device alone; without a key, in clear mode, it is complete.
    fn sign_for(
        &self,
        device: NodeId,
        key_id: Option<u16>,
        buffer: &mut [u8],
        len: usize,
    ) -> Result<usize, EmitError> {
        match key_id {
            Some(key_id) => auth::sign(buffer, len, self.keys.announce_key(device, key_id)),
            None => Ok(len),
        }
    }

    /// Completes a datagram for everybody.
    fn sign_for_all(&self, buffer: &mut [u8], len: usize) -> Result<usize, EmitError> {
        match &self.beacon_keys {
            Some(keys) => auth::sign(buffer, len, Ok(keys.current())),
            None => Ok(len),
        }
    }

    fn open_for_all(&self) -> Option<Auth<'static>> {
        self.beacon_keys.as_ref().map(|keys| auth::open(keys.current_id()))
    }

    /// What the answer to the question open for this slot must carry.
    pub(super) fn cookie(&self, at: u32) -> Nonce {
        let slot = self.table.at(at);
        Nonce::Short(self.secret.cookie(slot.id, u64::from(slot.ask_number)))
    }

    fn emit_beacon(&mut self, now: Instant, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let present = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let call = self.beacons.call(now, &self.config, present, self.table.len_u32(Queue::Unconfirmed));
        let from = self.node(true);
        let beacon = Beacon { auth: self.open_for_all(), ..beacon(&self.config, from, call) };
        let len = beacon.emit(buffer)?;
        self.sign_for_all(buffer, len)
    }

    fn emit_bye(&mut self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let (from, auth) = (self.node(true), self.open_for_all());
        let store = Some(StoreRef::from(&self.config.store));
        let bye = Bye { from, reason: self.reason, retry_after_s: self.retry_after_s, store, auth };
        let len = bye.emit(buffer)?;
        self.sign_for_all(buffer, len)
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
pub(super) fn beacon_len(config: &crate::config::ServerConfig, sealed: bool) -> usize {
    let from = Node::new(config.id, DeviceKind::SERVER);
    let call = Call { window_ms: 0, select_bits: 0 };
    let auth = sealed.then(|| auth::open(0));
    let beacon = Beacon { auth, ..beacon(config, from, call) };
    beacon.emit(&mut [0; BEACON_LEN_MAX + AUTH_LEN]).unwrap_or(BEACON_LEN_MAX + AUTH_LEN)
}
