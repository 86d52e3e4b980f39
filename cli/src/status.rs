//! `tillwire status`: what a running server counts.

use serde_json::{Value, json};

use crate::control::client::Client;
use crate::control::{Endpoint, endpoint};
use crate::error::{Outcome, Verdict};
use crate::out::{self, title};
use crate::push::duration;
use crate::watch::table;

const EXAMPLES: &str = "\
Examples:
  tillwire status
  tillwire status --all --json";

/// Show a running server's devices, live orders, latencies and counters.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
    /// Counters that stand at 0 as well.
    #[arg(long)]
    all: bool,
}

/// Asks once, shows the answer.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let mut client = Client::connect(args.control.as_ref()).await?;
    client.ask(&json!({"do": "stats"})).await?;
    let stats = client.expect().await?;
    if json {
        out::json(&stats);
    } else {
        out::text(&people(&stats, args.all));
    }
    Ok(Verdict::AllRight)
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
    let mut counters = table(&["counter", ""]);
    let mut any = false;
    for (name, count) in stats["push"].as_object().into_iter().flatten() {
        if all || count.as_u64() != Some(0) {
            counters.add_row([name.replace('_', " "), count.to_string()]);
            any = true;
        }
    }
    let counters = if any { format!("\n\n{}\n{counters}", title("since the start")) } else { String::new() };
    format!("{}\n{rows}{counters}\n", title("now"))
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
    }
}
