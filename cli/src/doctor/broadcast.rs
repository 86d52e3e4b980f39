//! Whether a broadcast leaves every usable interface and comes back up on this host, as discovery needs it.
//!
//! What is sent is no datagram of ours: nodes that hear it count it as foreign and do nothing.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tillwire::discovery::driver::{Interface, LeftOut, NAMES_LEFT_OUT, PREFIX_MAX};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::host::Host;
use super::port::listen_shared;
use super::report::{Check, Line};

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

/// A socket that hears what is sent there: on the port itself if it is free, else on any other.
fn listener(host: &Host) -> io::Result<UdpSocket> {
    let shared = |bind| host.bound_broadcast(bind).map(|broadcast| listen_shared(broadcast, host.net.port));
    let socket = match host.net.bind.and_then(shared) {
        Some(socket) => socket?,
        None => std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, host.net.port))
            .or_else(|_| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?,
    };
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn try_paths(host: &Host, paths: Vec<Path>) -> Vec<Line> {
    let opened = listener(host).and_then(|socket| Ok((socket.local_addr()?.port(), socket)));
    let (port, socket) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let detail = format!("no socket to hear broadcasts with: {error}");
            return vec![Line::fail(CHECK, "", detail, "see the check `port`")];
        }
    };
    // Unlike that of any other run, so that nobody's echo is taken for ours.
    let token = format!("tillwire doctor {} {port}", std::process::id());
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
        let _over =
            tokio::time::timeout_at(until, hear(&socket, token.as_bytes(), paths.len(), &mut heard)).await;
        if paths.iter().zip(&refused).all(|(path, refused)| refused.is_some() || heard.contains(&path.from)) {
            break;
        }
    }
    let result = |(path, refused): (Path, Option<io::Error>)| judge(host, &path, port, refused, &heard);
    paths.into_iter().zip(refused).map(result).collect()
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

fn judge(
    host: &Host,
    path: &Path,
    port: u16,
    refused: Option<io::Error>,
    heard: &BTreeSet<Ipv4Addr>,
) -> Line {
    let subject = path.name.clone();
    let wanted = host.net.port;
    let elsewhere = port != wanted;
    if heard.contains(&path.from) {
        let note = if elsewhere {
            format!(
                ", on port {port} because {wanted} is taken: a rule for {wanted} alone would not be noticed"
            )
        } else {
            String::new()
        };
        return Line::pass(CHECK, subject, format!("a broadcast from {} is heard here{note}", path.from));
    }
    if let Some(error) = refused {
        let detail = format!("a broadcast from {} to {} is refused: {error}", path.from, path.to);
        return match error.kind() {
            io::ErrorKind::PermissionDenied => Line::fail(CHECK, subject, detail, output_remedy(wanted)),
            _ => Line::fail(
                CHECK,
                subject,
                detail,
                "see ip address and ip link: is the interface up, with this address?",
            ),
        };
    }
    Line::fail(
        CHECK,
        subject,
        format!(
            "broadcasts from {} to {}:{port} were sent for {} ms and none was heard here: a rule of this host's packet \
             filter probably drops UDP {port} as it comes in",
            path.from,
            path.to,
            host.timeout.as_millis()
        ),
        input_remedy(wanted),
    )
}

/// How incoming discovery is let in.
pub(super) fn input_remedy(port: u16) -> String {
    format!(
        "nftables: nft insert rule inet filter input udp dport {port} accept (your table and chain)\n\
         iptables: iptables -I INPUT -p udp --dport {port} -j ACCEPT\n\
         firewalld: firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload; ufw: ufw allow {port}/udp\n\
         Windows: netsh advfirewall firewall add rule name=\"tillwire discovery in\" dir=in action=allow protocol=UDP localport={port}"
    )
}

/// How outgoing discovery is let out.
pub(super) fn output_remedy(port: u16) -> String {
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
        let none = BTreeSet::new();
        let line = judge(&host, &path(), 57_854, None, &none);
        assert!(line.grade == Grade::Fail && line.remedy.contains("dir=in"), "{line:?}");
        let line = judge(&host, &path(), 57_854, Some(io::ErrorKind::PermissionDenied.into()), &none);
        assert!(line.grade == Grade::Fail && line.remedy.contains("dir=out"), "{line:?}");
        let line = judge(&host, &path(), 40_000, None, &[Ipv4Addr::new(10, 0, 0, 1)].into());
        assert!(line.grade == Grade::Pass && line.detail.contains("57854 is taken"), "{line:?}");
    }
}
