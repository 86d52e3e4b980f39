//! Storage for the devices of a shard.

use crate::fleet::{DeviceSlot, DeviceStorage, DurableSlot};

/// A slot per device, and one more for each that has got something of the durable log. Room for all of these is reserved at
/// the start, so that none is ever made while sockets wait; memory that was never written to is only promised by the system.
#[derive(Debug)]
pub(super) struct Tables {
    slots: Box<[DeviceSlot]>,
    durable: Vec<DurableSlot>,
    durable_max: usize,
}

impl Tables {
    /// For so many devices, of which so many may have something of the durable log.
    pub(super) fn new(devices: usize, durable_max: usize) -> Self {
        let slots = (0..devices).map(|_| DeviceSlot::EMPTY).collect();
        Self { slots, durable: Vec::with_capacity(durable_max), durable_max }
    }
}

impl DeviceStorage for Tables {
    fn slots(&self) -> &[DeviceSlot] {
        &self.slots
    }

    fn slots_mut(&mut self) -> &mut [DeviceSlot] {
        &mut self.slots
    }

    fn durable(&self) -> &[DurableSlot] {
        &self.durable
    }

    fn durable_mut(&mut self) -> &mut [DurableSlot] {
        &mut self.durable
    }

    fn durable_max(&self) -> usize {
        self.durable_max
    }

    fn grow_durable(&mut self, len: usize) {
        let len = len.min(self.durable_max);
        if len > self.durable.len() {
            self.durable.resize(len, DurableSlot::EMPTY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_the_durable_log_come_one_by_one_up_to_their_limit_and_memory_never_moves() {
        let mut tables = Tables::new(3, 2);
        let before = tables.durable.as_ptr();
        assert_eq!((tables.slots().len(), tables.durable().len(), tables.durable_max()), (3, 0, 2));
        for (asked, there) in [(1, 1), (1, 1), (2, 2), (1, 2), (3, 2)] {
            tables.grow_durable(asked);
            assert_eq!(tables.durable_mut().len(), there);
        }
        assert_eq!(tables.durable.as_ptr(), before);
    }
}
