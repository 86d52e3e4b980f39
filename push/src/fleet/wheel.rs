//! A hashed wheel of timers, one per slot, linked through the slots.
//!
//! Time is cut into ticks of 4.096 ms; a timer hangs in the bucket of its tick, modulo the number of buckets. Arming,
//! cancelling and taking a due timer are O(1), and so is asking for the next one: of a bitmap it reads two words. A timer
//! beyond one turn of the wheel (4.2 s) is looked at once per turn and left where it is: the caller is woken early then,
//! never late.
//!
//! ```text
//!  occupied  0 1 0 0 1 …            heads[1] ─▶ slot 7 ⇄ slot 3      heads[4] ─▶ slot 9
//!              ▲ cursor: the first tick that was not looked at yet
//! ```

use wire_format::time::Instant;

use super::list::{Link, NONE, Nodes};

/// 2^12 µs per tick.
const TICK_SHIFT: u32 = 12;
const BUCKETS: usize = 1_024;
const WORDS: usize = BUCKETS / 64;
const _: () = assert!(WORDS == u16::BITS as usize, "a bit for each word");

/// Slots that have a timer: the link, and the tick it is due at.
pub(crate) trait Timers: Nodes {
    /// The tick slot `index` is due at; meaningless while it is in no wheel.
    fn tick(&self, index: u32) -> u64;
    /// The same, to change.
    fn tick_mut(&mut self, index: u32) -> &mut u64;
}

/// Timers linked through link `WHICH` of their slots.
#[derive(Clone, Debug)]
pub(crate) struct Wheel<const WHICH: usize> {
    heads: [u32; BUCKETS],
    occupied: [u64; WORDS],
    /// The words of `occupied` that are not 0.
    words: u16,
    /// Timers of the bucket being looked at.
    firing: u32,
    cursor: u64,
}

impl<const WHICH: usize> Wheel<WHICH> {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            heads: [NONE; BUCKETS],
            occupied: [0; WORDS],
            words: 0,
            firing: NONE,
            cursor: now.as_micros() >> TICK_SHIFT,
        }
    }

    /// Arms the timer of `index` for `at` (rounded up to a tick), instead of what it was armed for.
    pub(crate) fn arm(&mut self, slots: &mut impl Timers, index: u32, at: Instant) {
        self.cancel(slots, index);
        if at != Instant::NEVER {
            *slots.tick_mut(index) = at.as_micros().div_ceil(1 << TICK_SHIFT).max(self.cursor);
            self.insert(slots, index);
        }
    }

    /// Disarms the timer of `index`.
    pub(crate) fn cancel(&mut self, slots: &mut impl Timers, index: u32) {
        let link = slots.link(WHICH, index);
        if !link.is_in() {
            return;
        }
        if link.prev != NONE {
            slots.link_mut(WHICH, link.prev).next = link.next;
        } else if self.firing == index {
            self.firing = link.next;
        } else {
            self.set_head(bucket(slots.tick(index)), link.next);
        }
        if link.next != NONE {
            slots.link_mut(WHICH, link.next).prev = link.prev;
        }
        *slots.link_mut(WHICH, index) = Link::OUT;
    }

    /// When the timer of `index` is due, if it is armed.
    pub(crate) fn due(slots: &impl Timers, index: u32) -> Option<Instant> {
        slots.link(WHICH, index).is_in().then(|| instant(slots.tick(index)))
    }

    /// Takes a timer that is due, until there is none.
    pub(crate) fn pop(&mut self, slots: &mut impl Timers, now: Instant) -> Option<u32> {
        let now = now.as_micros() >> TICK_SHIFT;
        loop {
            while self.firing != NONE {
                let index = self.firing;
                self.cancel(slots, index);
                if slots.tick(index) <= now {
                    return Some(index);
                }
                self.insert(slots, index);
            }
            let tick = self.next_tick().filter(|&tick| tick <= now);
            self.cursor = self.cursor.max(tick.unwrap_or(now).saturating_add(1));
            let bucket = bucket(tick?);
            self.firing = self.heads.get(bucket).copied().unwrap_or(NONE);
            self.set_head(bucket, NONE);
        }
    }

    /// The earliest moment at which [`Wheel::pop`] may have something; `NEVER` if no timer is armed.
    pub(crate) fn next(&self) -> Instant {
        self.next_tick().map_or(Instant::NEVER, instant)
    }

    /// The first tick from the cursor on whose bucket holds a timer.
    fn next_tick(&self) -> Option<u64> {
        let start = bucket(self.cursor);
        let first = start / 64;
        let bits_of = |word: usize| self.occupied.get(word).copied().unwrap_or(0);
        let here = bits_of(first) & u64::MAX << (start % 64);
        let (word, bits) = if here != 0 {
            (first, here)
        } else {
            // The first word behind it, around to what lies before `start` in its own.
            let behind = self.words.rotate_right(u32::try_from(first).unwrap_or(0)) & !1;
            let steps = if behind != 0 { behind.trailing_zeros() as usize } else { 0 };
            let word = first.wrapping_add(steps) % WORDS;
            (word, bits_of(word))
        };
        if bits == 0 {
            return None;
        }
        let found = word.wrapping_mul(64).wrapping_add(bits.trailing_zeros() as usize);
        let ahead = found.wrapping_sub(start) % BUCKETS;
        Some(self.cursor.saturating_add(ahead as u64))
    }

    fn insert(&mut self, slots: &mut impl Timers, index: u32) {
        let bucket = bucket(slots.tick(index));
        let head = self.heads.get(bucket).copied().unwrap_or(NONE);
        *slots.link_mut(WHICH, index) = Link { next: head, prev: NONE };
        if head != NONE {
            slots.link_mut(WHICH, head).prev = index;
        }
        self.set_head(bucket, index);
    }

    fn set_head(&mut self, bucket: usize, index: u32) {
        if let (Some(head), Some(word)) = (self.heads.get_mut(bucket), self.occupied.get_mut(bucket / 64)) {
            *head = index;
            let bit = 1_u64 << (bucket % 64);
            *word = if index == NONE { *word & !bit } else { *word | bit };
            let word_bit = 1_u16 << (bucket / 64 % WORDS);
            self.words = if *word == 0 { self.words & !word_bit } else { self.words | word_bit };
        }
    }
}

const fn bucket(tick: u64) -> usize {
    (tick % BUCKETS as u64) as usize
}

const fn instant(tick: u64) -> Instant {
    Instant::from_micros(tick.saturating_mul(1 << TICK_SHIFT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_format::rng::Rng;

    struct Slots(Vec<(Link, u64)>);

    impl Nodes for Slots {
        fn link(&self, _: usize, index: u32) -> Link {
            self.0[index as usize].0
        }
        fn link_mut(&mut self, _: usize, index: u32) -> &mut Link {
            &mut self.0[index as usize].0
        }
    }

    impl Timers for Slots {
        fn tick(&self, index: u32) -> u64 {
            self.0[index as usize].1
        }
        fn tick_mut(&mut self, index: u32) -> &mut u64 {
            &mut self.0[index as usize].1
        }
    }

    #[test]
    fn fires_each_timer_once_in_time_and_never_early() {
        const SLOTS: u32 = 200;
        let mut rng = Rng::new(11);
        let mut slots = Slots(vec![(Link::OUT, 0); SLOTS as usize]);
        let mut now = Instant::from_millis(1_000_003);
        let mut wheel = Wheel::<0>::new(now);
        let mut due = vec![None; SLOTS as usize];
        for _ in 0..20_000 {
            let index = rng.below(u64::from(SLOTS)) as u32;
            match rng.below(4) {
                0 | 1 => {
                    let far = if rng.below(8) == 0 { 90_000_000 } else { 3_000_000 };
                    let at = Instant::from_micros(now.as_micros() + rng.below(far));
                    wheel.arm(&mut slots, index, at);
                    due[index as usize] = Some(at);
                }
                2 => {
                    wheel.cancel(&mut slots, index);
                    due[index as usize] = None;
                }
                _ => {
                    let earliest = due.iter().flatten().min();
                    assert!(earliest.is_none_or(|at| wheel.next().as_micros() < at.as_micros() + 8_192));
                    let far = if rng.below(50) == 0 { 20_000_000 } else { 100_000 };
                    now = Instant::from_micros(now.as_micros() + rng.below(far));
                    while let Some(fired) = wheel.pop(&mut slots, now) {
                        let at = due[fired as usize].take().expect("fires only what is armed");
                        assert!(at <= now, "{at:?} fired at {now:?}");
                    }
                    let late = due.iter().flatten().find(|at| at.as_micros() + 8_192 <= now.as_micros());
                    assert_eq!(late, None, "missed at {now:?}");
                }
            }
        }
        assert!(due.iter().flatten().count() > 10);
    }

    #[test]
    fn an_empty_wheel_wakes_nobody() {
        let mut slots = Slots(vec![(Link::OUT, 0); 1]);
        let mut wheel = Wheel::<0>::new(Instant::ZERO);
        assert_eq!(wheel.next(), Instant::NEVER);
        wheel.arm(&mut slots, 0, Instant::NEVER);
        assert_eq!(wheel.pop(&mut slots, Instant::from_millis(1 << 40)), None);
        wheel.arm(&mut slots, 0, Instant::ZERO);
        assert_eq!(Wheel::<0>::due(&slots, 0), Some(wheel.next()));
        assert!(wheel.pop(&mut slots, wheel.next()).is_some());
        assert_eq!(wheel.next(), Instant::NEVER);
    }
}
