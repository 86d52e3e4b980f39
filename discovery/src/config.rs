//! What a server and a device say about themselves, and the timers of both.

use core::net::SocketAddrV4;
use core::time::Duration;

pub use wire_format::datagram::PORT;
use wire_format::datagram::{Firmware, ServiceList};
use wire_format::ids::{DeviceCode, DeviceKind, Name, NodeId, Store, Tags};

/// Default TCP port where a device listens for orders.
pub const PUSH_PORT: u16 = 8_081;
/// Services kept per node. The product has 7; with 8 a slot stays below 400 bytes and a BEACON below [`BEACON_LEN_MAX`].
pub const SERVICES_MAX: usize = 8;
/// Static servers of one device.
pub const SEEDS_MAX: usize = 4;
/// Bytes of the largest BEACON a roster sends: header, STORE, NAME, 8 SERVICES, PRIORITY at their longest. A SEEK is
/// padded to this, so the BEACON it asks for is never larger.
pub const BEACON_LEN_MAX: usize = 48 + (4 + 36) + (4 + 32) + (4 + 8 * SERVICES_MAX) + (4 + 4);
/// Bytes of a datagram's AUTH entry.
pub(crate) const AUTH_LEN: usize = 4 + 4 + 16;
/// Bytes of the smallest ANNOUNCE: it is padded to this, so that no ACK or CHALLENGE is larger.
pub const ANNOUNCE_LEN_MIN: usize = 96;

/// Shortest lease anybody is granted or believed. A node that says "1 s" would cost all others their CPU.
pub const LEASE_MIN_S: u16 = 10;
/// Longest lease.
pub const LEASE_MAX_S: u16 = 3_600;

/// Services of one node.
pub type Services = ServiceList<SERVICES_MAX>;

/// What a store server says about itself, and how it paces the devices.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Who it is. Stable over restarts.
    pub id: NodeId,
    /// The store it serves. Nodes of another store are counted and otherwise ignored.
    pub store: Store,
    /// A test installation. Staging and production never see each other.
    pub staging: bool,
    /// Rises at each start; devices register again when it differs. With `epoch_random`, 0 means "draw one".
    pub epoch: u32,
    /// `epoch` is random rather than counted. Default: yes.
    pub epoch_random: bool,
    /// HTTP base port. Default 80.
    pub port: u16,
    /// Display name. Default none.
    pub name: Name,
    /// What it offers, at most [`SERVICES_MAX`]. Default nothing.
    pub services: Services,
    /// Lower wins among servers of one store. Default 100.
    pub priority: u16,
    /// Devices that will register, known from the last run or a list. What is missing from the roster widens the reply
    /// window; what has not come within it counts half with each further beacon. Default 0: nothing is known, and a roster
    /// large enough to be overrun first asks a sample of the devices (a census), which costs the others a second.
    pub expected_devices: u32,
    /// Announces per second the server wants at most (λ): 200 on Wi-Fi, 1,000, 5,000 wired and warm. Default 1,000.
    /// At least 1.
    pub rate_per_s: u32,
    /// Seconds without a sign of life after which a device is lost; at 2/3 of it the device is suspected and asked.
    /// 10 to 3,600, default 90.
    pub lease_s: u16,
    /// Seconds between two beacons, ±10 %. 2 to 10, default 10: devices take a server for lost that is silent for 35 s.
    pub beacon_interval_s: u16,
    /// Devices with one address at most, so that one host cannot fill the roster. Raise it for devices behind an address
    /// translation. Default 4.
    pub devices_per_address: u16,
    /// Seconds a lost or left device stays in the roster, while there is room. Default 600.
    pub forget_s: u16,
}

impl ServerConfig {
    /// A production server with the defaults.
    #[must_use]
    pub const fn new(id: NodeId, store: Store) -> Self {
        Self {
            id,
            store,
            staging: false,
            epoch: 0,
            epoch_random: true,
            port: 80,
            name: Name::EMPTY,
            services: Services::EMPTY,
            priority: 100,
            expected_devices: 0,
            rate_per_s: 1_000,
            lease_s: 90,
            beacon_interval_s: 10,
            devices_per_address: 4,
            forget_s: 600,
        }
    }

    /// The same with every number inside its range.
    pub(crate) fn clamped(mut self, random: u64) -> Self {
        self.epoch = drawn_epoch(self.epoch, self.epoch_random, random);
        self.rate_per_s = self.rate_per_s.max(1);
        self.lease_s = self.lease_s.clamp(LEASE_MIN_S, LEASE_MAX_S);
        self.beacon_interval_s = self.beacon_interval_s.clamp(2, 10);
        self
    }

    pub(crate) const fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s as u64)
    }

    /// At least a second: what stays because its last event was not fetched must not be due again at once.
    pub(crate) const fn forget(&self) -> Duration {
        Duration::from_secs(if self.forget_s == 0 { 1 } else { self.forget_s as u64 })
    }

    pub(crate) const fn beacon_interval(&self) -> Duration {
        Duration::from_secs(self.beacon_interval_s as u64)
    }
}

/// What a device says about itself.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Who it is. Stable for the life of the installation.
    pub id: NodeId,
    /// The store it belongs to. `None` while nobody has said so: the device then announces itself to nobody and lists the
    /// servers it hears, see [`Seeker::candidates`](crate::Seeker::candidates).
    pub store: Option<Store>,
    /// A test installation. Staging and production never see each other.
    pub staging: bool,
    /// What it is. Default [`DeviceKind::TILL`].
    pub kind: DeviceKind,
    /// +1 at each boot, written down before the first datagram. With `epoch_random`, 0 means "draw one".
    pub epoch: u32,
    /// The device keeps nothing across boots and `epoch` is random. Default: yes.
    pub epoch_random: bool,
    /// TCP port where it listens for orders. Default 8081.
    pub port: u16,
    /// Display name. Default none.
    pub name: Name,
    /// The product's code of it, shown to people. Default none.
    pub code: DeviceCode,
    /// Where it stands. Default unknown.
    pub zone: Option<u32>,
    /// Its tags. Default none.
    pub tags: Tags,
    /// What it offers, at most [`SERVICES_MAX`]. Default nothing.
    pub services: Services,
    /// What runs on it. Default unknown.
    pub firmware: Option<Firmware>,
    /// What it can do, as bits. Default unknown.
    pub caps: Option<u64>,
    /// Servers to announce to by unicast, instead of asking the LAN. Default none.
    pub seeds: [Option<SocketAddrV4>; SEEDS_MAX],
}

impl DeviceConfig {
    /// A production till with the defaults.
    #[must_use]
    pub const fn new(id: NodeId, store: Store) -> Self {
        Self { store: Some(store), ..Self::unprovisioned(id) }
    }

    /// A device that belongs to no store yet, with the defaults.
    #[must_use]
    pub const fn unprovisioned(id: NodeId) -> Self {
        Self {
            id,
            store: None,
            staging: false,
            kind: DeviceKind::TILL,
            epoch: 0,
            epoch_random: true,
            port: PUSH_PORT,
            name: Name::EMPTY,
            code: DeviceCode::EMPTY,
            zone: None,
            tags: Tags::EMPTY,
            services: Services::EMPTY,
            firmware: None,
            caps: None,
            seeds: [None; SEEDS_MAX],
        }
    }

    pub(crate) fn clamped(mut self, random: u64) -> Self {
        self.epoch = drawn_epoch(self.epoch, self.epoch_random, random);
        self
    }
}

/// A counted epoch as it is; a random one that was left open is drawn, and never 0.
const fn drawn_epoch(epoch: u32, random: bool, bits: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "any 32 of the random bits")]
    let drawn = bits as u32 | 1;
    if random && epoch == 0 { drawn } else { epoch }
}
