//! Short kill campaigns: `tillwire serve` and devices die (SIGKILL) while orders flow. The long ones are a command:
//! `cargo run -p tillwire-testkit --release -- kill --times 500`.
#![cfg(target_os = "linux")]

use std::time::Duration;

use testkit::kill::{Disk, Failure, Options, Report, run};

/// Longer than what is left takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Nothing if the machine has no such disk.
fn campaign(net: u8, times: u32, volatile: bool, disk: Disk) -> Option<Report> {
    let options = Options {
        program: env!("CARGO_BIN_EXE_tillwire").into(),
        dir: std::env::temp_dir().join(format!("tillwire-kill-{net}-{}", std::process::id())),
        times,
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
        Ok(report) => {
            let [server, devices] = report.killed();
            assert!(server + devices >= times, "{report}");
            Some(report)
        }
        Err(Failure::Skipped(why)) => {
            println!("skipped: {why}");
            None
        }
        Err(failure) => panic!("{failure}\nlogs, ledgers and the history are kept in {}", dir.display()),
    }
}

#[test]
fn nothing_that_was_accepted_is_lost_and_nothing_runs_twice() {
    let report = campaign(172, 10, false, Disk::Plain).expect("a plain disk is everywhere");
    assert!(report.orders[0] > 0 && report.orders[1] > 0, "orders of both logs: {report}");
    assert!(report.outcomes.get("applied").is_some_and(|applied| *applied > 0), "{report}");
}

#[test]
fn a_store_without_an_outbox_gives_nothing_twice() {
    let report = campaign(171, 10, true, Disk::Plain).expect("a plain disk is everywhere");
    assert!(report.orders[0] == 0 && report.orders[1] > 0, "{report}");
}

#[test]
fn a_disk_that_is_full_now_and_then_loses_nothing_that_was_accepted() {
    campaign(173, 10, false, Disk::Full);
}

#[test]
fn a_slow_disk_loses_nothing_that_was_accepted() {
    campaign(174, 4, false, Disk::Slow(200));
}
