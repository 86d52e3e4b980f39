//! `tillwire bench discovery`: a whole store looks for its server and is learnt, over loopback, with an address per device.
//!
//! | file | what for |
//! | --- | --- |
//! | `node`, `raw` | the process that is measured: the library, or the hand-written loop |
//! | `peers` | the process with the devices |
//! | `stand` | one of each |
//! | `cold`, `learn`, `quiet`, `single`, `forged` | the sections |
//! | `row` | a section's figures, as they are shown |

mod cold;
mod forged;
mod learn;
pub(crate) mod node;
pub(crate) mod peers;
mod quiet;
mod raw;
mod row;
mod single;
mod stand;

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{DEVICES_MAX, duel, machine, say_debug_build};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;
use crate::watch::table;
use row::Row;

/// Where every broadcast of the benchmark goes.
const BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

const ABOUT: &str = "\
Sections:
  cold                  devices seek, then a server that expects nobody starts: until the last one
                        is registered, at 1,000 a second, into a receive buffer of 212,992 bytes
  loss                  the same while every datagram is lost with 1 %, for each device
  warm                  the server is killed and comes back with the number of devices, at 5,000
                        a second
  cold-auth, warm-auth  cold and warm in authenticated mode, a key for each device
  learn                 an ANNOUNCE of each device as fast as one process can send them: CPU of
                        the server's thread per device, beside a hand-written loop in turns
  paced                 the same at 5,000 a second, where both wake for almost each datagram
  single                one new device beside a server that runs: until it is registered
  silent                devices and no server for 3 minutes, in virtual time (--real: real time)
  steady                every device registered and its push session healthy: broadcasts a second
  forged                ANNOUNCEs of random ids from random addresses: memory, bytes, CPU

The server is one process on one core, the devices another on a second one. tillwire is the
driver on a current-thread runtime, its events read; raw-epoll is epoll, recvmmsg, a flat table
and sendmmsg, nothing else. Receive drops are the server's socket's. `ok` says that everybody was
registered and what was measured is complete; `within_budget` that the figure holds.

Not more than 10,000 devices, the most a store has. What it cannot show: a network, its losses
and its neighbour tables; loopback charges part of the receiver's work to the sender.";

/// Let a store of devices find its server, and learn what that takes.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// Sections to run, with commas between; all of them by default.
    #[arg(long, value_name = "S,…", value_delimiter = ',')]
    only: Vec<Section>,
    /// Pairs of rounds that are counted, for learn and paced.
    #[arg(long, value_name = "R", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Devices of the section single, one after the other.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    singles: u32,
    /// Forged datagrams.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    forged: u32,
    /// Seconds of the section steady.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    steady_s: u64,
    /// Run the section silent in real time.
    #[arg(long)]
    real: bool,
}

/// What can be measured.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Cold,
    Loss,
    Warm,
    ColdAuth,
    WarmAuth,
    Learn,
    Paced,
    Single,
    Silent,
    Steady,
    Forged,
}

impl Section {
    const ALL: [Self; 11] = [
        Self::Cold,
        Self::Loss,
        Self::Warm,
        Self::ColdAuth,
        Self::WarmAuth,
        Self::Learn,
        Self::Paced,
        Self::Single,
        Self::Silent,
        Self::Steady,
        Self::Forged,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Loss => "loss",
            Self::Warm => "warm",
            Self::ColdAuth => "cold-auth",
            Self::WarmAuth => "warm-auth",
            Self::Learn => "learn",
            Self::Paced => "paced",
            Self::Single => "single",
            Self::Silent => "silent",
            Self::Steady => "steady",
            Self::Forged => "forged",
        }
    }

    fn measure(self, args: &Args) -> Result<Row, Failure> {
        match self {
            Self::Cold | Self::Loss | Self::ColdAuth => cold::cold(args, self),
            Self::Warm | Self::WarmAuth => cold::warm(args, self),
            Self::Learn => learn::learn(args, None),
            Self::Paced => learn::learn(args, Some(learn::PACE)),
            Self::Single => single::single(args),
            Self::Silent => quiet::silent(args),
            Self::Steady => quiet::steady(args),
            Self::Forged => forged::forged(args),
        }
    }
}

/// Runs the sections and prints a line for each and a summary.
pub(super) fn run(args: &Args, json: bool) -> Outcome {
    say_debug_build();
    let load_1m = machine::load_1m();
    let sections: Vec<_> =
        Section::ALL.into_iter().filter(|one| args.only.is_empty() || args.only.contains(one)).collect();
    let bar = duel::bar(sections.len() as u64, "discovery");
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut rows = Vec::new();
    for section in sections {
        bar.set_message(format!("discovery: {}", section.name()));
        let row = section.measure(args)?;
        if json {
            out::json(&row.json());
        }
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let right = rows.iter().all(|row| row.right);
    if json {
        out::json(&summary(args, &rows, load_1m));
    } else {
        out::text(&people(args, &rows, load_1m));
    }
    Ok(Verdict::of(right))
}

/// The figures other programs rely on; `null` where their section did not run.
fn summary(args: &Args, rows: &[Row], load_1m: f64) -> Value {
    let of = |section: Section, name: &str| {
        rows.iter().find(|row| row.section == section).map_or(Value::Null, |row| row.figures[name].clone())
    };
    let drops = rows.iter().filter_map(|row| row.figures["drops"].as_u64()).reduce(|sum, drops| sum + drops);
    json!({
        "event": "summary",
        "bench": "discovery",
        "devices": args.devices,
        "registered_ms": of(Section::Cold, "registered_ms"),
        "registered_ms_loss": of(Section::Loss, "registered_ms"),
        "registered_ms_warm": of(Section::Warm, "registered_ms"),
        "registered_ms_auth": of(Section::ColdAuth, "registered_ms"),
        "registered_ms_warm_auth": of(Section::WarmAuth, "registered_ms"),
        "broadcasts": of(Section::Silent, "broadcasts"),
        "broadcasts_per_s": of(Section::Steady, "broadcasts_per_s"),
        "drops": drops,
        "cpu_us_per_device": of(Section::Learn, "cpu_us_per_device"),
        "ratio_cpu": of(Section::Learn, "ratio_cpu"),
        "ratio_cpu_paced": of(Section::Paced, "ratio_cpu"),
        "single_ms": of(Section::Single, "registered_ms"),
        "within_budget": rows.iter().all(Row::is_within),
        "over_budget": rows.iter().filter(|row| !row.is_within()).map(|row| row.section.name()).collect::<Vec<_>>(),
        "pinned": rows.iter().all(|row| row.pinned),
        "load_1m": load_1m,
        "debug_build": cfg!(debug_assertions),
        "ok": rows.iter().all(|row| row.right),
    })
}

fn people(args: &Args, rows: &[Row], load_1m: f64) -> String {
    let mut table = table(&["section", "figure", "budget", ""]);
    for row in rows {
        table.add_row(row.cells());
    }
    let pinned = if rows.iter().all(|row| row.pinned) {
        "server and devices on a core each"
    } else {
        "NOT PINNED to cores"
    };
    format!(
        "{}\n{table}\n\nratios: tillwire / raw-epoll, median (quarters) of {} pairs taken in turns; {pinned}; load {load_1m:.1} \
         before\n",
        out::title(&format!("{} devices look for their server", args.devices)),
        args.rounds,
    )
}

/// Whole microseconds.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
