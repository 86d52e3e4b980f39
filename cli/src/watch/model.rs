//! What is known of the store: the devices, put together from the server's lines, and what happened last.
//!
//! Time is an argument, so that the same lines at the same times give the same picture: the span since [`ORIGIN`] before
//! the watch began.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::filter::Filter;
use super::line::line;
use crate::json::NOT_OF_ROSTER;

/// How far back a device may have been heard before the watch began: a hundred years.
pub(super) const ORIGIN: Duration = Duration::from_secs(3_155_760_000);
/// Events kept to be shown; a screen has room for fewer.
pub(super) const RECENT_MAX: usize = 64;
/// Seconds over which the rate of events is counted.
const RATE_OVER_S: usize = 10;
/// Devices beyond those listed last before the roster is asked for again: nothing tells that one was forgotten.
const UNLISTED_MAX: usize = 20_000;
/// The names of discovery's states, the worst first.
pub(super) const STATES: [&str; 7] = ["lost", "suspect", "left", "unconfirmed", "fresh", "linked", "listed"];

/// A device as the lines told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) code: String,
    pub(super) kind: String,
    pub(super) zone: u64,
    pub(super) tags: Vec<String>,
    pub(super) address: String,
    /// The address to sort by.
    pub(super) socket: Option<SocketAddr>,
    pub(super) state: String,
    pub(super) via: String,
    pub(super) connected: bool,
    /// Why its last session, or the last attempt at one, ended.
    pub(super) why: String,
    /// The last sign of life.
    pub(super) heard: Option<Duration>,
    /// Name, code, id and address in small letters: what a text is looked for in.
    pub(super) words: String,
    listing: u64,
}

impl Device {
    /// What a line says of a device, by itself.
    pub(super) fn of(told: &Value, now: Duration) -> Self {
        let mut device = Self::default();
        device.learn(told, now);
        device
    }

    /// Takes over what a line says; what it does not mention stays.
    fn learn(&mut self, told: &Value, now: Duration) {
        let text = |field: &mut String, name: &str| {
            if let Some(text) = told[name].as_str() {
                text.clone_into(field);
            }
        };
        text(&mut self.id, "id");
        text(&mut self.name, "name");
        text(&mut self.code, "code");
        text(&mut self.kind, "kind");
        text(&mut self.address, "address");
        text(&mut self.state, "state");
        text(&mut self.via, "via");
        self.socket = self.address.parse().ok();
        self.zone = told["zone"].as_u64().unwrap_or(self.zone);
        if let Some(tags) = told["tags"].as_array() {
            self.tags = tags.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        }
        self.connected = told["connected"].as_bool().unwrap_or(self.connected);
        if let Some(silent_ms) = told["silent_ms"].as_u64() {
            self.heard = Some(now.saturating_sub(Duration::from_millis(silent_ms)));
        }
        self.words = format!("{} {} {} {}", self.name, self.code, self.id, self.address).to_lowercase();
    }

    /// How long nothing was heard of it; `None` if that is not known. An open session vouches for its device.
    pub(super) fn silent(&self, now: Duration) -> Option<Duration> {
        if self.connected { Some(Duration::ZERO) } else { Some(now.saturating_sub(self.heard?)) }
    }

    /// How bad its state is, the worst first.
    pub(super) fn rank(&self) -> usize {
        STATES.iter().position(|state| *state == self.state).unwrap_or(STATES.len())
    }
}

/// The server at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) entity: u64,
    pub(super) store: String,
    pub(super) staging: bool,
}

/// What a line meant for whoever shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// It is about a device that passes, or passed, the filter; or about none.
    pub(super) shown: bool,
    /// Events are missing before this one: so many, as far as that is known.
    pub(super) gap: Option<u64>,
    /// The listing is complete.
    pub(super) listed: bool,
    /// The picture cannot be trusted, or grows without bound: the roster has to be asked for again.
    pub(super) relist: bool,
}

/// Everything the lines said.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) server: Server,
    pub(super) generation: u64,
    /// By id; by address for a device whose id is not known.
    pub(super) devices: BTreeMap<String, Device>,
    /// What happened last, the newest at the end.
    pub(super) recent: VecDeque<(Duration, String)>,
    /// Rises with whatever changes the picture.
    pub(super) version: u64,
    listing: u64,
    listed: usize,
    /// The generation is that of a complete listing, or of an event after it.
    following: bool,
    rate: Rate,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            server: Server::default(),
            generation: 0,
            devices: BTreeMap::new(),
            recent: VecDeque::new(),
            version: 0,
            // A device that was in no listing has 0.
            listing: 1,
            listed: 0,
            following: false,
            rate: Rate::default(),
        }
    }
}

impl Model {
    /// A server's first line: what is known of its devices has to be listed anew.
    pub(super) fn meet(&mut self, hello: &Value) {
        let text = |name: &str| hello[name].as_str().unwrap_or_default().to_owned();
        self.server = Server {
            id: text("server"),
            name: text("name"),
            entity: hello["entity"].as_u64().unwrap_or(0),
            store: text("store"),
            staging: hello["staging"] == true,
        };
        self.following = false;
        self.version += 1;
    }

    /// Takes a line in.
    pub(super) fn apply(&mut self, now: Duration, event: &Value, filter: &Filter) -> Applied {
        self.version += 1;
        match event["event"].as_str().unwrap_or_default() {
            "present" => Applied { shown: self.learn(now, event, filter), ..Applied::default() },
            "listed" => self.end_listing(event),
            "missed" => {
                self.note(now, line(event));
                Applied { shown: true, relist: true, ..Applied::default() }
            }
            name => self.happen(now, name, event, filter),
        }
    }

    /// Something to be shown among the events.
    pub(super) fn note(&mut self, now: Duration, text: String) {
        self.version += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, text));
    }

    /// Events a second, over the last seconds.
    pub(super) fn rate(&self, now: Duration) -> f64 {
        self.rate.per_second(now)
    }

    fn happen(&mut self, now: Duration, name: &str, event: &Value, filter: &Filter) -> Applied {
        self.rate.count(now);
        let gap = if NOT_OF_ROSTER.contains(&name) { None } else { self.follow(event) };
        let shown = match name {
            // Not devices of this roster: a rival server, or whoever was turned away.
            "dual-server" | "server-cloned" => true,
            // Whatever is filtered: orders of every device hang on it.
            "outbox-failed" | "outbox-back" | "outbox-lost" | "forked" | "renewed" | "rollout-ended" => true,
            "refused" => filter.matches(&Device::of(&event["device"], now)),
            "other" => filter.is_empty(),
            _ => self.learn(now, event, filter),
        };
        if shown {
            self.note(now, brief(event));
        }
        let stranger = name == "connected" && event["device"]["kind"].is_null();
        let relist = gap.is_some() || stranger || self.devices.len() > self.listed + UNLISTED_MAX;
        Applied { shown, gap, listed: false, relist }
    }

    /// Follows the generation; how many events are missing before this one, if any are.
    fn follow(&mut self, event: &Value) -> Option<u64> {
        let generation = event["generation"].as_u64()?;
        let missing = generation.saturating_sub(self.generation.saturating_add(1));
        // Events on their way while the roster was listed are in the list already.
        self.generation = generation.max(self.generation);
        (self.following && missing > 0).then_some(missing)
    }

    fn end_listing(&mut self, event: &Value) -> Applied {
        let listing = self.listing;
        self.devices.retain(|_, device| device.listing == listing);
        self.listing += 1;
        self.listed = self.devices.len();
        self.generation = event["generation"].as_u64().unwrap_or(0);
        self.following = true;
        Applied { shown: true, listed: true, ..Applied::default() }
    }

    /// What a line says of its device; whether it passes the filter, or did before.
    fn learn(&mut self, now: Duration, event: &Value, filter: &Filter) -> bool {
        let told = &event["device"];
        let (id, address) = (told["id"].as_str(), told["address"].as_str());
        let Some(key) = id.or(address) else { return filter.is_empty() };
        // Listed by address, and now it has said who it is.
        let before = address
            .filter(|_| id.is_some())
            .and_then(|address| self.devices.remove(address))
            .or_else(|| self.devices.remove(key));
        let passed = before.as_ref().is_some_and(|device| filter.matches(device));
        let mut device = before.unwrap_or_default();
        device.learn(told, now);
        match event["event"].as_str() {
            Some("connected") => device.why.clear(),
            Some("disconnected") => event["why"].as_str().unwrap_or_default().clone_into(&mut device.why),
            _ => {}
        }
        if event["event"] == "present" {
            device.listing = self.listing;
        }
        let passes = filter.matches(&device);
        self.devices.insert(key.to_owned(), device);
        passes || passed
    }
}

/// An event as one line for a screen: the beginning of an id will do.
fn brief(event: &Value) -> String {
    let text = line(event);
    match event["device"]["id"].as_str() {
        Some(id) => text.replacen(id, id.get(..8).unwrap_or(id), 1),
        None => text,
    }
}

/// Events of the last seconds, counted by the second.
#[derive(Debug, Default)]
struct Rate {
    second: u64,
    counts: [u32; RATE_OVER_S],
}

impl Rate {
    fn count(&mut self, now: Duration) {
        let second = now.as_secs();
        // The places of the seconds without events, and this one's, count from nothing.
        for passed in self.second + 1..=second.min(self.second + RATE_OVER_S as u64) {
            self.counts[Self::place(passed)] = 0;
        }
        if second > self.second + RATE_OVER_S as u64 {
            self.counts = [0; RATE_OVER_S];
        }
        self.second = second;
        self.counts[Self::place(second)] += 1;
    }

    /// The place of a second.
    const fn place(second: u64) -> usize {
        (second % RATE_OVER_S as u64) as usize
    }

    fn per_second(&self, now: Duration) -> f64 {
        let now_s = now.as_secs();
        let over = (0..RATE_OVER_S as u64).filter_map(|ago| now_s.checked_sub(ago));
        let count: u32 = over
            .filter(|second| *second <= self.second && self.second - second < RATE_OVER_S as u64)
            .map(|second| self.counts[Self::place(second)])
            .sum();
        f64::from(count) / RATE_OVER_S as f64
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn told(event: &str, generation: u64, device: Value) -> Value {
        json!({"event": event, "generation": generation, "device": device, "changed": []})
    }

    fn listed(devices: &[Value]) -> Model {
        let mut model = Model::default();
        for device in devices {
            model.apply(NOW, &told("present", 5, device.clone()), &Filter::default());
        }
        assert!(model.apply(NOW, &json!({"event": "listed", "generation": 5}), &Filter::default()).listed);
        model
    }

    #[test]
    fn lines_add_up_to_a_device() {
        let mut model = listed(&[json!({"id": "0102", "kind": "till", "zone": 3, "state": "fresh",
                                        "address": "10.0.0.9:8081", "silent_ms": 4_000})]);
        let all = Filter::default();
        assert!(model.apply(NOW, &told("changed", 6, json!({"id": "0102", "name": "Till 3"})), &all).shown);
        let device = &model.devices["0102"];
        assert_eq!((device.name.as_str(), device.kind.as_str(), device.zone), ("Till 3", "till", 3));
        assert_eq!(device.silent(NOW + Duration::from_secs(2)), Some(Duration::from_secs(6)));
        model.apply(
            NOW,
            &told("connected", 6, json!({"id": "0102", "connected": true, "kind": "till"})),
            &all,
        );
        assert_eq!(model.devices["0102"].silent(NOW + Duration::from_secs(9)), Some(Duration::ZERO));
        let mut ended = told("disconnected", 6, json!({"id": "0102", "connected": false, "silent_ms": 0}));
        ended["why"] = "closed".into();
        model.apply(NOW, &ended, &all);
        assert_eq!(model.devices["0102"].why, "closed");
        assert_eq!((model.recent.len(), model.generation), (3, 6));
    }

    #[test]
    fn a_gap_in_the_generation_is_seen_and_what_the_list_had_already_is_none() {
        let mut model = listed(&[]);
        let device = || json!({"id": "0102", "kind": "till"});
        let apply = |model: &mut Model, event, generation| {
            model.apply(NOW, &told(event, generation, device()), &Filter::default())
        };
        assert_eq!(apply(&mut model, "joined", 5).gap, None, "it was on its way while the roster was listed");
        assert_eq!(apply(&mut model, "suspect", 6).gap, None);
        assert_eq!(apply(&mut model, "connected", 6).gap, None, "a session's event has no number of its own");
        let applied = apply(&mut model, "back", 9);
        assert_eq!((applied.gap, applied.relist), (Some(2), true));
        assert_eq!(apply(&mut model, "lost", 10).gap, None);
        let missed =
            model.apply(NOW, &json!({"event": "missed", "generation": 10, "events": 7}), &Filter::default());
        assert!(missed.relist);
        model.meet(&json!({"server": "ff", "store": "PARIS"}));
        assert_eq!(apply(&mut model, "joined", 1).gap, None, "another server counts from its own beginning");
    }

    #[test]
    fn a_listing_takes_away_who_is_not_in_it() {
        let mut model = listed(&[
            json!({"id": "01"}),
            json!({"id": "02"}),
            json!({"id": null, "address": "10.0.0.9:8081"}),
        ]);
        let all = Filter::default();
        assert_eq!(model.devices.len(), 3);
        model.apply(NOW, &told("connected", 5, json!({"id": "03", "address": "10.0.0.9:8081"})), &all);
        assert_eq!(model.devices.len(), 3, "it had been known by its address");
        model.apply(NOW, &told("present", 5, json!({"id": "02"})), &all);
        model.apply(NOW, &json!({"event": "listed", "generation": 5}), &all);
        assert_eq!(model.devices.keys().collect::<Vec<_>>(), ["02"]);
    }

    #[test]
    fn who_is_not_of_this_roster_is_told_and_not_kept() {
        let mut model = listed(&[]);
        let all = Filter::default();
        for event in ["refused", "dual-server", "server-cloned"] {
            assert!(
                model
                    .apply(NOW, &told(event, 6, json!({"id": "0102", "address": "10.0.0.9:8081"})), &all)
                    .shown
            );
        }
        assert!(model.devices.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut model = listed(&[]);
        for n in 0..=UNLISTED_MAX as u64 {
            let event = told("joined", 6 + n, json!({"id": format!("{n:032x}"), "kind": "till"}));
            let applied = model.apply(NOW, &event, &Filter::default());
            assert_eq!(applied.relist, n == UNLISTED_MAX as u64, "{n}");
        }
        assert_eq!(model.recent.len(), RECENT_MAX);
    }

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let mut rate = Rate::default();
        let at = Duration::from_secs;
        assert!(rate.per_second(at(3)) < 0.01);
        for second in [100, 100, 101, 105] {
            rate.count(at(second));
        }
        assert!((rate.per_second(at(105)) - 0.4).abs() < 0.01);
        assert!((rate.per_second(at(110)) - 0.2).abs() < 0.01);
        assert!(rate.per_second(at(115)) < 0.01);
        rate.count(at(400));
        assert!((rate.per_second(at(400)) - 0.1).abs() < 0.01);
    }
}
