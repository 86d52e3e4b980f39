//! Whether this host's packet filter drops discovery, orders or services: its rules are read and followed for each of
//! the packets this node lives on.
//!
//! What it proves is about these rules only. Switches, routers and the filters of other hosts are not seen here.

use core::time::Duration;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::host::Host;
use super::report::{Check, Line, Role};

mod iptables;
mod nft;
mod rules;

use rules::{Fate, Packet, Why};

const CHECK: Check = Check::Firewall;
/// Bytes of a listing: a filter with a hundred thousand rules.
pub(crate) const LISTING_BYTES_MAX: usize = 32 << 20;

/// One line per sort of packet.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let (nft, iptables) = tokio::join!(
        listing("nft", &["-j", "list", "ruleset"], host.timeout),
        listing("iptables-save", &[], host.timeout)
    );
    judge(host, &nft, &iptables)
}

/// What a program that lists rules said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Listing {
    Rules(String),
    NotInstalled,
    /// Its own words: mostly that it is for root.
    Refused(String),
}

impl Listing {
    fn rules(&self) -> Option<&str> {
        match self {
            Self::Rules(text) => Some(text),
            _ => None,
        }
    }
}

/// Runs a program. Users have no /sbin in their path, and the programs are there.
async fn listing(program: &str, words: &[&str], limit: Duration) -> Listing {
    for path in [program.to_owned(), format!("/usr/sbin/{program}"), format!("/sbin/{program}")] {
        let mut command = Command::new(path);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.kill_on_drop(true).spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Listing::Refused(error.to_string()),
            Ok(child) => {
                return tokio::time::timeout(limit, collect(child)).await.unwrap_or_else(|_| {
                    Listing::Refused(format!("it did not end within {} ms", limit.as_millis()))
                });
            }
        }
    }
    Listing::NotInstalled
}

async fn collect(mut child: tokio::process::Child) -> Listing {
    /// Of what it complains about, the beginning will do.
    const COMPLAINT_BYTES_MAX: u64 = 4 << 10;
    let (mut text, mut complaint) = (Vec::new(), Vec::new());
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Listing::Refused("it has no output".to_owned());
    };
    let (mut stdout, mut stderr) =
        (stdout.take(LISTING_BYTES_MAX as u64 + 1), stderr.take(COMPLAINT_BYTES_MAX));
    let read = tokio::join!(stdout.read_to_end(&mut text), stderr.read_to_end(&mut complaint));
    if text.len() > LISTING_BYTES_MAX {
        return Listing::Refused(format!("its listing has more than {LISTING_BYTES_MAX} bytes"));
    }
    match (child.wait().await, read) {
        (Ok(status), (Ok(_), Ok(_))) if status.success() => {
            Listing::Rules(String::from_utf8_lossy(&text).into_owned())
        }
        (Err(error), _) => Listing::Refused(error.to_string()),
        _ => {
            let words = String::from_utf8_lossy(&complaint);
            Listing::Refused(words.lines().next().unwrap_or("it failed").trim().to_owned())
        }
    }
}

/// The packets this node lives on: the first one of each flow.
fn packets(host: &Host) -> Vec<Packet> {
    let interfaces: Vec<_> = host.usable().into_iter().cloned().collect();
    let packet = |inbound, udp, port: u16| Packet {
        inbound,
        udp,
        port,
        source_port: udp.then_some(port),
        interfaces: interfaces.clone(),
    };
    let mut packets = vec![packet(true, true, host.net.port), packet(false, true, host.net.port)];
    match host.role {
        Role::Server => {
            packets.push(packet(false, false, host.profile.push_port));
            packets.extend(host.profile.services.iter().map(|service| packet(true, false, service.port)));
        }
        Role::Device => packets.push(packet(true, false, host.profile.push_port)),
    }
    packets
}

fn judge(host: &Host, nft: &Listing, iptables: &Listing) -> Vec<Line> {
    if nft.rules().is_none() && iptables.rules().is_none() {
        return vec![unread(nft, iptables)];
    }
    let mut lines = Vec::new();
    let mut passing = Vec::new();
    for packet in packets(host) {
        match fate(&packet, nft, iptables) {
            None => {
                return vec![unread(&Listing::Refused("its listing cannot be read".to_owned()), iptables)];
            }
            Some(Fate::Passes) => passing.push(packet.words()),
            Some(Fate::MayBeDropped(why)) => {
                let detail =
                    format!("may be dropped, under conditions that cannot be judged here ({})", why.words);
                lines.push(Line::warn(CHECK, packet.words(), detail, remedy(&packet, &why)));
            }
            Some(Fate::Dropped(why)) => {
                let detail = format!("is dropped on this host ({})", why.words);
                lines.push(Line::fail(CHECK, packet.words(), detail, remedy(&packet, &why)));
            }
        }
    }
    if !passing.is_empty() {
        let detail = format!("no rule of {} drops: {}", sources(nft, iptables), passing.join(", "));
        lines.insert(0, Line::pass(CHECK, "rules", detail));
    }
    lines
}

/// The worse of what both programs' rules do; `None` if what was read is no listing.
fn fate(packet: &Packet, nft: &Listing, iptables: &Listing) -> Option<Fate> {
    let old = iptables.rules().map(|text| iptables::read(text, packet).fate(packet));
    let new = match nft.rules() {
        Some(text) => Some(nft::read(text, packet, old.is_some())?.fate(packet)),
        None => None,
    };
    old.max(new)
}

fn sources(nft: &Listing, iptables: &Listing) -> String {
    let mut words = Vec::new();
    for (name, listing) in [("nft", nft), ("iptables", iptables)] {
        match listing {
            Listing::Rules(_) => words.push(name.to_owned()),
            Listing::Refused(why) => words.push(format!("(unlike {name}, not read: {why})")),
            Listing::NotInstalled => {}
        }
    }
    words.join(" and ").replace(" and (", " (")
}

fn unread(nft: &Listing, iptables: &Listing) -> Line {
    let words = [("nft", nft), ("iptables-save", iptables)].map(|(name, listing)| match listing {
        Listing::Refused(why) => format!("{name}: {why}"),
        _ => format!("{name} is not installed"),
    });
    let root = crate::control::user() == 0;
    let why = if root { "cannot be read" } else { "cannot be read without being root" };
    let remedy = if root {
        "install nftables or iptables to have them read; the check `broadcast` tries incoming discovery without them\n\
         Windows: netsh advfirewall firewall show rule name=all"
    } else {
        "run this as root (sudo tillwire doctor --only firewall)\n\
         Windows: netsh advfirewall firewall show rule name=all"
    };
    Line::warn(
        CHECK,
        "rules",
        format!("the rules of this host's packet filter {why} ({})", words.join("; ")),
        remedy,
    )
}

/// How the packet is let pass: where it is dropped, by what manages the rules, and on Windows.
fn remedy(packet: &Packet, why: &Why) -> String {
    let (transport, port) = (packet.transport(), packet.port);
    let mut steps = match why.chain.split(' ').collect::<Vec<_>>()[..] {
        [table, chain] => {
            format!(
                "iptables -t {table} -I {chain} -p {transport} --dport {port} -j ACCEPT, and save the rules"
            )
        }
        _ => format!("nft insert rule {} {transport} dport {port} accept, and save the rules", why.chain),
    };
    if packet.inbound {
        steps.push_str(&format!(
            "\nwhere firewalld manages them: firewall-cmd --permanent --add-port={port}/{transport} && firewall-cmd --reload; \
             where ufw does: ufw allow {port}/{transport}"
        ));
    }
    let (way, end) = if packet.inbound { ("in", "localport") } else { ("out", "remoteport") };
    steps.push_str(&format!(
        "\nWindows: netsh advfirewall firewall add rule name=\"tillwire {port} {way}\" dir={way} action=allow protocol={} \
         {end}={port}",
        transport.to_ascii_uppercase()
    ));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    const SAVED: &str = "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p udp --dport 57854 -j ACCEPT\n\
                         -A INPUT -p tcp -m multiport --dports 80,8000:8004 -j ACCEPT\n\
                         -A OUTPUT -p tcp --dport 8081 -m owner --uid-owner 33 -j DROP\nCOMMIT\n";

    #[test]
    fn each_sort_of_packet_is_judged() {
        let saved = Listing::Rules(SAVED.to_owned());
        let lines = judge(&host(), &Listing::NotInstalled, &saved);
        let stand: Vec<_> = lines.iter().map(|line| (line.subject.as_str(), line.grade)).collect();
        assert_eq!(
            stand,
            [("rules", Grade::Pass), ("out tcp 8081", Grade::Warn), ("in tcp 8005", Grade::Fail)],
            "{lines:#?}"
        );
        assert!(lines[0].detail.contains("in udp 57854, out udp 57854, in tcp 80"), "{lines:?}");
        assert!(
            lines[2].remedy.starts_with("iptables -t filter -I INPUT -p tcp --dport 8005 -j ACCEPT"),
            "{lines:?}"
        );
        assert!(lines[2].remedy.contains("protocol=TCP localport=8005"), "{lines:?}");
        let mut device = host();
        device.role = Role::Device;
        let lines = judge(&device, &Listing::NotInstalled, &saved);
        assert!(
            lines.iter().any(|line| line.subject == "in tcp 8081" && line.grade == Grade::Fail),
            "{lines:?}"
        );
    }

    #[test]
    fn rules_that_cannot_be_read_are_no_failure_and_no_pass() {
        let refused = Listing::Refused("Operation not permitted (you must be root)".to_owned());
        for (nft, iptables) in [
            (Listing::NotInstalled, Listing::NotInstalled),
            (refused.clone(), Listing::NotInstalled),
            (Listing::Rules("not JSON".to_owned()), refused.clone()),
        ] {
            let lines = judge(&host(), &nft, &iptables);
            assert_eq!((lines.len(), lines[0].grade), (1, Grade::Warn), "{lines:?}");
            assert!(!lines[0].remedy.is_empty());
        }
        let lines = judge(&host(), &refused, &Listing::Rules(String::new()));
        assert!(lines[0].detail.contains("iptables") && lines[0].detail.contains("unlike nft"), "{lines:?}");
    }

    #[tokio::test]
    async fn programs_that_are_not_there_fail_hang_or_talk_too_much() {
        let limit = Duration::from_secs(20);
        assert_eq!(listing("tillwire-no-such-program", &[], limit).await, Listing::NotInstalled);
        assert_eq!(listing("echo", &["rules"], limit).await, Listing::Rules("rules\n".to_owned()));
        let refused = listing("sh", &["-c", "echo only for root >&2; exit 4"], limit).await;
        assert_eq!(refused, Listing::Refused("only for root".to_owned()));
        let hung = listing("sleep", &["60"], Duration::from_millis(50)).await;
        assert!(matches!(hung, Listing::Refused(why) if why.contains("50 ms")));
    }

    #[tokio::test]
    async fn a_listing_at_its_limit_and_one_past_it() {
        let zeros = |len: usize| format!("head -c {len} /dev/zero");
        let limit = Duration::from_secs(60);
        let read = listing("sh", &["-c", &zeros(LISTING_BYTES_MAX)], limit).await;
        assert_eq!(read.rules().map(str::len), Some(LISTING_BYTES_MAX));
        let read = listing("sh", &["-c", &zeros(LISTING_BYTES_MAX + 1)], limit).await;
        assert!(matches!(read, Listing::Refused(why) if why.contains("more than")));
    }

    /// Listings come from programs of any version; whatever they print is judged or not, and never ends the run.
    #[test]
    fn damaged_listings_make_nothing_panic() {
        const JSON: &str = r#"{"nftables": [
            {"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
            {"set": {"family": "inet", "table": "t", "name": "s", "elem": [{"range": [1, 9]}, {"elem": {"val": 80}}]}},
            {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": [
                {"match": {"op": "in", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": "@s"}},
                {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["new", {"jump": {"target": "c"}}], [1]]}}},
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                    "right": {"prefix": {"addr": "10.0.0.0", "len": 33}}}}, {"drop": null}]}}]}"#;
        let mut random = wire_format::rng::Rng::new(8_081);
        let mut next = move |below: usize| usize::try_from(random.below(below.max(1) as u64)).unwrap();
        let packet = &packets(&host())[0];
        let mut judged = [0; 2];
        for round in 0..6_000 {
            let mut text = [JSON, SAVED][round % 2].as_bytes().to_vec();
            for _ in 0..=next(3) {
                let at = next(text.len());
                match next(3) {
                    0 => text[at] = b"[]{}:,\"-!/9 @\n\xff"[next(15)],
                    1 => drop(text.drain(at..(at + next(40)).min(text.len()))),
                    _ => {
                        let piece = text[at..(at + next(60)).min(text.len())].to_vec();
                        text.splice(at..at, piece).for_each(drop);
                    }
                }
            }
            let listing = Listing::Rules(String::from_utf8_lossy(&text).into_owned());
            let none = Listing::NotInstalled;
            let fate =
                if round % 2 == 0 { fate(packet, &listing, &none) } else { fate(packet, &none, &listing) };
            judged[round % 2] += usize::from(fate.is_some());
        }
        assert!(judged[0] > 100 && judged[1] == 3_000, "{judged:?}");
    }
}
