//! IPv4 subnets: who is a neighbour.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// A range of IPv4 addresses: those that share the first `prefix` bits with `address`.
///
/// ```
/// use discovery::driver::Subnet;
/// let shop: Subnet = "10.57.1.9/24".parse()?;
/// assert_eq!(shop.to_string(), "10.57.1.0/24");
/// assert_eq!(shop.broadcast().to_string(), "10.57.1.255");
/// # Ok::<(), discovery::driver::NotASubnet>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: u32,
    prefix: u8,
}

impl Subnet {
    /// The subnet of `address`; a prefix above 32 counts as 32.
    #[must_use]
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { network: address.to_bits() & mask(prefix), prefix }
    }

    /// Bits of the network part, 0 to 32.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network
    }

    /// Its last address.
    #[must_use]
    pub const fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | !mask(self.prefix))
    }
}

const fn mask(prefix: u8) -> u32 {
    match u32::MAX.checked_shl(32_u32.saturating_sub(prefix as u32)) {
        Some(mask) => mask,
        None => 0,
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.network), self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is neither an IPv4 address nor one with a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a subnet is an IPv4 address and a prefix from 0 to 32, such as 10.57.0.0/16")]
pub struct NotASubnet;

impl FromStr for Subnet {
    type Err = NotASubnet;

    fn from_str(text: &str) -> Result<Self, NotASubnet> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address = address.parse().map_err(|_| NotASubnet)?;
        match prefix.parse() {
            Ok(prefix @ 0..=32) => Ok(Self::new(address, prefix)),
            _ => Err(NotASubnet),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_at_both_ends() {
        for (text, inside, outside, broadcast) in [
            ("10.57.1.9/24", "10.57.1.255", "10.57.2.0", "10.57.1.255"),
            ("10.57.1.9", "10.57.1.9", "10.57.1.8", "10.57.1.9"),
            ("128.0.0.0/1", "255.255.255.255", "127.255.255.255", "255.255.255.255"),
            ("10.0.0.1/30", "10.0.0.3", "10.0.0.4", "10.0.0.3"),
        ] {
            let subnet: Subnet = text.parse().unwrap();
            assert!(subnet.contains(ip(inside)) && !subnet.contains(ip(outside)), "{text}");
            assert_eq!(subnet.broadcast(), ip(broadcast), "{text}");
        }
        let all: Subnet = "1.2.3.4/0".parse().unwrap();
        assert!(all.contains(ip("255.1.1.1")));
        assert_eq!(Subnet::new(ip("1.2.3.4"), 99).prefix(), 32);
        for text in ["10.0.0.0/33", "10.0.0/8", "", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Subnet>(), Err(NotASubnet), "{text}");
        }
    }
}
