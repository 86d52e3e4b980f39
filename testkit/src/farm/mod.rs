//! Thousands of devices behind two sockets: each a [`Seeker`](discovery::Seeker) with a source address of its own, driven
//! in real time by the thread that calls.
//!
//! ```text
//!   device 0   127.58.0.1 ─┐                                     ┌─ 127.57.0.1:port        the server's, exclusive
//!   device 1   127.58.0.2 ─┼─ 0.0.0.0:any ── from each address ──┤
//!   …                      │   ACKs and CHALLENGEs come back     └─ 127.255.255.255:port  the server's, shared
//!   device n   127.58.x.y ─┘
//!                            127.255.255.255:port ◀── BEACONs, and the SEEKs of the devices themselves
//! ```
//!
//! What makes it work, on Linux:
//! - One socket sends from any address of 127.0.0.0/8: `IP_PKTINFO` names the source of each datagram. The same on what
//!   arrives says which device it is for.
//! - That socket is bound to every address, and a wildcard bind beside the server's `address:port` fails. So it has a port
//!   of its own: a server answers to the port a datagram came from, and takes any from 1,024 on.
//! - Broadcasts go to the protocol's port, so a second socket listens at the broadcast address there, with `SO_REUSEADDR`
//!   as the server's has: each such socket gets its copy.
//!
//! In a network namespace of its own, where no server is, [`FarmConfig::source_port`] may be the protocol's port, and the
//! addresses those of an AnyIP route (`ip route add local 10.57.64.0/18 dev lo`).
//!
//! Counts of what was sent and heard are the farm's own, by kind ([`Counts`]); what a device counts itself dies with its
//! boot. Datagrams can be lost on purpose, on each device's way out and in.

mod announces;
mod crowd;
mod drops;
mod keys;
mod sockets;

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::io;

use discovery::driver::Clock;
use wire_format::ids::Store;
use wire_format::time::Instant;

pub use announces::{Announces, Fired, Forger};
pub use crowd::{Counts, Crowd, Loss, Wire, device, seekers_alone};
pub use drops::receive_drops;
pub use keys::{beacon_keys, device_keys, server_keys};
pub use sockets::Sockets;

/// Reads in a row before timers get their turn.
const READS_MAX: usize = 64;

/// Which devices, and where.
#[derive(Clone, Debug)]
pub struct FarmConfig {
    /// How many.
    pub devices: u32,
    /// The address of the first one; the others follow, one each.
    pub first: Ipv4Addr,
    /// Where broadcasts go and come from.
    pub broadcast: Ipv4Addr,
    /// The port of the server, and of broadcasts.
    pub port: u16,
    /// The port the devices send from; 0 for any. Default 0.
    pub source_port: u16,
    /// The store of all.
    pub store: Store,
    /// Where they say they listen for orders. Default 8081.
    pub push_port: u16,
    /// Authenticated mode, with [`device_keys`]. Default clear mode.
    pub authenticated: bool,
    /// What is lost. Default nothing.
    pub loss: Loss,
    /// Their timing, nonces and losses hang on it.
    pub seed: u64,
}

impl FarmConfig {
    /// `devices` devices from `first` on, on loopback.
    #[must_use]
    pub const fn new(devices: u32, first: Ipv4Addr, port: u16, store: Store) -> Self {
        Self {
            devices,
            first,
            broadcast: Ipv4Addr::new(127, 255, 255, 255),
            port,
            source_port: 0,
            store,
            push_port: discovery::config::PUSH_PORT,
            authenticated: false,
            loss: Loss::NONE,
            seed: 1,
        }
    }
}

/// The devices and their sockets. They are off until they are booted.
#[derive(Debug)]
pub struct Farm {
    /// The devices.
    pub crowd: Crowd,
    sockets: Sockets,
    clock: Clock,
}

impl Farm {
    /// Opens the sockets.
    pub fn open(config: &FarmConfig) -> io::Result<Self> {
        let broadcast = SocketAddrV4::new(config.broadcast, config.port);
        let sockets = Sockets::open(config.source_port, broadcast)?;
        let clock = Clock::start();
        Ok(Self { crowd: Crowd::new(config, clock.now()), sockets, clock })
    }

    /// The farm's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Boots all devices, each at a random moment of `span`.
    pub fn boot_within(&mut self, span: Duration) {
        let now = self.now();
        self.crowd.boot_within(now, span);
    }

    /// Receives, fires what is due, sends, and waits for more, `wait` at most.
    pub fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let now = self.now();
        let due = self.crowd.next_due().since(now).min(wait);
        self.sockets.wait(due)?;
        for _ in 0..READS_MAX {
            let now = self.clock.now();
            let (crowd, sockets) = (&mut self.crowd, &mut self.sockets);
            if !sockets.receive(|sockets, broadcast, to, source, bytes| match to {
                Some(to) if !broadcast => crowd.handle_unicast(now, sockets, to, source, bytes),
                _ => crowd.handle_broadcast(now, sockets, source, bytes),
            })? {
                break;
            }
        }
        let now = self.clock.now();
        self.crowd.handle_timeout(now, &mut self.sockets);
        Ok(())
    }

    /// Turns for that long.
    pub fn run_for(&mut self, span: Duration) -> io::Result<()> {
        self.run_until(span, |_| false).map(drop)
    }

    /// Turns until `done`, for `span` at most; whether it was done.
    pub fn run_until(&mut self, span: Duration, mut done: impl FnMut(&Crowd) -> bool) -> io::Result<bool> {
        let end = self.now() + span;
        loop {
            if done(&self.crowd) {
                return Ok(true);
            }
            let left = end.since(self.now());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left.min(Duration::from_millis(20)))?;
        }
    }

    /// Tells every device that is on whether its push session is healthy.
    pub fn set_linked(&mut self, linked: bool) {
        let now = self.now();
        self.crowd.each(|seeker| seeker.set_linked(now, linked));
        self.crowd.reschedule(now, &mut self.sockets);
    }

    /// A device is cut off power: no goodbye.
    pub fn power_off(&mut self, device: u32) {
        self.crowd.power_off(device);
    }

    /// A device boots, anew if it was on.
    pub fn boot(&mut self, device: u32) {
        let now = self.now();
        self.crowd.boot(now, device);
        self.crowd.reschedule_one(now, &mut self.sockets, device);
    }

    /// A device says goodbye.
    pub fn leave(&mut self, device: u32) {
        let now = self.now();
        self.crowd.leave(now, &mut self.sockets, device);
    }

    /// Datagrams the system did not take.
    #[must_use]
    pub const fn send_errors(&self) -> u64 {
        self.sockets.send_errors
    }

    /// Datagrams the farm itself lost for want of room: 0, or its figures mean nothing.
    #[must_use]
    pub fn own_drops(&self) -> u64 {
        self.sockets.drops()
    }
}
