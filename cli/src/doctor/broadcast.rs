//! Whether a broadcast leaves every usable interface and comes back up on this host, as discovery needs it.
//!
//! What is sent is no datagram of ours: nodes that hear it count it as foreign and do nothing.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde_json::json;
use tillwire::discovery::driver::{Interface, LeftOut, NAMES_LEFT_OUT, PREFIX_MAX};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::host::Host;
use super::port::{is_the_servers, listen_shared};
use super::report::{Check, Line};
use crate::control::client::Client;

const CHECK: Check = Check::Broadcast;
/// A broadcast is sent again if it was not heard: one may be lost, three in a row are not.
const SEND_EVERY: Duration = Duration::from_millis(250);

/// One line per interface.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let _turn = host.port_turn.lock().await;
    let found = match &host.interfaces {
        Ok(found) => found,
        Err(error) => {
            let detail = format!("the interfaces of this host cannot be listed: {error}");
            return vec![Line::fail(CHECK, "", detail, "name an address of this host with --bind")];
        }
    };
    let mut lines = Vec::new();
    let paths = match host.net.bind {
        Some(bind) => match host.bound_broadcast(bind) {
            Some(broadcast) => vec![Path { name: bind.to_string(), from: bind, to: broadcast }],
            None => return vec![no_broadcast_address(bind)],
        },
        None => {
            lines.extend(found.iter().filter_map(|one| Some(left_out(one, one.left_out(&host.net)?))));
            let named = |one: &&Interface| Path {
                name: one.name.clone(),
                from: one.address,
                to: Ipv4Addr::BROADCAST,
            };
            host.usable().iter().map(named).collect()
        }
    };
    if paths.is_empty() {
        lines.push(Line::fail(
            CHECK,
            "",
            "no interface of this host is usable for discovery",
            "connect one (ip link; Windows: Get-NetAdapter), or allow one that was left out with --interface NAME",
        ));
        return lines;
    }
    lines.extend(try_paths(host, paths).await);
    lines
}

/// Where a broadcast is sent from, and to.
struct Path {
    name: String,
    from: Ipv4Addr,
    to: Ipv4Addr,
}

fn no_broadcast_address(bind: Ipv4Addr) -> Line {
    let detail = format!("no interface tells which broadcast address belongs to {bind}");
    Line::fail(CHECK, bind.to_string(), detail, "give it with --broadcast")
}

fn left_out(one: &Interface, why: LeftOut) -> Line {
    let why = match why {
        LeftOut::Denied => "it was said so".to_owned(),
        LeftOut::Down => "it is down, or has no carrier".to_owned(),
        LeftOut::Loopback => "it leads nowhere else".to_owned(),
        LeftOut::NoSubnet => {
            format!("a prefix of {} has no room for a broadcast (1 to {PREFIX_MAX} has)", one.prefix)
        }
        LeftOut::PointToPoint => "it has one other end instead of a LAN".to_owned(),
        LeftOut::Virtual => {
            format!("its name is one of {}: it reaches no shop floor", NAMES_LEFT_OUT.join(" "))
        }
        _ => "a rule of the application's".to_owned(),
    };
    Line::pass(CHECK, &one.name, format!("{} is left out: {why}", one.address))
}

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ear {
    /// A socket of ours on the port itself.
    Own,
    /// One on another port, because somebody else has that one.
    Elsewhere(u16),
    /// The server that runs here: it counts what is not meant for it.
    Server,
}

/// A socket that hears what is sent to the port; else one on any other.
fn listener(host: &Host) -> io::Result<(Ear, UdpSocket)> {
    let shared = |bind| host.bound_broadcast(bind).map(|broadcast| listen_shared(broadcast, host.net.port));
    let any = |port| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
    let (own, socket) = match host.net.bind.and_then(shared) {
        Some(socket) => (true, socket?),
        None => match any(host.net.port) {
            Ok(socket) => (true, socket),
            Err(_) => (false, any(0)?),
        },
    };
    socket.set_nonblocking(true)?;
    let ear = if own { Ear::Own } else { Ear::Elsewhere(socket.local_addr()?.port()) };
    Ok((ear, UdpSocket::from_std(socket)?))
}

/// Unlike that of any other run, so that nobody's echo is taken for ours. As long as a header of ours, so that whoever
/// hears it counts it as foreign and not as damaged.
fn token() -> String {
    format!("{:<48}", format!("tillwire doctor {}", std::process::id()))
}

async fn try_paths(host: &Host, paths: Vec<Path>) -> Vec<Line> {
    let (ear, socket) = match listener(host) {
        Ok(opened) => opened,
        Err(error) => {
            let detail = format!("no socket to hear broadcasts with: {error}");
            return vec![Line::fail(CHECK, "", detail, "see the check `port`")];
        }
    };
    if ear != Ear::Own
        && is_the_servers(host)
        && let Some(lines) = by_server(host, &paths).await
    {
        return lines;
    }
    let port = if let Ear::Elsewhere(port) = ear { port } else { host.net.port };
    let token = token();
    let mut heard = BTreeSet::new();
    let mut refused: Vec<Option<io::Error>> = paths.iter().map(|_| None).collect();
    let deadline = Instant::now() + host.timeout;
    while heard.len() < paths.len() && Instant::now() < deadline {
        for (path, refused) in paths.iter().zip(&mut refused) {
            if !heard.contains(&path.from) {
                *refused = send(path, port, token.as_bytes()).err();
            }
        }
        let until = deadline.min(Instant::now() + SEND_EVERY);
        let hearing = hear(&socket, token.as_bytes(), paths.len(), &mut heard);
        let _over = tokio::time::timeout_at(until, hearing).await;
        if paths.iter().zip(&refused).all(|(path, refused)| refused.is_some() || heard.contains(&path.from)) {
            break;
        }
    }
    let result = |(path, refused): (&Path, Option<io::Error>)| {
        judge(host, path, ear, refused, heard.contains(&path.from))
    };
    paths.iter().zip(refused).map(result).collect()
}

/// Asks the server that runs here how many foreign datagrams it heard, before and after. `None` if it does not tell.
async fn by_server(host: &Host, paths: &[Path]) -> Option<Vec<Line>> {
    let connecting = tokio::time::timeout(host.timeout, Client::connect(host.control.as_ref())).await;
    let mut client = connecting.ok()?.ok()?;
    let mut lines = Vec::new();
    for path in paths {
        let before = foreign(&mut client, host.timeout).await?;
        let deadline = Instant::now() + host.timeout;
        let (mut refused, mut heard) = (None, false);
        while !heard && refused.is_none() && Instant::now() < deadline {
            refused = send(path, host.net.port, token().as_bytes()).err();
            tokio::time::sleep(SEND_EVERY / 5).await;
            heard = foreign(&mut client, host.timeout).await? > before;
        }
        lines.push(judge(host, path, Ear::Server, refused, heard));
    }
    Some(lines)
}

async fn foreign(client: &mut Client, limit: Duration) -> Option<u64> {
    let asking = async {
        client.ask(&json!({"do": "stats"})).await?;
        client.expect().await
    };
    tokio::time::timeout(limit, asking).await.ok()?.ok()?["discovery"]["dropped_foreign"].as_u64()
}

/// The source address decides by which interface a broadcast leaves, also without a default route.
fn send(path: &Path, port: u16, bytes: &[u8]) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((path.from, 0))?;
    socket.set_broadcast(true)?;
    socket.send_to(bytes, (path.to, port)).map(drop)
}

async fn hear(socket: &UdpSocket, token: &[u8], all: usize, heard: &mut BTreeSet<Ipv4Addr>) {
    let mut room = [0; 128];
    while heard.len() < all {
        // An error of an earlier send may be told here: it ends nothing.
        if let Ok((len, source)) = socket.recv_from(&mut room).await
            && room.get(..len) == Some(token)
            && let IpAddr::V4(source) = source.ip()
        {
            heard.insert(source);
        }
    }
}

fn judge(host: &Host, path: &Path, ear: Ear, refused: Option<io::Error>, heard: bool) -> Line {
    let subject = path.name.clone();
    let wanted = host.net.port;
    if heard {
        let detail = match ear {
            Ear::Own => format!("a broadcast from {} is heard here", path.from),
            Ear::Server => format!("a broadcast from {} is heard by the server that runs here", path.from),
            Ear::Elsewhere(port) => format!(
                "a broadcast from {} is heard here, on port {port} because {wanted} is taken: a rule for {wanted} alone would \
                 not be noticed",
                path.from
            ),
        };
        return Line::pass(CHECK, subject, detail);
    }
    if let Some(error) = refused {
        let detail = format!("a broadcast from {} to {} is refused: {error}", path.from, path.to);
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => output_remedy(wanted),
            _ => "see ip address and ip link: is the interface up, with this address?".to_owned(),
        };
        return Line::fail(CHECK, subject, detail, remedy);
    }
    let (port, whom) = match ear {
        Ear::Elsewhere(port) => (port, "here"),
        Ear::Own => (wanted, "here"),
        Ear::Server => (wanted, "by the server that runs here"),
    };
    Line::fail(
        CHECK,
        subject,
        format!(
            "broadcasts from {} to {}:{port} were sent for {} ms and none was heard {whom}: a rule of this host's packet \
             filter probably drops UDP {port} as it comes in",
            path.from,
            path.to,
            host.timeout.as_millis()
        ),
        input_remedy(wanted),
    )
}

/// How incoming discovery is let in.
fn input_remedy(port: u16) -> String {
    format!(
        "nftables: nft insert rule inet filter input udp dport {port} accept (your table and chain)\n\
         iptables: iptables -I INPUT -p udp --dport {port} -j ACCEPT\n\
         firewalld: firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload; ufw: ufw allow {port}/udp\n\
         Windows: netsh advfirewall firewall add rule name=\"tillwire discovery in\" dir=in action=allow protocol=UDP localport={port}"
    )
}

/// How outgoing discovery is let out.
fn output_remedy(port: u16) -> String {
    format!(
        "nftables: nft insert rule inet filter output udp dport {port} accept (your table and chain)\n\
         iptables: iptables -I OUTPUT -p udp --dport {port} -j ACCEPT\n\
         Windows: netsh advfirewall firewall add rule name=\"tillwire discovery out\" dir=out action=allow protocol=UDP remoteport={port}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    #[tokio::test]
    async fn loopback_hears_itself_and_an_address_without_broadcasts_is_named() {
        let mut host = host();
        host.net.port = 41_741;
        host.net.bind = Some(Ipv4Addr::new(127, 41, 7, 1));
        let lines = check(&host).await;
        assert_eq!((lines.len(), lines[0].grade), (1, Grade::Pass), "{lines:?}");
        assert!(!lines[0].detail.contains("because"), "{lines:?}");
        host.net.bind = Some(Ipv4Addr::new(192, 0, 2, 1));
        let lines = check(&host).await;
        assert!(lines[0].grade == Grade::Fail && lines[0].remedy.contains("--broadcast"), "{lines:?}");
    }

    #[tokio::test]
    async fn no_usable_interface_and_why_each_is_left_out() {
        let mut host = host();
        let mut found = host.interfaces.unwrap_or_default();
        found[0].up = false;
        let docker = Interface { name: "docker0".to_owned(), up: true, ..found[0].clone() };
        found.push(docker);
        host.interfaces = Ok(found);
        let lines = check(&host).await;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].detail.contains("down") && lines[1].detail.contains("docker*"), "{lines:?}");
        assert_eq!(lines[2].grade, Grade::Fail);
    }

    #[test]
    fn what_is_not_heard_and_what_is_refused() {
        let host = host();
        let path = || Path { name: "eth0".to_owned(), from: [10, 0, 0, 1].into(), to: Ipv4Addr::BROADCAST };
        let line = judge(&host, &path(), Ear::Own, None, false);
        assert!(line.grade == Grade::Fail && line.remedy.contains("dir=in"), "{line:?}");
        let denied = io::ErrorKind::PermissionDenied.into();
        let line = judge(&host, &path(), Ear::Server, Some(denied), false);
        assert!(line.grade == Grade::Fail && line.remedy.contains("dir=out"), "{line:?}");
        let line = judge(&host, &path(), Ear::Elsewhere(40_000), None, true);
        assert!(line.grade == Grade::Pass && line.detail.contains("57854 is taken"), "{line:?}");
    }
}
