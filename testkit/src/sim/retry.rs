//! Attempts that ended and are made again, as the driver of the server does it (`push/src/driver/server/retry.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use push::fleet::SubmitFault;
use push::{DeviceIndex, Mark};
use wire_format::frame::outcome::Code;

use super::durable::{Job, Waiting};
use super::names::Probe;
use super::orders::probe_of;
use super::plan::MS;
use super::world::{Act, World};
use crate::history::Event;

/// A device that says "try again at once" is taken at its word this long after.
const SOONEST: Duration = Duration::from_millis(100);
/// An attempt that found no place is made this long after, and one that could not be kept.
const NO_PLACE_AGAIN: Duration = Duration::from_millis(200);
const NOT_KEPT_AGAIN: Duration = Duration::from_millis(500);

/// An attempt to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// The first order, and the device's place in the fleet.
    pub(super) root: u64,
    pub(super) index: DeviceIndex,
    /// 1 for the first repetition.
    pub(super) times: u16,
    /// How the last one ended.
    pub(super) code: Code,
}

impl World {
    /// A device ended an attempt: another one is made later, if there is time for it.
    pub(super) fn attempt_ended(
        &mut self,
        at: usize,
        index: DeviceIndex,
        number: u64,
        code: Code,
        retry_after: Duration,
    ) {
        self.probe(probe_of(code));
        let device = self.servers[at].device_of[index.0 as usize];
        self.note_of(
            device,
            format_args!("attempt {number} over on device {device}: {code}, again {retry_after:?}"),
        );
        let Some(wish) = self.servers[at].wishes.get(&number) else { return };
        let (until, repeats) = (wish.until, wish.repeats);
        let (root, times) = repeats.unwrap_or((number, 0));
        if repeats.is_some() && self.resolve(at, number, index, code) {
            // This record is done with the device; the first order goes on.
            self.servers[at].given.insert((number, index.0));
        }
        let wait = retry_after.max(SOONEST) + MS * self.rng.below(200) as u32;
        if until.is_some_and(|until| self.now + wait >= until) || times == u16::MAX {
            self.resolve(at, root, index, code);
            return;
        }
        self.try_later(at, wait, Attempt { root, index, times: times + 1, code });
    }

    /// Makes an attempt when its time comes.
    pub(super) fn try_later(&mut self, at: usize, after: Duration, attempt: Attempt) {
        let server = &mut self.servers[at];
        server.to_try.insert((attempt.root, attempt.index.0));
        let boot = server.boot;
        self.later(after, Act::Retry { server: at, boot, attempt });
    }

    /// Ends an order on a device whose attempt ended. Whether it waited for that.
    pub(super) fn resolve(&mut self, at: usize, number: u64, index: DeviceIndex, code: Code) -> bool {
        let now = self.now;
        self.servers[at].fleet.as_mut().is_some_and(|fleet| fleet.resolve(now, number, index, code))
    }

    /// An attempt has an outcome: it is the outcome of the first order, unless this side only closed the attempt's record
    /// because another one follows.
    pub(super) fn attempt_outcome(
        &mut self,
        at: usize,
        number: u64,
        root: u64,
        index: DeviceIndex,
        code: Code,
    ) {
        if !self.servers[at].given.remove(&(number, index.0)) {
            self.resolve(at, root, index, code);
        }
    }

    /// The time of an attempt has come. One of an order that was taken back is not made.
    pub(super) fn retry(&mut self, at: usize, boot: u64, attempt: Attempt) {
        let Attempt { root, index, times, code } = attempt;
        let server = &mut self.servers[at];
        if server.boot != boot || server.fleet.is_none() || !server.to_try.remove(&(root, index.0)) {
            return;
        }
        let wish = server.wishes.get(&root).cloned();
        let durable = wish.as_ref().is_some_and(|wish| wish.durable);
        if durable && !self.has_room(at) {
            return self.try_later(at, NO_PLACE_AGAIN, attempt);
        }
        let begins = self.retry_begins(at, root, index);
        let wish = wish.filter(|wish| begins && wish.until.is_none_or(|until| self.now < until));
        if let Some(mut wish) = wish {
            wish.repeats = Some((root, times));
            let targets = BTreeSet::from([self.servers[at].device_of[index.0 as usize]]);
            let waiting = Waiting { wish, targets, places: vec![index], cancel_after: None };
            self.try_now(at, waiting, attempt);
        } else {
            self.resolve(at, root, index, code);
        }
        self.serve_server(at);
    }

    fn retry_begins(&mut self, at: usize, root: u64, index: DeviceIndex) -> bool {
        let Some(fleet) = &mut self.servers[at].fleet else { return false };
        let marks = fleet.marks(root).map(|(_, marks)| marks);
        let mark = marks.and_then(|marks| marks.get(index.0 as usize)).map(|mark| Mark(*mark));
        let begins = fleet.retry_begins(root, index) || mark == Some(Mark::RETRYING);
        if begins {
            self.probe(Probe::Retried);
        }
        begins
    }

    fn try_now(&mut self, at: usize, waiting: Waiting, attempt: Attempt) {
        if waiting.wish.durable {
            return self.servers[at].durable.put(Job::Order(waiting));
        }
        match self.submit(at, waiting) {
            Ok(_) => {}
            // Later, if there is room then. Its lifetime may end first.
            Err(SubmitFault::Full) => self.try_later(at, NO_PLACE_AGAIN, attempt),
            Err(_) => {
                self.resolve(at, attempt.root, attempt.index, Code::BUSY);
            }
        }
    }

    /// A further attempt could not be kept: it is made later, under another number.
    pub(super) fn attempt_not_kept(&mut self, at: usize, waiting: &Waiting) {
        let Some((root, times)) = waiting.wish.repeats else { return };
        for index in waiting.places.iter().copied() {
            self.try_later(at, NOT_KEPT_AGAIN, Attempt { root, index, times, code: Code::BUSY });
        }
    }

    /// The application takes an order back: what is durable once that is on disk.
    pub(super) fn cancel(&mut self, at: usize, boot: u64, number: u64) {
        let server = &mut self.servers[at];
        if server.boot != boot || server.fleet.is_none() {
            return;
        }
        if server.wishes.get(&number).is_some_and(|wish| wish.durable) {
            server.durable.put(Job::Cancel { number });
            self.kick_writer(at);
        } else {
            self.cancel_now(at, number);
            self.serve_server(at);
        }
    }

    /// Takes an order back, the attempts under way at it, and those that wait for their time.
    pub(super) fn cancel_now(&mut self, at: usize, number: u64) {
        let now = self.now;
        let repeats = |wish: &super::ledger::Wish| wish.repeats.is_some_and(|(root, _)| root == number);
        let attempts = self.servers[at].wishes.iter().filter(|(_, wish)| repeats(wish)).map(|(it, _)| *it);
        let numbers: Vec<_> = [number].into_iter().chain(attempts).collect();
        for number in numbers {
            let server = &mut self.servers[at];
            if server.fleet.as_mut().is_some_and(|fleet| fleet.cancel(now, number)) {
                server.taken_back.push(number);
                let order = server.order(number);
                self.ledger.record(now, Event::Cancel { order });
            }
        }
        let to_try = &mut self.servers[at].to_try;
        let waiting: Vec<_> = to_try.range((number, 0)..=(number, u32::MAX)).copied().collect();
        for it in waiting {
            self.servers[at].to_try.remove(&it);
            self.tell_events(at);
            self.resolve(at, number, DeviceIndex(it.1), Code::CANCELLED);
        }
    }
}
