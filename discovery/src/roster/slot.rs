//! What is kept of one device: at most 400 bytes, in the caller's storage.

use core::net::SocketAddrV4;

use wire_format::datagram::Firmware;
use wire_format::ids::{DeviceKind, NodeId, Tags};
use wire_format::time::Instant;

use crate::config::Services;
use crate::link::LinkId;

/// How sure the server is that a device is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Heard within 2/3 of the lease.
    Fresh,
    /// Not heard for 2/3 of the lease; it was asked.
    Suspect,
    /// Its push session is healthy.
    Linked,
    /// Not heard for a whole lease.
    Lost,
    /// It said goodbye.
    Left,
}

/// A device as the roster shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceView<'a> {
    /// Who it is.
    pub id: NodeId,
    /// What it is.
    pub kind: DeviceKind,
    /// Its display name, empty if it has none.
    pub name: &'a str,
    /// Where it takes orders: the address its datagrams come from, and the port it announced.
    pub address: SocketAddrV4,
    /// Where its datagrams come from.
    pub source: SocketAddrV4,
    /// The interface they arrive on.
    pub link: LinkId,
    /// Where it stands.
    pub zone: Option<u32>,
    /// Its tags.
    pub tags: &'a Tags,
    /// What it offers.
    pub services: &'a Services,
    /// What runs on it.
    pub firmware: Option<Firmware>,
    /// What it can do, as bits.
    pub caps: Option<u64>,
    /// Its boot epoch.
    pub epoch: u32,
    /// The last sign of life.
    pub heard: Instant,
    /// How sure we are that it is here.
    pub state: State,
}

/// Room for one device.
#[derive(Clone, Debug)]
pub struct Slot {
    id: NodeId,
}

impl Slot {
    /// Nobody.
    pub const EMPTY: Self = Self { id: NodeId::NONE };

    pub(super) fn view(&self) -> Option<DeviceView<'_>> {
        None
    }
}
