//! The command: `simulate --seeds A..B`.

use std::ops::Range;
use std::process::ExitCode;

use super::plan::{Plan, Scene};
use super::{Campaign, run, shrink};

const HELP: &str = "\
Runs whole stores in virtual time and checks every promise after every step.

usage: simulate [options]

  --seeds A..B     the seeds to run (default 0..1000)
  --seed N         the same as --seeds N..N+1
  --scene NAME     small (default), large, day, crowd
  --jobs N         threads (default 1)
  --failures N     stop after so many failing seeds (default 1)
  --no-shrink      show a failing seed as it is
";

#[derive(Debug)]
struct Options {
    campaign: Campaign,
    shrink: bool,
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}

fn options(words: impl Iterator<Item = String>) -> Result<Options, String> {
    let campaign = Campaign { scene: Scene::Small, seeds: 0..1_000, jobs: 1, failures_max: 1 };
    let mut options = Options { campaign, shrink: true };
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if word == "--no-shrink" {
            options.shrink = false;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let wrong = || format!("{value} is no value for {word}");
        let number = || value.parse::<u64>().map_err(|_| wrong());
        match word.as_str() {
            "--seeds" => options.campaign.seeds = range(&value).ok_or_else(wrong)?,
            "--seed" => options.campaign.seeds = number()?..number()?.saturating_add(1),
            "--jobs" => options.campaign.jobs = number()? as usize,
            "--failures" => options.campaign.failures_max = number()?.max(1) as usize,
            "--scene" => {
                let named = Scene::NAMED.iter().find(|(name, _)| *name == value);
                options.campaign.scene = named.map(|(_, scene)| *scene).ok_or_else(wrong)?;
            }
            _ => return Err(format!("there is no option {word}")),
        }
    }
    Ok(options)
}

/// The command, from the words after its name.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<_> = words.collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let options = match options(words.into_iter()) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // A run that panics is told like any other failure, once.
    std::panic::set_hook(Box::new(|_| ()));
    let report = options.campaign.run();
    print!("{}", report.text());
    for (seed, failure) in &report.failures {
        println!("\nseed {seed} fails: {failure}");
    }
    if let Some((seed, failure)) = report.failures.first() {
        let scene = options.campaign.scene;
        show(scene, *seed, options.shrink.then_some(failure));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The failing run, made small if its failure is given, with what happened in it.
fn show(scene: Scene, seed: u64, failure: Option<&super::Failure>) {
    let mut plan = Plan::draw(scene, seed);
    if let Some(failure) = failure {
        let before = plan.size();
        let (small, runs) = shrink(&plan, failure);
        let ([d0, o0, f0], [d1, o1, f1]) = (before, small.size());
        println!(
            "\nmade smaller in {runs} runs: devices {d0} → {d1}, orders {o0} → {o1}, faults {f0} → {f1}"
        );
        plan = small;
    }
    println!("its faults:\n{}", plan.faults_text());
    if let Some(failure) = run(&plan, true).failure {
        println!("what happened:\n{failure}");
    }
    println!(
        "to run it again: cargo run -p tillwire-testkit --release -- simulate --scene {} --seed {seed}",
        scene.name()
    );
}
