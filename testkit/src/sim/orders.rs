//! Orders: what the application pushes, takes back and tries again, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use push::fleet::{NewOrder, SubmitFault};
use push::{DeviceIndex, Mark};
use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::ledger::Wish;
use super::names::Probe;
use super::plan::MS;
use super::server::ORDERS;
use super::world::{Act, World};
use crate::history::{Event, Facts, OrderId};

/// How long after the last fault the application still looks for a server that takes what has a key.
const PUSH_AGAIN: Duration = Duration::from_millis(500);

/// What is counted for an outcome.
const fn probe_of(code: Code) -> Probe {
    match code {
        Code::APPLIED => Probe::Applied,
        Code::DUPLICATE => Probe::Duplicate,
        Code::SUPERSEDED => Probe::Superseded,
        Code::EXPIRED => Probe::Expired,
        Code::CANCELLED => Probe::Cancelled,
        Code::REJECTED_KIND => Probe::RejectedKind,
        Code::REJECTED_PAYLOAD => Probe::RejectedPayload,
        Code::FAILED => Probe::Failed,
        Code::IN_DOUBT => Probe::InDoubt,
        Code::BUSY => Probe::Busy,
        Code::NO_SPACE => Probe::NoSpace,
        Code::FAILED_RETRYABLE => Probe::FailedRetryable,
        Code::OVERFLOW => Probe::Overflow,
        Code::POISON => Probe::Poison,
        Code::TOO_LARGE => Probe::TooLarge,
        Code::FENCED => Probe::Fenced,
        Code::NOT_TARGETED => Probe::NotTargeted,
        _ => Probe::Unknown,
    }
}

impl World {
    pub(super) fn push_planned(&mut self, order: usize) {
        let spec = &self.plan.orders[order];
        let supersede = spec.versioned.map(|key| {
            self.next_version += 1;
            (key, self.next_version)
        });
        let wish = Wish {
            id: spec.id,
            lane: spec.lane,
            idempotent: spec.idempotent,
            until: spec.lifetime.map(|lifetime| self.now + lifetime),
            supersede,
            key: spec.key,
            len: spec.len,
            repeats: None,
        };
        self.push_wish(wish, order);
    }

    /// Pushes at the server that leads. Without one the application gives up, or tries again if the order has a key.
    pub(super) fn push_wish(&mut self, wish: Wish, order: usize) {
        let spec = &self.plan.orders[order];
        let (at, cancel_after) = (self.active, spec.cancel_after);
        let devices = 0..self.devices.len();
        let present =
            |device: &usize| !self.devices[*device].removed && self.servers[at].index[*device].is_some();
        let targets: BTreeSet<_> = devices.filter(|device| spec.is_for(*device)).filter(present).collect();
        let up = self.servers[at].fleet.is_some() && !self.servers[at].draining;
        if targets.is_empty() || !up {
            if wish.key != 0 && !up && !self.calm {
                self.later(PUSH_AGAIN, Act::PushAgain { wish: Box::new(wish), order });
            }
            return;
        }
        if let Ok(number) = self.submit(at, wish, &targets)
            && let Some(after) = cancel_after
        {
            let boot = self.servers[at].boot;
            self.later(after, Act::Cancel { server: at, boot, number });
        }
        self.serve_server(at);
    }

    /// Hands an order to the fleet; its number, if it is taken.
    fn submit(&mut self, at: usize, wish: Wish, targets: &BTreeSet<usize>) -> Result<u64, SubmitFault> {
        let (now, skip) = (self.now, self.rng.below(3));
        let server = &mut self.servers[at];
        let number = server.next_number;
        server.next_number += 1 + skip;
        let lifetime = wish.until.map(|until| until.since(now));
        let mut marks = vec![Mark::NOT_TARGETED.0; server.device_of.len()];
        for DeviceIndex(index) in targets.iter().filter_map(|device| server.index[*device]) {
            marks[index as usize] = Mark::PENDING.0;
        }
        let new = NewOrder {
            number,
            lane: wish.lane,
            kind_flags: wish.kind_flags(),
            lifetime,
            frame: wish.frame(number, lifetime, false),
            first: DeviceIndex(0),
            marks,
        };
        let Some(fleet) = &mut server.fleet else { return Err(SubmitFault::Stopped) };
        if let Err(error) = fleet.submit(now, new) {
            self.check_refusal(at, &wish, error.why);
            return Err(error.why);
        }
        let (order, lineage) = (server.order(number), server.lineage);
        let facts = facts(&wish, lifetime.map(|lifetime| now + lifetime), order.log, targets);
        self.ledger.knows(lineage, order, &wish);
        self.ledger.record(now, Event::Accepted { order, facts: Box::new(facts) });
        self.run.orders += 1;
        self.servers[at].wishes.insert(number, wish);
        // What ended at once is told by its mark alone.
        let fleet = self.servers[at].fleet.as_ref();
        let marks = fleet.and_then(|fleet| fleet.marks(number)).map(|(_, marks)| marks.to_vec());
        for (index, code) in marks.into_iter().flatten().map(|mark| Mark(mark).code()).enumerate() {
            if let Some(code) = code {
                self.ended(at, self.servers[at].device_of[index], number, code);
            }
        }
        Ok(number)
    }

    /// Whether the fleet had a reason to refuse this order.
    fn check_refusal(&mut self, at: usize, wish: &Wish, why: SubmitFault) {
        let server = &self.servers[at];
        let live = server.fleet.as_ref().map_or(0, |fleet| fleet.live_orders() as usize);
        let allowed = match why {
            SubmitFault::Full => live == ORDERS,
            SubmitFault::ShorterLife => wish.supersede.is_some() && wish.until.is_some(),
            SubmitFault::VersionNotRising { .. } => wish.supersede.is_some(),
            SubmitFault::Stopped => server.draining,
            SubmitFault::Lifetime => wish.until.is_some_and(|until| until <= self.now),
            _ => false,
        };
        if !allowed {
            self.ledger.fail(self.now, "RefusedForNothing", None, &[], why);
        }
    }

    /// An order has its outcome on a device.
    pub(super) fn ended(&mut self, at: usize, device: usize, number: u64, code: Code) {
        let order = self.servers[at].order(number);
        self.probe(probe_of(code));
        self.run.outcomes += 1;
        if self.servers[at].taken_back.contains(&number) {
            self.probe(if code == Code::CANCELLED { Probe::CancelWon } else { Probe::CancelLost });
        }
        self.ledger.record(self.now, Event::Outcome { order, device: device as u32, code });
        let server = &mut self.servers[at];
        server.told.push(number);
        if let Some((of, ..)) = server.wishes.get(&number).and_then(|wish| wish.repeats) {
            server.resolved.push((of, device, code));
        }
    }

    /// The fleet hands an order back: every mark is final and is what was told.
    pub(super) fn settled(&mut self, at: usize, number: u64, marks: &[u8]) {
        let order = self.servers[at].order(number);
        self.ledger.record(self.now, Event::Settled { order });
        self.compare_marks(at, order, marks, true);
        let server = &mut self.servers[at];
        server.wishes.remove(&number);
        server.taken_back.retain(|of| *of != number);
    }

    /// Marks of an order and the outcomes told agree.
    pub(super) fn check_marks(&mut self, at: usize, number: u64) {
        let server = &self.servers[at];
        let Some((_, marks)) = server.fleet.as_ref().and_then(|fleet| fleet.marks(number)) else { return };
        let marks = marks.to_vec();
        self.compare_marks(at, server.order(number), &marks, false);
    }

    fn compare_marks(&mut self, at: usize, order: OrderId, marks: &[u8], over: bool) {
        // A device that was taken out and listed again has had several places.
        let mut by_device = BTreeMap::new();
        for (device, mark) in self.servers[at].device_of.iter().zip(marks.iter().copied().map(Mark)) {
            let known = by_device.entry(*device).or_insert(mark);
            *known = if *known == Mark::NOT_TARGETED { mark } else { *known };
        }
        for (device, mark) in by_device {
            let told = self.ledger.outcome(order, device);
            let right = match (self.ledger.is_target(order, device), over || told.is_some()) {
                (false, _) => (mark, told) == (Mark::NOT_TARGETED, None),
                (true, true) => mark.code() == told,
                (true, false) => true,
            };
            if !right {
                let detail = format!("the mark is {mark}, told was {told:?}");
                self.ledger.fail(self.now, "MarkDiffers", Some(device), &[order], detail);
            }
        }
    }

    /// Tells orders how the attempts ended they go by. Whether there were any.
    pub(super) fn resolve_attempts(&mut self, at: usize) -> bool {
        let resolved = core::mem::take(&mut self.servers[at].resolved);
        let (busy, now) = (!resolved.is_empty(), self.now);
        for (number, device, code) in resolved {
            let server = &mut self.servers[at];
            let (Some(fleet), Some(index)) = (&mut server.fleet, server.index[device]) else { continue };
            let taken = fleet.resolve(now, number, index, code);
            let order = server.order(number);
            if !taken && self.ledger.outcome(order, device).is_none() {
                self.ledger.fail(now, "NobodyWaits", Some(device), &[order], "for the end of an attempt");
            }
        }
        busy
    }

    /// A device ended an attempt: the application tries again later, or leaves it at that.
    pub(super) fn attempt_ended(
        &mut self,
        at: usize,
        device: usize,
        number: u64,
        code: Code,
        retry_after: Duration,
    ) {
        self.probe(probe_of(code));
        self.note_of(
            device,
            format_args!("attempt {number} over on device {device}: {code}, again {retry_after:?}"),
        );
        let forever = self.servers[at].wishes.get(&number).is_some_and(|wish| wish.until.is_none());
        if forever || self.chance(80) {
            let (wait, boot) = (retry_after + MS * self.rng.below(500) as u32, self.servers[at].boot);
            self.later(wait, Act::Retry { server: at, boot, number, device });
        }
    }

    pub(super) fn retry(&mut self, at: usize, boot: u64, number: u64, device: usize) {
        let server = &self.servers[at];
        let Some(index) = server.index[device] else { return };
        let marks = server.fleet.as_ref().and_then(|fleet| fleet.marks(number)).map(|(_, marks)| marks);
        let waits = marks.and_then(|marks| Mark(*marks.get(index.0 as usize)?).attempt_code()).is_some();
        if server.boot != boot || !waits {
            return;
        }
        let Some(mut wish) = server.wishes.get(&number).cloned() else { return };
        let (first, times) = wish.repeats.map_or((number, 0), |(_, first, times)| (first, times));
        wish.repeats = Some((number, first, times + 1));
        match self.submit(at, wish, &BTreeSet::from([device])) {
            Ok(attempt) => {
                let server = &mut self.servers[at];
                let begins = server.fleet.as_mut().is_some_and(|fleet| fleet.retry_begins(number, index));
                server.attempts.insert((number, device), attempt);
                self.probe(Probe::Retried);
                if !begins {
                    let order = self.servers[at].order(number);
                    self.ledger.fail(self.now, "NobodyWaits", Some(device), &[order], "for another attempt");
                }
            }
            // Later, if there is room then. Its lifetime may end first.
            Err(SubmitFault::Full) => self.later(MS * 200, Act::Retry { server: at, boot, number, device }),
            Err(_) => {}
        }
        self.serve_server(at);
    }

    /// The application takes an order back, and whatever it goes by.
    pub(super) fn cancel(&mut self, at: usize, boot: u64, number: u64) {
        let now = self.now;
        if self.servers[at].boot != boot || self.servers[at].fleet.is_none() {
            return;
        }
        let mut numbers = vec![number];
        while let Some(number) = numbers.pop() {
            let server = &mut self.servers[at];
            if server.fleet.as_mut().is_some_and(|fleet| fleet.cancel(now, number)) {
                server.taken_back.push(number);
                let order = server.order(number);
                self.ledger.record(now, Event::Cancel { order });
            }
            let attempts = self.servers[at].attempts.iter().filter(|((of, _), _)| *of == number);
            numbers.extend(attempts.map(|(_, attempt)| *attempt));
        }
        self.serve_server(at);
    }
}

fn facts(wish: &Wish, deadline: Option<Instant>, log: u64, targets: &BTreeSet<usize>) -> Facts {
    Facts {
        lane: wish.lane,
        idempotent: wish.idempotent,
        deadline: deadline.map(|deadline| deadline.since(Instant::ZERO)),
        key: wish.key,
        supersede: wish.supersede,
        attempt_of: wish.repeats.map(|(of, ..)| OrderId { log, number: of }),
        targets: targets.iter().map(|at| *at as u32).collect(),
        again: false,
    }
}
