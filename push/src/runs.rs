//! The runs of the durable log: what a device's floor is checked against, so that a log restored from an old backup is
//! found out before an order leaves.

use wire_format::ids::Lineage;

use crate::config::RUNS_KEPT;

/// The durable log as devices know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId {
    /// Its identity; a new one when it turned out to be restored from a backup.
    pub lineage: Lineage,
    /// Random, drawn and synced each time the log is opened: the last one of `runs`.
    pub run: u64,
    /// Its last runs, this one included.
    pub runs: Runs,
}

impl LogId {
    /// A log that is opened for the first time; `first` is the first number it may give.
    #[must_use]
    pub fn new(lineage: Lineage, run: u64, first: u64) -> Self {
        let mut runs = Runs::NONE;
        runs.push(run, first);
        Self { lineage, run, runs }
    }
}

/// The last runs of a log, oldest first: the run's id and the first number it could give. 520 bytes.
///
/// ```
/// use push::config::Runs;
/// let mut runs = Runs::NONE;
/// runs.push(0xA, 1); // gave 1 to 99
/// runs.push(0xB, 100); // the one that is open; its head is 120
/// assert!(runs.knows(0xA, 99, 120) && runs.knows(0xB, 7, 120));
/// assert!(!runs.knows(0xA, 100, 120), "more than that run ever gave: it went on elsewhere");
/// assert!(!runs.knows(0xC, 50, 120), "a run this log never had");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    kept: [(u64, u64); RUNS_KEPT],
    len: usize,
}

impl Runs {
    /// None.
    pub const NONE: Self = Self { kept: [(0, 0); RUNS_KEPT], len: 0 };

    /// Adds a run behind the last one; the oldest goes if [`RUNS_KEPT`] are kept already.
    pub fn push(&mut self, run: u64, first: u64) {
        if self.len >= RUNS_KEPT {
            self.kept.copy_within(1.., 0);
            self.len = RUNS_KEPT - 1;
        }
        if let Some(place) = self.kept.get_mut(self.len) {
            *place = (run, first);
            self.len = self.len.saturating_add(1);
        }
    }

    /// The kept ones, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.kept.get(..self.len).unwrap_or(&[]).iter().copied()
    }

    /// Whether a device can have ended the order `number` while `run` was open, in a log whose highest number is `head`.
    /// Of runs older than the kept ones all that is known is that they gave the numbers below.
    #[must_use]
    pub fn knows(&self, run: u64, number: u64, head: u64) -> bool {
        if number == 0 {
            return true;
        }
        if number > head {
            return false;
        }
        let oldest = self.iter().next().map_or(0, |(_, first)| first);
        let mut before = u64::MAX;
        for (id, first) in self.iter().rev() {
            if id == run {
                return number < before;
            }
            before = first;
        }
        number < oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_have_ended_what_it_or_an_earlier_one_gave() {
        let mut runs = LogId::new(Lineage([1; 16]), 0xA, 1).runs;
        assert!(runs.knows(0xA, 10, 10) && !runs.knows(0xA, 11, 10));
        assert!(runs.knows(0xF, 0, 10), "no floor is in every log");
        runs.push(0xB, 11);
        runs.push(0xC, 11);
        assert!(runs.knows(0xA, 10, 20) && !runs.knows(0xA, 11, 20));
        assert!(runs.knows(0xB, 3, 20) && !runs.knows(0xB, 11, 20), "it gave none");
        assert!(runs.knows(0xC, 20, 20) && !runs.knows(0xC, 21, 20));
        assert!(!runs.knows(0xF, 1, 20));
    }

    #[test]
    fn of_runs_that_are_not_kept_any_more_only_their_numbers_are_known() {
        let mut runs = Runs::NONE;
        assert!(!runs.knows(1, 1, 10), "no run gave that");
        for at in 0..=RUNS_KEPT as u64 {
            runs.push(100 + at, 1 + 10 * at);
        }
        assert_eq!(runs.iter().count(), RUNS_KEPT);
        assert_eq!(runs.iter().next(), Some((101, 11)));
        let head = 1_000;
        assert!(runs.knows(100, 10, head), "the oldest went, its numbers are below the first kept");
        assert!(runs.knows(0xF00, 10, head) && !runs.knows(0xF00, 11, head));
        assert!(runs.knows(101, 20, head) && !runs.knows(101, 21, head));
    }
}
