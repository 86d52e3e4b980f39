//! Tracks: a lane of one of the two logs. Numbers rise inside a log, so inside a track orders are sent, end and are settled
//! in log order, and nothing is promised between two of them but that the more urgent lane goes first.

use wire_format::ids::Lane;

use super::list::NONE;

/// A lane of a log: twice the lane, and one more for the durable log. So their order is that of their urgency.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Track(u8);

/// How many there are.
pub(crate) const TRACKS: usize = 8;

/// How many of them a log has: one for each lane.
pub(crate) const LANES: usize = 4;

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

    /// Its place among those of its log.
    #[inline]
    pub(crate) const fn lane_index(self) -> usize {
        (self.0 >> 1 & 3) as usize
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

    /// Takes out the most urgent track that is left and the other one of its lane. The lane.
    #[inline]
    pub(crate) fn next_lane(&mut self) -> Option<Lane> {
        let lane = self.next()?.lane();
        self.0 &= !(Track::new(false, lane).bit() | Track::new(true, lane).bit());
        Some(lane)
    }

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

/// One track of one device: a lane of a log. Slot numbers are those of orders; every order named here is live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrackState {
    /// The lowest order still owed, or NONE.
    pub(crate) next: u32,
    /// The lowest order written and not acknowledged, or NONE.
    pub(crate) unreceived: u32,
    /// The lowest order no SETTLED may cover ([`Mark::is_held`]), or NONE.
    pub(crate) oldest: u32,
    /// Orders owed.
    pub(crate) owed: u16,
    /// Orders written and not acknowledged.
    pub(crate) sent: u16,
    /// Orders written and not ended, or ended and not logged; includes `sent` and `lingering`.
    pub(crate) out: u16,
    /// Of `out`, those that hold no credit: ended without the device or in an earlier session, and not logged.
    pub(crate) lingering: u16,
    /// Order credits in use: what was written in this session and is not covered by a written SETTLED, and what is out
    /// since an earlier one.
    pub(crate) held: u16,
    /// The highest number with an outcome, or the device's own floor if that is higher.
    pub(crate) ended: u64,
    /// The number of the SETTLED written last in this session.
    pub(crate) settled: u64,
    /// The floor the device declared at the start of this session, or the order it is at work on there if nobody waits for
    /// the end of that.
    pub(crate) floor: u64,
}

impl TrackState {
    pub(crate) const EMPTY: Self = Self {
        next: NONE,
        unreceived: NONE,
        oldest: NONE,
        owed: 0,
        sent: 0,
        out: 0,
        lingering: 0,
        held: 0,
        ended: 0,
        settled: 0,
        floor: 0,
    };

    /// Nobody waits for an outcome up to this number, but for what is owed or out.
    pub(crate) fn over(&self) -> u64 {
        self.ended.max(self.floor)
    }

    /// Orders out there that hold a credit.
    pub(crate) const fn holding(&self) -> u16 {
        self.out.saturating_sub(self.lingering)
    }

    /// The credits in use once SETTLED says `number`: what is still out. If that is not the last one that ended, nobody
    /// knows how many of the others it covers, unless they all do (`in_turn`).
    pub(crate) const fn held_after(&self, number: u64, in_turn: bool) -> u16 {
        if number >= self.ended || in_turn { self.holding() } else { self.held }
    }

    /// Whether there is nothing to write, to wait for or to settle.
    pub(crate) fn is_quiet(&self) -> bool {
        self.owed == 0 && self.out == 0 && self.held == 0 && self.over() <= self.settled
    }
}

/// The tracks of one log, by lane.
pub(crate) type LogTracks = [TrackState; LANES];

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
        let mut lanes = Tracks(0b1100_0110);
        let lanes: Vec<Lane> = core::iter::from_fn(|| lanes.next_lane()).collect();
        assert_eq!(lanes, [Lane::Urgent, Lane::Interactive, Lane::Bulk]);
    }
}
