//! The ports of discovery: answers come from the fixed one and go to where the question came from, and a second server on it
//! is an error with a name.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use tillwire::discovery::driver::{OpenErrorKind, Opening};
use tillwire::{Security, StartError, StoreServer};
use wire_format::datagram::{Ack, Announce, Node, Nonce, StoreRef};
use wire_format::ids::{DeviceKind, NodeId};

use super::{WITHIN, at, runtime, serve, store};

fn announce(nonce: [u8; 8]) -> Vec<u8> {
    let from = Node {
        scope: store().scope(),
        epoch: 1,
        sequence: u32::from(nonce[0]),
        port: 8_081,
        want_ack: true,
        ..Node::new(NodeId([7; 16]), DeviceKind::TILL)
    };
    let mut bytes = [0; 192];
    let store = store();
    let announce = Announce {
        store: Some(StoreRef::from(&store)),
        nonce: Some(Nonce::Short(nonce)),
        pad_to: 96,
        ..Announce::without_entries(from, 0)
    };
    let len = announce.emit(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

#[test]
fn an_answer_comes_from_the_fixed_port_to_the_port_that_asked() {
    let (runtime, at) = (runtime(), at(30, 41_550));
    let server = serve(&runtime, at, 10, 1, 1_000);
    // Both ends of the protocol's port, as a stateful filter wants it; and another one.
    for (nonce, from) in [
        (1, SocketAddrV4::new(Ipv4Addr::new(127, 67, 0, 1), at.port())),
        (2, SocketAddrV4::new(Ipv4Addr::new(127, 67, 0, 1), 0)),
    ] {
        let socket = UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        socket.send_to(&announce([nonce; 8]), at).unwrap();
        let mut buffer = [0; 1_200];
        let (len, source) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(source, SocketAddr::V4(at));
        let ack = Ack::parse(&buffer[..len]).unwrap();
        assert_eq!((ack.nonce, ack.announce_sequence), (Some(Nonce::Short([nonce; 8])), u32::from(nonce)));
    }
    runtime.block_on(server.shutdown());
}

#[test]
fn a_second_server_on_the_port_is_an_error_with_a_name_until_the_first_has_left() {
    let (runtime, at) = (runtime(), at(31, 41_551));
    let start = || {
        let builder = StoreServer::builder(store()).security(Security::open_network());
        runtime.block_on(builder.bind(*at.ip()).discovery_port(at.port()).start())
    };
    let first = start().unwrap();
    let Err(StartError::Discovery(error)) = start() else { panic!("two servers on one port") };
    assert_eq!((error.kind(), error.what, error.addr), (OpenErrorKind::PortInUse, Opening::Unicast, at));
    assert!(error.to_string().contains("in use"), "{error}");
    runtime.block_on(first.shutdown());
    let second = start().unwrap();
    runtime.block_on(second.shutdown());
}
