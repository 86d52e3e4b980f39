//! Datagrams as somebody could forge them.

use wire_format::datagram::{
    Ack, Announce, Auth, Beacon, Bye, Challenge, Datagram, Node, Nonce, Seek, Status, StoreRef, ack, bye,
};
use wire_format::ids::{DeviceKind, NodeId, Store};

use super::{id, store};
use crate::config::{ANNOUNCE_LEN_MIN, BEACON_LEN_MAX};

pub(crate) const SERVER: u32 = 1_000_000;

/// A header of the node with this number.
pub(crate) fn node(number: u32, epoch: u32, sequence: u32) -> Node {
    let role = if number >= SERVER { DeviceKind::SERVER } else { DeviceKind::KIOSK };
    Node { scope: store().scope(), epoch, sequence, port: 8_081, ..Node::new(id(number), role) }
}

pub(crate) fn bytes(datagram: Datagram<'_>) -> Vec<u8> {
    let mut buffer = [0; 1_200];
    let len = datagram.emit(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

pub(crate) fn announce_of<'a>(from: Node, store: &'a Store) -> Announce<'a> {
    Announce {
        store: Some(StoreRef::from(store)),
        nonce: Some(Nonce::Short([7; 8])),
        pad_to: ANNOUNCE_LEN_MIN as u16,
        ..Announce::without_entries(from, 0)
    }
}

pub(crate) fn announce(number: u32, epoch: u32, sequence: u32) -> Vec<u8> {
    bytes(Datagram::Announce(announce_of(node(number, epoch, sequence), &store())))
}

pub(crate) fn signed_announce(number: u32, sequence: u32) -> Vec<u8> {
    let auth = Some(Auth::open(1, Auth::HMAC_SHA256_128));
    bytes(Datagram::Announce(Announce { auth, ..announce_of(node(number, 1, sequence), &store()) }))
}

pub(crate) fn seek(number: u32, sequence: u32, pad_to: usize) -> Vec<u8> {
    let pad_to = u16::try_from(pad_to).unwrap();
    let (store, from) = (store(), node(number, 1, sequence));
    bytes(Datagram::Seek(Seek {
        from,
        suppressed: 0,
        store: Some((&store).into()),
        name: None,
        pad_to,
        auth: None,
    }))
}

pub(crate) fn beacon(number: u32, epoch: u32, sequence: u32, window_ms: u16, select_bits: u8) -> Vec<u8> {
    let (store, from) = (store(), Node { lease_s: 90, ..node(number, epoch, sequence) });
    bytes(Datagram::Beacon(Beacon {
        from,
        window_ms,
        select_bits,
        select_salt: 9,
        store: Some((&store).into()),
        name: None,
        services: None,
        addrs: None,
        priority: None,
        caps: None,
        auth: None,
    }))
}

pub(crate) fn ack(server: u32, announce_sequence: u32, code: ack::Code, nonce: Option<Nonce>) -> Vec<u8> {
    let status = Status { code, retry_after_s: 5, detail: 0 };
    bytes(Datagram::Ack(Ack { from: node(server, 1, 1), announce_sequence, status, nonce, auth: None }))
}

pub(crate) fn bye(number: u32, epoch: u32, sequence: u32) -> Vec<u8> {
    let store = store();
    let reason = bye::Reason::RESTARTING;
    let from = node(number, epoch, sequence);
    bytes(Datagram::Bye(Bye { from, reason, retry_after_s: 10, store: Some((&store).into()), auth: None }))
}

pub(crate) fn challenge(number: u32, epoch: u32, sequence: u32, answer: bool, nonce: Nonce) -> Vec<u8> {
    bytes(Datagram::Challenge(Challenge { from: node(number, epoch, sequence), answer, nonce, auth: None }))
}

/// One of each kind, well formed, of our store.
pub(crate) fn all_kinds() -> Vec<Vec<u8>> {
    vec![
        seek(1, 50_000, BEACON_LEN_MAX),
        seek(2, 50_001, 0),
        announce(1, 1, 50_002),
        announce(3, 1, 50_003),
        signed_announce(4, 50_004),
        bye(1, 1, 50_005),
        bye(SERVER, 1, 50_006),
        challenge(1, 1, 50_007, true, Nonce::Short([1; 8])),
        challenge(SERVER, 1, 50_008, false, Nonce::Long([1; 16])),
        challenge(SERVER, 1, 50_008, false, Nonce::Short([1; 8])),
        beacon(SERVER, 1, 50_009, 250, 0),
        beacon(SERVER + 1, 1, 50_010, 250, 0),
        ack(SERVER, 1, ack::Code::OK, Some(Nonce::Short([7; 8]))),
        bytes(Datagram::Announce(Announce { pad_to: 0, ..announce_of(node(5, 1, 1), &store()) })),
    ]
}

/// The id inside a datagram.
pub(crate) fn sender(datagram: &[u8]) -> NodeId {
    NodeId(datagram[16..32].try_into().unwrap())
}

/// A goodbye with an AUTH whose tag is still to be computed, for key 1.
#[cfg(feature = "auth")]
pub(crate) fn signed_bye(number: u32, epoch: u32, sequence: u32) -> Vec<u8> {
    let (store, from) = (store(), node(number, epoch, sequence));
    let (reason, auth) = (bye::Reason::RESTARTING, Some(Auth::open(1, Auth::HMAC_SHA256_128)));
    bytes(Datagram::Bye(Bye { from, reason, retry_after_s: 10, store: Some((&store).into()), auth }))
}
