//! Servers that a device without a store has heard: for a human to choose from.
//!
//! What is listed comes from BEACONs alone and proves nothing. A stranger can add a server to the list; he cannot move one
//! that is heard, nor push one out: a newcomer takes a free place, else that of the server heard longest ago if it has
//! been silent for 22 s, else none; and one address fills two places at most.

use core::net::SocketAddrV4;
use core::time::Duration;

use wire_format::datagram::{Beacon, Bye};
use wire_format::ids::{Name, NodeId, Store};
use wire_format::time::Instant;

use super::server::{PRIORITY_DEFAULT, name_of};
use super::{AWAKE_AT_LEAST, LOST_AFTER, ROAM_AFTER};
use crate::config::Services;
use crate::event::{Dropped, SeekerEvent};
use crate::link::{Arrival, LinkId};
use crate::screen::in_order;

/// Servers listed at a time: a bench has a handful, and a human reads no more.
pub const CANDIDATES_MAX: usize = 8;
/// Servers listed by one address: a productive one and a test one.
const PER_ADDRESS_MAX: usize = 2;

/// A store server that a device without a store has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who it is.
    pub id: NodeId,
    /// Its address, with its HTTP base port.
    pub address: SocketAddrV4,
    /// Where its datagrams come from.
    pub source: SocketAddrV4,
    /// The interface they arrive on.
    pub link: LinkId,
    /// Its display name, empty if it has none.
    pub name: Name,
    /// The store it serves.
    pub store: Store,
    /// It is a test server.
    pub staging: bool,
    /// Lower wins among servers of one store.
    pub priority: u16,
    /// What it offers.
    pub services: Services,
    /// When it was heard last.
    pub heard: Instant,
}

impl Candidate {
    fn new(now: Instant, arrival: &Arrival, beacon: &Beacon<'_>, store: Store) -> Self {
        Self {
            id: beacon.from.id,
            address: SocketAddrV4::new(*arrival.source.ip(), beacon.from.port),
            source: arrival.source,
            link: arrival.link,
            name: name_of(beacon),
            store,
            staging: beacon.from.staging,
            priority: beacon.priority.unwrap_or(PRIORITY_DEFAULT),
            services: beacon.services.map_or(Services::EMPTY, Services::copy_of),
            heard: now,
        }
    }

    /// Whether `other` says the same about the same server.
    fn says(&self, other: &Self) -> bool {
        *self == Self { heard: self.heard, source: self.source, link: self.link, ..*other }
    }

    /// Silent for so long that its word does not keep others out.
    fn is_quiet(&self, now: Instant) -> bool {
        now.since(self.heard) > ROAM_AFTER
    }
}

/// What has not been told of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nothing,
    Found,
    Changed,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    candidate: Candidate,
    /// When it counts as gone, unless it is heard before.
    lost_at: Instant,
    epoch: u32,
    sequence: u32,
    news: News,
}

/// One row: who is in it, and whose end has still to be told.
#[derive(Clone, Copy, Debug)]
struct Place {
    held: Option<Held>,
    gone: Option<NodeId>,
}

impl Place {
    /// Empties the row. A candidate nobody was told of goes without a word.
    fn clear(&mut self) {
        if let Some(held) = self.held.take().filter(|held| held.news != News::Found) {
            self.gone = Some(held.candidate.id);
        }
    }

    fn heard(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.candidate.heard)
    }
}

/// The list.
#[derive(Debug)]
pub(super) struct Candidates {
    places: [Place; CANDIDATES_MAX],
    /// Nobody was ever in it: a device that has a store has no rows to go through.
    unused: bool,
}

impl Candidates {
    pub(super) const fn new() -> Self {
        Self { places: [Place { held: None, gone: None }; CANDIDATES_MAX], unused: true }
    }

    /// A BEACON of any store, of either side of staging.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        beacon: &Beacon<'_>,
    ) -> Result<(), Dropped> {
        let store = beacon.store.and_then(|store| Store::try_from(store).ok()).ok_or(Dropped::Store)?;
        if store.scope() != beacon.from.scope {
            return Err(Dropped::Store);
        }
        let (epoch, sequence) = (beacon.from.epoch, beacon.from.sequence);
        let candidate = Candidate::new(now, arrival, beacon, store);
        let lost_at = now + LOST_AFTER;
        let crowded = self.crowds(&candidate);
        if let Some(held) = self.find(beacon.from.id) {
            let known = &held.candidate;
            if known.source.ip() != candidate.source.ip() && !known.is_quiet(now) {
                return Err(Dropped::Unknown);
            }
            if known.source.ip() != candidate.source.ip() && crowded {
                return Err(Dropped::Crowded);
            }
            if held.epoch == epoch {
                in_order(held.sequence, sequence)?;
            }
            if held.news == News::Nothing && !known.says(&candidate) {
                held.news = News::Changed;
            }
            *held = Held { candidate, lost_at, epoch, sequence, news: held.news };
            return Ok(());
        }
        if crowded {
            return Err(Dropped::Crowded);
        }
        let place = self.room(now)?;
        place.clear();
        place.held = Some(Held { candidate, lost_at, epoch, sequence, news: News::Found });
        self.unused = false;
        Ok(())
    }

    /// Whether others fill the places its address may have.
    fn crowds(&self, newcomer: &Candidate) -> bool {
        let neighbours = self.iter().filter(|known| known.source.ip() == newcomer.source.ip());
        neighbours.filter(|known| known.id != newcomer.id).count() >= PER_ADDRESS_MAX
    }

    /// Where a newcomer goes.
    fn room(&mut self, now: Instant) -> Result<&mut Place, Dropped> {
        let usable = |place: &&mut Place| {
            let free = place.held.as_ref().is_none_or(|held| held.candidate.is_quiet(now));
            free && place.gone.is_none()
        };
        // An empty place counts as heard before all others.
        self.places.iter_mut().filter(usable).min_by_key(|place| place.heard()).ok_or(Dropped::Full)
    }

    /// A server says goodbye. Forged, it costs the list a row until the next BEACON.
    pub(super) fn handle_bye(&mut self, arrival: &Arrival, bye: &Bye<'_>) -> Result<(), Dropped> {
        let known = |place: &&mut Place| {
            place.held.as_ref().is_some_and(|held| {
                held.candidate.id == bye.from.id && held.candidate.source.ip() == arrival.source.ip()
            })
        };
        let place = self.places.iter_mut().find(known).ok_or(Dropped::Unknown)?;
        if let Some(held) = &place.held {
            if held.epoch != bye.from.epoch {
                return Err(Dropped::Stale);
            }
            in_order(held.sequence, bye.from.sequence)?;
        }
        place.clear();
        Ok(())
    }

    fn find(&mut self, id: NodeId) -> Option<&mut Held> {
        self.places.iter_mut().filter_map(|place| place.held.as_mut()).find(|held| held.candidate.id == id)
    }

    /// When the next one counts as gone.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.unused { None } else { self.held().map(|held| held.lost_at).min() }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.clear_if(|held| held.lost_at <= now);
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.clear_if(|held| held.candidate.link == link);
    }

    fn clear_if(&mut self, gone: impl Fn(&Held) -> bool) {
        for place in &mut self.places {
            if place.held.as_ref().is_some_and(&gone) {
                place.clear();
            }
        }
    }

    /// This process slept: nobody listened meanwhile.
    pub(super) fn sleep(&mut self, now: Instant, slept: Duration) {
        for held in self.places.iter_mut().filter_map(|place| place.held.as_mut()) {
            held.candidate.heard = (held.candidate.heard + slept).min(now);
            held.lost_at = (held.lost_at + slept).max(now + AWAKE_AT_LEAST);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.held().map(|held| &held.candidate)
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.places.iter().filter_map(|place| place.held.as_ref())
    }

    /// The next event: of each row first whose end, then who is in it.
    pub(super) fn take_event(&mut self) -> Option<SeekerEvent> {
        if self.unused {
            return None;
        }
        self.places.iter_mut().find_map(|place| {
            if let Some(id) = place.gone.take() {
                return Some(SeekerEvent::CandidateGone { id });
            }
            let held = place.held.as_mut()?;
            let Candidate { id, address, .. } = held.candidate;
            match core::mem::replace(&mut held.news, News::Nothing) {
                News::Nothing => None,
                News::Found => Some(SeekerEvent::CandidateFound { id, address }),
                News::Changed => Some(SeekerEvent::CandidateChanged { id, address }),
            }
        })
    }
}
