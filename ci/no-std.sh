#!/usr/bin/env bash
# The floors without an operating system build for a Cortex-M4: no std, no alloc, no clock.
#
# rustup's toolchains bring no `core` for that target unless it is fetched; Debian ships one compiler together with the
# source of its `core`, which is what is built here.
source "$(dirname "$0")/lib.sh"

target=thumbv7em-none-eabi
crates=(-p tillwire-wire-format -p tillwire-discovery -p tillwire-push --features tillwire-wire-format/bincode)

# A toolchain that has the target already is the simplest.
if have rustup && rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    cargo build --quiet --locked --release --target "$target" --target-dir target/no-std "${crates[@]}"
    say "built for $target with $(rustc --version)"
    exit 0
fi

packages rustc-web cargo-web rust-web-src || skip "the packages rustc-web, cargo-web, rust-web-src cannot be installed"
[ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] || skip "no compiler in /usr/bin although its packages are there"
# Debian's compiler by its path: rustup's proxies would put their own in front. `core` is built from source, which a
# stable compiler allows only when told so.
env RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1 /usr/bin/cargo build --quiet --locked --release \
    -Zbuild-std=core --target "$target" --target-dir target/no-std "${crates[@]}"
say "built for $target with $(/usr/bin/rustc --version)"
