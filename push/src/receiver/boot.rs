//! After a boot: what the journal tells becomes state again.
//!
//! What it tells of is exactly what was synced before the boot, and perhaps a few records behind it: a prefix of what
//! was written. An order that ended behind that never ended, and the server sends it again; one that must not run twice
//! and has begun without an end is in doubt.

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::floors::{Kept, Log};
use super::journal::{Found, Journal};
use super::keys::{OrderKeys, VersionSlot};
use super::lanes::{LaneState, Stage, Traits};
use super::record::Record;
use super::ring::{Ending, Note, Place};
use super::{Receiver, Storage};

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// Reads the journal: once, before the first connection. From here on this device keeps its memory over a boot, says
    /// so, and wants [`Receiver::record`] to be called; with [`super::NoJournal`] nothing changes.
    ///
    /// An error says that nothing is known, and the device must not serve.
    pub fn replay<J: Journal + ?Sized>(&mut self, now: Instant, journal: &mut J) -> Result<Found, J::Error> {
        let found = journal.replay(&mut |record| self.restore(record))?;
        if found != Found::NoJournal {
            self.restored(now, found == Found::Damaged);
        }
        Ok(found)
    }

    /// One record of the journal, oldest first. What does not read as a record makes the journal a damaged one.
    pub fn restore(&mut self, record: &[u8]) {
        let taken = Record::parse(record).is_ok_and(|record| self.take_record(&record));
        if !taken {
            self.keep.lose();
        }
    }

    /// That were all; `lost` says that there were more. Then every server is told that this device may have forgotten
    /// something, by the lineage it does not name in WELCOME, and the flag JOURNAL_LOST.
    pub fn restored(&mut self, now: Instant, lost: bool) {
        self.touch(now);
        if lost {
            self.keep.lose();
        }
        for lane in Lane::ALL {
            self.doubt(lane);
        }
        self.keys.end_boot();
        if self.keep.is_lost() {
            self.floors.forget_names();
        }
        self.keep.begin(self.ring.pending().is_some());
    }

    /// What began before the boot and has no end.
    fn doubt(&mut self, lane: Lane) {
        let Some(place) = self.started_in(lane) else { return };
        let ending = Ending { code: Code::IN_DOUBT, detail: 0, ms: 0 };
        if !self.ring.restore(place, ending, Note::RECORD) {
            self.keep.lose();
        }
        self.floors.raise(place.log, lane, place.number);
        self.keys.end(place, Code::IN_DOUBT, Note::NONE);
        *self.lane_mut(lane) = LaneState::FREE;
    }

    /// The order that began in this lane and has no end, as far as the journal has told.
    fn started_in(&self, lane: Lane) -> Option<Place> {
        let state = self.lane(lane);
        let place = Place { log: state.log(), lane, number: state.number() };
        state.is_busy().then_some(place)
    }

    /// `false` if it makes no sense here.
    fn take_record(&mut self, record: &Record) -> bool {
        if let Record::Head { device } = record {
            let is_ours = *device == self.config.id;
            self.keep.set_headed(is_ours);
            return is_ours;
        }
        if !self.keep.is_headed() {
            return false;
        }
        match *record {
            Record::Head { .. } => {}
            Record::Fence(known) => {
                if self.known().is_none_or(|before| before.fence <= known.fence) {
                    self.config.known = Some(known);
                }
            }
            Record::Lineage(kept) => return self.take_lineage(&kept),
            Record::Lane { log, lane, settled, floor } => {
                self.take_settled(log, lane, settled);
                self.floors.raise_to(log, lane, floor);
                return !self.floors.lineage(log).is_none();
            }
            Record::Key { log_lane, code, number, key } => {
                self.keys.restore_key(log_lane, code, number, key);
            }
            Record::Version { log_lane, again, age, number, key, version } => {
                let slot = VersionSlot::restored(key, version, number, log_lane, again);
                self.keys.restore_version(slot, age);
            }
            Record::Start { place, settled, keys } => return self.take_start(place, settled, keys),
            Record::End { place, settled, ending, keys } => {
                return self.take_end(place, settled, ending, keys);
            }
        }
        true
    }

    fn take_lineage(&mut self, kept: &Kept) -> bool {
        let (mut gone, log) = (false, kept.log);
        let is_there = self.floors.restore(kept, &mut |_| gone = true);
        if gone {
            self.ring.forget(log);
            self.keys.forget(log);
            for lane in Lane::ALL {
                if self.lane(lane).log() == log {
                    // Its key stays, in doubt.
                    *self.lane_mut(lane) = LaneState::FREE;
                }
            }
        }
        is_there
    }

    fn take_settled(&mut self, log: Log, lane: Lane, settled: u64) {
        self.ring.settle(log, lane, settled);
        if self.started_in(lane).is_some_and(|place| place.log == log && place.number <= settled) {
            // Nobody waits for its end; its key stays, in doubt.
            *self.lane_mut(lane) = LaneState::FREE;
        }
    }

    /// An order that began in a lane and has no end when the next one of its log is told never began: a session ended
    /// between its START and its hand-over.
    fn never_began(&mut self, place: Place) {
        self.keys.end(place, Code::CANCELLED, Note::NONE);
        *self.lane_mut(place.lane) = LaneState::FREE;
    }

    fn take_start(&mut self, place: Place, settled: u64, keys: OrderKeys) -> bool {
        if self.floors.lineage(place.log).is_none() {
            return false;
        }
        self.take_settled(place.log, place.lane, settled);
        if let Some(before) = self.started_in(place.lane).filter(|before| *before != place) {
            self.never_began(before);
        }
        if self.started_in(place.lane).is_none() {
            self.keys.start(place, keys, |_, _| false);
        }
        // Tickets of an earlier boot are dead.
        let _ = self.lane_mut(place.lane).occupy(place, 0, Stage::AtWork, Traits::default(), 0);
        true
    }

    fn take_end(&mut self, place: Place, settled: u64, ending: Ending, keys: OrderKeys) -> bool {
        if self.floors.lineage(place.log).is_none() {
            return false;
        }
        self.take_settled(place.log, place.lane, settled);
        match self.started_in(place.lane) {
            Some(begun) if begun == place => *self.lane_mut(place.lane) = LaneState::FREE,
            Some(begun) if begun.log == place.log && begun.number < place.number => self.never_began(begun),
            _ => {}
        }
        self.keys.restore_end(place, ending.code, keys);
        self.floors.raise(place.log, place.lane, place.number);
        self.ring.restore(place, ending, Note::NONE)
    }
}
