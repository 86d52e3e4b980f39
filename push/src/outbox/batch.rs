//! What a shard collects to be logged: how orders ended, and how far devices got.
//!
//! Outcomes wait a few milliseconds for company, so that a fan-out costs a few records and one sync. They do not wait where
//! none can come, or where they hold up what would come: see [`Pace`]. A session does not wait at all, since its device gets
//! no durable order before it is written down.

use core::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::log::Disk;
use super::record::Session;
use super::{AppendError, Entry, Now, Outbox, Targets};

/// Outcomes with which a batch is full.
pub const BATCH_MAX: usize = 1_024;
/// How long outcomes wait for others.
pub const BATCH_WITHIN: Duration = Duration::from_millis(10);

/// Sessions an emptied batch has room for: all devices of a shop come together, and then none for days.
pub(crate) const SESSIONS_KEPT: usize = 64;

/// How an order ended on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The order's number, or the attempt's.
    pub number: u64,
    /// The device's number in the outbox.
    pub device: u32,
    /// How it ended.
    pub code: Code,
    /// How it stands then: of [`Code::DUPLICATE`] how it had ended before; 0 is the code again.
    pub first_code: Code,
    /// The device said so in an OUTCOME frame.
    pub by_device: bool,
    /// Of [`Code::BUSY`] and the like: no further attempt is made.
    pub last: bool,
}

/// When what was collected is to be logged: the one rule, for whatever collects.
///
/// ```
/// use push::outbox::{BATCH_WITHIN, Pace};
/// use wire_format::time::Instant;
/// let (mut pace, now) = (Pace::default(), Instant::ZERO);
/// pace.begin(now);
/// assert_eq!(pace.due(1, false), Some(now + BATCH_WITHIN), "others are on their way");
/// assert_eq!(pace.due(1, true), Some(now), "no other can come");
/// pace.hasten();
/// assert_eq!(pace.due(1, false), Some(now), "a device waits for it");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When the first of what waits came.
    since: Option<Instant>,
    /// Somebody waits for it.
    hasty: bool,
}

impl Pace {
    /// Something came.
    pub fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// What came holds somebody up: a session begins, or a device's orders wait for it
    /// ([`crate::fleet::Fleet::waits_for_log`]).
    pub const fn hasten(&mut self) {
        self.hasty = true;
    }

    /// Nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// When it should be logged, with so many outcomes; `None` if nothing waits. `alone`: nothing is out that could end and
    /// keep it company ([`crate::fleet::Fleet::durable_out`]), and nothing is about to be written.
    #[must_use]
    pub fn due(&self, outcomes: usize, alone: bool) -> Option<Instant> {
        let since = self.since?;
        let at_once = self.hasty || alone || outcomes >= BATCH_MAX;
        Some(if at_once { since } else { since + BATCH_WITHIN })
    }
}

/// Outcomes and sessions that wait to be logged.
///
/// ```
/// use push::outbox::{BATCH_WITHIN, Batch, Outcome};
/// use wire_format::frame::outcome::Code;
/// use wire_format::time::Instant;
/// let (mut batch, now) = (Batch::new(), Instant::ZERO);
/// let outcome = Outcome {
///     number: 7, device: 3, code: Code::APPLIED, first_code: Code::APPLIED, by_device: true, last: false,
/// };
/// batch.push(now, outcome);
/// assert!(!batch.is_due(now, false));
/// assert!(batch.is_due(now, true));
/// assert!(batch.is_due(now + BATCH_WITHIN, false));
/// ```
#[derive(Debug, Default)]
pub struct Batch {
    outcomes: Vec<Outcome>,
    sessions: Vec<Session>,
    pace: Pace,
}

impl Batch {
    /// An empty one, with room for [`BATCH_MAX`] outcomes.
    #[must_use]
    pub fn new() -> Self {
        Self { outcomes: Vec::with_capacity(BATCH_MAX), ..Self::default() }
    }

    /// Adds an outcome.
    pub fn push(&mut self, now: Instant, outcome: Outcome) {
        self.pace.begin(now);
        self.outcomes.push(outcome);
    }

    /// Adds how far a device got.
    pub fn push_session(&mut self, now: Instant, session: Session) {
        self.pace.begin(now);
        self.pace.hasten();
        self.sessions.push(session);
    }

    /// What waits holds up orders of the device the last outcome was of.
    pub const fn hasten(&mut self) {
        self.pace.hasten();
    }

    /// Nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pace.is_empty()
    }

    /// The outcomes, as they came.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The sessions, as they came.
    #[must_use]
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Whether it should be logged now; `alone` as for [`Pace::due`].
    #[must_use]
    pub fn is_due(&self, now: Instant, alone: bool) -> bool {
        self.poll_timeout(alone).is_some_and(|due| due <= now)
    }

    /// When it should be logged; `None` while it is empty. `alone` as for [`Pace::due`].
    #[must_use]
    pub fn poll_timeout(&self, alone: bool) -> Option<Instant> {
        self.pace.due(self.outcomes.len(), alone)
    }

    /// What waits, and `spare` (emptied) in its place: no allocation where batches go round.
    #[must_use]
    pub fn take(&mut self, mut spare: Self) -> Self {
        spare.clear();
        core::mem::replace(self, spare)
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.outcomes.clear();
        self.sessions.clear();
        self.sessions.shrink_to(SESSIONS_KEPT);
        self.pace = Pace::default();
    }
}

impl<D: Disk> Outbox<D> {
    /// Adds a batch to the next commit: its sessions, and then its outcomes, one record per order and code. What a session says
    /// of outcomes is what counts; those of the same batch that came behind it raise it again. On an error some may have been
    /// added; to add it again is no harm.
    pub fn append_batch(&mut self, now: Now, batch: &Batch) -> Result<(), AppendError> {
        batch.sessions.iter().try_for_each(|session| self.append(now, &Entry::Session(session)))?;
        let mut outcomes = batch.outcomes.clone();
        let sort = |outcome: &Outcome| {
            let Outcome { number, device, code, first_code, by_device, last } = *outcome;
            (number, code.0, first_code.0, by_device, last, device)
        };
        let alike = |a: &Outcome, b: &Outcome| Outcome { device: b.device, ..*a } == *b;
        outcomes.sort_unstable_by_key(sort);
        outcomes.dedup();
        for group in outcomes.chunk_by(alike) {
            let Some(&Outcome { number, code, first_code, by_device, last, .. }) = group.first() else {
                continue;
            };
            let targets = Targets::from_sorted(group.iter().map(|outcome| outcome.device));
            let targets = &targets.ok_or(AppendError::Invalid { field: "device" })?;
            self.append(now, &Entry::Outcomes { number, code, first_code, by_device, last, targets })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(device: u32) -> Outcome {
        let code = Code::APPLIED;
        Outcome { number: 1, device, code, first_code: code, by_device: true, last: false }
    }

    #[test]
    fn batches_at_their_limits_and_one_past_each() {
        let (mut batch, start) = (Batch::new(), Instant::ZERO);
        assert_eq!((batch.is_empty(), batch.poll_timeout(false)), (true, None));
        for device in 1..BATCH_MAX as u32 {
            batch.push(start, outcome(device));
        }
        assert_eq!(batch.poll_timeout(false), Some(start + BATCH_WITHIN));
        assert!(!batch.is_due(start + (BATCH_WITHIN - Duration::from_micros(1)), false));
        assert!(batch.is_due(start + BATCH_WITHIN, false));
        batch.push(start, outcome(0));
        assert!(batch.is_due(start, false));
        let full = batch.take(Batch::new());
        assert_eq!((full.outcomes().len(), batch.is_empty()), (BATCH_MAX, true));
        batch.push_session(start, Session { device: 1, ..Session::default() });
        assert!(batch.is_due(start, false), "its device waits");
    }

    #[test]
    fn a_batch_waits_for_company_that_can_come_and_holds_nobody_up() {
        let (mut batch, start) = (Batch::new(), Instant::ZERO);
        assert_eq!(batch.poll_timeout(true), None, "there is nothing");
        batch.push(start, outcome(0));
        assert_eq!((batch.is_due(start, false), batch.is_due(start, true)), (false, true));
        batch.hasten();
        assert!(batch.is_due(start, false));
        batch.clear();
        batch.push(start, outcome(1));
        assert!(!batch.is_due(start, false), "whom it held up goes on");
    }
}
