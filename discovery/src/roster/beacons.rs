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

#[derive(Clone, Copy, Debug)]
struct Schedule {
    up: bool,
    /// Start beacons still to come after the one due.
    starting: u8,
    /// A beacon wants to leave now.
    pending: bool,
    due: Instant,
    last: Option<Instant>,
}

/// The schedules of all interfaces, and the pressure of the announces that come back.
#[derive(Debug)]
pub(super) struct Beacons {
    links: [Schedule; LINKS_MAX],
    due: Instant,
    bin_end: Instant,
    bin: u32,
    rush: bool,
    stretch: u32,
}

impl Beacons {
    pub(super) const fn new() -> Self {
        let down = Schedule { up: false, starting: 0, pending: false, due: Instant::NEVER, last: None };
        Self {
            links: [down; LINKS_MAX],
            due: Instant::NEVER,
            bin_end: Instant::ZERO,
            bin: 0,
            rush: false,
            stretch: 0,
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
            *schedule = Schedule { up: true, starting: 2, pending: true, due: now + SPACING, ..*schedule };
        }
        self.find_due();
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        if let Some(schedule) = self.links.get_mut(usize::from(link.0)) {
            *schedule = Schedule { up: false, pending: false, due: Instant::NEVER, ..*schedule };
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
        for schedule in self.links.iter_mut().filter(|schedule| schedule.up && schedule.due <= now) {
            schedule.pending = true;
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
            schedule.pending = true;
            if schedule.starting == 0 {
                schedule.due = now + steady(interval, rng);
            }
        }
        self.find_due();
    }

    /// The next interface a beacon leaves on, and no more.
    pub(super) fn take(&mut self, now: Instant) -> Option<LinkId> {
        let (at, schedule) = (0_u8..).zip(&mut self.links).find(|(_, schedule)| schedule.pending)?;
        schedule.pending = false;
        schedule.last = Some(now);
        Some(LinkId(at))
    }

    /// An announce arrived: counts towards a rush.
    pub(super) fn count_announce(&mut self, now: Instant, rate_per_s: u32) {
        if now >= self.bin_end {
            self.bin_end = now + BIN;
            self.bin = 0;
        }
        self.bin = self.bin.saturating_add(1);
        // Twice the wanted rate, in a tenth of a second.
        self.rush |= self.bin > (rate_per_s / 5).max(RUSH_MIN);
    }

    /// The reply window of the next beacon: 1.1·N/λ for `missing` devices, doubled for every beacon since which there
    /// was a rush, and halved again for every one without.
    pub(super) fn window_ms(&mut self, config: &ServerConfig, missing: u32) -> u16 {
        self.stretch = if self.rush {
            self.stretch.saturating_add(1).min(STRETCH_MAX)
        } else {
            self.stretch.saturating_sub(1)
        };
        self.rush = false;
        let computed = u64::from(missing).saturating_mul(1_100).div_ceil(u64::from(config.rate_per_s));
        let computed = u32::try_from(computed).unwrap_or(u32::MAX).max(WINDOW_MIN_MS);
        let window = computed.saturating_mul(1 << self.stretch).min(WINDOW_MAX_MS);
        u16::try_from(window).unwrap_or(u16::MAX)
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
        let (mut beacons, mut rng, mut sent) = (Beacons::new(), Rng::new(1), vec![]);
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
        let (mut beacons, mut rng) = (Beacons::new(), Rng::new(1));
        beacons.link_up(Instant::ZERO, LINK);
        beacons.link_up(Instant::ZERO, LinkId(16));
        let later = Instant::from_millis(600_000);
        beacons.handle_timeout(later, INTERVAL, &mut rng);
        assert_eq!((beacons.take(later), beacons.take(later)), (Some(LINK), None));
        beacons.link_down(LINK);
        beacons.ask(later, LINK, INTERVAL, &mut rng);
        assert_eq!((beacons.take(later), beacons.due()), (None, Instant::NEVER));
    }

    #[test]
    fn the_window_follows_the_missing_devices_and_doubles_in_a_rush() {
        let mut beacons = Beacons::new();
        assert_eq!(beacons.window_ms(&config(1_000), 0), 250);
        assert_eq!(beacons.window_ms(&config(1_000), 10_000), 11_000);
        assert_eq!(beacons.window_ms(&config(5_000), 10_000), 2_200);
        assert_eq!(beacons.window_ms(&config(1), u32::MAX), 60_000);
        for _ in 0..201 {
            beacons.count_announce(Instant::ZERO, 1_000);
        }
        assert_eq!(beacons.window_ms(&config(1_000), 1_000), 2_200);
        for _ in 0..200 {
            beacons.count_announce(Instant::from_millis(500), 1_000);
        }
        assert_eq!(beacons.window_ms(&config(1_000), 1_000), 1_100);
    }
}
