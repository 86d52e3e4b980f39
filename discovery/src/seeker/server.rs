//! What a device remembers of its server.

use core::net::SocketAddrV4;
use core::time::Duration;

use wire_format::datagram::{Ack, Beacon};
use wire_format::ids::{Name, NodeId};
use wire_format::time::Instant;

use crate::auth::Window;
use crate::config::{LEASE_MAX_S, LEASE_MIN_S, Services};
use crate::event::Dropped;
use crate::link::{Arrival, LinkId};
use crate::screen::in_order;

/// Priority of a server that did not say any.
pub(super) const PRIORITY_DEFAULT: u16 = 100;

/// The server found, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView<'a> {
    /// Who it is.
    pub id: NodeId,
    /// Its address, with its HTTP base port.
    pub address: SocketAddrV4,
    /// Where its datagrams come from.
    pub source: SocketAddrV4,
    /// The interface they arrive on; [`LinkId::ROUTED`] for a seed.
    pub link: LinkId,
    /// Its display name, empty if it has none or it was not said yet.
    pub name: &'a str,
    /// What it offers, as far as it was said.
    pub services: &'a Services,
    /// Its boot epoch.
    pub epoch: u32,
    /// Whether it has acknowledged this device.
    pub registered: bool,
}

/// The display name a BEACON says, empty if it says none.
pub(super) fn name_of(beacon: &Beacon<'_>) -> Name {
    beacon.name.and_then(|name| Name::new(name.as_str())).unwrap_or_default()
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) id: NodeId,
    pub(super) epoch: u32,
    /// Of its last BEACON or BYE.
    sequence: u32,
    /// Authenticated mode: what was seen of this boot to everybody, and to this device alone.
    pub(super) shared: Window,
    pub(super) own: Window,
    pub(super) source: SocketAddrV4,
    pub(super) link: LinkId,
    port: u16,
    priority: u16,
    lease_s: u16,
    name: Name,
    services: Services,
    /// When it was last heard at `source`.
    pub(super) heard: Instant,
    /// When it is lost, unless it is heard before.
    pub(super) lost_at: Instant,
    pub(super) registered: bool,
    /// Found through a seed: its beacons do not get here.
    pub(super) by_seed: bool,
}

impl Server {
    pub(super) fn from_beacon(now: Instant, arrival: &Arrival, beacon: &Beacon<'_>) -> Self {
        let mut server = Self {
            id: beacon.from.id,
            epoch: beacon.from.epoch,
            sequence: beacon.from.sequence,
            shared: Window::after(beacon.from.sequence),
            own: Window::NONE,
            source: arrival.source,
            link: arrival.link,
            port: 0,
            priority: PRIORITY_DEFAULT,
            lease_s: 0,
            name: Name::EMPTY,
            services: Services::EMPTY,
            heard: now,
            lost_at: now,
            registered: false,
            by_seed: false,
        };
        server.learn(beacon);
        server
    }

    pub(super) fn from_ack(now: Instant, arrival: &Arrival, ack: &Ack<'_>) -> Self {
        Self {
            id: ack.from.id,
            epoch: ack.from.epoch,
            sequence: ack.from.sequence,
            shared: Window::after(ack.from.sequence),
            own: Window::NONE,
            source: arrival.source,
            link: LinkId::ROUTED,
            port: ack.from.port,
            priority: PRIORITY_DEFAULT,
            lease_s: ack.from.lease_s,
            name: Name::EMPTY,
            services: Services::EMPTY,
            heard: now,
            lost_at: now,
            registered: false,
            by_seed: true,
        }
    }

    /// A BEACON or BYE of this boot was not seen before, and not overtaken.
    pub(super) fn take(&mut self, sequence: u32, keyed: bool) -> Result<(), Dropped> {
        if keyed {
            return self.take_shared(sequence);
        }
        in_order(self.sequence, sequence)?;
        self.sequence = sequence;
        Ok(())
    }

    /// What a BEACON of the same boot says. Where the server is and for how long it vouches, its ACK has said better.
    pub(super) fn learn(&mut self, beacon: &Beacon<'_>) {
        if !self.registered {
            self.port = beacon.from.port;
            self.lease_s = beacon.from.lease_s;
        }
        self.priority = beacon.priority.unwrap_or(PRIORITY_DEFAULT);
        let name = beacon.name.map_or(&[][..], |name| name.as_bytes());
        if self.name.as_str().as_bytes() != name {
            self.name = name_of(beacon);
        }
        self.services = beacon.services.map_or(Services::EMPTY, Services::copy_of);
    }

    /// Whether unregistered devices choose the sender of `beacon` instead: the lower (priority, id).
    pub(super) fn yields_to(&self, beacon: &Beacon<'_>) -> bool {
        (beacon.priority.unwrap_or(PRIORITY_DEFAULT), beacon.from.id) < (self.priority, self.id)
    }

    /// It has acknowledged the device.
    pub(super) fn grant(&mut self, ack: &Ack<'_>) {
        if !self.registered || self.epoch != ack.from.epoch {
            self.own = Window::after(ack.from.sequence);
        }
        self.own.mark(ack.from.sequence);
        (self.epoch, self.registered) = (ack.from.epoch, true);
        (self.port, self.lease_s) = (ack.from.port, ack.from.lease_s);
    }

    /// How long it vouches for this device without a refresh.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_secs(u64::from(self.lease_s.clamp(LEASE_MIN_S, LEASE_MAX_S)))
    }

    pub(super) fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(*self.source.ip(), self.port)
    }

    pub(super) fn view(&self) -> ServerView<'_> {
        ServerView {
            id: self.id,
            address: self.address(),
            source: self.source,
            link: self.link,
            name: self.name.as_str(),
            services: &self.services,
            epoch: self.epoch,
            registered: self.registered,
        }
    }
}
