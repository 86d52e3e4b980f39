//! `tillwire bench durable`: what it costs that an order is on disk before `push` returns, and its outcomes before they count.

mod disk;
mod fanout;
mod orders;
mod pace;

use std::path::{Path, PathBuf};

use tillwire::push::outbox::log::Directory;
use tillwire::{Security, Store, StoreServer, Target};
use tokio::runtime::{Builder, Runtime};

use self::disk::Hindered;
use super::{DEVICES_MAX, machine, ours, peers, say_debug_build};
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// What a budget of the design allows in CPU and in time beside a server without outbox.
const RATIO_BUDGET: f64 = 1.10;

const ABOUT: &str = "\
fanout  One order to all devices, by a server with an outbox on disk and by one without, in turns,
        each in a process with devices of its own, as in `bench fanout`. It ends when every outcome
        counts: with an outbox, when it is on disk. CPU is that of the whole process, the thread
        that writes included. `commits` counts syncs of a round: one for the push, the others for
        outcomes. Budget: 1.10 in CPU and in time.
orders  Many pushers, each with one order at a time for one of 100 devices, waiting for `push`, and
        for the outcomes of what they pushed before. `disk` is what a loop reaches in the same
        directory that writes 256 bytes and syncs, again and again: without group commit there could
        be no more. Budget: 20,000 orders a second.
pace    A volatile order to 100 devices, again and again, while durable ones are pushed at a fixed
        rate; the disk is as it is, then every sync takes 200 ms, then it is full, in turns. Ratios
        are medians over the cycles. Budget: 1.10. `ok` says that all volatile orders were applied,
        that a full disk refused durable ones, and that whatever was accepted ended in the end.

Give --dir a directory on the disk that is meant: a file system in memory syncs for nothing.";

/// Measure what an outbox on disk costs.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices each contestant of `fanout` has.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// How many rounds of `fanout` are counted.
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Milliseconds each contestant rests after a round.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    rest_ms: u64,
    /// Bytes of an order's payload.
    #[arg(long, value_name = "B", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=16_000))]
    payload: u32,
    /// How many push at a time in `orders`.
    #[arg(long, value_name = "P", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pushers: u32,
    /// How many seconds `orders` pushes.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How often `pace` goes through its disks.
    #[arg(long, value_name = "C", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    cycles: u32,
    /// Measure these only.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Where outboxes are made, and removed again. Default: the system's directory for temporary files.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Fanout,
    Orders,
    Pace,
}

/// Runs the parts one after the other.
pub(super) fn run(args: &Args, json: bool) -> Outcome {
    say_debug_build();
    let mut right = true;
    for (part, run) in [
        (Part::Fanout, fanout::run as fn(&Args, &Path, bool) -> Result<bool, Failure>),
        (Part::Orders, orders::run),
        (Part::Pace, pace::run),
    ] {
        if args.only.is_empty() || args.only.contains(&part) {
            let scratch = Scratch::new(args.dir.as_deref())?;
            right &= run(args, &scratch.0, json)?;
        }
    }
    Ok(Verdict::of(right))
}

/// Where durable orders go.
enum Place<'p> {
    /// There are none.
    Nowhere,
    Path(&'p Path),
    Disk(Hindered<Directory>),
}

/// A server with so many devices, all connected.
async fn serve(devices: u32, port: u16, place: Place<'_>) -> Result<StoreServer, Failure> {
    let store = Store::new(1, "BENCH").map_err(|error| Failure::broken(error.to_string(), ""))?;
    let builder = StoreServer::builder(store)
        .security(Security::open_network())
        .staging(true)
        .no_discovery()
        .capacity(usize::try_from(devices).unwrap_or(usize::MAX));
    let builder = (0..devices).fold(builder, |builder, index| builder.device(ours::device(index, port)));
    let started = match place {
        Place::Nowhere => builder.start().await,
        Place::Path(path) => builder.outbox(path).start().await,
        Place::Disk(disk) => builder.start_on(disk).await,
    };
    let server = started.map_err(|error| start::failure(&error))?;
    ours::connected(&server, devices, machine::now()).await?;
    Ok(server)
}

/// Only this device.
fn one(index: u32) -> Target {
    Target::ids([peers::id(peers::address(index))])
}

/// A runtime on this thread, as an application's might be.
fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::broken(format!("no runtime: {error}"), ""))
}

/// The smallest that so many of a hundred do not exceed; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A directory of this run, removed with it.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(dir: Option<&Path>) -> Result<Self, Failure> {
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = dir.join(format!("tillwire-bench-{}", std::process::id()));
        let made = std::fs::create_dir_all(&path);
        made.map_err(|error| {
            Failure::start(format!("cannot make {}: {error}", path.display()), "give --dir another directory")
        })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            out::warn(&format!("{} could not be removed: {error}", self.0.display()));
        }
    }
}
