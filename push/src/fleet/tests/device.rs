//! A scripted device that speaks the frames of the specification.

use super::*;

/// What a device does with an order above its floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Applies it and answers at once.
    Apply,
    /// Acknowledges it and keeps it.
    Ack,
    /// Takes it in and says nothing.
    Silent,
}

/// What a device keeps of the durable log.
#[derive(Clone, Default)]
pub(super) struct DurableSide {
    pub(super) lineage: Lineage,
    pub(super) run: u64,
    pub(super) floors: [LaneFloor; 4],
    pub(super) settled: [u64; 4],
    /// The numbers that came in that log.
    pub(super) numbers: BTreeSet<u64>,
}

/// A scripted device: the part of the other half these tests need, and some misbehaviour.
pub(super) struct Device {
    pub(super) id: NodeId,
    pub(super) boot: u64,
    pub(super) staging: bool,
    pub(super) window_orders: u16,
    pub(super) window_bytes: u32,
    pub(super) max_body: u32,
    pub(super) habit: Habit,
    /// Its process is stopped: bytes are taken by the kernel, nothing is read.
    pub(super) frozen: bool,
    /// Bytes its connection takes before it blocks.
    pub(super) room: usize,
    pub(super) lineage: Lineage,
    pub(super) floors: [u64; 4],
    /// The same of the durable log, with the runs of its floors; and the numbers that came in that log.
    pub(super) durable: DurableSide,
    pub(super) ring: Vec<Entry>,
    pub(super) kept: Vec<Entry>,
    pub(super) connected: bool,
    /// From the server, not split yet.
    pub(super) bytes: Vec<u8>,
    /// To the server, not delivered yet.
    pub(super) answers: Vec<u8>,
    /// Frames it got, in order.
    pub(super) orders: Vec<(Delivery, u64, Lane)>,
    pub(super) hellos: Vec<Hello>,
    pub(super) settled: [u64; 4],
    pub(super) rejects: Vec<reject::Code>,
    pub(super) byes: Vec<bye::Code>,
    pub(super) pings: usize,
    pub(super) effects: BTreeMap<u64, usize>,
    pub(super) features: u32,
    /// Its floors survive a reboot.
    pub(super) persisted: bool,
    pub(super) journal_lost: bool,
    /// They did survive the last one.
    pub(super) kept_over_boot: bool,
    /// It does not name the durable log of a HELLO before it got something of it.
    pub(super) shy: bool,
    /// It does not name the durable log before anything of its server came.
    pub(super) unnamed: bool,
    /// The fence it has accepted of another server: it refuses this one.
    pub(super) fence: Option<u64>,
    /// Orders it says were begun.
    pub(super) started: Vec<StartedEntry>,
    /// Numbers of CANCELs, and the time of a DRAIN, in order.
    pub(super) cancels: Vec<u64>,
    pub(super) drains: Vec<u32>,
    /// Pieces it got: blob, offset, bytes.
    pub(super) parts: Vec<(u64, u32, Vec<u8>)>,
    /// Questions it got: correlation, generation, payload.
    pub(super) asked: Vec<(u32, u32, Vec<u8>)>,
    /// Answers it got: correlation, generation, code.
    pub(super) replied: Vec<(u32, u32, reply::Code)>,
    /// STATUS it got, as text.
    pub(super) statuses: Vec<String>,
    /// Reads of the server's heads and bodies: (head, body) lengths per write.
    pub(super) writes: Vec<(usize, usize)>,
    /// Orders it got in this session, which its window counts until they are settled.
    pub(super) recent: BTreeSet<u64>,
}

impl Device {
    pub(super) fn new(number: usize) -> Self {
        Self {
            id: id(number),
            boot: 1,
            staging: false,
            window_orders: 16,
            window_bytes: 16_384,
            max_body: 65_904,
            habit: Habit::Apply,
            frozen: false,
            room: usize::MAX,
            lineage: Lineage::NONE,
            floors: [0; 4],
            durable: DurableSide::default(),
            ring: Vec::new(),
            kept: Vec::new(),
            connected: false,
            bytes: Vec::new(),
            answers: Vec::new(),
            orders: Vec::new(),
            hellos: Vec::new(),
            settled: [0; 4],
            rejects: Vec::new(),
            byes: Vec::new(),
            pings: 0,
            effects: BTreeMap::new(),
            persisted: false,
            journal_lost: false,
            kept_over_boot: true,
            shy: false,
            unnamed: false,
            fence: None,
            started: Vec::new(),
            cancels: Vec::new(),
            drains: Vec::new(),
            features: 0x0F,
            parts: Vec::new(),
            asked: Vec::new(),
            replied: Vec::new(),
            statuses: Vec::new(),
            writes: Vec::new(),
            recent: BTreeSet::new(),
        }
    }

    /// Forgets what a boot forgets.
    pub(super) fn reboot(&mut self) {
        self.boot += 1;
        self.kept.clear();
        self.kept_over_boot = self.persisted && !self.journal_lost;
        if self.kept_over_boot {
            return;
        }
        self.forget();
    }

    /// A journal that is read after a boot says what was begun and not ended: nobody knows what came of it.
    pub(super) fn doubt_begun(&mut self) {
        if !self.persisted || self.journal_lost {
            return;
        }
        for begun in core::mem::take(&mut self.started) {
            if let Some(at) = self.kept.iter().position(|entry| entry.number == begun.number) {
                let entry = self.kept.remove(at);
                self.apply(Entry { code: Code::IN_DOUBT, ..entry });
            }
        }
    }

    /// Loses all it knows of both logs.
    pub(super) fn forget(&mut self) {
        self.lineage = Lineage::NONE;
        self.floors = [0; 4];
        self.durable = DurableSide { settled: self.durable.settled, ..DurableSide::default() };
        self.ring.clear();
        self.kept.clear();
    }

    pub(super) fn send(&mut self, frame: &Frame<'_>) {
        let mut buffer = [0; 2_048];
        let len = frame.emit(&mut buffer).unwrap();
        self.answers.extend_from_slice(&buffer[..len]);
    }

    pub(super) fn send_outcomes(&mut self, entries: &[Entry]) {
        for durable in [false, true] {
            let of = |entry: &&Entry| self.durable.numbers.contains(&entry.number) == durable;
            let entries: Vec<Entry> = entries.iter().filter(of).copied().collect();
            for entries in entries.chunks(outcome::ENTRIES_MAX) {
                let mut buffer = [0; 2_048];
                let len = outcome::emit(durable, entries.iter().copied(), &mut buffer).unwrap();
                self.answers.extend_from_slice(&buffer[..len]);
            }
        }
    }

    /// Takes bytes from the server and handles whole frames.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.frozen {
            return;
        }
        let bytes = core::mem::take(&mut self.bytes);
        let mut at = 0;
        while let Split::Frame(raw) = split(&bytes[at..], u32::MAX).expect("the server's bytes are right") {
            self.handle(&raw);
            at += raw.len();
        }
        self.bytes = bytes[at..].to_vec();
    }

    pub(super) fn handle(&mut self, raw: &Raw<'_>) {
        match Frame::parse(raw).expect("the server's frames are right") {
            Frame::Hello(hello) => self.handle_hello(hello),
            Frame::Order(delivery, order) => self.handle_order(delivery, &order),
            Frame::Settled(settled) => {
                let (lane, number) = (settled.lane, settled.number);
                self.unnamed = false;
                let of = |number| self.durable.numbers.contains(&number) == settled.durable;
                self.ring.retain(|entry| entry.lane != lane || !of(entry.number) || entry.number > number);
                let last = if settled.durable { &mut self.durable.settled } else { &mut self.settled };
                last[lane.index()] = number;
            }
            Frame::Ping(ping) => {
                self.pings += 1;
                self.send(&Frame::Pong(ping.pong()));
            }
            Frame::Pong(_) => {}
            Frame::Cancel(cancel) => self.handle_cancel(cancel.numbers.iter().collect()),
            Frame::Drain(drain) => self.drains.push(drain.after_ms),
            Frame::Reject(Reject { code, .. }) => self.rejects.push(code),
            Frame::Bye(bye) => self.byes.push(bye.code),
            Frame::Part(part) => self.parts.push((part.blob, part.offset, part.bytes.to_vec())),
            Frame::Ask(ask) => {
                self.asked.push((ask.correlation, ask.generation, ask.payload.to_vec()));
            }
            Frame::Reply(reply) => {
                self.replied.push((reply.correlation, reply.generation, reply.code));
            }
            Frame::Status(status) => self.statuses.push(format!("{:?}", status.rows)),
            other => panic!("the server sent {other:?}"),
        }
    }

    /// What is kept was not begun, unless it is in the list of those that were.
    pub(super) fn handle_cancel(&mut self, numbers: Vec<u64>) {
        let begun = |number| self.started.iter().any(|entry| entry.number == number);
        for entry in &mut self.kept {
            if numbers.contains(&entry.number) && !begun(entry.number) {
                entry.code = Code::CANCELLED;
            }
        }
        self.cancels.extend(numbers);
        for lane in Lane::ALL {
            // In log order: behind one that has not ended it waits.
            while let Some(at) = self.kept.iter().position(|entry| entry.lane == lane)
                && self.kept[at].code == Code::CANCELLED
            {
                let entry = self.kept.remove(at);
                self.apply(entry);
                self.send_outcomes(&[entry]);
            }
        }
    }

    pub(super) fn handle_hello(&mut self, hello: Hello) {
        self.hellos.push(hello);
        // Orders that were begun go on over sessions; the others come again.
        self.kept.retain(|entry| self.started.iter().any(|begun| begun.number == entry.number));
        if let Some(detail) = self.fence.filter(|&fence| fence > hello.fence) {
            let code = reject::Code::STALE_FENCE;
            return self.send(&Frame::Reject(Reject { code, retry_after_ms: 60_000, detail }));
        }
        if self.lineage != hello.volatile.lineage {
            self.lineage = hello.volatile.lineage;
            self.floors = [0; 4];
            let durable = &self.durable.numbers;
            self.ring.retain(|entry| durable.contains(&entry.number));
            self.kept.retain(|entry| durable.contains(&entry.number));
        }
        if self.durable.lineage != hello.durable.lineage {
            let numbers = core::mem::take(&mut self.durable.numbers);
            self.durable = DurableSide { lineage: hello.durable.lineage, ..DurableSide::default() };
            self.ring.retain(|entry| !numbers.contains(&entry.number));
            self.kept.retain(|entry| !numbers.contains(&entry.number));
        }
        self.durable.run = hello.durable.run;
        let started = self.started.clone();
        let mut welcome = Welcome { started: Started::from(&started[..]), ..self.welcome() };
        if self.unnamed || self.shy && self.durable.numbers.is_empty() {
            welcome.durable = LogFloors::default();
        }
        self.send(&Frame::Welcome(welcome));
        let ring = self.ring.clone();
        self.send_outcomes(&ring);
        // What it declares it can take beyond what an earlier session left.
        self.recent.clear();
    }

    pub(super) fn welcome(&self) -> Welcome<'static> {
        let lanes = self.floors.map(|floor| LaneFloor { floor, run: u64::from(floor != 0) });
        Welcome {
            version: hello::VERSION,
            staging: self.staging,
            floors_persisted: self.persisted && self.kept_over_boot,
            journal_lost: self.journal_lost,
            kind: DeviceKind::KIOSK,
            device: self.id,
            boot: self.boot,
            fence: 0,
            server: NodeId::NONE,
            zone: 3,
            window_orders: self.window_orders,
            window_bytes: self.window_bytes,
            max_body: self.max_body,
            features: self.features,
            tags: Tags::EMPTY,
            durable: LogFloors { lineage: self.durable.lineage, lanes: self.durable.floors },
            volatile: LogFloors { lineage: self.lineage, lanes },
            started: Started::EMPTY,
        }
    }

    pub(super) fn handle_order(&mut self, delivery: Delivery, order: &Order<'_>) {
        self.orders.push((delivery, order.number, order.lane));
        let entry = Entry { number: order.number, code: Code::APPLIED, detail: 0, lane: order.lane, ms: 1 };
        if delivery.durable {
            self.durable.numbers.insert(order.number);
        }
        if order.number <= self.floor(order.number, order.lane) {
            let first = self.ring.iter().find(|ended| ended.number == order.number);
            let detail =
                first.map_or(0, |ended| if ended.code == Code::DUPLICATE { 0 } else { ended.code.0 });
            return self.send_outcomes(&[Entry { code: Code::DUPLICATE, detail, ..entry }]);
        }
        if self.kept.iter().any(|kept| kept.number == entry.number) {
            return self.acknowledge(order);
        }
        self.recent.insert(order.number);
        let has = |number: &&u64| self.ring.iter().chain(&self.kept).any(|entry| entry.number == **number);
        let in_window = 1 + self.recent.iter().filter(has).count();
        assert!(in_window <= usize::from(self.window_orders), "the window is exceeded");
        // A lane ends its orders in log order, those of both logs one after the other.
        let waits = self.kept.iter().any(|kept| kept.lane == order.lane);
        match self.habit {
            Habit::Apply if waits => self.kept.push(entry),
            Habit::Apply => {
                self.apply(entry);
                self.send_outcomes(&[entry]);
            }
            Habit::Ack | Habit::Silent => {
                self.kept.push(entry);
                self.acknowledge(order);
            }
        }
    }

    pub(super) fn acknowledge(&mut self, order: &Order<'_>) {
        if self.habit != Habit::Silent {
            let (lane, number_low) = (order.lane, order.number as u32);
            let durable = self.durable.numbers.contains(&order.number);
            self.send(&Frame::Ack(wire_format::frame::Ack { durable, lane, number_low }));
        }
    }

    pub(super) fn apply(&mut self, entry: Entry) {
        if entry.code != Code::CANCELLED {
            *self.effects.entry(entry.number).or_default() += 1;
        }
        let lane = entry.lane.index();
        if self.durable.numbers.contains(&entry.number) {
            self.durable.floors[lane] = LaneFloor { floor: entry.number, run: self.durable.run };
        } else {
            self.floors[lane] = entry.number;
        }
        self.ring.push(entry);
    }

    fn floor(&self, number: u64, lane: Lane) -> u64 {
        let durable = self.durable.numbers.contains(&number);
        if durable { self.durable.floors[lane.index()].floor } else { self.floors[lane.index()] }
    }

    /// Ends everything kept, in log order.
    pub(super) fn finish(&mut self, code: Code) {
        let mut kept = core::mem::take(&mut self.kept);
        kept.sort_by_key(|entry| entry.number);
        for entry in &mut kept {
            if entry.code != Code::CANCELLED {
                entry.code = code;
            }
            self.apply(*entry);
        }
        self.send_outcomes(&kept);
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.orders.iter().map(|(_, number, _)| *number).collect()
    }
}
