//! Whether every order ended on every device as the plan has it: on the server's word and on the devices'.

use std::collections::HashMap;

use serde_json::{Value, json};
use tillwire::{NodeId, Report, Standing};
use wire_format::crc::crc32c;

use super::farm::{Record, Seen};
use super::payloads;
use super::plan::{Plan, Planned};

/// Wrong pairs described in words; the rest is counted.
const EXAMPLES_MAX: usize = 5;

/// What is wrong, counted per (order, device).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The server reports another outcome than the plan, none, or a device that was not meant.
    pub(crate) outcomes: u64,
    /// A device's application never saw an order that was for it.
    pub(crate) unseen: u64,
    /// It saw it more than once.
    pub(crate) repeated: u64,
    /// It saw other bytes than were pushed, or answered something else than the plan has.
    pub(crate) altered: u64,
    /// It saw an order that was not for it, or one that was to end before its turn.
    pub(crate) strays: u64,
    /// A result the server should have is missing, or says something else than the device has.
    pub(crate) results: u64,
    /// The first few, in words.
    pub(crate) examples: Vec<String>,
}

impl Wrong {
    /// Nothing is.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// `{outcomes, unseen, repeated, altered, strays, results}`.
    pub(crate) fn json(&self) -> Value {
        let Self { outcomes, unseen, repeated, altered, strays, results, .. } = self;
        json!({
            "outcomes": outcomes, "unseen": unseen, "repeated": repeated, "altered": altered, "strays": strays,
            "results": results,
        })
    }

    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// An order that was pushed: where it stands in the plan, the number it got, what the server reports.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) plan: usize,
    pub(crate) report: Report,
}

/// Compares reports and records with the plan.
pub(crate) fn check(plan: &Plan, pushed: &[Pushed], records: &[Record]) -> Wrong {
    let mut wrong = Wrong::default();
    let mut numbers = HashMap::new();
    for pushed in pushed {
        if let Some(order) = plan.orders.get(pushed.plan) {
            check_report(plan, order, &pushed.report, &mut wrong);
            check_results(order, &pushed.report, &mut wrong);
            numbers.insert(pushed.report.number(), order);
        }
    }
    let mut seen: HashMap<u32, &[Seen]> =
        records.iter().map(|(index, seen)| (*index, seen.as_slice())).collect();
    for (index, spec) in (0..).zip(&plan.devices) {
        let record = seen.remove(&index).unwrap_or(&[]);
        let meant = numbers.iter().filter(|(_, order)| order.is_seen() && order.whom.means(index, spec));
        check_record(index, record, &meant.map(|(number, order)| (*number, *order)).collect(), &mut wrong);
    }
    wrong
}

fn check_report(plan: &Plan, order: &Planned, report: &Report, wrong: &mut Wrong) {
    let mut standings: HashMap<NodeId, Standing> =
        report.devices().iter().filter_map(|device| Some((device.id?, device.standing))).collect();
    let nameless = report.devices().len() - standings.len();
    for index in plan.meant(order) {
        let Some(spec) = usize::try_from(index).ok().and_then(|at| plan.devices.get(at)) else { continue };
        let standing = standings.remove(&spec.id);
        if standing != Some(Standing::Ended(order.outcome)) {
            wrong.outcomes += 1;
            wrong.note(|| {
                format!("order {} on device {index}: the server reports {standing:?}", report.number())
            });
        }
    }
    // What is left was not meant.
    wrong.outcomes += (standings.len() + nameless) as u64;
}

/// Each device a question was for has answered it with what it has.
fn check_results(order: &Planned, report: &Report, wrong: &mut Wrong) {
    if !order.wants_result() {
        return;
    }
    let right = report.results().filter(|(_, result)| payloads::is_answer(&order.payload, result)).count();
    let missing = report.targets().saturating_sub(right) as u64;
    if missing > 0 {
        wrong.results += missing;
        wrong.note(|| format!("{missing} answers to order {} are missing or wrong", report.number()));
    }
}

fn check_record(index: u32, record: &[Seen], meant: &HashMap<u64, &Planned>, wrong: &mut Wrong) {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    for seen in record {
        *counts.entry(seen.order).or_insert(0) += 1;
        match meant.get(&seen.order) {
            None => {
                wrong.strays += 1;
                wrong.note(|| format!("device {index} saw order {}, which was not for it", seen.order));
            }
            Some(order) if seen.digest != crc32c(&order.payload) || seen.code != order.outcome.0 => {
                wrong.altered += 1;
                wrong.note(|| {
                    format!("device {index} saw or answered order {} otherwise than planned", seen.order)
                });
            }
            Some(_) => {}
        }
    }
    for number in meant.keys() {
        match counts.get(number) {
            None => {
                wrong.unseen += 1;
                wrong.note(|| format!("device {index} never saw order {number}"));
            }
            Some(1) => {}
            Some(times) => {
                wrong.repeated += 1;
                wrong.note(|| format!("device {index} saw order {number} {times} times"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a device sees that does everything right.
    fn right(order: &Planned, number: u64) -> Seen {
        Seen { order: number, digest: crc32c(&order.payload), code: order.outcome.0 }
    }

    fn judge(change: impl FnOnce(&mut Vec<Seen>)) -> Wrong {
        let plan = Plan::new(1, 2, 64, 1);
        let meant: HashMap<_, _> = [(11, &plan.orders[0]), (12, &plan.orders[1])].into();
        let mut record: Vec<_> = vec![right(&plan.orders[0], 11), right(&plan.orders[1], 12)];
        change(&mut record);
        let mut wrong = Wrong::default();
        check_record(0, &record, &meant, &mut wrong);
        wrong
    }

    #[test]
    fn every_way_of_being_wrong_is_found() {
        assert!(judge(|_| {}).is_nothing());
        assert_eq!(judge(|record| record.truncate(1)).unseen, 1);
        assert_eq!(judge(|record| record.push(record[0])).repeated, 1);
        assert_eq!(judge(|record| record[0].digest ^= 1).altered, 1);
        assert_eq!(judge(|record| record[1].code = 6).altered, 1);
        let stray = judge(|record| record.push(Seen { order: 99, ..record[0] }));
        assert_eq!((stray.strays, stray.examples.len()), (1, 1));
        assert!(!stray.is_nothing());
    }
}
