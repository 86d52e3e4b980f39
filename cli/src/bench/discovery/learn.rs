//! What learning a device costs: the library and the hand-written loop in turns, on the same announces.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::contestant::Who;
use super::super::figures::{Spread, rounded};
use super::row::{Budget, Row};
use super::stand::{DEFAULT_BUFFER, Stand, number};
use super::{Args, Section};
use crate::error::Failure;

/// Announces a second in the section paced.
pub(super) const PACE: u32 = 5_000;
/// Rounds of each before any is counted.
const WARM_UP: u32 = 1;
/// A round that takes longer is not complete.
const ROUND_WITHIN: Duration = Duration::from_secs(30);
/// CPU per learnt device, divided by that of the hand-written loop.
const BUDGET: f64 = 1.15;

/// A round of one of the two.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    cpu_us_per_device: f64,
    sent: u64,
    drops: u64,
    elapsed_us: u64,
    complete: bool,
}

/// Lets both learn the same devices in turns, at `per_s` announces a second or as fast as they come.
pub(super) fn learn(args: &Args, per_s: Option<u32>) -> Result<Row, Failure> {
    let mut ours = Stand::start(Who::Tillwire, args.devices, DEFAULT_BUFFER)?;
    let mut raw = Stand::start(Who::RawEpoll, args.devices, DEFAULT_BUFFER)?;
    let mut rounds = [Vec::new(), Vec::new()];
    for at in 0..WARM_UP + args.rounds {
        // Who goes first changes with each pair.
        let mut turns = [(0, &mut ours), (1, &mut raw)];
        if at % 2 == 1 {
            turns.reverse();
        }
        for (who, stand) in turns {
            let round = measure(stand, args.devices, per_s)?;
            if at >= WARM_UP {
                rounds[who].push(round);
            }
        }
    }
    let pinned = ours.pinned && raw.pinned;
    ours.end();
    raw.end();
    Ok(row(args, per_s, &rounds, pinned))
}

fn measure(stand: &mut Stand, devices: u32, per_s: Option<u32>) -> Result<Round, Failure> {
    stand.up(devices, 1_000_000)?;
    let fire = format!("fire {} {}", per_s.unwrap_or_default(), ROUND_WITHIN.as_millis());
    let fired = stand.tell(&fire, "fired")?;
    let look = stand.look()?;
    let learnt = number(&look, "devices");
    Ok(Round {
        cpu_us_per_device: number(&look, "cpu_ns") as f64 / 1e3 / f64::from(devices),
        sent: number(&fired, "sent"),
        drops: number(&fired, "drops"),
        elapsed_us: number(&fired, "elapsed_us"),
        complete: number(&fired, "acked") == u64::from(devices) && learnt == u64::from(devices),
    })
}

fn row(args: &Args, per_s: Option<u32>, rounds: &[Vec<Round>; 2], pinned: bool) -> Row {
    let [ours, raw] = rounds;
    let spread = |rounds: &[Round]| Spread::of(rounds.iter().map(|round| round.cpu_us_per_device).collect());
    let pairs = ours.iter().zip(raw);
    let ratio = Spread::of(
        pairs
            .map(|(ours, raw)| ours.cpu_us_per_device / raw.cpu_us_per_device.max(f64::MIN_POSITIVE))
            .collect(),
    );
    let (cpu, cpu_raw) = (spread(ours), spread(raw));
    let contestant = |name: &str, rounds: &[Round]| -> Value {
        let cpu = spread(rounds);
        let elapsed = Spread::of(rounds.iter().map(|round| round.elapsed_us as f64 / 1e3).collect());
        json!({
            "contestant": name,
            "cpu_us_per_device": rounded(cpu.median),
            "cpu_us_per_device_quarters": cpu.json(),
            "elapsed_ms": rounded(elapsed.median),
            "announces": rounds.iter().map(|round| round.sent).sum::<u64>(),
            "drops": rounds.iter().map(|round| round.drops).sum::<u64>(),
        })
    };
    let right = !ours.is_empty() && ours.iter().chain(raw).all(|round| round.complete);
    Row {
        section: if per_s.is_some() { Section::Paced } else { Section::Learn },
        figures: json!({
            "devices": args.devices,
            "rounds": args.rounds,
            "rate_per_s": per_s,
            "cpu_us_per_device": rounded(cpu.median),
            "cpu_us_per_device_raw": rounded(cpu_raw.median),
            "ratio_cpu": rounded(ratio.median),
            "ratio_cpu_quarters": ratio.json(),
            "interleaved": true,
            "contestants": [contestant("tillwire", ours), contestant("raw-epoll", raw)],
        }),
        said: format!(
            "{} us of CPU per device, raw-epoll {} us; ratio {}",
            cpu.people(),
            cpu_raw.people(),
            ratio.people()
        ),
        budgets: vec![Budget::new("ratio_cpu", ratio.median, BUDGET)],
        right,
        pinned,
    }
}
