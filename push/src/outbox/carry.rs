//! Compaction: what lives in the oldest segment is written again, as it stands now, so that the segment can go.
//!
//! It is done right behind a commit, while nothing else waits for the next one: what is written again then says what all
//! records before it say, and records behind it change it. A whole segment goes at once; it is on disk with the next
//! commit, and the old segment goes with the one after.

use super::book::{Live, Place};
use super::log::{self, Disk};
use super::record::{self, Record, Session};
use super::{Lost, OVER_CARRIED, Outbox};

impl<D: Disk> Outbox<D> {
    /// Appends what lives in the oldest segment again, if it is time.
    pub(super) fn carry(&mut self) {
        let Some(oldest) = self.log.oldest() else { return };
        if self.carried == Some(oldest.number) && oldest.live > 0 {
            self.give_up(oldest.first..oldest.end);
        }
        if !self.log.wants_carrying() || self.carried == Some(oldest.number) {
            return;
        }
        let mut bytes = Vec::new();
        // What cannot be read now is tried again with the next commit.
        let Ok(Some(oldest)) = self.log.read_oldest(&mut bytes) else { return };
        let mut went = self.carry_state(oldest.first..oldest.end);
        log::records(&bytes, oldest.end, |sequence, kind, body| {
            if went && let Ok(record) = Record::parse(kind, body) {
                went = self.carry_record(Place { sequence, len: body.len() }, record);
            }
        });
        if went {
            self.carried = Some(oldest.number);
        }
    }

    /// Appends a record again if it lives; false if there was no room.
    fn carry_record(&mut self, place: Place, record: Record<'_>) -> bool {
        let lives = |live: Option<&Live>| live.is_some_and(|live| live.place == place);
        let again = match record {
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
                Record::Retry(record::Retry {
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

    /// Appends again what is known without the disk; false if there was no room.
    fn carry_state(&mut self, within: core::ops::Range<u64>) -> bool {
        let mut again = Vec::new();
        let is_in = |place: Option<Place>| place.is_some_and(|place| within.contains(&place.sequence));
        for (number, known) in self.book.devices.iter() {
            let device = known.device.filter(|(place, _)| is_in(Some(*place)));
            again.extend(device.map(|(_, device)| Record::Device(device)));
            // How far it got counts outcomes since the record: a device that is written again says it as well.
            if is_in(known.place) || (device.is_some() && known.place.is_none()) {
                again.push(Record::Session(Session { device: number, ..known.session }));
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
    /// read any more. Kept as it is the log could never be shortened again.
    fn give_up(&mut self, within: core::ops::Range<u64>) {
        let is_in = |place: &Place| within.contains(&place.sequence);
        let orders = self.book.orders.iter().filter(|(_, live)| live.open > 0 && is_in(&live.place));
        let orders: Vec<_> = orders.map(|(&number, _)| number).collect();
        let keys = self.book.keys.iter().filter(|(_, kept)| is_in(&kept.place));
        let keys: Vec<_> = keys.map(|(&key, _)| key).collect();
        let notes = self.book.notes.iter().filter(|(_, place)| is_in(place));
        let notes: Vec<_> = notes.map(|(&id, _)| id).collect();
        if self.book.orders.values().any(|live| live.open == 0 && is_in(&live.place)) {
            // Its KEY was not written yet.
            return;
        }
        for &number in &orders {
            self.book.forget(number);
        }
        for key in &keys {
            self.book.keys.remove(key);
        }
        for id in &notes {
            self.book.notes.remove(id);
        }
        self.stats.lost += (orders.len() + keys.len() + notes.len()) as u64;
        self.lost.extend(orders.into_iter().map(Lost::Order));
        self.lost.extend(keys.into_iter().map(Lost::Key));
        self.lost.extend(notes.into_iter().map(Lost::Note));
        self.bury();
        self.log.give_up_oldest();
    }
}
