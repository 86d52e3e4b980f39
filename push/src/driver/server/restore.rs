//! A server that starts from its outbox: devices at their places, orders where they stood, keys with their answers.
//!
//! All of it happens before the first device is dialled, on the thread that starts the server; from then on nobody can tell
//! that there was a restart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use wire_format::frame::order::{Delivery, KindFlags, OPTIONS_MAX, Order as WireOrder};
use wire_format::frame::{Raw, header};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::directory::{Entry, Place, Share};
use super::fan_out::{Ledger, Part, State};
use super::frame::Frame;
use super::retry::{Chain, attempt_frame};
use super::shard::Shard;
use super::shared::{NumberedOrder, Shared, Word};
use crate::fleet::{DeviceIndex, DeviceTrace};
use crate::histogram::Histogram;
use crate::mark::Mark;
use crate::outbox::{Attempt, Device, Restored, RestoredKey, RestoredOrder};

/// What is put back.
pub(super) struct Restorer<'s> {
    shared: &'s Arc<Shared>,
    shards: &'s mut [Box<Shard>],
    /// When it was asked what is left of each lifetime: opening a disk may take its time.
    at: Instant,
    /// What the log knows of the sessions of each device, by position.
    traces: HashMap<u32, DeviceTrace>,
    /// Positions that orders name and that are nobody's any more.
    ghosts: Vec<u32>,
    /// First orders by their number.
    roots: HashMap<u64, Root>,
}

/// A first order that was put back.
struct Root {
    state: Arc<State>,
    frame: Frame,
    /// When its lifetime is over.
    deadline: Option<Instant>,
}

impl<'s> Restorer<'s> {
    /// `at`: the moment for which the log was asked.
    pub(super) fn new(shared: &'s Arc<Shared>, shards: &'s mut [Box<Shard>], at: Instant) -> Self {
        let (traces, ghosts, roots) = (HashMap::new(), Vec::new(), HashMap::new());
        Self { shared, shards, at, traces, ghosts, roots }
    }

    /// What is left of an order's lifetime by now. What is over ends in the fleet as it always does.
    fn left(&self, root: &Root) -> Option<Duration> {
        let now = self.shared.clock.now();
        root.deadline.map(|deadline| deadline.since(now).max(Duration::from_millis(1)))
    }

    /// Puts everything back, and begins to dial.
    pub(super) fn restore(&mut self, restored: &Restored) {
        self.devices(restored);
        for order in &restored.orders {
            match &order.attempt {
                None => self.order(order),
                Some(attempt) => self.attempt(order, attempt),
            }
        }
        let mut attempted = HashSet::new();
        for (order, attempt) in restored.orders.iter().filter_map(|order| Some((order, order.attempt?))) {
            let open = order.marks.iter().filter(|(_, mark)| *mark == Mark::PENDING);
            attempted.extend(open.map(|(position, _)| (attempt.root, position)));
        }
        restored.orders.iter().for_each(|order| self.go_on(order, &attempted));
        restored.keys.iter().for_each(|key| self.key(key));
        self.finish();
    }

    /// Every device at its place; those that are gone, and are named, as if they were removed right now.
    fn devices(&mut self, restored: &Restored) {
        for known in &restored.devices {
            let session = &known.session;
            let (boot, open, upto, ended) = (session.boot, session.open, session.upto, session.ended);
            let trace = DeviceTrace { boot, open, upto, ended };
            self.traces.insert(known.device.device, trace);
        }
        let mut listed: BTreeMap<u32, Option<Entry>> =
            restored.devices.iter().map(|known| (known.device.device, Some(known.device.into()))).collect();
        let named = restored.orders.iter().flat_map(|order| order.marks.iter());
        for (position, _) in named {
            listed.entry(position).or_default();
        }
        for (position, entry) in listed {
            let trace = self.traces.get(&position).copied().unwrap_or_default();
            let place =
                self.shared.update(|directory| directory.restore(position, entry.as_ref(), trace.boot == 0));
            let shard = place.and_then(|place| self.shards.get_mut(place.shard));
            let id = entry.as_ref().and_then(|entry| entry.id);
            if let Some(shard) = shard {
                shard.restore_device(position, id, trace);
            }
            if entry.is_none() {
                self.ghosts.push(position);
            }
        }
    }

    /// What each shard has of an order with these marks.
    fn shares(&self, marks: impl Iterator<Item = (u32, Mark)>) -> Vec<Share> {
        let directory = self.shared.directory();
        let mut shares: Vec<Share> = Vec::new();
        for (position, mark) in marks {
            let Some(Place { shard, local }) = directory.anchor(position) else { continue };
            match shares.iter_mut().find(|share| share.shard == shard) {
                Some(share) => share.put(local, mark),
                None => shares.push(Share { shard, first: local, marks: vec![mark.0] }),
            }
        }
        shares
    }

    /// A first order, as it stood.
    fn order(&mut self, order: &RestoredOrder) {
        let Some((wire, _)) = parse(&order.frame) else { return };
        let mut frame = self.shared.pools.frames.take(order.frame.len());
        if let Some(bytes) = frame.bytes_mut() {
            bytes.copy_from_slice(&order.frame);
        }
        let shares = self.shares(self.stands(wire.lane, order));
        let going = shares.iter().fold(0_u64, |bits, share| bits | 1 << share.shard);
        let targets = order.marks.targets().len();
        let state = State::new(order.number, targets, going, self.shards.len()).in_outbox(true);
        let state = Arc::new(state.named(wire.order_key, wire.supersede_key, &self.shared.results));
        state.keep(Ok(()));
        order.marks.iter().filter_map(|(_, mark)| mark.code()).for_each(|code| state.count(code));
        self.shared.room.restore(frame.len());
        self.shared.versions.restore(self.at, &wire, order.remaining);
        if wire.order_key != 0 {
            self.shared.remember(&state);
        }
        let deadline = order.remaining.map(|remaining| self.at + remaining);
        let root = Root { state, frame: frame.clone(), deadline };
        for share in shares {
            self.submit(order.number, &wire, frame.clone(), share, &root, None);
        }
        self.roots.insert(order.number, root);
    }

    /// Where an order stands on each device: what has no outcome may have been written.
    fn stands(&self, lane: Lane, order: &RestoredOrder) -> impl Iterator<Item = (u32, Mark)> {
        let (number, attempt) = (order.number, order.attempt.is_some());
        order.marks.iter().map(move |(position, mark)| {
            let trace = self.traces.get(&position);
            let mark = match mark {
                // Of somebody who is gone nothing is known.
                Mark::PENDING => trace.map_or(Mark::REPEAT, |trace| trace.mark(lane, number)),
                // Its record is done with the device.
                mark if attempt => mark.attempt_code().map_or(mark, Mark::ended),
                mark => mark,
            };
            (position, mark)
        })
    }

    /// A further attempt: the first order once more, under its own number.
    fn attempt(&mut self, order: &RestoredOrder, attempt: &Attempt) {
        let Some(root) = self.roots.remove(&attempt.root) else { return };
        // A first order that can be read can be sent again.
        let _ = self.attempt_of(&root, order, attempt);
        self.roots.insert(attempt.root, root);
    }

    fn attempt_of(&mut self, root: &Root, order: &RestoredOrder, attempt: &Attempt) -> Option<()> {
        let chain = Chain { root: attempt.root, attempt: attempt.attempt };
        let left = self.left(root).unwrap_or_default();
        let mut options = [0; OPTIONS_MAX];
        let frames = &self.shared.pools.frames;
        let (mut frame, delivery, wire) = attempt_frame(frames, &root.frame, chain, left, &mut options)?;
        let wire = WireOrder { number: order.number, ..wire };
        wire.emit(&delivery, frame.bytes_mut()?).ok()?;
        for share in self.shares(self.stands(wire.lane, order)) {
            self.submit(order.number, &wire, frame.clone(), share, root, Some(chain));
        }
        Some(())
    }

    /// What was under way goes on: cancelled ones are cancelled, attempts that ended are made again.
    fn go_on(&mut self, order: &RestoredOrder, attempted: &HashSet<(u64, u32)>) {
        let Some(root) = self.roots.get(&order.number) else { return };
        let again = parse(root.frame.as_ref())
            .is_some_and(|(wire, _)| wire.kind_flags.contains(KindFlags::IDEMPOTENT));
        for (position, mark) in order.marks.iter().filter(|(_, mark)| mark.is_retried()) {
            if attempted.contains(&(order.number, position)) {
                continue;
            }
            let Some(Place { shard, local }) = self.shared.directory().anchor(position) else { continue };
            let Some(shard) = self.shards.get_mut(shard) else { continue };
            if mark.attempt_code().is_some() || again {
                shard.attempt_again(order.number, local, order.attempts, mark);
            } else {
                // The record of its attempt was damaged: nobody knows what came of it.
                shard.in_doubt(order.number, local);
            }
        }
        if order.cancelled {
            for shard in self.shards.iter_mut().filter(|shard| root.state.goes_to(shard.index)) {
                shard.restore_cancel(order.number);
            }
        }
    }

    /// A key whose order is over: it is answered with how that ended.
    fn key(&self, key: &RestoredKey) {
        let shards = self.shards.len();
        let mut shares = self.shares(key.marks.iter());
        let known: usize =
            shares.iter().map(|share| share.marks.iter().filter(|&&mark| mark != 0).count()).sum();
        // Those that are gone stand behind the last shard, where nobody is.
        let gone =
            key.marks.iter().filter(|&(position, _)| self.shared.directory().anchor(position).is_none());
        let gone: Vec<u8> = gone.map(|(_, mark)| mark.0).collect();
        debug_assert_eq!(known + gone.len(), key.marks.targets().len());
        let going = shares.iter().fold(0_u64, |bits, share| bits | 1 << share.shard);
        let first = DeviceIndex(0);
        shares.push(Share { shard: shards, first, marks: gone });
        let state = State::new(key.number, key.marks.targets().len(), going, shards + 1).in_outbox(true);
        let state = Arc::new(state.named(key.key, 0, &self.shared.results));
        state.keep(Ok(()));
        key.marks.iter().filter_map(|(_, mark)| mark.code()).for_each(|code| state.count(code));
        for Share { shard, first, marks } in shares {
            let latency = self.shared.pools.take_histogram();
            drop(state.settle(shard, Part { first, marks, latency }, Frame::default()));
        }
        let until = self.at + key.remaining;
        self.shared.remember(&state);
        self.shared.keys.settled_until(until, key.key);
    }

    /// Those that are gone are taken out, and the others are dialled.
    fn finish(&mut self) {
        let head = self.shared.head();
        for position in core::mem::take(&mut self.ghosts) {
            let place = self.shared.directory().anchor(position);
            self.shared.update(|directory| directory.vacate(position, head));
            if let Some((shard, place)) =
                place.and_then(|place| Some((self.shards.get_mut(place.shard)?, place)))
            {
                shard.restore_removed(place.local);
            }
        }
        let known: Vec<_> = {
            let directory = self.shared.directory();
            let known = directory.entries().filter_map(|(position, entry)| Some((position, entry.address?)));
            known
                .filter_map(|(position, address)| Some((position, directory.anchor(position)?, address)))
                .collect()
        };
        for (position, place, address) in known {
            let met = self.traces.get(&position).is_some_and(|trace| trace.boot != 0);
            if let Some(shard) = self.shards.get_mut(place.shard) {
                shard.restore_address(
                    place.local,
                    address,
                    if met { Word::Operator } else { Word::Announce },
                );
            }
        }
    }

    /// Hands a share to its shard; what is over there already is over at once.
    fn submit(
        &mut self,
        number: u64,
        wire: &WireOrder<'_>,
        frame: Frame,
        share: Share,
        root: &Root,
        chain: Option<Chain>,
    ) {
        let Share { shard, first, marks } = share;
        let latency: Box<Histogram> = self.shared.pools.take_histogram();
        let ledger = Ledger { chain, ..Ledger::new(Arc::clone(&root.state), marks, latency) };
        let (lane, kind_flags, lifetime) = (wire.lane, wire.kind_flags, self.left(root));
        let order = NumberedOrder { number, lane, kind_flags, lifetime, frame, first, marks: ledger };
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.restore_order(order);
        }
    }
}

/// The ORDER frame at the beginning of these bytes.
fn parse(bytes: &[u8]) -> Option<(WireOrder<'_>, Delivery)> {
    let length = header::Header::parse(bytes.first_chunk()?).ok()?.length as usize;
    let frame = bytes.get(..header::LEN + length)?;
    WireOrder::parse(&Raw::parse(frame).ok()?).ok().map(|(delivery, order)| (order, delivery))
}

impl From<Device> for Entry {
    fn from(device: Device) -> Self {
        let Device { id, address, kind, zone, tags, .. } = device;
        Self { id, address, kind, zone, tags, connected: false }
    }
}
