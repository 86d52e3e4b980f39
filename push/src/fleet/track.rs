//! Tracks: a lane of one of the two logs. Numbers rise inside a log, so inside a track orders are sent, end and are settled
//! in log order, and nothing is promised between two of them but that the more urgent lane goes first.

use wire_format::ids::Lane;

/// A lane of a log: twice the lane, and one more for the durable log. So their order is that of their urgency.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Track(u8);

/// How many there are.
pub(crate) const TRACKS: usize = 8;

impl Track {
    pub(crate) const fn new(durable: bool, lane: Lane) -> Self {
        Self((lane as u8) << 1 | durable as u8)
    }

    pub(crate) const fn is_durable(self) -> bool {
        self.0 & 1 != 0
    }

    pub(crate) const fn lane(self) -> Lane {
        match self.0 >> 1 {
            0 => Lane::Urgent,
            1 => Lane::Interactive,
            2 => Lane::Normal,
            _ => Lane::Bulk,
        }
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        (self.0 & 7) as usize
    }

    /// Its bit in a set of tracks.
    #[inline]
    pub(crate) const fn bit(self) -> u8 {
        1 << (self.0 & 7)
    }
}

impl core::fmt::Debug for Track {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let log = if self.is_durable() { "durable" } else { "volatile" };
        write!(f, "{log} {:?}", self.lane())
    }
}

/// A set of tracks, as an iterator over them: the most urgent first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracks(pub(crate) u8);

impl Tracks {
    pub(crate) const ALL: Self = Self(0xFF);

    /// The bits of the durable log's four.
    pub(crate) const DURABLE: u8 = 0xAA;

    /// The four of a log.
    pub(crate) const fn of(durable: bool) -> Self {
        Self(if durable { Self::DURABLE } else { !Self::DURABLE })
    }
}

impl Iterator for Tracks {
    type Item = Track;

    #[inline]
    fn next(&mut self) -> Option<Track> {
        let set = self.0;
        if set == 0 {
            return None;
        }
        self.0 = set & set.wrapping_sub(1);
        #[expect(clippy::cast_possible_truncation, reason = "below 8")]
        let first = set.trailing_zeros() as u8;
        Some(Track(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_go_by_lane_and_know_their_log() {
        let all: Vec<Track> = Tracks::ALL.collect();
        let expected = Lane::ALL.map(|lane| [Track::new(false, lane), Track::new(true, lane)]);
        assert_eq!(all, expected.concat());
        for (at, track) in all.into_iter().enumerate() {
            assert_eq!((track.index(), track.bit()), (at, 1 << at));
            assert_eq!(Track::new(track.is_durable(), track.lane()), track);
        }
        let durable: Vec<Track> = Tracks::of(true).collect();
        assert_eq!(durable, Lane::ALL.map(|lane| Track::new(true, lane)));
        assert!(Tracks::of(false).all(|track| !track.is_durable()));
        assert_eq!(Tracks(0).next(), None);
    }
}
