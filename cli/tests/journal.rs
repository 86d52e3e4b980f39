//! A device that is killed in the middle of its work, and what its journal makes of that: processes, and SIGKILL.

mod support;
#[path = "../../tests/device/wire.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod wire;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{PATIENCE, Running, Store, TILL, connected};
use tillwire::wire::frame::Order;
use tillwire::wire::frame::order::{Delivery, KindFlags};
use wire::{FRESH, Said, Wire, sent};

/// What the hand-written server of `wire` waits.
const SOON: Duration = PATIENCE;
const APPLIED: u8 = tillwire::Outcome::APPLIED.0;
const IN_DOUBT: u8 = tillwire::Outcome::IN_DOUBT.0;
/// Longer than any test: an order that is at work until the device is killed.
const FOR_EVER: &str = "3600000";

/// The store of the hand-written server.
fn store() -> tillwire::Store {
    tillwire::Store::new(7, "TEST").expect("a code")
}

/// A store with a server that has one device, and that device with a journal.
struct Shop {
    store: Store,
    server: Running,
}

impl Shop {
    fn open(name: &str, net: u8) -> Self {
        let store = Store::new(name, net);
        let there = format!("{}:8081", store.host(2));
        let server = store.serve(&["--no-discovery", "--device", &there]);
        Self { store, server }
    }

    /// Starts the device and waits until it is served; what its journal held.
    fn device(&self, more: &[&str]) -> (Running, Value) {
        let (device, listening) = start(&self.store, &[&["--staging"], more].concat());
        self.server.wait_for(connected(TILL));
        (device, listening["journal"].clone())
    }

    /// Pushes this and kills the device once its application has it; the last line of the push, and how it ended.
    fn kill_at_work(&self, words: &[&str], restart: impl FnOnce(&Self) -> Running) -> (Value, Running) {
        let (device, journal) = self.device(&["--later-ms", FOR_EVER]);
        assert_eq!(journal, "new");
        let store = &self.store;
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| store.push(&[words, &["--wait", "25"]].concat()).1);
            device.wait_for_event("order");
            device.kill();
            let device = restart(self);
            (pushing.join().expect("an answer"), device)
        })
    }

    fn ledger(&self) -> Vec<Value> {
        self.store.ledger(TILL)
    }
}

fn start(store: &Store, more: &[&str]) -> (Running, Value) {
    let (bind, journal) = (store.host(2), store.path("journal"));
    let ledger = store.path(&format!("{TILL}.jsonl"));
    let mut words = vec!["device", "--store", "TEST", "--entity", "7", "--open-network", "--no-discovery"];
    words.extend(["--id", TILL, "--bind", &bind, "--ledger", &ledger, "--journal", &journal]);
    words.extend(more);
    let device = Running::start(&words);
    let listening = device.wait_for_event("listening");
    (device, listening)
}

#[test]
fn killed_inside_a_handler_an_order_that_may_not_run_twice_is_in_doubt_and_not_repeated() {
    let shop = Shop::open("journal-doubt", 101);
    let restart = |shop: &Shop| {
        let (device, journal) = shop.device(&[]);
        assert_eq!(journal, "whole");
        device
    };
    let (summary, _device) = shop.kill_at_work(&["custom", "0x8001", "--to", "all", "--hex", "01"], restart);
    assert_eq!(summary["outcomes"]["in-doubt"], 1, "{summary}");
    let (code, next) = shop.store.push(&["custom", "0x8001", "--to", "all", "--hex", "02"]);
    assert_eq!((code, &next["outcomes"]["applied"]), (0, &1.into()), "it is served on: {next}");
    let ledger = shop.ledger();
    assert_eq!(ledger.len(), 2, "nothing twice: {ledger:#?}");
    assert_ne!(ledger[0]["payload_sha256"], ledger[1]["payload_sha256"]);
}

#[test]
fn killed_inside_a_handler_an_order_that_may_run_twice_does_and_is_told_so() {
    let shop = Shop::open("journal-again", 102);
    let restart = |shop: &Shop| shop.device(&[]).0;
    let words = ["custom", "0x8001", "--to", "all", "--hex", "01", "--idempotent"];
    let (summary, _device) = shop.kill_at_work(&words, restart);
    assert_eq!(summary["outcomes"]["applied"], 1, "{summary}");
    let redelivered: Vec<_> = shop.ledger().iter().map(|line| line["redelivered"].clone()).collect();
    assert_eq!(redelivered, [false, true], "twice, and the application knows");
}

#[test]
fn with_its_journal_gone_what_may_not_run_twice_is_in_doubt_and_what_may_runs_again() {
    for (name, net, more, outcome, lines) in
        [("lost-once", 103, None, "in-doubt", 1), ("lost-twice", 104, Some("--idempotent"), "applied", 2)]
    {
        let shop = Shop::open(name, net);
        let restart = |shop: &Shop| {
            std::fs::remove_dir_all(shop.store.path("journal")).expect("it was there");
            let (device, journal) = shop.device(&[]);
            assert_eq!(journal, "new");
            device
        };
        let mut words = vec!["custom", "0x8001", "--to", "all", "--hex", "01"];
        words.extend(more);
        let (summary, _device) = shop.kill_at_work(&words, restart);
        assert_eq!(summary["outcomes"][outcome], 1, "{summary}");
        assert_eq!(shop.ledger().len(), lines, "{name}");
    }
}

/// An order by hand.
fn order(number: u64, flags: KindFlags) -> Order<'static> {
    Order { kind_flags: flags, ..wire::order(number, tillwire::Lane::Normal, b"by hand") }
}

/// What stands in the files of a journal.
fn contents(store: &Store) -> Vec<Vec<u8>> {
    let read = |file: u8| std::fs::read(store.path(&format!("journal/{file:016x}.log"))).unwrap_or_default();
    [1, 2].map(read).to_vec()
}

fn address(listening: &Value) -> std::net::SocketAddr {
    listening["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_an_order_was_done_and_nobody_was_told_it_is_told_later_and_not_repeated() {
    for (net, flags) in [(105, KindFlags::NONE), (110, KindFlags::IDEMPOTENT)] {
        let store = Store::new(&format!("journal-done-{net}"), net);
        let (device, listening) = start(&store, &["--later-ms", "500"]);
        let mut server = Wire::connect(address(&listening), 1).await;
        server.send(&[sent(FRESH, &order(1, flags))]).await;
        device.wait_for_event("order");
        let begun = contents(&store);
        // Its application is at work, and nobody will be there to be told of its end.
        drop(server);
        let ended = async {
            while contents(&store) == begun {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("its end is written down");
        device.kill();
        let (_device, listening) = start(&store, &[]);
        assert_eq!(listening["journal"], "whole");
        let mut server = Wire::connect(address(&listening), 1).await;
        server.send(&[sent(Delivery { replay: true, ..FRESH }, &order(1, flags))]).await;
        let heard = server.until_ended(1).await;
        assert!(matches!(heard[0], Said::Ended { number: 1, code: APPLIED, .. }), "{heard:?}");
        assert_eq!(store.ledger(TILL).len(), 1, "it did not run again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_is_told_in_every_session_until_it_is_settled() {
    let store = Store::new("journal-settled", 106);
    let (device, listening) = start(&store, &["--later-ms", FOR_EVER]);
    let address = address(&listening);
    let mut server = Wire::connect(address, 1).await;
    server.send(&[sent(FRESH, &order(1, KindFlags::NONE))]).await;
    device.wait_for_event("order");
    device.kill();
    let mut device = start(&store, &[]).0;
    for _ in 0..2 {
        let mut server = Wire::connect(address, 1).await;
        let heard = server.until_ended(1).await;
        assert!(matches!(heard[0], Said::Ended { number: 1, code: IN_DOUBT, .. }), "{heard:?}");
        drop(server);
        device.kill();
        device = start(&store, &[]).0;
    }
    let mut server = Wire::connect(address, 1).await;
    server.until_ended(1).await;
    server.send(&[wire::settled(tillwire::Lane::Normal, 1)]).await;
    // What is settled is written down with the next order.
    server.send(&[sent(FRESH, &order(2, KindFlags::NONE))]).await;
    server.until_ended(2).await;
    drop(server);
    device.kill();
    let (_device, _) = start(&store, &[]);
    let mut server = Wire::connect(address, 2).await;
    let heard = server.until_ended(2).await;
    assert_eq!(heard.len(), 1, "the first one is settled: {heard:?}");
    assert_eq!(store.ledger(TILL).len(), 2);
}

#[test]
fn a_journal_in_use_is_refused() {
    let store = Store::new("journal-lock", 107);
    let (_device, _) = start(&store, &[]);
    let journal = store.path("journal");
    let bind = store.host(3);
    let words = ["device", "--store", "TEST", "--open-network", "--no-discovery", "--id", TILL];
    let output = support::run(&[&words[..], &["--bind", &bind, "--journal", &journal]].concat());
    assert_eq!(support::code(&output), 2);
    assert!(support::stderr(&output).contains("one process, one journal"), "{}", support::stderr(&output));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "nothing tells of a file that is made")]
fn with_a_state_directory_the_journal_stands_in_it() {
    let store = Store::new("journal-state", 108);
    let state = store.path("state");
    let device = store.device(TILL, 2, &["--no-discovery", "--state", &state]);
    let made = || std::fs::read_dir(store.path("state/journal")).is_ok_and(|files| files.count() == 3);
    let deadline = support::now() + PATIENCE;
    while !made() {
        assert!(support::now() < deadline, "two files and a lock");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(device.end(), 0);
}

/// A device in a mount namespace of its own, its journal on a file system of `kib`.
fn start_on_a_small_disk(store: &Store, kib: u32) -> Option<Running> {
    let (journal, bind) = (store.path("small"), store.host(2));
    std::fs::create_dir_all(&journal).expect("a directory");
    let script = format!(
        "mount -t tmpfs -o size={kib}k tmpfs {journal} && exec {} device --store TEST --entity 7 --staging \
         --open-network --no-discovery --id {TILL} --bind {bind} --ledger {} --journal {journal} \"$@\"",
        env!("CARGO_BIN_EXE_tillwire"),
        store.path(&format!("{TILL}.jsonl")),
    );
    let permitted = Command::new("unshare").args(["--mount", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    Some(Running::start_command(command))
}

#[test]
fn a_full_disk_refuses_orders_until_there_is_room_and_then_takes_them() {
    let store = Store::new("journal-full", 109);
    let there = format!("{}:8081", store.host(2));
    // Room for one of the two files.
    let Some(device) = start_on_a_small_disk(&store, 300) else {
        assert!(std::env::var_os("TILLWIRE_SKIP").is_none_or(|skip| skip != "never"), "no mount namespace");
        println!("skipped: this user may make no mount namespace");
        return;
    };
    device.wait_for_event("listening");
    let failed = device.wait_for_event("journal-failed");
    assert!(
        failed["why"].as_str().is_some_and(|why| why.contains("space") || why.contains("full")),
        "{failed}"
    );
    let server = store.serve(&["--no-discovery", "--device", &there]);
    device.wait_for_event("journal-failed");
    let (code, summary) =
        store.push(&["custom", "0x8001", "--to", "all", "--hex", "01", "--wait", "1", "--lifetime", "60"]);
    assert_eq!((code, &summary["unsettled"]), (1, &1.into()), "{summary}");
    assert!(
        !std::path::Path::new(&store.path(&format!("{TILL}.jsonl"))).exists()
            || store.ledger(TILL).is_empty()
    );
    let remount = format!("mount -o remount,size=4m {}", store.path("small"));
    device.enter_mounts(&remount);
    device.wait_for_event("journal-back");
    server.wait_for(connected(TILL));
    device.wait_for_event("order");
    let (code, summary) = store.push(&["custom", "0x8001", "--to", "all", "--hex", "02"]);
    assert_eq!((code, &summary["outcomes"]["applied"]), (0, &1.into()), "{summary}");
    assert_eq!(store.ledger(TILL).len(), 2, "and the one from before");
}
