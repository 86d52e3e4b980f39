//! What every datagram passes before its entries are read: cheapest and most telling checks first.

use wire_format::datagram::header::{Header, Kind};
use wire_format::datagram::{Node, StoreRef};
use wire_format::ids::{DeviceKind, NodeId, Store};

use crate::event::Dropped;
use crate::link::{Arrival, answerable};

/// Who we are, as far as it decides whose datagrams we take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    id: NodeId,
    store: Store,
    scope: u32,
    staging: bool,
}

impl Screen {
    pub(crate) fn new(id: NodeId, store: Store, staging: bool) -> Self {
        Self { id, store, scope: store.scope(), staging }
    }

    /// The part of our own headers that never changes.
    pub(crate) const fn node(&self, role: DeviceKind) -> Node {
        Node { scope: self.scope, staging: self.staging, ..Node::new(self.id, role) }
    }

    /// The datagram is whole, of our store and side of staging, somebody else's, sent the way its kind is, and from a
    /// source that may be answered.
    #[inline]
    pub(crate) fn open(&self, arrival: &Arrival, datagram: &[u8]) -> Result<Header, Dropped> {
        let header = Header::parse(datagram)?;
        if header.from.staging != self.staging {
            Err(Dropped::Staging)
        } else if header.from.scope != self.scope {
            Err(Dropped::Store)
        } else if header.from.id == self.id {
            Err(Dropped::Own)
        } else if arrival.broadcast && unicast_only(header.kind) {
            Err(Dropped::Misdirected)
        } else if !answerable(arrival.source) {
            Err(Dropped::Source)
        } else {
            Ok(header)
        }
    }

    /// The full store, where a kind carries it: the header's scope is only a hash.
    #[inline]
    pub(crate) fn store(&self, store: Option<StoreRef<'_>>) -> Result<(), Dropped> {
        if store.is_some_and(|store| store.is(&self.store)) { Ok(()) } else { Err(Dropped::Store) }
    }
}

/// Kinds that one node sends to one other. As a broadcast they would make every node answer at once.
const fn unicast_only(kind: Kind) -> bool {
    matches!(kind, Kind::Announce | Kind::Ack | Kind::Challenge)
}

/// A datagram this far behind the newest one was overtaken; further behind it is a sender that counts anew.
const OVERTAKEN_MAX: u32 = 64;

/// `sequence` is news, not a copy of the datagram `newest`, and not one it overtook.
#[inline]
pub(crate) const fn in_order(newest: u32, sequence: u32) -> Result<(), Dropped> {
    if newest.wrapping_sub(sequence) < OVERTAKEN_MAX { Err(Dropped::Duplicate) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_overtaken_datagrams_are_told_from_senders_that_count_anew() {
        for (newest, sequence, news) in [
            (5, 6, true),
            (5, 5, false),
            (70, 7, false),
            (70, 6, true),
            (u32::MAX, 0, true),
            (0, u32::MAX, false),
        ] {
            assert_eq!(in_order(newest, sequence).is_ok(), news, "{sequence} after {newest}");
        }
    }
}
