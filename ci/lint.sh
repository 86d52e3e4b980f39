#!/usr/bin/env bash
# Formatting, clippy and documentation, all without a warning.
source "$(dirname "$0")/lib.sh"

for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 || rustup component add "${tool/#fmt/rustfmt}" >/dev/null 2>&1 ||
        skip "there is no cargo $tool, and rustup cannot add it"
done

cargo fmt --all --check
for own in fuzz testkit/no-panic; do
    cargo fmt --manifest-path "$own/Cargo.toml" --check
done
say "formatted"

cargo clippy --quiet --locked --workspace --all-targets --all-features -- -D warnings
say "clippy: everything, with all features"
# What a firmware builds: each floor by itself, so that no other package's features hide a missing one.
for package in tillwire-wire-format tillwire-discovery tillwire-push tillwire; do
    cargo clippy --quiet --locked -p "$package" --no-default-features -- -D warnings
done
cargo clippy --quiet --locked -p tillwire-wire-format --no-default-features --features bincode -- -D warnings
for package in tillwire-discovery tillwire-push tillwire; do
    cargo clippy --quiet --locked -p "$package" --no-default-features --features tracing -- -D warnings
done
cargo clippy --quiet --locked -p tillwire --no-default-features --features metrics -- -D warnings
cargo clippy --quiet --locked -p tillwire-push --no-default-features --features outbox -- -D warnings
say "clippy: each floor without features, and with each one"

RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --all-features --no-deps
say "documentation"
