//! From an id to its slot: a chained hash table whose chain heads stand in the slots themselves.
//!
//! There are as many chains as slots, so a chain holds one device on average, and the hash is keyed, so nobody can choose
//! ids that fall into one chain.

use wire_format::ids::NodeId;

use super::slot::Slot;
use super::table::{NONE, Table};

/// The slot of this device.
#[inline]
pub(super) fn find<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &Table<S>, id: NodeId) -> Option<u32> {
    if id.is_none() {
        return None;
    }
    let mut at = table.at(table.chain(id)).wiring.chain_head;
    while at != NONE {
        let slot = table.at(at);
        if slot.id == id {
            return Some(at);
        }
        at = slot.wiring.chain_next;
    }
    None
}

/// Puts the slot at the front of its id's chain.
pub(super) fn insert<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &mut Table<S>, at: u32) {
    let chain = table.chain(table.at(at).id);
    let head = core::mem::replace(&mut table.at_mut(chain).wiring.chain_head, at);
    table.at_mut(at).wiring.chain_next = head;
}

/// Takes the slot out of its id's chain.
pub(super) fn remove<S: AsRef<[Slot]> + AsMut<[Slot]>>(table: &mut Table<S>, at: u32) {
    let chain = table.chain(table.at(at).id);
    let after = core::mem::replace(&mut table.at_mut(at).wiring.chain_next, NONE);
    let mut before = table.at(chain).wiring.chain_head;
    if before == at {
        table.at_mut(chain).wiring.chain_head = after;
        return;
    }
    while before != NONE {
        let next = table.at(before).wiring.chain_next;
        if next == at {
            table.at_mut(before).wiring.chain_next = after;
            return;
        }
        before = next;
    }
}
