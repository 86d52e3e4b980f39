//! A server starts: what its outbox says goes into a new fleet, and is held against what was promised before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use push::blob::frames_len;
use push::config::{LogId, Runs};
use push::fleet::{DeviceTrace, NewDevice, NewOrder};
use push::outbox::{Outbox, Restored, RestoredDevice, RestoredOrder};
use push::{DeviceIndex, Mark};
use wire_format::frame::Order;
use wire_format::frame::order::KindFlags;
use wire_format::frame::outcome::Code;
use wire_format::ids::Lineage;
use wire_format::splitter::{Split, split};

use super::durable::{Durable, Job};
use super::ledger::Wish;
use super::names::Probe;
use super::orders::facts;
use super::plan::{MS, SECOND};
use super::retry::Attempt;
use super::server::{SPARE, address};
use super::world::{Act, World};
use crate::history::{Event, OrderId};

/// An attempt that ended before the server started is repeated this long after.
const AGAIN_AFTER_START: Duration = Duration::from_secs(1);

/// The runs as the fleet wants them.
pub(super) fn log_id(lineage: Lineage, run: u64, runs: &[push::outbox::Run]) -> LogId {
    let mut kept = Runs::NONE;
    runs.iter().for_each(|run| kept.push(run.run, run.first));
    LogId { lineage, run, runs: kept }
}

impl World {
    /// Opens the outbox of a server; `None` if its disk does not let it start: it is tried again.
    pub(super) fn open_outbox(&mut self, at: usize, seed: u64) -> Option<Restored> {
        let durable = &mut self.servers[at].durable;
        let times = durable.now(self.now);
        match Outbox::open(durable.disk.clone(), Durable::settings(self.devices.len()), times, seed) {
            Ok((outbox, restored)) => {
                durable.outbox = Some(outbox);
                Some(restored)
            }
            Err(error) => {
                let died = durable.disk.is_dead();
                if died {
                    let power = self.power_goes();
                    let disk = &self.servers[at].durable.disk;
                    if power { disk.crash() } else { disk.kill() }
                }
                self.probe(if died { Probe::DiedAtStart } else { Probe::StartFailed });
                self.note(format_args!("server {at} cannot start: {error}"));
                self.later(SECOND, Act::Start { server: at });
                None
            }
        }
    }

    /// Devices, orders, keys and fence of the run before.
    pub(super) fn restore(&mut self, at: usize, restored: Restored) {
        let server = &mut self.servers[at];
        let fallen = restored.fence < server.durable.fence;
        let head_fallen = restored.head < server.durable.head;
        server.fence = server.fence.min(restored.fence.max(1)).max(restored.fence);
        server.next_number = restored.head + 1;
        if let Some(fleet) = &mut server.fleet {
            fleet.note_head(true, restored.head);
        }
        if fallen {
            self.ledger.fail(self.now, "FenceForgotten", None, &[], restored.fence);
        }
        if head_fallen {
            self.ledger.fail(self.now, "NumbersForgotten", None, &[], restored.head);
        }
        if !restored.recovery.damaged.is_empty() {
            self.probe(Probe::RecordDamaged);
        }
        self.note_lineage(at, restored.lineage);
        for known in &restored.devices {
            self.restore_device(at, known);
        }
        let (first, log) = (self.servers[at].durable.log == 0, self.servers[at].durable.lineage);
        if first || log != restored.lineage {
            self.begin_log(at, restored.lineage);
        } else {
            // A fence may be there that nobody was told is kept.
            let (log, fence) = (self.servers[at].durable.log, self.servers[at].fence);
            self.ledger.record(self.now, Event::Log { log, fence });
        }
        let mut found = BTreeSet::new();
        for order in &restored.orders {
            found.insert(order.number);
            self.restore_order(at, order);
        }
        let attempts = restored.orders.iter().filter_map(|order| Some((order.attempt?.root, order)));
        let attempted = attempts.flat_map(|(root, order)| {
            let open = order.marks.iter().filter(|(_, mark)| *mark == Mark::PENDING);
            open.map(move |(number, _)| (root, number))
        });
        let attempted = attempted.collect();
        restored.orders.iter().for_each(|order| self.go_on(at, order, &attempted));
        self.check_lost(at, &found);
        self.servers[at].durable.unanswered.clear();
    }

    /// A lineage begins, or goes on from a copy of it.
    pub(super) fn begin_log(&mut self, at: usize, lineage: Lineage) {
        let log = self.ledger.next_log();
        let server = &mut self.servers[at];
        (server.durable.log, server.durable.lineage) = (log, lineage);
        self.note_lineage(at, lineage);
        let server = &self.servers[at];
        let fence = server.fence;
        self.ledger.record(self.now, Event::Log { log, fence });
    }

    fn restore_device(&mut self, at: usize, known: &RestoredDevice) {
        let now = self.now;
        let server = &mut self.servers[at];
        let Some(&device) = server.durable.numbers.get(&known.device.device) else {
            return self.ledger.fail(now, "DeviceFromNowhere", None, &[], known.device.device);
        };
        let Some(fleet) = &mut server.fleet else { return };
        let new = NewDevice { id: known.device.id, address: known.device.address };
        let Ok(index) = fleet.add_device(now, new) else { return };
        let session = &known.session;
        let trace =
            DeviceTrace { boot: session.boot, open: session.open, upto: session.upto, ended: session.ended };
        fleet.restore_device(index, trace);
        server.traces.insert(known.device.device, trace);
        if known.device.address != Some(address(self.devices[device].slot)) {
            self.later(SECOND * 2, Act::Announce { device });
        }
        let server = &mut self.servers[at];
        server.place(index, device, known.device.device);
    }

    fn restore_order(&mut self, at: usize, order: &RestoredOrder) {
        let now = self.now;
        let number = order.number;
        let Some((id, mut wish, targets)) = self.known_order(at, order) else { return };
        self.check_lifetime(id, &wish, order);
        // An attempt lives as long as its order does.
        wish.until = match order.attempt {
            None => order.remaining.map(|remaining| now + remaining),
            Some(attempt) => self.servers[at].wishes.get(&attempt.root).and_then(|root| root.until),
        };
        self.check_outcomes(at, id, order, &targets);
        let lifetime = wish.until.map(|until| until.since(now));
        let marks = self.restored_marks(at, order);
        // The record of an attempt has no frame of its own.
        let of_attempt = || wish.frame(number, lifetime.map(|left| left.max(MS)), true);
        let frame = if order.attempt.is_some() { of_attempt() } else { order.frame.clone() };
        let over = marks.iter().all(|mark| *mark == 0 || Mark(*mark).is_final());
        let new = NewOrder {
            number,
            lane: wish.lane,
            kind_flags: wish.kind_flags(),
            lifetime,
            frame,
            first: DeviceIndex(0),
            marks,
        };
        self.probe(Probe::Restored);
        let server = &mut self.servers[at];
        server.wishes.insert(number, wish);
        if over {
            // The record of an attempt that ended: nothing is left to do for it.
            return self.settled(at, number, &new.marks);
        }
        let Some(fleet) = &mut server.fleet else { return };
        if let Err(error) = fleet.restore(now, new) {
            self.ledger.fail(now, "NotRestored", None, &[id], error.why);
        }
    }

    /// What was under way goes on: attempts that ended are made again, what was taken back is taken back.
    fn go_on(&mut self, at: usize, order: &RestoredOrder, attempted: &BTreeSet<(u64, u32)>) {
        if order.attempt.is_some() {
            return;
        }
        let root = order.number;
        for (number, mark) in order.marks.iter().filter(|(_, mark)| mark.is_retried()) {
            let server = &self.servers[at];
            let (Some(index), Some(wish)) = (server.index_of(number), server.wishes.get(&root)) else {
                continue;
            };
            if attempted.contains(&(root, number)) {
                continue;
            }
            if mark.attempt_code().is_some() || wish.idempotent {
                let code = mark.attempt_code().unwrap_or(Code::BUSY);
                let times = order.attempts.saturating_add(1);
                self.try_later(at, AGAIN_AFTER_START, Attempt { root, index, times, code });
            } else {
                // The record of its attempt was damaged: nobody knows what came of it.
                self.resolve(at, root, index, Code::IN_DOUBT);
                self.tell_events(at);
            }
        }
        if order.cancelled {
            self.cancel_now(at, root);
            self.tell_events(at);
        }
    }

    /// What was pushed under this number; an order that nobody was told of is accepted now.
    fn known_order(&mut self, at: usize, order: &RestoredOrder) -> Option<(OrderId, Wish, BTreeSet<usize>)> {
        let (now, number) = (self.now, order.number);
        let durable = &mut self.servers[at].durable;
        let id = OrderId { log: durable.log, number };
        let attempts_only = |mark: Mark| mark.is_final() || mark.attempt_code().is_some();
        let ended = order.marks.count(attempts_only) == order.marks.targets().len();
        if (ended || self.ledger.is_excused(id))
            && let Some(settled) = durable.settled.remove(&number)
        {
            durable.ghosts.insert(number);
            durable.accepted.insert(number, settled);
        }
        if !durable.accepted.contains_key(&number) {
            let Some(waiting) = durable.unanswered.get(&number).cloned() else {
                self.ledger.fail(now, "OrderFromNowhere", None, &[id], number);
                return None;
            };
            self.probe(Probe::FoundUntold);
            self.remember(at, number, &waiting.wish, &waiting.targets);
        }
        let durable = &self.servers[at].durable;
        let (id, wish, targets) = durable.accepted.get(&number).cloned()?;
        if order.attempt.is_none() && !is_as_pushed(&order.frame, &wish) {
            self.ledger.fail(now, "NotWhatWasPushed", None, &[id], "its record is not what was pushed");
        }
        Some((id, wish, targets))
    }

    /// What was told must have stayed; what was logged and not told is told now.
    fn check_outcomes(&mut self, at: usize, id: OrderId, order: &RestoredOrder, targets: &BTreeSet<usize>) {
        let marks: BTreeMap<usize, Mark> = order
            .marks
            .iter()
            .filter_map(|(number, mark)| Some((*self.servers[at].durable.numbers.get(&number)?, mark)))
            .collect();
        for device in targets {
            let mark = marks.get(device).copied().unwrap_or(Mark::PENDING);
            let told = self.ledger.outcome(id, *device);
            // An attempt that is over stays as it ended; its order goes on.
            let last = |code| order.attempt.is_some() || told == Some(code);
            let code = mark.code().or(mark.attempt_code().filter(|code| last(*code)));
            if told.is_some() && mark.code().is_none() {
                self.servers[at].durable.last_attempts.insert((order.number, *device));
            }
            match (told, code) {
                (Some(told), Some(code)) if told != code => {
                    let detail = format!("{told} was told, {code} is in the log");
                    self.ledger.fail(self.now, "OutcomeChanged", Some(*device), &[id], detail);
                }
                (Some(told), None) => {
                    self.ledger.fail(
                        self.now,
                        "OutcomeForgotten",
                        Some(*device),
                        &[id],
                        format_args!("{told} was told, the log says {mark}"),
                    );
                }
                (None, Some(code)) => {
                    self.ledger.record(self.now, Event::Outcome { order: id, device: *device as u32, code })
                }
                _ => {}
            }
        }
    }

    /// A wall clock that went back takes nothing from a lifetime.
    fn check_lifetime(&mut self, id: OrderId, wish: &Wish, order: &RestoredOrder) {
        let owed = wish.until.map_or(Duration::ZERO, |until| until.since(self.now));
        let short = order.remaining.is_some_and(|left| left + MS * 20 < owed);
        if short && order.attempt.is_none() && !self.walls_ahead {
            let detail = format_args!("{:?} are left, it is {owed:?}", order.remaining);
            self.ledger.fail(self.now, "LifetimeLost", None, &[id], detail);
        }
    }

    /// The marks of a restored order in the fleet's order. Who is not in the list any more stands behind everybody.
    fn restored_marks(&mut self, at: usize, order: &RestoredOrder) -> Vec<u8> {
        let server = &mut self.servers[at];
        let mut marks = vec![Mark::NOT_TARGETED.0; server.device_of.len()];
        let known: BTreeMap<u32, u32> =
            server.numbers.iter().rev().map(|(index, of)| (*of, *index)).collect();
        for (number, mark) in order.marks.iter() {
            let index = known.get(&number).copied().unwrap_or_else(|| {
                // A place that no device has.
                let index = server.gone_at;
                server.gone_at += 1;
                let device = server.durable.numbers.get(&number).copied().unwrap_or(usize::MAX);
                server.place_gone(DeviceIndex(index), device, number);
                index
            });
            marks.resize(marks.len().max(index as usize + 1), Mark::NOT_TARGETED.0);
            // Of somebody who is gone nothing is known: it may have been written.
            let trace = server.traces.get(&number);
            let owed = trace.map_or(Mark::REPEAT, |trace| trace.mark(order.lane, order.number));
            let stands = match mark {
                Mark::PENDING => owed,
                // Its record is done with the device.
                mark if order.attempt.is_some() => mark.attempt_code().map_or(mark, Mark::ended),
                mark => mark,
            };
            marks[index as usize] = stands.0;
        }
        marks
    }

    /// Orders that were accepted and are not in the log any more must have ended everywhere.
    fn check_lost(&mut self, at: usize, found: &BTreeSet<u64>) {
        let accepted = core::mem::take(&mut self.servers[at].durable.accepted);
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            accepted.into_iter().partition(|(number, _)| found.contains(number));
        self.servers[at].durable.accepted = kept;
        for (number, (order, _, targets)) in gone {
            for device in targets {
                if self.ledger.outcome(order, device).is_some() {
                    continue;
                }
                match self.servers[at].durable.handed.get(&(number, device)).copied() {
                    Some(code) => {
                        self.ledger.record(self.now, Event::Outcome { order, device: device as u32, code });
                    }
                    None => self.ledger.fail(
                        self.now,
                        "OrderLost",
                        Some(device),
                        &[order],
                        "accepted, and not there",
                    ),
                }
            }
            self.ledger.record(self.now, Event::Settled { order });
        }
    }

    /// An order is accepted: from here on it must not be lost.
    pub(super) fn remember(
        &mut self,
        at: usize,
        number: u64,
        wish: &Wish,
        targets: &BTreeSet<usize>,
    ) -> OrderId {
        let durable = &mut self.servers[at].durable;
        let (lineage, order) = (durable.lineage, OrderId { log: durable.log, number });
        durable.accepted.insert(number, (order, wish.clone(), targets.clone()));
        let facts = facts(wish, wish.until, order.log, targets);
        if let Some((root, _)) = wish.repeats
            && self.ledger.is_excused(OrderId { number: root, ..order })
        {
            self.ledger.excuse(order);
        }
        self.ledger.knows(lineage, order, wish);
        self.ledger.record(self.now, Event::Accepted { order, facts: Box::new(facts) });
        self.run.orders += 1;
        order
    }

    /// Devices that the log does not know yet.
    pub(super) fn list_devices(&mut self, at: usize) {
        for device in 0..self.devices.len() {
            let server = &self.servers[at];
            if self.plan.devices[device].present
                && !self.devices[device].removed
                && server.index[device].is_none()
            {
                self.add_device(at, device);
            }
        }
    }

    /// A fleet for this server; devices that are gone have places behind all others.
    pub(super) fn capacity(&self) -> usize {
        self.devices.len() + SPARE
    }

    /// A number for a device in the outbox: never one that another had.
    pub(super) fn number_device(&mut self, at: usize, device: usize) -> u32 {
        let durable = &mut self.servers[at].durable;
        let number = durable.numbers.last_key_value().map_or(0, |(last, _)| last + 1);
        durable.numbers.insert(number, device);
        durable.put(Job::Device { number });
        number
    }
}

/// Whether the record's frame is the order that was pushed.
fn is_as_pushed(frame: &[u8], wish: &Wish) -> bool {
    let Ok(Split::Frame(raw)) = split(frame, u32::MAX) else { return false };
    let Ok((delivery, order)) = Order::parse(&raw) else { return false };
    let behind = &frame[raw.len()..];
    let pieces = wish.large.map_or(0, |_| frames_len(wish.payload().len()));
    delivery.durable
        && behind.len() == pieces
        && (pieces == 0 || wish.frame(order.number, None, true).ends_with(behind))
        && wish.differs(&order).is_none()
        && order.kind_flags.contains(KindFlags::IDEMPOTENT) == wish.idempotent
}
