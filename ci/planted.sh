#!/usr/bin/env bash
# Plants one bug after another and wants the simulator to find each: testkit/planted/*.patch, a bug per patch.
# Seeds that fail without any planted bug do not count.
# usage: ci/planted.sh [SEEDS] [NAME …]     (2,000 seeds each; without names all of them)
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-2000}
shift || true
scratch=$(mktemp -d)
trap 'git worktree remove --force "$scratch/tree" 2>/dev/null || true; rm -rf "$scratch"' EXIT
git worktree add --quiet --detach "$scratch/tree" HEAD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/planted
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_INCREMENTAL=true
found=0 missed=0
simulate() {
    cargo run --quiet -p tillwire-testkit --release --manifest-path "$scratch/tree/Cargo.toml" -- \
        simulate --seeds "0..$seeds" --jobs 2 --no-shrink --failures 200 >"$scratch/out" || true
    # A run that did not come to its end says nothing.
    grep -q "seeds failed" "$scratch/out" && sed -n 's/^seed \([0-9]*\) fails: .*/\1/p' "$scratch/out" | sort
}
simulate >"$scratch/known"
echo "without a planted bug $(wc -l <"$scratch/known") of $seeds seeds fail"
for patch in testkit/planted/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx "$name"; then continue; fi
    git -C "$scratch/tree" apply "$PWD/$patch"
    if ! (cd "$scratch/tree" && cargo build --quiet -p tillwire-testkit --release); then
        echo "DOES NOT BUILD: $name"
        missed=$((missed + 1))
    elif simulate >"$scratch/failed"; new=$(comm -13 "$scratch/known" "$scratch/failed" | sort -n | head -1); [ -n "$new" ]; then
        echo "found: $name: $(grep -m1 "^seed $new fails: " "$scratch/out" | cut -c1-120)"
        found=$((found + 1))
    else
        echo "NOT FOUND in $seeds seeds: $name"
        missed=$((missed + 1))
    fi
    git -C "$scratch/tree" checkout --quiet -- .
done
echo "$found passed, $missed failed"
[ "$missed" -eq 0 ]
