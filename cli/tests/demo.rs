//! The demo checks itself; here it is checked that it does.

mod support;

use std::net::TcpListener;

use support::{Running, code, json_lines, run, stderr};

#[test]
fn a_small_demo_is_all_right() {
    let words = ["demo", "--devices", "20", "--orders", "40", "--json"];
    let output = run(&[&words[..], &["--port-discovery", "20071", "--port-push", "20171"]].concat());
    let lines = json_lines(&output);
    let summary = lines.last().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!((code(&output), &summary["ok"]), (0, &true.into()), "{summary}");
    for (field, value) in [("devices", 20), ("discovered", 20), ("orders", 40), ("unsettled", 0)] {
        assert_eq!(summary[field], value, "{field} in {summary}");
    }
    let outcomes = summary["outcomes"].as_object().expect("outcomes");
    let ended: u64 = outcomes.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(summary["pairs"], ended);
    assert!(outcomes["rejected-kind"].as_u64() > Some(0), "one kind is refused by design");
    assert_eq!((&outcomes["cancelled"], &outcomes["superseded"]), (&1.into(), &1.into()), "{summary}");
    assert!(summary["results"].as_u64() > Some(0), "questions about stock are answered: {summary}");
    assert_eq!(
        (&summary["questions"], &summary["answers"]),
        (&40.into(), &40.into()),
        "both ways: {summary}"
    );
    let restart = &summary["restart"];
    assert_eq!(
        (&restart["devices"], &restart["rebooted"], &restart["orders"]),
        (&20.into(), &10.into(), &10.into())
    );
    assert_eq!((&restart["applied"], &restart["wrong"]), (&200.into(), &0.into()), "{restart}");
    assert!(restart["owed"].as_u64() >= Some(100), "half of the devices were off: {restart}");
    for field in ["discovery_ms", "latency_us", "bytes_out", "allocs_per_order", "secure"] {
        assert!(summary.get(field).is_some(), "{field} in {summary}");
    }
}

#[test]
fn devices_in_processes_of_their_own_are_checked_as_well() {
    let words = ["demo", "--devices", "501", "--orders", "4", "--json", "--payload", "64"];
    let output = run(&[&words[..], &["--port-discovery", "20072", "--port-push", "20172"]].concat());
    let lines = json_lines(&output);
    let summary = lines.last().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!(
        (code(&output), &summary["ok"], &summary["connected"]),
        (0, &true.into(), &501.into()),
        "{summary}"
    );
}

#[test]
fn a_port_that_is_taken_stops_it_before_it_begins() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let output = run(&["demo", "--devices", "3", "--port-discovery", "20073", "--port-push", &port]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("--port-push"), "{}", stderr(&output));
}

#[test]
fn an_interrupted_demo_takes_its_processes_along() {
    let words = ["demo", "--devices", "501", "--orders", "100000"];
    let demo = Running::start(&[&words[..], &["--port-discovery", "20074", "--port-push", "20174"]].concat());
    // Its ports are taken as soon as its devices run.
    let taken = || std::net::TcpStream::connect("127.57.0.1:20174").is_ok();
    let begun = support::now();
    while !taken() && begun.elapsed() < support::PATIENCE {
        pause();
    }
    assert!(taken(), "the devices run");
    demo.signal("INT");
    assert_eq!(demo.wait_for_event("error")["event"], "error");
    while taken() && begun.elapsed() < support::PATIENCE {
        pause();
    }
    assert!(!taken(), "and end with the demo");
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "a test waits for a process")]
    std::thread::sleep(std::time::Duration::from_millis(50));
}
