//! The device without a store in the operation lists of discovery: it hears what the roster sends and what is forged, and
//! is adopted at some time.
//!
//! Until then it sends nothing but SEEKs for any store, its list has its bounds, and whoever follows the events knows the
//! list.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use discovery::seeker::CANDIDATES_MAX;
use discovery::{Arrival, DeviceConfig, LinkId, Seeker, SeekerEvent, Transmit};
use wire_format::datagram::{DATAGRAM_MAX, Datagram};
use wire_format::ids::{NodeId, Store};
use wire_format::time::Instant;

/// Places one address fills at most.
const PER_ADDRESS_MAX: usize = 2;
/// Datagrams and events of one drain.
const DRAIN_MAX: usize = 64;

pub(super) struct Lister {
    seeker: Seeker,
    adopted: bool,
    /// What the events say: who is listed, and where.
    mirror: HashMap<NodeId, SocketAddrV4>,
}

impl Lister {
    pub(super) fn new(id: NodeId, now: Instant, seed: u64) -> Self {
        let mut seeker = Seeker::new(DeviceConfig::unprovisioned(id), now, seed);
        seeker.link_up(now, LinkId(0));
        Self { seeker, adopted: false, mirror: HashMap::new() }
    }

    pub(super) fn hear(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]) {
        let _why = self.seeker.handle_datagram(now, arrival, bytes);
        self.drain(now);
    }

    pub(super) fn link(&mut self, now: Instant, link: LinkId, up: bool) {
        if up {
            self.seeker.link_up(now, link)
        } else {
            self.seeker.link_down(now, link)
        }
        self.drain(now);
    }

    pub(super) fn adopt(&mut self, now: Instant, store: Store, staging: bool) {
        assert_eq!(self.seeker.adopt(now, store, staging), !self.adopted, "adopted once");
        self.adopted = true;
        self.mirror.clear();
        self.drain(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.seeker.handle_timeout(now);
        self.drain(now);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.seeker.poll_timeout()
    }

    fn drain(&mut self, now: Instant) {
        let mut buffer = [0; DATAGRAM_MAX];
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the lister never falls silent");
            let Some(Transmit { len, .. }) = self.seeker.poll_transmit(now, &mut buffer) else { break };
            let sent = Datagram::parse(&buffer[..len]).expect("what is sent is well formed");
            let asks_all =
                matches!(sent, Datagram::Seek(seek) if seek.from.scope == 0 && seek.store.is_none());
            assert!(asks_all != self.adopted, "{sent:?}, adopted: {}", self.adopted);
        }
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the lister never runs out of events");
            let Some(event) = self.seeker.poll_event() else { break };
            self.note(&event);
        }
        self.check();
    }

    fn note(&mut self, event: &SeekerEvent) {
        match *event {
            SeekerEvent::CandidateFound { id, address } => {
                assert_eq!(self.mirror.insert(id, address), None, "found twice");
            }
            SeekerEvent::CandidateChanged { id, address } => {
                assert!(self.mirror.insert(id, address).is_some(), "changed and never found");
            }
            SeekerEvent::CandidateGone { id } => assert!(self.mirror.remove(&id).is_some(), "gone twice"),
            _ => assert!(self.adopted, "{event:?} without a store"),
        }
    }

    fn check(&self) {
        let known: HashMap<_, _> = self.seeker.candidates().map(|known| (known.id, known.address)).collect();
        assert_eq!(known, self.mirror, "the events tell another story than the list");
        assert_eq!(known.len(), self.seeker.candidates().count(), "one id, one row");
        assert!(known.len() <= CANDIDATES_MAX);
        let at = |ip: Ipv4Addr| self.seeker.candidates().filter(|known| *known.source.ip() == ip).count();
        assert!(known.values().all(|address| at(*address.ip()) <= PER_ADDRESS_MAX), "one address, few rows");
    }
}
