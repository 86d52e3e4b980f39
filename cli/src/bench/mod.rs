//! `tillwire bench`: what serving costs on this machine, beside a yardstick over the same sockets in the same run.
//! Method and limits: `docs/BENCHMARKS.md`.

mod child;
pub(crate) mod contestant;
mod fanout;
mod idle;
mod machine;
mod order;
mod ours;
pub(crate) mod peers;
mod summary;
mod yardstick;

use self::child::Child;
use self::contestant::Who;
use crate::error::{Failure, Outcome};
use crate::start;

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
    /// Memory a connected device takes that does nothing.
    Idle(idle::Args),
}

/// Runs one benchmark.
pub(crate) fn run(args: &Args, json: bool) -> Outcome {
    match &args.what {
        What::Fanout(args) => fanout::run(*args, json),
        What::Idle(args) => idle::run(*args, json),
    }
}

/// A contestant and devices of its own, each in a process.
struct Stand {
    contestant: Child,
    peers: Child,
}

/// What a contestant took to connect.
struct Connected {
    connected_ms: u64,
    user_bytes_per_device: u64,
    pinned: bool,
}

impl Stand {
    /// Starts both; the devices run when this returns, the contestant is still connecting.
    fn start(who: Who, devices: u32, payload: u32, rest_ms: u64) -> Result<Self, Failure> {
        let files = start::raise_open_files();
        let needed = u64::from(devices) + FILES_BESIDE;
        if files < needed {
            return Err(Failure::start(
                format!("{devices} devices need {needed} open files, and {files} are allowed"),
                "raise the limit (ulimit -n), or measure with fewer --devices",
            ));
        }
        let (server_core, peers_core) = machine::two_cores().unzip();
        let core = |core: Option<usize>| core.map(|core| format!("--core={core}"));
        let mut words = vec!["bench-peers".to_owned()];
        words.extend(core(peers_core));
        let mut peers = Child::start(&words)?;
        let port = peers.expect("ready")?["port"].as_u64().unwrap_or_default();
        let mut words = vec!["bench-contestant".to_owned()];
        words.extend([format!("--who={}", who.name()), format!("--port={port}")]);
        words.extend([format!("--devices={devices}"), format!("--payload={payload}")]);
        words.push(format!("--rest-ms={rest_ms}"));
        words.extend(core(server_core));
        Ok(Self { contestant: Child::start(&words)?, peers })
    }

    /// Waits until every device is connected and memory was looked at.
    fn connected(&mut self) -> Result<Connected, Failure> {
        let line = self.contestant.expect("connected")?;
        Ok(Connected {
            connected_ms: line["connected_ms"].as_u64().unwrap_or_default(),
            user_bytes_per_device: line["user_bytes_per_device"].as_u64().unwrap_or_default(),
            pinned: line["pinned"] == true,
        })
    }

    /// Ends both, the contestant first: it says goodbye.
    fn end(self) {
        self.contestant.end();
        self.peers.end();
    }
}
