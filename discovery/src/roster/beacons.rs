//! When a BEACON leaves on which interface, and how long a reply window it opens.
//!
//! Each interface has its own schedule: 0, 1 and 3 s after it came up, then every 10 s ±10 %, and at once for a SEEK, yet
//! never more than one a second. The limit is per interface and not per source, so asking from many addresses earns
//! nothing.

use core::time::Duration;

use wire_format::rng::Rng;
use wire_format::time::Instant;

use super::load::{Load, RUSH_MIN};
use crate::config::ServerConfig;
use crate::link::{LINKS_MAX, LinkId};

/// Shortest time between two beacons on one interface.
pub(super) const SPACING: Duration = Duration::from_secs(1);
/// Shortest reply window: what spreads the devices of a small store.
pub(super) const WINDOW_MIN_MS: u32 = 250;
/// Longest reply window; also what the field holds.
pub(super) const WINDOW_MAX_MS: u32 = 60_000;
/// Of devices that were here and are missing, one in so many is given up with each beacon: half of them in an hour of
/// steady beacons, for a store that is switched on again has them all back at once.
const GIVEN_UP: u32 = 512;

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
    load: Load,
    census: Census,
    /// The most devices that were here at a time, those given up since left out.
    known: u32,
    /// When the devices that were expected have all had their moment.
    window_until: Instant,
    /// When those that heard the last beacon have had a second one.
    tries_until: Instant,
    /// Somebody answered the last beacon.
    answered: bool,
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
            load: Load::new(),
            census,
            known: 0,
            window_until: Instant::ZERO,
            tries_until: Instant::ZERO,
            answered: false,
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
        self.answered |= solicited;
        self.load.count(now, rate_per_s);
    }

    /// Whether an unknown device shall come back later, and in how many seconds.
    pub(super) fn shed(&mut self, rate_per_s: u32) -> Option<u8> {
        self.load.shed(rate_per_s)
    }

    /// What the socket has dropped since it was opened. If that is more than before, the next window is wider; and if
    /// devices are still answering the last one, that next beacon leaves as soon as the spacing allows.
    pub(super) fn handle_drops(&mut self, now: Instant, total: u64) {
        if !self.load.handle_drops(total) || !self.answered || now >= self.tries_until {
            return;
        }
        for schedule in self.links.iter_mut().filter(|schedule| schedule.up) {
            let allowed = schedule.last.map_or(now, |last| last + SPACING);
            schedule.due = schedule.due.min(allowed.max(now));
        }
        self.find_due();
    }

    /// Devices of an earlier run are known: no sample of them need be counted.
    pub(super) fn skip_census(&mut self) {
        if !matches!(self.census, Census::Done(_)) {
            self.census = Census::Done(0);
        }
    }

    /// What the beacon that leaves now asks for, with `present` devices registered and `waited` unconfirmed: a census first if nobody knows how
    /// many there are, then a window of 1.1·N/λ for the N that are missing, doubled for every beacon since which there was
    /// a rush or a drop, and halved again for every one without.
    pub(super) fn call(&mut self, now: Instant, config: &ServerConfig, present: u32, waited: u32) -> Call {
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
        let missing = u64::from(self.missing(now, present).max(waited));
        let computed = missing.saturating_mul(1_100).div_ceil(u64::from(config.rate_per_s.max(1)));
        let computed = u32::try_from(computed).unwrap_or(u32::MAX).max(WINDOW_MIN_MS);
        let window_ms = computed.saturating_mul(1 << self.load.stretch()).min(WINDOW_MAX_MS);
        let window = Duration::from_millis(window_ms.into());
        if now >= self.window_until {
            self.window_until = now + window;
        }
        self.answered = false;
        self.tries_until = self.tries_until.max(now + window * 2 + SPACING);
        Call { window_ms: u16::try_from(window_ms).unwrap_or(u16::MAX), select_bits: 0 }
    }

    /// How many devices have still to come: of those that were expected at the start, and of those that were here. Who was
    /// only expected, and did not come within the window meant for him, counts half with each further beacon: an old list
    /// or a poor sample must not make every newcomer wait for good.
    fn missing(&mut self, now: Instant, present: u32) -> u32 {
        let Census::Done(expected) = &mut self.census else { return 0 };
        if now >= self.window_until && self.window_until != Instant::ZERO {
            *expected = expected.saturating_sub(expected.saturating_sub(present).div_ceil(2));
        }
        let gone = self.known.saturating_sub(present);
        self.known = self.known.saturating_sub(gone.div_ceil(GIVEN_UP)).max(present);
        expected.saturating_sub(present).max(gone)
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
        let call = beacons.call(Instant::ZERO, &config(rate_per_s), present, 0);
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

    /// The windows of beacons at these seconds, with so many devices present at each.
    fn windows(beacons: &mut Beacons, present: impl IntoIterator<Item = (u64, u32)>) -> Vec<u16> {
        let call = |(s, present)| beacons.call(Instant::from_millis(s * 1_000), &config(1_000), present, 0);
        present.into_iter().map(call).map(|call| call.window_ms).collect()
    }

    #[test]
    fn devices_that_never_came_are_given_up_by_halves_once_their_window_is_over() {
        let mut beacons = Beacons::new(10_000, 10_000, 1_000);
        let found =
            windows(&mut beacons, [(0, 0), (1, 0), (10, 0), (11, 0), (16, 0), (17, 0), (20, 0), (23, 0)]);
        assert_eq!(found, [11_000, 11_000, 11_000, 5_500, 5_500, 2_750, 1_375, 688]);
        // A list with a device too many does not make the next newcomer wait for good.
        let mut beacons = Beacons::new(10_000, 10_000, 1_000);
        assert_eq!(
            windows(&mut beacons, [(0, 0), (12, 9_000), (22, 9_000), (32, 9_000)]),
            [11_000, 550, 275, 250]
        );
    }

    #[test]
    fn devices_that_were_here_are_expected_back_for_hours() {
        let mut beacons = Beacons::new(0, 100, 1_000);
        assert_eq!(windows(&mut beacons, [(0, 10_000), (10, 9_000)]), [250, 1_100]);
        // The power is gone: whenever it comes back, all come at once.
        let steady: Vec<_> = (2..362).map(|n| (n * 10, 0)).collect();
        let found = windows(&mut beacons, steady);
        assert!(found[0] > 10_900 && found[359] > 5_000, "{} … {}", found[0], found[359]);
        assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "and are given up little by little");
        let found = windows(&mut beacons, (362..4_000).map(|n| (n * 10, 0)));
        assert_eq!(found.last(), Some(&250));
    }

    #[test]
    fn a_drop_inside_the_window_calls_again_soon_and_wider() {
        let (mut beacons, mut rng) = (Beacons::new(1_000, 1_000, 1_000), Rng::new(1));
        beacons.link_up(Instant::ZERO, LINK);
        let at = Instant::from_millis;
        assert_eq!(beacons.take(at(0)), Some(LINK));
        assert_eq!(beacons.call(at(0), &config(1_000), 0, 0).window_ms, 1_100);
        beacons.handle_drops(at(300), 0);
        beacons.handle_timeout(at(1_000), INTERVAL, &mut rng);
        assert_eq!(beacons.take(at(1_000)), Some(LINK));
        assert_eq!(beacons.call(at(1_000), &config(1_000), 600, 0).window_ms, 440, "no drop, no change");
        assert_eq!(beacons.due(), at(3_000));
        beacons.count_announce(at(1_050), 1_000, true);
        beacons.handle_drops(at(1_100), 7);
        assert_eq!(beacons.due(), at(2_000), "as soon as the spacing allows");
        beacons.handle_timeout(at(2_000), INTERVAL, &mut rng);
        assert_eq!(beacons.take(at(2_000)), Some(LINK));
        assert_eq!(beacons.call(at(2_000), &config(1_000), 800, 0).window_ms, 500, "250 ms, doubled");
        // Nobody answers, or does not any more: the next window will be wider, and that is all.
        let due = beacons.due();
        for (ms, total, solicited) in [(2_100, 8, false), (60_000, 9, true)] {
            beacons.count_announce(at(ms), 1_000, solicited);
            beacons.handle_drops(at(ms), total);
            assert_eq!(beacons.due(), due);
        }
    }

    #[test]
    fn a_large_roster_that_knows_nothing_counts_a_sample_first() {
        let mut beacons = Beacons::new(0, 10_000, 1_000);
        let call = beacons.call(Instant::ZERO, &config(1_000), 0, 0);
        assert_eq!(call, Call { window_ms: 250, select_bits: 5 });
        for _ in 0..100 {
            beacons.count_announce(Instant::from_millis(100), 1_000, true);
        }
        beacons.count_announce(Instant::from_millis(100), 1_000, false);
        assert_eq!(beacons.call(Instant::from_millis(999), &config(1_000), 99, 0), call);
        let call = beacons.call(Instant::from_millis(1_000), &config(1_000), 100, 0);
        assert_eq!(call, Call { window_ms: 3_410, select_bits: 0 });
    }

    #[test]
    fn a_small_roster_calls_everybody_at_once() {
        assert_eq!(window(&mut Beacons::new(0, 500, 1_000), 1_000, 0), 250);
        let mut one_more = Beacons::new(0, 501, 1_000);
        assert_eq!(one_more.call(Instant::ZERO, &config(1_000), 0, 0).select_bits, 1);
    }
}
