//! Whether the clock is plausible, kept right, and never stands still. Discovery and orders do without a clock;
//! certificates, logs and receipts do not.

use core::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use super::dial::{dial, resolve};
use super::host::Host;
use super::http;
use super::proc;
use super::report::{Check, Line, Role};

const CHECK: Check = Check::Clock;
/// 2026-01-01, in seconds since 1970: this program is younger.
const EARLIEST_S: i64 = 1_767_225_600;
/// 2100-01-01: no store server runs that long.
const LATEST_S: i64 = 4_102_444_800;
/// More than a busy network and a date without fractions explain.
const OFF_S: u64 = 120;
/// Certificates are refused by then.
const FAR_OFF_S: u64 = 86_400;
/// A server that slept longer than this was not there for its devices.
const SLEPT_S: u64 = 10;
/// Programs that keep a clock right, as their processes are named (the kernel keeps 15 letters).
const KEEPERS: [&str; 7] =
    ["chronyd", "ntpd", "ntpsec", "openntpd", "systemd-timesyn", "ptp4l", "vmware-vmtoolsd"];

/// Three or four lines: the time, who keeps it, sleep, and others' clocks.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let now = now_s();
    let mut lines = vec![judge_time(now), judge_keeping()];
    if let Some(slept) = slept() {
        lines.push(judge_sleep(host.role, slept));
    }
    lines.extend(compare(host).await);
    lines
}

#[expect(clippy::disallowed_methods, reason = "the wall clock is what is looked at")]
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(-1, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

const SET: &str = "Linux: timedatectl set-ntp true, or date -s; a clock that is wrong after each start needs a new battery\n\
                   Windows: w32tm /resync; w32tm /query /status";

fn judge_time(now: i64) -> Line {
    let note = "discovery and orders need no clock; HTTPS, logs and receipts do";
    if now < EARLIEST_S {
        let detail = format!("{now} s since 1970 is before this program was made; {note}");
        Line::fail(CHECK, "time", detail, SET)
    } else if now >= LATEST_S {
        let detail = format!("{now} s since 1970 is after the year 2100; {note}");
        Line::fail(CHECK, "time", detail, SET)
    } else {
        Line::pass(CHECK, "time", format!("plausible; {note}"))
    }
}

fn judge_keeping() -> Line {
    // Written by systemd-timesyncd when it has set the clock, and there for everybody to see.
    let synchronised = std::fs::exists("/run/systemd/timesync/synchronized").unwrap_or(false);
    let mut names: Vec<String> = proc::pids().into_iter().map(proc::process_name).collect();
    names.retain(|name| KEEPERS.contains(&name.as_str()));
    keeping(synchronised, names.first().map(String::as_str))
}

fn keeping(synchronised: bool, keeper: Option<&str>) -> Line {
    let subject = "synchronisation";
    match keeper {
        _ if synchronised => Line::pass(CHECK, subject, "systemd-timesyncd has set the clock"),
        Some("systemd-timesyn") => Line::warn(
            CHECK,
            subject,
            "systemd-timesyncd runs and has not reached a time server yet",
            "timedatectl timesync-status tells which; let UDP 123 out, or name a time server of the store",
        ),
        Some(keeper) => {
            let detail = format!("{keeper} runs; how far it is cannot be read here");
            Line::pass(CHECK, subject, detail)
        }
        None => Line::warn(CHECK, subject, "nothing that keeps the clock right is seen to run", SET),
    }
}

/// How long this machine slept since its start: one clock counts that time, the other does not.
#[cfg(target_os = "linux")]
fn slept() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| {
        let time = clock_gettime(clock);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    // In this order, so that the time between the two reads is never taken for sleep.
    let (awake, all) = (read(ClockId::Monotonic), read(ClockId::Boottime));
    Some(all.saturating_sub(awake))
}

#[cfg(not(target_os = "linux"))]
fn slept() -> Option<Duration> {
    None
}

fn judge_sleep(role: Role, slept: Duration) -> Line {
    let seconds = slept.as_secs();
    if role == Role::Device || seconds <= SLEPT_S {
        let detail = if seconds == 0 {
            "this machine never slept since its start".to_owned()
        } else {
            format!(
                "this machine slept for {seconds} s since its start; discovery finds its server again by itself"
            )
        };
        return Line::pass(CHECK, "sleep", detail);
    }
    Line::warn(
        CHECK,
        "sleep",
        format!("this machine slept for {seconds} s since its start: a server that sleeps loses its devices"),
        "Linux: systemctl mask sleep.target suspend.target hibernate.target\n\
         Windows: powercfg /change standby-timeout-ac 0",
    )
}

/// What others have for the time, if they say it without encryption: the server from a device, the proxy, and whom the
/// profile names.
async fn compare(host: &Host) -> Option<Line> {
    let mut places: Vec<(String, u16)> = host.profile.dates.clone();
    if let Some(server) = host.server {
        let http = host.profile.services.iter().filter(|service| service.http);
        places.extend(http.map(|service| (server.to_string(), service.port)));
    }
    places.extend(host.proxy.as_ref().map(|proxy| (proxy.host.clone(), proxy.port)));
    if places.is_empty() {
        return None;
    }
    let mut asks = JoinSet::new();
    for (name, port) in places {
        asks.spawn(date_of(name, port, host.timeout));
    }
    let mut dates: Vec<_> = asks.join_all().await.into_iter().flatten().collect();
    dates.sort();
    Some(judge_dates(&dates))
}

/// A place, and how many seconds this clock is ahead of it.
async fn date_of(name: String, port: u16, limit: Duration) -> Option<(String, i64)> {
    let address = *resolve(&name, limit).await.ok()?.first()?;
    let mut stream = dial(SocketAddr::new(address, port), limit).await.ok()?;
    let head = tokio::time::timeout(limit, http::head(&mut stream, &name)).await.ok()?.ok()?;
    let theirs = http::date(http::field(&head, "date")?)?;
    Some((format!("{name}:{port}"), now_s() - theirs))
}

fn judge_dates(dates: &[(String, i64)]) -> Line {
    // One that is far off may be wrong itself; the one that agrees best decides.
    let Some((place, ahead)) = dates.iter().min_by_key(|(_, ahead)| ahead.unsigned_abs()) else {
        return Line::pass(CHECK, "others", "nobody that could be asked says what time it is");
    };
    let off = ahead.unsigned_abs();
    let way = if *ahead < 0 { "behind" } else { "ahead of" };
    let detail = format!("this clock is {off} s {way} that of {place}");
    match off {
        0..=OFF_S => Line::pass(CHECK, "others", detail),
        _ => Line::bad(off > FAR_OFF_S, CHECK, "others", detail, SET),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Grade;

    #[test]
    fn times_and_who_keeps_them() {
        for (now, grade) in [
            (-1, Grade::Fail),
            (EARLIEST_S - 1, Grade::Fail),
            (EARLIEST_S, Grade::Pass),
            (LATEST_S - 1, Grade::Pass),
            (LATEST_S, Grade::Fail),
        ] {
            let line = judge_time(now);
            assert!(line.grade == grade && line.detail.contains("need no clock"), "{line:?}");
        }
        assert_eq!(keeping(true, None).grade, Grade::Pass);
        assert_eq!(keeping(false, Some("chronyd")).grade, Grade::Pass);
        assert_eq!(keeping(false, Some("systemd-timesyn")).grade, Grade::Warn);
        assert_eq!(keeping(false, None).grade, Grade::Warn);
        assert_eq!(judge_time(now_s()).grade, Grade::Pass, "the clock of whoever runs this");
    }

    #[test]
    fn sleep_is_bad_for_servers_only() {
        let second = Duration::from_secs(1);
        for (role, slept, grade) in [
            (Role::Server, 10, Grade::Pass),
            (Role::Server, 11, Grade::Warn),
            (Role::Device, 9_000, Grade::Pass),
        ] {
            assert_eq!(judge_sleep(role, second * slept).grade, grade, "{role:?} {slept}");
        }
    }

    #[test]
    fn the_best_of_others_clocks_decides() {
        let at = |ahead| ("x:80".to_owned(), ahead);
        for (dates, grade) in [
            (vec![], Grade::Pass),
            (vec![at(-120)], Grade::Pass),
            (vec![at(121)], Grade::Warn),
            (vec![at(-86_401)], Grade::Fail),
            (vec![at(-86_401), at(3)], Grade::Pass),
        ] {
            assert_eq!(judge_dates(&dates).grade, grade, "{dates:?}");
        }
    }
}
