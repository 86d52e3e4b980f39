#!/usr/bin/env bash
# Every fuzz target, from its kept corpus, for a while each: ci/fuzz.sh [SECONDS], 10 by default.
#
# The targets are built the way `cargo fuzz build -s none` builds them, which a stable compiler can; the code under test
# has no `unsafe`, so an address sanitizer would add little. What is new and small goes to target/fuzz/found/, what fails to
# target/fuzz/artifacts/; nothing is written into the repository.
source "$(dirname "$0")/lib.sh"

seconds=${1:-10}
host=$(rustc -vV | sed -n 's/^host: //p')
have c++ || packages g++ || skip "libFuzzer is C++ and there is no compiler for it"

flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
# A target of its own keeps build scripts and derive macros from being instrumented.
RUSTFLAGS="$flags" cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host" \
    --target-dir target/fuzz

failed=()
for file in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$file" .rs)
    found="target/fuzz/found/$name"
    artifacts="target/fuzz/artifacts/$name"
    mkdir -p "$found" "$artifacts"
    inputs=("$found" "fuzz/corpus/$name")
    [ ! -d "fuzz/regressions/$name" ] || inputs+=("fuzz/regressions/$name")
    log="target/fuzz/$name.log"
    if "target/fuzz/$host/release/$name" "${inputs[@]}" \
        -artifact_prefix="$artifacts/" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 >"$log" 2>&1; then
        say "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
    else
        tail -n 30 "$log"
        failed+=("$name")
    fi
done
[ ${#failed[@]} -eq 0 ] || fail "${failed[*]}; the inputs are in target/fuzz/artifacts/"
