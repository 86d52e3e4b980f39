//! How orders end, and what goes with a session or a lineage.

use wire_format::error::ParseError;
use wire_format::frame::outcome::Code;
use wire_format::frame::{Cancel, Raw, Settled};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::floors::Log;
use super::input::NO_SUCH_LOG;
use super::orders::clock_ms;
use super::ring::{Note, Place};
use super::stats::{add, count};
use super::{Receiver, Storage};

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// The order of a lane has ended: the lane is free.
    pub(super) fn leave_lane(
        &mut self,
        now: Instant,
        lane: Lane,
        code: Code,
        detail: u8,
        retry: Option<u32>,
    ) {
        let state = *self.lane(lane);
        let place = Place { log: state.log(), lane, number: state.number() };
        if state.is_keyed() {
            let alone = if state.is_orphan() { self.note() } else { Note::NONE };
            self.keys.end(place, code, alone);
        }
        if state.is_fetching() {
            self.unpark(place);
        }
        self.lane_mut(lane).free();
        if state.is_orphan() {
            self.note_keys();
        } else {
            self.end(now, place, code, detail, retry);
        }
    }

    pub(super) fn unpark(&mut self, place: Place) {
        self.forget_blob(place);
        self.park.take_where(|meta| meta.place == place);
    }

    /// An order has its end: the outcome is owed, and the floor of its lane rises over all that ended with it.
    pub(super) fn end(&mut self, now: Instant, place: Place, code: Code, detail: u8, retry: Option<u32>) {
        if !self.ring.end(place, clock_ms(now), code, detail, retry) {
            return;
        }
        let lane = self.lane_mut(place.lane);
        lane.open = lane.open.saturating_sub(1);
        let alone = lane.open == 0 && !lane.has_held();
        if alone {
            let note = self.note();
            self.ring.release_one(place, note);
            self.floors.raise(place.log, place.lane, place.number);
            self.note_ends();
        } else {
            self.lane_mut(place.lane).set_held(true);
            self.release(place.log, place.lane);
        }
    }

    /// What ended behind an order that is gone now may be said.
    fn release(&mut self, log: Log, lane: Lane) {
        let note = self.note();
        if let Some(last) = self.ring.release(log, lane, note) {
            self.floors.raise(log, lane, last);
            self.note_ends();
        }
        let state = self.lane_mut(lane);
        if state.open == 0 {
            state.set_held(false);
        }
    }

    /// CANCEL: what has not started ends; what has, ends as it ends.
    pub(super) fn cancel(&mut self, now: Instant, raw: &Raw<'_>) -> Result<(), ParseError> {
        let cancel = Cancel::parse(raw)?;
        let log = self.session.logs.of(cancel.durable).ok_or(NO_SUCH_LOG)?;
        for number in cancel.numbers.iter() {
            let Some(slot) = self.ring.by_number(log, number) else { continue };
            if !slot.is_open() || slot.is_started() {
                continue;
            }
            let place = Place { log, lane: slot.lane(), number };
            count(&mut self.stats.cancelled);
            if self.lane(place.lane).is_with(log, number) {
                self.take_back(place.lane);
            }
            self.unpark(place);
            self.end(now, place, Code::CANCELLED, 0, None);
        }
        Ok(())
    }

    /// SETTLED: what it covers is forgotten, and what has not ended by then is not waited for any more.
    pub(super) fn settle(&mut self, raw: &Raw<'_>) -> Result<(), ParseError> {
        let settled = Settled::parse(raw)?;
        let Settled { lane, number, .. } = settled;
        let log = self.session.logs.of(settled.durable).ok_or(NO_SUCH_LOG)?;
        let freed = self.ring.settle(log, lane, number);
        add(&mut self.stats.settled, freed.ended.into());
        if freed.open > 0 {
            self.park.take_where(|meta| {
                meta.place.log == log && meta.place.lane == lane && meta.place.number <= number
            });
            let state = self.lane_mut(lane);
            state.open = state.open.saturating_sub(freed.open);
            if state.is_busy() && state.log() == log && state.number() <= number {
                if state.is_at_work() {
                    state.disown();
                } else {
                    let place = Place { log, lane, number: state.number() };
                    self.take_back(lane);
                    self.forget_blob(place);
                }
            }
            self.release(log, lane);
        }
        self.floors.raise(log, lane, number);
        if self.is_journalled() {
            self.floors.set_settled(log, lane, true);
        }
        Ok(())
    }

    /// An order that took its lane and has not begun gives it back.
    fn take_back(&mut self, lane: Lane) {
        let state = *self.lane(lane);
        if state.is_beginning() && state.is_keyed() {
            let place = Place { log: state.log(), lane, number: state.number() };
            self.keys.end(place, Code::CANCELLED, Note::NONE);
        }
        self.lane_mut(lane).free();
    }

    /// The session is over: what has not started goes, because the next one brings it again. What is at work stays, and
    /// its outcome is owed in the next session of its lineage.
    pub(super) fn drop_waiting(&mut self, now: Instant) {
        self.park.clear();
        if let Some(blob) = self.blob_mut() {
            blob.pause();
        }
        self.ring.drop_block();
        self.ring.rewind();
        for lane in Lane::ALL {
            if self.lane(lane).is_beginning() {
                self.take_back(lane);
            }
            self.lane_mut(lane).end_session();
        }
        self.catch_up(now);
    }

    /// The lineage behind a log is gone.
    pub(super) fn disown(&mut self, log: Log) {
        self.keys.forget(log);
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_busy() && lane.log() == log) {
            lane.lose_log();
        }
    }
}
