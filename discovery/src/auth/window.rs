//! Which sequence numbers of one boot were seen: the newest one, and the 63 before it.

/// Numbers a window looks back.
pub(crate) const WINDOW: u32 = 64;

/// The numbers seen of one boot of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    newest: u32,
    /// Bit n: `newest - n` was seen. In two halves, which need no room to be aligned.
    halves: [u32; 2],
}

/// What a window says about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// It was not seen yet.
    New,
    /// It was seen.
    Seen,
    /// It is so far behind that nobody remembers.
    Forgotten,
}

impl Window {
    /// Nothing was seen, and nothing will pass for new before the first number is.
    pub(crate) const NONE: Self = Self::after(0);

    /// Everything up to `newest` counts as seen.
    pub(crate) const fn after(newest: u32) -> Self {
        Self { newest, halves: [u32::MAX; 2] }
    }

    /// The highest number seen.
    pub(crate) const fn newest(self) -> u32 {
        self.newest
    }

    /// What is known about `number`. Numbers wrap: the half of them above the newest one lies ahead.
    pub(crate) const fn look(self, number: u32) -> Sighting {
        let behind = self.newest.wrapping_sub(number);
        if behind >= 1 << 31 {
            Sighting::New
        } else if behind >= WINDOW {
            Sighting::Forgotten
        } else if self.seen() >> behind & 1 == 0 {
            Sighting::New
        } else {
            Sighting::Seen
        }
    }

    /// `number` was seen.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(crate) const fn mark(&mut self, number: u32) {
        let ahead = number.wrapping_sub(self.newest);
        let mut seen = self.seen();
        if ahead != 0 && ahead <= 1 << 31 {
            seen = if ahead >= WINDOW { 0 } else { seen << ahead };
            self.newest = number;
        }
        let behind = self.newest.wrapping_sub(number);
        if behind < WINDOW {
            seen |= 1 << behind;
        }
        self.halves = [seen as u32, (seen >> 32) as u32];
    }

    const fn seen(self) -> u64 {
        self.halves[0] as u64 | (self.halves[1] as u64) << 32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn at_the_edges_of_the_window() {
        let mut window = Window::after(100);
        assert_eq!(window.look(100), Sighting::Seen);
        assert_eq!(window.look(37), Sighting::Seen);
        assert_eq!(window.look(36), Sighting::Forgotten);
        window.mark(164);
        assert_eq!((window.look(101), window.look(100)), (Sighting::New, Sighting::Forgotten));
        window.mark(101);
        assert_eq!(
            (window.look(101), window.look(102), window.look(165)),
            (Sighting::Seen, Sighting::New, Sighting::New)
        );
        window.mark(5);
        assert_eq!((window.look(164), window.look(5)), (Sighting::Seen, Sighting::Forgotten));
        let mut wrapping = Window::after(u32::MAX);
        assert_eq!(wrapping.look(0), Sighting::New);
        wrapping.mark(1);
        assert_eq!((wrapping.look(0), wrapping.look(u32::MAX)), (Sighting::New, Sighting::Seen));
        assert_eq!(Window::after(0).look(1 << 31), Sighting::New);
        assert_eq!(Window::after(0).look((1 << 31) + 1), Sighting::Forgotten);
        assert_eq!(Window::after(1 << 31).look(1), Sighting::Forgotten);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        /// No number is new twice, whatever comes in which order.
        #[test]
        fn nothing_is_new_twice(start: u32, steps in proptest::collection::vec(-80_i32..90, 1..300)) {
            let (mut window, mut seen, mut newest) = (Window::after(start), HashSet::new(), start);
            for step in steps {
                let number = newest.wrapping_add_signed(step);
                let sighting = window.look(number);
                prop_assert_eq!(sighting == Sighting::New && seen.contains(&number), false);
                let behind = newest.wrapping_sub(number);
                prop_assert_eq!(sighting == Sighting::Forgotten, (64..1 << 31).contains(&behind));
                if sighting == Sighting::New {
                    window.mark(number);
                    seen.insert(number);
                    if step > 0 {
                        newest = number;
                    }
                    prop_assert_eq!(window.look(number), Sighting::Seen);
                }
            }
        }
    }
}
