//! Floor 0: bytes to values and back.

use std::hint::black_box;

use super::Scenario;
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
        one("order_parse_200", order_parse),
        one("order_emit_200", order_emit),
        one("order_split_200", order_split),
        one("outcome_parse", outcome_parse),
        one("outcome_emit", outcome_emit),
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

fn order_frame() -> Vec<u8> {
    let mut frame = vec![0; 512];
    let len = order(7, &[0x5A; 200]).emit(&DELIVERY, &mut frame).expect("fits");
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

fn order_parse() -> Box<dyn FnMut()> {
    let frame = order_frame();
    Box::new(move || {
        let raw = Raw::parse(black_box(&frame)).expect("parses");
        black_box(Order::parse(&raw)).expect("parses");
    })
}

fn order_emit() -> Box<dyn FnMut()> {
    let mut frame = vec![0; 512];
    Box::new(move || {
        black_box(order(7, black_box(&[0x5A; 200])).emit(&DELIVERY, &mut frame)).expect("fits");
    })
}

fn order_split() -> Box<dyn FnMut()> {
    let frame = order_frame();
    Box::new(move || {
        let split = splitter::split(black_box(&frame), 65_536).expect("splits");
        assert!(matches!(black_box(split), Split::Frame(_)));
    })
}

fn entry() -> Entry {
    Entry { number: 7, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 1 }
}

fn outcome_frame() -> Vec<u8> {
    let mut frame = vec![0; 64];
    let len = outcome::emit(false, [entry()].into_iter(), &mut frame).expect("fits");
    frame.truncate(len);
    frame
}

fn outcome_parse() -> Box<dyn FnMut()> {
    let frame = outcome_frame();
    Box::new(move || {
        let raw = Raw::parse(black_box(&frame)).expect("parses");
        let outcome = Outcome::parse(&raw).expect("parses");
        black_box(outcome.entries.iter().count());
    })
}

fn outcome_emit() -> Box<dyn FnMut()> {
    let mut frame = [0; 64];
    Box::new(move || {
        black_box(outcome::emit(false, [black_box(entry())].into_iter(), &mut frame)).expect("fits");
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
