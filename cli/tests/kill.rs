//! Short kill campaigns: `tillwire serve` and devices die (SIGKILL) while orders flow. The long ones are a command:
//! `cargo run -p tillwire-testkit --release -- kill --times 500`.
#![cfg(target_os = "linux")]

use std::time::Duration;

use testkit::kill::{Disk, Failure, Options, Report, run};

/// Enough that each side dies a few times.
const TIMES: u32 = 10;
/// Longer than what is left takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nothing if the machine has no such disk.
fn campaign(net: u8, volatile: bool, disk: Disk) -> Option<Report> {
    let name = format!("tillwire-kill-{net}-{}", std::process::id());
    let options = Options {
        program: env!("CARGO_BIN_EXE_tillwire").into(),
        dir: std::env::temp_dir().join(name),
        times: TIMES,
        devices: 4,
        pushers: 4,
        seed: net.into(),
        net,
        volatile,
        disk,
        patience: PATIENCE,
    };
    let dir = options.dir.clone();
    match run(options) {
        Ok(report) => Some(report),
        Err(Failure::Skipped(why)) => {
            println!("skipped: {why}");
            None
        }
        Err(failure) => panic!("{failure}\nlogs, ledgers and the history are kept in {}", dir.display()),
    }
}

#[test]
fn a_store_without_an_outbox_gives_nothing_twice() {
    let report = campaign(171, true, Disk::Plain).expect("a plain disk is everywhere");
    let [server, devices] = report.killed();
    assert!(server + devices >= TIMES && report.orders[1] > 0, "{report}");
}
