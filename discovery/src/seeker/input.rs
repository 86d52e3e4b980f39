//! What a datagram does to a device.

use core::time::Duration;

use wire_format::datagram::ack::Code;
use wire_format::datagram::header::Kind;
use wire_format::datagram::{Ack, Beacon, Bye, Challenge, Seek};
use wire_format::time::Instant;

use super::server::Server;
use super::{Away, Echo, ROAM_AFTER, Seeker};
use crate::event::{Dropped, SeekerEvent};
use crate::link::Arrival;

/// Shortest and longest wait a server's goodbye can ask for. Unauthenticated, it must not silence a device for hours.
const AWAY_MIN_S: u16 = 5;
const AWAY_MAX_S: u16 = 60;
/// Over how long the devices a server left spread their return.
const AWAY_SPREAD: Duration = Duration::from_secs(10);
/// Wait after a refusal that names none.
const REFUSED_S: u8 = 60;

impl Seeker {
    /// Everything that depends on the source and the header alone, then the kind.
    pub(super) fn receive(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]) -> Result<(), Dropped> {
        let header = self.screen.open(arrival, bytes)?;
        let from_server = header.from.is_server();
        if from_server == (header.kind == Kind::Seek) {
            return Err(Dropped::Misdirected);
        }
        if !self.buckets.take(now, *arrival.source.ip()) {
            return Err(Dropped::Rate);
        }
        let taken = match header.kind {
            Kind::Seek => {
                let seek = Seek::parse(bytes)?;
                self.check_shared(seek.auth, bytes)?;
                self.other_seek(&seek)
            }
            Kind::Beacon => {
                let beacon = Beacon::parse(bytes)?;
                self.check_shared(beacon.auth, bytes)?;
                match self.config.store {
                    Some(_) => self.beacon(now, arrival, &beacon),
                    None => self.candidates.hear(now, arrival, &beacon),
                }
            }
            Kind::Ack => {
                let ack = Ack::parse(bytes)?;
                self.check_own(ack.auth, bytes)?;
                self.ack(now, arrival, &ack)
            }
            Kind::Bye => {
                let bye = Bye::parse(bytes)?;
                self.check_shared(bye.auth, bytes)?;
                match self.config.store {
                    Some(_) => self.server_bye(now, &bye),
                    None => self.candidates.handle_bye(arrival, &bye),
                }
            }
            Kind::Challenge => {
                let challenge = Challenge::parse(bytes)?;
                self.check_own(challenge.auth, bytes)?;
                self.challenge(arrival, &challenge, bytes.len())
            }
            Kind::Announce => Err(Dropped::Misdirected),
        };
        if taken.is_ok() {
            self.stats.count_received(header.kind);
        }
        taken
    }

    /// One SEEK from anybody makes the server tell everybody.
    fn other_seek(&mut self, seek: &Seek<'_>) -> Result<(), Dropped> {
        self.screen.sought(&seek.from, seek.store)?;
        let trickle = self.trickle.as_mut().ok_or(Dropped::Unexpected)?;
        // One SEEK heard through two interfaces, or twice around a loop, is one.
        let this = (seek.from.id, seek.from.sequence);
        if core::mem::replace(&mut self.last_seek, this) == this {
            return Err(Dropped::Duplicate);
        }
        trickle.hear(seek.suppressed);
        Ok(())
    }

    fn beacon(&mut self, now: Instant, arrival: &Arrival, beacon: &Beacon<'_>) -> Result<(), Dropped> {
        self.screen.store(beacon.store)?;
        let keyed = self.keys().is_some();
        if let Some(server) = self.server.as_mut().filter(|server| server.id == beacon.from.id) {
            if server.epoch != beacon.from.epoch {
                return self.found(now, arrival, beacon);
            }
            server.take(beacon.from.sequence, keyed)?;
            self.same_server(now, arrival, beacon)
        } else if self.stays(beacon) {
            Err(Dropped::Unexpected)
        } else {
            self.found(now, arrival, beacon)
        }
    }

    /// Whether the device prefers the server it has: always while that one knows it; before, if it is the better one and
    /// has not refused or left. In authenticated mode only a server that knows it has a claim.
    fn stays(&self, other: &Beacon<'_>) -> bool {
        let usable = self.away.is_none() && self.refused.is_none();
        let better = |server: &Server| server.registered || self.keys().is_none() && !server.yields_to(other);
        usable && self.server.as_ref().is_some_and(better)
    }

    /// A server, or another boot of it: the device registers somewhere in its reply window.
    fn found(&mut self, now: Instant, arrival: &Arrival, beacon: &Beacon<'_>) -> Result<(), Dropped> {
        if self.takes_hints() {
            return self.hinted(now, arrival, beacon);
        }
        if !beacon.selects(self.config.id) {
            if let Some(trickle) = &mut self.trickle {
                trickle.hush();
            }
            return Ok(());
        }
        if !self.register.may_start(now) {
            return Err(Dropped::Rate);
        }
        let server = Server::from_beacon(now, arrival, beacon);
        let event = SeekerEvent::ServerFound { id: server.id, address: server.address() };
        self.server = Some(server);
        self.answers = beacon.token();
        self.heard_server(now);
        self.trickle = None;
        self.away = None;
        self.refused = None;
        self.draw_nonce();
        self.register.begin(now, window(beacon), &mut self.rng);
        self.news.push(event);
        Ok(())
    }

    /// The boot we know speaks again.
    fn same_server(&mut self, now: Instant, arrival: &Arrival, beacon: &Beacon<'_>) -> Result<(), Dropped> {
        let keyed = self.keys().is_some();
        let Some(server) = &mut self.server else { return Err(Dropped::Unexpected) };
        let elsewhere = server.source.ip() != arrival.source.ip() || server.link != arrival.link;
        let roams = elsewhere && now.since(server.heard) > ROAM_AFTER;
        if keyed && roams {
            return self.hinted(now, arrival, beacon);
        }
        let returned = self.away.take().is_some();
        server.learn(beacon);
        if roams {
            (server.source, server.link) = (arrival.source, arrival.link);
            server.by_seed = false;
            self.answers = beacon.token();
            self.register.begin(now, window(beacon), &mut self.rng);
        } else {
            self.register.widen(now, window(beacon));
        }
        if returned {
            self.returned(now, beacon);
        }
        if let Some(server) = self.server.as_mut().filter(|_| !elsewhere || returned) {
            server.heard = now;
        }
        self.heard_server(now);
        Ok(())
    }

    /// The goodbye was not its own, or was taken back: nothing was lost, and nobody has to announce.
    fn returned(&mut self, now: Instant, beacon: &Beacon<'_>) {
        let Some(server) = &self.server else { return };
        let (id, address) = (server.id, server.address());
        self.news.push(SeekerEvent::ServerFound { id, address });
        if server.registered {
            self.news.push(SeekerEvent::Registered { id, address });
            self.register.acked(now, server.lease(), self.linked, &mut self.rng);
        } else {
            self.register.begin(now, window(beacon), &mut self.rng);
        }
    }

    fn ack(&mut self, now: Instant, arrival: &Arrival, ack: &Ack<'_>) -> Result<(), Dropped> {
        if self.away.is_some() || !self.register.is_answered_by(ack.announce_sequence) {
            return Err(Dropped::Unexpected);
        }
        if !self.is_echoed(ack.nonce) {
            return Err(Dropped::Cookie);
        }
        self.settle_hint(arrival, ack);
        match &self.server {
            Some(server) if server.id != ack.from.id => return Err(Dropped::Unknown),
            None if !self.is_seed(arrival) => return Err(Dropped::Unknown),
            _ => {}
        }
        self.draw_nonce();
        match ack.status.code {
            Code::OK => self.registered(now, arrival, ack),
            Code::BUSY => self.try_later(now, ack.status.retry_after_s.max(1)),
            code if Code::NAMES.iter().any(|(known, _)| *known == code) => {
                self.turned_away(now, ack.from.id, code, ack.status.retry_after_s);
            }
            _ => self.try_later(now, ack.status.retry_after_s.max(1)),
        }
        Ok(())
    }

    fn registered(&mut self, now: Instant, arrival: &Arrival, ack: &Ack<'_>) {
        let found = self.server.is_none();
        let server = self.server.get_or_insert_with(|| Server::from_ack(now, arrival, ack));
        let again = server.epoch != ack.from.epoch;
        let news = !server.registered || again;
        server.heard = now;
        server.grant(ack);
        let (id, address, lease) = (server.id, server.address(), server.lease());
        if found || again {
            self.news.push(SeekerEvent::ServerFound { id, address });
        }
        if news {
            self.news.push(SeekerEvent::Registered { id, address });
        }
        self.answers = 0;
        self.refused = None;
        self.trickle = None;
        self.heard_server(now);
        self.register.acked(now, lease, self.linked, &mut self.rng);
    }

    /// Refused. Told once per reason; tried again after a while, for the reason may pass.
    fn turned_away(&mut self, now: Instant, id: wire_format::ids::NodeId, status: Code, retry_after_s: u8) {
        if let Some(server) = &mut self.server {
            server.registered = false;
        }
        if self.refused.replace(status) != Some(status) {
            self.news.push(SeekerEvent::Refused { id, status });
        }
        self.heard_server(now);
        self.try_later(now, if retry_after_s == 0 { REFUSED_S } else { retry_after_s });
    }

    fn try_later(&mut self, now: Instant, after_s: u8) {
        let after = Duration::from_secs(u64::from(after_s));
        self.register.again(now, after, after * 3 / 2, &mut self.rng);
    }

    /// The server leaves. The devices return spread out, and at once when they hear it again.
    fn server_bye(&mut self, now: Instant, bye: &Bye<'_>) -> Result<(), Dropped> {
        self.screen.store(bye.store)?;
        let keyed = self.keys().is_some();
        let server =
            self.server.as_mut().filter(|server| server.id == bye.from.id).ok_or(Dropped::Unknown)?;
        if server.epoch != bye.from.epoch {
            return Err(Dropped::Stale);
        }
        server.take(bye.from.sequence, keyed)?;
        // Every node of the store could have said it; a session that lives says otherwise.
        if keyed && self.linked {
            return Err(Dropped::Unexpected);
        }
        if self.away.is_some() {
            return Err(Dropped::Duplicate);
        }
        let after = Duration::from_secs(u64::from(bye.retry_after_s.clamp(AWAY_MIN_S, AWAY_MAX_S)));
        let until = now + self.rng.between(after, after + AWAY_SPREAD);
        self.away = Some(Away { until });
        self.register.silence();
        self.news.push(SeekerEvent::ServerLeft { id: server.id, reason: bye.reason });
        Ok(())
    }

    /// A server asks whether this device is there: it is, and says so in as many bytes.
    fn challenge(&mut self, arrival: &Arrival, challenge: &Challenge<'_>, len: usize) -> Result<(), Dropped> {
        if challenge.answer {
            return Err(Dropped::Misdirected);
        }
        if self.challenged(arrival, challenge)? {
            return Ok(());
        }
        self.echo =
            Some(Echo { to: arrival.source, link: arrival.link, nonce: challenge.nonce, budget: len });
        Ok(())
    }
}

pub(super) fn window(beacon: &Beacon<'_>) -> Duration {
    Duration::from_millis(u64::from(beacon.window_ms))
}
