//! Crashes, failures and damage at every step, on a disk that forgets.

use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_oneof, proptest};

use push::outbox::log::{AppendError, BODY_MAX, Life, Log, OpenError, Recovery, Settings};
use testkit::disk::SimDisk;
use wire_format::ids::Lineage;
use wire_format::rng::Rng;

/// Where the first record of a segment begins, and bytes of a record's header.
const DATA_START: usize = 128;
const HEADER_LEN: usize = 32;

const LINEAGE: Lineage = Lineage([7; 16]);
const SMALL: Settings = Settings { segment_bytes: 4_096, bytes_max: 1 << 20 };

type Bodies = BTreeMap<u64, Vec<u8>>;

fn reopen(disk: SimDisk, seed: u64) -> (Log<SimDisk>, Recovery, Bodies) {
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
    disk: SimDisk,
    log: Log<SimDisk>,
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
        let disk = SimDisk::new(seed);
        let (log, recovery, found) = reopen(disk.clone(), seed);
        assert!(recovery.created && found.is_empty());
        let [kept, loose, dead] = core::array::from_fn(|_| Bodies::new());
        Self { disk, log, rng: Rng::new(seed), kept, loose, doubtful: Vec::new(), dead }
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
        self.disk.crash();
        let (log, recovery, found) = reopen(self.disk.clone(), self.rng.next_u64());
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
                Operation::Fail(after) => world.disk.fail_after(after),
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
        let files = world.disk.files();
        let (segment, bytes) = &files[usize::try_from(at % files.len() as u64).unwrap()];
        let bit = usize::try_from(at / files.len() as u64 % (bytes.len() as u64 * 8)).unwrap();
        prop_assert!(world.disk.flip(*segment, bit));
        let (_, recovery, found) = reopen(world.disk.clone(), 1);
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
    let stolen = world.disk.files()[0].1[..400].to_vec();
    let sequence = world.log.append(5, Life::Live, &[&stolen]).unwrap();
    world.kept.insert(sequence, stolen);
    world.commit();
    world.append(20);
    world.commit();
    // The header before it is damaged: the walk has to step over the body.
    assert!(world.disk.flip(1, (DATA_START + (HEADER_LEN + 10).next_multiple_of(8)) * 8));
    let (_, recovery, found) = reopen(world.disk.clone(), 1);
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
    assert!(world.disk.files().len() <= 2);
    assert!(world.kept.len() == 1 && world.log.oldest().is_none_or(|oldest| oldest.live == 0));
    world.crash();
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_lost() {
    let mut world = World::new(4);
    world.disk.limit(Some(10_000));
    for _ in 0..30 {
        world.append(500);
        world.commit();
    }
    assert!((10..30).contains(&world.kept.len()), "{}", world.kept.len());
    world.disk.limit(None);
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
    let (second, _) = world.disk.files()[1];
    assert!(world.disk.take(second).is_some());
    let (_, recovery, found) = reopen(world.disk.clone(), 1);
    assert_eq!(recovery.damaged.len(), 1);
    assert_eq!(found.len() as u64 + recovery.damaged_records, 40);
}

#[test]
fn two_logs_are_not_mixed() {
    let disks = [1, 2].map(|number| {
        let (disk, lineage) = (SimDisk::new(0), Lineage([number; 16]));
        // The second opening writes into a second segment.
        for seed in 0..2 {
            let (mut log, _) = Log::open(disk.clone(), SMALL, lineage, seed, |_, _, _| Life::Live).unwrap();
            log.append(1, Life::Live, &[b"mine"]).unwrap();
            log.commit().unwrap();
        }
        disk
    });
    disks[0].put(2, disks[1].take(2).unwrap());
    let opened = Log::open(disks[0].clone(), SMALL, LINEAGE, 1, |_, _, _| Life::Live);
    assert!(matches!(opened, Err(OpenError::Foreign { segment: 2, .. })));
}

#[test]
fn a_record_at_the_limit_and_one_past_it() {
    let settings = Settings { bytes_max: 64 << 20, ..SMALL };
    let disk = SimDisk::new(0);
    let (mut log, _) = Log::open(disk.clone(), settings, LINEAGE, 1, |_, _, _| Life::Live).unwrap();
    let body = vec![1; BODY_MAX + 1];
    assert_eq!(log.append(1, Life::Live, &[&body]), Err(AppendError::TooLong { len: BODY_MAX + 1 }));
    log.append(1, Life::Live, &[&body[1..]]).unwrap();
    log.commit().unwrap();
    let mut lens = vec![];
    Log::open(disk, settings, LINEAGE, 1, |_, _, body| {
        lens.push(body.len());
        Life::Live
    })
    .unwrap();
    assert_eq!(lens, [BODY_MAX]);
}

#[test]
fn what_two_crashes_in_a_row_tore_is_no_damage() {
    let mut world = World::new(6);
    world.append(10);
    world.commit();
    // Of two commits of three records, each by an opening of its own: of the first its beginning is there, of the second its
    // end. A record has 48 bytes.
    for torn in [2..4, 0..2] {
        (0..3).for_each(|_| world.append(10));
        world.commit();
        let (segment, mut bytes) = world.disk.files().pop().unwrap();
        bytes[DATA_START + torn.start * 48..DATA_START + torn.end * 48].fill(0);
        world.disk.put(segment, bytes);
        let (log, recovery, _) = reopen(world.disk.clone(), 1);
        world.log = log;
        assert_eq!(recovery.damaged, [], "{recovery:?}");
    }
}

#[test]
fn a_log_of_another_format_is_refused_and_left_as_it_is() {
    use wire_format::crc::crc32c;
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk| Log::open(disk.clone(), SMALL, LINEAGE, 1, |_, _, _| Life::Live);
    let (mut log, _) = open(&disk).unwrap();
    log.append(1, Life::Live, &[b"x"]).unwrap();
    log.commit().unwrap();
    drop(log);
    let (segment, mut bytes) = disk.files().pop().unwrap();
    for copy in [0, 64] {
        bytes[copy + 5..copy + 8].copy_from_slice(b"002");
        let sum = crc32c(&bytes[copy..copy + 60]);
        bytes[copy + 60..copy + 64].copy_from_slice(&sum.to_le_bytes());
    }
    disk.put(segment, bytes.clone());
    let opened = open(&disk).map(drop);
    assert!(matches!(opened, Err(OpenError::Format { segment: 1, format }) if &format == b"002"));
    assert_eq!(disk.files().pop(), Some((segment, bytes.clone())));
    // One copy alone is damage, and the other one is read.
    bytes[5..8].copy_from_slice(b"001");
    let sum = crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    disk.put(segment, bytes);
    assert_eq!(open(&disk).unwrap().1.records, 1);
}
