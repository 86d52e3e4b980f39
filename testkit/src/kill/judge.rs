//! Holds what was seen, and what the ledgers show, against the promises.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire_format::frame::outcome::Code;

use super::ledger::{self, Line};
use super::pusher::code_of;
use super::report::Report;
use super::world::{Seen, Standing, What, World, disk_name};
use super::{Disk, Failure};
use crate::history::{Event, Facts, History, Limits, OrderId};

/// The log of durable orders; those of volatile ones follow it, one per run of the server.
const DURABLE: u64 = 1;
/// What may pass between the end of a lifetime and the look at a ledger that did not show the order yet.
const LATE: Duration = Duration::from_secs(2);
/// Orders that can be under way on a device: one per lane and log.
const UNDER_WAY_MAX: u64 = 8;
/// How a start of the server is noted.
const STARTS: &str = "server starts";
/// Problems shown with their history.
const SHOWN: usize = 5;

/// Everything a judgement rests on.
#[derive(Clone, Debug, Default)]
struct Evidence {
    /// Every push has to be taken.
    no_refusals: bool,
    deeds: BTreeMap<u64, Standing>,
    seen: Vec<Seen>,
    /// Of each device.
    ledgers: Vec<Vec<Line>>,
    /// How often each device was killed.
    kills: Vec<u32>,
    /// Ledgers that could not be read.
    unreadable: Vec<String>,
}

/// The case as it is made up.
struct Court {
    evidence: Evidence,
    names: BTreeMap<String, u64>,
    history: History,
    problems: Vec<String>,
    /// Per device: lines of its ledger that are in the history, and its boot.
    told: Vec<(usize, u64)>,
}

/// Ends every process and judges.
pub(super) fn judge(world: World) -> Result<Report, Failure> {
    world.server().kill();
    for device in 0..world.options.devices {
        world.device(device).kill();
    }
    let court = Court::hear(evidence(&world));
    let report = court.report(Report {
        seed: world.options.seed,
        disk: disk_name(world.options.disk),
        took: world.since(),
        kills: world.trap.kills(),
        ..Report::default()
    });
    if court.problems.is_empty() {
        return Ok(report);
    }
    // For whoever looks into it.
    let _ = std::fs::write(world.options.dir.join("history.txt"), court.history.text());
    Err(Failure::Broken { problems: court.problems, report: Box::new(report) })
}

fn evidence(world: &World) -> Evidence {
    let devices = 0..world.options.devices;
    let mut evidence = Evidence {
        no_refusals: world.options.disk != Disk::Full,
        deeds: world.deeds().clone(),
        seen: std::mem::take(&mut *world.seen()),
        kills: devices.clone().map(|at| world.trap.of_device(at)).collect(),
        ..Evidence::default()
    };
    for device in devices {
        let lines = ledger::read(&world.ledger(device)).unwrap_or_else(|why| {
            evidence.unreadable.push(why);
            Vec::new()
        });
        evidence.ledgers.push(lines);
    }
    evidence
}

impl Court {
    /// Hears the whole case.
    fn hear(evidence: Evidence) -> Self {
        let limits = Limits { late: Some(LATE), journal: true, ..Limits::default() };
        let mut court = Self {
            names: ledger::names(evidence.deeds.values().map(|standing| &standing.deed)),
            history: History::new(limits),
            problems: evidence.unreadable.clone(),
            told: vec![(0, 0); evidence.ledgers.len()],
            evidence,
        };
        court.strangers();
        court.accept();
        court.walk();
        court.numbers();
        court.doubt();
        court.missing();
        let violations = court.history.finish();
        court.problems.extend(violations.iter().take(SHOWN).map(|violation| court.history.about(violation)));
        if violations.len() > SHOWN {
            court.problems.push(format!("and {} more promises broken", violations.len() - SHOWN));
        }
        court
    }

    /// A payload arrives as it was pushed.
    fn strangers(&mut self) {
        for (device, lines) in (1..).zip(&self.evidence.ledgers) {
            let strange = lines.iter().filter(|line| !self.names.contains_key(&line.digest));
            self.problems.extend(
                strange.map(|line| format!("device {device} was given a payload nobody pushed: {line:?}")),
            );
        }
    }

    fn lines_of(&self, name: u64) -> impl Iterator<Item = (u8, &Line)> {
        let of = move |line: &&Line| self.names.get(&line.digest) == Some(&name);
        (0..)
            .zip(&self.evidence.ledgers)
            .flat_map(move |(at, lines)| lines.iter().filter(of).map(move |line| (at, line)))
    }

    /// The log of an order and its number there. Of one that was not answered the first ledger that shows it knows.
    fn id(&self, standing: &Standing, seen: Option<u64>) -> Option<OrderId> {
        let (durable, run, number) = match standing.answer {
            Some(answer) => (answer.durable, answer.run, Some(answer.number)),
            None => (!standing.deed.volatile, standing.run, seen),
        };
        let log = if durable { DURABLE } else { DURABLE + u64::from(run) };
        Some(OrderId { log, number: number? })
    }

    /// Writes down every order first: a device may have had it before its push was answered.
    fn accept(&mut self) {
        let mut numbers: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for line in self.evidence.ledgers.iter().flatten() {
            if let Some(name) = self.names.get(&line.digest) {
                numbers.entry(*name).or_default().insert(line.number);
            }
        }
        for standing in self.evidence.deeds.values().filter(|standing| standing.refused.is_none()) {
            let name = standing.deed.name;
            let seen = numbers.remove(&name).unwrap_or_default();
            let Some(order) = self.id(standing, seen.first().copied()) else { continue };
            let facts = facts(standing);
            self.history.record(Duration::ZERO, Event::Accepted { order, facts: Box::new(facts.clone()) });
            let asked = standing.deed.keyed && standing.answer.is_some_and(|answer| answer.durable);
            if !asked && standing.outcomes.len() < standing.deed.targets.len() {
                self.history.record(Duration::ZERO, Event::Unanswered { order });
            }
            // A device that was busy gets it once more, under a number behind the first one's. Its end is told of that one.
            for number in seen.into_iter().filter(|number| *number > order.number) {
                let attempt = OrderId { number, ..order };
                let facts = Box::new(Facts { attempt_of: Some(order), ..facts.clone() });
                self.history.record(Duration::ZERO, Event::Accepted { order: attempt, facts });
                self.history.record(Duration::ZERO, Event::Unanswered { order: attempt });
            }
        }
    }

    fn order_of(&self, name: u64) -> Option<OrderId> {
        let standing = self.evidence.deeds.get(&name)?;
        self.id(standing, self.lines_of(name).next().map(|(_, line)| line.number))
    }

    /// Goes through what was seen, with the lines of the ledgers where they stood.
    fn walk(&mut self) {
        let seen = std::mem::take(&mut self.evidence.seen);
        let mut looked = vec![Duration::ZERO; self.told.len()];
        for seen in &seen {
            let (device, len) = match &seen.what {
                What::Boot { device, len }
                | What::Ledger { device, len }
                | What::Outcome { device, len, .. } => (*device, *len),
                other => {
                    self.other(seen.at, other);
                    continue;
                }
            };
            let at = usize::from(device);
            // They were written after the look before this one.
            self.lines_to(device, len, looked[at]);
            looked[at] = seen.at;
            match seen.what {
                What::Boot { .. } => {
                    self.told[at].1 += 1;
                    let boot = self.told[at].1;
                    self.history.record(seen.at, Event::Boot { device: device.into(), boot });
                }
                What::Outcome { name, code, .. } => {
                    if let Some(order) = self.order_of(name) {
                        self.history.record(seen.at, Event::Outcome { order, device: device.into(), code });
                    }
                }
                _ => {}
            }
        }
        for device in 0..self.told.len() as u8 {
            self.lines_to(device, u64::MAX, looked[usize::from(device)]);
        }
    }

    fn other(&self, at: Duration, what: &What) {
        let event = match what {
            What::Cancel { name } => match self.order_of(*name) {
                Some(order) => Event::Cancel { order },
                None => return,
            },
            What::Server { run } => Event::Note(format!("{STARTS}, run {run}")),
            What::Note(text) => Event::Note(text.clone()),
            _ => return,
        };
        self.history.record(at, event);
    }

    /// Writes down the lines of a ledger up to this length.
    fn lines_to(&mut self, device: u8, len: u64, at: Duration) {
        let place = usize::from(device);
        let (told, boot) = self.told[place];
        let lines = self.evidence.ledgers[place][told..].iter().take_while(|line| line.end <= len);
        let lines: Vec<_> = lines.cloned().collect();
        self.told[place].0 += lines.len();
        for line in lines {
            let Some(name) = self.names.get(&line.digest) else { continue };
            let standing = &self.evidence.deeds[name];
            let Some(order) = self.id(standing, Some(line.number)) else { continue };
            let order = OrderId { number: line.number, ..order };
            let device = u32::from(device);
            let redelivered = line.redelivered;
            self.history.record(at, Event::Effect { order, device, boot, redelivered });
            if let Some(code) = code_of(&line.outcome) {
                self.history.record(at, Event::Answer { order, device, boot, code });
            }
        }
    }

    /// An order has one number, whoever asks; all orders of a log stand in one lineage.
    fn numbers(&mut self) {
        let mut lineages = BTreeSet::new();
        let mut problems = Vec::new();
        for line in self.evidence.ledgers.iter().flatten() {
            let standing = self.names.get(&line.digest).and_then(|name| self.evidence.deeds.get(name));
            if standing.and_then(|standing| standing.answer).is_some_and(|answer| answer.durable) {
                lineages.insert(line.lineage.clone());
            }
        }
        for standing in self.evidence.deeds.values().filter(|standing| !standing.others.is_empty()) {
            let (name, first) = (standing.deed.name, standing.answer.map(|answer| answer.number));
            problems
                .push(format!("the push of {name:x} was answered {first:?}, and then {:?}", standing.others));
        }
        for standing in self.evidence.deeds.values() {
            if let Some(why) = &standing.disowned {
                let (name, first) = (standing.deed.name, standing.answer.map(|answer| answer.number));
                problems
                    .push(format!("the push of {name:x} was answered {first:?}, and then refused: {why}"));
            }
        }
        if lineages.len() > 1 {
            problems.push(format!("the durable log changed its lineage: {lineages:?}"));
        }
        self.problems.extend(problems);
    }

    /// What must not be repeated is in doubt only where its device was killed.
    fn doubt(&mut self) {
        for (device, kills) in (0..).zip(&self.evidence.kills) {
            let kills = u64::from(*kills);
            let told = self.evidence.deeds.values().filter(|standing| {
                standing.answer.is_some_and(|answer| answer.durable)
                    && standing.outcomes.get(&device) == Some(&Code::IN_DOUBT)
            });
            let doubts = told.count() as u64;
            if doubts > kills * UNDER_WAY_MAX {
                let number = device + 1;
                self.problems.push(format!(
                    "device {number}: {doubts} orders in doubt after {kills} kills of {UNDER_WAY_MAX} at most"
                ));
            }
        }
    }

    /// What was accepted as durable and cannot be asked for has to stand in the ledgers.
    fn missing(&mut self) {
        let absent = absent(&self.evidence.deeds, &self.names, &self.evidence.ledgers);
        self.problems.extend(absent.into_iter().map(|(name, device)| {
            let answer = self.evidence.deeds.get(&name).and_then(|standing| standing.answer);
            format!("order {name:x} ({answer:?}) was accepted and never came to device {}", device + 1)
        }));
        if self.evidence.no_refusals {
            let refused = self.evidence.deeds.values().filter_map(|standing| {
                Some(format!("order {:x} was refused: {}", standing.deed.name, standing.refused.as_ref()?))
            });
            self.problems.extend(refused.take(SHOWN));
        }
    }

    /// Fills in what the case tells.
    fn report(&self, mut report: Report) -> Report {
        let servers =
            self.history.count(|event| matches!(event, Event::Note(text) if text.starts_with(STARTS)));
        let boots: u64 = self.told.iter().map(|(_, boot)| boot.saturating_sub(1)).sum();
        report.restarts = [servers.saturating_sub(1) as u64, boots];
        for standing in self.evidence.deeds.values() {
            count(&mut report, standing);
        }
        for line in self.evidence.ledgers.iter().flatten() {
            report.handed_over[0] += 1;
            report.handed_over[1] += u64::from(line.redelivered);
        }
        report
    }
}

/// Durable orders without a key that must have come to a device, whatever happened, and did not: those that may run again,
/// and that nothing but their effect can end.
pub(super) fn absent(
    deeds: &BTreeMap<u64, Standing>,
    names: &BTreeMap<String, u64>,
    ledgers: &[Vec<Line>],
) -> Vec<(u64, u8)> {
    let mut handed: BTreeSet<(u64, u8)> = BTreeSet::new();
    for (device, lines) in (0..).zip(ledgers) {
        handed.extend(lines.iter().filter_map(|line| Some((*names.get(&line.digest)?, device))));
    }
    let mut absent = Vec::new();
    for standing in deeds.values() {
        let deed = &standing.deed;
        let durable = standing.answer.is_some_and(|answer| answer.durable);
        let sure = deed.idempotent && deed.lifetime_ms.is_none() && deed.supersede.is_none() && !deed.cancel;
        if durable && !deed.keyed && sure {
            let of = deed.targets.iter().map(|device| (deed.name, *device));
            absent.extend(of.filter(|of| !standing.outcomes.contains_key(&of.1) && !handed.contains(of)));
        }
    }
    absent
}

fn count(report: &mut Report, standing: &Standing) {
    let deed = &standing.deed;
    if let Some(why) = &standing.refused {
        *report.refused.entry(why.clone()).or_default() += 1;
        return;
    }
    let Some(answer) = standing.answer else {
        report.unanswered += 1;
        return;
    };
    report.orders[usize::from(!answer.durable)] += 1;
    if !answer.durable {
        return;
    }
    report.repeated += u64::from(answer.run != standing.run);
    report.pairs += deed.targets.len() as u64;
    report.untold += (deed.targets.len() - standing.outcomes.len()) as u64;
    for code in standing.outcomes.values() {
        *report.outcomes.entry(code.to_string()).or_default() += 1;
    }
}

fn facts(standing: &Standing) -> Facts {
    let deed = &standing.deed;
    let asked = standing.answer.map_or(standing.pushed, |answer| answer.at);
    Facts {
        lane: deed.lane,
        idempotent: deed.idempotent,
        deadline: deed.lifetime_ms.map(|ms| asked + Duration::from_millis(ms)),
        key: if deed.keyed { deed.name + 1 } else { 0 },
        supersede: deed.supersede,
        attempt_of: None,
        again: false,
        targets: deed.targets.iter().map(|at| u32::from(*at)).collect(),
    }
}

#[cfg(test)]
mod tests;
