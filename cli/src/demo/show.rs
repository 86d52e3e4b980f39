//! What a demo prints.

use core::fmt::Write;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tillwire::push::config::ANNOUNCED_DIALS_PER_S as LAN_DIALS_PER_S;
use tillwire::{Latency, NodeId};

use super::{ANNOUNCED_DIALS_PER_S, Args, Done};
use crate::json;
use crate::out::{self, FAINT, title};
use crate::push::duration;
use crate::watch::table;

/// Says what is about to happen, and on what terms.
pub(super) fn announce(args: Args, processes: usize) {
    let Args { devices, orders, payload, seed, port_discovery, port_push } = args;
    let housed = match processes {
        0 => "in this process".to_owned(),
        1 => "in a process of their own".to_owned(),
        n => format!("in {n} processes"),
    };
    out::log(&format!("a store server on 127.0.0.1 and {devices} devices on 127.57.x.y, {housed}"));
    out::log(&format!(
        "discovery by broadcast to 127.255.255.255:{port_discovery}, orders over TCP port {port_push}: {orders} orders of \
         about {payload} bytes, seed {seed}"
    ));
    out::log("clear mode: the demo chose --open-network, for nothing leaves this machine");
    out::log(&format!(
        "announced addresses are dialled {ANNOUNCED_DIALS_PER_S} a second, for all are of this machine; on a LAN it would be \
         {LAN_DIALS_PER_S}"
    ));
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Half of the times are no longer than the first, none longer than the second.
fn median_and_last(times: &HashMap<NodeId, Duration>) -> (Duration, Duration) {
    let mut times: Vec<_> = times.values().copied().collect();
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}

impl Done<'_> {
    fn outcomes(&self) -> BTreeMap<String, usize> {
        let mut outcomes = BTreeMap::new();
        for (code, count) in self.pushed.iter().flat_map(|pushed| pushed.report.outcomes()) {
            *outcomes.entry(code.to_string()).or_insert(0) += count;
        }
        outcomes
    }

    fn pairs(&self) -> usize {
        self.pushed.iter().map(|pushed| pushed.report.targets()).sum()
    }

    fn unsettled(&self) -> usize {
        self.pushed.iter().map(|pushed| pushed.report.unsettled()).sum()
    }

    /// Answers to questions about stock.
    fn results(&self) -> usize {
        self.pushed.iter().map(|pushed| pushed.report.results().count()).sum()
    }

    fn latency(&self) -> Latency {
        self.stats.as_ref().map_or_else(Latency::default, |stats| Latency::of(&stats.push.latency))
    }

    fn bytes_out(&self) -> u64 {
        self.stats.as_ref().map_or(0, |stats| stats.push.fleet.bytes_out)
    }

    /// The last line.
    pub(super) fn json(&self) -> Value {
        let (joined_p50, joined_last) = median_and_last(&self.found.joined);
        let (_, connected_last) = median_and_last(&self.found.connected);
        let outcomes: Map<_, _> =
            self.outcomes().into_iter().map(|(code, count)| (code, count.into())).collect();
        json!({
            "event": "summary",
            "devices": self.args.devices,
            "discovered": self.found.joined.len(),
            "discovery_ms": millis(joined_last),
            "discovery_p50_ms": millis(joined_p50),
            "connected": self.found.connected.len(),
            "connected_ms": millis(connected_last),
            "orders": self.pushed.len(),
            "pairs": self.pairs(),
            "outcomes": outcomes,
            "unsettled": self.unsettled(),
            "results": self.results(),
            "questions": self.asked.asked,
            "answers": self.asked.right,
            "latency_us": json::latency(&self.latency()),
            "bytes_out": self.bytes_out(),
            "allocs_per_order": self.allocations_per_order(),
            "secure": false,
            "wrong": self.wrong.json(),
            "restart": self.survived.json(),
            "elapsed_ms": millis(self.took),
            "ok": self.is_right(),
        })
    }

    /// The tables.
    pub(super) fn people(&self) -> String {
        let mut text = String::new();
        let mut devices = table(&["devices", "", "half after", "last after"]);
        for (what, times) in [("found", &self.found.joined), ("connected", &self.found.connected)] {
            let (median, last) = median_and_last(times);
            let count = format!("{} of {}", times.len(), self.args.devices);
            devices.add_row([what.to_owned(), count, duration(micros(median)), duration(micros(last))]);
        }
        let mut orders = table(&["outcome", "pairs"]);
        for (outcome, count) in self.outcomes() {
            orders.add_row([outcome, count.to_string()]);
        }
        if self.unsettled() > 0 {
            orders.add_row(["none yet".to_owned(), self.unsettled().to_string()]);
        }
        let latency = self.latency();
        let mut costs = table(&["push to outcome", ""]);
        for (what, span) in [("p50", latency.p50), ("p99", latency.p99), ("max", latency.max)] {
            costs.add_row([what.to_owned(), duration(micros(span))]);
        }
        costs.add_row(["results of stock questions".to_owned(), self.results().to_string()]);
        let asked = format!("{} of {}", self.asked.right, self.asked.asked);
        costs.add_row(["live questions answered".to_owned(), asked]);
        costs.add_row(["bytes out".to_owned(), self.bytes_out().to_string()]);
        costs.add_row(["allocations per order".to_owned(), format!("{:.2}", self.allocations_per_order())]);
        let accepted =
            format!("{} orders accepted, {} (order, device) pairs", self.pushed.len(), self.pairs());
        let _ = write!(text, "{devices}\n\n{}\n{orders}\n\n{costs}\n\n", title(&accepted));
        let mut restart = table(&["a server that crashed, with an outbox", ""]);
        for (what, count) in self.survived.rows() {
            restart.add_row([what.to_owned(), count]);
        }
        let _ = write!(text, "{restart}\n\n");
        text.push_str(&self.verdict());
        text
    }

    fn verdict(&self) -> String {
        let took = duration(micros(self.took));
        if self.is_right() {
            return format!(
                "{}: every pair ended as planned, by the server's report and by what the devices saw {FAINT}({took}){FAINT:#}\n",
                title("all right")
            );
        }
        let mut text = format!("{}: not every pair ended as planned ({took})\n", title("not right"));
        for (name, count) in self.wrong.json().as_object().into_iter().flatten() {
            let _ = writeln!(text, "  {name}: {count}");
        }
        if !self.survived.is_right() {
            let _ = writeln!(text, "  over the restart: {}", self.survived.json());
        }
        for example in &self.wrong.examples {
            let _ = writeln!(text, "  {example}");
        }
        text
    }
}
