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
    assert!(number(summary, "/pss_bytes_per_device") > 0.0, "{summary}");
    assert!(number(summary, "/offline_bytes_per_device") >= 0.0, "{summary}");
    assert!(number(summary, "/record_bytes_fixed") > 200.0, "a record holds its payload: {summary}");
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

#[test]
fn several_sizes_are_measured_one_after_the_other() {
    let output =
        run(&["bench", "fanout", "--devices", "3", "--rounds", "1", "--payload", "10,4096", "--json"]);
    let sizes: Vec<_> = json_lines(&output).iter().map(|line| line["payload"].clone()).collect();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(sizes, [10, 10, 10, 4_096, 4_096, 4_096]);
}

#[test]
fn a_small_pipeline_has_a_line_per_contestant_and_window() {
    let words = ["bench", "pipeline", "--devices", "5", "--orders", "100", "--rounds", "2", "--json"];
    let output = run(&words);
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let [contestants @ .., summary] = &lines[..] else { panic!("{lines:?}") };
    let said: Vec<_> = contestants
        .iter()
        .map(|line| (line["contestant"].as_str().unwrap(), number(line, "/window_orders")))
        .collect();
    assert_eq!(
        said,
        [("tillwire", 1_024.0), ("raw-epoll", 1_024.0), ("tillwire", 16.0), ("raw-epoll", 16.0)]
    );
    for line in contestants {
        for path in ["/acked_per_s", "/cpu_us_per_order", "/device_busy", "/last_ack_us/p99"] {
            assert!(number(line, path) > 0.0, "{path} in {line}");
        }
    }
    assert_eq!((&summary["event"], &summary["ok"]), (&"summary".into(), &true.into()), "{summary}");
    for path in ["/ratio_acked_per_s", "/ratio_cpu_to_last_ack", "/default_window_ratio_acked_per_s"] {
        assert!(number(summary, path) > 0.0, "{path} in {summary}");
    }
}

#[test]
fn orders_that_fill_the_window_go_through_the_pipeline() {
    let output = run(&[
        "bench",
        "pipeline",
        "--devices",
        "2",
        "--orders",
        "20",
        "--rounds",
        "1",
        "--payload",
        "60000",
        "--json",
    ]);
    assert_eq!(code(&output), 0, "{} {:?}", stderr(&output), json_lines(&output));
}

#[test]
fn devices_come_back_to_a_restarted_server() {
    let output = run(&["bench", "connect", "--devices", "50", "--restarts", "2", "--json"]);
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let [first, second, summary] = &lines[..] else { panic!("{lines:?}") };
    for (line, restart) in [(first, 1), (second, 2)] {
        assert_eq!((&line["event"], &line["restart"]), (&"restart".into(), &restart.into()), "{line}");
        assert_eq!(number(line, "/dials_failed"), 0.0, "{line}");
        assert!(number(line, "/dials_per_s_max") >= 50.0, "every device was dialled in that second: {line}");
    }
    for path in ["/connected_ms", "/dials_per_s_max", "/cpu_us_per_device", "/ratio_cpu"] {
        assert!(number(summary, path) > 0.0, "{path} in {summary}");
    }
    assert_eq!((&summary["devices"], &summary["ok"]), (&50.into(), &true.into()), "{summary}");
}

#[test]
fn a_stopped_device_is_noticed_and_gets_what_it_missed() {
    let words = ["bench", "stall", "--devices", "10", "--cycles", "1", "--rounds", "3", "--every-ms", "500"];
    let output = run(&[&words[..], &["--json"]].concat());
    let lines = json_lines(&output);
    let [cycle, summary] = &lines[..] else { panic!("{lines:?} {}", stderr(&output)) };
    // A round that a loaded machine did not finish in its half second is the only thing that may be missing.
    assert_eq!(cycle["delivered"], true, "{cycle}");
    for path in ["/suspect_ms", "/dead_ms", "/p99_us", "/p99_us_stalled"] {
        assert!(number(cycle, path) > 0.0, "{path} in {cycle}");
    }
    assert!(number(cycle, "/suspect_ms") < number(cycle, "/dead_ms"), "first suspect, then dead: {cycle}");
    assert!(number(cycle, "/back_ms") >= 0.0, "it came back: {cycle}");
    assert!(number(summary, "/ratio_p99") > 0.0, "{summary}");
}

#[test]
fn an_outbox_is_measured_beside_none_and_on_bad_disks() {
    let words = ["bench", "durable", "--devices", "50", "--rounds", "2", "--pushers", "16", "--seconds", "1"];
    let output = run(&[&words[..], &["--cycles", "1", "--json"]].concat());
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{} {lines:?}", stderr(&output));
    let of = |bench: &str, event: &str| {
        let lines = lines.iter().filter(|line| line["bench"] == bench && line["event"] == event);
        lines.cloned().collect::<Vec<_>>()
    };
    let fanout = of("durable-fanout", "contestant");
    let [durable, volatile] = &fanout[..] else { panic!("{lines:?}") };
    assert_eq!((&durable["contestant"], &volatile["contestant"]), (&"durable".into(), &"tillwire".into()));
    assert!(number(durable, "/commits_per_round") >= 2.0, "the push, and its outcomes: {durable}");
    assert_eq!(number(volatile, "/commits_per_round"), 0.0, "{volatile}");
    for path in ["/ratio_cpu", "/ratio_last_ack"] {
        assert!(number(&of("durable-fanout", "summary")[0], path) > 0.0, "{path}");
    }
    let orders = of("durable-orders", "summary");
    for path in ["/orders_per_s", "/disk_syncs_per_s", "/orders_per_commit", "/ratio_to_volatile"] {
        assert!(number(&orders[0], path) > 0.0, "{path} in {orders:?}");
    }
    let phases = of("durable-pace", "phase");
    let named: Vec<_> = phases.iter().map(|line| line["disk"].clone()).collect();
    assert_eq!(named, ["plain", "slow", "full"]);
    assert!(number(&phases[1], "/syncs") > 0.0, "slow, and at work: {phases:?}");
    assert_eq!(number(&phases[2], "/durable_accepted"), 0.0, "{phases:?}");
    assert!(number(&phases[2], "/durable_refused") > 0.0, "{phases:?}");
}

/// A section each, and the summary; in a debug build beside other tests only what is counted means something.
#[test]
fn a_small_store_finds_its_server_in_every_section() {
    let words =
        ["bench", "discovery", "--devices", "100", "--rounds", "1", "--singles", "3", "--steady-s", "2"];
    let output = run(&[&words[..], &["--forged", "2000", "--json"]].concat());
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{} {lines:?}", stderr(&output));
    let [sections @ .., summary] = &lines[..] else { panic!("{lines:?}") };
    let named: Vec<_> = sections.iter().map(|line| line["section"].as_str().unwrap()).collect();
    let all = [
        "cold",
        "loss",
        "warm",
        "cold-auth",
        "warm-auth",
        "learn",
        "paced",
        "single",
        "silent",
        "steady",
        "forged",
    ];
    assert_eq!(named, all);
    for line in sections {
        assert_eq!((&line["event"], &line["ok"]), (&"section".into(), &true.into()), "{line}");
        assert!(line["budget"].as_object().is_some_and(|budgets| !budgets.is_empty()), "{line}");
    }
    let figure = |section: &str, path: &str| {
        number(sections.iter().find(|line| line["section"] == section).unwrap(), path)
    };
    for section in ["cold", "loss", "warm", "cold-auth", "warm-auth"] {
        assert_eq!(figure(section, "/devices"), 100.0);
        assert!(figure(section, "/registered_ms") > 0.0 && figure(section, "/announces") >= 100.0);
    }
    assert_eq!(figure("cold", "/receive_buffer_bytes"), 212_992.0, "a stock one");
    assert!(figure("loss", "/lost") > 0.0);
    assert!(figure("learn", "/ratio_cpu") > 0.0 && figure("paced", "/ratio_cpu") > 0.0);
    assert!((1.0..=150.0).contains(&figure("silent", "/broadcasts")));
    assert_eq!(figure("steady", "/datagrams_of_devices"), 0.0, "a device with a session says nothing");
    assert!(figure("forged", "/bytes_out_per_byte_in") <= 1.0 && figure("forged", "/received") > 0.0);
    assert_eq!((&summary["event"], &summary["bench"]), (&"summary".into(), &"discovery".into()));
    for path in ["/devices", "/registered_ms", "/broadcasts", "/drops", "/cpu_us_per_device", "/ratio_cpu"] {
        assert!(number(summary, path) >= 0.0, "{path} in {summary}");
    }
}

#[test]
fn one_section_alone_leaves_the_figures_of_the_others_open() {
    let output = run(&["bench", "discovery", "--devices", "50", "--only", "silent", "--json"]);
    let lines = json_lines(&output);
    let [section, summary] = &lines[..] else { panic!("{lines:?} {}", stderr(&output)) };
    assert_eq!((&section["section"], &section["virtual"]), (&"silent".into(), &true.into()));
    assert!(summary["registered_ms"].is_null() && summary["ratio_cpu"].is_null(), "{summary}");
    let output = run(&["bench", "discovery", "--devices", "50", "--only", "silent"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["silent", "broadcasts", "150", "within"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(code(&run(&["bench", "discovery", "--devices", "10001"])), 2, "one past the limit");
}
