//! What happened, as the cores tell it.

use core::net::SocketAddrV4;

use wire_format::datagram::ack::Code;
use wire_format::datagram::bye::Reason;
use wire_format::error::ParseError;
use wire_format::ids::NodeId;

/// Something changed in the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises by exactly 1 with each event handed out: whoever sees a gap has missed one and reads the roster again.
    pub generation: u64,
    /// The device (of DualServer and ServerCloned: the other server).
    pub id: NodeId,
    /// Where it takes orders: the address its datagrams come from, and the port it announced.
    pub address: SocketAddrV4,
    /// What happened.
    pub what: What,
}

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It registered, and was not known.
    Joined,
    /// It says something else about itself.
    Changed {
        /// What is different.
        fields: Fields,
    },
    /// It booted: sessions from before are dead.
    Rebooted {
        /// Its epoch before.
        before: u32,
        /// Its epoch now.
        epoch: u32,
    },
    /// It has another address; the old one was silent when asked.
    Moved {
        /// Where it took orders before.
        from: SocketAddrV4,
    },
    /// No sign of life for 2/3 of the lease; it is being asked.
    Suspect,
    /// A suspected, lost or left device is here again.
    Back,
    /// No sign of life for a whole lease.
    Lost,
    /// It said goodbye, and did not answer when asked.
    Left,
    /// Two live devices have this id; the one known first stays. At most once a minute for one id.
    Conflict {
        /// Where the other one announced from.
        rival: SocketAddrV4,
    },
    /// Another server serves the same store. At most once a minute.
    DualServer,
    /// Another server has the very id of this one: a copy of its disk, or its state directory. Devices cannot tell the two
    /// apart. At most once a minute.
    ServerCloned,
    /// A device was turned away. At most once a minute for all.
    Refused {
        /// Why, as it was told.
        why: Code,
    },
}

/// A set of things a device says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fields(pub(crate) u16);

impl Fields {
    /// Its kind.
    pub const KIND: Self = Self(0x001);
    /// Its display name.
    pub const NAME: Self = Self(0x002);
    /// The port where it takes orders.
    pub const PORT: Self = Self(0x004);
    /// Its zone.
    pub const ZONE: Self = Self(0x008);
    /// Its tags.
    pub const TAGS: Self = Self(0x010);
    /// Its services.
    pub const SERVICES: Self = Self(0x020);
    /// Its firmware.
    pub const FIRMWARE: Self = Self(0x040);
    /// Its capabilities.
    pub const CAPS: Self = Self(0x080);
    /// The product's code of it.
    pub const CODE: Self = Self(0x100);

    /// Whether every field of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn insert_if(&mut self, other: Self, on: bool) {
        if on {
            self.0 |= other.0;
        }
    }
}

/// Something changed for a device that looks for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekerEvent {
    /// A server of the device's store was heard; the device will register with it.
    ServerFound {
        /// The server.
        id: NodeId,
        /// Its address, with its HTTP base port.
        address: SocketAddrV4,
    },
    /// The server knows this device now.
    Registered {
        /// The server.
        id: NodeId,
        /// Its address, with its HTTP base port.
        address: SocketAddrV4,
    },
    /// Nothing was heard of the server for three beacon intervals; the device looks again.
    ServerLost {
        /// The server.
        id: NodeId,
    },
    /// The server said goodbye; the device looks again after a while.
    ServerLeft {
        /// The server.
        id: NodeId,
        /// Why.
        reason: Reason,
    },
    /// The server turned the device away; the device tries again later.
    Refused {
        /// The server.
        id: NodeId,
        /// Why.
        status: Code,
    },
    /// A device without a store heard a server that is not in its list.
    CandidateFound {
        /// The server.
        id: NodeId,
        /// Its address, with its HTTP base port.
        address: SocketAddrV4,
    },
    /// A listed server says something else about itself, or is at another address.
    CandidateChanged {
        /// The server.
        id: NodeId,
        /// Its address, with its HTTP base port.
        address: SocketAddrV4,
    },
    /// A listed server said goodbye, was silent for 35 s, or gave its place to a newcomer.
    CandidateGone {
        /// The server.
        id: NodeId,
    },
}

/// Why a datagram changed nothing. Each has a counter in [`Stats`](crate::Stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// Not the protocol's, or damaged.
    #[error("malformed: {0}")]
    Malformed(#[from] ParseError),
    /// A kind this side does not take.
    #[error("a kind that is not for this side")]
    Misdirected,
    /// Staging met production.
    #[error("staging and production never talk")]
    Staging,
    /// Another store, or none.
    #[error("another store")]
    Store,
    /// Our own datagram came back.
    #[error("our own datagram")]
    Own,
    /// A source no answer may go to: a well-known port, or not one host.
    #[error("a source that may not be answered")]
    Source,
    /// More datagrams from this source than 16 a second.
    #[error("too many datagrams from this source")]
    Rate,
    /// A copy of a datagram seen before, or one overtaken by a newer one.
    #[error("seen before, or overtaken by a newer one")]
    Duplicate,
    /// Authenticated mode: it has no tag.
    #[error("it has no tag")]
    NoTag,
    /// Authenticated mode: its key has a number that is not known, or its tag an algorithm that is not.
    #[error("its key is not known")]
    UnknownKey,
    /// Authenticated mode: from a device that has no key: never enrolled, or revoked.
    #[error("from a device that has no key")]
    UnknownDevice,
    /// Authenticated mode: the tag is not the one the key gives: forged, or another key.
    #[error("the tag is wrong")]
    WrongTag,
    /// Authenticated mode: seen before, under a right tag.
    #[error("seen before, under a right tag")]
    Replayed,
    /// Authenticated mode: from a boot or an address not known yet, or from so long ago that nobody remembers. It may be
    /// a recording, so the sender was asked to prove that it is alive (once a second and boot).
    #[error("not proven to be of now; its sender was asked")]
    Unproven,
    /// From an earlier boot of its sender.
    #[error("from an earlier boot of its sender")]
    Stale,
    /// From a node that is not known, or not at the address where it is known.
    #[error("a sender that is not known at this address")]
    Unknown,
    /// An answer that carries another cookie than the question did.
    #[error("the cookie does not match")]
    Cookie,
    /// Too short to be answered without sending more than came.
    #[error("too short to be answered")]
    Short,
    /// Another device has this id; it is asked, or it answered already.
    #[error("another device has this id")]
    Contested,
    /// No room in the roster.
    #[error("no room in the roster")]
    Full,
    /// More devices at this address than allowed.
    #[error("more devices at this address than allowed")]
    Crowded,
    /// An unknown device in a long rush: it was told when to come back.
    #[error("too many devices at once: told to come back")]
    Busy,
    /// Nothing we wait for.
    #[error("not expected now")]
    Unexpected,
    /// This side has said goodbye.
    #[error("stopped")]
    Stopped,
}
