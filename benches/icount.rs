//! Instructions per operation, counted by callgrind, compared with the recorded ones: the gate of CI.
//!
//! ```text
//! cargo bench --bench icount              compare with benches/records/instructions.tsv
//! cargo bench --bench icount -- --record  write it anew
//! ```
//!
//! Each scenario runs in a process of its own, once with few and once with many repetitions; the difference is free of
//! start-up. Counts depend on the compiler, so the record names it, and another compiler's counts inform without judging.
//! What this cannot see: caches, branch prediction, system calls, and the hardware CRC (callgrind runs it, as one
//! instruction).
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

mod scenarios;

/// A count may rise by this share before the gate closes.
const TOLERANCE: f64 = 0.03;
const FEW: u64 = 20;
const MANY: u64 = 220;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().position(|arg| arg == "--run") {
        Some(at) => {
            let (name, times) = (&args[at + 1], args[at + 2].parse().expect("a number"));
            let scenario =
                scenarios::all().into_iter().find(|scenario| scenario.name == name).expect("a scenario");
            let mut run = (scenario.build)();
            (0..times).for_each(|_: u64| run());
            ExitCode::SUCCESS
        }
        None => gate(args.iter().any(|arg| arg == "--record")),
    }
}

fn gate(record: bool) -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("icount: skipped, valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/records/instructions.tsv");
    let counts: BTreeMap<_, _> =
        scenarios::all().iter().map(|scenario| (scenario.name, count(scenario))).collect();
    if record {
        let lines: String = counts.iter().map(|(name, count)| format!("{name}\t{count:.1}\n")).collect();
        std::fs::write(&path, format!("# instructions per operation\n# {}\n{lines}", compiler()))
            .expect("writes");
        println!("icount: recorded {} scenarios in {}", counts.len(), path.display());
        return ExitCode::SUCCESS;
    }
    compare(&counts, &std::fs::read_to_string(&path).unwrap_or_default())
}

fn compare(counts: &BTreeMap<&str, f64>, recorded: &str) -> ExitCode {
    let judged = recorded.lines().any(|line| line == format!("# {}", compiler()));
    let before: BTreeMap<_, f64> = recorded
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    let mut worse = 0;
    println!("{:<28} {:>12} {:>12} {:>8}", "scenario", "recorded", "now", "change");
    for (name, &now) in counts {
        let Some(&was) = before.get(name) else {
            println!("{name:<28} {:>12} {now:>12.1}      new: not recorded", "-");
            worse += 1;
            continue;
        };
        let change = now / was - 1.0;
        let over = change > TOLERANCE && now - was > 2.0;
        worse += u32::from(over);
        println!(
            "{name:<28} {was:>12.1} {now:>12.1} {:>+7.1}%{}",
            change * 100.0,
            if over { "  MORE" } else { "" }
        );
    }
    if !judged {
        println!("icount: recorded with another compiler than {}: for information only", compiler());
        return ExitCode::SUCCESS;
    }
    println!("icount: {worse} of {} scenarios take more than recorded", counts.len());
    if worse == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Instructions per operation.
fn count(scenario: &scenarios::Scenario) -> f64 {
    let (few, many) = (instructions(scenario.name, FEW), instructions(scenario.name, MANY));
    (many - few) as f64 / (MANY - FEW) as f64 / scenario.operations as f64
}

fn instructions(name: &str, times: u64) -> u64 {
    let program: PathBuf = std::env::current_exe().expect("has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--run", name, &times.to_string()])
        .output()
        .expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed under valgrind:\n{text}");
    let collected =
        text.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind reports a total").1;
    collected.trim().parse().expect("a number")
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
