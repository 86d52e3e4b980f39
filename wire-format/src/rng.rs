//! Randomness as the cores use it: a small generator seeded by the caller. For jitter and sampling, never for secrets.

use core::time::Duration;

/// SplitMix64: 8 bytes of state, every seed is good, the same seed gives the same run.
///
/// ```
/// use wire_format::rng::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.next_u64(), b.next_u64());
/// assert!(a.below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// A span in `from..to`, a whole number of microseconds after `from`; `from` when the range is empty. Saturates at
    /// 584 years.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        // In whole nanoseconds: adding two `Duration`s may panic as far as the optimiser can tell.
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let (from, to) = (nanos(from), nanos(to));
        let micros = self.below(to.saturating_sub(from) / 1_000);
        Duration::from_nanos(from.saturating_add(micros.saturating_mul(1_000)))
    }
}

/// Spreads 64 bits over 64 bits (the finaliser of SplitMix64): a hash for trusted keys.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_stay_in_their_range() {
        let mut rng = Rng::new(1);
        let (from, to) = (Duration::from_millis(250), Duration::from_secs(1));
        for _ in 0..1_000 {
            let span = rng.between(from, to);
            assert!(from <= span && span < to, "{span:?}");
        }
        assert_eq!(rng.between(to, from), to);
        assert_eq!(rng.below(0), 0);
    }
}
