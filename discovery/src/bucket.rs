//! How often one source may speak: 16 datagrams a second, 32 at once.
//!
//! A fixed table, two places per hash value. A source that finds both places taken by busy ones shares the older
//! place's allowance: flooding from many addresses never earns more room, and the table never grows.

use core::net::Ipv4Addr;
use core::time::Duration;

use wire_format::time::Instant;

use crate::hash::Secret;

/// Time one datagram costs: 16 a second. A device sends one in 30 s, a burst of retransmits three in a second.
const COST: Duration = Duration::from_micros(62_500);
/// What may be saved up: 32 datagrams, a server's beacons and acks on a bad day.
const BURST: Duration = Duration::from_secs(2);

/// One source's allowance: the time up to which it is spent.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    source: u32,
    spent_until: Instant,
}

/// `N` pairs of sources.
#[derive(Clone, Debug)]
pub(crate) struct Buckets<const N: usize> {
    pairs: [[Bucket; 2]; N],
    secret: Secret,
}

impl<const N: usize> Buckets<N> {
    pub(crate) const fn new(secret: Secret) -> Self {
        Self { pairs: [[Bucket { source: 0, spent_until: Instant::ZERO }; 2]; N], secret }
    }

    /// Takes one datagram of `source` from its allowance; `false` if nothing is left.
    #[inline]
    pub(crate) fn take(&mut self, now: Instant, source: Ipv4Addr) -> bool {
        let source = source.to_bits();
        let at = usize::try_from(self.secret.place(&[u64::from(source)]) % N as u64).unwrap_or(0);
        let Some([first, second]) = self.pairs.get_mut(at) else { return true };
        let bucket =
            if second.source == source || first.source != source && second.spent_until < first.spent_until {
                second
            } else {
                first
            };
        if bucket.spent_until <= now {
            *bucket = Bucket { source, spent_until: now };
        }
        let spent_until = bucket.spent_until + COST;
        if spent_until > now + BURST {
            return false;
        }
        bucket.spent_until = spent_until;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn taken(buckets: &mut Buckets<4>, now: Instant, source: Ipv4Addr, tries: u32) -> usize {
        (0..tries).filter(|_| buckets.take(now, source)).count()
    }

    #[test]
    fn thirty_two_at_once_then_sixteen_a_second() {
        let mut buckets = Buckets::new(Secret::new(1));
        let start = Instant::from_millis(5_000);
        assert_eq!(taken(&mut buckets, start, A, 100), 32);
        assert_eq!(taken(&mut buckets, start + Duration::from_secs(1), A, 100), 16);
        assert_eq!(taken(&mut buckets, start + Duration::from_secs(60), A, 100), 32);
    }

    #[test]
    fn other_sources_are_not_charged_and_many_do_not_earn_more() {
        let mut buckets = Buckets::new(Secret::new(1));
        let start = Instant::from_millis(5_000);
        assert_eq!(taken(&mut buckets, start, A, 100), 32);
        assert_eq!(taken(&mut buckets, start, Ipv4Addr::new(10, 0, 0, 2), 1), 1);
        // 8 places: whatever the number of sources, 8 bursts pass.
        let mut buckets = Buckets::new(Secret::new(1));
        let passed: usize =
            (0..1_000).map(|n| taken(&mut buckets, start, Ipv4Addr::from_bits(0x0A00_0000 + n), 50)).sum();
        assert_eq!(passed, 8 * 32);
    }
}
