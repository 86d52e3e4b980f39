//! The device's half: where is my server?

use core::net::SocketAddrV4;

use wire_format::ids::NodeId;
use wire_format::time::Instant;

use crate::config::{DeviceConfig, Services};
use crate::event::{Dropped, SeekerEvent};
use crate::link::{Arrival, LinkId, Transmit};
use crate::stats::Stats;

/// The server a device has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView<'a> {
    /// Who it is.
    pub id: NodeId,
    /// Its address, with its HTTP base port.
    pub address: SocketAddrV4,
    /// Its display name, empty if it has none or it was not said yet.
    pub name: &'a str,
    /// What it offers, as far as it was said.
    pub services: &'a Services,
    /// Its boot epoch.
    pub epoch: u32,
    /// Whether it has acknowledged this device.
    pub registered: bool,
}

/// A device that looks for its server and stays registered with it.
#[derive(Debug)]
pub struct Seeker {
    config: DeviceConfig,
    stats: Stats,
    stopped: bool,
}

impl Seeker {
    /// A device that has just booted. `seed` must differ between devices: their timing hangs on it.
    pub fn new(config: DeviceConfig, _now: Instant, seed: u64) -> Self {
        Self { config: config.clamped(seed), stats: Stats::default(), stopped: false }
    }

    /// An interface can be used from now on.
    pub fn link_up(&mut self, _now: Instant, _link: LinkId) {}

    /// An interface is gone.
    pub fn link_down(&mut self, _now: Instant, _link: LinkId) {}

    /// A datagram arrived.
    pub fn handle_datagram(
        &mut self,
        _now: Instant,
        _arrival: &Arrival,
        _datagram: &[u8],
    ) -> Result<(), Dropped> {
        Err(Dropped::Stopped)
    }

    /// The time `poll_timeout` named has come. Early calls do nothing.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Whether a push session with the server is healthy. While it is, the device sends no refresh.
    pub fn set_linked(&mut self, _now: Instant, _linked: bool) {}

    /// The device says something else about itself from now on (its id and store stay what they were).
    pub fn reconfigure(&mut self, _now: Instant, config: DeviceConfig) {
        self.config = config;
    }

    /// Says goodbye to the server, twice, then [`Seeker::is_stopped`].
    pub fn stop(&mut self, _now: Instant) {
        self.stopped = true;
    }

    /// Whether the last goodbye was handed out.
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The next datagram to send, written to `buffer` (1,200 bytes are always enough).
    pub fn poll_transmit(&mut self, _now: Instant, _buffer: &mut [u8]) -> Option<Transmit> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<SeekerEvent> {
        None
    }

    /// When to call [`Seeker::handle_timeout`]; `None` if nothing is due ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The server found, if any.
    pub fn server(&self) -> Option<ServerView<'_>> {
        None
    }

    /// What it was made with, the epoch drawn.
    pub const fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}
