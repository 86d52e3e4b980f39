//! From rounds to figures: percentiles, spreads, costs per order and device, ratios of pairs.

use serde_json::{Value, json};

use super::contestant::Who;

/// A round as the contestant measured it, and what its devices took meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    /// Every order was applied on every device in time.
    pub(super) complete: bool,
    pub(super) last_ack_us: u64,
    /// Since the round before ended.
    pub(super) cpu_ns: u64,
    pub(super) cpu_ns_to_last_ack: u64,
    /// Of all threads, since the round before ended.
    pub(super) process_cpu_ns: u64,
    /// Commits of the outbox, each of which is one sync.
    pub(super) commits: u64,
    /// Of the process with the devices.
    pub(super) device_cpu_ns: u64,
    pub(super) allocations: u64,
}

/// All rounds of a contestant.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) who: Who,
    pub(super) user_bytes_per_device: u64,
    pub(super) rounds: Vec<Round>,
}

impl Row {
    pub(super) const fn new(who: Who) -> Self {
        Self { who, user_bytes_per_device: 0, rounds: Vec::new() }
    }

    /// The time within which this part of the rounds had its last answer: the smallest that holds for so many.
    pub(super) fn last_ack_us(&self, percent: usize) -> u64 {
        let mut times: Vec<_> = self.rounds.iter().map(|round| round.last_ack_us).collect();
        times.sort_unstable();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied().unwrap_or_default()
    }

    /// The mean of something over all rounds, for each of the `orders` a round has, devices counted.
    pub(super) fn per_order(&self, orders: f64, of: impl Fn(&Round) -> u64) -> f64 {
        let sum: u64 = self.rounds.iter().map(of).sum();
        sum as f64 / (self.rounds.len() as f64 * orders).max(1.0)
    }

    /// The spread of something over the rounds, for each of the `orders` a round has.
    pub(super) fn spread(&self, orders: f64, of: impl Fn(&Round) -> u64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| of(round) as f64 / orders.max(1.0)).collect())
    }

    /// Every order of every counted round was applied on every device.
    pub(super) fn is_right(&self) -> bool {
        !self.rounds.is_empty() && self.rounds.iter().all(|round| round.complete)
    }
}

/// Ours divided by the yardstick, pair by pair.
pub(super) fn ratio(rows: &[Row; 2], of: impl Fn(&Round) -> f64) -> Spread {
    let [ours, raw] = rows;
    let pairs = ours.rounds.iter().zip(&raw.rounds);
    Spread::of(pairs.map(|(ours, raw)| of(ours) / of(raw).max(f64::MIN_POSITIVE)).collect())
}

/// Half of the values lie between the quarters, half of them below the median.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) quarter: f64,
    pub(super) median: f64,
    pub(super) three_quarters: f64,
}

impl Spread {
    /// All zero if there is nothing.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Self {
            quarter: quantile(&values, 0.25),
            median: quantile(&values, 0.5),
            three_quarters: quantile(&values, 0.75),
        }
    }

    /// The quarters, for the machine.
    pub(super) fn json(&self) -> Value {
        json!([rounded(self.quarter), rounded(self.three_quarters)])
    }

    /// `1.02 (0.98-1.07)`.
    pub(super) fn people(&self) -> String {
        format!("{:.2} ({:.2}-{:.2})", self.median, self.quarter, self.three_quarters)
    }
}

/// Between two values it is their weighted mean.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = sorted.len().saturating_sub(1) as f64 * q;
    let below = place.floor();
    let at = |index: f64| sorted.get(index as usize).copied().unwrap_or_default();
    let (low, high) = (at(below), at(place.ceil()));
    low + (high - low) * (place - below)
}

/// Four decimals: more would be noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn row(who: Who, figures: &[(u64, u64)]) -> Row {
        let round = |&(last_ack_us, cpu_ns): &(u64, u64)| Round {
            complete: true,
            last_ack_us,
            cpu_ns,
            ..Round::default()
        };
        Row { rounds: figures.iter().map(round).collect(), ..Row::new(who) }
    }

    #[test]
    fn ratios_are_medians_of_pairs() {
        let rows = [
            row(Who::Tillwire, &[(100, 2_000), (300, 6_000), (200, 1_000)]),
            row(Who::RawEpoll, &[(100, 1_000), (100, 2_000), (100, 1_000)]),
        ];
        assert_eq!(ratio(&rows, |round| round.cpu_ns as f64).median, 2.0);
        assert_eq!(ratio(&rows, |round| round.last_ack_us as f64).people(), "2.00 (1.50-2.50)");
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn times_are_the_smallest_that_hold() {
        let row = row(Who::Tillwire, &[(100, 0), (300, 0), (200, 0)]);
        assert_eq!([50, 99, 100].map(|percent| row.last_ack_us(percent)), [200, 300, 300]);
        assert_eq!(row.per_order(10.0, |round| round.last_ack_us), 20.0);
    }

    #[test]
    fn a_round_that_lacks_an_outcome_is_not_right() {
        let mut row = row(Who::Tillwire, &[(1, 1), (1, 1)]);
        assert!(row.is_right());
        row.rounds[1].complete = false;
        assert!(!row.is_right());
        row.rounds.clear();
        assert!(!row.is_right(), "nothing measured is nothing right");
    }
}
