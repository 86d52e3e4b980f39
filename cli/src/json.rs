//! The objects of the JSON lines: devices, events, reports. One place, so that every command says the same.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tillwire::discovery::config::Services;
use tillwire::discovery::driver::server::ServerEvent as RosterEvent;
use tillwire::discovery::{Fields, State, What};
use tillwire::push::driver::server::Event as SessionEvent;
use tillwire::push::outbox::Lost;
use tillwire::{
    DeviceInfo, DeviceOutcome, DeviceResult, FanOut, Latency, NodeId, OrderKind, Outcome, Report,
    ServerEvent, Standing, StoreServer, Tags,
};
use tillwire::{Firmware, Service};

use crate::control::request::hex;
use crate::via::Ways;
use crate::{outbox, stock};

/// A device: `{id, name, code, kind, zone, tags, services, firmware, address, via, state, silent_ms, connected}`.
pub(crate) fn device(info: &DeviceInfo, ways: &mut Ways) -> Value {
    let push = &info.push;
    json!({
        "id": push.id.map(|id| id.to_string()),
        "name": info.roster.map_or_else(String::new, |device| device.name.to_string()),
        "code": info.roster.map_or_else(String::new, |device| device.code.to_string()),
        "kind": push.kind.to_string(),
        "zone": push.zone,
        "tags": tags(&push.tags),
        "services": info.roster.map(|device| services(&device.services)),
        "firmware": info.roster.and_then(|device| device.firmware).map(firmware),
        "address": push.address.map(|address| address.to_string()),
        "via": push.address.map(|address| ways.to(address.ip())),
        "state": info.roster.map_or("listed", |device| state(device.state)),
        "silent_ms": info.roster.map(|device| millis(device.silent_for)),
        "connected": push.connected,
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn tags(tags: &Tags) -> Value {
    tags.iter().collect::<Vec<_>>().into()
}

/// `[{id, port, protocol, version}]`, the numbers as announced.
pub(crate) fn services(services: &Services) -> Value {
    let one = |service: Service| json!({"id": service.id, "port": service.port, "protocol": service.protocol, "version": service.version});
    services.iter().map(one).collect::<Vec<_>>().into()
}

/// `VERSION.BUILD`.
fn firmware(firmware: Firmware) -> String {
    format!("{}.{}", firmware.version, firmware.build)
}

const fn state(state: State) -> &'static str {
    match state {
        State::Fresh => "fresh",
        State::Suspect => "suspect",
        State::Linked => "linked",
        State::Unconfirmed => "unconfirmed",
        State::Lost => "lost",
        State::Left => "left",
    }
}

/// A device as discovery alone knows it: turned away, another server's, or just arrived.
fn from_roster(found: &RosterEvent, connected: bool, ways: &mut Ways) -> Value {
    let address = found.event.address.to_string();
    match &found.device {
        Some(device) => json!({
            "id": device.id.to_string(), "name": device.name.to_string(), "code": device.code.to_string(),
            "kind": device.kind.to_string(), "zone": device.zone.unwrap_or(0), "tags": tags(&device.tags), "address": address,
            "services": services(&device.services), "firmware": device.firmware.map(firmware),
            "via": ways.to((*device.address.ip()).into()), "state": state(device.state),
            "silent_ms": millis(device.silent_for), "connected": connected,
        }),
        None => json!({"id": found.event.id.to_string(), "address": address}),
    }
}

/// What was told of each device last: an event of a session names a device by its id alone.
#[derive(Debug, Default)]
pub(crate) struct Known {
    devices: HashMap<NodeId, Value>,
    /// The roster's last generation told; events of sessions carry it too.
    pub(crate) generation: u64,
    refreshed: Option<tokio::time::Instant>,
    pub(crate) ways: Ways,
}

/// Devices remembered at most: twice the largest store. Nothing tells when one is forgotten, so beyond it all are, and
/// asked for again.
const KNOWN_MAX: usize = 20_000;

/// Asking for every device costs; a store that starts up is not asked for each.
const REFRESH_AFTER: Duration = Duration::from_millis(250);

impl Known {
    /// What is known now.
    pub(crate) fn learn(&mut self, infos: &[DeviceInfo]) {
        for info in infos {
            if let Some(id) = info.push.id {
                self.devices.insert(id, device(info, &mut self.ways));
            }
        }
    }

    fn remember(&mut self, id: NodeId, device: Value) {
        if self.devices.len() >= KNOWN_MAX && !self.devices.contains_key(&id) {
            self.devices.clear();
        }
        self.devices.insert(id, device);
    }

    /// An event of the server: `{event, generation, device{…}, changed[…]}` and what belongs to it.
    pub(crate) async fn tell(&mut self, server: &StoreServer, event: &ServerEvent) -> Value {
        if let ServerEvent::Session(SessionEvent::Connected { id, .. }) = event
            && !self.devices.contains_key(id)
            && self.refreshed.is_none_or(|at| at.elapsed() > REFRESH_AFTER)
        {
            self.learn(&server.devices().await);
            self.refreshed = Some(tokio::time::Instant::now());
        }
        match event {
            ServerEvent::Roster(found) => self.tell_roster(found),
            ServerEvent::Session(session) => self.tell_session(session),
            _ => json!({"event": "other", "generation": self.generation}),
        }
    }

    fn tell_roster(&mut self, found: &RosterEvent) -> Value {
        self.generation = found.event.generation;
        let before = self.devices.get(&found.event.id);
        let connected = before.is_some_and(|device| device["connected"] == true);
        let device = from_roster(found, connected, &mut self.ways);
        if found.device.is_some() {
            self.remember(found.event.id, device.clone());
        }
        let what = &found.event.what;
        let mut object = json!({
            "event": what_name(what), "generation": self.generation, "device": device, "changed": changed(what),
        });
        add_details(&mut object, what);
        object
    }

    fn tell_session(&mut self, event: &SessionEvent) -> Value {
        if let Some(of_server) = self.tell_server(event) {
            return of_server;
        }
        let (name, id, address) = match event {
            SessionEvent::Connected { id, address, .. } => ("connected", Some(*id), Some(*address)),
            SessionEvent::Disconnected { id, address, .. } => ("disconnected", *id, *address),
            SessionEvent::Fenced { .. } | SessionEvent::Forked { .. } | SessionEvent::JournalLost { .. } => {
                return self.tell_trouble(event);
            }
            _ => ("other", None, None),
        };
        let mut device = match id.and_then(|id| self.devices.get_mut(&id)) {
            Some(device) => {
                device["connected"] = (name == "connected").into();
                // What the roster makes of the session; it tells no event of its own for it.
                let state = match (name, device["state"].as_str()) {
                    ("connected", Some("fresh" | "suspect" | "unconfirmed" | "lost" | "left")) => {
                        Some("linked")
                    }
                    ("disconnected", Some("linked")) => Some("fresh"),
                    _ => None,
                };
                // Of an attempt that failed nothing new is known.
                device["silent_ms"] = if state.is_some() { 0.into() } else { Value::Null };
                if let Some(state) = state {
                    device["state"] = state.into();
                }
                device.clone()
            }
            None => json!({"id": id.map(|id| id.to_string()), "connected": name == "connected"}),
        };
        if let Some(address) = address {
            device["address"] = address.to_string().into();
        }
        let mut object =
            json!({"event": name, "generation": self.generation, "device": device, "changed": []});
        match event {
            SessionEvent::Connected { rebooted, .. } => object["rebooted"] = (*rebooted).into(),
            SessionEvent::Disconnected { why, .. } => {
                object["why"] = why.name().into();
                object["detail"] = why.to_string().into();
            }
            _ => {}
        }
        object
    }

    /// What is of no single device: the outbox, and rollouts.
    fn tell_server(&self, event: &SessionEvent) -> Option<Value> {
        let object = |name, details: Value| {
            let mut object = json!({"event": name, "generation": self.generation, "device": null});
            for (key, value) in details.as_object().into_iter().flatten() {
                object[key] = value.clone();
            }
            Some(object)
        };
        match event {
            SessionEvent::OutboxFailed { fault } => {
                object("outbox-failed", json!({"error": fault.to_string()}))
            }
            SessionEvent::OutboxBack => object("outbox-back", json!({})),
            SessionEvent::OutboxLost { lost } => {
                let (what, number) = match *lost {
                    Lost::Order(number) => ("order", number),
                    Lost::Key(key) => ("key", key),
                    Lost::Note(note) => ("note", note),
                };
                object("outbox-lost", json!({"what": what, "number": number}))
            }
            SessionEvent::Renewed { lineage, run } => {
                object("renewed", json!({"lineage": lineage.to_string(), "run": outbox::run(*run)}))
            }
            SessionEvent::RolloutEnded { rollout, aborted, stopped, restarts } => {
                let aborted = aborted.map(|aborted| {
                    json!({"step": aborted.step + 1, "failed": aborted.failed, "devices": aborted.devices})
                });
                let details =
                    json!({"rollout": rollout, "aborted": aborted, "stopped": stopped, "restarts": restarts});
                object("rollout-ended", details)
            }
            _ => None,
        }
    }

    /// What a device found out about this server's orders, or this server about the device's.
    fn tell_trouble(&self, event: &SessionEvent) -> Value {
        let (name, id, address) = match event {
            SessionEvent::Fenced { id, address, .. } => ("fenced", id, address),
            SessionEvent::Forked { id, address } => ("forked", id, address),
            SessionEvent::JournalLost { id, address } => ("journal-lost", id, address),
            _ => ("other", &None, &None),
        };
        let known = id.and_then(|id| self.devices.get(&id)).cloned();
        let mut device = known.unwrap_or_else(|| json!({"id": id.map(|id| id.to_string())}));
        if let Some(address) = address {
            device["address"] = address.to_string().into();
        }
        let mut object =
            json!({"event": name, "generation": self.generation, "device": device, "changed": []});
        if let SessionEvent::Fenced { fence, .. } = event {
            object["fence"] = (*fence).into();
        }
        object
    }
}

/// Events of sessions and of the outbox; their generation is that of the last event of the roster.
pub(crate) const NOT_OF_ROSTER: [&str; 11] = [
    "connected",
    "disconnected",
    "fenced",
    "forked",
    "renewed",
    "journal-lost",
    "outbox-failed",
    "outbox-back",
    "outbox-lost",
    "rollout-ended",
    "other",
];

const fn what_name(what: &What) -> &'static str {
    match what {
        What::Joined => "joined",
        What::Changed { .. } => "changed",
        What::Rebooted { .. } => "rebooted",
        What::Moved { .. } => "moved",
        What::Suspect => "suspect",
        What::Back => "back",
        What::Lost => "lost",
        What::Left => "left",
        What::Conflict { .. } => "conflict",
        What::DualServer => "dual-server",
        What::ServerCloned => "server-cloned",
        What::Refused { .. } => "refused",
    }
}

fn changed(what: &What) -> Value {
    let What::Changed { fields } = what else { return json!([]) };
    let names = [
        (Fields::KIND, "kind"),
        (Fields::NAME, "name"),
        (Fields::PORT, "port"),
        (Fields::ZONE, "zone"),
        (Fields::TAGS, "tags"),
        (Fields::SERVICES, "services"),
        (Fields::FIRMWARE, "firmware"),
        (Fields::CAPS, "caps"),
        (Fields::CODE, "code"),
    ];
    names
        .iter()
        .filter(|(field, _)| fields.contains(*field))
        .map(|(_, name)| *name)
        .collect::<Vec<_>>()
        .into()
}

fn add_details(object: &mut Value, what: &What) {
    match what {
        What::Rebooted { before, epoch } => {
            object["epoch_before"] = (*before).into();
            object["epoch"] = (*epoch).into();
        }
        What::Moved { from } => object["from"] = from.to_string().into(),
        What::Conflict { rival } => object["rival"] = rival.to_string().into(),
        What::Refused { why } => object["why"] = why.to_string().into(),
        _ => {}
    }
}

/// `{p50, p99, max}` in microseconds.
pub(crate) fn latency(latency: &Latency) -> Value {
    let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    json!({"p50": us(latency.p50), "p99": us(latency.p99), "max": us(latency.max)})
}

/// How one device stands in a report.
pub(crate) fn result(result: &DeviceResult) -> Value {
    let (outcome, pending) = match result.standing {
        Standing::Ended(code) => (Some(code.to_string()), None),
        Standing::Pending(pending) => (None, Some(pending.to_string())),
    };
    json!({
        "event": "device",
        "device": result.id.map(|id| id.to_string()),
        "address": result.address.map(|address| address.to_string()),
        "outcome": outcome,
        "pending": pending,
    })
}

/// An outcome as it comes, of an order of this kind.
pub(crate) fn outcome(outcome: &DeviceOutcome, kind: OrderKind) -> Value {
    let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let mut line = json!({
        "event": "outcome",
        "device": outcome.id.map(|id| id.to_string()),
        "address": outcome.address.map(|address| address.to_string()),
        "outcome": outcome.code.to_string(),
        "latency_us": outcome.latency.map(us),
    });
    if let Some(result) = &outcome.result {
        add_result(&mut line, kind, result);
    }
    line
}

/// What a device sent as its result: the bytes, and what they say if that is known.
pub(crate) fn add_result(line: &mut Value, kind: OrderKind, result: &[u8]) {
    line["result"] = hex(result).into();
    if kind == OrderKind::STOCK_QUESTION {
        line["stock"] = stock::json(result).unwrap_or_default();
    }
}

/// The last line of a push.
pub(crate) fn report(fan_out: &FanOut, report: &Report) -> Value {
    let outcomes: Map<_, _> =
        report.outcomes().into_iter().map(|(code, n)| (code.to_string(), n.into())).collect();
    let pending: Map<_, _> =
        report.pending().into_iter().map(|(why, n)| (why.to_string(), n.into())).collect();
    json!({
        "event": "summary",
        "order": report.number(),
        "durable": fan_out.durable(),
        "targets": report.targets(),
        "outcomes": outcomes,
        "pending": pending,
        "unsettled": report.unsettled(),
        "latency_us": latency(&report.latency()),
        "ok": report.unsettled() == 0 && report.count(Outcome::APPLIED) == report.targets(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_ids_do_not_stay_for_ever() {
        let mut known = Known::default();
        let id = |n: u32| NodeId(u128::from(n + 1).to_le_bytes());
        for n in 0..u32::try_from(KNOWN_MAX).unwrap() {
            known.remember(id(n), json!({}));
        }
        assert_eq!(known.devices.len(), KNOWN_MAX);
        known.remember(id(0), json!({}));
        assert_eq!(known.devices.len(), KNOWN_MAX, "one that is known needs no room");
        known.remember(id(1 << 20), json!({}));
        assert_eq!(known.devices.len(), 1);
    }
}
