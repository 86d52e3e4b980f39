//! The pace of volatile orders while the disk of the durable ones is slow, or full.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tillwire::push::outbox::log::Directory;
use tillwire::{FanOut, Outcome, Quorum, StoreServer, Target};
use tokio::task::JoinSet;

use super::super::figures::{Spread, rounded};
use super::super::peers::Window;
use super::super::{duel, machine, order};
use super::disk::{Hindered, Hindrance};
use super::{Args, Place, RATIO_BUDGET, one, percentile, runtime, serve};
use crate::error::Failure;
use crate::out;
use crate::push::duration;
use crate::watch::table;

/// Devices of the store.
const DEVICES: u32 = 100;
/// Volatile orders of a phase.
const ROUNDS: usize = 100;
/// Between two of them.
const REST: Duration = Duration::from_millis(5);
/// A durable order is pushed this often, whatever the disk does.
const DURABLE_EVERY: Duration = Duration::from_millis(5);
/// Durable pushes that may wait for the disk at a time.
const WAITING_MAX: usize = 256;
/// A slow sync.
const SLOW: Duration = Duration::from_millis(200);
/// From a change of the disk to the first order that counts: pushes that wait for it by then.
const SETTLE_FOR: Duration = Duration::from_millis(500);
/// An order that takes longer is not all right, nor is a disk that is not back by then.
const WITHIN: Duration = Duration::from_secs(30);

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Plain,
    Slow,
    Full,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Plain, Self::Slow, Self::Full];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Slow => "slow",
            Self::Full => "full",
        }
    }
}

/// One phase of a cycle.
#[derive(Clone, Debug, Default)]
struct Round {
    /// Times of volatile orders, from before the push to the last outcome, sorted.
    times_us: Vec<u64>,
    complete: bool,
    /// Durable orders: accepted, and refused.
    durable: [u64; 2],
    syncs: u64,
}

pub(super) fn run(args: &Args, dir: &Path, json: bool) -> Result<bool, Failure> {
    let load_1m = machine::load_1m();
    let (devices, port) = duel::devices(Window::WIDE)?;
    let pinned = machine::two_cores().is_some_and(|(first, _)| machine::pin(first));
    let bar = duel::bar(u64::from(args.cycles), "cycles of pace");
    let shown = runtime()?.block_on(async {
        let hindrance = Hindrance::default();
        let disk = Directory::open(&dir.join("pace"));
        let disk = disk.map_err(|error| Failure::broken(format!("no outbox: {error}"), ""))?;
        let place = Place::Disk(Hindered::new(disk, hindrance.clone()));
        let server = Arc::new(serve(DEVICES, port, place).await?);
        let load = Arc::new(Load::default());
        let pushing = tokio::spawn(load.clone().run(server.clone(), order::payload(args.payload)));
        let pace = Pace { server: &server, load: &load, hindrance, payload: order::payload(args.payload) };
        let mut cycles = Vec::new();
        for _ in 0..args.cycles {
            cycles.push(pace.cycle().await);
            bar.inc(1);
        }
        pushing.abort();
        // Its handle of the server goes with it.
        let _ = pushing.await;
        let left = load.left().await;
        if let Some(server) = Arc::into_inner(server) {
            server.shutdown().await;
        }
        Ok::<_, Failure>(Shown { cycles, left, pinned, load_1m })
    })?;
    bar.finish_and_clear();
    devices.end();
    if json {
        Phase::ALL.iter().for_each(|phase| out::json(&shown.phase_json(*phase)));
        out::json(&shown.json());
    } else {
        out::text(&shown.people());
    }
    Ok(shown.is_right())
}

/// Durable orders, pushed at a fixed rate whatever becomes of those before.
#[derive(Debug, Default)]
struct Load {
    accepted: AtomicU64,
    refused: AtomicU64,
    fan_outs: Mutex<Vec<FanOut>>,
}

impl Load {
    async fn run(self: Arc<Self>, server: Arc<StoreServer>, payload: Vec<u8>) {
        let mut pushes = JoinSet::new();
        let mut every = tokio::time::interval(DURABLE_EVERY);
        for at in 0_u32.. {
            every.tick().await;
            while pushes.try_join_next().is_some() {}
            if pushes.len() < WAITING_MAX {
                pushes.spawn(self.clone().push(server.clone(), at % DEVICES, payload.clone()));
            }
        }
    }

    async fn push(self: Arc<Self>, server: Arc<StoreServer>, device: u32, payload: Vec<u8>) {
        match server.push(&order::order(&payload), &one(device)).await {
            Ok(fan_out) => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                let mut fan_outs = self.fan_outs.lock().unwrap_or_else(PoisonError::into_inner);
                fan_outs.retain(|fan_out| fan_out.ended() < fan_out.targets());
                fan_outs.push(fan_out);
            }
            Err(_) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn counts(&self) -> [u64; 2] {
        [&self.accepted, &self.refused].map(|count| count.load(Ordering::Relaxed))
    }

    /// Orders that were accepted and do not end.
    async fn left(&self) -> usize {
        let fan_outs = std::mem::take(&mut *self.fan_outs.lock().unwrap_or_else(PoisonError::into_inner));
        let mut left = 0;
        for fan_out in &fan_outs {
            let progress = fan_out.wait(Quorum::percent(100), |code| code == Outcome::APPLIED, WITHIN).await;
            left += usize::from(!progress.reached);
        }
        left
    }
}

struct Pace<'s> {
    server: &'s StoreServer,
    load: &'s Load,
    hindrance: Hindrance,
    payload: Vec<u8>,
}

impl Pace<'_> {
    /// Each kind of disk once.
    async fn cycle(&self) -> Vec<Round> {
        let mut rounds = Vec::new();
        for phase in Phase::ALL {
            self.hindrance.slow(if phase == Phase::Slow { SLOW } else { Duration::ZERO });
            self.hindrance.full(phase == Phase::Full);
            let mut round = self.phase().await;
            self.hindrance.slow(Duration::ZERO);
            self.hindrance.full(false);
            round.complete &= self.is_back().await;
            rounds.push(round);
        }
        rounds
    }

    /// Volatile orders one after the other.
    async fn phase(&self) -> Round {
        tokio::time::sleep(SETTLE_FOR).await;
        let (before, syncs) = (self.load.counts(), self.hindrance.syncs());
        let order = order::order(&self.payload).volatile();
        let mut round = Round { complete: true, ..Round::default() };
        for _ in 0..ROUNDS {
            let begun = machine::now();
            let applied = match self.server.push(&order, &Target::all()).await {
                Ok(fan_out) => fan_out.settled(WITHIN).await.count(Outcome::APPLIED),
                Err(_) => 0,
            };
            let took = machine::now() - begun;
            round.times_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            round.complete &= applied == DEVICES as usize;
            tokio::time::sleep(REST).await;
        }
        round.times_us.sort_unstable();
        let after = self.load.counts();
        round.durable = [after[0] - before[0], after[1] - before[1]];
        round.syncs = self.hindrance.syncs() - syncs;
        round
    }

    /// Waits until a durable order is accepted again.
    async fn is_back(&self) -> bool {
        let deadline = machine::now() + WITHIN;
        let before = self.load.counts()[0];
        while self.load.counts()[0] == before && machine::now() < deadline {
            tokio::time::sleep(DURABLE_EVERY).await;
        }
        self.load.counts()[0] > before
    }
}

/// What came of it.
struct Shown {
    /// A round per phase each.
    cycles: Vec<Vec<Round>>,
    /// Durable orders that were accepted and have not ended.
    left: usize,
    pinned: bool,
    load_1m: f64,
}

impl Shown {
    fn rounds(&self, phase: Phase) -> impl Iterator<Item = &Round> {
        self.cycles.iter().filter_map(move |cycle| cycle.get(phase as usize))
    }

    /// Beside the same cycle's plain disk.
    fn ratio(&self, phase: Phase, percent: usize) -> Spread {
        let pairs = self.rounds(Phase::Plain).zip(self.rounds(phase));
        let at = |round: &Round| percentile(&round.times_us, percent).max(1) as f64;
        Spread::of(pairs.map(|(plain, round)| at(round) / at(plain)).collect())
    }

    fn all_us(&self, phase: Phase) -> Vec<u64> {
        let mut all: Vec<_> = self.rounds(phase).flat_map(|round| round.times_us.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    fn durable(&self, phase: Phase) -> [u64; 2] {
        self.rounds(phase).fold([0; 2], |sum, round| [0, 1].map(|at| sum[at] + round.durable[at]))
    }

    fn is_right(&self) -> bool {
        let complete = Phase::ALL.iter().all(|phase| self.rounds(*phase).all(|round| round.complete));
        let [full, refused] = self.durable(Phase::Full);
        let [accepted, none] = self.durable(Phase::Plain);
        complete && self.left == 0 && full == 0 && refused > 0 && accepted > 0 && none == 0
    }

    fn within_budget(&self) -> bool {
        [Phase::Slow, Phase::Full].iter().all(|phase| self.ratio(*phase, 50).median <= RATIO_BUDGET)
    }

    fn phase_json(&self, phase: Phase) -> Value {
        let all = self.all_us(phase);
        let [accepted, refused] = self.durable(phase);
        json!({
            "event": "phase",
            "bench": "durable-pace",
            "disk": phase.name(),
            "volatile_us": {"p50": percentile(&all, 50), "p99": percentile(&all, 99), "max": percentile(&all, 100)},
            "durable_accepted": accepted,
            "durable_refused": refused,
            "syncs": self.rounds(phase).map(|round| round.syncs).sum::<u64>(),
        })
    }

    fn json(&self) -> Value {
        let [slow, full] = [Phase::Slow, Phase::Full].map(|phase| self.ratio(phase, 50));
        json!({
            "event": "summary",
            "bench": "durable-pace",
            "devices": DEVICES,
            "cycles": self.cycles.len(),
            "ratio_slow": rounded(slow.median),
            "ratio_slow_quarters": slow.json(),
            "ratio_slow_p99": rounded(self.ratio(Phase::Slow, 99).median),
            "ratio_full": rounded(full.median),
            "ratio_full_quarters": full.json(),
            "ratio_full_p99": rounded(self.ratio(Phase::Full, 99).median),
            "durable_left": self.left,
            "pinned": self.pinned,
            "load_1m": self.load_1m,
            "debug_build": cfg!(debug_assertions),
            "within_budget": self.within_budget(),
            "ok": self.is_right(),
        })
    }

    fn people(&self) -> String {
        let mut table =
            table(&["disk", "volatile p50", "p99", "ratio of p50", "of p99", "durable accepted", "refused"]);
        for phase in Phase::ALL {
            let all = self.all_us(phase);
            let [accepted, refused] = self.durable(phase);
            table.add_row([
                phase.name().to_owned(),
                duration(percentile(&all, 50)),
                duration(percentile(&all, 99)),
                self.ratio(phase, 50).people(),
                self.ratio(phase, 99).people(),
                accepted.to_string(),
                refused.to_string(),
            ]);
        }
        let what = format!(
            "{} cycles of {ROUNDS} volatile orders to {DEVICES} devices, a durable order every {} ms",
            self.cycles.len(),
            DURABLE_EVERY.as_millis()
        );
        let verdict = if self.is_right() { "" } else { "not right: see --json\n" };
        format!("{}\n{table}\n{verdict}", out::title(&what))
    }
}
