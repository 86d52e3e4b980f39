//! An event as one line for people.

use serde_json::Value;

/// An event as one line for people.
pub(crate) fn line(event: &Value) -> String {
    let device = &event["device"];
    let mut words = Vec::new();
    for name in ["id", "name", "code", "address", "kind", "zone", "state"] {
        match &device[name] {
            Value::String(text) if !text.is_empty() => words.push(text.clone()),
            Value::Number(number) => words.push(format!("zone {number}")),
            _ => {}
        }
    }
    for name in ["why", "detail", "from", "rival", "fence", "lineage", "devices", "events", "error"] {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_who_and_what() {
        let event = json!({
            "event": "changed", "generation": 3, "changed": ["zone", "tags"],
            "device": {"id": "0102", "name": "", "code": "K-7", "kind": "kiosk", "zone": 3, "address": "10.0.0.9:8081",
                       "state": "fresh"},
        });
        assert_eq!(
            line(&event),
            "changed       0102  K-7  10.0.0.9:8081  kiosk  zone 3  fresh  changed zone and tags"
        );
    }
}
