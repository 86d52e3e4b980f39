//! A disk that is full: durable orders are refused, volatile ones go on, and with room again all is well.

use std::process::Command;

use serde_json::{Value, json};
use testkit::kill::disk::Prepared;
use testkit::kill::{Disk, Failure};

use crate::shop::{Shop, connected, until};
use crate::support::Running;

fn full_disk(shop: &Shop) -> Option<Prepared> {
    match Prepared::new(shop.store.path("").as_ref(), Disk::Full) {
        Ok(prepared) => Some(prepared),
        Err(Failure::Skipped(why)) => {
            println!("skipped: {why}");
            None
        }
        Err(failure) => panic!("{failure}"),
    }
}

fn serve(shop: &Shop, disk: &Prepared) -> Running {
    let outbox = disk.outbox.display().to_string();
    let words = shop.words(&["--outbox", &outbox, "--outbox-mib", "16"]);
    let (program, words) = disk.wrap(env!("CARGO_BIN_EXE_tillwire").as_ref(), words);
    let mut command = Command::new(program);
    command.args(words).env_remove("XDG_RUNTIME_DIR");
    Running::start_command(command)
}

#[test]
fn a_full_disk_refuses_durable_orders_and_nothing_else() {
    let shop = Shop::new("full", 245, &[2, 3]);
    let Some(disk) = full_disk(&shop) else { return };
    let server = serve(&shop, &disk);
    server.wait_for_event("serving");
    let _device = shop.device(2, &[]);
    connected(&server, 2);
    let kept = shop.accept("kept", &[]);
    disk.fill().expect("filled");
    let payload = shop.store.path("payload");
    std::fs::write(&payload, vec![7; 60_000]).expect("written");
    let push = |more: &[&str]| -> (i32, Value) {
        let words =
            ["push", "custom", "0x8001", "--payload-file", &payload, "--to", "zone=0", "--quorum", "1"];
        let (code, mut lines) = shop.ask(&[&words[..], &["--wait", "20"], more].concat());
        (code, lines.pop().expect("a line"))
    };
    // The file that is open has its room; the next one has none.
    let refused = (0..40).map(|_| push(&[])).find(|(code, _)| *code != 0).expect("the disk is full");
    assert_eq!(refused.0, 2);
    let error = refused.1["error"].as_str().expect("text");
    assert!(
        error.contains("outbox")
            && refused.1["help"].as_str().is_some_and(|help| help.contains("nothing was sent")),
        "{refused:?}"
    );
    let failed = server.wait_for_event("outbox-failed");
    assert!(failed["error"].as_str().is_some_and(|text| text.contains("segment")), "{failed}");
    let before = shop.ledger(2).len();
    let (code, line) = push(&["--volatile"]);
    assert_eq!((code, &line["durable"]), (0, &false.into()), "{line}");
    assert_eq!(shop.ledger(2).len(), before + 1, "of what was refused nothing was sent");

    disk.free().expect("freed");
    until(|| push(&[]).0 == 0);
    server.wait_for_event("outbox-back");
    assert!(shop.status()["failed"].as_u64() > Some(0));
    server.kill();
    let server = serve(&shop, &disk);
    server.wait_for_event("serving");
    let _three = shop.device(3, &[]);
    assert_eq!(shop.report("kept"), (kept, json!({"applied": 2})));
    drop(server);
}

#[test]
fn a_server_does_not_start_on_a_disk_without_room() {
    let shop = Shop::new("no-room", 246, &[]);
    let Some(disk) = full_disk(&shop) else { return };
    disk.fill().expect("filled");
    let server = serve(&shop, &disk);
    let error = server.wait_for_event("error");
    assert!(error["help"].as_str().is_some_and(|help| help.contains("its disk is full")), "{error}");
    assert_eq!(server.wait(), 2);
}
