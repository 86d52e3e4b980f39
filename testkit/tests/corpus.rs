//! Every kept input of the fuzz targets is replayed: the corpora, and what once went wrong.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::fuzz::{self, TARGETS};

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Files of a directory in the order of their names; none if it is not there.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_passes() {
    for (target, run) in TARGETS {
        let kept = files(&fuzz_directory().join("corpus").join(target));
        assert!(
            !kept.is_empty(),
            "{target} has no corpus; cargo run -p tillwire-testkit --example corpus -- --write"
        );
        for file in kept.into_iter().chain(files(&fuzz_directory().join("regressions").join(target))) {
            // The name is printed with a failure.
            println!("{}", file.display());
            run(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn seeds_are_those_of_the_specification() {
    for seed in fuzz::seeds() {
        let file = fuzz_directory().join("corpus").join(seed.target).join(&seed.name);
        let kept = fs::read(&file).unwrap_or_default();
        assert_eq!(
            kept,
            seed.bytes,
            "{} is stale; cargo run -p tillwire-testkit --example corpus -- --write",
            file.display()
        );
    }
}

#[test]
fn kept_inputs_are_small() {
    for (target, _) in TARGETS {
        for file in files(&fuzz_directory().join("corpus").join(target)) {
            assert!(
                fs::metadata(&file).unwrap().len() <= 8 * 1024,
                "{} is too large to keep",
                file.display()
            );
        }
    }
}

#[test]
fn every_target_has_a_fuzzer_and_every_fuzzer_a_target() {
    let fuzzers = files(&fuzz_directory().join("fuzz_targets"));
    let mut fuzzers: Vec<_> = fuzzers.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    fuzzers.sort_unstable();
    targets.sort_unstable();
    assert_eq!(fuzzers, targets);
}

/// Half-right inputs, the same in every run: what a fuzzer does in its first second.
#[test]
fn damaged_seeds_pass() {
    let mut rng = wire_format::rng::Rng::new(0x0011_1157);
    for seed in fuzz::seeds() {
        let (_, run) = TARGETS.iter().find(|(name, _)| *name == seed.target).unwrap();
        for _ in 0..200 {
            let mut bytes = seed.bytes.clone();
            for _ in 0..=rng.below(3) {
                let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
                match rng.below(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, u8::try_from(rng.below(256)).unwrap()),
                    _ => bytes[at] ^= 1 << rng.below(8),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            run(&bytes);
        }
    }
}
