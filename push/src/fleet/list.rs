//! Intrusive lists: the order in which slots are served, kept inside the slots. No list allocates, none has a limit of
//! its own, and every step but a search is O(1).

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// The link of a slot that is in no list.
const OUT: u32 = u32::MAX - 1;

/// A slot's place in one list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) next: u32,
    pub(crate) prev: u32,
}

impl Link {
    /// In no list.
    pub(crate) const OUT: Self = Self { next: OUT, prev: OUT };

    /// Whether its slot is in the list.
    pub(crate) const fn is_in(self) -> bool {
        self.next != OUT
    }
}

/// Slots that have links; `which` tells the lists apart.
pub(crate) trait Nodes {
    /// The link number `which` of slot `index`.
    fn link(&self, which: usize, index: u32) -> Link;
    /// The same, to change.
    fn link_mut(&mut self, which: usize, index: u32) -> &mut Link;
}

/// A doubly linked list through link `WHICH` of its slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<const WHICH: usize> {
    head: u32,
    tail: u32,
}

impl<const WHICH: usize> List<WHICH> {
    pub(crate) const EMPTY: Self = Self { head: NONE, tail: NONE };

    pub(crate) const fn front(&self) -> Option<u32> {
        if self.head == NONE { None } else { Some(self.head) }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub(crate) fn has(nodes: &impl Nodes, index: u32) -> bool {
        nodes.link(WHICH, index).is_in()
    }

    /// The slot after `index`, or [`NONE`].
    pub(crate) fn after(nodes: &impl Nodes, index: u32) -> u32 {
        nodes.link(WHICH, index).next
    }

    /// Puts a slot at the end; one that is in the list stays where it is.
    pub(crate) fn push_back(&mut self, nodes: &mut impl Nodes, index: u32) {
        if Self::has(nodes, index) {
            return;
        }
        *nodes.link_mut(WHICH, index) = Link { next: NONE, prev: self.tail };
        if self.tail == NONE {
            self.head = index;
        } else {
            nodes.link_mut(WHICH, self.tail).next = index;
        }
        self.tail = index;
    }

    /// Puts a slot at the front; one that is in the list moves there.
    pub(crate) fn push_front(&mut self, nodes: &mut impl Nodes, index: u32) {
        self.remove(nodes, index);
        *nodes.link_mut(WHICH, index) = Link { next: self.head, prev: NONE };
        if self.head == NONE {
            self.tail = index;
        } else {
            nodes.link_mut(WHICH, self.head).prev = index;
        }
        self.head = index;
    }

    /// Takes a slot out; one that is not in the list is left alone.
    pub(crate) fn remove(&mut self, nodes: &mut impl Nodes, index: u32) {
        let Link { next, prev } = nodes.link(WHICH, index);
        if next == OUT {
            return;
        }
        if prev == NONE {
            self.head = next;
        } else {
            nodes.link_mut(WHICH, prev).next = next;
        }
        if next == NONE {
            self.tail = prev;
        } else {
            nodes.link_mut(WHICH, next).prev = prev;
        }
        *nodes.link_mut(WHICH, index) = Link::OUT;
    }

    pub(crate) fn pop_front(&mut self, nodes: &mut impl Nodes) -> Option<u32> {
        let index = self.front()?;
        self.remove(nodes, index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slots(Vec<Link>);

    impl Nodes for Slots {
        fn link(&self, _: usize, index: u32) -> Link {
            self.0[index as usize]
        }
        fn link_mut(&mut self, _: usize, index: u32) -> &mut Link {
            &mut self.0[index as usize]
        }
    }

    fn order(list: &List<0>, slots: &Slots) -> Vec<u32> {
        let mut at = list.front().unwrap_or(NONE);
        core::iter::from_fn(|| {
            let here = at;
            (here != NONE).then(|| {
                at = List::<0>::after(slots, here);
                here
            })
        })
        .collect()
    }

    #[test]
    fn behaves_like_a_deque() {
        let mut slots = Slots(vec![Link::OUT; 5]);
        let mut list = List::<0>::EMPTY;
        for index in [0, 1, 2, 3, 1] {
            list.push_back(&mut slots, index);
        }
        assert_eq!(order(&list, &slots), [0, 1, 2, 3]);
        list.push_front(&mut slots, 2);
        list.push_front(&mut slots, 4);
        list.remove(&mut slots, 0);
        list.remove(&mut slots, 0);
        assert_eq!(order(&list, &slots), [4, 2, 1, 3]);
        list.remove(&mut slots, 3);
        assert_eq!(list.pop_front(&mut slots), Some(4));
        assert_eq!(list.pop_front(&mut slots), Some(2));
        assert_eq!(list.pop_front(&mut slots), Some(1));
        assert_eq!(list.pop_front(&mut slots), None);
        assert!(list.is_empty() && slots.0.iter().all(|link| !link.is_in()));
    }
}
