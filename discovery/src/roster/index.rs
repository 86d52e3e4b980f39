//! From an id to its slot, and from an address to the slots of its devices: two chained hash tables whose chain heads
//! stand in the slots themselves.
//!
//! There are as many chains as slots, so a chain holds one device on average, and the hash is keyed, so nobody can choose
//! ids or addresses that fall into one chain.
//!
//! A chain begins in a slot that is hardly ever the device's own, and each step of it is a cache miss. Hints of a fixed size
//! stand beside the slots: a guess where the device is, right for six of seven of 10,000.

use core::net::Ipv4Addr;

use wire_format::ids::NodeId;

use super::slot::Slot;
use super::table::{NONE, Table};
use crate::hash::Secret;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum By {
    Id,
    Host,
}

pub(super) const TABLES: usize = 2;

/// A slot's part in one table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// First slot of the chain with this slot's number.
    pub(super) head: u32,
    /// Next slot of the chain this slot's device is in.
    pub(super) next: u32,
}

impl Hook {
    pub(super) const NONE: Self = Self { head: NONE, next: NONE };
}

/// Guesses beside the slots: 64 KiB.
const HINTS: usize = 32_768;

/// Where the last device with such a hash was put. Whoever asks looks whether it is there; a slot whose number needs more
/// than 16 bits has no hint.
#[derive(Debug)]
pub(super) struct Hints([u16; HINTS]);

impl Hints {
    pub(super) const fn new() -> Self {
        Self([u16::MAX; HINTS])
    }

    #[inline]
    pub(super) fn guess(&self, hash: u64) -> u32 {
        self.0.get(hint_of(hash)).map_or(NONE, |&at| u32::from(at))
    }

    pub(super) fn set(&mut self, hash: u64, at: u32) {
        if let (Some(hint), Ok(at)) = (self.0.get_mut(hint_of(hash)), u16::try_from(at)) {
            *hint = at;
        }
    }
}

/// From the low bits: the high ones choose the chain.
#[inline]
const fn hint_of(hash: u64) -> usize {
    (hash % HINTS as u64) as usize
}

/// The slot of this device, by its chain.
#[inline]
pub(super) fn find<S: AsRef<[Slot]> + AsMut<[Slot]>>(
    table: &Table<S>,
    id: NodeId,
    chain: u32,
) -> Option<u32> {
    walk(table, By::Id, chain).find(|&at| table.at(at).id == id)
}

/// The slots of the devices known at this address.
pub(super) fn at_host<S: AsRef<[Slot]> + AsMut<[Slot]>>(
    table: &Table<S>,
    host: Ipv4Addr,
) -> impl Iterator<Item = u32> {
    let chain = table.chain(|secret| hash_host(secret, host));
    walk(table, By::Host, chain).filter(move |&at| *table.at(at).origin.source.ip() == host)
}

/// Puts the slot at the front of its chain.
pub(super) fn insert<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &mut Table<S>, by: By, at: u32) {
    let chain = chain_of(table, by, at);
    let next = core::mem::replace(&mut table.hook_mut(by, chain).head, at);
    table.hook_mut(by, at).next = next;
}

/// Takes the slot out of its chain.
pub(super) fn remove<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &mut Table<S>, by: By, at: u32) {
    let chain = chain_of(table, by, at);
    let next = core::mem::replace(&mut table.hook_mut(by, at).next, NONE);
    if table.hook(by, chain).head == at {
        table.hook_mut(by, chain).head = next;
        return;
    }
    let before = walk(table, by, chain).find(|&before| table.hook(by, before).next == at);
    if let Some(before) = before {
        table.hook_mut(by, before).next = next;
    }
}

/// The slots of one chain.
fn walk<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &Table<S>, by: By, chain: u32) -> impl Iterator<Item = u32> {
    let follow = |at: u32| Some(at).filter(|at| *at != NONE);
    core::iter::successors(follow(table.hook(by, chain).head), move |&at| follow(table.hook(by, at).next))
}

fn chain_of<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &Table<S>, by: By, at: u32) -> u32 {
    let slot = table.at(at);
    match by {
        By::Id => table.chain(|secret| secret.place_id(slot.id)),
        By::Host => table.chain(|secret| hash_host(secret, *slot.origin.source.ip())),
    }
}

fn hash_host(secret: Secret, host: Ipv4Addr) -> u64 {
    secret.place(&[u64::from(host.to_bits())])
}

#[cfg(test)]
mod tests {
    use super::super::slot::Origin;
    use super::super::table::Queue;
    use super::*;

    const DEVICES: u32 = 1_000;

    fn id(n: u32) -> NodeId {
        NodeId(u128::from(n + 1).to_le_bytes())
    }

    fn guessed(table: &Table<Vec<Slot>>, secret: Secret, ids: core::ops::Range<u32>) -> u32 {
        let right = |n: &u32| table.find(id(*n)) == Some(table.guess(secret.place_id(id(*n))));
        u32::try_from(ids.filter(right).count()).unwrap()
    }

    #[test]
    fn devices_that_share_a_hint_are_found_all_the_same() {
        let secret = Secret::new(1);
        let mut table = Table::new(vec![Slot::EMPTY; DEVICES as usize], secret);
        let join = |table: &mut Table<Vec<Slot>>, n| {
            let at = table.head(Queue::Free).unwrap();
            table.claim(at, id(n), Origin::NONE);
            table.push(Queue::Fresh, at);
        };
        (0..DEVICES).for_each(|n| join(&mut table, n));
        table.check();
        // One in 65 shares its hint with a later one.
        let right = guessed(&table, secret, 0..DEVICES);
        assert!((950..DEVICES).contains(&right), "{right}");
        // Others take their places: no hint leads to whoever is gone.
        for n in 0..DEVICES {
            table.release(table.find(id(n)).unwrap());
            join(&mut table, n + DEVICES);
            assert_eq!(table.find(id(n)), None);
        }
        table.check();
        assert!(guessed(&table, secret, DEVICES..2 * DEVICES) >= 950);
    }

    #[test]
    fn a_slot_beyond_sixteen_bits_has_no_hint() {
        let mut hints = Hints::new();
        hints.set(7, 65_535);
        assert_eq!(hints.guess(7), 65_535);
        hints.set(7, 9);
        hints.set(7, 65_536);
        assert_eq!((hints.guess(7), hints.guess(7 + HINTS as u64)), (9, 9));
    }
}
