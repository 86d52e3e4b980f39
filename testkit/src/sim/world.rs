//! The world: who is there, what happens when, and the loop that makes it happen.

use std::time::Duration;

use push::fleet::Question as Asked;
use push::receiver::QuestionId;
use push::{DeviceIndex, DialError};
use wire_format::rng::Rng;
use wire_format::time::Instant;

use super::device::Device;
use super::disks::{Copy, Fork};
use super::fault::Fault;
use super::ledger::{Failure, Ledger, Wish};
use super::memory::Waits;
use super::names::{Counts, Probe};
use super::network::{LinkId, Links};
use super::plan::{MS, Plan, SECOND};
use super::questions::Questions;
use super::queue::{Next, Queue};
use super::retry::Attempt;
use super::server::Server;
use super::work::Work;
use crate::history::{Event, Limits};

/// An order may start this long after its lifetime: as long as its bytes may lie where no clock of ours sees them. The
/// device stands still for just less than what ends its sessions (5 s), then applies the rest of its window before it
/// reads on (8 orders of 400 ms), while the server stands still too and declares nobody dead.
const LATE_MAX: Duration = Duration::from_secs(10);
/// Bytes that come one after the other take so long at most, together with those before them: nobody can tell them from a
/// connection that works.
pub(super) const IN_FLIGHT_MAX: Duration = Duration::from_secs(3);
/// Steps per simulated second beyond which somebody spins: one byte at a time is a step for each.
const STEPS_PER_S: u64 = 100_000;
const STEPS_PER_S_AND_DEVICE: u64 = 20_000;

/// After a takeover the operator stops the other server for so long: until nobody waits for its lease any more. Then it
/// learns that it is fenced.
const HANDED_OVER: Duration = Duration::from_secs(200);

/// What happens at a point in time.
#[derive(Debug)]
pub(super) enum Act {
    /// The answer to a dial: a connection, or an error.
    Dialled {
        server: usize,
        boot: u64,
        index: DeviceIndex,
        there: usize,
        dial: u64,
        error: Option<DialError>,
    },
    /// The device sees the connection.
    Accept {
        link: LinkId,
    },
    /// Bytes reach the device (`down`) or the server.
    Arrive {
        link: LinkId,
        down: bool,
        len: usize,
    },
    /// The other end is gone.
    Close {
        link: LinkId,
        down: bool,
        reset: bool,
    },
    /// There is room again for who writes.
    Room {
        link: LinkId,
        down: bool,
    },
    /// A reader that stalled goes on.
    ReadOn {
        link: LinkId,
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
    /// An application answers a question.
    DeviceAnswers {
        device: usize,
        boot: u64,
        id: QuestionId,
        word: u64,
    },
    ServerAnswers {
        server: usize,
        boot: u64,
        question: Asked,
        word: u64,
    },
    /// A device works again after standing still.
    Thaw {
        device: usize,
        boot: u64,
    },
    /// A device that said goodbye is switched off, and for how long.
    Down {
        device: usize,
        boot: u64,
        away: Duration,
    },
    Boot {
        device: usize,
    },
    /// Something was written down: what waited for it may go on.
    ReadAll {
        device: usize,
    },
    /// Discovery has heard where a device is now.
    Announce {
        device: usize,
    },
    /// A device that was removed is listed again.
    Listed {
        device: usize,
    },
    /// A server starts.
    Start {
        server: usize,
    },
    /// A server that said it leaves is gone.
    Left {
        server: usize,
        boot: u64,
    },
    /// The operator lets this server take the store over.
    Raise {
        server: usize,
    },
    Cancel {
        server: usize,
        boot: u64,
        number: u64,
    },
    Retry {
        server: usize,
        boot: u64,
        attempt: Attempt,
    },
    /// What waits is written down; what was written down happens.
    Write {
        server: usize,
        boot: u64,
    },
    Written {
        server: usize,
        boot: u64,
    },
    /// A disk that was full has room again; a wall clock that stood still goes on.
    DiskRoom {
        server: usize,
    },
    WallGoesOn {
        server: usize,
    },
    /// The application pushes an order of the plan.
    Push {
        order: usize,
    },
    /// It pushes again what nobody took: it has a key.
    PushAgain {
        wish: Box<Wish>,
        order: usize,
    },
    Fault {
        fault: usize,
    },
    /// A server's machine is replaced by one with the copy of its disk.
    RestoreCopy {
        server: usize,
        away: Duration,
    },
}

/// What a run was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Faults placed, by [`super::FaultKind`].
    pub faults: Counts,
    /// Paths walked, by [`Probe`].
    pub probes: Counts,
    /// Time that passed in the world.
    pub simulated: Duration,
    /// Things that happened in it.
    pub steps: u64,
    /// Orders accepted, attempts included.
    pub orders: u64,
    /// Outcomes told.
    pub outcomes: u64,
}

impl Run {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.faults.add(&other.faults);
        self.probes.add(&other.probes);
        self.simulated += other.simulated;
        self.steps += other.steps;
        self.orders += other.orders;
        self.outcomes += other.outcomes;
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first promise that was broken, if one was. A panic of the library is one as well.
    pub failure: Option<Failure>,
    /// The run, up to there.
    pub run: Run,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) calm: bool,
    /// Until then only the server that leads is up.
    handed_over: Instant,
    /// What comes next. Its timers are those of the devices, then those of the servers; planned are orders, then faults.
    queue: Queue<Act>,
    pub(super) servers: Vec<Server>,
    /// The server the application pushes at.
    pub(super) active: usize,
    /// The highest fence the operator has given.
    pub(super) top_fence: u64,
    /// A wall clock has jumped ahead, or stood still and went on.
    pub(super) walls_ahead: bool,
    pub(super) waits: Waits,
    pub(super) questions: Questions,
    pub(super) devices: Vec<Device>,
    /// Who is found at each address.
    pub(super) slots: Vec<usize>,
    pub(super) links: Links,
    pub(super) ledger: Ledger,
    pub(super) run: Run,
    /// Microseconds that bytes take as a rule, and whether some take far longer.
    usual: (u64, bool),
    /// Everybody's bytes take this long until then.
    pub(super) slow: (Duration, Instant),
    pub(super) scratch: Vec<u8>,
    /// What is being written.
    pub(super) outgoing: Vec<u8>,
    pub(super) next_version: u64,
    /// A copy of the server's disk that will take its place, and the log that goes on from one, until somebody notices.
    pub(super) copy: Option<Copy>,
    pub(super) fork: Option<Fork>,
    pub(super) forks: u32,
    /// A device that had not settled when that was asked last.
    debtor: usize,
    /// When this second of the world ends, and the steps in it.
    second: (Instant, u64),
}

impl World {
    pub(super) fn new(plan: Plan, tell: bool) -> Self {
        let start = Instant::from_millis(1_000);
        // A wall clock that goes back hides how long a server was away.
        let walls = plan.has(|fault| matches!(fault, Fault::WallJump { .. } | Fault::WallFrozen { .. }));
        let late = LATE_MAX + IN_FLIGHT_MAX;
        let limits = Limits { late: Some(late).filter(|_| !walls), settled: true, ..Limits::default() };
        let count = plan.devices.len();
        let mut world = Self {
            rng: Rng::new(plan.seed),
            now: start,
            start,
            calm: false,
            handed_over: start,
            queue: Queue::new(count + plan.servers),
            servers: (0..plan.servers).map(|at| Server::new(at, count)).collect(),
            active: 0,
            top_fence: 1,
            walls_ahead: false,
            waits: Waits::default(),
            questions: Questions::default(),
            devices: (0..count).map(|at| Device::new(at, plan.devices[at].keeps, plan.seed)).collect(),
            slots: (0..count).collect(),
            links: Links::new(count),
            ledger: Ledger::new(limits, tell),
            run: Run::default(),
            usual: (plan.delay.as_micros() as u64, plan.delay > MS),
            slow: (Duration::ZERO, start),
            scratch: vec![0; 70_000],
            outgoing: Vec::new(),
            next_version: 0,
            copy: None,
            fork: None,
            forks: 0,
            debtor: 0,
            second: (start + SECOND, 0),
            plan,
        };
        world.schedule();
        world
    }

    /// Everything the plan says.
    fn schedule(&mut self) {
        for device in 0..self.devices.len() {
            if self.plan.devices[device].present {
                self.at(self.start, Act::Boot { device });
            }
        }
        self.at(self.start, Act::Start { server: 0 });
        let orders = self.plan.orders.iter().map(|order| order.at);
        let times = orders.chain(self.plan.faults.iter().map(|fault| fault.at));
        self.queue.plan(times.map(|at| self.start + at));
    }

    /// The whole run.
    pub(super) fn run(mut self) -> Outcome {
        let storm = self.start + self.plan.storm;
        let end = storm + self.plan.calm;
        while self.ledger.failure.is_none() {
            let Some((at, next)) = self.queue.pop() else { break };
            if !self.calm && at >= storm {
                self.begin_calm();
            }
            self.now = self.now.max(at);
            self.next(next);
            self.count_step();
            if self.calm && self.is_settled() {
                break;
            }
            if self.now >= end {
                let state = self.state();
                self.ledger.fail(self.now, "NotSettledInTime", None, &[], state);
            }
        }
        for server in self.servers.iter().filter(|server| server.boot > 0 && server.at != self.active) {
            for log in [server.log, server.durable.log] {
                self.ledger.record(self.now, Event::Gone { log });
            }
        }
        if self.ledger.failure.is_none() {
            self.ledger.finish(self.now);
        }
        self.run.simulated = self.now.since(self.start);
        Outcome { failure: self.ledger.take_failure(), run: self.run }
    }

    /// No new faults: those that last end, who is away comes back, the application wants nothing more.
    fn begin_calm(&mut self) {
        self.calm = true;
        self.note("calm");
        self.slow.1 = self.now;
        for device in 0..self.devices.len() {
            self.devices[device].blocked = [self.now; 2];
            self.devices[device].dials_fail_until = self.now;
            self.devices[device].slow.1 = self.now;
            self.devices[device].die_in = None;
            self.devices[device].medium.fail_no_more();
            self.heal_address(device);
        }
        for at in 0..self.servers.len() {
            self.servers[at].die_in = None;
            let durable = &mut self.servers[at].durable;
            durable.disk.fail_no_more();
            durable.disk.limit(None);
            (durable.slow.1, durable.wall_frozen_ms) = (self.now, None);
        }
        self.hand_over();
    }

    /// The operator stops the servers that do not lead, until nobody waits for their leases any more.
    pub(super) fn hand_over(&mut self) {
        let leads = self.active;
        for at in (0..self.servers.len()).filter(|at| *at != leads) {
            self.stand_still(at, HANDED_OVER);
        }
        self.handed_over = self.now + HANDED_OVER;
    }

    fn is_settled(&mut self) -> bool {
        if self.is_fork_hidden() || !self.questions.is_empty() || !self.servers.iter().all(Server::is_settled)
        {
            return false;
        }
        // What a log that was given up is owed, nobody settles.
        let away = self.taken_over() || self.forks > 0;
        let settled = |device: &Device| {
            let receiver = device.receiver.as_ref();
            !self.plan.devices[device.at].present
                || receiver.is_some_and(|receiver| {
                    receiver.owed() == 0 || away || device.removed || device.listed_again
                })
        };
        // Who was not the last time is asked first: it is one of thousands.
        let owes = if settled(&self.devices[self.debtor]) {
            self.devices.iter().position(|device| !settled(device))
        } else {
            Some(self.debtor)
        };
        self.debtor = owes.unwrap_or(0);
        owes.is_none()
    }

    /// Somebody may owe outcomes to a server that is not served any more.
    fn taken_over(&self) -> bool {
        self.servers.iter().filter(|server| server.fleet.is_some()).count() > 1
    }

    fn state(&self) -> String {
        let servers = self.servers.iter().map(Server::state).collect::<Vec<_>>();
        let devices = self.devices.iter().filter(|device| self.plan.devices[device.at].present);
        format!("{servers:?} {:?}", devices.map(Device::state).collect::<Vec<_>>())
    }

    fn count_step(&mut self) {
        self.run.steps += 1;
        self.second.1 += 1;
        if self.now >= self.second.0 {
            self.second = (self.now + SECOND, 0);
        }
        let most = STEPS_PER_S + STEPS_PER_S_AND_DEVICE * self.devices.len() as u64;
        if self.second.1 > most {
            self.ledger.fail(self.now, "BusyLoop", None, &[], format_args!("{most} steps in a second"));
        }
    }

    fn next(&mut self, next: Next) {
        let (devices, orders) = (self.devices.len(), self.plan.orders.len());
        match next {
            Next::Timer(device) if device < devices => self.device_timer(device),
            Next::Timer(place) => self.server_timer(place - devices),
            Next::Act(place) => {
                if let Some(act) = self.queue.take(place) {
                    self.act(act);
                }
            }
            Next::Planned(order) if order < orders => self.act(Act::Push { order }),
            Next::Planned(place) => self.act(Act::Fault { fault: place - orders }),
        }
    }

    fn act(&mut self, act: Act) {
        // Nearly all.
        if let Act::Arrive { link, down, len } = act {
            return self.arrive(link, down, len);
        }
        if let Some(until) = self.stands_still(&act) {
            return self.at(until, act);
        }
        match act {
            Act::Dialled { server, boot, index, there, dial, error } => {
                self.dialled(server, boot, (index, there), dial, error);
            }
            Act::Accept { link } => self.accept(link),
            Act::Arrive { link, down, len } => self.arrive(link, down, len),
            Act::Close { link, down, reset } => self.closed(link, down, reset),
            Act::Room { link, down } => self.room(link, down),
            Act::ReadOn { link, down } => self.read_on(link, down),
            Act::Done { device, boot } => self.done(device, boot),
            Act::Finish { device, boot, work } => self.finish(device, boot, work),
            Act::DeviceAnswers { device, boot, id, word } => {
                self.device_answers(device, boot, id, word);
                self.with_receiver(device, |_, _| ());
            }
            Act::ServerAnswers { server, boot, question, word } => {
                self.server_answers(server, boot, &question, word);
                self.serve_server(server);
            }
            Act::Thaw { device, boot } => self.thaw(device, boot),
            Act::Down { device, boot, away } => self.down(device, boot, away),
            Act::Boot { device } => self.boot(device),
            Act::ReadAll { device } => self.read_on_all(device),
            Act::Announce { device } => self.heal_address(device),
            Act::Listed { device } => self.list_again(device),
            Act::Start { server } => self.start_server(server),
            Act::Left { server, boot } => self.left(server, boot),
            Act::Raise { server } => self.raise_fence(server),
            Act::Cancel { server, boot, number } => self.cancel(server, boot, number),
            Act::Retry { server, boot, attempt } => self.retry(server, boot, attempt),
            Act::Write { server, boot } => self.write_down(server, boot),
            Act::Written { server, boot } => self.written(server, boot),
            Act::DiskRoom { server } => self.disk_has_room(server),
            Act::WallGoesOn { server } => self.wall_goes_on(server),
            Act::Push { order } => self.push_planned(order),
            Act::PushAgain { wish, order } => self.push_wish(*wish, order),
            Act::Fault { fault } => self.fault(fault),
            Act::RestoreCopy { server, away } => self.restore_copy(server, away),
        }
    }

    /// Until when the server that would see this stands still.
    fn stands_still(&mut self, act: &Act) -> Option<Instant> {
        let server = match *act {
            Act::Start { server } => {
                return (server != self.active).then_some(self.handed_over).filter(|at| *at > self.now);
            }
            Act::Dialled { server, .. }
            | Act::Cancel { server, .. }
            | Act::Retry { server, .. }
            | Act::ServerAnswers { server, .. }
            | Act::Raise { server }
            | Act::Write { server, .. }
            | Act::Written { server, .. } => server,
            Act::Close { link, down: false, .. }
            | Act::ReadOn { link, down: false }
            | Act::Room { link, down: true } => self.links.at(link)?.server,
            Act::Push { .. } | Act::PushAgain { .. } | Act::Announce { .. } | Act::Listed { .. } => {
                self.active
            }
            _ => return None,
        };
        Some(self.servers[server].paused_until).filter(|until| *until > self.now)
    }

    pub(super) fn later(&mut self, after: Duration, act: Act) {
        self.at(self.now + after, act);
    }

    pub(super) fn at(&mut self, at: Instant, act: Act) {
        self.queue.push(at, act);
    }

    /// The device's timer is looked at then, whenever that was to be before.
    pub(super) fn arm_device_at(&mut self, device: usize, at: Instant) {
        self.queue.arm(device, at);
    }

    pub(super) fn arm_server_at(&mut self, server: usize, at: Instant) {
        self.queue.arm(self.devices.len() + server, at);
    }

    /// A number no other has.
    pub(super) const fn serial(&self) -> u64 {
        self.queue.sequence()
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        self.ledger.note(self.now, None, what);
    }

    pub(super) fn note_of(&mut self, device: usize, what: impl std::fmt::Display) {
        self.ledger.note(self.now, Some(device), what);
    }

    pub(super) fn probe(&mut self, probe: Probe) {
        self.run.probes.count(probe as usize);
    }

    /// What ended in the middle of an operation on its disk: the power went, or the process alone.
    pub(super) fn power_goes(&mut self) -> bool {
        !self.chance(33)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// How long something takes to cross the network.
    pub(super) fn some_delay(&mut self) -> Duration {
        Duration::from_micros(self.some_micros())
    }

    /// When something that is sent now has crossed the network.
    pub(super) fn arrival(&mut self) -> Instant {
        let takes = self.some_micros();
        Instant::from_micros(self.now.as_micros() + takes)
    }

    fn some_micros(&mut self) -> u64 {
        let (usual, varies) = self.usual;
        let micros = if self.now < self.slow.1 { self.slow.0.as_micros() as u64 } else { usual };
        let slow = varies && !self.calm && self.chance(2);
        (micros / 2 + self.rng.below(micros + 1)) * if slow { 20 } else { 1 }
    }
}
