//! Faults, as they are done to the world.

use std::time::Duration;

use push::receiver::FAREWELL_WITHIN;
use wire_format::frame::{Drain, drain};

use super::durable::Job;
use super::fault::{Fault, First, When};
use super::names::Probe;
use super::plan::{MS, SECOND};
use super::server::address;
use super::world::{Act, World};
use crate::history::Event;

/// A second server hears this long whom it would take the store from, before its operator decides.
const STANDS_BY: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn fault(&mut self, at: usize) {
        let fault = self.plan.faults[at].fault.clone();
        self.run.faults.count(fault.kind() as usize);
        self.note(format_args!("fault: {fault:?}"));
        let now = self.now;
        match fault {
            Fault::Cut { device, silent } => self.cut(device, silent),
            Fault::ResetAtByte { device, bytes } => {
                for id in self.links.of_device(device) {
                    if let Some(link) = self.links.at(id) {
                        link.reset_after = Some(bytes);
                    }
                }
            }
            Fault::Dribble { device, lasts } => self.devices[device].dribbles_until = now + lasts,
            Fault::Slow { lasts, delay } => self.slow = (delay, now + lasts),
            Fault::Partition { device, down, up, lasts } => {
                for (blocked, until) in [down, up].into_iter().zip(&mut self.devices[device].blocked) {
                    *until = if blocked { now + lasts } else { *until };
                }
            }
            Fault::Stall { device, lasts } => self.stall(device, lasts),
            Fault::DialFails { device, lasts } => self.devices[device].dials_fail_until = now + lasts,
            Fault::Crash { device, power, when: When::Now, away } => self.crash_device(device, power, away),
            Fault::Crash { device, power, when: When::Steps(steps), away } => {
                self.devices[device].die_in = Some((steps, power, away));
            }
            Fault::Goodbye { device, drain, away } => self.goodbye(device, drain, away),
            Fault::Freeze { device, lasts } => self.freeze(device, self.in_storm(lasts)),
            Fault::Swap { devices: (one, other), healed_after } => self.swap(one, other, healed_after),
            Fault::Announce { device } => self.heal_address(device),
            Fault::Remove { device, away } => self.remove(device, away),
            Fault::Question { device, by_device, within } => self.ask(device, by_device, within),
            Fault::PieceCut { device, after, power } => self.devices[device].pieces.cut_after(after, power),
            Fault::JournalSlow { device, lasts, takes } => self.devices[device].slow = (takes, now + lasts),
            Fault::FalseAnnounce { device, other, healed_after } => {
                self.announce_falsely(device, other, healed_after);
            }
            Fault::JournalDies { device, after } => self.devices[device].medium.die_after(after),
            Fault::JournalFails { device, after } => self.devices[device].medium.fail_after(after),
            Fault::JournalWiped { device, away } => {
                self.crash_device(device, true, away);
                let seed = self.rng.next_u64();
                self.devices[device].medium.wipe(seed);
                self.knows_nothing(device);
            }
            Fault::JournalRots { device, bit, away } => {
                self.crash_device(device, true, away);
                self.devices[device].medium.flip(bit);
                // What it may have lost of it is not known; that it says so is checked by what it does then.
                self.knows_nothing(device);
            }
            fault => self.server_fault(fault),
        }
    }

    fn server_fault(&mut self, fault: Fault) {
        let at = self.active;
        match fault {
            Fault::CrashServer { power, when: When::Now, away } => self.crash_server(at, power, away),
            Fault::CrashServer { power, when: When::Steps(steps), away } => {
                self.servers[at].die_in = Some((steps, power, away));
            }
            Fault::Pause { lasts } => self.stand_still(at, self.in_storm(lasts)),
            Fault::Drain { within } => self.drain_server(at, within),
            Fault::TakeOver { after, first } => {
                let next = (at + 1) % self.servers.len();
                match first {
                    First::Dies => self.crash_server(at, true, after + SECOND * 30),
                    First::StandsStill => self.stand_still(at, self.in_storm(after + SECOND * 30)),
                    First::GoesOn => {}
                }
                self.start_server(next);
                self.later(STANDS_BY + after, Act::Raise { server: next });
            }
            Fault::DiskRots { at: place, away } => self.disk_rots(at, place, away),
            Fault::Backup { restored_after, away } => self.back_up(at, restored_after, away),
            fault => self.disk_fault(at, &fault),
        }
    }

    /// The server's disk and wall clock.
    fn disk_fault(&mut self, at: usize, fault: &Fault) {
        let now = self.now;
        self.walls_ahead |= matches!(fault, Fault::WallJump { by_ms: 1.. } | Fault::WallFrozen { .. });
        let durable = &mut self.servers[at].durable;
        match *fault {
            Fault::DiskDies { after } => durable.disk.die_after(after),
            Fault::DiskFails { after } => durable.disk.fail_after(after),
            Fault::DiskFull { lasts } => {
                let bytes = durable.disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
                durable.disk.limit(Some(bytes));
                self.later(lasts, Act::DiskRoom { server: at });
            }
            Fault::DiskSlow { lasts, takes } => durable.slow = (takes, now + lasts),
            Fault::WallJump { by_ms } => durable.wall_off_ms = durable.wall_off_ms.saturating_add(by_ms),
            Fault::WallFrozen { lasts } => {
                durable.wall_frozen_ms = Some(durable.now(now).wall_ms);
                self.later(lasts, Act::WallGoesOn { server: at });
            }
            _ => {}
        }
    }

    pub(super) fn disk_has_room(&mut self, at: usize) {
        self.servers[at].durable.disk.limit(None);
    }

    pub(super) fn wall_goes_on(&mut self, at: usize) {
        self.servers[at].durable.wall_frozen_ms = None;
    }

    /// As much of a span as does not reach into the calm.
    pub(super) fn in_storm(&self, lasts: Duration) -> Duration {
        lasts.min((self.start + self.plan.storm).since(self.now))
    }

    pub(super) fn stand_still(&mut self, at: usize, lasts: Duration) {
        if self.servers[at].fleet.is_some() {
            let until = &mut self.servers[at].paused_until;
            *until = (self.now + lasts).max(*until);
        }
    }

    /// The connection breaks: both ends are told at different times, or nobody is.
    pub(super) fn cut(&mut self, device: usize, silent: bool) {
        for id in self.links.of_device(device) {
            let Some(link) = self.links.at(id).filter(|link| !link.cut) else { continue };
            link.cut = true;
            if !silent {
                for down in [false, true] {
                    let after = self.rng.between(Duration::ZERO, MS * 800);
                    self.later(after, Act::Close { link: id, down, reset: true });
                }
            }
        }
    }

    /// One end of a connection reads nothing for a while.
    fn stall(&mut self, device: usize, lasts: Duration) {
        let (until, of_device) = (self.now + lasts, self.chance(50));
        for id in self.links.of_device(device) {
            if let Some(link) = self.links.at(id) {
                link.stalled[usize::from(!of_device)] = until;
            }
            self.at(until, Act::ReadOn { link: id, down: of_device });
        }
    }

    /// The device's process or its power is gone, and with it all that only its memory knew.
    pub(super) fn crash_device(&mut self, at: usize, power: bool, away: Duration) {
        let it = &mut self.devices[at];
        if it.receiver.take().is_none() {
            return;
        }
        (it.work, it.frozen, it.die_in, it.off_by) = (None, false, None, None);
        (it.store, it.reads_on) = (None, false);
        it.answered.clear();
        self.questions.forget_device(at);
        if power {
            it.medium.crash();
        } else if it.medium.is_dead() {
            it.medium.kill();
        }
        self.note_of(at, format_args!("device {at} crashes, power cut {power}"));
        for id in self.links.of_device(at) {
            if power { self.cut_end(id, false) } else { self.close_end(id, false, true) }
        }
        self.later(away, Act::Boot { device: at });
    }

    /// Somebody switches the device off as it should be done.
    fn goodbye(&mut self, at: usize, drain: Option<Duration>, away: Duration) {
        let it = &self.devices[at];
        if it.frozen || it.receiver.is_none() {
            return;
        }
        let boot = it.boot;
        let mut off_by = self.now + FAREWELL_WITHIN + MS;
        if let Some(after) = drain {
            // A device that leaves already leaves as it said first.
            off_by = it.off_by.unwrap_or(off_by + after);
            let after_ms = after.as_millis() as u32;
            self.with_receiver(at, |receiver, now| {
                receiver.drain(now, Drain { reason: drain::Reason::LEAVING, after_ms });
            });
        } else {
            self.with_receiver(at, |receiver, now| receiver.stop(now));
        }
        let it = &mut self.devices[at];
        if it.receiver.is_none() {
            // It died of what that made it do.
            return;
        }
        let off_by = it.off_by.map_or(off_by, |first| first.min(off_by));
        it.off_by = Some(off_by);
        self.at(off_by, Act::Down { device: at, boot, away });
    }

    pub(super) fn down(&mut self, at: usize, boot: u64, away: Duration) {
        let it = &self.devices[at];
        if it.boot != boot || it.receiver.is_none() {
            return;
        }
        if let Some(off_by) = it.off_by.filter(|off_by| *off_by > self.now) {
            return self.at(off_by, Act::Down { device: at, boot, away });
        }
        let still = it.receiver.as_ref().is_some_and(|receiver| !receiver.is_stopped());
        if still && !it.frozen && it.work.is_none() {
            self.ledger.fail(
                self.now,
                "StaysOn",
                Some(at),
                &[],
                "a device that stops has a connection after a second",
            );
        }
        self.crash_device(at, false, away);
    }

    pub(super) fn freeze(&mut self, at: usize, lasts: Duration) {
        let it = &mut self.devices[at];
        if it.receiver.is_none() || it.frozen {
            return;
        }
        it.frozen = true;
        let boot = it.boot;
        self.later(lasts, Act::Thaw { device: at, boot });
    }

    pub(super) fn thaw(&mut self, at: usize, boot: u64) {
        let it = &mut self.devices[at];
        if it.boot != boot || !it.frozen {
            return;
        }
        it.frozen = false;
        // What it says last it has not been able to say meanwhile.
        it.off_by = it.off_by.map(|off_by| off_by.max(self.now + FAREWELL_WITHIN + MS));
        self.note_of(at, format_args!("device {at} goes on"));
        self.with_receiver(at, |receiver, now| receiver.handle_timeout(now));
        self.read_all(at);
    }

    /// Two devices change their addresses, as a DHCP server without memory makes them.
    fn swap(&mut self, one: usize, other: usize, healed_after: Duration) {
        let slots = [other, one].map(|device| self.devices[device].slot);
        for (device, slot) in [one, other].into_iter().zip(slots) {
            self.slots[slot] = device;
            self.devices[device].slot = slot;
            self.cut(device, true);
            self.later(healed_after, Act::Announce { device });
        }
    }

    /// Discovery hears where a device is.
    pub(super) fn heal_address(&mut self, device: usize) {
        let now = self.now;
        let slot = self.devices[device].slot;
        for at in 0..self.servers.len() {
            let until = self.servers[at].paused_until;
            if now < until {
                self.at(until, Act::Announce { device });
                continue;
            }
            self.with_server(at, |fleet, index| {
                if let Some(index) = index(device) {
                    fleet.set_address(now, index, address(slot));
                }
            });
        }
    }

    /// Somebody on the network says that a device is where another one is: a hint for the next dial, and nothing for a session
    /// that is open.
    fn announce_falsely(&mut self, device: usize, other: usize, healed_after: Duration) {
        let now = self.now;
        let slot = self.devices[other].slot;
        for at in 0..self.servers.len() {
            if now < self.servers[at].paused_until {
                continue;
            }
            let mut dropped = false;
            self.with_server(at, |fleet, index| {
                if let Some(index) = index(device) {
                    let was_open = fleet.is_open(index);
                    fleet.announce_address(now, index, address(slot));
                    dropped = was_open && !fleet.is_open(index);
                }
            });
            if dropped {
                let detail = "an announce has ended its session";
                self.ledger.fail(now, "AnnounceBelieved", Some(device), &[], detail);
            }
        }
        self.later(healed_after, Act::Announce { device });
    }

    /// The operator takes the device out of the list, and puts it back later.
    fn remove(&mut self, device: usize, away: Duration) {
        let now = self.now;
        let paused = self.servers.iter().any(|server| server.paused_until > now || server.draining);
        if self.devices[device].removed || paused || self.calm {
            return;
        }
        self.devices[device].removed = true;
        self.ledger.record(now, Event::Removed { device: device as u32 });
        for at in 0..self.servers.len() {
            self.remove_from(at, device);
        }
        self.later(away, Act::Listed { device });
    }

    /// Takes the device out of a server's list: once that is written down, if it keeps one on disk.
    pub(super) fn remove_from(&mut self, at: usize, device: usize) {
        let now = self.now;
        let server = &mut self.servers[at];
        let Some(index) = server.index[device].take() else { return };
        if self.plan.durable {
            server.leaving.insert(index.0);
            let number = server.numbers[&index.0];
            server.durable.put(Job::Removed { number, index: Some(index) });
            return self.kick_writer(at);
        }
        self.with_server(at, |fleet, _| {
            fleet.remove_device(now, index);
        });
        self.check_removal(at, device, index);
    }

    /// The device at this place is gone, whatever the disk says of its record.
    pub(super) fn is_removed(&mut self, at: usize, index: push::DeviceIndex) {
        let (now, server) = (self.now, &mut self.servers[at]);
        server.leaving.remove(&index.0);
        if let Some(fleet) = &mut server.fleet {
            fleet.remove_device(now, index);
        }
        let device = self.servers[at].device_of[index.0 as usize];
        self.check_removal(at, device, index);
    }

    /// Who is not in the list any more is served no more.
    fn check_removal(&mut self, at: usize, device: usize, index: push::DeviceIndex) {
        if self.servers[at].fleet.as_ref().is_some_and(|fleet| fleet.is_open(index)) {
            self.ledger.fail(self.now, "ServedThoughRemoved", Some(device), &[], "its session is open");
        }
    }

    pub(super) fn list_again(&mut self, device: usize) {
        if !self.devices[device].removed || !self.plan.devices[device].present {
            return;
        }
        for at in 0..self.servers.len() {
            // A server that was down, or whose record of it is lost, has it in its list all the time.
            if self.servers[at].fleet.is_none() || self.servers[at].index[device].is_some() {
                continue;
            }
            if !self.add_device(at, device) {
                // Its removal is not written down yet.
                return self.later(SECOND, Act::Listed { device });
            }
            self.serve_server(at);
        }
        self.devices[device].removed = false;
        self.devices[device].listed_again = true;
    }

    /// The server's process or its power is gone.
    pub(super) fn crash_server(&mut self, at: usize, power: bool, away: Duration) {
        let server = &mut self.servers[at];
        if server.fleet.take().is_none() {
            return;
        }
        self.questions.forget_server(at);
        let log = server.log;
        (server.draining, server.die_in, server.paused_until) = (false, None, self.now);
        server.dials.fill(None);
        server.linked.fill(None);
        server.index.fill(None);
        server.leaving.clear();
        server.device_of.clear();
        server.wishes.clear();
        server.to_try.clear();
        server.given.clear();
        server.numbers.clear();
        server.traces.clear();
        let told_nobody = server.durable.has_untold();
        server.durable.forget();
        if power {
            server.durable.disk.crash();
        } else if server.durable.disk.is_dead() {
            server.durable.disk.kill();
        }
        server.told.clear();
        server.expected.clear();
        server.taken_back.clear();
        if told_nobody {
            self.probe(Probe::S3);
        }
        self.ledger.record(self.now, Event::Gone { log });
        self.note(format_args!("server {at} crashes, power cut {power}"));
        for id in self.links.of_server(at) {
            if power { self.cut_end(id, true) } else { self.close_end(id, true, true) }
        }
        self.later(away, Act::Start { server: at });
    }

    /// The server says that it leaves, finishes what is under way, and starts anew.
    fn drain_server(&mut self, at: usize, within: Duration) {
        let now = self.now;
        let server = &mut self.servers[at];
        if server.fleet.is_none() || server.draining || server.paused_until > now {
            return;
        }
        server.draining = true;
        let boot = server.boot;
        self.with_server(at, |fleet, _| fleet.drain(now, within));
        let gone = within + push::config::FAREWELL_WITHIN + MS * 100;
        self.later(gone, Act::Left { server: at, boot });
    }

    pub(super) fn left(&mut self, at: usize, boot: u64) {
        if self.servers[at].boot == boot {
            self.crash_server(at, false, MS * 100);
        }
    }

    /// The operator lets this server take the store over: its fence is raised above any that was heard.
    pub(super) fn raise_fence(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(fleet) = server.fleet.as_mut().filter(|_| !self.calm || at == self.active) else { return };
        if at == self.active && fleet.fence_heard().max(self.top_fence) < server.fence {
            return;
        }
        // A device without a journal may have forgotten the highest; the operator has not.
        let fence = fleet.fence_heard().max(server.fence).max(self.top_fence) + 1;
        self.top_fence = fence;
        if self.plan.durable {
            server.durable.put(Job::Fence { fence });
            return self.kick_writer(at);
        }
        (server.fence, server.took_over) = (fence, true);
        fleet.take_over(self.now, fence);
        self.fence_raised(at, fence);
        self.serve_server(at);
    }

    /// From now on this server says its new fence.
    pub(super) fn fence_raised(&mut self, at: usize, fence: u64) {
        let logs = [self.servers[at].log, self.servers[at].durable.log];
        for log in logs.into_iter().filter(|log| *log != 0) {
            self.ledger.record(self.now, Event::Log { log, fence });
        }
        self.note(format_args!("server {at} takes the store over with fence {fence}"));
        if core::mem::replace(&mut self.active, at) != at && self.calm {
            // A takeover that was begun in the storm.
            self.hand_over();
        }
    }

    /// A device obeys another server although this one was meant to lead: the operator did not know of that one's fence.
    pub(super) fn outdone(&mut self, at: usize) {
        if at == self.active {
            self.later(SECOND, Act::Raise { server: at });
        }
    }
}
