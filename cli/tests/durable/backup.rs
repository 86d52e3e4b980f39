//! An outbox that is not what it was: restored from an old backup, damaged, mixed with another one.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::shop::{Shop, connected, id, until};
use crate::support::Running;

fn copy(from: &str, to: &str) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        if entry.path().is_file() {
            fs::copy(entry.path(), Path::new(to).join(entry.file_name())).expect("copied");
        }
    }
}

/// Starts a server that refuses to: what it says.
fn refused(shop: &Shop, more: &[&str]) -> String {
    let words = shop.words(more);
    let server = Running::start(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let error = server.wait_for_event("error");
    assert_eq!(server.wait(), 2);
    format!("{} {}", error["error"], error["help"])
}

#[test]
fn an_outbox_from_an_old_backup_is_found_out_and_nothing_is_repeated() {
    let shop = Shop::new("backup", 241, &[2, 3]);
    let backup = shop.store.path("backup");
    let server = shop.serve(&[]);
    let device = shop.device(2, &[]);
    connected(&server.running, 2);
    // Owed to the device that is away, and in the backup.
    let owed = shop.accept("owed", &[]);
    assert_eq!(server.running.end(), 0);
    copy(&shop.outbox(), &backup);
    let server = shop.serve(&[]);
    connected(&server.running, 2);
    let lineage = shop.status()["lineage"].clone();
    for key in ["b", "c"] {
        shop.accept(key, &["--quorum", "1"]);
    }
    until(|| shop.ledger(2).len() == 3);
    server.running.kill();
    copy(&backup, &shop.outbox());

    let server = shop.serve(&[]);
    assert_eq!(server.outbox["orders"], 1, "what the backup has");
    let forked = server.running.wait_for_event("forked");
    assert_eq!(forked["device"]["id"], *id(2), "{forked}");
    // The old history is set aside, and what it owed is in doubt.
    let renewed = server.running.wait_for_event("renewed");
    assert_ne!(renewed["lineage"], lineage);
    until(|| shop.status()["lineage"] == renewed["lineage"]);
    assert!(Path::new(&shop.outbox()).join("aside-1").is_dir());
    let (number, outcomes) = shop.report("owed");
    assert_eq!((number, &outcomes["in-doubt"]), (owed, &1.into()), "{outcomes}");
    connected(&server.running, 2);
    let (_, lines) = shop.push("d", "20", &["--quorum", "1"]);
    assert_eq!(lines.last().map(|line| &line["reached"]), Some(&true.into()), "{lines:?}");
    let ledger = shop.ledger(2);
    assert_eq!(ledger.len(), 4, "each once: {ledger:?}");
    let _three = shop.device(3, &[]);
    connected(&server.running, 3);
    assert_eq!(shop.report("d").1, json!({"applied": 2}));
    assert_eq!(shop.ledger(3).len(), 1, "of what was in doubt nothing was sent");
    drop(device);
}

/// Inverts a byte in the middle of these bytes, wherever they stand in the outbox.
fn flip(outbox: &str, bytes: &[u8]) {
    for entry in fs::read_dir(outbox).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let mut content = fs::read(&entry).expect("a file");
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            content[at + bytes.len() / 2] ^= 0x10;
            fs::write(&entry, content).expect("written");
            return;
        }
    }
    panic!("not found");
}

#[test]
fn a_flipped_byte_costs_one_order_and_is_told() {
    let shop = Shop::new("flipped", 242, &[2]);
    let server = shop.serve(&[]);
    let orders = ["first", "the-second-one", "third"].map(|key| shop.accept(key, &[]));
    server.running.kill();
    flip(&shop.outbox(), b"the-second-one");

    let server = shop.serve(&[]);
    let found = &server.outbox;
    assert_eq!((&found["damaged_records"], &found["orders"]), (&1.into(), &2.into()), "{found}");
    let _device = shop.device(2, &[]);
    assert_eq!(shop.report("first"), (orders[0], json!({"applied": 1})));
    assert_eq!(shop.report("third"), (orders[2], json!({"applied": 1})));
    // Its key is unknown now: whoever misses it pushes it again.
    let (number, outcomes) = shop.report("the-second-one");
    assert!(number > orders[2] && outcomes == json!({"applied": 1}), "{number} {outcomes}");
    assert_eq!(shop.ledger(2).len(), 3);
}

#[test]
fn an_outbox_that_cannot_be_used_is_refused_and_says_why() {
    let shop = Shop::new("refused", 243, &[]);
    let server = shop.serve(&[]);
    let control = shop.store.path("another.sock");
    let says = refused(&shop, &["--control", &control]);
    assert!(says.contains("in use by another process"), "{says}");
    drop(server);

    let file = shop.store.path("file");
    fs::write(&file, "").expect("written");
    let says = refused(&shop, &["--outbox", &file]);
    assert!(says.contains(&file) && says.contains("another directory"), "{says}");

    // Files of two histories in one directory. Each start begins another file.
    let other = shop.store.path("other");
    for _ in 0..2 {
        drop(shop.serve(&["--outbox", &other]));
    }
    let name = "0000000000000002.log";
    fs::copy(Path::new(&other).join(name), Path::new(&shop.outbox()).join(name)).expect("copied");
    let says = refused(&shop, &[]);
    assert!(says.contains("two histories"), "{says}");
    assert!(refused(&shop, &["--outbox-mib", "15"]).contains("16..="), "sizes have limits");
}

#[test]
fn what_does_not_fit_a_small_outbox_is_refused_until_others_have_ended() {
    let shop = Shop::new("small", 244, &[2]);
    let server = shop.serve(&["--outbox-mib", "16"]);
    assert_eq!(server.outbox["cap_bytes"], 16 << 20);
    let large = shop.store.path("large");
    let pushes = std::cell::Cell::new(0_u8);
    let push = || {
        // Each has its own content.
        pushes.set(pushes.get().wrapping_add(1));
        fs::write(&large, vec![pushes.get(); 4 << 20]).expect("written");
        let words = ["push", "custom", "0x8001", "--payload-file", &large, "--to", "all", "--wait", "0"];
        shop.ask(&words)
    };
    let refused = (0..8).find_map(|_| {
        let (code, lines) = push();
        (code == 2).then(|| lines.into_iter().next().expect("an error"))
    });
    let refused: Value = refused.expect("16 MiB are full at last");
    let (error, help) = (refused["error"].as_str().expect("text"), refused["help"].as_str().expect("text"));
    assert!(error.contains("bytes") && help.contains("nothing was sent"), "{refused}");
    let (_, lines) = shop.push("volatile", "0", &["--volatile"]);
    assert_eq!(lines[0]["event"], "accepted", "one that need not be kept is taken");
    // What has ended makes room without anybody pushing.
    let _device = shop.device(2, &[]);
    until(|| push().0 == 1);
}
