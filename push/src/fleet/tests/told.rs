//! What a test asks its world afterwards.

use super::*;

impl World {
    pub(super) fn mark(&self, number: u64, index: usize) -> Mark {
        let (first, marks) = self.fleet.marks(number).expect("live");
        Mark(marks[index - first.0 as usize])
    }

    pub(super) fn outcomes(&self) -> Vec<(u32, u64, Code)> {
        let told = |event: &TestEvent| match event {
            Event::Outcome { device, number, first_code, .. } => Some((device.0, *number, *first_code)),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    pub(super) fn settled(&self) -> Vec<u64> {
        let told = |event: &TestEvent| match event {
            Event::Settled { number, .. } => Some(*number),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    pub(super) fn ends(&self) -> Vec<(u32, Ended)> {
        let told = |event: &TestEvent| match event {
            Event::Disconnected { device, why } => Some((device.0, *why)),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }
}
