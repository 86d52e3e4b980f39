//! Where a datagram came from and where one goes, in terms the core can judge without a socket.

use core::net::{Ipv4Addr, SocketAddrV4};

/// Interfaces one node serves at most. A store server has two or three; a bit mask of 16 covers every one seen.
pub const LINKS_MAX: usize = 16;

/// An interface, numbered by the driver: 0 to 15, the same number as long as the interface is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub u8);

impl LinkId {
    /// No interface in particular: the operating system's routes decide. Only for a static seed behind a router.
    pub const ROUTED: Self = Self(u8::MAX);

    pub(crate) const fn bit(self) -> u16 {
        match 1_u16.checked_shl(self.0 as u32) {
            Some(bit) => bit,
            None => 0,
        }
    }
}

/// How a datagram arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// On which interface.
    pub link: LinkId,
    /// From which address, as the network says. The driver has checked that it is on-link there, or a seed's.
    pub source: SocketAddrV4,
    /// It was sent to a broadcast address.
    pub broadcast: bool,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To everybody on this interface, at the discovery port, pinned to the interface.
    Broadcast(LinkId),
    /// To one address, out of this interface ([`LinkId::ROUTED`]: wherever the routes lead).
    Unicast(LinkId, SocketAddrV4),
}

/// A datagram that wants to leave: the first `len` bytes of the buffer handed to `poll_transmit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Destination,
    /// Bytes of the datagram.
    pub len: usize,
}

/// Lowest source port that is answered. Below live the services a forged source would make us talk to.
pub const ANSWERED_PORT_MIN: u16 = 1024;

/// Whether `source` may get an answer: one host, and no well-known port.
pub(crate) fn answerable(source: SocketAddrV4) -> bool {
    let ip = *source.ip();
    source.port() >= ANSWERED_PORT_MIN
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && ip != Ipv4Addr::BROADCAST
        && ip.octets()[0] < 240
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_hosts_and_high_ports_are_answered() {
        let cases = [
            ("10.1.2.3:57854", true),
            ("10.1.2.3:1024", true),
            ("127.0.0.9:57854", true),
            ("10.1.2.3:1023", false),
            ("10.1.2.3:53", false),
            ("0.0.0.0:57854", false),
            ("255.255.255.255:57854", false),
            ("224.0.0.251:57854", false),
            ("240.0.0.1:57854", false),
        ];
        for (source, expected) in cases {
            assert_eq!(answerable(source.parse().unwrap()), expected, "{source}");
        }
    }

    #[test]
    fn links_at_the_limit_and_one_past_it() {
        assert_eq!(LinkId(15).bit(), 0x8000);
        assert_eq!(LinkId(16).bit(), 0);
        assert_eq!(LinkId::ROUTED.bit(), 0);
    }
}
