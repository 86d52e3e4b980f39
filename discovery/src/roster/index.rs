//! From an id to its slot, and from an address to the slots of its devices: two chained hash tables whose chain heads
//! stand in the slots themselves.
//!
//! There are as many chains as slots, so a chain holds one device on average, and the hash is keyed, so nobody can choose
//! ids or addresses that fall into one chain.

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

/// The slot of this device.
#[inline]
pub(super) fn find<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &Table<S>, id: NodeId) -> Option<u32> {
    if id.is_none() {
        return None;
    }
    let chain = table.chain(|secret| secret.place_id(id));
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
