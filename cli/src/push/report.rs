//! How the outcomes of an order are shown to people.

use serde_json::Value;

use crate::out::{FAINT, title};
use crate::stock;
use crate::watch::table;

/// The line of a device, or of a step of a rollout.
pub(super) fn line(line: &Value) -> String {
    if line["event"] == "step" { step(line) } else { device(line) }
}

fn step(line: &Value) -> String {
    let targets = line["targets"].as_u64().unwrap_or(0);
    let mut text = format!("step {}: order {}, {targets} {}", line["step"], line["order"], plural(targets));
    for (name, prefix) in [("outcomes", ""), ("pending", "pending ")] {
        for (outcome, count) in line[name].as_object().into_iter().flatten() {
            text.push_str(&format!(", {count} {prefix}{outcome}"));
        }
    }
    text
}

fn device(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
    let standing = match line["outcome"].as_str() {
        Some(outcome) => outcome.to_owned(),
        None => format!("pending: {}", text("pending")),
    };
    let standing = match (&line["stock"], line["result"].as_str()) {
        (stock @ Value::Object(_), _) => format!("{standing}, {}", stock::people(stock)),
        (_, Some(result)) => format!("{standing}, result {result}"),
        _ => standing,
    };
    format!("{:<32}  {:<21}  {standing}", text("device"), text("address"))
}

/// The table of outcomes, and the latency below it.
pub(super) fn summary(summary: &Value) -> String {
    let mut rows = table(&["outcome", "devices"]);
    for (name, prefix) in [("outcomes", ""), ("pending", "pending: ")] {
        for (outcome, count) in summary[name].as_object().into_iter().flatten() {
            rows.add_row([format!("{prefix}{outcome}"), count.to_string()]);
        }
    }
    let targets = summary["targets"].as_u64().unwrap_or(0);
    let what = match summary["orders"].as_array() {
        Some(steps) => {
            format!("rollout, {} {}", steps.len(), if steps.len() == 1 { "step" } else { "steps" })
        }
        None => {
            let durable = if summary["durable"] == true { "durable" } else { "volatile" };
            format!("order {} ({durable})", summary["order"])
        }
    };
    if let Some(devices @ 1..) = summary["not_reached"].as_u64() {
        rows.add_row(["not reached".to_owned(), devices.to_string()]);
    }
    let head = title(&format!("{what}, {targets} {}", plural(targets)));
    let latency = &summary["latency_us"];
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    let ended = targets.saturating_sub(count("unsettled") + count("not_reached"));
    let latency = if ended == 0 {
        "no outcome in the time waited; the order stays on its way within its lifetime".to_owned()
    } else {
        let of = |name: &str| duration(latency[name].as_u64().unwrap_or(0));
        format!("latency  p50 {}  p99 {}  max {}", of("p50"), of("p99"), of("max"))
    };
    let aborted = match &summary["aborted"] {
        aborted @ Value::Object(_) => format!(
            "stopped at {} %: {} of {} devices of that step failed\n",
            aborted["percent"], aborted["failed"], aborted["devices"]
        ),
        _ => String::new(),
    };
    format!("{head}\n{rows}\n{aborted}{FAINT}{latency}{FAINT:#}\n")
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "device" } else { "devices" }
}

/// Microseconds in the unit people read best.
pub(crate) fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us / 100 % 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us / 10_000 % 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_summary_names_outcomes_and_what_is_pending() {
        let text = summary(&json!({
            "order": 7, "durable": true, "targets": 3, "outcomes": {"applied": 2}, "pending": {"unreachable": 1}, "unsettled": 1,
            "latency_us": {"p50": 950, "p99": 1_234, "max": 2_500_000},
        }));
        let text = anstream::adapter::strip_str(&text).to_string();
        for part in [
            "order 7 (durable), 3 devices",
            "applied",
            "pending: unreachable",
            "p50 950 µs  p99 1.2 ms  max 2.50 s",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_rollout_that_was_stopped_says_where() {
        let text = summary(&json!({
            "order": 8, "orders": [7, 8], "targets": 10, "outcomes": {"applied": 1, "failed": 1}, "pending": {},
            "unsettled": 0, "not_reached": 8, "aborted": {"step": 2, "percent": 20, "failed": 1, "devices": 1},
            "latency_us": {"p50": 950, "p99": 1_234, "max": 2_000},
        }));
        let text = anstream::adapter::strip_str(&text).to_string();
        for part in ["rollout, 2 steps, 10 devices", "not reached", "stopped at 20 %: 1 of 1 devices", "950"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        let step = json!({
            "event": "step", "step": 2, "order": 8, "targets": 1, "outcomes": {"failed": 1}, "pending": {},
        });
        assert_eq!(line(&step), "step 2: order 8, 1 device, 1 failed");
    }
}
