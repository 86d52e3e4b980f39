//! Faults: what the world throws at both halves.

use std::time::Duration;

use push::fleet::NewDevice;
use push::receiver::{Receiver, ReceiverConfig};
use testkit::history::Event;

use crate::orders::Book;
use crate::world::{Act, MS, World, address, fleet, id, index, memory};

impl World {
    pub(crate) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let wait = self.rng.between(MS * 50, MS * 3_000);
        self.later(wait, Act::Fault);
        let device = self.rng.below(self.devices.len() as u64) as usize;
        match self.rng.below(36) {
            32..=35 => self.spoil(device),
            0..=11 => self.cut(device),
            12..=17 => self.crash(device),
            18..=19 => self.leave(device),
            20..=25 => self.freeze(device),
            26..=27 => self.hint(device),
            28..=29 => self.pause_server(),
            n => self.replace_server(n == 31),
        }
    }

    /// The connection breaks: both ends are told at different times, or nobody is.
    pub(crate) fn cut(&mut self, device: usize) {
        let Some(link) = self.linked[device] else { return };
        let silent = self.chance(40);
        self.note(format_args!("cut link {link} of device {device}, silently {silent}"));
        self.totals.cuts += 1;
        if let Some(link) = self.links.get_mut(&link) {
            link.cut = true;
        }
        if !silent {
            for down in [false, true] {
                let after = self.rng.between(Duration::ZERO, MS * 800);
                self.later(after, Act::Close { link, down, reset: true });
            }
        }
    }

    /// The device loses its power, and with it all it knew.
    pub(crate) fn crash(&mut self, device: usize) {
        if self.devices[device].receiver.is_none() {
            return;
        }
        self.note(format_args!("device {device} crashes"));
        self.totals.reboots += 1;
        let stats = self.devices[device].receiver.take().map(|receiver| receiver.stats().clone());
        self.totals.add_stats(&stats.expect("it was up"));
        let it = &mut self.devices[device];
        (it.work, it.frozen, it.dies) = (None, false, false);
        self.questions.forget_device(device);
        self.lose_unsynced(device);
        let told = self.chance(50);
        let links: Vec<_> =
            self.links.iter().filter(|(_, link)| link.device == device).map(|(at, _)| *at).collect();
        for at in links {
            let Some(link) = self.links.get_mut(&at) else { continue };
            (link.client, link.cut) = (false, true);
            if told {
                self.later(self.delay, Act::Close { link: at, down: false, reset: true });
            }
        }
        let back = self.rng.between(MS * 50, MS * 4_000);
        self.later(back, Act::Boot { device });
    }

    /// Somebody switches the device off as it should be done.
    pub(crate) fn leave(&mut self, device: usize) {
        if self.devices[device].frozen {
            return;
        }
        self.note(format_args!("device {device} says goodbye"));
        let (boot, drains) = (self.devices[device].boot, self.knobs.drains);
        let mut within = push::receiver::FAREWELL_WITHIN + MS;
        if self.chance(drains) {
            within += self.drain_device(device);
        } else {
            self.with_receiver(device, |receiver, now| receiver.stop(now));
        }
        self.later(within, Act::Down { device, boot });
    }

    pub(crate) fn down(&mut self, device: usize, boot: u64) {
        let it = &self.devices[device];
        if it.boot != boot {
            return;
        }
        if let (Some(receiver), false) = (&it.receiver, it.frozen || it.work.is_some()) {
            assert!(receiver.is_stopped(), "a device that stops has no connection after a second");
            self.totals.leaves += 1;
        }
        self.crash(device);
    }

    pub(crate) fn boot(&mut self, at: usize) {
        let boot = self.rng.next_u64() | 1;
        self.note(format_args!("device {at} boots"));
        let now = self.now;
        let device = &mut self.devices[at];
        device.boot = boot;
        self.oracle.record(now, Event::Boot { device: at as u32, boot });
        let config = ReceiverConfig { boot, ..device.config.clone() };
        let memory = memory(&config);
        device.receiver = Some(Receiver::new(config, memory, now));
        self.remember(at);
        self.record(at);
    }

    pub(crate) fn freeze(&mut self, at: usize) {
        if self.devices[at].receiver.is_none() || self.devices[at].frozen {
            return;
        }
        // Now and then for longer than any deadline there is.
        let most = if self.chance(10) { 70_000 } else { 9_000 };
        let span = self.rng.between(MS * 100, MS * most);
        self.note(format_args!("device {at} stands still for {span:?}"));
        self.totals.freezes += 1;
        self.devices[at].frozen = true;
        let boot = self.devices[at].boot;
        self.later(span, Act::Thaw { device: at, boot });
    }

    pub(crate) fn thaw(&mut self, at: usize, boot: u64) {
        if self.devices[at].boot != boot || !self.devices[at].frozen {
            return;
        }
        self.note(format_args!("device {at} goes on"));
        self.devices[at].frozen = false;
        self.with_receiver(at, |receiver, now| receiver.handle_timeout(now));
        self.read_all(at);
    }

    /// Discovery heard of the device.
    pub(crate) fn hint(&mut self, device: usize) {
        if self.now < self.paused_until {
            return;
        }
        self.fleet.set_address(self.now, index(device), address(device));
        self.serve_fleet();
    }

    /// The server's process is stopped for a while.
    pub(crate) fn pause_server(&mut self) {
        let most = if self.chance(10) { 40_000 } else { 9_000 };
        let span = self.rng.between(MS * 600, MS * most);
        self.note(format_args!("the server stands still for {span:?}"));
        self.totals.pauses += 1;
        self.paused_until = self.paused_until.max(self.now + span);
    }

    /// The server starts anew, or another one takes over; it may say so first, and finish what is under way.
    pub(crate) fn replace_server(&mut self, takeover: bool) {
        let drains = self.knobs.drains;
        if self.draining || self.now < self.paused_until || !self.chance(drains) {
            return self.restart_server(takeover);
        }
        let within = self.rng.between(Duration::ZERO, MS * 5_000);
        self.note(format_args!("the server leaves within {within:?}"));
        self.totals.drains += 1;
        self.draining = true;
        self.fleet.drain(self.now, within);
        let run = self.run;
        self.later(within + push::config::FAREWELL_WITHIN + MS * 100, Act::Left { run, takeover });
        self.serve_fleet();
    }

    /// Its time is over: it has no session any more, unless it stood still meanwhile.
    pub(crate) fn left(&mut self, run: u8, takeover: bool) {
        if run == self.run {
            assert!(self.fleet.is_stopped() || self.totals.pauses > 0, "a server that leaves has left");
            self.restart_server(takeover);
        }
    }

    /// The server starts anew, or another one takes over: another lineage, and nobody knows the old orders.
    pub(crate) fn restart_server(&mut self, takeover: bool) {
        self.note(format_args!("the server starts anew, another one {takeover}"));
        self.totals.restarts += u64::from(!takeover);
        self.totals.takeovers += u64::from(takeover);
        self.oracle.record(self.now, Event::Gone { log: self.run.into() });
        self.run += 1;
        self.fence += u64::from(takeover);
        self.begin_log();
        self.paused_until = self.now;
        self.draining = false;
        self.book = Book::default();
        self.questions.forget_server();
        self.told.clear();
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.close_server_end(link, true);
        }
        let count = self.devices.len();
        (self.dials, self.linked) = (vec![None; count], vec![None; count]);
        self.fleet = fleet(self.now, self.run, self.fence, count, self.rng.next_u64());
        self.next_number = 1 + self.rng.below(5);
        self.add_devices();
        self.serve_fleet();
    }

    pub(crate) fn add_devices(&mut self) {
        for at in 0..self.devices.len() {
            let id = self.chance(80).then_some(id(at));
            let new = NewDevice { id, address: Some(address(at)) };
            assert_eq!(self.fleet.add_device(self.now, new), Ok(index(at)));
        }
    }
}
