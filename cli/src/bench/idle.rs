//! `tillwire bench idle`: memory of connected devices that do nothing, and of devices that are away and owed orders.

use std::path::PathBuf;

use serde_json::json;

use super::contestant::Who;
use super::duel::{Setup, Stand};
use super::durable::Scratch;
use super::figures::rounded;
use super::owed::Growth;
use super::peers::Window;
use super::{DEVICES_MAX, say_debug_build};
use crate::error::{Outcome, Verdict};
use crate::out;

/// User memory of a connected idle device at most.
const IDLE_BUDGET: u64 = 1_024;
/// What an offline device may take besides the live records, whatever it is owed.
const OFFLINE_BUDGET: f64 = 64.0;
/// The live records are looked at with all devices, and with this part of them.
const PART: u32 = 10;

const ABOUT: &str = "\
Connected: the growth of the server process's memory from before the server was built to 2 s
after the last device connected, divided by the devices; as resident memory (RSS), and with
pages shared between processes divided among them (PSS). It holds everything the library took:
tables, pools, buffers of the runtime. It is user space alone: the kernel's socket buffers come
on top. Memory grows in pages, so with few devices what a server takes once weighs more than
what a device takes.

Offline: a server whose devices all refuse. It is given --owed orders for all of them, then as
many more. What the second half took is the price of the live records; what the first took
beyond it, divided by the devices, is what an offline device takes besides them. A record's
bytes per target come from a second run with a tenth of the devices.";

/// Connect to devices that do nothing, and see what memory they take in the server's process; then owe orders to devices
/// that are away.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// How many orders an offline device is owed; 0 leaves this part out.
    #[arg(long, value_name = "M", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=2_000))]
    owed: u32,
    /// Bytes of such an order's payload.
    #[arg(long, value_name = "B", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=4_096))]
    payload: u32,
    /// Connect with an outbox, which is made in this directory, and removed again.
    #[arg(long, value_name = "DIR")]
    outbox: Option<PathBuf>,
}

/// Connects, looks, and ends; then the same with devices that are away.
pub(super) fn run(args: &Args, json: bool) -> Outcome {
    say_debug_build();
    let Args { devices, owed, payload, ref outbox } = *args;
    let scratch = outbox.as_deref().map(|dir| Scratch::new(Some(dir))).transpose()?;
    let setup = Setup { devices, payload: 0, orders: 1, rest_ms: 0, window: Window::DEFAULT };
    let who = if outbox.is_some() { Who::Durable } else { Who::Tillwire };
    let path = scratch.as_ref().map(|scratch| scratch.0.join("idle"));
    let mut stand = Stand::start(who, path.as_deref(), setup)?;
    let connected = stand.connected()?;
    stand.end();
    let offline = if owed == 0 { None } else { Some(Offline::measure(devices, owed, payload)?) };
    if json {
        out::json(&json!({
            "event": "summary",
            "bench": "idle",
            "devices": devices,
            "user_bytes_per_device": connected.user_bytes_per_device,
            "pss_bytes_per_device": connected.pss_bytes_per_device,
            "connected_ms": connected.connected_ms,
            "outbox": outbox.is_some(),
            "memory": "rss",
            "budget_bytes_per_device": IDLE_BUDGET,
            "owed": owed,
            "offline_bytes_per_device": offline.as_ref().map(|offline| rounded(offline.besides)),
            "offline_budget_bytes_per_device": OFFLINE_BUDGET,
            "record_bytes_per_target": offline.as_ref().map(|offline| rounded(offline.per_target)),
            "record_bytes_fixed": offline.as_ref().map(|offline| rounded(offline.fixed)),
            "within_budget": connected.user_bytes_per_device <= IDLE_BUDGET
                && offline.as_ref().is_none_or(|offline| offline.besides <= OFFLINE_BUDGET),
            "debug_build": cfg!(debug_assertions),
            "ok": true,
        }));
        return Ok(Verdict::AllRight);
    }
    out::line(&format!(
        "{devices} devices connected in {} ms; memory grew by {} bytes per device (RSS; PSS {}; budget {IDLE_BUDGET})",
        connected.connected_ms, connected.user_bytes_per_device, connected.pss_bytes_per_device
    ));
    if let Some(Offline { besides, per_target, fixed }) = offline {
        out::line(&format!(
            "{devices} devices away, owed {owed} orders each: {besides:.1} bytes per device besides the live records (budget \
             {OFFLINE_BUDGET}); a record of {payload} bytes of payload takes {fixed:.0} bytes and {per_target:.2} per target"
        ));
    }
    Ok(Verdict::AllRight)
}

/// What devices that are away take.
struct Offline {
    /// Per device, besides the live records.
    besides: f64,
    /// Per live record and device.
    per_target: f64,
    /// Per live record, whatever it is for.
    fixed: f64,
}

impl Offline {
    fn measure(devices: u32, owed: u32, payload: u32) -> Result<Self, crate::error::Failure> {
        let few = (devices / PART).max(1);
        let all = Growth::of(devices, devices, owed, payload)?;
        let part = Growth::of(few, devices, owed, payload)?;
        let more = f64::from(devices.saturating_sub(few).max(1));
        let per_target = ((all.record(owed) - part.record(owed)) / more).max(0.0);
        let fixed = (all.record(owed) - per_target * f64::from(devices)).max(0.0);
        Ok(Self { besides: all.besides_records() as f64 / f64::from(devices), per_target, fixed })
    }
}
