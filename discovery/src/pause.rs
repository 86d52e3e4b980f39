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

    /// How long was slept, if it was, given the deadline that was known. Asked with every input, so it looks for the
    /// deadline only if the last input is long ago.
    pub(crate) fn slept(&self, now: Instant, deadline: impl FnOnce() -> Option<Instant>) -> Option<Duration> {
        if now.since(self.last) <= PAUSE_MIN {
            return None;
        }
        let from = deadline()?.max(self.last);
        Some(now.since(from)).filter(|slept| *slept > PAUSE_MIN)
    }

    /// An input came.
    pub(crate) fn handle(&mut self, now: Instant) {
        self.last = self.last.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_deadline_is_a_sleep_and_a_quiet_hour_is_not() {
        let at = Instant::from_millis;
        let mut wakefulness = Wakefulness::new(at(0));
        assert_eq!(wakefulness.slept(at(3_600_000), || None), None);
        assert_eq!(wakefulness.slept(at(3_602_000), || Some(at(3_600_000))), None);
        let slept = wakefulness.slept(at(3_602_001), || Some(at(3_600_000)));
        assert_eq!(slept, Some(Duration::from_millis(2_001)));
        wakefulness.handle(at(3_602_001));
        assert_eq!(wakefulness.slept(at(3_602_002), || Some(at(3_600_000))), None, "told once");
    }
}
