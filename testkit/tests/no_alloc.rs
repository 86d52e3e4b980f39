//! Floor 0 allocates nothing: every vector of the specification is read and written under the counting allocator.
//!
//! The linker proves the same for all inputs (`ci/no-panic.sh`); this runs everywhere and says what did.

use testkit::alloc::{Counting, Counts, count};
use testkit::vectors::{self, Vector};
use wire_format::datagram::Datagram;
use wire_format::frame::{Frame, Raw};
use wire_format::payload::{
    Message, Payload, PrepareCollect, PriceList, Print, RefreshContent, RestartApp, ShowPage, StockAnswer,
    StockQuestion, TransferCart, UpdateFirmware,
};
use wire_format::splitter::RxBuffer;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` on every vector `keep` likes and asks that none of it allocated.
fn none_allocates(keep: impl Fn(&Vector) -> bool, work: impl Fn(&Vector, &mut [u8])) {
    let vectors: Vec<_> = vectors::all().into_iter().filter(keep).collect();
    assert!(!vectors.is_empty());
    let mut buffer = vec![0; 70_000];
    for vector in &vectors {
        let counts = count(|| work(vector, &mut buffer));
        assert_eq!(counts, Counts::default(), "{} allocates", vector.name);
    }
}

#[test]
fn frames() {
    none_allocates(Vector::is_frame, |vector, buffer| {
        let frame = Frame::parse(&Raw::parse(&vector.bytes).unwrap()).unwrap();
        assert_eq!(frame.emit(buffer), Ok(vector.bytes.len()));
    });
}

#[test]
fn datagrams() {
    none_allocates(Vector::is_datagram, |vector, buffer| {
        let datagram = Datagram::parse(&vector.bytes).unwrap();
        assert!(datagram.emit(buffer).is_ok());
    });
}

#[test]
fn the_stream_splitter() {
    none_allocates(Vector::is_frame, |vector, buffer| {
        let mut rx = RxBuffer::new(buffer);
        for byte in &vector.bytes {
            rx.spare()[0] = *byte;
            rx.filled(1);
        }
        assert!(rx.next(65_536).unwrap().is_some());
    });
}

#[test]
fn payloads() {
    fn again<'a, P: Payload<'a>>(bytes: &'a [u8], buffer: &mut [u8]) -> bool {
        P::decode(bytes).is_ok_and(|value| value.encode(buffer) == Ok(bytes.len()))
    }
    none_allocates(
        |vector| vector.sort == "payload",
        |vector, buffer| {
            let bytes = &vector.bytes;
            let good = match vector.name.as_str() {
                "REFRESH-CONTENT" => again::<RefreshContent<'_>>(bytes, buffer),
                "SHOW-PAGE" => again::<ShowPage<'_>>(bytes, buffer),
                "MESSAGE" => again::<Message<'_>>(bytes, buffer),
                "RESTART-APP" => again::<RestartApp<'_>>(bytes, buffer),
                "UPDATE-FIRMWARE" => again::<UpdateFirmware<'_>>(bytes, buffer),
                "PRINT" | "PRINT-FETCH" => again::<Print<'_>>(bytes, buffer),
                "PRICE-LIST" => again::<PriceList<'_>>(bytes, buffer),
                "PREPARE-COLLECT" => again::<PrepareCollect<'_>>(bytes, buffer),
                "TRANSFER-CART" => again::<TransferCart<'_>>(bytes, buffer),
                "STOCK-QUESTION" => again::<StockQuestion<'_>>(bytes, buffer),
                "STOCK-ANSWER" => again::<StockAnswer>(bytes, buffer),
                other => panic!("no payload for the vector {other}"),
            };
            assert!(good);
        },
    );
}

#[test]
fn refusals() {
    none_allocates(
        |_| true,
        |vector, _| {
            let bytes = &vector.bytes[..vector.bytes.len() - 1];
            assert!(Datagram::parse(bytes).is_err() && Raw::parse(bytes).is_err());
            assert!(PrepareCollect::decode(bytes).is_err() && PriceList::decode(bytes).is_err());
        },
    );
}
