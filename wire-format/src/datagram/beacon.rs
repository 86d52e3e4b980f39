//! BEACON: who serves this store.

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
