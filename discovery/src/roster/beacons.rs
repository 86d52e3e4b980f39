//! When a BEACON leaves on which interface, and how long a reply window it opens.
//!
//! Each interface has its own schedule: 0, 1 and 3 s after it came up, then every 10 s ±10 %, and at once for a SEEK, yet
//! never more than one a second. The limit is per interface and not per source, so asking from many addresses earns
//! nothing.

use core::time::Duration;

use wire_format::rng::Rng;
use wire_format::time::Instant;

use crate::config::ServerConfig;
use crate::link::{LINKS_MAX, LinkId};

/// Shortest time between two beacons on one interface.
pub(super) const SPACING: Duration = Duration::from_secs(1);
/// Shortest reply window: what spreads the devices of a small store.
pub(super) const WINDOW_MIN_MS: u32 = 250;
/// Longest reply window; also what the field holds.
pub(super) const WINDOW_MAX_MS: u32 = 60_000;
/// Announces are counted over so long to see a rush.
const BIN: Duration = Duration::from_millis(100);
/// A bin with fewer announces is never a rush, however low the wanted rate.
const RUSH_MIN: u32 = 8;
/// At most 2^8 times the computed window.
const STRETCH_MAX: u32 = 8;

/// What a BEACON asks of unregistered devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// How long they may take.
    pub(super) window_ms: u16,
    /// Only one in 2^bits is meant.
    pub(super) select_bits: u8,
}

/// Counting a sample, when nobody knows how many devices there are: the first beacons call one in 2^bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Census {
    /// With so many bits, once the first beacon leaves.
    Planned(u8),
    /// Until then, with so many bits, and so many have answered.
    Running { until: Instant, bits: u8, answers: u32 },
    /// So many devices there are, as far as one knows.
    Done(u32),
}

#[derive(Clone, Copy, Debug)]
struct Schedule {
    up: bool,
    /// Start beacons still to come after the one due.
    starting: u8,
    due: Instant,
    last: Option<Instant>,
}

/// The schedules of all interfaces, and the pressure of the announces that come back.
#[derive(Debug)]
pub(super) struct Beacons {
    links: [Schedule; LINKS_MAX],
    /// Interfaces a beacon wants to leave on now, as bits.
    pending: u16,
    due: Instant,
    bin_end: Instant,
    bin: u32,
    rush: bool,
    stretch: u32,
    census: Census,
}

impl Beacons {
    /// `expected` devices, 0 for unknown, of which `capacity` fit.
    pub(super) fn new(expected: u32, capacity: u32, rate_per_s: u32) -> Self {
        // Twice the wanted rate during the shortest window is what a sample may come to.
        let bearable = (rate_per_s / 2).max(RUSH_MIN);
        let bits = (0_u8..31).find(|bits| capacity >> bits <= bearable).unwrap_or(31);
        let census = if expected == 0 && bits != 0 { Census::Planned(bits) } else { Census::Done(expected) };
        let down = Schedule { up: false, starting: 0, due: Instant::NEVER, last: None };
        Self {
            links: [down; LINKS_MAX],
            pending: 0,
            due: Instant::NEVER,
            bin_end: Instant::ZERO,
            bin: 0,
            rush: false,
            stretch: 0,
            census,
        }
    }

    /// When the next beacon is due.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Interfaces that are up, as bits.
    pub(super) fn up(&self) -> u16 {
        (0_u8..).zip(&self.links).filter(|(_, link)| link.up).fold(0, |bits, (at, _)| bits | LinkId(at).bit())
    }

    pub(super) fn link_up(&mut self, now: Instant, link: LinkId) {
        if let Some(schedule) = self.links.get_mut(usize::from(link.0)) {
            *schedule = Schedule { up: true, starting: 2, due: now + SPACING, ..*schedule };
            self.pending |= link.bit();
        }
        self.find_due();
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        if let Some(schedule) = self.links.get_mut(usize::from(link.0)) {
            *schedule = Schedule { up: false, due: Instant::NEVER, ..*schedule };
            self.pending &= !link.bit();
        }
        self.find_due();
    }

    /// Nothing leaves any more.
    pub(super) fn silence(&mut self) {
        for at in 0..LINKS_MAX {
            self.link_down(LinkId(u8::try_from(at).unwrap_or(0)));
        }
    }

    /// What is due, is. However late: one beacon per interface.
    pub(super) fn handle_timeout(&mut self, now: Instant, interval: Duration, rng: &mut Rng) {
        if now < self.due {
            return;
        }
        let due = (0_u8..).zip(&mut self.links).filter(|(_, schedule)| schedule.up && schedule.due <= now);
        for (at, schedule) in due {
            self.pending |= LinkId(at).bit();
            schedule.due = match schedule.starting {
                2 => now + SPACING.saturating_mul(2),
                _ => now + steady(interval, rng),
            };
            schedule.starting = schedule.starting.saturating_sub(1);
        }
        self.find_due();
    }

    /// Somebody on this interface asks: now, or as soon as the spacing allows.
    pub(super) fn ask(&mut self, now: Instant, link: LinkId, interval: Duration, rng: &mut Rng) {
        let Some(schedule) = self.links.get_mut(usize::from(link.0)).filter(|schedule| schedule.up) else {
            return;
        };
        let allowed = schedule.last.map_or(now, |last| last + SPACING);
        if allowed > now {
            schedule.due = schedule.due.min(allowed);
        } else {
            self.pending |= link.bit();
            if schedule.starting == 0 {
                schedule.due = now + steady(interval, rng);
            }
        }
        self.find_due();
    }

    /// The next interface a beacon leaves on, and no more.
    pub(super) fn take(&mut self, now: Instant) -> Option<LinkId> {
        let at = u8::try_from(self.pending.trailing_zeros()).unwrap_or(0);
        self.pending &= self.pending.wrapping_sub(1);
        self.links.get_mut(usize::from(at))?.last = Some(now);
        Some(LinkId(at))
    }

    /// An announce arrived: counts in the census, or towards a rush.
    pub(super) fn count_announce(&mut self, now: Instant, rate_per_s: u32, solicited: bool) {
        if let Census::Running { answers, .. } = &mut self.census {
            *answers = answers.saturating_add(u32::from(solicited));
            return;
        }
        if now >= self.bin_end {
            self.bin_end = now + BIN;
            self.bin = 0;
        }
        self.bin = self.bin.saturating_add(1);
        // Twice the wanted rate, in a tenth of a second.
        self.rush |= self.bin > (rate_per_s / 5).max(RUSH_MIN);
    }

    /// What the beacon that leaves now asks for, with `present` devices registered: a census first if nobody knows how
    /// many there are, then a window of 1.1·N/λ for the N that are missing, doubled for every beacon since which there was
    /// a rush, and halved again for every one without.
    pub(super) fn call(&mut self, now: Instant, config: &ServerConfig, present: u32) -> Call {
        if let Census::Planned(bits) = self.census {
            self.census = Census::Running { until: now + SPACING, bits, answers: 0 };
        }
        match self.census {
            Census::Running { until, bits, .. } if now < until => {
                return Call { window_ms: WINDOW_MIN_MS as u16, select_bits: bits };
            }
            Census::Running { bits, answers, .. } => {
                self.census = Census::Done(answers.saturating_mul(1 << bits));
            }
            _ => {}
        }
        let Census::Done(expected) = self.census else {
            return Call { window_ms: WINDOW_MIN_MS as u16, select_bits: 0 };
        };
        let stretch = if self.rush { self.stretch.saturating_add(1) } else { self.stretch.saturating_sub(1) };
        self.stretch = stretch.min(STRETCH_MAX);
        self.rush = false;
        let missing = u64::from(expected.saturating_sub(present));
        let computed = missing.saturating_mul(1_100).div_ceil(u64::from(config.rate_per_s.max(1)));
        let computed = u32::try_from(computed).unwrap_or(u32::MAX).max(WINDOW_MIN_MS);
        let window = computed.saturating_mul(1 << self.stretch).min(WINDOW_MAX_MS);
        Call { window_ms: u16::try_from(window).unwrap_or(u16::MAX), select_bits: 0 }
    }

    fn find_due(&mut self) {
        self.due = self.links.iter().map(|schedule| schedule.due).min().unwrap_or(Instant::NEVER);
    }
}

/// The interval ±10 %.
fn steady(interval: Duration, rng: &mut Rng) -> Duration {
    let tenth = interval / 10;
    rng.between(interval.saturating_sub(tenth), interval.saturating_add(tenth))
}

#[cfg(test)]
mod tests {
    use wire_format::ids::{NodeId, Store};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const LINK: LinkId = LinkId(3);

    fn config(rate_per_s: u32) -> ServerConfig {
        ServerConfig { rate_per_s, ..ServerConfig::new(NodeId([1; 16]), Store::new(1, "A").unwrap()) }
    }

    /// Runs the schedule to `end`, with a SEEK at each of `asks`; when beacons left, in milliseconds.
    fn run(asks: &[u64], end: u64) -> Vec<u64> {
        let (mut beacons, mut rng, mut sent) = (Beacons::new(0, 8, 1_000), Rng::new(1), vec![]);
        beacons.link_up(Instant::ZERO, LINK);
        for ms in 0..end {
            let now = Instant::from_millis(ms);
            if asks.contains(&ms) {
                beacons.ask(now, LINK, INTERVAL, &mut rng);
            }
            beacons.handle_timeout(now, INTERVAL, &mut rng);
            while let Some(link) = beacons.take(now) {
                assert_eq!(link, LINK);
                sent.push(ms);
            }
        }
        sent
    }

    #[test]
    fn at_start_then_every_ten_seconds() {
        let sent = run(&[], 60_000);
        assert_eq!(sent[..3], [0, 1_000, 3_000]);
        for pair in sent[2..].windows(2) {
            assert!((9_000..=11_000).contains(&(pair[1] - pair[0])), "{sent:?}");
        }
        assert_eq!(sent.len(), 3 + 5);
    }

    #[test]
    fn at_once_when_asked_and_once_a_second_at_most() {
        let asks: Vec<u64> = (4_000..6_000).collect();
        let sent = run(&asks, 8_000);
        assert_eq!(sent, [0, 1_000, 3_000, 4_000, 5_000, 6_000]);
    }

    #[test]
    fn a_gap_costs_one_beacon_and_an_interface_that_is_down_none() {
        let (mut beacons, mut rng) = (Beacons::new(0, 8, 1_000), Rng::new(1));
        beacons.link_up(Instant::ZERO, LINK);
        beacons.link_up(Instant::ZERO, LinkId(16));
        let later = Instant::from_millis(600_000);
        beacons.handle_timeout(later, INTERVAL, &mut rng);
        assert_eq!((beacons.take(later), beacons.take(later)), (Some(LINK), None));
        beacons.link_down(LINK);
        beacons.ask(later, LINK, INTERVAL, &mut rng);
        assert_eq!((beacons.take(later), beacons.due()), (None, Instant::NEVER));
    }

    fn window(beacons: &mut Beacons, rate_per_s: u32, present: u32) -> u16 {
        let call = beacons.call(Instant::ZERO, &config(rate_per_s), present);
        assert_eq!(call.select_bits, 0);
        call.window_ms
    }

    #[test]
    fn the_window_follows_the_missing_devices_and_doubles_in_a_rush() {
        assert_eq!(window(&mut Beacons::new(10_000, 10_000, 1_000), 1_000, 10_000), 250);
        assert_eq!(window(&mut Beacons::new(10_000, 10_000, 1_000), 1_000, 0), 11_000);
        assert_eq!(window(&mut Beacons::new(10_000, 10_000, 5_000), 5_000, 0), 2_200);
        assert_eq!(window(&mut Beacons::new(u32::MAX, 10_000, 1), 1, 0), 60_000);
        let mut beacons = Beacons::new(1_000, 1_000, 1_000);
        for _ in 0..201 {
            beacons.count_announce(Instant::ZERO, 1_000, true);
        }
        assert_eq!(window(&mut beacons, 1_000, 0), 2_200);
        for _ in 0..200 {
            beacons.count_announce(Instant::from_millis(500), 1_000, true);
        }
        assert_eq!(window(&mut beacons, 1_000, 0), 1_100);
    }

    #[test]
    fn a_large_roster_that_knows_nothing_counts_a_sample_first() {
        let mut beacons = Beacons::new(0, 10_000, 1_000);
        let call = beacons.call(Instant::ZERO, &config(1_000), 0);
        assert_eq!(call, Call { window_ms: 250, select_bits: 5 });
        for _ in 0..100 {
            beacons.count_announce(Instant::from_millis(100), 1_000, true);
        }
        beacons.count_announce(Instant::from_millis(100), 1_000, false);
        assert_eq!(beacons.call(Instant::from_millis(999), &config(1_000), 99), call);
        let call = beacons.call(Instant::from_millis(1_000), &config(1_000), 100);
        assert_eq!(call, Call { window_ms: 3_410, select_bits: 0 });
    }

    #[test]
    fn a_small_roster_calls_everybody_at_once() {
        assert_eq!(window(&mut Beacons::new(0, 500, 1_000), 1_000, 0), 250);
        let mut one_more = Beacons::new(0, 501, 1_000);
        assert_eq!(one_more.call(Instant::ZERO, &config(1_000), 0).select_bits, 1);
    }
}
