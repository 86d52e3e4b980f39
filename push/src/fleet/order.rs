//! What the fleet keeps per live order, and how orders are found: by number, and in log order inside their lane.

use core::marker::PhantomData;
use core::time::Duration;

use wire_format::frame::header;
use wire_format::frame::order::KindFlags;
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::DeviceIndex;
use super::list::{Link, List, NONE, Nodes};
use super::supersede::Key;
use super::track::{TRACKS, Track, TrackState, Tracks};
use super::wheel::Timers;
use crate::mark::Mark;

/// Which list a link of an order belongs to.
pub(crate) mod link {
    /// Its track, in log order; of a free slot: the free slots.
    pub(crate) const TRACK: usize = 0;
    /// The timer wheel.
    pub(crate) const TIMER: usize = 1;
    /// Outcomes given by the server wait to be told; or the order is over and waits to be handed back.
    pub(crate) const TELL: usize = 2;
    pub(crate) const COUNT: usize = 3;
}

/// An order to send, with its one encoding and its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewOrder<B, M> {
    /// Its position in its log, above every number of that log submitted before.
    pub number: u64,
    /// Its lane; must be the one in the frame.
    pub lane: Lane,
    /// Its kind flags; must be the ones in the frame.
    pub kind_flags: KindFlags,
    /// How long it is worth delivering, from now; `None` for ever. Must be what the frame's header says, unless the order
    /// is restored.
    pub lifetime: Option<Duration>,
    /// The whole ORDER frame: 16 bytes of header with the full lifetime, and the body. At least 64 bytes. Its flag DURABLE
    /// says which log the order is in. If it has a
    /// PARTS option, the PART frames of its blob follow, as [`crate::blob::Blob::emit_frames`] writes them.
    pub frame: B,
    /// The device the first mark belongs to.
    pub first: DeviceIndex,
    /// One [`Mark`] per device from `first`: PENDING where the order is meant to go, NOT_TARGETED elsewhere; of a restored
    /// order where it stands.
    pub marks: M,
}

/// A live order.
#[derive(Clone, Debug)]
pub(crate) struct Live<B, M> {
    pub(crate) frame: B,
    pub(crate) marks: M,
    pub(crate) first: u32,
}

/// Storage for one live order. Fill an array or a boxed slice with [`OrderSlot::EMPTY`].
#[derive(Clone, Debug)]
pub struct OrderSlot<B, M> {
    pub(crate) live: Option<Live<B, M>>,
    pub(crate) number: u64,
    pub(crate) track: Track,
    pub(crate) kind_flags: KindFlags,
    pub(crate) needs_result: bool,
    /// Its header states more of its lifetime than was left at submit: it never leaves as it was encoded.
    pub(crate) stale: bool,
    /// Devices whose mark is not final.
    pub(crate) open: u32,
    /// Rises with each cancellation in the fleet; 0: this order was not cancelled.
    pub(crate) cancel_seq: u32,
    /// Marks that are [`Mark::is_unsent`].
    pub(crate) unsent: u32,
    pub(crate) key: Key,
    /// First order of this bucket of supersede keys, and the next one in the chain this order is in.
    pub(crate) key_bucket: u32,
    pub(crate) key_chain: u32,
    /// Cut writes that still need the frame.
    pub(crate) pins: u32,
    /// Bytes of the ORDER frame; the pieces of its blob lie behind it.
    pub(crate) len: u32,
    /// The blob that is its payload; 0 none.
    pub(crate) blob: u64,
    pub(crate) blob_size: u32,
    /// The device the sweep looks at next, counted from `first`.
    pub(crate) swept: u32,
    pub(crate) links: [Link; link::COUNT],
    pub(crate) bucket: u32,
    pub(crate) chain: u32,
    pub(crate) tick: u64,
    pub(crate) submitted: Instant,
    /// Until when the frame may leave as it was encoded.
    pub(crate) fresh_until: Instant,
    pub(crate) deadline: Instant,
}

impl<B, M> OrderSlot<B, M> {
    /// No order.
    pub const EMPTY: Self = Self {
        live: None,
        number: 0,
        track: Track::new(false, Lane::Normal),
        kind_flags: KindFlags::NONE,
        needs_result: false,
        stale: false,
        open: 0,
        cancel_seq: 0,
        unsent: 0,
        key: Key::NONE,
        key_bucket: NONE,
        key_chain: NONE,
        pins: 0,
        len: 0,
        blob: 0,
        blob_size: 0,
        swept: 0,
        links: [Link::OUT; link::COUNT],
        bucket: NONE,
        chain: NONE,
        tick: 0,
        submitted: Instant::ZERO,
        fresh_until: Instant::ZERO,
        deadline: Instant::NEVER,
    };

    /// The encoded frame; empty if there is no order.
    pub(crate) fn frame(&self) -> &[u8]
    where
        B: AsRef<[u8]>,
    {
        self.live.as_ref().map_or(&[], |live| live.frame.as_ref())
    }

    /// The 16 bytes it was encoded with.
    pub(crate) fn fresh_header(&self) -> [u8; header::LEN]
    where
        B: AsRef<[u8]>,
    {
        self.frame().first_chunk().copied().unwrap_or_default()
    }

    /// The first device it may be for, and how many from there on.
    pub(crate) fn targets(&self) -> (u32, u32)
    where
        M: AsRef<[u8]>,
    {
        let count = |live: &Live<B, M>| u32::try_from(live.marks.as_ref().len()).unwrap_or(u32::MAX);
        self.live.as_ref().map_or((0, 0), |live| (live.first, count(live)))
    }

    pub(crate) fn mark(&self, device: u32) -> Mark
    where
        M: AsRef<[u8]>,
    {
        let mark = self.live.as_ref().and_then(|live| {
            let at = device.checked_sub(live.first)?;
            live.marks.as_ref().get(at as usize).copied()
        });
        Mark(mark.unwrap_or(0))
    }

    pub(crate) fn set_mark(&mut self, device: u32, mark: Mark)
    where
        M: AsMut<[u8]>,
    {
        if let Some(live) = &mut self.live
            && let Some(at) = device.checked_sub(live.first)
            && let Some(byte) = live.marks.as_mut().get_mut(at as usize)
        {
            *byte = mark.0;
        }
    }

    pub(crate) const fn is_idempotent(&self) -> bool {
        self.kind_flags.contains(KindFlags::IDEMPOTENT)
    }
}

/// A walk over the orders of one track that are held ([`Mark::is_held`]) on one device, in log order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    slot: u32,
    left: u16,
}

impl Walk {
    pub(crate) const fn over(state: &TrackState) -> Self {
        Self { slot: state.oldest, left: state.out }
    }
}

/// Owned storage of order slots.
pub trait OrderStorage<B, M>: AsRef<[OrderSlot<B, M>]> + AsMut<[OrderSlot<B, M>]> {}

impl<O: AsRef<[OrderSlot<B, M>]> + AsMut<[OrderSlot<B, M>]>, B, M> OrderStorage<B, M> for O {}

/// Bytes of marks that can be changed.
pub trait MarkBytes: AsRef<[u8]> + AsMut<[u8]> {}

impl<M: AsRef<[u8]> + AsMut<[u8]>> MarkBytes for M {}

/// The orders: slots, the free ones, the live ones by track and by number.
#[derive(Debug)]
pub(crate) struct Orders<O, B, M> {
    slots: O,
    spare: OrderSlot<B, M>,
    free: List<{ link::TRACK }>,
    tracks: [List<{ link::TRACK }>; TRACKS],
    /// Slots from here on were never used.
    fresh: u32,
    /// Live or waiting to be handed back.
    pub(crate) used: u32,
    _storage: PhantomData<(B, M)>,
}

impl<B: AsRef<[u8]>, M: MarkBytes, O: OrderStorage<B, M>> Orders<O, B, M> {
    pub(crate) fn new(mut slots: O) -> Self {
        slots.as_mut().fill_with(|| OrderSlot::EMPTY);
        Self {
            slots,
            spare: OrderSlot::EMPTY,
            free: List::EMPTY,
            tracks: [List::EMPTY; TRACKS],
            fresh: 0,
            used: 0,
            _storage: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.slots.as_ref().len()).unwrap_or(u32::MAX).min(u32::MAX - 2)
    }

    #[inline]
    pub(crate) fn at(&self, slot: u32) -> &OrderSlot<B, M> {
        self.slots.as_ref().get(slot as usize).unwrap_or(&self.spare)
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut OrderSlot<B, M> {
        self.slots.as_mut().get_mut(slot as usize).unwrap_or(&mut self.spare)
    }

    /// A free slot, not taken yet.
    pub(crate) fn vacant(&self) -> Option<u32> {
        self.free.front().or_else(|| (self.fresh < self.len()).then_some(self.fresh))
    }

    /// Takes the vacant slot for a live order, last in its track, and makes it known by its number.
    pub(crate) fn insert(&mut self, slot: u32, order: OrderSlot<B, M>) {
        if slot == self.fresh {
            self.fresh = self.fresh.saturating_add(1);
        }
        let mut free = self.free;
        free.remove(self, slot);
        self.free = free;
        self.used = self.used.saturating_add(1);
        let (track, bucket) = (order.track, self.bucket(order.number));
        // The bucket heads are the slot's own, not the order's.
        let (own, key_bucket) = (self.at(slot).bucket, self.at(slot).key_bucket);
        *self.at_mut(slot) = OrderSlot { bucket: own, key_bucket, ..order };
        self.index_key(slot);
        let first = core::mem::replace(&mut self.at_mut(bucket).bucket, slot);
        self.at_mut(slot).chain = first;
        let mut list = self.track(track);
        list.push_back(self, slot);
        *self.track_mut(track) = list;
    }

    /// Takes an order that is over out of its track and the table of numbers. Its slot stays taken.
    pub(crate) fn retire(&mut self, slot: u32) {
        let (track, number, after) = (self.at(slot).track, self.at(slot).number, self.at(slot).chain);
        let mut list = self.track(track);
        list.remove(self, slot);
        *self.track_mut(track) = list;
        self.unindex_key(slot);
        let bucket = self.bucket(number);
        let mut at = self.at(bucket).bucket;
        if at == slot {
            self.at_mut(bucket).bucket = after;
            return;
        }
        while at != NONE {
            let chain = self.at(at).chain;
            if chain == slot {
                self.at_mut(at).chain = after;
                return;
            }
            at = chain;
        }
    }

    /// Empties the slot of a retired order.
    pub(crate) fn release(&mut self, slot: u32) -> Option<(u64, Live<B, M>)> {
        let (bucket, key_bucket) = (self.at(slot).bucket, self.at(slot).key_bucket);
        let empty = OrderSlot { bucket, key_bucket, ..OrderSlot::EMPTY };
        let order = core::mem::replace(self.at_mut(slot), empty);
        let mut free = self.free;
        free.push_front(self, slot);
        self.free = free;
        self.used = self.used.saturating_sub(1);
        order.live.map(|live| (order.number, live))
    }

    /// The live order with this number.
    pub(crate) fn find(&self, number: u64) -> Option<u32> {
        let mut at = self.at(self.bucket(number)).bucket;
        while at != NONE {
            let order = self.at(at);
            if order.number == number {
                return Some(at);
            }
            at = order.chain;
        }
        None
    }

    /// The lowest live number, or `u64::MAX`.
    pub(crate) fn lowest(&self) -> u64 {
        let heads = self.tracks.iter().filter_map(List::front);
        heads.map(|slot| self.at(slot).number).min().unwrap_or(u64::MAX)
    }

    /// The first order of the track after `slot` whose mark for `device` is `wanted`, or NONE.
    #[inline]
    pub(crate) fn next_of(&self, slot: u32, device: u32, wanted: impl Fn(Mark) -> bool) -> u32 {
        let mut at = List::<{ link::TRACK }>::after(self, slot);
        while at < NONE - 1 && !wanted(self.at(at).mark(device)) {
            at = List::<{ link::TRACK }>::after(self, at);
        }
        if at < NONE - 1 { at } else { NONE }
    }

    /// The next order of a walk over what is held on `device`. It may end before the walk goes on.
    pub(crate) fn walk(&self, walk: &mut Walk, device: u32) -> Option<u32> {
        let slot = walk.slot;
        if walk.left == 0 || slot == NONE {
            return None;
        }
        walk.left = walk.left.saturating_sub(1);
        walk.slot = if walk.left == 0 { NONE } else { self.next_of(slot, device, Mark::is_held) };
        Some(slot)
    }

    /// The first order of `track` whose mark for `device` is `wanted`, or NONE.
    pub(crate) fn first_with(&self, track: Track, device: u32, wanted: impl Fn(Mark) -> bool) -> u32 {
        match self.track(track).front() {
            Some(slot) if wanted(self.at(slot).mark(device)) => slot,
            Some(slot) => self.next_of(slot, device, wanted),
            None => NONE,
        }
    }

    /// The first order of `track`, or NONE.
    pub(crate) fn first_of(&self, track: Track) -> u32 {
        self.track(track).front().unwrap_or(NONE)
    }

    /// The order behind `slot` in its track, or NONE.
    pub(crate) fn behind(&self, slot: u32) -> u32 {
        List::<{ link::TRACK }>::after(self, slot)
    }

    /// Whether any order of the durable log lives.
    pub(crate) fn has_durable(&self) -> bool {
        Tracks::of(true).any(|track| !self.track(track).is_empty())
    }

    fn track(&self, track: Track) -> List<{ link::TRACK }> {
        self.tracks.get(track.index()).copied().unwrap_or(List::EMPTY)
    }

    fn track_mut(&mut self, track: Track) -> &mut List<{ link::TRACK }> {
        let [tracks @ .., last] = &mut self.tracks;
        tracks.get_mut(track.index()).unwrap_or(last)
    }

    /// Numbers rise one by one, so the low bits spread them best.
    fn bucket(&self, number: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits, divided in half the time")]
        let low = number as u32;
        low.checked_rem(self.len()).unwrap_or(0)
    }
}

impl<B: AsRef<[u8]>, M: MarkBytes, O: OrderStorage<B, M>> Nodes for Orders<O, B, M> {
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

impl<B: AsRef<[u8]>, M: MarkBytes, O: OrderStorage<B, M>> Timers for Orders<O, B, M> {
    fn tick(&self, index: u32) -> u64 {
        self.at(index).tick
    }

    fn tick_mut(&mut self, index: u32) -> &mut u64 {
        &mut self.at_mut(index).tick
    }
}
