//! What comes next: first by its time, then by when it was asked for.
//!
//! Nearly everything that happens in a day is one of two kinds: bytes that arrive a moment after they were written, and timers
//! of devices and servers, seconds ahead. So each timer has a place of its own and is moved there, and what the plan says is
//! read from the plan; the heap holds what is under way, which is little.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wire_format::time::Instant;

/// Bits of a key for who it is.
const PLACE_BITS: u32 = 24;
/// Bits of a key for when it was asked for.
const SEQUENCE_BITS: u32 = 40;

/// The time, the sequence, and the place of what is due: in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u128);

impl Key {
    const NEVER: Self = Self(u128::MAX);

    const fn new(at: Instant, sequence: u64, place: u32) -> Self {
        let low = sequence << PLACE_BITS | place as u64;
        Self((at.as_micros() as u128) << (SEQUENCE_BITS + PLACE_BITS) | low as u128)
    }

    const fn at(self) -> Instant {
        Instant::from_micros((self.0 >> (SEQUENCE_BITS + PLACE_BITS)) as u64)
    }

    const fn place(self) -> usize {
        self.0 as usize & ((1 << PLACE_BITS) - 1)
    }
}

/// Bits of a timer's key for which one it is; the others last for nine years, and what is due later never is.
const TIMER_BITS: u32 = 16;

/// The earliest of many timers: a tree of which each node is the earliest one of the four below it. A key is the time and
/// the place: of two that are due at once the lower place comes first.
#[derive(Debug)]
struct Timers {
    /// The root is the first; those below the node `n` begin at `4 n + 1`.
    nodes: Vec<u64>,
    /// Where the last layer begins: the timers.
    leaves: usize,
}

impl Timers {
    const NEVER: u64 = u64::MAX;

    fn new(count: usize) -> Self {
        assert!(count < 1 << TIMER_BITS, "more than a key has room for");
        let (mut leaves, mut layer) = (0, 1);
        while layer < count {
            (leaves, layer) = (leaves + layer, layer * 4);
        }
        Self { nodes: vec![Self::NEVER; leaves + layer], leaves }
    }

    const fn key(at: Instant, place: usize) -> u64 {
        let at = at.as_micros();
        let last = Self::NEVER >> TIMER_BITS;
        (if at < last { at } else { last }) << TIMER_BITS | place as u64
    }

    /// The key of what is due first.
    fn first(&self) -> u64 {
        self.nodes[0]
    }

    const fn at(key: u64) -> Instant {
        Instant::from_micros(key >> TIMER_BITS)
    }

    const fn place(key: u64) -> usize {
        key as usize & ((1 << TIMER_BITS) - 1)
    }

    fn set(&mut self, place: usize, key: u64) {
        let mut node = self.leaves + place;
        self.nodes[node] = key;
        while node > 0 {
            node = (node - 1) / 4;
            let first = 4 * node + 1;
            let Some([a, b, c, d]) = self.nodes.get(first..first + 4) else { return };
            let earliest = (*a.min(b)).min(*c.min(d));
            if self.nodes[node] == earliest {
                return;
            }
            self.nodes[node] = earliest;
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// Something that was asked for: to be taken with [`Queue::take`], once.
    Act(usize),
    /// The next of what was planned, by its place in the plan.
    Planned(usize),
    /// The timer of this place. It is not armed any more, unless it is armed anew before the next step.
    Timer(usize),
}

/// Everything to come.
#[derive(Debug)]
pub(super) struct Queue<A> {
    sequence: u64,
    under_way: BinaryHeap<Reverse<Key>>,
    /// By place; and places without one.
    acts: Vec<Option<A>>,
    free: Vec<u32>,
    timers: Timers,
    /// The timer taken last: disarmed with the next step, unless it was armed anew meanwhile. Most are.
    fired: Option<usize>,
    /// Latest first.
    planned: Vec<Key>,
}

impl<A> Queue<A> {
    /// With so many timers, none of them armed.
    pub(super) fn new(timers: usize) -> Self {
        Self {
            sequence: 0,
            under_way: BinaryHeap::new(),
            acts: Vec::new(),
            free: Vec::new(),
            timers: Timers::new(timers),
            fired: None,
            planned: Vec::new(),
        }
    }

    /// How many things were asked for so far.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    fn key(&mut self, at: Instant, place: usize) -> Key {
        self.sequence += 1;
        assert!(
            place < 1 << PLACE_BITS && self.sequence < 1 << SEQUENCE_BITS,
            "more than a run has room for"
        );
        Key::new(at, self.sequence, place as u32)
    }

    /// Asks for `act` at a time.
    pub(super) fn push(&mut self, at: Instant, act: A) {
        let place = self.free.pop().map_or(self.acts.len(), |place| place as usize);
        let key = self.key(at, place);
        if place == self.acts.len() {
            self.acts.push(Some(act));
        } else {
            let before = self.acts[place].replace(act);
            // Nothing: the compiler need not look whether that is to be dropped.
            core::mem::forget(before);
        }
        self.under_way.push(Reverse(key));
    }

    /// Plans what has these times; to be said once.
    pub(super) fn plan(&mut self, times: impl Iterator<Item = Instant>) {
        let keys = times.enumerate().map(|(place, at)| self.key(at, place));
        let mut keys: Vec<_> = keys.collect();
        keys.sort_unstable_by_key(|key| Reverse(*key));
        self.planned = keys;
    }

    /// Moves a timer, armed or not.
    pub(super) fn arm(&mut self, timer: usize, at: Instant) {
        self.fired = self.fired.filter(|fired| *fired != timer);
        self.timers.set(timer, Timers::key(at, timer));
    }

    /// Takes what comes next, with its time. What is due at once comes in the order in which it was asked for, and timers
    /// behind it.
    pub(super) fn pop(&mut self) -> Option<(Instant, Next)> {
        if let Some(fired) = self.fired.take() {
            self.timers.set(fired, Timers::NEVER);
        }
        let timer = self.timers.first();
        let planned = self.planned.last().copied().unwrap_or(Key::NEVER);
        let act = self.under_way.peek().map_or(Key::NEVER, |first| first.0);
        let next = planned.min(act);
        let (at, place) = (next.at(), next.place());
        if timer < Timers::key(at, 0) {
            let place = Timers::place(timer);
            self.fired = Some(place);
            return Some((Timers::at(timer), Next::Timer(place)));
        }
        if next == Key::NEVER {
            return None;
        }
        if next == act {
            self.under_way.pop();
            return Some((at, Next::Act(place)));
        }
        self.planned.pop();
        Some((at, Next::Planned(place)))
    }

    /// What [`Next::Act`] names.
    pub(super) fn take(&mut self, place: usize) -> Option<A> {
        self.free.push(place as u32);
        self.acts[place].take()
    }
}

#[cfg(test)]
mod tests {
    use wire_format::rng::Rng;

    use super::*;

    /// Everything in one list, sorted: timers that were moved are not in it twice. Of what is due at once they come last.
    #[test]
    fn what_is_due_first_comes_first_and_ties_in_the_order_they_were_asked_for() {
        const BEHIND: u64 = 1 << SEQUENCE_BITS;
        let mut rng = Rng::new(4);
        let mut queue = Queue::new(6);
        let mut expected: Vec<(u64, u64, &str, usize)> = Vec::new();
        let planned = [30, 10, 20, 10];
        for (place, at) in planned.into_iter().enumerate() {
            expected.push((at, place as u64 + 1, "planned", place));
        }
        queue.plan(planned.into_iter().map(Instant::from_micros));
        let (mut now, mut popped) = (0, 0);
        for step in 0..20_000 {
            let at = now + rng.below(40);
            let sequence = queue.sequence() + 1;
            match rng.below(4) {
                0 => {
                    queue.push(Instant::from_micros(at), step);
                    expected.push((at, sequence, "act", step));
                }
                1 => {
                    let timer = rng.below(6) as usize;
                    queue.arm(timer, Instant::from_micros(at));
                    expected.retain(|(_, _, what, place)| (*what, *place) != ("timer", timer));
                    expected.push((at, BEHIND, "timer", timer));
                }
                _ => {
                    expected.sort_unstable();
                    let first = if expected.is_empty() { None } else { Some(expected.remove(0)) };
                    let next = queue.pop();
                    assert_eq!(next.is_some(), first.is_some());
                    let (Some((at, next)), Some(first)) = (next, first) else { continue };
                    let (what, place) = match next {
                        Next::Act(place) => ("act", queue.take(place).unwrap()),
                        Next::Planned(place) => ("planned", place),
                        Next::Timer(place) => ("timer", place),
                    };
                    assert_eq!((at.as_micros(), what, place), (first.0, first.2, first.3));
                    (now, popped) = (first.0, popped + 1);
                }
            }
        }
        assert!(popped > 5_000, "{popped}");
    }
}
