//! What is known of devices, by their number: numbers are given from 0 on, so a table without gaps is the smallest place.
//!
//! There are 10,000 of them, so little is kept of each: what it is stands on disk alone.

use core::ops::Range;

use super::book::Place;
use super::record::Session;

/// By lane, the highest numbers written to a device, and of outcomes it gave.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    upto: [u64; 4],
    ended: [u64; 4],
}

/// A device: where its records lie, and how far it got.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Sequence of its DEVICE, 0 for none, ...
    device: u64,
    /// ... and of its SESSION.
    session: u64,
    boot: u64,
    /// `None` while all of them are 0.
    numbers: Option<Box<Numbers>>,
    /// Bytes of its DEVICE.
    device_len: u16,
    open: bool,
}

const _: () = assert!(size_of::<Option<Known>>() <= 40, "10,000 devices are 400 kB");

impl Known {
    /// Where its DEVICE lies.
    pub(super) fn device_at(&self) -> Option<Place> {
        let place = Place { sequence: self.device, len: self.device_len.into() };
        (self.device != 0).then_some(place)
    }

    /// Where its SESSION lies.
    pub(super) fn session_at(&self) -> Option<Place> {
        let place = Place { sequence: self.session, len: Session::LEN };
        (self.session != 0).then_some(place)
    }

    /// Its DEVICE lies there; where one was before.
    pub(super) fn put_device(&mut self, place: Place) -> Option<Place> {
        let before = self.device_at();
        self.device = place.sequence;
        // No DEVICE is longer than this; one that were would be counted as shorter, and live a little longer.
        self.device_len = u16::try_from(place.len).unwrap_or(u16::MAX);
        before
    }

    /// Its SESSION lies there, and says this; where one was before.
    pub(super) fn put_session(&mut self, place: Place, session: &Session) -> Option<Place> {
        let before = self.session_at();
        let Session { boot, open, upto, ended, .. } = session.behind(&self.session(session.device));
        (self.session, self.boot, self.open) = (place.sequence, boot, open);
        self.numbers = (upto != [0; 4] || ended != [0; 4]).then(|| Box::new(Numbers { upto, ended }));
        before
    }

    /// How far it got; its number is not kept with it.
    pub(super) fn session(&self, device: u32) -> Session {
        let Numbers { upto, ended } = self.numbers.as_deref().copied().unwrap_or_default();
        Session { device, boot: self.boot, open: self.open, upto, ended }
    }

    /// It gave an outcome.
    pub(super) fn raise_ended(&mut self, lane: usize, number: u64) {
        let ended = self.numbers.get_or_insert_default().ended.get_mut(lane);
        ended.into_iter().for_each(|ended| *ended = (*ended).max(number));
    }

    /// Whether it gave outcomes that no SESSION counts.
    pub(super) fn is_unwritten(&self) -> bool {
        self.session == 0 && self.numbers.as_ref().is_some_and(|numbers| numbers.ended != [0; 4])
    }
}

/// The devices that are known.
#[derive(Debug, Default)]
pub(super) struct Devices(Vec<Option<Known>>);

impl Devices {
    pub(super) fn get(&self, device: u32) -> Option<&Known> {
        self.0.get(device as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, device: u32) -> Option<&mut Known> {
        self.0.get_mut(device as usize)?.as_mut()
    }

    /// A device, as one of which nothing is known if it was not there. Numbers lie below [`super::DEVICES_MAX`]: records
    /// are read no other way.
    pub(super) fn known(&mut self, device: u32) -> &mut Known {
        let at = device as usize;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        // The last one was made on the line before, so there is one.
        self.0[at].get_or_insert_default()
    }

    pub(super) fn remove(&mut self, device: u32) -> Option<Known> {
        self.0.get_mut(device as usize)?.take()
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Known)> {
        (0..).zip(&self.0).filter_map(|(device, known)| Some((device, known.as_ref()?)))
    }

    /// Whether this is where a device's DEVICE lies.
    pub(super) fn lies_at(&self, device: u32, place: Place) -> bool {
        self.get(device).is_some_and(|known| known.device_at() == Some(place))
    }

    /// Those whose DEVICE lies in this part of the log.
    pub(super) fn within(&self, within: Range<u64>) -> impl Iterator<Item = u32> {
        self.iter().filter(move |(_, known)| within.contains(&known.device)).map(|(device, _)| device)
    }

    /// What lies in this part of the log cannot be read.
    pub(super) fn forget_within(&mut self, within: &Range<u64>) {
        for known in self.0.iter_mut().flatten().filter(|known| within.contains(&known.device)) {
            known.device = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_as_its_records_say() {
        let place = |sequence, len| Place { sequence, len };
        let mut known = Known::default();
        assert_eq!((known.device_at(), known.session_at(), known.is_unwritten()), (None, None, false));
        assert_eq!(known.session(3), Session { device: 3, ..Session::default() });
        assert_eq!(known.put_device(place(7, 53)), None);
        assert_eq!(known.put_device(place(8, 48)), Some(place(7, 53)));
        known.raise_ended(2, 9);
        known.raise_ended(2, 5);
        assert!(known.is_unwritten());
        assert_eq!(known.session(3).ended, [0, 0, 9, 0]);
        let session = Session { device: 3, boot: 6, open: true, upto: [0, 4, 0, 0], ended: [0; 4] };
        assert_eq!(known.put_session(place(9, Session::LEN), &session), None);
        assert_eq!(known.session(3), session, "a device may forget what it said");
        let older = Session { upto: [1, 2, 0, 0], ..session };
        let before = known.put_session(place(12, Session::LEN), &older);
        assert_eq!(before, Some(place(9, Session::LEN)));
        assert_eq!(known.session(3), Session { upto: [1, 4, 0, 0], ..session }, "what was written stays so");
        assert!(!known.is_unwritten());
    }
}
