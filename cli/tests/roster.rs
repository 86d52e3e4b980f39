//! What a server keeps of its devices over a crash, with real processes.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{KIOSK, PATIENCE, Running, Store, TILL, both_connected, connected, now};

/// Bytes of a snapshot's header, and of a device in it.
const HEADER_LEN: usize = 68;
const RECORD_LEN: usize = 232;

#[expect(clippy::disallowed_methods, reason = "a test waits for a file")]
/// Waits until the file holds so many devices.
fn wait_for_devices(path: &str, count: usize) {
    let deadline = now() + PATIENCE;
    while std::fs::read(path).map_or(0, |bytes| bytes.len()) != HEADER_LEN + count * RECORD_LEN {
        assert!(now() < deadline, "{path} does not come to hold {count} devices");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts the server again where it hears no announce: whom it serves it knows from its file.
fn serve_deaf(store: &Store, state: &str) -> Running {
    store.serve_at(store.discovery + 700, &["--state", state])
}

#[test]
fn after_a_crash_devices_are_served_at_once_where_they_were() {
    let store = Store::new("roster", 141);
    let state = store.path("state");
    let server = store.serve(&["--state", &state, "--keep-every", "1"]);
    let _kiosk =
        store.device(KIOSK, 2, &["--kind", "kiosk", "--zone", "3", "--name", "Kiosk-2", "--code", "KIO-2"]);
    let till = store.device(TILL, 3, &[]);
    both_connected(&server);
    wait_for_devices(&store.path("state/roster"), 2);
    server.kill();

    let server = serve_deaf(&store, &state);
    let restored = server.wait_for_event("restored");
    assert_eq!((&restored["devices"], &restored["damaged"]), (&2.into(), &0.into()), "{restored}");
    // Before anybody had to be heard: the order is for both.
    let (code, summary) = store.push(&["message", "Lane 3 please", "--to", "all"]);
    assert_eq!((code, &summary["targets"]), (0, &2.into()), "{summary}");
    assert_eq!(summary["outcomes"]["applied"], 2);
    let (code, summary) = store.push(&["show-page", "/promo", "--to", "kind=kiosk,zone=3"]);
    assert_eq!((code, &summary["targets"]), (0, &1.into()), "{summary}");

    // Meanwhile another device has the address of the till: it gets nothing.
    server.kill();
    till.kill();
    let stranger = "33333333333333333333333333333333";
    let _stranger = store.device(stranger, 3, &[]);
    let _server = serve_deaf(&store, &state);
    let (code, summary) = store.push(&["message", "for the kiosk", "--to", "id=11111111"]);
    assert_eq!(code, 0, "{summary}");
    let (code, summary) = store.push(&["message", "for the till", "--to", "all", "--wait", "1"]);
    assert_eq!((code, &summary["targets"]), (1, &2.into()), "{summary}");
    assert_eq!((&summary["outcomes"]["applied"], &summary["unsettled"]), (&1.into(), &1.into()), "{summary}");
    assert!(std::fs::read_to_string(store.path(&format!("{stranger}.jsonl"))).unwrap_or_default().is_empty());
}

#[test]
fn a_goodbye_is_written_down_and_an_unusable_file_is_moved_aside() {
    let store = Store::new("aside", 142);
    let (state, file, aside) =
        (store.path("state"), store.path("state/roster"), store.path("state/roster.aside"));
    let server = store.serve(&["--state", &state]);
    let _kiosk = store.device(KIOSK, 2, &[]);
    server.wait_for(connected(KIOSK));
    assert!(std::fs::metadata(&file).is_err(), "not before its time");
    assert_eq!(server.end(), 0);
    wait_for_devices(&file, 1);

    // One byte of the device: the server starts without it, and says so.
    let good = std::fs::read(&file).expect("the file");
    let mut bytes = good.clone();
    bytes[HEADER_LEN + 20] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let server = store.serve(&["--state", &state]);
    let restored = server.wait_for_event("restored");
    assert_eq!((&restored["devices"], &restored["damaged"]), (&0.into(), &1.into()), "{restored}");
    server.wait_for(connected(KIOSK));
    drop(server);

    // One byte of the header: it is set aside, and the server starts as one that knows nobody.
    bytes = good.clone();
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let server = store.serve(&["--state", &state]);
    let joined = server.wait_for(|line: &Value| line["event"] == "joined");
    assert_eq!(joined["device"]["id"], KIOSK);
    assert_eq!(std::fs::read(&aside).expect("set aside"), bytes);
    assert_eq!(server.end(), 0);
    wait_for_devices(&file, 1);

    // The wrong directory: another store's devices are neither taken nor overwritten.
    let other = store.path("other");
    std::fs::create_dir(&other).expect("a directory");
    std::fs::write(store.path("other/roster"), &good).expect("written");
    let mut words = vec!["serve", "--store", "ANOTHER", "--staging", "--open-network", "--state", &other];
    let (control, port) = (store.path("other.sock"), (store.discovery + 700).to_string());
    let bind = store.host(9);
    words.extend([
        "--control",
        &control,
        "--bind",
        &bind,
        "--broadcast",
        "127.255.255.255",
        "--discovery-port",
        &port,
    ]);
    let server = Running::start(&words);
    server.wait_for_event("serving");
    assert_eq!(server.end(), 0);
    assert_eq!(std::fs::read(store.path("other/roster.aside")).expect("set aside"), good);
}
