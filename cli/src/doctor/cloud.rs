//! Whether the hosts outside the store can be reached, directly or by the proxy.
//!
//! What is proved is that the port takes a connection (by a proxy: that the proxy grants one). No TLS is spoken: a box on
//! the way that breaks certificates is not noticed.

use core::fmt;
use core::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dial::{NoWay, dial, resolve};
use super::host::Host;
use super::profile::Outgoing;
use super::proxy::{self, Proxy, ProxyRefusal};
use super::report::{Check, Line};

const CHECK: Check = Check::Cloud;

/// One line per entry of the profile.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    if host.profile.outgoing.is_empty() {
        return vec![Line::pass(CHECK, "", format!("the profile {} lists none", host.profile.name))];
    }
    let mut entries = JoinSet::new();
    for (at, entry) in host.profile.outgoing.iter().enumerate() {
        let ways: Vec<_> = entry.hosts.iter().map(|name| (name.clone(), way(host, entry, name))).collect();
        let (entry, limit) = (entry.clone(), host.timeout);
        entries.spawn(async move {
            let mut hosts = JoinSet::new();
            for (order, (name, proxy)) in ways.into_iter().enumerate() {
                let ports = entry.ports.clone();
                hosts.spawn(async move { (order, reach(&name, &ports, proxy.as_ref(), limit).await) });
            }
            let mut tried = hosts.join_all().await;
            tried.sort_by_key(|(order, _)| *order);
            let tried: Vec<_> = tried.into_iter().flat_map(|(_, tried)| tried).collect();
            (at, judge(&entry, &tried))
        });
    }
    let mut lines = entries.join_all().await;
    lines.sort_by_key(|(at, _)| *at);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn way(host: &Host, entry: &Outgoing, name: &str) -> Option<Proxy> {
    host.proxy_for(name).filter(|_| entry.proxy).cloned()
}

/// Why a host was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unreached {
    /// On the way to the host itself.
    Direct(NoWay),
    /// The proxy was not reached.
    NoProxy(String, NoWay),
    /// The proxy was, and gives no connection.
    ByProxy(String, ProxyRefusal),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(way) => write!(f, "{way}"),
            Self::NoProxy(proxy, way) => write!(f, "the proxy {proxy} is not reached: {way}"),
            Self::ByProxy(proxy, refusal) => write!(f, "the proxy {proxy} {refusal}"),
        }
    }
}

/// One host on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tried {
    host: String,
    port: u16,
    /// The proxy, if by one.
    by: Option<String>,
    outcome: Result<Duration, Unreached>,
}

/// Tries all ports of one host at the same time.
async fn reach(host: &str, ports: &[u16], proxy: Option<&Proxy>, limit: Duration) -> Vec<Tried> {
    let by = proxy.map(ToString::to_string);
    let tried = |port, outcome| Tried { host: host.to_owned(), port, by: by.clone(), outcome };
    let begun = Instant::now();
    // A proxy looks up the name itself.
    let name = proxy.map_or(host, |proxy| &proxy.host);
    let addresses = match resolve(name, limit).await {
        Ok(addresses) => addresses,
        Err(way) => {
            let why = match &by {
                Some(proxy) => Unreached::NoProxy(proxy.clone(), way),
                None => Unreached::Direct(way),
            };
            return ports.iter().map(|&port| tried(port, Err(why.clone()))).collect();
        }
    };
    let mut attempts = JoinSet::new();
    for (order, &port) in ports.iter().enumerate() {
        let (addresses, proxy, host) = (addresses.clone(), proxy.cloned(), host.to_owned());
        attempts.spawn(async move {
            let outcome = match &proxy {
                None => connect(&addresses, port, limit).await.map_err(Unreached::Direct).map(drop),
                Some(proxy) => by_proxy(&addresses, proxy, &host, port, limit).await,
            };
            (order, port, outcome.map(|()| begun.elapsed()))
        });
    }
    let mut done = attempts.join_all().await;
    done.sort_by_key(|(order, ..)| *order);
    done.into_iter().map(|(_, port, outcome)| tried(port, outcome)).collect()
}

/// The first address that takes a connection; all are tried at the same time, as one of a family may lead nowhere.
async fn connect(
    addresses: &[core::net::IpAddr],
    port: u16,
    limit: Duration,
) -> Result<tokio::net::TcpStream, NoWay> {
    let mut dials = JoinSet::new();
    for &address in addresses {
        dials.spawn(dial(SocketAddr::new(address, port), limit));
    }
    let mut worst = NoWay::NoName;
    while let Some(done) = dials.join_next().await {
        match done {
            Ok(Ok(stream)) => return Ok(stream),
            // That a host answers at all says more than that another address has no route.
            Ok(Err(way)) if worst == NoWay::NoName || way < worst => worst = way,
            _ => {}
        }
    }
    Err(worst)
}

async fn by_proxy(
    addresses: &[core::net::IpAddr],
    proxy: &Proxy,
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<(), Unreached> {
    let name = proxy.to_string();
    let mut stream =
        connect(addresses, proxy.port, limit).await.map_err(|way| Unreached::NoProxy(name.clone(), way))?;
    let asked = proxy::ask(&mut stream, proxy, host, port, limit).await;
    asked.map_err(|refusal| Unreached::ByProxy(name, refusal))
}

fn judge(entry: &Outgoing, tried: &[Tried]) -> Line {
    let subject = entry.hosts.join(" or ");
    let purpose = if entry.purpose.is_empty() { String::new() } else { format!(" ({})", entry.purpose) };
    let place = |one: &Tried| format!("{}:{}", one.host, one.port);
    let good: Vec<_> = tried.iter().filter(|one| one.outcome.is_ok()).collect();
    if let Some(first) = good.first() {
        let others =
            tried.iter().filter_map(|one| Some(format!("{}: {}", place(one), one.outcome.as_ref().err()?)));
        let others = others.collect::<Vec<_>>();
        let also = match others.len() {
            0 => String::new(),
            1 => format!("; {}", others.join("")),
            count => format!("; {count} alternatives not, and one is enough"),
        };
        let by =
            first.by.as_ref().map_or_else(|| "directly".to_owned(), |proxy| format!("by the proxy {proxy}"));
        let ms = first.outcome.as_ref().map_or(0, Duration::as_millis);
        return Line::pass(
            CHECK,
            subject,
            format!("{} is reached {by} in {ms} ms{purpose}{also}", place(first)),
        );
    }
    let mut whys = Vec::<(String, Vec<String>)>::new();
    for one in tried {
        let why = one.outcome.as_ref().err().map_or_else(String::new, ToString::to_string);
        match whys.iter_mut().find(|(known, _)| *known == why) {
            Some((_, places)) => places.push(place(one)),
            None => whys.push((why, vec![place(one)])),
        }
    }
    let whys = whys.into_iter().map(|(why, places)| format!("{}: {why}", places.join(", ")));
    let detail = format!("not reached{purpose}: {}", whys.collect::<Vec<_>>().join("; "));
    Line::bad(entry.required, CHECK, subject, detail, remedy(entry, tried))
}

fn remedy(entry: &Outgoing, tried: &[Tried]) -> String {
    let ports = entry.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ");
    let hosts = entry.hosts.join(" or ");
    let first = tried.iter().find_map(|one| one.outcome.as_ref().err());
    match first {
        Some(Unreached::ByProxy(_, ProxyRefusal::LoginWanted)) => {
            "give the proxy's user and password: --proxy http://USER:PASSWORD@HOST:PORT, or in HTTPS_PROXY".to_owned()
        }
        Some(Unreached::ByProxy(_, ProxyRefusal::Status(_))) => {
            format!("let the proxy allow CONNECT to {hosts} port {ports} from this host")
        }
        Some(Unreached::ByProxy(..) | Unreached::NoProxy(..)) => {
            "check the proxy's address and port (--proxy, HTTPS_PROXY, the profile), or try without it: --no-proxy".to_owned()
        }
        Some(Unreached::Direct(NoWay::NoName | NoWay::NameTimedOut)) => {
            "check the name servers of this host (Linux: resolvectl status, or /etc/resolv.conf; Windows: Resolve-DnsName)\n\
             where only a proxy leads out, name it: --proxy http://HOST:PORT"
                .to_owned()
        }
        _ => format!(
            "let TCP {ports} to {hosts} out of the store (router, firewall); where only a proxy leads out, name it: \
             --proxy http://HOST:PORT\n\
             Windows: Test-NetConnection {} -Port {}",
            entry.hosts.first().map_or("", String::as_str),
            entry.ports.first().copied().unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Grade;

    fn entry(required: bool) -> Outgoing {
        Outgoing {
            hosts: vec!["a.example".to_owned(), "b.example".to_owned()],
            ports: vec![443],
            required,
            purpose: "tests".to_owned(),
            proxy: true,
        }
    }

    fn tried(host: &str, outcome: Result<Duration, Unreached>) -> Tried {
        Tried { host: host.to_owned(), port: 443, by: None, outcome }
    }

    #[test]
    fn any_alternative_is_enough_and_none_is_a_failure_or_a_warning() {
        let no = || Err(Unreached::Direct(NoWay::TimedOut));
        let yes = Ok(Duration::from_millis(34));
        let line = judge(&entry(true), &[tried("a.example", no()), tried("b.example", yes)]);
        assert_eq!(line.grade, Grade::Pass);
        assert!(
            line.detail
                .contains("b.example:443 is reached directly in 34 ms (tests); a.example:443: no answer"),
            "{line:?}"
        );
        let both = [tried("a.example", no()), tried("b.example", no())];
        let line = judge(&entry(true), &both);
        assert!(
            line.grade == Grade::Fail && line.detail.contains("a.example:443, b.example:443: no answer"),
            "{line:?}"
        );
        assert!(line.remedy.contains("--proxy") && line.remedy.contains("Test-NetConnection"), "{line:?}");
        assert_eq!(judge(&entry(false), &both).grade, Grade::Warn);
    }

    #[test]
    fn each_reason_has_its_remedy() {
        let proxy = || "http://proxy:3128".to_owned();
        for (why, says) in [
            (Unreached::ByProxy(proxy(), ProxyRefusal::LoginWanted), "USER:PASSWORD"),
            (Unreached::ByProxy(proxy(), ProxyRefusal::Status(403)), "allow CONNECT"),
            (Unreached::ByProxy(proxy(), ProxyRefusal::NotHttp), "--no-proxy"),
            (Unreached::NoProxy(proxy(), NoWay::Refused), "--no-proxy"),
            (Unreached::Direct(NoWay::NoName), "name servers"),
            (Unreached::Direct(NoWay::Refused), "out of the store"),
        ] {
            let line = judge(&entry(true), &[tried("a.example", Err(why))]);
            assert!(line.remedy.contains(says), "{line:?}");
        }
    }
}
