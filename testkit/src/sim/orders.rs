//! Orders: what the application pushes, and what becomes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use push::fleet::{NewOrder, SubmitFault};
use push::{DeviceIndex, Mark};
use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::durable::{Job, Waiting};
use super::ledger::Wish;
use super::names::Probe;
use super::plan::MS;
use super::server::ORDERS;
use super::world::{Act, World};
use crate::history::{Event, Facts, OrderId};

/// How often the application looks for a server that takes what has a key.
const PUSH_AGAIN: Duration = Duration::from_millis(500);
/// A commit that took longer leaves less of an order's lifetime than its header says.
const FRESH: Duration = Duration::from_millis(100);

/// What is counted for an outcome.
pub(super) const fn probe_of(code: Code) -> Probe {
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
            large: spec.large,
            durable: spec.durable,
            repeats: None,
        };
        self.push_wish(wish, order);
    }

    /// Pushes at the server that leads. Without one the application gives up, or tries again if the order has a key.
    pub(super) fn push_wish(&mut self, wish: Wish, order: usize) {
        let spec = &self.plan.orders[order];
        let (at, cancel_after) = (self.active, spec.cancel_after);
        let server = &self.servers[at];
        let present = |device: &usize| !self.devices[*device].removed && server.index[*device].is_some();
        let targets: BTreeSet<_> =
            (0..self.devices.len()).filter(|device| spec.is_for(*device)).filter(present).collect();
        let places = targets.iter().filter_map(|device| server.index[*device]).collect();
        let up = server.fleet.is_some() && !server.draining;
        if targets.is_empty() || !up || wish.until.is_some_and(|until| until <= self.now) {
            if wish.key != 0 && !up && !self.calm {
                self.later(PUSH_AGAIN, Act::PushAgain { wish: Box::new(wish), order });
            }
            return;
        }
        if wish.durable {
            if self.has_room(at) {
                self.servers[at].durable.put(Job::Order(Waiting { wish, targets, places, cancel_after }));
            }
        } else if let Ok(number) = self.submit(at, Waiting { wish, targets, places, cancel_after }) {
            self.cancel_later(at, number, cancel_after);
        }
        self.serve_server(at);
    }

    fn cancel_later(&mut self, at: usize, number: u64, after: Option<Duration>) {
        if let Some(after) = after {
            let boot = self.servers[at].boot;
            self.later(after, Act::Cancel { server: at, boot, number });
        }
    }

    /// Whether the fleet has a place for one more durable order: a quarter is left to volatile ones.
    pub(super) fn has_room(&self, at: usize) -> bool {
        self.taken(at) < ORDERS / 4 * 3
    }

    /// Places in the fleet that are taken, or will be: what waits for the disk was promised one.
    fn taken(&self, at: usize) -> usize {
        let server = &self.servers[at];
        let live = server.fleet.as_ref().map_or(0, |fleet| fleet.live_orders() as usize);
        live + server.durable.waits()
    }

    /// Hands a volatile order to the fleet; its number, if it is taken.
    pub(super) fn submit(&mut self, at: usize, waiting: Waiting) -> Result<u64, SubmitFault> {
        let Waiting { wish, targets, places, .. } = waiting;
        let (now, skip) = (self.now, self.rng.below(3));
        if self.taken(at) >= ORDERS {
            return Err(SubmitFault::Full);
        }
        let server = &mut self.servers[at];
        let number = server.next_number;
        server.next_number += 1 + skip;
        let lifetime = wish.until.map(|until| until.since(now));
        let new = new_order(number, &wish, lifetime, server.marks(&places));
        let Some(fleet) = &mut server.fleet else { return Err(SubmitFault::Stopped) };
        if let Err(error) = fleet.submit(now, new) {
            self.check_refusal(at, &wish, error.why);
            return Err(error.why);
        }
        let (order, lineage) = (OrderId { log: server.log, number }, server.lineage);
        let facts = facts(&wish, lifetime.map(|lifetime| now + lifetime), order.log, &targets);
        self.ledger.knows(lineage, order, &wish);
        self.ledger.record(now, Event::Accepted { order, facts: Box::new(facts) });
        self.run.orders += 1;
        self.servers[at].wishes.insert(number, wish);
        // What ended at once is told by its mark alone.
        let fleet = self.servers[at].fleet.as_ref();
        let marks = fleet.and_then(|fleet| fleet.marks(number)).map(|(_, marks)| marks.to_vec());
        for (index, mark) in (0..).zip(marks.into_iter().flatten()) {
            if let Some(code) = Mark(mark).code() {
                self.ended(at, DeviceIndex(index), number, code);
            }
        }
        Ok(number)
    }

    /// A durable order is on disk: its push returns, and the fleet gets it. `since` is when its lifetime began.
    pub(super) fn accept_durable(&mut self, at: usize, number: u64, waiting: Waiting, since: Instant) {
        let now = self.now;
        let Waiting { wish, targets, places, cancel_after } = waiting;
        let id = self.remember(at, number, &wish, &targets);
        let server = &mut self.servers[at];
        let lifetime = wish.until.map(|until| until.since(since).max(MS));
        let new = new_order(number, &wish, lifetime, server.marks(&places));
        server.wishes.insert(number, wish.clone());
        let Some(fleet) = &mut server.fleet else { return };
        let left = |new: NewOrder<Vec<u8>, Vec<u8>>| NewOrder {
            lifetime: wish.until.map(|until| until.since(now)),
            ..new
        };
        let late = now.since(since) > FRESH;
        let taken = if late {
            fleet.restore(now, left(new)).map_err(|error| error.why)
        } else {
            // What an order says of versions and lifetimes is known only now; it is in the log already.
            fleet.submit(now, new).or_else(|error| match error.why {
                SubmitFault::ShorterLife
                | SubmitFault::VersionNotRising { .. }
                | SubmitFault::KeyLane { .. }
                | SubmitFault::Stopped => fleet.restore(now, left(error.order)).map_err(|error| error.why),
                why => Err(why),
            })
        };
        if let Err(why) = taken
            && !self.servers[at].draining
        {
            self.ledger.fail(now, "NotSubmitted", None, &[id], why);
        }
        self.cancel_later(at, number, cancel_after);
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
    pub(super) fn ended(&mut self, at: usize, index: DeviceIndex, number: u64, code: Code) {
        let device = self.servers[at].device_of[index.0 as usize];
        let order = self.servers[at].order(number);
        self.probe(probe_of(code));
        self.run.outcomes += 1;
        if self.servers[at].taken_back.contains(&number) {
            self.probe(if code == Code::CANCELLED { Probe::CancelWon } else { Probe::CancelLost });
        }
        let again = self.servers[at].durable.last_attempts.contains(&(number, device));
        if !again || self.ledger.outcome(order, device) != Some(code) {
            self.ledger.record(self.now, Event::Outcome { order, device: device as u32, code });
        }
        self.expect_mark(at, order, device);
        self.check_expiry(at, order, number, code);
        let server = &mut self.servers[at];
        server.told.push(number);
        let Some(wish) = server.wishes.get(&number) else { return };
        if let Some((root, _)) = wish.repeats {
            self.attempt_outcome(at, number, root, index, code);
        }
    }

    /// Nothing expires before its time, unless a wall clock that jumped was all a start had to go by.
    fn check_expiry(&mut self, at: usize, order: OrderId, number: u64, code: Code) {
        let server = &self.servers[at];
        let until = server.wishes.get(&number).and_then(|wish| wish.until);
        // A start with a clock that went back gives it longer; a device that had it before goes by what it was told then.
        let first = server.durable.accepted.get(&number).filter(|(of, ..)| *of == order);
        let until = until.into_iter().chain(first.and_then(|(_, wish, _)| wish.until)).min();
        let early = code == Code::EXPIRED && until.is_none_or(|until| self.now < until);
        if early && !self.walls_ahead {
            self.ledger.fail(
                self.now,
                "ExpiredEarly",
                None,
                &[order],
                format_args!("it lives until {until:?}"),
            );
        }
    }

    /// The fleet hands an order back: every mark is final and is what was told.
    pub(super) fn settled(&mut self, at: usize, number: u64, marks: &[u8]) {
        let order = self.servers[at].order(number);
        if !self.servers[at].durable.ghosts.remove(&number) {
            self.ledger.record(self.now, Event::Settled { order });
        }
        self.compare_marks(at, order, marks, true);
        let server = &mut self.servers[at];
        server.wishes.remove(&number);
        server.expected.remove(&number);
        server.taken_back.retain(|of| *of != number);
        if let Some(accepted) = server.durable.accepted.remove(&number) {
            server.durable.settled.insert(number, accepted);
        }
        let handed: Vec<_> =
            server.durable.handed.range((number, 0)..=(number, usize::MAX)).map(|(key, _)| *key).collect();
        for key in handed {
            server.durable.handed.remove(&key);
        }
    }
}

fn new_order(
    number: u64,
    wish: &Wish,
    lifetime: Option<Duration>,
    marks: Vec<u8>,
) -> NewOrder<Vec<u8>, Vec<u8>> {
    NewOrder {
        number,
        lane: wish.lane,
        kind_flags: wish.kind_flags(),
        lifetime,
        frame: wish.frame(number, lifetime, wish.durable),
        first: DeviceIndex(0),
        marks,
    }
}

pub(super) fn facts(wish: &Wish, deadline: Option<Instant>, log: u64, targets: &BTreeSet<usize>) -> Facts {
    Facts {
        lane: wish.lane,
        idempotent: wish.idempotent,
        deadline: deadline.map(|deadline| deadline.since(Instant::ZERO)),
        key: wish.key,
        supersede: wish.supersede,
        attempt_of: wish.repeats.map(|(root, _)| OrderId { log, number: root }),
        targets: targets.iter().map(|at| *at as u32).collect(),
        again: false,
    }
}
