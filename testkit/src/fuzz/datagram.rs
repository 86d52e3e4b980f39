//! Datagrams: what is understood is said again and understood the same.

use wire_format::datagram::{self, DATAGRAM_MAX, Datagram};

/// Any bytes as a datagram.
///
/// # Panics
///
/// If what was parsed cannot be emitted, or comes back as something else.
pub fn datagram(data: &[u8]) {
    let peeked = datagram::peek(data);
    let Ok(first) = Datagram::parse(data) else { return };
    assert_eq!(peeked, Ok(first.kind()), "peek and parse disagree");
    assert!(data.len() <= DATAGRAM_MAX, "more bytes than a datagram has");
    let mut buffer = [0xA5; DATAGRAM_MAX];
    let len = first.emit(&mut buffer).expect("what parses, emits");
    let second = Datagram::parse(&buffer[..len]).expect("what was emitted, parses");
    assert_eq!(first, second, "a datagram changed its meaning on the way");
    let mut again = [0x5A; DATAGRAM_MAX];
    let len_again = second.emit(&mut again).expect("what parses, emits");
    assert_eq!(buffer[..len], again[..len_again], "the same datagram has two forms");
    walk(&first);
}

/// Everything a datagram holds lazily is read: counts and texts within their limits.
fn walk(datagram: &Datagram<'_>) {
    let (services, addrs, tags, name) = match datagram {
        Datagram::Beacon(beacon) => (beacon.services, beacon.addrs, None, beacon.name),
        Datagram::Announce(announce) => (announce.services, announce.addrs, announce.tags, announce.name),
        Datagram::Seek(seek) => (None, None, None, seek.name),
        _ => (None, None, None, None),
    };
    if let Some(services) = services {
        assert!((1..=32).contains(&services.iter().count()), "services out of bounds");
    }
    if let Some(addrs) = addrs {
        assert!((1..=4).contains(&addrs.iter().count()), "addresses out of bounds");
    }
    if let Some(tags) = tags {
        assert_eq!(tags.to_tags().as_packed(), tags.as_packed(), "tags changed when unpacked");
    }
    if let Some(name) = name {
        assert!((1..=32).contains(&name.as_str().len()) && !name.as_str().contains(char::is_control));
    }
}
