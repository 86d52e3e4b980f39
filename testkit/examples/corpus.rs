//! Writes or checks the seeds of the fuzz targets under `fuzz/corpus/`.
//!
//! `corpus --write` makes them from the vectors of `docs/PROTOCOL.md`; `corpus --check` (what `cargo test` does as well)
//! says which are not there or differ. What a fuzzer added beside them is left alone.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use testkit::fuzz;

fn main() -> ExitCode {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let result = match env::args().nth(1).as_deref() {
        Some("--write") => write(&corpus),
        Some("--check") => check(&corpus),
        _ => Err(io::Error::other("say --write or --check")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(corpus: &Path) -> io::Result<()> {
    let seeds = fuzz::seeds();
    for seed in &seeds {
        let directory = corpus.join(seed.target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(&seed.name), &seed.bytes)?;
    }
    println!("{} seeds written", seeds.len());
    Ok(())
}

fn check(corpus: &Path) -> io::Result<()> {
    let seeds = fuzz::seeds();
    let stale = |seed: &&fuzz::Seed| {
        fs::read(corpus.join(seed.target).join(&seed.name)).ok().as_deref() != Some(&seed.bytes[..])
    };
    let stale: Vec<_> =
        seeds.iter().filter(stale).map(|seed| format!("{}/{}", seed.target, seed.name)).collect();
    if stale.is_empty() {
        println!("{} seeds are up to date", seeds.len());
        return Ok(());
    }
    Err(io::Error::other(format!("missing or stale: {}; run with --write", stale.join(", "))))
}
