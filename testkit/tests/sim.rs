//! The simulator: some hundred seeds, and that it is what it says it is.

use std::process::ExitCode;

use testkit::sim::{self, Campaign, Plan, Scene};

/// Seeds of one `cargo test`. `TILLWIRE_SEEDS=5000` runs so many, `TILLWIRE_FROM=1000` from that one on.
const SEEDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_goes_wrong_every_promise_is_kept() {
    let (from, seeds) = (number("TILLWIRE_FROM").unwrap_or(0), number("TILLWIRE_SEEDS").unwrap_or(SEEDS));
    let campaign = Campaign { scene: Scene::Small, seeds: from..from + seeds, jobs: 2, failures_max: 3 };
    let report = campaign.run();
    println!("{}", report.text());
    for (seed, failure) in &report.failures {
        println!("seed {seed}: {failure}");
        println!("cargo run -p tillwire-testkit --release -- simulate --seed {seed}");
    }
    assert!(report.failures.is_empty(), "seeds failed");
    assert_eq!(report.seeds, seeds);
    // A world in which nothing goes wrong proves nothing.
    let missed: Vec<_> = report.missed().map(sim::Probe::text).collect();
    assert!(seeds < SEEDS || missed.is_empty(), "never happened: {missed:?}");
    assert!(seeds < SEEDS || report.twice > 0);
}

#[test]
fn a_plan_is_the_same_for_the_same_seed_and_so_is_its_run() {
    let runs = [7, 7, 8].map(|seed| sim::run(&Plan::draw(Scene::Small, seed), false));
    assert_eq!(runs[0].failure, None);
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    // Telling what happens changes nothing of it.
    assert_eq!(sim::run(&Plan::draw(Scene::Small, 7), true), runs[0]);
}

#[test]
fn a_store_of_many_devices_settles() {
    let outcome = sim::run(&Plan::draw(Scene::Large, 4), false);
    assert_eq!(outcome.failure, None);
    assert!(outcome.run.outcomes > 1_000, "{outcome:?}");
}

/// The first hours of a day: what few faults and long silence make of sessions, journals and logs.
#[test]
fn a_store_lives_through_the_hours_of_a_day() {
    let hours = std::time::Duration::from_secs(2 * 3_600);
    let outcome = sim::run(&Plan::draw(Scene::Day, 1).until(hours), false);
    assert_eq!(outcome.failure, None);
    assert!(outcome.run.simulated >= hours, "{outcome:?}");
    assert!(outcome.run.orders > 200 && outcome.run.outcomes > outcome.run.orders, "{outcome:?}");
    // A PING to each of a hundred devices at least every 3 s, and its answer.
    assert!(outcome.run.steps > 2 * 100 * hours.as_secs() / 3, "{outcome:?}");
}

#[test]
fn the_command_says_what_is_wrong_with_its_words() {
    let code = |words: &[&str]| sim::main(words.iter().map(|word| (*word).to_owned()));
    assert_eq!(code(&["--seeds", "3"]), ExitCode::from(2));
    assert_eq!(code(&["--scene", "nowhere"]), ExitCode::from(2));
    assert_eq!(code(&["--help"]), ExitCode::SUCCESS);
    assert_eq!(code(&["--seeds", "0..3", "--jobs", "2"]), ExitCode::SUCCESS);
}

/// The table of planted bugs and the patches are one list.
#[test]
fn every_planted_bug_stands_in_the_table() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/SIMULATION.md")).expect("the page is there");
    let (_, section) = text.split_once("## Planted bugs").expect("it has the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    for row in rows.clone() {
        let mut cells = row.trim_matches('|').split(" | ").skip(1);
        assert!(
            cells.any(|cell| !cell.trim_matches([' ', '|']).is_empty()),
            "neither planted nor explained: {row}"
        );
    }
    assert_eq!(rows.count(), 24);
    let quoted = section.split('`').skip(1).step_by(2);
    let is_name =
        |name: &&str| name.contains('-') && !name.contains(['/', '.', ' ']) && *name != "wire-format";
    let named: std::collections::BTreeSet<_> = quoted.filter(is_name).map(str::to_owned).collect();
    let patches = std::fs::read_dir(root.join("testkit/planted")).expect("the directory is there");
    let name = |path: std::path::PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let patches = patches.filter_map(|entry| name(entry.expect("an entry").path())).collect();
    assert_eq!(named, patches);
}

#[test]
fn every_planted_bug_can_be_planted() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // A tree without history (a package, an archive) has nothing to apply them to.
    if !root.join(".git").exists() {
        return println!("skipped: no git here");
    }
    let patches = std::fs::read_dir(root.join("testkit/planted")).expect("the directory is there");
    let patches: Vec<_> = patches.map(|entry| entry.expect("an entry").path()).collect();
    assert!(patches.len() >= 6, "{patches:?}");
    for patch in patches {
        let git = std::process::Command::new("git")
            .arg("apply")
            .arg("--check")
            .arg(&patch)
            .current_dir(&root)
            .status();
        assert!(git.is_ok_and(|status| status.success()), "{patch:?} does not apply");
    }
}
