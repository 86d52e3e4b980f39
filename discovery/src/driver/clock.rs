//! The one place of this crate that reads a clock.

use core::time::Duration;

use wire_format::time::Instant;

/// The monotonic clock of a driver: microseconds since it was started.
///
/// It is the system's monotonic clock, which on some systems stands still while the machine sleeps. The cores fire
/// every timer at most once after a gap, so a sleep costs lateness and no burst.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts at zero, now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: read() }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::ZERO + read().duration_since(self.origin)
    }

    /// The same point in the runtime's terms; a point too far away to be expressed is a day from the start.
    pub(crate) fn deadline(&self, at: Instant) -> tokio::time::Instant {
        const DAY: Duration = Duration::from_secs(86_400);
        let span = at.since(Instant::ZERO);
        let at = self.origin.checked_add(span).or_else(|| self.origin.checked_add(DAY));
        tokio::time::Instant::from_std(at.unwrap_or(self.origin))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a driver is where the clock is read; the cores are told the time"
)]
fn read() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_rises_and_never_is_a_deadline_too() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
        assert!(clock.deadline(second) >= clock.deadline(first));
        assert!(clock.deadline(Instant::NEVER) > clock.deadline(second + Duration::from_secs(3_600)));
    }
}
