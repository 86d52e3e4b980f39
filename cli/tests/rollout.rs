//! Orders in steps, large payloads, and how one device stands: through processes of their own, over loopback.

mod support;

use serde_json::Value;
use support::{KIOSK, Running, Store, TILL, both_connected, code, connected, json_lines, run, stderr};

/// A server with two devices by address that refuse the kind 0x8001.
fn two_devices(name: &str, net: u8) -> (Store, Running, [Running; 2]) {
    let store = Store::new(name, net);
    let hosts = [2, 3].map(|host| format!("{}:8081", store.host(host)));
    let server = store.serve(&["--no-discovery", "--device", &hosts[0], "--device", &hosts[1]]);
    let refuse = ["--no-discovery", "--reject", "0x8001"];
    let devices = [store.device(KIOSK, 2, &refuse), store.device(TILL, 3, &refuse)];
    both_connected(&server);
    (store, server, devices)
}

fn push(store: &Store, words: &[&str]) -> (i32, Vec<Value>) {
    let control = store.path("control.sock");
    let output = run(&[&["push"], words, &["--control", &control, "--json"]].concat());
    (code(&output), json_lines(&output))
}

#[test]
fn a_rollout_goes_on_while_its_steps_succeed() {
    let (store, _server, _devices) = two_devices("rollout", 72);
    let words =
        ["show-page", "/new", "--to", "all", "--rollout", "1%,50,100", "--step-within", "20", "--each"];
    let (status, lines) = push(&store, &words);
    let summary = lines.last().expect("a summary");
    assert_eq!((status, &summary["ok"], &summary["targets"]), (0, &true.into(), &2.into()), "{lines:#?}");
    assert_eq!((&summary["aborted"], &summary["not_reached"]), (&Value::Null, &0.into()));
    assert_eq!(lines[0]["steps"], serde_json::json!([1, 50, 100]));
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    // One of two devices is more than 1 % and the 50 % as well.
    let steps = of("step");
    assert_eq!(steps.len(), 2, "{lines:#?}");
    assert!(steps.iter().all(|step| step["targets"] == 1 && step["outcomes"]["applied"] == 1), "{lines:#?}");
    assert_eq!(summary["orders"], serde_json::json!([steps[0]["order"], steps[1]["order"]]));
    assert_eq!(of("device").len(), 2, "{lines:#?}");
    assert_eq!((store.ledger(KIOSK).len(), store.ledger(TILL).len()), (1, 1));
}

#[test]
fn a_rollout_stops_where_too_many_fail() {
    let (store, _server, _devices) = two_devices("stopped", 73);
    let words = ["custom", "0x8001", "--hex", "01", "--to", "all", "--rollout", "50,100", "--each"];
    let (status, lines) = push(&store, &[&words[..], &["--abort-above", "2%"]].concat());
    let summary = lines.last().expect("a summary");
    assert_eq!(
        (status, &summary["ok"], &summary["not_reached"]),
        (1, &false.into(), &1.into()),
        "{lines:#?}"
    );
    let aborted = serde_json::json!({"step": 1, "percent": 50, "failed": 1, "devices": 1});
    assert_eq!((&summary["aborted"], &summary["outcomes"]["rejected-kind"]), (&aborted, &1.into()));
    assert!(lines.iter().any(|line| line["event"] == "device" && line["pending"] == "not-reached"));
    assert_eq!(store.ledger(KIOSK).len() + store.ledger(TILL).len(), 1, "the other one never saw it");
    // With all of them allowed to fail it goes on, and is not right all the same.
    let (status, lines) = push(&store, &[&words[..], &["--abort-above", "100"]].concat());
    let summary = lines.last().expect("a summary");
    assert_eq!((status, &summary["aborted"]), (1, &Value::Null), "{lines:#?}");
    assert_eq!(summary["outcomes"]["rejected-kind"], 2);
}

#[test]
fn what_cannot_be_rolled_out_is_refused() {
    let store = Store::new("no-rollout", 74);
    let _server = store.serve(&["--no-discovery"]);
    for wrong in ["10,5", "0", "101", "", "a"] {
        let (status, lines) = push(&store, &["message", "hi", "--to", "all", "--rollout", wrong]);
        assert_eq!((status, &lines[0]["event"]), (2, &"error".into()), "{wrong}: {lines:#?}");
    }
    for with in [&["--quorum", "1"][..], &["--stream"], &["--wait", "1"], &["--step-within", "x"]] {
        let words = ["message", "hi", "--to", "all", "--rollout", "10,100"];
        assert_eq!(push(&store, &[&words, with].concat()).0, 2, "{with:?}");
    }
    assert_eq!(push(&store, &["message", "hi", "--to", "all", "--abort-above", "1%"]).0, 2, "of what?");
    let (status, lines) = push(&store, &["message", "hi", "--to", "all", "--rollout", "10,100"]);
    assert_eq!((status, &lines.last().expect("a line")["event"]), (2, &"error".into()), "nobody is there");
}

#[test]
fn a_rollout_whose_caller_leaves_takes_no_further_step() {
    let (store, server, devices) = two_devices("left", 75);
    // The first step waits for a device that is away.
    drop(devices);
    for _ in [KIOSK, TILL] {
        server.wait_for_event("disconnected");
    }
    let (control, words) =
        (store.path("control.sock"), ["push", "message", "hi", "--to", "all", "--rollout"]);
    let rollout = Running::start(&[&words[..], &["50,100", "--control", &control]].concat());
    rollout.wait_for_event("rolling-out");
    rollout.signal("INT");
    let error = rollout.wait_for_event("error");
    assert!(error["error"].as_str().expect("a text").contains("the rollout ends"), "{error}");
    drop(rollout);
    let _devices =
        [KIOSK, TILL].map(|id| store.device(id, if id == KIOSK { 2 } else { 3 }, &["--no-discovery"]));
    // This one comes behind whatever was pushed before.
    let (status, lines) = push(&store, &["message", "last", "--to", "all", "--wait", "20"]);
    assert_eq!(status, 0, "{lines:#?}");
    let seen = store.ledger(KIOSK).len() + store.ledger(TILL).len();
    assert_eq!(seen, 3, "the rollout reached one of them");
}

#[test]
fn status_shows_how_one_device_stands() {
    let (store, server, [kiosk, _till]) = two_devices("view", 76);
    assert_eq!(push(&store, &["message", "hi", "--to", "all"]).0, 0);
    let control = store.path("control.sock");
    let status = |id: &str| run(&["status", id, "--control", &control, "--json"]);
    let output = status("11111111");
    let view = json_lines(&output).pop().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!((code(&output), &view["event"], &view["device"]["id"]), (0, &"view".into(), &KIOSK.into()));
    assert_eq!((&view["session"], &view["suspect"]), (&"open".into(), &false.into()), "{view}");
    assert_eq!((&view["owed"], &view["out"], &view["retried"]), (&0.into(), &0.into(), &0.into()), "{view}");
    assert_eq!(view["counters"]["sessions"], 1);
    assert!(view["window"]["orders"].as_u64() > Some(0), "{view}");
    drop(kiosk);
    server.wait_for(|line| line["event"] == "disconnected" && line["device"]["id"] == KIOSK);
    let (_, lines) = push(&store, &["message", "hi", "--to", "id=11111111", "--wait", "0"]);
    assert_eq!(lines.last().expect("a summary")["unsettled"], 1);
    let output = status("11111111");
    let view = json_lines(&output).pop().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!((&view["owed"], &view["device"]["connected"]), (&1.into(), &false.into()), "{view}");
    assert_ne!(view["session"], "open", "{view}");
    assert_eq!(code(&status("33333333")), 2, "nobody has that id");
    let _kiosk = store.device(KIOSK, 2, &["--no-discovery"]);
    server.wait_for(connected(KIOSK));
    let people = run(&["status", "11111111", "--control", &control]);
    assert_eq!(code(&people), 0);
    assert!(String::from_utf8_lossy(&people.stdout).contains("session"));
}

#[test]
fn a_large_payload_goes_from_a_file_to_every_device() {
    use sha2::{Digest, Sha256};
    let (store, _server, _devices) = two_devices("large", 77);
    let file = store.path("layout.bin");
    for (size, status) in [(65_536, 0), (65_537, 0), (300_000, 0), ((8 << 20) + 1, 2)] {
        let bytes: Vec<u8> = (0..size).map(|n: u32| (n * 31 % 253) as u8).collect();
        std::fs::write(&file, &bytes).expect("written");
        let words = ["custom", "0x8002", "--payload-file", &file, "--to", "all", "--wait", "20"];
        let (code, lines) = push(&store, &words);
        assert_eq!(code, status, "{size}: {lines:#?}");
        if status == 0 {
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            for id in [KIOSK, TILL] {
                let line = store.ledger(id).pop().expect("an order");
                assert_eq!(line["payload_sha256"], digest, "{size} bytes on {id}");
            }
        }
    }
    assert_eq!(store.ledger(KIOSK).len(), 3);
    let words = ["custom", "0x8002", "--file", &file, "--to", "all", "--rollout", "50"];
    std::fs::write(&file, vec![7; 100_000]).expect("written");
    assert_eq!(push(&store, &words).0, 0, "in steps as well");
}

#[test]
fn a_refused_request_with_a_payload_behind_it_ends_the_connection() {
    use std::io::{BufRead, BufReader, Write};
    let store = Store::new("refused", 78);
    let _server = store.serve(&["--no-discovery"]);
    let say = |line: &str, body: &[u8]| -> Vec<String> {
        let path = store.path("control.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("it listens");
        stream.write_all(&[line.as_bytes(), b"\n", body].concat()).expect("written");
        let lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        stream.shutdown(std::net::Shutdown::Write).expect("half closed");
        lines.map_while(Result::ok).collect()
    };
    let stats = b"{\"do\":\"stats\"}\n";
    let said = say("{\"do\":\"push\",\"payload_bytes\":8388609,\"kind\":\"message\",\"to\":\"all\"}", stats);
    assert_eq!(said.len(), 2, "hello and one error: {said:?}");
    let said = say("{\"do\":\"push\",\"payload_bytes\":9,\"kind\":\"message\",\"to\":\"all\"}", b"short");
    assert_eq!(said.len(), 1, "the payload never came: {said:?}");
    let body = [b"123456789", &stats[..]].concat();
    let said = say("{\"do\":\"push\",\"payload_bytes\":9,\"kind\":\"message\",\"to\":\"all\"}", &body);
    assert_eq!(said.len(), 3, "nobody is there, and the next request begins behind it: {said:?}");
    assert!(said[2].contains("\"event\":\"stats\""), "{said:?}");
}
