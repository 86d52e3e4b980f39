//! The table of devices: reached by number, found by id.

use wire_format::ids::NodeId;

use super::device::DeviceSlot;
use super::list::{Link, NONE, Nodes};
use super::wheel::Timers;

/// Owned storage of device slots: `Box<[DeviceSlot]>` on a server, an array elsewhere.
pub trait DeviceStorage: AsRef<[DeviceSlot]> + AsMut<[DeviceSlot]> {}

impl<D: AsRef<[DeviceSlot]> + AsMut<[DeviceSlot]>> DeviceStorage for D {}

/// The device slots, reached by number. A number outside of them (a fault of ours) reads a slot nobody uses.
#[derive(Debug)]
pub(crate) struct Devices<D> {
    slots: D,
    spare: DeviceSlot,
}

impl<D: DeviceStorage> Devices<D> {
    pub(crate) fn new(mut slots: D) -> Self {
        slots.as_mut().fill(DeviceSlot::EMPTY);
        Self { slots, spare: DeviceSlot::EMPTY }
    }

    pub(crate) fn len(&self) -> u32 {
        // The two highest numbers mean "no slot".
        u32::try_from(self.slots.as_ref().len()).unwrap_or(u32::MAX).min(u32::MAX - 2)
    }

    #[inline]
    pub(crate) fn at(&self, index: u32) -> &DeviceSlot {
        self.slots.as_ref().get(index as usize).unwrap_or(&self.spare)
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut DeviceSlot {
        self.slots.as_mut().get_mut(index as usize).unwrap_or(&mut self.spare)
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
