//! ANNOUNCE: here I am.
//!
//! A device sends it to its server, from port 57854 to port 57854: to register, to refresh, and when something about it
//! changed. It always says everything, so what is absent does not hold any more. The ACK answers it; until then it is
//! sent again, flagged RETRANSMIT, more and more rarely.
//!
//! ```text
//! device                                                server
//!   │── ANNOUNCE (sequence 5, nonce n) ─────────────────▶│
//!   │◀─────────────────────────── ACK (5, n, ok, lease) ─│
//!   │ … after a third of the lease, unless a session for orders is up …
//!   │── ANNOUNCE (sequence 6, nonce m) ─────────────────▶│
//! ```
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 10 | 2 | role | any but 0xFFFF |
//! | 40 | 2 | port | where the device listens for orders (TCP) |
//! | 42 | 2 | lease | seconds, as the device wishes; the ACK decides |
//! | 44 | 4 | answers | boot epoch xor sequence of the BEACON it answers, 0 if nobody asked |
//! | 48 | – | STORE | its store; without it nobody answers |
//! | – | – | NAME | optional |
//! | – | – | SERVICES | optional |
//! | – | – | ADDR | optional; believed only under a MAC |
//! | – | – | FIRMWARE | optional |
//! | – | – | CAPS | optional |
//! | – | – | ZONE | optional |
//! | – | – | NONCE | optional; the ACK repeats it |
//! | – | – | PAD | optional; makes the datagram at least as long as its answer |
//! | – | – | APP | optional |
//! | – | – | TAGS | optional |
//! | – | – | CODE | optional |
//! | – | – | AUTH | optional |

use super::addr::Addrs;
use super::entry::{Auth, CodeRef, Firmware, Nonce, StoreRef, TagsRef, TextRef};
use super::header::{Kind, Node};
use super::service::Services;
use super::tlv::{self, Opened, Tlvs, number};
use crate::error::{EmitError, Fault, ParseError};

/// A device's statement to its server: registration, refresh, change. Always complete: what is absent does not hold
/// any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce<'a> {
    /// The device; `port` is where it listens for orders.
    pub from: Node,
    /// `Beacon::token` of the BEACON it answers, 0 if nobody asked.
    pub answers: u32,
    /// Its store.
    pub store: Option<StoreRef<'a>>,
    /// Its display name.
    pub name: Option<TextRef<'a>>,
    /// What it offers.
    pub services: Option<Services<'a>>,
    /// Where it can be reached; believed only under a MAC.
    pub addrs: Option<Addrs<'a>>,
    /// What runs on it.
    pub firmware: Option<Firmware>,
    /// Its capabilities.
    pub caps: Option<u64>,
    /// Where it stands.
    pub zone: Option<u32>,
    /// Its tags.
    pub tags: Option<TagsRef<'a>>,
    /// The product's code of it.
    pub code: Option<CodeRef<'a>>,
    /// Comes back in the ACK.
    pub nonce: Option<Nonce>,
    /// Opaque, 1 to 128 bytes.
    pub app: Option<&'a [u8]>,
    /// Padded to at least this many bytes, as in SEEK; 0 for no padding.
    pub pad_to: u16,
    /// Its MAC.
    pub auth: Option<Auth<'a>>,
}

impl<'a> Announce<'a> {
    /// Reads an ANNOUNCE.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let opened = Opened::new(bytes, Kind::Announce)?;
        match Self::usual(&opened) {
            Some(announce) => Ok(announce),
            None => Self::unusual(&opened),
        }
    }

    /// What every device of ours sends: entries in ascending order, no addresses. `None` for everything else, the faulty
    /// included.
    #[inline]
    fn usual(opened: &Opened<'a>) -> Option<Self> {
        let mut entries = opened.usual();
        let store = entries.value(number::STORE).map(StoreRef::parse).transpose().ok()?;
        let name = entries.value(number::NAME).map(TextRef::parse).transpose().ok()?;
        let services = entries.value(number::SERVICES).map(Services::parse).transpose().ok()?;
        let firmware = entries.exact(number::FIRMWARE).map(tlv::firmware_of);
        let caps = entries.exact(number::CAPS).map(|caps| u64::from_le_bytes(*caps));
        let zone = entries.exact(number::ZONE).map(|zone| u32::from_le_bytes(*zone));
        let nonce = entries.exact(number::NONCE).map(|nonce| Nonce::Short(*nonce));
        let padded = entries.value(number::PAD).map(tlv::pad).transpose().ok()?;
        let app = entries.value(number::APP).map(tlv::app).transpose().ok()?;
        let tags = entries.value(number::TAGS).map(TagsRef::parse).transpose().ok()?;
        let code = entries.value(number::CODE).map(CodeRef::parse).transpose().ok()?;
        let auth = entries.exact::<{ tlv::AUTH_LEN }>(number::AUTH | tlv::CRITICAL);
        let auth = auth.map(|auth| tlv::auth(auth)).transpose().ok()?;
        if !entries.is_over() || auth.is_some() != opened.has_auth() {
            return None;
        }
        Some(Self {
            from: opened.from(),
            answers: opened.aux(),
            store,
            name,
            services,
            addrs: None,
            firmware,
            caps,
            zone,
            tags,
            code,
            nonce,
            app,
            pad_to: padded.map_or(0, |()| opened.len()),
            auth,
        })
    }

    /// Any other: entries in any order, unknown ones, faults.
    #[cold]
    #[inline(never)]
    fn unusual(opened: &Opened<'a>) -> Result<Self, ParseError> {
        let len = opened.len();
        let mut announce = Self::without_entries(opened.from(), opened.aux());
        opened.each(|number, value| announce.take(number, value, len))?;
        Ok(announce)
    }

    #[inline]
    fn take(&mut self, number: u16, value: &'a [u8], len: u16) -> Result<(), Fault> {
        match number {
            number::STORE => self.store = Some(StoreRef::parse(value)?),
            number::NAME => self.name = Some(TextRef::parse(value)?),
            number::SERVICES => self.services = Some(Services::parse(value)?),
            number::ADDR => self.addrs = Some(Addrs::parse(value)?),
            number::FIRMWARE => self.firmware = Some(tlv::firmware(value)?),
            number::CAPS => self.caps = Some(tlv::u64_value(value)?),
            number::ZONE => self.zone = Some(tlv::u32_value(value)?),
            number::TAGS => self.tags = Some(TagsRef::parse(value)?),
            number::CODE => self.code = Some(CodeRef::parse(value)?),
            number::NONCE => self.nonce = Some(tlv::nonce(value)?),
            number::APP => self.app = Some(tlv::app(value)?),
            number::PAD => self.pad_to = tlv::pad(value).map(|()| len)?,
            number::AUTH => self.auth = Some(tlv::auth(value)?),
            _ => {}
        }
        Ok(())
    }

    /// An ANNOUNCE with a header and no entry, to be completed with `..`: without a STORE nobody answers it.
    #[inline]
    #[must_use]
    pub const fn without_entries(from: Node, answers: u32) -> Self {
        Self {
            from,
            answers,
            store: None,
            name: None,
            services: None,
            addrs: None,
            firmware: None,
            caps: None,
            zone: None,
            tags: None,
            code: None,
            nonce: None,
            app: None,
            pad_to: 0,
            auth: None,
        }
    }

    /// Writes it; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let tlvs = Tlvs {
            store: self.store,
            name: self.name,
            services: self.services,
            addrs: self.addrs,
            firmware: self.firmware,
            caps: self.caps,
            zone: self.zone,
            tags: self.tags,
            code: self.code,
            nonce: self.nonce,
            app: self.app,
            pad_to: self.pad_to,
            auth: self.auth,
            ..Tlvs::NONE
        };
        super::write(self.from, Kind::Announce, self.answers, &tlvs, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{Datagram, Service, ServiceList, samples, seal};
    use crate::ids::{Store, Tags};
    use crate::testing;

    /// What a kiosk of the product line says.
    fn announce<'a>(store: &'a Store, tags: &'a Tags, services: &'a ServiceList<1>) -> Announce<'a> {
        Announce {
            store: Some(store.into()),
            name: TextRef::new("Kiosk 3"),
            services: services.as_services(),
            firmware: Some(Firmware { version: 0x0001_0203, build: 4711 }),
            zone: Some(3),
            tags: TagsRef::new(tags),
            nonce: Some(Nonce::Short(*b"a nonce!")),
            ..Announce::without_entries(Node { want_ack: true, ..samples::device() }, 0xCAF4_E20C)
        }
    }

    fn with_sample<T>(check: impl FnOnce(Announce<'_>) -> T) -> T {
        let tags = Tags::new(["bakery", "self-service"]).unwrap();
        let mut services = ServiceList::EMPTY;
        assert!(services.push(Service { id: 1, port: 8082, protocol: 6, flags: 0, version: 1 }));
        check(announce(&samples::store(), &tags, &services))
    }

    #[test]
    fn golden_vector() {
        with_sample(|announce| samples::check_vector("datagram ANNOUNCE", &Datagram::Announce(announce)));
    }

    #[test]
    fn golden_vector_with_a_mac() {
        with_sample(|announce| {
            let tag = *b"sixteen byte tag";
            let auth = Some(Auth { key_id: 2, algorithm: Auth::HMAC_SHA256_128, tag: &tag });
            let announce = Announce { auth, tags: None, services: None, ..announce };
            samples::check_vector("datagram ANNOUNCE with AUTH", &Datagram::Announce(announce));
            // The same in two steps, as a sender does it.
            let mut buffer = [0; 200];
            let unsigned = Announce { auth: Some(Auth::open(2, Auth::HMAC_SHA256_128)), ..announce };
            let len = unsigned.emit(&mut buffer).unwrap();
            let mut covered = Vec::new();
            seal(&mut buffer[..len], |bytes| {
                covered.extend_from_slice(bytes);
                tag
            });
            assert_eq!(buffer[..len], testing::vector("datagram ANNOUNCE with AUTH"));
            let (before, found) = crate::datagram::covered(&buffer[..len]).unwrap();
            assert_eq!((before, found), (covered.as_slice(), &tag));
        });
    }

    #[test]
    fn golden_vector_with_a_code() {
        with_sample(|announce| {
            let announce = Announce { code: CodeRef::new("KIO-0003"), services: None, ..announce };
            samples::check_vector("datagram ANNOUNCE with CODE", &Datagram::Announce(announce));
        });
    }

    /// A later minor version: header of 13 words, an unknown entry, reserved flags.
    #[test]
    fn a_newer_minor_version_is_read() {
        let newer = testing::vector("datagram ANNOUNCE of a later version");
        let older = testing::vector("datagram ANNOUNCE");
        assert_eq!((newer[4], newer[6] & 0xC0, newer[7]), (0x13, 0x80, 13));
        assert_eq!(Announce::parse(&newer), Announce::parse(&older));
    }

    #[test]
    fn a_typical_announce_stays_small() {
        with_sample(|announce| {
            let len = announce.emit(&mut [0; 200]).unwrap();
            assert!(len <= 192, "{len} bytes: beyond 192 the kernel charges a datagram half as much again");
        });
    }

    /// The quick way takes nothing the other one does not take, and gives the same.
    fn same_both_ways(bytes: &[u8]) -> bool {
        let Ok(opened) = Opened::new(bytes, Kind::Announce) else { return false };
        let quick = Announce::usual(&opened);
        if let Some(announce) = quick {
            assert_eq!(Announce::unusual(&opened), Ok(announce), "{bytes:02x?}");
        }
        quick.is_some()
    }

    #[test]
    fn the_quick_way_is_the_other_way() {
        for name in ["datagram ANNOUNCE", "datagram ANNOUNCE with AUTH", "datagram ANNOUNCE with CODE"] {
            let bytes = testing::vector(name);
            assert!(same_both_ways(&bytes), "{name} is what devices send");
            for at in 0..bytes.len() {
                for value in 0..=u8::MAX {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    same_both_ways(&changed);
                }
            }
            // Entries that stand twice, in another order, or not at all.
            let (head, entries) = bytes.split_at(48);
            let (words, _) = entries.as_chunks::<4>();
            for from in 0..words.len() {
                for to in from..=words.len() {
                    let moved = [&words[from..to], &words[..from], &words[to..]].concat();
                    let twice = [words, &words[from..to]].concat();
                    let without = [&words[..from], &words[to..]].concat();
                    for words in [moved, twice, without] {
                        let mut changed = [head, words.as_flattened()].concat();
                        let len = u16::try_from(changed.len()).unwrap();
                        changed[8..10].copy_from_slice(&len.to_le_bytes());
                        same_both_ways(&changed);
                    }
                }
            }
        }
        assert!(
            !same_both_ways(&testing::vector("datagram ANNOUNCE of a later version")),
            "an unknown entry"
        );
    }

    /// A device that fills every entry still fits.
    #[test]
    fn the_largest_announce() {
        let store = Store::new(u32::MAX, &"x".repeat(32)).unwrap();
        let texts = ["a".repeat(15), "b".repeat(15), "c".repeat(15)];
        let tags = Tags::new(texts.iter().map(String::as_str)).unwrap();
        let mut services = ServiceList::<32>::EMPTY;
        for port in 0..32 {
            assert!(services.push(Service { id: 1, port, protocol: 6, flags: 0, version: 1 }));
        }
        let mut addrs = crate::datagram::AddrList::EMPTY;
        for last in 0..4 {
            let address = core::net::Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, 0, last).into();
            assert!(addrs.push(crate::datagram::Addr { address, prefix: 64, metric: 1 }));
        }
        let announce = Announce {
            store: Some((&store).into()),
            name: TextRef::new(&texts[0]),
            services: services.as_services(),
            addrs: addrs.as_addrs(),
            firmware: Some(Firmware::default()),
            caps: Some(0),
            zone: Some(0),
            tags: TagsRef::new(&tags),
            code: CodeRef::new("0123456789abcdef"),
            nonce: Some(Nonce::Long([1; 16])),
            app: Some(&[1; 128]),
            pad_to: 1_200,
            auth: Some(Auth::open(1, 1)),
            ..Announce::without_entries(samples::device(), 0)
        };
        assert_eq!(samples::check(&Datagram::Announce(announce)).len(), 1_200);
    }

    #[test]
    fn app_at_the_limit_and_one_past_it() {
        let bare = Announce::without_entries(samples::device(), 0);
        let app = [7; 129];
        samples::check(&Datagram::Announce(Announce { app: Some(&app[..128]), ..bare }));
        let error = EmitError::TooLarge { field: "APP", limit: 128 };
        assert_eq!(Announce { app: Some(&app), ..bare }.emit(&mut [0; 300]), Err(error));
        let error = EmitError::Invalid { field: "APP" };
        assert_eq!(Announce { app: Some(&[]), ..bare }.emit(&mut [0; 300]), Err(error));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(parts in samples::parts()) {
            let announce = Announce {
                store: parts.store(),
                name: parts.name(),
                services: parts.services(),
                addrs: parts.addrs(),
                firmware: parts.firmware,
                caps: parts.caps,
                zone: parts.zone,
                tags: parts.tags(),
                code: parts.code(),
                nonce: parts.nonce,
                app: parts.app(),
                auth: parts.auth(),
                ..Announce::without_entries(parts.device, parts.aux)
            };
            let pad_to = parts.pad_to(&Datagram::Announce(announce));
            let bytes = samples::check(&Datagram::Announce(Announce { pad_to, ..announce }));
            same_both_ways(&bytes);
        }
    }
}
