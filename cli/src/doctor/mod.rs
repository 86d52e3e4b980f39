//! `tillwire doctor`: is this host, and the network around it, ready for a store server or a device?
//!
//! One file per check; each returns its findings and never ends the run. All run at the same time, each attempt within
//! `--timeout` and each check within a bound of its own, so that a hanging name server costs seconds and not the report.

mod broadcast;
mod buffer;
mod clock;
mod cloud;
mod devices;
mod dial;
mod files;
mod firewall;
mod host;
mod http;
mod identity;
mod neighbours;
mod outbox;
mod port;
mod proc;
mod profile;
mod proxy;
mod report;
mod services;
mod show;
mod state;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use tillwire::discovery::driver::{Interface, Net};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::host::{EXPECTED_DEFAULT, Expected, Host, Running};
use self::profile::{Profile, SHIPPED};
use self::proxy::{Environment, Proxy};
use self::report::{Check, Grade, Line, Role, count, worst};
use crate::args::{DISCOVERY_PORT, NetArgs};
use crate::control::{Endpoint, endpoint};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;
use crate::outbox::OutboxArgs;

/// The longest `--timeout`.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// How many attempts one after another a check may need: a name, a connection, a question, and one to spare.
const ATTEMPTS: u32 = 4;
/// No check takes longer, however many devices there are.
pub(crate) const CHECK_MAX: Duration = Duration::from_secs(300);

const EXAMPLES: &str = "\
Examples:
  tillwire doctor --expect 800                         is this host ready for a server of 800 devices?
  tillwire doctor --device 192.168.1.20                and can it reach this device?
  tillwire doctor --proxy http://proxy.shop:3128 --only cloud
  tillwire doctor --device --server 192.168.1.10       is this host ready for a device of that server?
  tillwire doctor --profile backup-appliance --only cloud
  tillwire doctor --print-profile > my-store.toml      a profile to change, then --profile my-store.toml
  sudo tillwire doctor --only firewall,port            rules and owners of ports are for root
  tillwire doctor --json | tail -n 1                   {\"event\":\"summary\",\"worst\":\"pass\",…}

Exit codes: 0 nothing failed (with --strict: and nothing warned); 1 something did; 2 not started.";

/// Check what this host and its network need for a store server, or a device, and say what to do.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A device whose path is tried; may be given for each. Without a value: this host is a device, not the server.
    #[arg(long = "device", value_name = "IP[:PORT]", num_args = 0..=1, default_missing_value = "", value_parser = device)]
    devices: Vec<DeviceArg>,
    /// The store server whose services are looked at, if it is another host.
    #[arg(long, value_name = "IP")]
    server: Option<Ipv4Addr>,
    /// How many devices the store has. Default: the profile's, those a running server knows, or 400.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    expect: Option<u32>,
    /// Which hosts and ports: a TOML file, or store-server, or backup-appliance.
    #[arg(long, value_name = "FILE|NAME", default_value = SHIPPED[0].0)]
    profile: String,
    /// Print the profile and end.
    #[arg(long)]
    print_profile: bool,
    /// Only these checks (names as in --list).
    #[arg(long, value_name = "CHECK", value_delimiter = ',', num_args = 1.., hide_possible_values = true)]
    only: Vec<Check>,
    /// All but these checks.
    #[arg(long, value_name = "CHECK", value_delimiter = ',', num_args = 1.., hide_possible_values = true)]
    skip: Vec<Check>,
    /// List the checks and end.
    #[arg(long)]
    list: bool,
    /// The way out of the store. Default: the profile's, or that of HTTPS_PROXY and NO_PROXY.
    #[arg(long, value_name = "http://[USER:PASSWORD@]HOST[:PORT]")]
    proxy: Option<Proxy>,
    /// No proxy, whatever the profile and the environment say.
    #[arg(long, conflicts_with = "proxy")]
    no_proxy: bool,
    /// Milliseconds each attempt may take: a connection, a name, a program.
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_MS_MAX))]
    timeout: u64,
    /// A warning counts as a failure.
    #[arg(long)]
    strict: bool,
    /// Where a running server is reached: a path, or a loopback IP:PORT. Default: the socket of this user, if there is one.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
    #[command(flatten)]
    outbox: OutboxArgs,
    #[command(flatten)]
    net: NetArgs,
}

/// What may stand behind `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceArg {
    /// This host is one.
    Here,
    /// There is one; on the profile's port if none is given.
    At(IpAddr, Option<u16>),
}

fn device(text: &str) -> Result<DeviceArg, String> {
    if text.is_empty() {
        return Ok(DeviceArg::Here);
    }
    let whole = text.parse::<SocketAddr>().map(|address| DeviceArg::At(address.ip(), Some(address.port())));
    whole
        .or_else(|_| text.parse().map(|ip| DeviceArg::At(ip, None)))
        .map_err(|_| "a device is IP or IP:PORT; without a value this host is meant".to_owned())
}

/// Checks, reports, and ends with the worst.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let role = role(&args)?;
    if args.list {
        list(role, json);
        return Ok(Verdict::AllRight);
    }
    if args.print_profile {
        // Not one that would be refused.
        profile::load(&args.profile)?;
        out::text(&profile::text(&args.profile)?);
        return Ok(Verdict::AllRight);
    }
    let checks = checks(&args, role)?;
    let strict = args.strict;
    let host = Arc::new(host(args, role).await?);
    let begun = Instant::now();
    let lines = all(&checks, &host, json).await;
    let (worst, elapsed) = (worst(&lines), begun.elapsed());
    if json {
        for line in &lines {
            out::json(&line.json());
        }
        out::json(&json!({
            "event": "summary", "worst": worst.name(), "pass": count(&lines, Grade::Pass),
            "warn": count(&lines, Grade::Warn), "fail": count(&lines, Grade::Fail),
            "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        }));
    } else {
        out::text(&show::people(&lines));
    }
    Ok(Verdict::of(worst != Grade::Fail && !(strict && worst == Grade::Warn)))
}

fn role(args: &Args) -> Result<Role, Failure> {
    let here = args.devices.iter().filter(|device| **device == DeviceArg::Here).count();
    match (here, args.devices.len()) {
        (0, _) => Ok(Role::Server),
        (here, all) if here == all => Ok(Role::Device),
        _ => Err(Failure::start(
            "--device without a value says that this host is a device, and devices are dialled from the server",
            "give each --device an address, or none",
        )),
    }
}

fn list(role: Role, json: bool) {
    for check in Check::value_variants() {
        let usual = check.is_for(role);
        if json {
            out::json(&json!({
                "event": "listed", "check": check.name(), "about": check.about(), "usual": usual,
            }));
        } else {
            let only = if usual { "" } else { " (only when asked for)" };
            out::line(&format!("{:<15} {}{only}", check.name(), check.about()));
        }
    }
}

/// What to check: what was asked for, or what makes sense here.
fn checks(args: &Args, role: Role) -> Result<Vec<Check>, Failure> {
    let asked = |check: &Check| match args.only.as_slice() {
        [] => check.is_for(role) && !(args.net.no_discovery && is_of_discovery(*check)),
        only => only.contains(check),
    };
    let checks: Vec<_> = Check::value_variants()
        .iter()
        .filter(|check| asked(check) && !args.skip.contains(check))
        .copied()
        .collect();
    if checks.is_empty() {
        return Err(Failure::start("no check is left", "tillwire doctor --list shows their names"));
    }
    Ok(checks)
}

const fn is_of_discovery(check: Check) -> bool {
    matches!(check, Check::Port | Check::Broadcast | Check::ReceiveBuffer)
}

async fn host(args: Args, role: Role) -> Result<Host, Failure> {
    let timeout = Duration::from_millis(args.timeout);
    let profile = profile::load(&args.profile)?;
    let running = match role {
        Role::Server => Running::ask(args.control.as_ref(), timeout).await?,
        Role::Device => None,
    };
    let port = match args.net.discovery_port {
        DISCOVERY_PORT => profile.discovery_port,
        port => port,
    };
    // Which interfaces count matters to services and rules without discovery as well.
    let mut net = args.net.clone();
    net.no_discovery = false;
    let net = net.discovery().unwrap_or_default();
    let environment = Environment::read();
    let proxy = match (args.no_proxy, args.proxy) {
        (true, _) => None,
        (false, Some(proxy)) => Some(proxy),
        (false, None) => proxy_of(&profile, &environment)?,
    };
    let devices = args.devices.iter().filter_map(|device| match *device {
        DeviceArg::Here => None,
        DeviceArg::At(ip, port) => Some(SocketAddr::new(ip, port.unwrap_or(profile.push_port))),
    });
    Ok(Host {
        role,
        expected: expected(args.expect, &profile, running.as_ref()),
        devices: devices.collect(),
        net: Net { port, ..net },
        interfaces: Interface::scan(),
        timeout,
        running,
        control: args.control,
        server: args.server,
        proxy,
        not_for_proxy: environment.not_for,
        outbox: args.outbox.choose(args.net.state.as_deref()),
        state: args.net.state,
        profile,
        port_turn: Mutex::new(()),
    })
}

fn proxy_of(profile: &Profile, environment: &Environment) -> Result<Option<Proxy>, Failure> {
    match (&profile.proxy, &environment.proxy) {
        (Some(proxy), _) => Ok(Some(proxy.clone())),
        (None, Some(text)) => text.parse().map(Some).map_err(|error: String| {
            Failure::start(
                format!("HTTPS_PROXY names no proxy: {error}"),
                "correct it, or use --proxy or --no-proxy",
            )
        }),
        (None, None) => Ok(None),
    }
}

fn expected(said: Option<u32>, profile: &Profile, running: Option<&Running>) -> Expected {
    let known = running.map(|server| u32::try_from(server.devices.len()).unwrap_or(u32::MAX));
    match (said, profile.expected, known) {
        (Some(devices), ..) => Expected { devices, from: "" },
        (None, Some(devices), _) => Expected { devices, from: " (by the profile)" },
        (None, None, Some(devices @ 1..)) => {
            Expected { devices, from: " (those the running server knows; see --expect)" }
        }
        _ => Expected { devices: EXPECTED_DEFAULT, from: " (nobody said how many: see --expect)" },
    }
}

/// Runs them at the same time and returns their findings in the order of the list.
async fn all(checks: &[Check], host: &Arc<Host>, json: bool) -> Vec<Line> {
    let progress = show::Progress::new(checks, json);
    let mut running = JoinSet::new();
    for &check in checks {
        let host = Arc::clone(host);
        running.spawn(async move {
            let bound = bound(check, &host);
            let found = tokio::time::timeout(bound, one(check, &host)).await;
            (check, found.unwrap_or_else(|_| vec![unfinished(check, bound)]))
        });
    }
    let mut found = BTreeMap::new();
    while let Some(done) = running.join_next().await {
        if let Ok((check, lines)) = done {
            progress.done(check);
            found.insert(check, lines);
        }
    }
    progress.clear();
    // A check that broke off says so, whatever it was.
    let broken =
        |check| vec![Line::warn(check, "", "broke off without a result", "run it alone with --only")];
    checks.iter().flat_map(|&check| found.remove(&check).unwrap_or_else(|| broken(check))).collect()
}

async fn one(check: Check, host: &Host) -> Vec<Line> {
    match check {
        Check::Port => port::check(host).await,
        Check::Broadcast => broadcast::check(host).await,
        Check::ReceiveBuffer => buffer::check(host).await,
        Check::Neighbours => neighbours::check(host).await,
        Check::Firewall => firewall::check(host).await,
        Check::OpenFiles => files::check(host).await,
        Check::Devices => devices::check(host).await,
        Check::Services => services::check(host).await,
        Check::Cloud => cloud::check(host).await,
        Check::Clock => clock::check(host).await,
        Check::State => state::check(host).await,
        Check::Outbox => outbox::check(host).await,
        Check::Identity => identity::check(host).await,
    }
}

/// How long a check may take as a whole; its attempts are bounded one by one.
fn bound(check: Check, host: &Host) -> Duration {
    let attempts = host.timeout.saturating_mul(ATTEMPTS).saturating_add(Duration::from_secs(10));
    match check {
        Check::Devices => devices::bound(host).saturating_add(attempts).min(CHECK_MAX),
        // An address of each interface after the other.
        Check::Services => {
            attempts.saturating_mul(2 + u32::try_from(host.usable().len()).unwrap_or(1)).min(CHECK_MAX)
        }
        _ => attempts.min(CHECK_MAX),
    }
}

fn unfinished(check: Check, bound: Duration) -> Line {
    Line::warn(
        check,
        "",
        format!("did not end within {} s and was given up", bound.as_secs()),
        "run it alone with --only; a shorter --timeout makes it quicker",
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Cli::try_parse_from([&["doctor"], words].concat()).expect("a command line").args
    }

    #[test]
    fn device_with_and_without_a_value() {
        let server = args(&["--device", "10.0.0.9", "--device", "10.0.0.8:99"]);
        assert_eq!(role(&server).unwrap(), Role::Server);
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        assert_eq!(server.devices, [DeviceArg::At(ip(9), None), DeviceArg::At(ip(8), Some(99))]);
        assert_eq!(role(&args(&["--device", "--strict"])).unwrap(), Role::Device);
        assert!(role(&args(&["--device", "--device", "10.0.0.9"])).is_err());
        assert!(Cli::try_parse_from(["doctor", "--device", "here"]).is_err());
    }

    #[test]
    fn what_is_checked() {
        let of = |words: &[&str]| {
            let args = args(words);
            checks(&args, role(&args).unwrap())
        };
        assert_eq!(of(&[]).unwrap(), Check::value_variants());
        assert_eq!(of(&["--only", "clock,cloud"]).unwrap(), [Check::Cloud, Check::Clock]);
        assert_eq!(of(&["--only", "clock", "cloud", "--skip", "cloud"]).unwrap(), [Check::Clock]);
        assert!(!of(&["--no-discovery"]).unwrap().contains(&Check::Broadcast));
        assert!(!of(&["--device"]).unwrap().contains(&Check::Neighbours));
        assert_eq!(of(&["--device", "--only", "neighbours"]).unwrap(), [Check::Neighbours]);
        assert!(of(&["--only", "clock", "--skip", "clock"]).is_err());
    }

    #[test]
    fn how_many_devices_are_expected() {
        let mut profile = profile::load("store-server").unwrap();
        let known = |count| {
            let device = host::Known { address: "10.0.0.9:1".parse().unwrap(), connected: true, away: false };
            Running { devices: vec![device; count], ..Running::default() }
        };
        assert_eq!(expected(None, &profile, None).devices, EXPECTED_DEFAULT);
        assert_eq!(expected(None, &profile, Some(&known(0))).devices, EXPECTED_DEFAULT);
        assert_eq!(expected(None, &profile, Some(&known(7))).devices, 7);
        profile.expected = Some(900);
        assert_eq!(expected(None, &profile, Some(&known(7))).devices, 900);
        assert_eq!(expected(Some(3), &profile, Some(&known(7))).devices, 3);
    }

    #[test]
    fn a_check_is_bounded_however_many_devices_there_are() {
        let mut host = host::tests::host();
        assert!(bound(Check::Clock, &host) < Duration::from_secs(30));
        host.timeout = Duration::from_millis(TIMEOUT_MS_MAX);
        host.devices = vec!["10.0.0.9:1".parse().unwrap(); 10_000];
        assert_eq!(bound(Check::Devices, &host), CHECK_MAX);
        let line = unfinished(Check::Devices, CHECK_MAX);
        assert!(line.grade == Grade::Warn && line.detail.contains("300 s"), "{line:?}");
    }
}
