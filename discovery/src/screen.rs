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
    /// `None` for a device that belongs to no store yet.
    store: Option<Store>,
    scope: u32,
    staging: bool,
    /// A server: it answers devices that look for any store.
    server: bool,
}

impl Screen {
    pub(crate) fn of_server(id: NodeId, store: Store, staging: bool) -> Self {
        Self { server: true, ..Self::of_device(id, Some(store), staging) }
    }

    pub(crate) fn of_device(id: NodeId, store: Option<Store>, staging: bool) -> Self {
        Self { id, store, scope: store.map_or(0, |store| store.scope()), staging, server: false }
    }

    /// The part of our own headers that never changes.
    pub(crate) const fn node(&self, role: DeviceKind) -> Node {
        Node { scope: self.scope, staging: self.staging, ..Node::new(self.id, role) }
    }

    /// The datagram is whole, of our store and side of staging or for everybody, somebody else's, sent the way its kind is,
    /// and from a source that may be answered.
    #[inline]
    pub(crate) fn open(&self, arrival: &Arrival, datagram: &[u8]) -> Result<Header, Dropped> {
        let header = Header::parse(datagram)?;
        if header.from.staging != self.staging || header.from.scope != self.scope || self.scope == 0 {
            self.takes_from_elsewhere(&header)?;
        }
        if header.from.id == self.id {
            Err(Dropped::Own)
        } else if arrival.broadcast && unicast_only(header.kind) {
            Err(Dropped::Misdirected)
        } else if !answerable(arrival.source) {
            Err(Dropped::Source)
        } else {
            Ok(header)
        }
    }

    /// What passes although it is not of our store and side of staging: the question of a device that has no store yet, at a
    /// server and at its like; and at such a device what servers say to everybody.
    fn takes_from_elsewhere(&self, header: &Header) -> Result<(), Dropped> {
        let asks_all = header.kind == Kind::Seek && header.from.scope == 0;
        let passes = match self.store {
            None => asks_all || matches!(header.kind, Kind::Beacon | Kind::Bye) && header.from.scope != 0,
            Some(_) => asks_all && self.server,
        };
        if passes {
            Ok(())
        } else if self.store.is_some() && header.from.staging != self.staging {
            Err(Dropped::Staging)
        } else {
            Err(Dropped::Store)
        }
    }

    /// The full store, where a kind carries it: the header's scope is only a hash.
    #[inline]
    pub(crate) fn store(&self, store: Option<StoreRef<'_>>) -> Result<(), Dropped> {
        match (store, &self.store) {
            (Some(store), Some(ours)) if store.is(ours) => Ok(()),
            _ => Err(Dropped::Store),
        }
    }

    /// What a SEEK looks for: our store, or with scope 0 and without STORE any.
    pub(crate) fn sought(&self, from: &Node, store: Option<StoreRef<'_>>) -> Result<(), Dropped> {
        match (from.scope, store) {
            (0, None) => Ok(()),
            (0, Some(_)) => Err(Dropped::Store),
            _ => self.store(store),
        }
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
