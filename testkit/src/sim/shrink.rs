//! Making a failing run small: parts of its plan are taken away as long as it fails in the same way.

use super::ledger::Failure;
use super::plan::{Plan, SECOND};

/// Runs that are spent on one failure at most.
const RUNS_MAX: usize = 600;

struct Search<'a> {
    rule: &'a str,
    best: Plan,
    runs: usize,
}

impl Search<'_> {
    /// Keeps the plan if it fails in the same way.
    fn try_plan(&mut self, plan: Plan) -> bool {
        self.runs += 1;
        let same = super::run(&plan, false).failure.is_some_and(|failure| failure.rule == self.rule);
        if same {
            self.best = plan;
        }
        same
    }

    const fn is_spent(&self) -> bool {
        self.runs >= RUNS_MAX
    }

    /// Takes away ever smaller parts of a list that is `len` long, by its positions.
    fn thin(&mut self, len: impl Fn(&Plan) -> usize, without: impl Fn(&Plan, usize, usize) -> Plan) {
        let mut part = len(&self.best).div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < len(&self.best) && !self.is_spent() {
                let end = (at + part).min(len(&self.best));
                if !self.try_plan(without(&self.best, at, end)) {
                    at = end;
                }
            }
            if part == 1 || self.is_spent() {
                return;
            }
            part = part.div_ceil(2);
        }
    }

    fn pass(&mut self) {
        self.thin(
            |plan| plan.faults.len(),
            |plan, at, end| {
                let mut plan = plan.clone();
                plan.faults.drain(at..end);
                plan
            },
        );
        self.thin(
            |plan| plan.orders.len(),
            |plan, at, end| {
                let mut plan = plan.clone();
                plan.orders.drain(at..end);
                plan
            },
        );
        for device in 0..self.best.devices.len() {
            if self.best.devices[device].present && self.best.size()[0] > 1 {
                let mut plan = self.best.clone();
                plan.devices[device].present = false;
                self.try_plan(plan);
            }
        }
        self.plainer();
    }

    /// A shorter storm, a faster network, bytes in one piece, handlers that answer at once.
    fn plainer(&mut self) {
        let edits: [fn(&mut Plan); 5] = [
            |plan| plan.storm = (plan.storm / 2).max(SECOND),
            |plan| plan.chunk = 5_000,
            |plan| plan.knobs.later = 0,
            |plan| plan.knobs.attempts = 0,
            |plan| plan.orders.iter_mut().for_each(|order| order.len = 8),
        ];
        for edit in edits {
            let mut plan = self.best.clone();
            edit(&mut plan);
            self.try_plan(plan);
        }
    }
}

/// The smallest plan found that breaks the same promise, and the runs it took.
#[must_use]
pub fn shrink(plan: &Plan, failure: &Failure) -> (Plan, usize) {
    let mut search = Search { rule: &failure.rule, best: plan.clone(), runs: 0 };
    let mut size = usize::MAX;
    while !search.is_spent() && search.best.size().iter().sum::<usize>() < size {
        size = search.best.size().iter().sum();
        search.pass();
    }
    (search.best, search.runs)
}
