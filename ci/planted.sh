#!/usr/bin/env bash
# Plants one bug after another and wants each to be found: testkit/planted/*.patch, a bug per patch. The simulator finds
# it, within so many seeds, or the command that the patch names in a line "Found by: …".
#
# A seed counts only if it passes without the bug: each one that fails is run once more in the tree as it is.
# usage: ci/planted.sh [SEEDS] [NAME …]     (10,000 seeds each; without names all of them)
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-10000}
shift || true
scratch=$(mktemp -d)
trap 'git worktree remove --force "$scratch/tree" 2>/dev/null || true; rm -rf "$scratch"' EXIT
git worktree add --quiet --detach "$scratch/tree" HEAD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/planted
# What matters is how long it takes to build what a patch has changed.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_INCREMENTAL=true \
    CARGO_PROFILE_RELEASE_DEBUG=false
found=0 missed=0
build() {
    (cd "$scratch/tree" && cargo build --quiet -p tillwire-testkit --release)
}
# The first seed from $1 on that fails with the bug and not without it: its number and what it says, on one line.
first_seed() {
    local from=$1 line seed
    while [ "$from" -lt "$seeds" ]; do
        # What was not run to its end says nothing.
        "$CARGO_TARGET_DIR/release/tillwire-testkit" simulate --seeds "$from..$seeds" --jobs 2 --no-shrink \
            >"$scratch/out" 2>&1 || true
        grep -q "seeds failed" "$scratch/out" || return 1
        line=$(grep -m1 '^seed [0-9]* fails: ' "$scratch/out") || return 1
        seed=${line#seed }
        seed=${seed%% *}
        if "$scratch/clean" simulate --seed "$seed" --no-shrink >/dev/null 2>&1; then
            echo "${line:0:120}"
            return 0
        fi
        from=$((seed + 1))
    done
    return 1
}
build
cp "$CARGO_TARGET_DIR/release/tillwire-testkit" "$scratch/clean"
for patch in testkit/planted/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx "$name"; then continue; fi
    began=$SECONDS
    git -C "$scratch/tree" apply "$PWD/$patch"
    command=$(sed -n 's/^Found by: //p' "$patch")
    if [ -n "$command" ]; then
        # A patch that does not build would fail as well.
        if (cd "$scratch/tree" && $command --no-run) >"$scratch/out" 2>&1 &&
            ! (cd "$scratch/tree" && $command) >"$scratch/out" 2>&1 && grep -q "^test result: FAILED" "$scratch/out"; then
            what="$command: $(grep -m1 '^test .* FAILED$\|^    [a-z_:]*$' "$scratch/out" || true)"
        else
            what=
        fi
    elif build; then
        what=$(first_seed 0 || true)
    else
        what=
        echo "DOES NOT BUILD: $name"
    fi
    if [ -n "$what" ]; then
        echo "found in $((SECONDS - began)) s: $name: $what"
        found=$((found + 1))
    else
        echo "NOT FOUND: $name"
        missed=$((missed + 1))
    fi
    git -C "$scratch/tree" checkout --quiet -- .
done
echo "$found passed, $missed failed"
[ "$missed" -eq 0 ]
