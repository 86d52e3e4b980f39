//! A disk that is as slow or as full as it is told to be.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tillwire::push::outbox::log::Disk;

/// How the disk behaves from now on; shared with whoever writes to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hindrance(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sync_ms: AtomicU64,
    full: AtomicBool,
    syncs: AtomicU64,
}

impl Hindrance {
    /// Every sync takes so long more.
    pub(super) fn slow(&self, sync: Duration) {
        let ms = u64::try_from(sync.as_millis()).unwrap_or(u64::MAX);
        self.0.sync_ms.store(ms, Ordering::Relaxed);
    }

    /// No byte can be written.
    pub(super) fn full(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
    }

    /// Syncs so far.
    pub(super) fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }

    fn room(&self) -> io::Result<()> {
        if self.0.full.load(Ordering::Relaxed) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// A disk that is hindered.
#[derive(Debug)]
pub(super) struct Hindered<D> {
    disk: D,
    by: Hindrance,
}

impl<D: Disk> Hindered<D> {
    pub(super) const fn new(disk: D, by: Hindrance) -> Self {
        Self { disk, by }
    }
}

impl<D: Disk> Disk for Hindered<D> {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        self.disk.segments()
    }

    fn create(&mut self, segment: u64, bytes: u64, head: &[u8]) -> io::Result<()> {
        self.by.room()?;
        self.disk.create(segment, bytes, head)
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.by.room()?;
        self.disk.write(segment, offset, bytes)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the thread that writes serves no sockets, and is to be held up"
    )]
    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.by.0.syncs.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(self.by.0.sync_ms.load(Ordering::Relaxed)));
        self.disk.sync(segment)
    }

    fn read(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        self.disk.read(segment, into)
    }

    fn read_head(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        self.disk.read_head(segment, into)
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.disk.remove(segment)
    }

    fn set_aside(&mut self, segments: &[u64]) -> io::Result<()> {
        self.disk.set_aside(segments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine;
    use tillwire::push::outbox::log::Directory;

    #[test]
    fn it_is_as_slow_and_as_full_as_it_is_told_to_be() {
        let path = std::env::temp_dir().join(format!("tillwire-hindered-{}", std::process::id()));
        let by = Hindrance::default();
        let mut disk = Hindered::new(Directory::open(&path).unwrap(), by.clone());
        disk.create(1, 4_096, b"head").unwrap();
        by.full(true);
        for refused in [disk.write(1, 0, b"x"), disk.create(2, 4_096, b"")] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::StorageFull);
        }
        by.full(false);
        disk.write(1, 0, b"x").unwrap();
        by.slow(Duration::from_millis(60));
        let before = machine::now();
        disk.sync(1).unwrap();
        assert!(machine::now() - before >= Duration::from_millis(60));
        assert_eq!((by.syncs(), disk.segments().unwrap()), (1, vec![1]));
        drop(disk);
        std::fs::remove_dir_all(path).unwrap();
    }
}
