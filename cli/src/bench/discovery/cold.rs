//! A store comes up: every device is registered, in how long and with what dropped.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::contestant::Who;
use super::row::{Budget, Row};
use super::stand::{DEFAULT_BUFFER, STOCK_BUFFER, Stand, number};
use super::{Args, Section};
use crate::error::Failure;

/// Announces a second a server asks for: one that knows nothing, and one that is warm and wired.
const RATE: u32 = 1_000;
const RATE_WARM: u32 = 5_000;
/// Of a million datagrams, lost in the section loss.
const LOST_PPM: u32 = 10_000;
/// Of a full store, from the server's start to the last registration.
const BUDGET_MS: f64 = 11_000.0;
const BUDGET_LOSS_MS: f64 = 15_000.0;
const BUDGET_WARM_MS: f64 = 5_000.0;
/// How long devices seek before there is a server.
const ALONE_FOR: Duration = Duration::from_secs(3);
/// All devices are registered by then, or never.
pub(super) const WITHIN: Duration = Duration::from_secs(120);

/// Devices seek, then a server starts that expects nobody.
pub(super) fn cold(args: &Args, section: Section) -> Result<Row, Failure> {
    let (lost_ppm, budget) = match section {
        Section::Loss => (LOST_PPM, BUDGET_LOSS_MS),
        _ => (0, BUDGET_MS),
    };
    let auth = section == Section::ColdAuth;
    let mut stand = Stand::start_with(Who::Tillwire, args.devices, STOCK_BUFFER, auth)?;
    stand.tell(&format!("boot 1000 {lost_ppm}"), "booted")?;
    stand.tell(&format!("run {}", ALONE_FOR.as_millis()), "ran")?;
    let began_us = stand.up(0, RATE)?;
    let registered = stand.registered(WITHIN)?;
    finish(section, stand, began_us, &registered, RATE, budget)
}

/// The server of a store that was up is killed and comes back; it knows how many devices there are.
pub(super) fn warm(args: &Args, section: Section) -> Result<Row, Failure> {
    let auth = section == Section::WarmAuth;
    let mut stand = Stand::start_with(Who::Tillwire, args.devices, DEFAULT_BUFFER, auth)?;
    prepare(&mut stand, args.devices)?;
    stand.tell("round", "counting")?;
    let began_us = stand.up(args.devices, RATE_WARM)?;
    let registered = stand.registered(WITHIN)?;
    finish(section, stand, began_us, &registered, RATE_WARM, BUDGET_WARM_MS)
}

/// Every device is on and registered.
pub(super) fn prepare(stand: &mut Stand, devices: u32) -> Result<(), Failure> {
    stand.tell("boot 500 0", "booted")?;
    stand.up(devices, RATE_WARM)?;
    let registered = stand.registered(WITHIN)?;
    if registered["all"] == true {
        return Ok(());
    }
    Err(Failure::broken(
        format!("only {} of {devices} devices registered", number(&registered, "registered")),
        "is the machine busy? try fewer --devices",
    ))
}

fn finish(
    section: Section,
    mut stand: Stand,
    began_us: u64,
    registered: &Value,
    rate: u32,
    budget: f64,
) -> Result<Row, Failure> {
    let look = stand.look()?;
    let drops = stand.drops();
    let devices = number(registered, "registered");
    let registered_ms = number(registered, "at_us").saturating_sub(began_us) as f64 / 1e3;
    let cpu_us = number(&look, "cpu_ns") as f64 / 1e3 / (devices as f64).max(1.0);
    let right = registered["all"] == true && number(registered, "own_drops") == 0;
    let figures = json!({
        "devices": devices,
        "rate_per_s": rate,
        "registered_ms": registered_ms.round(),
        "drops": drops,
        "receive_buffer_bytes": look["receive_buffer_bytes"],
        "announces": registered["sent_announce"],
        "seeks": registered["sent_seek"],
        "beacons": look["sent_beacon"],
        "lost": registered["lost"],
        "announces_per_10_ms_max": registered["announces_per_10_ms_max"],
        "cpu_us_per_device": super::super::figures::rounded(cpu_us),
    });
    let said = format!(
        "{devices} registered in {:.2} s at {rate}/s; {} receive drops; {} announces, {} beacons; {cpu_us:.1} us of CPU each",
        registered_ms / 1e3,
        drops.map_or_else(|| "unknown".to_owned(), |drops| drops.to_string()),
        number(registered, "sent_announce"),
        number(&look, "sent_beacon"),
    );
    let budgets = vec![
        Budget::new("registered_ms", registered_ms, budget),
        Budget::new("drops", drops.unwrap_or_default() as f64, 0.0),
    ];
    let pinned = stand.pinned;
    stand.end();
    Ok(Row { section, figures, said, budgets, right, pinned })
}
