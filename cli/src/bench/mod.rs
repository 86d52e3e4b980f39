//! `tillwire bench`: what serving costs on this machine, beside a yardstick over the same sockets in the same run.
//! Method and limits: `docs/BENCHMARKS.md`.

mod child;
mod connect;
pub(crate) mod contestant;
pub(crate) mod discovery;
mod duel;
mod durable;
mod fanout;
mod figures;
mod idle;
mod machine;
mod order;
mod ours;
pub(crate) mod owed;
pub(crate) mod peers;
mod pipeline;
mod stall;
mod yardstick;

use crate::error::Outcome;
use crate::out;

/// The most devices a store has.
const DEVICES_MAX: u32 = 10_000;
/// Descriptors of a process besides one per device.
const FILES_BESIDE: u64 = 64;

/// Measure on this machine, over loopback, beside a hand-written loop over the same sockets.
///
/// Compare ratios of one run, never figures of two machines. Build with --release.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// One order to every device, again and again: time to the last answer and CPU per device.
    Fanout(fanout::Args),
    /// Many orders to every device without waiting: acknowledged orders per second.
    Pipeline(pipeline::Args),
    /// The server is restarted: time until every device is connected again.
    Connect(connect::Args),
    /// One device stands still: what the others notice of it, and how soon the server does.
    Stall(stall::Args),
    /// What an outbox on disk costs: beside none, in orders per second, and while its disk is slow or full.
    Durable(durable::Args),
    /// Memory of devices that do nothing: connected ones, and ones that are away and owed orders.
    Idle(idle::Args),
    /// A store of devices finds its server: how long, how loud, and what learning a device costs.
    Discovery(discovery::Args),
}

/// Runs one benchmark.
pub(crate) fn run(args: &Args, json: bool) -> Outcome {
    match &args.what {
        What::Fanout(args) => fanout::run(args, json),
        What::Pipeline(args) => pipeline::run(*args, json),
        What::Connect(args) => connect::run(*args, json),
        What::Stall(args) => stall::run(*args, json),
        What::Durable(args) => durable::run(args, json),
        What::Idle(args) => idle::run(args, json),
        What::Discovery(args) => discovery::run(args, json),
    }
}

/// A debug build can be measured, but not believed.
fn say_debug_build() {
    if cfg!(debug_assertions) {
        out::warn("this is a debug build: its figures say nothing about a release build");
    }
}
