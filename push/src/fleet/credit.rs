//! How much more a device takes: its window of orders and bytes, while a write is planned.
//!
//! An order holds an order credit from its first write until SETTLED covers it, over sessions, and its bytes until it is
//! acknowledged. A frozen device holds at most its window, not what the kernel would take.

use wire_format::ids::Lane;

use super::device::DeviceSlot;

/// What a device's window has left, as the plan uses it up.
pub(super) struct Credit {
    held: [u16; 4],
    /// The sum of `held`.
    used: u16,
    /// Of `held`, repetitions that were not planned yet.
    repeats: u16,
    orders: u16,
    bytes: u32,
    bytes_max: u32,
}

impl Credit {
    pub(super) fn new(device: &DeviceSlot) -> Self {
        let [urgent, interactive, normal, bulk] = &device.lanes;
        let held = [urgent.held, interactive.held, normal.held, bulk.held];
        Self {
            held,
            used: held.iter().fold(0, |sum, held| sum.saturating_add(*held)),
            repeats: device.lanes.iter().fold(0, |sum, lane| sum.saturating_add(lane.repeats)),
            orders: if device.is(super::device::flag::NARROW) { 1 } else { device.window_orders },
            bytes: device.bytes,
            bytes_max: device.window_bytes,
        }
    }

    /// Whether one order more may be unsettled: one credit stays for each of lanes 0 and 1 if they use none. One order
    /// may always be under way.
    pub(super) fn allows(&self, lane: Lane) -> bool {
        let used = self.used;
        let [urgent, interactive, ..] = self.held;
        let kept = match lane {
            Lane::Urgent => 0,
            Lane::Interactive => u16::from(urgent == 0),
            Lane::Normal | Lane::Bulk => u16::from(urgent == 0).saturating_add(u16::from(interactive == 0)),
        };
        used == 0 || used.saturating_add(kept) < self.orders
    }

    /// Whether a repetition may go: it has its credit, but the device may have declared a smaller window since.
    pub(super) fn allows_repeat(&self) -> bool {
        self.used.saturating_sub(self.repeats) < self.orders.max(1)
    }

    /// A SETTLED leaves this many credits of the lane in use.
    pub(super) fn settle(&mut self, lane: Lane, left: u16) {
        if let Some(held) = self.held.get_mut(lane.index()) {
            self.used = self.used.saturating_sub(*held).saturating_add(left);
            *held = left;
        }
    }

    /// Whether the bytes may be unacknowledged.
    pub(super) const fn has_bytes(&self, len: u32) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(len) <= self.bytes_max
    }

    pub(super) fn take(&mut self, lane: Lane, len: u32, repeat: bool) {
        if let Some(held) = self.held.get_mut(lane.index()) {
            *held = held.saturating_add(u16::from(!repeat));
            self.used = self.used.saturating_add(u16::from(!repeat));
        }
        self.repeats = self.repeats.saturating_sub(u16::from(repeat));
        self.bytes = self.bytes.saturating_add(len);
    }
}
