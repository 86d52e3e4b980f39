//! Floor 0: bytes to values and back.
//!
//! What "order header decode" and "encode" mean here: the 64 bytes that stand before an order's payload, which are the
//! frame's 16 and the body's 48 fixed ones, to all their values and back. `hand_…` is the yardstick of the budget: the same 64
//! bytes and the same payload, moved by plain loads and stores, nothing checked. `order_parse_…` and `order_emit_…` are the
//! library: as above with every rule of the specification checked and with both checksums, one over 12 bytes of the header
//! and one over the whole body. `checksums_…` is what these take alone.

use std::hint::black_box;
use std::time::Duration;

use super::Scenario;
use wire_format::crc;
use wire_format::datagram::{Announce, header::LEN as DATAGRAM_HEADER};
use wire_format::frame::order::{Delivery, KindFlags, Order};
use wire_format::frame::outcome::{Code, Entry, Outcome};
use wire_format::frame::{Header, Kind, Raw, outcome};
use wire_format::ids::{Lane, OrderKind};
use wire_format::splitter::{self, Split};

const DELIVERY: Delivery =
    Delivery { durable: false, replay: false, needs_result: false, remaining_ms: Some(86_400_000) };

pub(super) fn scenarios() -> Vec<Scenario> {
    let one = |name, build| Scenario { name, build, operations: 1 };
    vec![
        one("frame_header_parse", header_parse),
        one("frame_header_emit", header_emit),
        one("hand_order_decode", hand_decode),
        one("hand_order_encode_200", hand_encode),
        one("order_parse_0", || order_parse(0)),
        one("order_parse_200", || order_parse(200)),
        one("order_emit_0", || order_emit(0)),
        one("order_emit_200", || order_emit(200)),
        one("checksums_order_0", || checksums(0)),
        one("checksums_order_200", || checksums(200)),
        one("order_split_200", order_split),
        one("outcome_parse", || outcome_parse(1)),
        one("outcome_emit", || outcome_emit(1)),
        one("outcome_parse_64", || outcome_parse(64)),
        one("outcome_emit_64", || outcome_emit(64)),
        one("announce_parse", announce_parse),
        one("announce_emit", announce_emit),
    ]
}

pub(super) fn order(number: u64, payload: &[u8]) -> Order<'_> {
    Order {
        number,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: OrderKind::SHOW_PAGE,
        lane: Lane::Normal,
        kind_flags: KindFlags::IDEMPOTENT,
        schema: 1,
        options: &[],
        payload,
    }
}

/// A first delivery within this lifetime.
pub(super) fn delivery(lifetime: Duration) -> Delivery {
    Delivery { remaining_ms: Some(Delivery::millis(lifetime)), ..DELIVERY }
}

fn order_frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 512];
    let len = order(7, &vec![0x5A; payload]).emit(&DELIVERY, &mut frame).expect("fits");
    frame.truncate(len);
    frame
}

fn header_parse() -> Box<dyn FnMut()> {
    let bytes = Header { aux32: 7, ..Header::new(Kind::ORDER, 256) }.emit();
    Box::new(move || {
        black_box(Header::parse(black_box(&bytes))).expect("parses");
    })
}

fn header_emit() -> Box<dyn FnMut()> {
    let header = Header { aux32: 7, ..Header::new(Kind::ORDER, 256) };
    Box::new(move || {
        black_box(black_box(&header).emit());
    })
}

/// Little-endian at a place.
fn load<const N: usize>(bytes: &[u8; 64], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("inside")
}

/// The yardstick: every field of the 64 bytes, and the payload borrowed.
fn hand_decode() -> Box<dyn FnMut()> {
    let frame = order_frame(200);
    Box::new(move || {
        let (head, payload) = black_box(&frame[..]).split_first_chunk::<64>().expect("is longer");
        let order = Order {
            number: u64::from_le_bytes(load(head, 16)),
            order_key: u64::from_le_bytes(load(head, 24)),
            supersede_key: u64::from_le_bytes(load(head, 32)),
            supersede_version: u64::from_le_bytes(load(head, 40)),
            kind: OrderKind(u16::from_le_bytes(load(head, 48))),
            lane: Lane::new(head[50]).unwrap_or(Lane::Bulk),
            kind_flags: KindFlags::IDEMPOTENT,
            schema: u16::from_le_bytes(load(head, 52)),
            options: &payload[..usize::from(u16::from_le_bytes(load(head, 54)))],
            payload: &payload[..u32::from_le_bytes(load(head, 56)) as usize],
        };
        let header = (u32::from_le_bytes(load(head, 0)), head[4], head[5], head[51]);
        let rest = (u16::from_le_bytes(load(head, 6)), u32::from_le_bytes(load(head, 8)));
        black_box((header, rest, order));
    })
}

/// The yardstick the other way: 64 bytes and a copy of the payload.
fn hand_encode() -> Box<dyn FnMut()> {
    let mut frame = vec![0; 512];
    Box::new(move || {
        let order = black_box(order(7, &[0x5A; 200]));
        let (head, rest) = frame.split_first_chunk_mut::<64>().expect("is longer");
        head[0..4].copy_from_slice(&(48 + order.payload.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&[0x10, 0, 0, 0]);
        head[8..12].copy_from_slice(&86_400_000_u32.to_le_bytes());
        head[16..24].copy_from_slice(&order.number.to_le_bytes());
        head[24..32].copy_from_slice(&order.order_key.to_le_bytes());
        head[32..40].copy_from_slice(&order.supersede_key.to_le_bytes());
        head[40..48].copy_from_slice(&order.supersede_version.to_le_bytes());
        head[48..50].copy_from_slice(&order.kind.0.to_le_bytes());
        (head[50], head[51]) = (order.lane as u8, 1);
        head[52..54].copy_from_slice(&order.schema.to_le_bytes());
        head[54..56].copy_from_slice(&(order.options.len() as u16).to_le_bytes());
        head[56..60].copy_from_slice(&(order.payload.len() as u32).to_le_bytes());
        rest[..order.payload.len()].copy_from_slice(order.payload);
        black_box(&frame);
    })
}

fn order_parse(payload: usize) -> Box<dyn FnMut()> {
    let frame = order_frame(payload);
    Box::new(move || {
        let raw = Raw::parse(black_box(&frame)).expect("parses");
        black_box(Order::parse(&raw)).expect("parses");
    })
}

fn order_emit(payload: usize) -> Box<dyn FnMut()> {
    let mut frame = vec![0; 512];
    let payload = vec![0x5A; payload];
    Box::new(move || {
        black_box(order(7, black_box(&payload)).emit(&DELIVERY, &mut frame)).expect("fits");
    })
}

/// What `order_parse` and `order_emit` spend on checksums: 12 bytes of header, 44 fixed ones, the rest of the body.
fn checksums(payload: usize) -> Box<dyn FnMut()> {
    let frame = order_frame(payload);
    Box::new(move || {
        let (head, body) = black_box(&frame[..]).split_first_chunk::<16>().expect("is longer");
        let header = crc::crc32c_of_12(head.first_chunk().expect("is longer"));
        black_box((header, crc::append(crc::crc32c(&body[..44]), &body[48..])));
    })
}

fn order_split() -> Box<dyn FnMut()> {
    let frame = order_frame(200);
    Box::new(move || {
        let split = splitter::split(black_box(&frame), 65_536).expect("splits");
        assert!(matches!(black_box(split), Split::Frame(_)));
    })
}

fn entry(number: u64) -> Entry {
    Entry { number, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 1 }
}

/// An OUTCOME of so many entries.
fn outcome_into(entries: usize, frame: &mut [u8]) -> usize {
    outcome::emit(false, (0..black_box(entries)).map(|at| entry(1 + at as u64)), frame).expect("fits")
}

fn outcome_parse(entries: usize) -> Box<dyn FnMut()> {
    let mut frame = vec![0; 1_100];
    let len = outcome_into(entries, &mut frame);
    frame.truncate(len);
    Box::new(move || {
        let raw = Raw::parse(black_box(&frame)).expect("parses");
        let outcome = Outcome::parse(&raw).expect("parses");
        black_box(outcome.entries.iter().map(|entry| entry.number).sum::<u64>());
    })
}

fn outcome_emit(entries: usize) -> Box<dyn FnMut()> {
    let mut frame = [0; 1_100];
    Box::new(move || {
        black_box(outcome_into(entries, &mut frame));
    })
}

/// The ANNOUNCE of the protocol document.
fn announce_bytes() -> Vec<u8> {
    let bytes = testkit::vectors::all()
        .into_iter()
        .find(|vector| vector.name == "datagram ANNOUNCE")
        .expect("is there")
        .bytes;
    assert!(bytes.len() > DATAGRAM_HEADER);
    bytes
}

fn announce_parse() -> Box<dyn FnMut()> {
    let bytes = announce_bytes();
    Box::new(move || {
        black_box(Announce::parse(black_box(&bytes))).expect("parses");
    })
}

fn announce_emit() -> Box<dyn FnMut()> {
    let bytes = announce_bytes().leak();
    let announce = Announce::parse(bytes).expect("parses");
    let mut buffer = [0; 1_200];
    Box::new(move || {
        black_box(black_box(&announce).emit(&mut buffer)).expect("fits");
    })
}
