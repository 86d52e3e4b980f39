//! Discovery: any bytes as the snapshot a server finds at its start.
//!
//! They are restored as they are, and once more with every checksum made right, so that what lies behind them is reached.
//! Then: every record is counted once, the roster holds what was counted and finds it, and what it writes is read back
//! whole.

use discovery::roster::{HEADER_LEN, RECORD_LEN, Restored};
use discovery::{Arrival, LinkId, Roster, ServerConfig, Slot, SnapshotError};
use std::net::SocketAddrV4;
use wire_format::crc;
use wire_format::datagram::{Announce, CodeRef, Firmware, Node, Service, ServiceList, TagsRef, TextRef};
use wire_format::ids::{DeviceKind, NodeId, Store, Tags};
use wire_format::time::Instant;

use super::Seed;

/// Devices that fit: fewer than an input holds, so that the roster overflows.
const SLOTS: usize = 4;
const NOW: Instant = Instant::from_millis(1_000);

/// Any bytes as a snapshot.
///
/// # Panics
///
/// If an invariant is broken.
pub fn roster_snapshot(data: &[u8]) {
    let _refused = restored(data);
    let mut right = data.to_vec();
    make_right(&mut right);
    if let Ok((restored, roster)) = restored(&right) {
        let records = u32::from_le_bytes(right[8..12].try_into().expect("4 bytes of a header"));
        assert_eq!(sum(&restored), u64::from(records), "a record is counted once: {restored:?}");
        check_again(&restored, &roster);
    }
}

fn restored(bytes: &[u8]) -> Result<(Restored, Roster<Vec<Slot>>), SnapshotError> {
    let mut roster = roster();
    let restored = roster.restore(NOW, bytes)?;
    assert_eq!(roster.iter().count() as u64, u64::from(restored.unconfirmed + restored.gone));
    assert!(roster.is_empty() && roster.capacity() == SLOTS);
    assert_eq!(roster.poll_event(), None, "nothing is told before something was heard");
    for view in roster.iter() {
        assert!(view.name.len() <= 32 && view.code.len() <= 16);
        assert_eq!(roster.find(view.id), Some(view), "a device that is not found by its id");
    }
    Ok((restored, roster))
}

/// What was taken is written, and read again.
fn check_again(restored: &Restored, roster: &Roster<Vec<Slot>>) {
    let again = written(roster);
    let mut second = self::roster();
    let kept = second.restore(NOW, &again).expect("our own snapshot");
    assert_eq!((kept.unconfirmed, kept.gone), (restored.unconfirmed, restored.gone));
    assert_eq!(sum(&kept), u64::from(kept.unconfirmed + kept.gone), "our own records: {kept:?}");
    assert_eq!(written(&second), again);
}

fn sum(restored: &Restored) -> u64 {
    let Restored { unconfirmed, gone, damaged, missing, full, crowded, known } = *restored;
    [unconfirmed, gone, damaged, missing, full, crowded, known].into_iter().map(u64::from).sum()
}

/// Writes the checksums the header and the records should have.
fn make_right(bytes: &mut [u8]) {
    let Some((header, records)) = bytes.split_at_mut_checked(HEADER_LEN) else { return };
    let (summed, place) = header.split_at_mut(HEADER_LEN - 4);
    let seed = crc::crc32c(summed);
    place.copy_from_slice(&seed.to_le_bytes());
    for record in records.chunks_exact_mut(RECORD_LEN) {
        let (summed, place) = record.split_at_mut(RECORD_LEN - 4);
        place.copy_from_slice(&crc::append(seed, summed).to_le_bytes());
    }
}

fn written(roster: &Roster<Vec<Slot>>) -> Vec<u8> {
    let (mut snapshot, mut buffer, mut bytes) = (roster.snapshot(), [0; RECORD_LEN], Vec::new());
    while let Some(piece) = snapshot.next_piece(&mut buffer) {
        bytes.extend_from_slice(piece);
    }
    bytes
}

fn store() -> Store {
    Store::new(7, "PARIS-12").expect("a store")
}

fn roster() -> Roster<Vec<Slot>> {
    let config = ServerConfig { epoch: 1, ..ServerConfig::new(NodeId([0xFE; 16]), store()) };
    Roster::new(config, vec![Slot::EMPTY; SLOTS], NOW, 1)
}

/// Snapshots of an empty roster, of one device that says little, and of three of which one says everything.
pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    for count in [0, 1, 3] {
        let mut roster = roster();
        for number in 1..=count {
            announce(&mut roster, number, number == 3);
        }
        let name = format!("devices-{count}");
        seeds.push(Seed { target: "roster_snapshot", name, bytes: written(&roster) });
    }
}

fn announce(roster: &mut Roster<Vec<Slot>>, number: u8, everything: bool) {
    let store = store();
    let tags = Tags::new(["bakery", "self-service"]).expect("tags");
    let mut services = ServiceList::<2>::EMPTY;
    for port in [80, 8_000] {
        assert!(services.push(Service { id: 1, port, protocol: Service::TCP, flags: 0, version: 1 }));
    }
    let from = Node {
        scope: store.scope(),
        epoch: 7,
        sequence: 9,
        port: 8_081,
        ..Node::new(NodeId([number; 16]), DeviceKind::KIOSK)
    };
    let announce = Announce {
        from,
        answers: 0,
        store: Some((&store).into()),
        name: TextRef::new("Kiosk 3").filter(|_| everything),
        services: services.as_services().filter(|_| everything),
        addrs: None,
        firmware: everything.then_some(Firmware { version: 1, build: 2 }),
        caps: everything.then_some(3),
        zone: everything.then_some(4),
        tags: TagsRef::new(&tags).filter(|_| everything),
        code: CodeRef::new("KIO-0003").filter(|_| everything),
        nonce: None,
        app: None,
        pad_to: 96,
        auth: None,
    };
    let mut buffer = [0; 256];
    let len = announce.emit(&mut buffer).expect("an announce");
    let source = SocketAddrV4::new([10, 0, 0, number].into(), 57_854);
    let arrival = Arrival { link: LinkId(0), source, broadcast: false };
    roster.handle_datagram(NOW, &arrival, &buffer[..len]).expect("a newcomer");
}
