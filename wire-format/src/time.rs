//! Time as the cores see it: microseconds on a monotonic clock of the caller's choice.

use core::time::Duration;

/// A point in time: microseconds since an epoch the caller chose (a boot, a process start).
///
/// The clock must never run backwards and should count suspended time. Two instants compare only within one process.
/// 64 bits of microseconds last 584,000 years, so arithmetic saturates instead of failing.
///
/// ```
/// use core::time::Duration;
/// use wire_format::time::Instant;
/// let boot = Instant::ZERO;
/// let later = boot + Duration::from_millis(250);
/// assert_eq!(later.since(boot), Duration::from_millis(250));
/// assert_eq!(boot.since(later), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The caller's epoch.
    pub const ZERO: Self = Self(0);
    /// Later than anything that will happen.
    pub const NEVER: Self = Self(u64::MAX);

    /// `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Microseconds after the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds after the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// The time from `earlier` to `self`, zero if `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let micros = span.as_secs().saturating_mul(1_000_000).saturating_add(span.subsec_micros().into());
        Self(self.0.saturating_add(micros))
    }
}
