//! `tillwire`: the command line of tillwire. One file per command; `docs/CONTROL.md` has the control socket's lines.

mod args;
mod control;
mod demo;
mod device;
mod error;
mod explain;
mod json;
mod ledger;
mod names;
mod out;
mod push;
mod serve;
mod start;
mod state;
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
    if let Command::Explain(args) = &command {
        return explain::run(args, json);
    }
    let runtime = start::runtime()?;
    let result = runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::run(args, json).await,
            Command::Serve(args) => serve::run(args, json).await,
            Command::Device(args) => device::run(args, json).await,
            Command::Push(args) => push::run(*args, json).await,
            Command::Watch(args) => watch::run(args, json).await,
            Command::DemoDevices(args) => demo::child::run(args).await,
            Command::Explain(args) => explain::run(&args, json),
        }
    });
    // A read of stdin cannot be cancelled: nothing waits for it.
    runtime.shutdown_background();
    result
}
