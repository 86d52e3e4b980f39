//! The one place of this package that reads a clock.

use std::time::Duration;

use wire_format::time::Instant;

/// Microseconds since this clock was made, on the system's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// The same instant on tokio's clock; at most a day ahead, so that "never" is a time too.
    #[must_use]
    pub fn tokio(&self, at: Instant) -> tokio::time::Instant {
        let ahead = at.since(Instant::ZERO).min(self.0.elapsed() + Duration::from_secs(86_400));
        tokio::time::Instant::from_std(self.0 + ahead)
    }
}

/// The wall clock: milliseconds since 1970, 0 before. No promise rests on it: it may jump.
#[expect(clippy::disallowed_methods, reason = "a record of the outbox says when it was written")]
pub(super) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
