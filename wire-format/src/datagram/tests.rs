//! What every datagram obeys: the walk over its entries, its limits, and the forms a later version may use.

use super::samples::{self, with_entry, with_length};
use super::tlv::{APP_MAX, COUNT_MAX, CRITICAL};
use super::*;
use crate::error::Fault;
use crate::ids::{DeviceKind, NodeId, Store, Tags};
use crate::testing;

/// An ANNOUNCE without entries: 48 bytes.
fn bare() -> Vec<u8> {
    let bytes = testing::vector("datagram ANNOUNCE");
    with_length(bytes[..48].to_vec())
}

fn parse(bytes: &[u8]) -> Result<Announce<'_>, ParseError> {
    Announce::parse(bytes)
}

fn refused(bytes: &[u8], field: &'static str, offset: usize, fault: Fault) {
    assert_eq!(parse(bytes).map(|_| ()), Err(ParseError::new(field, offset, fault)));
}

#[test]
fn dispatch_knows_every_kind() {
    for kind in Kind::ALL {
        let bytes = testing::vector(&format!("datagram {kind}"));
        assert_eq!(peek(&bytes), Ok(kind));
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!(datagram.kind(), kind);
        assert_eq!(*datagram.from(), Header::parse(&bytes).unwrap().from);
        assert_eq!(
            datagram.from().is_server(),
            matches!(kind, Kind::Beacon | Kind::Ack | Kind::Bye | Kind::Challenge)
        );
        assert_eq!(datagram.auth(), None);
        let other = match kind {
            Kind::Seek => Beacon::parse(&bytes).map(|_| ()),
            _ => Seek::parse(&bytes).map(|_| ()),
        };
        assert_eq!(other, Err(ParseError::new("kind", 5, Fault::Misplaced)));
    }
    let mut unknown = testing::vector("datagram SEEK");
    for number in (0..=0).chain(7..=255) {
        unknown[5] = number;
        assert_eq!(
            Datagram::parse(&unknown),
            Err(ParseError::new("kind", 5, Fault::UnknownKind)),
            "{number}"
        );
    }
}

#[test]
fn entries_may_come_in_any_order_but_auth_is_last() {
    let (name, zone) = (b"Kiosk 3".as_slice(), [3, 0, 0, 0]);
    let sorted = with_entry(&with_entry(&bare(), 2, name), 7, &zone);
    let unsorted = with_entry(&with_entry(&bare(), 7, &zone), 2, name);
    assert_eq!(parse(&sorted), parse(&unsorted));
    let signed = testing::vector("datagram ANNOUNCE with AUTH");
    assert!(parse(&signed).unwrap().auth.is_some());
    refused(&with_entry(&signed, 7, &zone), "AUTH", 108, Fault::Misplaced);
    refused(&with_entry(&signed, 0x80FF, &[0; 20]), "AUTH", 108, Fault::Misplaced);
}

#[test]
fn auth_stands_if_and_only_if_its_flag_is_set() {
    let mut signed = testing::vector("datagram ANNOUNCE with AUTH");
    signed[6] &= !0x02;
    refused(&signed, "AUTH", 108, Fault::Misplaced);
    let mut unsigned = testing::vector("datagram ANNOUNCE");
    unsigned[6] |= 0x02;
    refused(&unsigned, "AUTH", unsigned.len(), Fault::Missing);
}

#[test]
fn auth_has_one_form() {
    let signed = testing::vector("datagram ANNOUNCE with AUTH");
    let change = |at: usize, value: u8| {
        let mut bytes = signed.clone();
        bytes[at] = value;
        bytes
    };
    refused(&change(109, 0x00), "AUTH", 108, Fault::Misplaced);
    refused(&change(115, 15), "AUTH", 108, Fault::Range);
    let mut bare = bare();
    bare[6] |= 0x02;
    for len in [0, 3, 4, 16, 19, 21, 24] {
        let bytes = with_entry(&bare, 0x80FF, &[16; 24][..len]);
        refused(&bytes, "AUTH", 48, Fault::Length);
    }
    // Other algorithms and keys are not the codec's business.
    assert_eq!(parse(&change(114, 9)).unwrap().auth.map(|auth| auth.algorithm), Some(9));
}

#[test]
fn a_known_entry_stands_once_even_if_the_kind_does_not_use_it() {
    for (number, value) in [(2_u16, b"a".as_slice()), (12, &[1, 0])] {
        let once = with_entry(&bare(), number, value);
        assert!(parse(&once).is_ok());
        let name = if number == 2 { "NAME" } else { "PRIORITY" };
        refused(&with_entry(&once, number, value), name, 56, Fault::Repeated);
        refused(&with_entry(&once, number | CRITICAL, value), name, 56, Fault::Repeated);
    }
}

#[test]
fn a_known_entry_the_kind_does_not_use_is_not_looked_at() {
    let bytes = with_entry(&bare(), 12, b"no priority");
    assert_eq!(parse(&bytes), parse(&bare()));
    let beacon = with_entry(&testing::vector("datagram BEACON"), 13, &[0xFF; 7]);
    assert_eq!(Beacon::parse(&beacon), Beacon::parse(&testing::vector("datagram BEACON")));
}

#[test]
fn unknown_entries_are_skipped_unless_critical() {
    for number in [0, 15, 16, 0x00FE, 0x0100, 0x7FFF] {
        let bytes = with_entry(&with_entry(&bare(), number, b"?"), number, b"once more");
        assert_eq!(parse(&bytes), parse(&bare()), "{number}");
        refused(&with_entry(&bare(), number | CRITICAL, b"?"), "TLV", 48, Fault::UnknownCritical);
    }
    // Bit 15 says nothing new about a known one.
    assert_eq!(parse(&with_entry(&bare(), 7 | CRITICAL, &[1, 0, 0, 0])).unwrap().zone, Some(1));
}

#[test]
fn as_many_entries_as_the_limit_and_one_more() {
    let mut bytes = bare();
    for _ in 0..COUNT_MAX {
        bytes = with_entry(&bytes, 0x4321, b"?");
    }
    assert_eq!(parse(&bytes), parse(&bare()));
    refused(&with_entry(&bytes, 0x4321, b"?"), "TLV", 48, Fault::TooMany);
    refused(&with_entry(&bytes, 7, &[0; 4]), "TLV", 48, Fault::TooMany);
}

#[test]
fn a_datagram_of_1200_bytes_and_a_longer_one() {
    let fill = |len: usize| with_entry(&bare(), 10, &vec![0; len - 52]);
    assert_eq!(parse(&fill(1_200)).map(|announce| announce.pad_to), Ok(1_200));
    refused(&fill(1_204), "total length", 8, Fault::Range);
    assert_eq!(Datagram::parse(&vec![0; 70_000]), Err(ParseError::new("magic", 0, Fault::Mismatch)));
}

#[test]
fn values_end_inside_the_datagram_and_padding_is_zero() {
    let bytes = with_entry(&bare(), 2, b"Kiosk");
    for (at, value, field, offset, fault) in [
        (50, 9, "TLV length", 48, Fault::Truncated),
        (51, 0xFF, "TLV length", 48, Fault::Truncated),
        (57, 1, "TLV padding", 56, Fault::NotZero),
        (59, 1, "TLV padding", 56, Fault::NotZero),
    ] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        refused(&bytes, field, offset, fault);
    }
    let mut odd = bytes;
    odd.extend_from_slice(&[0, 0]);
    refused(&with_length(odd), "total length", 8, Fault::Length);
}

#[test]
fn values_at_their_limits_and_one_past_each() {
    let (long, text) = ([0_u8; 300], "x".repeat(40));
    let text = text.as_bytes();
    let store = |len: usize| [&[7, 0, 0, 0], &text[..len]].concat();
    for (number, name, right, wrong) in [
        (1, "STORE", vec![store(1), store(32)], vec![store(0), store(33), vec![7, 0, 0]]),
        (2, "NAME", vec![text[..1].to_vec(), text[..32].to_vec()], vec![vec![], text[..33].to_vec()]),
        (5, "FIRMWARE", vec![long[..8].to_vec()], vec![long[..7].to_vec(), long[..9].to_vec(), vec![]]),
        (6, "CAPS", vec![long[..8].to_vec()], vec![long[..7].to_vec(), long[..9].to_vec(), vec![]]),
        (7, "ZONE", vec![long[..4].to_vec()], vec![long[..3].to_vec(), long[..5].to_vec(), vec![]]),
        (10, "PAD", vec![vec![], long.to_vec()], vec![]),
        (
            11,
            "APP",
            vec![long[..1].to_vec(), long[..APP_MAX].to_vec()],
            vec![vec![], long[..=APP_MAX].to_vec()],
        ),
        (
            3,
            "SERVICES",
            vec![long[..8].to_vec(), long[..256].to_vec()],
            vec![vec![], long[..7].to_vec(), long[..12].to_vec()],
        ),
        (13, "TAGS", vec![b"\x01a".to_vec()], vec![vec![], b"\x02a".to_vec(), b"\x00".to_vec()]),
        (14, "CODE", vec![text[..1].to_vec(), text[..16].to_vec()], vec![vec![], text[..17].to_vec()]),
    ] {
        for value in right {
            assert!(parse(&with_entry(&bare(), number, &value)).is_ok(), "{name} of {} bytes", value.len());
        }
        for value in wrong {
            refused(&with_entry(&bare(), number, &value), name, 48, Fault::Length);
        }
    }
    refused(&with_entry(&bare(), 3, &long[..264]), "SERVICES", 48, Fault::TooMany);
    refused(&with_entry(&bare(), 10, &[0, 0, 1, 0]), "PAD", 48, Fault::NotZero);
}

#[test]
fn no_text_can_poison_a_log() {
    for wrong in ["a\nb", "a\0", "\u{1b}[31m", "\u{7f}", "\u{85}", "tab\there", "12345678\u{9b}"] {
        refused(&with_entry(&bare(), 2, wrong.as_bytes()), "NAME", 48, Fault::Text);
        refused(&with_entry(&bare(), 14, wrong.as_bytes()), "CODE", 48, Fault::Text);
        let store = [&[7, 0, 0, 0], wrong.as_bytes()].concat();
        refused(&with_entry(&bare(), 1, &store), "STORE", 48, Fault::Text);
        let tag = [&[u8::try_from(wrong.len()).unwrap()], wrong.as_bytes()].concat();
        refused(&with_entry(&bare(), 13, &tag), "TAGS", 48, Fault::Text);
    }
    refused(&with_entry(&bare(), 2, b"\xC3\x28"), "NAME", 48, Fault::Text);
    refused(&with_entry(&bare(), 13, b"\x03a,b"), "TAGS", 48, Fault::Text);
    for right in ["Käse & Brot", "店", "~ ~", "0123456789 abcdefghij !\"#$%&'()"] {
        let bytes = with_entry(&bare(), 2, right.as_bytes());
        assert_eq!(parse(&bytes).unwrap().name.map(|name| name.to_string()).as_deref(), Some(right));
    }
}

#[test]
fn tags_are_those_a_device_may_have() {
    let packed = |tags: &[&str]| {
        let pack = |tag: &&str| [&[u8::try_from(tag.len()).unwrap()], tag.as_bytes()].concat();
        tags.iter().flat_map(pack).collect::<Vec<_>>()
    };
    let (a, b, c) = ("a".repeat(15), "b".repeat(15), "c".repeat(15));
    for right in [
        packed(&["bakery", "till-2", "é"]),
        packed(&[&a, &b, &c]),
        packed(&["a", "b", "c", "d", "e", "f", "g", "h"]),
    ] {
        let bytes = with_entry(&bare(), 13, &right);
        let tags = parse(&bytes).unwrap().tags.unwrap();
        assert_eq!(tags.as_packed(), right);
        assert_eq!(Some(tags.to_tags()), Tags::from_packed(&right), "both forms have the same rules");
        assert!(tags.iter().eq(tags.to_tags().iter()));
    }
    for (wrong, fault) in [
        (packed(&["a", "b", "a"]), Fault::Repeated),
        (packed(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]), Fault::TooMany),
        (packed(&[&"a".repeat(16)]), Fault::Length),
        (packed(&[&a, &b, &c, "d"]), Fault::Length),
    ] {
        refused(&with_entry(&bare(), 13, &wrong), "TAGS", 48, fault);
        assert_eq!(Tags::from_packed(&wrong), None, "both forms have the same rules");
    }
}

#[test]
fn addresses_at_their_limits_and_one_past_each() {
    let v4 = |prefix: u8| vec![4, prefix, 0, 0, 10, 0, 0, 2];
    let v6 = |prefix: u8| [vec![6, prefix, 0, 0], vec![0xFD; 16]].concat();
    for right in [v4(0), v4(32), v6(128), [v4(24), v6(64), v4(16), v6(0)].concat()] {
        let bytes = with_entry(&bare(), 4, &right);
        let addrs = parse(&bytes).unwrap().addrs.unwrap();
        let mut list = AddrList::EMPTY;
        assert!(addrs.iter().all(|addr| list.push(addr)));
        assert_eq!(list.as_addrs(), Some(addrs));
    }
    for (wrong, fault) in [
        (vec![], Fault::Length),
        (v4(33), Fault::Range),
        (v6(129), Fault::Range),
        ([vec![5], v4(24)[1..].to_vec()].concat(), Fault::Range),
        (v4(24)[..7].to_vec(), Fault::Length),
        (v6(24)[..19].to_vec(), Fault::Length),
        ([v4(24), vec![4]].concat(), Fault::Length),
        (v4(24).repeat(5), Fault::TooMany),
    ] {
        refused(&with_entry(&bare(), 4, &wrong), "ADDR", 48, fault);
    }
}

#[test]
fn lists_take_as_many_as_they_hold() {
    let http = Service { id: Service::HTTP, port: 80, protocol: Service::TCP, flags: 0, version: 1 };
    let mut services = ServiceList::<2>::EMPTY;
    assert_eq!(services.as_services(), None);
    assert_eq!([services.push(http), services.push(http), services.push(http)], [true, true, false]);
    assert_eq!(ServiceList::<1>::copy_of(services.as_services().unwrap()).iter().count(), 1);
    let address = Addr { address: [10, 0, 0, 2].into(), prefix: 32, metric: 7 };
    let mut addrs = AddrList::EMPTY;
    assert_eq!(addrs.as_addrs(), None);
    assert_eq!([(); 5].map(|()| addrs.push(address)), [true, true, true, true, false]);
    assert!(addrs.iter().all(|addr| addr == address));
}

#[test]
fn a_store_is_compared_in_full() {
    let store = Store::new(7, "PARIS-12").unwrap();
    let bytes = testing::vector("datagram ANNOUNCE");
    let heard = parse(&bytes).unwrap().store.unwrap();
    assert!(heard.is(&store));
    assert_eq!(Store::try_from(heard), Ok(store));
    for other in [(8, "PARIS-12"), (7, "PARIS-1"), (7, "PARIS-121"), (7, "paris-12")] {
        assert!(!heard.is(&Store::new(other.0, other.1).unwrap()), "{other:?}");
    }
}

#[test]
fn nobody_is_nobody() {
    let mut bytes = testing::vector("datagram ANNOUNCE");
    bytes[16..32].fill(0);
    refused(&bytes, "node id", 16, Fault::Range);
    let seek = Seek {
        from: Node::new(NodeId::NONE, DeviceKind::TILL),
        suppressed: 0,
        store: None,
        name: None,
        pad_to: 0,
        auth: None,
    };
    assert_eq!(seek.emit(&mut [0; 48]), Err(EmitError::Invalid { field: "node id" }));
}

proptest::proptest! {
    /// Anything, and anything behind a header that is right: no panic, and what is accepted means the same again.
    #[test]
    fn garbage_is_harmless(
        kind in 1_u8..7, role in proptest::sample::select(vec![2_u16, 0xFFFF]), flags: u8,
        aux in 0_u32..2, mut tail in proptest::collection::vec(0_u8..20, 0..300),
    ) {
        let _any = Datagram::parse(&tail);
        tail.truncate(tail.len() & !3);
        let mut bytes = bare();
        (bytes[5], bytes[6]) = (kind, flags & !0x02);
        bytes[10..12].copy_from_slice(&role.to_le_bytes());
        bytes[44..48].copy_from_slice(&aux.to_le_bytes());
        bytes.extend_from_slice(&tail);
        let bytes = with_length(bytes);
        if let Ok(datagram) = Datagram::parse(&bytes) {
            let again = testing::emit(|buffer| datagram.emit(buffer));
            proptest::prop_assert_eq!(Datagram::parse(&again), Ok(datagram));
        }
    }

    /// Random entries of known numbers, most of them well formed.
    #[test]
    fn mixed_entries_are_harmless(parts in samples::parts(), numbers in proptest::collection::vec(0_u16..16, 0..8)) {
        let mut bytes = bare();
        for number in numbers {
            let value: &[u8] = match number {
                1 => &[7, 0, 0, 0, b'x'],
                2 => b"name",
                3 => &[1; 16],
                4 => &[4, 24, 0, 0, 10, 0, 0, 2],
                5 | 6 => &[9; 8],
                7 | 9 => &[3; 4],
                8 => &[5; 16],
                12 => &[1; 2],
                13 => b"\x01a\x02bc",
                14 => b"KIO-0003",
                _ => &[0; 5],
            };
            bytes = with_entry(&bytes, number | if parts.flag { CRITICAL } else { 0 }, value);
        }
        if let Ok(announce) = Announce::parse(&bytes) {
            let again = testing::emit(|buffer| announce.emit(buffer));
            proptest::prop_assert_eq!(Announce::parse(&again), Ok(announce));
        }
    }
}
