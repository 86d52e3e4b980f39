//! Whether the services of the server answer on their ports, on an address the devices can call.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::task::JoinSet;

use super::dial::{NoWay, dial};
use super::host::Host;
use super::http;
use super::profile::Service;
use super::report::{Check, Line, Role};

const CHECK: Check = Check::Services;

/// One line per port.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    if host.role == Role::Device && host.server.is_none() {
        return vec![Line::warn(
            CHECK,
            "",
            "no server was named, so its services were not looked at",
            "name it with --server IP; tillwire watch on the server, or its label, tells the address",
        )];
    }
    if host.profile.services.is_empty() {
        return vec![Line::pass(CHECK, "", format!("the profile {} lists none", host.profile.name))];
    }
    let addresses = addresses(host);
    let mut looks = JoinSet::new();
    for (at, service) in host.profile.services.iter().enumerate() {
        let (service, addresses, limit) = (service.clone(), addresses.clone(), host.timeout);
        let elsewhere = host.server.is_some();
        looks.spawn(async move {
            let mut found = Vec::new();
            for &address in &addresses {
                let look = look(SocketAddr::new(address, service.port), service.http, limit).await;
                let answers = look == Look::Answers;
                found.push((address, look));
                if answers {
                    break;
                }
            }
            (at, judge(&service, &found, elsewhere))
        });
    }
    let mut lines = looks.join_all().await;
    lines.sort_by_key(|(at, _)| *at);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Where to look: at the server that was named, or at this host as its LAN sees it, and then as it sees itself.
fn addresses(host: &Host) -> Vec<IpAddr> {
    if let Some(server) = host.server {
        return vec![server.into()];
    }
    let mut addresses: Vec<IpAddr> = match host.net.bind {
        Some(bind) => vec![bind.into()],
        None => host.usable().iter().map(|one| one.address.into()).collect(),
    };
    addresses.push(Ipv4Addr::LOCALHOST.into());
    addresses.dedup();
    addresses
}

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    /// As it should.
    Answers,
    /// With a status of its own.
    Status(u16),
    /// It takes a connection; it says something else, or nothing.
    NotHttp,
    /// It takes none.
    No(NoWay),
}

async fn look(address: SocketAddr, http: bool, limit: core::time::Duration) -> Look {
    let mut stream = match dial(address, limit).await {
        Ok(stream) => stream,
        Err(way) => return Look::No(way),
    };
    if !http {
        return Look::Answers;
    }
    let host = address.ip().to_string();
    match tokio::time::timeout(limit, http::head(&mut stream, &host)).await {
        Ok(Ok(head)) => match http::status(&head) {
            // What it thinks of HEAD or of `/` is its own business.
            Some(100..=499) => Look::Answers,
            Some(status) => Look::Status(status),
            None => Look::NotHttp,
        },
        _ => Look::NotHttp,
    }
}

/// The best look decides; `found` begins with the addresses the LAN sees.
fn judge(service: &Service, found: &[(IpAddr, Look)], elsewhere: bool) -> Line {
    let Service { port, http, required, purpose } = service;
    let subject = format!("{port}/tcp");
    let what = if *http { "HTTP" } else { "TCP" };
    let purpose = if purpose.is_empty() { String::new() } else { format!(" ({purpose})") };
    let listens = found.iter().find(|(_, look)| !matches!(look, Look::No(_)));
    // Loopback comes last, behind what the LAN sees.
    let only_here =
        |address: &IpAddr| address.is_loopback() && found.first().is_some_and(|(first, _)| first != address);
    match listens {
        Some((address, look)) if only_here(address) => Line::bad(
            *required,
            CHECK,
            subject,
            format!("listens on {address} only{purpose}: {}", says(look)),
            "let the service listen on the LAN's address, or on 0.0.0.0: devices cannot call it now",
        ),
        Some((address, Look::Answers)) => {
            Line::pass(CHECK, subject, format!("answers {what} at {address}{purpose}"))
        }
        Some((address, look)) => Line::warn(
            CHECK,
            subject,
            format!("at {address}{purpose}: {}", says(look)),
            format!(
                "is it the right program? Linux: ss -tlnp 'sport = :{port}'; Windows: netstat -ano | findstr :{port}"
            ),
        ),
        None => {
            let remedy = if elsewhere {
                "run tillwire doctor on the server: does the service run there, and is its port let in?"
            } else {
                "start the service; Linux: systemctl status, ss -tlnp; Windows: Get-Service, netstat -ano\n\
                 a service this store does not use: take it out of the profile (--print-profile, --profile FILE)"
            };
            Line::bad(*required, CHECK, subject, format!("nothing answers{purpose}: {}", whys(found)), remedy)
        }
    }
}

/// What each address said, those that said the same together.
fn whys(found: &[(IpAddr, Look)]) -> String {
    let mut whys = Vec::<(&Look, Vec<String>)>::new();
    for (address, look) in found {
        match whys.iter_mut().find(|(known, _)| *known == look) {
            Some((_, addresses)) => addresses.push(address.to_string()),
            None => whys.push((look, vec![address.to_string()])),
        }
    }
    let each = whys.iter().map(|(look, addresses)| format!("{}: {}", addresses.join(", "), says(look)));
    each.collect::<Vec<_>>().join("; ")
}

fn says(look: &Look) -> String {
    match look {
        Look::Answers => "it answers".to_owned(),
        Look::Status(status) => format!("it answers with status {status}: it is in trouble of its own"),
        Look::NotHttp => "listens, does not speak HTTP".to_owned(),
        Look::No(way) => way.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Grade;

    #[test]
    fn what_is_found_is_graded() {
        let lan: IpAddr = "10.0.0.1".parse().unwrap();
        let own: IpAddr = "127.0.0.1".parse().unwrap();
        let mut service = Service { port: 80, http: true, required: true, purpose: String::new() };
        let no = || Look::No(NoWay::Refused);
        for (found, grade, says) in [
            (vec![(lan, Look::Answers)], Grade::Pass, "answers HTTP at 10.0.0.1"),
            (vec![(lan, no()), (own, Look::Answers)], Grade::Fail, "127.0.0.1 only"),
            (vec![(own, Look::Answers)], Grade::Pass, "answers"),
            (vec![(lan, Look::NotHttp), (own, Look::NotHttp)], Grade::Warn, "does not speak HTTP"),
            (vec![(own, Look::NotHttp), (own, Look::NotHttp)], Grade::Warn, "does not speak HTTP"),
            (vec![(lan, Look::Status(503))], Grade::Warn, "503"),
            (vec![(lan, no()), (own, no())], Grade::Fail, "nothing answers"),
        ] {
            let line = judge(&service, &found, false);
            assert!(line.grade == grade && line.detail.contains(says), "{line:?}");
        }
        service.required = false;
        assert_eq!(judge(&service, &[(lan, no())], true).grade, Grade::Warn);
    }
}
