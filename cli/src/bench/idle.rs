//! `tillwire bench idle`: memory of connected devices that do nothing.

use serde_json::json;

use super::contestant::Who;
use super::{DEVICES_MAX, Stand};
use crate::error::{Outcome, Verdict};
use crate::out;

/// Connect to devices that do nothing, and see what memory they take in the server's process.
///
/// The figure is the growth of the process's resident memory (RSS) from before the server was built to 2 s after the last
/// device connected, divided by the devices. So it holds everything the library took: tables, pools, buffers of the
/// runtime. It is user space alone: the kernel's socket buffers come on top. RSS grows in pages, so with few devices what
/// a server takes once weighs more than what a device takes.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Args {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
}

/// Connects, looks, and ends.
pub(super) fn run(args: Args, json: bool) -> Outcome {
    let mut stand = Stand::start(Who::Tillwire, args.devices, 0, 0)?;
    let connected = stand.connected()?;
    stand.end();
    if json {
        out::json(&json!({
            "event": "summary",
            "bench": "idle",
            "devices": args.devices,
            "user_bytes_per_device": connected.user_bytes_per_device,
            "connected_ms": connected.connected_ms,
            "memory": "rss",
        }));
    } else {
        out::line(&format!(
            "{} devices connected in {} ms; resident memory (RSS) grew by {} bytes per device",
            args.devices, connected.connected_ms, connected.user_bytes_per_device
        ));
    }
    Ok(Verdict::AllRight)
}
