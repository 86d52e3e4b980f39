//! Everything the journal has to know, one record after the other, worked out from state.

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use super::super::floors::{Kept, Log};
use super::super::journal::RECORD_MAX;
use super::super::keys::OrderKeys;
use super::super::lanes::LaneState;
use super::super::record::Record;
use super::super::ring::{Place, pack};
use super::super::{Receiver, Storage};
use super::{FENCE, SNAPSHOT};

/// How far [`Receiver::poll_snapshot`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    part: Part,
    at: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    Fence,
    Lineages,
    Keys,
    Versions,
    Lanes,
    Ended,
    Started,
    Over,
}

impl Part {
    const fn next(self) -> Self {
        match self {
            Self::Head => Self::Fence,
            Self::Fence => Self::Lineages,
            Self::Lineages => Self::Keys,
            Self::Keys => Self::Versions,
            Self::Versions => Self::Lanes,
            Self::Lanes => Self::Ended,
            Self::Ended => Self::Started,
            Self::Started | Self::Over => Self::Over,
        }
    }
}

/// What a part of a snapshot has at one place.
enum Found {
    Record(Record),
    /// Nothing here, perhaps behind it.
    Nothing,
    /// Nothing more.
    End,
}

impl From<Option<Option<Record>>> for Found {
    fn from(found: Option<Option<Record>>) -> Self {
        match found {
            Some(Some(record)) => Self::Record(record),
            Some(None) => Self::Nothing,
            None => Self::End,
        }
    }
}

impl Cursor {
    /// At the first record.
    pub const START: Self = Self { part: Part::Head, at: 0 };

    const fn skip(&mut self) {
        (self.part, self.at) = (self.part.next(), 0);
    }
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// The next record of everything there is to know; its length. `None` behind the last: then it was told.
    pub fn poll_snapshot(&mut self, cursor: &mut Cursor, into: &mut [u8; RECORD_MAX]) -> Option<usize> {
        while cursor.part != Part::Over {
            match self.snapshot_at(cursor) {
                Found::Record(record) => return record.emit(into).ok(),
                Found::Nothing => {}
                Found::End => cursor.skip(),
            }
        }
        self.ring.tell_all();
        self.floors.tell_all();
        self.keys.tell_all();
        self.keep.flags &= !(FENCE | SNAPSHOT);
        None
    }

    /// What stands at the cursor, which moves behind it.
    fn snapshot_at(&self, cursor: &mut Cursor) -> Found {
        let at = cursor.at;
        cursor.at = at.saturating_add(1);
        let once = |record: Option<Record>| (at == 0).then_some(record);
        let small = u8::try_from(at).unwrap_or(u8::MAX);
        match cursor.part {
            Part::Head => once(Some(Record::Head { device: self.config.id })).into(),
            Part::Fence => once(self.known().map(Record::Fence)).into(),
            Part::Lineages => self.floors.by_use(small).map(|log| self.lineage_in_turn(log)).into(),
            Part::Keys => {
                self.keys.key_record(at, |log_lane, number| self.code_at_work(log_lane, number)).into()
            }
            Part::Versions => {
                self.keys.version_record(at, |log_lane, number| self.may_run_again(log_lane, number)).into()
            }
            Part::Lanes => self.lane_at(small).into(),
            Part::Ended => {
                let ended = self.ring.ended_from(at);
                cursor.at = ended.map_or(at, |(at, _)| at.saturating_add(1));
                let record = ended.map(|(_, slot)| {
                    let (place, ending) = (slot.place(), slot.ending());
                    let settled = self.settled(place.log, place.lane);
                    Some(Record::End { place, settled, ending, keys: OrderKeys::NONE })
                });
                record.into()
            }
            Part::Started => self.started_at(small).into(),
            Part::Over => Found::End,
        }
    }

    /// In a snapshot each is the one used last when it is told.
    fn lineage_in_turn(&self, log: Log) -> Option<Record> {
        self.floors.kept(log).map(|kept| Record::Lineage(Kept { newest: true, ..kept }))
    }

    fn lane_at(&self, at: u8) -> Option<Option<Record>> {
        let (log, lane) = (Log(at >> 2), Lane::new(at & 0x03)?);
        if log == Log::GONE {
            return None;
        }
        let floor = self.floors.lane_floor(log, lane).floor;
        Some((floor > 0).then(|| self.lane_record(log, lane)))
    }

    /// What began in a lane and must not run again.
    fn started_at(&self, at: u8) -> Option<Option<Record>> {
        let lane = Lane::new(at)?;
        let state = self.lane(lane);
        let place = Place { log: state.log(), lane, number: state.number() };
        let counts = state.is_busy() && !state.is_fetching() && !state.is_idempotent() && !state.is_orphan();
        let settled = self.settled(place.log, lane);
        Some(counts.then(|| Record::Start { place, settled, keys: self.keys.of(place) }))
    }

    /// What a snapshot says of an order key whose order is at work: it is in doubt if nobody will tell of its end. Of any
    /// other its START tells, and one that may run again has left nothing.
    fn code_at_work(&self, log_lane: u8, number: u32) -> Option<Code> {
        let state = self.at_work(log_lane, number)?;
        (state.is_orphan() && !state.is_idempotent()).then_some(Code::IN_DOUBT)
    }

    fn may_run_again(&self, log_lane: u8, number: u32) -> bool {
        self.at_work(log_lane, number).is_some_and(|state| state.is_idempotent())
    }

    fn at_work(&self, log_lane: u8, number: u32) -> Option<&LaneState> {
        let lane = Lane::new(log_lane & 0x03)?;
        let state = self.lane(lane);
        let is_it = state.is_busy() && pack(state.log(), lane) == log_lane;
        (is_it && state.number() & u64::from(u32::MAX) == u64::from(number)).then_some(state)
    }
}
