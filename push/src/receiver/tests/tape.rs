//! A journal in memory that forgets what was not synced, fails when it is told to, and counts; and devices that boot with
//! it.

use super::super::journal::{Found, RECORD_MAX};
use super::super::record::Record;
use super::*;

/// What a write failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Full;

#[derive(Clone, Debug, Default)]
pub(in super::super) struct Tape {
    pub(in super::super) records: Vec<Vec<u8>>,
    /// Of these, what survives a power cut.
    pub(in super::super) synced: usize,
    pub(in super::super) appends: usize,
    pub(in super::super) syncs: usize,
    pub(in super::super) snapshots: usize,
    /// Writes that succeed before all fail.
    pub(in super::super) good: Option<usize>,
    /// The next write is to be a snapshot.
    pub(in super::super) grown: bool,
    /// What replaying says beside the records.
    pub(in super::super) damaged: bool,
}

impl Tape {
    fn write(&mut self) -> Result<(), Full> {
        let Some(good) = &mut self.good else { return Ok(()) };
        *good = good.checked_sub(1).ok_or(Full)?;
        Ok(())
    }

    /// A power cut that leaves the first `unsynced` of the records behind the last sync.
    pub(in super::super) fn cut(&mut self, unsynced: usize) {
        self.records.truncate(self.synced + unsynced);
        self.synced = self.records.len();
    }

    /// What it holds, read.
    pub(in super::super) fn read(&self) -> Vec<Record> {
        self.records.iter().map(|record| Record::parse(record).unwrap()).collect()
    }

    /// The same, of what was written since the last look.
    pub(in super::super) fn news(&self, seen: &mut usize) -> Vec<Record> {
        let news = self.read().split_off(*seen);
        *seen += news.len();
        news
    }
}

impl Journal for Tape {
    type Error = Full;

    fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, Full> {
        self.records.iter().for_each(|record| tell(record));
        Ok(match self.records.len() {
            _ if self.damaged => Found::Damaged,
            0 => Found::New,
            _ => Found::Whole,
        })
    }

    fn append(&mut self, record: &[u8]) -> Result<(), Full> {
        self.write()?;
        assert!((1..=RECORD_MAX).contains(&record.len()));
        self.appends += 1;
        self.records.push(record.to_vec());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Full> {
        self.write()?;
        self.syncs += 1;
        self.synced = self.records.len();
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        self.grown
    }

    fn replace(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), Full> {
        let mut all = Vec::new();
        let mut record = [0xA5; RECORD_MAX];
        while let Some(len) = records(&mut record) {
            all.push(record[..len].to_vec());
        }
        self.write()?;
        (self.synced, self.grown, self.damaged) = (all.len(), false, false);
        self.records = all;
        self.snapshots += 1;
        Ok(())
    }
}

impl World {
    /// A device with an empty journal.
    pub(in super::super) fn journalled(window: u16) -> Self {
        Self::booted(ReceiverConfig { window_orders: window, ..config() }, Tape::default())
    }

    /// A device that finds this journal.
    pub(in super::super) fn booted(config: ReceiverConfig, tape: Tape) -> Self {
        let mut world = Self::with(config);
        let tape = world.tape.insert(tape);
        world.receiver.replay(world.now, tape).unwrap();
        world.drain();
        world
    }

    /// Power goes, but for the first `unsynced` records of those behind the last sync; the device is back in another boot.
    pub(in super::super) fn reboot(self, unsynced: usize) -> Self {
        let mut tape = self.tape.unwrap();
        tape.cut(unsynced);
        let before = self.receiver.config();
        let mut config = ReceiverConfig { known: None, ..before.clone() };
        config.boot = before.boot + 1;
        let now = self.now + Duration::from_secs(30);
        let mut world = Self::with(config);
        world.now = now;
        world.receiver.handle_timeout(now);
        world.receiver.replay(now, world.tape.insert(tape)).unwrap();
        world.drain();
        world
    }

    /// Writes what the journal has to know. True if there was anything.
    pub(in super::super) fn keep(&mut self) -> bool {
        let Some(tape) = &mut self.tape else { return false };
        self.receiver.record(self.now, tape).unwrap_or(false)
    }

    pub(in super::super) fn tape(&mut self) -> &mut Tape {
        self.tape.as_mut().unwrap()
    }

    /// A session with server A after a boot or a cut: its WELCOME, and what was said behind it.
    pub(in super::super) fn meet(&mut self) -> (ConnId, Vec<Said>) {
        let conn = self.connect();
        self.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
        let said = self.said(conn);
        (conn, said)
    }
}
