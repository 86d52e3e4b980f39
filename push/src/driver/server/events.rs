//! What a shard's fleet tells, and who hears of it.

use std::net::SocketAddr;

use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::Event;
use super::fan_out::{Ledger, Part};
use super::frame::Frame;
use super::shard::Shard;
use crate::driver::trace;
use crate::ended::Ended;
use crate::fleet::{DeviceIndex, Event as FleetEvent, Facts};

impl Shard {
    pub(super) fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.fleet.poll_event() {
            match event {
                FleetEvent::Outcome { number, first_code, latency, .. } => {
                    self.latency.record(latency);
                    if let Some(ledger) = self.fleet.ledger_mut(number) {
                        ledger.latency.record(latency);
                        ledger.state.count(first_code);
                    }
                }
                FleetEvent::Attempt { device, number, code, .. } => {
                    let _ = self.fleet.resolve(now, number, device, code);
                }
                FleetEvent::Fenced { .. } | FleetEvent::Unanswered { .. } => {}
                FleetEvent::Settled { frame, first, marks, .. } => self.settled(first, frame, marks),
                FleetEvent::Learned { device, id } => self.learned(now, device, id),
                FleetEvent::Connected { device, facts, rebooted } => self.opened(device, &facts, rebooted),
                FleetEvent::Disconnected { device, why } => self.disconnected(device, why),
            }
        }
    }

    /// This shard is done with an order. The last one gives its room back and tells who waits.
    pub(super) fn settled(&self, first: DeviceIndex, frame: Frame, ledger: Ledger) {
        let Ledger { marks, latency, state } = ledger;
        let len = frame.len();
        if let Some(frame) = state.settle(self.index, Part { first, marks, latency }, frame) {
            self.shared.room.release(len);
            self.shared.pools.frames.put(frame);
            trace::order_settled(state.number);
            state.tell();
        }
    }

    /// A device given by address said who it is. If another shard reaches it already it is refused here, as the fleet
    /// refuses one it reaches at another address itself.
    fn learned(&mut self, now: Instant, device: DeviceIndex, id: NodeId) {
        let place = self.place(device);
        let first = self.shared.update(|directory| {
            if directory.update(place, |entry| entry.id = Some(id)) {
                return None;
            }
            directory.update(place, |entry| entry.id = None);
            directory.find(id)
        });
        if let Some(first) = first {
            self.refused = Some(device);
            self.fleet.refuse_duplicate(now, device, first);
        }
    }

    fn opened(&mut self, device: DeviceIndex, facts: &Facts, rebooted: bool) {
        if self.refused.take_if(|refused| *refused == device).is_some() {
            return;
        }
        let place = self.place(device);
        self.shared.update(|directory| {
            directory.update(place, |entry| {
                entry.id = Some(facts.id);
                entry.kind = facts.kind;
                entry.zone = facts.zone;
                entry.tags = facts.tags;
                entry.connected = true;
            })
        });
        self.announce(device, |id, address| {
            trace::session_opened(facts.id, address, rebooted);
            Some(Event::Connected { id: id?, address: address?, rebooted })
        });
    }

    fn disconnected(&self, device: DeviceIndex, why: Ended) {
        let place = self.place(device);
        let mut was_connected = false;
        self.shared.update(|directory| {
            directory.update(place, |entry| was_connected = core::mem::take(&mut entry.connected))
        });
        self.announce(device, |id, address| {
            trace::session_ended(id, address, why, was_connected);
            Some(Event::Disconnected { id, address, why })
        });
    }

    fn announce(
        &self,
        device: DeviceIndex,
        event: impl FnOnce(Option<NodeId>, Option<SocketAddr>) -> Option<Event>,
    ) {
        let known = self.shared.known(self.place(device));
        if let Some(event) = known.and_then(|(id, address)| event(id, address)) {
            // Nobody listening is not an error.
            let _ = self.shared.events.send(event);
        }
    }
}
