//! How quiet it is: without a server, and once everybody is registered.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;
use testkit::farm::{FarmConfig, seekers_alone};
use wire_format::datagram::header::Kind;

use super::super::contestant::Who;
use super::super::figures::rounded;
use super::cold;
use super::node::store;
use super::row::{Budget, Row};
use super::stand::{DEFAULT_BUFFER, Stand, number};
use super::{Args, Section};
use crate::error::Failure;

/// How long nobody answers.
const SILENT_FOR: Duration = Duration::from_secs(180);
/// Broadcasts of a full store in that time.
const SILENT_BUDGET: f64 = 150.0;
/// Broadcasts a second of a store at rest: a beacon every 10 s, and what falls into a short run.
const STEADY_BUDGET: f64 = 0.1;
/// Time for the last refreshes that were under way when the sessions opened.
const SETTLE_FOR: Duration = Duration::from_secs(2);

/// Devices and no server.
pub(super) fn silent(args: &Args) -> Result<Row, Failure> {
    let (broadcasts, sent, pinned) = if args.real {
        let mut stand = Stand::start(Who::Tillwire, args.devices, DEFAULT_BUFFER)?;
        stand.tell("boot 1000 0", "booted")?;
        let ran = stand.tell(&format!("run {}", SILENT_FOR.as_millis()), "ran")?;
        let pinned = stand.pinned;
        stand.end();
        (number(&ran, "broadcasts"), number(&ran, "sent"), pinned)
    } else {
        let config = FarmConfig::new(args.devices, Ipv4Addr::new(127, 58, 0, 1), 1_024, store()?);
        let counts = seekers_alone(&config, SILENT_FOR);
        assert_eq!(counts.sent(Kind::Seek), counts.broadcasts, "without a server nothing but SEEK is sent");
        (counts.broadcasts, counts.sent_in_all(), true)
    };
    Ok(Row {
        section: Section::Silent,
        figures: json!({
            "devices": args.devices,
            "seconds": SILENT_FOR.as_secs(),
            "virtual": !args.real,
            "broadcasts": broadcasts,
            "datagrams": sent,
        }),
        said: format!(
            "{broadcasts} broadcasts in {} s of {} time",
            SILENT_FOR.as_secs(),
            if args.real { "real" } else { "virtual" }
        ),
        budgets: vec![Budget::new("broadcasts", broadcasts as f64, SILENT_BUDGET)],
        right: broadcasts > 0,
        pinned,
    })
}

/// Everybody is registered and has a push session.
pub(super) fn steady(args: &Args) -> Result<Row, Failure> {
    let mut stand = Stand::start(Who::Tillwire, args.devices, DEFAULT_BUFFER)?;
    cold::prepare(&mut stand, args.devices)?;
    stand.node.tell("link")?;
    stand.node.expect("linked")?;
    stand.tell("link", "linked")?;
    // The beacons of a server's start, and what was on its way.
    stand.tell(&format!("run {}", SETTLE_FOR.as_millis()), "ran")?;
    let before = stand.look()?;
    let span = Duration::from_secs(args.steady_s);
    let ran = stand.tell(&format!("run {}", span.as_millis()), "ran")?;
    let after = stand.look()?;
    let beacons = number(&after, "sent_beacon").saturating_sub(number(&before, "sent_beacon"));
    let of_devices = number(&ran, "sent");
    let (broadcasts, seconds) = (number(&ran, "broadcasts") + beacons, args.steady_s as f64);
    let per_s = broadcasts as f64 / seconds;
    let cpu_ms = number(&after, "cpu_ns").saturating_sub(number(&before, "cpu_ns")) as f64 / 1e6;
    // ±10 % on the interval, and one beacon more or less at the ends.
    let allowed = STEADY_BUDGET * 1.1 + 1.0 / seconds;
    let pinned = stand.pinned;
    let right = number(&after, "devices") == u64::from(args.devices);
    stand.end();
    Ok(Row {
        section: Section::Steady,
        figures: json!({
            "devices": args.devices,
            "seconds": args.steady_s,
            "broadcasts": broadcasts,
            "broadcasts_per_s": rounded(per_s),
            "datagrams_of_devices": of_devices,
            "server_cpu_ms": rounded(cpu_ms),
        }),
        said: format!(
            "{broadcasts} broadcasts in {seconds} s ({per_s:.3}/s), {of_devices} datagrams of devices; {cpu_ms:.1} ms of the \
             server's CPU"
        ),
        budgets: vec![
            Budget::new("broadcasts_per_s", per_s, rounded(allowed)),
            Budget::new("datagrams_of_devices", of_devices as f64, 0.0),
        ],
        right,
        pinned,
    })
}
