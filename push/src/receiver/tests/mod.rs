//! A device in virtual time, its server played by hand.

mod boots;
mod cancelling;
mod crashes;
mod failing;
mod handshake;
mod lanes;
mod large;
mod late;
mod leaving;
mod liveness;
mod orders;
mod questions;
mod recording;
mod results;
mod superseding;
mod tape;
mod writes;

use core::time::Duration;

use wire_format::frame::hello::{Hello, LogHead};
use wire_format::frame::order::{Delivery, KindFlags};
use wire_format::frame::outcome::Entry;
use wire_format::frame::result::OrderResult;
use wire_format::frame::status::{StateEntry, Status, StatusRows};
use wire_format::frame::want::Want;
use wire_format::frame::welcome::LogFloors;
use wire_format::frame::{
    Ack, Ask, Order, Outcome, Ping, Pong, Progress, Raw, Reject, Reply, Settled, Welcome, hello,
};
use wire_format::ids::OrderKind;
use wire_format::ids::{Lineage, Store};
use wire_format::splitter::{Split, split};

pub(super) use tape::Tape;

use super::*;
use crate::ended::{Closed, Ended};
use wire_format::frame::outcome::Code;

pub(super) const DEVICE: NodeId = NodeId([0xD; 16]);
pub(super) const A: NodeId = NodeId([0xA; 16]);
pub(super) const B: NodeId = NodeId([0xB; 16]);

/// What the device said, in words a test can compare.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Welcome { window: u16, volatile: LogFloors, durable: LogFloors, persisted: bool, lost: bool },
    Reject(Reject),
    Outcomes { durable: bool, entries: Vec<(Lane, u64, Code, u8)> },
    Ack { durable: bool, lane: Lane, number: u32 },
    Result(u64, Vec<u8>),
    Progress(u64, u16, u16),
    Ask { correlation: u32, generation: u32, payload: Vec<u8> },
    Reply { correlation: u32, code: u8, payload: Vec<u8> },
    States(Vec<StateEntry>),
    Want(Want),
    Drain(Drain),
    Pong(u32),
    Bye(bye::Code),
}

pub(super) type Boxes = Memory<
    Box<[OutcomeSlot]>,
    [LogSlot; 3],
    Box<[KeySlot]>,
    Box<[VersionSlot]>,
    Box<[u8]>,
    Box<[u8]>,
    [DeskSlot; 1],
>;

pub(super) fn boxes(config: &ReceiverConfig) -> Boxes {
    Memory {
        ring: vec![OutcomeSlot::EMPTY; config.ring_len()].into(),
        logs: [LogSlot::EMPTY; 3],
        keys: vec![KeySlot::EMPTY; 4].into(),
        versions: vec![VersionSlot::EMPTY; 4].into(),
        park: vec![0; 2_048].into(),
        queue: vec![0; 8_192].into(),
        desk: [DeskSlot::EMPTY],
    }
}

/// What the world keeps of an order that was handed over.
struct Taken {
    ticket: Ticket,
    lane: Lane,
    number: u64,
    redelivered: bool,
}

impl Taken {
    fn of(delivered: &Delivered<'_>) -> Self {
        let Delivered { ticket, redelivered, .. } = *delivered;
        Self { ticket, lane: delivered.order.lane, number: delivered.order.number, redelivered }
    }
}

pub(super) struct World {
    pub(super) receiver: Receiver<Boxes, 4>,
    pub(super) now: Instant,
    /// Bytes a transport takes per write; it is writable again at once.
    pub(super) quota: usize,
    /// Bytes a blocked transport takes before it blocks for good; `None` for no limit.
    pub(super) room: Option<usize>,
    pub(super) scratch: usize,
    pub(super) out: [Vec<u8>; 4],
    pub(super) closed: Vec<(ConnId, Ended)>,
    pub(super) events: Vec<Event>,
    /// Orders handed over: lane, number, redelivered.
    pub(super) applied: Vec<(Lane, u64, bool)>,
    pub(super) verdict: Verdict,
    pub(super) result: Option<Vec<u8>>,
    pub(super) tickets: Vec<Ticket>,
    pub(super) questions: Vec<(QuestionId, OrderKind, Vec<u8>)>,
    pub(super) answers: Vec<(AskId, Vec<u8>)>,
    /// Pieces of a large payload: ticket, offset, length.
    pub(super) pieces: Vec<(Ticket, u32, usize)>,
    /// What comparing a digest gives; `None`: nobody compares.
    pub(super) digest: Option<bool>,
    /// How long the handler takes.
    pub(super) effort: Duration,
    /// The journal, if the device has one.
    pub(super) tape: Option<Tape>,
}

impl World {
    pub(super) fn new(window: u16) -> Self {
        Self::with(ReceiverConfig { window_orders: window, ..config() })
    }

    pub(super) fn with(config: ReceiverConfig) -> Self {
        let now = Instant::from_millis(1_000_000);
        Self {
            receiver: Receiver::new(config.clone(), boxes(&config), now),
            now,
            quota: usize::MAX,
            room: None,
            scratch: 2_048,
            out: Default::default(),
            closed: Vec::new(),
            events: Vec::new(),
            applied: Vec::new(),
            verdict: Verdict::Applied,
            result: None,
            tickets: Vec::new(),
            questions: Vec::new(),
            answers: Vec::new(),
            pieces: Vec::new(),
            digest: Some(true),
            effort: Duration::ZERO,
            tape: None,
        }
    }

    pub(super) fn connect(&mut self) -> ConnId {
        let conn = self.try_connect().expect("a slot is free");
        self.out[conn.index()].clear();
        conn
    }

    pub(super) fn try_connect(&mut self) -> Result<ConnId, TooManyPeers> {
        let result = self.receiver.handle_connected(self.now, "192.0.2.1:40000".parse().unwrap());
        self.drain();
        result
    }

    /// A session with server A, its WELCOME read away.
    pub(super) fn session(&mut self) -> ConnId {
        self.session_with(&hello())
    }

    pub(super) fn session_with(&mut self, hello: &Hello) -> ConnId {
        let conn = self.connect();
        assert_eq!(self.feed(conn, &frame(|buffer| hello.emit(buffer))), Ok(hello::FRAME_LEN));
        assert_eq!(self.receiver.served(), Some(hello.server));
        assert!(matches!(self.said(conn).first(), Some(Said::Welcome { .. })));
        conn
    }

    /// Offers bytes frame by frame as a driver does; how many were used.
    pub(super) fn feed(&mut self, conn: ConnId, bytes: &[u8]) -> Result<usize, Ended> {
        let mut used = 0;
        loop {
            let input = self.receiver.handle_bytes(self.now, conn, &bytes[used..]);
            let input = match input {
                Ok(input) => input,
                Err(why) => {
                    self.drain();
                    return Err(why);
                }
            };
            let consumed = input.consumed;
            used += consumed;
            match input.item {
                Some(Item::Order(delivered)) => {
                    let taken = Taken::of(&delivered);
                    self.take(taken);
                }
                Some(Item::Question(question)) => {
                    self.questions.push((question.id, question.kind, question.payload.to_vec()));
                }
                Some(Item::Answer(answer)) => self.answers.push((answer.ask, answer.payload.to_vec())),
                Some(Item::Piece(piece)) => {
                    let (ticket, whole) = (piece.ticket, piece.sha256.is_some());
                    self.pieces.push((ticket, piece.offset, piece.bytes.len()));
                    if whole && let Some(matches) = self.digest {
                        self.receiver.verified(self.now, ticket, matches);
                    }
                }
                None => {}
            }
            if consumed == 0 {
                if self.keep() {
                    continue;
                }
                self.drain();
                return Ok(used);
            }
        }
    }

    /// The handler takes an order, and answers what the world says.
    fn take(&mut self, taken: Taken) {
        let Taken { ticket, lane, number, redelivered } = taken;
        self.applied.push((lane, number, redelivered));
        self.tickets.push(ticket);
        self.now = self.now + self.effort;
        let result = self.result.clone();
        self.receiver.complete(self.now, ticket, self.verdict, result.as_deref());
    }

    /// Completes an order answered "later", and drains.
    pub(super) fn complete(&mut self, number: u64, verdict: Verdict) {
        let ticket = *self.tickets.iter().rev().find(|ticket| ticket.number() == number).expect("was begun");
        let result = self.result.clone();
        self.receiver.complete(self.now, ticket, verdict, result.as_deref());
        self.drain();
    }

    /// Numbers of the orders handed over since the last look.
    pub(super) fn begun(&mut self) -> Vec<u64> {
        core::mem::take(&mut self.applied).into_iter().map(|(_, number, _)| number).collect()
    }

    pub(super) fn drain(&mut self) {
        loop {
            self.keep();
            while let Some(delivered) = self.receiver.poll_order(self.now) {
                let taken = Taken::of(&delivered);
                self.take(taken);
            }
            if !self.keep() {
                break;
            }
        }
        let mut scratch = vec![0xA5; self.scratch];
        while let Some(transmit) = self.receiver.poll_transmit(self.now, &mut scratch) {
            let bytes = [transmit.head, transmit.body].concat();
            let len = bytes.len();
            assert!(len > 0);
            let taken = len.min(self.quota).min(self.room.unwrap_or(usize::MAX));
            let conn = transmit.conn;
            self.out[conn.index()].extend(&bytes[..taken]);
            self.receiver.handle_written(self.now, conn, taken);
            self.room = self.room.map(|room| room - taken);
            if taken < len && self.room != Some(0) {
                assert!(
                    self.receiver
                        .poll_transmit(self.now, &mut [0; 2_048])
                        .is_none_or(|other| other.conn != conn)
                );
                self.receiver.handle_writable(self.now, conn);
            }
        }
        while let Some(closed) = self.receiver.poll_close() {
            self.closed.push(closed);
        }
        while let Some(event) = self.receiver.poll_event() {
            self.events.push(event);
        }
    }

    /// Moves time, calling the receiver whenever it wants to be called.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.receiver.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.receiver.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.receiver.handle_timeout(self.now);
        self.drain();
    }

    /// What came out on this connection since the last look; it ends with a whole frame.
    pub(super) fn said(&mut self, conn: ConnId) -> Vec<Said> {
        let bytes = core::mem::take(&mut self.out[conn.index()]);
        let mut rest = bytes.as_slice();
        let mut said = Vec::new();
        while !rest.is_empty() {
            let Ok(Split::Frame(raw)) = split(rest, 4_096) else { panic!("torn frame: {rest:02x?}") };
            said.push(read(&raw));
            rest = &rest[raw.len()..];
        }
        said
    }

    pub(super) fn reconnect(&mut self, conn: ConnId) -> (ConnId, Vec<Said>) {
        self.receiver.handle_closed(self.now, conn);
        self.drain();
        let conn = self.connect();
        self.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
        let said = self.said(conn);
        (conn, said)
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.applied.iter().map(|(_, number, _)| *number).collect()
    }
}

fn read(raw: &Raw<'_>) -> Said {
    if let Ok(welcome) = Welcome::parse(raw) {
        assert_eq!((welcome.device, welcome.features & 0x0E), (DEVICE, 0x0E));
        let Welcome { window_orders: window, volatile, durable, .. } = welcome;
        let (persisted, lost) = (welcome.floors_persisted, welcome.journal_lost);
        return Said::Welcome { window, volatile, durable, persisted, lost };
    }
    if let Ok(reject) = Reject::parse(raw) {
        return Said::Reject(reject);
    }
    if let Ok(outcome) = Outcome::parse(raw) {
        let entries = outcome.entries.iter();
        let entries = entries.map(|Entry { lane, number, code, detail, .. }| (lane, number, code, detail));
        return Said::Outcomes { durable: outcome.durable, entries: entries.collect() };
    }
    if let Ok(ack) = Ack::parse(raw) {
        return Said::Ack { durable: ack.durable, lane: ack.lane, number: ack.number_low };
    }
    if let Ok(result) = OrderResult::parse(raw) {
        return Said::Result(result.number, result.payload.to_vec());
    }
    if let Ok(progress) = Progress::parse(raw) {
        return Said::Progress(progress.number, progress.per_mille, progress.phase);
    }
    if let Ok(ask) = Ask::parse(raw) {
        let Ask { correlation, generation, payload, .. } = ask;
        return Said::Ask { correlation, generation, payload: payload.to_vec() };
    }
    if let Ok(reply) = Reply::parse(raw) {
        let Reply { correlation, code, payload, .. } = reply;
        return Said::Reply { correlation, code: code.0, payload: payload.to_vec() };
    }
    if let Ok(Status { rows: StatusRows::Answer(states), .. }) = Status::parse(raw) {
        return Said::States(states.iter().collect());
    }
    if let Ok(want) = Want::parse(raw) {
        return Said::Want(want);
    }
    if let Ok(drain) = Drain::parse(raw) {
        return Said::Drain(drain);
    }
    if let Ok(pong) = Pong::parse(raw) {
        return Said::Pong(pong.token);
    }
    Said::Bye(Bye::parse(raw).expect("a frame a device may send").code)
}

pub(super) fn config() -> ReceiverConfig {
    let store = Store::new(7, "PARIS-12").unwrap();
    ReceiverConfig { max_body: 1_024, ..ReceiverConfig::new(DEVICE, store, 77) }
}

pub(super) fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        staging: false,
        takeover: false,
        store: Store::new(7, "PARIS-12").unwrap(),
        max_body: 4_096,
        target: DEVICE,
        server: A,
        fence: 5,
        epoch: 1,
        ping_interval_ms: 3_000,
        features: 0,
        durable: LogHead { lineage: Lineage([0xDD; 16]), run: 71, head: 0 },
        volatile: LogHead { lineage: Lineage([0xEE; 16]), run: 70, head: 0 },
    }
}

pub(super) fn frame(emit: impl FnOnce(&mut [u8]) -> Result<usize, wire_format::error::EmitError>) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let len = emit(&mut buffer).expect("emits");
    buffer.truncate(len);
    buffer
}

pub(super) const FOREVER: Delivery =
    Delivery { durable: false, replay: false, needs_result: false, remaining_ms: None };

pub(super) fn plain() -> Order<'static> {
    Order {
        number: 1,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: OrderKind::SHOW_PAGE,
        lane: Lane::Normal,
        kind_flags: KindFlags::NONE,
        schema: 1,
        options: &[],
        payload: b"home",
    }
}

pub(super) fn order_as(delivery: Delivery, lane: Lane, number: u64) -> Vec<u8> {
    let order = Order { number, lane, ..plain() };
    frame(|buffer| order.emit(&delivery, buffer))
}

/// An order with keys: order key, supersede key and version.
pub(super) fn keyed(durable: bool, lane: Lane, number: u64, keys: [u64; 3]) -> Vec<u8> {
    let [order_key, supersede_key, supersede_version] = keys;
    let order = Order { number, order_key, supersede_key, supersede_version, lane, ..plain() };
    frame(|buffer| order.emit(&Delivery { durable, ..FOREVER }, buffer))
}

pub(super) fn urgent(number: u64) -> Vec<u8> {
    order_as(FOREVER, Lane::Urgent, number)
}

/// An order that lives for so long.
pub(super) fn living(number: u64, ms: u32) -> Vec<u8> {
    order_as(Delivery { remaining_ms: Some(ms), ..FOREVER }, Lane::Normal, number)
}

pub(super) fn order(number: u64) -> Vec<u8> {
    order_as(FOREVER, Lane::Normal, number)
}

pub(super) fn settled(lane: Lane, number: u64) -> Vec<u8> {
    frame(|buffer| Settled { durable: false, lane, number }.emit(buffer))
}

pub(super) fn ping(token: u32) -> Vec<u8> {
    frame(|buffer| Ping { token }.emit(buffer))
}

pub(super) fn outcomes(entries: &[(u64, Code, u8)]) -> Said {
    let entries =
        entries.iter().map(|(number, code, detail)| (Lane::Normal, *number, *code, *detail)).collect();
    Said::Outcomes { durable: false, entries }
}

pub(super) fn drain_frame() -> Drain {
    Drain { reason: Reason::RESTARTING, after_ms: 500 }
}

#[test]
fn its_size_is_what_the_documentation_says() {
    assert_eq!(size_of::<Receiver<Firmware, 2>>(), 1_224);
}

#[test]
fn values_out_of_range_are_clamped() {
    let wild = ReceiverConfig { window_orders: 0, window_bytes: 0, max_body: 0, boot: 0, ..config() };
    let receiver: Receiver<_, 2> = Receiver::new(wild, Firmware::new(), Instant::ZERO);
    let ReceiverConfig { window_orders, window_bytes, max_body, boot, .. } = *receiver.config();
    assert_eq!((window_orders, window_bytes, max_body, boot), (1, 64, 432, 1));
    let wide = ReceiverConfig { window_orders: 5, ..config() };
    let receiver: Receiver<_, 2> = Receiver::new(wide, Firmware::new(), Instant::ZERO);
    assert_eq!(receiver.config().window_orders, 4);
}
