//! A program that only links if no panic and no allocator is left in `wire-format`, and in the state machines of
//! `discovery` and `push`.
//!
//! It has no standard library, no allocator, and a panic handler that calls a function nobody defines. It calls every
//! way into the packages with values the compiler knows nothing about. If the optimiser cannot show that no panic is
//! reachable, the handler stays in the program and the linker refuses it. Nothing is ever run.
//!
//! Arithmetic wraps here, as it does in every release build; that it does not overflow is what the tests look at.
#![no_std]
#![no_main]

#[cfg(any(feature = "roster", feature = "seeker"))]
mod discovery_cores;
#[cfg(any(feature = "fleet", feature = "receiver"))]
mod push_cores;

use core::hint::black_box;

use wire_format::datagram::{self, AddrList, Datagram, ServiceList};
use wire_format::frame::{Frame, Order, Raw, Status, order};
use wire_format::ids::{Store, Tags};
use wire_format::rng::Rng;
use wire_format::splitter::{RxBuffer, Split, split};
use wire_format::time::Instant;

#[cfg(feature = "planted-allocation")]
extern crate alloc;

unsafe extern "C" {
    /// Defined nowhere: a call to it is a link error.
    safe fn tillwire_a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    tillwire_a_panic_is_reachable()
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let mut input = [0_u8; 1_024];
    black_box(&mut input);
    let len = black_box(0_usize);
    let bytes = input.get(..len).unwrap_or_default();
    let mut output = [0_u8; 2_048];
    let room = black_box(0_usize);
    let buffer = output.get_mut(..room).unwrap_or_default();
    datagrams(bytes, buffer);
    frames(bytes, buffer);
    stream(bytes, buffer);
    vocabulary(bytes);
    #[cfg(feature = "payloads")]
    payloads::all(bytes, buffer);
    #[cfg(any(feature = "roster", feature = "seeker"))]
    discovery_cores::all(bytes, buffer);
    #[cfg(any(feature = "fleet", feature = "receiver"))]
    push_cores::all(bytes, buffer);
    #[cfg(feature = "planted-panic")]
    black_box(input[len]);
    #[cfg(feature = "planted-allocation")]
    black_box(alloc::boxed::Box::new(len));
    loop {}
}

/// Keeps the optimiser from dropping a value nobody looks at.
fn see<T>(value: T) {
    let _ = black_box(value);
}

#[inline(never)]
fn datagrams(bytes: &[u8], buffer: &mut [u8]) {
    let _ = black_box(datagram::peek(bytes));
    let Ok(datagram) = Datagram::parse(bytes) else { return };
    let _ = black_box((datagram.from(), datagram.kind(), datagram.auth()));
    let _ = black_box(datagram.emit(buffer));
    match datagram {
        Datagram::Announce(announce) => {
            if let Some(services) = announce.services {
                services.iter().for_each(|service| see(service));
                black_box(ServiceList::<8>::copy_of(services).as_services().is_some());
            }
            if let Some(addrs) = announce.addrs {
                let mut copy = AddrList::default();
                addrs.iter().for_each(|addr| see(copy.push(addr)));
                black_box(copy.as_addrs().is_some());
            }
            if let Some(tags) = announce.tags {
                tags.iter().for_each(|tag| see(tag.len()));
                black_box(tags.to_tags());
            }
            black_box(announce.name.map(|name| name.as_str().len()));
        }
        Datagram::Beacon(beacon) => {
            black_box((beacon.selects(beacon.from.id), beacon.token()));
        }
        other => {
            black_box(other);
        }
    }
    black_box(datagram::covered(bytes).is_some());
    datagram::seal(buffer, |covered| [u8::from(covered.is_empty()); 16]);
}

#[inline(never)]
fn frames(bytes: &[u8], buffer: &mut [u8]) {
    let Ok(raw) = Raw::parse(bytes) else { return };
    let Ok(frame) = Frame::parse(&raw) else { return };
    let _ = black_box(frame.emit(buffer));
    match frame {
        Frame::Order(delivery, order) => {
            black_box(delivery.header(0).emit());
            let _ = black_box(order.emit_body(buffer));
            order::options(order.options).for_each(|option| see(option));
        }
        Frame::Welcome(welcome) => welcome.started.iter().for_each(|entry| see(entry)),
        Frame::Outcome(outcome) => outcome.entries.iter().for_each(|entry| see(entry)),
        Frame::Cancel(cancel) => cancel.numbers.iter().for_each(|number| see(number)),
        Frame::Status(Status { rows, .. }) => {
            black_box(rows);
        }
        other => {
            black_box(other);
        }
    }
    let _ = black_box(Order::parse_body(bytes));
    black_box(order::Delivery::millis(core::time::Duration::from_micros(black_box(1))));
}

#[inline(never)]
fn stream(bytes: &[u8], storage: &mut [u8]) {
    let max_body = black_box(0_u32);
    if let Ok(Split::Frame(raw)) = split(bytes, max_body) {
        black_box(raw.len());
    }
    let mut rx = RxBuffer::new(storage);
    let spare = rx.spare().len();
    rx.filled(black_box(spare));
    while let Ok(Some(raw)) = rx.next(max_body) {
        black_box(raw);
    }
    black_box(rx.unused().len());
}

#[inline(never)]
fn vocabulary(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let _ = black_box(text.parse::<wire_format::ids::NodeId>());
    let _ = black_box(text.parse::<wire_format::ids::DeviceKind>());
    if let Ok(store) = Store::new(black_box(1), text) {
        black_box((store.scope(), store.code().len()));
    }
    black_box(Tags::from_packed(bytes));
    let mut tags = Tags::EMPTY;
    let _ = black_box(tags.push(text));
    black_box(tags.contains(text));
    let mut rng = Rng::new(black_box(1));
    let span = core::time::Duration::from_micros(rng.next_u64());
    black_box((rng.below(black_box(0)), rng.between(span, black_box(span))));
    black_box((Instant::from_millis(rng.next_u64()) + span).since(Instant::ZERO));
}

#[cfg(feature = "payloads")]
mod payloads {
    use core::hint::black_box;

    use super::see;
    use wire_format::payload::{
        Message, Payload, PrepareCollect, PriceList, Print, RefreshContent, RestartApp, ShowPage,
        StockAnswer, StockQuestion, TransferCart, UpdateFirmware,
    };

    #[inline(never)]
    fn one<'a, P: Payload<'a>>(bytes: &'a [u8], buffer: &mut [u8]) {
        if let Ok(value) = P::decode(bytes) {
            let _ = black_box(value.encode(buffer));
        }
    }

    #[inline(never)]
    pub(crate) fn all(bytes: &[u8], buffer: &mut [u8]) {
        one::<RefreshContent<'_>>(bytes, buffer);
        one::<ShowPage<'_>>(bytes, buffer);
        one::<Message<'_>>(bytes, buffer);
        one::<RestartApp<'_>>(bytes, buffer);
        one::<UpdateFirmware<'_>>(bytes, buffer);
        one::<Print<'_>>(bytes, buffer);
        one::<PriceList<'_>>(bytes, buffer);
        one::<PrepareCollect<'_>>(bytes, buffer);
        one::<TransferCart<'_>>(bytes, buffer);
        one::<StockQuestion<'_>>(bytes, buffer);
        one::<StockAnswer>(bytes, buffer);
        if let Ok(collect) = PrepareCollect::decode(bytes) {
            collect.lines.iter().for_each(|line| see(line.article));
        }
    }
}
