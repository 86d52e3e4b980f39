//! `tillwire drain` and `tillwire takeover`: a server leaves in peace, another one takes its place.

mod support;

use std::process::{Command, Stdio};

use support::{KIOSK, Store, code, connected, json_lines, run, stderr};

#[test]
fn a_server_that_drains_takes_no_order_and_waits_for_those_that_are_out() {
    let store = Store::new("drain", 186);
    let address = format!("{}:8081", store.host(2));
    let server = store.serve(&["--no-discovery", "--device", &address]);
    let device = store.device(KIOSK, 2, &["--no-discovery", "--later-ms", "700"]);
    server.wait_for(connected(KIOSK));
    let control = store.path("control.sock");
    let push = ["push", "message", "hi", "--to", "all", "--control", &control, "--json"];
    let waiting = Command::new(env!("CARGO_BIN_EXE_tillwire"))
        .args(push)
        .args(["--wait", "20", "--stream"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    device.wait_for(|line| line["event"] == "order" || line["event"] == "later");
    let output = run(&["drain", "--control", &control, "--json"]);
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!((&lines[0]["event"], &lines[0]["within_ms"]), (&"draining".into(), &5_000.into()));
    assert_eq!(lines[1]["event"], "drained");
    server.wait_for_event("stopped");
    let pushed = waiting.wait_with_output().expect("it ends");
    let summary = json_lines(&pushed).pop().expect("a summary");
    assert_eq!((code(&pushed), &summary["outcomes"]["applied"]), (0, &1.into()), "{summary}");
    assert_eq!(code(&run(&push)), 2, "nobody answers any more");
    assert_eq!(code(&run(&["drain", "--within", "6", "--control", &control])), 2);
}

#[test]
fn a_takeover_raises_the_fence_and_the_next_start_keeps_it() {
    let store = Store::new("takeover", 187);
    let (control, state) = (store.path("control.sock"), store.path("server"));
    let takeover = || {
        let output = run(&["takeover", "--control", &control, "--json"]);
        let line = json_lines(&output).pop().unwrap_or_else(|| panic!("{}", stderr(&output)));
        assert_eq!((code(&output), &line["event"]), (0, &"taken-over".into()), "{line}");
        (line["fence"].as_u64().expect("a number"), line["kept"].as_bool().expect("said"))
    };
    let server = store.serve(&["--no-discovery", "--state", &state]);
    assert_eq!(takeover(), (2, true));
    assert_eq!(takeover(), (3, true));
    assert_eq!(server.end(), 0);
    let server = store.serve(&["--no-discovery", "--state", &state]);
    assert_eq!(takeover(), (4, true), "it began with the fence it had");
    assert_eq!(server.end(), 0);
    let server = store.serve(&["--no-discovery"]);
    assert_eq!(takeover(), (2, false));
    let output = run(&["takeover", "--control", &control]);
    assert!(stderr(&output).contains("without --state"), "{}", stderr(&output));
    assert_eq!(server.end(), 0);
}

#[test]
fn a_fence_that_cannot_be_kept_is_not_used() {
    let store = Store::new("unkept", 188);
    let (control, state) = (store.path("control.sock"), store.path("server"));
    let server = store.serve(&["--no-discovery", "--state", &state, "--volatile"]);
    std::fs::remove_dir_all(&state).expect("it is there");
    let refused = run(&["takeover", "--control", &control]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("not taken over"), "{}", stderr(&refused));
    std::fs::create_dir(&state).expect("it is gone");
    let output = run(&["takeover", "--control", &control, "--json"]);
    let line = json_lines(&output).pop().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!(
        (&line["fence"], &line["kept"]),
        (&2.into(), &true.into()),
        "the first one that was used: {line}"
    );
    assert_eq!(server.end(), 0);
}
