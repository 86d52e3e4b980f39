//! The slots and the intrusive queues through them.
//!
//! Every slot stands in exactly one lease queue and in at most one asking queue, in the probe queue and in the news
//! queue or not. Each kind of queue has its own pair of links in the slot, so all of it is O(1) and needs no storage but
//! the slots. (The hints beside them are 64 KiB, however many devices there are.)
//!
//! All places in one timed queue last equally long, and new ones enter at the back: the front is the next one due.

use core::net::Ipv4Addr;

use wire_format::ids::NodeId;

use super::index::{self, By, Hints, Hook, TABLES};
use super::slot::{Origin, Slot};
use crate::hash::Secret;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Where a slot can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Queue {
    /// Lease: nobody in it.
    Free,
    /// Lease: heard, due when it becomes suspect.
    Fresh,
    /// Lease: suspected, due when it is lost.
    Suspect,
    /// Lease: vouched for by the push session, never due.
    Linked,
    /// Lease: restored and not heard, due when it is lost.
    Unconfirmed,
    /// Lease: lost or left, due when it is forgotten.
    Gone,
    /// Asking: asked once, due half a second later.
    Asked,
    /// Asking: the second half second.
    AskedAgain,
    /// A CHALLENGE wants to leave.
    Probe,
    /// An event wants to be told.
    News,
}

const QUEUES: usize = 10;
const RINGS: usize = 4;

/// The pair of links a queue uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ring {
    Lease,
    Ask,
    Probe,
    News,
}

impl Queue {
    pub(super) const fn ring(self) -> Ring {
        match self {
            Self::Free | Self::Fresh | Self::Suspect | Self::Linked | Self::Unconfirmed | Self::Gone => {
                Ring::Lease
            }
            Self::Asked | Self::AskedAgain => Ring::Ask,
            Self::Probe => Ring::Probe,
            Self::News => Ring::News,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

/// A slot's part in the queues and in the index.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Wiring {
    hooks: [Hook; TABLES],
    queues: [Option<Queue>; RINGS],
    links: [Link; RINGS],
}

impl Wiring {
    pub(super) const NONE: Self = Self {
        links: [Link { before: NONE, after: NONE }; RINGS],
        queues: [None; RINGS],
        hooks: [Hook::NONE; TABLES],
    };

    pub(super) const fn queue(&self, ring: Ring) -> Option<Queue> {
        self.queues[ring as usize]
    }

    pub(super) const fn lease_queue(&self) -> Option<Queue> {
        self.queue(Ring::Lease)
    }
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    head: u32,
    tail: u32,
    len: u32,
}

/// The caller's slots. A number that is no slot reads as nobody, and what is written there is never read.
#[derive(Debug)]
pub(super) struct Table<S> {
    slots: S,
    spare: Slot,
    ends: [Ends; QUEUES],
    secret: Secret,
    hints: Hints,
}

static NOBODY: Slot = Slot::EMPTY;

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Table<S> {
    pub(super) fn new(mut slots: S, secret: Secret) -> Self {
        slots.as_mut().fill(Slot::EMPTY);
        let ends = [Ends { head: NONE, tail: NONE, len: 0 }; QUEUES];
        let mut table = Self { slots, spare: Slot::EMPTY, ends, secret, hints: Hints::new() };
        for at in 0..table.capacity() {
            table.push(Queue::Free, at);
        }
        table
    }

    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.slots.as_ref().len()).unwrap_or(NONE).min(NONE - 1)
    }

    pub(super) fn slots(&self) -> &[Slot] {
        self.slots.as_ref()
    }

    #[inline]
    pub(super) fn at(&self, at: u32) -> &Slot {
        self.slots.as_ref().get(at as usize).unwrap_or(&NOBODY)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, at: u32) -> &mut Slot {
        self.slots.as_mut().get_mut(at as usize).unwrap_or(&mut self.spare)
    }

    /// The slot of this device.
    #[inline]
    pub(super) fn find(&self, id: NodeId) -> Option<u32> {
        if id.is_none() {
            return None;
        }
        let hash = self.secret.place_id(id);
        let guess = self.hints.guess(hash);
        let right = self.slots.as_ref().get(guess as usize).is_some_and(|slot| slot.id == id);
        if right { Some(guess) } else { index::find(self, id, self.place(hash)) }
    }

    pub(super) fn hook(&self, by: By, at: u32) -> Hook {
        self.at(at).wiring.hooks[by as usize]
    }

    pub(super) fn hook_mut(&mut self, by: By, at: u32) -> &mut Hook {
        &mut self.at_mut(at).wiring.hooks[by as usize]
    }

    /// The chain a key with this hash belongs to.
    #[inline]
    pub(super) fn chain(&self, hash: impl FnOnce(Secret) -> u64) -> u32 {
        self.place(hash(self.secret))
    }

    #[inline]
    fn place(&self, hash: u64) -> u32 {
        u32::try_from((u128::from(hash) * u128::from(self.capacity())) >> 64).unwrap_or(0)
    }

    /// Gives a free slot to `id`. The caller puts it into a lease queue next.
    pub(super) fn claim(&mut self, at: u32, id: NodeId, origin: Origin) {
        let wiring = self.at(at).wiring.clone();
        *self.at_mut(at) = Slot { wiring, id, origin, ..Slot::EMPTY };
        index::insert(self, By::Id, at);
        index::insert(self, By::Host, at);
        self.hints.set(self.secret.place_id(id), at);
    }

    /// The device speaks from here now.
    pub(super) fn set_origin(&mut self, at: u32, origin: Origin) {
        let moved = self.at(at).origin.source.ip() != origin.source.ip();
        if moved {
            index::remove(self, By::Host, at);
        }
        self.at_mut(at).origin = origin;
        if moved {
            index::insert(self, By::Host, at);
        }
    }

    /// Devices here that speak from this address; lost and left ones do not count.
    pub(super) fn devices_at(&self, host: Ipv4Addr) -> usize {
        index::at_host(self, host).filter(|&at| !self.at(at).is_gone()).count()
    }

    /// Nobody is in this slot any more.
    pub(super) fn release(&mut self, at: u32) {
        index::remove(self, By::Id, at);
        index::remove(self, By::Host, at);
        for ring in [Ring::Ask, Ring::Probe, Ring::News] {
            self.remove(ring, at);
        }
        self.push(Queue::Free, at);
        let wiring = self.at(at).wiring.clone();
        *self.at_mut(at) = Slot { wiring, ..Slot::EMPTY };
    }

    /// The slot at the front.
    #[inline]
    pub(super) const fn head(&self, queue: Queue) -> Option<u32> {
        match self.ends[queue as usize].head {
            NONE => None,
            at => Some(at),
        }
    }

    /// Slots in the queue.
    pub(super) const fn len(&self, queue: Queue) -> usize {
        self.len_u32(queue) as usize
    }

    pub(super) const fn len_u32(&self, queue: Queue) -> u32 {
        self.ends[queue as usize].len
    }

    /// Puts the slot at the back of `queue`, out of whichever queue of the same ring it stood in.
    pub(super) fn push(&mut self, queue: Queue, at: u32) {
        let ring = queue.ring();
        self.remove(ring, at);
        let ends = &mut self.ends[queue as usize];
        let before = ends.tail;
        ends.tail = at;
        ends.len = ends.len.wrapping_add(1);
        if before == NONE {
            ends.head = at;
        } else {
            self.at_mut(before).wiring.links[ring as usize].after = at;
        }
        let wiring = &mut self.at_mut(at).wiring;
        wiring.links[ring as usize] = Link { before, after: NONE };
        wiring.queues[ring as usize] = Some(queue);
    }

    /// Takes the slot out of whichever queue of this ring it stands in.
    pub(super) fn remove(&mut self, ring: Ring, at: u32) {
        let wiring = &mut self.at_mut(at).wiring;
        let Some(queue) = wiring.queues[ring as usize].take() else { return };
        let Link { before, after } = wiring.links[ring as usize];
        if before != NONE {
            self.at_mut(before).wiring.links[ring as usize].after = after;
        }
        if after != NONE {
            self.at_mut(after).wiring.links[ring as usize].before = before;
        }
        let ends = &mut self.ends[queue as usize];
        ends.len = ends.len.wrapping_sub(1);
        if before == NONE {
            ends.head = after;
        }
        if after == NONE {
            ends.tail = before;
        }
    }
}

#[cfg(test)]
impl Queue {
    pub(super) const ALL: [Self; QUEUES] = [
        Self::Free,
        Self::Fresh,
        Self::Suspect,
        Self::Linked,
        Self::Unconfirmed,
        Self::Gone,
        Self::Asked,
        Self::AskedAgain,
        Self::Probe,
        Self::News,
    ];
}

#[cfg(test)]
impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Table<S> {
    pub(super) fn guess(&self, hash: u64) -> u32 {
        self.hints.guess(hash)
    }

    /// Every queue is linked both ways and sorted, every slot in the right number of queues, every device in the index.
    pub(super) fn check(&self) {
        let capacity = self.capacity() as usize;
        for queue in Queue::ALL {
            let (mut at, mut before, mut count) = (self.ends[queue as usize].head, NONE, 0);
            let mut due = wire_format::time::Instant::ZERO;
            while at != NONE {
                let slot = self.at(at);
                assert_eq!(slot.wiring.queue(queue.ring()), Some(queue), "slot {at} in {queue:?}");
                assert_eq!(slot.wiring.links[queue.ring() as usize].before, before);
                let own_due = match queue {
                    Queue::Fresh | Queue::Suspect | Queue::Unconfirmed | Queue::Gone => slot.lease_due,
                    Queue::Asked | Queue::AskedAgain => slot.ask_due,
                    _ => due,
                };
                assert!(own_due >= due, "{queue:?} is not sorted");
                (due, before, at) = (own_due, at, slot.wiring.links[queue.ring() as usize].after);
                count += 1;
                assert!(count <= capacity, "{queue:?} is a circle");
            }
            assert_eq!(self.ends[queue as usize].tail, before);
            assert_eq!(self.len(queue), count);
        }
        let lease = Queue::ALL.into_iter().filter(|queue| queue.ring() == Ring::Lease);
        assert_eq!(lease.map(|queue| self.len(queue)).sum::<usize>(), capacity);
        for (at, slot) in (0_u32..).zip(self.slots()) {
            let free = slot.wiring.lease_queue() == Some(Queue::Free);
            assert_eq!(slot.id.is_none(), free);
            assert_eq!(self.find(slot.id), if free { None } else { Some(at) });
            let at_host = index::at_host(self, *slot.origin.source.ip()).filter(|found| *found == at).count();
            assert_eq!(at_host, usize::from(!free));
            assert_eq!(slot.ask == super::slot::Ask::Nothing, slot.wiring.queue(Ring::Ask).is_none());
            assert_eq!(slot.news.is_empty(), slot.wiring.queue(Ring::News).is_none());
        }
    }
}
