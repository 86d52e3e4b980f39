//! Every device the server knows: what targets are resolved against and what an operator is shown.
//!
//! A device has one position here, the same for all shards, and a place: its shard, and its index in that shard's fleet.
//! Positions rise in the order devices were added; one is given again only when every other was given before.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use wire_format::ids::{DeviceKind, NodeId, Tags};

use super::positions::Positions;
use super::shared::Word;
use super::{Device, Target};
use crate::fleet::DeviceIndex;
use crate::mark::Mark;

/// Positions for each device there is room for, where those of removed ones cannot be given again: a durable order that lives
/// names them.
const SPARE: usize = 2;

/// A device as the server knows it, connected or not.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id; `None` for a device given by address alone that has not been reached yet.
    pub id: Option<NodeId>,
    /// Where it is dialled.
    pub address: Option<SocketAddr>,
    /// Its kind, last heard or configured.
    pub kind: DeviceKind,
    /// Its zone, 0 for none.
    pub zone: u32,
    /// Its tags.
    pub tags: Tags,
    /// Whether a session is open.
    pub connected: bool,
}

impl From<Device> for Entry {
    fn from(device: Device) -> Self {
        let Device { id, address, kind, zone, tags } = device;
        Self { id, address: Some(address), kind, zone, tags, connected: false }
    }
}

impl Entry {
    const NOBODY: Self = Self {
        id: None,
        address: None,
        kind: DeviceKind::TILL,
        zone: 0,
        tags: Tags::EMPTY,
        connected: false,
    };

    /// Whether the outbox would keep the same of both.
    fn is_described_as(&self, other: &Self) -> bool {
        let described = |entry: &Self| (entry.id, entry.address, entry.kind, entry.zone, entry.tags);
        described(self) == described(other)
    }
}

/// Where a device is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) local: DeviceIndex,
}

/// A position: a device, or one that was removed.
#[derive(Debug)]
struct Slot {
    entry: Entry,
    shard: usize,
    /// `None` until the shard has taken it in.
    local: Option<DeviceIndex>,
    listed: bool,
    /// Nothing but announces speaks for it: nobody listed it, and no session was open.
    announced: bool,
    /// Orders numbered below this one were for the device that had the place before.
    since: u64,
    /// The outbox does not have it as it is, ...
    changed: bool,
    /// ... and is to get it.
    queued: bool,
}

impl Slot {
    const fn new(entry: Entry, shard: usize, announced: bool) -> Self {
        let (local, listed, since) = (None, true, 0);
        Self { entry, shard, local, listed, announced, since, changed: true, queued: false }
    }
}

/// What came of adding a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It is listed already.
    Known(u32),
    /// This position, at this shard.
    New(u32, usize),
    /// Every position is in use.
    Full,
}

/// The devices by their position.
#[derive(Debug)]
pub(super) struct Directory {
    slots: Vec<Slot>,
    capacity: usize,
    by_id: HashMap<NodeId, u32>,
    /// Devices of an earlier run by their address, until somebody lists that.
    by_address: HashMap<SocketAddr, u32>,
    /// Positions of removed devices, first removed first, with the highest number that may name them.
    free: VecDeque<(u32, u64)>,
    /// Positions by index, per shard.
    locals: Box<[Vec<u32>]>,
    /// Devices listed, per shard.
    loads: Box<[usize]>,
    listed: usize,
}

/// What one shard has to do with an order: one mark per device of it, from the lowest index to the highest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) shard: usize,
    pub(super) first: DeviceIndex,
    pub(super) marks: Vec<u8>,
}

impl Share {
    /// Adds a device, wherever its index lies.
    fn insert(&mut self, local: DeviceIndex) {
        self.put(local, Mark::PENDING);
    }

    /// Adds a device on which the order stands so.
    pub(super) fn put(&mut self, local: DeviceIndex, stands: Mark) {
        if local.0 < self.first.0 {
            let gap = (self.first.0 - local.0) as usize;
            self.marks.splice(0..0, std::iter::repeat_n(Mark::NOT_TARGETED.0, gap));
            self.first = local;
        }
        let at = (local.0 - self.first.0) as usize;
        if at >= self.marks.len() {
            self.marks.resize(at + 1, Mark::NOT_TARGETED.0);
        }
        if let Some(mark) = self.marks.get_mut(at) {
            *mark = stands.0;
        }
    }
}

impl Directory {
    /// For that many shards, and at most `capacity` devices in all.
    pub(super) fn new(shards: usize, capacity: usize) -> Self {
        Self {
            slots: Vec::with_capacity(capacity),
            capacity,
            by_id: HashMap::with_capacity(capacity),
            by_address: HashMap::new(),
            free: VecDeque::new(),
            locals: std::iter::repeat_with(Vec::new).take(shards).collect(),
            loads: vec![0; shards].into(),
            listed: 0,
        }
    }

    /// Every listed device, with its position, in the order of their positions.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        let slots = (0..).zip(&self.slots);
        slots.filter(|(_, slot)| slot.listed).map(|(position, slot)| (position, &slot.entry))
    }

    pub(super) const fn len(&self) -> usize {
        self.listed
    }

    pub(super) fn find(&self, id: NodeId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// What is listed at a position.
    pub(super) fn entry(&self, position: u32) -> Option<&Entry> {
        self.slots.get(position as usize).filter(|slot| slot.listed).map(|slot| &slot.entry)
    }

    /// Where a listed device is served; the index is `None` until its shard has taken it in.
    pub(super) fn place(&self, position: u32) -> Option<(usize, Option<DeviceIndex>)> {
        let slot = self.slots.get(position as usize).filter(|slot| slot.listed)?;
        Some((slot.shard, slot.local))
    }

    /// Where the device of a position is served, or was: its shard knows it as long as an order that names it lives.
    pub(super) fn anchor(&self, position: u32) -> Option<Place> {
        let slot = self.slots.get(position as usize)?;
        slot.local.map(|local| Place { shard: slot.shard, local })
    }

    /// Puts a device back at its position, as the next one of the shard with the fewest. Without an entry it is one that is
    /// named, and gone. In the order of positions.
    pub(super) fn restore(&mut self, position: u32, entry: Option<&Entry>, announced: bool) -> Option<Place> {
        while self.slots.len() < position as usize {
            let hole = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot { listed: false, ..Slot::new(Entry::NOBODY, 0, false) });
            self.vacate(hole, 0);
        }
        let (shard, locals) = self.locals.iter_mut().enumerate().min_by_key(|(_, locals)| locals.len())?;
        let local = DeviceIndex(u32::try_from(locals.len()).ok()?);
        locals.push(position);
        // An id is one device's alone: whoever comes second is gone.
        let entry = entry.filter(|entry| entry.id.is_none_or(|id| !self.by_id.contains_key(&id)));
        let slot = Slot::new(entry.cloned().unwrap_or(Entry::NOBODY), shard, announced);
        let (listed, local_of) = (entry.is_some(), Some(local));
        self.slots.push(Slot { listed, local: local_of, changed: false, ..slot });
        if let Some(entry) = entry {
            self.by_id.extend(entry.id.map(|id| (id, position)));
            self.by_address.extend(entry.address.map(|address| (address, position)));
            self.listed += 1;
        }
        if let Some(load) = self.loads.get_mut(shard) {
            *load += usize::from(listed);
        }
        Some(Place { shard, local })
    }

    /// The device of an earlier run at this address, for whoever lists the address alone. Asked once.
    fn claim(&mut self, address: SocketAddr) -> Option<u32> {
        let position = self.by_address.remove(&address)?;
        self.entry(position).filter(|entry| entry.address == Some(address)).map(|_| position)
    }

    /// The position of a shard's device.
    pub(super) fn position(&self, place: Place) -> Option<u32> {
        self.locals.get(place.shard)?.get(place.local.0 as usize).copied()
    }

    /// Who had a shard's place when the order `number` was pushed; `None` in place of the entry if it was removed since.
    pub(super) fn holder(&self, place: Place, number: u64) -> (u32, Option<&Entry>) {
        let Some(position) = self.position(place) else { return (u32::MAX, None) };
        let slot = self.slots.get(position as usize);
        let same = |slot: &&Slot| {
            slot.since <= number && slot.shard == place.shard && slot.local == Some(place.local)
        };
        (position, slot.filter(same).map(|slot| &slot.entry))
    }

    /// Lists a device at the shard with the fewest, unless its id is listed. No order below the number `lowest` names a
    /// position any more.
    pub(super) fn reserve(&mut self, device: Device, word: Word, lowest: u64) -> Reserved {
        let announced = word == Word::Announce;
        let known = match device.id {
            Some(id) => self.find(id),
            None => self.claim(device.address),
        };
        if let Some(position) = known {
            if let Some(slot) = self.slots.get_mut(position as usize) {
                slot.announced &= announced;
            }
            return Reserved::Known(position);
        }
        let least = self.loads.iter().enumerate().min_by_key(|&(_, load)| *load);
        let Some((shard, _)) = least.filter(|_| self.listed < self.capacity) else { return Reserved::Full };
        let slot = Slot::new(device.into(), shard, announced);
        let Some(position) = self.vacant(lowest) else { return Reserved::Full };
        match self.slots.get_mut(position as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        if let Some(id) = device.id {
            self.by_id.insert(id, position);
        }
        if let Some(load) = self.loads.get_mut(shard) {
            *load += 1;
        }
        self.listed += 1;
        Reserved::New(position, shard)
    }

    /// A position for a new device. Those of removed ones are given again when every other was given, and nothing names them.
    fn vacant(&mut self, lowest: u64) -> Option<u32> {
        let spent = self.slots.len() >= self.capacity;
        match self.free.front() {
            Some(&(position, named)) if spent && named < lowest => {
                self.free.pop_front();
                Some(position)
            }
            _ if self.slots.len() < self.capacity.saturating_mul(SPARE) => {
                u32::try_from(self.slots.len()).ok()
            }
            _ => None,
        }
    }

    /// The shard has taken the device in; orders from `since` on may be for it.
    pub(super) fn settle_in(&mut self, position: u32, local: DeviceIndex, since: u64) {
        let Some(slot) = self.slots.get_mut(position as usize).filter(|slot| slot.listed) else { return };
        (slot.local, slot.since) = (Some(local), since);
        let Some(locals) = self.locals.get_mut(slot.shard) else { return };
        let at = local.0 as usize;
        match locals.get_mut(at) {
            Some(place) => *place = position,
            None => {
                debug_assert_eq!(at, locals.len(), "a fleet numbers devices densely");
                locals.push(position);
            }
        }
    }

    /// Takes a device off the list; where it was served. Its entry stays for the reports of orders it was for. One whose
    /// shard has not taken it in yet stays.
    pub(super) fn remove(&mut self, position: u32) -> Option<Place> {
        let (shard, local) = self.place(position)?;
        let local = local?;
        self.unlist(position);
        Some(Place { shard, local })
    }

    /// Takes a position back, be it taken in or not.
    pub(super) fn unlist(&mut self, position: u32) {
        let Some(slot) = self.slots.get_mut(position as usize).filter(|slot| slot.listed) else { return };
        slot.listed = false;
        let (id, shard) = (slot.entry.id, slot.shard);
        if let Some(id) = id.filter(|&id| self.by_id.get(&id) == Some(&position)) {
            self.by_id.remove(&id);
        }
        if let Some(load) = self.loads.get_mut(shard) {
            *load -= 1;
        }
        self.listed -= 1;
    }

    /// The position of a removed device is free for another one, once no order up to the number `named` lives.
    pub(super) fn vacate(&mut self, position: u32, named: u64) {
        self.free.push_back((position, named));
    }

    /// The outbox is to get a device as it is, if it does not have it so. False if it has, or if it is asked for already.
    pub(super) fn note_changed(&mut self, position: u32) -> bool {
        let Some(slot) = self.slots.get_mut(position as usize).filter(|slot| slot.listed) else {
            return false;
        };
        let news = slot.changed && !slot.queued;
        slot.queued |= news;
        news
    }

    /// The device at a position, for the outbox.
    pub(super) fn take_changed(&mut self, position: u32) -> Option<Entry> {
        let slot = self.slots.get_mut(position as usize).filter(|slot| slot.listed)?;
        (slot.changed, slot.queued) = (false, false);
        Some(slot.entry.clone())
    }

    /// The outbox does not have what it was given.
    pub(super) fn put_changed(&mut self, position: u32) {
        if let Some(slot) = self.slots.get_mut(position as usize) {
            slot.changed = true;
        }
    }

    /// The positions of the devices of these shares.
    pub(super) fn positions(&self, shares: &[Share]) -> Positions {
        let mut positions = Positions::default();
        for Share { shard, first, marks } in shares {
            let locals = self.locals.get(*shard).and_then(|locals| locals.get(first.0 as usize..));
            let meant = locals.unwrap_or_default().iter().zip(marks);
            for (&position, _) in meant.filter(|&(_, &mark)| mark != Mark::NOT_TARGETED.0) {
                positions.insert(position);
            }
        }
        positions
    }

    /// Changes what is known of a shard's device; false if its id belongs to another listed device.
    pub(super) fn update(&mut self, place: Place, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(position) = self.position(place) else { return true };
        let slot = self.slots.get_mut(position as usize);
        let same = |slot: &&mut Slot| slot.shard == place.shard && slot.local == Some(place.local);
        let Some(slot) = slot.filter(same) else { return true };
        let before = slot.entry.clone();
        change(&mut slot.entry);
        slot.changed |= !slot.entry.is_described_as(&before);
        slot.announced &= !slot.entry.connected;
        match slot.entry.id {
            Some(id) if slot.listed => *self.by_id.entry(id).or_insert(position) == position,
            _ => true,
        }
    }

    /// Devices for which nothing but announces speaks.
    pub(super) fn announced(&self) -> impl Iterator<Item = (u32, NodeId)> {
        let listed = (0..).zip(&self.slots).filter(|(_, slot)| slot.listed && slot.announced);
        listed.filter_map(|(position, slot)| Some((position, slot.entry.id?)))
    }

    /// Writes down what each shard has to do for `target`, and how many devices it is for in all. `marks` gives empty
    /// buffers.
    pub(super) fn resolve(&self, target: &Target, marks: impl FnMut() -> Vec<u8>) -> (Vec<Share>, usize) {
        match target.named() {
            Some(ids) if ids.len() < self.slots.len() / 8 => {
                let positions = ids.iter().filter_map(|&id| self.find(id));
                self.share(positions.filter(|&position| self.is_meant(position, target)), false, marks)
            }
            _ => {
                let positions = self.entries().filter(|(_, entry)| target.matches(entry));
                self.share(positions.map(|(position, _)| position), true, marks)
            }
        }
    }

    fn is_meant(&self, position: u32, target: &Target) -> bool {
        self.entry(position).is_some_and(|entry| target.matches(entry))
    }

    /// The shares of these devices. `dense` if most devices may be among them.
    pub(super) fn share(
        &self,
        positions: impl Iterator<Item = u32>,
        dense: bool,
        mut marks: impl FnMut() -> Vec<u8>,
    ) -> (Vec<Share>, usize) {
        let mut by_shard: Vec<Option<Share>> = self.loads.iter().map(|_| None).collect();
        let mut targets = 0;
        for position in positions {
            let Some((shard, Some(local))) = self.place(position) else { continue };
            let Some(share) = by_shard.get_mut(shard) else { continue };
            let share = share.get_or_insert_with(|| {
                let mut marks = marks();
                marks.clear();
                // A byte for each device that may follow, and not twice as many, as a growing buffer would take.
                if dense {
                    let last = self.locals.get(shard).map_or(0, Vec::len);
                    marks.reserve_exact(last.saturating_sub(local.0 as usize));
                }
                Share { shard, first: local, marks }
            });
            share.insert(local);
            targets += 1;
        }
        (by_shard.into_iter().flatten().collect(), targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u8) -> Device {
        Device {
            id: (n != 7).then_some(NodeId([n + 1; 16])),
            address: ([127, 0, 0, 1], 1).into(),
            kind: DeviceKind(u16::from(n % 4)),
            zone: u32::from(n / 10),
            tags: Tags::new(n.is_multiple_of(5).then_some("fifth")).unwrap(),
        }
    }

    fn add(directory: &mut Directory, device: Device, since: u64) -> u32 {
        let Reserved::New(position, shard) = directory.reserve(device, Word::Operator, u64::MAX) else {
            panic!("new")
        };
        let local = directory.locals[shard].len() as u32;
        directory.settle_in(position, DeviceIndex(local), since);
        position
    }

    fn directory(shards: usize) -> Directory {
        let mut directory = Directory::new(shards, 64);
        for n in 0..40_u8 {
            assert_eq!(add(&mut directory, device(n), 1), u32::from(n));
        }
        directory
    }

    /// The positions an order would go to.
    fn resolve(directory: &Directory, target: &Target) -> Vec<u32> {
        let (shares, targets) = directory.resolve(target, || vec![0xEE; 3]);
        let mut hits = Vec::new();
        for Share { shard, first, marks } in shares {
            let pending = Mark::PENDING.0;
            assert_eq!((marks.first(), marks.last()), (Some(&pending), Some(&pending)));
            for (local, _) in (first.0..).zip(&marks).filter(|&(_, &mark)| mark == pending) {
                hits.push(directory.position(Place { shard, local: DeviceIndex(local) }).unwrap());
            }
        }
        hits.sort_unstable();
        assert_eq!(hits.len(), targets);
        hits
    }

    #[test]
    fn words_narrow_each_other_over_any_number_of_shards() {
        for shards in 1..=5 {
            let directory = directory(shards);
            let resolve = |target| resolve(&directory, &target);
            assert_eq!(resolve(Target::all()).len(), 40);
            assert_eq!(resolve(Target::zone(3).and_tag("fifth")), [30, 35]);
            assert_eq!(resolve(Target::kind(DeviceKind(1)).and_zone(0)), [1, 5, 9]);
            assert_eq!(resolve(Target::tag("sixth")), []);
        }
    }

    #[test]
    fn ids_are_looked_up_or_walked_alike() {
        let directory = directory(3);
        let resolve = |target| resolve(&directory, &target);
        let id = |n: u8| NodeId([n; 16]);
        assert_eq!(resolve(Target::ids([id(20), id(4), id(20)])), [3, 19]);
        assert_eq!(resolve(Target::ids([id(4), id(20)]).and_zone(1)), [19]);
        assert_eq!(resolve(Target::ids((1..30).map(id))).len(), 28, "position 7 has no id yet");
        assert_eq!(resolve(Target::id(id(8))), [], "position 7 has no id yet");
        assert_eq!(resolve(Target::id(id(99))), []);
    }

    #[test]
    fn devices_are_spread_evenly_and_known_ones_found() {
        let mut directory = directory(3);
        assert_eq!(*directory.loads, [14, 13, 13]);
        assert_eq!(directory.reserve(device(4), Word::Operator, u64::MAX), Reserved::Known(4));
        (40..64).for_each(|n| assert_eq!(add(&mut directory, device(n), 1), u32::from(n)));
        assert_eq!(directory.reserve(device(64), Word::Operator, u64::MAX), Reserved::Full, "64 are listed");
    }

    #[test]
    fn a_removed_device_is_nobody_s_target_and_old_reports_do_not_name_its_successor() {
        let mut directory = directory(2);
        let place = Place { shard: 1, local: DeviceIndex(4) };
        assert_eq!(directory.remove(9), Some(place));
        assert_eq!(directory.remove(9), None);
        assert!(!resolve(&directory, &Target::all()).contains(&9));
        assert_eq!(directory.find(NodeId([10; 16])), None);
        assert!(directory.holder(place, 5).1.is_some(), "its name stays for its orders");
        (40..64).for_each(|n| assert_eq!(add(&mut directory, device(n), 1), u32::from(n)));
        directory.vacate(9, 5);
        let over = directory.reserve(device(200), Word::Operator, 5);
        assert_eq!(over, Reserved::New(64, 1), "an order that lives names the position");
        directory.unlist(64);
        let Reserved::New(9, 1) = directory.reserve(device(200), Word::Operator, 6) else {
            panic!("the freed position")
        };
        directory.settle_in(9, DeviceIndex(4), 6);
        assert!(directory.holder(place, 5).1.is_none());
        assert_eq!(directory.holder(place, 6).1.unwrap().id, Some(NodeId([201; 16])));
    }

    #[test]
    fn positions_are_used_up_only_while_orders_name_them() {
        let mut directory = Directory::new(1, 3);
        let named = 10;
        for round in 0..3 {
            assert_eq!(add(&mut directory, device(round), 1), u32::from(round));
        }
        for round in 3..6 {
            let position = u32::from(round) - 3;
            assert!(directory.remove(position).is_some());
            directory.vacate(position, named);
            let fresh = directory.reserve(device(round), Word::Operator, named);
            assert_eq!(fresh, Reserved::New(round.into(), 0), "an order names the others");
            directory.settle_in(round.into(), DeviceIndex(round.into()), 1);
        }
        assert!(directory.remove(3).is_some());
        directory.vacate(3, named + 1);
        assert_eq!(directory.reserve(device(6), Word::Operator, named), Reserved::Full);
        assert_eq!(directory.reserve(device(6), Word::Operator, named + 1), Reserved::New(0, 0));
    }

    #[test]
    fn an_id_is_one_device_s_alone() {
        let mut directory = directory(2);
        let place = Place { shard: 1, local: DeviceIndex(3) };
        assert!(!directory.update(place, |entry| entry.id = Some(NodeId([1; 16]))), "position 0 has it");
        assert!(directory.update(place, |entry| entry.id = Some(NodeId([8; 16]))));
        assert_eq!(directory.find(NodeId([8; 16])), Some(7));
    }
}
