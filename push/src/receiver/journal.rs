//! Where a device keeps what must outlive its reboot: the trait behind which files, flash pages or nothing stand.
//!
//! ```text
//!   Receiver ── records, opaque, 64 bytes at most ──▶ append, append … sync     in every turn that has something to say
//!            ── the whole state as records ────────▶ replace                   when the log has grown, or a write failed
//!            ◀─ all records, oldest first ────────── replay                    once, at the boot
//! ```
//!
//! A journal is a log of small records behind a snapshot. It knows nothing of what is in them: their layout is the
//! receiver's (`docs/JOURNAL.md`), so a journal needs no change when a record gets a new one. What a journal promises:
//!
//! - **What a [`Journal::sync`] returned for survives** a power cut, and so does everything appended before it.
//! - **What is there after a power cut is a prefix** of what was appended: records may be missing at the end, never in
//!   the middle, and none is there in part. Unsynced records may be there or not.
//! - **[`Journal::replace`] is atomic**: after a power cut there is either the old log or the whole new snapshot.
//! - **Damage is told.** A flipped bit, a torn page or a missing file gives [`Found::Damaged`], never a record that was
//!   not appended; what stands before the damage is told, what stands behind it is not. A torn end is no damage.
//! - **After an error** of `append`, `sync` or `replace` nothing since the last sync that returned is known to be there, and
//!   the receiver does not believe a later sync either: its next write is a `replace` with everything. A journal must take
//!   that, and need not take anything else. (A kernel that failed to write a page once forgets it, and the next sync
//!   says that all is well.)
//!
//! Calls block. They come from the loop that runs the [`super::Handler`], which may block as well; a journal that takes
//! long makes its device slow, and a device that stood still for 5 s ends its session.

use core::convert::Infallible;

/// Bytes of the longest record. The longest of today has 48; the rest is for later ones.
pub const RECORD_MAX: usize = 64;

/// What a journal held when it was replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// This is no journal: nothing is kept over a reboot. Only [`NoJournal`] says so.
    NoJournal,
    /// An empty place: never written before, wiped, or replaced by a new one.
    New,
    /// Everything synced before the last power cut.
    Whole,
    /// Something that was synced is not there or not what it was. What stood before it was told.
    Damaged,
}

/// A place for records. [`super::Receiver`] says what they are and when; see the [module](self) for what is promised.
///
/// A journal in memory, which is what a test of reboots needs:
///
/// ```
/// use push::receiver::journal::{Found, Journal, RECORD_MAX};
///
/// #[derive(Default)]
/// struct InMemory { records: Vec<Vec<u8>>, synced: usize }
///
/// impl InMemory {
///     /// A power cut: what was not synced is gone.
///     fn cut(&mut self) {
///         self.records.truncate(self.synced);
///     }
/// }
///
/// impl Journal for InMemory {
///     type Error = core::convert::Infallible;
///
///     fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, Self::Error> {
///         self.records.iter().for_each(|record| tell(record));
///         Ok(if self.records.is_empty() { Found::New } else { Found::Whole })
///     }
///
///     fn append(&mut self, record: &[u8]) -> Result<(), Self::Error> {
///         self.records.push(record.to_vec());
///         Ok(())
///     }
///
///     fn sync(&mut self) -> Result<(), Self::Error> {
///         self.synced = self.records.len();
///         Ok(())
///     }
///
///     fn wants_snapshot(&self) -> bool {
///         self.records.len() > 1_000
///     }
///
///     fn replace(
///         &mut self,
///         records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
///     ) -> Result<(), Self::Error> {
///         let mut record = [0; RECORD_MAX];
///         self.records.clear();
///         while let Some(len) = records(&mut record) {
///             self.records.push(record[..len].to_vec());
///         }
///         self.sync()
///     }
/// }
///
/// let mut journal = InMemory::default();
/// journal.append(b"synced")?;
/// journal.sync()?;
/// journal.append(b"not synced")?;
/// journal.cut();
/// let mut found = Vec::new();
/// assert_eq!(journal.replay(&mut |record| found.push(record.to_vec()))?, Found::Whole);
/// assert_eq!(found, [b"synced"]);
/// # Ok::<(), core::convert::Infallible>(())
/// ```
pub trait Journal {
    /// What a write or a read can fail with.
    type Error;

    /// Tells every record of the newest whole snapshot and of what was appended behind it, oldest first. Called once,
    /// before anything is written.
    ///
    /// An error says that the place could not be read at all, now: nothing is known, and the device must not serve as if
    /// its journal were new.
    fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, Self::Error>;

    /// Adds a record, 1 to [`RECORD_MAX`] bytes, behind the last one. It is there after a power cut once
    /// [`Journal::sync`] has returned; until then it may be kept in memory.
    fn append(&mut self, record: &[u8]) -> Result<(), Self::Error>;

    /// Returns when everything appended would survive a power cut.
    fn sync(&mut self) -> Result<(), Self::Error>;

    /// Whether a snapshot should replace what is there: the log has grown to several times the size of the last one, or
    /// there is no room for more. Looked at before each batch of records; `true` makes that batch a
    /// [`Journal::replace`]. A journal that runs full without having said so fails its next append, which has the same
    /// effect one write later.
    fn wants_snapshot(&self) -> bool;

    /// Replaces everything by the records that `records` writes into the buffer given, until it says `None`; each answer
    /// is a record's length. Atomic over a power cut, and synced when it returns. On the smallest firmware these are 28 records
    /// at most, with an operating system some 600; more where the caller gave more memory.
    fn replace(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), Self::Error>;
}

/// No journal: the device starts each boot with an empty memory and says so in its WELCOME.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoJournal;

impl Journal for NoJournal {
    type Error = Infallible;

    fn replay(&mut self, _: &mut dyn FnMut(&[u8])) -> Result<Found, Infallible> {
        Ok(Found::NoJournal)
    }

    fn append(&mut self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        false
    }

    fn replace(
        &mut self,
        _: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_journal_keeps_nothing_and_says_so() {
        let mut journal = NoJournal;
        assert_eq!(journal.append(&[1; RECORD_MAX]), Ok(()));
        assert_eq!(journal.sync(), Ok(()));
        let mut asked = false;
        let replaced = journal.replace(&mut |_| {
            asked = true;
            None
        });
        assert_eq!((replaced, asked, journal.wants_snapshot()), (Ok(()), false, false));
        let mut told = 0;
        let lent: &mut dyn Journal<Error = Infallible> = &mut journal;
        assert_eq!((lent.replay(&mut |_| told += 1), told), (Ok(Found::NoJournal), 0));
    }
}
