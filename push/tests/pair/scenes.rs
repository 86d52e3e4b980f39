//! Scenes written by hand: one device, a wire without delay, and what the seeds meet too rarely.

use std::time::Duration;

use push::fleet::{Event, NewDevice, NewOrder};
use push::receiver::{Receiver, ReceiverConfig, Verdict};
use push::{Ended, Mark};
use wire_format::frame::Order;
use wire_format::frame::order::{Delivery, KindFlags};
use wire_format::frame::outcome::Code;
use wire_format::ids::{Lane, OrderKind};
use wire_format::time::Instant;

use crate::world::{MS, TheFleet, TheReceiver, address, fleet, id, index, memory, store};

/// A fleet, a receiver, and the bytes between them.
struct Scene {
    now: Instant,
    fleet: TheFleet,
    receiver: TheReceiver,
    conn: push::receiver::ConnId,
    down: Vec<u8>,
    up: Vec<u8>,
    /// Bytes the server's end takes before it blocks.
    room: usize,
    closed: Option<Ended>,
    dialled: bool,
    applied: Vec<u64>,
    outcomes: Vec<(u64, Code)>,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::from_millis(1_000);
        let mut fleet = fleet(now, 1, 1, 1, 1);
        let device = fleet.add_device(now, NewDevice { id: Some(id(0)), address: Some(address(0)) }).unwrap();
        assert_eq!(fleet.poll_dial(now).map(|dial| dial.device), Some(device));
        fleet.handle_connected(now, device);
        let config = ReceiverConfig::new(id(0), store(), 1);
        let memory = memory(&config);
        let mut receiver = Receiver::new(config, memory, now);
        let conn = receiver.handle_connected(now, address(9)).unwrap();
        let (down, up) = (Vec::new(), Vec::new());
        let (applied, outcomes) = (Vec::new(), Vec::new());
        let (room, closed, dialled) = (usize::MAX, None, false);
        let mut scene =
            Self { now, fleet, receiver, conn, down, up, room, closed, dialled, applied, outcomes };
        scene.turn();
        assert!(scene.fleet.is_open(index(0)));
        scene
    }

    fn submit(&mut self, number: u64, lifetime: Option<Duration>) {
        let order = Order {
            number,
            order_key: 0,
            supersede_key: 0,
            supersede_version: 0,
            kind: OrderKind::MESSAGE,
            lane: Lane::Normal,
            kind_flags: KindFlags::IDEMPOTENT,
            schema: 1,
            options: &[],
            payload: &[],
        };
        let remaining_ms = lifetime.map(Delivery::millis);
        let delivery = Delivery { durable: false, replay: false, needs_result: false, remaining_ms };
        let mut frame = vec![0; 64];
        assert_eq!(order.emit(&delivery, &mut frame), Ok(64));
        let (lane, kind_flags) = (order.lane, order.kind_flags);
        let marks = vec![Mark::PENDING.0];
        let new = NewOrder { number, lane, kind_flags, lifetime, frame, first: index(0), marks };
        self.fleet.submit(self.now, new).unwrap();
    }

    /// The server writes what it can.
    fn write(&mut self) {
        let mut scratch = vec![0; 4_096];
        while let Some(transmit) = self.fleet.poll_transmit(self.now, &mut scratch) {
            let bytes = [transmit.head, transmit.body].concat();
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.down.extend(&bytes[..taken]);
            self.fleet.handle_written(self.now, index(0), taken);
        }
        while let Some((_, why)) = self.fleet.poll_close() {
            self.closed = Some(why);
        }
        while let Some(event) = self.fleet.poll_event() {
            if let Event::Outcome { number, first_code, .. } = event {
                self.outcomes.push((number, first_code));
            }
        }
    }

    /// The device uses what came, at most `frames` of it, and answers.
    fn read(&mut self, frames: usize) {
        for _ in 0..frames {
            let Ok(input) = self.receiver.handle_bytes(self.now, self.conn, &self.down) else { return };
            let used = input.consumed;
            if let Some(delivered) = input.order() {
                self.applied.push(delivered.order.number);
                self.receiver.complete(self.now, delivered.ticket, Verdict::Applied, None);
            }
            self.down.drain(..used);
        }
        let mut scratch = vec![0; 4_096];
        while let Some(transmit) = self.receiver.poll_transmit(self.now, &mut scratch) {
            let (conn, len) = (transmit.conn, transmit.head.len());
            self.up.extend(transmit.head);
            self.receiver.handle_written(self.now, conn, len);
        }
    }

    /// The server uses what came.
    fn hear(&mut self) {
        while let Ok(input) = self.fleet.handle_bytes(self.now, index(0), &self.up)
            && input.consumed != 0
        {
            let used = input.consumed;
            self.up.drain(..used);
            self.write();
        }
    }

    fn turn(&mut self) {
        for _ in 0..4 {
            self.write();
            self.read(9);
            self.hear();
        }
    }

    /// The server alone lives on, until it dials.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.fleet.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.fleet.handle_timeout(self.now);
            self.write();
            self.dialled = self.fleet.poll_dial(self.now).is_some();
            if self.dialled {
                return;
            }
        }
        self.now = end;
    }
}

#[test]
fn a_connection_that_takes_nothing_is_dead_even_if_an_answer_came_after_the_cut() {
    let mut scene = Scene::new();
    scene.submit(1, None);
    scene.submit(2, None);
    scene.write();
    scene.read(1);
    scene.hear();
    // PING and SETTLED for the first are cut; then the outcome of the second comes, and nothing more is ever taken or said.
    scene.room = 5;
    scene.pass(MS * 3_050);
    assert_eq!(scene.room, 0);
    scene.read(1);
    scene.hear();
    assert_eq!(scene.outcomes.len(), 2);
    scene.pass(MS * 6_000);
    assert_eq!(scene.closed, Some(Ended::Dead));
}

#[test]
fn an_order_cut_while_its_lifetime_ends_expires_with_its_session() {
    let mut scene = Scene::new();
    scene.room = 5;
    scene.submit(1, Some(MS * 500));
    scene.write();
    scene.pass(MS * 1_000);
    assert_eq!(scene.outcomes, []);
    scene.pass(MS * 6_000);
    assert_eq!((scene.closed, &scene.outcomes[..]), (Some(Ended::Dead), &[(1, Code::EXPIRED)][..]));
    assert_eq!(scene.fleet.live_orders(), 0);
}

#[test]
fn an_order_whose_lifetime_is_over_is_asked_about_and_not_applied() {
    let mut scene = Scene::new();
    scene.submit(1, Some(MS * 500));
    scene.write();
    // It left as a whole; the session dies, and the device boots: the server cannot know whether it was applied.
    scene.pass(MS * 8_000);
    assert_eq!((scene.closed, &scene.outcomes[..]), (Some(Ended::Dead), &[][..]));
    let config = ReceiverConfig::new(id(0), store(), 2);
    let memory = memory(&config);
    scene.receiver = Receiver::new(config, memory, scene.now);
    scene.conn = scene.receiver.handle_connected(scene.now, address(9)).unwrap();
    assert!(scene.dialled);
    scene.down.clear();
    scene.fleet.handle_connected(scene.now, index(0));
    scene.turn();
    assert_eq!((&scene.applied[..], &scene.outcomes[..]), (&[][..], &[(1, Code::EXPIRED)][..]));
}
