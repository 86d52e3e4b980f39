//! Behind which interface of this host an address is.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tillwire::discovery::driver::Interface;
use tokio::time::Instant;

/// Interfaces are looked at again after this long: addresses come and go.
const LOOK_AFTER: Duration = Duration::from_secs(3);

/// The interfaces of this host, looked at now and then.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    found: Vec<Interface>,
    looked: Option<Instant>,
}

impl Ways {
    /// The interface whose subnet holds `address`, or `routed`: behind a router.
    pub(crate) fn to(&mut self, address: IpAddr) -> &str {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_AFTER) {
            // What cannot be looked at leaves what was seen before.
            if let Ok(found) = Interface::scan() {
                self.found = found;
            }
            self.looked = Some(Instant::now());
        }
        match address {
            IpAddr::V4(address) => nearest(&self.found, address).unwrap_or("routed"),
            IpAddr::V6(_) => "routed",
        }
    }
}

/// Of several that hold it, the one with the smallest subnet, as the system's own routes choose.
fn nearest(interfaces: &[Interface], address: Ipv4Addr) -> Option<&str> {
    let holds = |interface: &&Interface| {
        let differs = u32::from(interface.address) ^ u32::from(address);
        interface.up && differs.checked_shr(32 - u32::from(interface.prefix.min(32))).unwrap_or(0) == 0
    };
    let prefix = |interface: &&Interface| interface.prefix;
    interfaces.iter().filter(holds).max_by_key(prefix).map(|interface| interface.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_subnet_that_holds_an_address() {
        let interface = |name: &str, address: &str, prefix| Interface {
            name: name.to_owned(),
            index: 1,
            address: address.parse().unwrap(),
            prefix,
            broadcast: None,
            up: name != "down0",
            point_to_point: false,
        };
        let interfaces = [
            interface("lo", "127.0.0.1", 8),
            interface("eth0", "10.0.0.1", 16),
            interface("eth1", "10.0.7.1", 24),
            interface("down0", "10.0.7.1", 25),
        ];
        let near = |address: &str| nearest(&interfaces, address.parse().unwrap());
        assert_eq!(near("127.9.0.3"), Some("lo"));
        assert_eq!(near("10.0.8.1"), Some("eth0"));
        assert_eq!(near("10.0.7.99"), Some("eth1"));
        assert_eq!(near("10.1.0.1"), None);
        assert_eq!(nearest(&[interface("all", "10.0.0.1", 0)], Ipv4Addr::LOCALHOST), Some("all"));
        assert_eq!(Ways::default().to(IpAddr::from([127, 0, 0, 1])), "lo");
    }
}
