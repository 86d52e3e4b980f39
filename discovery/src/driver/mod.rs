//! The driver of discovery on tokio: sockets, interfaces, clock and tasks around the two state machines.
//!
//! [`server::spawn`] runs a roster, [`device::spawn`] a seeker. Both open their sockets before they return, so that a
//! port in use is an error of the caller's and not a line in a log; then a task of the current runtime owns the
//! sockets and the state machine, and nothing else does. The handles talk to that task.
//!
//! ```text
//!   sockets ── drain (≤ 64 reads) ──► core.handle_datagram ─┐
//!   clock ──────────────────────────► core.handle_timeout  ├─► poll_transmit ──► sockets
//!   interfaces (a hint, or 3 s)   ──► core.link_up/down    │
//!   handles ────────────────────────► commands            ─┘─► poll_event ──► bounded channel, when it has room
//! ```
//!
//! Without [`Net::bind`] there is one exclusive socket for the whole host, and every broadcast leaves once per usable
//! interface with that interface's address as its source. With it, several nodes share a host.
use alloc::sync::Arc;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use std::io;

use crate::config::PORT;

mod batch;
mod clock;
pub mod device;
mod drops;
#[cfg(test)]
mod faults;
mod hints;
mod lookout;
mod net;
mod outbox;
mod run;
#[cfg(target_os = "linux")]
mod sendmany;
pub mod server;
mod socket;
mod subnet;
mod trace;
mod wire;

pub use clock::Clock;
pub use lookout::SCAN_EVERY;
pub use net::{Interface, LeftOut, NAMES_LEFT_OUT, PREFIX_MAX};
pub use run::{EVENTS_MAX, STOP_MAX};
pub use socket::RECEIVE_BUFFER_BYTES;
pub use subnet::{NotASubnet, Subnet};
pub use wire::NetStats;

/// Where and how a node takes part in discovery.
#[derive(Clone, Debug)]
pub struct Net {
    /// Bind to this one address instead of all: needed for several nodes on one host, and on loopback.
    pub bind: Option<Ipv4Addr>,
    /// With `bind`: the broadcast address to listen at and send to. Default: that of the interface that owns `bind`.
    pub broadcast: Option<Ipv4Addr>,
    /// The UDP port, of this node and of every other; 0 is refused. Default: [`PORT`]. That one lies among the ports systems
    /// give to any program's outgoing sockets: reserve it on the store server (`tillwire doctor` says how).
    pub port: u16,
    /// Send every broadcast to the subnet's broadcast address as well (without `bind`), for networks that stop
    /// 255.255.255.255.
    pub directed: bool,
    /// Interfaces to use although their name is one of [`NAMES_LEFT_OUT`] or they are point-to-point. A name, or its
    /// beginning and `*`.
    pub allow: Vec<String>,
    /// Interfaces not to use, whatever else is said.
    pub deny: Vec<String>,
    /// The last word on interfaces that passed every other rule.
    pub filter: Option<Filter>,
    /// Sources to listen to although they are not neighbours: subnets behind routers. A device's seeds are always
    /// listened to.
    pub sources: Vec<Subnet>,
    /// Bytes of receive queue asked of the system for each socket; how many it granted is in
    /// [`NetStats::receive_buffer_bytes`]. Default: [`RECEIVE_BUFFER_BYTES`].
    pub receive_buffer_bytes: usize,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            bind: None,
            broadcast: None,
            port: PORT,
            directed: false,
            allow: Vec::new(),
            deny: Vec::new(),
            filter: None,
            sources: Vec::new(),
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        }
    }
}

/// A rule of the application's about interfaces.
#[derive(Clone)]
pub struct Filter(Arc<dyn Fn(&Interface) -> bool + Send + Sync>);

impl Filter {
    /// Use an interface only if `accepts` says so. Called at every scan, so it must not block.
    pub fn new(accepts: impl Fn(&Interface) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(accepts))
    }

    fn accepts(&self, interface: &Interface) -> bool {
        (self.0)(interface)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

/// What was being opened when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Opening {
    /// The one socket for every address.
    Wildcard,
    /// The socket for [`Net::bind`].
    Unicast,
    /// A socket for a broadcast address.
    Broadcast,
    /// The list of interfaces.
    Interfaces,
    /// The task, which needs a tokio runtime with I/O and time.
    Runtime,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wildcard => "the socket for every address",
            Self::Unicast => "the socket for one address",
            Self::Broadcast => "the socket for broadcasts",
            Self::Interfaces => "the list of interfaces",
            Self::Runtime => "the task",
        })
    }
}

/// A driver that could not be started. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {what} at {addr}: {}", self.kind())]
pub struct OpenError {
    /// What was being opened.
    pub what: Opening,
    /// The address it was for.
    pub addr: SocketAddrV4,
    /// What the system said.
    pub source: io::Error,
}

/// The causes of an [`OpenError`] that an operator can do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// Another process, or another node of this one, has the port.
    #[error("the port is in use; several nodes on one host need an address each")]
    PortInUse,
    /// The system refuses it to this user.
    #[error("not permitted")]
    NotPermitted,
    /// No interface of this host has the address.
    #[error("this host has no such address")]
    NoSuchAddress,
    /// No interface has the address in its subnet, so its broadcast address must be given.
    #[error("no interface tells the broadcast address that belongs to it")]
    NoInterface,
    /// There is no tokio runtime here.
    #[error("there is no tokio runtime here")]
    NoRuntime,
    /// Port 0: every node must know the port of the others.
    #[error("the port must not be 0")]
    NoPort,
    /// Anything else.
    #[error("the system refused")]
    Other,
}

impl OpenError {
    pub(crate) const fn new(what: Opening, addr: SocketAddrV4, source: io::Error) -> Self {
        Self { what, addr, source }
    }

    /// The cause, as far as it is a known one.
    #[must_use]
    pub fn kind(&self) -> OpenErrorKind {
        match (self.what, self.source.kind()) {
            (Opening::Runtime, _) => OpenErrorKind::NoRuntime,
            (Opening::Interfaces, io::ErrorKind::NotFound) => OpenErrorKind::NoInterface,
            _ if self.addr.port() == 0 => OpenErrorKind::NoPort,
            (_, io::ErrorKind::AddrInUse) => OpenErrorKind::PortInUse,
            (_, io::ErrorKind::PermissionDenied) => OpenErrorKind::NotPermitted,
            (_, io::ErrorKind::AddrNotAvailable) => OpenErrorKind::NoSuchAddress,
            _ => OpenErrorKind::Other,
        }
    }
}
