//! Many seeds, on as many threads as wanted.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wire_format::rng::mix;

use super::names::{FaultKind, Probe};
use super::plan::{Plan, Scene};
use super::world::{Outcome, Run};
use super::{Failure, run};

/// In percent, the seeds that are run twice to see that the second run is the first one.
const TWICE_PERCENT: u64 = 5;

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The kind of world.
    pub scene: Scene,
    /// The seeds.
    pub seeds: Range<u64>,
    /// Threads.
    pub jobs: usize,
    /// Failures after which no further seed is begun.
    pub failures_max: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All runs together.
    pub run: Run,
    /// Seeds run.
    pub seeds: u64,
    /// Seeds run twice.
    pub twice: u64,
    /// Time that passed in all worlds, second runs included.
    pub simulated: Duration,
    /// Seeds that failed, and how; lowest first.
    pub failures: Vec<(u64, Failure)>,
    /// On the clock of this machine.
    pub took: Duration,
}

impl Campaign {
    /// Runs it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "how long a campaign takes is part of its report")]
    pub fn run(&self) -> Report {
        let began = Instant::now();
        let next = AtomicU64::new(self.seeds.start);
        let report = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| self.work(&next, &report));
            }
        });
        let mut report = report.into_inner().unwrap_or_default();
        report.failures.sort_by_key(|(seed, _)| *seed);
        report.took = began.elapsed();
        report
    }

    fn work(&self, next: &AtomicU64, report: &Mutex<Report>) {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.seeds.end {
                return;
            }
            let plan = Plan::draw(self.scene, seed);
            let outcome = run(&plan, false);
            let twice = mix(seed) % 100 < TWICE_PERCENT;
            let again = twice.then(|| run(&plan, false));
            let Ok(mut report) = report.lock() else { return };
            report.seeds += 1;
            report.twice += u64::from(twice);
            let second = again.as_ref().map_or(Duration::ZERO, |again| again.run.simulated);
            report.simulated += outcome.run.simulated + second;
            if let Some(again) = again
                && again != outcome
            {
                report.failures.push((seed, not_the_same(&outcome, &again)));
            }
            report.run.add(&outcome.run);
            report.failures.extend(outcome.failure.map(|failure| (seed, failure)));
            if report.failures.len() >= self.failures_max {
                next.store(self.seeds.end, Ordering::Relaxed);
            }
        }
    }
}

/// The simulator itself is broken: the same seed made two runs.
fn not_the_same(one: &Outcome, other: &Outcome) -> Failure {
    Failure::of_nobody("NotTheSameRun", format!("{} steps, then {}", one.run.steps, other.run.steps))
}

impl Report {
    /// Paths that no run was on although they are not rare.
    pub fn missed(&self) -> impl Iterator<Item = Probe> {
        let probes = Probe::ALL.iter().copied();
        probes.filter(|probe| !probe.is_rare() && self.run.probes.of(*probe as usize) == 0)
    }

    /// What happened, as text: a line per fault and per path.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let took = self.took.as_secs_f64().max(1e-9);
        let run = &self.run;
        let _ = writeln!(text, "faults placed: {}", run.faults.sum());
        for fault in FaultKind::ALL {
            let _ = writeln!(text, "  {:>12} {}", run.faults.of(*fault as usize), fault.text());
        }
        let _ = writeln!(text, "paths walked:");
        for probe in Probe::ALL {
            let count = run.probes.of(*probe as usize);
            let never = if count > 0 {
                ""
            } else if probe.is_rare() {
                " (never; rare)"
            } else {
                " (NEVER)"
            };
            let _ = writeln!(text, "  {count:>12} {}{never}", probe.text());
        }
        let _ = writeln!(
            text,
            "{} seeds in {took:.1} s: {:.1} seeds/s, {} of them run twice; {} orders, {} outcomes, {} steps",
            self.seeds,
            self.seeds as f64 / took,
            self.twice,
            run.orders,
            run.outcomes,
            run.steps,
        );
        let simulated = self.simulated.as_secs_f64();
        let _ = writeln!(
            text,
            "{:.2} store-days simulated: {:.0} s per second, {:.3} store-days per second",
            simulated / 86_400.0,
            simulated / took,
            simulated / 86_400.0 / took,
        );
        let _ = writeln!(text, "{} seeds failed", self.failures.len());
        text
    }
}
