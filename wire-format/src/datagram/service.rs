//! SERVICES: what a node offers on which port. 1 to 32 entries of 8 bytes.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 2 | service id | 1 is HTTP; 0x8000 and above are the integrator's |
//! | 2 | 2 | port | where it listens, at the sender's address |
//! | 4 | 1 | protocol | IP protocol number: 6 TCP, 17 UDP |
//! | 5 | 1 | flags | meaning by service |
//! | 6 | 2 | version | meaning by service |

use core::fmt;

use crate::error::Fault;

/// Bytes of one service on the wire.
pub const SERVICE_LEN: usize = 8;
/// Services of one node.
pub const SERVICES_MAX: usize = 32;

/// One service of a node. Unknown numbers are kept and passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// What is served: [`Service::HTTP`], or from 0x8000 on the integrator's number.
    pub id: u16,
    /// The port, at the sender's address.
    pub port: u16,
    /// IP protocol number: [`Service::TCP`] or [`Service::UDP`].
    pub protocol: u8,
    /// Meaning by service.
    pub flags: u8,
    /// Meaning by service.
    pub version: u16,
}

impl Service {
    /// Service id 1: HTTP (the store server's 80 and 8000 to 8005).
    pub const HTTP: u16 = 1;
    /// IP protocol number of TCP.
    pub const TCP: u8 = 6;
    /// IP protocol number of UDP.
    pub const UDP: u8 = 17;

    /// The service in these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; SERVICE_LEN]) -> Self {
        let [id0, id1, port0, port1, protocol, flags, version0, version1] = bytes;
        Self {
            id: u16::from_le_bytes([id0, id1]),
            port: u16::from_le_bytes([port0, port1]),
            protocol,
            flags,
            version: u16::from_le_bytes([version0, version1]),
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; SERVICE_LEN] {
        let [id0, id1] = self.id.to_le_bytes();
        let [port0, port1] = self.port.to_le_bytes();
        let [version0, version1] = self.version.to_le_bytes();
        [id0, id1, port0, port1, self.protocol, self.flags, version0, version1]
    }
}

/// The services of a datagram, still in its bytes. 1 to 32 of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Services<'a>(&'a [[u8; SERVICE_LEN]]);

impl<'a> Services<'a> {
    #[inline]
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, Fault> {
        if value.is_empty() || !value.len().is_multiple_of(SERVICE_LEN) {
            Err(Fault::Length)
        } else if value.len() > SERVICES_MAX * SERVICE_LEN {
            Err(Fault::TooMany)
        } else {
            Ok(Self(value.as_chunks().0))
        }
    }

    /// The services in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Service> + use<'a> {
        self.0.iter().map(|&bytes| Service::from_bytes(bytes))
    }

    /// How many, 1 to 32.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// The bytes as on the wire, [`SERVICE_LEN`] each.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0.as_flattened()
    }
}

impl fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Room for `N` services (at most 32), kept as on the wire: for configurations and rosters.
///
/// ```
/// use wire_format::datagram::{Service, ServiceList};
/// let http = Service { id: Service::HTTP, port: 8000, protocol: Service::TCP, flags: 0, version: 1 };
/// let mut list = ServiceList::<4>::EMPTY;
/// assert!(list.push(http));
/// assert_eq!(list.as_services().map(|services| services.count()), Some(1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServiceList<const N: usize = SERVICES_MAX> {
    len: u8,
    entries: [[u8; SERVICE_LEN]; N],
}

impl<const N: usize> ServiceList<N> {
    /// No service.
    pub const EMPTY: Self = {
        assert!(N <= SERVICES_MAX);
        Self { len: 0, entries: [[0; SERVICE_LEN]; N] }
    };

    /// Adds a service; `false` if there is no room.
    #[must_use]
    pub fn push(&mut self, service: Service) -> bool {
        let Some(entry) = self.entries.get_mut(usize::from(self.len)) else { return false };
        *entry = service.to_bytes();
        self.len = self.len.saturating_add(1);
        true
    }

    /// A copy of the first `N` of `services`.
    #[must_use]
    pub fn copy_of(services: Services<'_>) -> Self {
        let mut list = Self::EMPTY;
        for service in services.iter().take(N) {
            let _fits = list.push(service);
        }
        list
    }

    /// The services as a datagram carries them; `None` if there is none.
    #[must_use]
    pub fn as_services(&self) -> Option<Services<'_>> {
        self.entries.get(..usize::from(self.len)).filter(|entries| !entries.is_empty()).map(Services)
    }

    /// The services in their order.
    pub fn iter(&self) -> impl Iterator<Item = Service> {
        self.as_services().into_iter().flat_map(|services| services.iter())
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> Default for ServiceList<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> fmt::Debug for ServiceList<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
