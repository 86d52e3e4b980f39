#!/usr/bin/env bash
# Instructions per operation against the recorded ones (benches/records/), and every bench builds.
source "$(dirname "$0")/lib.sh"

have valgrind || packages valgrind || skip "valgrind cannot be installed, and it counts the instructions"
cargo bench --quiet --locked --no-run
cargo bench --quiet --locked --bench icount
