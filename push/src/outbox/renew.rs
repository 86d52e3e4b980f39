//! Another lineage: devices have met orders of this outbox that it does not know. It was restored from a backup, or runs twice.
//!
//! Nothing of the old lineage may be sent any more. Devices, fence, keys and notes go over; orders do not, and what is not known
//! of them is in doubt. The old files are moved aside, to be looked at. Until the new log is on disk as a whole the old
//! one is the log.

use std::collections::BTreeMap;

use wire_format::frame::outcome::Code;
use wire_format::ids::Lineage;

use super::book::Place;
use super::log::{self, CommitError, Disk, Doing};
use super::marks::is_over;
use super::open::random_lineage;
use super::record::{self, Record};
use super::{KEYS_KEPT_MS, Now, Outbox};
use crate::mark::Mark;

type Bodies = (BTreeMap<u64, record::Key>, BTreeMap<u64, Vec<u8>>, BTreeMap<u32, record::Device>);

/// The new log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Its lineage.
    pub lineage: Lineage,
    /// Its first run.
    pub run: u64,
    /// The first number it may give: numbers go on.
    pub first: u64,
}

impl<D: Disk> Outbox<D> {
    /// Begins another log. What waits for a commit is forgotten, and every live order with it; a key of one is kept with what is
    /// known, [`Code::IN_DOUBT`] for the rest. On an error everything is as it was, but for what waited.
    pub fn renew(&mut self, now: Now) -> Result<Renewed, CommitError> {
        self.log.forget();
        (self.keyed, self.carried) = (0, None);
        let read = |source| CommitError { doing: Doing::Read, source };
        let (mut keys, notes, devices) = self.bodies().map_err(read)?;
        let age_ms = self.age_ms(now);
        for (&number, live) in self.book.orders.iter().filter(|(_, live)| live.key != 0) {
            let mut marks = live.marks.clone();
            for device in live.marks.targets().iter() {
                marks.change(device, Mark::ended(Code::IN_DOUBT), |mark| !is_over(mark));
            }
            let until_ms = age_ms.saturating_add(KEYS_KEPT_MS);
            keys.insert(live.key, record::Key { key: live.key, number, until_ms, marks });
        }
        let openings = self.book.runs.iter().map(|(_, run)| run.openings).max().unwrap_or(0);
        let (lineage, run) = (random_lineage(&mut self.rng), self.rng.next_u64().max(1));
        let first = self.book.head.max(self.head).saturating_add(1);
        let mark = record::Mark { head: first - 1, wall_ms: now.wall_ms, age_ms };
        self.log.renew(lineage);
        let mut records = vec![Record::Run(record::Run { run, first, openings }), Record::Mark(mark)];
        records.extend(self.book.fence_at.map(|_| Record::Fence { fence: self.book.fence }));
        records.extend(devices.values().copied().map(Record::Device));
        records.extend(keys.into_values().map(Record::Key));
        records.extend(notes.iter().map(|(&id, bytes)| Record::Note(record::Note { id, bytes })));
        for record in &records {
            if let Err(error) = self.put(record, u64::from(u32::MAX)) {
                let source = std::io::Error::other(error);
                return Err(CommitError { doing: Doing::Write, source });
            }
        }
        let before = core::mem::take(&mut self.book);
        (self.book.head, self.book.age_ms, self.book.is_whole) = (first - 1, age_ms, true);
        self.head = first - 1;
        match self.write_out() {
            Ok(()) => {
                self.run = run;
                let named = before.devices.iter().filter(|(_, known)| known.device_at().is_some());
                let unread = named.map(|(device, _)| device).filter(|device| !devices.contains_key(device));
                self.undescribed.extend(unread);
                Ok(Renewed { lineage, run, first })
            }
            Err(error) => {
                self.book = before;
                self.head = self.head.max(self.book.head);
                Err(error)
            }
        }
    }

    /// Keys, notes and devices that live, as they are on disk.
    fn bodies(&mut self) -> std::io::Result<Bodies> {
        let (mut keys, mut notes, mut devices) = Bodies::default();
        let Self { log, book, .. } = self;
        log.read_each(|bytes, until| {
            log::records(bytes, until, |sequence, kind, body| {
                let place = Place { sequence, len: body.len() };
                match Record::parse(kind, body) {
                    Ok(Record::Key(key))
                        if book.keys.get(&key.key).is_some_and(|kept| kept.place == place) =>
                    {
                        keys.insert(key.key, key);
                    }
                    Ok(Record::Note(note)) if book.notes.get(&note.id) == Some(&place) => {
                        notes.insert(note.id, note.bytes.to_vec());
                    }
                    Ok(Record::Device(device)) if book.devices.lies_at(device.device, place) => {
                        devices.insert(device.device, device);
                    }
                    _ => {}
                }
            });
        })?;
        Ok((keys, notes, devices))
    }
}
