//! One order to every device, with an outbox and without one, in turns.

use std::path::Path;

use serde_json::{Value, json};

use super::super::contestant::Who;
use super::super::duel::{self, Duel, Setup};
use super::super::figures::{Row, Spread, ratio, rounded};
use super::super::machine;
use super::super::peers::Window;
use super::{Args, RATIO_BUDGET};
use crate::error::Failure;
use crate::out;
use crate::push::duration;
use crate::watch::table;

pub(super) fn run(args: &Args, dir: &Path, json: bool) -> Result<bool, Failure> {
    let Args { devices, payload, rest_ms, rounds, .. } = *args;
    let setup = Setup { devices, payload, orders: 1, rest_ms, window: Window::WIDE };
    let who = [Who::Durable, Who::Tillwire];
    let duel = duel::between(who, Some(&dir.join("fanout")), setup, rounds, "durable fan-out")?;
    let shown = Shown { setup, rounds, duel };
    if json {
        shown.duel.rows.iter().for_each(|row| out::json(&shown.row_json(row)));
        out::json(&shown.json());
    } else {
        out::text(&shown.people());
    }
    Ok(shown.is_right())
}

struct Shown {
    setup: Setup,
    rounds: u32,
    duel: Duel,
}

impl Shown {
    fn is_right(&self) -> bool {
        self.duel.rows.iter().all(Row::is_right)
    }

    fn cpu(&self) -> Spread {
        ratio(&self.duel.rows, |round| round.process_cpu_ns as f64)
    }

    fn time(&self) -> Spread {
        ratio(&self.duel.rows, |round| round.last_ack_us as f64)
    }

    fn within_budget(&self) -> bool {
        self.cpu().median <= RATIO_BUDGET && self.time().median <= RATIO_BUDGET
    }

    fn row_json(&self, row: &Row) -> Value {
        let orders = f64::from(self.setup.devices);
        let cpu = row.spread(orders * 1e3, |round| round.process_cpu_ns);
        json!({
            "event": "contestant",
            "bench": "durable-fanout",
            "contestant": row.who.name(),
            "devices": self.setup.devices,
            "payload": self.setup.payload,
            "rounds": self.rounds,
            "last_ack_us": {
                "p50": row.last_ack_us(50), "p99": row.last_ack_us(99), "max": row.last_ack_us(100)
            },
            "cpu_us_per_order_median": rounded(cpu.median),
            "cpu_us_per_order_quarters": cpu.json(),
            "socket_thread_cpu_us_per_order_median":
                rounded(row.spread(orders * 1e3, |round| round.cpu_ns).median),
            "commits_per_round": rounded(row.per_order(1.0, |round| round.commits)),
            "socket_thread_allocs_per_round": rounded(row.per_order(1.0, |round| round.allocations)),
        })
    }

    fn json(&self) -> Value {
        json!({
            "event": "summary",
            "bench": "durable-fanout",
            "devices": self.setup.devices,
            "payload": self.setup.payload,
            "rounds": self.rounds,
            "rest_ms": self.setup.rest_ms,
            "ratio_cpu": rounded(self.cpu().median),
            "ratio_cpu_quarters": self.cpu().json(),
            "ratio_last_ack": rounded(self.time().median),
            "ratio_last_ack_quarters": self.time().json(),
            "interleaved": true,
            "pinned": self.duel.pinned,
            "load_1m": self.duel.load_1m,
            "debug_build": cfg!(debug_assertions),
            "within_budget": self.within_budget(),
            "ok": self.is_right(),
        })
    }

    fn people(&self) -> String {
        let Setup { devices, payload, rest_ms, .. } = self.setup;
        let orders = f64::from(devices);
        let mut table =
            table(&["", "last ack p50", "p99", "cpu per order", "of the socket thread", "commits per round"]);
        for row in &self.duel.rows {
            table.add_row([
                row.who.name().to_owned(),
                duration(row.last_ack_us(50)),
                duration(row.last_ack_us(99)),
                format!("{} us", row.spread(orders * 1e3, |round| round.process_cpu_ns).people()),
                format!("{:.2} us", row.spread(orders * 1e3, |round| round.cpu_ns).median),
                format!("{:.1}", row.per_order(1.0, |round| round.commits)),
            ]);
        }
        table.add_row(["ratio".to_owned(), self.time().people(), String::new(), self.cpu().people()]);
        let what = format!(
            "{} rounds of one {payload}-byte order to {devices} devices, {rest_ms} ms of rest after each",
            self.rounds
        );
        let verdict = if self.is_right() { "" } else { "not right: some orders had no outcome in time\n" };
        let how = self.duel.how(machine::congestion().as_deref());
        format!("{}\n{table}\n\n{how}\n{verdict}", out::title(&what))
    }
}
