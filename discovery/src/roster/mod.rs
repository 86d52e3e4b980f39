//! The server's half: who is in the store.

mod slot;

use wire_format::ids::NodeId;
use wire_format::time::Instant;

pub use slot::{DeviceView, Slot, State};

use crate::config::ServerConfig;
use crate::event::{Dropped, Event};
use crate::link::{Arrival, LinkId, Transmit};
use crate::stats::Stats;

/// The devices of one store, as a server knows them. `S` holds one [`Slot`] per device that fits.
#[derive(Debug)]
pub struct Roster<S> {
    config: ServerConfig,
    slots: S,
    generation: u64,
    stats: Stats,
    stopped: bool,
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Roster<S> {
    /// An empty roster. `slots` is overwritten; its length is the capacity. `seed` should differ at each start.
    pub fn new(config: ServerConfig, slots: S, _now: Instant, seed: u64) -> Self {
        Self { config: config.clamped(seed), slots, generation: 0, stats: Stats::default(), stopped: false }
    }

    /// An interface can be used from now on: beacons leave there at 0, 1 and 3 s, then every 10 s.
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

    /// Whether a push session with this device is healthy. While it is, the device needs no refresh and is never
    /// suspected. `false` if the device is not in the roster.
    pub fn set_linked(&mut self, _now: Instant, _id: NodeId, _linked: bool) -> bool {
        false
    }

    /// Says goodbye: BYE on every link, twice, then [`Roster::is_stopped`]. `retry_after_s` tells the devices when to look
    /// again (0: unknown).
    pub fn stop(&mut self, _now: Instant, _reason: Reason, _retry_after_s: u16) {
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
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When to call [`Roster::handle_timeout`]; `None` if nothing is due ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The device with this id.
    pub fn find(&self, _id: NodeId) -> Option<DeviceView<'_>> {
        None
    }

    /// Every device in the roster, lost and left ones included, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = DeviceView<'_>> {
        self.slots.as_ref().iter().filter_map(Slot::view)
    }

    /// Devices that are here: fresh, suspected or linked.
    pub const fn len(&self) -> usize {
        0
    }

    /// Whether no device is here.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Devices that fit.
    pub fn capacity(&self) -> usize {
        self.slots.as_ref().len()
    }

    /// The generation of the last event handed out, 0 before the first.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What it was made with, every number in its range and the epoch drawn.
    pub const fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}

pub use wire_format::datagram::bye::Reason;
