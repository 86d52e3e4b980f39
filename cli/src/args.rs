//! The command line itself, and the options several commands share.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tillwire::discovery::driver::{Net, Subnet};
use tillwire::{DeviceCode, DeviceKind, NodeId, Security, StaticDevice, Store, Tags};

#[cfg(target_os = "linux")]
use crate::bench;
use crate::error::Failure;
use crate::{ask, cancel, demo, device, doctor, explain, leave, names, push, serve, servers, status, watch};

/// The port of discovery.
pub(crate) const DISCOVERY_PORT: u16 = wire_format::datagram::PORT;
/// The port devices listen on for orders.
pub(crate) const PUSH_PORT: u16 = tillwire::push::config::PORT;

const EXAMPLES: &str = "\
Examples:
  tillwire demo                                      200 devices on this machine, found and tried
  tillwire serve --store PARIS-12 --open-network     a store server; then, in another terminal:
  tillwire push message \"Lane 3 please\" --to kind=till
  tillwire servers                                   which store servers are on this LAN
  tillwire watch                                     who is here, as it changes
  tillwire status                                    what the server counts
  tillwire doctor                                    is this host ready, and what to do if not
  tillwire explain 000000003000000078563412448f6258  what these bytes say

Exit codes: 0 done and all as it should be; 1 done, but something was not; 2 not started.";

/// Finds the devices of a store on its LAN and pushes orders to them.
#[derive(Parser, Debug)]
#[command(name = "tillwire", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// One JSON object a line on stdout, logs on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a server and up to 10,000 devices on this machine, find them, push orders, check every outcome.
    Demo(demo::Args),
    /// Run a store server.
    Serve(serve::Args),
    /// Run one simulated device that applies what it gets.
    Device(device::Args),
    /// List the store servers on this LAN, of any store.
    Servers(servers::Args),
    /// Push an order through a running server and report every outcome.
    Push(Box<push::Args>),
    /// Ask devices something, and show what each answers.
    Ask(ask::Args),
    /// Cancel an order that is on its way.
    Cancel(cancel::Args),
    /// Let a running server leave in peace: no new orders, what is out ends, then the server does.
    Drain(leave::DrainArgs),
    /// Let a running server take its store over from another one.
    Takeover(leave::TakeoverArgs),
    /// Show who is here, as it changes.
    Watch(watch::Args),
    /// Show what a running server counts, or how one device stands.
    Status(status::Args),
    /// Check what this host and its network need for a store server, or a device, and say what to do.
    Doctor(Box<doctor::Args>),
    /// Explain datagrams, frames and payloads field by field.
    Explain(explain::Args),
    /// Measure on this machine what serving costs, beside a hand-written loop over the same sockets.
    #[cfg(target_os = "linux")]
    Bench(bench::Args),
    /// The devices of a demo, in a process of their own.
    #[command(hide = true)]
    DemoDevices(demo::child::Args),
    /// The devices of a benchmark, in a process of their own.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    BenchPeers(bench::peers::Args),
    /// A contestant of a benchmark, in a process of its own.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    BenchContestant(bench::contestant::Args),
    /// A server of a benchmark whose devices are all away, in a process of its own.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    BenchOwed(bench::owed::Args),
    /// A server of `bench discovery`, in a process of its own.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    BenchDiscoveryNode(bench::discovery::node::Args),
    /// The devices of `bench discovery`, in a process of their own.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    BenchDiscoveryPeers(bench::discovery::peers::Args),
}

/// Which shop.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// The store's code: 1 to 32 bytes of text.
    #[arg(long = "store", value_name = "CODE")]
    code: String,
    /// The number of the legal entity the store belongs to.
    #[arg(long, value_name = "N", default_value_t = 0)]
    entity: u32,
}

impl StoreArgs {
    /// The store, if its code is one.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        Store::new(self.entity, &self.code).map_err(|error| {
            Failure::start(
                format!("{:?} is no store code: {error}", self.code),
                "give --store as the installation has it",
            )
        })
    }
}

/// Which network, and on what terms.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct NetArgs {
    /// Use this local address only; needed for several nodes on one host and on loopback.
    #[arg(long, value_name = "IP")]
    pub(crate) bind: Option<Ipv4Addr>,
    /// With --bind: the broadcast address of its subnet, if no interface tells it.
    #[arg(long, value_name = "IP", requires = "bind")]
    pub(crate) broadcast: Option<Ipv4Addr>,
    /// The UDP port of discovery, the same on every node.
    #[arg(long, value_name = "PORT", default_value_t = DISCOVERY_PORT)]
    pub(crate) discovery_port: u16,
    /// No discovery: addresses are given.
    #[arg(long)]
    pub(crate) no_discovery: bool,
    /// A test installation: it never talks to a productive one.
    #[arg(long)]
    pub(crate) staging: bool,
    /// Keep here what survives the node: its boot epoch, which rises with every start, its id, and what it knows; the orders of
    /// a server as well.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Run without keys and without encryption: whoever reaches the network can read and push orders.
    #[arg(long)]
    open_network: bool,
    #[command(flatten)]
    interfaces: InterfaceArgs,
}

impl NetArgs {
    /// What discovery is told about the network; nothing if there is to be none.
    pub(crate) fn discovery(&self) -> Option<Net> {
        let net = self.interfaces.net();
        let (bind, broadcast, port) = (self.bind, self.broadcast, self.discovery_port);
        (!self.no_discovery).then_some(Net { bind, broadcast, port, ..net })
    }

    /// The security that was chosen; there is no silent one.
    pub(crate) fn security(&self) -> Result<Security, Failure> {
        if self.open_network {
            return Ok(Security::open_network());
        }
        Err(Failure::start(
            "no security was chosen: without keys whoever reaches the network can read orders and push their own",
            "if the network is closed by other means (a VLAN of its own, a bench), say so with --open-network",
        ))
    }
}

/// Which interfaces discovery uses, and whom it listens to there.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct InterfaceArgs {
    /// Use this interface although it is point-to-point or its name is that of a container, a virtual machine or a
    /// tunnel (docker*, br-*, veth*, tun*, …). A name, or its beginning and `*`; may be repeated.
    #[arg(long = "interface", value_name = "NAME")]
    allow: Vec<String>,
    /// Never use this interface, whatever else is said. A name, or its beginning and `*`; may be repeated.
    #[arg(long = "not-interface", value_name = "NAME")]
    deny: Vec<String>,
    /// Send every broadcast to the subnet's own broadcast address as well, for networks that stop 255.255.255.255.
    #[arg(long)]
    directed: bool,
    /// Listen also to senders of this subnet, which lies behind a router: `10.57.0.0/16`. May be repeated.
    #[arg(long = "from", value_name = "SUBNET")]
    sources: Vec<Subnet>,
}

impl InterfaceArgs {
    /// The same in the library's words: bound to no address, at the standard port.
    pub(crate) fn net(&self) -> Net {
        Net {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            directed: self.directed,
            sources: self.sources.clone(),
            ..Net::default()
        }
    }
}

/// Says once, on stderr, what clear mode means.
pub(crate) fn say_clear_mode() {
    crate::out::warn(
        "clear mode (--open-network): orders are neither encrypted nor authenticated on this network",
    );
}

/// `IP:PORT[=ID][,kind=K][,zone=Z][,tag=T]…`; as a value parser.
pub(crate) fn static_device(text: &str) -> Result<StaticDevice, String> {
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    let (address, id) = first.split_once('=').map_or((first, None), |(address, id)| (address, Some(id)));
    let address: SocketAddr = address
        .parse()
        .ok()
        .or_else(|| address.parse().ok().map(|ip| SocketAddr::new(ip, PUSH_PORT)))
        .ok_or_else(|| format!("{address:?} is no IP:PORT"))?;
    let id: Option<NodeId> = id.map(names::node_id).transpose()?;
    let mut device = StaticDevice { id, ..StaticDevice::at(address) };
    for part in parts {
        match part.split_once('=') {
            Some(("kind", kind)) => device.kind = names::device_kind(kind)?,
            Some(("zone", zone)) => {
                device.zone = zone.parse().map_err(|_| format!("a zone is a number, not {zone:?}"))?;
            }
            Some(("tag", tag)) => device.tags.push(tag).map_err(|error| error.to_string())?,
            _ => return Err(format!("{part:?} is none of kind=K, zone=Z, tag=T")),
        }
    }
    Ok(device)
}

/// `IP` or `IP:PORT`, the port being that of discovery; as a value parser.
pub(crate) fn seed(text: &str) -> Result<SocketAddrV4, String> {
    text.parse()
        .or_else(|_| text.parse().map(|ip: Ipv4Addr| SocketAddrV4::new(ip, DISCOVERY_PORT)))
        .map_err(|_| "a seed is IP or IP:PORT of the store server".to_owned())
}

/// What a device says about itself.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AboutArgs {
    /// Its id: 32 hexadecimal digits or a GUID.
    #[arg(long, value_parser = names::node_id)]
    pub(crate) id: NodeId,
    /// Its kind: till, kiosk, signage, tablet, printer, … or a number.
    #[arg(long, value_name = "K", default_value = "till", value_parser = names::device_kind)]
    pub(crate) kind: DeviceKind,
    /// Its zone in the store.
    #[arg(long, value_name = "Z", default_value_t = 0)]
    pub(crate) zone: u32,
    /// A tag; may be given up to 8 times.
    #[arg(long = "tag", value_name = "T")]
    tags: Vec<String>,
    /// A name for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) name: String,
    /// The product's code of it, as on its label: at most 16 bytes.
    #[arg(long = "code", value_name = "CODE", value_parser = names::device_code)]
    pub(crate) device_code: Option<DeviceCode>,
}

impl AboutArgs {
    /// The tags, if they are some.
    pub(crate) fn tags(&self) -> Result<Tags, Failure> {
        Tags::new(self.tags.iter().map(String::as_str)).map_err(|error| {
            Failure::start(format!("the tags are not usable: {error}"), "see tillwire device --help")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn devices_by_address() {
        let device = static_device("127.0.0.2:8082").unwrap();
        assert_eq!((device.address.port(), device.id, device.kind), (8082, None, DeviceKind::TILL));
        let device =
            static_device("10.0.0.9=6f9619ff8b86d011b42d00c04fc964ff,kind=kiosk,zone=3,tag=a,tag=b").unwrap();
        assert_eq!((device.address.port(), device.zone), (PUSH_PORT, 3));
        assert_eq!((device.kind, device.tags.iter().count()), (DeviceKind::KIOSK, 2));
        assert_eq!(device.id.unwrap().to_string(), "6f9619ff8b86d011b42d00c04fc964ff");
        for wrong in
            ["", "here", "127.0.0.2:99999", "127.0.0.2=12", "127.0.0.2,zone=x", "127.0.0.2,colour=red"]
        {
            assert!(static_device(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn interfaces_and_sources_reach_discovery() {
        let words = "tillwire serve --store X --open-network --interface wg0 --interface br-* --not-interface eth1 \
                     --directed --from 10.57.0.0/16 --from 10.58.0.9 --discovery-port 41401";
        let discovery = |words: &str| match Cli::parse_from(words.split_whitespace()).command {
            Command::Serve(args) => args.net.discovery(),
            other => panic!("{other:?}"),
        };
        let net = discovery(words).unwrap();
        assert_eq!((net.allow.join(" "), net.deny.join(" ")), ("wg0 br-*".into(), "eth1".into()));
        assert_eq!((net.directed, net.port, net.bind, net.broadcast), (true, 41_401, None, None));
        assert_eq!(net.sources, ["10.57.0.0/16".parse().unwrap(), "10.58.0.9/32".parse().unwrap()]);
        assert!(discovery(&format!("{words} --no-discovery")).is_none());
        let net = discovery("tillwire serve --store X --bind 127.0.0.1 --broadcast 127.255.255.255").unwrap();
        assert_eq!((net.bind, net.port), (Some(Ipv4Addr::LOCALHOST), DISCOVERY_PORT));
        assert_eq!(net.broadcast, Some(Ipv4Addr::new(127, 255, 255, 255)));
        assert!(!net.directed && net.allow.is_empty() && net.deny.is_empty() && net.sources.is_empty());
    }

    #[test]
    fn seeds_with_and_without_port() {
        assert_eq!(seed("10.0.0.1"), Ok("10.0.0.1:57854".parse().unwrap()));
        assert_eq!(seed("10.0.0.1:7"), Ok("10.0.0.1:7".parse().unwrap()));
        assert!(seed("server").is_err());
    }
}
