//! What the records of an outbox add up to, said once more and in the plainest way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use push::Mark;
use push::outbox::{Device, Restored, Session};
use wire_format::crc::crc32c;
use wire_format::frame::outcome::Code;

/// A call of [`push::outbox::Outbox::append`].
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Order {
        number: u64,
        key: u64,
        lane: usize,
        frame: Vec<u8>,
        devices: BTreeSet<u32>,
    },
    Retry {
        number: u64,
        root: u64,
        attempt: u16,
        devices: BTreeSet<u32>,
    },
    Cancel {
        number: u64,
    },
    Outcomes {
        number: u64,
        root: u64,
        lane: usize,
        code: Code,
        by_device: bool,
        last: bool,
        devices: BTreeSet<u32>,
    },
    Device(Device),
    Removed(u32),
    Session(Session),
    Fence(u64),
    Note(u64, Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Checksum of the frame: a failure shall be readable.
    pub(crate) frame: u32,
    pub(crate) key: u64,
    pub(crate) lane: usize,
    pub(crate) cancelled: bool,
    pub(crate) attempts: u16,
    pub(crate) root: u64,
    pub(crate) marks: BTreeMap<u32, Mark>,
}

/// What a restart must find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) orders: BTreeMap<u64, Order>,
    pub(crate) keys: BTreeMap<u64, (u64, BTreeMap<u32, Mark>)>,
    pub(crate) devices: BTreeMap<u32, Device>,
    pub(crate) sessions: BTreeMap<u32, Session>,
    pub(crate) fence: u64,
    pub(crate) notes: BTreeMap<u64, Vec<u8>>,
}

pub(crate) const fn is_final(mark: Mark) -> bool {
    mark.0 != 0 && mark.0 < 64
}

impl Model {
    pub(crate) fn of(restored: &Restored) -> Self {
        let orders = restored.orders.iter().map(|order| {
            let marks = order.marks.iter().collect();
            let (frame, lane) = (crc32c(&order.frame), order.lane.index());
            let (key, cancelled, attempts) = (order.key, order.cancelled, order.attempts);
            let root = order.attempt.map_or(0, |attempt| attempt.root);
            (order.number, Order { frame, key, lane, cancelled, attempts, root, marks })
        });
        let keys = restored.keys.iter().map(|key| (key.key, (key.number, key.marks.iter().collect())));
        let sessions = restored.devices.iter().map(|known| (known.device.device, known.session));
        Self {
            orders: orders.collect(),
            keys: keys.collect(),
            devices: restored.devices.iter().map(|known| (known.device.device, known.device)).collect(),
            sessions: sessions.filter(|(_, session)| session.boot != 0 || session.ended != [0; 4]).collect(),
            fence: restored.fence,
            notes: restored.notes.iter().cloned().collect(),
        }
    }

    /// As a restart shows it: of what has no name, nothing.
    pub(crate) fn shown(mut self) -> Self {
        self.sessions.retain(|device, session| {
            self.devices.contains_key(device) && (session.boot != 0 || session.ended != [0; 4])
        });
        self
    }

    pub(crate) fn say(&mut self, said: &Said) {
        match said.clone() {
            Said::Order { number, key, lane, frame, devices } => {
                let marks = devices.into_iter().map(|device| (device, Mark::PENDING)).collect();
                let frame = crc32c(&frame);
                let order = Order { frame, key, lane, cancelled: false, attempts: 0, root: 0, marks };
                self.orders.insert(number, order);
            }
            Said::Retry { number, root, attempt, devices } => {
                let Some(first) = self.orders.get_mut(&root) else { return };
                first.attempts = first.attempts.max(attempt);
                for device in &devices {
                    let mark = first.marks.get_mut(device);
                    mark.into_iter().filter(|mark| !is_final(**mark)).for_each(|mark| *mark = Mark::RETRYING);
                }
                let marks = devices.into_iter().map(|device| (device, Mark::PENDING)).collect();
                let (lane, frame) = (first.lane, crc32c(&[]));
                let order = Order { frame, key: 0, lane, cancelled: false, attempts: attempt, root, marks };
                self.orders.insert(number, order);
            }
            Said::Cancel { number } => {
                self.orders.entry(number).and_modify(|order| order.cancelled = true);
            }
            Said::Outcomes { number, root, lane, code, by_device, last, devices } => {
                let listed = devices.iter().filter(|device| by_device && self.devices.contains_key(device));
                for &device in listed {
                    let known = self.sessions.entry(device).or_default();
                    known.device = device;
                    known.ended[lane] = known.ended[lane].max(number);
                }
                self.outcomes(number, root, code, last, &devices);
            }
            Said::Device(device) => drop(self.devices.insert(device.device, device)),
            Said::Removed(device) => {
                self.devices.remove(&device);
                self.sessions.remove(&device);
            }
            Said::Session(session) => {
                let known = self.sessions.entry(session.device).or_default();
                // What was written stays so; a device may forget what ended.
                let upto = core::array::from_fn(|lane| known.upto[lane].max(session.upto[lane]));
                *known = Session { upto, ..session };
            }
            Said::Fence(fence) => self.fence = self.fence.max(fence),
            Said::Note(id, bytes) if bytes.is_empty() => drop(self.notes.remove(&id)),
            Said::Note(id, bytes) => drop(self.notes.insert(id, bytes)),
        }
    }

    fn outcomes(&mut self, number: u64, root: u64, code: Code, last: bool, devices: &BTreeSet<u32>) {
        let again = Mark::attempt(code).filter(|_| !last || root != 0);
        let mark = again.unwrap_or_else(|| Mark::ended(code));
        for (number, of_attempt) in [(number, root != 0), (root, false)] {
            let Some(order) = self.orders.get_mut(&number) else { continue };
            for (_, old) in order.marks.iter_mut().filter(|(device, _)| devices.contains(device)) {
                if !(is_final(*old) || of_attempt && old.is_retried()) {
                    *old = mark;
                }
            }
        }
        self.end(number);
        self.end(root);
    }

    /// Takes an order out that has ended everywhere, and attempts at it.
    fn end(&mut self, number: u64) {
        let Some(order) = self.orders.get(&number) else { return };
        let over = |mark: &Mark| is_final(*mark) || (order.root != 0 && mark.is_retried());
        if !order.marks.values().all(over) {
            return;
        }
        if let Some(order) = self.orders.remove(&number)
            && order.key != 0
        {
            self.keys.insert(order.key, (number, order.marks));
        }
        self.orders.retain(|_, order| order.root != number || order.root == 0);
    }

    /// What differs from another one.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = vec![];
        differ("order", &self.orders, &other.orders, &mut found);
        differ("key", &self.keys, &other.keys, &mut found);
        differ("device", &self.devices, &other.devices, &mut found);
        differ("session", &self.sessions, &other.sessions, &mut found);
        differ("note", &self.notes, &other.notes, &mut found);
        if self.fence != other.fence {
            found.push(format!("fence: {} {}", self.fence, other.fence));
        }
        found
    }

    /// Another lineage.
    pub(crate) fn renew(&mut self) {
        for (number, mut order) in core::mem::take(&mut self.orders) {
            let open = order.marks.values_mut().filter(|mark| !is_final(**mark));
            open.for_each(|mark| *mark = Mark::ended(Code::IN_DOUBT));
            if order.key != 0 {
                self.keys.insert(order.key, (number, order.marks));
            }
        }
        self.sessions.clear();
    }
}

fn differ<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    a: &BTreeMap<K, V>,
    b: &BTreeMap<K, V>,
    found: &mut Vec<String>,
) {
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for key in keys.into_iter().filter(|key| a.get(key) != b.get(key)) {
        found.push(format!("{what} {key:?}: {:?} {:?}", a.get(key), b.get(key)));
    }
}
