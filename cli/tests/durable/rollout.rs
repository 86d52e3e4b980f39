//! Rollouts whose server is killed between and in their steps.

use serde_json::json;

use crate::shop::{Shop, until};
use crate::support::Running;

/// Rolls an order out to two devices, one after the other, in a process of its own.
fn roll_out(shop: &Shop) -> Running {
    let control = shop.store.path("control.sock");
    let words =
        ["push", "custom", "0x8001", "--hex", "75", "--to", "all", "--rollout", "50,100", "--key", "u"];
    Running::start(&[&words[..], &["--step-within", "60", "--each", "--control", &control]].concat())
}

#[test]
fn a_rollout_goes_on_after_kills_of_its_server() {
    let shop = Shop::new("rolls", 248, &[2, 3]);
    let server = shop.serve(&[]);
    let caller = roll_out(&shop);
    let rolling = caller.wait_for_event("rolling-out");
    assert_eq!(rolling["durable"], true, "{rolling}");
    let rollout = rolling["rollout"].clone();
    // Killed while the first step waits for a device that is away.
    until(|| shop.ask(&["status"]).1[0]["rollouts"][0]["orders"].as_array().is_some_and(|it| it.len() == 1));
    server.running.kill();
    drop(caller);

    let server = shop.serve(&[]);
    assert_eq!(server.outbox["rollouts"], json!([rollout]), "{}", server.outbox);
    let devices = [shop.device(2, &["--later-ms", "300"]), shop.device(3, &["--later-ms", "300"])];
    // Killed while the one of the first step works on it, or the other one already.
    until(|| shop.ledger(2).len() + shop.ledger(3).len() >= 1);
    server.running.kill();

    let server = shop.serve(&[]);
    if server.outbox["rollouts"] != json!([]) {
        let ended = server.running.wait_for_event("rollout-ended");
        assert_eq!((&ended["rollout"], &ended["restarts"]), (&rollout, &2.into()), "{ended}");
        assert_eq!((&ended["aborted"], &ended["stopped"]), (&json!(null), &false.into()), "{ended}");
    }
    // Under its key it is answered with how it ended.
    let again = roll_out(&shop);
    assert_eq!(again.wait_for_event("rolling-out")["rollout"], rollout);
    let summary = again.wait_for_event("summary");
    assert_eq!(
        (&summary["outcomes"], &summary["targets"], &summary["ok"]),
        (&json!({"applied": 2}), &2.into(), &true.into()),
        "{summary}"
    );
    assert_eq!((shop.ledger(2).len(), shop.ledger(3).len()), (1, 1), "once each");
    drop(devices);
}

#[test]
fn a_rollout_is_stopped_by_its_number() {
    let shop = Shop::new("stops", 249, &[2, 3]);
    let server = shop.serve(&[]);
    let caller = roll_out(&shop);
    let rollout = caller.wait_for_event("rolling-out")["rollout"].to_string();
    server.running.kill();
    drop(caller);
    let _server = shop.serve(&[]);
    let (code, lines) = shop.ask(&["cancel", &rollout]);
    assert_eq!((code, &lines[0]["event"]), (0, &"stopping".into()), "{lines:?}");
    until(|| shop.ask(&["status"]).1[0]["rollouts"] == json!([]));
    assert_eq!(shop.ask(&["cancel", &rollout]).0, 2, "there is none any more");
}
