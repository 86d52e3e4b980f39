//! The server's driver: dials, reads, writes and tells what the fleet says.

use push::fleet::{AskId, Event, Input, Item, Question};
use push::{DialError, Ended};

use crate::network::Link;
use crate::oracle::{check_end, is_lease_held, order_id};
use crate::world::{Act, MS, World, address, at, id, index};

/// What a frame brought, when its bytes are gone.
enum Heard {
    Ask(Question, Vec<u8>),
    Reply(AskId, Vec<u8>),
}

impl Heard {
    fn of(item: Item<'_>) -> Option<Self> {
        match item {
            Item::Ask { question, payload, .. } => Some(Self::Ask(question, payload.to_vec())),
            Item::Reply { ask, payload, .. } => Some(Self::Reply(ask, payload.to_vec())),
            _ => None,
        }
    }
}

impl World {
    pub(crate) fn serve_fleet(&mut self) {
        let mut scratch = core::mem::take(&mut self.scratch);
        let len = 1_024 + self.rng.below(8_000) as usize;
        loop {
            let mut busy = self.tell_events();
            busy |= self.write_fleet(&mut scratch[..len]);
            while let Some((device, why)) = self.fleet.poll_close() {
                busy = true;
                self.note(format_args!("server closes device {}: {why}", device.0));
                check_end("server", why);
                self.dials[at(device)] = None;
                if let Some(link) = self.linked[at(device)].take() {
                    self.close_server_end(link, false);
                }
            }
            while let Some(dial) = self.fleet.poll_dial(self.now) {
                busy = true;
                assert_eq!(dial.address, address(at(dial.device)));
                self.dial(at(dial.device));
            }
            if !busy {
                break;
            }
        }
        self.scratch = scratch;
    }

    pub(crate) fn tell_events(&mut self) -> bool {
        let mut busy = self.tell_events_now();
        while self.resolve_attempts() {
            busy |= self.tell_events_now();
        }
        // Marks may be ahead of what was told, but not once everything is told.
        for number in core::mem::take(&mut self.told) {
            self.check_marks(number);
        }
        busy
    }

    pub(crate) fn tell_events_now(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.fleet.poll_event() {
            busy = true;
            match event {
                Event::Outcome { device, number, first_code, .. } => {
                    self.ended(at(device), number, first_code);
                }
                Event::Unanswered { device, ask, .. } => self.server_is_unanswered(at(device), ask),
                Event::Attempt { device, number, code, retry_after } => {
                    self.attempt_ended(at(device), number, code, retry_after);
                }
                Event::Settled { number, marks, .. } => {
                    self.oracle.settled(self.now, order_id(self.run, number), &marks);
                }
                Event::Disconnected { device, why } => {
                    self.note(format_args!("session with device {} over: {why}", device.0));
                    self.totals.dead += u64::from(why == Ended::Dead);
                    self.totals.lease_held += u64::from(is_lease_held(why));
                    check_end("server", why);
                }
                Event::Connected { device, facts, .. } => {
                    self.note(format_args!(
                        "session with device {}, window {}",
                        device.0, facts.window_orders
                    ));
                    assert_eq!(facts.id, id(at(device)));
                }
                Event::Learned { device, id: learned } => assert_eq!(learned, id(at(device))),
                _ => {}
            }
        }
        busy
    }

    pub(crate) fn write_fleet(&mut self, scratch: &mut [u8]) -> bool {
        let mut busy = false;
        while let Some(transmit) = self.fleet.poll_transmit(self.now, scratch) {
            busy = true;
            let device = transmit.device;
            let bytes = [transmit.head, transmit.body].concat();
            let link = self.linked[at(device)].expect("the server writes to a connection it has");
            let written = self.write(link, true, &bytes);
            self.totals.cut_writes += u64::from(written < bytes.len());
            self.fleet.handle_written(self.now, device, written);
        }
        busy
    }

    pub(crate) fn dial(&mut self, device: usize) {
        let dial = self.sequence;
        self.dials[device] = Some(dial);
        let up = self.devices[device].receiver.is_some();
        let fails = !up || (!self.calm && self.chance(10));
        let errors = [DialError::Refused, DialError::TimedOut, DialError::Unreachable];
        let error = fails.then(|| errors[self.rng.below(3) as usize]);
        self.totals.refused_dials += u64::from(fails);
        let after = if error == Some(DialError::TimedOut) { MS * 1_500 } else { self.some_delay() };
        self.later(after, Act::Dialled { device, dial, error });
    }

    pub(crate) fn dialled(&mut self, device: usize, dial: u64, error: Option<DialError>) {
        if self.dials[device] != Some(dial) {
            return;
        }
        self.dials[device] = None;
        if let Some(error) = error {
            self.fleet.handle_dial_failed(self.now, index(device), error);
        } else {
            let capacity = [40, 500, 4_000, 100_000][self.rng.below(4) as usize];
            let link = self.next_link;
            self.next_link += 1;
            self.links.insert(link, Link::new(device, capacity));
            self.linked[device] = Some(link);
            self.note(format_args!("link {link} to device {device}, {capacity} bytes"));
            let after = self.some_delay();
            self.later(after, Act::Accept { link });
            self.fleet.handle_connected(self.now, index(device));
        }
        self.serve_fleet();
    }

    /// The server closes its end; the device learns it after what was written before.
    pub(crate) fn close_server_end(&mut self, link: usize, reset: bool) {
        let Some(it) = self.links.get_mut(&link) else { return };
        if !it.server {
            return;
        }
        it.server = false;
        let (cut, after) = (it.cut, it.down.last);
        if !cut {
            let at = after.max(self.now) + self.delay;
            self.at(at, Act::Close { link, down: true, reset });
        }
        self.bury(link);
    }

    pub(crate) fn read_server(&mut self, link: usize) {
        loop {
            let Some(it) = self.links.get_mut(&link) else { return };
            if !it.server || it.deaf || self.linked[it.device] != Some(link) {
                return;
            }
            let device = it.device;
            if !it.up.read(1 + self.rng.below(self.chunk) as usize) {
                break;
            }
            self.give_room(link, false);
            let mut unread = core::mem::take(&mut self.links.get_mut(&link).expect("it was there").up.unread);
            loop {
                match self.fleet.handle_bytes(self.now, index(device), &unread) {
                    Ok(Input { consumed: 0, .. }) if !self.tell_events() => break,
                    Ok(Input { consumed, item }) => {
                        let heard = item.and_then(Heard::of);
                        unread.drain(..consumed);
                        match heard {
                            Some(Heard::Ask(question, payload)) => self.server_is_asked(question, &payload),
                            Some(Heard::Reply(ask, payload)) => {
                                self.server_is_answered(device, ask, &payload);
                            }
                            None => {}
                        }
                    }
                    Err(why) => {
                        check_end("server", why);
                        unread.clear();
                        self.links.get_mut(&link).expect("it was there").deaf = true;
                        break;
                    }
                }
            }
            if let Some(it) = self.links.get_mut(&link) {
                it.up.unread = unread;
            }
            self.serve_fleet();
        }
    }
}
