//! Finding out that this process slept (suspend, SIGSTOP, a stalled machine): a deadline it knew of passed long ago.
//!
//! Time asleep is nobody else's silence: it is not charged to the others' leases.

use core::time::Duration;

use wire_format::time::Instant;

/// Being later than this for one's own deadline is a sleep, not a busy moment.
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// When this node was last awake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wakefulness {
    last: Instant,
}

impl Wakefulness {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// Called with every input, and with the deadline known before it: how long was slept, if it was.
    pub(crate) fn handle(&mut self, now: Instant, deadline: Option<Instant>) -> Option<Duration> {
        let from = deadline.map(|deadline| deadline.max(self.last));
        self.last = self.last.max(now);
        from.map(|from| now.since(from)).filter(|slept| *slept > PAUSE_MIN)
    }
}
