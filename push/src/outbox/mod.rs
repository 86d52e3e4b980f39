//! Durable orders: what must survive a crash of the server, on its disk.
//!
//! ```text
//!  append(ORDER …)  append(OUTCOMES …)  append(SESSION …)        any number of them
//!        └───────────────┴──────────────────┴──▶ commit          one write, one sync
//!                                                   └──▶ book    what lives; the log is told what does not
//!  open ──▶ every record again, through the same book ──▶ Restored
//! ```
//!
//! | file | what for |
//! | --- | --- |
//! | [`log`] | records that are on disk when a commit returns, and are found again after any crash |
//! | `record` | what the records say, to the byte |
//! | `targets`, `marks` | sets of devices, and how an order stands with each |
//! | `book` | the state that the records add up to |
//! | `open` | a restart |
//! | `carry` | compaction |
//! | `renew` | another lineage, when devices know more than this log |
//! | `batch` | what a shard collects to be logged |
//! | `rollout` | what goes on step by step, as notes |
//!
//! It has no thread and no clock: one thread owns it, and says the time with each call. Bytes are in `docs/OUTBOX.md`.
//!
//! # Promises
//!
//! - What was appended is on disk when [`Outbox::commit`] has returned; after a crash it is found, whatever the crash left of
//!   what came later. Of a commit that was under way any part may be there: nobody was told that it is.
//! - A flipped bit costs one record, and is told; while the server runs, only a record of what nobody has in memory.
//! - A number is never given twice, also when every order is long gone.
//! - An order that has not ended everywhere stays; how it ended on each device stays as long as it does, and seven days of
//!   running longer under its key.

mod batch;
mod book;
mod carry;
mod devices;
mod entry;
pub mod log;
mod marks;
mod open;
mod record;
mod renew;
mod rollout;
mod targets;

use wire_format::error::ParseError;
use wire_format::ids::Lineage;
use wire_format::rng::Rng;

#[cfg(feature = "tokio")]
pub(crate) use batch::SESSIONS_KEPT;
pub use batch::{BATCH_MAX, BATCH_WITHIN, Batch, Outcome, Pace};
use book::{Book, Place};
pub use book::{KEYS_KEPT_MS, KEYS_MAX, RUNS_MAX};
pub use entry::{AppendError, Entry};
use log::{CommitError, Disk, Life, Log};
pub use marks::Marks;
pub use open::{Attempt, OpenError, Restored, RestoredDevice, RestoredKey, RestoredOrder, Run, Unreadable};
use record::Record;
pub use record::{Device, Frame, NOTE_MAX, Session};
pub use renew::Renewed;
pub use rollout::{Phase, Plan, STEPS_MAX, emit_order, note_of, parse_order, rollout_of};
pub use targets::{DEVICES_MAX, Targets};

/// A MARK is written when the last one is older, in milliseconds of running.
pub const MARK_EVERY_MS: u64 = 60_000;

/// The time, as the caller's clocks have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: milliseconds since 1970. It may jump.
    pub wall_ms: u64,
    /// A clock that never goes back while the process runs, from any start, in milliseconds.
    pub awake_ms: u64,
}

/// Something that was on disk and is not any more, found out when it should have been written again, and that nobody
/// had in memory to write it from: a restart will not find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// An order or an attempt: its number.
    Order(u64),
    /// A key whose order has ended.
    Key(u64),
    /// A note: its id.
    Note(u64),
}

/// Counters since the outbox was opened, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records written and synced.
    pub records: u64,
    /// Commits that wrote something.
    pub commits: u64,
    /// Commits that failed.
    pub failures: u64,
    /// Records written again by compaction.
    pub carried: u64,
    /// Records that lived and could not be read any more when they were to be written again: they are gone.
    pub lost: u64,
    /// The same, but they were written again from memory.
    pub mended: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of them that live.
    pub live_bytes: u64,
    /// Live orders, attempts included.
    pub orders: usize,
    /// Keys whose orders have ended.
    pub keys: usize,
    /// When the oldest live order was accepted: milliseconds since 1970, by the wall clock of then.
    pub oldest_ms: Option<u64>,
    /// Whose log it is.
    pub lineage: Lineage,
    /// The run id of this opening.
    pub run: u64,
}

/// The outbox, open.
#[derive(Debug)]
pub struct Outbox<D> {
    log: Log<D>,
    book: Book,
    rng: Rng,
    run: u64,
    /// The age it had, at that time of the awake clock.
    opened: (u64, u64),
    /// The highest number appended, committed or not.
    head: u64,
    /// Keyed orders that wait for the commit.
    keyed: usize,
    /// The segment whose records were appended again.
    carried: Option<u64>,
    lost: Vec<Lost>,
    undescribed: Vec<u32>,
    stats: Stats,
    scratch: Vec<u8>,
}

/// Dead records there stays room for between two commits.
const DEAD_KEPT: usize = 1_024;

/// Room for more than the log may have: orders get none, what ends or changes them one segment, compaction two.
const OVER_DELTAS: u64 = 1;
const OVER_CARRIED: u64 = 2;

impl<D: Disk> Outbox<D> {
    /// Whose log it is.
    #[must_use]
    pub const fn lineage(&self) -> Lineage {
        self.log.lineage()
    }

    /// The run id of this opening.
    #[must_use]
    pub const fn run(&self) -> u64 {
        self.run
    }

    /// The highest number there ever was, what waits for a commit included.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (bytes, live_bytes) = (self.log.bytes(), self.log.live());
        let oldest_ms = self.book.orders.values().next().map(|live| live.accepted_ms);
        let (orders, keys) = (self.book.orders.len(), self.book.keys.len());
        let (lineage, run) = (self.lineage(), self.run);
        Stats { bytes, live_bytes, orders, keys, oldest_ms, lineage, run, ..self.stats }
    }

    /// Records that wait for a commit; compaction leaves some.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.log.pending()
    }

    /// Whether an order that lives is meant for this device, or was: its number must not be given to another one.
    #[must_use]
    pub fn names(&self, device: u32) -> bool {
        self.book.names(device)
    }

    /// The lowest number of a live order or attempt; `None` if nothing lives.
    #[must_use]
    pub fn lowest_live(&self) -> Option<u64> {
        self.book.lowest()
    }

    /// What was found to be lost since this was asked last.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        core::mem::take(&mut self.lost)
    }

    /// Devices whose DEVICE could not be read when it should have been written again, since this was asked last. Whoever knows
    /// what they are appends [`Entry::Device`] once more: how far they got is known here, but for that the next start
    /// would not find it.
    pub fn take_undescribed(&mut self) -> Vec<u32> {
        core::mem::take(&mut self.undescribed)
    }

    /// Milliseconds it has been running in all.
    const fn age_ms(&self, now: Now) -> u64 {
        let (age_ms, awake_ms) = self.opened;
        age_ms.saturating_add(now.awake_ms.saturating_sub(awake_ms))
    }

    /// Adds an entry to the next commit. On an error nothing was added.
    pub fn append(&mut self, now: Now, entry: &Entry<'_>) -> Result<(), AppendError> {
        let Some(record) = self.record(now, entry)? else { return Ok(()) };
        let number = match &record {
            Record::Order(order) => Some((order.frame.number(), order.frame.key())),
            Record::Retry(retry) => Some((retry.number, 0)),
            _ => None,
        };
        let over = match number {
            None => OVER_DELTAS,
            Some((number, key)) => self.check(number, key)?,
        };
        self.put(&record, over)?;
        if let Some((number, key)) = number {
            self.head = number;
            self.keyed += usize::from(key != 0);
        }
        Ok(())
    }

    /// Whether an order is taken; the segments it may take beyond the log's size.
    fn check(&self, number: u64, key: u64) -> Result<u64, AppendError> {
        if number <= self.head {
            return Err(AppendError::Number { number, head: self.head });
        }
        if key != 0 && self.book.keys.len() + self.book.keyed + self.keyed >= KEYS_MAX {
            return Err(AppendError::Keys { limit: KEYS_MAX });
        }
        self.check_room().map(|()| 0)
    }

    /// Whether there is room for more that lives. [`Outbox::append`] looks for itself where an order is added; ask this before
    /// notes that are as large as one.
    pub fn check_room(&self) -> Result<(), AppendError> {
        // A quarter is for what is dead and still there: with more, compaction would run for nothing.
        let (bytes, limit) = (self.log.live(), self.log.settings().bytes_max / 4 * 3);
        if bytes > limit { Err(AppendError::Full { bytes, limit }) } else { Ok(()) }
    }

    /// Adds a record to the next commit.
    fn put(&mut self, record: &Record<'_>, over: u64) -> Result<(), AppendError> {
        self.scratch.clear();
        let kind = record.emit(&mut self.scratch);
        let added = self.log.append_over(kind, life(kind), over, &[&self.scratch, record.tail()]);
        added.map(drop).map_err(|error| match error {
            log::AppendError::TooLong { len } => AppendError::TooLong { len, limit: log::BODY_MAX },
            log::AppendError::Full { bytes, limit } => AppendError::Full { bytes, limit },
        })
    }

    /// Writes what was appended and waits until it is on disk. On an error none of it is there: it may be appended again,
    /// orders under new numbers. Call it once a minute also when there is nothing to write: time that is not written
    /// down is not known after a crash.
    pub fn commit(&mut self, now: Now) -> Result<(), CommitError> {
        self.commit_with(now, |_| None::<&[u8]>)
    }

    /// The same. Where it finds that the record of a live order cannot be read any more, `frames` is asked for the bytes the
    /// order was accepted with, by its number: with them the record is written again, without them the order is [`Lost`].
    pub fn commit_with<F: AsRef<[u8]>>(
        &mut self,
        now: Now,
        mut frames: impl FnMut(u64) -> Option<F>,
    ) -> Result<(), CommitError> {
        let age_ms = self.age_ms(now);
        self.mark_if_due(now.wall_ms, age_ms);
        if self.log.pending() == 0 {
            return Ok(());
        }
        self.write_out()?;
        self.book.expire_keys(age_ms);
        self.bury();
        // First, while nothing waits that could change what is written again.
        self.carry(&mut frames);
        self.put_unwritten();
        self.put_keys(age_ms);
        Ok(())
    }

    /// One commit, and what is on disk now goes into the book.
    fn write_out(&mut self) -> Result<(), CommitError> {
        let (book, stats) = (&mut self.book, &mut self.stats);
        let written = self.log.commit_each(|sequence, kind, body| {
            // What we have written ourselves can be read.
            if let Ok(record) = Record::parse(kind, body) {
                book.apply(Place { sequence, len: body.len() }, record);
            }
            stats.records += 1;
        });
        self.keyed = 0;
        match written {
            Ok(()) => self.stats.commits += 1,
            Err(_) => {
                self.stats.failures += 1;
                // What was appended again is not on disk either.
                (self.head, self.carried) = (self.book.head, None);
            }
        }
        self.bury();
        written
    }

    /// Tells the log what is needed no more.
    fn bury(&mut self) {
        for Place { sequence, len } in self.book.dead.drain(..) {
            self.log.dead(sequence, len);
        }
        self.book.dead.shrink_to(DEAD_KEPT);
        self.book.forgotten.clear();
    }

    fn mark_if_due(&mut self, wall_ms: u64, age_ms: u64) {
        let last = self.book.mark.map_or(0, |(_, mark)| mark.age_ms);
        let lives = self.log.pending() > 0 || !self.book.orders.is_empty() || !self.book.keys.is_empty();
        if lives && age_ms.saturating_sub(last) >= MARK_EVERY_MS {
            let mark = Record::Mark(record::Mark { head: self.head, wall_ms, age_ms });
            // There is room for it, or for nothing else either.
            let _ = self.put(&mark, OVER_CARRIED);
        }
    }

    /// How far some devices got is known from outcomes alone, and those would go before the devices' newer records.
    fn put_unwritten(&mut self) {
        for device in self.book.unwritten.clone() {
            let Some(known) = self.book.devices.get(device) else { continue };
            let session = known.session(device);
            // Else with the next commit.
            let _ = self.put(&Record::Session(session), OVER_CARRIED);
        }
    }

    /// Orders that ended under a key leave it behind.
    fn put_keys(&mut self, age_ms: u64) {
        let until_ms = age_ms.saturating_add(KEYS_KEPT_MS);
        for number in self.book.ended.clone() {
            let Some(live) = self.book.orders.get(&number) else { continue };
            let key = record::Key { key: live.key, number, until_ms, marks: live.marks.clone() };
            // Else with the next commit: until then the order stays.
            let _ = self.put(&Record::Key(key), OVER_DELTAS);
        }
    }
}

/// How long a record of this kind is needed.
const fn life(kind: u8) -> Life {
    match kind {
        record::kind::CANCEL | record::kind::OUTCOMES | record::kind::REMOVED => Life::Passing,
        _ => Life::Live,
    }
}

/// What was not readable, in words of the outbox.
fn unreadable(sequence: u64, kind: u8, error: ParseError) -> Unreadable {
    Unreadable { sequence, kind, error }
}
