//! `tillwire`: the command line of tillwire. One file per command; `docs/CONTROL.md` has the control socket's lines.

mod args;
mod ask;
#[cfg(target_os = "linux")]
mod bench;
mod cancel;
mod control;
mod demo;
mod device;
mod doctor;
mod error;
mod explain;
mod json;
mod keeper;
mod keys;
mod leave;
mod ledger;
mod names;
mod offer;
mod out;
mod outbox;
mod push;
mod serve;
mod servers;
mod start;
mod state;
mod status;
mod stock;
mod via;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// Counts what each thread takes, so that `demo` can tell what serving an order costs.
#[global_allocator]
static ALLOCATOR: testkit::alloc::Counting = testkit::alloc::Counting;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return error::usage(&error),
    };
    error::finish(&run(cli.command, cli.json), cli.json)
}

fn run(command: Command, json: bool) -> error::Outcome {
    // These need no runtime, or bring their own.
    match &command {
        Command::Explain(args) => return explain::run(args, json),
        #[cfg(target_os = "linux")]
        Command::Bench(args) => return bench::run(args, json),
        #[cfg(target_os = "linux")]
        Command::BenchPeers(args) => return bench::peers::run(*args),
        #[cfg(target_os = "linux")]
        Command::BenchContestant(args) => return bench::contestant::run(args.clone()),
        #[cfg(target_os = "linux")]
        Command::BenchOwed(args) => return bench::owed::run(*args),
        #[cfg(target_os = "linux")]
        Command::BenchDiscoveryNode(args) => return bench::discovery::node::run(*args),
        #[cfg(target_os = "linux")]
        Command::BenchDiscoveryPeers(args) => return bench::discovery::peers::run(*args),
        _ => {}
    }
    let runtime = start::runtime()?;
    let result = runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::run(args, json).await,
            Command::Serve(args) => serve::run(args, json).await,
            Command::Device(args) => device::run(args, json).await,
            Command::Servers(args) => servers::run(args, json).await,
            Command::Push(args) => push::run(*args, json).await,
            Command::Ask(args) => ask::run(args, json).await,
            Command::Cancel(args) => cancel::run(args, json).await,
            Command::Drain(args) => leave::drain(args, json).await,
            Command::Takeover(args) => leave::takeover(args, json).await,
            Command::Watch(args) => watch::run(args, json).await,
            Command::Status(args) => status::run(args, json).await,
            Command::Doctor(args) => doctor::run(*args, json).await,
            Command::DemoDevices(args) => demo::child::run(args).await,
            Command::Explain(args) => explain::run(&args, json),
            #[cfg(target_os = "linux")]
            Command::Bench(args) => bench::run(&args, json),
            #[cfg(target_os = "linux")]
            Command::BenchPeers(args) => bench::peers::run(args),
            #[cfg(target_os = "linux")]
            Command::BenchContestant(args) => bench::contestant::run(args),
            #[cfg(target_os = "linux")]
            Command::BenchOwed(args) => bench::owed::run(args),
            #[cfg(target_os = "linux")]
            Command::BenchDiscoveryNode(args) => bench::discovery::node::run(args),
            #[cfg(target_os = "linux")]
            Command::BenchDiscoveryPeers(args) => bench::discovery::peers::run(args),
        }
    });
    // A read of stdin cannot be cancelled: nothing waits for it.
    runtime.shutdown_background();
    result
}
