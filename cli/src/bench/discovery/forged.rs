//! A flood of forged announces: memory must not grow, and no more may come back than was sent.

use serde_json::json;

use super::super::contestant::Who;
use super::super::figures::rounded;
use super::row::{Budget, Row};
use super::stand::{DEFAULT_BUFFER, Stand, number};
use super::{Args, Section};
use crate::error::Failure;

/// Forged announces before memory is looked at: the roster's slots are touched, the channel's blocks are there.
const BEFORE: u32 = 50_000;
/// Memory a process may take meanwhile for its own housekeeping.
const GROWTH_BUDGET: f64 = 262_144.0;
/// Of the server's CPU, per forged datagram.
const CPU_BUDGET_US: f64 = 5.0;

/// Sends the forged announces and looks at the server before and after.
pub(super) fn forged(args: &Args) -> Result<Row, Failure> {
    let mut stand = Stand::start(Who::Tillwire, args.devices, DEFAULT_BUFFER)?;
    stand.up(0, 1_000)?;
    stand.tell(&format!("forge {}", BEFORE.min(args.forged)), "forged")?;
    let before = stand.look()?;
    let forged = stand.tell(&format!("forge {}", args.forged), "forged")?;
    let after = stand.look()?;
    let since = |name: &str| number(&after, name).saturating_sub(number(&before, name));
    let grown = since("resident_bytes");
    let received = since("received");
    let cpu_us = since("cpu_ns") as f64 / 1e3 / (received as f64).max(1.0);
    let (bytes_in, bytes_out) = (since("received_bytes"), since("sent_bytes"));
    let amplification = bytes_out as f64 / (bytes_in as f64).max(1.0);
    let pinned = stand.pinned;
    stand.end();
    let right = number(&forged, "sent") >= u64::from(args.forged) * 9 / 10
        && received > 0
        && number(&after, "devices") <= u64::from(args.devices);
    Ok(Row {
        section: Section::Forged,
        figures: json!({
            "devices": args.devices,
            "forged": forged["sent"],
            "received": received,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "bytes_out_per_byte_in": rounded(amplification),
            "resident_bytes_before": before["resident_bytes"],
            "resident_bytes_after": after["resident_bytes"],
            "resident_bytes_grown": grown,
            "cpu_us_per_datagram": rounded(cpu_us),
            "elapsed_ms": number(&forged, "elapsed_us") / 1_000,
        }),
        said: format!(
            "{} forged ids, {received} received: {cpu_us:.2} us of CPU each, {amplification:.2} bytes out per byte in, memory \
             grew by {grown} bytes",
            number(&forged, "sent"),
        ),
        budgets: vec![
            Budget::new("resident_bytes_grown", grown as f64, GROWTH_BUDGET),
            Budget::new("bytes_out_per_byte_in", amplification, 1.0),
            Budget::new("cpu_us_per_datagram", cpu_us, CPU_BUDGET_US),
        ],
        right,
        pinned,
    })
}
