//! Whether each known device takes a connection on its port for orders.
//!
//! A connection is opened and closed again; no byte is sent. A device that has a session with its server is not dialled:
//! the session is the proof.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dial::{NoWay, dial};
use super::host::{Host, Known};
use super::report::{Check, Grade, Line};

const CHECK: Check = Check::Devices;
/// Connections under way at a time: a check must not look like an attack.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Connections begun in a second: a tenth of what the server itself does.
pub(crate) const DIALS_PER_S: u32 = 200;
/// Devices that get a line of their own; of more, only the first that are bad.
pub(crate) const SHOWN_MAX: usize = 10;

/// A device, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tried {
    address: SocketAddr,
    /// It should be there.
    expected: bool,
    outcome: Result<(), NoWay>,
}

/// Tries every device that is named or known and has no session.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let known: &[Known] = host.running.as_ref().map_or(&[], |server| &server.devices);
    let connected = known.iter().filter(|device| device.connected).count();
    let named = host.devices.iter().map(|&address| (address, true));
    let mut seen = BTreeSet::new();
    let targets: Vec<_> = named
        .chain(known.iter().filter(|device| !device.connected).map(|device| (device.address, !device.away)))
        .filter(|(address, _)| seen.insert(*address))
        .collect();
    if targets.is_empty() {
        return vec![nothing_to_try(connected, host)];
    }
    judge(&try_all(&targets, host.timeout).await, connected)
}

/// How long all of it may take.
pub(crate) fn bound(host: &Host) -> Duration {
    let count = host.devices.len() + host.running.as_ref().map_or(0, |server| server.devices.len());
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let turns = count.div_ceil(IN_FLIGHT_MAX as u32) + 1;
    (Duration::from_secs(1) / DIALS_PER_S)
        .saturating_mul(count)
        .saturating_add(host.timeout.saturating_mul(turns))
}

fn nothing_to_try(connected: usize, host: &Host) -> Line {
    if connected > 0 {
        return Line::pass(
            CHECK,
            "",
            format!("all {connected} known devices have a session with the server"),
        );
    }
    let why =
        if host.running.is_some() { "the server that runs here knows none" } else { "no server runs here" };
    Line::warn(
        CHECK,
        "",
        format!("no device is known ({why}), so no path was tried"),
        "name some with --device IP[:PORT], or run this beside the server (tillwire serve)",
    )
}

async fn try_all(targets: &[(SocketAddr, bool)], limit: Duration) -> Vec<Tried> {
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut dials = JoinSet::new();
    let mut next = Instant::now();
    for &(address, expected) in targets {
        tokio::time::sleep_until(next).await;
        next += Duration::from_secs(1) / DIALS_PER_S;
        // Never closed, so there is always a permit in the end.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        dials.spawn(async move {
            let outcome = dial(address, limit).await.map(drop);
            drop(permit);
            Tried { address, expected, outcome }
        });
    }
    let mut tried = dials.join_all().await;
    tried.sort_by_key(|one| one.address);
    tried
}

fn judge(tried: &[Tried], connected: usize) -> Vec<Line> {
    if tried.len() <= SHOWN_MAX {
        return tried.iter().map(line).collect();
    }
    let mut counts = BTreeMap::<NoWay, usize>::new();
    for way in tried.iter().filter_map(|one| one.outcome.err()) {
        *counts.entry(way).or_default() += 1;
    }
    let bad: Vec<_> = tried.iter().filter(|one| one.outcome.is_err()).collect();
    let mut words = vec![format!("{} of {} take a connection", tried.len() - bad.len(), tried.len())];
    words.extend((connected > 0).then(|| format!("{connected} more have a session")));
    words.extend(counts.iter().map(|(way, count)| format!("{count} {way}")));
    let grade = bad.iter().map(|one| line(one).grade).max().unwrap_or(Grade::Pass);
    let remedy = if bad.is_empty() { "" } else { "the first of them are listed below, each with what to do" };
    let mut lines =
        vec![Line { grade, remedy: remedy.to_owned(), ..Line::pass(CHECK, "all", words.join("; ")) }];
    // What should be there comes first.
    let mut shown: Vec<_> = bad.into_iter().map(line).collect();
    shown.sort_by_key(|line| core::cmp::Reverse(line.grade));
    lines.extend(shown.into_iter().take(SHOWN_MAX));
    lines
}

fn line(one: &Tried) -> Line {
    let subject = one.address.to_string();
    let way = match one.outcome {
        Ok(()) => return Line::pass(CHECK, subject, "takes a connection"),
        Err(way) => way,
    };
    let (ip, port) = (one.address.ip(), one.address.port());
    let remedy = match way {
        NoWay::Refused => format!(
            "start the application on the device, or open TCP {port} in its own firewall\n\
             on it, Linux: ss -tlnp 'sport = :{port}'; Windows: netstat -ano | findstr :{port}"
        ),
        NoWay::NotPermitted => format!("let TCP {port} out of this host: see the check `firewall`"),
        NoWay::NoFiles => "raise the limit: see the check `open-files`".to_owned(),
        _ => format!(
            "is it on, and is that its address? tillwire watch shows what it announced\n\
             Linux: ping {ip}; ip neighbour show {ip}; Windows: Test-NetConnection {ip} -Port {port}\n\
             if it answers the ping, a firewall between here and there drops TCP {port}: its own, or that of a switch, \
             router or VLAN"
        ),
    };
    let known = if one.expected { "" } else { " (the roster has it as gone)" };
    Line::bad(one.expected, CHECK, subject, format!("{way}{known}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::Running;
    use crate::doctor::host::tests::host;

    fn tried(count: u8, outcome: Result<(), NoWay>, expected: bool) -> Vec<Tried> {
        let one =
            |number| Tried { address: SocketAddr::from(([10, 0, 1, number], 8_081)), expected, outcome };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_few_get_a_line_each_and_many_are_counted() {
        let limit = u8::try_from(SHOWN_MAX).unwrap();
        let lines = judge(&tried(limit, Err(NoWay::Refused), true), 0);
        assert_eq!(lines.len(), SHOWN_MAX);
        assert!(lines.iter().all(|line| line.grade == Grade::Fail && line.remedy.contains("8081")));
        let lines = judge(&tried(limit + 1, Ok(()), true), 7);
        assert_eq!((lines.len(), lines[0].grade), (1, Grade::Pass), "{lines:?}");
        assert!(lines[0].detail.contains("11 of 11") && lines[0].detail.contains("7 more"), "{lines:?}");
        let mut mixed = tried(20, Err(NoWay::TimedOut), false);
        mixed.extend(tried(3, Err(NoWay::Unreachable), true));
        let lines = judge(&mixed, 0);
        assert_eq!((lines.len(), lines[0].grade), (1 + SHOWN_MAX, Grade::Fail));
        assert!(
            lines[0].detail.contains("20 no answer") && lines[0].detail.contains("3 unreachable"),
            "{lines:?}"
        );
        assert!(lines[1..4].iter().all(|line| line.grade == Grade::Fail), "what should be there comes first");
    }

    #[tokio::test]
    async fn who_is_tried_and_who_is_not() {
        let mut host = host();
        assert_eq!(check(&host).await[0].grade, Grade::Warn);
        let listener = tokio::net::TcpListener::bind("127.41.7.5:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let nobody: SocketAddr = "127.41.7.6:9".parse().unwrap();
        let known = |address, connected, away| Known { address, connected, away };
        // One with a session is not dialled: it would be refused.
        host.running = Some(Running { devices: vec![known(nobody, true, false)], ..Running::default() });
        let lines = check(&host).await;
        assert!(lines[0].grade == Grade::Pass && lines[0].detail.contains("all 1"), "{lines:?}");
        let gone: SocketAddr = "127.41.7.7:9".parse().unwrap();
        host.running = Some(Running {
            devices: vec![known(here, false, false), known(gone, false, true)],
            ..Running::default()
        });
        host.devices = vec![nobody, here];
        let lines = check(&host).await;
        let stand: Vec<_> = lines.iter().map(|line| (line.subject.clone(), line.grade)).collect();
        let expected = [(here, Grade::Pass), (nobody, Grade::Fail), (gone, Grade::Warn)]
            .map(|(at, grade)| (at.to_string(), grade));
        assert_eq!(stand, expected, "{lines:?}");
    }

    #[tokio::test]
    async fn dials_are_paced_and_bounded() {
        let listener = tokio::net::TcpListener::bind("127.41.7.8:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let targets: Vec<_> =
            (0..IN_FLIGHT_MAX + 1).map(|_| (SocketAddr::from(([127, 41, 7, 8], port)), true)).collect();
        let begun = Instant::now();
        let tried = try_all(&targets, Duration::from_secs(20)).await;
        assert!(tried.iter().all(|one| one.outcome.is_ok()), "{tried:?}");
        assert!(
            begun.elapsed() >= (Duration::from_secs(1) / DIALS_PER_S) * IN_FLIGHT_MAX as u32,
            "not all at once"
        );
        let mut host = host();
        host.devices = vec![targets[0].0; IN_FLIGHT_MAX + 1];
        let turns = Duration::from_secs(1) / DIALS_PER_S * (IN_FLIGHT_MAX as u32 + 1) + host.timeout * 3;
        assert_eq!(bound(&host), turns);
    }
}
