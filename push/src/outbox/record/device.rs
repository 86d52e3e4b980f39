//! DEVICE: a device, and the number it has in this outbox.
//!
//! Written when a device is listed or what is known of it changes.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | device | its number, below 65,536 |
//! | 4 | 2 | kind | its device kind |
//! | 6 | 1 | flags | 1: the id is known; the rest zero |
//! | 7 | 1 | family | of the address: 0 none, 4, or 6 |
//! | 8 | 4 | zone | 0 for none |
//! | 12 | 16 | id | its node id; zero if it is not known |
//! | 28 | 16 | address | 4 or 16 bytes, then zeros |
//! | 44 | 2 | port | 0 without an address |
//! | 46 | 2 | tags length | bytes of tags, at most 48 |
//! | 48 | – | tags | packed as on the wire |

use std::net::{IpAddr, SocketAddr};

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};
use wire_format::ids::{DeviceKind, NodeId, Tags};

use super::{device, flags, kind};

const HAS_ID: u8 = 1;

/// A device as the outbox knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number, below [`super::super::DEVICES_MAX`].
    pub device: u32,
    /// Its id; `None` for a device given by address alone that has not been reached yet.
    pub id: Option<NodeId>,
    /// Its kind.
    pub kind: DeviceKind,
    /// Its zone, 0 for none.
    pub zone: u32,
    /// Its tags.
    pub tags: Tags,
    /// Where it was dialled last. Scope and flow of an IPv6 address are not kept.
    pub address: Option<SocketAddr>,
}

impl Device {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let device = device(reader)?;
        let kind = DeviceKind(reader.u16("kind")?);
        let has_id = flags(reader, HAS_ID)? != 0;
        let family_at = *reader;
        let family = reader.u8("family")?;
        let zone = reader.u32("zone")?;
        let id_at = *reader;
        let id = NodeId(*reader.array("id")?);
        if id.is_none() == has_id {
            return Err(id_at.error("id", Fault::Range));
        }
        let address = *reader.array::<16>("address")?;
        let port_at = *reader;
        let port = reader.u16("port")?;
        let ip = match (family, address) {
            (0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) if port == 0 => None,
            (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => Some(IpAddr::from([a, b, c, d])),
            (6, all) => Some(IpAddr::from(all)),
            (0 | 4, _) => return Err(port_at.error("address", Fault::NotZero)),
            _ => return Err(family_at.error("family", Fault::Range)),
        };
        let len = usize::from(reader.u16("tags length")?);
        let tags_at = *reader;
        let tags = Tags::from_packed(reader.bytes("tags", len)?)
            .ok_or_else(|| tags_at.error("tags", Fault::Text))?;
        let address = ip.map(|ip| SocketAddr::new(ip, port));
        Ok(Self { device, id: has_id.then_some(id), kind, zone, tags, address })
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        into.extend_from_slice(&self.device.to_le_bytes());
        into.extend_from_slice(&self.kind.0.to_le_bytes());
        let mut ip = [0; 16];
        let family = match self.address.map(|address| address.ip()) {
            None => 0,
            Some(IpAddr::V4(v4)) => {
                ip.iter_mut().zip(v4.octets()).for_each(|(to, from)| *to = from);
                4
            }
            Some(IpAddr::V6(v6)) => {
                ip = v6.octets();
                6
            }
        };
        let id = self.id.filter(|id| !id.is_none());
        into.extend_from_slice(&[if id.is_some() { HAS_ID } else { 0 }, family]);
        into.extend_from_slice(&self.zone.to_le_bytes());
        into.extend_from_slice(&id.unwrap_or(NodeId::NONE).0);
        into.extend_from_slice(&ip);
        into.extend_from_slice(&self.address.map_or(0, |address| address.port()).to_le_bytes());
        let tags = self.tags.as_packed();
        into.extend_from_slice(&(tags.len() as u16).to_le_bytes());
        into.extend_from_slice(tags);
        kind::DEVICE
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::super::DEVICES_MAX;
    use super::*;

    pub(in crate::outbox::record) fn devices() -> impl Strategy<Value = Device> {
        let ips =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
        let tags = prop_oneof![Just(Tags::EMPTY), Just(Tags::new(["bakery", "till-2"]).unwrap())];
        let id = proptest::option::of(any::<[u8; 16]>());
        let fields =
            (0..DEVICES_MAX, id, any::<u16>(), any::<u32>(), tags, proptest::option::of((ips, any::<u16>())));
        fields.prop_map(|(device, id, kind, zone, tags, address)| Device {
            device,
            id: id.map(NodeId).filter(|id| !id.is_none()),
            kind: DeviceKind(kind),
            zone,
            tags,
            address: address.map(|(ip, port)| SocketAddr::new(ip, port)),
        })
    }

    #[test]
    fn a_device_number_at_the_limit_and_one_past_it() {
        let device = |device| {
            let (id, kind, tags) = (None, DeviceKind::TILL, Tags::EMPTY);
            let mut bytes = vec![];
            Device { device, id, kind, zone: 0, tags, address: None }.emit(&mut bytes);
            Device::parse(&mut Reader::new(&bytes))
        };
        assert!(device(DEVICES_MAX - 1).is_ok());
        assert_eq!(device(DEVICES_MAX).unwrap_err().field, "device");
    }
}
