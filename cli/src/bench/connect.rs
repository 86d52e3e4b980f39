//! `tillwire bench connect`: a store server is restarted, and its devices come back.

use serde_json::{Value, json};

use super::child::Child;
use super::contestant::Who;
use super::duel::{self, Connected, Setup};
use super::figures::{Spread, rounded};
use super::peers::Window;
use super::{DEVICES_MAX, machine, say_debug_build};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;
use crate::watch::table;

/// All devices of a full store are to be back by then: 10,000 at 2,000 a second, and a second.
const BUDGET_MS: u64 = 6_000;

const ABOUT: &str = "\
What is measured, for each restart, after a first start that does not count:
  connected             from before the server is built to the session of the last device
  dials/s               the most dials that began within any second; the pace is 2,000, with
                        bursts of 20
  failed                dials that failed, as the server counts them
  cpu per device        CPU time of the thread that serves the sockets, kernel included, divided
                        by devices

The server is a process that is killed (SIGKILL); its devices live on in another and find their
connections closed. Beside it, in turns, raw-epoll dials the same devices without a pace, for
the CPU alone. `listen drops` are those of the whole machine meanwhile. `ok` says that every
device came back; `within_budget` that it took 6 s at most.";

/// Restart the server: time until every device is connected again.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// How many restarts are counted.
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    restarts: u32,
}

/// Runs it and prints a line per restart and a summary.
pub(super) fn run(args: Args, json: bool) -> Outcome {
    say_debug_build();
    let Args { devices, restarts } = args;
    duel::files_for(devices)?;
    let setup = Setup { devices, payload: 0, orders: 1, rest_ms: 0, window: Window::DEFAULT };
    let (peers, port) = duel::devices(setup.window)?;
    let (load_1m, drops) = (machine::load_1m(), machine::listen_drops());
    let bar = duel::bar(u64::from(restarts) + 1, "restarts");
    let mut shown = Shown { args, restarts: Vec::new(), raw: Vec::new(), load_1m, listen_drops: None };
    let mut running = start(Who::Tillwire, setup, port)?;
    for restart in 0..restarts {
        bar.inc(1);
        // The yardstick has the devices to itself: they are counted by nobody else then.
        running.0.kill();
        let (raw, dialled) = start(Who::RawEpoll, setup, port)?;
        raw.end();
        shown.raw.push(dialled);
        running = start(Who::Tillwire, setup, port)?;
        shown.restarts.push(running.1);
        if json {
            out::json(&shown.restart_json(restart, &running.1));
        }
    }
    running.0.end();
    peers.end();
    bar.finish_and_clear();
    shown.listen_drops =
        machine::listen_drops().zip(drops).map(|(after, before)| after.saturating_sub(before));
    if json {
        out::json(&shown.json());
    } else {
        out::text(&shown.people());
    }
    // A device that did not come back has ended the run with an error.
    Ok(Verdict::AllRight)
}

/// A contestant whose devices are all connected.
fn start(who: Who, setup: Setup, port: u16) -> Result<(Child, Connected), Failure> {
    let mut contestant = duel::contestant(who, None, setup, port)?;
    let connected = Connected::of(&mut contestant)?;
    Ok((contestant, connected))
}

struct Shown {
    args: Args,
    restarts: Vec<Connected>,
    raw: Vec<Connected>,
    load_1m: f64,
    listen_drops: Option<u64>,
}

impl Shown {
    fn cpu_us_per_device(&self, connected: &Connected) -> f64 {
        connected.cpu_ns as f64 / 1e3 / f64::from(self.args.devices)
    }

    fn spread(&self, of: impl Fn(&Connected) -> f64) -> Spread {
        Spread::of(self.restarts.iter().map(of).collect())
    }

    fn most(&self, of: impl Fn(&Connected) -> u64) -> u64 {
        self.restarts.iter().map(of).max().unwrap_or_default()
    }

    fn ratio_cpu(&self) -> Spread {
        let pairs = self.restarts.iter().zip(&self.raw);
        Spread::of(pairs.map(|(ours, raw)| ours.cpu_ns as f64 / (raw.cpu_ns as f64).max(1.0)).collect())
    }

    fn restart_json(&self, restart: u32, connected: &Connected) -> Value {
        json!({
            "event": "restart",
            "bench": "connect",
            "restart": restart + 1,
            "devices": self.args.devices,
            "connected_ms": connected.connected_ms,
            "dials_per_s_max": connected.dials_per_s_max,
            "dials_failed": connected.dials_failed,
            "cpu_us_per_device": rounded(self.cpu_us_per_device(connected)),
        })
    }

    fn json(&self) -> Value {
        let slowest = self.most(|connected| connected.connected_ms);
        json!({
            "event": "summary",
            "bench": "connect",
            "devices": self.args.devices,
            "restarts": self.args.restarts,
            "connected_ms": self.spread(|connected| connected.connected_ms as f64).median.round(),
            "connected_ms_max": slowest,
            "budget_ms": BUDGET_MS,
            "within_budget": slowest <= BUDGET_MS,
            "dials_per_s_max": self.most(|connected| connected.dials_per_s_max),
            "dials_failed": self.restarts.iter().map(|connected| connected.dials_failed).sum::<u64>(),
            "listen_drops": self.listen_drops,
            "cpu_us_per_device": rounded(self.spread(|connected| self.cpu_us_per_device(connected)).median),
            "ratio_cpu": rounded(self.ratio_cpu().median),
            "pinned": self.restarts.iter().all(|connected| connected.pinned),
            "load_1m": self.load_1m,
            "debug_build": cfg!(debug_assertions),
            "ok": true,
        })
    }

    fn people(&self) -> String {
        let mut table = table(&["restart", "connected", "dials/s", "failed", "cpu per device"]);
        for (at, connected) in self.restarts.iter().enumerate() {
            table.add_row([
                (at + 1).to_string(),
                format!("{} ms", connected.connected_ms),
                connected.dials_per_s_max.to_string(),
                connected.dials_failed.to_string(),
                format!("{:.1} us", self.cpu_us_per_device(connected)),
            ]);
        }
        let drops = self.listen_drops.map_or_else(|| "unknown".to_owned(), |drops| drops.to_string());
        let what = format!("{} devices, {} restarts", self.args.devices, self.args.restarts);
        let slowest = self.most(|connected| connected.connected_ms);
        let budget = if slowest <= BUDGET_MS { "within" } else { "OVER" };
        format!(
            "{}\n{table}\n\nslowest {slowest} ms, {budget} the budget of {BUDGET_MS} ms; listen drops on this machine {drops}; cpu \
             {} of raw-epoll's; load {:.1} before\n",
            out::title(&what),
            self.ratio_cpu().people(),
            self.load_1m,
        )
    }
}
