//! A second server takes the store over: what the first one owed is not delivered by it any more, also after its restart.

use serde_json::json;

use crate::shop::{Shop, connected, id};
use crate::support::{Running, code, json_lines, run, stderr};

#[test]
fn what_a_fenced_server_owed_ends_so_also_after_its_restart() {
    let shop = Shop::new("fenced", 239, &[2]);
    let first = shop.serve(&[]);
    let device = shop.device(2, &[]);
    connected(&first.running, 2);
    let before = shop.accept("before", &[]);
    assert_eq!(shop.report("before"), (before, json!({"applied": 1})));
    device.kill();
    let owed = shop.accept("owed", &[]);
    first.running.kill();

    // Another machine, which the first one knows nothing of.
    let (control, state, bind) =
        (shop.store.path("second.sock"), shop.store.path("second"), shop.store.host(9));
    let address = format!("{}:8081", shop.store.host(2));
    let second = [
        &["serve", "--store", "TEST", "--staging", "--open-network", "--no-discovery"][..],
        &["--control", &control, "--bind", &bind, "--state", &state, "--device", &address],
    ];
    let second = Running::start(&second.concat());
    second.wait_for_event("serving");
    let device = shop.device(2, &[]);
    connected(&second, 2);
    let output = run(&["takeover", "--control", &control, "--json"]);
    let line = json_lines(&output).pop().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!((code(&output), &line["fence"], &line["kept"]), (0, &2.into(), &true.into()));
    connected(&second, 2);

    let first = shop.serve(&[]);
    assert_eq!(first.outbox["orders"], 1);
    let fenced = first.running.wait_for_event("fenced");
    assert_eq!((&fenced["device"]["id"], &fenced["fence"]), (&(*id(2)).into(), &2.into()), "{fenced}");
    assert_eq!(shop.report("owed"), (owed, json!({"fenced": 1})));
    first.running.kill();
    let first = shop.serve(&[]);
    assert_eq!(shop.report("owed"), (owed, json!({"fenced": 1})), "what was told stays");
    assert_eq!(shop.ledger(2).len(), 1);

    // The application pushes it at the successor.
    let words = ["push", "custom", "0x8001", "--to", "all", "--key", "owed", "--wait", "20", "--json"];
    let output = run(&[&words[..], &["--control", &control]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(shop.ledger(2).len(), 2);
    drop((first, second, device));
}

#[test]
fn a_fence_is_kept_in_the_outbox_and_the_higher_one_counts() {
    let shop = Shop::new("fence", 240, &[]);
    let state = shop.store.path("state");
    let takeover = || {
        let (code, lines) = shop.ask(&["takeover"]);
        assert_eq!((code, &lines[0]["kept"]), (0, &true.into()), "{lines:?}");
        lines[0]["fence"].as_u64().expect("a number")
    };
    let server = shop.serve(&["--state", &state]);
    assert_eq!(takeover(), 2);
    server.running.kill();
    // The state directory is lost, the outbox is not.
    std::fs::remove_file(format!("{state}/fence")).expect("a copy");
    let server = shop.serve(&["--state", &state]);
    assert_eq!(server.outbox["fence"], 2);
    assert_eq!(takeover(), 3);
    server.running.kill();
    // A run without the outbox begins with the copy, and what it takes counts in a run with it.
    let server = shop.serve(&["--state", &state, "--volatile"]);
    assert_eq!(takeover(), 4);
    server.running.kill();
    let server = shop.serve(&["--state", &state]);
    assert_eq!(server.outbox["fence"], 3);
    assert_eq!(takeover(), 5);
}
