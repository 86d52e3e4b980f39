//! ADDR: at which addresses a node can be reached. 1 to 4 entries, numeric, never host names.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | family | 4 or 6 |
//! | 1 | 1 | prefix | bits of the network part: at most 32, or 128 |
//! | 2 | 2 | metric | lower is tried first |
//! | 4 | 4 or 16 | address | by family, in network order |

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::Fault;

/// Addresses of one node.
pub const ADDRS_MAX: usize = 4;
/// Bytes of the longest list.
pub const ADDRS_LEN_MAX: usize = ADDRS_MAX * 20;

/// One address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addr {
    /// The address.
    pub address: IpAddr,
    /// Bits of its network part: at most 32, or 128.
    pub prefix: u8,
    /// Lower is tried first.
    pub metric: u16,
}

/// The addresses of a datagram, still in its bytes. 1 to 4 of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Addrs<'a>(&'a [u8]);

/// The first address of `bytes` and what follows it.
fn split_first(bytes: &[u8]) -> Result<(Addr, &[u8]), Fault> {
    let (&[family, prefix, metric0, metric1], rest) = bytes.split_first_chunk().ok_or(Fault::Length)?;
    let (address, prefix_max, rest) = match family {
        4 => {
            let (octets, rest) = rest.split_first_chunk::<4>().ok_or(Fault::Length)?;
            (IpAddr::V4(Ipv4Addr::from(*octets)), 32, rest)
        }
        6 => {
            let (octets, rest) = rest.split_first_chunk::<16>().ok_or(Fault::Length)?;
            (IpAddr::V6(Ipv6Addr::from(*octets)), 128, rest)
        }
        _ => return Err(Fault::Range),
    };
    if prefix > prefix_max {
        return Err(Fault::Range);
    }
    Ok((Addr { address, prefix, metric: u16::from_le_bytes([metric0, metric1]) }, rest))
}

impl<'a> Addrs<'a> {
    #[inline]
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, Fault> {
        Self::check(value).map(|()| Self(value))
    }

    fn check(value: &[u8]) -> Result<(), Fault> {
        let (_, mut rest) = split_first(value)?;
        for _ in 1..ADDRS_MAX {
            if rest.is_empty() {
                return Ok(());
            }
            (_, rest) = split_first(rest)?;
        }
        if rest.is_empty() { Ok(()) } else { Err(Fault::TooMany) }
    }

    /// The addresses in their order.
    pub fn iter(&self) -> impl Iterator<Item = Addr> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (addr, after) = split_first(rest).ok()?;
            rest = after;
            Some(addr)
        })
    }

    /// The bytes as on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Addrs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Up to 4 addresses, kept as on the wire: for what a sender says of itself.
///
/// ```
/// use wire_format::datagram::{Addr, AddrList};
/// let mut list = AddrList::EMPTY;
/// assert!(list.push(Addr { address: [10, 0, 0, 2].into(), prefix: 24, metric: 0 }));
/// assert!(!list.push(Addr { address: [10, 0, 0, 2].into(), prefix: 33, metric: 0 }), "a prefix is at most 32");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AddrList {
    len: u8,
    bytes: [u8; ADDRS_LEN_MAX],
}

impl AddrList {
    /// No address.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; ADDRS_LEN_MAX] };

    /// Adds an address; `false` if four are there or the prefix is too long.
    #[must_use]
    pub fn push(&mut self, addr: Addr) -> bool {
        let (family, octets, len, prefix_max) = match addr.address {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped().octets(), 4, 32),
            IpAddr::V6(v6) => (6, v6.octets(), 16, 128),
        };
        let Some((_, octets)) = octets.split_at_checked(16_usize.saturating_sub(len)) else { return false };
        let start = usize::from(self.len);
        let end = start.saturating_add(4).saturating_add(len);
        if addr.prefix > prefix_max || self.iter().count() >= ADDRS_MAX {
            return false;
        }
        let Some([to_family, to_prefix, metric0, metric1, to_octets @ ..]) = self.bytes.get_mut(start..end)
        else {
            return false;
        };
        *to_family = family;
        *to_prefix = addr.prefix;
        [*metric0, *metric1] = addr.metric.to_le_bytes();
        to_octets.copy_from_slice(octets);
        self.len = u8::try_from(end).unwrap_or(self.len);
        true
    }

    /// The addresses as a datagram carries them; `None` if there is none.
    #[must_use]
    pub fn as_addrs(&self) -> Option<Addrs<'_>> {
        self.bytes.get(..usize::from(self.len)).filter(|bytes| !bytes.is_empty()).map(Addrs)
    }

    /// The addresses in their order.
    pub fn iter(&self) -> impl Iterator<Item = Addr> {
        self.as_addrs().into_iter().flat_map(|addrs| addrs.iter())
    }
}

impl Default for AddrList {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for AddrList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
