//! Sets of devices by their position in the directory.

/// A set of positions: a bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions(Vec<u64>);

impl Positions {
    const fn place(position: u32) -> (usize, u64) {
        ((position / 64) as usize, 1 << (position % 64))
    }

    /// True if it was not there.
    pub(super) fn insert(&mut self, position: u32) -> bool {
        let (at, bit) = Self::place(position);
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0.get_mut(at).is_some_and(|word| {
            let new = *word & bit == 0;
            *word |= bit;
            new
        })
    }

    pub(super) fn remove(&mut self, position: u32) {
        let (at, bit) = Self::place(position);
        if let Some(word) = self.0.get_mut(at) {
            *word &= !bit;
        }
    }

    pub(super) fn contains(&self, position: u32) -> bool {
        let (at, bit) = Self::place(position);
        self.0.get(at).is_some_and(|word| word & bit != 0)
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.0).flat_map(|(at, &word)| bits(at, word))
    }

    /// Those that are not in `other`, ascending.
    pub(super) fn missing_in(&self, other: &Self) -> Vec<u32> {
        let words =
            (0..).zip(&self.0).map(|(at, &word)| (at, word & !other.0.get(at as usize).unwrap_or(&0)));
        words.flat_map(|(at, word)| bits(at, word)).collect()
    }
}

impl FromIterator<u32> for Positions {
    fn from_iter<T: IntoIterator<Item = u32>>(positions: T) -> Self {
        let mut set = Self::default();
        for position in positions {
            set.insert(position);
        }
        set
    }
}

/// The positions of the bits of the word at `at`.
fn bits(at: u32, mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        // The lowest bit away; nothing is left of 0.
        word &= word.checked_sub(1)?;
        Some(at * 64 + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_is_a_set(steps: Vec<(bool, u8)>, others: BTreeSet<u8>) {
            let (mut set, mut naive) = (Positions::default(), BTreeSet::new());
            for (comes, position) in steps {
                let position = u32::from(position);
                if comes {
                    prop_assert_eq!(set.insert(position), naive.insert(position));
                } else {
                    set.remove(position);
                    naive.remove(&position);
                }
                prop_assert_eq!(set.contains(position), naive.contains(&position));
            }
            prop_assert!(set.iter().eq(naive.iter().copied()));
            let others: BTreeSet<_> = others.into_iter().map(u32::from).collect();
            let missing = set.missing_in(&others.iter().copied().collect());
            prop_assert!(missing.into_iter().eq(naive.difference(&others).copied()));
        }
    }
}
