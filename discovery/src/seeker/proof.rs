//! Authenticated mode: who said it, and what a BEACON may do.
//!
//! An ACK is under the device's own key and repeats a nonce nobody could know: it proves that the server is there now, at
//! the address the ANNOUNCE went to. A BEACON is under a key every node of the store has, and may be a recording of last
//! month: it is a **hint** of where a server might be, and worth an ANNOUNCE. It never takes the place of a server that
//! has proven itself; it stands beside it and is tried in turn, until one of the two answers.

use wire_format::datagram::{Ack, Auth, Beacon, Challenge, Node, Nonce};
use wire_format::error::EmitError;
use wire_format::time::Instant;

use super::Seeker;
use super::input::window;
use super::server::Server;
use crate::auth::{self, DeviceKeys, NoKey, Sighting};
use crate::event::{Dropped, SeekerEvent};
use crate::link::{Arrival, Destination};

/// A server that is not the preferred one gets a turn once the preferred one has let so many ANNOUNCEs pass.
const PATIENCE: u32 = 2;

/// Where a BEACON says that a server is, while another one is known.
#[derive(Clone, Debug)]
pub(super) struct Hint {
    pub(super) server: Server,
    /// It got an ANNOUNCE.
    tried: bool,
    /// The next ANNOUNCE is for it, and not for the server that is known.
    next: bool,
}

impl Hint {
    fn is_of(&self, from: &Node, arrival: &Arrival) -> bool {
        let Server { id, epoch, source, .. } = self.server;
        (id, epoch, source.ip()) == (from.id, from.epoch, arrival.source.ip())
    }
}

impl Seeker {
    /// The keys, if datagrams need a tag. A device that belongs to no store yet only lists whom it hears.
    pub(super) fn keys(&self) -> Option<&DeviceKeys> {
        self.keys.as_ref().filter(|_| self.config.store.is_some())
    }

    /// What the server says to this device alone is under this device's key.
    pub(super) fn check_own(&mut self, auth: Option<Auth<'_>>, bytes: &[u8]) -> Result<(), Dropped> {
        let keys = self.keys();
        let verified = keys.map(|keys| auth::verify(bytes, auth, |key_id| keys.announce.find(key_id)));
        self.count_checked(auth, verified)
    }

    /// What is said to everybody is under the store's key.
    pub(super) fn check_shared(&mut self, auth: Option<Auth<'_>>, bytes: &[u8]) -> Result<(), Dropped> {
        let keys = self.keys();
        let verified = keys.map(|keys| auth::verify(bytes, auth, |key_id| keys.beacon.find(key_id)));
        self.count_checked(auth, verified)
    }

    fn count_checked(
        &mut self,
        auth: Option<Auth<'_>>,
        verified: Option<Result<u16, Dropped>>,
    ) -> Result<(), Dropped> {
        let counter = match verified {
            Some(verified) => {
                verified?;
                &mut self.stats.received_authentic
            }
            None if auth.is_some() => &mut self.stats.received_auth_unverified,
            None => return Ok(()),
        };
        *counter = counter.wrapping_add(1);
        Ok(())
    }

    /// Whether the server has proven itself, so that no BEACON may take its place.
    fn is_proven(&self) -> bool {
        self.keys().is_some() && self.server.as_ref().is_some_and(|server| server.registered)
    }

    /// Whether a BEACON that speaks of another server, boot or address than the known one can only be a hint.
    pub(super) fn takes_hints(&self) -> bool {
        self.keys().is_some() && self.server.is_some() && (self.is_proven() || self.away.is_none())
    }

    /// A BEACON speaks of another server, boot or address than the known one.
    pub(super) fn hinted(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        beacon: &Beacon<'_>,
    ) -> Result<(), Dropped> {
        if let Some(hint) = self.hint.as_mut().filter(|hint| hint.is_of(&beacon.from, arrival)) {
            hint.server.take_shared(beacon.from.sequence)?;
            hint.server.learn(beacon);
            return Ok(());
        }
        if !beacon.selects(self.config.id) {
            return Ok(());
        }
        // A refusal that was acted on is proven as well.
        if self.is_proven() || self.refused.is_some() {
            return self.follow_hint(now, arrival, beacon);
        }
        let Some(server) = &mut self.server else { return Err(Dropped::Unexpected) };
        // No round of its own: those it stands beside get their turns, and so does it.
        let better = server.id == beacon.from.id || server.yields_to(beacon);
        if self.hint.as_ref().is_some_and(|hint| !hint.tried) || !better && self.register.tries() < PATIENCE {
            return Err(Dropped::Rate);
        }
        let mut newcomer = Server::from_beacon(now, arrival, beacon);
        newcomer.lost_at = server.lost_at;
        if server.id != newcomer.id && !self.register.is_repeated() {
            core::mem::swap(server, &mut newcomer);
        }
        self.hint = Some(Hint { server: newcomer, tried: false, next: self.register.is_repeated() });
        Ok(())
    }

    /// The server known has proven itself and stays; the hint is worth a round of ANNOUNCEs that begins there.
    fn follow_hint(&mut self, now: Instant, arrival: &Arrival, beacon: &Beacon<'_>) -> Result<(), Dropped> {
        if !self.register.may_start(now) {
            return Err(Dropped::Rate);
        }
        self.hint =
            Some(Hint { server: Server::from_beacon(now, arrival, beacon), tried: false, next: true });
        self.away = None;
        self.answers = beacon.token();
        self.draw_nonce();
        self.register.begin(now, window(beacon), &mut self.rng);
        Ok(())
    }

    /// Whose turn it is, if there is a hint.
    pub(super) fn take_turn(&mut self) -> Option<Destination> {
        let hint = self.hint.as_mut()?;
        let turn = core::mem::replace(&mut hint.next, true);
        if !turn {
            return None;
        }
        (hint.tried, hint.next) = (true, false);
        Some(Destination::Unicast(hint.server.link, hint.server.source))
    }

    /// An ACK proves who is there: the hint it comes from is the server now, and otherwise it was a false one.
    pub(super) fn settle_hint(&mut self, arrival: &Arrival, ack: &Ack<'_>) {
        let Some(Hint { server, .. }) = self.hint.take() else { return };
        let known = self.server.as_ref().is_some_and(|known| {
            (known.id, known.epoch, known.source.ip()) == (ack.from.id, ack.from.epoch, arrival.source.ip())
        });
        if known || server.id != ack.from.id || server.source.ip() != arrival.source.ip() {
            return;
        }
        self.news.push(SeekerEvent::ServerFound { id: server.id, address: server.address() });
        self.server = Some(server);
    }

    /// Authenticated mode: a question under this device's key. While an ANNOUNCE waits for its ACK the server wants to
    /// know that it is of now: it is said again at once, with the cookie. `true` if that answers the question.
    pub(super) fn challenged(
        &mut self,
        arrival: &Arrival,
        challenge: &Challenge<'_>,
    ) -> Result<bool, Dropped> {
        if self.keys().is_none() {
            return Ok(false);
        }
        let from = &challenge.from;
        let (link, source) = (arrival.link, arrival.source);
        let hint = self.hint.as_ref().map(|hint| &hint.server);
        let mut places = self.server.iter().chain(hint);
        if !places.any(|place| place.source == source) && !self.is_seed(arrival) {
            return Err(Dropped::Unknown);
        }
        if let Some(server) = self.server.as_mut().filter(|server| server.is_boot_of(from)) {
            server.take_own(from.sequence)?;
        }
        if !self.register.is_repeated() {
            // A server that knows the device may ask whether it is there; nobody else has a reason to.
            return if self.is_proven() { Ok(false) } else { Err(Dropped::Unexpected) };
        }
        let Nonce::Short(cookie) = challenge.nonce else { return Err(Dropped::Unexpected) };
        if !self.register.take_repeat() {
            return Err(Dropped::Rate);
        }
        self.cookie = Some(cookie);
        self.repeat_to = Some(Destination::Unicast(link, source));
        Ok(true)
    }

    /// The nonce of the next ANNOUNCE: our own 8 bytes, and the cookie if one was asked for.
    pub(super) fn announce_nonce(&self) -> Nonce {
        let (own, Some(cookie)) = (self.nonce, self.cookie) else { return Nonce::Short(self.nonce) };
        let mut both = [0; 16];
        for (place, byte) in both.iter_mut().zip(own.into_iter().chain(cookie)) {
            *place = byte;
        }
        Nonce::Long(both)
    }

    /// Whether an ACK repeats our nonce.
    pub(super) fn is_echoed(&self, nonce: Option<Nonce>) -> bool {
        match nonce {
            Some(Nonce::Short(own)) => own == self.nonce,
            Some(Nonce::Long(both)) => self.cookie.is_some() && both.first_chunk() == Some(&self.nonce),
            None => false,
        }
    }

    /// An open AUTH for what is said to the server alone.
    pub(super) fn open_own(&self) -> Option<Auth<'static>> {
        self.keys().map(|keys| auth::open(keys.announce.current_id()))
    }

    /// An open AUTH for what is said to everybody.
    pub(super) fn open_shared(&self) -> Option<Auth<'static>> {
        self.keys().map(|keys| auth::open(keys.beacon.current_id()))
    }

    /// Completes a datagram to the server alone.
    pub(super) fn sign_own(&self, buffer: &mut [u8], len: usize) -> Result<usize, EmitError> {
        self.sign(buffer, len, |keys| keys.announce.current())
    }

    /// Completes a datagram to everybody.
    pub(super) fn sign_shared(&self, buffer: &mut [u8], len: usize) -> Result<usize, EmitError> {
        self.sign(buffer, len, |keys| keys.beacon.current())
    }

    fn sign(
        &self,
        buffer: &mut [u8],
        len: usize,
        key: impl FnOnce(&DeviceKeys) -> &auth::Key,
    ) -> Result<usize, EmitError> {
        match self.keys() {
            Some(keys) => auth::sign(buffer, len, Ok::<_, NoKey>(key(keys))),
            None => Ok(len),
        }
    }
}

impl Server {
    /// A datagram of this boot to everybody, under the store's key, was not seen before.
    pub(super) fn take_shared(&mut self, sequence: u32) -> Result<(), Dropped> {
        if self.shared.look(sequence) != Sighting::New {
            return Err(Dropped::Replayed);
        }
        self.shared.mark(sequence);
        Ok(())
    }

    /// A question of this boot to this device, under its key, was not seen before.
    fn take_own(&mut self, sequence: u32) -> Result<(), Dropped> {
        if self.own.look(sequence) != Sighting::New {
            return Err(Dropped::Replayed);
        }
        self.own.mark(sequence);
        Ok(())
    }

    /// Whether `from` is the boot that has acknowledged this device.
    fn is_boot_of(&self, from: &Node) -> bool {
        self.registered && (self.id, self.epoch) == (from.id, from.epoch)
    }
}
