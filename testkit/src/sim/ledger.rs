//! What was asked for and what became of it: every line goes to the judge of [`crate::history`], and is kept when somebody
//! will read it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Display, Write};
use std::time::Duration;

use wire_format::frame::order::{KindFlags, Order, OrderOption, options};
use wire_format::ids::{Lane, Lineage};
use wire_format::rng::mix;
use wire_format::time::Instant;

use super::pieces::{blob_of, digest};
use crate::history::{Checker, Event, Limits, OrderId, Rule, Violation};
use crate::script::{Draft, kind_flags};

/// Lines of a history that are shown at most, at its beginning and at its end.
const SHOWN: usize = 300;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which, in a few words: the same for the same bug.
    pub rule: String,
    /// When, since the run began.
    pub at: Duration,
    /// The numbers of it.
    pub detail: String,
    /// What happened to whom it is about; empty unless the run was told to keep it.
    pub history: String,
    pub(super) orders: Vec<OrderId>,
    pub(super) device: Option<u32>,
}

impl Failure {
    /// One that is about no order and no device.
    pub(super) fn of_nobody(rule: &str, detail: String) -> Self {
        Self {
            rule: rule.to_owned(),
            at: Duration::ZERO,
            detail,
            history: String::new(),
            orders: Vec::new(),
            device: None,
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}: {}: {}\n{}", self.at.as_secs_f64(), self.rule, self.detail, self.history)
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        let detail = violation.to_string();
        let Violation { at, rule, orders, device, .. } = violation;
        Self { rule: format!("{rule:?}"), at, detail, history: String::new(), orders, device }
    }
}

/// What the application wants.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Name of the order in the plan.
    pub(super) id: u32,
    pub(super) lane: Lane,
    pub(super) idempotent: bool,
    pub(super) until: Option<Instant>,
    pub(super) supersede: Option<(u64, u64)>,
    pub(super) key: u64,
    pub(super) len: usize,
    /// The payload that it shares with others, if it comes in pieces.
    pub(super) large: Option<u64>,
    /// It stands in the durable log.
    pub(super) durable: bool,
    /// The first order, and which repetition of it this is.
    pub(super) repeats: Option<(u64, u16)>,
}

impl Wish {
    pub(super) const fn kind_flags(&self) -> KindFlags {
        kind_flags(self.idempotent)
    }

    /// The bytes every device has to see: the order's name, and what follows from it.
    pub(super) fn payload(&self) -> Vec<u8> {
        let mut at = self.large.unwrap_or(u64::from(self.id));
        let mut bytes = at.to_le_bytes().to_vec();
        while bytes.len() < self.len {
            at = mix(at);
            bytes.extend(at.to_le_bytes());
        }
        bytes.truncate(self.len.max(8));
        bytes
    }

    pub(super) fn frame(&self, number: u64, lifetime: Option<Duration>, durable: bool) -> Vec<u8> {
        let payload = self.payload();
        let draft = Draft {
            lane: self.lane,
            idempotent: self.idempotent,
            durable,
            key: self.key,
            supersede: self.supersede,
            repeats: self.repeats,
            payload: &payload,
            in_pieces: self.large.map(|large| (blob_of(large, self.len), digest(&payload))),
        };
        draft.frame(number, lifetime)
    }

    /// Whether an order names the pieces of its payload, and nothing but them.
    fn is_named_by(&self, order: &Order<'_>) -> bool {
        let named = options(order.options).map_while(Result::ok).find_map(|option| match option {
            OrderOption::Parts { blob, size, .. } => Some((blob, size as usize)),
            OrderOption::Retry { .. } => None,
        });
        let ours = self.large.map(|large| (blob_of(large, self.len), self.len.max(8)));
        order.payload.is_empty() && named == ours
    }

    /// What differs between the order handed over and the one asked for.
    pub(super) fn differs(&self, order: &Order<'_>) -> Option<&'static str> {
        let checks = [
            (
                if self.large.is_some() { self.is_named_by(order) } else { order.payload == self.payload() },
                "payload",
            ),
            (order.order_key == self.key, "key"),
            ((order.supersede_key, order.supersede_version) == self.supersede.unwrap_or_default(), "version"),
            (order.lane == self.lane, "lane"),
            (order.kind_flags.contains(KindFlags::IDEMPOTENT) == self.idempotent, "kind flags"),
        ];
        checks.iter().find(|(right, _)| !right).map(|(_, what)| *what)
    }
}

#[derive(Debug)]
enum Line {
    Event(Event),
    Note(Option<usize>, String),
}

/// An order as it was pushed.
type Pushed = (OrderId, Wish);

/// Everything that was asked for, and the judge.
#[derive(Debug)]
pub(super) struct Ledger {
    checker: Checker,
    lines: Option<Vec<(Duration, Line)>>,
    pub(super) failure: Option<Failure>,
    logs: u64,
    /// By lineage and number: more than one if a log was continued twice from the same place.
    orders: HashMap<(Lineage, u64), Vec<Pushed>>,
    /// Keys and versions.
    pushed: HashMap<OrderId, (u64, Option<(u64, u64)>)>,
    /// Orders of which nothing is promised any more, and logs of nothing but such.
    excused: BTreeSet<OrderId>,
    excused_logs: BTreeSet<u64>,
}

/// What holds even of orders of which nothing else is promised.
const ALWAYS: [&str; 2] = ["BelowItsFloor", "HandedOverInAFork"];

impl Ledger {
    pub(super) fn new(limits: Limits, tell: bool) -> Self {
        Self {
            checker: Checker::new(limits),
            lines: tell.then(Vec::new),
            failure: None,
            logs: 0,
            orders: HashMap::new(),
            pushed: HashMap::new(),
            excused: BTreeSet::new(),
            excused_logs: BTreeSet::new(),
        }
    }

    /// From here on nothing is promised of this order.
    pub(super) fn excuse(&mut self, order: OrderId) {
        self.excused.insert(order);
    }

    /// The same of every order of a log.
    pub(super) fn excuse_log(&mut self, log: u64) {
        self.excused_logs.insert(log);
    }

    pub(super) fn is_excused(&self, order: OrderId) -> bool {
        self.excused_logs.contains(&order.log) || self.excused.contains(&order)
    }

    /// A name for one more log, or for one more continuation of one.
    pub(super) const fn next_log(&mut self) -> u64 {
        self.logs += 1;
        self.logs
    }

    pub(super) fn record(&mut self, now: Instant, event: Event) {
        let at = now.since(Instant::ZERO);
        let violation = self.checker.see(at, &event);
        let violation =
            violation.filter(|it| !it.orders.first().is_some_and(|order| self.is_excused(*order)));
        if let (Some(violation), None) = (violation, &self.failure) {
            self.failure = Some(violation.into());
        }
        if let Some(lines) = &mut self.lines {
            lines.push((at, Line::Event(event)));
        }
    }

    /// Something a reader should know; of a device, or of everybody.
    pub(super) fn note(&mut self, now: Instant, device: Option<usize>, what: impl Display) {
        if let Some(lines) = &mut self.lines {
            lines.push((now.since(Instant::ZERO), Line::Note(device, what.to_string())));
        }
    }

    /// A promise that the judge cannot see broken.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        rule: &str,
        device: Option<usize>,
        orders: &[OrderId],
        detail: impl Display,
    ) {
        if orders.first().is_some_and(|order| self.is_excused(*order)) && !ALWAYS.contains(&rule) {
            return;
        }
        self.failure.get_or_insert_with(|| Failure {
            rule: rule.to_owned(),
            at: now.since(Instant::ZERO),
            detail: detail.to_string(),
            history: String::new(),
            orders: orders.to_vec(),
            device: device.map(|at| at as u32),
        });
    }

    /// Remembers what an order of this number in this log is.
    pub(super) fn knows(&mut self, lineage: Lineage, order: OrderId, wish: &Wish) {
        self.orders.entry((lineage, order.number)).or_default().push((order, wish.clone()));
        self.pushed.insert(order, (wish.key, wish.supersede));
    }

    /// The order a device was handed, if it is one that was pushed, as it was pushed. `pieces` is its payload, if that came so.
    pub(super) fn recognize(
        &self,
        lineage: Lineage,
        order: &Order<'_>,
        pieces: Option<&[u8]>,
    ) -> Result<OrderId, String> {
        let known = self.orders.get(&(lineage, order.number)).ok_or("nobody pushed it")?;
        // The newest continuation of a log comes last.
        let found = known.iter().rev().find(|(_, wish)| wish.differs(order).is_none());
        let whole =
            |wish: &Wish| wish.large.is_none() || pieces.is_some_and(|pieces| pieces == wish.payload());
        if found.is_some_and(|(_, wish)| !whole(wish)) {
            return Err("its pieces are not what was pushed".to_owned());
        }
        found.map(|(id, _)| *id).ok_or_else(|| {
            let what = known.last().and_then(|(_, wish)| wish.differs(order)).unwrap_or("nothing");
            format!("its {what} is not what was pushed")
        })
    }

    /// The key of an order that was pushed, and of what it is which version.
    pub(super) fn keys_of(&self, order: OrderId) -> Option<(u64, Option<(u64, u64)>)> {
        self.pushed.get(&order).copied()
    }

    pub(super) fn outcome(&self, order: OrderId, device: usize) -> Option<wire_format::frame::outcome::Code> {
        self.checker.outcome_of(order, device as u32)
    }

    pub(super) fn targets(&self, order: OrderId) -> impl Iterator<Item = usize> {
        self.checker.targets_of(order).map(|device| device as usize)
    }

    /// Nothing more happens: what is missing is a broken promise as well.
    pub(super) fn finish(&mut self, now: Instant) {
        let missing = self.checker.missing(now.since(Instant::ZERO)).into_iter();
        let mut missing =
            missing.filter(|it| !it.orders.first().is_some_and(|order| self.is_excused(*order)));
        if let (Some(first), None) = (missing.next(), &self.failure) {
            self.failure = Some(first.into());
        }
    }

    /// The failure with what happened to whom it is about.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        let mut failure = self.failure.take()?;
        let violation = Violation {
            at: failure.at,
            rule: Rule::Unknown,
            orders: failure.orders.clone(),
            device: failure.device,
            detail: String::new(),
        };
        let concerns = |line: &Line| match line {
            Line::Event(_) if failure.orders.is_empty() && failure.device.is_none() => true,
            Line::Event(event) => event.concerns(&violation),
            Line::Note(device, _) => {
                device.is_none_or(|at| failure.device.is_none_or(|its| its == at as u32))
            }
        };
        let lines: Vec<_> = self.lines.iter().flatten().filter(|(_, line)| concerns(line)).collect();
        for (place, (at, line)) in lines.iter().enumerate() {
            if place == SHOWN && lines.len() > 2 * SHOWN {
                let _ = writeln!(failure.history, "         … {} lines …", lines.len() - 2 * SHOWN);
            }
            if place >= SHOWN && place + SHOWN < lines.len() {
                continue;
            }
            let at = at.as_secs_f64();
            let _ = match line {
                Line::Event(event) => writeln!(failure.history, "{at:>12.6} {event}"),
                Line::Note(_, what) => writeln!(failure.history, "{at:>12.6} {what}"),
            };
        }
        Some(failure)
    }
}
