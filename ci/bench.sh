#!/usr/bin/env bash
# Instructions per operation against the recorded ones (benches/records/), and every bench builds.
source "$(dirname "$0")/lib.sh"

have valgrind || packages valgrind || skip "valgrind cannot be installed, and it counts the instructions"
# Only the benches: without their names every package's unit tests would be built once more, optimised.
cargo bench --quiet --locked -p tillwire --bench speed --bench icount --bench outbox --no-run
cargo bench --quiet --locked -p tillwire --bench icount
