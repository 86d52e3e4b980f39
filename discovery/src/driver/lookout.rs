//! When the interfaces are looked at: every 3 s, and sooner when something says that they changed.

use core::task::{Context, Poll};
use core::time::Duration;

use wire_format::time::Instant;

use super::hints::Hints;

/// How often the interfaces are looked at. With the first SEEK within a second of a new link, a node is found again
/// well inside six seconds after its network came back.
pub const SCAN_EVERY: Duration = Duration::from_secs(3);

/// From a hint to the look it causes, and the shortest time between two looks, however many sends fail and hints come in
/// between: a change is seldom one message.
pub(crate) const SCAN_APART: Duration = Duration::from_millis(250);

/// The plan of looks.
#[derive(Debug)]
pub(crate) struct Lookout {
    at: Instant,
    last: Instant,
    hints: Option<Hints>,
    hinted: bool,
}

/// What the system's hints came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Something changed.
    Changed,
    /// None will come any more.
    Failed,
}

impl Lookout {
    /// The first look is due at once. `hints` tell of the others, if there are some.
    pub(crate) const fn new(hints: Option<Hints>) -> Self {
        Self { at: Instant::ZERO, last: Instant::ZERO, hints, hinted: false }
    }

    /// When the next look is due.
    pub(crate) const fn due(&self) -> Instant {
        self.at
    }

    /// Whether a look is due. If so it counts as done, and the next one comes in three seconds.
    pub(crate) fn look(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        (self.at, self.last, self.hinted) = (now + SCAN_EVERY, now, false);
        true
    }

    /// No look is needed any more.
    pub(crate) fn end(&mut self) {
        self.at = Instant::NEVER;
        self.hints = None;
    }

    /// A send failed: the interfaces may have changed.
    pub(crate) fn doubt(&mut self) {
        if self.at != Instant::NEVER {
            self.at = self.at.min(self.last + SCAN_APART);
        }
    }

    /// Ready when the system says that something changed; [`Lookout::hint`] must follow. What it says until the look that
    /// this causes is left unread.
    pub(crate) fn poll_hint(&self, cx: &mut Context<'_>) -> Poll<Hint> {
        match &self.hints {
            Some(hints) if !self.hinted => hints.poll_changed(cx).map(|told| match told {
                Ok(()) => Hint::Changed,
                Err(_) => Hint::Failed,
            }),
            _ => Poll::Pending,
        }
    }

    /// Follows a hint.
    pub(crate) fn hint(&mut self, now: Instant, hint: Hint) {
        match hint {
            Hint::Changed => {
                self.hinted = true;
                self.at = self.at.min(now + SCAN_APART);
            }
            Hint::Failed => self.hints = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn looks_are_three_seconds_apart_and_hints_make_them_come_sooner() {
        let mut lookout = Lookout::new(None);
        assert!(lookout.look(ms(0)) && !lookout.look(ms(0)));
        assert!(!lookout.look(ms(2_999)) && lookout.look(ms(3_000)));
        lookout.hint(ms(3_100), Hint::Changed);
        lookout.hint(ms(3_300), Hint::Changed);
        assert_eq!(lookout.due(), ms(3_350), "a hint more puts nothing off");
        assert!(!lookout.look(ms(3_349)) && lookout.look(ms(3_350)));
        lookout.hint(ms(6_200), Hint::Changed);
        assert_eq!(lookout.due(), ms(6_350), "nor the regular look");
        lookout.hint(ms(6_200), Hint::Failed);
        assert!(lookout.look(ms(6_350)));
    }

    #[test]
    fn failed_sends_cause_four_looks_a_second_at_most() {
        let mut lookout = Lookout::new(None);
        let mut looks = 0;
        for now in (0..10_000).map(ms) {
            lookout.doubt();
            looks += u32::from(lookout.look(now));
        }
        assert_eq!(looks, 40);
        lookout.end();
        lookout.doubt();
        assert_eq!(lookout.due(), Instant::NEVER);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_can_be_asked_for_hints() {
        // Where a sandbox refuses, that is the answer, and nothing else depends on it.
        let Ok(hints) = Hints::open() else { return println!("skipped: no netlink here") };
        let lookout = Lookout::new(Some(hints));
        let quiet = core::future::poll_fn(|cx| lookout.poll_hint(cx));
        if let Ok(hint) = tokio::time::timeout(Duration::from_millis(20), quiet).await {
            assert_eq!(hint, Hint::Changed, "somebody changed this machine's interfaces just now");
        }
    }
}
