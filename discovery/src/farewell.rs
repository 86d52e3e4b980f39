//! Saying goodbye twice, 100 ms apart: a lost BYE costs the others a whole lease.

use core::time::Duration;

use wire_format::time::Instant;

use crate::link::LinkId;

const APART: Duration = Duration::from_millis(100);

/// The state of a goodbye: nothing, first round, second round, over.
#[derive(Debug)]
pub(crate) struct Farewell {
    begun: bool,
    /// Interfaces of both rounds, as bits.
    links: u16,
    /// Those this round has still to serve.
    open: u16,
    /// When the second round begins.
    again: Option<Instant>,
}

impl Farewell {
    pub(crate) const fn new() -> Self {
        Self { begun: false, links: 0, open: 0, again: None }
    }

    /// Says goodbye on `links`; with none, it is over at once.
    pub(crate) fn begin(&mut self, now: Instant, links: u16) {
        if !self.begun {
            *self = Self { begun: true, links, open: links, again: Some(now + APART).filter(|_| links != 0) };
        }
    }

    /// Whether goodbye was said, or is being said.
    pub(crate) const fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether nothing is left to send.
    pub(crate) const fn is_over(&self) -> bool {
        self.begun && self.open == 0 && self.again.is_none()
    }

    pub(crate) const fn due(&self) -> Option<Instant> {
        self.again
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.open = self.links;
        }
    }

    /// The next interface to say it on.
    pub(crate) fn take_link(&mut self) -> Option<LinkId> {
        let at = u8::try_from(self.open.trailing_zeros()).unwrap_or(0);
        self.open &= self.open.wrapping_sub(1);
        if at < 16 { Some(LinkId(at)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rounds_over_every_interface() {
        let mut farewell = Farewell::new();
        assert!(!farewell.is_over() && farewell.take_link().is_none());
        farewell.begin(Instant::ZERO, 0b1000_0000_0000_0001);
        for round in 0..2 {
            farewell.handle_timeout(Instant::from_millis(round * 100));
            assert_eq!(farewell.take_link(), Some(LinkId(0)));
            assert_eq!(farewell.take_link(), Some(LinkId(15)));
            assert_eq!(farewell.take_link(), None);
        }
        assert!(farewell.is_over());
        assert_eq!(farewell.due(), None);
        let mut nobody = Farewell::new();
        nobody.begin(Instant::ZERO, 0);
        assert!(nobody.is_over());
    }
}
