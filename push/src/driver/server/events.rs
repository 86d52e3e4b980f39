//! What a shard's fleet tells, and who hears of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::fan_out::{Ledger, State};
use super::frame::Frame;
use super::shard::Shard;
use super::stream::Listener;
use super::{Event, stream};
use crate::driver::trace;
use crate::ended::Ended;
use crate::fleet::{DeviceIndex, Event as FleetEvent, Facts};

impl Shard {
    pub(super) fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.fleet.poll_event() {
            match event {
                FleetEvent::Outcome { number, device, first_code, latency, .. } => {
                    self.ended(now, number, device, first_code, latency);
                }
                FleetEvent::Attempt { device, number, code, retry_after } => {
                    self.attempt_ended(now, number, device, code, retry_after);
                }
                FleetEvent::Fenced { device, fence } => {
                    self.announce(device, |id, address| Some(Event::Fenced { id, address, fence }));
                }
                FleetEvent::Log(entry) => self.log(now, entry),
                FleetEvent::Trace(trace) => self.trace(now, trace),
                FleetEvent::Forked { device } => self.forked(device),
                FleetEvent::JournalLost { device } => {
                    self.announce(device, |id, address| Some(Event::JournalLost { id, address }));
                }
                FleetEvent::Unanswered { ask, why, .. } => self.unanswered(ask, why),
                FleetEvent::Settled { number, frame, first, marks } => {
                    self.settled(number, first, frame, marks);
                }
                FleetEvent::Learned { device, id } => self.learned(now, device, id),
                FleetEvent::Connected { device, facts, rebooted } => self.opened(device, &facts, rebooted),
                FleetEvent::Disconnected { device, why } => self.disconnected(device, why),
            }
        }
    }

    /// An order, or an attempt at one, has its outcome on a device.
    fn ended(&mut self, now: Instant, number: u64, device: DeviceIndex, code: Code, latency: Duration) {
        let Some(ledger) = self.fleet.ledger_mut(number) else { return };
        if let Some(chain) = ledger.chain {
            return self.attempt_outcome(now, (number, chain), device, code);
        }
        self.latency.record(latency);
        ledger.latency.record(latency);
        ledger.state.count(code);
        for listener in &ledger.listeners {
            stream::tell(self.index, device, code, Some(latency), listener);
        }
    }

    /// This shard is done with an order. The last one gives its room back and tells who waits.
    pub(super) fn settled(&mut self, number: u64, first: DeviceIndex, frame: Frame, ledger: Ledger) {
        let (pools, len) = (&self.shared.pools, frame.len());
        if let Some(chain) = ledger.chain {
            pools.frames.put(frame);
            pools.recycle(ledger.into_part(first));
            return self.attempt_settled(number, chain);
        }
        let state = Arc::clone(&ledger.state);
        if let Some(frame) = state.settle(self.index, ledger.into_part(first), frame) {
            self.shared.room.release(len, state.durable);
            pools.frames.put(frame);
            self.shared.versions.end(state.supersede_key);
            if state.key != 0 {
                self.shared.keys.settled(self.shared.clock.now(), state.key);
            }
            trace::order_settled(number);
            state.tell();
        }
    }

    /// Tells a listener what there is, and keeps it for what comes.
    pub(super) fn listen(&mut self, state: &State, listener: Listener) {
        let shard = self.index;
        let first = self.fleet.marks(state.number).map(|(first, _)| first);
        match (first, self.fleet.ledger_mut(state.number)) {
            (Some(first), Some(ledger)) => {
                stream::tell_marks(shard, first, &ledger.marks, &listener);
                ledger.listeners.push(listener);
            }
            _ => drop(state.with_part(shard, |part| stream::tell_all(shard, part, &listener))),
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
        if let Some(&position) = self.positions.get(device.0 as usize) {
            self.shared.record_device(position);
        }
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

    pub(super) fn announce(
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
