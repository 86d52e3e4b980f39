//! Finding everything again.

use std::io;

use wire_format::ids::Lineage;
use wire_format::rng::Rng;

use super::record::record_len;
use super::segment::{DATA_START, Head, Met, Start, is_begun, walk};
use super::{Disk, Life, Log, Segment, Settings};

/// Stretches of missing records that are kept apart; further ones are counted.
const DAMAGES_MAX: usize = 64;

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// No log was there.
    pub created: bool,
    /// Records that are there.
    pub records: u64,
    /// Records of commits that had returned, and that cannot be read any more: first and last sequence.
    pub damaged: Vec<(u64, u64)>,
    /// How many records that are, those beyond the list's 64 entries included.
    pub damaged_records: u64,
    /// Bytes behind the last record that are none: of a commit that was under way, or damage to the very last one. The two
    /// look alike.
    pub torn_bytes: u64,
    /// Records of such a commit that cannot be read, those of earlier crashes included.
    pub torn_records: u64,
    /// Segments whose header cannot be read; what they held is among the damaged.
    pub damaged_segments: u64,
}

/// A log that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be listed or read.
    #[error("cannot read the log")]
    Read(#[from] io::Error),
    /// What was committed last cannot be written once more.
    #[error("cannot write the log's last commit again")]
    Write(#[source] io::Error),
    /// It is in another format: of a newer version of this program. Nothing was changed.
    #[error("segment {segment:016x} is in format {}, this program reads 001", String::from_utf8_lossy(.format))]
    Format {
        /// The segment's number.
        segment: u64,
        /// The format it names.
        format: [u8; 3],
    },
    /// Files of two logs are mixed.
    #[error("segment {segment:016x} is of lineage {found}, the ones before it are of {expected}")]
    Foreign {
        /// Its number.
        segment: u64,
        /// The lineage it names.
        found: Lineage,
        /// That of the others.
        expected: Lineage,
    },
}

impl<D: Disk> Log<D> {
    /// Opens the log of this disk, and calls `visit` with sequence, kind and body of each record, oldest first; it says how long
    /// each is needed. Where no log is, `lineage` is the new one's; `seed` must be unpredictable.
    pub fn open(
        mut disk: D,
        settings: Settings,
        lineage: Lineage,
        seed: u64,
        mut visit: impl FnMut(u64, u8, &[u8]) -> Life,
    ) -> Result<(Self, Recovery), OpenError> {
        let mut numbers = disk.segments()?;
        let next_segment = numbers.last().map_or(1, |last| last.saturating_add(1));
        let mut heads = heads(&mut disk, &numbers)?;
        let stale = sort_out(&mut disk, &mut numbers, &mut heads)?;
        let mut finding = Finding::default();
        let mut log = Self {
            settings,
            lineage: heads.iter().flatten().next().map_or(lineage, |head| head.lineage),
            rng: Rng::new(seed),
            segments: std::collections::VecDeque::new(),
            next_segment,
            full: true,
            offset: 0,
            pending: Vec::new(),
            pending_live: 0,
            last_at: 0,
            committed: 1,
            next: 1,
            commit: 0,
            renewing: None,
            stale,
            disk,
        };
        let mut bytes = Vec::new();
        for (at, (&number, head)) in numbers.iter().zip(&heads).enumerate() {
            let Some(head) = head else {
                log.unreadable(number, &mut finding);
                continue;
            };
            let until = heads.iter().skip(at + 1).flatten().map(|next| next.first).min();
            log.disk.read(number, &mut bytes)?;
            log.take_segment(head, &bytes, until.unwrap_or(u64::MAX), &mut finding, &mut visit);
        }
        log.write_again(&finding, &bytes)?;
        finding.recovery.created = log.segments.is_empty();
        log.committed = finding.expected.max(1);
        log.next = log.committed;
        log.commit = finding.last.map_or(1, |(commit, _)| commit.wrapping_add(1));
        Ok((log, finding.ended()))
    }

    fn take_segment(
        &mut self,
        head: &Head,
        bytes: &[u8],
        until: u64,
        finding: &mut Finding,
        visit: &mut impl FnMut(u64, u8, &[u8]) -> Life,
    ) {
        finding.segment_begins(head);
        let mut live = 0;
        let expected = walk(bytes, head, until, |met| {
            if let Met::Record { sequence, kind, body, .. } = met
                && visit(sequence, kind, body) == Life::Live
            {
                live += record_len(body.len()) as u64;
            }
            finding.met(head.number, &met);
        });
        finding.expected = expected.max(finding.expected);
        let Head { number, first, salt, .. } = *head;
        self.segments.push_back(Segment { number, first, bytes: bytes.len() as u64, live, salt });
    }

    /// The last commit may have been under way when the process went, or its sync failed: then it stands in the system's memory
    /// alone, and after a failed sync no later one would write it. So it is written once more, from the last segment's bytes,
    /// before anybody is told of it. What is before it was on disk when it began.
    fn write_again(&mut self, finding: &Finding, bytes: &[u8]) -> Result<(), OpenError> {
        let Some(last) = finding.last_commit else { return Ok(()) };
        if self.segments.back().is_some_and(|segment| segment.number == last.segment)
            && let Some(records) = bytes.get(last.from..last.end)
        {
            let written = self.disk.write(last.segment, last.from as u64, records);
            written.and_then(|()| self.disk.sync(last.segment)).map_err(OpenError::Write)?;
        }
        Ok(())
    }

    /// A segment without a header: one that was being made when the power went holds nothing and goes; a damaged one stays on
    /// disk, to be looked at.
    fn unreadable(&mut self, number: u64, finding: &mut Finding) {
        let mut bytes = Vec::new();
        let read = self.disk.read(number, &mut bytes).is_ok();
        if read && bytes.iter().skip(DATA_START).all(|&byte| byte == 0) {
            // Its removal is no condition for anything.
            let _stays = self.disk.remove(number);
        } else {
            finding.recovery.damaged_segments += 1;
        }
    }
}

fn heads<D: Disk>(disk: &mut D, numbers: &[u64]) -> Result<Vec<Option<Head>>, OpenError> {
    let mut bytes = Vec::new();
    let head = |&number: &u64| {
        disk.read_head(number, &mut bytes)?;
        if let Some(format) = Head::other_format(&bytes) {
            return Err(OpenError::Format { segment: number, format });
        }
        Ok(Head::parse(&bytes).filter(|head| head.number == number))
    };
    numbers.iter().map(head).collect()
}

/// Leaves the segments of one lineage: the last one's. A renewal that was not completed is taken away; what a completed one
/// has left is returned, to be set aside. An error if two logs are mixed.
fn sort_out<D: Disk>(
    disk: &mut D,
    numbers: &mut Vec<u64>,
    heads: &mut Vec<Option<Head>>,
) -> Result<Vec<u64>, OpenError> {
    let mut bytes = Vec::new();
    while let Some(last) = heads.iter().flatten().next_back().copied() {
        let of_last = |head: &&Head| head.lineage == last.lineage;
        let Some(&first) = heads.iter().flatten().find(of_last) else { break };
        let Some(other) = heads.iter().flatten().find(|head| !of_last(head)).copied() else { break };
        if first.start != Start::Begins || other.number > first.number {
            if other.number < first.number || other.start != Start::Begins {
                return Err(foreign(&last, &other));
            }
            // The old log went on after it.
            take_away(disk, numbers, heads, other.lineage)?;
            continue;
        }
        // A commit that failed was tried again in a second segment.
        let begins = |head: &&Head| of_last(head) && head.start == Start::Begins;
        let begun = heads.iter().flatten().rfind(begins).copied().unwrap_or(first);
        disk.read(begun.number, &mut bytes)?;
        if is_begun(&bytes, &begun) {
            let stale = numbers.iter().copied().filter(|&number| number < first.number).collect();
            heads.drain(..numbers.partition_point(|&number| number < first.number));
            numbers.retain(|&number| number >= first.number);
            return Ok(stale);
        }
        take_away(disk, numbers, heads, last.lineage)?;
    }
    Ok(Vec::new())
}

/// Two logs are mixed: the one that came second is the foreign one.
fn foreign(a: &Head, b: &Head) -> OpenError {
    let (found, expected) = if a.number > b.number { (a, b) } else { (b, a) };
    OpenError::Foreign { segment: found.number, found: found.lineage, expected: expected.lineage }
}

fn take_away<D: Disk>(
    disk: &mut D,
    numbers: &mut Vec<u64>,
    heads: &mut Vec<Option<Head>>,
    lineage: Lineage,
) -> io::Result<()> {
    let mut at = 0;
    while let Some((head, &number)) = heads.get(at).zip(numbers.get(at)) {
        if head.is_some_and(|head| head.lineage == lineage) {
            disk.remove(number)?;
            heads.remove(at);
            numbers.remove(at);
        } else {
            at += 1;
        }
    }
    Ok(())
}

/// Where the records of a commit lie.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    segment: u64,
    commit: u32,
    from: usize,
    end: usize,
}

/// What was met so far.
#[derive(Debug, Default)]
struct Finding {
    recovery: Recovery,
    /// Sequence behind the last one met.
    expected: u64,
    /// The commit of the last record, and whether it ended there.
    last: Option<(u32, bool)>,
    /// Where that one lies.
    last_commit: Option<Stretch>,
    /// Missing records of that commit: damaged if another one is behind it, else torn.
    held: Vec<(u64, u64)>,
    /// Missing records since.
    open: Vec<(u64, u64)>,
}

impl Finding {
    /// What is missing before a segment that continues was on disk, and so was what lies between the two.
    fn segment_begins(&mut self, head: &Head) {
        self.held.append(&mut self.open);
        if head.start == Start::Continues {
            self.held_damaged();
        }
        self.held_torn();
        if head.start != Start::Continues {
            // Whatever is missing of the commit before is torn, and this one is the next.
            self.last = self.last.map(|(commit, _)| (commit, true));
        }
        if self.expected != 0 && head.first > self.expected {
            self.held.push((self.expected, head.first));
            self.held_damaged();
        }
        self.expected = head.first;
    }

    fn met(&mut self, segment: u64, met: &Met<'_>) {
        match *met {
            Met::Record { at, body, commit, end, .. } => {
                self.recovery.records += 1;
                let begun = self.last_commit.filter(|last| (last.segment, last.commit) == (segment, commit));
                let from = begun.map_or(at, |begun| begun.from);
                self.last_commit = Some(Stretch { segment, commit, from, end: at + record_len(body.len()) });
                self.record(commit, end);
            }
            Met::Missing { from, to } => self.open.push((from, to)),
            Met::Tail { bytes } => self.recovery.torn_bytes += bytes as u64,
        }
    }

    /// A commit begins only when the one before is on disk.
    fn record(&mut self, commit: u32, end: bool) {
        if let Some((before, ended)) = self.last.replace((commit, end))
            && before != commit
        {
            self.held_damaged();
            let next = ended && commit == before.wrapping_add(1);
            if !next {
                self.held.append(&mut self.open);
                self.held_damaged();
            }
        }
        self.held.append(&mut self.open);
    }

    fn held_damaged(&mut self) {
        for (from, to) in self.held.drain(..) {
            self.recovery.damaged_records += to - from;
            if self.recovery.damaged.len() < DAMAGES_MAX {
                self.recovery.damaged.push((from, to - 1));
            }
        }
    }

    fn held_torn(&mut self) {
        self.recovery.torn_records += self.held.drain(..).map(|(from, to)| to - from).sum::<u64>();
    }

    fn ended(mut self) -> Recovery {
        self.held.append(&mut self.open);
        self.held_torn();
        self.recovery
    }
}
