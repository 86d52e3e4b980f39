//! The judge: what is remembered of a history, and what each new line of it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use super::event::{Event, Facts, OrderId};
use super::rule::{Rule, Violation};

/// What a history is held against beside the promises.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// How long after its lifetime an order may still be handed over: what may pass where no clock sees it. `None`: not
    /// looked at.
    pub late: Option<Duration>,
    /// Bytes of memory that may be taken beyond the first sample.
    pub memory: Option<u64>,
    /// Descriptors that may be open beyond those of the first sample.
    pub descriptors: Option<u64>,
    /// Every order has to be handed back as settled at the end, not only to have its outcomes.
    pub settled: bool,
    /// Devices keep a journal: what a device told as ended stays behind it over its boots.
    pub journal: bool,
}

/// A hand-over, and what came of it so far.
#[derive(Clone, Debug)]
struct Run {
    order: OrderId,
    boot: u64,
    answer: Option<Code>,
    /// The device has forgotten its log since.
    forgotten: bool,
}

impl Run {
    /// Whether it may have had its effect: an attempt that is over had none.
    fn counts(&self) -> bool {
        !self.answer.is_some_and(Code::is_attempt_end)
    }
}

/// What one boot of a device remembers as long as it lasts.
#[derive(Clone, Debug, Default)]
struct Boot {
    boot: u64,
    /// Per log and lane: the last order handed over, and the one at work.
    lanes: BTreeMap<(u64, Lane), (u64, Option<OrderId>)>,
    /// Per supersede key: the versions begun, by order.
    versions: BTreeMap<u64, BTreeMap<OrderId, u64>>,
    /// Per order key: the orders begun.
    keys: BTreeMap<u64, BTreeSet<OrderId>>,
    /// Per log: the fence its server said when the session opened; and the highest that was said, or that orders came under.
    heard: BTreeMap<u64, u64>,
    fence: u64,
}

/// Sees a history line by line.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    limits: Limits,
    orders: BTreeMap<OrderId, Facts>,
    fences: BTreeMap<u64, u64>,
    gone: BTreeSet<u64>,
    cancelled: BTreeSet<OrderId>,
    /// Devices that were taken out of the list, now or earlier.
    removed: BTreeSet<u32>,
    /// By device and first attempt.
    runs: BTreeMap<(u32, OrderId), Vec<Run>>,
    outcomes: BTreeMap<(OrderId, u32), Code>,
    /// By device, log and lane: the last order whose outcome was told as its handler had answered it.
    ended: BTreeMap<(u32, u64, Lane), u64>,
    /// Orders nobody is owed an outcome of.
    unanswered: BTreeSet<OrderId>,
    settled: BTreeSet<OrderId>,
    boots: BTreeMap<u32, Boot>,
    /// By device and order key: the orders that were begun, from any log and in any boot.
    keyed: BTreeMap<(u32, u64), BTreeSet<OrderId>>,
    first: Option<(u64, u64)>,
}

type Verdict = Result<(), Broken>;

/// What is wrong, before it is said of whom.
struct Broken {
    rule: Rule,
    detail: String,
    /// The other order it has to do with.
    other: Option<OrderId>,
}

impl Broken {
    fn because(rule: Rule, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into(), other: None }
    }

    fn by(rule: Rule, other: OrderId) -> Self {
        Self { rule, detail: format!("order {other}"), other: Some(other) }
    }
}

const fn broken(rule: Rule) -> Verdict {
    Err(Broken { rule, detail: String::new(), other: None })
}

impl Checker {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Sees the next line. At most one violation is told for each.
    pub fn see(&mut self, at: Duration, event: &Event) -> Option<Violation> {
        let verdict = match event {
            Event::Log { log, fence } => {
                self.fences.insert(*log, *fence);
                Ok(())
            }
            Event::Gone { log } => {
                self.gone.insert(*log);
                Ok(())
            }
            Event::Accepted { order, facts } => self.accepted(*order, facts),
            Event::Refused { order } => self.orders.remove(order).map_or(broken(Rule::Unknown), |_| Ok(())),
            Event::Unanswered { order } => {
                self.unanswered.insert(*order);
                Ok(())
            }
            Event::Boot { device, boot } => {
                self.boots.insert(*device, Boot { boot: *boot, ..Boot::default() });
                Ok(())
            }
            Event::Effect { order, device, boot, redelivered } => {
                self.effect(at, *order, *device, *boot, *redelivered)
            }
            Event::Answer { order, device, boot, code } => self.answer(*order, *device, *boot, *code),
            Event::Outcome { order, device, code } => self.outcome(*order, *device, *code),
            Event::Settled { order } => self.settle(*order),
            Event::Sample { memory, descriptors } => self.sample(*memory, *descriptors),
            Event::Cancel { order } => {
                self.cancelled.insert(*order);
                Ok(())
            }
            Event::Removed { device } => {
                self.removed.insert(*device);
                Ok(())
            }
            Event::Forgot { device, log } => {
                self.forget(*device, *log);
                Ok(())
            }
            Event::Heard { device, boot, log, fence } => {
                let it = self.boot(*device, *boot);
                it.heard.insert(*log, *fence);
                it.fence = it.fence.max(*fence);
                Ok(())
            }
            Event::Note(_) => Ok(()),
        };
        let Broken { rule, detail, other } = verdict.err()?;
        let order = event.order();
        let first = order.and_then(|order| self.orders.get(&order)?.attempt_of);
        let orders = order.into_iter().chain(first).chain(other).collect();
        Some(Violation { at, rule, orders, device: event.device(), detail })
    }

    /// What is missing if nothing more happens.
    #[must_use]
    pub fn missing(&self, at: Duration) -> Vec<Violation> {
        let mut all = Vec::new();
        let owed = |order: &OrderId| !self.gone.contains(&order.log) && !self.unanswered.contains(order);
        for (order, facts) in self.orders.iter().filter(|(order, _)| owed(order)) {
            let mut tell = |rule, device| {
                let orders = [*order].into_iter().chain(facts.attempt_of).collect();
                all.push(Violation { at, rule, orders, device, detail: String::new() });
            };
            for device in facts.targets.iter().filter(|at| !self.outcomes.contains_key(&(*order, **at))) {
                tell(Rule::NoOutcome, Some(*device));
            }
            if self.limits.settled && !self.settled.contains(order) {
                tell(Rule::NotSettled, None);
            }
        }
        all
    }

    /// The outcome told of an order on a device, if one was.
    #[must_use]
    pub fn outcome_of(&self, order: OrderId, device: u32) -> Option<Code> {
        self.outcomes.get(&(order, device)).copied()
    }

    /// The devices an order was accepted for.
    pub fn targets_of(&self, order: OrderId) -> impl Iterator<Item = u32> {
        self.orders.get(&order).into_iter().flat_map(|facts| facts.targets.iter().copied())
    }

    fn accepted(&mut self, order: OrderId, facts: &Facts) -> Verdict {
        match self.orders.insert(order, facts.clone()) {
            Some(_) => broken(Rule::AcceptedTwice),
            None => Ok(()),
        }
    }

    /// The first attempt: effects are counted there, whichever attempt had them.
    fn root(&self, order: OrderId) -> OrderId {
        let mut root = order;
        // Bounded by the orders there are, should a test make a ring of them.
        for _ in 0..self.orders.len() {
            match self.orders.get(&root).and_then(|facts| facts.attempt_of) {
                Some(first) => root = first,
                None => break,
            }
        }
        root
    }

    fn effect(&mut self, at: Duration, order: OrderId, device: u32, boot: u64, again: bool) -> Verdict {
        let facts = self.orders.get(&order).ok_or_else(|| Broken::because(Rule::Unknown, ""))?;
        let verdict = self.may_begin(at, order, facts, device, boot, again);
        let Facts { lane, supersede, key, .. } = *facts;
        let root = self.root(order);
        self.runs.entry((device, root)).or_default().push(Run {
            order,
            boot,
            answer: None,
            forgotten: false,
        });
        let held = self.fences.get(&order.log).copied();
        let it = self.boot(device, boot);
        let last = it.lanes.entry((order.log, lane)).or_default();
        *last = (last.0.max(order.number), Some(order));
        if let Some((key, version)) = supersede {
            it.versions.entry(key).or_default().insert(order, version);
        }
        it.fence = it.heard.get(&order.log).copied().or(held).map_or(it.fence, |fence| it.fence.max(fence));
        if key != 0 {
            it.keys.entry(key).or_default().insert(order);
            self.keyed.entry((device, key)).or_default().insert(order);
        }
        verdict
    }

    /// A device does not know any more what it was given of a log. What must not run twice does not all the same.
    fn forget(&mut self, device: u32, log: u64) {
        let first = OrderId { log, number: 0 };
        let last = OrderId { log, number: u64::MAX };
        let runs = self.runs.range_mut((device, first)..=(device, last));
        runs.flat_map(|(_, runs)| runs).for_each(|run| run.forgotten = true);
        if let Some(it) = self.boots.get_mut(&device) {
            it.lanes.retain(|(of, _), _| *of != log);
        }
    }

    /// This boot of a device; one that was not told of begins here.
    fn boot(&mut self, device: u32, boot: u64) -> &mut Boot {
        let it = self.boots.entry(device).or_default();
        if it.boot != boot {
            *it = Boot { boot, ..Boot::default() };
        }
        it
    }

    fn may_begin(
        &self,
        at: Duration,
        order: OrderId,
        facts: &Facts,
        device: u32,
        boot: u64,
        again: bool,
    ) -> Verdict {
        if !facts.targets.contains(&device) {
            return broken(Rule::NotTargeted);
        }
        if let Some(code) = self.outcomes.get(&(order, device)).filter(|code| **code != Code::UNKNOWN) {
            return Err(Broken::because(Rule::AfterItsEnd, code.to_string()));
        }
        let root = self.root(order);
        let before = self.runs.get(&(device, root)).into_iter().flatten();
        let mut tried = false;
        for run in before.filter(|run| run.counts() || run.order == order) {
            if facts.again && !run.counts() {
                tried |= run.boot == boot;
                continue;
            }
            if run.boot == boot && !run.forgotten {
                return broken(Rule::TwiceInOneBoot);
            }
            if !facts.idempotent && run.counts() {
                return broken(Rule::SecondEffect);
            }
            if !again && run.order == order {
                return broken(Rule::Unflagged);
            }
        }
        self.may_come_again(order, facts, device)?;
        if let (Some(deadline), Some(late)) = (facts.deadline, self.limits.late)
            && at > deadline + late
        {
            return Err(Broken::because(Rule::Late, format!("{:?} late", at - deadline)));
        }
        match self.boots.get(&device).filter(|it| it.boot == boot) {
            Some(it) => self.may_follow(it, order, facts, tried),
            None => Ok(()),
        }
    }

    /// What earlier boots told as ended stays behind a device with a journal. An attempt that is over may come again.
    fn may_come_again(&self, order: OrderId, facts: &Facts, device: u32) -> Verdict {
        let ended = self
            .ended
            .get(&(device, order.log, facts.lane))
            .filter(|ended| self.limits.journal && **ended > order.number);
        let Some(ended) = ended else { return Ok(()) };
        let runs = self.runs.get(&(device, self.root(order)));
        if facts.again && runs.is_some_and(|runs| runs.iter().any(|run| !run.counts())) {
            return Ok(());
        }
        Err(Broken::because(Rule::OutOfOrder, format!("{ended} had ended")))
    }

    /// What this boot did before.
    fn may_follow(&self, it: &Boot, order: OrderId, facts: &Facts, tried: bool) -> Verdict {
        if let Some((last, at_work)) = it.lanes.get(&(order.log, facts.lane)) {
            if *last >= order.number && !tried {
                return Err(Broken::because(Rule::OutOfOrder, format!("after {last}")));
            }
            if let Some(other) = at_work {
                return Err(Broken::by(Rule::Overlap, *other));
            }
        }
        if let Some((key, version)) = facts.supersede
            && let Some((other, _)) =
                it.versions.get(&key).into_iter().flatten().find(|(_, newest)| **newest >= version)
        {
            return Err(Broken::by(Rule::OlderVersion, *other));
        }
        let other = it.keys.get(&facts.key).into_iter().flatten().find(|other| other.log != order.log);
        if let Some(other) = other.filter(|_| !facts.idempotent) {
            return Err(Broken::by(Rule::SameKey, *other));
        }
        match it.heard.get(&order.log).or_else(|| self.fences.get(&order.log)) {
            Some(fence) if *fence < it.fence => {
                Err(Broken::because(Rule::LowerFence, format!("{fence} after {}", it.fence)))
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, order: OrderId, device: u32, boot: u64, code: Code) -> Verdict {
        let root = self.root(order);
        let runs = self.runs.get_mut(&(device, root)).into_iter().flatten();
        let run = runs.rev().find(|run| run.order == order && run.boot == boot && run.answer.is_none());
        run.ok_or_else(|| Broken::because(Rule::AnswerToNothing, ""))?.answer = Some(code);
        for (_, at_work) in self.boot(device, boot).lanes.values_mut() {
            *at_work = at_work.filter(|at_work| *at_work != order);
        }
        // What was rejected had no effect: its key may be tried by another log.
        let nothing = matches!(code, Code::REJECTED_KIND | Code::REJECTED_PAYLOAD);
        if code.is_attempt_end() || nothing {
            let keys = &mut self.boot(device, boot).keys;
            keys.values_mut().for_each(|orders| orders.retain(|of| *of != order));
        }
        if code.is_attempt_end() {
            let it = self.boot(device, boot);
            it.versions.values_mut().for_each(|versions| versions.retain(|of, _| *of != order));
        }
        Ok(())
    }

    fn outcome(&mut self, order: OrderId, device: u32, code: Code) -> Verdict {
        let facts = self.orders.get(&order).ok_or_else(|| Broken::because(Rule::Unknown, ""))?;
        if !facts.targets.contains(&device) {
            return broken(Rule::NotTargeted);
        }
        let verdict = self.may_end(order, facts, device, code).map_err(|rule| {
            // One with its key may have had to do with it.
            let other = self.begun_by_key(order, facts, device).last().map(|run| run.order);
            Broken { rule, detail: code.to_string(), other }
        });
        let lane = facts.lane;
        let runs = self.runs.get(&(device, self.root(order))).into_iter().flatten();
        if runs.filter(|run| run.order == order).any(|run| run.answer == Some(code)) {
            let ended = self.ended.entry((device, order.log, lane)).or_default();
            *ended = order.number.max(*ended);
        }
        if let Some(first) = self.outcomes.insert((order, device), code) {
            return Err(Broken::because(Rule::SecondOutcome, format!("{first}, then {code}")));
        }
        verdict
    }

    fn may_end(&self, order: OrderId, facts: &Facts, device: u32, code: Code) -> Result<(), Rule> {
        let root = self.root(order);
        let runs = self.runs.get(&(device, root)).map_or(&[][..], Vec::as_slice);
        match code {
            Code::APPLIED | Code::FAILED | Code::REJECTED_KIND | Code::REJECTED_PAYLOAD => {
                let answered = runs.iter().any(|run| run.answer == Some(code));
                match (answered, runs) {
                    _ if answered || self.is_end_by_key(order, facts, device, code, runs) => Ok(()),
                    // The core rejects some payloads itself, without asking the handler.
                    (false, []) if code == Code::REJECTED_PAYLOAD => Ok(()),
                    (false, []) => Err(Rule::NoEffect),
                    _ => Err(Rule::OtherAnswer),
                }
            }
            Code::EXPIRED
            | Code::CANCELLED
            | Code::SUPERSEDED
            | Code::TOO_LARGE
            | Code::OVERFLOW
            | Code::FENCED
            | Code::NOT_TARGETED
            | Code::BUSY
            | Code::NO_SPACE
            | Code::FAILED_RETRYABLE => {
                if code == Code::NOT_TARGETED && !self.removed.contains(&device) {
                    return Err(Rule::WrongCode);
                }
                // A device that forgot the log knows the version, and no order that it came with.
                let by_itself = || facts.supersede.is_some() && runs.iter().any(|run| run.forgotten);
                if code == Code::SUPERSEDED && !self.is_superseded(order, facts, device) && !by_itself() {
                    return Err(Rule::WrongCode);
                }
                let now = self.boots.get(&device).map(|it| it.boot);
                // What may run again may have run in a boot of which nobody heard, or before the device forgot its log.
                let known = |run: &Run| Some(run.boot) == now && !run.forgotten;
                let ran = |run: &Run| run.counts() && (!facts.idempotent || known(run));
                if runs.iter().any(ran) { Err(Rule::EffectDespite) } else { Ok(()) }
            }
            // What may run again is asked about again, unless the application took it back meanwhile.
            // Of one with its key from another log it may be all that is known.
            Code::IN_DOUBT
                if facts.idempotent
                    && !self.shares_its_key(order, facts, device)
                    && !self.cancelled.contains(&order) =>
            {
                Err(Rule::WrongCode)
            }
            Code::DUPLICATE
                if runs.is_empty() && self.begun_by_key(order, facts, device).next().is_none() =>
            {
                Err(Rule::NoEffect)
            }
            Code::IN_DOUBT | Code::DUPLICATE | Code::POISON | Code::UNKNOWN => Ok(()),
            _ => Err(Rule::WrongCode),
        }
    }

    /// Whether an order may have ended as one of another log with its key was answered. What only began, or tried, has no
    /// end of its own; what ended in an earlier boot may have been forgotten, and asked about again.
    fn is_end_by_key(&self, order: OrderId, facts: &Facts, device: u32, code: Code, runs: &[Run]) -> bool {
        let now = self.boots.get(&device).map(|it| it.boot);
        let ended = |run: &Run| run.answer.is_some_and(|code| !code.is_attempt_end());
        let forgotten = |run: &Run| facts.idempotent && (Some(run.boot) != now || run.forgotten);
        runs.iter().filter(|run| ended(run)).all(forgotten)
            && self.begun_by_key(order, facts, device).any(|run| run.answer == Some(code))
    }

    /// What orders with its key did on this device that are of other logs, or of its own before that was forgotten: within a
    /// log a key means nothing.
    fn begun_by_key(&self, order: OrderId, facts: &Facts, device: u32) -> impl Iterator<Item = &Run> {
        let keyed = self.keyed.get(&(device, facts.key)).into_iter().flatten();
        keyed.flat_map(move |other| {
            let runs = self.runs.get(&(device, self.root(*other))).into_iter().flatten();
            runs.filter(move |run| run.order == *other && (other.log != order.log || run.forgotten))
        })
    }

    /// Whether there is an order of another log with its key for this device: that may have begun and left a doubt.
    fn shares_its_key(&self, order: OrderId, facts: &Facts, device: u32) -> bool {
        let begun = self.begun_by_key(order, facts, device).any(|run| run.order != order);
        begun
            || facts.key != 0
                && self.orders.iter().any(|(other, its)| {
                    its.key == facts.key && other.log != order.log && its.targets.contains(&device)
                })
    }

    /// Whether there is an order for this device that supersedes this one.
    fn is_superseded(&self, order: OrderId, facts: &Facts, device: u32) -> bool {
        let Some((key, version)) = facts.supersede else { return false };
        let root = self.root(order);
        self.orders.iter().any(|(other, its)| {
            its.supersede.is_some_and(|(of, newer)| of == key && newer >= version)
                && its.targets.contains(&device)
                && *other != order
                && self.root(*other) != root
        })
    }

    fn settle(&mut self, order: OrderId) -> Verdict {
        let facts = self.orders.get(&order).ok_or_else(|| Broken::because(Rule::Unknown, ""))?;
        let open = facts.targets.iter().find(|device| !self.outcomes.contains_key(&(order, **device)));
        if let Some(device) = open {
            return Err(Broken::because(Rule::SettledEarly, format!("device {device}")));
        }
        if self.settled.insert(order) { Ok(()) } else { broken(Rule::SettledTwice) }
    }

    fn sample(&mut self, memory: u64, descriptors: u64) -> Verdict {
        let (first_memory, first_descriptors) = *self.first.get_or_insert((memory, descriptors));
        let over = |now: u64, first: u64, limit: Option<u64>| {
            let more = now.saturating_sub(first);
            limit.filter(|limit| more > *limit).map(|limit| format!("{more} more, limit {limit}"))
        };
        if let Some(detail) = over(memory, first_memory, self.limits.memory) {
            return Err(Broken::because(Rule::Memory, detail));
        }
        match over(descriptors, first_descriptors, self.limits.descriptors) {
            Some(detail) => Err(Broken::because(Rule::Descriptors, detail)),
            None => Ok(()),
        }
    }
}
