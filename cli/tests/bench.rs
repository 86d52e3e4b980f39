//! The benchmark as its users run it: small, for its figures say nothing in a debug build beside other tests.
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{code, json_lines, run, stderr};

fn number(line: &Value, path: &str) -> f64 {
    let value = line.pointer(path).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number at {path} in {line}"))
}

#[test]
fn a_small_fanout_has_a_line_per_contestant_and_ratios() {
    let words = ["bench", "fanout", "--devices", "50", "--payload", "100", "--rounds", "3", "--json"];
    let output = run(&words);
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let [ours, raw, summary] = &lines[..] else { panic!("three lines: {lines:?}") };
    for (line, contestant) in [(ours, "tillwire"), (raw, "raw-epoll")] {
        assert_eq!((&line["bench"], &line["contestant"]), (&"fanout".into(), &contestant.into()), "{line}");
        for (field, value) in [("devices", 50), ("payload", 100), ("rounds", 3)] {
            assert_eq!(line[field], value, "{field} in {line}");
        }
        for path in ["/last_ack_us/p50", "/last_ack_us/p99", "/cpu_us_per_order", "/user_bytes_per_device"] {
            assert!(number(line, path) > 0.0, "{path} in {line}");
        }
        assert!(number(line, "/last_ack_us/p50") <= number(line, "/last_ack_us/p99"), "{line}");
        assert!(number(line, "/allocs_per_order") >= 0.0, "{line}");
    }
    assert_eq!((&summary["event"], &summary["ok"]), (&"summary".into(), &true.into()), "{summary}");
    for path in ["/ratio_cpu", "/ratio_cpu_to_last_ack", "/ratio_last_ack"] {
        assert!(number(summary, path) > 0.0, "{path} in {summary}");
    }
    assert_eq!(summary["interleaved"], true, "{summary}");
}

#[test]
fn idle_devices_take_memory() {
    let output = run(&["bench", "idle", "--devices", "50", "--json"]);
    let lines = json_lines(&output);
    let summary = lines.last().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!((code(&output), &summary["devices"]), (0, &50.into()), "{summary}");
    assert!(number(summary, "/user_bytes_per_device") > 0.0, "{summary}");
}

#[test]
fn people_get_a_table_and_the_limits_in_the_help() {
    let output = run(&["bench", "fanout", "--devices", "3", "--rounds", "1"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for word in ["tillwire", "raw-epoll", "ratio", "last ack", "cpu per order"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let help = run(&["bench", "fanout", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("What it cannot show"));
    assert_eq!(code(&run(&["bench", "fanout", "--devices", "10001"])), 2, "one past the limit");
}
