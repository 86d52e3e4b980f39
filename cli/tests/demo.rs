//! The demo checks itself; here it is checked that it does.

mod support;

use std::net::TcpListener;
use std::process::{Command, Stdio};

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
    until_listening("127.57.0.1:20174", true);
    demo.signal("INT");
    assert_eq!(demo.wait_for_event("error")["event"], "error");
    until_listening("127.57.0.1:20174", false);
}

#[test]
#[cfg(target_os = "linux")]
fn a_demo_that_cannot_go_on_says_how_far_it_got_and_ends() {
    let demo = Command::new(env!("CARGO_BIN_EXE_tillwire"))
        .args(["demo", "--devices", "501", "--orders", "4", "--json"])
        .args(["--port-discovery", "20075", "--port-push", "20175"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    until_listening("127.57.0.1:20175", true);
    let devices = child_of(demo.id()).expect("the devices have a process");
    let status = Command::new("kill").args(["-STOP", &devices.to_string()]).status();
    assert!(status.expect("kill runs").success());
    let output = demo.wait_with_output().expect("it ends");
    let (told, last) = (stderr(&output), json_lines(&output));
    assert_eq!(code(&output), 1, "{told}");
    assert!(told.contains("   5 s: ") && told.contains(" of 501 devices connected"), "progress: {told}");
    let error = last.last().map_or("", |line| line["error"].as_str().unwrap_or_default());
    assert!(error.contains(" of 501 devices were found, ") && error.contains("no more for 20 s"), "{told}");
    until_listening("127.57.0.1:20175", false);
}

/// The process that has this one for its parent.
fn child_of(parent: u32) -> Option<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let words = stat.rsplit(')').next().unwrap_or_default();
        words.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_child)
}

/// Waits until a device listens there, or none does any more.
fn until_listening(address: &str, wanted: bool) {
    let listening = || std::net::TcpStream::connect(address).is_ok();
    let begun = support::now();
    while listening() != wanted && begun.elapsed() < support::PATIENCE {
        pause();
    }
    assert_eq!(listening(), wanted, "{address}");
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "a test waits for a process")]
    std::thread::sleep(std::time::Duration::from_millis(50));
}
