//! An address as a device's slot keeps it: 24 bytes in place of 32.

use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket address without the flow label, which means nothing to who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// An IPv4 address as IPv6 maps it, if `v4`.
    ip: [u8; 16],
    scope: u32,
    port: u16,
    v4: bool,
}

impl Address {
    pub(crate) const NONE: Self = Self { ip: [0; 16], scope: 0, port: 0, v4: false };

    pub(crate) const fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => {
                Self { ip: v4.ip().to_ipv6_mapped().octets(), scope: 0, port: v4.port(), v4: true }
            }
            SocketAddr::V6(v6) => {
                Self { ip: v6.ip().octets(), scope: v6.scope_id(), port: v6.port(), v4: false }
            }
        }
    }

    pub(crate) fn get(self) -> SocketAddr {
        let ip = Ipv6Addr::from(self.ip);
        match ip.to_canonical() {
            IpAddr::V4(ip) if self.v4 => SocketAddrV4::new(ip, self.port).into(),
            _ => SocketAddrV6::new(ip, self.port, 0, self.scope).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in
            ["10.1.2.3:8081", "[::ffff:10.1.2.3]:8081", "[fe80::1%7]:1", "[2001:db8::2]:65535", "0.0.0.0:0"]
        {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::new(address).get(), address);
        }
        assert_eq!(size_of::<Address>(), 24);
    }
}
