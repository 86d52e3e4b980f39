//! SEEK: is there a server for my store?
//!
//! A device that knows no server sends it as a broadcast on every interface: first soon after its start, then ever more
//! rarely, and not at all while others ask often enough. The answer is a BEACON to everybody.
//!
//! ```text
//! device                       LAN                        server
//!   │── SEEK (broadcast) ──────▶│─────────────────────────▶│
//!   │◀──────────────────────────│◀──── BEACON (broadcast) ─│  at most one a second
//! ```
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 10 | 2 | role | any but 0xFFFF |
//! | 44 | 4 | suppressed | SEEKs the sender left out since its last one, because it heard enough of others |
//! | 48 | – | STORE | the store it looks for; absent with scope 0: any store (3.9) |
//! | – | – | NAME | optional |
//! | – | – | PAD | optional; makes the datagram as long as the BEACON it asks for |
//! | – | – | AUTH | optional |

use super::entry::{Auth, StoreRef, TextRef};
use super::header::{Kind, Node};
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, ParseError};

/// The question of a device that knows no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek<'a> {
    /// The device.
    pub from: Node,
    /// SEEKs this device did not send since its last one, because it heard enough of others.
    pub suppressed: u32,
    /// The store it looks for; absent, with scope 0, in the question of a device that belongs to none yet.
    pub store: Option<StoreRef<'a>>,
    /// Its display name.
    pub name: Option<TextRef<'a>>,
    /// The datagram is padded to at least this many bytes (at most 1,200; rounded up to a multiple of 4), so that the
    /// answer is no amplification; 0 for no padding. When read: the datagram's length if it holds PAD, otherwise 0.
    pub pad_to: u16,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl<'a> Seek<'a> {
    /// Reads a SEEK.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let opened = Opened::new(bytes, Kind::Seek)?;
        let (from, suppressed, len) = (opened.from(), opened.aux(), opened.len());
        let mut seek = Self { from, suppressed, store: None, name: None, pad_to: 0, auth: None };
        opened.each(|number, value| {
            match number {
                number::STORE => seek.store = Some(StoreRef::parse(value)?),
                number::NAME => seek.name = Some(TextRef::parse(value)?),
                number::PAD => seek.pad_to = tlv::pad(value).map(|()| len)?,
                number::AUTH => seek.auth = Some(tlv::auth(value)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(seek)
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self { from, suppressed, store, name, pad_to, auth } = *self;
        let tlvs = Tlvs { store, name, pad_to, auth, ..Tlvs::NONE };
        super::write(from, Kind::Seek, suppressed, &tlvs, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{Datagram, samples};
    use crate::error::Fault;
    use crate::testing;

    fn seek(store: &crate::ids::Store) -> Seek<'_> {
        let from = Node { broadcast_copy: true, ..samples::device() };
        let name = TextRef::new("Kiosk 3");
        Seek { from, suppressed: 2, store: Some(store.into()), name, pad_to: 100, auth: None }
    }

    #[test]
    fn golden_vector() {
        samples::check_vector("datagram SEEK", &Datagram::Seek(seek(&samples::store())));
    }

    #[test]
    fn padding_fills_up_to_the_length_asked_for() {
        let store = samples::store();
        let bare = Seek { pad_to: 0, ..seek(&store) };
        let mut buffer = [0xA5; 1_300];
        let len = u16::try_from(bare.emit(&mut buffer).unwrap()).unwrap();
        for (pad_to, padded) in
            [(1, len), (len, len), (len + 1, len + 4), (len + 4, len + 4), (len + 5, len + 8), (1_200, 1_200)]
        {
            let written = Seek { pad_to, ..bare }.emit(&mut buffer).unwrap();
            assert_eq!(written, usize::from(padded), "padded to {pad_to}");
            let back = Seek::parse(&buffer[..written]).unwrap();
            assert_eq!(back.pad_to, if padded == len { 0 } else { padded });
        }
        let error = EmitError::TooLarge { field: "total length", limit: 1_200 };
        assert_eq!(Seek { pad_to: 1_201, ..bare }.emit(&mut buffer), Err(error));
    }

    #[test]
    fn servers_do_not_seek() {
        let store = samples::store();
        let seek = Seek { from: samples::server(), ..seek(&store) };
        assert_eq!(seek.emit(&mut [0; 200]), Err(EmitError::Invalid { field: "role" }));
        let mut bytes = testing::vector("datagram SEEK");
        bytes[10..12].fill(0xFF);
        assert_eq!(Seek::parse(&bytes), Err(ParseError::new("role", 10, Fault::Misplaced)));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(parts in samples::parts()) {
            let (store, name, auth) = (parts.store(), parts.name(), parts.auth());
            let seek = Seek { from: parts.device, suppressed: parts.aux, store, name, pad_to: 0, auth };
            let pad_to = parts.pad_to(&Datagram::Seek(seek));
            samples::check(&Datagram::Seek(Seek { pad_to, ..seek }));
        }
    }
}
