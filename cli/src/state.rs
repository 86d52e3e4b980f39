//! What a node keeps between its runs: one directory, a few small files.
//!
//! | file | content |
//! | --- | --- |
//! | `epoch` | the boot epoch as a decimal number; raised and synced before this run uses it |
//! | `id` | the node's id, 32 hexadecimal digits, written once |
//! | `fence` | of a server that took its store over: the fence as a decimal number; with an outbox a copy, for a run without it |
//! | `roster` | of a server: the devices it knows, as discovery's snapshot |
//! | `journal` | of a device: a directory of its own, see `docs/JOURNAL.md` |
//! | `outbox` | of a server, unless told otherwise: its orders, in a directory of their own, see `docs/OUTBOX.md` |
//! | `lock` | empty; locked while a process runs on this directory |
//!
//! Files are replaced whole (written beside, synced, renamed), so a power cut leaves the old one or the new one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use wire_format::ids::NodeId;

use crate::error::Failure;
use crate::out;

/// The devices a server knows.
const ROSTER: &str = "roster";

/// The fence of a server.
const FENCE: &str = "fence";

/// Where a server keeps its fence.
#[derive(Clone, Debug)]
pub(crate) struct FenceFile(PathBuf);

impl FenceFile {
    /// Replaces the fence kept here.
    pub(crate) fn keep(&self, fence: u64) -> Result<(), Failure> {
        replace(&self.0, format!("{fence}\n").as_bytes())
    }
}

/// An open state directory. The lock lasts as long as this lives.
#[derive(Debug)]
pub(crate) struct State {
    /// The epoch of this run: higher than that of every run before it.
    pub(crate) epoch: u32,
    dir: PathBuf,
    _lock: File,
}

impl State {
    /// Opens or makes `dir` and raises its boot epoch.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).map_err(|error| cannot("make the state directory", dir, &error))?;
        let lock = lock(dir)?;
        let path = dir.join("epoch");
        let before = match read(&path)? {
            Some(text) => text.trim().parse::<u32>().map_err(|_| broken(&path, "a number"))?,
            None => 0,
        };
        let epoch =
            before.checked_add(1).ok_or_else(|| broken(&path, "a number that can still be raised"))?;
        replace(&path, format!("{epoch}\n").as_bytes())?;
        Ok(Self { epoch, dir: dir.to_owned(), _lock: lock })
    }

    /// The fence kept here, if this server ever took its store over.
    pub(crate) fn fence(&self) -> Result<Option<u64>, Failure> {
        let FenceFile(path) = self.fence_file();
        let Some(text) = read(&path)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| broken(&path, "a number"))
    }

    /// Where the fence is kept.
    pub(crate) fn fence_file(&self) -> FenceFile {
        FenceFile(self.dir.join(FENCE))
    }

    /// The roster kept here. One that cannot be read is as good as none, and said.
    pub(crate) fn roster(&self) -> Option<Vec<u8>> {
        // 16 MiB are 70,000 devices; a larger file is not ours.
        const BYTES_MAX: u64 = 16 << 20;
        let path = self.dir.join(ROSTER);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                out::warn(&cannot("read", &path, &error).cause);
                None
            }
        }
    }

    /// Replaces the roster kept here.
    pub(crate) fn keep_roster(&self, snapshot: &[u8]) -> Result<(), Failure> {
        replace(&self.dir.join(ROSTER), snapshot)
    }

    /// Moves the roster kept here out of the way, for somebody to look at; where to.
    pub(crate) fn set_roster_aside(&self) -> Result<PathBuf, Failure> {
        let (path, aside) = (self.dir.join(ROSTER), self.dir.join("roster.aside"));
        std::fs::rename(&path, &aside).map_err(|error| cannot("rename", &path, &error))?;
        Ok(aside)
    }

    /// The id kept here; `make` is asked once, at the first run.
    pub(crate) fn id(&self, make: impl FnOnce() -> NodeId) -> Result<NodeId, Failure> {
        let path = self.dir.join("id");
        if let Some(text) = read(&path)? {
            return text.trim().parse().map_err(|_| broken(&path, "an id"));
        }
        let id = make();
        replace(&path, format!("{id}\n").as_bytes())?;
        Ok(id)
    }
}

fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| cannot("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::start(
            format!("the state directory {} is in use by another process", dir.display()),
            "one process, one directory: stop the other one or give --state another directory",
        )),
        Err(TryLockError::Error(error)) => Err(cannot("lock", &path, &error)),
    }
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    // Longer than anything written here; a larger file is not ours.
    const BYTES_MAX: u64 = 256;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("read", path, &error)),
    };
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| cannot("read", path, &error))?;
    Ok(Some(text))
}

/// Replaces a file whole: written beside it, synced, renamed, and the rename synced.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::start(
        format!("cannot {what} {}: {error}", path.display()),
        "give --state a directory this user may write to",
    )
}

fn broken(path: &Path, wanted: &str) -> Failure {
    Failure::start(
        format!("{} does not hold {wanted}", path.display()),
        "it was damaged or is not ours; a removed state directory begins anew as a node nobody knows",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tillwire-state-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn the_epoch_rises_with_every_open_and_the_id_stays() {
        let dir = dir("rises");
        for epoch in 1..4 {
            let state = State::open(&dir).unwrap();
            assert_eq!(state.epoch, epoch);
            assert_eq!(state.id(|| NodeId([u8::try_from(epoch).unwrap(); 16])).unwrap(), NodeId([1; 16]));
            assert_eq!(std::fs::read_to_string(dir.join("epoch")).unwrap(), format!("{epoch}\n"));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_fence_is_kept() {
        let dir = dir("fence");
        let state = State::open(&dir).unwrap();
        assert_eq!(state.fence().unwrap(), None);
        state.fence_file().keep(7).unwrap();
        drop(state);
        assert_eq!(State::open(&dir).unwrap().fence().unwrap(), Some(7));
        std::fs::write(dir.join(FENCE), "high").unwrap();
        assert!(State::open(&dir).unwrap().fence().unwrap_err().cause.contains("does not hold a number"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_directory_in_use_and_a_damaged_one_are_refused() {
        let dir = dir("refused");
        let state = State::open(&dir).unwrap();
        assert!(State::open(&dir).unwrap_err().cause.contains("in use"));
        drop(state);
        for (text, says) in [("", "a number"), ("x", "a number"), ("4294967295", "still be raised")] {
            std::fs::write(dir.join("epoch"), text).unwrap();
            let failure = State::open(&dir).unwrap_err();
            assert!(failure.cause.contains(says) && failure.not_started, "{failure:?}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
