//! Random use of an outbox, with crashes and failures at every step of the disk: what a restart finds is what was committed,
//! and of a commit nobody was told about any part.

use std::collections::BTreeSet;

use core::time::Duration;

use proptest::prelude::*;
use push::outbox::{AppendError, Entry, Frame, Now, Outbox, Session, Targets};
use testkit::disk::SimDisk;
use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;
use wire_format::rng::Rng;

use super::model::{Model, Said, is_final};
use super::shop::{SMALL, device, frame};

/// Entries of one commit: all their parts are tried.
const BATCH_MAX: usize = 6;
const DEVICES: u32 = 12;

struct World {
    disk: SimDisk,
    outbox: Outbox<SimDisk>,
    now: Now,
    rng: Rng,
    /// What was committed.
    model: Model,
    /// Appended since.
    loose: Vec<Said>,
    /// The entries of commits that failed since the last one that did not.
    doubtful: Vec<Vec<Said>>,
    /// The state a renewal that failed would have made.
    renewed: Option<Model>,
    number: u64,
    highest_committed: u64,
    version: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (disk, now) = (SimDisk::new(seed), Now { wall_ms: 1_800_000_000_000, awake_ms: 0 });
        let (outbox, _) = Outbox::open(disk.clone(), SMALL, now, seed).unwrap();
        let (rng, model) = (Rng::new(seed), Model::default());
        let (loose, doubtful) = (Vec::new(), Vec::new());
        let (number, highest_committed, version) = (0, 0, 0);
        Self {
            disk,
            outbox,
            now,
            rng,
            model,
            loose,
            doubtful,
            renewed: None,
            number,
            highest_committed,
            version,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn devices(&mut self) -> BTreeSet<u32> {
        let mut devices = BTreeSet::from([self.below(u64::from(DEVICES)) as u32]);
        for _ in 0..self.below(6) {
            devices.insert(self.below(u64::from(DEVICES)) as u32);
        }
        devices
    }

    /// An order that is committed and lives.
    fn some_order(&mut self) -> Option<u64> {
        let numbers: Vec<_> = self.model.orders.keys().copied().collect();
        // Mostly an old one, so that segments become empty.
        let at = self.below(numbers.len() as u64).min(self.below(numbers.len() as u64));
        numbers.get(at as usize).copied()
    }

    fn say(&mut self) -> Option<Said> {
        let kind = self.below(20);
        Some(match kind {
            0..6 => {
                self.number += 1 + self.below(2);
                let number = self.number;
                let key = if self.below(3) == 0 { number } else { 0 };
                let lane = Lane::ALL[self.below(4) as usize];
                let payload = vec![7; self.below(400) as usize];
                let frame = frame(number, key, lane, 86_400_000, &payload);
                Said::Order { number, key, lane: lane.index(), frame, devices: self.devices() }
            }
            6..8 => {
                let root = self.some_order().filter(|number| self.model.orders[number].root == 0)?;
                self.number += 1;
                let attempt = self.model.orders[&root].attempts + 1;
                Said::Retry { number: self.number, root, attempt, devices: self.devices() }
            }
            8 => Said::Cancel { number: self.some_order()? },
            9..15 => {
                let codes =
                    [Code::APPLIED, Code::FAILED, Code::IN_DOUBT, Code::BUSY, Code::NO_SPACE, Code::OVERFLOW];
                let code = codes[self.below(6) as usize];
                let (by_device, last) = (self.below(3) > 0, self.below(3) == 0);
                let number = self.some_order()?;
                let mut devices = self.devices();
                if self.below(2) == 0 {
                    devices.extend(self.model.orders[&number].marks.keys());
                }
                let (root, lane) = (self.model.orders[&number].root, self.model.orders[&number].lane);
                Said::Outcomes { number, root, lane, code, by_device, last, devices }
            }
            15 => Said::Device(device(self.below(u64::from(DEVICES)) as u32)),
            16 if self.below(3) == 0 => Said::Removed(self.below(u64::from(DEVICES)) as u32),
            16 | 17 => {
                self.version += 1;
                let upto = core::array::from_fn(|_| self.below(self.number + 1));
                let device = self.below(u64::from(DEVICES)) as u32;
                let goes = |said: &Said| matches!(said, Said::Removed(gone) if *gone == device);
                if !self.model.devices.contains_key(&device) || self.loose.iter().any(goes) {
                    return None;
                }
                let open = self.below(2) == 0;
                let ended = core::array::from_fn(|_| self.below(self.number + 1));
                Said::Session(Session { device, boot: self.version, open, upto, ended })
            }
            18 => Said::Fence(self.below(20)),
            _ => Said::Note(self.below(4), vec![3; self.below(40) as usize]),
        })
    }

    fn append(&mut self) {
        if self.loose.len() >= BATCH_MAX {
            return;
        }
        let Some(said) = self.say() else { return };
        let targets = |devices: &BTreeSet<u32>| Targets::from_sorted(devices.iter().copied()).unwrap();
        let after = Duration::from_millis(5);
        let entry = match &said {
            Said::Order { frame, devices, .. } => {
                (Entry::Order { frame: Frame::new(frame).unwrap(), targets: &targets(devices) }, ())
                    .0
                    .append(self)
            }
            &Said::Retry { number, root, attempt, ref devices } => {
                Entry::Retry { number, root, attempt, after, targets: &targets(devices) }.append(self)
            }
            &Said::Cancel { number } => Entry::Cancel { number }.append(self),
            &Said::Outcomes { number, code, by_device, last, ref devices, .. } => {
                let targets = &targets(devices);
                Entry::Outcomes { number, code, first_code: code, by_device, last, targets }.append(self)
            }
            Said::Device(device) => Entry::Device(device).append(self),
            &Said::Removed(device) => Entry::Removed { device }.append(self),
            Said::Session(session) => Entry::Session(session).append(self),
            &Said::Fence(fence) => Entry::Fence { fence }.append(self),
            &Said::Note(id, ref bytes) => Entry::Note { id, bytes }.append(self),
        };
        match entry {
            Ok(()) => self.loose.push(said),
            Err(error) => assert!(matches!(error, AppendError::Full { .. }), "{error}"),
        }
    }

    fn commit(&mut self) {
        let loose = core::mem::take(&mut self.loose);
        let before = self.outbox.stats().commits;
        match self.outbox.commit(self.now) {
            // With nothing to write, what a commit before it left on disk stays open.
            Ok(()) if self.outbox.stats().commits == before => assert!(loose.is_empty()),
            Ok(()) => {
                for said in &loose {
                    self.model.say(said);
                    if let Said::Order { number, .. } | Said::Retry { number, .. } = said {
                        self.highest_committed = *number;
                    }
                }
                self.doubtful.clear();
                self.renewed = None;
            }
            Err(_) => self.doubtful.push(loose),
        }
        assert_eq!(self.outbox.take_lost(), []);
    }

    /// Ends an order everywhere, one of the first but not the very first: those are carried.
    fn end_one(&mut self) {
        let at = 3 + self.below(10) as usize;
        let Some((&number, order)) = self.model.orders.iter().nth(at) else { return };
        let (root, lane, devices) = (order.root, order.lane, order.marks.keys().copied().collect());
        let targets = &Targets::from_sorted(order.marks.keys().copied()).unwrap();
        let (code, by_device, last) = (Code::APPLIED, true, false);
        let entry = Entry::Outcomes { number, code, first_code: code, by_device, last, targets };
        entry.append(self).unwrap();
        self.loose.push(Said::Outcomes { number, root, lane, code, by_device, last, devices });
        self.commit();
    }

    fn renew(&mut self) {
        self.loose.clear();
        let mut renewed = self.model.clone();
        renewed.renew();
        match self.outbox.renew(self.now) {
            Ok(begun) => {
                assert!(begun.first > self.highest_committed);
                (self.model, self.renewed) = (renewed, None);
                self.doubtful.clear();
            }
            // It may be there all the same if the power goes before the next commit.
            Err(_) => self.renewed = Some(renewed),
        }
    }

    /// Every state the disk may hold.
    fn candidates(&self) -> Vec<Model> {
        let mut all = vec![self.model.clone()];
        all.extend(self.renewed.clone());
        for said in self.doubtful.iter().chain([&self.loose]) {
            for part in 1_u32..1 << said.len() {
                let mut model = self.model.clone();
                let taken = said.iter().enumerate().filter(|(at, _)| part >> at & 1 == 1);
                taken.for_each(|(_, said)| model.say(said));
                all.push(model);
            }
        }
        all.into_iter().map(Model::shown).collect()
    }

    fn crash(&mut self) {
        self.disk.crash();
        // Dying again while it is opened.
        if self.below(4) == 0 {
            let steps = self.below(4);
            self.disk.die_after(steps);
            let seed = self.rng.next_u64();
            let opened = Outbox::open(self.disk.clone(), SMALL, self.now, seed);
            drop(opened);
            self.disk.crash();
        }
        self.now = Now { wall_ms: self.now.wall_ms + 1_000, awake_ms: 0 };
        let (outbox, restored) =
            Outbox::open(self.disk.clone(), SMALL, self.now, self.rng.next_u64()).unwrap();
        assert_eq!(restored.recovery.damaged, [], "{:?}", restored.recovery);
        assert_eq!((restored.recovery.damaged_segments, restored.unreadable_records), (0, 0));
        assert!(restored.head >= self.highest_committed && restored.head <= self.number);
        let found = Model::of(&restored);
        if !self.candidates().contains(&found) {
            let differences = found.differences(&self.model.clone().shown());
            panic!(
                "found and committed: {differences:#?}; not committed: {:?} {:?}",
                self.doubtful, self.loose
            );
        }
        for order in &restored.orders {
            assert!(order.remaining.is_some_and(|left| left <= Duration::from_millis(86_400_000 - 1_000)));
            assert!(order.marks.iter().any(|(_, mark)| !is_final(mark)), "{order:?}");
        }
        (self.outbox, self.model) = (outbox, found);
        (self.loose, self.renewed) = (Vec::new(), None);
        self.doubtful.clear();
        self.highest_committed = restored.head;
        self.number = self.number.max(restored.head);
    }
}

/// An entry whose targets live as long as the call.
trait Append {
    fn append(&self, world: &mut World) -> Result<(), AppendError>;
}

impl Append for Entry<'_> {
    fn append(&self, world: &mut World) -> Result<(), AppendError> {
        world.outbox.append(world.now, self)
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Append(u8),
    Commit,
    Pass(u32),
    Fail(u32),
    Die(u64),
    Crash,
    Renew,
    Full,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        14 => (1_u8..8).prop_map(Operation::Append),
        12 => Just(Operation::Commit),
        2 => (0_u32..90_000).prop_map(Operation::Pass),
        1 => (0_u32..5).prop_map(Operation::Fail),
        1 => (0_u64..6).prop_map(Operation::Die),
        2 => Just(Operation::Crash),
        1 => Just(Operation::Renew),
        1 => Just(Operation::Full),
    ]
}

fn run(seed: u64, operations: Vec<Operation>) {
    let mut world = World::new(seed);
    for operation in operations {
        match operation {
            Operation::Append(count) => (0..count).for_each(|_| world.append()),
            Operation::Commit => world.commit(),
            Operation::Pass(ms) => {
                world.now.wall_ms += u64::from(ms);
                world.now.awake_ms += u64::from(ms);
            }
            Operation::Fail(after) => world.disk.fail_after(after),
            Operation::Die(after) => world.disk.die_after(after),
            Operation::Crash => world.crash(),
            Operation::Renew => world.renew(),
            Operation::Full => {
                let taken = world.disk.files().iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
                world.disk.limit(Some(taken + 4_096));
                (0..4).for_each(|_| world.append());
                world.commit();
                world.disk.limit(None);
            }
        }
        if world.disk.is_dead() {
            world.crash();
        }
    }
    world.disk.fail_no_more();
    world.crash();
    (0..3).for_each(|_| world.append());
    world.commit();
    world.crash();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_finds_what_was_committed(seed: u64, operations in proptest::collection::vec(operation(), 1..250)) {
        run(seed, operations);
    }
}

/// Long enough for compaction to go round many times.
#[test]
fn a_long_life_with_crashes_loses_nothing() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        for turn in 0..1_500 {
            (0..world.below(7)).for_each(|_| world.append());
            world.commit();
            if world.model.orders.len() > 60 {
                world.end_one();
            }
            if world.below(150) == 0 {
                world.crash();
            }
            assert!(turn < 500 || world.outbox.stats().bytes < SMALL.bytes_max);
        }
        assert!(world.disk.counts().removes > 20, "segments went: {:?}", world.disk.counts());
        assert!(world.outbox.stats().carried > 0, "the first orders were written again");
        world.crash();
    }
}
