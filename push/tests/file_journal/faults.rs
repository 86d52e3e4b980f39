//! The power goes, calls fail, the disk is full.

use proptest::prelude::*;

use super::*;

/// What a user of the journal knows about it.
struct World {
    disk: SimDisk,
    journal: FileJournal<SimDisk>,
    /// Synced.
    kept: Records,
    /// Appended since: any first few of them may be there.
    loose: Records,
    /// Replacements that failed since: any of them may be there instead.
    instead: Vec<Records>,
    /// A call failed: the next write is a replacement.
    failed: bool,
    next: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let (journal, found, _) = open(disk.clone());
        assert_eq!(found, Found::New);
        let [kept, loose] = [(); 2].map(|()| Records::new());
        Self { disk, journal, kept, loose, instead: Vec::new(), failed: false, next: 0 }
    }

    fn append(&mut self) {
        if self.failed || self.journal.wants_snapshot() {
            return self.replace(3);
        }
        let record = record(self.next);
        self.next += 1;
        match self.journal.append(&record) {
            Ok(()) => self.loose.push(record),
            Err(_) => self.failed = true,
        }
    }

    fn sync(&mut self) {
        if self.failed {
            return;
        }
        match self.journal.sync() {
            Ok(()) => self.kept.append(&mut self.loose),
            Err(_) => self.failed = true,
        }
    }

    fn replace(&mut self, keep: usize) {
        let mut state = self.kept.clone();
        state.append(&mut self.loose.clone());
        state.drain(..state.len().saturating_sub(keep));
        let replaced = self.journal.replace(&mut snapshot(&state));
        match replaced {
            Ok(()) => {
                (self.kept, self.failed) = (state, false);
                self.instead.clear();
                self.loose.clear();
            }
            Err(_) => {
                self.failed = true;
                self.instead.push(state);
            }
        }
    }

    /// The power goes, and comes back.
    fn crash(&mut self) {
        self.disk.crash();
        self.reopen();
    }

    fn reopen(&mut self) {
        let (journal, found, told) = open(self.disk.clone());
        assert_ne!(found, Found::Damaged, "a crash damages nothing that was synced");
        let all: Records = self.kept.iter().chain(&self.loose).cloned().collect();
        let is_prefix = told.len() >= self.kept.len() && told.len() <= all.len() && told == all[..told.len()];
        assert!(
            is_prefix || self.instead.contains(&told),
            "{told:?}\nis neither {:?} with some of {:?}, nor {:?}",
            self.kept,
            self.loose,
            self.instead
        );
        assert!(found == Found::Whole || told.is_empty());
        self.journal = journal;
        (self.kept, self.failed) = (told, false);
        self.instead.clear();
        self.loose.clear();
    }

    fn run(&mut self, step: u32) {
        match step % 29 {
            28 => self.replace(4),
            3 | 7 | 8 => self.append(),
            _ => {
                self.append();
                self.sync();
            }
        }
    }
}

#[test]
fn a_crash_at_every_step_loses_nothing_that_was_synced() {
    for seed in 0..8 {
        for at in 0.. {
            let mut world = World::new(seed);
            world.disk.die_after(at);
            let mut steps = 0..80;
            while !world.disk.is_dead() && steps.next().map(|step| world.run(step)).is_some() {}
            let dead = world.disk.is_dead();
            world.crash();
            (0..40).for_each(|step| world.run(step));
            world.reopen();
            if !dead {
                assert!(at > 100, "{at} steps");
                break;
            }
        }
    }
}

#[test]
fn a_call_that_fails_loses_nothing_and_a_snapshot_mends_it() {
    for seed in 0..4 {
        for at in 0.. {
            let mut world = World::new(seed);
            world.disk.fail_after(at);
            (0..60).for_each(|step| world.run(step));
            let failed = world.disk.counts().failures > 0;
            if world.failed {
                world.disk.fail_no_more();
                world.replace(3);
            }
            assert!(!world.failed, "the next replacement works");
            world.append();
            world.sync();
            world.crash();
            if !failed {
                assert!(at > 60, "{at} calls");
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_is_said_and_what_is_there_stays() {
    let mut world = World::new(1);
    world.disk.limit(Some(SMALL - 1));
    world.append();
    assert!(world.failed, "there is no room for the first file");
    world.replace(3);
    assert!(world.failed);
    world.reopen();
    // Room for one file: it is made, and the snapshot that wants the other one fails.
    world.disk.limit(Some(SMALL));
    world.append();
    world.sync();
    assert!(!world.failed);
    world.replace(3);
    assert!(world.failed);
    world.crash();
    assert_eq!(world.kept.len(), 1);
    // With both, nothing more is ever taken.
    world.disk.limit(Some(2 * SMALL));
    (0..400).for_each(|step| {
        world.run(step);
        assert!(!world.failed);
    });
    world.crash();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_crashes_and_failures_lose_nothing_that_was_synced(
        seed: u64,
        steps in prop::collection::vec((0_u8..40, 0_u32..29, 0_u8..30), 1..200),
    ) {
        let mut world = World::new(seed);
        for (fault, step, after) in steps {
            match fault {
                0 => world.disk.die_after(u64::from(after)),
                1 => world.disk.fail_after(u32::from(after)),
                2 => world.crash(),
                3 => world.disk.fail_no_more(),
                _ => {}
            }
            world.run(step);
            if world.disk.is_dead() {
                world.crash();
            }
        }
        world.crash();
        world.reopen();
    }
}
