//! When an ANNOUNCE leaves: first at a random moment of the reply window, again with backoff until an ACK, then as a
//! refresh.

use core::time::Duration;

use wire_format::rng::Rng;
use wire_format::time::Instant;

/// Shortest nominal wait for an ACK.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest nominal wait for an ACK.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Nominal wait before the first ANNOUNCE to a seed.
const SEED_FIRST: Duration = Duration::from_millis(500);
/// Longest nominal wait between two ANNOUNCEs to seeds.
const SEED_MAX: Duration = Duration::from_secs(60);
/// A BEACON may start a registration once in this time: a forged one must not make all devices talk without end.
const START_COST: Duration = Duration::from_secs(30);
/// Registrations that may be saved up: two servers, each restarting once.
const STARTS_MAX: u32 = 4;

/// The schedule of one device's ANNOUNCEs.
#[derive(Clone, Debug)]
pub(super) struct Register {
    due: Option<Instant>,
    /// An ANNOUNCE wants to leave now.
    pending: bool,
    tries: u32,
    /// Nothing was sent yet in the window that was drawn from.
    first: bool,
    window: Duration,
    starts_spent_until: Instant,
    /// Sequence numbers of the announces an ACK may answer.
    sequences: Option<(u32, u32)>,
    /// The last ANNOUNCE may be said once more at once, with a cookie.
    repeatable: bool,
}

impl Register {
    pub(super) const fn new() -> Self {
        Self {
            due: None,
            pending: false,
            tries: 0,
            first: false,
            window: Duration::ZERO,
            starts_spent_until: Instant::ZERO,
            sequences: None,
            repeatable: false,
        }
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The last reply window drawn from, 250 ms at least.
    pub(super) fn window(&self) -> Duration {
        self.window.max(Duration::from_millis(250))
    }

    /// Nothing leaves until something begins.
    pub(super) const fn silence(&mut self) {
        self.due = None;
        self.pending = false;
        self.sequences = None;
    }

    /// Takes one registration from the allowance of those a BEACON may start.
    pub(super) fn may_start(&mut self, now: Instant) -> bool {
        let spent_until = self.starts_spent_until.max(now) + START_COST;
        let allowed = spent_until <= now + START_COST * STARTS_MAX;
        if allowed {
            self.starts_spent_until = spent_until;
        }
        allowed
    }

    /// A registration begins: somewhere in `window`.
    pub(super) fn begin(&mut self, now: Instant, window: Duration, rng: &mut Rng) {
        let delay = rng.between(Duration::ZERO, window);
        *self = Self {
            due: Some(now + delay),
            first: true,
            window,
            starts_spent_until: self.starts_spent_until,
            ..Self::new()
        };
    }

    /// An ANNOUNCE shall leave between `from` and `to` from now: a refresh, a change, another try after a refusal.
    pub(super) fn again(&mut self, now: Instant, from: Duration, to: Duration, rng: &mut Rng) {
        self.due = Some(now + rng.between(from, to));
        self.pending = false;
        self.tries = 0;
        self.first = false;
        self.sequences = None;
    }

    /// The first ANNOUNCE to a seed, half a second from now, ±50 %.
    pub(super) fn begin_seeds(&mut self, now: Instant, rng: &mut Rng) {
        self.again(now, SEED_FIRST / 2, SEED_FIRST * 3 / 2, rng);
    }

    /// A BEACON of the same boot opens a wider window: what has not been sent yet is spread over it.
    pub(super) fn widen(&mut self, now: Instant, window: Duration) {
        let Some(due) = self.due.filter(|_| self.first && window > self.window) else { return };
        let factor = window.as_micros() / self.window.as_micros().max(1);
        let left = due.since(now).saturating_mul(u32::try_from(factor).unwrap_or(1)).min(window);
        self.due = Some(now + left);
        self.window = window;
    }

    /// If it is due, an ANNOUNCE wants to leave, and the next follows by backoff unless an ACK comes. However late: one.
    pub(super) fn handle_timeout(&mut self, now: Instant, to_seed: bool, rng: &mut Rng) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.pending = true;
        self.first = false;
        let (start, end) =
            if to_seed { (SEED_FIRST * 2, SEED_MAX) } else { (RETRY_MIN.max(self.window / 8), RETRY_MAX) };
        let nominal = start.saturating_mul(1 << self.tries).min(end);
        self.due = Some(now + rng.between(nominal / 2, (nominal / 2).saturating_mul(3)));
        self.tries = self.tries.saturating_add(1).min(16);
    }

    /// Whether an ANNOUNCE wants to leave; asked once for each.
    pub(super) const fn take_pending(&mut self) -> bool {
        core::mem::replace(&mut self.pending, false)
    }

    /// Whether ANNOUNCEs of this round were sent before.
    pub(super) const fn is_repeated(&self) -> bool {
        self.sequences.is_some()
    }

    /// ANNOUNCEs of this round that were due.
    pub(super) const fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether the last ANNOUNCE may be said once more at once: each one that was due may, whoever asks how often.
    pub(super) const fn take_repeat(&mut self) -> bool {
        core::mem::replace(&mut self.repeatable, false)
    }

    /// An ANNOUNCE left that was due.
    pub(super) const fn sent_when_due(&mut self) {
        self.repeatable = true;
    }

    /// An ANNOUNCE left.
    pub(super) fn sent(&mut self, sequence: u32) {
        let first = self.sequences.map_or(sequence, |(first, _)| first);
        self.sequences = Some((first, sequence));
    }

    /// Whether an ACK answers an ANNOUNCE of this round.
    pub(super) fn is_answered_by(&self, sequence: u32) -> bool {
        self.sequences.is_some_and(|(first, last)| sequence.wrapping_sub(first) <= last.wrapping_sub(first))
    }

    /// An ACK came: the next ANNOUNCE is a refresh at a third of the lease ±20 %, or none if the push session vouches.
    pub(super) fn acked(&mut self, now: Instant, lease: Duration, linked: bool, rng: &mut Rng) {
        let third = lease / 3;
        self.again(now, third * 4 / 5, third * 6 / 5, rng);
        if linked {
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When announces leave until `end`, in milliseconds.
    fn run(register: &mut Register, end: u64, to_seed: bool) -> Vec<u64> {
        let mut rng = Rng::new(7);
        let mut sent = vec![];
        for ms in 0..end {
            register.handle_timeout(Instant::from_millis(ms), to_seed, &mut rng);
            if register.take_pending() {
                register.sent(u32::try_from(sent.len()).unwrap());
                sent.push(ms);
            }
        }
        sent
    }

    fn gaps(sent: &[u64]) -> Vec<u64> {
        sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn repeats_with_backoff_until_thirty_seconds() {
        let mut register = Register::new();
        register.begin(Instant::ZERO, Duration::from_millis(250), &mut Rng::new(1));
        let sent = run(&mut register, 300_000, false);
        assert!(sent[0] <= 250);
        for (gap, nominal) in gaps(&sent).into_iter().zip([1, 2, 4, 8, 16, 30, 30]) {
            assert!((nominal * 500..=nominal * 1_500 + 1).contains(&gap), "{gap} ms for {nominal} s");
        }
        assert!(register.is_answered_by(0) && register.is_answered_by(3) && !register.is_answered_by(999));
    }

    #[test]
    fn a_wide_window_makes_patient() {
        let mut register = Register::new();
        register.begin(Instant::ZERO, Duration::from_secs(11), &mut Rng::new(1));
        let sent = run(&mut register, 60_000, false);
        assert!(sent[0] < 11_000);
        assert!((687..=2_063).contains(&gaps(&sent)[0]), "an eighth of the window: {sent:?}");
    }

    #[test]
    fn seeds_are_tried_up_to_once_a_minute() {
        let mut register = Register::new();
        register.begin_seeds(Instant::ZERO, &mut Rng::new(1));
        let sent = run(&mut register, 600_000, true);
        assert!((250..=750).contains(&sent[0]));
        for (gap, nominal) in gaps(&sent).into_iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert!((nominal * 500..=nominal * 1_500 + 1).contains(&gap), "{gap} ms for {nominal} s");
        }
    }

    #[test]
    fn a_wider_window_spreads_what_was_not_sent() {
        let mut register = Register::new();
        register.begin(Instant::ZERO, Duration::from_secs(1), &mut Rng::new(1));
        let before = register.due().unwrap();
        register.widen(Instant::ZERO, Duration::from_millis(500));
        assert_eq!(register.due(), Some(before));
        register.widen(Instant::ZERO, Duration::from_secs(4));
        assert_eq!(register.due().unwrap().as_micros(), before.as_micros() * 4);
    }

    #[test]
    fn beacons_start_four_registrations_at_once_then_one_in_thirty_seconds() {
        let mut register = Register::new();
        let start = Instant::from_millis(1);
        assert_eq!((0..10).filter(|_| register.may_start(start)).count(), 4);
        let later = start + Duration::from_secs(30);
        assert_eq!((0..10).filter(|_| register.may_start(later)).count(), 1);
    }

    #[test]
    fn a_linked_device_does_not_refresh() {
        let (mut register, mut rng) = (Register::new(), Rng::new(1));
        register.acked(Instant::ZERO, Duration::from_secs(90), false, &mut rng);
        let due = register.due().unwrap().as_millis();
        assert!((24_000..36_000).contains(&due), "{due}");
        register.acked(Instant::ZERO, Duration::from_secs(90), true, &mut rng);
        assert_eq!(register.due(), None);
    }
}
