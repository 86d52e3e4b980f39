//! What happens to a server's disk beside crashes: a bit turns over, or it becomes what it was some time ago.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use push::config::LogId;
use push::outbox::log::Recovery;
use push::outbox::{Lost, Outbox, Restored, RestoredDevice, RestoredOrder};
use wire_format::frame::outcome::Code;
use wire_format::ids::Lineage;

use super::durable::{AGAIN, Durable, Job, Waiting};
use super::names::Probe;
use super::world::{Act, World};
use crate::disk::SimDisk;
use crate::history::{Event, OrderId};

/// A copy of a server's disk, and what was known then.
#[derive(Debug)]
pub(super) struct Copy {
    disk: SimDisk,
    lineage: Lineage,
    log: u64,
    numbers: BTreeMap<u32, usize>,
    orders: BTreeMap<u64, Waiting>,
    head: u64,
    fence: u64,
}

/// A log that goes on from a copy although more of it was given than the copy knows.
#[derive(Debug)]
pub(super) struct Fork {
    server: usize,
    lineage: Lineage,
    /// What the continuation is called in the history.
    log: u64,
    /// The first start from the copy.
    boot: u64,
    /// Devices whose journals know of orders that the copy does not.
    ahead: BTreeSet<usize>,
}

/// What a start would find, without what depends on the time.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    orders: BTreeMap<u64, RestoredOrder>,
    keys: BTreeSet<u64>,
    devices: Vec<RestoredDevice>,
    runs: Vec<u64>,
    whole: (Lineage, u64, u64),
}

impl Contents {
    fn of(restored: Restored) -> Self {
        let orders = restored.orders.into_iter();
        let timeless = |order: RestoredOrder| {
            let attempt =
                order.attempt.map(|attempt| push::outbox::Attempt { after: Duration::ZERO, ..attempt });
            (order.number, RestoredOrder { remaining: None, attempt, ..order })
        };
        // What a device has ended is known from outcomes too, and may be known of less.
        let devices = restored.devices.into_iter().map(|known| {
            let session = push::outbox::Session { ended: [0; 4], ..known.session };
            RestoredDevice { session, ..known }
        });
        Self {
            orders: orders.map(timeless).collect(),
            keys: restored.keys.iter().map(|key| key.key).collect(),
            devices: devices.collect(),
            runs: restored.runs.iter().map(|run| run.first).collect(),
            whole: (restored.lineage, restored.head, restored.fence),
        }
    }

    /// The orders that are there in one only, or otherwise: first orders, whose attempts are counted as theirs.
    fn orders_other_than(&self, other: &Self) -> BTreeSet<u64> {
        let numbers: BTreeSet<_> = self.orders.keys().chain(other.orders.keys()).copied().collect();
        let differs = |number: &u64| self.orders.get(number) != other.orders.get(number);
        let root = |number: u64| {
            let order = self.orders.get(&number).or_else(|| other.orders.get(&number));
            order.and_then(|order| order.attempt).map_or(number, |attempt| attempt.root)
        };
        numbers.into_iter().filter(differs).map(root).collect()
    }
}

impl World {
    /// A bit turns over. Opened before and after, the two copies of the disk differ in one record at most, and the
    /// second one says so. Bits of records that are about more than one order turn back: what follows from them is
    /// not a matter of one order.
    pub(super) fn disk_rots(&mut self, at: usize, place: u64, away: Option<Duration>) {
        if let Some(away) = away {
            self.crash_server(at, true, away);
        }
        let durable = &self.servers[at].durable;
        let files = durable.disk.files();
        let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let bits: usize = files.iter().map(|(_, bytes)| used(bytes) * 8).sum();
        let Some(mut bit) = (place as usize).checked_rem(bits) else { return };
        let Some(&(file, _)) = files.iter().find(|(_, bytes)| {
            let here = bit < used(bytes) * 8;
            bit -= if here { 0 } else { used(bytes) * 8 };
            here
        }) else {
            return;
        };
        let before = self.look_at_a_copy(at);
        self.servers[at].durable.disk.flip(file, bit);
        let after = self.look_at_a_copy(at);
        let (Some((before, sound)), Some((after, found))) = (before, after) else { return };
        self.note(format_args!("bit {bit} of file {file} turns over: {sound:?}, then {found:?}"));
        let orders = before.orders_other_than(&after);
        let cost = found.damaged_records.saturating_sub(sound.damaged_records);
        // What was torn before cannot always be told from damage once a record beside it is damaged.
        let torn = sound.torn_records.saturating_sub(found.torn_records);
        let told = found != sound;
        let (one, whole) = (orders.len() <= 1 && cost <= 1 + torn, before.whole.0 == after.whole.0);
        if !one || !whole || (before != after && !told) {
            let detail = format!("{orders:?} differ: {sound:?}, then {found:?}");
            return self.ledger.fail(self.now, "RotNotIsolated", None, &[], detail);
        }
        if before == after {
            // It was needed no more, or not yet: what it says stands elsewhere, and may go there soon. Two bits are not one: a
            // segment's header stands there twice.
            self.servers[at].durable.disk.flip(file, bit);
            return;
        }
        let of_orders = Contents { orders: after.orders, keys: after.keys, ..before };
        if (of_orders.devices, of_orders.runs, of_orders.whole) != (after.devices, after.runs, after.whole) {
            self.servers[at].durable.disk.flip(file, bit);
            return;
        }
        self.probe(Probe::Rotted);
        let log = self.servers[at].durable.log;
        for number in orders {
            self.excuse(at, OrderId { log, number });
        }
    }

    /// What a start from this disk would find.
    fn look_at_a_copy(&self, at: usize) -> Option<(Contents, Recovery)> {
        let durable = &self.servers[at].durable;
        let times = durable.now(self.now);
        let (_, restored) =
            Outbox::open(durable.disk.copy(1), Durable::settings(self.devices.len()), times, 1).ok()?;
        let recovery = restored.recovery.clone();
        Some((Contents::of(restored), recovery))
    }

    /// Nothing is promised of this order any more, nor of the attempts made at it.
    fn excuse(&mut self, at: usize, order: OrderId) {
        self.ledger.excuse(order);
        let durable = &self.servers[at].durable;
        let known = durable.accepted.iter().chain(&durable.settled);
        let attempts =
            known.filter(|(_, (_, wish, _))| wish.repeats.is_some_and(|(root, _)| root == order.number));
        let attempts: Vec<_> = attempts.map(|(_, (id, ..))| *id).collect();
        attempts.into_iter().for_each(|attempt| self.ledger.excuse(attempt));
    }

    /// What the outbox says it has lost was lost for a reason. What is asked for is appended again.
    pub(super) fn check_losses(&mut self, at: usize) {
        let durable = &mut self.servers[at].durable;
        let log = durable.log;
        for lost in durable.outbox.as_mut().map(Outbox::take_lost).unwrap_or_default() {
            self.probe(Probe::FoundRotten);
            let Lost::Order(number) = lost else { continue };
            let order = OrderId { log, number };
            if !self.ledger.is_excused(order) {
                self.ledger.fail(self.now, "LostWithoutRot", None, &[order], "the outbox says it is lost");
            }
        }
        let asked = self.servers[at].durable.outbox.as_mut().map(Outbox::take_undescribed);
        for number in asked.unwrap_or_default() {
            self.probe(Probe::FoundRotten);
            self.write_device_again(at, number);
        }
    }

    /// What a device is the server knows, as long as it is listed.
    fn write_device_again(&mut self, at: usize, number: u32) {
        let server = &mut self.servers[at];
        let mut listed = server.index.iter().flatten().filter_map(|index| server.numbers.get(&index.0));
        if listed.any(|listed| *listed == number) {
            server.durable.put(Job::Device { number });
        }
    }

    /// Somebody copies the disk, to put the copy in its place later.
    pub(super) fn back_up(&mut self, at: usize, restored_after: Duration, away: Duration) {
        let seed = self.rng.next_u64();
        let durable = &self.servers[at].durable;
        if durable.log == 0 || self.fork.is_some() {
            return;
        }
        let known = durable.accepted.iter().chain(&durable.settled);
        let known = known.map(|(number, (_, wish, targets))| {
            let (wish, targets) = (wish.clone(), targets.clone());
            (*number, Waiting { wish, targets, places: Vec::new(), cancel_after: None })
        });
        let mut orders: BTreeMap<_, _> = known.collect();
        orders.extend(durable.unanswered.iter().map(|(number, waiting)| (*number, waiting.clone())));
        self.copy = Some(Copy {
            disk: durable.disk.copy(seed),
            lineage: durable.lineage,
            log: durable.log,
            numbers: durable.numbers.clone(),
            orders,
            head: durable.head,
            fence: durable.fence,
        });
        self.later(self.in_storm(restored_after), Act::RestoreCopy { server: at, away });
    }

    /// The server's machine is replaced by one with the copy.
    pub(super) fn restore_copy(&mut self, at: usize, away: Duration) {
        let Some(copy) = self.copy.take().filter(|_| !self.calm) else { return };
        self.note(format_args!("server {at} is replaced by its backup"));
        self.crash_server(at, false, away);
        let known = copy.orders.keys().next_back().copied().unwrap_or(0).max(copy.head);
        let ahead = self.devices.iter().filter(|device| device.kept.is_above(copy.log, known));
        let ahead = ahead.map(|device| device.at).collect();
        let log = self.ledger.next_log();
        self.ledger.excuse_log(log);
        self.ledger.record(self.now, Event::Gone { log: copy.log });
        self.devices.iter_mut().for_each(|device| device.kept.rename(copy.log, log));
        let server = &mut self.servers[at];
        let durable = &mut server.durable;
        durable.disk = copy.disk;
        (durable.lineage, durable.log) = (copy.lineage, log);
        (durable.numbers, durable.unanswered) = (copy.numbers, copy.orders);
        (durable.head, durable.fence) = (copy.head, copy.fence);
        durable.forget_orders();
        let boot = server.boot + 1;
        self.fork = Some(Fork { server: at, lineage: copy.lineage, log, boot, ahead });
        self.forks += 1;
        self.ledger.record(self.now, Event::Log { log, fence: copy.fence });
    }

    /// A device that knows more of the log than the server does is sent nothing of it.
    pub(super) fn check_fork(&mut self, device: usize, order: OrderId, boot: u64) {
        let Some(fork) = &self.fork else { return };
        if order.log == fork.log && boot >= fork.boot && fork.ahead.contains(&device) {
            let detail = "it knows more of this log than its server";
            self.ledger.fail(self.now, "HandedOverInAFork", Some(device), &[order], detail);
        }
    }

    /// A device that lost what it knew knows no more than anybody.
    pub(super) fn is_not_ahead(&mut self, device: usize) {
        if let Some(fork) = &mut self.fork {
            fork.ahead.remove(&device);
        }
    }

    /// Whether a fork that a device could have told of is still not known.
    pub(super) fn is_fork_hidden(&self) -> bool {
        let there = |device: &usize| {
            let it = &self.devices[*device];
            self.plan.devices[*device].present && !it.removed && !it.listed_again
        };
        self.fork.as_ref().is_some_and(|fork| fork.ahead.iter().any(there))
    }

    /// A device has met orders that this log never gave: it is given up.
    pub(super) fn forked(&mut self, at: usize, device: usize) {
        self.probe(Probe::Forked);
        if self.forks == 0 {
            let detail = "a fork is told of a log that has none";
            self.ledger.fail(self.now, "ForkedForNothing", Some(device), &[], detail);
        }
        self.servers[at].durable.renews = true;
        self.kick_writer(at);
    }

    /// Every order of the old log comes back, then another log begins.
    pub(super) fn renew(&mut self, at: usize) {
        let now = self.now;
        if let Some(fleet) = &mut self.servers[at].fleet {
            fleet.abandon_durable(now);
        }
        self.tell_events(at);
        let durable = &mut self.servers[at].durable;
        durable.drop_batches();
        let times = durable.now(now);
        let Some(outbox) = &mut durable.outbox else { return };
        let renewed = match outbox.renew(times) {
            Ok(renewed) => renewed,
            Err(_) if durable.disk.is_dead() => {
                let power = self.power_goes();
                return self.crash_server(at, power, AGAIN);
            }
            Err(error) => {
                self.note(format_args!("a log cannot be begun: {error}"));
                let boot = self.servers[at].boot;
                return self.later(AGAIN, Act::Write { server: at, boot });
            }
        };
        durable.renews = false;
        durable.forget_orders();
        durable.unanswered.clear();
        durable.head = renewed.first - 1;
        let server = &mut self.servers[at];
        server.next_number = server.next_number.max(renewed.first);
        let log = LogId::new(renewed.lineage, renewed.run, renewed.first);
        let taken = server.fleet.as_mut().is_some_and(|fleet| fleet.renew(now, log, renewed.first - 1));
        if !taken {
            self.ledger.fail(now, "NotRenewed", None, &[], "orders of the old log live");
        }
        self.probe(Probe::Renewed);
        self.begin_log(at, renewed.lineage);
        self.serve_server(at);
    }

    /// A server has started: the log it found may be the one begun just before it went.
    pub(super) fn note_lineage(&mut self, at: usize, lineage: Lineage) {
        if self.fork.as_ref().is_some_and(|fork| fork.server == at && fork.lineage != lineage) {
            self.fork = None;
        }
    }

    /// The record of the first order cannot be found any more: no further attempt is made.
    pub(super) fn attempt_without_order(&mut self, at: usize, waiting: &Waiting) {
        let Some((root, _)) = waiting.wish.repeats else { return };
        let log = self.servers[at].durable.log;
        if !self.ledger.is_excused(OrderId { log, number: root }) {
            return self.attempt_not_kept(at, waiting);
        }
        for index in waiting.places.iter().copied() {
            self.resolve(at, root, index, Code::BUSY);
        }
    }
}
