//! `tillwire bench stall`: one device stands still, and the others must not notice.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tillwire::push::driver::server::Event;
use tillwire::{FanOut, Outcome as Code, Security, ServerEvent, StaticDevice, Store, StoreServer, Target};
use tokio::sync::broadcast::Receiver;

use super::child::Child;
use super::contestant::CONNECTED_WITHIN;
use super::figures::{Spread, rounded};
use super::peers::Window;
use super::{DEVICES_MAX, duel, machine, order, ours, peers, say_debug_build};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;
use crate::push::duration;
use crate::start;
use crate::watch::table;

/// The others' p99 with a stalled device, divided by that without.
const RATIO_BUDGET: f64 = 1.10;
/// From the stop to suspicion.
const SUSPECT_BUDGET_MS: u64 = 2_500;
/// From the stop to the end of its session.
const DEAD_BUDGET_MS: u64 = 6_000;
/// A stalled device is dead well before, and back again and done.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often is looked whether a device became suspect; the same in both halves of a cycle.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const ABOUT: &str = "\
All devices get an order every --every-ms. One of them lives in a process of its own. A cycle is
--rounds such rounds while it runs, then it is stopped (SIGSTOP) and as many rounds follow, then
it goes on (SIGCONT) and gets what it missed.

  p99                   within a round, from the push to the outcome, over the devices that
                        answer
  ratio                 p99 of a round with the stalled device, divided by that of the round at
                        the same place without; the median of all pairs. Times are measured in
                        steps of 3 to 6 %
  suspect, dead         from the stop until the server counts it as suspect, and until its
                        session has ended
  back                  from SIGCONT until it is connected again

`ok` says that the others applied every order within its round, that the stall was noticed, and
that the device got in the end whatever it had missed; `within_budget` that the ratio is 1.10 at
most, suspect 2.5 s and dead 6 s.";

/// Stop one device (SIGSTOP): what the others notice of it, and how soon the server does.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices, the stalled one among them.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// How often the device is stopped.
    #[arg(long, value_name = "C", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    cycles: u32,
    /// Rounds of a cycle with the device stopped, and as many with it running.
    #[arg(long, value_name = "R", default_value_t = 28, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Milliseconds between two orders.
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(20..=2_000))]
    every_ms: u64,
    /// Bytes of an order's payload.
    #[arg(long, value_name = "B", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=16_000))]
    payload: u32,
}

/// Runs it and prints a line per cycle and a summary.
pub(super) fn run(args: Args, json: bool) -> Outcome {
    say_debug_build();
    duel::files_for(args.devices)?;
    let (many, port) = duel::devices(Window::DEFAULT)?;
    let (one, one_port) = duel::devices(Window::DEFAULT)?;
    let load_1m = machine::load_1m();
    let pinned = machine::two_cores().is_some_and(|(first, _)| machine::pin(first));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::broken(format!("no runtime: {error}"), ""))?;
    let cycles = runtime.block_on(async {
        let server = serve(args, port, one_port).await?;
        ours::connected(&server, args.devices, machine::now()).await?;
        let bar = duel::bar(u64::from(args.cycles), "cycles");
        let mut stall = Stall { args, server, one: &one, payload: order::payload(args.payload) };
        let mut cycles = Vec::new();
        for at in 0..args.cycles {
            let cycle = stall.cycle().await?;
            if json {
                out::json(&cycle.json(at));
            }
            cycles.push(cycle);
            bar.inc(1);
        }
        bar.finish_and_clear();
        stall.server.shutdown().await;
        Ok::<_, Failure>(cycles)
    })?;
    one.end();
    many.end();
    let shown = Shown { args, cycles, pinned, load_1m };
    if json {
        out::json(&shown.json());
    } else {
        out::text(&shown.people());
    }
    Ok(Verdict::of(shown.is_right()))
}

/// A server whose last device is the one that will stall.
async fn serve(args: Args, port: u16, one_port: u16) -> Result<StoreServer, Failure> {
    let store = Store::new(1, "BENCH").map_err(|error| Failure::broken(error.to_string(), ""))?;
    let mut builder = StoreServer::builder(store)
        .security(Security::open_network())
        .staging(true)
        .no_discovery()
        .capacity(usize::try_from(args.devices).unwrap_or(usize::MAX));
    let last = args.devices - 1;
    for index in 0..args.devices {
        let address = peers::address(index);
        let port = if index == last { one_port } else { port };
        let at = StaticDevice::at((address, port).into());
        builder = builder.device(StaticDevice { id: Some(peers::id(address)), ..at });
    }
    builder.start().await.map_err(|error| start::failure(&error))
}

struct Stall<'p> {
    args: Args,
    server: StoreServer,
    one: &'p Child,
    payload: Vec<u8>,
}

/// A round's p99, and whether everybody who could answer did.
#[derive(Clone, Copy, Debug)]
struct Round {
    p99_us: u64,
    complete: bool,
}

/// With the device running, then with it stopped.
#[derive(Debug, Default)]
struct Cycle {
    control: Vec<Round>,
    stalled: Vec<Round>,
    suspect_ms: Option<u64>,
    dead_ms: Option<u64>,
    back_ms: Option<u64>,
    /// The device ended up with every order.
    delivered: bool,
}

impl Stall<'_> {
    async fn cycle(&mut self) -> Result<Cycle, Failure> {
        let mut cycle = Cycle::default();
        let mut missed = Vec::new();
        cycle.control = self.rounds(self.args.devices, &mut missed).await?;
        let mut events = self.server.subscribe();
        let suspects = self.suspects().await;
        self.one.signal(Signal::STOP)?;
        let stopped = machine::now();
        (cycle.stalled, cycle.suspect_ms, cycle.dead_ms) = tokio::try_join!(
            self.rounds(self.args.devices - 1, &mut missed),
            self.suspected(suspects, stopped),
            async { Ok(self.hears(&mut events, stopped, false).await) },
        )?;
        self.one.signal(Signal::CONT)?;
        cycle.back_ms = self.hears(&mut events, machine::now(), true).await;
        cycle.delivered = self.delivered(&missed).await;
        Ok(cycle)
    }

    /// An order every so often; each is looked at when the next is due.
    async fn rounds(&self, answering: u32, pushed: &mut Vec<FanOut>) -> Result<Vec<Round>, Failure> {
        let order = order::order(&self.payload);
        let mut ticks = tokio::time::interval(Duration::from_millis(self.args.every_ms));
        let mut rounds = Vec::new();
        ticks.tick().await;
        for _ in 0..self.args.rounds {
            let fan_out = self
                .server
                .push(&order, &Target::all())
                .await
                .map_err(|error| Failure::broken(format!("an order was not accepted: {error}"), ""))?;
            ticks.tick().await;
            let report = fan_out.report().await;
            let complete = report.count(Code::APPLIED) >= usize::try_from(answering).unwrap_or(usize::MAX);
            rounds.push(Round { p99_us: micros(report.latency().p99), complete });
            if report.unsettled() > 0 {
                pushed.push(fan_out);
            }
        }
        Ok(rounds)
    }

    /// Milliseconds from `since` until one device more has become suspect than `before`; looked at as long as the rounds of
    /// a cycle last.
    async fn suspected(&self, before: u64, since: Duration) -> Result<Option<u64>, Failure> {
        while machine::now() - since < PATIENCE {
            if self.suspects().await > before {
                return Ok(Some(millis(machine::now() - since)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    async fn suspects(&self) -> u64 {
        self.server.stats().await.map_or(0, |stats| stats.push.fleet.suspects)
    }

    /// Milliseconds from `since` until the device's session opens, or ends.
    async fn hears(&self, events: &mut Receiver<ServerEvent>, since: Duration, opens: bool) -> Option<u64> {
        let one = peers::id(peers::address(self.args.devices - 1));
        let heard = async {
            loop {
                match events.recv().await.ok()? {
                    ServerEvent::Session(Event::Connected { id, .. }) if opens && id == one => break,
                    ServerEvent::Session(Event::Disconnected { id, .. }) if !opens && id == Some(one) => {
                        break;
                    }
                    _ => {}
                }
            }
            Some(millis(machine::now() - since))
        };
        tokio::time::timeout(PATIENCE, heard).await.ok().flatten()
    }

    /// Whether every order that waited was applied everywhere in the end.
    async fn delivered(&self, missed: &[FanOut]) -> bool {
        for fan_out in missed {
            let report = fan_out.settled(CONNECTED_WITHIN).await;
            if report.count(Code::APPLIED) != report.targets() {
                return false;
            }
        }
        true
    }
}

impl Cycle {
    fn is_right(&self) -> bool {
        let rounds = self.control.iter().chain(&self.stalled);
        let noticed = self.suspect_ms.is_some() && self.dead_ms.is_some() && self.back_ms.is_some();
        rounds.into_iter().all(|round| round.complete) && noticed && self.delivered
    }

    fn json(&self, at: u32) -> Value {
        json!({
            "event": "cycle",
            "bench": "stall",
            "cycle": at + 1,
            "p99_us": rounded(p99(&self.control).median),
            "p99_us_stalled": rounded(p99(&self.stalled).median),
            "suspect_ms": self.suspect_ms,
            "dead_ms": self.dead_ms,
            "back_ms": self.back_ms,
            "delivered": self.delivered,
        })
    }
}

fn p99(rounds: &[Round]) -> Spread {
    Spread::of(rounds.iter().map(|round| round.p99_us as f64).collect())
}

struct Shown {
    args: Args,
    cycles: Vec<Cycle>,
    pinned: bool,
    load_1m: f64,
}

impl Shown {
    fn is_right(&self) -> bool {
        !self.cycles.is_empty() && self.cycles.iter().all(Cycle::is_right)
    }

    fn ratio(&self) -> Spread {
        let pairs = self.cycles.iter().flat_map(|cycle| cycle.stalled.iter().zip(&cycle.control));
        Spread::of(
            pairs
                .map(|(stalled, control)| stalled.p99_us as f64 / (control.p99_us as f64).max(1.0))
                .collect(),
        )
    }

    /// The longest of all cycles; `None` if one never came.
    fn longest(&self, of: impl Fn(&Cycle) -> Option<u64>) -> Option<u64> {
        self.cycles.iter().map(of).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn within_budget(&self) -> bool {
        let within =
            |of: fn(&Cycle) -> Option<u64>, most| self.longest(of).is_some_and(|longest| longest <= most);
        self.ratio().median <= RATIO_BUDGET
            && within(|cycle| cycle.suspect_ms, SUSPECT_BUDGET_MS)
            && within(|cycle| cycle.dead_ms, DEAD_BUDGET_MS)
    }

    fn json(&self) -> Value {
        let ratio = self.ratio();
        json!({
            "event": "summary",
            "bench": "stall",
            "devices": self.args.devices,
            "payload": self.args.payload,
            "cycles": self.args.cycles,
            "rounds": self.args.rounds,
            "every_ms": self.args.every_ms,
            "ratio_p99": rounded(ratio.median),
            "ratio_p99_quarters": ratio.json(),
            "suspect_ms_max": self.longest(|cycle| cycle.suspect_ms),
            "dead_ms_max": self.longest(|cycle| cycle.dead_ms),
            "back_ms_max": self.longest(|cycle| cycle.back_ms),
            "within_budget": self.within_budget(),
            "pinned": self.pinned,
            "load_1m": self.load_1m,
            "debug_build": cfg!(debug_assertions),
            "ok": self.is_right(),
        })
    }

    fn people(&self) -> String {
        let Args { devices, cycles, rounds, every_ms, .. } = self.args;
        let mut table = table(&["cycle", "p99 running", "p99 stalled", "suspect", "dead", "back"]);
        let time = |ms: Option<u64>| ms.map_or_else(|| "never".to_owned(), |ms| duration(ms * 1_000));
        for (at, cycle) in self.cycles.iter().enumerate() {
            table.add_row([
                (at + 1).to_string(),
                duration(p99(&cycle.control).median as u64),
                duration(p99(&cycle.stalled).median as u64),
                time(cycle.suspect_ms),
                time(cycle.dead_ms),
                time(cycle.back_ms),
            ]);
        }
        let what = format!(
            "one of {devices} devices stopped {cycles} times; {rounds} orders to all before and after, one every {every_ms} ms"
        );
        let budget = if self.within_budget() { "within" } else { "OVER" };
        let verdict =
            if self.is_right() { "" } else { "not right: an order or a sign of the stall is missing\n" };
        format!(
            "{}\n{table}\n\np99 of a round with the stalled device / without: {}; {budget} budget (1.10, suspect 2.5 s, dead 6 s); \
             {}; load {:.1} before\n{verdict}",
            out::title(&what),
            self.ratio().people(),
            if self.pinned { "server and devices on a core each" } else { "NOT PINNED to cores" },
            self.load_1m,
        )
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
