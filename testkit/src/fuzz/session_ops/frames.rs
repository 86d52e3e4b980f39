//! Frames a stranger makes up: right in form, whatever they say.

use wire_format::crc;
use wire_format::frame::hello::{self, Hello, LogHead};
use wire_format::frame::order::{Delivery, KindFlags, Order, OrderOption};
use wire_format::frame::outcome::{self, Code, Entry};
use wire_format::frame::status::{State, StateEntry, States, Status, StatusRows};
use wire_format::frame::welcome::{LaneFloor, LogFloors, Started, Welcome};
use wire_format::frame::{
    Ack, Ask, Bye, Cancel, Frame, Part, Ping, Progress, Reply, Settled, Want, Window, bye, reply,
};
use wire_format::ids::{DeviceKind, Lane, Lineage, NodeId, OrderKind, Store, Tags};

use crate::fuzz::Source;

/// Bytes of the largest frame made here.
const FRAME_MAX: usize = 4_608;

/// Who speaks to whom in the made-up frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parties {
    pub(super) store: Store,
    /// The device a server means, or that answers.
    pub(super) device: NodeId,
    /// The server's volatile log.
    pub(super) lineage: Lineage,
}

/// A frame of a hostile device: WELCOME, receipts, outcomes, or anything.
pub(super) fn of_device(source: &mut Source<'_>, parties: Parties) -> Vec<u8> {
    let kind = source.u8();
    let [number, lane, more] = source.array();
    let (number, lane) = (u64::from(number), lane_of(lane));
    let frame = match kind % 12 {
        0 | 1 => return welcome(source, parties, number),
        2 => Frame::Ack(Ack { durable: more & 1 != 0, lane, number_low: u32::from(source.u8()) }),
        3 => {
            let (code, detail) = (Code(source.u8() % 20), source.u8() % 20);
            let first = Entry { number: number.max(1), code, detail, lane, ms: u32::from(more) };
            let second = Entry { number: first.number + u64::from(source.u8()), ..first };
            let entries = [first, second];
            let some = &entries[..1 + usize::from(more & 2 != 0)];
            return emitted(|buffer| outcome::emit(more & 1 != 0, some.iter().copied(), buffer));
        }
        4 => Frame::Progress(Progress {
            durable: more & 1 != 0,
            number,
            per_mille: u16::from(more) * 4,
            phase: 1,
        }),
        5 => Frame::Window(Window { orders: u16::from(more), bytes: u32::from(source.u16()) }),
        6 => Frame::Ping(Ping { token: u32::from(more) }),
        7 => return raw(source),
        8 => {
            let pieces = u16::from(source.u8() % 66);
            Frame::Want(Want { blob: number, offset: u32::from(more) * 4_096, pieces })
        }
        _ => return words(source, kind, u32::from(more), number),
    };
    emitted(|buffer| frame.emit(buffer))
}

/// ASK, REPLY or the answer to a STATUS, under any numbers.
fn words(source: &mut Source<'_>, which: u8, correlation: u32, number: u64) -> Vec<u8> {
    let (generation, kind) = (u32::from(source.u8()), OrderKind::STOCK_QUESTION);
    let payload = source.bytes(usize::from(which >> 4));
    let states = [StateEntry { number, state: State::Started, elapsed_ms: 1 }];
    let frame = match which % 3 {
        0 => Frame::Ask(Ask { correlation, generation, kind, schema: 1, deadline_ms: 800, payload }),
        1 => {
            let code = reply::Code(which & 3);
            Frame::Reply(Reply { correlation, generation, kind, schema: 1, code, age_ms: 0, payload })
        }
        _ => {
            let rows = StatusRows::Answer(States::from(&states));
            Frame::Status(Status { durable: which & 0x80 != 0, rows })
        }
    };
    emitted(|buffer| frame.emit(buffer))
}

/// A frame of a hostile server: HELLO, orders, settlements, or anything.
pub(super) fn of_server(source: &mut Source<'_>, parties: Parties) -> Vec<u8> {
    let kind = source.u8();
    let [number, lane, more] = source.array();
    let (number, lane) = (u64::from(number), lane_of(lane));
    let frame = match kind % 15 {
        0 | 1 => return hello(source, parties, number),
        2 | 3 => {
            let delivery = Delivery {
                durable: more & 1 != 0,
                replay: more & 2 != 0,
                needs_result: false,
                remaining_ms: (more & 4 != 0).then_some(1 + u32::from(source.u16())),
            };
            let len = usize::from(source.u8());
            let kind_flags = if more & 8 != 0 { KindFlags::IDEMPOTENT } else { KindFlags::NONE };
            return order(number, lane, kind_flags, &delivery, source.bytes(len));
        }
        8 | 9 => return keyed(source, number, lane, more),
        10 => return large(source, number, more),
        11 => {
            let numbers = [number.max(1), number + u64::from(more)];
            return emitted(|buffer| {
                Cancel { durable: more & 1 != 0, numbers: (&numbers[..]).into() }.emit(buffer)
            });
        }
        12 => {
            let bytes = source.bytes(usize::from(more));
            let offset = u32::from(source.u8()) * 4_096;
            Frame::Part(Part { blob: number, offset, more: lane == Lane::Urgent, bytes })
        }
        13 => return question(source, number, more),
        14 => {
            let numbers = [number.max(1), number + 1 + u64::from(more)];
            let rows = StatusRows::Question((&numbers[..]).into());
            return emitted(|buffer| Status { durable: more & 1 != 0, rows }.emit(buffer));
        }
        4 => Frame::Settled(Settled { durable: more & 1 != 0, lane, number }),
        5 => Frame::Ping(Ping { token: u32::from(more) }),
        6 => {
            Frame::Bye(Bye { code: bye::Code(u16::from(more % 9)), retry_after_ms: u32::from(source.u16()) })
        }
        _ => return raw(source),
    };
    emitted(|buffer| frame.emit(buffer))
}

/// An ORDER frame.
pub(super) fn order(
    number: u64,
    lane: Lane,
    kind_flags: KindFlags,
    delivery: &Delivery,
    payload: &[u8],
) -> Vec<u8> {
    let order = Order {
        number,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: OrderKind::SHOW_PAGE,
        lane,
        kind_flags,
        schema: 1,
        options: &[],
        payload,
    };
    emitted(|buffer| order.emit(delivery, buffer))
}

/// An ORDER with keys, that may want a result.
fn keyed(source: &mut Source<'_>, number: u64, lane: Lane, more: u8) -> Vec<u8> {
    let delivery = Delivery {
        durable: more & 1 != 0,
        replay: more & 2 != 0,
        needs_result: more & 4 != 0,
        remaining_ms: None,
    };
    let order = Order {
        number,
        order_key: u64::from(more >> 4),
        supersede_key: u64::from(more >> 3 & 3),
        supersede_version: if more >> 3 & 3 == 0 { 0 } else { u64::from(source.u8()) },
        kind: OrderKind::SHOW_PAGE,
        lane,
        kind_flags: KindFlags::NONE,
        schema: 1,
        options: &[],
        payload: b"k",
    };
    emitted(|buffer| order.emit(&delivery, buffer))
}

/// An ORDER whose payload comes in pieces.
fn large(source: &mut Source<'_>, number: u64, more: u8) -> Vec<u8> {
    let mut options = [0; 64];
    let parts =
        OrderOption::Parts { blob: u64::from(more), size: u32::from(source.u16()), sha256: [more; 32] };
    let len = parts.emit(&mut options).unwrap_or(0);
    let delivery =
        Delivery { durable: false, replay: more & 2 != 0, needs_result: false, remaining_ms: None };
    let order = Order {
        number,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: OrderKind::SHOW_PAGE,
        lane: Lane::Bulk,
        kind_flags: KindFlags::NONE,
        schema: 1,
        options: &options[..len],
        payload: &[],
    };
    emitted(|buffer| order.emit(&delivery, buffer))
}

/// A question, or an answer nobody or somebody waits for.
fn question(source: &mut Source<'_>, number: u64, more: u8) -> Vec<u8> {
    let correlation = u32::try_from(number).unwrap_or(0);
    let (generation, kind, payload) = (u32::from(more >> 4), OrderKind::STOCK_QUESTION, source.bytes(8));
    if more & 1 == 0 {
        let ask = Ask { correlation, generation, kind, schema: 1, deadline_ms: 1 + u32::from(more), payload };
        return emitted(|buffer| ask.emit(buffer));
    }
    let code = reply::Code(more >> 1 & 3);
    let reply = Reply { correlation, generation, kind, schema: 1, code, age_ms: 0, payload };
    emitted(|buffer| reply.emit(buffer))
}

fn welcome(source: &mut Source<'_>, parties: Parties, boot: u64) -> Vec<u8> {
    let [window, floor, flags, id] = source.array();
    let lanes = [LaneFloor { floor: u64::from(floor), run: u64::from(flags & 3) }; 4];
    let floors =
        if floor == 0 { LogFloors::default() } else { LogFloors { lineage: parties.lineage, lanes } };
    let welcome = Welcome {
        version: 1,
        staging: flags & 0x80 != 0,
        floors_persisted: flags & 4 != 0,
        journal_lost: flags & 8 != 0,
        kind: DeviceKind::KIOSK,
        device: if id < 240 { parties.device } else { NodeId([id; 16]) },
        boot: boot + 1,
        fence: u64::from(flags & 1),
        server: NodeId::NONE,
        zone: 0,
        window_orders: 1 + u16::from(window & 7),
        window_bytes: 64 * (1 + u32::from(window >> 3)),
        max_body: if flags & 16 != 0 { 448 } else { 65_536 },
        features: if flags & 32 != 0 { 0x0F } else { 0 },
        tags: Tags::EMPTY,
        durable: LogFloors::default(),
        volatile: floors,
        started: Started::EMPTY,
    };
    emitted(|buffer| welcome.emit(buffer))
}

fn hello(source: &mut Source<'_>, parties: Parties, head: u64) -> Vec<u8> {
    let [fence, flags, server, run] = source.array();
    let log = LogHead { lineage: Lineage([server | 1; 16]), run: u64::from(run) + 1, head };
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        staging: flags & 0x80 != 0,
        takeover: flags & 1 != 0,
        store: parties.store,
        max_body: 1_044 + u32::from(flags) * 16,
        target: if flags & 2 != 0 { NodeId::NONE } else { parties.device },
        server: NodeId([server | 1; 16]),
        fence: u64::from(fence % 4),
        epoch: 1,
        ping_interval_ms: 3_000,
        features: u32::from(flags >> 3 & 1) * hello::feature::ASK,
        durable: if flags & 4 != 0 { log } else { LogHead::default() },
        volatile: log,
    };
    emitted(|buffer| hello.emit(buffer))
}

/// Any header and any body, with right checksums.
fn raw(source: &mut Source<'_>) -> Vec<u8> {
    let mut head: [u8; 16] = source.array();
    let body = source.bytes(usize::from(head[15]));
    let len = u32::try_from(body.len()).unwrap() + if body.is_empty() { 0 } else { 4 };
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[5] &= 0x1F;
    let sum = crc::crc32c(&head[..12]).to_le_bytes();
    head[12..].copy_from_slice(&sum);
    let mut bytes = [&head, body].concat();
    if !body.is_empty() {
        bytes.extend_from_slice(&crc::crc32c(body).to_le_bytes());
    }
    bytes
}

fn lane_of(number: u8) -> Lane {
    Lane::new(number % 4).unwrap_or_default()
}

/// What `emit` writes; nothing if the values are not allowed.
pub(super) fn emitted<E>(emit: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_MAX];
    let len = emit(&mut bytes).unwrap_or(0);
    bytes.truncate(len);
    bytes
}
