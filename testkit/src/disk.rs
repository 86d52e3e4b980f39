//! A disk that forgets: what an outbox's files become when the power goes, calls fail, or bits flip.
//!
//! - Written and not synced: after [`SimDisk::crash`] each sector of 512 bytes is there, is not, is there in part, or is garbage,
//!   each by itself, so writes are lost, torn and reordered.
//! - A sync that failed has lost what it should have written: a later sync does not write it either, although reads show
//!   it until the power goes. That is how Linux does it.
//! - Made, removed and set aside: there or not, or in part, if the power goes meanwhile.
//!
//! A [`SimDisk`] is a handle: clones of it are the same disk, so that a test keeps one while an outbox has another.
//! [`SimDisk::copy`] is a second disk with the same bytes: a backup, or a cloned machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use push::outbox::log::Disk;
use wire_format::rng::Rng;

/// Bytes that a disk writes as a whole, mostly.
pub const SECTOR: usize = 512;

/// A handle of a simulated disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
struct State {
    rng: Rng,
    files: BTreeMap<u64, File>,
    aside: Vec<(u64, Vec<u8>)>,
    /// So many further calls succeed, then one fails; the last entry comes first.
    failing: Vec<u32>,
    /// So many further calls work, then the power goes in the middle of one.
    dies_in: Option<u64>,
    dead: bool,
    capacity: Option<usize>,
    counts: Counts,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What survives a power cut.
    safe: Vec<u8>,
    /// As a reader sees it before one.
    seen: Vec<u8>,
    /// Sectors a sync would write.
    dirty: BTreeSet<usize>,
    /// Sectors whose fate is open although no sync will write them any more.
    loose: BTreeSet<usize>,
}

/// Calls that a disk has had; those that failed among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments made.
    pub creates: u64,
    /// Writes.
    pub writes: u64,
    /// Syncs of a segment.
    pub syncs: u64,
    /// Segments removed or set aside.
    pub removes: u64,
    /// Segments read, whole or their heads.
    pub reads: u64,
    /// Calls that failed because a test said so, or because the disk was full.
    pub failures: u64,
}

impl Counts {
    /// Calls that change something: the steps at which the power may go.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.creates + self.writes + self.syncs + self.removes
    }
}

enum Fate {
    Works,
    Fails,
    /// The power goes meanwhile.
    Dies,
}

impl SimDisk {
    /// An empty disk; the seed decides what a crash leaves.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (files, aside, failing) = (BTreeMap::new(), Vec::new(), Vec::new());
        let (rng, counts) = (Rng::new(seed), Counts::default());
        Self(Arc::new(Mutex::new(State {
            rng,
            files,
            aside,
            failing,
            dies_in: None,
            dead: false,
            capacity: None,
            counts,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A second disk with what this one shows now; all of it is synced there.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        for (number, bytes) in self.files() {
            copy.put(number, bytes);
        }
        copy
    }

    /// The power goes and comes back: whoever used the disk has to open it again. Plans to fail or to die are forgotten.
    pub fn crash(&self) {
        let mut state = self.state();
        let State { rng, files, .. } = &mut *state;
        files.values_mut().for_each(|file| file.crash(rng));
        state.failing.clear();
        (state.dies_in, state.dead) = (None, false);
    }

    /// The process that used the disk is gone, in the middle of a call perhaps, and the system goes on: what was written is seen
    /// as before, and is synced or not. Plans to fail or to die are forgotten.
    pub fn kill(&self) {
        let mut state = self.state();
        state.failing.clear();
        (state.dies_in, state.dead) = (None, false);
    }

    /// The call after `calls` further ones that change something fails, and may have done some of its work. Plans add up:
    /// the one made last is used first.
    pub fn fail_after(&self, calls: u32) {
        self.state().failing.push(calls);
    }

    /// Calls succeed again.
    pub fn fail_no_more(&self) {
        self.state().failing.clear();
    }

    /// The power goes in the middle of the call after `calls` further ones that change something, or the process does; every
    /// later call fails until [`SimDisk::crash`] or [`SimDisk::kill`] says which.
    pub fn die_after(&self, calls: u64) {
        self.state().dies_in = Some(calls);
    }

    /// Whether that has happened.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Bytes all segments may have together; `None` for no limit.
    pub fn limit(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// The calls so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Flips one bit of a segment, for good; false if it is not that long.
    pub fn flip(&self, segment: u64, bit: usize) -> bool {
        let mut state = self.state();
        let Some(file) = state.files.get_mut(&segment).filter(|file| bit / 8 < file.seen.len()) else {
            return false;
        };
        file.seen[bit / 8] ^= 1 << (bit % 8);
        file.safe[bit / 8] ^= 1 << (bit % 8);
        true
    }

    /// Every segment's bytes as a reader sees them, by number.
    #[must_use]
    pub fn files(&self) -> Vec<(u64, Vec<u8>)> {
        self.state().files.iter().map(|(&number, file)| (number, file.seen.clone())).collect()
    }

    /// Replaces a segment, or adds it; synced.
    pub fn put(&self, segment: u64, bytes: Vec<u8>) {
        let file = File { safe: bytes.clone(), seen: bytes, ..File::default() };
        self.state().files.insert(segment, file);
    }

    /// Takes a segment away, as a person would.
    pub fn take(&self, segment: u64) -> Option<Vec<u8>> {
        self.state().files.remove(&segment).map(|file| file.seen)
    }

    /// What was set aside, in that order.
    #[must_use]
    pub fn aside(&self) -> Vec<(u64, Vec<u8>)> {
        self.state().aside.clone()
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new(0)
    }
}

impl File {
    fn crash(&mut self, rng: &mut Rng) {
        let open: BTreeSet<usize> = self.dirty.union(&self.loose).copied().collect();
        for at in open {
            let end = (at + SECTOR).min(self.seen.len());
            let cut = match rng.below(16) {
                0..4 => at,
                4..7 => at + usize::try_from(rng.below((end - at) as u64)).unwrap(),
                _ => end,
            };
            // What a sector held before is written again as it was: only new bytes may become garbage.
            let garbage = rng.below(32) == 0;
            for (safe, &seen) in self.safe[at..cut].iter_mut().zip(&self.seen[at..cut]) {
                *safe = if garbage && *safe != seen { rng.next_u64().to_le_bytes()[0] } else { seen };
            }
        }
        self.seen.clone_from(&self.safe);
        self.dirty.clear();
        self.loose.clear();
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.seen[at..at + bytes.len()].copy_from_slice(bytes);
        let first = at / SECTOR * SECTOR;
        for sector in (first..at + bytes.len()).step_by(SECTOR) {
            self.dirty.insert(sector);
            self.loose.remove(&sector);
        }
    }

    fn sync(&mut self) {
        for at in core::mem::take(&mut self.dirty) {
            let end = (at + SECTOR).min(self.seen.len());
            self.safe[at..end].copy_from_slice(&self.seen[at..end]);
        }
    }
}

fn planned() -> io::Error {
    io::Error::other("planned")
}

impl State {
    /// What becomes of a call that changes something.
    fn fate(&mut self) -> io::Result<Fate> {
        if self.dead {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut self.dies_in {
            if *left == 0 {
                (self.dies_in, self.dead) = (None, true);
                return Ok(Fate::Dies);
            }
            *left -= 1;
        }
        match self.failing.last_mut() {
            Some(0) => {
                self.failing.pop();
                self.counts.failures += 1;
                Ok(Fate::Fails)
            }
            Some(left) => {
                *left -= 1;
                Ok(Fate::Works)
            }
            None => Ok(Fate::Works),
        }
    }

    fn file(&mut self, segment: u64) -> io::Result<&mut File> {
        self.files.get_mut(&segment).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn alive(&mut self) -> io::Result<()> {
        self.counts.reads += 1;
        if self.dead { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn remove(&mut self, segment: u64) -> io::Result<Option<Vec<u8>>> {
        self.counts.removes += 1;
        let fate = self.fate()?;
        let happens = match fate {
            Fate::Works => true,
            Fate::Fails | Fate::Dies => self.rng.below(2) == 0,
        };
        let removed = if happens { self.files.remove(&segment) } else { None };
        match (fate, happens) {
            (Fate::Works, _) => Ok(removed.map(|file| file.seen)),
            // It went, and the caller is told that it did not.
            (_, true) => Ok(removed.map(|file| file.seen)).and_then(|_| Err(planned())),
            (_, false) => Err(planned()),
        }
    }
}

impl Disk for SimDisk {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut state = self.state();
        state.alive()?;
        Ok(state.files.keys().copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: u64, head: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.counts.creates += 1;
        let fate = state.fate()?;
        let taken = state.files.values().map(|file| file.seen.len()).sum::<usize>();
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::StorageFull)?;
        if state.capacity.is_some_and(|capacity| taken + len > capacity) {
            state.counts.failures += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.files.contains_key(&segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut safe = vec![0; len];
        let done = match fate {
            Fate::Works => head.len(),
            Fate::Fails => return Err(planned()),
            Fate::Dies if state.rng.below(2) == 0 => return Err(planned()),
            Fate::Dies => usize::try_from(state.rng.below(head.len() as u64 + 1)).unwrap(),
        };
        safe[..done].copy_from_slice(&head[..done]);
        let file = File { seen: safe.clone(), safe, ..File::default() };
        state.files.insert(segment, file);
        if matches!(fate, Fate::Works) { Ok(()) } else { Err(planned()) }
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.counts.writes += 1;
        let fate = state.fate()?;
        // What fails may have done some of its work.
        let done = match fate {
            Fate::Works => bytes.len(),
            Fate::Fails | Fate::Dies => usize::try_from(state.rng.below(bytes.len() as u64 + 1)).unwrap(),
        };
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        let file = state.file(segment)?;
        if at + bytes.len() > file.seen.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write(at, &bytes[..done]);
        if matches!(fate, Fate::Works) { Ok(()) } else { Err(planned()) }
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        let mut state = self.state();
        state.counts.syncs += 1;
        let fate = state.fate()?;
        let file = state.file(segment)?;
        match fate {
            Fate::Works => {
                file.sync();
                Ok(())
            }
            Fate::Fails => {
                let lost = core::mem::take(&mut file.dirty);
                file.loose.extend(lost);
                Err(planned())
            }
            Fate::Dies => Err(planned()),
        }
    }

    fn read(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        into.clone_from(&state.file(segment)?.seen);
        Ok(())
    }

    fn read_head(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        self.read(segment, into)?;
        into.truncate(128);
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.state().remove(segment).map(drop)
    }

    fn set_aside(&mut self, segments: &[u64]) -> io::Result<()> {
        let mut state = self.state();
        for &segment in segments.iter().rev() {
            let bytes = state.remove(segment)?.unwrap_or_default();
            state.aside.push((segment, bytes));
        }
        Ok(())
    }
}
