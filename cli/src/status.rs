//! `tillwire status`: what a running server counts, or how one device stands.

use serde_json::{Value, json};

use crate::control::client::Client;
use crate::control::{Endpoint, endpoint};
use crate::error::{Outcome, Verdict};
use crate::names;
use crate::out::{self, title};
use crate::push::duration;
use crate::watch::table;

const EXAMPLES: &str = "\
Examples:
  tillwire status
  tillwire status 6f9619ff
  tillwire status --all --json";

/// Show a running server's devices, live orders, latencies and counters; or how one device stands.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A device: its id, or the first digits of it (8 or more).
    #[arg(value_name = "ID", value_parser = names::id_prefix)]
    device: Option<String>,
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
    /// Counters that stand at 0 as well.
    #[arg(long, conflicts_with = "device")]
    all: bool,
}

/// Asks once, shows the answer.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let mut client = Client::connect(args.control.as_ref()).await?;
    let request = match &args.device {
        Some(device) => json!({"do": "view", "device": device}),
        None => json!({"do": "stats"}),
    };
    client.ask(&request).await?;
    let answer = client.expect().await?;
    if json {
        out::json(&answer);
    } else if args.device.is_some() {
        out::text(&one(&answer));
    } else {
        out::text(&people(&answer, args.all));
    }
    Ok(Verdict::AllRight)
}

/// How one device stands.
fn one(view: &Value) -> String {
    let (device, window) = (&view["device"], &view["window"]);
    let text = |name: &str| device[name].as_str().unwrap_or("-").to_owned();
    let mut session = view["session"].as_str().unwrap_or("-").to_owned();
    for (name, words) in [("suspect", ", silent although it should answer"), ("draining", ", about to leave")]
    {
        if view[name] == true {
            session.push_str(words);
        }
    }
    let mut rows = table(&["", ""]);
    rows.add_row(["address".to_owned(), text("address")]);
    rows.add_row(["kind, zone".to_owned(), format!("{}, {}", text("kind"), device["zone"])]);
    rows.add_row(["seen by discovery".to_owned(), text("state")]);
    rows.add_row(["session".to_owned(), session]);
    rows.add_row(["round trip".to_owned(), view["rtt_us"].as_u64().map_or_else(|| "-".to_owned(), duration)]);
    for (what, name) in [
        ("orders to be written", "owed"),
        ("orders written, no outcome yet", "out"),
        ("orders to be tried again", "retried"),
    ] {
        rows.add_row([what.to_owned(), view[name].to_string()]);
    }
    for (what, name, used) in
        [("window, orders", "orders", "orders_used"), ("window, bytes", "bytes", "bytes_used")]
    {
        rows.add_row([what.to_owned(), format!("{} of {}", window[used], window[name])]);
    }
    for (what, name) in [
        ("sessions", "sessions"),
        ("orders written again", "replays"),
        ("times silent", "suspects"),
        ("sessions that ended so", "deads"),
        ("orders that ended as poison", "poisons"),
    ] {
        rows.add_row([what.to_owned(), view["counters"][name].to_string()]);
    }
    format!("{}\n{rows}\n", title(&format!("{} {}", text("id"), text("name"))))
}

fn people(stats: &Value, all: bool) -> String {
    let number = |name: &str| stats[name].as_u64().unwrap_or(0);
    let mut rows = table(&["", ""]);
    for (what, name) in [
        ("devices", "devices"),
        ("connected", "connected"),
        ("live orders", "live_orders"),
        ("shards", "shards"),
    ] {
        rows.add_row([what.to_owned(), number(name).to_string()]);
    }
    for quantile in ["p50", "p99", "max"] {
        let us = stats["latency_us"][quantile].as_u64().unwrap_or(0);
        rows.add_row([format!("push to outcome, {quantile}"), duration(us)]);
    }
    let outbox = match &stats["outbox"] {
        outbox @ Value::Object(_) => outbox_rows(outbox),
        _ => "\n\norders are kept in memory and end with the server".to_owned(),
    };
    let rollouts: String = stats["rollouts"].as_array().into_iter().flatten().map(rollout_line).collect();
    let mut counters = table(&["counter", ""]);
    let mut any = false;
    for (name, count) in stats["push"].as_object().into_iter().flatten() {
        if all || count.as_u64() != Some(0) {
            counters.add_row([name.replace('_', " "), count.to_string()]);
            any = true;
        }
    }
    let counters = if any { format!("\n\n{}\n{counters}", title("since the start")) } else { String::new() };
    format!("{}\n{rows}{outbox}{rollouts}{counters}\n", title("now"))
}

/// A rollout that goes on.
fn rollout_line(rollout: &Value) -> String {
    if rollout["running"] != true {
        return String::new();
    }
    let steps = |name: &str| rollout[name].as_array().map_or(0, Vec::len);
    let restarts = match rollout["restarts"].as_u64() {
        Some(0) | None => String::new(),
        Some(restarts) => format!(", over {restarts} restarts of the server"),
    };
    let (number, targets) = (&rollout["rollout"], &rollout["targets"]);
    format!(
        "\nrollout {number}: step {} of {}, {targets} devices in all{restarts}; tillwire cancel {number} stops it",
        steps("orders"),
        steps("steps")
    )
}

/// The orders that survive the server.
fn outbox_rows(outbox: &Value) -> String {
    let number = |name: &str| outbox[name].as_u64().unwrap_or(0);
    let mib = |name: &str| format!("{}.{} MiB", number(name) >> 20, ((number(name) % (1 << 20)) * 10) >> 20);
    let mut rows = table(&["", ""]);
    rows.add_row(["on disk, of at most".to_owned(), format!("{} of {}", mib("bytes"), mib("cap_bytes"))]);
    rows.add_row(["needed".to_owned(), mib("live_bytes")]);
    rows.add_row(["live orders".to_owned(), number("orders").to_string()]);
    if let Some(seconds) = outbox["oldest_s"].as_u64() {
        rows.add_row(["the oldest is".to_owned(), format!("{seconds} s old")]);
    }
    rows.add_row(["keys of ended orders".to_owned(), number("keys").to_string()]);
    for (what, name) in
        [("records written", "appends"), ("in commits", "commits"), ("commits that failed", "failed")]
    {
        rows.add_row([what.to_owned(), number(name).to_string()]);
    }
    for name in ["lineage", "run"] {
        rows.add_row([name.to_owned(), outbox[name].as_str().unwrap_or("-").to_owned()]);
    }
    let directory = outbox["directory"].as_str().unwrap_or_default();
    format!("\n\n{}\n{rows}", title(&format!("outbox {directory}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_at_zero_are_for_whoever_asks() {
        let stats = json!({
            "devices": 3, "connected": 2, "live_orders": 1, "shards": 2, "latency_us": {"p50": 950, "p99": 1, "max": 2},
            "push": {"orders_sent": 7, "broken": 0},
        });
        let text = anstream::adapter::strip_str(&people(&stats, false)).to_string();
        assert!(
            text.contains("orders sent") && text.contains("950 µs") && !text.contains("broken"),
            "{text}"
        );
        assert!(people(&stats, true).contains("broken"));
        assert!(text.contains("in memory"), "{text}");
    }

    #[test]
    fn an_outbox_is_shown_with_its_room_and_its_age() {
        let text = people(
            &json!({"outbox": {
                "directory": "/var/lib/tillwire/outbox", "bytes": 17_301_504, "cap_bytes": 4_294_967_296_u64,
                "live_bytes": 1_024, "orders": 3, "keys": 2, "oldest_s": 61, "appends": 9, "commits": 4, "failed": 1,
                "lineage": "0102", "run": "ff",
            }}),
            false,
        );
        let text = anstream::adapter::strip_str(&text).to_string();
        for part in ["/var/lib/tillwire/outbox", "16.5 MiB of 4096.0 MiB", "61 s old", "0102"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn one_device_is_shown_with_its_window_and_its_counters() {
        let text = one(&json!({
            "device": {"id": "6f96", "name": "Till 3", "kind": "till", "zone": 3, "address": "10.0.0.9:8081"},
            "session": "open", "suspect": true, "draining": false, "owed": 4, "out": 2, "retried": 0, "rtt_us": 1_500,
            "window": {"orders": 16, "orders_used": 2, "bytes": 65_536, "bytes_used": 0},
            "counters": {"sessions": 7, "replays": 0, "suspects": 1, "deads": 0, "poisons": 0},
        }));
        let text = anstream::adapter::strip_str(&text).to_string();
        for part in ["Till 3", "open, silent", "1.5 ms", "2 of 16", "0 of 65536"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
