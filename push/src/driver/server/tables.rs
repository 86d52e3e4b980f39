//! Storage for the devices of a shard.

use crate::fleet::{DeviceSlot, DeviceStorage, TrackSlot};

/// A slot per device, and one more for each log it has got something of. Room for all of these is reserved at the start, so
/// that none is ever made while sockets wait; memory that was never written to is only promised by the system.
#[derive(Debug)]
pub(super) struct Tables {
    slots: Box<[DeviceSlot]>,
    logs: Vec<TrackSlot>,
    logs_max: usize,
}

impl Tables {
    /// For so many devices, which may have so many slots of logs.
    pub(super) fn new(devices: usize, logs_max: usize) -> Self {
        let slots = (0..devices).map(|_| DeviceSlot::EMPTY).collect();
        Self { slots, logs: Vec::with_capacity(logs_max), logs_max }
    }
}

impl DeviceStorage for Tables {
    fn slots(&self) -> &[DeviceSlot] {
        &self.slots
    }

    fn slots_mut(&mut self) -> &mut [DeviceSlot] {
        &mut self.slots
    }

    fn logs(&self) -> &[TrackSlot] {
        &self.logs
    }

    fn logs_mut(&mut self) -> &mut [TrackSlot] {
        &mut self.logs
    }

    fn logs_max(&self) -> usize {
        self.logs_max
    }

    fn grow_logs(&mut self, len: usize) {
        let len = len.min(self.logs_max);
        if len > self.logs.len() {
            self.logs.resize(len, TrackSlot::EMPTY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_logs_come_one_by_one_up_to_their_limit_and_memory_never_moves() {
        let mut tables = Tables::new(3, 2);
        let before = tables.logs.as_ptr();
        assert_eq!((tables.slots().len(), tables.logs().len(), tables.logs_max()), (3, 0, 2));
        for (asked, there) in [(1, 1), (1, 1), (2, 2), (1, 2), (3, 2)] {
            tables.grow_logs(asked);
            assert_eq!(tables.logs_mut().len(), there);
        }
        assert_eq!(tables.logs.as_ptr(), before);
    }
}
