//! The world: who is there, what happens when, and what is done about it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use push::fleet::{DeviceSlot, DeviceTables, OrderSlot, TrackSlot};
use push::receiver::{
    DeskSlot, KeySlot, LogSlot, Memory, OutcomeSlot, Receiver, ReceiverConfig, VersionSlot,
};
use push::{DeviceIndex, DialError, Fleet, FleetConfig, Mark};
use testkit::history::Event;
use wire_format::frame::outcome::Code;
use wire_format::ids::{NodeId, Store};
use wire_format::rng::Rng;
use wire_format::time::Instant;

use crate::journal::Tape;
use crate::network::Link;
use crate::oracle::{Oracle, lineage_of, order_id};
use crate::orders::{Book, Knobs};
use crate::questions::{Questions, ReplyTo};
use crate::work::Work;

/// How long faults go on, and how long everything may take to settle after them.
const STORM: Duration = Duration::from_secs(30);
const CALM: Duration = Duration::from_secs(400);
/// Live orders the server has room for.
pub(crate) const ORDERS: usize = 128;
pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) type Orders = Box<[OrderSlot<Vec<u8>, Vec<u8>>]>;
pub(crate) type Slots = DeviceTables<Vec<DeviceSlot>, Vec<TrackSlot>>;
pub(crate) type TheFleet = Fleet<Slots, Orders, Vec<u8>, Vec<u8>>;

/// What a device keeps, in boxes.
pub(crate) type Boxes = Memory<
    Box<[OutcomeSlot]>,
    [LogSlot; 3],
    Box<[KeySlot]>,
    Box<[VersionSlot]>,
    Box<[u8]>,
    Box<[u8]>,
    [DeskSlot; 1],
>;
pub(crate) type TheReceiver = Receiver<Boxes, 4>;

/// The memory of a device with this window.
pub(crate) fn memory(config: &ReceiverConfig) -> Boxes {
    Memory {
        ring: vec![OutcomeSlot::EMPTY; config.ring_len()].into(),
        logs: [LogSlot::EMPTY; 3],
        keys: vec![KeySlot::EMPTY; 8].into(),
        versions: vec![VersionSlot::EMPTY; 8].into(),
        park: vec![0; 2_048].into(),
        queue: vec![0; 2_048].into(),
        desk: [DeskSlot::EMPTY],
    }
}

/// What happens at a point in time.
#[derive(Debug)]
pub(crate) enum Act {
    /// The answer to a dial: a connection, or an error.
    Dialled {
        device: usize,
        dial: u64,
        error: Option<DialError>,
    },
    /// The device sees the connection.
    Accept {
        link: usize,
    },
    /// Bytes reach the device (`down`) or the server.
    Arrive {
        link: usize,
        down: bool,
        len: usize,
    },
    /// The other end is gone.
    Close {
        link: usize,
        down: bool,
        reset: bool,
    },
    /// There is room again for who writes.
    Room {
        link: usize,
        down: bool,
    },
    /// The handler of a device is done.
    Done {
        device: usize,
        boot: u64,
    },
    /// What was to be done later is done.
    Finish {
        device: usize,
        boot: u64,
        work: Work,
    },
    /// A device works again after standing still.
    Thaw {
        device: usize,
        boot: u64,
    },
    /// A device that said goodbye is switched off.
    Down {
        device: usize,
        boot: u64,
    },
    /// A device is back.
    Boot {
        device: usize,
    },
    /// The application takes an order back.
    Cancel {
        run: u8,
        number: u64,
    },
    /// It tries an order again.
    Retry {
        run: u8,
        number: u64,
        device: usize,
    },
    /// A server that left is replaced.
    Left {
        run: u8,
        takeover: bool,
    },
    /// Somebody is answered.
    Reply {
        to: ReplyTo,
        token: u64,
    },
    /// The next questions, the next order, the next fault.
    Ask,
    Submit,
    Fault,
}

impl Act {
    /// A server that stands still does not see it before it goes on.
    const fn is_for_the_server(&self) -> bool {
        match self {
            Self::Dialled { .. } | Self::Submit | Self::Cancel { .. } | Self::Retry { .. } => true,
            Self::Arrive { down, .. } | Self::Close { down, .. } => !*down,
            Self::Room { down, .. } => *down,
            _ => false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) config: ReceiverConfig,
    pub(crate) receiver: Option<TheReceiver>,
    pub(crate) boot: u64,
    pub(crate) frozen: bool,
    pub(crate) work: Option<Work>,
    pub(crate) scratch: usize,
    /// Its journal, in every second world.
    pub(crate) tape: Option<Tape>,
    /// The next failure of its journal is its last.
    pub(crate) dies: bool,
}

macro_rules! totals {
    ($($name:ident),*) => {
        /// How often things happened that the protocol is there for.
        #[derive(Debug, Default, PartialEq)]
        pub(crate) struct Totals { $(pub(crate) $name: u64,)* }

        impl Totals {
            pub(crate) fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }

            pub(crate) fn each(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name)),*] }
        }
    };
}

totals!(
    applied,
    in_doubt,
    expired,
    too_large,
    cancelled,
    attempts,
    superseded,
    retried,
    later,
    parked,
    device_drains,
    asked,
    answered,
    unanswered,
    drains,
    sessions,
    replaced,
    reboots,
    freezes,
    frozen,
    leaves,
    pauses,
    restarts,
    takeovers,
    lease_held,
    cuts,
    resets,
    refused_dials,
    cut_writes,
    dead,
    remembered,
    journals_failed,
    torn
);

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Instant,
    pub(crate) tell: bool,
    pub(crate) calm: bool,
    pub(crate) sequence: u64,
    pub(crate) acts: BinaryHeap<Reverse<(Instant, u64)>>,
    pub(crate) pending: BTreeMap<u64, Act>,
    pub(crate) fleet: TheFleet,
    pub(crate) run: u8,
    /// How often another server took the store over: its fence.
    pub(crate) fence: u64,
    /// Until when the server stands still.
    pub(crate) paused_until: Instant,
    pub(crate) devices: Vec<Device>,
    pub(crate) links: BTreeMap<usize, Link>,
    pub(crate) next_link: usize,
    /// Per device: the dial under way, and the link the server knows.
    pub(crate) dials: Vec<Option<u64>>,
    pub(crate) linked: Vec<Option<usize>>,
    pub(crate) next_number: u64,
    pub(crate) delay: Duration,
    pub(crate) oracle: Oracle,
    pub(crate) totals: Totals,
    pub(crate) chunk: u64,
    pub(crate) steps: u64,
    pub(crate) scratch: Vec<u8>,
    /// Orders of which an outcome was told just now.
    pub(crate) told: Vec<u64>,
    pub(crate) knobs: Knobs,
    pub(crate) book: Book,
    pub(crate) questions: Questions,
    pub(crate) next_version: u64,
    /// The server has said that it leaves.
    pub(crate) draining: bool,
}

impl World {
    pub(crate) fn new(seed: u64, tell: bool) -> Self {
        let mut rng = Rng::new(seed);
        let now = Instant::from_millis(1_000);
        let count = 1 + rng.below(5) as usize;
        let journal = rng.below(2) == 0;
        let devices: Vec<_> = (0..count).map(|at| Device::new(&mut rng, at, journal)).collect();
        let mut world = Self {
            fleet: fleet(now, 1, 1, count, seed),
            now,
            tell,
            calm: false,
            sequence: 0,
            acts: BinaryHeap::new(),
            pending: BTreeMap::new(),
            run: 1,
            fence: 1,
            paused_until: now,
            links: BTreeMap::new(),
            next_link: 0,
            dials: vec![None; count],
            linked: vec![None; count],
            next_number: 1,
            delay: MS * (1 + rng.below(40) as u32),
            oracle: Oracle::new(journal),
            totals: Totals::default(),
            steps: 0,
            scratch: vec![0; 10_000],
            told: Vec::new(),
            knobs: Knobs::draw(&mut rng),
            book: Book::default(),
            questions: Questions::default(),
            next_version: 0,
            draining: false,
            chunk: [4, 20, 100, 5_000][rng.below(4) as usize],
            devices,
            rng,
        };
        world.begin_log();
        for at in 0..count {
            world.boot(at);
        }
        world.add_devices();
        world.later(MS, Act::Submit);
        world.later(MS * 100, Act::Ask);
        world.later(MS * 200, Act::Fault);
        world
    }

    /// A new server, or the same one anew: a log of its own.
    pub(crate) fn begin_log(&self) {
        self.oracle.record(self.now, Event::Log { log: self.run.into(), fence: self.fence });
    }

    pub(crate) fn run(mut self) -> Totals {
        let (storm, end) = (self.now + STORM, self.now + STORM + CALM);
        self.serve_fleet();
        loop {
            let next = self.next_time();
            if !self.calm && next >= storm {
                self.calm = true;
                self.note("calm");
            }
            assert!(next < end, "not settled {CALM:?} after the last fault: {:?}", self.state());
            self.now = self.now.max(next);
            self.step();
            self.check();
            if self.calm && self.is_settled() {
                break;
            }
        }
        self.oracle.finish();
        for device in &self.devices {
            let stats = device.receiver.as_ref().map(|receiver| receiver.stats().clone()).unwrap_or_default();
            self.totals.add_stats(&stats);
        }
        self.totals
    }

    fn is_settled(&self) -> bool {
        let devices = self.devices.iter();
        let mut receivers = devices.map(|device| device.receiver.as_ref());
        self.fleet.live_orders() == 0
            && self.questions.is_empty()
            && receivers.all(|receiver| receiver.is_some_and(|receiver| receiver.owed() == 0))
    }

    fn state(&self) -> String {
        let devices = self.devices.iter().enumerate().map(|(at, device)| {
            let owed = device.receiver.as_ref().map(Receiver::owed);
            format!(
                "device {at}: owes {owed:?}, open {}, works {}",
                self.fleet.is_open(index(at)),
                device.work.is_some()
            )
        });
        let marks = (1..self.next_number).filter_map(|number| {
            let (_, marks) = self.fleet.marks(number)?;
            Some((number, marks.iter().copied().map(Mark).collect::<Vec<_>>()))
        });
        let marks: Vec<_> = marks.collect();
        format!("{} live orders {marks:?}, {:?}", self.fleet.live_orders(), devices.collect::<Vec<_>>())
    }

    fn next_time(&self) -> Instant {
        let act = self.acts.peek().map(|Reverse((at, _))| *at);
        let devices = self.devices.iter().filter(|device| !device.frozen);
        let devices = devices.filter_map(|device| device.receiver.as_ref()?.poll_timeout());
        let fleet = self.fleet.poll_timeout().map(|due| due.max(self.paused_until));
        let next = devices.chain(act).chain(fleet).min();
        next.expect("an act is always under way").max(self.now)
    }

    /// One act, if its time has come, and the timers that are due.
    fn step(&mut self) {
        if self.acts.peek().is_some_and(|Reverse((at, _))| *at <= self.now)
            && let Some(Reverse((_, sequence))) = self.acts.pop()
            && let Some(act) = self.pending.remove(&sequence)
        {
            if self.now < self.paused_until && act.is_for_the_server() {
                self.at(self.paused_until, act);
            } else {
                self.act(act);
            }
        }
        if self.now >= self.paused_until && self.fleet.poll_timeout().is_some_and(|due| due <= self.now) {
            self.fleet.handle_timeout(self.now);
            self.serve_fleet();
        }
        for at in 0..self.devices.len() {
            let due = self.devices[at].receiver.as_ref().and_then(Receiver::poll_timeout);
            if due.is_some_and(|due| due <= self.now) {
                self.with_receiver(at, |receiver, now| receiver.handle_timeout(now));
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Dialled { device, dial, error } => self.dialled(device, dial, error),
            Act::Accept { link } => self.accept(link),
            Act::Arrive { link, down, len } => self.arrive(link, down, len),
            Act::Close { link, down, reset } => self.closed(link, down, reset),
            Act::Room { link, down } => self.room(link, down),
            Act::Done { device, boot } => self.done(device, boot),
            Act::Finish { device, boot, work } => self.finish(device, boot, work),
            Act::Thaw { device, boot } => self.thaw(device, boot),
            Act::Boot { device } => self.boot(device),
            Act::Down { device, boot } => self.down(device, boot),
            Act::Cancel { run, number } => self.cancel(run, number),
            Act::Retry { run, number, device } => self.retry(run, number, device),
            Act::Left { run, takeover } => self.left(run, takeover),
            Act::Reply { to, token } => self.reply(to, token),
            Act::Ask => self.ask(),
            Act::Submit => self.submit(),
            Act::Fault => self.fault(),
        }
    }

    pub(crate) fn later(&mut self, after: Duration, act: Act) {
        self.at(self.now + after, act);
    }

    pub(crate) fn at(&mut self, at: Instant, act: Act) {
        self.sequence += 1;
        self.acts.push(Reverse((at, self.sequence)));
        self.pending.insert(self.sequence, act);
    }

    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        if self.tell {
            println!("{:>9.3} {what}", self.now.as_micros() as f64 / 1e6);
        }
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    pub(crate) fn some_delay(&mut self) -> Duration {
        let slow = !self.calm && self.chance(2);
        self.delay.mul_f64(0.5 + self.rng.below(1_000) as f64 / 1_000.0) * if slow { 20 } else { 1 }
    }

    /// What holds at any time. Hand-overs and outcomes are checked when they happen; this is the rest, looked at from time
    /// to time because it costs more than the run itself.
    fn check(&mut self) {
        self.steps += 1;
        if !self.steps.is_multiple_of(128) {
            return;
        }
        for device in &self.devices {
            let owed = device.receiver.as_ref().map_or(0, Receiver::owed);
            assert!(owed <= device.config.ring_len());
        }
        for number in self.next_number.saturating_sub(100)..self.next_number {
            self.check_marks(number);
        }
    }

    pub(crate) fn check_marks(&self, number: u64) {
        if let Some((_, marks)) = self.fleet.marks(number) {
            self.oracle.check_marks(order_id(self.run, number), marks, false);
        }
    }
}

impl Totals {
    pub(crate) fn count(&mut self, code: Code) {
        match code {
            Code::APPLIED => self.applied += 1,
            Code::IN_DOUBT => self.in_doubt += 1,
            Code::EXPIRED => self.expired += 1,
            Code::TOO_LARGE => self.too_large += 1,
            Code::CANCELLED => self.cancelled += 1,
            Code::SUPERSEDED => self.superseded += 1,
            _ => {}
        }
    }

    pub(crate) fn add_stats(&mut self, stats: &push::receiver::Stats) {
        self.sessions += u64::from(stats.sessions);
        self.replaced += u64::from(stats.replaced);
        self.frozen += u64::from(stats.frozen);
        assert_eq!((stats.broken, stats.unexpected, stats.window_exceeded, stats.strangers), (0, 0, 0, 0));
    }
}

impl Device {
    fn new(rng: &mut Rng, at: usize, journal: bool) -> Self {
        let mut config = ReceiverConfig::new(id(at), store(), 1);
        config.window_orders = 1 + rng.below(8) as u16;
        config.window_bytes = [512, 900, 16_384][rng.below(3) as usize];
        config.max_body = 1_024;
        let scratch = push::receiver::SCRATCH_MIN + rng.below(2_000) as usize;
        let tape = journal.then(Tape::default);
        Self { config, receiver: None, boot: 0, frozen: false, work: None, scratch, tape, dies: false }
    }
}

/// Storage for so many devices.
pub(crate) fn slots(devices: usize) -> Slots {
    DeviceTables { slots: vec![DeviceSlot::EMPTY; devices], logs: vec![TrackSlot::EMPTY; devices] }
}

pub(crate) fn fleet(now: Instant, run: u8, fence: u64, devices: usize, seed: u64) -> TheFleet {
    // Each fence is raised by another server.
    let server = NodeId([0x50 + fence as u8; 16]);
    let mut config = FleetConfig::new(server, store(), lineage_of(run));
    config.fence = fence;
    config.epoch = run.into();
    config.answers_questions = true;
    config.run = u64::from(run) * 1_000;
    let devices = slots(devices);
    let orders = (0..ORDERS).map(|_| OrderSlot::EMPTY).collect();
    Fleet::new(config, devices, orders, now, seed)
}

pub(crate) fn store() -> Store {
    Store::new(7, "PARIS-12").expect("a code")
}

pub(crate) fn id(at: usize) -> NodeId {
    NodeId([0xD0 + at as u8; 16])
}

pub(crate) fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 1, at as u8 + 1], 8_081))
}

pub(crate) fn index(at: usize) -> DeviceIndex {
    DeviceIndex(at as u32)
}

pub(crate) const fn at(device: DeviceIndex) -> usize {
    device.0 as usize
}
