//! `tillwire demo`: a store server and its devices on this machine, found over real broadcasts and ordered about over
//! real connections, every outcome checked on both sides; and a server that crashes, and what survives that.

mod check;
pub(crate) mod child;
mod farm;
mod find;
mod orders;
mod payloads;
mod plan;
mod progress;
mod questions;
mod restart;
mod scene;
mod serving;
mod show;

use std::sync::Arc;
use std::time::Duration;

use tillwire::push::config::DIALS_PER_S;
use tillwire::{Security, StoreServer};
use tokio::time::Instant;

use self::check::{Pushed, Wrong};
use self::child::Process;
use self::farm::{Farm, Part, Record};
use self::find::Found;
use self::plan::{DEVICES_MAX, Plan, SERVER};
use self::questions::Asked;
use self::restart::Survived;
use self::serving::Serving;
use crate::args::{DISCOVERY_PORT, PUSH_PORT};
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// Devices inside the demo's own process; more run in processes of their own.
const DEVICES_INSIDE_MAX: u32 = 500;
/// Devices of one process.
const DEVICES_PER_PROCESS_MAX: u32 = 4_000;
/// Descriptors a device needs: two for discovery, one that listens, one session; and one to spare.
const FILES_PER_DEVICE: u64 = 5;
/// Descriptors of a process besides its devices.
const FILES_BESIDE: u64 = 64;
/// Dials to announced addresses per second: all of them are of this machine.
const ANNOUNCED_DIALS_PER_S: u32 = DIALS_PER_S;

const EXAMPLES: &str = "\
Examples:
  tillwire demo
  tillwire demo --devices 10000 --orders 100
  tillwire demo --devices 20 --orders 10 --json";

/// Run a server and its devices on this machine (clear mode, loopback only), find them, push orders, check each outcome.
///
/// Then a server with an outbox goes in the middle of its work, its devices with journals are restarted, and it is started again:
/// what it owed arrives, and nothing twice. Its files are in the directory for temporary files, and go with the demo.
///
/// Exit code 0 only if every device was found and every (order, device) pair ended as planned: by the server's report,
/// and by what the device's application saw.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many devices; above 500 they run in processes of their own.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// How many orders, of mixed kinds and for mixed targets.
    #[arg(long, value_name = "M", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    orders: u32,
    /// About how many bytes each order carries.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=32_768))]
    payload: u32,
    /// The same seed gives the same devices and orders.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The UDP port of discovery.
    #[arg(long, value_name = "PORT", default_value_t = DISCOVERY_PORT)]
    port_discovery: u16,
    /// The TCP port the devices listen on.
    #[arg(long, value_name = "PORT", default_value_t = PUSH_PORT)]
    port_push: u16,
}

/// Runs the demo; not right if one pair ended otherwise than planned.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let mut end = start::End::listen()?;
    tokio::select! {
        result = demo(args, json) => result,
        // Devices and children end with what is dropped here.
        () = end.told() => Err(Failure::broken("interrupted", "what ran of the demo was stopped")),
    }
}

async fn demo(args: Args, json: bool) -> Outcome {
    let begun = Instant::now();
    let files = start::raise_open_files();
    let parts = split(args, files)?;
    let plan = Arc::new(Plan::new(args.devices, args.orders, args.payload as usize, args.seed));
    show::announce(args, parts.as_ref().map_or(0, Vec::len));
    let serving = Serving::start(args).await?;
    let (devices, found) =
        tokio::try_join!(Devices::start(args, parts), find::all(&serving.server, &plan, begun))?;
    let (served, pushed) = serving.counted(async |server| orders::push_all(server, &plan).await).await?;
    let answering = questions::answer(&served.server);
    let asked = questions::ask_devices(&served.server, &plan).await.and(devices.ask().await);
    answering.abort();
    let stats = served.server.stats().await;
    let allocations = served.counts.allocations;
    let (devices, records) = devices.seen().await?;
    let wrong = check::check(&plan, &pushed, &records);
    served.shutdown().await;
    devices.shutdown().await;
    let survived = restart::play(args).await?;
    let done = Done {
        args,
        plan: &plan,
        found,
        pushed: &pushed,
        asked,
        stats,
        allocations,
        wrong,
        survived,
        took: begun.elapsed(),
    };
    let ok = done.is_right();
    if json {
        out::json(&done.json())
    } else {
        out::text(&done.people())
    }
    Ok(Verdict::of(ok))
}

/// Everything there is to say at the end.
struct Done<'p> {
    args: Args,
    plan: &'p Plan,
    found: Found,
    pushed: &'p [Pushed],
    asked: Asked,
    stats: Option<tillwire::ServerStats>,
    /// By the server's thread, from the first push to the last outcome.
    allocations: u64,
    wrong: Wrong,
    survived: Survived,
    took: Duration,
}

impl Done<'_> {
    /// Allocations of the server's thread per order, warm-up included.
    fn allocations_per_order(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
        let quotient = self.allocations as f64 / self.pushed.len().max(1) as f64;
        quotient
    }

    fn is_right(&self) -> bool {
        let all = self.args.devices as usize;
        self.found.joined.len() == all
            && self.found.connected.len() == all
            && self.pushed.len() == self.plan.orders.len()
            && self.asked.right == self.asked.asked
            && self.wrong.is_nothing()
            && self.survived.is_right()
    }
}

/// The parts of the devices that run in processes of their own; `None` if all run inside.
fn split(args: Args, files: u64) -> Result<Option<Vec<Part>>, Failure> {
    let devices = u64::from(args.devices);
    let short = |need: u64| {
        Failure::start(
            format!("{devices} devices need {need} open files in a process, and {files} are allowed"),
            "raise the limit (ulimit -n), or run fewer --devices",
        )
    };
    if devices + FILES_BESIDE > files {
        return Err(short(devices + FILES_BESIDE));
    }
    let part = |first, count| Part {
        first,
        count,
        seed: args.seed,
        port_discovery: args.port_discovery,
        port_push: args.port_push,
    };
    if args.devices <= DEVICES_INSIDE_MAX && devices * (FILES_PER_DEVICE + 1) + FILES_BESIDE <= files {
        return Ok(None);
    }
    let per_process = files.saturating_sub(FILES_BESIDE) / FILES_PER_DEVICE;
    let per_process = u32::try_from(per_process).unwrap_or(u32::MAX).min(DEVICES_PER_PROCESS_MAX);
    if per_process == 0 {
        return Err(short(FILES_PER_DEVICE + FILES_BESIDE));
    }
    // Parts of equal size: no process has the others wait for it.
    let processes = args.devices.div_ceil(per_process);
    let count = args.devices.div_ceil(processes);
    let firsts = (0..args.devices).step_by(count as usize);
    Ok(Some(firsts.map(|first| part(first, count.min(args.devices - first))).collect()))
}

async fn server(args: Args) -> Result<StoreServer, Failure> {
    let store = plan::store().ok_or_else(|| Failure::start("the demo's store has no name", ""))?;
    StoreServer::builder(store)
        .security(Security::open_network())
        .staging(true)
        .name("demo")
        .bind(SERVER)
        .broadcast(plan::BROADCAST)
        .discovery_port(args.port_discovery)
        .push_port(args.port_push)
        .capacity(args.devices as usize)
        .expected_devices(args.devices)
        .announced_dials_per_s(ANNOUNCED_DIALS_PER_S)
        .start()
        .await
        .map_err(|error| start::failure(&error))
}

/// The devices, inside or in processes.
enum Devices {
    Inside(Farm),
    Outside(Vec<Process>),
}

impl Devices {
    async fn start(args: Args, parts: Option<Vec<Part>>) -> Result<Self, Failure> {
        let Some(parts) = parts else {
            let Args { seed, port_discovery, port_push, .. } = args;
            let part = Part { first: 0, count: args.devices, seed, port_discovery, port_push };
            return Ok(Self::Inside(Farm::start(part).await?));
        };
        let mut processes = parts.into_iter().map(Process::start).collect::<Result<Vec<_>, _>>()?;
        for process in &mut processes {
            process.ready().await?;
        }
        Ok(Self::Outside(processes))
    }

    /// Some of the devices ask the server. Those in processes of their own do not.
    async fn ask(&self) -> Asked {
        match self {
            Self::Inside(farm) => questions::ask_server(farm.handles()).await,
            Self::Outside(_) => Asked::default(),
        }
    }

    async fn seen(self) -> Result<(Self, Vec<Record>), Failure> {
        match self {
            Self::Inside(farm) => {
                let seen = farm.seen();
                Ok((Self::Inside(farm), seen))
            }
            Self::Outside(mut processes) => {
                let mut records = Vec::new();
                for process in &mut processes {
                    records.extend(process.seen().await?);
                }
                Ok((Self::Outside(processes), records))
            }
        }
    }

    async fn shutdown(self) {
        match self {
            Self::Inside(farm) => farm.shutdown().await,
            Self::Outside(processes) => {
                for process in processes {
                    process.shutdown().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(devices: u32) -> Args {
        Args { devices, orders: 1, payload: 200, seed: 1, port_discovery: 1, port_push: 2 }
    }

    #[test]
    fn devices_are_spread_over_processes_as_descriptors_allow() {
        let sizes = |devices, files| {
            let parts = split(args(devices), files).ok().flatten();
            parts.map(|parts| parts.iter().map(|part| part.count).collect::<Vec<_>>())
        };
        assert_eq!(sizes(500, 20_000), None, "inside");
        assert_eq!(sizes(501, 20_000), Some(vec![501]));
        assert_eq!(sizes(10_000, 20_000), Some(vec![3_334, 3_334, 3_332]));
        assert_eq!(sizes(500, 1_024), Some(vec![167, 167, 166]), "too few descriptors for one process");
        assert!(split(args(10_000), 10_000).unwrap_err().cause.contains("10064"));
        let parts = split(args(10_000), 20_000).unwrap().unwrap();
        assert_eq!(parts.iter().map(|part| part.first).collect::<Vec<_>>(), [0, 3_334, 6_668]);
    }
}
