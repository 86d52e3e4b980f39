//! How much more a device takes: its window of orders and bytes, while a write is planned.
//!
//! An order holds an order credit from its first write until SETTLED covers it, over sessions, and its bytes until it is
//! acknowledged. A frozen device holds at most its window, not what the kernel would take.

use wire_format::ids::Lane;

use super::device::DeviceSlot;
use super::devices::{DeviceStorage, Devices};
use super::track::Track;

/// What a device's window has left, as the plan uses it up.
#[derive(Clone, Copy)]
pub(super) struct Credit {
    /// Credits in use by orders of lanes 0 and 1.
    urgent: u16,
    interactive: u16,
    /// All credits in use.
    used: u16,
    /// Of these, orders of the durable log without a logged end; and of those, the ones that ended.
    durable: u16,
    waiting: u16,
    orders: u16,
    bytes: u32,
    bytes_max: u32,
    /// Whether any order is owed.
    pub(super) owed: bool,
}

/// Half of a window, and at least one order.
const fn durable_of(orders: u16) -> u16 {
    if orders < 2 { 1 } else { orders / 2 }
}

impl Credit {
    /// The orders the device's window takes now.
    const fn orders_of(device: &DeviceSlot) -> u16 {
        if device.is(super::device::flag::NARROW) { 1 } else { device.window_orders }
    }

    /// How many of them may be of the durable log, without a logged end.
    pub(super) const fn durable_max(device: &DeviceSlot) -> u16 {
        durable_of(Self::orders_of(device))
    }

    pub(super) fn new(devices: &Devices<impl DeviceStorage>, index: u32) -> Self {
        let device = devices.at(index);
        let mut credit = Self {
            urgent: 0,
            interactive: 0,
            used: 0,
            durable: 0,
            waiting: device.waiting,
            orders: Self::orders_of(device),
            bytes: device.bytes,
            bytes_max: device.window_bytes,
            owed: device.is_owed(),
        };
        for track in device.busy() {
            let state = devices.track(index, track);
            credit.add(track, state.held);
            let durable = if track.is_durable() { state.holding() } else { 0 };
            credit.durable = credit.durable.saturating_add(durable);
        }
        credit
    }

    const fn add(&mut self, track: Track, held: u16) {
        self.used = self.used.saturating_add(held);
        match track.lane() {
            Lane::Urgent => self.urgent = self.urgent.saturating_add(held),
            Lane::Interactive => self.interactive = self.interactive.saturating_add(held),
            Lane::Normal | Lane::Bulk => {}
        }
    }

    /// Whether one order more may be unsettled: one credit stays for each of lanes 0 and 1 if they use none. One order
    /// may always be under way; those that only wait for the log are not.
    pub(super) fn allows(&self, lane: Lane) -> bool {
        let kept = match lane {
            Lane::Urgent => 0,
            Lane::Interactive => u16::from(self.urgent == 0),
            Lane::Normal | Lane::Bulk => {
                u16::from(self.urgent == 0).saturating_add(u16::from(self.interactive == 0))
            }
        };
        let room = self.used.saturating_add(kept) < self.orders;
        room || self.used == 0 || self.used <= self.waiting && self.used < self.orders
    }

    /// Whether one order more of the durable log may be without a logged end: half of the window, so that a log that
    /// takes nothing more leaves the other half to what is volatile.
    pub(super) fn allows_durable(&self) -> bool {
        self.durable < durable_of(self.orders)
    }

    /// A SETTLED gives credits of a track back: it had `held`, and keeps `left`.
    pub(super) const fn settle(&mut self, track: Track, held: u16, left: u16) {
        let back = held.saturating_sub(left);
        self.used = self.used.saturating_sub(back);
        match track.lane() {
            Lane::Urgent => self.urgent = self.urgent.saturating_sub(back),
            Lane::Interactive => self.interactive = self.interactive.saturating_sub(back),
            Lane::Normal | Lane::Bulk => {}
        }
    }

    /// Whether the bytes may be unacknowledged.
    pub(super) const fn has_bytes(&self, len: u32) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(len) <= self.bytes_max
    }

    pub(super) fn take(&mut self, track: Track, len: u32) {
        self.add(track, 1);
        self.durable = self.durable.saturating_add(u16::from(track.is_durable()));
        self.bytes = self.bytes.saturating_add(len);
    }
}
