//! Both halves against each other: one fleet, some receivers, and a network that cuts, delays and splits everything.
//!
//! Virtual time, one seed per run. A failing seed is printed; `TILLWIRE_SEED=17 cargo test -p tillwire-push --test pair`
//! runs that one alone and tells what happens, `TILLWIRE_SEEDS=5000` runs so many.

mod devices;
mod faults;
mod network;
mod oracle;
mod scenes;
mod server;
mod wires;
mod world;

use world::{Totals, World};

/// Seeds of one `cargo test`.
const SEEDS: u64 = 200;

/// Says which seed it was, if the run panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the seed that failed: TILLWIRE_SEED={} cargo test -p tillwire-push --test pair",
                self.0
            );
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(seed: u64, tell: bool) -> Totals {
    let _seed = Seed(seed);
    World::new(seed, tell).run()
}

#[test]
fn whatever_the_network_does_every_order_ends_once_on_every_device() {
    if let Some(seed) = number("TILLWIRE_SEED") {
        run(seed, true);
        return;
    }
    let seeds = number("TILLWIRE_SEEDS").unwrap_or(SEEDS);
    let mut totals = Totals::default();
    for seed in 0..seeds {
        totals.add(&run(seed, false));
    }
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
