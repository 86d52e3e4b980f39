//! BEACON: who serves this store.
//!
//! The server sends it as a broadcast on every interface: at its start, then about every 10 seconds, and when a device
//! asks. It tells unregistered devices how long to wait at most before they announce themselves, and by `select bits`
//! which of them, so that 10,000 answers never arrive at once.
//!
//! ```text
//! device                       LAN                        server
//!   │◀──────────────────────────│◀─ BEACON (W, k, salt) ───│
//!   │ … a random moment of 0 to W, if selected …           │
//!   │── ANNOUNCE ──────────────────────────────────────────▶│
//! ```
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 10 | 2 | role | 0xFFFF |
//! | 40 | 2 | port | the server's HTTP base port |
//! | 42 | 2 | lease | seconds a registration at this server lasts |
//! | 44 | 2 | window | milliseconds within which unregistered devices announce |
//! | 46 | 1 | select bits | at most 32; only 1 in 2^bits of the devices answers, 0 for all |
//! | 47 | 1 | select salt | which of them |
//! | 48 | – | STORE | the store it serves; without it nobody listens |
//! | – | – | NAME | optional |
//! | – | – | SERVICES | optional |
//! | – | – | ADDR | optional; a hint |
//! | – | – | CAPS | optional |
//! | – | – | PRIORITY | optional; lower wins among servers of one store |
//! | – | – | AUTH | optional |
//!
//! Selected is a device whose hash begins with `select bits` zero bits. The hash is `mix(low ^ mix(high ^ mix(salt + 1)))`
//! in 64 bits, of the node id's first (low) and last (high) 8 bytes, little-endian; `mix(x)` is: x ^= x >> 30,
//! x *= 0xBF58476D1CE4E5B9, x ^= x >> 27, x *= 0x94D049BB133111EB, x ^= x >> 31, modulo 2^64.

use super::addr::Addrs;
use super::entry::{Auth, StoreRef, TextRef};
use super::header::{self, Kind, Node};
use super::service::Services;
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::NodeId;
use crate::rng;

/// Select bits of a BEACON: with 32 one id in four thousand million answers.
pub const SELECT_BITS_MAX: u8 = 32;

/// The server's statement to all devices of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon<'a> {
    /// The server; `port` is its HTTP base port, `lease_s` the lease it gives to devices.
    pub from: Node,
    /// Unregistered devices announce at a random moment of so many milliseconds.
    pub window_ms: u16,
    /// Only 1 in 2^bits devices answers (a census); 0 for all, at most 32. See [`Beacon::selects`].
    pub select_bits: u8,
    /// Which of them.
    pub select_salt: u8,
    /// The store it serves.
    pub store: Option<StoreRef<'a>>,
    /// Its display name.
    pub name: Option<TextRef<'a>>,
    /// What it offers.
    pub services: Option<Services<'a>>,
    /// Where it can be reached; a hint.
    pub addrs: Option<Addrs<'a>>,
    /// Lower wins among servers of one store.
    pub priority: Option<u16>,
    /// Its capabilities.
    pub caps: Option<u64>,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl Beacon<'_> {
    /// Whether the device `id` is one of those asked to answer.
    #[must_use]
    pub const fn selects(&self, id: NodeId) -> bool {
        let id = id.as_u128();
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the id")]
        let (low, high) = (id as u64, (id >> 64) as u64);
        let hash = rng::mix(low ^ rng::mix(high ^ rng::mix(self.select_salt as u64 + 1)));
        self.select_bits == 0 || hash.leading_zeros() >= self.select_bits as u32
    }

    /// What an ANNOUNCE that answers this BEACON carries in `answers`.
    #[must_use]
    pub const fn token(&self) -> u32 {
        self.from.epoch ^ self.from.sequence
    }
}

impl<'a> Beacon<'a> {
    /// Reads a BEACON.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let opened = Opened::new(bytes, Kind::Beacon)?;
        let mut beacon = Self::without_entries(opened.from(), opened.aux())?;
        opened.each(|number, value| {
            match number {
                number::STORE => beacon.store = Some(StoreRef::parse(value)?),
                number::NAME => beacon.name = Some(TextRef::parse(value)?),
                number::SERVICES => beacon.services = Some(Services::parse(value)?),
                number::ADDR => beacon.addrs = Some(Addrs::parse(value)?),
                number::CAPS => beacon.caps = Some(tlv::u64_value(value)?),
                number::PRIORITY => beacon.priority = Some(tlv::u16_value(value)?),
                number::AUTH => beacon.auth = Some(tlv::auth(value)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(beacon)
    }

    fn without_entries(from: Node, aux: u32) -> Result<Self, ParseError> {
        let [window0, window1, select_bits, select_salt] = aux.to_le_bytes();
        if select_bits > SELECT_BITS_MAX {
            return Err(header::aux_error(Fault::Range));
        }
        Ok(Self {
            from,
            window_ms: u16::from_le_bytes([window0, window1]),
            select_bits,
            select_salt,
            store: None,
            name: None,
            services: None,
            addrs: None,
            priority: None,
            caps: None,
            auth: None,
        })
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self { store, name, services, addrs, priority, caps, auth, .. } = *self;
        if self.select_bits > SELECT_BITS_MAX {
            return Err(EmitError::TooLarge { field: "select bits", limit: SELECT_BITS_MAX.into() });
        }
        let [window0, window1] = self.window_ms.to_le_bytes();
        let aux = u32::from_le_bytes([window0, window1, self.select_bits, self.select_salt]);
        let tlvs = Tlvs { store, name, services, addrs, priority, caps, auth, ..Tlvs::NONE };
        super::write(self.from, Kind::Beacon, aux, &tlvs, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{Addr, AddrList, Datagram, Service, ServiceList, samples};
    use crate::ids::DeviceKind;
    use crate::testing;

    #[test]
    fn golden_vector() {
        let store = samples::store();
        let mut services = ServiceList::<7>::EMPTY;
        for port in [80, 8000, 8001, 8002, 8003, 8004, 8005] {
            let http = Service { id: Service::HTTP, port, protocol: Service::TCP, flags: 0, version: 1 };
            assert!(services.push(http));
        }
        let mut addrs = AddrList::EMPTY;
        assert!(addrs.push(Addr { address: [10, 0, 0, 2].into(), prefix: 24, metric: 0 }));
        let beacon = Beacon {
            from: Node { broadcast_copy: true, ..samples::server() },
            window_ms: 11_000,
            select_bits: 0,
            select_salt: 0x5A,
            store: Some((&store).into()),
            name: TextRef::new("Back office"),
            services: services.as_services(),
            addrs: addrs.as_addrs(),
            priority: Some(100),
            caps: Some(1),
            auth: None,
        };
        samples::check_vector("datagram BEACON", &Datagram::Beacon(beacon));
        assert_eq!(beacon.token(), 0xC0FF_EE01 ^ 0x0A0B_0C0D);
    }

    #[test]
    fn select_bits_at_the_limit_and_one_past_it() {
        let beacon = Beacon::without_entries(samples::server(), 0).unwrap();
        samples::check(&Datagram::Beacon(Beacon { select_bits: SELECT_BITS_MAX, ..beacon }));
        let error = EmitError::TooLarge { field: "select bits", limit: 32 };
        assert_eq!(Beacon { select_bits: 33, ..beacon }.emit(&mut [0; 48]), Err(error));
        let mut bytes = testing::emit(|buffer| beacon.emit(buffer));
        bytes[46] = 33;
        assert_eq!(Beacon::parse(&bytes), Err(ParseError::new("aux", 44, Fault::Range)));
    }

    #[test]
    fn a_census_selects_its_share_whatever_the_ids_look_like() {
        let beacon = Beacon::without_entries(samples::server(), 0).unwrap();
        for select_salt in [0, 1, 255] {
            for (select_bits, expected) in [(0, 10_000..=10_000), (1, 4_800..=5_200), (5, 260..=365)] {
                let beacon = Beacon { select_bits, select_salt, ..beacon };
                let selected = |id: &u128| beacon.selects(NodeId(id.to_le_bytes()));
                let low = (1..=10_000_u128).filter(selected).count();
                let high = (1..=10_000_u128).map(|id| id << 100).filter(selected).count();
                assert!(expected.contains(&low) && expected.contains(&high), "{select_bits}: {low}, {high}");
            }
        }
    }

    /// As the specification gives it: whoever changes the hash splits a store into two censuses.
    #[test]
    fn the_selection_is_the_documented_one() {
        let beacon = Beacon::without_entries(samples::server(), 0).unwrap();
        let id = samples::device().id;
        let salts = |bits| {
            (0..=255)
                .filter(|&select_salt| Beacon { select_bits: bits, select_salt, ..beacon }.selects(id))
                .collect::<Vec<u8>>()
        };
        assert_eq!(salts(5), [6, 66, 114, 162, 179, 208, 223, 254]);
    }

    #[test]
    fn devices_send_no_beacon() {
        let from = Node { role: DeviceKind::TILL, ..samples::server() };
        let beacon = Beacon::without_entries(from, 0).unwrap();
        assert_eq!(beacon.emit(&mut [0; 48]), Err(EmitError::Invalid { field: "role" }));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(parts in samples::parts()) {
            let aux = parts.aux & 0xFF1F_FFFF;
            let beacon = Beacon {
                store: parts.store(),
                name: parts.name(),
                services: parts.services(),
                addrs: parts.addrs(),
                priority: parts.priority,
                caps: parts.caps,
                auth: parts.auth(),
                ..Beacon::without_entries(parts.server, aux).unwrap()
            };
            samples::check(&Datagram::Beacon(beacon));
        }
    }
}
