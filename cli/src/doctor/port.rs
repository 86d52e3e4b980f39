//! The ports this node listens on: free or rightly taken, by one process, and not given away to a passing client.

use core::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::host::Host;
use super::proc::{self, Entry, Owner};
use super::report::{Check, Line, Role};

const CHECK: Check = Check::Port;

/// Looks at the port of discovery, and on a device at that of orders as well.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    // `broadcast` takes the same port for a while.
    let _turn = host.port_turn.lock().await;
    let port = host.net.port;
    let held = held("udp", port);
    let taken = try_to_take(host);
    let mut lines = vec![judge(host, &taken, held.as_ref())];
    lines.extend(shared(host, held.as_ref()));
    lines.extend(reservation(port));
    if host.role == Role::Device {
        lines.push(orders(host));
    }
    lines
}

/// The sockets on a port, and who has them as far as this user may see.
#[derive(Clone, Debug, Default)]
struct Held {
    entries: Vec<Entry>,
    owners: BTreeMap<u64, BTreeSet<Owner>>,
}

fn held(transport: &str, port: u16) -> Option<Held> {
    let entries = proc::on_port(transport, port)?;
    let owners = proc::owners(&entries.iter().map(|entry| entry.inode).collect());
    Some(Held { entries, owners })
}

impl Held {
    /// `tillwire (pid 812)`, or what can be said without the right to look.
    fn who(&self, entry: &Entry) -> String {
        match self.owners.get(&entry.inode) {
            Some(owners) => {
                let names = owners.iter().map(|owner| format!("{} (pid {})", owner.name, owner.pid));
                names.collect::<Vec<_>>().join(" and ")
            }
            None => format!("a process of user {} that only root can name", entry.user),
        }
    }

    fn is_of(&self, entry: &Entry, pid: u32) -> bool {
        self.owners.get(&entry.inode).is_some_and(|owners| owners.iter().any(|owner| owner.pid == pid))
    }

    fn all(&self) -> String {
        let each = self.entries.iter().map(|entry| format!("{} at {}", self.who(entry), entry.address));
        each.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// Whether the server that runs here has the port, as far as this user may see.
pub(super) fn is_the_servers(host: &Host) -> bool {
    let pid = host.running.as_ref().and_then(|server| server.pid);
    let held = held("udp", host.net.port).unwrap_or_default();
    pid.is_some_and(|pid| held.entries.iter().any(|entry| held.is_of(entry, pid)))
}

/// Opens what a node opens, and closes it again.
fn try_to_take(host: &Host) -> io::Result<()> {
    let port = host.net.port;
    let Some(bind) = host.net.bind else {
        return UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop);
    };
    let _unicast = UdpSocket::bind((bind, port))?;
    match host.bound_broadcast(bind) {
        Some(broadcast) => listen_shared(broadcast, port).map(drop),
        None => Ok(()),
    }
}

/// A socket for an address that several nodes of a host listen at.
pub(super) fn listen_shared(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    Ok(socket.into())
}

fn judge(host: &Host, taken: &io::Result<()>, held: Option<&Held>) -> Line {
    let port = host.net.port;
    let subject = format!("{port}/udp");
    let stop = format!(
        "stop the other process, or give every node of the store the same other --discovery-port\n\
         Linux: ss -ulpn 'sport = :{port}' shows it\n\
         Windows: Get-NetUDPEndpoint -LocalPort {port} | Select-Object OwningProcess"
    );
    let error = match taken {
        Ok(()) => {
            let also = held.filter(|held| !held.entries.is_empty());
            let also = also.map_or_else(String::new, |held| format!("; beside it: {}", held.all()));
            return Line::pass(CHECK, subject, format!("free, and this user may take it{also}"));
        }
        Err(error) => error,
    };
    let server = host.running.as_ref();
    match (error.kind(), held) {
        (ErrorKind::AddrInUse, Some(held)) if !held.entries.is_empty() => {
            let pid = server.and_then(|server| server.pid);
            let ours = |entry: &Entry| pid.is_some_and(|pid| held.is_of(entry, pid));
            let all = held.all();
            if held.entries.iter().any(ours) {
                return Line::pass(CHECK, subject, format!("taken by the server that runs here: {all}"));
            }
            if pid.is_some() && held.owners.is_empty() {
                let detail = format!("in use by {all}; a server runs here, and it may be its own");
                return Line::warn(CHECK, subject, detail, "run this as root, or as the server's user");
            }
            let hint = if all.contains("tillwire (pid") {
                "if that is the store's server, name its control socket with --control\n"
            } else {
                ""
            };
            Line::fail(CHECK, subject, format!("in use by {all}"), format!("{hint}{stop}"))
        }
        (ErrorKind::AddrInUse, _) => Line::fail(CHECK, subject, "in use; by whom cannot be seen here", stop),
        (ErrorKind::AddrNotAvailable, _) => {
            let detail = format!("cannot be taken at that address: {error}");
            Line::fail(CHECK, subject, detail, "--bind has to be an address of this host (see ip address)")
        }
        _ => {
            let remedy = "ask for the right to open the socket (a security module, a container's rules)\n\
                          or run without discovery, with addresses given by hand (--no-discovery)";
            Line::fail(CHECK, subject, format!("cannot be taken: {error}"), remedy)
        }
    }
}

/// Several sockets on one unicast address: each datagram reaches one of them only.
fn shared(host: &Host, held: Option<&Held>) -> Option<Line> {
    let held = held?;
    let unicast = |entry: &&Entry| !host.is_broadcast(entry.address);
    let mut at = BTreeMap::<IpAddr, Vec<&Entry>>::new();
    for entry in held.entries.iter().filter(unicast) {
        at.entry(entry.address).or_default().push(entry);
    }
    let (address, entries) = at.into_iter().find(|(_, entries)| entries.len() > 1)?;
    let who = entries.iter().map(|entry| held.who(entry)).collect::<BTreeSet<_>>();
    let detail = format!(
        "{} sockets share {address}:{}: each announce and each answer reaches one of them only ({})",
        entries.len(),
        host.net.port,
        who.into_iter().collect::<Vec<_>>().join(", ")
    );
    let remedy = "stop all but one; a program that asks for SO_REUSEADDR or SO_REUSEPORT takes the datagrams of others\n\
                  Windows: the same happens with SO_REUSEADDR; Get-NetUDPEndpoint names the processes";
    Some(Line::fail(CHECK, "one process", detail, remedy))
}

/// The port lies where systems take ports for outgoing sockets from: any client may hold it when the server starts.
fn reservation(port: u16) -> Option<Line> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let range = read("ip_local_port_range")?;
    let reserved = read("ip_local_reserved_ports").unwrap_or_default();
    Some(judge_reservation(port, &range, &reserved))
}

fn judge_reservation(port: u16, range: &str, reserved: &str) -> Line {
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse::<u16>().ok());
    let (low, high) = (ends.next().unwrap_or(0), ends.next().unwrap_or(0));
    let listed = reserved.trim().split(',').any(|entry| {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
    });
    let subject = "reserved";
    if !(low..=high).contains(&port) {
        return Line::pass(
            CHECK,
            subject,
            format!("{port} lies outside the ports for clients ({low} to {high})"),
        );
    }
    if listed {
        return Line::pass(CHECK, subject, format!("{port} is reserved: no client is given it"));
    }
    let both = if reserved.trim().is_empty() { String::new() } else { format!("{},", reserved.trim()) };
    Line::warn(
        CHECK,
        subject,
        format!(
            "{port} lies in the range any program's outgoing sockets are taken from ({low} to {high}): one of them may \
             hold it when the server starts"
        ),
        format!(
            "Linux: sysctl -w net.ipv4.ip_local_reserved_ports={both}{port}, and the same line in /etc/sysctl.d/90-tillwire.conf\n\
             Windows: netsh int ipv4 add excludedportrange protocol=udp startport={port} numberofports=1"
        ),
    )
}

/// A device listens for orders: the server dials it.
fn orders(host: &Host) -> Line {
    let port = host.profile.push_port;
    let subject = format!("{port}/tcp");
    let bind = host.net.bind.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let Err(error) = TcpListener::bind((bind, port)) else {
        return Line::pass(CHECK, subject, "free, and this user may listen there");
    };
    let mut held = held("tcp", port).unwrap_or_default();
    held.entries.retain(|entry| entry.listens);
    let all = held.all();
    match error.kind() {
        ErrorKind::AddrInUse if all.contains("tillwire (pid") => {
            Line::pass(CHECK, subject, format!("taken by {all}"))
        }
        ErrorKind::AddrInUse => Line::warn(
            CHECK,
            subject,
            format!("taken by {}", if all.is_empty() { "a process that cannot be seen here" } else { &all }),
            "if that is not the application of this device, stop it: the server would reach the wrong program",
        ),
        _ => Line::fail(
            CHECK,
            subject,
            format!("this user cannot listen there: {error}"),
            "ports below 1024 are for root; --bind has to be an address of this host",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::Running;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    fn entry(address: &str, inode: u64) -> Entry {
        Entry {
            address: address.parse().unwrap(),
            port: 57_854,
            listens: false,
            user: 1_000,
            inode,
            drops: 0,
        }
    }

    fn held(sockets: &[(&str, u64, u32, &str)]) -> Held {
        let entries = sockets.iter().map(|(address, inode, ..)| entry(address, *inode)).collect();
        let mut owners = BTreeMap::<u64, BTreeSet<Owner>>::new();
        for (_, inode, pid, name) in sockets.iter().filter(|socket| socket.2 > 0) {
            owners.entry(*inode).or_default().insert(Owner { pid: *pid, name: (*name).to_owned() });
        }
        Held { entries, owners }
    }

    fn in_use() -> io::Result<()> {
        Err(ErrorKind::AddrInUse.into())
    }

    #[test]
    fn whoever_has_the_port_is_named() {
        let mut host = host();
        let tillwire = held(&[("0.0.0.0", 7, 812, "tillwire")]);
        let other = held(&[("0.0.0.0", 7, 9, "zbeacon")]);
        assert_eq!(judge(&host, &Ok(()), Some(&held(&[]))).grade, Grade::Pass);
        let line = judge(&host, &in_use(), Some(&other));
        assert!(line.grade == Grade::Fail && line.detail.contains("zbeacon (pid 9)"), "{line:?}");
        let line = judge(&host, &in_use(), Some(&tillwire));
        assert!(line.grade == Grade::Fail && line.remedy.contains("--control"), "{line:?}");
        host.running = Some(Running { pid: Some(812), ..Running::default() });
        assert_eq!(judge(&host, &in_use(), Some(&tillwire)).grade, Grade::Pass);
        assert_eq!(judge(&host, &in_use(), Some(&other)).grade, Grade::Fail);
        let hidden = held(&[("0.0.0.0", 7, 0, "")]);
        let line = judge(&host, &in_use(), Some(&hidden));
        assert!(line.grade == Grade::Warn && line.detail.contains("user 1000"), "{line:?}");
        assert_eq!(judge(&host, &in_use(), None).grade, Grade::Fail);
        let line = judge(&host, &Err(ErrorKind::PermissionDenied.into()), None);
        assert!(line.grade == Grade::Fail && line.remedy.contains("--no-discovery"), "{line:?}");
    }

    #[test]
    fn two_sockets_on_one_address_are_a_fault_and_on_a_broadcast_address_by_design() {
        let host = host();
        let two = held(&[("0.0.0.0", 7, 812, "tillwire"), ("0.0.0.0", 8, 9, "zbeacon")]);
        let line = shared(&host, Some(&two)).unwrap();
        assert!(line.grade == Grade::Fail && line.detail.contains("zbeacon"), "{line:?}");
        let design = [
            ("10.0.0.1", 1, 1, "a"),
            ("10.0.0.2", 2, 2, "b"),
            ("10.0.0.255", 3, 1, "a"),
            ("10.0.0.255", 4, 2, "b"),
        ];
        assert_eq!(shared(&host, Some(&held(&design))), None);
        assert_eq!(shared(&host, None), None);
    }

    #[test]
    fn ports_that_clients_are_given() {
        for (port, range, reserved, grade) in [
            (57_854, "32768\t60999\n", "\n", Grade::Warn),
            (57_854, "32768\t60999\n", "57854\n", Grade::Pass),
            (57_854, "32768\t60999\n", "8080,57000-58000\n", Grade::Pass),
            (57_854, "32768\t60999\n", "57853,57855-57860\n", Grade::Warn),
            (8_081, "32768\t60999\n", "", Grade::Pass),
        ] {
            assert_eq!(judge_reservation(port, range, reserved).grade, grade, "{port} {reserved}");
        }
        let line = judge_reservation(57_854, "32768 60999", "8080\n");
        assert!(line.remedy.contains("=8080,57854,"), "{line:?}");
    }
}
