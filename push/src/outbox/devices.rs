//! What is known of devices, by their number: numbers are given from 0 on, so a table without gaps is the smallest place.

use super::book::Known;

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
}
