//! What a device sends: SEEK, ANNOUNCE, BYE and answers to CHALLENGE.

use wire_format::datagram::bye::Reason;
use wire_format::datagram::{
    Announce, Bye, Challenge, CodeRef, Kind, Node, Seek, StoreRef, TagsRef, TextRef,
};
use wire_format::error::EmitError;
use wire_format::time::Instant;

use super::{Echo, Seeker};
use crate::config::{ANNOUNCE_LEN_MIN, AUTH_LEN, BEACON_LEN_MAX};
use crate::link::{Destination, LinkId, Transmit};

impl Seeker {
    /// The next datagram. A goodbye first, then an answer, then the ANNOUNCE, then SEEKs.
    pub(super) fn transmit(&mut self, _now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        loop {
            let (to, kind, emitted) = if self.farewell.take_link().is_some() {
                (self.to_server()?, Kind::Bye, self.emit_bye(buffer))
            } else if let Some(echo) = self.echo.take() {
                (Destination::Unicast(echo.link, echo.to), Kind::Challenge, self.emit_echo(&echo, buffer))
            } else if let Some(to) = self.repeat_to.take() {
                (to, Kind::Announce, self.emit_announce(buffer))
            } else if self.register.take_pending() {
                let turn = self.take_turn().or_else(|| self.to_server());
                let Some(to) = turn.or_else(|| self.next_seed()) else { continue };
                self.register.sent_when_due();
                (to, Kind::Announce, self.emit_announce(buffer))
            } else if self.seek_on != 0 {
                let link = LinkId(u8::try_from(self.seek_on.trailing_zeros()).unwrap_or(0));
                self.seek_on &= self.seek_on.wrapping_sub(1);
                (Destination::Broadcast(link), Kind::Seek, self.emit_seek(buffer))
            } else {
                return None;
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

    fn to_server(&self) -> Option<Destination> {
        self.server.as_ref().map(|server| Destination::Unicast(server.link, server.source))
    }

    fn next_seed(&mut self) -> Option<Destination> {
        let seeds = self.config.seeds.iter().flatten().count().max(1);
        let at = usize::from(self.seed_turn) % seeds;
        self.seed_turn = u8::try_from(at.wrapping_add(1)).unwrap_or(0);
        let seed = self.config.seeds.iter().flatten().nth(at)?;
        Some(Destination::Unicast(LinkId::ROUTED, *seed))
    }

    /// Our header, with the next sequence number.
    fn node(&mut self) -> Node {
        self.sequence = self.sequence.wrapping_add(1);
        Node {
            epoch: self.config.epoch,
            epoch_random: self.config.epoch_random,
            sequence: self.sequence,
            port: self.config.port,
            lease_s: crate::config::LEASE_MIN_S,
            ..self.screen.node(self.config.kind)
        }
    }

    fn emit_seek(&mut self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let suppressed = self.trickle.as_mut().map_or(0, |trickle| trickle.take_suppressed());
        let from = Node { broadcast_copy: true, ..self.node() };
        let padding = if self.keys().is_some() { AUTH_LEN } else { 0 };
        let seek = Seek {
            from,
            suppressed,
            store: self.config.store.as_ref().map(StoreRef::from),
            name: TextRef::new(self.config.name.as_str()),
            pad_to: BEACON_LEN_MAX.saturating_add(padding) as u16,
            auth: self.open_shared(),
        };
        let len = seek.emit(buffer)?;
        self.sign_shared(buffer, len)
    }

    fn emit_announce(&mut self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let from = Node { retransmit: self.register.is_repeated(), want_ack: true, ..self.node() };
        self.register.sent(from.sequence);
        let config = &self.config;
        let announce = Announce {
            from,
            answers: self.answers,
            store: config.store.as_ref().map(StoreRef::from),
            name: TextRef::new(config.name.as_str()),
            services: config.services.as_services(),
            addrs: None,
            firmware: config.firmware,
            caps: config.caps,
            zone: config.zone,
            tags: TagsRef::new(&config.tags),
            code: CodeRef::new(config.code.as_str()),
            nonce: Some(self.announce_nonce()),
            app: None,
            pad_to: ANNOUNCE_LEN_MIN as u16,
            auth: self.open_own(),
        };
        let len = announce.emit(buffer)?;
        self.sign_own(buffer, len)
    }

    fn emit_echo(&mut self, echo: &Echo, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let from = self.node();
        let room = echo.budget.min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let answer = Challenge { from, answer: true, nonce: echo.nonce, auth: self.open_own() };
        let len = answer.emit(buffer)?;
        self.sign_own(buffer, len)
    }

    fn emit_bye(&mut self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let from = self.node();
        let store = self.config.store.as_ref().map(StoreRef::from);
        let auth = self.open_own();
        let len = Bye { from, reason: Reason::LEAVING, retry_after_s: 0, store, auth }.emit(buffer)?;
        self.sign_own(buffer, len)
    }
}
