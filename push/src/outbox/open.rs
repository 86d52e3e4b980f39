//! A restart: every record again, through the same book.

use std::collections::BTreeMap;

use core::time::Duration;

use wire_format::error::ParseError;
use wire_format::ids::{Lane, Lineage};
use wire_format::rng::Rng;

use super::book::{Book, Live, Place};
use super::log::{self, CommitError, Disk, Life, Log, Recovery, Settings};
use super::marks::Marks;
use super::record::{self, Device, Frame, Record, Session};
use super::{AppendError, Now, Outbox, Stats, life, unreadable};

/// Records that cannot be understood and are told apart; further ones are counted.
const UNREADABLE_MAX: usize = 64;

/// An outbox that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// That it was opened cannot be written down.
    #[error("cannot write down that the outbox was opened")]
    Commit(#[from] CommitError),
    /// There is no room to write down that it was opened.
    #[error("no room to write down that the outbox was opened")]
    Append(#[from] AppendError),
}

/// One opening of this outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id, random, not 0.
    pub run: u64,
    /// The first number it may have given.
    pub first: u64,
}

/// A device of the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredDevice {
    /// Who and where it is.
    pub device: Device,
    /// How far it got.
    pub session: Session,
}

/// An order, or an attempt at one, that has not ended everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredOrder {
    /// Its number.
    pub number: u64,
    /// The frames as they were accepted; empty for an attempt, which is made from its order's.
    pub frame: Vec<u8>,
    /// Its lane.
    pub lane: Lane,
    /// What is left of its lifetime, at least 1 ms; `None` for no end.
    pub remaining: Option<Duration>,
    /// The application's key, 0 for none.
    pub key: u64,
    /// It was cancelled.
    pub cancelled: bool,
    /// Further attempts made so far.
    pub attempts: u16,
    /// Of an attempt: what it is an attempt at.
    pub attempt: Option<Attempt>,
    /// How it stands: PENDING where there is no outcome, whether it was written or not.
    pub marks: Marks,
}

/// What an attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the first order, which is among the restored ones before it.
    pub root: u64,
    /// 1 for the first repetition.
    pub attempt: u16,
    /// Not before this time from now.
    pub after: Duration,
}

/// A key whose order has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredKey {
    /// The key.
    pub key: u64,
    /// Its order's number.
    pub number: u64,
    /// How long it is still remembered.
    pub remaining: Duration,
    /// How the order ended on each target.
    pub marks: Marks,
}

/// A record whose bytes are right and whose meaning is not known: of a newer version, or of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its sequence in the log.
    pub sequence: u64,
    /// Its kind.
    pub kind: u8,
    /// What is wrong with it.
    pub error: ParseError,
}

/// What was found when an outbox was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Whose log it is.
    pub lineage: Lineage,
    /// The id of this opening.
    pub run: u64,
    /// The last openings, oldest first, this one included; at most [`super::RUNS_MAX`].
    pub runs: Vec<Run>,
    /// The highest number there ever was.
    pub head: u64,
    /// The fence this server held, 0 for none.
    pub fence: u64,
    /// The devices, by number.
    pub devices: Vec<RestoredDevice>,
    /// The orders, by number.
    pub orders: Vec<RestoredOrder>,
    /// Keys whose orders have ended.
    pub keys: Vec<RestoredKey>,
    /// The notes, by id.
    pub notes: Vec<(u64, Vec<u8>)>,
    /// Records that are not understood: at most 64 of them.
    pub unreadable: Vec<Unreadable>,
    /// How many there are in all.
    pub unreadable_records: u64,
    /// What was found on disk, and what was not any more.
    pub recovery: Recovery,
}

/// What the records say that the book does not keep.
#[derive(Debug, Default)]
struct Bodies {
    frames: BTreeMap<u64, Vec<u8>>,
    keys: BTreeMap<u64, Marks>,
    notes: BTreeMap<u64, Vec<u8>>,
    devices: BTreeMap<u32, Device>,
    unreadable: Vec<Unreadable>,
    unreadable_records: u64,
}

impl<D: Disk> Outbox<D> {
    /// Opens the outbox of this disk, or makes one, and writes down that it did. `seed` must be unpredictable: lineage and run
    /// id come from it.
    pub fn open(disk: D, settings: Settings, now: Now, seed: u64) -> Result<(Self, Restored), OpenError> {
        let mut rng = Rng::new(seed);
        let (mut book, mut bodies) = (Book::default(), Bodies::default());
        let lineage = random_lineage(&mut rng);
        let (log, recovery) = Log::open(disk, settings, lineage, rng.next_u64(), |sequence, kind, body| {
            bodies.visit(&mut book, Place { sequence, len: body.len() }, kind, body)
        })?;
        bodies.check(&mut book);
        book.drop_orphans();
        book.expire_keys(book.age_ms);
        let opened = (book.age_ms, now.awake_ms);
        let run = rng.next_u64().max(1);
        let (head, stats, scratch) = (book.head, Stats::default(), Vec::new());
        let (keyed, carried, lost, undescribed) = (0, None, Vec::new(), Vec::new());
        let mut outbox =
            Self { log, book, rng, run, opened, head, keyed, carried, lost, undescribed, stats, scratch };
        outbox.begin_run(now, &mut bodies)?;
        outbox.make_room_for_starts();
        let restored = outbox.restored(now, bodies, recovery);
        Ok((outbox, restored))
    }

    /// Writes down that the outbox was opened, and the keys of orders that ended.
    fn begin_run(&mut self, now: Now, bodies: &mut Bodies) -> Result<(), OpenError> {
        self.bury();
        let openings = self.book.runs.iter().map(|(_, run)| run.openings).max().unwrap_or(0);
        let run = record::Run {
            run: self.run,
            first: self.head.saturating_add(1),
            openings: openings.saturating_add(1),
        };
        let (wall_ms, age_ms) = (now.wall_ms, self.age_ms(now));
        self.put(&Record::Run(run), super::OVER_CARRIED)?;
        self.put(&Record::Mark(record::Mark { head: self.head, wall_ms, age_ms }), super::OVER_CARRIED)?;
        for number in &self.book.ended {
            let live = self.book.orders.get(number);
            bodies.keys.extend(live.map(|live| (live.key, live.marks.clone())));
        }
        self.put_keys(age_ms);
        self.put_unwritten();
        self.write_out()?;
        Ok(())
    }

    /// Every start takes a segment of its own, and may be followed by another one before anything is committed: what is
    /// sparse goes now, faster than it comes. What fails is tried again with the next commit.
    fn make_room_for_starts(&mut self) {
        const SEGMENTS: usize = 3;
        for _ in 0..SEGMENTS {
            self.carry(&mut |_| None::<&[u8]>);
            if self.log.pending() == 0 || self.write_out().is_err() {
                return;
            }
        }
    }

    fn restored(&self, now: Now, mut bodies: Bodies, recovery: Recovery) -> Restored {
        let (book, age_ms) = (&self.book, self.age_ms(now));
        let devices = book.devices.iter().filter_map(|(number, known)| {
            let device = bodies.devices.remove(&number)?;
            Some(RestoredDevice { device, session: known.session(number) })
        });
        let devices = devices.collect();
        let remaining = |live: &Live| {
            let ms = u64::from(live.lifetime_ms?);
            let gone = now.wall_ms.saturating_sub(live.accepted_ms).max(age_ms.saturating_sub(live.age_ms));
            Some(Duration::from_millis(ms.saturating_sub(gone).max(1)))
        };
        // Both by number: taken off side by side.
        let mut frames = core::mem::take(&mut bodies.frames).into_iter().peekable();
        let mut frame = |number| loop {
            match frames.next_if(|(framed, _)| *framed <= number) {
                Some((framed, frame)) if framed == number => return frame,
                Some(_) => {}
                None => return Vec::new(),
            }
        };
        let orders = book.orders.iter().map(|(&number, live)| RestoredOrder {
            number,
            frame: frame(number),
            lane: live.lane,
            remaining: match live.root {
                0 => remaining(live),
                root => book.orders.get(&root).and_then(remaining),
            },
            key: live.key,
            cancelled: live.cancelled,
            attempts: live.attempts,
            attempt: (live.root != 0).then(|| Attempt {
                root: live.root,
                attempt: live.attempts,
                after: Duration::from_millis(live.age_ms.saturating_sub(age_ms)),
            }),
            marks: live.marks.clone(),
        });
        let orders = orders.collect();
        let keys = book.keys.iter().filter_map(|(&key, kept)| {
            let remaining = Duration::from_millis(kept.until_ms.saturating_sub(age_ms));
            Some(RestoredKey { key, number: kept.number, remaining, marks: bodies.keys.remove(&key)? })
        });
        Restored {
            lineage: self.lineage(),
            run: self.run,
            runs: book.runs.iter().map(|(_, run)| Run { run: run.run, first: run.first }).collect(),
            head: self.head,
            fence: book.fence,
            devices,
            orders,
            keys: keys.collect(),
            notes: bodies.notes.into_iter().collect(),
            unreadable: bodies.unreadable,
            unreadable_records: bodies.unreadable_records,
            recovery,
        }
    }
}

impl Bodies {
    fn visit(&mut self, book: &mut Book, place: Place, kind: u8, body: &[u8]) -> Life {
        let record = match Record::parse(kind, body) {
            Ok(record) => record,
            Err(error) => {
                self.not_understood(unreadable(place.sequence, kind, error));
                return Life::Passing;
            }
        };
        match &record {
            Record::Order(order) => {
                let frame = self.frames.entry(order.frame.number()).or_default();
                if frame.is_empty() {
                    frame.extend_from_slice(order.frame.bytes());
                }
            }
            Record::Key(key) => drop(self.keys.insert(key.key, key.marks.clone())),
            Record::Note(note) if note.bytes.is_empty() => drop(self.notes.remove(&note.id)),
            Record::Note(note) => drop(self.notes.insert(note.id, note.bytes.to_vec())),
            Record::Device(device) => drop(self.devices.insert(device.device, *device)),
            Record::Removed { device } => drop(self.devices.remove(device)),
            _ => {}
        }
        book.apply(place, record);
        for number in book.forgotten.drain(..) {
            self.frames.remove(&number);
        }
        life(kind)
    }

    fn not_understood(&mut self, unreadable: Unreadable) {
        self.unreadable_records += 1;
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(unreadable);
        }
    }

    /// Judges the frames of the orders that live, down to their checksums: what is sent again must be what was accepted.
    fn check(&mut self, book: &mut Book) {
        let mut wrong = Vec::new();
        for (number, bytes) in &self.frames {
            if let Err(error) = Frame::new(bytes).and_then(|frame| frame.check()) {
                wrong.push((*number, error));
            }
        }
        for (number, error) in wrong {
            let sequence = book.orders.get(&number).map_or(0, |live| live.place.sequence);
            self.not_understood(unreadable(sequence, record::kind::ORDER, error));
            self.frames.remove(&number);
            book.forget(number);
        }
        book.forgotten.clear();
    }
}

/// An identity nobody else has.
pub(super) fn random_lineage(rng: &mut Rng) -> Lineage {
    let mut bytes = [0; 16];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&rng.next_u64().to_le_bytes());
    high.copy_from_slice(&rng.next_u64().max(1).to_le_bytes());
    Lineage(bytes)
}
