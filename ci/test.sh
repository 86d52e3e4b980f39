#!/usr/bin/env bash
# `cargo test`, as the README has it: units, properties, real sockets, replayed corpora, style, examples in documentation.
# The last line is the sum of what ran.
source "$(dirname "$0")/lib.sh"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test 2>&1 | tee "$log" || status=$?
# What is off by default has its own tests, and must not cost the others anything.
cargo test -p tillwire --features tracing,metrics --test tracing --test metrics --test no_alloc 2>&1 | tee -a "$log" || status=$?

sum() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' "$log"; }
passed=$(sum passed) failed=$(sum failed) ignored=$(sum ignored)
[ "$status" -eq 0 ] || [ "$failed" -ne 0 ] || failed=1
[ "$passed" -ne 0 ] || { echo "no test ran" >&2; status=1; }
[ "$ignored" -eq 0 ] || say "$ignored ignored"
[ "$failed" -eq 0 ] || status=1
echo "$passed passed, $failed failed"
exit "$status"
