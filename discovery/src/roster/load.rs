//! How hard the announces press: the rate at which they arrive, and what the socket had to drop.
//!
//! ```text
//! more than 2 λ in a bin, or a drop ──▶ the next BEACON's window is twice as wide, up to 2^8 times
//! a BEACON without either           ──▶ half as wide again
//! more than 2 λ for a second        ──▶ unknown devices beyond λ are sent away, each with a moment of its own to return at
//! ```

use core::time::Duration;

use wire_format::time::Instant;

/// Announces are counted over so long to see a rush.
const BIN: Duration = Duration::from_millis(100);
/// Bins of a second.
const BINS_PER_S: u32 = 10;
/// A bin with fewer announces is never a rush, however low the wanted rate.
pub(super) const RUSH_MIN: u32 = 8;
/// At most 2^8 times the computed window.
const STRETCH_MAX: u32 = 8;
/// A rush of so many bins in a row is not over by itself.
const RUSH_BINS: u32 = 10;
/// A device that is sent away is called back within so many seconds.
const BACK_MAX_S: u32 = 60;

/// The pressure since the last BEACON, and since the last second.
#[derive(Debug)]
pub(super) struct Load {
    bin_end: Instant,
    /// Announces in this bin.
    bin: u32,
    /// Devices let in during this bin.
    admitted: u32,
    /// Bins in a row that were a rush, this one not included.
    rush_bins: u32,
    /// Devices sent away who have not had their moment yet.
    away: u32,
    /// There was a rush, or a drop, since the last BEACON.
    pressed: bool,
    stretch: u32,
    /// What the socket had dropped when it was last asked.
    drops: u64,
}

impl Load {
    pub(super) const fn new() -> Self {
        Self {
            bin_end: Instant::ZERO,
            bin: 0,
            admitted: 0,
            rush_bins: 0,
            away: 0,
            pressed: false,
            stretch: 0,
            drops: 0,
        }
    }

    /// An announce arrived.
    pub(super) fn count(&mut self, now: Instant, rate_per_s: u32) {
        if now >= self.bin_end {
            self.next_bin(now, rate_per_s);
        }
        self.bin = self.bin.saturating_add(1);
        self.pressed |= self.bin > rush(rate_per_s);
    }

    fn next_bin(&mut self, now: Instant, rate_per_s: u32) {
        let missed = u32::try_from(now.since(self.bin_end).as_micros() / BIN.as_micros()).unwrap_or(u32::MAX);
        let rushed = missed == 0 && self.bin > rush(rate_per_s);
        self.rush_bins = if rushed { self.rush_bins.saturating_add(1) } else { 0 };
        let returned = missed.saturating_add(1).saturating_mul(per_bin(rate_per_s));
        self.away = self.away.saturating_sub(returned);
        (self.bin, self.admitted) = (0, 0);
        self.bin_end = now + BIN;
    }

    /// Whether an unknown device shall come back later, and in how many seconds: one in λ has the same second.
    pub(super) fn shed(&mut self, rate_per_s: u32) -> Option<u8> {
        if self.rush_bins < RUSH_BINS || self.admitted < per_bin(rate_per_s) {
            self.admitted = self.admitted.saturating_add(1);
            return None;
        }
        let after_s = (self.away / rate_per_s.max(1)).saturating_add(1).min(BACK_MAX_S);
        self.away = self.away.saturating_add(1);
        Some(u8::try_from(after_s).unwrap_or(u8::MAX))
    }

    /// What the socket has dropped since it was opened; whether that is more than before. A smaller number is another
    /// socket's.
    pub(super) fn handle_drops(&mut self, total: u64) -> bool {
        let dropped = total > self.drops;
        self.drops = total;
        self.pressed |= dropped;
        dropped
    }

    /// How many times the window shall be doubled in the BEACON that leaves now.
    pub(super) fn stretch(&mut self) -> u32 {
        let pressed = core::mem::take(&mut self.pressed);
        let stretch = if pressed { self.stretch.saturating_add(1) } else { self.stretch.saturating_sub(1) };
        self.stretch = stretch.min(STRETCH_MAX);
        self.stretch
    }
}

/// What a bin may hold at twice the wanted rate.
fn rush(rate_per_s: u32) -> u32 {
    (rate_per_s / (BINS_PER_S / 2)).max(RUSH_MIN)
}

/// What a bin holds at the wanted rate.
fn per_bin(rate_per_s: u32) -> u32 {
    (rate_per_s / BINS_PER_S).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 1_000;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// `per_bin` announces of unknown devices in each 100 ms from `from` to `to`; those sent away, by their second.
    fn press(load: &mut Load, from: u64, to: u64, per_bin: u32) -> Vec<u8> {
        let mut away = vec![];
        for ms in (from..to).step_by(100) {
            for _ in 0..per_bin {
                load.count(at(ms), RATE);
                away.extend(load.shed(RATE));
            }
        }
        away
    }

    #[test]
    fn the_window_doubles_with_each_pressed_beacon_up_to_its_limit_and_halves_again() {
        let mut load = Load::new();
        let pressed: Vec<u32> = (0..STRETCH_MAX + 2)
            .map(|n| {
                assert!(load.handle_drops(u64::from(n) + 1));
                assert!(!load.handle_drops(u64::from(n) + 1), "the same number is no new drop");
                load.stretch()
            })
            .collect();
        assert_eq!(pressed, [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]);
        assert!(!load.handle_drops(0), "another socket");
        let calm: Vec<u32> = (0..10).map(|_| load.stretch()).collect();
        assert_eq!(calm, [7, 6, 5, 4, 3, 2, 1, 0, 0, 0]);
    }

    #[test]
    fn twice_the_rate_is_no_rush_and_one_more_is() {
        for (count, stretch) in [(200, 0), (201, 1)] {
            let mut load = Load::new();
            press(&mut load, 5_000, 5_100, count);
            assert_eq!(load.stretch(), stretch, "{count}");
        }
        // A slow server's limit is not what two devices do at once.
        let mut load = Load::new();
        for _ in 0..RUSH_MIN {
            load.count(at(0), 1);
        }
        assert_eq!(load.stretch(), 0);
    }

    #[test]
    fn a_rush_of_less_than_a_second_sends_nobody_away() {
        let mut load = Load::new();
        assert_eq!(press(&mut load, 10_000, 11_000, 1_000), []);
        assert_eq!(press(&mut load, 11_100, 12_000, 1_000), [], "a pause of one bin begins anew");
    }

    #[test]
    fn in_a_long_rush_the_wanted_rate_is_let_in_and_the_rest_returns_at_that_rate() {
        let mut load = Load::new();
        press(&mut load, 10_000, 11_000, 500);
        let away = press(&mut load, 11_000, 16_000, 500);
        assert_eq!(away.len(), 50 * (500 - 100), "100 of each 500 are let in");
        assert!(away.windows(2).all(|pair| pair[0] <= pair[1]), "later ones return later");
        for second in 2..=12 {
            let count = away.iter().filter(|&&after| after == second).count();
            assert!(
                (1_000..=2_000).contains(&count),
                "{count} at {second} s: less the 1,000 a second that return"
            );
        }
        assert_eq!(away.last(), Some(&16));
        // Over.
        assert_eq!(press(&mut load, 16_000, 16_200, 200), [16; 100], "until a bin without a rush is over");
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_a_minute() {
        let mut load = Load::new();
        press(&mut load, 10_000, 11_000, 500);
        let away = press(&mut load, 11_000, 11_100, 100_000);
        assert_eq!(away.last(), Some(&60));
    }
}
