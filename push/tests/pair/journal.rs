//! The journals of devices that have one: in memory, gone as far as they were not synced, and now and then full.

use push::receiver::{Found, Journal, RECORD_MAX};

use crate::world::World;

/// A disk that takes no write.
#[derive(Debug)]
pub(crate) struct Full;

#[derive(Debug, Default)]
pub(crate) struct Tape {
    records: Vec<Vec<u8>>,
    synced: usize,
    /// Writes that will fail, after so many good ones.
    bad: u64,
    good: u64,
}

impl Tape {
    /// The power goes. Of what was not synced the first `kept` records are there nevertheless.
    fn cut(&mut self, kept: usize) {
        self.records.truncate(self.synced + kept);
        self.synced = self.records.len();
    }

    fn write(&mut self) -> Result<(), Full> {
        let bad = self.bad > 0 && self.good == 0;
        self.bad -= u64::from(bad);
        self.good = self.good.saturating_sub(1);
        if bad { Err(Full) } else { Ok(()) }
    }
}

impl Journal for Tape {
    type Error = Full;

    fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, Full> {
        self.records.iter().for_each(|record| tell(record));
        Ok(if self.records.is_empty() { Found::New } else { Found::Whole })
    }

    fn append(&mut self, record: &[u8]) -> Result<(), Full> {
        self.write()?;
        self.records.push(record.to_vec());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Full> {
        self.write()?;
        self.synced = self.records.len();
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        self.records.len() > 40
    }

    fn replace(
        &mut self,
        records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
    ) -> Result<(), Full> {
        let (mut all, mut record) = (Vec::new(), [0; RECORD_MAX]);
        while let Some(len) = records(&mut record) {
            all.push(record[..len].to_vec());
        }
        self.write()?;
        (self.synced, self.records) = (all.len(), all);
        Ok(())
    }
}

impl World {
    /// Writes what a device's journal has to know. True if there was anything.
    pub(crate) fn record(&mut self, device: usize) -> bool {
        let now = self.now;
        let it = &mut self.devices[device];
        let (Some(receiver), Some(tape)) = (&mut it.receiver, &mut it.tape) else { return false };
        let written = receiver.record(now, tape);
        self.totals.journals_failed += u64::from(written.is_err());
        written.unwrap_or(false)
    }

    /// What a device finds of its journal when it boots.
    pub(crate) fn remember(&mut self, device: usize) {
        let now = self.now;
        let it = &mut self.devices[device];
        if let (Some(receiver), Some(tape)) = (&mut it.receiver, &mut it.tape) {
            let found = receiver.replay(now, tape).expect("it reads");
            self.totals.remembered += u64::from(found == Found::Whole);
        }
    }

    /// Its power goes.
    pub(crate) fn lose_unsynced(&mut self, device: usize) {
        let unsynced = self.devices[device].tape.as_ref().map(|tape| tape.records.len() - tape.synced);
        if let Some(unsynced) = unsynced {
            let kept = self.rng.below(unsynced as u64 + 1) as usize;
            self.totals.torn += u64::from(kept < unsynced);
            self.devices[device].tape.as_mut().expect("it has one").cut(kept);
        }
    }

    /// The next writes of its journal fail; perhaps it does not live to see that.
    pub(crate) fn spoil(&mut self, device: usize) {
        let (good, bad, dies) = (1 + self.rng.below(3), 1 + self.rng.below(4), self.chance(70));
        if let Some(tape) = &mut self.devices[device].tape {
            (tape.good, tape.bad) = (good, bad);
            self.note(format_args!("the journal of device {device} fails {bad} times"));
            self.devices[device].dies = dies;
        }
    }
}
