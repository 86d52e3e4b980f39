//! A fleet and its devices over wires that cost no time: long spans, many devices, many orders. What the seeds meet too
//! rarely, or never, because it takes half a day.

use std::collections::BTreeSet;
use std::time::Duration;

use push::fleet::{DeviceSlot, Event, NewDevice, NewOrder, OrderSlot};
use push::receiver::{ConnId, Receiver, ReceiverConfig, Ticket, Verdict};
use push::{Closed, DeviceIndex, Ended, Fleet, FleetConfig, Mark};
use testkit::history::{Event as Happened, Facts, OrderId};
use wire_format::frame::outcome::Code;
use wire_format::ids::{Lane, NodeId};
use wire_format::time::Instant;

use crate::oracle::{Oracle, deadline, lineage_of, order_id};
use crate::orders::Wish;
use crate::world::{MS, TheFleet, TheReceiver, address, at, index, memory, slots, store};

const RUN: u8 = 1;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// What a device costs that is away, beside the orders themselves and a byte in each of them.
const _: () = assert!(size_of::<DeviceSlot>() <= 1_024);

/// A device and its end of the wire.
struct Peer {
    receiver: TheReceiver,
    boot: u64,
    conn: Option<ConnId>,
    /// Bytes to it, and from it, that nobody has read yet.
    down: Vec<u8>,
    up: Vec<u8>,
    /// It takes connections.
    on: bool,
    /// Its process stands still: connections are taken by its system, bytes wait.
    frozen: bool,
    /// Normal orders are answered later: what is at work.
    stuck: Option<Vec<(Ticket, OrderId)>>,
}

impl Peer {
    /// The handler is called.
    fn begin(&mut self, oracle: &Oracle, now: Instant, at: usize, (ticket, order): (Ticket, OrderId)) {
        if let Some(stuck) = self.stuck.as_mut().filter(|_| ticket.lane() == Lane::Normal) {
            stuck.push((ticket, order));
            return self.receiver.complete(now, ticket, Verdict::Later, None);
        }
        oracle.answered(now, at, self.boot, order, Verdict::Applied);
        self.receiver.complete(now, ticket, Verdict::Applied, None);
    }
}

struct Crowd {
    now: Instant,
    fleet: TheFleet,
    peers: Vec<Peer>,
    oracle: Oracle,
    /// The server's process stands still.
    still: bool,
    number: u64,
    ends: Vec<(usize, Ended)>,
}

fn id_of(at: usize) -> NodeId {
    let mut id = [0xD0; 16];
    id[..8].copy_from_slice(&(at as u64 + 1).to_le_bytes());
    NodeId(id)
}

impl Crowd {
    fn new(devices: usize, orders: usize) -> Self {
        let now = Instant::from_millis(1_000);
        let mut config = FleetConfig::new(NodeId([0x50; 16]), store(), lineage_of(RUN));
        config.run = 1_000;
        let slots = slots(devices);
        let mut fleet = Fleet::new(config, slots, (0..orders).map(|_| OrderSlot::EMPTY).collect(), now, 1);
        let oracle = Oracle::new(false);
        let peers = (0..devices).map(|at| {
            let config = ReceiverConfig::new(id_of(at), store(), at as u64 + 1);
            oracle.record(now, Happened::Boot { device: at as u32, boot: config.boot });
            let (boot, memory) = (config.boot, memory(&config));
            let receiver = Receiver::new(config, memory, now);
            Peer {
                receiver,
                boot,
                conn: None,
                down: vec![],
                up: vec![],
                on: true,
                frozen: false,
                stuck: None,
            }
        });
        let peers: Vec<_> = peers.collect();
        for at in 0..devices {
            let new = NewDevice { id: Some(id_of(at)), address: Some(address(at % 200)) };
            assert_eq!(fleet.add_device(now, new), Ok(index(at)));
        }
        let mut crowd = Self { now, fleet, peers, oracle, still: false, number: 0, ends: vec![] };
        crowd.pass(SECOND * 5);
        assert!((0..devices).all(|at| crowd.fleet.is_open(index(at))), "all are connected");
        crowd
    }

    /// Hands an order for these devices to the fleet.
    fn push(&mut self, wish: &Wish, devices: &[usize]) -> u64 {
        self.number += 1;
        let number = self.number;
        let targets: BTreeSet<_> = devices.iter().copied().collect();
        let mark = |at| if targets.contains(&at) { Mark::PENDING.0 } else { Mark::NOT_TARGETED.0 };
        let lifetime = wish.until.map(|until| until.since(self.now));
        let new = NewOrder {
            number,
            lane: wish.lane,
            kind_flags: wish.kind_flags(),
            lifetime,
            frame: wish.frame(number, lifetime),
            first: DeviceIndex(0),
            marks: (0..self.peers.len()).map(mark).collect(),
        };
        let facts = Facts {
            lane: wish.lane,
            idempotent: wish.idempotent,
            deadline: deadline(self.now, lifetime),
            supersede: wish.supersede,
            targets: crate::oracle::targets(&targets),
            ..Facts::default()
        };
        self.oracle.accepted(self.now, order_id(RUN, number), facts);
        self.fleet.submit(self.now, new).expect("there is room");
        let marks = self.fleet.marks(number).map(|(_, marks)| marks.to_vec()).unwrap_or_default();
        for (at, code) in marks.into_iter().map(|mark| Mark(mark).code()).enumerate() {
            if let Some(code) = code {
                self.oracle.ended(self.now, at, order_id(RUN, number), code);
            }
        }
        number
    }

    /// Everything that can be done now, until nothing can.
    fn turn(&mut self) {
        let mut scratch = vec![0; 16 << 10];
        loop {
            let mut busy = false;
            if !self.still {
                busy |= self.serve_fleet(&mut scratch);
            }
            for at in 0..self.peers.len() {
                busy |= !self.peers[at].frozen && self.serve_peer(at, &mut scratch);
            }
            if !busy {
                return;
            }
        }
    }

    fn serve_fleet(&mut self, scratch: &mut [u8]) -> bool {
        let mut busy = false;
        for device in 0..self.peers.len() {
            while !self.peers[device].up.is_empty() {
                match self.fleet.handle_bytes(self.now, index(device), &self.peers[device].up) {
                    Ok(input) => {
                        let used = input.consumed;
                        self.peers[device].up.drain(..used);
                        // Nothing used: it waits for the events to be told.
                        if !self.tell() && used == 0 {
                            break;
                        }
                    }
                    Err(_) => self.peers[device].up.clear(),
                }
                busy = true;
            }
        }
        while let Some(transmit) = self.fleet.poll_transmit(self.now, scratch) {
            let (device, len) = (transmit.device, transmit.head.len() + transmit.body.len());
            let down = &mut self.peers[at(device)].down;
            down.extend(transmit.head);
            down.extend(transmit.body);
            self.fleet.handle_written(self.now, device, len);
            busy = true;
        }
        while let Some((device, why)) = self.fleet.poll_close() {
            self.ends.push((at(device), why));
            self.hang_up(at(device));
            busy = true;
        }
        busy |= self.tell();
        while let Some(dial) = self.fleet.poll_dial(self.now) {
            self.connect(at(dial.device));
            busy = true;
        }
        busy
    }

    fn tell(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.fleet.poll_event() {
            busy = true;
            match event {
                Event::Outcome { device, number, first_code, .. } => {
                    self.oracle.ended(self.now, at(device), order_id(RUN, number), first_code);
                }
                Event::Settled { number, marks, .. } => {
                    self.oracle.settled(self.now, order_id(RUN, number), &marks);
                }
                _ => {}
            }
        }
        busy
    }

    fn connect(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if !peer.on {
            return self.fleet.handle_dial_failed(self.now, index(at), push::DialError::TimedOut);
        }
        peer.down.clear();
        peer.up.clear();
        if !peer.frozen {
            peer.conn = peer.receiver.handle_connected(self.now, address(9)).ok();
        }
        self.fleet.handle_connected(self.now, index(at));
    }

    /// The server closes its end; a device that stands still learns it when it goes on.
    fn hang_up(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if let (Some(conn), false) = (peer.conn, peer.frozen) {
            peer.receiver.handle_closed(self.now, conn);
            peer.conn = None;
            peer.down.clear();
        }
    }

    fn serve_peer(&mut self, at: usize, scratch: &mut [u8]) -> bool {
        let mut busy = false;
        let now = self.now;
        let peer = &mut self.peers[at];
        while let Some(conn) = peer.conn.filter(|_| !peer.down.is_empty()) {
            let Ok(input) = peer.receiver.handle_bytes(now, conn, &peer.down) else {
                peer.down.clear();
                break;
            };
            let used = input.consumed;
            if let Some(delivered) = input.order() {
                self.oracle.handed_over(now, at, peer.boot, &delivered);
                let given = (delivered.ticket, order_id(RUN, delivered.order.number));
                peer.begin(&self.oracle, now, at, given);
            }
            peer.down.drain(..used);
            if used == 0 {
                break;
            }
            busy = true;
        }
        while let Some(delivered) = peer.receiver.poll_order(now) {
            self.oracle.handed_over(now, at, peer.boot, &delivered);
            let given = (delivered.ticket, order_id(RUN, delivered.order.number));
            peer.begin(&self.oracle, now, at, given);
        }
        while let Some(transmit) = peer.receiver.poll_transmit(now, scratch) {
            let (conn, len) = (transmit.conn, transmit.head.len() + transmit.body.len());
            peer.up.extend(transmit.head);
            peer.up.extend(transmit.body);
            peer.receiver.handle_written(now, conn, len);
            busy = true;
        }
        let mut closed = false;
        while let Some((conn, _)) = peer.receiver.poll_close() {
            closed |= peer.conn == Some(conn);
        }
        while peer.receiver.poll_event().is_some() {}
        if closed {
            (peer.conn, busy) = (None, true);
            self.fleet.handle_closed(now, index(at), Closed::Eof);
        }
        busy
    }

    /// Time passes, with everything that is due meanwhile.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.turn();
            let fleet = self.fleet.poll_timeout().filter(|_| !self.still);
            let awake = self.peers.iter().filter(|peer| !peer.frozen);
            let due = awake.filter_map(|peer| peer.receiver.poll_timeout()).chain(fleet).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            if fleet.is_some_and(|due| due <= self.now) {
                self.fleet.handle_timeout(self.now);
            }
            for peer in self.peers.iter_mut().filter(|peer| !peer.frozen) {
                if peer.receiver.poll_timeout().is_some_and(|due| due <= self.now) {
                    peer.receiver.handle_timeout(self.now);
                }
            }
        }
        self.now = end;
    }

    fn switch_off(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        peer.on = false;
        if let Some(conn) = peer.conn.take() {
            peer.receiver.handle_closed(self.now, conn);
            self.fleet.handle_closed(self.now, index(at), Closed::Reset);
        }
    }

    fn thaw(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        peer.frozen = false;
        // A driver looks at the clock before it reads.
        peer.receiver.handle_timeout(self.now);
    }

    fn count(&self, code: Code) -> u64 {
        self.fleet.stats().outcomes.of(code)
    }
}

#[test]
fn a_device_thawed_after_a_minute_applies_nothing_that_perished() {
    let mut crowd = Crowd::new(1, 64);
    crowd.push(&Wish::default(), &[0]);
    crowd.pass(SECOND);
    assert_eq!(crowd.count(Code::APPLIED), 1);
    crowd.peers[0].frozen = true;
    for n in 0..20 {
        let lifetime = if n % 4 == 3 { None } else { Some(SECOND * 30) };
        let wish = Wish { idempotent: n % 2 == 0, ..Wish::default() }.perishing(crowd.now, lifetime);
        crowd.push(&wish, &[0]);
    }
    crowd.pass(SECOND * 60);
    assert!(crowd.ends.contains(&(0, Ended::Dead)), "it is known dead: {:?}", crowd.ends);
    assert!(!crowd.peers[0].down.is_empty(), "something lies there unread");
    crowd.thaw(0);
    crowd.pass(SECOND * 60);
    crowd.oracle.finish();
    assert_eq!((crowd.count(Code::EXPIRED), crowd.count(Code::APPLIED)), (15, 6));
}

#[test]
fn a_server_that_stood_still_for_half_a_minute_marks_nobody_dead() {
    const MANY: usize = 60;
    let mut crowd = Crowd::new(MANY, 64);
    let all: Vec<_> = (0..MANY).collect();
    for n in 0..8 {
        crowd.push(&Wish { idempotent: n % 2 == 0, ..Wish::default() }, &all);
    }
    // Everything has left; the answers wait where nobody reads. The devices give the server up after 10 s.
    let mut scratch = vec![0; 16 << 10];
    crowd.serve_fleet(&mut scratch);
    crowd.still = true;
    crowd.pass(SECOND * 30);
    crowd.still = false;
    crowd.fleet.handle_timeout(crowd.now);
    let dials = crowd.fleet.stats().dials;
    crowd.pass(SECOND * 30);
    crowd.oracle.finish();
    let stats = crowd.fleet.stats();
    assert_eq!((stats.dead, stats.pauses > 0), (0, true));
    assert_eq!(stats.outcomes.of(Code::APPLIED), 8 * MANY as u64);
    assert!((0..MANY).all(|at| crowd.fleet.is_open(index(at))));
    assert!(stats.dials - dials <= MANY as u64, "each is dialled once at most");
}

/// What a device gets that was off for half a day while it was pushed so many orders, each as `wish` says; judged.
fn half_a_day_off(orders: u64, wish: impl Fn(u64) -> (Wish, Option<Duration>)) -> Crowd {
    let mut crowd = Crowd::new(1, 6_000);
    crowd.switch_off(0);
    for n in 0..orders {
        let (wish, lifetime) = wish(n);
        crowd.push(&wish.perishing(crowd.now, lifetime), &[0]);
        crowd.pass(HOUR * 12 / orders as u32);
    }
    crowd.peers[0].on = true;
    crowd.pass(HOUR / 4);
    crowd.oracle.finish();
    crowd
}

#[test]
fn a_device_that_was_off_for_half_a_day_gets_what_is_still_worth_it() {
    let crowd = half_a_day_off(1_500, |n| {
        let wish = Wish { idempotent: n % 2 == 0, ..Wish::default() };
        (wish, Some(if n % 5 == 0 { HOUR * 24 } else { HOUR }))
    });
    // Three hundred that are worth a day, and those of the last hour.
    let (applied, expired) = (crowd.count(Code::APPLIED), crowd.count(Code::EXPIRED));
    assert!((395..410).contains(&applied), "{applied}");
    assert_eq!(applied + expired, 1_500);
}

#[test]
fn a_device_that_was_off_for_half_a_day_gets_the_newest_versions_alone() {
    let crowd = half_a_day_off(5_000, |n| {
        let supersede = Some((1 + n % 20, n + 1));
        (Wish { idempotent: n % 2 == 0, supersede, ..Wish::default() }, None)
    });
    assert_eq!((crowd.count(Code::APPLIED), crowd.count(Code::SUPERSEDED)), (20, 4_980));
}

#[test]
fn a_device_is_owed_4096_orders_and_not_one_more() {
    let mut crowd = Crowd::new(2, 6_000);
    crowd.switch_off(0);
    for n in 0..5_000_u64 {
        crowd.push(&Wish { idempotent: n % 2 == 0, ..Wish::default() }, &[0, 1]);
        crowd.turn();
    }
    assert_eq!(crowd.count(Code::OVERFLOW), 5_000 - u64::from(push::config::OWED_MAX));
    crowd.peers[0].on = true;
    crowd.pass(MS * 60_000);
    crowd.oracle.finish();
    assert_eq!(crowd.count(Code::APPLIED), 5_000 + u64::from(push::config::OWED_MAX));
}

#[test]
fn an_urgent_order_is_applied_at_once_beside_sixteen_that_are_stuck() {
    let mut crowd = Crowd::new(1, 64);
    crowd.peers[0].stuck = Some(vec![]);
    for n in 0..16 {
        crowd.push(&Wish { idempotent: n % 2 == 0, ..Wish::default() }, &[0]);
    }
    // A minute in which nothing of the lane ends; what waits is acknowledged, so nobody is suspected.
    crowd.pass(SECOND * 60);
    assert_eq!((crowd.count(Code::APPLIED), crowd.fleet.stats().suspects), (0, 0));
    crowd.push(&Wish { lane: Lane::Urgent, ..Wish::default() }, &[0]);
    crowd.pass(MS * 49);
    assert_eq!(crowd.count(Code::APPLIED), 1, "within 50 ms of its push");
    while let Some((ticket, order)) = crowd.peers[0].stuck.as_mut().and_then(Vec::pop) {
        let (now, boot) = (crowd.now, crowd.peers[0].boot);
        crowd.oracle.answered(now, 0, boot, order, Verdict::Applied);
        crowd.peers[0].receiver.complete(now, ticket, Verdict::Applied, None);
        crowd.pass(SECOND);
    }
    crowd.pass(SECOND * 10);
    crowd.oracle.finish();
    assert_eq!((crowd.count(Code::APPLIED), crowd.fleet.stats().sessions), (17, 1));
}
