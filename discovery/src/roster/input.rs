//! What a datagram does to the roster.

use core::net::SocketAddrV4;
use core::time::Duration;

use wire_format::datagram::ack::Code;
use wire_format::datagram::header::Kind;
use wire_format::datagram::{Announce, Beacon, Bye, Challenge, Seek};
use wire_format::time::Instant;

use super::Roster;
use super::notice::Notice;
use super::slot::{Ask, News, Origin, Slot};
use super::table::Queue;
use crate::auth::{Keys, Sighting, Window};
use crate::config::{ANNOUNCE_LEN_MIN, SERVICES_MAX};
use crate::event::{Dropped, What};
use crate::link::{Arrival, answerable};
use crate::screen::in_order;

/// How long rivals are turned away without asking again the incumbent that has answered.
const REFUSED_S: u8 = 10;
const REFUSED: Duration = Duration::from_secs(REFUSED_S as u64);
/// A device whose id is taken, or that finds no room, is told to come back after so many seconds.
const RETRY_AFTER_S: u8 = 60;
/// Broadcasts of this server's last run may still be under way for so long after its start.
const ECHO_MAX: Duration = Duration::from_secs(5);
/// At most one Conflict in this time for one id.
const CONFLICT_APART: Duration = Duration::from_secs(60);

impl<S: AsRef<[Slot]> + AsMut<[Slot]>, K: Keys> Roster<S, K> {
    /// Everything that depends on the source and the header alone, then the kind.
    pub(super) fn receive(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]) -> Result<(), Dropped> {
        let header = match self.screen.open(arrival, bytes) {
            Err(Dropped::Own) => return Err(self.own(now, arrival, bytes)),
            opened => opened?,
        };
        let from_server = header.from.is_server();
        if from_server != (header.kind == Kind::Beacon) {
            return Err(Dropped::Misdirected);
        }
        if !self.buckets.take(now, *arrival.source.ip()) {
            return Err(Dropped::Rate);
        }
        let taken = match header.kind {
            Kind::Seek => {
                let seek = Seek::parse(bytes)?;
                self.check_shared(seek.auth, bytes)?;
                self.seek(now, arrival, &seek, bytes.len())
            }
            Kind::Beacon => {
                let beacon = Beacon::parse(bytes)?;
                self.check_shared(beacon.auth, bytes)?;
                self.other_server(now, arrival, &beacon)
            }
            Kind::Announce => {
                // Before the announce is read: meanwhile its slot is on its way from memory.
                let known = self.table.find(header.from.id);
                let announce = Announce::parse(bytes)?;
                self.check_own(&announce.from, announce.auth, bytes)?;
                self.announce(now, arrival, &announce, known, bytes.len())
            }
            Kind::Bye => {
                let bye = Bye::parse(bytes)?;
                self.check_own(&bye.from, bye.auth, bytes)?;
                self.bye(now, arrival, &bye)
            }
            Kind::Challenge => {
                let challenge = Challenge::parse(bytes)?;
                self.check_own(&challenge.from, challenge.auth, bytes)?;
                self.answer(now, arrival, &challenge)
            }
            Kind::Ack => Err(Dropped::Misdirected),
        };
        if taken.is_ok() {
            self.stats.count_received(header.kind);
        }
        taken
    }

    /// Answered by a broadcast, limited per interface, and only if the question was at least as long.
    fn seek(&mut self, now: Instant, arrival: &Arrival, seek: &Seek<'_>, len: usize) -> Result<(), Dropped> {
        self.screen.sought(&seek.from, seek.store)?;
        if len < self.beacon_len {
            return Err(Dropped::Short);
        }
        self.beacons.ask(now, arrival.link, self.config.beacon_interval(), &mut self.rng);
        Ok(())
    }

    fn other_server(&mut self, now: Instant, arrival: &Arrival, beacon: &Beacon<'_>) -> Result<(), Dropped> {
        self.screen.store(beacon.store)?;
        let address = SocketAddrV4::new(*arrival.source.ip(), beacon.from.port);
        self.dual_server.raise(now, Notice { id: beacon.from.id, address, what: What::DualServer });
        Ok(())
    }

    /// Our own id: our own broadcast that came back, or another server with this one's identity. A clone of it counts
    /// from another number, or booted another time.
    #[cold]
    fn own(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]) -> Dropped {
        let Ok(beacon) = Beacon::parse(bytes) else { return Dropped::Own };
        let from = &beacon.from;
        let since = |number: u32| number.wrapping_sub(self.first_sequence);
        let ours = from.epoch == self.config.epoch && since(from.sequence) <= since(self.sequence);
        let early = now.since(self.started) < ECHO_MAX;
        if ours || early || !answerable(arrival.source) || self.screen.store(beacon.store).is_err() {
            return Dropped::Own;
        }
        if !self.buckets.take(now, *arrival.source.ip()) {
            return Dropped::Rate;
        }
        if let Err(why) = self.check_shared(beacon.auth, bytes) {
            return why;
        }
        let address = SocketAddrV4::new(*arrival.source.ip(), from.port);
        self.cloned.raise(now, Notice { id: from.id, address, what: What::ServerCloned });
        Dropped::Own
    }

    fn announce(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        announce: &Announce<'_>,
        known: Option<u32>,
        len: usize,
    ) -> Result<(), Dropped> {
        self.screen.store(announce.store)?;
        if len < ANNOUNCE_LEN_MIN {
            return Err(Dropped::Short);
        }
        let proven = self.check_of_now(now, arrival, announce, known, len)?;
        self.beacons.count_announce(now, self.config.rate_per_s, announce.answers != 0);
        let origin = origin(arrival, announce);
        let Some(at) = known else {
            return self.admit(now, arrival, announce, len);
        };
        let slot = self.table.at(at);
        if slot.is_gone() {
            self.accept(now, at, origin, announce);
        } else if slot.origin.source.ip() != origin.source.ip() {
            return self.contest(now, at, origin, arrival, announce, len);
        } else if origin.epoch == slot.origin.epoch {
            in_order(slot.origin.sequence, origin.sequence)?;
            self.accept(now, at, origin, announce);
        } else if proven || origin.epoch > slot.origin.epoch || announce.from.epoch_random {
            self.accept(now, at, origin, announce);
        } else {
            return self.contest(now, at, origin, arrival, announce, len);
        }
        self.reply(arrival, announce, len, Code::OK, 0);
        Ok(())
    }

    /// A device that is not in the roster: a free slot, or that of the device gone longest, or none.
    fn admit(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        announce: &Announce<'_>,
        len: usize,
    ) -> Result<(), Dropped> {
        if let Some(after_s) = self.beacons.shed(self.config.rate_per_s) {
            self.reply(arrival, announce, len, Code::BUSY, after_s);
            return Err(Dropped::Busy);
        }
        let origin = origin(arrival, announce);
        let crowded =
            self.table.devices_at(*arrival.source.ip()) >= usize::from(self.config.devices_per_address);
        let room = if crowded { None } else { self.room() };
        let Some(at) = room else {
            self.reply(arrival, announce, len, Code::ROSTER_FULL, RETRY_AFTER_S);
            let (address, what) = (origin.push_address(), What::Refused { why: Code::ROSTER_FULL });
            self.refused.raise(now, Notice { id: announce.from.id, address, what });
            return Err(if crowded { Dropped::Crowded } else { Dropped::Full });
        };
        self.table.claim(at, announce.from.id, origin);
        let slot = self.table.at_mut(at);
        slot.update(announce);
        slot.seen = Window::after(origin.sequence);
        slot.proofs = 1;
        slot.key_id = key_id(announce);
        self.count_cut_services(announce);
        self.fresh(at, now);
        self.tell(at, News::JOINED);
        self.reply(arrival, announce, len, Code::OK, 0);
        Ok(())
    }

    fn room(&mut self) -> Option<u32> {
        if let Some(at) = self.table.head(Queue::Free) {
            return Some(at);
        }
        let at = self.table.head(Queue::Gone)?;
        if !self.table.at(at).news.is_empty() {
            return None;
        }
        self.table.release(at);
        Some(at)
    }

    /// The device itself speaks: everything it says holds.
    fn accept(&mut self, now: Instant, at: u32, origin: Origin, announce: &Announce<'_>) {
        let before = self.table.at(at).origin;
        let moved = before.source.ip() != origin.source.ip();
        let rebooted = before.epoch != origin.epoch;
        self.table.set_origin(at, Origin { port: before.port, ..origin });
        let slot = self.table.at_mut(at);
        // Seen from where it was, in the boot it was in, with a new number: no cookie was needed.
        let proven = moved || rebooted || slot.seen.look(origin.sequence) != Sighting::New;
        slot.proofs = slot.proofs.wrapping_add(u16::from(proven));
        slot.see(before.epoch, &origin);
        slot.key_id = key_id(announce);
        let changed = slot.update(announce);
        slot.changed.0 |= changed.0;
        self.count_cut_services(announce);
        self.end_question(at);
        self.fresh(at, now);
        self.tell_if(at, News::REBOOTED, rebooted);
        self.tell_if(at, News::MOVED, moved);
        self.tell_if(at, News::CHANGED, !changed.is_empty());
    }

    /// The device is there: whatever it was asked for is answered.
    fn end_question(&mut self, at: u32) {
        if self.table.at(at).ask == Ask::Leaving {
            self.stats.bye_refuted = self.stats.bye_refuted.wrapping_add(1);
        }
        if self.table.at(at).ask == Ask::Contest {
            self.incumbent_stays(at);
        }
        self.settle(at);
    }

    /// The same id from another address, or from an earlier boot: whoever is known is asked first.
    fn contest(
        &mut self,
        now: Instant,
        at: u32,
        origin: Origin,
        arrival: &Arrival,
        announce: &Announce<'_>,
        len: usize,
    ) -> Result<(), Dropped> {
        let slot = self.table.at_mut(at);
        let same = slot.rival.source.ip() == origin.source.ip() && slot.rival.epoch == origin.epoch;
        let elsewhere = slot.origin.source.ip() != origin.source.ip();
        if slot.ask == Ask::Contest {
            if same {
                slot.rival = origin;
            }
        } else if now < slot.refused_until && (same || elsewhere) {
            // The incumbent has just shown that it is there, to whichever rival.
            let retry_after_s = if same { RETRY_AFTER_S } else { REFUSED_S };
            if elsewhere {
                self.reply(arrival, announce, len, Code::DUPLICATE_ID, retry_after_s);
            }
        } else {
            slot.rival = origin;
            self.ask(at, now, Ask::Contest);
        }
        Err(if elsewhere { Dropped::Contested } else { Dropped::Stale })
    }

    /// The incumbent answered: its rival is turned away for a while, and a conflict is told.
    fn incumbent_stays(&mut self, at: u32) {
        let now = self.now;
        let slot = self.table.at_mut(at);
        slot.refused_until = now + REFUSED;
        if slot.rival.source.ip() != slot.origin.source.ip() && now >= slot.conflict_from {
            slot.conflict_from = now + CONFLICT_APART;
            self.tell(at, News::CONFLICT);
        }
    }

    /// A goodbye proves nothing: the device is asked, and leaves if it is silent. Each BYE pays for one CHALLENGE.
    fn bye(&mut self, now: Instant, arrival: &Arrival, bye: &Bye<'_>) -> Result<(), Dropped> {
        self.screen.store(bye.store)?;
        let at = self.known_at(arrival, &bye.from)?;
        let slot = self.table.at_mut(at);
        if slot.origin.epoch != bye.from.epoch {
            return Err(Dropped::Stale);
        }
        in_order(slot.origin.sequence, bye.from.sequence)?;
        if self.keys.required() {
            return self.obey_bye(now, at, bye);
        }
        match slot.ask {
            Ask::Contest => return Err(Dropped::Contested),
            Ask::Leaving => self.table.push(Queue::Probe, at),
            Ask::Nothing | Ask::Suspect => self.ask(at, now, Ask::Leaving),
        }
        self.table.at_mut(at).origin.sequence = bye.from.sequence;
        Ok(())
    }

    /// An answer to a CHALLENGE of ours.
    fn answer(&mut self, now: Instant, arrival: &Arrival, challenge: &Challenge<'_>) -> Result<(), Dropped> {
        if !challenge.answer {
            return Err(Dropped::Misdirected);
        }
        let at = self.known_at(arrival, &challenge.from)?;
        let slot = self.table.at(at);
        if slot.ask == Ask::Nothing {
            return Err(Dropped::Unexpected);
        }
        if self.cookie(at) != challenge.nonce {
            return Err(Dropped::Cookie);
        }
        self.check_new(at, &challenge.from)?;
        let slot = self.table.at(at);
        let epoch = challenge.from.epoch;
        if slot.ask == Ask::Contest && epoch == slot.rival.epoch && epoch != slot.origin.epoch {
            self.give_way(at, now);
        } else {
            self.end_question(at);
            self.fresh(at, now);
        }
        Ok(())
    }

    /// The slot of a device that is here and speaks from where it is known.
    fn known_at(&self, arrival: &Arrival, from: &wire_format::datagram::Node) -> Result<u32, Dropped> {
        let at = self.table.find(from.id).ok_or(Dropped::Unknown)?;
        let slot = self.table.at(at);
        let here = !slot.is_gone() && slot.origin.source.ip() == arrival.source.ip();
        if here { Ok(at) } else { Err(Dropped::Unknown) }
    }

    fn count_cut_services(&mut self, announce: &Announce<'_>) {
        let cut = announce.services.map_or(0, |services| services.count().saturating_sub(SERVICES_MAX));
        self.stats.services_cut = self.stats.services_cut.wrapping_add(cut as u64);
    }
}

fn key_id(announce: &Announce<'_>) -> u16 {
    announce.auth.map_or(0, |auth| auth.key_id)
}

fn origin(arrival: &Arrival, announce: &Announce<'_>) -> Origin {
    Origin {
        source: arrival.source,
        link: arrival.link,
        port: announce.from.port,
        epoch: announce.from.epoch,
        sequence: announce.from.sequence,
    }
}
