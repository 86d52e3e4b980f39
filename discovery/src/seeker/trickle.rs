//! When a SEEK leaves: Trickle (RFC 6206) with suppression, so that ten thousand devices without a server ask about as
//! often as ten do.
//!
//! ```text
//!  boot      first SEEK         interval 1 s       2 s          4 s      …      32 s, for ever
//!   ├───────────╳────┤├─────╳───────┤├──────────╳────────┤├───────────────────╳──
//!      0.3…0.6 s         second half of each interval; not sent if 2 others asked in it (1 in the first)
//! ```
//!
//! A device that was suppressed 8 times in a row asks once whatever it heard, for on a half-broken switch the others'
//! questions may reach it and not the server. So that this does not make all of them ask at once, such a SEEK says how
//! often its sender was suppressed, and two of them in an interval count for everybody again; 16 to 256 suppressions
//! (drawn once) are never exceeded.

use core::time::Duration;

use wire_format::rng::Rng;
use wire_format::time::Instant;

/// Nobody asks earlier, so that of many who boot at once most hear the first one ask: a store of 10,000 that boots within
/// half a minute sends about three SEEKs a second in it.
const FIRST_FROM: Duration = Duration::from_millis(300);
/// Nobody asks later: half of all devices on a quiet LAN are registered within 0.6 s of their boot.
const FIRST_TO: Duration = Duration::from_millis(600);
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(32);
/// SEEKs of others that make one's own needless (k).
const ENOUGH: u8 = 2;
/// The same in the first interval, which listens for a quarter of a second only: with 2, a store of 10,000 devices that
/// boots within half a minute sends twice as many SEEKs in it.
const ENOUGH_FIRST: u8 = 1;
/// Suppressions in a row after which a device asks in spite of ordinary SEEKs.
const PATIENCE: u16 = 8;
/// Range of the suppressions in a row after which it asks in spite of everything.
const PATIENCE_END_FROM: u16 = 16;
const PATIENCE_END_TO: u16 = 256;

/// The schedule of one device's SEEKs.
#[derive(Clone, Debug)]
pub(super) struct Trickle {
    interval: Duration,
    /// The send point, then the interval's end.
    due: Instant,
    end: Instant,
    decided: bool,
    enough: u8,
    heard: u8,
    heard_impatient: u8,
    suppressed: u16,
    patience_end: u16,
}

impl Trickle {
    /// Begins anew: the first SEEK between 0.3 and 0.6 s from now.
    pub(super) fn new(now: Instant, rng: &mut Rng) -> Self {
        let spread = u64::from(PATIENCE_END_TO.wrapping_sub(PATIENCE_END_FROM));
        let patience_end = PATIENCE_END_FROM.saturating_add(u16::try_from(rng.below(spread)).unwrap_or(0));
        Self {
            interval: INTERVAL_MIN / 2,
            due: now + rng.between(FIRST_FROM, FIRST_TO),
            end: now + FIRST_TO,
            decided: false,
            enough: ENOUGH_FIRST,
            heard: 0,
            heard_impatient: 0,
            suppressed: 0,
            patience_end,
        }
    }

    /// When to call [`Trickle::handle_timeout`].
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Another device of the store asked; `suppressed` is what its SEEK says.
    pub(super) const fn hear(&mut self, suppressed: u32) {
        self.heard = self.heard.saturating_add(1);
        if suppressed >= PATIENCE as u32 {
            self.heard_impatient = self.heard_impatient.saturating_add(1);
        }
    }

    /// A server spoke, though not to this device: no reason to ask in this interval.
    pub(super) const fn hush(&mut self) {
        self.heard = self.heard.saturating_add(ENOUGH);
    }

    /// At the send point: `Some(true)` to send now, `Some(false)` for suppressed. At the end of an interval: `None`.
    pub(super) fn handle_timeout(&mut self, now: Instant, rng: &mut Rng) -> Option<bool> {
        if now < self.due {
            return None;
        }
        if self.decided {
            self.interval = self.interval.saturating_mul(2).min(INTERVAL_MAX);
            self.due = now + rng.between(self.interval / 2, self.interval);
            self.end = now + self.interval;
            self.enough = ENOUGH;
            (self.decided, self.heard, self.heard_impatient) = (false, 0, 0);
            return None;
        }
        self.decided = true;
        self.due = self.end.max(now);
        let send = self.heard < self.enough
            || self.suppressed >= PATIENCE && self.heard_impatient < ENOUGH
            || self.suppressed >= self.patience_end;
        if !send {
            self.suppressed = self.suppressed.saturating_add(1);
        }
        Some(send)
    }

    /// The SEEK that is being sent: how many were not sent before it.
    pub(super) const fn take_suppressed(&mut self) -> u32 {
        core::mem::replace(&mut self.suppressed, 0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs for `seconds`; `heard(ms)` says what is heard. When SEEKs left (ms), and what they said.
    fn run(seconds: u64, mut heard: impl FnMut(&mut Trickle, u64)) -> Vec<(u64, u32)> {
        let mut rng = Rng::new(3);
        let mut trickle = Trickle::new(Instant::ZERO, &mut rng);
        let mut sent = vec![];
        for ms in 0..seconds * 1_000 {
            heard(&mut trickle, ms);
            let now = Instant::from_millis(ms);
            while trickle.due() <= now {
                if trickle.handle_timeout(now, &mut rng) == Some(true) {
                    sent.push((ms, trickle.take_suppressed()));
                }
            }
        }
        sent
    }

    #[test]
    fn alone_it_asks_in_every_interval() {
        let sent = run(1 + 1 + 2 + 4 + 8 + 16 + 32 + 32, |_, _| {});
        assert_eq!(sent.len(), 8);
        assert!((300..=600).contains(&sent[0].0), "{sent:?}");
        let mut start = 600;
        for (interval, &(at, suppressed)) in [1, 2, 4, 8, 16, 32, 32].into_iter().zip(&sent[1..]) {
            let second_half = start + interval * 500..start + interval * 1_000;
            assert!(second_half.contains(&at), "{at} not in {second_half:?}");
            assert_eq!(suppressed, 0);
            start += interval * 1_000;
        }
    }

    #[test]
    fn suppressed_eight_times_it_asks_once() {
        let sent = run(600, |trickle, _| trickle.hear(0));
        assert_eq!(sent.first().map(|sent| sent.1), Some(8));
        assert!(sent.iter().all(|sent| sent.1 == 8), "{sent:?}");
    }

    #[test]
    fn impatient_others_suppress_it_longer_yet_not_for_ever() {
        let sent = run(32 * 300, |trickle, ms| {
            if ms % 100 == 0 {
                trickle.hear(8);
            }
        });
        let (_, suppressed) = sent[0];
        assert!((16..256).contains(&suppressed), "{sent:?}");
    }

    #[test]
    fn a_long_gap_costs_one_seek() {
        let mut rng = Rng::new(3);
        let mut trickle = Trickle::new(Instant::ZERO, &mut rng);
        let later = Instant::from_millis(3_600_000);
        assert_eq!(trickle.handle_timeout(later, &mut rng), Some(true));
        assert_eq!(trickle.handle_timeout(later, &mut rng), None);
        assert!(trickle.due() > later);
    }
}
