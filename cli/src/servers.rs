//! `tillwire servers`: every store server heard on this LAN, whatever its store: for whoever installs a device, or wonders
//! why one found nobody.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};
use tillwire::discovery::config::Services;
use tillwire::discovery::driver::{Interface, Net, OpenErrorKind};
use tillwire::discovery::seeker::CANDIDATES_MAX;
use tillwire::{Candidate, StartError, Unprovisioned};
use wire_format::datagram::Service;

use crate::args::{DISCOVERY_PORT, InterfaceArgs};
use crate::error::{Failure, Outcome, Verdict};
use crate::{json, out, start};

const EXAMPLES: &str = "\
Examples:
  tillwire servers                                 everybody on this LAN, within 12 seconds
  tillwire servers --seconds 3                     servers without keys answer at once; those with keys may be missed
  tillwire servers --json                          an object per server, then a summary
  tillwire servers --bind 192.168.1.20             on a host where another node has 192.168.1.10
  tillwire servers --bind 127.0.0.9 --broadcast 127.255.255.255      on loopback

A server proves nothing here: whoever can broadcast on this LAN can be listed. At most 8 are listed at a time.
Exit codes: 0 at least one server was heard; 1 none was; 2 not started.";

/// List the store servers on this LAN: name, store, test or production, address, services.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Listen for so long. Each server speaks every 10 s, and when it is asked.
    #[arg(long, value_name = "S", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,
    /// Use this local address only; needed beside another node on one host, and on loopback.
    #[arg(long, value_name = "IP")]
    bind: Option<Ipv4Addr>,
    /// With --bind: the broadcast address of its subnet, if no interface tells it.
    #[arg(long, value_name = "IP", requires = "bind")]
    broadcast: Option<Ipv4Addr>,
    /// The UDP port of discovery, the same on every node.
    #[arg(long, value_name = "PORT", default_value_t = DISCOVERY_PORT)]
    discovery_port: u16,
    #[command(flatten)]
    interfaces: InterfaceArgs,
}

/// Listens for a while, or until Ctrl-C, and lists who was heard.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let net = Net {
        bind: args.bind,
        broadcast: args.broadcast,
        port: args.discovery_port,
        ..args.interfaces.net()
    };
    let mut end = start::End::listen()?;
    let listening = Unprovisioned::look(net).map_err(|error| failure(&error, &args))?;
    if !json {
        out::log(&format!("listening for {} s on UDP {}; Ctrl-C ends it", args.seconds, args.discovery_port));
    }
    tokio::select! {
        () = end.told() => {}
        () = tokio::time::sleep(Duration::from_secs(args.seconds.into())) => {}
    }
    let servers = listening.candidates().await;
    let left_out = listening.stats().await.is_some_and(|stats| stats.protocol.dropped_full > 0);
    listening.shutdown().await;
    show(&servers, left_out, args.seconds, json);
    Ok(Verdict::of(!servers.is_empty()))
}

fn show(servers: &[Candidate], left_out: bool, seconds: u16, json: bool) {
    if json {
        servers.iter().for_each(|server| out::json(&object(server)));
        return out::json(&json!({
            "event": "summary", "ok": !servers.is_empty(), "servers": servers.len(), "seconds": seconds,
            "more": left_out,
        }));
    }
    if servers.is_empty() {
        out::line("no store server was heard");
        return out::log(
            "  is one running, on this subnet? A firewall that drops UDP 57854, a guest network that keeps its hosts apart, and \
             a router in between all look like this; a device behind a router finds its server with --seed",
        );
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["NAME", "STORE", "ENTITY", "SIDE", "ADDRESS", "PRIORITY", "SERVICES", "ID"]);
    for server in servers {
        table.add_row(row(server));
    }
    out::line(&table.trim_fmt());
    if left_out {
        out::warn(&format!("there are more: {CANDIDATES_MAX} are listed at a time"));
    }
}

fn object(server: &Candidate) -> Value {
    json!({
        "event": "server",
        "id": server.id.to_string(),
        "name": server.name.as_str(),
        "store": server.store.code(),
        "entity": server.store.entity(),
        "staging": server.staging,
        "address": server.address.to_string(),
        "priority": server.priority,
        "services": json::services(&server.services),
        "age_ms": u64::try_from(server.age.as_millis()).unwrap_or(u64::MAX),
    })
}

fn row(server: &Candidate) -> [String; 8] {
    [
        server.name.to_string(),
        server.store.code().to_owned(),
        server.store.entity().to_string(),
        if server.staging { "staging" } else { "production" }.to_owned(),
        server.address.to_string(),
        server.priority.to_string(),
        services(&server.services),
        server.id.to_string().chars().take(12).collect(),
    ]
}

/// `http 80 8000 8001, 0x8001 9000/udp`: the ports of each service beside each other.
fn services(services: &Services) -> String {
    let mut text = String::new();
    let mut before = None;
    for service in services.iter() {
        if before != Some(service.id) {
            let comma = if before.is_some() { ", " } else { "" };
            match service.id {
                Service::HTTP => text += &format!("{comma}http"),
                id => text += &format!("{comma}0x{id:04x}"),
            }
            before = Some(service.id);
        }
        text += &format!(" {}", service.port);
        if service.protocol != Service::TCP {
            text += &format!("/{}", protocol(service.protocol));
        }
    }
    text
}

fn protocol(number: u8) -> String {
    match number {
        Service::TCP => "tcp".to_owned(),
        Service::UDP => "udp".to_owned(),
        other => other.to_string(),
    }
}

/// Most often a server runs here already and has the port. What helps depends on how much of the host it took.
fn failure(error: &StartError, args: &Args) -> Failure {
    let StartError::Discovery(cause) = error else { return start::failure(error) };
    if cause.kind() != OpenErrorKind::PortInUse {
        return start::failure(error);
    }
    let port = args.discovery_port;
    let help = if !is_free(ELSEWHERE, port) {
        "it has the port on every address of this host, so nothing can listen beside it: tillwire status asks the server \
         that runs here, and from another host tillwire servers lists it with the others"
            .to_owned()
    } else if let Some(address) = free_address(port) {
        format!("it has one address; this one is free: tillwire servers --bind {address}")
    } else {
        "it was started with --bind and leaves the other addresses free: give this host a second address in that subnet and \
         name it with --bind"
            .to_owned()
    };
    Failure::start(
        format!("a node of this host, most likely its store server, has UDP port {port}: {cause}"),
        help,
    )
}

/// An address of this host that nobody binds to: taken only if every address is.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 86, 201, 7);

fn is_free(address: Ipv4Addr, port: u16) -> bool {
    match UdpSocket::bind((address, port)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
    }
}

/// An address of this host on a LAN, the port of which nobody has.
fn free_address(port: u16) -> Option<Ipv4Addr> {
    let found = Interface::scan().ok()?;
    let usable = found.iter().filter(|one| one.up && !one.point_to_point && !one.address.is_loopback());
    usable.map(|one| one.address).find(|&address| UdpSocket::bind((address, port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_stand_beside_each_other() {
        let mut list = Services::EMPTY;
        assert_eq!(services(&list), "");
        for (id, port, protocol) in [(1, 80, 6), (1, 8_000, 6), (0x8001, 9_000, 17), (0x8001, 9_001, 132)] {
            assert!(list.push(Service { id, port, protocol, flags: 0, version: 1 }));
        }
        assert_eq!(services(&list), "http 80 8000, 0x8001 9000/udp 9001/132");
    }

    #[test]
    fn a_port_that_is_taken_on_one_address_is_free_elsewhere() {
        let taken = UdpSocket::bind((Ipv4Addr::new(127, 86, 201, 8), 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(is_free(ELSEWHERE, port) && !is_free(Ipv4Addr::new(127, 86, 201, 8), port));
        drop(taken);
        let everywhere = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = everywhere.local_addr().unwrap().port();
        assert!(!is_free(ELSEWHERE, port));
        assert_eq!(free_address(port), None);
    }
}
