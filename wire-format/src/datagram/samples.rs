//! Values for the tests of this module: one of each kind as in the specification's vectors, and random ones.

use proptest::prelude::*;

use super::ack::Code;
use super::*;
use crate::ids::{DeviceKind, NodeId, Store, Tags};
use crate::testing;

/// The device of the vectors.
pub(super) fn device() -> Node {
    Node {
        scope: store().scope(),
        epoch: 7,
        sequence: 0x0102_0304,
        port: 8081,
        lease_s: 90,
        ..Node::new(NodeId(*b"device-number-01"), DeviceKind::KIOSK)
    }
}

/// The server of the vectors.
pub(super) fn server() -> Node {
    Node {
        scope: store().scope(),
        epoch: 0xC0FF_EE01,
        epoch_random: true,
        sequence: 0x0A0B_0C0D,
        port: 80,
        lease_s: 90,
        ..Node::new(NodeId(*b"store-server-001"), DeviceKind::SERVER)
    }
}

/// The store of the vectors.
pub(super) fn store() -> Store {
    Store::new(7, "PARIS-12").unwrap()
}

/// Emits, checks the emission, parses it back, and tries every truncation and flipped bit.
pub(super) fn check(datagram: &Datagram<'_>) -> Vec<u8> {
    let bytes = testing::emit(|buffer| datagram.emit(buffer));
    assert_eq!(Datagram::parse(&bytes).as_ref(), Ok(datagram));
    assert!(bytes.len() <= DATAGRAM_MAX && bytes.len().is_multiple_of(4));
    testing::datagram(&bytes, |input, buffer| {
        let datagram = Datagram::parse(input)?;
        let emitted = datagram.emit(buffer);
        if let Ok(len) = emitted {
            assert_eq!(
                Datagram::parse(&buffer[..len]),
                Ok(datagram),
                "the same value in this version's form"
            );
        }
        Ok(emitted)
    });
    bytes
}

/// The value as the specification's vector gives it, in both directions.
pub(super) fn check_vector(name: &str, datagram: &Datagram<'_>) {
    let bytes = testing::vector(name);
    let emitted = check(datagram);
    assert_eq!(hex(&emitted), hex(&bytes), "{name}");
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(16)
        .map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `bytes` with the entry `number` appended, the total length made right.
pub(super) fn with_entry(bytes: &[u8], number: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    with_length(bytes)
}

/// `bytes` with the total length made right.
pub(super) fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap();
    bytes[8..10].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// What random values borrow from.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) device: Node,
    pub(super) server: Node,
    pub(super) aux: u32,
    pub(super) flag: bool,
    store: Option<Store>,
    name: Option<String>,
    services: ServiceList,
    addrs: AddrList,
    pub(super) firmware: Option<Firmware>,
    pub(super) caps: Option<u64>,
    pub(super) zone: Option<u32>,
    tags: Tags,
    code: Option<String>,
    pub(super) nonce: Option<Nonce>,
    app: Option<Vec<u8>>,
    pub(super) priority: Option<u16>,
    pub(super) status: Status,
    auth: Option<(u16, u8, [u8; 16])>,
    pad: Option<u16>,
}

impl Parts {
    pub(super) fn store(&self) -> Option<StoreRef<'_>> {
        self.store.as_ref().map(StoreRef::from)
    }

    pub(super) fn name(&self) -> Option<TextRef<'_>> {
        self.name.as_deref().and_then(TextRef::new)
    }

    pub(super) fn services(&self) -> Option<Services<'_>> {
        self.services.as_services()
    }

    pub(super) fn addrs(&self) -> Option<Addrs<'_>> {
        self.addrs.as_addrs()
    }

    pub(super) fn tags(&self) -> Option<TagsRef<'_>> {
        TagsRef::new(&self.tags)
    }

    pub(super) fn code(&self) -> Option<CodeRef<'_>> {
        self.code.as_deref().and_then(CodeRef::new)
    }

    pub(super) fn app(&self) -> Option<&[u8]> {
        self.app.as_deref()
    }

    pub(super) fn auth(&self) -> Option<Auth<'_>> {
        self.auth.as_ref().map(|(key_id, algorithm, tag)| Auth {
            key_id: *key_id,
            algorithm: *algorithm,
            tag,
        })
    }

    /// A padded length that `emit` has to fill up to, behind what `unpadded` has.
    pub(super) fn pad_to(&self, unpadded: &Datagram<'_>) -> u16 {
        let len = u16::try_from(testing::emit(|buffer| unpadded.emit(buffer)).len()).unwrap();
        self.pad.map_or(0, |more| (len + 4 * (1 + more)).min(1_200))
    }
}

fn node(role: impl Strategy<Value = u16>) -> impl Strategy<Value = Node> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (1_u128.., role, numbers, flags).prop_map(|(id, role, numbers, flags)| {
        let (scope, epoch, sequence, port, lease_s) = numbers;
        let (epoch_random, staging, broadcast_copy, retransmit, want_ack) = flags;
        let (id, role) = (NodeId(id.to_le_bytes()), DeviceKind(role));
        Node {
            id,
            role,
            scope,
            epoch,
            epoch_random,
            sequence,
            staging,
            port,
            lease_s,
            broadcast_copy,
            retransmit,
            want_ack,
        }
    })
}

/// 1 to 32 bytes without control characters, of any script.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,32}", "\\PC{1,8}"]
}

fn services() -> impl Strategy<Value = ServiceList> {
    proptest::collection::vec(any::<[u8; 8]>(), 0..6).prop_map(|services| {
        let mut list = ServiceList::EMPTY;
        assert!(services.into_iter().all(|bytes| list.push(Service::from_bytes(bytes))));
        list
    })
}

fn addrs() -> impl Strategy<Value = AddrList> {
    let address = prop_oneof![
        (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(octets, prefix)| (octets.into(), prefix)),
        (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(octets, prefix)| (octets.into(), prefix)),
    ];
    proptest::collection::vec((address, any::<u16>()), 0..=4).prop_map(|addrs| {
        let mut list = AddrList::EMPTY;
        assert!(addrs.into_iter().all(|((address, prefix), metric)| list.push(Addr {
            address,
            prefix,
            metric
        })));
        list
    })
}

fn nonce() -> impl Strategy<Value = Nonce> {
    prop_oneof![any::<[u8; 8]>().prop_map(Nonce::Short), any::<[u8; 16]>().prop_map(Nonce::Long)]
}

/// Anything a datagram may carry.
pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let header = (node(0..u16::MAX), node(Just(u16::MAX)), any::<u32>(), any::<bool>());
    let store = proptest::option::of((any::<u32>(), text()));
    let tags = (proptest::collection::vec("[a-z0-9-]{1,11}", 0..4), proptest::option::of("[ -~]{1,16}"));
    let status = (any::<u8>(), any::<u8>(), any::<u16>());
    let numbers = proptest::option::of((any::<(u32, u32)>(), any::<u64>(), any::<u32>(), any::<u16>()));
    let app = proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=128));
    let ends =
        (app, status, proptest::option::of(any::<(u16, u8, [u8; 16])>()), proptest::option::of(0_u16..40));
    let texts = (store, proptest::option::of(text()), tags, proptest::option::of(nonce()));
    (header, texts, services(), addrs(), numbers, ends).prop_map(
        |(
            (device, server, aux, flag),
            (store, name, (tags, code), nonce),
            services,
            addrs,
            numbers,
            ends,
        )| {
            let (app, (status, retry_after_s, detail), auth, pad) = ends;
            Parts {
                device,
                server,
                aux,
                flag,
                store: store.map(|(entity, code)| Store::new(entity, &code).unwrap()),
                name,
                services,
                addrs,
                firmware: numbers.map(|((version, build), ..)| Firmware { version, build }),
                caps: numbers.map(|(_, caps, ..)| caps),
                zone: numbers.map(|(_, _, zone, _)| zone),
                tags: Tags::new(tags.iter().map(String::as_str)).unwrap(),
                code,
                nonce,
                app,
                priority: numbers.map(|(.., priority)| priority),
                status: Status { code: Code(status), retry_after_s, detail },
                auth,
                pad,
            }
        },
    )
}
