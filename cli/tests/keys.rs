//! Discovery under keys, from the command line: who has them finds its server, who has not stays outside.
#![cfg(unix)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::{Store, code, run, stderr};

const KIOSK: &str = "6f9619ff8b86d011b42d00c04fc964ff";
const TILL: &str = "7f9619ff8b86d011b42d00c04fc964ff";
const STRANGER: &str = "8f9619ff8b86d011b42d00c04fc964ff";

fn key(byte: u8) -> String {
    format!("current = {{ id = 1, key = \"{}\" }}", format!("{byte:02x}").repeat(32))
}

/// A key file with these devices, each with the key made of this byte.
fn write(path: &str, devices: &[(&str, u8)]) {
    let mut text = format!("version = 1\n[beacon]\n{}\n", key(0xBE));
    for (id, byte) in devices {
        text += &format!("[[device]]\nid = \"{id}\"\n{}\n", key(*byte));
    }
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn only_devices_with_their_keys_are_found() {
    let store = Store::new("keys", 141);
    let [all, kiosk, till] = ["all.toml", "kiosk.toml", "till.toml"].map(|name| store.path(name));
    write(&all, &[(KIOSK, 1), (TILL, 2)]);
    write(&kiosk, &[(KIOSK, 1)]);
    // The till has another key than its server knows.
    write(&till, &[(TILL, 3)]);
    let server = store.serve(&["--discovery-keys", &all]);
    let wrong = store.device(TILL, 3, &["--discovery-keys", &till]);
    let _without = store.device(STRANGER, 4, &[]);
    // It has the store's key, so it hears the server; that does not hear it.
    wrong.wait_for_event("server-found");
    let device = store.device(KIOSK, 2, &["--discovery-keys", &kiosk]);
    server.wait_for(|line| line["event"] == "connected" && line["device"]["id"] == KIOSK);
    let (code, summary) = store.push(&["message", "hi", "--to", "all"]);
    assert_eq!((code, &summary["targets"]), (0, &1.into()), "nobody else is known: {summary}");
    assert_eq!(device.wait_for_event("order")["kind"], "message");
}

#[test]
fn a_key_file_that_is_not_usable_starts_nothing() {
    let store = Store::new("keyfiles", 142);
    let path = store.path("keys.toml");
    let serve = || {
        run(&["serve", "--store", "A", "--open-network", "--bind", "127.142.0.9", "--discovery-keys", &path])
    };
    let refused = |says: &str| {
        let output = serve();
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{says}: {}", stderr(&output));
    };
    refused("cannot read the key file");
    std::fs::write(Path::new(&path), "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    refused("it is empty");
    write(&path, &[(KIOSK, 1)]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused("may be read by others (mode 0644)");
    write(&path, &[(KIOSK, 1)]);
    let device = run(&[
        "device",
        "--store",
        "A",
        "--open-network",
        "--id",
        TILL,
        "--bind",
        "127.142.0.8",
        "--discovery-keys",
        &path,
    ]);
    assert_eq!(code(&device), 2);
    assert!(stderr(&device).contains("it holds the keys of other devices"), "{}", stderr(&device));
}
