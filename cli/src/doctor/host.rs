//! What the checks are told: what this host is to be, and what can be learnt of a server that already runs.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tillwire::discovery::driver::{Interface, Net, Subnet};
use tokio::sync::Mutex;

use super::profile::Profile;
use super::proxy::{Proxy, goes_directly};
use super::report::Role;
use crate::control::Endpoint;
use crate::control::client::Client;
use crate::error::Failure;
use crate::outbox::Chosen;

/// Devices reckoned with if nobody says how many there are: more than a large store has, and what stock limits carry.
pub(crate) const EXPECTED_DEFAULT: u32 = 400;
/// Devices taken from a running server's roster.
pub(crate) const DEVICES_MAX: usize = 10_000;

/// What every check is handed.
#[derive(Debug)]
pub(crate) struct Host {
    /// What this host is to be.
    pub(crate) role: Role,
    /// Hosts and ports.
    pub(crate) profile: Profile,
    /// Which interfaces discovery uses, and on which port.
    pub(crate) net: Net,
    /// This host's interfaces.
    pub(crate) interfaces: io::Result<Vec<Interface>>,
    /// How many devices there shall be.
    pub(crate) expected: Expected,
    /// A limit on every single attempt: a connection, a name, a program.
    pub(crate) timeout: Duration,
    /// A server that runs here.
    pub(crate) running: Option<Running>,
    /// Where it is asked, if somebody said so.
    pub(crate) control: Option<Endpoint>,
    /// Devices named by whoever asks.
    pub(crate) devices: Vec<SocketAddr>,
    /// A server elsewhere whose services are looked at.
    pub(crate) server: Option<Ipv4Addr>,
    /// The proxy, if there is one.
    pub(crate) proxy: Option<Proxy>,
    /// Whom the proxy is not for.
    pub(crate) not_for_proxy: String,
    /// The state directory.
    pub(crate) state: Option<PathBuf>,
    /// Where orders are kept.
    pub(crate) outbox: Option<Chosen>,
    /// Two checks take the port of discovery for a moment: one after the other.
    pub(crate) port_turn: Mutex<()>,
}

/// How many devices there shall be, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// How many.
    pub(crate) devices: u32,
    /// In words, to stand behind the number.
    pub(crate) from: &'static str,
}

/// A `tillwire serve` on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: Option<u32>,
    /// Bytes of receive queue it was granted for discovery.
    pub(crate) receive_buffer_bytes: Option<u64>,
    /// The devices it knows.
    pub(crate) devices: Vec<Known>,
}

/// A device of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// A session for orders is open: its path is proved.
    pub(crate) connected: bool,
    /// It is switched off, or said goodbye.
    pub(crate) away: bool,
}

impl Host {
    /// The interfaces that discovery uses.
    pub(crate) fn usable(&self) -> Vec<&Interface> {
        let found = self.interfaces.as_deref().unwrap_or_default();
        match self.net.bind {
            Some(bind) => found.iter().filter(|one| one.address == bind).collect(),
            None => found.iter().filter(|one| one.left_out(&self.net).is_none()).collect(),
        }
    }

    /// Where broadcasts of the bound address go: as given, as its interface has it, or that of loopback.
    pub(crate) fn bound_broadcast(&self, bind: Ipv4Addr) -> Option<Ipv4Addr> {
        let loopback = bind.is_loopback().then(|| Subnet::new(bind, 8).broadcast());
        self.net.broadcast.or(loopback).or_else(|| {
            let found = self.interfaces.as_deref().unwrap_or_default();
            let own = found.iter().find(|one| one.address == bind)?;
            Some(Subnet::new(own.address, own.prefix).broadcast())
        })
    }

    /// Whether broadcasts go there.
    pub(crate) fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let found = self.interfaces.as_deref().unwrap_or_default();
        address.is_broadcast()
            || address == Ipv4Addr::new(127, 255, 255, 255)
            || self.net.broadcast == Some(address)
            || found.iter().any(|one| {
                one.broadcast.is_some_and(|broadcast| broadcast == address && broadcast != one.address)
                    || one.prefix < 31 && Subnet::new(one.address, one.prefix).broadcast() == address
            })
    }

    /// The proxy by which `host` is reached, if it is not reached directly.
    pub(crate) fn proxy_for(&self, host: &str) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !goes_directly(&self.not_for_proxy, host))
    }
}

impl Running {
    /// Asks a server at the control socket. `None` if there is none and nobody said there was.
    pub(crate) async fn ask(endpoint: Option<&Endpoint>, limit: Duration) -> Result<Option<Self>, Failure> {
        let asking = async {
            let mut client = match Client::connect(endpoint).await {
                Ok(client) => client,
                // Nobody named it: then there is simply no server yet.
                Err(_) if endpoint.is_none() => return Ok(None),
                Err(failure) => return Err(failure),
            };
            let pid = client.hello()["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            client.ask(&json!({"do": "stats"})).await?;
            let stats = client.expect().await?;
            client.ask(&json!({"do": "roster"})).await?;
            let mut devices = Vec::new();
            loop {
                let line = client.expect().await?;
                if line["event"] != "present" || devices.len() >= DEVICES_MAX {
                    break;
                }
                devices.extend(known(&line["device"]));
            }
            let receive_buffer_bytes = stats["discovery"]["receive_buffer_bytes"].as_u64();
            Ok(Some(Self { pid, receive_buffer_bytes, devices }))
        };
        let late = format!("the server at the control socket did not answer within {} ms", limit.as_millis());
        match tokio::time::timeout(limit, asking).await {
            Ok(asked) => asked,
            // A server that hangs is a reason to look on, not to stop here.
            Err(_) if endpoint.is_none() => {
                crate::out::warn(&format!("{late}; the checks go on without what it knows"));
                Ok(None)
            }
            Err(_) => Err(Failure::start(late, "is it stopped or overloaded? --timeout waits longer")),
        }
    }
}

fn known(device: &serde_json::Value) -> Option<Known> {
    Some(Known {
        address: device["address"].as_str()?.parse().ok()?,
        connected: device["connected"] == true,
        away: matches!(device["state"].as_str(), Some("lost" | "left")),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A server with one interface, 10.0.0.1/24, and nothing else said.
    pub(crate) fn host() -> Host {
        let profile = super::super::profile::load("store-server").unwrap();
        let eth0 = Interface {
            name: "eth0".to_owned(),
            index: 2,
            address: Ipv4Addr::new(10, 0, 0, 1),
            prefix: 24,
            broadcast: None,
            up: true,
            point_to_point: false,
        };
        Host {
            role: Role::Server,
            profile,
            net: Net::default(),
            interfaces: Ok(vec![eth0]),
            expected: Expected { devices: EXPECTED_DEFAULT, from: "" },
            timeout: Duration::from_secs(3),
            running: None,
            control: None,
            devices: Vec::new(),
            server: None,
            proxy: None,
            not_for_proxy: String::new(),
            state: None,
            outbox: None,
            port_turn: Mutex::new(()),
        }
    }

    #[test]
    fn broadcast_addresses_are_known() {
        let host = host();
        for (address, is) in [("10.0.0.255", true), ("255.255.255.255", true), ("127.255.255.255", true)] {
            assert_eq!(host.is_broadcast(address.parse().unwrap()), is, "{address}");
        }
        for address in ["10.0.0.1", "0.0.0.0", "::", "10.0.1.255"] {
            assert!(!host.is_broadcast(address.parse().unwrap()), "{address}");
        }
        assert_eq!(host.bound_broadcast([10, 0, 0, 1].into()), Some([10, 0, 0, 255].into()));
        assert_eq!(host.bound_broadcast([127, 3, 0, 1].into()), Some([127, 255, 255, 255].into()));
        assert_eq!(host.bound_broadcast([10, 9, 0, 1].into()), None);
    }

    #[test]
    fn devices_of_a_roster() {
        let device = json!({"address": "10.0.0.9:8081", "connected": false, "state": "lost"});
        let expected = Known { address: "10.0.0.9:8081".parse().unwrap(), connected: false, away: true };
        assert_eq!(known(&device), Some(expected));
        assert_eq!(known(&json!({"address": null})), None);
    }

    /// A server that tells of so many devices.
    async fn asked(devices: usize) -> Running {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut lines = "{\"event\":\"hello\",\"control\":1,\"pid\":77}\n\
                             {\"event\":\"stats\",\"discovery\":{\"receive_buffer_bytes\":7}}\n"
                .to_owned();
            for _ in 0..devices {
                lines.push_str("{\"event\":\"present\",\"device\":{\"address\":\"10.0.0.9:8081\"}}\n");
            }
            lines.push_str("{\"event\":\"listed\"}\n");
            // The other end leaves when it has enough.
            let _ = stream.write_all(lines.as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let (asked, ()) = tokio::join!(Running::ask(Some(&endpoint), Duration::from_secs(20)), serving);
        asked.unwrap().unwrap()
    }

    #[tokio::test]
    async fn as_many_devices_as_the_limit_and_one_more() {
        let none = Running { pid: Some(77), receive_buffer_bytes: Some(7), devices: Vec::new() };
        assert_eq!(asked(0).await, none);
        assert_eq!(asked(DEVICES_MAX).await.devices.len(), DEVICES_MAX);
        assert_eq!(asked(DEVICES_MAX + 1).await.devices.len(), DEVICES_MAX);
    }

    #[tokio::test]
    async fn a_server_that_was_named_and_is_not_there_is_an_error_and_one_that_was_not_is_none() {
        let nobody = Endpoint::Tcp("127.0.0.1:9".parse().unwrap());
        assert!(Running::ask(Some(&nobody), Duration::from_secs(20)).await.unwrap_err().not_started);
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = Endpoint::Tcp(silent.local_addr().unwrap());
        let late = Running::ask(Some(&silent), Duration::from_millis(50)).await.unwrap_err();
        assert!(late.not_started, "{late:?}");
    }
}
