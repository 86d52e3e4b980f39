//! What this device remembers of the application's keys, beyond the lineage they came in.
//!
//! **Order keys.** A key names a request; attempts, and pushes of it at another server, repeat it. The table keeps the
//! last ones that began, without those that ended without an effect, so that the same request in another lineage is
//! answered DUPLICATE with how it ended first. Within a lineage a key means nothing: the number is the identity there.
//!
//! **Supersede keys.** Orders of one key replace each other by version. The table keeps the newest version begun, so that
//! an older one that comes later, from whatever log, ends as SUPERSEDED. The same version may begin again only if it ended
//! without an effect: that is another attempt at it.

use wire_format::frame::outcome::Code;

use super::floors::Log;
use super::record::Record;
use super::ring::{Note, Place, pack};

/// One order key: 16 bytes of the storage given to [`super::Receiver::new`].
#[derive(Clone, Copy, Debug)]
pub struct KeySlot {
    /// 0 for a free slot.
    key: u64,
    /// Low bits of the number it came under.
    number: u32,
    /// How it ended; 0 as long as it is at work.
    code: u8,
    /// Where it came; its log is [`Log::GONE`] when its lineage is not kept any more.
    log_lane: u8,
    /// No END tells the journal how it ended: a record of its own has to.
    is_due: bool,
}

const _: () = assert!(size_of::<KeySlot>() == 16);

impl KeySlot {
    /// A free slot, to fill the storage with.
    pub const EMPTY: Self = Self { key: 0, number: 0, code: 0, log_lane: 0, is_due: false };

    /// It had no effect, and stays until the journal knows.
    fn goes(&self) -> bool {
        self.code != 0 && !had_effect(Code(self.code))
    }

    /// The journal knows.
    fn tell(&mut self) {
        if self.goes() {
            *self = Self::EMPTY;
        }
        self.is_due = false;
    }
}

/// One supersede key: 24 bytes of the storage given to [`super::Receiver::new`].
#[derive(Clone, Copy, Debug)]
pub struct VersionSlot {
    /// 0 for a free slot.
    key: u64,
    /// The newest version begun.
    version: u64,
    /// Low bits of the number it came under.
    number: u32,
    /// When it was used last, by [`Keys::uses`].
    used: u16,
    log_lane: u8,
    flags: u8,
}

/// It ended without an effect: the same version may begin again.
const AGAIN: u8 = 0x01;
/// No END tells the journal how it ended: a record of its own has to.
const DUE: u8 = 0x02;

const _: () = assert!(size_of::<VersionSlot>() == 24);

impl VersionSlot {
    /// A free slot, to fill the storage with.
    pub const EMPTY: Self = Self { key: 0, version: 0, number: 0, used: 0, log_lane: 0, flags: 0 };

    /// One as the journal tells it.
    pub(super) const fn restored(key: u64, version: u64, number: u32, log_lane: u8, again: bool) -> Self {
        let flags = if again { AGAIN } else { 0 };
        Self { key, version, number, used: 0, log_lane, flags }
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What the journal is told of it.
    const fn record(&self, uses: u16, may_again: bool) -> Record {
        let Self { key, version, number, used, log_lane, .. } = *self;
        let (again, age) = (self.has(AGAIN) || may_again, uses.wrapping_sub(used));
        Record::Version { log_lane, again, age, number, key, version }
    }
}

/// Oldest versions that are looked at for one whose order is settled, before the oldest goes anyway.
const EVICT_TRIES: usize = 4;

/// What the tables say of an order that is about to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing.
    Start,
    /// The request had its effect in another lineage, and ended so.
    Duplicate(Code),
    /// The request is at work in another lineage.
    AtWork,
    /// A newer version has begun.
    Superseded,
}

/// The keys of an order; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OrderKeys {
    pub(super) key: u64,
    pub(super) supersede: u64,
    pub(super) version: u64,
}

impl OrderKeys {
    pub(super) const NONE: Self = Self { key: 0, supersede: 0, version: 0 };
}

/// Both tables.
#[derive(Debug)]
pub(super) struct Keys<K, V> {
    keys: K,
    versions: V,
    /// The slot the next order key takes.
    next: u16,
    uses: u16,
    /// The journal has to be told of some by themselves.
    is_due: bool,
}

/// Whether an order that ended so had an effect, or may have had one.
pub(super) fn had_effect(code: Code) -> bool {
    matches!(code, Code::APPLIED | Code::FAILED | Code::IN_DOUBT)
}

impl<K, V> Keys<K, V>
where
    K: AsRef<[KeySlot]> + AsMut<[KeySlot]>,
    V: AsRef<[VersionSlot]> + AsMut<[VersionSlot]>,
{
    pub(super) fn new(mut keys: K, mut versions: V) -> Self {
        keys.as_mut().fill(KeySlot::EMPTY);
        versions.as_mut().fill(VersionSlot::EMPTY);
        Self { keys, versions, next: 0, uses: 0, is_due: false }
    }

    /// Whether an order of this log may start.
    pub(super) fn judge(&self, log: Log, keys: OrderKeys) -> Judgement {
        let elsewhere = |slot: &&KeySlot| slot.key == keys.key && slot.log_lane >> 2 != log.0 && !slot.goes();
        if keys.key != 0
            && let Some(slot) = self.keys.as_ref().iter().find(elsewhere)
        {
            return if slot.code == 0 { Judgement::AtWork } else { Judgement::Duplicate(Code(slot.code)) };
        }
        let newer = |slot: &&VersionSlot| {
            slot.key == keys.supersede
                && (keys.version < slot.version || (keys.version == slot.version && !slot.has(AGAIN)))
        };
        if keys.supersede != 0 && self.versions.as_ref().iter().any(|slot| newer(&slot)) {
            return Judgement::Superseded;
        }
        Judgement::Start
    }

    /// An order starts. `owes` tells whether the order in a log and lane with these low bits of its number is not settled.
    pub(super) fn start(&mut self, place: Place, keys: OrderKeys, owes: impl Fn(u8, u32) -> bool) {
        let (number, log_lane) = (low(place.number), pack(place.log, place.lane));
        // Two orders of one lineage may have the same key and be at work in two lanes: the end of each tells of itself.
        let has_ended = |slot: &KeySlot| slot.key == keys.key && slot.code != 0 && !slot.goes();
        if keys.key != 0 && !self.keys.as_ref().iter().any(has_ended) {
            let at = self.key_place();
            if let Some(slot) = self.keys.as_mut().get_mut(at) {
                *slot = KeySlot { key: keys.key, number, log_lane, ..KeySlot::EMPTY };
            }
        }
        if keys.supersede == 0 {
            return;
        }
        self.uses = self.uses.wrapping_add(1);
        let used = self.uses;
        let Some(at) = self.version_place(keys.supersede, owes) else { return };
        if let Some(slot) = self.versions.as_mut().get_mut(at) {
            let (key, version) = (keys.supersede, keys.version);
            *slot = VersionSlot { key, version, number, used, log_lane, flags: 0 };
        }
    }

    /// An order that had started has ended; `alone` if no END will tell the journal so, which has to know all the same.
    pub(super) fn end(&mut self, place: Place, code: Code, alone: Note) {
        let (number, log_lane) = (low(place.number), pack(place.log, place.lane));
        let is_due = alone != Note::NONE;
        let is_it = |slot: &&mut KeySlot| {
            slot.key != 0 && slot.code == 0 && slot.number == number && slot.log_lane == log_lane
        };
        if let Some(slot) = self.keys.as_mut().iter_mut().find(is_it) {
            (slot.code, slot.is_due) = (code.0, is_due);
            if !is_due && slot.goes() {
                *slot = KeySlot::EMPTY;
            }
            self.is_due |= is_due;
        }
        let is_it =
            |slot: &&mut VersionSlot| slot.key != 0 && slot.number == number && slot.log_lane == log_lane;
        if let Some(slot) = self.versions.as_mut().iter_mut().find(is_it) {
            slot.flags |= if had_effect(code) { 0 } else { AGAIN } | if is_due { DUE } else { 0 };
            self.is_due |= is_due;
        }
    }

    /// Whether [`Keys::take_due`] has something.
    pub(super) const fn is_due(&self) -> bool {
        self.is_due
    }

    /// What the journal has to be told by itself of a key.
    pub(super) fn take_due(&mut self) -> Option<Record> {
        if !self.is_due {
            return None;
        }
        if let Some(slot) = self.keys.as_mut().iter_mut().find(|slot| slot.is_due) {
            let KeySlot { key, number, code, log_lane, .. } = *slot;
            slot.tell();
            return Some(Record::Key { log_lane, code: Code(code), number, key });
        }
        let uses = self.uses;
        let Some(slot) = self.versions.as_mut().iter_mut().find(|slot| slot.has(DUE)) else {
            self.is_due = false;
            return None;
        };
        slot.flags &= !DUE;
        Some(slot.record(uses, false))
    }

    /// The journal was told of everything.
    pub(super) fn tell_all(&mut self) {
        if core::mem::take(&mut self.is_due) {
            self.keys.as_mut().iter_mut().for_each(KeySlot::tell);
            self.versions.as_mut().iter_mut().for_each(|slot| slot.flags &= !DUE);
        }
    }

    /// The lineage behind a log is gone: what its keys name stays, where they came does not matter any more.
    pub(super) fn forget(&mut self, log: Log) {
        let gone = |log_lane: &mut u8| {
            if *log_lane >> 2 == log.0 {
                *log_lane = (Log::GONE.0 << 2) | (*log_lane & 0x03);
            }
        };
        self.keys.as_mut().iter_mut().for_each(|slot| gone(&mut slot.log_lane));
        self.versions.as_mut().iter_mut().for_each(|slot| gone(&mut slot.log_lane));
    }

    /// The keys of an order that has begun, as far as the tables hold them under it.
    pub(super) fn of(&self, place: Place) -> OrderKeys {
        let (number, log_lane) = (low(place.number), pack(place.log, place.lane));
        let mut keys = self.keys.as_ref().iter();
        let key = keys.find(|slot| slot.key != 0 && slot.number == number && slot.log_lane == log_lane);
        let mut versions = self.versions.as_ref().iter();
        let version =
            versions.find(|slot| slot.key != 0 && slot.number == number && slot.log_lane == log_lane);
        OrderKeys {
            key: key.map_or(0, |slot| slot.key),
            supersede: version.map_or(0, |slot| slot.key),
            version: version.map_or(0, |slot| slot.version),
        }
    }

    /// The record of the `nth` order key, the one to be forgotten first in front; `None` behind the last, and
    /// `Some(None)` for a free slot and one at work. `at_work` tells what stands for a key whose order has not ended.
    pub(super) fn key_record(
        &self,
        nth: u16,
        at_work: impl Fn(u8, u32) -> Option<Code>,
    ) -> Option<Option<Record>> {
        let slots = self.keys.as_ref();
        let (count, nth) = (slots.len(), usize::from(nth));
        let at = usize::from(self.next).saturating_add(nth);
        let at = if at < count { at } else { at.saturating_sub(count) };
        let slot = slots.get(at).filter(|_| nth < count)?;
        let KeySlot { key, number, log_lane, .. } = *slot;
        let code = if slot.code == 0 { at_work(log_lane, number) } else { Some(Code(slot.code)) };
        let code = code.filter(|_| key != 0 && !slot.goes());
        Some(code.map(|code| Record::Key { log_lane, code, number, key }))
    }

    /// The record of the `nth` supersede key. `may_again` tells of an order that has not ended whether it may run again.
    pub(super) fn version_record(
        &self,
        nth: u16,
        may_again: impl Fn(u8, u32) -> bool,
    ) -> Option<Option<Record>> {
        let slot = self.versions.as_ref().get(usize::from(nth))?;
        let record = slot.record(self.uses, may_again(slot.log_lane, slot.number));
        Some((slot.key != 0).then_some(record))
    }

    /// An order key as the journal tells it. What had no effect takes back what its START said.
    pub(super) fn restore_key(&mut self, log_lane: u8, code: Code, number: u32, key: u64) {
        let is_it = |slot: &KeySlot| slot.key == key && slot.number == number && slot.log_lane == log_lane;
        let known = self.keys.as_ref().iter().position(is_it);
        let slot = KeySlot { key, number, code: code.0, log_lane, is_due: false };
        if known.is_none() && slot.goes() {
            return;
        }
        let at = known.unwrap_or_else(|| self.key_place());
        if let Some(place) = self.keys.as_mut().get_mut(at) {
            *place = if slot.goes() { KeySlot::EMPTY } else { slot };
        }
    }

    /// A supersede key as the journal tells it. `false` if there is no room.
    pub(super) fn restore_version(&mut self, slot: VersionSlot, age: u16) {
        let used = self.uses.wrapping_sub(age);
        if let Some(at) = self.version_place(slot.key, |_, _| false)
            && let Some(place) = self.versions.as_mut().get_mut(at)
        {
            *place = VersionSlot { used, ..slot };
        }
    }

    /// An order ended, as the journal tells it; its start was told before, or was not told at all.
    pub(super) fn restore_end(&mut self, place: Place, code: Code, keys: OrderKeys) {
        let known = self.of(place);
        let key = if known.key == keys.key { 0 } else { keys.key };
        let supersede = if known.supersede == keys.supersede { 0 } else { keys.supersede };
        self.start(place, OrderKeys { key, supersede, ..keys }, |_, _| false);
        self.end(place, code, Note::NONE);
    }

    /// What began before the boot and was not told to have ended may have had an effect.
    pub(super) fn end_boot(&mut self) {
        for slot in self.keys.as_mut().iter_mut().filter(|slot| slot.key != 0 && slot.code == 0) {
            slot.code = Code::IN_DOUBT.0;
        }
    }

    /// The slot for an order key: a free one, else the next in turn.
    fn key_place(&mut self) -> usize {
        let slots = self.keys.as_ref();
        if let Some(free) = slots.iter().position(|slot| slot.key == 0) {
            return free;
        }
        let (at, count) = (usize::from(self.next), slots.len());
        self.next = self.next.checked_add(1).filter(|next| usize::from(*next) < count).unwrap_or(0);
        at
    }

    /// The slot for a key: its own, a free one, or that of the key used least lately, of a settled order if possible.
    fn version_place(&self, key: u64, owes: impl Fn(u8, u32) -> bool) -> Option<usize> {
        let slots = self.versions.as_ref();
        let own = slots.iter().position(|slot| slot.key == key);
        if let Some(at) = own.or_else(|| slots.iter().position(|slot| slot.key == 0)) {
            return Some(at);
        }
        let age = |slot: &VersionSlot| self.uses.wrapping_sub(slot.used);
        let mut younger_than = u32::from(u16::MAX).saturating_add(1);
        let mut oldest = None;
        for _ in 0..EVICT_TRIES {
            let candidates = slots.iter().enumerate().filter(|(_, slot)| u32::from(age(slot)) < younger_than);
            let Some((at, slot)) = candidates.max_by_key(|(_, slot)| age(slot)) else { break };
            if !owes(slot.log_lane, slot.number) {
                return Some(at);
            }
            oldest = oldest.or(Some(at));
            younger_than = age(slot).into();
        }
        oldest
    }
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
#[path = "tests/keys.rs"]
mod tests;
