//! Compaction: what lives in the oldest segment is written again, as it stands now, so that the segment can go.
//!
//! It is done right behind a commit, while nothing else waits for the next one: what is written again then says what all
//! records before it say, and records behind it change it. A whole segment goes at once; it is on disk with the next
//! commit, and the old segment goes with the one after.

use std::collections::BTreeSet;

use super::book::{Live, Place};
use super::log::{self, Disk};
use super::record::{self, Frame, Record, Retry};
use super::{Lost, OVER_CARRIED, Outbox};

impl<D: Disk> Outbox<D> {
    /// Appends what lives in the oldest segment again, if it is time.
    pub(super) fn carry<F: AsRef<[u8]>>(&mut self, frames: &mut impl FnMut(u64) -> Option<F>) {
        let Some(oldest) = self.log.oldest() else { return };
        if self.carried == Some(oldest.number) && oldest.live > 0 {
            self.mend(oldest.first..oldest.end, frames);
        }
        if !self.log.wants_carrying() || self.carried == Some(oldest.number) {
            return;
        }
        let mut bytes = Vec::new();
        // What cannot be read now is tried again with the next commit.
        let Ok(Some(oldest)) = self.log.read_oldest(&mut bytes) else { return };
        let within = oldest.first..oldest.end;
        let mut went = self.carry_state(within.clone());
        let mut unmet: BTreeSet<u32> = self.book.devices.within(within).collect();
        log::records(&bytes, oldest.end, |sequence, kind, body| {
            if went && let Ok(record) = Record::parse(kind, body) {
                let place = Place { sequence, len: body.len() };
                if let Record::Device(device) = &record
                    && self.book.devices.lies_at(device.device, place)
                {
                    unmet.remove(&device.device);
                }
                went = self.carry_record(place, record);
            }
        });
        if went {
            self.carried = Some(oldest.number);
            // Asked for now: who appends them again does it before the segment goes.
            self.stats.mended += unmet.len() as u64;
            self.undescribed.extend(unmet);
        }
    }

    /// Appends a record again if it lives; false if there was no room.
    fn carry_record(&mut self, place: Place, record: Record<'_>) -> bool {
        let lives = |live: Option<&Live>| live.is_some_and(|live| live.place == place);
        let again = match record {
            Record::Device(device) => return self.carry_device(place, device),
            Record::Order(order) => {
                let Some(live) = self.book.orders.get(&order.frame.number()).filter(|live| lives(Some(live)))
                else {
                    return true;
                };
                // Its KEY is about to be written: the record goes then.
                if live.open == 0 {
                    return true;
                }
                let Live { cancelled, attempts, ref marks, .. } = *live;
                Record::Order(record::Order { cancelled, attempts, marks: marks.clone(), ..order })
            }
            Record::Retry(retry) => {
                let Some(live) = self.book.orders.get(&retry.number).filter(|live| lives(Some(live))) else {
                    return true;
                };
                Record::Retry(Retry {
                    carried: true,
                    cancelled: live.cancelled,
                    marks: live.marks.clone(),
                    ..retry
                })
            }
            Record::Key(key) if self.book.keys.get(&key.key).is_some_and(|kept| kept.place == place) => {
                Record::Key(key)
            }
            Record::Note(note) if self.book.notes.get(&note.id) == Some(&place) => Record::Note(note),
            _ => return true,
        };
        self.stats.carried += 1;
        self.put(&again, OVER_CARRIED).is_ok()
    }

    /// Appends a device again if this is its record. How far it got counts outcomes since the record: it says that as well.
    fn carry_device(&mut self, place: Place, device: record::Device) -> bool {
        let Some(known) =
            self.book.devices.get(device.device).filter(|known| known.device_at() == Some(place))
        else {
            return true;
        };
        let session = known.session_at().is_none().then(|| Record::Session(known.session(device.device)));
        let again = [Some(Record::Device(device)), session];
        again.into_iter().flatten().all(|record| {
            self.stats.carried += 1;
            self.put(&record, OVER_CARRIED).is_ok()
        })
    }

    /// Appends again what is known without the disk; false if there was no room.
    fn carry_state(&mut self, within: core::ops::Range<u64>) -> bool {
        let mut again = Vec::new();
        let is_in = |place: Option<Place>| place.is_some_and(|place| within.contains(&place.sequence));
        for (number, known) in self.book.devices.iter() {
            if is_in(known.session_at()) {
                again.push(Record::Session(known.session(number)));
            }
        }
        let runs = self.book.runs.iter().filter(|(place, _)| is_in(Some(*place)));
        again.extend(runs.map(|(_, run)| Record::Run(*run)));
        if is_in(self.book.fence_at) {
            again.push(Record::Fence { fence: self.book.fence });
        }
        if let Some((_, mark)) = self.book.mark.filter(|(place, _)| is_in(Some(*place))) {
            again.push(Record::Mark(record::Mark { head: self.head, ..mark }));
        }
        self.stats.carried += again.len() as u64;
        again.iter().all(|record| self.put(record, OVER_CARRIED).is_ok())
    }

    /// Everything that lives in the oldest segment was written again, and something still lives there: its record cannot be
    /// read any more. What nobody else has is given up: kept as it is the log could never be shortened again.
    fn mend<F: AsRef<[u8]>>(
        &mut self,
        within: core::ops::Range<u64>,
        frames: &mut impl FnMut(u64) -> Option<F>,
    ) {
        let is_in = |place: &Place| within.contains(&place.sequence);
        if self.book.orders.values().any(|live| live.open == 0 && is_in(&live.place)) {
            // Its KEY was not written yet.
            return;
        }
        let orders = self.book.orders.iter().filter(|(_, live)| is_in(&live.place));
        let orders: Vec<_> = orders.map(|(&number, _)| number).collect();
        let keys = self.book.keys.iter().filter(|(_, kept)| is_in(&kept.place));
        let keys: Vec<_> = keys.map(|(&key, _)| key).collect();
        let notes = self.book.notes.iter().filter(|(_, place)| is_in(place));
        let notes: Vec<_> = notes.map(|(&id, _)| id).collect();
        let (mut lost, mut all) = (Vec::new(), true);
        for number in orders {
            match self.write_again(number, frames) {
                Again::Appended => self.stats.mended += 1,
                Again::NoRoom => {}
                Again::Forgotten => continue,
                Again::Gone => {
                    self.book.forget(number);
                    lost.push(Lost::Order(number));
                    continue;
                }
            }
            // The segment goes when that is on disk; what found no room is tried again.
            all = false;
        }
        self.book.devices.forget_within(&within);
        for key in keys {
            self.book.keys.remove(&key);
            lost.push(Lost::Key(key));
        }
        for id in notes {
            self.book.notes.remove(&id);
            lost.push(Lost::Note(id));
        }
        self.stats.lost += lost.len() as u64;
        self.lost.append(&mut lost);
        self.bury();
        if all {
            self.log.give_up_oldest();
        }
    }

    /// Appends the record of a live order, or of an attempt, from what is known without the disk.
    fn write_again<F: AsRef<[u8]>>(
        &mut self,
        number: u64,
        frames: &mut impl FnMut(u64) -> Option<F>,
    ) -> Again {
        // Attempts go with their order.
        let Some(live) = self.book.orders.get(&number) else { return Again::Forgotten };
        let Live { accepted_ms, age_ms, attempts, root, lane, cancelled, ref marks, .. } = *live;
        let marks = marks.clone();
        let put = if root == 0 {
            let Some(bytes) = frames(number) else { return Again::Gone };
            let Some(frame) = Frame::new(bytes.as_ref()).ok().filter(|frame| frame.number() == number) else {
                return Again::Gone;
            };
            let order = record::Order { accepted_ms, age_ms, cancelled, attempts, marks, frame };
            self.put(&Record::Order(order), OVER_CARRIED)
        } else {
            let (attempt, not_before_ms, carried) = (attempts, age_ms, true);
            let retry = Retry { number, root, not_before_ms, attempt, lane, cancelled, carried, marks };
            self.put(&Record::Retry(retry), OVER_CARRIED)
        };
        if put.is_ok() { Again::Appended } else { Again::NoRoom }
    }
}

/// What came of a record that could not be read.
enum Again {
    Appended,
    NoRoom,
    /// Nobody has what it said.
    Gone,
    /// It lives no more.
    Forgotten,
}
