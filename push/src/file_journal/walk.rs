//! What stands in a file.

use crate::receiver::sealed::{self, Opened, SEALED_MAX, Stamp};

/// Bytes of the head, padding included: where the first record stands.
pub(super) const FIRST: usize = 32;

const MAGIC: [u8; 4] = *b"TWJ1";
/// Magic, generation, records, bytes.
const HEAD_RECORD: usize = 24;

/// What a file's head says. It is a record itself, sealed with sequence 0.
///
/// | offset | size | field |
/// | --- | --- | --- |
/// | 0 | 4 | `TWJ1` |
/// | 4 | 8 | generation |
/// | 12 | 4 | records of the snapshot |
/// | 16 | 8 | bytes of the file |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) generation: u64,
    pub(super) records: u32,
    pub(super) bytes: u64,
}

/// The byte of a generation that stands in each record.
pub(super) const fn low(generation: u64) -> u8 {
    generation.to_le_bytes()[0]
}

impl Head {
    pub(super) fn emit(self) -> [u8; FIRST] {
        let mut record = [0; HEAD_RECORD];
        let fields = MAGIC.into_iter().chain(self.generation.to_le_bytes());
        let fields = fields.chain(self.records.to_le_bytes()).chain(self.bytes.to_le_bytes());
        record.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        let mut sealed = [0; SEALED_MAX];
        let _ = sealed::seal(&record, Stamp { generation: low(self.generation), sequence: 0 }, &mut sealed);
        let mut head = [0; FIRST];
        head.iter_mut().zip(sealed).for_each(|(to, from)| *to = from);
        head
    }

    /// The head of these bytes, and whether a bit of it had to be put right.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, bool)> {
        let mut head = *bytes.first_chunk::<FIRST>()?;
        if let Some(found) = sealed::open(&head).and_then(|opened| Self::from_record(&opened)) {
            return Some((found, false));
        }
        // The generation stands in two places, of which one may be the one that has changed.
        let (said, given) = (head[1], head[12]);
        let found = [said, given].into_iter().find(|&generation| sealed::repair(&mut head, generation));
        let found = found.and_then(|_| sealed::open(&head)).and_then(|opened| Self::from_record(&opened));
        found.map(|head| (head, true))
    }

    fn from_record(opened: &Opened<'_>) -> Option<Self> {
        let record: &[u8; HEAD_RECORD] = opened.record.try_into().ok()?;
        let (magic, rest) = record.split_first_chunk::<4>()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (records, bytes) = rest.split_first_chunk()?;
        let head = Self {
            generation: u64::from_le_bytes(*generation),
            records: u32::from_le_bytes(*records),
            bytes: u64::from_le_bytes(bytes.try_into().ok()?),
        };
        (*magic == MAGIC && low(head.generation) == opened.stamp.generation).then_some(head)
    }
}

/// Which sync a record belongs to.
const fn sync_of(opened: &Opened<'_>) -> u16 {
    opened.stamp.sequence >> 1
}

const fn is_last(opened: &Opened<'_>) -> bool {
    opened.stamp.sequence & 1 == 1
}

/// Whether there is any record, of whatever generation.
pub(super) fn has_records(bytes: &[u8]) -> bool {
    (FIRST..bytes.len()).step_by(8).any(|at| bytes.get(at..).and_then(sealed::open).is_some())
}

/// Where a walk over a file's records came to its end.
#[derive(Debug)]
pub(super) struct Walked {
    /// Where the last sync of them begins, and behind the last record told.
    pub(super) last: usize,
    pub(super) end: usize,
    /// Number of the next sync.
    pub(super) sync: u16,
    /// Something stands behind the end.
    pub(super) closed: bool,
    pub(super) repaired: bool,
    /// Something that was synced is missing.
    pub(super) damaged: bool,
}

impl Walked {
    /// Tells every record in order, up to the first that is missing.
    pub(super) fn through(bytes: &[u8], head: &Head, tell: &mut dyn FnMut(&[u8])) -> Self {
        let generation = low(head.generation);
        let mut walked =
            Self { last: FIRST, end: FIRST, sync: 0, closed: false, repaired: false, damaged: false };
        let mut told = 0_u32;
        // The last record closed its sync: the next one opens another.
        let mut between = head.records == 0;
        loop {
            let rest = bytes.get(walked.end..).unwrap_or_default();
            if rest.iter().all(|byte| *byte == 0) {
                walked.closed = !between;
                break;
            }
            let mut room = [0; SEALED_MAX];
            let len = rest.len().min(SEALED_MAX);
            room.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            let place = room.get_mut(..len).unwrap_or_default();
            let wanted = walked.sync + u16::from(between);
            walked.repaired |= of(place, generation).is_none() && sealed::repair(place, generation);
            let Some(opened) = of(place, generation).filter(|opened| sync_of(opened) == wanted) else {
                walked.closed = true;
                // A sync is begun when the one before has returned: only the last one may be missing in part.
                walked.damaged = last_sync(rest, generation).is_some_and(|last| last > wanted);
                break;
            };
            tell(opened.record);
            told = told.saturating_add(1);
            if between {
                walked.last = walked.end;
            }
            (walked.sync, between) = (wanted, is_last(&opened));
            walked.end += opened.sealed_len().next_multiple_of(8);
        }
        walked.damaged |= told < head.records || bytes.len() as u64 != head.bytes;
        walked.sync = walked.sync.saturating_add(1);
        walked
    }
}

fn of(bytes: &[u8], generation: u8) -> Option<Opened<'_>> {
    sealed::open(bytes).filter(|opened| opened.stamp.generation == generation)
}

/// The number of the last sync of which there is a record.
fn last_sync(bytes: &[u8], generation: u8) -> Option<u16> {
    let places = (0..bytes.len()).step_by(8).filter_map(|at| bytes.get(at..));
    places.filter_map(|place| of(place, generation)).map(|opened| sync_of(&opened)).max()
}
