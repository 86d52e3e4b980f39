//! Where the log's segments lie: a directory, or what a test puts in its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Files with numbers for names. One log uses it at a time.
pub trait Disk {
    /// The numbers of the segments that are there, in ascending order.
    fn segments(&mut self) -> io::Result<Vec<u64>>;

    /// Makes a segment of `bytes` bytes: `head`, and zeros. When this returns it will still be there after a power cut;
    /// until then it may be there in part.
    fn create(&mut self, segment: u64, bytes: u64, head: &[u8]) -> io::Result<()>;

    /// Writes; what is there after a power cut is open until [`Disk::sync`].
    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// What was written to this segment is there after a power cut, once this has returned without an error.
    fn sync(&mut self, segment: u64) -> io::Result<()>;

    /// Replaces what is in `into` by the whole segment.
    fn read(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()>;

    /// Replaces what is in `into` by the segment's first 128 bytes, or fewer if it is shorter.
    fn read_head(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()>;

    /// Removes a segment. When this returns it will not be back after a power cut.
    fn remove(&mut self, segment: u64) -> io::Result<()>;

    /// Moves segments to where nobody looks for them but people, the last one first. When this returns none of them will be
    /// back after a power cut; on an error some may have gone.
    fn set_aside(&mut self, segments: &[u64]) -> io::Result<()>;
}

/// A directory of the file system, locked while this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The segment written to last.
    open: Option<(u64, File)>,
    /// Where segments are being set aside, until all of them are there.
    aside: Option<PathBuf>,
    _lock: File,
}

const ENDING: &str = ".log";

impl Directory {
    /// Opens or makes the directory; one that is made belongs to this user alone, since orders lie in it.
    /// [`io::ErrorKind::WouldBlock`] if another process uses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        make_private(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::Error(error) => error,
            std::fs::TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        })?;
        Ok(Self { path: path.to_owned(), open: None, aside: None, _lock: lock })
    }

    fn name(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:016x}{ENDING}"))
    }

    /// A new sub-directory for segments that are set aside: `aside-1`, `aside-2` and so on.
    fn new_aside(&self) -> io::Result<PathBuf> {
        let mut number = 1_u64;
        loop {
            let path = self.path.join(format!("aside-{number}"));
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => return made.map(|()| path),
            }
        }
    }

    fn file(&mut self, segment: u64) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            let file = OpenOptions::new().write(true).open(self.name(segment))?;
            self.open = Some((segment, file));
        }
        self.open.as_ref().map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Directory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            found.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn create(&mut self, segment: u64, bytes: u64, head: &[u8]) -> io::Result<()> {
        let name = self.name(segment);
        let file = OpenOptions::new().write(true).create_new(true).open(&name)?;
        let made = reserve(&file, bytes)
            .and_then(|()| write_at(&file, head, 0))
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_names(&self.path));
        match made {
            Ok(()) => self.open = Some((segment, file)),
            // A full disk must not be filled further by what it could not hold.
            Err(_) => drop(std::fs::remove_file(name)),
        }
        made
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_at(self.file(segment)?, bytes, offset)
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.file(segment)?.sync_data()
    }

    fn read(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        io::Read::read_to_end(&mut File::open(self.name(segment))?, into).map(drop)
    }

    fn read_head(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        let file = File::open(self.name(segment))?;
        io::Read::read_to_end(&mut io::Read::take(file, super::segment::DATA_START as u64), into).map(drop)
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| *open == segment) {
            self.open = None;
        }
        std::fs::remove_file(self.name(segment))?;
        sync_names(&self.path)
    }

    fn set_aside(&mut self, segments: &[u64]) -> io::Result<()> {
        self.open = None;
        let aside = self.aside.take().map_or_else(|| self.new_aside(), Ok)?;
        self.aside = Some(aside.clone());
        for &segment in segments.iter().rev() {
            let name = self.name(segment);
            match std::fs::rename(&name, aside.join(name.file_name().unwrap_or_default())) {
                // It went when this was tried before.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                moved => moved?,
            }
        }
        sync_names(&aside)?;
        sync_names(&self.path)?;
        self.aside = None;
        Ok(())
    }
}

/// The names in the directory survive a power cut from now on.
fn sync_names(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and its journal keeps the order of names.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Makes a directory, and those above it that are not there, for this user alone where the system knows that.
fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Takes the room now: a full disk is found out here and not at a commit, and a commit changes no length.
#[cfg(target_os = "linux")]
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let taken = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    match taken {
        // A file system without the call: the length at least.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
        taken => taken.map_err(Into::into),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        bytes = bytes.get(written..).filter(|_| written > 0).ok_or(io::ErrorKind::WriteZero)?;
        offset += written as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_segments_and_one_user() {
        let path = std::env::temp_dir().join(format!("tillwire-outbox-disk-{}", std::process::id()));
        let mut disk = Directory::open(&path).unwrap();
        assert_eq!(Directory::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(disk.segments().unwrap(), Vec::<u64>::new());
        #[cfg(unix)]
        {
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o700, "nobody else reads orders");
        }
        for segment in [1, 0x1F, 2] {
            disk.create(segment, 4_096, b"head").unwrap();
        }
        assert_eq!(disk.create(2, 4_096, b"head").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.segments().unwrap(), [1, 2, 0x1F]);
        disk.write(2, 4_000, b"at the end").unwrap();
        disk.sync(2).unwrap();
        let mut bytes = vec![];
        disk.read(2, &mut bytes).unwrap();
        assert_eq!(
            (bytes.len(), &bytes[..4], &bytes[4_000..4_010]),
            (4_096, &b"head"[..], &b"at the end"[..])
        );
        disk.read_head(2, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 128);
        disk.remove(1).unwrap();
        disk.set_aside(&[1, 2, 0x1F]).unwrap();
        assert_eq!(disk.segments().unwrap(), Vec::<u64>::new());
        disk.create(2, 128, b"another").unwrap();
        disk.set_aside(&[2]).unwrap();
        let aside = |directory: &str| std::fs::read_dir(path.join(directory)).unwrap().count();
        assert_eq!((aside("aside-1"), aside("aside-2")), (2, 1));
        drop(disk);
        assert!(Directory::open(&path).is_ok(), "the lock went with its user");
        std::fs::remove_dir_all(path).unwrap();
    }
}
