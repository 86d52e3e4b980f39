//! What a campaign did, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::killer::{Kills, Moment};

/// What was done, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed it was run with.
    pub seed: u64,
    /// What the outbox wrote to.
    pub disk: String,
    /// How long it took.
    pub took: Duration,
    /// Kills by moment: of the server, and of devices.
    pub kills: Kills,
    /// Starts beyond the first: of the server, and of devices.
    pub restarts: [u64; 2],
    /// Orders that were accepted: durable ones, and volatile ones.
    pub orders: [u64; 2],
    /// Durable orders times their devices.
    pub pairs: u64,
    /// Pairs of durable orders by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Pairs of durable orders without a key whose outcome nobody could be asked for.
    pub untold: u64,
    /// Pushes whose answer was lost and that were repeated under their key.
    pub repeated: u64,
    /// Pushes without a key whose answer was lost.
    pub unanswered: u64,
    /// Pushes that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Lines in the devices' ledgers, and how many of them said "redelivered".
    pub handed_over: [u64; 2],
}

impl Report {
    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let kills: BTreeMap<_, _> = self.kills.iter().map(|(moment, n)| (moment.to_string(), n)).collect();
        let [server, devices] = self.killed();
        json!({
            "event": "kill-campaign", "seed": self.seed, "disk": self.disk, "took_s": self.took.as_secs(),
            "kills": server + devices, "kills_server": server, "kills_devices": devices, "kills_by_moment": kills,
            "restarts_server": self.restarts[0], "restarts_devices": self.restarts[1],
            "orders_durable": self.orders[0], "orders_volatile": self.orders[1], "pairs": self.pairs,
            "outcomes": self.outcomes, "untold": self.untold, "repeated": self.repeated,
            "unanswered": self.unanswered, "refused": self.refused, "handed_over": self.handed_over[0],
            "redelivered": self.handed_over[1],
        })
    }

    /// Kills of the server, and of devices.
    #[must_use]
    pub fn killed(&self) -> [u32; 2] {
        let sum = |at: usize| self.kills.values().map(|n| n[at]).sum();
        [sum(0), sum(1)]
    }

    /// Kills at this moment.
    #[must_use]
    pub fn at(&self, moment: Moment) -> u32 {
        self.kills.get(&moment).map_or(0, |n| n.iter().sum())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [server, devices] = self.killed();
        writeln!(
            f,
            "{} kills in {:.0} s on {}: {server} of the server, {devices} of devices (seed {})",
            server + devices,
            self.took.as_secs_f64(),
            self.disk,
            self.seed
        )?;
        for (moment, [server, devices]) in &self.kills {
            writeln!(f, "  {moment:<26} {server:>5} {devices:>5}")?;
        }
        let [durable, volatile] = self.orders;
        writeln!(f, "{} restarts of the server, {} of devices", self.restarts[0], self.restarts[1])?;
        writeln!(f, "{durable} durable orders on {} pairs, {volatile} volatile orders", self.pairs)?;
        for (code, n) in &self.outcomes {
            writeln!(f, "  {code:<26} {n:>5}")?;
        }
        writeln!(f, "  {:<26} {:>5}", "nobody could ask", self.untold)?;
        writeln!(
            f,
            "{} pushes repeated under their key, {} without one left unanswered",
            self.repeated, self.unanswered
        )?;
        for (why, n) in &self.refused {
            writeln!(f, "  refused {n} times: {why}")?;
        }
        let [lines, again] = self.handed_over;
        write!(f, "{lines} orders handed over, {again} of them said to be redelivered")
    }
}
