//! A server and its devices, each a process, on a core each.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use serde_json::Value;
use testkit::farm::receive_drops;

use super::super::child::Child;
use super::super::contestant::Who;
use super::super::machine;
use super::node::ADDRESS;
use crate::error::Failure;

/// What a system grants that was never asked and never configured: 212,992 bytes on Linux. Half is asked, as the system
/// doubles it.
pub(super) const STOCK_BUFFER: usize = 106_496;
/// What the driver asks by default.
pub(super) const DEFAULT_BUFFER: usize = tillwire::discovery::driver::RECEIVE_BUFFER_BYTES;

/// Both processes.
pub(super) struct Stand {
    pub(super) node: Child,
    pub(super) peers: Child,
    pub(super) at: SocketAddrV4,
    /// Both had a core of their own.
    pub(super) pinned: bool,
}

impl Stand {
    /// Starts both; no server is up yet, and no device.
    pub(super) fn start(who: Who, devices: u32, buffer: usize) -> Result<Self, Failure> {
        Self::start_with(who, devices, buffer, false)
    }

    /// The same, in authenticated mode if so.
    pub(super) fn start_with(who: Who, devices: u32, buffer: usize, auth: bool) -> Result<Self, Failure> {
        let at = SocketAddrV4::new(ADDRESS, free_port()?);
        let cores = machine::two_cores();
        let core = |core: usize| format!("--core={core}");
        let words = |name: &str, more: &[String], core: Option<String>| {
            let mut words = vec![name.to_owned(), format!("--at={at}")];
            words.extend_from_slice(more);
            words.extend(auth.then(|| "--auth".to_owned()));
            words.extend(core);
            words
        };
        let more =
            [format!("--who={}", who.name()), format!("--capacity={devices}"), format!("--buffer={buffer}")];
        let mut node =
            Child::start(&words("bench-discovery-node", &more, cores.map(|(first, _)| core(first))))?;
        let more = [format!("--devices={devices}")];
        let mut peers =
            Child::start(&words("bench-discovery-peers", &more, cores.map(|(_, second)| core(second))))?;
        let pinned = node.expect("ready")?["pinned"] == true && peers.expect("ready")?["pinned"] == true;
        Ok(Self { node, peers, at, pinned })
    }

    /// A server that knows nobody comes up: when, in microseconds of the machine's clock.
    pub(super) fn up(&mut self, expected: u32, rate: u32) -> Result<u64, Failure> {
        self.node.tell(&format!("up {expected} {rate}"))?;
        Ok(number(&self.node.expect("up")?, "at_us"))
    }

    /// What the server has counted since it came up.
    pub(super) fn look(&mut self) -> Result<Value, Failure> {
        self.node.tell("look")?;
        self.node.expect("look")
    }

    /// Tells the devices something, and hears what they say.
    pub(super) fn tell(&mut self, line: &str, event: &str) -> Result<Value, Failure> {
        self.peers.tell(line)?;
        self.peers.expect(event)
    }

    /// Waits until every device has registered since `round` was told.
    pub(super) fn registered(&mut self, within: Duration) -> Result<Value, Failure> {
        self.tell(&format!("registered {}", within.as_millis()), "registered")
    }

    /// Datagrams the server's socket has dropped.
    pub(super) fn drops(&self) -> Option<u64> {
        receive_drops(self.at)
    }

    /// Ends both.
    pub(super) fn end(self) {
        self.peers.end();
        self.node.end();
    }
}

/// A port nobody has at the servers' address now.
fn free_port() -> Result<u16, Failure> {
    let port = UdpSocket::bind((ADDRESS, 0)).and_then(|socket| socket.local_addr());
    port.map(|at| at.port()).map_err(|error| {
        Failure::start(format!("no port is free at {ADDRESS}: {error}"), "is the loopback interface up?")
    })
}

/// A number of what a process said, 0 if it said none.
pub(super) fn number(line: &Value, name: &str) -> u64 {
    line.get(name).and_then(Value::as_u64).unwrap_or_default()
}
