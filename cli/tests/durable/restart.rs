//! A server that is killed and started again, while an order is at any of its stages.

use std::time::Duration;

use serde_json::json;

use crate::shop::{Shop, connected, id, pass, until};

#[test]
fn what_was_accepted_before_a_kill_arrives_once_after_the_restart() {
    let shop = Shop::new("accepted", 230, &[2]);
    let server = shop.serve(&[]);
    assert_eq!((&server.outbox["created"], &server.outbox["orders"]), (&true.into(), &0.into()));
    let order = shop.accept("a", &[]);
    server.running.kill();

    let server = shop.serve(&[]);
    let found = &server.outbox;
    assert_eq!(
        (&found["created"], &found["orders"], &found["head"]),
        (&false.into(), &1.into(), &order.into())
    );
    let _device = shop.device(2, &[]);
    assert_eq!(shop.report("a"), (order, json!({"applied": 1})), "its key answers");
    assert_eq!(shop.ledger(2), [(order, "applied".to_owned())]);
    // And once more, with the order over.
    server.running.kill();
    let server = shop.serve(&[]);
    assert_eq!((&server.outbox["orders"], &server.outbox["keys"]), (&0.into(), &1.into()));
    assert_eq!(shop.report("a"), (order, json!({"applied": 1})));
    connected(&server.running, 2);
    let next = shop.accept("b", &[]);
    assert!(next > order, "no number is given twice");
    assert_eq!(shop.report("b"), (next, json!({"applied": 1})));
    assert_eq!(shop.ledger(2).len(), 2);
}

#[test]
fn an_outcome_the_server_never_read_is_told_again_and_nothing_is_done_twice() {
    let shop = Shop::new("unread", 231, &[2]);
    let server = shop.serve(&[]);
    let device = shop.device(2, &["--later-ms", "400"]);
    connected(&server.running, 2);
    let order = shop.accept("a", &[]);
    device.wait_for_event("order");
    // From here on it reads nothing: the device's outcome stands in its socket.
    server.running.signal("STOP");
    pass(Duration::from_millis(1_200));
    server.running.kill();

    let _server = shop.serve(&[]);
    let (number, outcomes) = shop.report("a");
    assert_eq!((number, outcomes), (order, json!({"applied": 1})));
    assert_eq!(shop.ledger(2).len(), 1);
}

#[test]
fn an_order_that_expires_while_its_server_is_away_reaches_nobody() {
    let shop = Shop::new("expires", 232, &[2]);
    let server = shop.serve(&[]);
    let away = shop.accept("away", &["--lifetime", "2"]);
    let later = shop.accept("later", &["--lifetime", "6"]);
    server.running.kill();
    pass(Duration::from_millis(2_500));

    let server = shop.serve(&[]);
    assert_eq!(shop.report("away"), (away, json!({"expired": 1})), "time went on without the server");
    assert_eq!(shop.report("later"), (later, json!({"expired": 1})), "and with it: 6 s in all");
    let _device = shop.device(2, &[]);
    connected(&server.running, 2);
    let order = shop.accept("b", &[]);
    assert_eq!(shop.report("b"), (order, json!({"applied": 1})));
    assert_eq!(shop.ledger(2).len(), 1);
}

#[test]
fn a_cancellation_holds_over_a_restart() {
    let shop = Shop::new("cancelled", 233, &[2]);
    let server = shop.serve(&[]);
    let device = shop.device(2, &[]);
    connected(&server.running, 2);
    // Written to a device that is frozen: whether it has begun is not known, and only its return can tell.
    device.signal("STOP");
    let order = shop.accept("a", &[]);
    server.running.wait_for(|line| line["event"] == "disconnected" && line["device"]["id"] == *id(2));
    let appends = shop.status()["appends"].clone();
    let (code, lines) = shop.ask(&["cancel", &order.to_string()]);
    assert_eq!((code, &lines[0]["event"], &lines[0]["ended"]), (0, &"cancelling".into(), &0.into()));
    shop.written_beyond(&appends);
    server.running.kill();

    let _server = shop.serve(&[]);
    device.signal("CONT");
    assert_eq!(shop.report("a"), (order, json!({"cancelled": 1})));
    assert_eq!(shop.ledger(2), []);
    // Of an earlier run, and over: nothing is left to cancel.
    assert_eq!(shop.ask(&["cancel", &order.to_string()]).0, 2);
    drop(device);
}

#[test]
fn an_order_of_an_earlier_run_can_be_cancelled() {
    let shop = Shop::new("cancel-later", 234, &[2]);
    let server = shop.serve(&[]);
    let order = shop.accept("a", &[]);
    server.running.kill();
    let server = shop.serve(&[]);
    let (code, lines) = shop.ask(&["cancel", &order.to_string()]);
    assert_eq!((code, &lines[0]["event"]), (0, &"cancelling".into()), "{lines:?}");
    assert_eq!(shop.report("a"), (order, json!({"cancelled": 1})));
    server.running.kill();
    let server = shop.serve(&[]);
    let _device = shop.device(2, &[]);
    connected(&server.running, 2);
    assert_eq!(shop.report("a"), (order, json!({"cancelled": 1})), "what was told stays");
    assert_eq!(shop.ledger(2), []);
}

#[test]
fn versions_rise_over_a_restart_and_a_device_is_owed_the_newest_only() {
    let shop = Shop::new("versions", 235, &[2]);
    let version = |n| ["--supersede-key", "page", "--supersede-version", n];
    let server = shop.serve(&[]);
    let first = shop.accept("v1", &version("7"));
    server.running.kill();

    let server = shop.serve(&[]);
    let (code, lines) = shop.push("again", "0", &version("7"));
    assert_eq!(code, 2, "it does not rise: {lines:?}");
    let second = shop.accept("v2", &version("8"));
    let _device = shop.device(2, &[]);
    assert_eq!(shop.report("v2"), (second, json!({"applied": 1})));
    assert_eq!(shop.report("v1"), (first, json!({"superseded": 1})));
    assert_eq!(shop.ledger(2), [(second, "applied".to_owned())]);
    drop(server);
}

#[test]
fn attempts_at_a_busy_device_go_on_after_a_restart() {
    let shop = Shop::new("busy", 236, &[2]);
    let server = shop.serve(&[]);
    let device = shop.device(2, &["--busy", "3"]);
    connected(&server.running, 2);
    let order = shop.accept("a", &[]);
    device.wait_for_event("order");
    server.running.kill();

    let _server = shop.serve(&[]);
    assert_eq!(shop.report("a"), (order, json!({"applied": 1})));
    let outcomes: Vec<_> = shop.ledger(2).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes.last().map(String::as_str), Some("applied"), "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "busy").count(), 3, "{outcomes:?}");
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
}

#[test]
fn of_a_fan_out_only_those_without_an_outcome_get_it_again() {
    let shop = Shop::new("fan-out", 237, &[2, 3, 4]);
    let server = shop.serve(&[]);
    let _two = shop.device(2, &[]);
    let _three = shop.device(3, &[]);
    connected(&server.running, 2);
    let order = shop.accept("a", &[]);
    until(|| {
        let (_, lines) = shop.push("a", "0", &[]);
        lines.last().is_some_and(|summary| summary["outcomes"] == json!({"applied": 2}))
    });
    server.running.kill();

    let server = shop.serve(&[]);
    let (_, lines) = shop.push("a", "0", &[]);
    let summary = lines.last().expect("a summary");
    assert_eq!((&summary["outcomes"], &summary["unsettled"]), (&json!({"applied": 2}), &1.into()));
    let _four = shop.device(4, &[]);
    assert_eq!(shop.report("a"), (order, json!({"applied": 3})));
    for host in [2, 3, 4] {
        assert_eq!(shop.ledger(host).len(), 1, "{host}");
    }
    drop(server);
}

#[test]
fn a_volatile_order_ends_with_its_server_and_says_so() {
    let shop = Shop::new("volatile", 238, &[2]);
    let server = shop.serve(&[]);
    let (_, lines) = shop.push("a", "0", &["--volatile"]);
    assert_eq!(lines[0]["durable"], false);
    server.running.kill();
    let server = shop.serve(&[]);
    assert_eq!(server.outbox["orders"], 0);
    drop(server);
    // And a server that was told so has no outbox at all, whatever its state directory.
    let server = shop.serve(&["--state", &shop.store.path("state"), "--volatile"]);
    assert!(server.outbox.is_null());
    assert_eq!(shop.push("b", "0", &[]).1[0]["durable"], false);
    assert_eq!(shop.status(), serde_json::Value::Null);
    drop(server);
    let server = shop.serve(&["--state", &shop.store.path("state")]);
    assert_eq!(server.outbox["directory"], shop.store.path("state/outbox"));
}
