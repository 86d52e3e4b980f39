//! How far each lane of each lineage has come on this device.
//!
//! A floor is the number of the last order of its lane that *ended* here. What comes with that number or a lower one is
//! a duplicate and never handed over again. One volatile lineage is kept, because its server draws a new one at each
//! start and nobody can ask about the old one; of durable lineages two are kept, for the store's server and its
//! predecessor, the one not used for longest making room.

use wire_format::frame::hello::{Hello, LogHead};
use wire_format::frame::welcome::{LaneFloor, LogFloors};
use wire_format::ids::{Lane, Lineage};

/// Durable lineages kept.
const DURABLE_KEPT: usize = 2;

/// Which of the kept lineages: 0 the volatile one, then the durable ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log(pub(super) u8);

impl Log {
    const VOLATILE: Self = Self(0);

    /// Whether it is a durable one.
    pub(super) const fn is_durable(self) -> bool {
        self.0 != 0
    }
}

/// The two logs of a session: where the device keeps them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Logs {
    pub(super) volatile: Option<Log>,
    pub(super) durable: Option<Log>,
}

impl Logs {
    /// The log an ORDER or SETTLED means; `None` if the server has said it has none such.
    pub(super) const fn of(&self, durable: bool) -> Option<Log> {
        if durable { self.durable } else { self.volatile }
    }

    /// Both.
    pub(super) const fn both(&self) -> [Option<Log>; 2] {
        [self.volatile, self.durable]
    }

    /// Whether the session is about this log.
    pub(super) fn has(&self, log: Log) -> bool {
        self.volatile == Some(log) || self.durable == Some(log)
    }
}

/// Lineages kept.
const KEPT: usize = 1 + DURABLE_KEPT;

/// The floors of all lineages kept: 280 bytes.
#[derive(Debug)]
pub(super) struct Floors {
    volatile: LogFloors,
    durable: [LogFloors; DURABLE_KEPT],
    /// The run each log was in when it was named last.
    runs: [u64; KEPT],
    /// Which lineage each log is of, counted: tells a key's lineage from another one.
    generations: [u16; KEPT],
    /// Lineages seen so far.
    opened: u16,
    /// Index in `durable` of the one used last.
    newest: u8,
}

impl Floors {
    pub(super) fn new() -> Self {
        Self {
            volatile: LogFloors::default(),
            durable: [LogFloors::default(); DURABLE_KEPT],
            runs: [0; KEPT],
            generations: [0; KEPT],
            opened: 0,
            newest: 0,
        }
    }

    /// Finds or makes the floors of the lineages an accepted HELLO names. `forget` is told each log whose lineage had to
    /// go: nobody waits for its outcomes any more.
    pub(super) fn open(&mut self, hello: &Hello, mut forget: impl FnMut(Log)) -> Logs {
        let (volatile, durable) = (&hello.volatile, &hello.durable);
        let logs = Logs {
            volatile: (!volatile.lineage.is_none()).then(|| self.open_volatile(volatile, &mut forget)),
            durable: (!durable.lineage.is_none()).then(|| self.open_durable(durable, &mut forget)),
        };
        for (log, run) in [(logs.volatile, volatile.run), (logs.durable, durable.run)] {
            if let Some(kept) = log.and_then(|log| self.runs.get_mut(usize::from(log.0))) {
                *kept = run;
            }
        }
        logs
    }

    /// The lineage behind a log is a new one.
    fn begin(&mut self, log: Log) {
        self.opened = self.opened.wrapping_add(1);
        if let Some(generation) = self.generations.get_mut(usize::from(log.0)) {
            *generation = self.opened;
        }
    }

    /// Tells the lineage behind a log from every other one, for 65,535 lineages.
    pub(super) fn generation(&self, log: Log) -> u16 {
        self.generations.get(usize::from(log.0)).copied().unwrap_or(0)
    }

    fn open_volatile(&mut self, head: &LogHead, forget: &mut impl FnMut(Log)) -> Log {
        if self.volatile.lineage != head.lineage {
            if !self.volatile.lineage.is_none() {
                forget(Log::VOLATILE);
            }
            self.volatile = LogFloors { lineage: head.lineage, ..LogFloors::default() };
            self.begin(Log::VOLATILE);
        }
        Log::VOLATILE
    }

    fn open_durable(&mut self, head: &LogHead, forget: &mut impl FnMut(Log)) -> Log {
        let known = self.durable.iter().position(|kept| kept.lineage == head.lineage);
        let free = || self.durable.iter().position(|kept| kept.lineage.is_none());
        let oldest = usize::from(self.newest == 0);
        let at = known.or_else(free).unwrap_or(oldest);
        let number = u8::try_from(at).unwrap_or(0);
        let log = Log(number.saturating_add(1));
        if let (None, Some(kept)) = (known, self.durable.get_mut(at)) {
            if !kept.lineage.is_none() {
                forget(log);
            }
            *kept = LogFloors { lineage: head.lineage, ..LogFloors::default() };
            self.begin(log);
        }
        self.newest = number;
        log
    }

    /// The floors of one log, as WELCOME states them; all zero for `None`.
    pub(super) fn of(&self, log: Option<Log>) -> LogFloors {
        log.and_then(|log| self.kept(log)).copied().unwrap_or_default()
    }

    /// Which lineage a log is of.
    pub(super) fn lineage(&self, log: Log) -> Lineage {
        self.kept(log).map_or(Lineage::NONE, |kept| kept.lineage)
    }

    /// The last order of the lane that ended.
    pub(super) fn floor(&self, log: Log, lane: Lane) -> u64 {
        self.kept(log).and_then(|kept| kept.lanes.get(lane.index())).map_or(0, |lane| lane.floor)
    }

    fn kept(&self, log: Log) -> Option<&LogFloors> {
        match usize::from(log.0).checked_sub(1) {
            None => Some(&self.volatile),
            Some(at) => self.durable.get(at),
        }
    }

    /// An order of the lane has ended. Floors never fall.
    pub(super) fn raise(&mut self, log: Log, lane: Lane, number: u64) {
        let run = self.runs.get(usize::from(log.0)).copied().unwrap_or(0);
        let kept = match usize::from(log.0).checked_sub(1) {
            None => Some(&mut self.volatile),
            Some(at) => self.durable.get_mut(at),
        };
        if let Some(floor) = kept.and_then(|kept| kept.lanes.get_mut(lane.index()))
            && number > floor.floor
        {
            *floor = LaneFloor { floor: number, run };
        }
    }
}

const _: () = assert!(size_of::<Floors>() <= 288);

#[cfg(test)]
mod tests {
    use wire_format::ids::{NodeId, Store};

    use super::*;

    fn hello(volatile: u8, durable: u8) -> Hello {
        let head = |lineage: u8, run| match lineage {
            0 => LogHead::default(),
            _ => LogHead { lineage: Lineage([lineage; 16]), run, head: 9 },
        };
        Hello {
            version_min: 1,
            version_max: 1,
            staging: false,
            takeover: false,
            store: Store::new(1, "A").unwrap(),
            max_body: 512,
            target: NodeId::NONE,
            server: NodeId([7; 16]),
            fence: 1,
            epoch: 1,
            ping_interval_ms: 3_000,
            features: 0,
            durable: head(durable, 71),
            volatile: head(volatile, 70),
        }
    }

    #[test]
    fn a_new_volatile_lineage_starts_at_zero_and_the_old_one_is_gone() {
        let mut floors = Floors::new();
        let mut gone = Vec::new();
        let logs = floors.open(&hello(1, 0), |log| gone.push(log));
        let log = logs.of(false).unwrap();
        assert_eq!((logs.of(true), gone.len()), (None, 0));
        floors.raise(log, Lane::Normal, 5);
        floors.raise(log, Lane::Normal, 4);
        assert_eq!(floors.of(Some(log)).lanes[2], LaneFloor { floor: 5, run: 70 });
        assert_eq!((floors.floor(log, Lane::Normal), floors.floor(log, Lane::Urgent)), (5, 0));
        // The same lineage again: nothing is lost.
        floors.open(&hello(1, 0), |log| gone.push(log));
        assert_eq!((floors.floor(log, Lane::Normal), gone.len()), (5, 0));
        floors.open(&hello(2, 0), |log| gone.push(log));
        assert_eq!((floors.floor(log, Lane::Normal), gone), (0, vec![Log::VOLATILE]));
    }

    #[test]
    fn two_durable_lineages_are_kept_and_a_third_takes_the_older_ones_place() {
        let mut floors = Floors::new();
        let mut gone = Vec::new();
        for (lineage, floor) in [(1, 10), (2, 20)] {
            let logs = floors.open(&hello(9, lineage), |log| gone.push(log));
            floors.raise(logs.durable.unwrap(), Lane::Urgent, floor);
        }
        let logs = floors.open(&hello(9, 1), |log| gone.push(log));
        assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (10, 0));
        let logs = floors.open(&hello(9, 3), |log| gone.push(log));
        assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (0, 1));
        let logs = floors.open(&hello(9, 1), |log| gone.push(log));
        assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (10, 1));
        let logs = floors.open(&hello(9, 2), |log| gone.push(log));
        assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (0, 2));
    }
}
