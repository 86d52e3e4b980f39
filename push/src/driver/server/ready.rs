//! Which sockets have something to do: one waker per device, one list, one task.
//!
//! The reactor wakes a device's waker; that puts the device's index on the list, once, and wakes the shard's task. So
//! ten thousand sockets need no task, no channel and no allocation of their own after their waker was made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use crate::fleet::DeviceIndex;

/// The list, and whom to wake when it stops being empty.
#[derive(Debug, Default)]
pub(super) struct Ready {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    devices: Vec<DeviceIndex>,
    task: Option<Waker>,
}

impl Ready {
    /// A list with room for `capacity` devices.
    pub(super) fn new(capacity: usize) -> Self {
        let list = List { devices: Vec::with_capacity(capacity), ..List::default() };
        Self { list: Mutex::new(list) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task to wake from now on.
    pub(super) fn register(&self, waker: &Waker) {
        let mut list = self.lock();
        match &mut list.task {
            Some(task) => task.clone_from(waker),
            None => list.task = Some(waker.clone()),
        }
    }

    /// Swaps the list for the empty `devices`, so neither ever allocates. True if anything was there.
    pub(super) fn take(&self, devices: &mut Vec<DeviceIndex>) -> bool {
        debug_assert!(devices.is_empty());
        let mut list = self.lock();
        core::mem::swap(&mut list.devices, devices);
        !devices.is_empty()
    }

    fn push(&self, device: DeviceIndex) {
        let task = {
            let mut list = self.lock();
            list.devices.push(device);
            // The first entry wakes the task; it takes the whole list.
            if list.devices.len() == 1 { list.task.clone() } else { None }
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// The waker of one device.
#[derive(Debug)]
pub(super) struct DeviceWaker {
    ready: Arc<Ready>,
    device: DeviceIndex,
    listed: AtomicBool,
}

impl DeviceWaker {
    pub(super) fn new(ready: &Arc<Ready>, device: DeviceIndex) -> Arc<Self> {
        Arc::new(Self { ready: Arc::clone(ready), device, listed: AtomicBool::new(false) })
    }

    /// The shard looks at the device now: a wake from here on lists it again.
    pub(super) fn unlist(&self) {
        self.listed.store(false, Ordering::Release);
    }
}

impl Wake for DeviceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.ready.push(self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bell::tests::Wakes;
    use super::*;

    #[test]
    fn many_wakes_are_one_entry_and_one_call() {
        let ready = Arc::new(Ready::new(4));
        let wakes = Arc::new(Wakes::default());
        ready.register(&Waker::from(Arc::clone(&wakes)));
        let devices = [0, 1].map(|n| DeviceWaker::new(&ready, DeviceIndex(n)));
        for device in &devices {
            Waker::from(Arc::clone(device)).wake();
            Waker::from(Arc::clone(device)).wake_by_ref();
        }
        let mut taken = Vec::with_capacity(4);
        assert!(ready.take(&mut taken));
        assert_eq!(taken, [DeviceIndex(0), DeviceIndex(1)]);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        taken.clear();
        assert!(!ready.take(&mut taken), "nothing is listed twice");
        devices[1].unlist();
        Waker::from(Arc::clone(&devices[1])).wake();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert!(ready.take(&mut taken));
        assert_eq!(taken, [DeviceIndex(1)]);
    }
}
