//! Eight megabytes over a line of a megabit a second, and what is urgent meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use push::blob::Blob;
use push::fleet::{Event, NewDevice, NewOrder, OrderSlot};
use push::receiver::{ConnId, Item, Receiver, ReceiverConfig, Verdict};
use push::{Closed, DeviceIndex, Fleet, FleetConfig, Mark};
use testkit::history::{Event as Happened, Facts};
use wire_format::frame::order::{Delivery, KindFlags, Order};
use wire_format::frame::outcome::Code;
use wire_format::ids::{Lane, NodeId, OrderKind};
use wire_format::time::Instant;

use crate::oracle::{Oracle, lineage_of, order_id};
use crate::orders::Wish;
use crate::world::{MS, TheFleet, TheReceiver, address, id, index, memory, slots, store};

const SIZE: usize = 8 << 20;
/// A megabit a second.
const BYTES_PER_MS: usize = 125;
/// What the system holds unsent before it takes no more; as `TCP_NOTSENT_LOWAT`, a write below it is taken whole.
const UNSENT_MAX: usize = 4_096;
const RUN: u8 = 1;
const BOOT: u64 = 1;

struct Line {
    now: Instant,
    fleet: TheFleet,
    receiver: TheReceiver,
    conn: Option<ConnId>,
    oracle: Oracle,
    blob: Vec<u8>,
    /// What the server's system holds; what is under way; what the device has read.
    unsent: VecDeque<u8>,
    wire: VecDeque<u8>,
    unread: Vec<u8>,
    up: Vec<u8>,
    blocked: bool,
    stored: Vec<u8>,
    pieces: usize,
    begun: Vec<(u64, Instant)>,
}

impl Line {
    fn new() -> Self {
        let now = Instant::from_millis(1_000);
        let mut config = FleetConfig::new(NodeId([0x50; 16]), store(), lineage_of(RUN));
        config.run = 1_000;
        let slots = slots(1);
        let mut fleet = Fleet::new(config, slots, (0..64).map(|_| OrderSlot::EMPTY).collect(), now, 1);
        fleet.add_device(now, NewDevice { id: Some(id(0)), address: Some(address(0)) }).unwrap();
        let config = ReceiverConfig { parts: true, ..ReceiverConfig::new(id(0), store(), BOOT) };
        let memory = memory(&config);
        let oracle = Oracle::new(false);
        oracle.record(now, Happened::Boot { device: 0, boot: BOOT });
        Self {
            now,
            fleet,
            receiver: Receiver::new(config, memory, now),
            conn: None,
            oracle,
            blob: (0..SIZE).map(|at| (at / 7) as u8).collect(),
            unsent: VecDeque::new(),
            wire: VecDeque::new(),
            unread: vec![],
            up: vec![],
            blocked: false,
            stored: vec![0; SIZE],
            pieces: 0,
            begun: vec![],
        }
    }

    fn accept(&self, number: u64, lane: Lane) {
        let facts = Facts { lane, idempotent: true, targets: BTreeSet::from([0]), ..Facts::default() };
        self.oracle.accepted(self.now, order_id(RUN, number), facts);
    }

    fn submit(&mut self, number: u64, lane: Lane, frame: Vec<u8>) {
        self.accept(number, lane);
        let new = NewOrder {
            number,
            lane,
            kind_flags: KindFlags::IDEMPOTENT,
            lifetime: None,
            frame,
            first: DeviceIndex(0),
            marks: vec![Mark::PENDING.0],
        };
        self.fleet.submit(self.now, new).expect("there is room");
    }

    fn push_blob(&mut self, number: u64) {
        let blob = Blob::new(number, &self.blob, [7; 32]);
        let order = Order {
            number,
            order_key: 0,
            supersede_key: 0,
            supersede_version: 0,
            kind: OrderKind::SHOW_PAGE,
            lane: Lane::Bulk,
            kind_flags: KindFlags::IDEMPOTENT,
            schema: 1,
            options: &blob.option().unwrap(),
            payload: &[],
        };
        let mut frame = vec![0; 1_024 + blob.frames_len()];
        let delivery = Delivery { durable: false, replay: false, needs_result: false, remaining_ms: None };
        let len = order.emit(&delivery, &mut frame).unwrap();
        let all = len + blob.emit_frames(&mut frame[len..]).unwrap();
        frame.truncate(all);
        self.submit(number, Lane::Bulk, frame);
    }

    fn recall(&mut self, number: u64) {
        let wish = Wish { lane: Lane::Urgent, idempotent: true, ..Wish::default() };
        self.submit(number, Lane::Urgent, wish.frame(number, None));
    }

    /// A millisecond, and everything that can be done in it.
    fn tick(&mut self) {
        self.now = self.now + MS;
        if self.fleet.poll_timeout().is_some_and(|due| due <= self.now) {
            self.fleet.handle_timeout(self.now);
        }
        if self.receiver.poll_timeout().is_some_and(|due| due <= self.now) {
            self.receiver.handle_timeout(self.now);
        }
        self.unread.extend(self.wire.drain(..));
        let sent = self.unsent.len().min(BYTES_PER_MS);
        self.wire.extend(self.unsent.drain(..sent));
        if self.blocked && self.unsent.len() < UNSENT_MAX {
            self.blocked = false;
            self.fleet.handle_writable(self.now, index(0));
        }
        self.serve_device();
        self.serve_fleet();
    }

    fn serve_fleet(&mut self) {
        let mut scratch = vec![0; 16 << 10];
        while let Ok(input) = self.fleet.handle_bytes(self.now, index(0), &self.up) {
            let used = input.consumed;
            self.up.drain(..used);
            if !self.tell() && used == 0 {
                break;
            }
        }
        while let Some(transmit) = self.fleet.poll_transmit(self.now, &mut scratch) {
            let taken = if self.unsent.len() < UNSENT_MAX {
                self.unsent.extend(transmit.head);
                self.unsent.extend(transmit.body);
                transmit.head.len() + transmit.body.len()
            } else {
                self.blocked = true;
                0
            };
            self.fleet.handle_written(self.now, index(0), taken);
        }
        while self.fleet.poll_close().is_some() {}
        self.tell();
        while self.fleet.poll_dial(self.now).is_some() {
            self.conn = self.receiver.handle_connected(self.now, address(9)).ok();
            self.fleet.handle_connected(self.now, index(0));
        }
    }

    fn tell(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.fleet.poll_event() {
            busy = true;
            match event {
                Event::Outcome { number, first_code, .. } => {
                    self.oracle.ended(self.now, 0, order_id(RUN, number), first_code);
                }
                Event::Settled { number, marks, .. } => {
                    self.oracle.settled(self.now, order_id(RUN, number), &marks);
                }
                _ => {}
            }
        }
        busy
    }

    fn serve_device(&mut self) {
        let now = self.now;
        while let Some(conn) = self.conn {
            let Ok(input) = self.receiver.handle_bytes(now, conn, &self.unread) else { return };
            let (used, mut order, mut whole) = (input.consumed, None, None);
            match input.item {
                Some(Item::Order(delivered)) => {
                    self.oracle.handed_over(now, 0, BOOT, &delivered);
                    order = Some((delivered.ticket, delivered.order.number));
                }
                Some(Item::Piece(piece)) => {
                    let at = piece.offset as usize;
                    self.stored[at..at + piece.bytes.len()].copy_from_slice(piece.bytes);
                    self.pieces += 1;
                    whole = (at + piece.bytes.len() == SIZE).then_some(piece.ticket);
                }
                _ => {}
            }
            self.unread.drain(..used);
            if let Some((ticket, number)) = order {
                self.apply(ticket, number);
            }
            if let Some(ticket) = whole {
                let matches = self.stored == self.blob;
                self.receiver.verified(now, ticket, matches);
            }
            while let Some(delivered) = self.receiver.poll_order(now) {
                self.oracle.handed_over(now, 0, BOOT, &delivered);
                let (ticket, number) = (delivered.ticket, delivered.order.number);
                self.apply(ticket, number);
            }
            if used == 0 {
                break;
            }
        }
        let mut scratch = vec![0; 16 << 10];
        while let Some(transmit) = self.receiver.poll_transmit(now, &mut scratch) {
            let (conn, len) = (transmit.conn, transmit.head.len() + transmit.body.len());
            self.up.extend(transmit.head);
            self.up.extend(transmit.body);
            self.receiver.handle_written(now, conn, len);
        }
        while self.receiver.poll_close().is_some() {}
        while self.receiver.poll_event().is_some() {}
    }

    fn apply(&mut self, ticket: push::receiver::Ticket, number: u64) {
        self.begun.push((number, self.now));
        self.oracle.answered(self.now, 0, BOOT, order_id(RUN, number), Verdict::Applied);
        self.receiver.complete(self.now, ticket, Verdict::Applied, None);
    }

    /// The line breaks; both ends know. What was under way is lost.
    fn cut(&mut self) {
        self.unsent.clear();
        self.wire.clear();
        self.unread.clear();
        self.up.clear();
        self.blocked = false;
        if let Some(conn) = self.conn.take() {
            self.receiver.handle_closed(self.now, conn);
        }
        self.fleet.handle_closed(self.now, index(0), Closed::Reset);
    }
}

#[test]
fn an_urgent_recall_passes_a_large_transfer_which_goes_on_after_a_cut_where_it_stood() {
    /// A piece, the way there and back, and 50 ms.
    const RECALLED_WITHIN: Duration = Duration::from_millis(33 + 2 + 50);
    let mut line = Line::new();
    for _ in 0..100 {
        line.tick();
    }
    line.push_blob(1);
    let (mut recalls, mut number) = (vec![], 1);
    // 67 s for the bytes themselves.
    for ms in 0..90_000 {
        line.tick();
        // Between two recalls, with time to dial again.
        if ms == 32_000 {
            line.cut();
        }
        if ms % 5_003 == 5_002 {
            number += 1;
            line.recall(number);
            recalls.push((number, line.now));
            line.serve_fleet();
        }
    }
    line.oracle.finish();
    assert_eq!(line.fleet.stats().outcomes.of(Code::APPLIED), number);
    assert!(line.stored == line.blob, "every byte is there");
    let whole = SIZE / 4_096;
    assert!((whole..whole + 32).contains(&line.pieces), "{} pieces, not {whole} twice", line.pieces);
    for (number, at) in recalls {
        let (_, begun) = line.begun.iter().find(|(of, _)| *of == number).expect("it was applied");
        let took = begun.since(at);
        assert!(took <= RECALLED_WITHIN, "recall {number} took {took:?}");
    }
}
