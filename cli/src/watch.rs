//! `tillwire watch`: the roster as it changes. Lines for pipes and programs, a table for a terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};

use crate::control::client::Client;
use crate::control::{Endpoint, endpoint};
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// The table is drawn again at most this often.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Lines above and below the devices.
const LINES_AROUND: usize = 6;

const EXAMPLES: &str = "\
Examples:
  tillwire watch
  tillwire watch --json --control /run/tillwire.sock";

/// Show the devices a running server knows, then every change.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
    /// Show the devices as they are now, and end.
    #[arg(long)]
    once: bool,
}

/// Runs until told to end, or the server goes.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let mut end = start::End::listen()?;
    let mut client = Client::connect(args.control.as_ref()).await?;
    client.ask(&json!({"do": if args.once { "roster" } else { "watch" }})).await?;
    let drawn = !json && !args.once && std::io::stdout().is_terminal();
    let mut view = View { drawn, json, ..View::default() };
    let mut redraw = tokio::time::interval(DRAW_EVERY);
    loop {
        tokio::select! {
            () = end.told() => return Ok(Verdict::AllRight),
            line = client.next() => match line? {
                Some(line) => {
                    let listed = line["event"] == "listed";
                    view.take(line);
                    if args.once && listed {
                        return Ok(Verdict::AllRight);
                    }
                }
                None => {
                    view.draw();
                    return Err(Failure::broken("the server has ended", "start it again with tillwire serve"));
                }
            },
            _ = redraw.tick(), if drawn => view.draw(),
        }
    }
}

#[derive(Debug, Default)]
struct View {
    drawn: bool,
    json: bool,
    changed: bool,
    devices: BTreeMap<String, Value>,
    last: String,
}

impl View {
    fn take(&mut self, event: Value) {
        if self.json {
            return out::json(&event);
        }
        if !self.drawn {
            return out::line(&line(&event));
        }
        self.changed = true;
        if event["event"] != "present" {
            self.last = line(&event);
        }
        let device = &event["device"];
        if let Some(key) = device["id"].as_str().or_else(|| device["address"].as_str()) {
            let device = self.devices.entry(key.to_owned()).or_default();
            match (device, &event["device"]) {
                (Value::Object(known), Value::Object(new)) => known.extend(new.clone()),
                (device, new) => *device = new.clone(),
            }
        }
    }

    fn draw(&mut self) {
        if !self.drawn || !core::mem::take(&mut self.changed) {
            return;
        }
        let rows =
            rustix::termios::tcgetwinsize(std::io::stdout()).map_or(24, |size| usize::from(size.ws_row));
        let mut table = table(&["id", "kind", "zone", "tags", "address", "state", "session", "name"]);
        let shown = rows.saturating_sub(LINES_AROUND).max(1);
        for device in self.devices.values().take(shown) {
            table.add_row(row(device));
        }
        let connected = self.devices.values().filter(|device| device["connected"] == true).count();
        let more = self.devices.len().saturating_sub(shown);
        let more = if more > 0 { format!(", {more} more not shown") } else { String::new() };
        // Home, and clear what is below: the table replaces the one before.
        out::text(&format!(
            "\x1b[H\x1b[J{} devices, {connected} connected{more}\n{table}\n{}\n",
            self.devices.len(),
            self.last
        ));
    }
}

/// A table without borders, its heads in bold.
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(heads.to_vec());
    table
}

fn row(device: &Value) -> Vec<String> {
    let text = |name: &str| match &device[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let tags = device["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let session = if device["connected"] == true { "connected" } else { "-" };
    vec![
        text("id").chars().take(12).collect(),
        text("kind"),
        text("zone"),
        tags.collect::<Vec<_>>().join(","),
        text("address"),
        text("state"),
        session.to_owned(),
        text("name"),
    ]
}

/// An event as one line for people.
pub(crate) fn line(event: &Value) -> String {
    let device = &event["device"];
    let mut words = Vec::new();
    for name in ["id", "address", "kind", "zone", "state"] {
        match &device[name] {
            Value::String(text) if !text.is_empty() => words.push(text.clone()),
            Value::Number(number) => words.push(format!("zone {number}")),
            _ => {}
        }
    }
    for name in ["why", "detail", "from", "rival", "devices", "events"] {
        match &event[name] {
            Value::String(text) => words.push(format!("{name} {text}")),
            Value::Number(number) => words.push(format!("{name} {number}")),
            _ => {}
        }
    }
    let changed: Vec<_> =
        event["changed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !changed.is_empty() {
        words.push(format!("changed {}", changed.join(" and ")));
    }
    format!("{:<13} {}", event["event"].as_str().unwrap_or("?"), words.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_and_what() {
        let event = json!({
            "event": "changed", "generation": 3, "changed": ["zone", "tags"],
            "device": {"id": "0102", "kind": "kiosk", "zone": 3, "address": "10.0.0.9:8081", "state": "fresh"},
        });
        assert_eq!(
            line(&event),
            "changed       0102  10.0.0.9:8081  kiosk  zone 3  fresh  changed zone and tags"
        );
    }
}
