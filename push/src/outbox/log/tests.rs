//! Crashes, failures and damage at every step, on a disk that forgets.

use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_oneof, proptest};

use super::*;

const SECTOR: usize = 512;

/// A disk that keeps what was synced, and of the rest whatever the seed says.
#[derive(Debug, Default)]
struct Sim {
    files: BTreeMap<u64, File>,
    /// So many further calls succeed, then one fails.
    failing: Vec<u32>,
    capacity: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct File {
    safe: Vec<u8>,
    /// As a reader sees it before a crash.
    seen: Vec<u8>,
}

impl Sim {
    fn may_fail(&mut self) -> io::Result<()> {
        match self.failing.last_mut() {
            Some(0) => {
                self.failing.pop();
                Err(io::Error::other("planned"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The power goes: each unsynced sector is there, or not, or half.
    fn crash(&mut self, rng: &mut Rng) {
        for file in self.files.values_mut() {
            for at in (0..file.seen.len()).step_by(SECTOR) {
                let end = (at + SECTOR).min(file.seen.len());
                let cut = match rng.below(4) {
                    0 => at,
                    1 => at + usize::try_from(rng.below((end - at) as u64)).unwrap(),
                    _ => end,
                };
                file.safe[at..cut].copy_from_slice(&file.seen[at..cut]);
            }
            file.seen.clone_from(&file.safe);
        }
    }
}

impl Disk for Sim {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.files.keys().copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: u64, head: &[u8]) -> io::Result<()> {
        self.may_fail()?;
        let taken = self.files.values().map(|file| file.seen.len()).sum::<usize>();
        let len = usize::try_from(bytes).unwrap();
        if self.capacity.is_some_and(|capacity| taken + len > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut safe = vec![0; len];
        safe[..head.len()].copy_from_slice(head);
        assert!(self.files.insert(segment, File { seen: safe.clone(), safe }).is_none());
        Ok(())
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fails = self.may_fail();
        let file = self.files.get_mut(&segment).unwrap();
        let at = usize::try_from(offset).unwrap();
        // A failed write may have done some of its work.
        let len = if fails.is_err() { bytes.len() / 2 } else { bytes.len() };
        file.seen[at..at + len].copy_from_slice(&bytes[..len]);
        fails
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.may_fail()?;
        let file = self.files.get_mut(&segment).unwrap();
        file.safe.clone_from(&file.seen);
        Ok(())
    }

    fn read(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clone_from(&self.files[&segment].seen);
        Ok(())
    }

    fn read_head(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        self.read(segment, into)?;
        into.truncate(DATA_START);
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.may_fail()?;
        self.files.remove(&segment);
        Ok(())
    }
}

const LINEAGE: Lineage = Lineage([7; 16]);
const SMALL: Settings = Settings { segment_bytes: 4_096, bytes_max: 1 << 20 };

type Bodies = BTreeMap<u64, Vec<u8>>;

fn reopen(disk: Sim, seed: u64) -> (Log<Sim>, Recovery, Bodies) {
    let mut found = Bodies::new();
    let mut before = 0;
    let opened = Log::open(disk, SMALL, LINEAGE, seed, |sequence, kind, body| {
        assert_eq!(kind, 5);
        assert!(sequence > before, "{sequence} after {before}");
        before = sequence;
        found.insert(sequence, body.to_vec());
        Life::Live
    });
    let (log, recovery) = opened.unwrap();
    assert_eq!(log.lineage(), LINEAGE);
    (log, recovery, found)
}

/// What a user of the log knows about it.
#[derive(Debug)]
struct World {
    log: Log<Sim>,
    rng: Rng,
    /// Committed, and not called dead.
    kept: Bodies,
    /// Appended since.
    loose: Bodies,
    /// Of commits that failed since the last one that did not.
    doubtful: Vec<(u64, Vec<u8>)>,
    /// Called dead: may be there or not.
    dead: Bodies,
}

impl World {
    fn new(seed: u64) -> Self {
        let (log, recovery, found) = reopen(Sim::default(), seed);
        assert!(recovery.created && found.is_empty());
        let [kept, loose, dead] = core::array::from_fn(|_| Bodies::new());
        Self { log, rng: Rng::new(seed), kept, loose, doubtful: Vec::new(), dead }
    }

    fn append(&mut self, len: usize) {
        let body: Vec<u8> = (0..len).map(|_| self.rng.next_u64().to_le_bytes()[0]).collect();
        let (head, tail) = body.split_at(len / 3);
        match self.log.append(5, Life::Live, &[head, tail]) {
            Ok(sequence) => assert!(self.loose.insert(sequence, body).is_none()),
            Err(error) => assert!(matches!(error, AppendError::Full { .. }), "{error}"),
        }
    }

    fn commit(&mut self) {
        match self.log.commit() {
            Ok(()) if self.loose.is_empty() => {}
            Ok(()) => {
                self.kept.append(&mut self.loose);
                self.doubtful.clear();
            }
            Err(_) => self.doubtful.extend(core::mem::take(&mut self.loose)),
        }
    }

    fn forget(&mut self) {
        let Some((sequence, body)) = self.kept.pop_first() else { return };
        self.log.dead(sequence, body.len());
        self.dead.insert(sequence, body);
    }

    /// The power goes and comes back.
    fn crash(&mut self) {
        let mut disk = core::mem::take(&mut self.log.disk);
        disk.failing.clear();
        disk.crash(&mut self.rng);
        let (log, recovery, found) = reopen(disk, self.rng.next_u64());
        self.log = log;
        assert_eq!(recovery.damaged, [], "only what was not committed may be cut: {recovery:?}");
        assert_eq!(recovery.damaged_segments, 0);
        for (sequence, body) in &self.kept {
            assert_eq!(found.get(sequence), Some(body), "committed, and gone: {sequence}");
        }
        for (sequence, body) in found {
            let known = [&self.kept, &self.loose, &self.dead]
                .into_iter()
                .any(|bodies| bodies.get(&sequence) == Some(&body));
            let known = known || self.doubtful.contains(&(sequence, body.clone()));
            assert!(known, "nobody wrote {sequence}");
            // What lives on disk is needed until it is called dead again.
            if self.dead.contains_key(&sequence) {
                self.log.dead(sequence, body.len());
            } else {
                self.kept.insert(sequence, body);
            }
        }
        self.loose.clear();
        self.doubtful.clear();
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Append(usize),
    Commit,
    Forget(u8),
    Fail(u32),
    Crash,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (0_usize..600).prop_map(Operation::Append),
        6 => Just(Operation::Commit),
        3 => (1_u8..9).prop_map(Operation::Forget),
        1 => (0_u32..4).prop_map(Operation::Fail),
        1 => Just(Operation::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_a_commit_returned_for_is_there_after_any_crash(
        seed: u64,
        operations in proptest::collection::vec(operation(), 1..150),
    ) {
        let mut world = World::new(seed);
        for operation in operations {
            match operation {
                Operation::Append(len) => world.append(len),
                Operation::Commit => world.commit(),
                Operation::Forget(count) => (0..count).for_each(|_| world.forget()),
                Operation::Fail(after) => world.log.disk.failing.push(after),
                Operation::Crash => world.crash(),
            }
        }
        world.crash();
        world.append(10);
        world.commit();
        world.crash();
    }

    #[test]
    fn a_flipped_bit_costs_one_record_and_is_told(seed: u64, lens in proptest::collection::vec(0_usize..300, 1..60), at: u64) {
        let mut world = World::new(seed);
        for len in lens {
            world.append(len);
            if world.rng.below(3) == 0 {
                world.commit();
            }
        }
        world.commit();
        let mut disk = core::mem::take(&mut world.log.disk);
        let count = disk.files.len() as u64;
        let file = disk.files.values_mut().nth(usize::try_from(at % count).unwrap()).unwrap();
        let bit = usize::try_from((at / count) % (file.seen.len() as u64 * 8)).unwrap();
        file.seen[bit / 8] ^= 1 << (bit % 8);
        let (_, recovery, found) = reopen(disk, 1);
        let missing: Vec<_> = world.kept.keys().filter(|sequence| !found.contains_key(sequence)).collect();
        prop_assert!(missing.len() <= 1, "{missing:?}");
        let told = recovery.damaged_records + recovery.torn_records + u64::from(recovery.torn_bytes > 0);
        prop_assert!(missing.is_empty() || told > 0, "{recovery:?}");
        prop_assert!(found.iter().all(|(sequence, body)| world.kept.get(sequence) == Some(body)));
    }
}

#[test]
fn a_body_that_looks_like_records_is_never_taken_for_some() {
    let mut world = World::new(3);
    world.append(10);
    world.commit();
    // The attacker has seen a whole segment, and pushes it as an order.
    let stolen = world.log.disk.files.values().next().unwrap().seen[..400].to_vec();
    let sequence = world.log.append(5, Life::Live, &[&stolen]).unwrap();
    world.kept.insert(sequence, stolen);
    world.commit();
    world.append(20);
    world.commit();
    let mut disk = core::mem::take(&mut world.log.disk);
    // The header before it is damaged: the walk has to step over the body.
    let file = disk.files.values_mut().next().unwrap();
    let at = DATA_START + record_len(10);
    file.seen[at] ^= 1;
    let (_, recovery, found) = reopen(disk, 1);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(recovery.damaged, [(2, 2)]);
}

#[test]
fn dead_segments_go_and_a_full_log_takes_again() {
    let mut world = World::new(9);
    let mut full = 0;
    for _ in 0..3_000 {
        let before = world.loose.len();
        world.append(1_000);
        full += usize::from(world.loose.len() == before);
        world.commit();
    }
    assert!(full > 0, "the limit was met");
    assert!(world.log.bytes() <= SMALL.bytes_max + SMALL.segment_bytes);
    let held = world.kept.len();
    (0..held).for_each(|_| world.forget());
    world.append(10);
    world.commit();
    assert!(world.log.disk.files.len() <= 2);
    assert!(world.kept.len() == 1 && world.log.oldest().is_none_or(|oldest| oldest.live == 0));
    world.crash();
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_lost() {
    let mut world = World::new(4);
    world.log.disk.capacity = Some(10_000);
    for _ in 0..30 {
        world.append(500);
        world.commit();
    }
    assert!((10..30).contains(&world.kept.len()), "{}", world.kept.len());
    world.log.disk.capacity = None;
    world.append(500);
    let held = world.kept.len();
    world.commit();
    assert_eq!(world.kept.len(), held + 1);
    world.crash();
}

#[test]
fn a_segment_that_was_removed_by_hand_is_told() {
    let mut world = World::new(5);
    for _ in 0..40 {
        world.append(500);
        world.commit();
    }
    let mut disk = core::mem::take(&mut world.log.disk);
    let second = *disk.files.keys().nth(1).unwrap();
    disk.files.remove(&second);
    let (_, recovery, found) = reopen(disk, 1);
    assert_eq!(recovery.damaged.len(), 1);
    assert_eq!(found.len() as u64 + recovery.damaged_records, 40);
}

#[test]
fn two_logs_are_not_mixed() {
    let mut disks = [1, 2].map(|number| {
        let lineage = Lineage([number; 16]);
        let (mut log, _) = Log::open(Sim::default(), SMALL, lineage, 1, |_, _, _| Life::Live).unwrap();
        log.append(1, Life::Live, &[b"mine"]).unwrap();
        log.commit().unwrap();
        log.disk
    });
    let mut strange = disks[1].files.remove(&1).unwrap();
    let head = Head::parse(&strange.seen).unwrap();
    let head = Head { number: 2, ..head }.emit();
    strange.seen[..head.len()].copy_from_slice(&head);
    disks[0].files.insert(2, strange);
    let [disk, _] = disks;
    let opened = Log::open(disk, SMALL, LINEAGE, 1, |_, _, _| Life::Live);
    assert!(matches!(opened, Err(OpenError::Foreign { segment: 2, .. })));
}

#[test]
fn a_record_at_the_limit_and_one_past_it() {
    let settings = Settings { bytes_max: 64 << 20, ..SMALL };
    let (mut log, _) = Log::open(Sim::default(), settings, LINEAGE, 1, |_, _, _| Life::Live).unwrap();
    let body = vec![1; BODY_MAX + 1];
    assert_eq!(log.append(1, Life::Live, &[&body]), Err(AppendError::TooLong { len: BODY_MAX + 1 }));
    log.append(1, Life::Live, &[&body[1..]]).unwrap();
    log.commit().unwrap();
    let mut lens = vec![];
    Log::open(log.disk, settings, LINEAGE, 1, |_, _, body| {
        lens.push(body.len());
        Life::Live
    })
    .unwrap();
    assert_eq!(lens, [BODY_MAX]);
}
