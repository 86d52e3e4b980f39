//! A durable log that turns out to be restored from a backup, or copied: a device has seen what it never gave. It is given
//! up, and another one begins.
//!
//! ```text
//!  WELCOME is ahead ──▶ Forked: nothing of the log is sent ──abandon_durable──▶ every order comes back ──renew──▶ sessions anew
//! ```

use wire_format::frame::{Welcome, bye};
use wire_format::time::Instant;

use super::Fleet;
use super::device::{Farewell, Partial, State, flag};
use super::devices::DeviceStorage;
use super::order::{MarkBytes, OrderStorage};
use super::track::Tracks;
use crate::config::LogId;
use crate::ended::Ended;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Whether the device has seen what the durable log never gave.
    pub(super) fn is_ahead(&self, welcome: &Welcome<'_>) -> bool {
        let Some(log) = &self.config.durable else { return false };
        let head = self.heads.durable;
        let floors = &welcome.durable;
        let strange = floors.lanes.iter().any(|lane| !log.runs.knows(lane.run, lane.floor, head));
        let started = welcome.started.iter().any(|begun| begun.durable && begun.number > head);
        floors.lineage == log.lineage && (strange || started)
    }

    /// A session is refused; if that is because of the durable log, nothing of it leaves any more.
    pub(super) fn note_fork(&mut self, index: u32, welcome: &Welcome<'_>, why: Ended) {
        if why != Ended::FloorAhead || !self.is_ahead(welcome) {
            return;
        }
        self.forked = true;
        self.stats.forked = self.stats.forked.wrapping_add(1);
        self.devices.at_mut(index).set(flag::FORKED, true);
        self.tell.push_back(&mut self.devices, index);
    }

    /// Gives the durable log up: nothing of it is sent any more, and every order of it comes back, without a word to the
    /// log. What ended and was not logged keeps its outcome; what did not end is IN_DOUBT, since another history may have
    /// done it. A session in which an order of it was cut ends. Until [`Fleet::renew`] no order of it is taken.
    pub fn abandon_durable(&mut self, now: Instant) {
        self.observe(now);
        self.forked = true;
        self.abandoned = true;
        for index in 0..self.fresh {
            if let Partial::Order { slot, .. } | Partial::Piece { slot, .. } = self.devices.at(index).partial
                && self.orders.at(slot).track.is_durable()
            {
                self.end(now, index, Ended::Renewed);
            }
        }
        for track in Tracks::of(true) {
            let mut slot = self.orders.first_of(track);
            while slot != super::list::NONE {
                if self.orders.at(slot).open != 0 {
                    self.sweep_again(slot);
                }
                slot = self.orders.behind(slot);
            }
        }
    }

    /// Begins another durable log, whose highest number so far is `head`; sessions end with BYE and greet with the new one.
    /// False, and nothing changed, while orders of the old one live (see [`Fleet::abandon_durable`]), or if there was none.
    ///
    /// Nothing that was told of the old log is confirmed after this.
    pub fn renew(&mut self, now: Instant, log: LogId, head: u64) -> bool {
        self.observe(now);
        if self.config.durable.is_none() || self.orders.has_durable() {
            return false;
        }
        self.config.durable = Some(log);
        self.heads.durable = head;
        self.last.durable = head;
        (self.forked, self.abandoned) = (false, false);
        for index in 0..self.fresh {
            self.devices.clear_log(index, true);
            let device = self.devices.at_mut(index);
            device.busy &= !Tracks::DURABLE;
            device.owing &= !Tracks::DURABLE;
            (device.skewed, device.waiting, device.unsaid, device.untraced) = (0, 0, 0, 0);
            device.set(flag::TRACE | flag::TRACED | flag::FORKED | flag::JOURNAL_LOST, false);
            let refused = device.state == State::Idle && device.why == Ended::FloorAhead;
            self.greet_anew(now, index);
            if refused {
                self.hasten_dial(now, index);
            }
        }
        true
    }

    /// What was said in its HELLO is not so any more: its session ends, and another one begins at once.
    pub(super) fn greet_anew(&mut self, now: Instant, index: u32) {
        let device = self.devices.at(index);
        let said = device.due & super::due::HELLO == 0 || device.partial != Partial::None;
        match device.state {
            State::Open => self.part(now, index, Ended::Renewed, Farewell::Bye(bye::Code::RESTARTING)),
            State::Greeting if said => self.end(now, index, Ended::Renewed),
            _ => {}
        }
    }
}
