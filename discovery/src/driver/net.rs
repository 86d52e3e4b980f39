//! Which interfaces discovery uses, and to which of them a datagram belongs. Pure: lists in, decisions out.

use core::net::Ipv4Addr;

use super::{Net, Subnet};
use crate::LinkId;
use crate::link::LINKS_MAX;

/// The narrowest subnet that has a broadcast address besides two hosts.
pub const PREFIX_MAX: u8 = 30;

/// Interfaces that reach no shop floor: containers, virtual machines, tunnels. Left out unless [`Net::allow`] names
/// them. Compared without regard to case.
pub const NAMES_LEFT_OUT: [&str; 13] = [
    "docker*",
    "br-*",
    "veth*",
    "virbr*",
    "vEthernet*",
    "podman*",
    "cni*",
    "tun*",
    "tap*",
    "wg*",
    "tailscale*",
    "zt*",
    "zerotier*",
];

/// One IPv4 address of one interface, as the operating system reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name, such as `eth0` or `Ethernet 2`.
    pub name: String,
    /// The system's number for it, 0 if it has none to tell.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network part.
    pub prefix: u8,
    /// The broadcast address, if one is set; else it follows from address and prefix.
    pub broadcast: Option<Ipv4Addr>,
    /// Up, and with a carrier.
    pub up: bool,
    /// It has one other end instead of a subnet.
    pub point_to_point: bool,
}

impl Interface {
    /// The interfaces of this host that have an IPv4 address.
    pub fn scan() -> std::io::Result<Vec<Self>> {
        let found = if_addrs::get_if_addrs()?;
        // Linux reports an address under its label (`eth0:1`), which has no index of its own.
        let index_of = |name: &str| {
            let base = name.split(':').next();
            found.iter().find(|other| Some(other.name.as_str()) == base).and_then(|other| other.index)
        };
        Ok(found
            .iter()
            .filter_map(|one| {
                let if_addrs::IfAddr::V4(v4) = &one.addr else { return None };
                Some(Self {
                    name: one.name.clone(),
                    index: one.index.or_else(|| index_of(&one.name)).unwrap_or(0),
                    address: v4.ip,
                    prefix: v4.prefixlen,
                    broadcast: v4.broadcast,
                    up: one.is_oper_up(),
                    point_to_point: one.is_p2p(),
                })
            })
            .collect())
    }

    /// Why discovery leaves this interface out under the rules of `net`, or `None`: it is used.
    #[must_use]
    pub fn left_out(&self, net: &Net) -> Option<LeftOut> {
        let listed = |list: &[String]| list.iter().any(|pattern| matches(pattern, &self.name));
        let allowed = listed(&net.allow);
        if listed(&net.deny) {
            Some(LeftOut::Denied)
        } else if !self.up {
            Some(LeftOut::Down)
        } else if self.address.is_loopback() {
            Some(LeftOut::Loopback)
        } else if self.prefix == 0 || self.prefix > PREFIX_MAX {
            Some(LeftOut::NoSubnet)
        } else if self.point_to_point && !allowed {
            Some(LeftOut::PointToPoint)
        } else if !allowed && NAMES_LEFT_OUT.iter().any(|pattern| matches(pattern, &self.name)) {
            Some(LeftOut::Virtual)
        } else if net.filter.as_ref().is_some_and(|filter| !filter.accepts(self)) {
            Some(LeftOut::Filtered)
        } else {
            None
        }
    }

    fn link(&self) -> Link {
        let subnet = Subnet::new(self.address, self.prefix);
        Link {
            index: self.index,
            address: self.address,
            subnet,
            broadcast: self.own_broadcast().unwrap_or_else(|| subnet.broadcast()),
        }
    }

    /// The broadcast address that is set. Linux reports the address itself where none is.
    fn own_broadcast(&self) -> Option<Ipv4Addr> {
        let subnet = Subnet::new(self.address, self.prefix);
        self.broadcast.filter(|&set| set != self.address && subnet.contains(set))
    }
}

/// Why an interface is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftOut {
    /// [`Net::deny`] names it.
    Denied,
    /// It is down, or has no carrier.
    Down,
    /// It leads nowhere else: usable through [`Net::bind`] only.
    Loopback,
    /// Its prefix leaves no room for a broadcast address, or is 0.
    NoSubnet,
    /// It has one other end instead of a subnet.
    PointToPoint,
    /// Its name is one of [`NAMES_LEFT_OUT`].
    Virtual,
    /// [`Net::filter`] refused it.
    Filtered,
}

/// Whether `name` is `pattern`, or begins with it where the pattern ends in `*`. Letter case does not count.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)),
        None => name.eq_ignore_ascii_case(pattern),
    }
}

/// One subnet of one interface: where a broadcast goes out, and what counts as on-link there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The interface's number; 0: not known, any interface may be meant.
    pub(crate) index: u32,
    /// Our address there: the source of everything sent.
    pub(crate) address: Ipv4Addr,
    /// Where its neighbours live.
    pub(crate) subnet: Subnet,
    /// The subnet's broadcast address.
    pub(crate) broadcast: Ipv4Addr,
}

impl Link {
    /// The link of [`Net::bind`]: `address` on the interface that owns it or whose subnet holds it, on loopback
    /// 127.0.0.0/8, else the largest subnet that `broadcast` closes.
    pub(crate) fn bound(address: Ipv4Addr, broadcast: Option<Ipv4Addr>, found: &[Interface]) -> Option<Self> {
        let owner = found.iter().find(|one| one.address == address);
        let owner = owner.or_else(|| {
            let holds = |one: &&Interface| {
                one.up && (1..=PREFIX_MAX).contains(&one.prefix) && one.link().subnet.contains(address)
            };
            found.iter().find(holds)
        });
        let subnet = match (owner, broadcast) {
            _ if address.is_loopback() => Subnet::new(address, 8),
            (Some(owner), _) => Subnet::new(address, owner.prefix),
            (None, Some(broadcast)) => {
                let host_bits = broadcast.to_bits().trailing_ones().min(32);
                let subnet =
                    Subnet::new(address, u8::try_from(32_u32.saturating_sub(host_bits)).unwrap_or(0));
                (subnet.prefix() > 0 && subnet.broadcast() == broadcast).then_some(subnet)?
            }
            (None, None) => return None,
        };
        let own = owner.filter(|_| !address.is_loopback()).and_then(Interface::own_broadcast);
        let broadcast = broadcast.or(own).unwrap_or_else(|| subnet.broadcast());
        Some(Self { index: 0, address, subnet, broadcast })
    }

    /// Whether its address is there, on an interface that is up.
    pub(crate) fn is_up(&self, found: &[Interface]) -> bool {
        found.iter().any(|one| one.address == self.address && one.up)
    }
}

/// What a re-scan changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Down(LinkId),
    Up(LinkId),
}

/// Why a datagram belongs to no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Its source lies outside the subnet it arrived from, and is not an allowed one.
    OffLink,
    /// It was addressed to another interface's address.
    Misaddressed,
}

/// The links in use, each under a number that stays its own while it lasts.
#[derive(Debug, Default)]
pub(crate) struct Links {
    slots: [Option<Link>; LINKS_MAX],
}

impl Links {
    /// Takes over what is usable now and tells what changed: everything that went first, then what came. Links beyond
    /// [`LINKS_MAX`] are left out.
    pub(crate) fn update(&mut self, usable: &[Link]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, slot) in (0_u8..).zip(&mut self.slots) {
            if slot.is_some_and(|link| !usable.contains(&link)) {
                *slot = None;
                changes.push(Change::Down(LinkId(id)));
            }
        }
        for link in usable {
            if self.slots.contains(&Some(*link)) {
                continue;
            }
            if let Some((id, slot)) = (0_u8..).zip(&mut self.slots).find(|(_, slot)| slot.is_none()) {
                *slot = Some(*link);
                changes.push(Change::Up(LinkId(id)));
            }
        }
        changes
    }

    /// The link with this number.
    pub(crate) fn find(&self, id: LinkId) -> Option<&Link> {
        self.slots.get(usize::from(id.0)).and_then(Option::as_ref)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// The link a datagram arrived on ([`LinkId::ROUTED`] from beyond a router), and whether it was broadcast.
    ///
    /// `index` and `destination` are what the system tells about the arrival; `allowed` says whether an off-link
    /// source is one we expect (a seed behind a router). The kernel hands over datagrams for the address of another
    /// interface and from any source, so both checks are ours.
    pub(crate) fn arrival(
        &self,
        index: Option<u32>,
        destination: Option<Ipv4Addr>,
        source: Ipv4Addr,
        allowed: impl FnOnce(Ipv4Addr) -> bool,
    ) -> Result<(LinkId, bool), Foreign> {
        let links = || (0_u8..).zip(&self.slots).filter_map(|(id, slot)| Some((LinkId(id), slot.as_ref()?)));
        let here = |link: &Link| link.index == 0 || index.is_none_or(|index| index == link.index);
        if let Some((id, link)) = links().find(|(_, link)| here(link) && link.subnet.contains(source)) {
            return match destination {
                None => Ok((id, false)),
                Some(to) if to == link.broadcast || to.is_broadcast() => Ok((id, true)),
                Some(to) if link.subnet.contains(to) => Ok((id, to == link.subnet.broadcast())),
                Some(_) => Err(Foreign::Misaddressed),
            };
        }
        if !allowed(source) {
            return Err(Foreign::OffLink);
        }
        // From beyond a router it may come by any interface, and only unicast comes that way.
        let broadcast = |to: Ipv4Addr| to.is_broadcast() || links().any(|(_, link)| to == link.broadcast);
        if destination.is_some_and(broadcast) { Err(Foreign::OffLink) } else { Ok((LinkId::ROUTED, false)) }
    }
}

/// The links of a scan under the rules of `net`: one per subnet of an interface, in the order of the scan.
pub(crate) fn usable(found: &[Interface], net: &Net) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for one in found.iter().filter(|one| one.left_out(net).is_none()) {
        let link = one.link();
        let same = |other: &Link| other.index == link.index && other.subnet == link.subnet;
        if link.index == 0 || !links.iter().any(same) {
            links.push(link);
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Filter;

    fn interface(name: &str, index: u32, address: &str) -> Interface {
        let (address, prefix) = address.split_once('/').unwrap();
        let (address, prefix) = (address.parse().unwrap(), prefix.parse().unwrap());
        let (name, broadcast) = (name.to_owned(), None);
        Interface { name, index, address, prefix, broadcast, up: true, point_to_point: false }
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn links(found: &[Interface]) -> Links {
        let mut links = Links::default();
        links.update(&usable(found, &Net::default()));
        links
    }

    #[test]
    fn interfaces_that_reach_no_shop_floor_are_left_out() {
        let net = Net::default();
        let down = Interface { up: false, ..interface("eth0", 2, "10.0.0.1/24") };
        let tunnel = Interface { point_to_point: true, ..interface("ppp0", 3, "10.0.0.1/24") };
        for (one, expected) in [
            (interface("eth0", 2, "10.0.0.1/24"), None),
            (interface("Ethernet 2", 2, "169.254.7.7/16"), None),
            (interface("eth0", 2, "10.0.0.1/30"), None),
            (interface("eth0", 2, "10.0.0.1/31"), Some(LeftOut::NoSubnet)),
            (interface("eth0", 2, "10.0.0.1/0"), Some(LeftOut::NoSubnet)),
            (interface("lo", 1, "127.0.0.1/8"), Some(LeftOut::Loopback)),
            (down, Some(LeftOut::Down)),
            (tunnel, Some(LeftOut::PointToPoint)),
            (interface("docker0", 4, "172.17.0.1/16"), Some(LeftOut::Virtual)),
            (interface("br-1f00aa", 4, "172.18.0.1/16"), Some(LeftOut::Virtual)),
            (interface("br0", 4, "10.0.0.1/24"), None),
            (interface("veth12", 4, "10.0.0.1/24"), Some(LeftOut::Virtual)),
            (interface("vEthernet (WSL)", 4, "172.20.0.1/20"), Some(LeftOut::Virtual)),
            (interface("tailscale0", 4, "100.64.0.1/10"), Some(LeftOut::Virtual)),
        ] {
            assert_eq!(one.left_out(&net), expected, "{one:?}");
        }
    }

    #[test]
    fn what_is_allowed_denied_and_filtered() {
        let veth = interface("veth12", 4, "10.0.0.1/24");
        let tunnel = Interface { point_to_point: true, ..interface("wg0", 3, "10.0.0.1/24") };
        let allow = Net { allow: vec!["veth*".into(), "WG0".into()], ..Net::default() };
        assert_eq!((veth.left_out(&allow), tunnel.left_out(&allow)), (None, None));
        let denied = Net { deny: vec!["veth12".into()], ..allow.clone() };
        assert_eq!((veth.left_out(&denied), tunnel.left_out(&denied)), (Some(LeftOut::Denied), None));
        let filter = Some(Filter::new(|one| one.index == 3));
        let filtered = Net { filter, ..allow };
        assert_eq!((veth.left_out(&filtered), tunnel.left_out(&filtered)), (Some(LeftOut::Filtered), None));
    }

    #[test]
    fn one_link_for_each_subnet_of_an_interface() {
        let found = [
            interface("eth0", 2, "10.57.1.1/24"),
            interface("eth0", 2, "10.57.1.2/24"),
            interface("eth0", 2, "192.168.7.1/24"),
            interface("eth1", 3, "10.57.1.3/24"),
        ];
        let addresses: Vec<_> = usable(&found, &Net::default()).iter().map(|link| link.address).collect();
        assert_eq!(addresses, [ip("10.57.1.1"), ip("192.168.7.1"), ip("10.57.1.3")]);
    }

    #[test]
    fn a_broadcast_address_that_cannot_be_one_is_worked_out() {
        for (set, expected) in [
            (None, "10.57.1.255"),
            (Some("10.57.1.255"), "10.57.1.255"),
            (Some("10.57.1.127"), "10.57.1.127"),
            (Some("10.57.1.1"), "10.57.1.255"),
            (Some("0.0.0.0"), "10.57.1.255"),
            (Some("10.58.255.255"), "10.57.1.255"),
        ] {
            let one = Interface { broadcast: set.map(ip), ..interface("eth0", 2, "10.57.1.1/24") };
            assert_eq!(one.link().broadcast, ip(expected), "{set:?}");
        }
    }

    #[test]
    fn numbers_last_as_long_as_their_link() {
        let one = interface("eth0", 2, "10.57.1.1/24");
        let two = interface("eth1", 3, "10.57.2.1/24");
        let three = interface("eth1", 3, "10.57.3.1/24");
        let scan = |found: &[&Interface]| {
            usable(&found.iter().copied().cloned().collect::<Vec<_>>(), &Net::default())
        };
        let mut links = Links::default();
        assert_eq!(links.update(&scan(&[&one, &two])), [Change::Up(LinkId(0)), Change::Up(LinkId(1))]);
        assert_eq!(links.update(&scan(&[&two, &one])), []);
        assert_eq!(links.update(&scan(&[&two])), [Change::Down(LinkId(0))]);
        assert_eq!(links.find(LinkId(1)).map(|link| link.address), Some(ip("10.57.2.1")));
        assert_eq!(links.update(&scan(&[&three])), [Change::Down(LinkId(1)), Change::Up(LinkId(0))]);
        assert_eq!(links.find(LinkId::ROUTED), None);
    }

    #[test]
    fn links_at_the_limit_and_one_past_it() {
        let found: Vec<_> = (1..=17).map(|n: u32| interface("eth", n, &format!("10.57.{n}.1/24"))).collect();
        let mut links = Links::default();
        assert_eq!(links.update(&usable(&found[..LINKS_MAX], &Net::default())).len(), LINKS_MAX);
        assert_eq!(links.update(&usable(&found, &Net::default())), [], "one too many is left out");
        assert_eq!(
            links.update(&usable(&found[1..], &Net::default())).len(),
            2,
            "and taken when there is room"
        );
    }

    #[test]
    fn a_datagram_belongs_to_the_link_it_came_by() {
        let links = links(&[interface("eth0", 2, "10.57.1.1/24"), interface("eth1", 3, "10.57.1.2/24")]);
        let arrival = |index, to: &str| links.arrival(Some(index), Some(ip(to)), ip("10.57.1.9"), |_| false);
        assert_eq!(arrival(2, "10.57.1.1"), Ok((LinkId(0), false)));
        assert_eq!(arrival(3, "10.57.1.2"), Ok((LinkId(1), false)));
        assert_eq!(arrival(3, "10.57.1.255"), Ok((LinkId(1), true)));
        assert_eq!(arrival(2, "255.255.255.255"), Ok((LinkId(0), true)));
        assert_eq!(arrival(2, "10.57.2.1"), Err(Foreign::Misaddressed));
        assert_eq!(arrival(4, "10.57.1.1"), Err(Foreign::OffLink), "by an interface that is not used");
        let untold = links.arrival(None, None, ip("10.57.1.9"), |_| false);
        assert_eq!(untold, Ok((LinkId(0), false)));
    }

    #[test]
    fn strangers_are_heard_only_if_allowed_and_only_by_unicast() {
        let links = links(&[interface("eth0", 2, "10.57.1.1/24")]);
        let seed = ip("10.99.0.1");
        let arrival =
            |source, to: &str| links.arrival(Some(2), Some(ip(to)), source, |source| source == seed);
        assert_eq!(arrival(ip("10.57.2.9"), "10.57.1.1"), Err(Foreign::OffLink));
        assert_eq!(arrival(ip("10.57.2.9"), "255.255.255.255"), Err(Foreign::OffLink));
        assert_eq!(arrival(seed, "10.57.1.1"), Ok((LinkId::ROUTED, false)));
        assert_eq!(arrival(seed, "255.255.255.255"), Err(Foreign::OffLink));
        assert_eq!(arrival(seed, "10.57.1.255"), Err(Foreign::OffLink));
        let none = Links::default().arrival(Some(7), Some(ip("10.1.1.1")), seed, |_| true);
        assert_eq!(none, Ok((LinkId::ROUTED, false)), "also by an interface that is not used");
    }

    #[test]
    fn a_bound_address_finds_its_subnet() {
        let found = [
            interface("lo", 1, "127.0.0.1/8"),
            interface("eth0", 2, "10.57.1.1/24"),
            Interface { broadcast: Some(ip("10.58.255.255")), ..interface("eth1", 3, "10.58.1.1/16") },
            interface("eth2", 4, "10.59.0.1/31"),
        ];
        for (address, given, expected) in [
            ("127.3.4.5", None, Some("127.255.255.255")),
            ("127.3.4.5", Some("127.3.255.255"), Some("127.3.255.255")),
            ("10.57.1.1", None, Some("10.57.1.255")),
            ("10.57.1.77", None, Some("10.57.1.255")),
            ("10.58.1.1", None, Some("10.58.255.255")),
            ("10.57.1.1", Some("255.255.255.255"), Some("255.255.255.255")),
            ("10.60.1.1", None, None),
            ("10.60.1.1", Some("10.60.255.255"), Some("10.60.255.255")),
            ("10.60.1.1", Some("10.62.255.255"), None),
            ("10.60.1.1", Some("255.255.255.255"), None),
        ] {
            let link = Link::bound(ip(address), given.map(ip), &found);
            assert_eq!(link.map(|link| link.broadcast), expected.map(ip), "{address} {given:?}");
            assert!(link.is_none_or(|link| link.address == ip(address) && link.subnet.contains(ip(address))));
        }
        let bound = Link::bound(ip("10.57.1.1"), None, &found).unwrap();
        assert!(bound.is_up(&found) && !bound.is_up(&found[..1]));
    }
}
