//! What lives: the state that the records of the log add up to.
//!
//! There is one way into it, [`Book::apply`], taken by each record once it is on disk: at a commit, and again when the log is
//! opened. So what a restart finds is what was there before, by construction.
//!
//! Records come in log order, yet what was carried stands behind what it is about: a RETRY may come before its order, and a
//! SESSION before its DEVICE. Whatever is taken in must bear that.

use std::collections::{BTreeMap, BTreeSet};

use wire_format::ids::Lane;

use super::devices::Devices;
use super::marks::{Marks, is_over};
use super::record::{self, Outcomes, Record, Session};
use crate::mark::Mark;

/// Runs that are remembered: who was away for longer passes by its number.
pub const RUNS_MAX: usize = 32;
/// Keys remembered at a time, those of live orders included.
pub const KEYS_MAX: usize = 16_384;
/// How long a key is remembered after its order has ended: 7 days of running, in milliseconds.
pub const KEYS_KEPT_MS: u64 = 7 * 86_400_000;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u64,
    /// Bytes of its body.
    pub(super) len: usize,
}

/// A live order, or an attempt at one.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) place: Place,
    pub(super) accepted_ms: u64,
    pub(super) age_ms: u64,
    pub(super) lifetime_ms: Option<u32>,
    pub(super) key: u64,
    pub(super) lane: Lane,
    pub(super) cancelled: bool,
    /// Of an order: further attempts made so far; of an attempt: which one it is.
    pub(super) attempts: u16,
    /// Of an attempt: the first order. 0: it is one.
    pub(super) root: u64,
    /// Targets on which it has not ended.
    pub(super) open: usize,
    pub(super) marks: Marks,
}

impl Live {
    /// Whether nothing more can come of this mark: of an attempt, also that another one follows.
    fn is_over(&self, mark: Mark) -> bool {
        is_over(mark) || (self.root != 0 && mark.is_retried())
    }

    /// The record was carried: it says nothing new, unless something between the two was damaged. Whether it is over.
    fn again(&mut self, cancelled: bool, marks: &Marks) -> bool {
        self.cancelled |= cancelled;
        let is_attempt = self.root != 0;
        let over = |mark: Mark| is_over(mark) || (is_attempt && mark.is_retried());
        if marks.count(over) > 0 {
            marks.iter().filter(|(_, mark)| over(*mark)).for_each(|(device, mark)| {
                self.marks.change(device, mark, |before| !over(before));
            });
            self.count_open();
        }
        self.open == 0
    }

    fn count_open(&mut self) {
        self.open = self.marks.targets().len() - self.marks.count(|mark| self.is_over(mark));
    }
}

/// A key whose order has ended.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) number: u64,
    pub(super) until_ms: u64,
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) orders: BTreeMap<u64, Live>,
    /// Orders under a key that ended, and whose KEY is not on disk.
    pub(super) ended: BTreeSet<u64>,
    pub(super) devices: Devices,
    /// Devices with outcomes before their newest record, and no SESSION that counts them.
    pub(super) unwritten: BTreeSet<u32>,
    pub(super) keys: BTreeMap<u64, Kept>,
    /// No key is forgotten at an age below this.
    keys_until_ms: u64,
    pub(super) notes: BTreeMap<u64, Place>,
    /// In the order in which they were opened.
    pub(super) runs: Vec<(Place, record::Run)>,
    pub(super) fence: u64,
    pub(super) fence_at: Option<Place>,
    pub(super) mark: Option<(Place, record::Mark)>,
    /// The highest number there ever was.
    pub(super) head: u64,
    /// The highest age any record names.
    pub(super) age_ms: u64,
    /// Live orders that have a key.
    pub(super) keyed: usize,
    /// Records nobody needs any more, to be told to the log.
    pub(super) dead: Vec<Place>,
    /// Everything on disk was taken in: what a record is about, and is not here, does not live.
    pub(super) is_whole: bool,
    /// Orders forgotten since this was emptied.
    pub(super) forgotten: Vec<u64>,
}

impl Book {
    /// Takes in a record that is on disk.
    pub(super) fn apply(&mut self, place: Place, record: Record<'_>) {
        match record {
            Record::Order(order) => self.order(place, order),
            Record::Retry(retry) => self.retry(place, retry),
            Record::Cancel { number } => {
                if let Some(order) = self.orders.get_mut(&number) {
                    order.cancelled = true;
                }
            }
            Record::Outcomes(outcomes) => self.outcomes(&outcomes),
            Record::Device(device) => {
                let known = self.devices.known(device.device);
                let before = known.put_device(place);
                if before.is_some() && known.is_unwritten() {
                    self.unwritten.insert(device.device);
                }
                self.dead.extend(before);
            }
            Record::Removed { device } => {
                let known = self.devices.remove(device).unwrap_or_default();
                self.unwritten.remove(&device);
                self.dead.extend(known.device_at());
                self.dead.extend(known.session_at());
            }
            Record::Session(session) => self.session(place, session),
            Record::Fence { fence } => self.fence(place, fence),
            Record::Run(run) => self.run(place, run),
            Record::Key(key) => self.key(place, &key),
            Record::Mark(mark) => self.mark(place, mark),
            Record::Note(note) => self.note(place, note),
        }
    }

    fn order(&mut self, place: Place, order: record::Order<'_>) {
        let (frame, number) = (order.frame, order.frame.number());
        (self.head, self.age_ms) = (self.head.max(number), self.age_ms.max(order.age_ms));
        if let Some(live) = self.orders.get_mut(&number) {
            self.dead.push(core::mem::replace(&mut live.place, place));
            if live.again(order.cancelled, &order.marks) {
                self.end(number);
            }
            return;
        }
        let mut live = Live {
            place,
            accepted_ms: order.accepted_ms,
            age_ms: order.age_ms,
            lifetime_ms: frame.lifetime_ms(),
            key: frame.key(),
            lane: frame.lane(),
            cancelled: order.cancelled,
            attempts: order.attempts,
            root: 0,
            open: 0,
            marks: order.marks,
        };
        live.count_open();
        self.keyed += usize::from(live.key != 0);
        let open = live.open;
        self.orders.insert(number, live);
        if open == 0 {
            self.end(number);
        }
    }

    fn retry(&mut self, place: Place, retry: record::Retry) {
        let record::Retry { number, root, attempt, lane, cancelled, carried, marks, .. } = retry;
        self.head = self.head.max(number);
        if self.is_whole && !self.orders.contains_key(&root) {
            // The order ended before this was written.
            self.dead.push(place);
            return;
        }
        if let Some(live) = self.orders.get_mut(&number) {
            self.dead.push(core::mem::replace(&mut live.place, place));
            if live.again(cancelled, &marks) {
                self.end(number);
            }
            return;
        }
        let mut live = Live {
            place,
            accepted_ms: 0,
            age_ms: retry.not_before_ms,
            lifetime_ms: None,
            key: 0,
            lane,
            cancelled,
            attempts: attempt,
            root,
            open: 0,
            marks,
        };
        live.count_open();
        if !carried && let Some(first) = self.orders.get_mut(&root) {
            first.attempts = first.attempts.max(attempt);
            for (device, mark) in live.marks.iter() {
                if mark == Mark::PENDING {
                    first.marks.change(device, Mark::RETRYING, |mark| !is_over(mark));
                }
            }
        }
        let open = live.open;
        self.orders.insert(number, live);
        if open == 0 {
            self.end(number);
        }
    }

    fn outcomes(&mut self, outcomes: &Outcomes) {
        let number = outcomes.number;
        if outcomes.by_device {
            let lane = outcomes.lane.index();
            for device in outcomes.targets.iter() {
                if let Some(known) = self.devices.get_mut(device) {
                    known.raise_ended(lane, number);
                }
            }
        }
        // The attempt may be gone already, and its order not.
        let is_attempt = outcomes.root != 0;
        let mark = match Mark::attempt(outcomes.first_code) {
            // The end of an attempt is no end of the first order: that has a record of its own.
            Some(mark) if is_attempt => mark,
            _ => outcomes.mark(),
        };
        for number in [number, outcomes.root] {
            if let Some(live) = self.orders.get_mut(&number) {
                change(live, outcomes, mark);
                if live.open == 0 {
                    self.end(number);
                }
            }
        }
    }

    /// An order or an attempt has ended on every target.
    fn end(&mut self, number: u64) {
        match self.orders.get(&number) {
            Some(live) if live.key != 0 => {
                self.ended.insert(number);
            }
            _ => self.forget(number),
        }
    }

    /// An order is needed no more, nor are attempts at it.
    pub(super) fn forget(&mut self, number: u64) {
        self.ended.remove(&number);
        let Some(live) = self.orders.remove(&number) else { return };
        self.dead.push(live.place);
        self.forgotten.push(number);
        self.keyed -= usize::from(live.key != 0);
        if live.root == 0 && live.attempts > 0 {
            let attempts = self.orders.range(number..).filter(|(_, live)| live.root == number);
            let attempts: Vec<_> = attempts.map(|(&number, live)| (number, live.place)).collect();
            for (number, place) in attempts {
                self.orders.remove(&number);
                self.dead.push(place);
            }
        }
    }

    fn session(&mut self, place: Place, session: Session) {
        let before = self.devices.known(session.device).put_session(place, &session);
        self.dead.extend(before);
        self.unwritten.remove(&session.device);
    }

    fn fence(&mut self, place: Place, fence: u64) {
        if fence >= self.fence {
            self.fence = fence;
            self.dead.extend(self.fence_at.replace(place));
        } else {
            self.dead.push(place);
        }
    }

    fn run(&mut self, place: Place, run: record::Run) {
        if let Some((at, _)) = self.runs.iter_mut().find(|(_, known)| known.run == run.run) {
            self.dead.push(core::mem::replace(at, place));
            return;
        }
        let at = self.runs.partition_point(|(_, known)| known.openings <= run.openings);
        self.runs.insert(at, (place, run));
        if self.runs.len() > RUNS_MAX {
            let (place, _) = self.runs.remove(0);
            self.dead.push(place);
        }
        self.head = self.head.max(run.first - 1);
    }

    fn key(&mut self, place: Place, key: &record::Key) {
        self.head = self.head.max(key.number);
        self.forget(key.number);
        let kept = Kept { place, number: key.number, until_ms: key.until_ms };
        self.keys_until_ms = self.keys_until_ms.min(key.until_ms);
        self.dead.extend(self.keys.insert(key.key, kept).map(|kept| kept.place));
    }

    fn mark(&mut self, place: Place, mark: record::Mark) {
        self.head = self.head.max(mark.head);
        self.age_ms = self.age_ms.max(mark.age_ms);
        self.dead.extend(self.mark.replace((place, mark)).map(|(place, _)| place));
    }

    fn note(&mut self, place: Place, note: record::Note<'_>) {
        let before = if note.bytes.is_empty() {
            self.dead.push(place);
            self.notes.remove(&note.id)
        } else {
            self.notes.insert(note.id, place)
        };
        self.dead.extend(before);
    }

    /// Forgets keys whose time is over.
    pub(super) fn expire_keys(&mut self, age_ms: u64) {
        // After every commit: all of them are not looked at each time.
        if age_ms < self.keys_until_ms {
            return;
        }
        let (dead, mut first) = (&mut self.dead, u64::MAX);
        self.keys.retain(|_, kept| {
            let keep = kept.until_ms > age_ms;
            if keep {
                first = first.min(kept.until_ms);
            } else {
                dead.push(kept.place);
            }
            keep
        });
        self.keys_until_ms = first;
    }

    /// Attempts whose order is gone, and what is known of devices that have no record.
    pub(super) fn drop_orphans(&mut self) {
        self.is_whole = true;
        let orphans =
            self.orders.iter().filter(|(_, live)| live.root != 0 && !self.orders.contains_key(&live.root));
        let orphans: Vec<_> = orphans.map(|(&number, _)| number).collect();
        orphans.into_iter().for_each(|number| self.forget(number));
        let unwritten = self.devices.iter().filter(|(_, known)| known.is_unwritten());
        self.unwritten = unwritten.map(|(device, _)| device).collect();
        let nameless = self.devices.iter().filter(|(_, known)| known.device_at().is_none());
        let nameless: Vec<_> = nameless.map(|(device, _)| device).collect();
        for device in nameless {
            self.dead.extend(self.devices.remove(device).and_then(|known| known.session_at()));
        }
    }

    /// The lowest number that lives.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.orders.keys().next().copied()
    }

    /// Whether a live order is meant for this device, or was.
    pub(super) fn names(&self, device: u32) -> bool {
        self.orders.values().any(|live| live.marks.targets().contains(device))
    }
}

/// Changes the marks of the devices an outcome is about, but those where the order is over already.
fn change(live: &mut Live, outcomes: &Outcomes, mark: Mark) {
    let is_attempt = live.root != 0;
    let over = |mark: Mark| is_over(mark) || (is_attempt && mark.is_retried());
    let counts = over(mark);
    for device in outcomes.targets.iter() {
        let changed = live.marks.change(device, mark, |before| !over(before));
        live.open -= usize::from(changed && counts);
    }
}
