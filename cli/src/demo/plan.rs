//! What a demo is made of, worked out beforehand from its seed: who the devices are, what they are told, and how each
//! of them has to answer. The check at the end compares with this and not with what the server says of itself.

use std::net::Ipv4Addr;

use tillwire::{DeviceKind, Lane, NodeId, OrderKind, Outcome, Store, Tags, Target};
use wire_format::frame::order::KindFlags;
use wire_format::rng::{Rng, mix};

use super::{payloads, scene};

/// Devices of one demo: what the addresses below hold and one server takes.
pub(crate) const DEVICES_MAX: u32 = 10_000;
/// The server's address.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The broadcast address of loopback.
pub(crate) const BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
/// The order kind no device of a demo knows.
pub(crate) const UNKNOWN_KIND: OrderKind = OrderKind(0x80DE);

/// With so many orders, one device's lane gets stuck and free again.
const SCENE_FROM: u32 = 40;
/// Addresses used of each 127.57.h.0/24: neither .0 nor .255.
const HOSTS_PER_NET: u32 = 250;
/// Zones of the store.
const ZONES: u32 = 7;

/// The store of every demo. It is a test installation, so nothing productive on this machine hears of it.
pub(crate) fn store() -> Option<Store> {
    Store::new(0, "DEMO").ok()
}

/// A device of the demo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) id: NodeId,
    pub(crate) address: Ipv4Addr,
    pub(crate) kind: DeviceKind,
    pub(crate) zone: u32,
    pub(crate) tags: Tags,
}

impl Spec {
    /// Device number `index`, from 0.
    pub(crate) fn new(index: u32, seed: u64) -> Self {
        let octet = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
        let mut id = [0; 16];
        let high = mix(seed ^ mix(u64::from(index)));
        id[..8].copy_from_slice(&high.to_le_bytes());
        // The index in clear makes ids differ whatever the hash does.
        id[8..].copy_from_slice(&(u64::from(index) + 1).to_be_bytes());
        let mut tags = Tags::EMPTY;
        for (every, tag) in [(3, "front"), (5, "bakery")] {
            if index.is_multiple_of(every) {
                // Two short tags always fit.
                let _ = tags.push(tag);
            }
        }
        Self {
            id: NodeId(id),
            address: Ipv4Addr::new(127, 57, octet(index / HOSTS_PER_NET), octet(index % HOSTS_PER_NET + 1)),
            kind: match index % 10 {
                0..4 => DeviceKind::TILL,
                4..6 => DeviceKind::KIOSK,
                6..8 => DeviceKind::SIGNAGE,
                8 => DeviceKind::TABLET,
                _ => DeviceKind::PRINTER,
            },
            zone: index % ZONES + 1,
            tags,
        }
    }
}

/// Whom an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    All,
    Kind(DeviceKind),
    Zone(u32),
    Tag(&'static str),
    KindInZone(DeviceKind, u32),
    One(u32),
}

impl Whom {
    /// In the server's words.
    pub(crate) fn target(self, seed: u64) -> Target {
        match self {
            Self::All => Target::all(),
            Self::Kind(kind) => Target::kind(kind),
            Self::Zone(zone) => Target::zone(zone),
            Self::Tag(tag) => Target::tag(tag),
            Self::KindInZone(kind, zone) => Target::kind(kind).and_zone(zone),
            Self::One(index) => Target::id(Spec::new(index, seed).id),
        }
    }

    /// Whether device number `index` is meant, judged without the server.
    pub(crate) fn means(self, index: u32, spec: &Spec) -> bool {
        match self {
            Self::All => true,
            Self::Kind(kind) => spec.kind == kind,
            Self::Zone(zone) => spec.zone == zone,
            Self::Tag(tag) => spec.tags.contains(tag),
            Self::KindInZone(kind, zone) => spec.kind == kind && spec.zone == zone,
            Self::One(one) => one == index,
        }
    }
}

/// What an order does in the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of many.
    Mixed,
    /// Its device holds it until the urgent one comes.
    Held,
    /// It waits behind that.
    Queued,
    /// It waits, and is cancelled before its turn.
    Cancelled,
    /// A version of the same prices.
    Prices(u64),
    /// It passes all of them and releases nothing.
    Marker,
    /// It passes all of them, and its device releases what it held.
    Urgent,
}

/// An order of the demo and how it has to end.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) kind: OrderKind,
    pub(crate) schema: u16,
    pub(crate) lane: Lane,
    pub(crate) flags: KindFlags,
    pub(crate) payload: Vec<u8>,
    pub(crate) whom: Whom,
    pub(crate) outcome: Outcome,
    pub(crate) role: Role,
}

impl Planned {
    /// Whether the device's application is to see it: what ends before its turn, it never does.
    pub(crate) fn is_seen(&self) -> bool {
        !matches!(self.outcome, Outcome::CANCELLED | Outcome::SUPERSEDED)
    }

    /// Whether each device is to answer it with a result.
    pub(crate) fn wants_result(&self) -> bool {
        self.kind == OrderKind::STOCK_QUESTION
    }
}

/// The whole demo.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) devices: Vec<Spec>,
    pub(crate) orders: Vec<Planned>,
    /// Orders of the mixture; the others, if any, are the scene's.
    pub(crate) mixed: usize,
}

impl Plan {
    /// `devices` devices and `orders` orders whose payloads have about `bytes` bytes.
    pub(crate) fn new(devices: u32, orders: u32, bytes: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let devices: Vec<_> = (0..devices).map(|index| Spec::new(index, seed)).collect();
        // A demo with enough orders ends with the scene.
        let scene = if orders >= SCENE_FROM { scene::orders(bytes) } else { Vec::new() };
        let mixed = orders.saturating_sub(u32::try_from(scene.len()).unwrap_or(u32::MAX));
        let mut orders: Vec<_> = (0..mixed).map(|number| order(number, bytes, &devices, &mut rng)).collect();
        let mixed = orders.len();
        orders.extend(scene);
        Self { seed, devices, orders, mixed }
    }

    /// The devices an order is for.
    pub(crate) fn meant(&self, order: &Planned) -> impl Iterator<Item = u32> {
        let whom = order.whom;
        (0..).zip(&self.devices).filter(move |(index, spec)| whom.means(*index, spec)).map(|(index, _)| index)
    }
}

/// Kinds, targets and sizes are mixed; every tenth order is of a kind no device knows.
fn order(number: u32, bytes: usize, devices: &[Spec], rng: &mut Rng) -> Planned {
    let whom = whom(number, devices, rng);
    if number % 10 == 9 {
        let payload = payloads::filler(bytes);
        let (lane, flags) = (Lane::Normal, KindFlags::IDEMPOTENT);
        return Planned {
            kind: UNKNOWN_KIND,
            schema: 0,
            lane,
            flags,
            payload,
            whom,
            outcome: Outcome::REJECTED_KIND,
            role: Role::Mixed,
        };
    }
    let typed = payloads::standard(number, bytes, rng);
    Planned {
        kind: typed.kind,
        schema: typed.schema,
        lane: typed.lane,
        flags: typed.flags,
        payload: typed.payload,
        whom,
        outcome: Outcome::APPLIED,
        role: Role::Mixed,
    }
}

fn whom(number: u32, devices: &[Spec], rng: &mut Rng) -> Whom {
    let Some(last) = u32::try_from(devices.len()).unwrap_or(u32::MAX).checked_sub(1) else {
        return Whom::All;
    };
    let one = u32::try_from(rng.below(u64::from(last) + 1)).unwrap_or(0);
    // Taken from a device that exists, so a target is never empty.
    let Some(spec) = usize::try_from(one).ok().and_then(|one| devices.get(one)) else { return Whom::All };
    match number % 6 {
        1 => Whom::Kind(spec.kind),
        2 => Whom::Zone(spec.zone),
        3 => spec
            .tags
            .iter()
            .next()
            .map_or(Whom::All, |tag| Whom::Tag(if tag == "front" { "front" } else { "bakery" })),
        4 => Whom::One(one),
        5 => Whom::KindInZone(spec.kind, spec.zone),
        _ => Whom::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_device_has_an_address_and_an_id_of_its_own() {
        let specs: Vec<_> = (0..DEVICES_MAX).map(|index| Spec::new(index, 1)).collect();
        let addresses: HashSet<_> = specs.iter().map(|spec| spec.address).collect();
        let ids: HashSet<_> = specs.iter().map(|spec| spec.id).collect();
        assert_eq!((addresses.len(), ids.len()), (10_000, 10_000));
        for address in addresses {
            let [net, block, _, host] = address.octets();
            assert!(net == 127 && block == 57 && host != 0 && host != 255, "{address}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_demo_and_no_order_is_for_nobody() {
        for devices in [1, 2, 7, 200] {
            let (a, b) = (Plan::new(devices, 60, 200, 3), Plan::new(devices, 60, 200, 3));
            for (order, again) in a.orders.iter().zip(&b.orders) {
                assert_eq!(
                    (order.kind, &order.payload, order.whom),
                    (again.kind, &again.payload, again.whom)
                );
                assert!(a.meant(order).next().is_some(), "{order:?}");
            }
            let unknown = a.orders.iter().filter(|order| order.outcome == Outcome::REJECTED_KIND).count();
            assert_eq!(unknown, 4);
            assert_eq!((a.mixed, a.orders.len()), (42, 60));
            let outcomes = |outcome| a.orders.iter().filter(|order| order.outcome == outcome).count();
            assert_eq!((outcomes(Outcome::CANCELLED), outcomes(Outcome::SUPERSEDED)), (1, 1));
        }
    }
}
