//! From rounds to figures: percentiles, costs per order and device, ratios, and how they are shown.

use serde_json::{Value, json};

use super::contestant::Who;
use super::fanout::Args;
use crate::out;
use crate::push::duration;
use crate::watch::table;

/// One order to all devices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    /// It was applied on every device in time.
    pub(super) complete: bool,
    pub(super) last_ack_us: u64,
    /// Since the round before ended.
    pub(super) cpu_ns: u64,
    pub(super) cpu_ns_to_last_ack: u64,
    pub(super) allocations: u64,
}

/// All rounds of a contestant.
#[derive(Debug)]
pub(super) struct Row {
    who: Who,
    pub(super) user_bytes_per_device: u64,
    pub(super) rounds: Vec<Round>,
}

impl Row {
    pub(super) const fn new(who: Who) -> Self {
        Self { who, user_bytes_per_device: 0, rounds: Vec::new() }
    }

    /// The time within which this part of the rounds had its last answer: the smallest that holds for so many.
    fn last_ack_us(&self, percent: usize) -> u64 {
        let mut times: Vec<_> = self.rounds.iter().map(|round| round.last_ack_us).collect();
        times.sort_unstable();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied().unwrap_or_default()
    }

    /// The sum of something over all rounds, per order and device.
    fn per_order(&self, devices: u32, of: impl Fn(&Round) -> u64) -> f64 {
        let sum: u64 = self.rounds.iter().map(of).sum();
        let orders = self.rounds.len() as f64 * f64::from(devices);
        sum as f64 / orders.max(1.0)
    }
}

/// A whole run.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) args: Args,
    /// Ours, then the yardstick.
    pub(super) rows: [Row; 2],
    pub(super) pinned: bool,
    pub(super) congestion: Option<String>,
    /// What else the machine did as this began.
    pub(super) load_1m: f64,
}

impl Summary {
    /// Every order of every counted round was applied on every device.
    pub(super) fn is_right(&self) -> bool {
        let all = |row: &Row| !row.rounds.is_empty() && row.rounds.iter().all(|round| round.complete);
        self.rows.iter().all(all)
    }

    /// Ours divided by the yardstick, pair by pair; the median.
    fn ratio(&self, of: impl Fn(&Round) -> u64) -> f64 {
        let [ours, raw] = &self.rows;
        let pairs = ours.rounds.iter().zip(&raw.rounds);
        median(pairs.map(|(ours, raw)| of(ours) as f64 / (of(raw) as f64).max(1.0)).collect())
    }

    pub(super) fn print(&self, json: bool) {
        if json {
            self.rows.iter().for_each(|row| out::json(&self.row_json(row)));
            out::json(&self.json());
        } else {
            out::text(&self.people());
        }
    }

    fn row_json(&self, row: &Row) -> Value {
        let Args { devices, payload, rounds, .. } = self.args;
        let per_round = row.per_order(1, |round| round.allocations);
        json!({
            "event": "contestant",
            "bench": "fanout",
            "contestant": row.who.name(),
            "devices": devices,
            "payload": payload,
            "rounds": rounds,
            "last_ack_us": {
                "p50": row.last_ack_us(50), "p99": row.last_ack_us(99), "max": row.last_ack_us(100)
            },
            "cpu_us_per_order": rounded(row.per_order(devices, |round| round.cpu_ns) / 1e3),
            "cpu_us_per_order_to_last_ack":
                rounded(row.per_order(devices, |round| round.cpu_ns_to_last_ack) / 1e3),
            "user_bytes_per_device": row.user_bytes_per_device,
            "allocs_per_order": rounded(row.per_order(devices, |round| round.allocations)),
            "allocs_per_round": rounded(per_round),
        })
    }

    fn json(&self) -> Value {
        let Args { devices, payload, rounds, rest_ms } = self.args;
        json!({
            "event": "summary",
            "bench": "fanout",
            "devices": devices,
            "payload": payload,
            "rounds": rounds,
            "rest_ms": rest_ms,
            "ratio_cpu": rounded(self.ratio(|round| round.cpu_ns)),
            "ratio_cpu_to_last_ack": rounded(self.ratio(|round| round.cpu_ns_to_last_ack)),
            "ratio_last_ack": rounded(self.ratio(|round| round.last_ack_us)),
            "interleaved": true,
            "pinned": self.pinned,
            "congestion": self.congestion,
            "load_1m": self.load_1m,
            "debug_build": cfg!(debug_assertions),
            "ok": self.is_right(),
        })
    }

    fn people(&self) -> String {
        let Args { devices, payload, rounds, rest_ms } = self.args;
        let mut table = table(&[
            "",
            "last ack p50",
            "p99",
            "cpu per order",
            "to last ack",
            "memory per device",
            "allocations per round",
        ]);
        for row in &self.rows {
            table.add_row([
                row.who.name().to_owned(),
                duration(row.last_ack_us(50)),
                duration(row.last_ack_us(99)),
                format!("{:.2} us", row.per_order(devices, |round| round.cpu_ns) / 1e3),
                format!("{:.2} us", row.per_order(devices, |round| round.cpu_ns_to_last_ack) / 1e3),
                format!("{} B", row.user_bytes_per_device),
                format!("{:.1}", row.per_order(1, |round| round.allocations)),
            ]);
        }
        table.add_row([
            "ratio".to_owned(),
            format!("{:.2}", self.ratio(|round| round.last_ack_us)),
            String::new(),
            format!("{:.2}", self.ratio(|round| round.cpu_ns)),
            format!("{:.2}", self.ratio(|round| round.cpu_ns_to_last_ack)),
            String::new(),
            String::new(),
        ]);
        let what = format!(
            "{rounds} rounds of one {payload}-byte order to {devices} devices, {rest_ms} ms of rest after each"
        );
        let how = format!(
            "ratios: tillwire / raw-epoll, median of {rounds} pairs taken in turns; {}; congestion control {}; load {:.1} before",
            if self.pinned { "server and devices on a core each" } else { "not pinned to cores" },
            self.congestion.as_deref().unwrap_or("unknown"),
            self.load_1m,
        );
        let verdict = if self.is_right() { "" } else { "not right: some orders had no outcome in time\n" };
        format!("{}\n{table}\n\n{how}\n{verdict}", out::title(&what))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

/// Four decimals: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(who: Who, figures: &[(u64, u64)]) -> Row {
        let round = |&(last_ack_us, cpu_ns): &(u64, u64)| Round {
            complete: true,
            last_ack_us,
            cpu_ns,
            ..Round::default()
        };
        Row { rounds: figures.iter().map(round).collect(), ..Row::new(who) }
    }

    fn summary() -> Summary {
        Summary {
            args: Args { devices: 10, payload: 200, rounds: 3, rest_ms: 0 },
            rows: [
                row(Who::Tillwire, &[(100, 2_000), (300, 6_000), (200, 1_000)]),
                row(Who::RawEpoll, &[(100, 1_000), (100, 2_000), (100, 1_000)]),
            ],
            pinned: true,
            congestion: None,
            load_1m: 0.0,
        }
    }

    #[test]
    fn ratios_are_medians_of_pairs() {
        let json = summary().json();
        assert_eq!((&json["ratio_cpu"], &json["ratio_last_ack"]), (&json!(2.0), &json!(2.0)), "{json}");
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn figures_are_per_order_and_device() {
        let summary = summary();
        let ours = summary.row_json(&summary.rows[0]);
        assert_eq!(ours["cpu_us_per_order"], 0.3, "9 us in 3 rounds of 10 devices: {ours}");
        assert_eq!(ours["last_ack_us"], json!({"p50": 200, "p99": 300, "max": 300}));
    }

    #[test]
    fn a_round_that_lacks_an_outcome_is_not_right() {
        let mut summary = summary();
        assert!(summary.is_right());
        summary.rows[1].rounds[2].complete = false;
        assert!(!summary.is_right());
        summary.rows[1].rounds.clear();
        assert!(!summary.is_right(), "nothing measured is nothing right");
    }
}
