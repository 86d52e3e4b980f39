#!/usr/bin/env bash
# The facade and both drivers compile for Windows. Compiled, not run: there is no Windows here.
source "$(dirname "$0")/lib.sh"

target=x86_64-pc-windows-gnu
packages rustc-web cargo-web rust-web-src binutils-mingw-w64-x86-64 ||
    skip "Debian's rustc-web, rust-web-src and binutils-mingw-w64 cannot be installed, and rustup may have no $target"

# Debian's compiler comes with the source of its own standard library, which is built first.
RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo check --quiet --locked --target "$target" \
    --target-dir target/windows -Zbuild-std=std,panic_abort -p tillwire --features tokio,bincode
say "compiles for $target with $(/usr/bin/rustc --version)"
