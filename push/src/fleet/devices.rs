//! The table of devices: reached by number, found by id. And their tracks, which stand apart: a device gets those of a log with
//! its first order of it.

use wire_format::ids::NodeId;

use super::device::{DeviceSlot, State};
use super::list::{Link, NONE, Nodes};
use super::track::{LANES, LogTracks, Track, TrackState, Tracks};
use super::wheel::Timers;

/// Owned storage of devices: [`DeviceTables`], or what grows.
pub trait DeviceStorage {
    /// One slot per device.
    fn slots(&self) -> &[DeviceSlot];
    /// The same, to change.
    fn slots_mut(&mut self) -> &mut [DeviceSlot];
    /// One for each log a device has got something of, in the order in which they did: at least as many as were asked for
    /// with [`DeviceStorage::grow_logs`]. Which one is whose the fleet knows.
    fn logs(&self) -> &[TrackSlot];
    /// The same, to change.
    fn logs_mut(&mut self) -> &mut [TrackSlot];
    /// How many of them there may be: one per device, or two if there is a durable log.
    fn logs_max(&self) -> usize {
        self.logs().len()
    }
    /// From now on there are at least this many, [`DeviceStorage::logs_max`] at most. For storage that has them all
    /// there is nothing to do.
    fn grow_logs(&mut self, len: usize) {
        let _ = len;
    }
}

/// Storage of devices that does not grow. With fewer of one sort than of the other the rest is not used.
#[derive(Clone, Debug)]
pub struct DeviceTables<D, L> {
    /// One per device.
    pub slots: D,
    /// One per device, or two if the fleet has a durable log, as
    /// [`FleetConfig::durable`](crate::FleetConfig::durable) says.
    pub logs: L,
}

impl<D, L> DeviceStorage for DeviceTables<D, L>
where
    D: AsRef<[DeviceSlot]> + AsMut<[DeviceSlot]>,
    L: AsRef<[TrackSlot]> + AsMut<[TrackSlot]>,
{
    fn slots(&self) -> &[DeviceSlot] {
        self.slots.as_ref()
    }

    fn slots_mut(&mut self) -> &mut [DeviceSlot] {
        self.slots.as_mut()
    }

    fn logs(&self) -> &[TrackSlot] {
        self.logs.as_ref()
    }

    fn logs_mut(&mut self) -> &mut [TrackSlot] {
        self.logs.as_mut()
    }
}

/// Storage for what one device has of one log, once it has got something of it. Fill it with [`TrackSlot::EMPTY`].
#[derive(Clone, Debug)]
pub struct TrackSlot {
    pub(crate) tracks: LogTracks,
    /// By lane, the highest number written to it in this lineage, or its own floor if that is higher. Of the volatile log
    /// nobody asks.
    pub(crate) upto: [u64; LANES],
}

const _: () = assert!(size_of::<TrackSlot>() <= 224, "10,000 devices are 2.2 MB");

impl TrackSlot {
    /// Nothing.
    pub const EMPTY: Self = Self { tracks: [TrackState::EMPTY; LANES], upto: [0; LANES] };
}

/// The device slots, reached by number. A number outside of them (a fault of ours) reads a slot nobody uses.
#[derive(Debug)]
pub(crate) struct Devices<D> {
    storage: D,
    len: u32,
    /// Slots of logs that are given to devices, and how many there may be.
    logs_len: u32,
    logs_max: u32,
    spare: DeviceSlot,
    spare_log: TrackSlot,
}

impl<D: DeviceStorage> Devices<D> {
    pub(crate) fn new(mut storage: D, durable: bool) -> Self {
        storage.slots_mut().fill(DeviceSlot::EMPTY);
        storage.logs_mut().fill(TrackSlot::EMPTY);
        let (slots, logs) = (storage.slots().len(), storage.logs_max());
        let len = slots.min(if durable { logs / 2 } else { logs });
        // The two highest numbers mean "no slot".
        let short = |len| u32::try_from(len).unwrap_or(u32::MAX).min(u32::MAX - 2);
        let (len, logs_max) = (short(len), short(logs));
        let (spare, spare_log) = (DeviceSlot::EMPTY, TrackSlot::EMPTY);
        Self { storage, len, logs_len: 0, logs_max, spare, spare_log }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(crate) fn at(&self, index: u32) -> &DeviceSlot {
        self.storage.slots().get(index as usize).unwrap_or(&self.spare)
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut DeviceSlot {
        self.storage.slots_mut().get_mut(index as usize).unwrap_or(&mut self.spare)
    }

    /// What a device has of a log: nothing, if it has no slot for it.
    #[inline]
    fn log(&self, index: u32, durable: bool) -> &TrackSlot {
        let at = self.at(index).log_at(durable);
        self.storage.logs().get(at as usize).unwrap_or(&self.spare_log)
    }

    /// The same, to change: it gets a slot if it has none.
    #[inline]
    fn log_mut(&mut self, index: u32, durable: bool) -> &mut TrackSlot {
        let at = self.at(index).log_at(durable) as usize;
        if at < self.storage.logs().len() {
            return self.storage.logs_mut().get_mut(at).unwrap_or(&mut self.spare_log);
        }
        self.first_log_mut(index, durable)
    }

    #[cold]
    #[inline(never)]
    fn first_log_mut(&mut self, index: u32, durable: bool) -> &mut TrackSlot {
        let at = self.logs_len;
        if index < self.len && at < self.logs_max {
            self.logs_len = at.saturating_add(1);
            self.storage.grow_logs(self.logs_len as usize);
            *self.at_mut(index).log_at_mut(durable) = at;
            return self.storage.logs_mut().get_mut(at as usize).unwrap_or(&mut self.spare_log);
        }
        &mut self.spare_log
    }

    /// What a device has of the durable log.
    #[inline]
    pub(crate) fn durable(&self, index: u32) -> &TrackSlot {
        self.log(index, true)
    }

    #[inline]
    pub(crate) fn durable_mut(&mut self, index: u32) -> &mut TrackSlot {
        self.log_mut(index, true)
    }

    /// It has nothing of a log any more. It keeps its slot.
    pub(crate) fn clear_log(&mut self, index: u32, durable: bool) {
        if self.at(index).log_at(durable) != NONE {
            *self.log_mut(index, durable) = TrackSlot::EMPTY;
        }
    }

    /// Makes a place a new device's.
    pub(crate) fn begin(&mut self, index: u32) {
        self.clear_log(index, false);
        self.clear_log(index, true);
        // The head of the bucket and the slots of logs are the place's, not the device's.
        let DeviceSlot { bucket, logs_at, .. } = *self.at(index);
        *self.at_mut(index) = DeviceSlot { bucket, logs_at, state: State::Idle, ..DeviceSlot::EMPTY };
    }

    #[inline]
    pub(crate) fn track(&self, index: u32, track: Track) -> &TrackState {
        let tracks = &self.log(index, track.is_durable()).tracks;
        let [.., last] = tracks;
        // The index is masked, so the compiler knows that there is nothing to fall back for.
        tracks.get(track.lane_index()).unwrap_or(last)
    }

    #[inline]
    pub(crate) fn track_mut(&mut self, index: u32, track: Track) -> &mut TrackState {
        let [tracks @ .., last] = &mut self.log_mut(index, track.is_durable()).tracks;
        tracks.get_mut(track.lane_index()).unwrap_or(last)
    }

    /// An order with this number is written to a device, or was. Of the volatile log nobody asks.
    #[inline]
    pub(crate) fn note_written(&mut self, index: u32, track: Track, number: u64) {
        if track.is_durable()
            && let Some(upto) = self.durable_mut(index).upto.get_mut(track.lane_index())
        {
            *upto = number.max(*upto);
        }
    }

    /// The sum of a count over all tracks of a device: it is 0 of those that are quiet.
    #[inline]
    pub(crate) fn sum(&self, index: u32, count: impl Fn(&TrackState) -> u16) -> u16 {
        let busy = self.at(index).busy();
        busy.map(|track| count(self.track(index, track))).fold(0, u16::saturating_add)
    }

    /// Orders without an outcome that counts, written or not.
    pub(crate) fn unended(&self, index: u32) -> u16 {
        let unended = self.sum(index, |track| track.owed.saturating_add(track.out));
        unended.saturating_add(self.at(index).retried)
    }

    /// Orders that were written and have no outcome, logged or not.
    pub(crate) fn out(&self, index: u32) -> u16 {
        self.sum(index, TrackState::holding).saturating_sub(self.at(index).waiting)
    }

    /// Of these, orders of the durable log.
    pub(crate) fn durable_out(&self, index: u32) -> u32 {
        let device = self.at(index);
        let tracks = Tracks(device.busy & Tracks::DURABLE);
        let out = tracks.map(|track| u32::from(self.track(index, track).holding()));
        out.sum::<u32>().saturating_sub(device.waiting.into())
    }

    /// A SETTLED has left.
    pub(crate) fn settled(&mut self, index: u32, track: Track, number: u64) {
        let in_turn = self.at(index).in_turn(track);
        let state = self.track_mut(index, track);
        state.settled = number;
        state.held = state.held_after(number, in_turn);
        let (quiet, even) = (state.is_quiet(), number >= state.ended);
        if quiet {
            self.at_mut(index).busy &= !track.bit();
        }
        if even && track.is_durable() {
            self.at_mut(index).skewed &= !track.bit();
        }
    }

    /// The device with this id.
    pub(crate) fn find(&self, id: NodeId) -> Option<u32> {
        let mut at = self.at(self.bucket(id)?).bucket;
        while at != NONE {
            let device = self.at(at);
            if device.id == id {
                return Some(at);
            }
            at = device.chain;
        }
        None
    }

    /// Gives `index` its id, which no other device has.
    pub(crate) fn index_id(&mut self, index: u32, id: NodeId) {
        if let Some(bucket) = self.bucket(id) {
            let first = core::mem::replace(&mut self.at_mut(bucket).bucket, index);
            let device = self.at_mut(index);
            device.id = id;
            device.chain = first;
        }
    }

    /// Takes `index` out of the table of ids. It keeps its id.
    pub(crate) fn unindex_id(&mut self, index: u32) {
        let (id, after) = (self.at(index).id, self.at(index).chain);
        let Some(bucket) = self.bucket(id) else { return };
        let mut at = self.at(bucket).bucket;
        if at == index {
            self.at_mut(bucket).bucket = after;
            return;
        }
        while at != NONE {
            let chain = self.at(at).chain;
            if chain == index {
                self.at_mut(at).chain = after;
                return;
            }
            at = chain;
        }
    }

    fn bucket(&self, id: NodeId) -> Option<u32> {
        let id = id.as_u128();
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        let mixed = wire_format::rng::mix((id as u64) ^ wire_format::rng::mix((id >> 64) as u64));
        u32::try_from(mixed.checked_rem(u64::from(self.len()))?).ok()
    }
}

impl<D: DeviceStorage> Nodes for Devices<D> {
    #[inline]
    fn link(&self, which: usize, index: u32) -> Link {
        self.at(index).links.get(which).copied().unwrap_or(Link::OUT)
    }

    #[inline]
    fn link_mut(&mut self, which: usize, index: u32) -> &mut Link {
        let [links @ .., last] = &mut self.at_mut(index).links;
        links.get_mut(which).unwrap_or(last)
    }
}

impl<D: DeviceStorage> Timers for Devices<D> {
    fn tick(&self, index: u32) -> u64 {
        self.at(index).tick
    }

    fn tick_mut(&mut self, index: u32) -> &mut u64 {
        &mut self.at_mut(index).tick
    }
}
