//! Orders: what the application wishes, takes back, and tries again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use push::fleet::{NewOrder, SubmitFault};
use push::{DeviceIndex, Mark};
use testkit::history::{Event, Facts};
use testkit::script::{Draft, kind_flags};
use wire_format::frame::order::KindFlags;
use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;
use wire_format::rng::Rng;
use wire_format::time::Instant;

use crate::oracle::{deadline, order_id};
use crate::world::{Act, MS, World, index};

/// In percent, how often this run does what orders can do beside being applied. In every third run nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Knobs {
    /// Orders the application takes back.
    cancels: u64,
    /// Orders that supersede others.
    versions: u64,
    /// Orders that carry a key of the application's, which another server repeats.
    keys: u64,
    /// Verdicts that end an attempt and not the order.
    pub(crate) attempts: u64,
    /// Orders that a device answers later.
    pub(crate) later: u64,
    /// Restarts of the server, and ends of devices, that are announced.
    pub(crate) drains: u64,
}

impl Knobs {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let plain = rng.below(3) == 0;
        let mut percent = |most: u64| if plain { 0 } else { rng.below(most + 1) };
        Self {
            cancels: percent(40),
            versions: percent(60),
            keys: percent(40),
            later: percent(60),
            attempts: percent(40),
            drains: percent(100),
        }
    }
}

/// What the application remembers of an order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) lane: Lane,
    pub(crate) idempotent: bool,
    pub(crate) until: Option<Instant>,
    pub(crate) supersede: Option<(u64, u64)>,
    pub(crate) key: u64,
    pub(crate) payload: Vec<u8>,
    /// The order whose attempt it repeats, the first of them, and which repetition it is.
    pub(crate) repeats: Option<(u64, u64, u16)>,
}

/// What the application remembers of all orders of this run of the server.
#[derive(Debug, Default)]
pub(crate) struct Book {
    wishes: BTreeMap<u64, Wish>,
    /// The attempt an order goes by on a device.
    attempts: BTreeMap<(u64, usize), u64>,
    /// Ends of attempts that their orders have still to be told.
    resolved: Vec<(u64, usize, Code)>,
}

impl World {
    pub(crate) fn submit(&mut self) {
        if self.calm {
            return;
        }
        let wait = self.rng.between(MS, MS * 1_500);
        self.later(wait, Act::Submit);
        // Bursts fill windows.
        for _ in 0..=[0, 0, 1, 12][self.rng.below(4) as usize] {
            let (wish, targets) = self.wish();
            let cancels = self.knobs.cancels;
            if let Ok(number) = self.submit_one(wish, &targets)
                && self.chance(cancels)
            {
                let (wait, run) = (self.rng.between(Duration::ZERO, MS * 3_000), self.run);
                self.later(wait, Act::Cancel { run, number });
            }
        }
        self.serve_fleet();
    }

    fn wish(&mut self) -> (Wish, BTreeSet<usize>) {
        let Knobs { versions, keys, .. } = self.knobs;
        let supersede = self.chance(versions).then(|| {
            self.next_version += 1;
            (1 + self.rng.below(3), self.next_version)
        });
        let lane = supersede.map_or_else(|| self.rng.below(4), |(key, _)| key);
        let lifetime = self.chance(40).then(|| self.rng.between(MS * 50, MS * 9_000));
        let wish = Wish {
            lane: Lane::ALL[lane as usize],
            idempotent: self.chance(50),
            until: lifetime.map(|lifetime| self.now + lifetime),
            supersede,
            key: if self.chance(keys) { 1 + self.rng.below(3) } else { 0 },
            payload: vec![lane as u8; self.rng.below(700) as usize],
            repeats: None,
        };
        (wish, (0..self.devices.len()).filter(|_| self.chance(75)).collect())
    }

    /// Hands an order to the fleet; its number, if it is taken.
    fn submit_one(&mut self, wish: Wish, targets: &BTreeSet<usize>) -> Result<u64, SubmitFault> {
        let number = self.next_number;
        self.next_number += 1 + self.rng.below(3);
        let lifetime = wish.until.map(|until| until.since(self.now));
        let mark = |at| if targets.contains(&at) { Mark::PENDING.0 } else { Mark::NOT_TARGETED.0 };
        let new = NewOrder {
            number,
            lane: wish.lane,
            kind_flags: wish.kind_flags(),
            lifetime,
            frame: wish.frame(number, lifetime),
            first: DeviceIndex(0),
            marks: (0..self.devices.len()).map(mark).collect(),
        };
        if let Err(error) = self.fleet.submit(self.now, new) {
            self.check_refusal(&wish, targets, error.why);
            return Err(error.why);
        }
        let run = self.run;
        let facts = Facts {
            lane: wish.lane,
            idempotent: wish.idempotent,
            deadline: deadline(self.now, lifetime),
            key: wish.key,
            supersede: wish.supersede,
            attempt_of: wish.repeats.map(|(of, ..)| order_id(run, of)),
            targets: crate::oracle::targets(targets),
            again: false,
        };
        self.note(format_args!("order {number} accepted: {facts}"));
        self.oracle.accepted(self.now, order_id(run, number), facts);
        self.book.wishes.insert(number, wish);
        // What ended at once is told by its mark alone.
        let marks = self.fleet.marks(number).map(|(_, marks)| marks.to_vec()).unwrap_or_default();
        for (at, code) in marks.into_iter().map(|mark| Mark(mark).code()).enumerate() {
            if let Some(code) = code {
                self.ended(at, number, code);
            }
        }
        Ok(number)
    }

    /// Whether the fleet had a reason to refuse this order.
    fn check_refusal(&self, wish: &Wish, targets: &BTreeSet<usize>, why: SubmitFault) {
        let versioned = wish.supersede.is_some();
        let allowed = match why {
            SubmitFault::Full => self.fleet.live_orders() as usize == crate::world::ORDERS,
            SubmitFault::NoTarget => targets.is_empty(),
            SubmitFault::ShorterLife => versioned && wish.until.is_some(),
            SubmitFault::Stopped => self.draining,
            SubmitFault::Lifetime => wish.until.is_some_and(|until| until <= self.now),
            _ => false,
        };
        assert!(allowed, "refused: {why}");
    }

    /// An order has its outcome on a device.
    pub(crate) fn ended(&mut self, device: usize, number: u64, code: Code) {
        self.note(format_args!("order {number} ended on device {device}: {code}"));
        self.totals.count(code);
        self.oracle.ended(self.now, device, order_id(self.run, number), code);
        self.told.push(number);
        if let Some((of, ..)) = self.book.wishes.get(&number).and_then(|wish| wish.repeats) {
            self.book.resolved.push((of, device, code));
        }
    }

    /// Tells orders how the attempts ended they go by. Whether there were any.
    pub(crate) fn resolve_attempts(&mut self) -> bool {
        let resolved = core::mem::take(&mut self.book.resolved);
        let busy = !resolved.is_empty();
        for (number, device, code) in resolved {
            let taken = self.fleet.resolve(self.now, number, index(device), code);
            let over = self.oracle.is_over(order_id(self.run, number), device);
            assert!(taken || over, "order {number} waits for its attempt on device {device}");
        }
        busy
    }

    /// A device ended an attempt: the application tries again later, or leaves it at that.
    pub(crate) fn attempt_ended(&mut self, device: usize, number: u64, code: Code, retry_after: Duration) {
        self.note(format_args!("attempt {number} over on device {device}: {code}, again {retry_after:?}"));
        self.totals.attempts += 1;
        let forever = self.book.wishes[&number].until.is_none();
        if forever || self.chance(80) {
            let (wait, run) = (retry_after + MS * self.rng.below(500) as u32, self.run);
            self.later(wait, Act::Retry { run, number, device });
        }
    }

    pub(crate) fn retry(&mut self, run: u8, number: u64, device: usize) {
        let waits = |marks: &[u8]| Mark(marks[device]).attempt_code().is_some();
        if run != self.run || !self.fleet.marks(number).is_some_and(|(_, marks)| waits(marks)) {
            return;
        }
        let mut wish = self.book.wishes[&number].clone();
        let (first, times) = wish.repeats.map_or((number, 0), |(_, first, times)| (first, times));
        wish.repeats = Some((number, first, times + 1));
        match self.submit_one(wish, &BTreeSet::from([device])) {
            Ok(attempt) => {
                assert!(self.fleet.retry_begins(number, index(device)));
                self.book.attempts.insert((number, device), attempt);
                self.totals.retried += 1;
            }
            // Later, if there is room then. Its lifetime may end first.
            Err(SubmitFault::Full) => self.later(MS * 200, Act::Retry { run, number, device }),
            Err(SubmitFault::Stopped | SubmitFault::ShorterLife | SubmitFault::Lifetime) => {}
            Err(why) => panic!("an attempt is refused: {why}"),
        }
        self.serve_fleet();
    }

    /// The application takes an order back, and whatever it goes by.
    pub(crate) fn cancel(&mut self, run: u8, number: u64) {
        if run != self.run {
            return;
        }
        let mut numbers = vec![number];
        while let Some(number) = numbers.pop() {
            if self.fleet.cancel(self.now, number) {
                self.note(format_args!("order {number} taken back"));
                self.oracle.record(self.now, Event::Cancel { order: order_id(run, number) });
            }
            let attempts = self.book.attempts.iter().filter(|((of, _), _)| *of == number);
            numbers.extend(attempts.map(|(_, attempt)| *attempt));
        }
        self.serve_fleet();
    }
}

impl Wish {
    /// The same, of no use after this lifetime.
    pub(crate) fn perishing(self, now: Instant, lifetime: Option<Duration>) -> Self {
        Self { until: lifetime.map(|lifetime| now + lifetime), ..self }
    }

    pub(crate) const fn kind_flags(&self) -> KindFlags {
        kind_flags(self.idempotent)
    }

    pub(crate) fn frame(&self, number: u64, lifetime: Option<Duration>) -> Vec<u8> {
        let draft = Draft {
            lane: self.lane,
            idempotent: self.idempotent,
            durable: false,
            key: self.key,
            supersede: self.supersede,
            repeats: self.repeats.map(|(_, first, times)| (first, times)),
            payload: &self.payload,
            in_pieces: None,
        };
        draft.frame(number, lifetime)
    }
}
