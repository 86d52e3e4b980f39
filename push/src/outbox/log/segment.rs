//! A segment: a header, twice, and records up to where zeros begin or the next segment's first record.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | magic | the bytes `TWLOG001` |
//! | 8 | 16 | lineage | whose log it is |
//! | 24 | 8 | number | of the segment: the file's name |
//! | 32 | 8 | first | sequence of its first record; earlier segments end before it, whatever else stands in them |
//! | 40 | 4 | salt | see the record |
//! | 44 | 1 | start | 1 CONTINUES: all commits before it are on disk; 0 FOLLOWS an opening or a failed commit; 2 BEGINS: what is before it belongs to another lineage |
//! | 45 | 15 | – | zero |
//! | 60 | 4 | checksum | CRC-32C of the 60 bytes before |
//! | 64 | 64 | copy | the same again |

use wire_format::crc;
use wire_format::ids::Lineage;

use super::record::{self, ALIGN, Found, look, record_len};

/// Bytes of both headers: where the first record begins.
pub(super) const DATA_START: usize = 2 * COPY_LEN;
const COPY_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"TWLOG001";

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) lineage: Lineage,
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) salt: u32,
    pub(super) start: Start,
}

/// What is before a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// An opening, or a commit that failed.
    Follows = 0,
    /// Commits that are all on disk.
    Continues = 1,
    /// Another lineage.
    Begins = 2,
}

impl Head {
    /// The first copy that is right.
    pub(super) fn parse(segment: &[u8]) -> Option<Self> {
        let copies = segment.get(..DATA_START)?.chunks_exact(COPY_LEN);
        copies.filter_map(|copy| Self::parse_copy(copy.first_chunk()?)).next()
    }

    /// The format of a segment that is none of this one's: both copies name it, with right checksums. Damage does not look so.
    pub(super) fn other_format(segment: &[u8]) -> Option<[u8; 3]> {
        let mut copies = segment.get(..DATA_START)?.chunks_exact(COPY_LEN).map(|copy| {
            let (covered, sum) = copy.first_chunk::<COPY_LEN>()?.split_last_chunk::<4>()?;
            let (magic, format) = MAGIC.split_at(5);
            let named = *covered.strip_prefix(magic)?.first_chunk::<3>()?;
            let right = crc::crc32c(covered) == u32::from_le_bytes(*sum);
            (right && named.as_slice() != format).then_some(named)
        });
        let (first, second) = (copies.next()??, copies.next()??);
        (first == second).then_some(first)
    }

    fn parse_copy(bytes: &[u8; COPY_LEN]) -> Option<Self> {
        let (covered, sum) = bytes.split_last_chunk::<4>()?;
        let right = bytes.first_chunk() == Some(&MAGIC) && crc::crc32c(covered) == u32::from_le_bytes(*sum);
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let start = match *bytes.get(44)? {
            1 => Start::Continues,
            2 => Start::Begins,
            _ => Start::Follows,
        };
        let head = Self {
            lineage: Lineage(*bytes.get(8..)?.first_chunk()?),
            number: u64_at(24)?,
            first: u64_at(32)?,
            salt: u32::from_le_bytes(*bytes.get(40..)?.first_chunk()?),
            start,
        };
        (right && head.first < record::SEQUENCE_END).then_some(head)
    }

    pub(super) fn emit(&self) -> [u8; DATA_START] {
        let mut copy = [0; COPY_LEN];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..24].copy_from_slice(&self.lineage.0);
        copy[24..32].copy_from_slice(&self.number.to_le_bytes());
        copy[32..40].copy_from_slice(&self.first.to_le_bytes());
        copy[40..44].copy_from_slice(&self.salt.to_le_bytes());
        copy[44] = self.start as u8;
        let sum = crc::crc32c(&copy[..60]);
        copy[60..].copy_from_slice(&sum.to_le_bytes());
        let mut both = [0; DATA_START];
        both[..COPY_LEN].copy_from_slice(&copy);
        both[COPY_LEN..].copy_from_slice(&copy);
        both
    }
}

/// What a walk over a segment met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met<'a> {
    /// A whole record, at this place of the segment; `end`: a commit ends with it.
    Record { at: usize, sequence: u64, kind: u8, body: &'a [u8], commit: u32, end: bool },
    /// These records were there, or were about to be, and cannot be read: `from` up to but not `to`.
    Missing { from: u64, to: u64 },
    /// Bytes that are no record, and none behind them.
    Tail { bytes: usize },
}

/// Walks over the records from `head.first` up to but not `until`.
pub(super) fn walk<'a>(segment: &'a [u8], head: &Head, until: u64, mut meet: impl FnMut(Met<'a>)) -> u64 {
    let (mut at, mut expected) = (DATA_START, head.first);
    while let Some((place, sequence)) = next(segment, at, head.salt, expected, until) {
        if sequence > expected {
            meet(Met::Missing { from: expected, to: sequence });
        }
        expected = sequence + 1;
        at = match look(segment, place, head.salt) {
            Found::Record(header, body) => {
                let record::Header { kind, commit, end, .. } = header;
                meet(Met::Record { at: place, sequence, kind, body, commit, end });
                place + record_len(body.len())
            }
            Found::Damaged(header) => {
                meet(Met::Missing { from: sequence, to: expected });
                // Its length is right, yet a cut record may promise more than there is.
                (place + record_len(header.len as usize)).min(segment.len())
            }
            Found::Nothing => break,
        };
    }
    let rest = segment.get(at..).unwrap_or_default();
    let bytes = rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if bytes > 0 && !superseded(segment, at, head.salt, until) {
        meet(Met::Tail { bytes });
    }
    expected
}

/// Calls `visit` with sequence, kind and body of each whole record of a segment below `until`.
pub fn records(segment: &[u8], until: u64, mut visit: impl FnMut(u64, u8, &[u8])) {
    let Some(head) = Head::parse(segment) else { return };
    walk(segment, &head, until, |met| {
        if let Met::Record { sequence, kind, body, .. } = met {
            visit(sequence, kind, body);
        }
    });
}

/// Whether the commit a segment begins with is there as a whole.
pub(super) fn is_begun(segment: &[u8], head: &Head) -> bool {
    let (mut ended, mut broken) = (false, false);
    walk(segment, head, u64::MAX, |met| match met {
        Met::Record { end, .. } => ended |= end && !broken,
        Met::Missing { .. } | Met::Tail { .. } => broken = true,
    });
    ended
}

/// Whether what stands here was given up for the next segment.
fn superseded(segment: &[u8], at: usize, salt: u32, until: u64) -> bool {
    match look(segment, at, salt) {
        Found::Record(header, _) | Found::Damaged(header) => header.sequence >= until,
        Found::Nothing => until != u64::MAX,
    }
}

/// The next header at `at` or behind it that can be one of these records: where, and its sequence.
fn next(segment: &[u8], at: usize, salt: u32, expected: u64, until: u64) -> Option<(usize, u64)> {
    (at..segment.len()).step_by(ALIGN).find_map(|place| match look_quickly(segment, place, salt)? {
        sequence if (expected..until).contains(&sequence) => Some((place, sequence)),
        _ => None,
    })
}

fn look_quickly(segment: &[u8], place: usize, salt: u32) -> Option<u64> {
    let head = segment.get(place..)?.first_chunk()?;
    record::Header::parse(head, salt).map(|header| header.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_copy_of_the_header_will_do() {
        let head =
            Head { lineage: Lineage([7; 16]), number: 3, first: 100, salt: 9, start: Start::Continues };
        let bytes = head.emit();
        assert_eq!(Head::parse(&bytes), Some(head));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::parse(&bytes), Some(head));
            bytes[(bit / 8 + COPY_LEN) % DATA_START] ^= 1;
            assert_eq!(Head::parse(&bytes), None);
        }
        assert_eq!(Head::parse(&bytes[..DATA_START - 1]), None);
    }
}
