//! A histogram of durations with a fixed size: 16 steps per doubling, so a quantile is at most 6 % off.

use core::time::Duration;

/// Steps per doubling.
const STEPS: usize = 16;
/// Doublings above the first 16 µs: the last bucket ends beyond 4.6 hours.
const DOUBLINGS: usize = 30;
const BUCKETS: usize = STEPS * (DOUBLINGS + 1);

/// Counts of durations by size, from 1 µs to hours. 1,992 bytes, never grows, merging loses nothing.
///
/// ```
/// use core::time::Duration;
/// use push::histogram::Histogram;
/// let mut histogram = Histogram::new();
/// (1..=100).for_each(|ms| histogram.record(Duration::from_millis(ms)));
/// assert_eq!(histogram.count(), 100);
/// assert_eq!(histogram.max(), Duration::from_millis(100));
/// let median = histogram.quantile(0.5).as_micros();
/// assert!((47_000..=54_000).contains(&median), "{median}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u32; BUCKETS],
    max_us: u64,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], max_us: 0 }
    }

    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, span: Duration) {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(us)) {
            *count = count.saturating_add(1);
        }
        self.max_us = self.max_us.max(us);
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (own, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *own = own.saturating_add(*theirs);
        }
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// The longest one, exact; zero if there is none.
    #[must_use]
    pub const fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// What was counted since `earlier`, a copy of this histogram from before, smallest first: the longest duration of
    /// each bucket, and how many fell into it.
    pub fn since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (Duration, u32)> + 'a {
        let pairs = self.counts.iter().zip(&earlier.counts).enumerate();
        pairs.filter_map(|(index, (now, before))| {
            let count = now.saturating_sub(*before);
            (count > 0).then(|| (Duration::from_micros(upper(index).min(self.max_us)), count))
        })
    }

    /// The duration that a share `q` (0 to 1) of those counted does not exceed; zero if there is none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Duration {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank within the count; off by one at 2^53 entries"
        )]
        let rank = ((count as f64 * q.clamp(0.0, 1.0)) as u64).min(count.saturating_sub(1));
        let mut seen = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen > rank {
                return Duration::from_micros(upper(index).min(self.max_us));
            }
        }
        Duration::ZERO
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Which bucket `us` falls into: the value itself below 16, then its exponent and four bits after the leading one.
const fn bucket(us: u64) -> usize {
    if us < STEPS as u64 {
        return us as usize;
    }
    let exponent = us.ilog2() as usize;
    let step = (us >> (exponent - 4)) as usize & (STEPS - 1);
    let index = (exponent - 3) * STEPS + step;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The largest value of a bucket.
const fn upper(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let exponent = index / STEPS + 3;
    let step = (index % STEPS) as u64;
    ((STEPS as u64 + step + 1) << (exponent - 4)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_touch_and_are_narrow() {
        for index in 1..BUCKETS {
            let low = upper(index - 1) + 1;
            assert_eq!(bucket(low), index, "{low}");
            assert_eq!(bucket(upper(index)), index);
            assert!(upper(index) - low <= low / 16, "bucket {index} is wide");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn buckets_tell_what_was_counted_and_what_is_new() {
        let mut histogram = Histogram::new();
        [3, 3, 1_000].iter().for_each(|&us| histogram.record(Duration::from_micros(us)));
        let us = |(span, count): (Duration, u32)| (span.as_micros(), count);
        assert_eq!(histogram.since(&Histogram::new()).map(us).collect::<Vec<_>>(), [(3, 2), (1_000, 1)]);
        let earlier = histogram.clone();
        assert_eq!(histogram.since(&earlier).count(), 0);
        [9, 1_000].iter().for_each(|&us| histogram.record(Duration::from_micros(us)));
        assert_eq!(histogram.since(&earlier).map(us).collect::<Vec<_>>(), [(9, 1), (1_000, 1)]);
    }

    #[test]
    fn empty_and_merged() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        assert_eq!((a.quantile(0.5), a.max()), (Duration::ZERO, Duration::ZERO));
        a.record(Duration::from_micros(3));
        b.record(Duration::from_micros(9));
        a.merge(&b);
        assert_eq!((a.count(), a.quantile(0.0), a.quantile(1.0)), (2, Duration::from_micros(3), a.max()));
    }
}
