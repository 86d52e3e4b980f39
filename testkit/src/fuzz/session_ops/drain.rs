//! What the two sides have to say after each operation, and what must hold of it.

use push::fleet::Event;
use push::{Closed, DeviceIndex, Mark};
use wire_format::frame::outcome::Code;

use super::device::Handed;
use super::{DRAIN_MAX, HONEST, HOSTILE, ORDERS, RING, World};

impl World {
    pub(super) fn drain(&mut self) {
        self.drain_events();
        self.drain_fleet();
        self.drain_receiver();
        self.drain_events();
    }

    fn drain_fleet(&mut self) {
        let mut scratch = [0; push::config::SCRATCH_MIN];
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the fleet never falls silent");
            let Some(transmit) = self.fleet.poll_transmit(self.now, &mut scratch) else { break };
            let device = transmit.device;
            let parts = [transmit.head, transmit.body];
            assert!(!parts.concat().is_empty(), "a write of nothing");
            let written = if device == HONEST {
                self.down.write(&parts)
            } else {
                let len = parts.concat().len().min(self.hostile_room);
                self.hostile_room -= len;
                len
            };
            self.fleet.handle_written(self.now, device, written);
            self.drain_events();
        }
        for round in 0.. {
            assert!(round < DRAIN_MAX, "dials without end");
            let Some(dial) = self.fleet.poll_dial(self.now) else { break };
            // The fleet gave an earlier dial up, as a driver does after its own timeout.
            self.dials.retain(|device| *device != dial.device);
            self.dials.push(dial.device);
        }
        while let Some((device, _why)) = self.fleet.poll_close() {
            if device == HOSTILE {
                self.hostile_up.clear();
            } else if let Some(conn) = self.honest.conn.take() {
                self.receiver.handle_closed(self.now, conn);
            }
        }
    }

    fn drain_receiver(&mut self) {
        while let Some(order) = self.receiver.poll_order(self.now) {
            let order = Handed::of(&order);
            let work = self.handed_over(order);
            self.application.work = Some(work);
        }
        let mut scratch = [0; push::receiver::SCRATCH_MIN];
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the receiver never falls silent");
            let Some(transmit) = self.receiver.poll_transmit(self.now, &mut scratch) else { break };
            let conn = transmit.conn;
            let parts = [transmit.head, transmit.body];
            let written = if Some(conn) == self.honest.conn {
                self.up.write(&parts)
            } else {
                assert!(
                    self.hostile.conn != Some(conn) || self.hostile.greeted,
                    "a word to a stranger before its HELLO"
                );
                parts.concat().len()
            };
            self.receiver.handle_written(self.now, conn, written);
        }
        while let Some((conn, _why)) = self.receiver.poll_close() {
            if Some(conn) == self.honest.conn {
                self.honest.conn = None;
                self.fleet.handle_closed(self.now, HONEST, Closed::Eof);
            } else if Some(conn) == self.hostile.conn {
                self.hostile.conn = None;
            }
        }
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the receiver never runs out of events");
            if self.receiver.poll_event().is_none() {
                break;
            }
        }
    }

    pub(super) fn drain_events(&mut self) {
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the fleet never runs out of events");
            let Some(event) = self.fleet.poll_event() else { break };
            match event {
                Event::Outcome { device, number, code, first_code, .. } => {
                    assert!(self.ended.insert((device, number)), "order {number} ended twice on {device:?}");
                    // An attempt is repeated by who submitted; here nobody does.
                    assert!((code.is_final() || code.is_attempt_end()) && number <= self.last_number);
                    if device == HONEST && (code == Code::APPLIED || first_code == Code::APPLIED) {
                        assert!(self.applied.contains_key(&number), "order {number} was never applied");
                    }
                }
                Event::Attempt { device, number, code, .. } => {
                    assert!(
                        self.fleet.resolve(self.now, number, device, code),
                        "{number} waits for an attempt"
                    );
                }
                Event::Settled { number, marks, first, .. } => {
                    self.marks.remove(&number).expect("settled once");
                    for (device, mark) in (first.0..).zip(&marks) {
                        let mark = Mark(*mark);
                        assert!(mark.is_final() || mark == Mark::NOT_TARGETED, "settled with {mark}");
                        let told = self.ended.contains(&(DeviceIndex(device), number));
                        let at_once = matches!(mark.code(), None | Some(Code::OVERFLOW | Code::NOT_TARGETED));
                        assert!(told || at_once, "the end of {number} on {device} was not told");
                    }
                }
                Event::Unanswered { ask, .. } => self.answered(ask),
                _ => {}
            }
        }
    }

    pub(super) fn check(&mut self) {
        assert!(self.fleet.live_orders() as usize <= ORDERS && self.receiver.owed() <= RING);
        for (number, before) in &mut self.marks {
            let Some((_, marks)) = self.fleet.marks(*number) else { panic!("order {number} vanished") };
            for (before, now) in before.iter_mut().zip(marks) {
                assert!(!Mark(*before).is_final() || before == now, "a final mark of {number} changed");
                *before = *now;
            }
        }
    }
}
