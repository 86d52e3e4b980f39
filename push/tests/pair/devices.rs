//! The devices' drivers: they accept, read and write.

use push::receiver::{Event, Item, QuestionId, Receiver, Ticket};
use testkit::history::OrderId;
use wire_format::time::Instant;

use crate::network::Link;
use crate::oracle::{check_end, order_id, run_of};
use crate::world::{Act, MS, TheReceiver, World};

/// What a frame brought, when its bytes are gone.
enum Heard {
    Order(Ticket, OrderId),
    Question(QuestionId, Vec<u8>),
    Answer(u32, Vec<u8>),
}

impl World {
    /// Does something to a receiver that is up and running, then drains it.
    pub(crate) fn with_receiver(&mut self, device: usize, input: impl FnOnce(&mut TheReceiver, Instant)) {
        let now = self.now;
        let it = &mut self.devices[device];
        if let (Some(receiver), false) = (&mut it.receiver, it.frozen) {
            input(receiver, now);
            self.serve_device(device);
        }
    }

    pub(crate) fn serve_device(&mut self, device: usize) {
        loop {
            self.record(device);
            self.take_waiting(device);
            if !self.record(device) {
                break;
            }
        }
        let (mut scratch, len) = (core::mem::take(&mut self.scratch), self.devices[device].scratch);
        while let Some(receiver) = &mut self.devices[device].receiver {
            let Some(transmit) = receiver.poll_transmit(self.now, &mut scratch[..len]) else { break };
            let (conn, bytes) = (transmit.conn, transmit.head.to_vec());
            let link = self.link_of(device, conn).expect("the device writes to a connection it has");
            let written = self.write(link, false, &bytes);
            self.totals.cut_writes += u64::from(written < bytes.len());
            let receiver = self.devices[device].receiver.as_mut().expect("it was up");
            receiver.handle_written(self.now, conn, written);
        }
        self.scratch = scratch;
        while let Some((conn, why)) = self.devices[device].receiver.as_mut().and_then(Receiver::poll_close) {
            self.note(format_args!("device {device} closes: {why}"));
            check_end("device", why);
            if let Some(link) = self.link_of(device, conn) {
                self.close_device_end(link);
            }
        }
        while let Some(event) = self.devices[device].receiver.as_mut().and_then(Receiver::poll_event) {
            match event {
                Event::Unanswered { ask } => self.device_is_unanswered(device, ask.0),
                Event::JournalFailed if self.devices[device].dies => return self.crash(device),
                _ => {}
            }
        }
    }

    pub(crate) fn link_of(&self, device: usize, conn: push::receiver::ConnId) -> Option<usize> {
        let mut links = self.links.iter();
        let is_it = |link: &Link| link.device == device && link.client && link.conn == Some(conn);
        links.find(|(_, link)| is_it(link)).map(|(at, _)| *at)
    }

    pub(crate) fn accept(&mut self, link: usize) {
        let now = self.now;
        let Some(it) = self.links.get_mut(&link) else { return };
        let device = &mut self.devices[it.device];
        if device.frozen {
            // The system holds the connection until somebody asks for it.
            return self.later(MS * 10, Act::Accept { link });
        }
        let accepted =
            device.receiver.as_mut().filter(|_| it.client && !it.cut).map(|receiver| {
                receiver.handle_connected(now, "192.0.2.1:40000".parse().expect("an address"))
            });
        let at = it.device;
        match accepted {
            Some(Ok(conn)) => {
                it.conn = Some(conn);
                self.serve_device(at);
                self.read_device(link);
            }
            _ => self.close_device_end(link),
        }
    }

    pub(crate) fn close_device_end(&mut self, link: usize) {
        let Some(it) = self.links.get_mut(&link) else { return };
        it.client = false;
        let (cut, after) = (it.cut, it.up.last);
        if !cut {
            let at = after.max(self.now) + self.delay;
            self.at(at, Act::Close { link, down: false, reset: false });
        }
        self.bury(link);
    }

    pub(crate) fn read_all(&mut self, device: usize) {
        let links: Vec<_> =
            self.links.iter().filter(|(_, link)| link.device == device).map(|(at, _)| *at).collect();
        for link in links {
            self.read_device(link);
        }
    }

    pub(crate) fn read_device(&mut self, link: usize) {
        loop {
            let Some(it) = self.links.get_mut(&link) else { return };
            let (at, Some(conn)) = (it.device, it.conn) else { return };
            let device = &mut self.devices[at];
            if !it.client || device.frozen || device.receiver.is_none() {
                return;
            }
            let more = device.work.is_none() && it.down.read(1 + self.rng.below(self.chunk) as usize);
            let closed = it.down.closed.filter(|reset| *reset || it.down.arrived == 0);
            if let (false, Some(_)) = (more, closed) {
                it.client = false;
                self.with_receiver(at, |receiver, now| receiver.handle_closed(now, conn));
                return self.bury(link);
            }
            if more {
                self.give_room(link, true);
            }
            self.digest(link, at, conn);
            self.serve_device(at);
            if !more {
                return;
            }
        }
    }

    /// Offers what was read and not used; orders go to the handler.
    pub(crate) fn digest(&mut self, link: usize, at: usize, conn: push::receiver::ConnId) {
        loop {
            let now = self.now;
            let Some(it) = self.links.get_mut(&link) else { return };
            let device = &mut self.devices[at];
            let Some(receiver) = &mut device.receiver else { return };
            let input = match receiver.handle_bytes(now, conn, &it.down.unread) {
                Ok(input) => input,
                Err(why) => {
                    check_end("device", why);
                    it.down.unread.clear();
                    return;
                }
            };
            let used = input.consumed;
            let heard = input.item.map(|item| match item {
                Item::Order(delivered) => {
                    self.oracle.handed_over(now, at, device.boot, &delivered);
                    let order = order_id(run_of(delivered.lineage), delivered.order.number);
                    Heard::Order(delivered.ticket, order)
                }
                Item::Question(question) => Heard::Question(question.id, question.payload.to_vec()),
                Item::Answer(answer) => Heard::Answer(answer.ask.0, answer.payload.to_vec()),
                other => panic!("nobody sent {other:?}"),
            });
            it.down.unread.drain(..used);
            match heard {
                Some(Heard::Order(ticket, order)) => self.begin(at, (ticket, order)),
                Some(Heard::Question(id, payload)) => self.device_is_asked(at, id, &payload),
                Some(Heard::Answer(ask, payload)) => self.device_is_answered(at, ask, &payload),
                None => {}
            }
            if used == 0 && !self.record(at) {
                return;
            }
        }
    }
}
