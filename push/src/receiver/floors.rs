//! How far each lane of each lineage has come on this device.
//!
//! A floor is the number of the last order of its lane that *ended* here. What comes with that number or a lower one is
//! a duplicate and never handed over again. One volatile lineage is kept, because its server draws a new one at each
//! start and nobody can ask about the old one; of durable lineages as many as the storage has room for, the one not used
//! for longest making room.

use wire_format::frame::hello::{Hello, LogHead};
use wire_format::frame::welcome::{LaneFloor, LogFloors};
use wire_format::ids::{Lane, Lineage};

/// Which of the kept lineages: 0 the volatile one, then the durable ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log(pub(super) u8);

impl Log {
    pub(super) const VOLATILE: Self = Self(0);
    /// Stands for every lineage that is not kept any more.
    pub(super) const GONE: Self = Self(7);

    /// Whether it is a durable one.
    pub(super) const fn is_durable(self) -> bool {
        self.0 != 0
    }
}

/// The two logs of a session: where the device keeps them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Logs {
    pub(super) volatile: Option<Log>,
    pub(super) durable: Option<Log>,
}

impl Logs {
    /// The log an ORDER or SETTLED means; `None` if the server has said it has none such.
    pub(super) const fn of(&self, durable: bool) -> Option<Log> {
        if durable { self.durable } else { self.volatile }
    }

    /// Both.
    pub(super) const fn both(&self) -> [Option<Log>; 2] {
        [self.volatile, self.durable]
    }

    /// Whether the session is about this log.
    pub(super) fn has(&self, log: Log) -> bool {
        self.volatile == Some(log) || self.durable == Some(log)
    }
}

/// One lineage: 96 bytes of the storage given to [`super::Receiver::new`]. The first is for the volatile log, the others
/// for durable ones; more than 7 are not used.
#[derive(Clone, Copy, Debug)]
pub struct LogSlot {
    floors: LogFloors,
    /// The run it was in when it was named last.
    run: u64,
    /// How many durable lineages were used since it was.
    age: u8,
    /// A bit for each lane of which something was settled that is not in the journal.
    settled: u8,
    flags: u8,
}

const _: () = assert!(size_of::<LogSlot>() <= 96);

/// Its lineage, or its run, is not in the journal.
const PENDING: u8 = 0x01;
/// The journal has it and has not synced it.
const TOLD: u8 = 0x02;
/// Its server has not shown that it knows what this device knows of it.
const UNNAMED: u8 = 0x04;

impl LogSlot {
    /// A free slot, to fill the storage with.
    pub const EMPTY: Self = Self {
        floors: LogFloors { lineage: Lineage::NONE, lanes: [LaneFloor { floor: 0, run: 0 }; 4] },
        run: 0,
        age: 0,
        settled: 0,
        flags: 0,
    };

    const fn of(head: &LogHead) -> Self {
        let mut slot = Self { flags: PENDING | UNNAMED, run: head.run, ..Self::EMPTY };
        slot.floors.lineage = head.lineage;
        slot
    }

    fn is_free(&self) -> bool {
        self.floors.lineage.is_none()
    }
}

/// What the journal has to know of a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) log: Log,
    pub(super) lineage: Lineage,
    pub(super) run: u64,
    pub(super) named: bool,
    /// Of the durable ones it was used last.
    pub(super) newest: bool,
}

/// The floors of all lineages kept.
#[derive(Debug)]
pub(super) struct Floors<L> {
    slots: L,
}

impl<L: AsRef<[LogSlot]> + AsMut<[LogSlot]>> Floors<L> {
    pub(super) fn new(mut slots: L) -> Self {
        slots.as_mut().fill(LogSlot::EMPTY);
        Self { slots }
    }

    /// Finds or makes the floors of the lineages an accepted HELLO names, but for a volatile one that would take the place of
    /// another: see [`Floors::replace`]. `forget` is told a durable log whose lineage had to go: nobody waits for its outcomes.
    pub(super) fn open(&mut self, hello: &Hello, forget: &mut impl FnMut(Log)) -> Logs {
        let (volatile, durable) = (&hello.volatile, &hello.durable);
        let is_named = !volatile.lineage.is_none() && !self.would_replace(hello);
        let volatile = is_named.then(|| self.take(Log::VOLATILE, volatile, forget));
        let log = (!durable.lineage.is_none()).then(|| self.place_of(durable.lineage)).flatten();
        Logs { volatile, durable: log.map(|log| self.take(log, durable, forget)) }
    }

    /// Whether the volatile lineage of a HELLO is another one than the one known.
    pub(super) fn would_replace(&self, hello: &Hello) -> bool {
        let (known, named) = (self.lineage(Log::VOLATILE), hello.volatile.lineage);
        !known.is_none() && !named.is_none() && known != named
    }

    /// A volatile lineage takes the place of the one known.
    pub(super) fn replace(&mut self, lineage: Lineage, run: u64, forget: &mut impl FnMut(Log)) -> Log {
        self.take(Log::VOLATILE, &LogHead { lineage, run, head: 0 }, forget)
    }

    /// The log that keeps this durable lineage, if one does.
    pub(super) fn durable(&self, lineage: Lineage) -> Option<Log> {
        self.used().skip(1).find(|(_, slot)| slot.floors.lineage == lineage).map(|(log, _)| log)
    }

    /// The run a log was in when it was named last.
    pub(super) fn run(&self, log: Log) -> u64 {
        self.slot(log).map_or(0, |slot| slot.run)
    }

    /// Where a durable lineage is kept, or will be: in a free place, or in that of the one not used for longest.
    fn place_of(&self, lineage: Lineage) -> Option<Log> {
        let known = |slot: &LogSlot| slot.floors.lineage == lineage;
        let rank = |slot: &LogSlot| match slot {
            slot if known(slot) => 0_u16,
            slot if slot.is_free() => 1,
            slot => u16::from(u8::MAX - slot.age).saturating_add(2),
        };
        self.used().skip(1).min_by_key(|(_, slot)| rank(slot)).map(|(log, _)| log)
    }

    /// A log is of this lineage now, and was used last.
    pub(super) fn take(&mut self, log: Log, head: &LogHead, forget: &mut impl FnMut(Log)) -> Log {
        let Some(slot) = self.slot_mut(log) else { return log };
        let is_other = slot.floors.lineage != head.lineage;
        let age = if is_other { u8::MAX } else { slot.age };
        if is_other {
            if !slot.is_free() {
                forget(log);
            }
            *slot = LogSlot::of(head);
        }
        if slot.run != head.run || age != 0 {
            (slot.run, slot.flags) = (head.run, slot.flags | PENDING);
        }
        if log.is_durable() {
            for slot in self.slots.as_mut().iter_mut().skip(1).filter(|slot| slot.age < age) {
                slot.age = slot.age.saturating_add(1);
            }
        }
        if let Some(slot) = self.slot_mut(log) {
            slot.age = 0;
        }
        log
    }

    fn used(&self) -> impl Iterator<Item = (Log, &LogSlot)> + Clone {
        (0..Log::GONE.0).map(Log).zip(self.slots.as_ref())
    }

    fn slot(&self, log: Log) -> Option<&LogSlot> {
        self.slots.as_ref().get(usize::from(log.0)).filter(|_| log != Log::GONE)
    }

    fn slot_mut(&mut self, log: Log) -> Option<&mut LogSlot> {
        self.slots.as_mut().get_mut(usize::from(log.0)).filter(|_| log != Log::GONE)
    }

    /// The floors of one log, as WELCOME states them; all zero for `None`.
    pub(super) fn of(&self, log: Option<Log>) -> LogFloors {
        log.and_then(|log| self.slot(log)).map_or_else(LogFloors::default, |slot| slot.floors)
    }

    /// Whether the server of this log has shown that it knows what this device knows of it.
    pub(super) fn is_named(&self, log: Log) -> bool {
        self.slot(log).is_some_and(|slot| slot.flags & UNNAMED == 0)
    }

    /// A frame of its server came, which it sends only when it has read a WELCOME. The journal hears of it some time.
    pub(super) fn name(&mut self, log: Log) {
        if let Some(slot) = self.slot_mut(log).filter(|slot| slot.flags & UNNAMED != 0) {
            slot.flags = (slot.flags & !UNNAMED) | PENDING;
        }
    }

    /// Something of every log may have been forgotten: their servers have to learn that.
    pub(super) fn forget_names(&mut self) {
        for slot in self.slots.as_mut().iter_mut().filter(|slot| !slot.is_free()) {
            slot.flags |= UNNAMED;
        }
    }

    /// Which lineage a log is of; none if none is kept there.
    pub(super) fn lineage(&self, log: Log) -> Lineage {
        self.slot(log).map_or(Lineage::NONE, |slot| slot.floors.lineage)
    }

    /// The last order of the lane that ended.
    pub(super) fn floor(&self, log: Log, lane: Lane) -> u64 {
        self.lane_floor(log, lane).floor
    }

    /// The same with its run.
    pub(super) fn lane_floor(&self, log: Log, lane: Lane) -> LaneFloor {
        self.slot(log).and_then(|slot| slot.floors.lanes.get(lane.index())).copied().unwrap_or_default()
    }

    /// An order of the lane has ended. Floors never fall.
    pub(super) fn raise(&mut self, log: Log, lane: Lane, number: u64) {
        let run = self.slot(log).map_or(0, |slot| slot.run);
        self.raise_to(log, lane, LaneFloor { floor: number, run });
    }

    /// The same in the run given.
    pub(super) fn raise_to(&mut self, log: Log, lane: Lane, to: LaneFloor) {
        if let Some(floor) = self.slot_mut(log).and_then(|slot| slot.floors.lanes.get_mut(lane.index()))
            && to.floor > floor.floor
        {
            *floor = to;
        }
    }

    /// Something of this lane was settled: the journal has to know some time.
    pub(super) fn set_settled(&mut self, log: Log, lane: Lane, is_due: bool) {
        if let Some(slot) = self.slot_mut(log) {
            let bit = 1 << lane as u8;
            slot.settled = if is_due { slot.settled | bit } else { slot.settled & !bit };
        }
    }

    /// A lane of which the journal has to know what was settled.
    pub(super) fn settled_due(&self) -> Option<(Log, Lane)> {
        let due = |(log, slot): (Log, &LogSlot)| {
            let lane = Lane::ALL.into_iter().find(|lane| slot.settled & 1 << *lane as u8 != 0)?;
            Some((log, lane))
        };
        self.used().find_map(due)
    }

    /// What the journal has to know of one log; `None` if it has no lineage.
    pub(super) fn kept(&self, log: Log) -> Option<Kept> {
        let slot = self.slot(log).filter(|slot| !slot.is_free())?;
        let (named, newest) = (slot.flags & UNNAMED == 0, slot.age == 0);
        Some(Kept { log, lineage: slot.floors.lineage, run: slot.run, named, newest })
    }

    /// A lineage as the journal tells it. `forget` is told if another one had to go. `false` if there is no such log.
    pub(super) fn restore(&mut self, kept: &Kept, forget: &mut impl FnMut(Log)) -> bool {
        let head = LogHead { lineage: kept.lineage, run: kept.run, head: 0 };
        if kept.newest || self.lineage(kept.log) != kept.lineage {
            self.take(kept.log, &head, forget);
        }
        let Some(slot) = self.slot_mut(kept.log) else { return false };
        slot.run = kept.run;
        slot.flags = if kept.named { 0 } else { UNNAMED };
        true
    }

    /// A log whose lineage or run the journal has not been told.
    pub(super) fn pending(&self) -> Option<Log> {
        self.used().find(|(_, slot)| slot.flags & PENDING != 0).map(|(log, _)| log)
    }

    /// The durable log that was used `nth` after the one used first of all, and before these the volatile one.
    pub(super) fn by_use(&self, nth: u8) -> Option<Log> {
        let durable = self.used().skip(1).filter(|(_, slot)| !slot.is_free());
        let count = u8::try_from(durable.clone().count()).unwrap_or(u8::MAX);
        let Some(nth) = nth.checked_sub(1) else { return Some(Log::VOLATILE) };
        let age = count.checked_sub(nth)?.checked_sub(1)?;
        durable.clone().find(|(_, slot)| slot.age == age).map(|(log, _)| log)
    }

    /// The journal was told of this log.
    pub(super) fn tell(&mut self, log: Log) {
        if let Some(slot) = self.slot_mut(log) {
            slot.flags = (slot.flags & !PENDING) | TOLD;
        }
    }

    /// The journal was told of everything.
    pub(super) fn tell_all(&mut self) {
        for slot in self.slots.as_mut() {
            slot.settled = 0;
            if slot.flags & PENDING != 0 {
                slot.flags = (slot.flags & !PENDING) | TOLD;
            }
        }
    }

    /// What the journal was told it has synced.
    pub(super) fn recorded(&mut self) {
        for slot in self.slots.as_mut() {
            slot.flags &= !TOLD;
        }
    }

    /// What the journal was told it may have lost.
    pub(super) fn untell(&mut self) {
        for slot in self.slots.as_mut().iter_mut().filter(|slot| slot.flags & TOLD != 0) {
            slot.flags = (slot.flags & !TOLD) | PENDING;
        }
    }
}

#[cfg(test)]
#[path = "tests/floors.rs"]
mod tests;
