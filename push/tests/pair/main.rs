//! Both halves against each other: one fleet, some receivers, and a network that cuts, delays and splits everything.
//!
//! Virtual time, one seed per run. A failing seed is printed; `TILLWIRE_SEED=17 cargo test -p tillwire-push --test pair`
//! runs that one alone and tells what happens, `TILLWIRE_SEEDS=5000` runs so many, `TILLWIRE_FROM=1000` from that one on.

mod crowd;
mod devices;
mod faults;
mod journal;
mod network;
mod oracle;
mod orders;
mod questions;
mod scenes;
mod server;
mod slow;
mod wires;
mod work;
mod world;

use world::{Totals, World};

/// Seeds of one `cargo test`.
const SEEDS: u64 = 200;
/// Failed seeds after which the others are not tried any more.
const FAILED_MAX: usize = 20;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(seed: u64, tell: bool) -> Totals {
    World::new(seed, tell).run()
}

/// A run, or how it failed.
fn outcome(seed: u64) -> Result<Totals, String> {
    std::panic::catch_unwind(|| run(seed, false)).map_err(|why| match why.downcast::<String>() {
        Ok(text) => *text,
        Err(why) => why.downcast_ref::<&str>().copied().unwrap_or("a panic").to_owned(),
    })
}

#[test]
fn whatever_the_network_does_every_order_ends_once_on_every_device() {
    if let Some(seed) = number("TILLWIRE_SEED") {
        run(seed, true);
        return;
    }
    let (first, seeds) = (number("TILLWIRE_FROM").unwrap_or(0), number("TILLWIRE_SEEDS").unwrap_or(SEEDS));
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        match outcome(seed) {
            Ok(run) => totals.add(&run),
            Err(why) => {
                eprintln!(
                    "the seed that failed: TILLWIRE_SEED={seed} cargo test -p tillwire-push --test pair"
                );
                failed.push((seed, why));
            }
        }
        if failed.len() == FAILED_MAX {
            break;
        }
    }
    assert!(failed.is_empty(), "{} seeds failed: {failed:#?}", failed.len());
    // A world in which nothing goes wrong proves nothing.
    for (what, count) in totals.each() {
        println!("{what}: {count}");
        assert!(count >= seeds / 10, "{what} happened {count} times in {seeds} runs");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(7, false), run(7, false));
}
