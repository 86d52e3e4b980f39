#!/usr/bin/env bash
# No panic and no allocator is left in an optimised wire-format, nor in the state machines above it: the linker decides.
#
# testkit/no-panic calls every way into them; its panic handler calls a function nobody defines. Two programs with a panic
# and an allocation planted in them show that the proof can fail.
source "$(dirname "$0")/lib.sh"

[ "$(uname -sm)" = "Linux x86_64" ] || skip "the program is laid out for Linux on x86_64"

target="$PWD/target/no-panic"
link() { # link FEATURES [RUSTC ARGUMENTS]
    local features=$1
    shift
    cargo rustc --quiet --release --locked --manifest-path testkit/no-panic/Cargo.toml --target-dir "$target" \
        --features "$features" --bin no-panic -- -D warnings \
        -C link-arg=-nostartfiles -C link-arg=-nodefaultlibs -C link-arg=-lc "$@" 2>&1
}

# Who calls a panic, when somebody does: linked with the missing function defined, then taken apart.
callers() {
    have objdump || { say "install binutils to see who panics"; return; }
    link "$1" -C link-arg=-Wl,--defsym=tillwire_a_panic_is_reachable=0 -C strip=none >/dev/null || return 0
    objdump -d --no-show-raw-insn "$target/release/no-panic" |
        awk '/^[0-9a-f]+ </ { f = $2 } /call|jmp/ && /panic|_fail|failed/ { print "   " f " calls " $NF }' | c++filt | sort -u
}

for features in "" payloads roster seeker fleet receiver; do
    if ! output=$(link "$features"); then
        printf '%s\n' "$output" | grep -E '^error|undefined' || printf '%s\n' "$output"
        callers "$features"
        fail "a panic is reachable (wire-format and ${features:-no more})"
    fi
    say "links without a panic and without an allocator: wire-format${features:+, $features}"
done

output=$(link planted-panic) && fail "the program with a planted panic links: the proof proves nothing"
grep -q 'undefined symbol: tillwire_a_panic_is_reachable\|undefined reference to .tillwire_a_panic_is_reachable' <<<"$output" ||
    fail "the program with a planted panic fails for another reason: $output"
say "a planted panic is found"

output=$(link planted-allocation) && fail "the program with a planted allocation links: the proof proves nothing"
grep -q 'no global memory allocator' <<<"$output" ||
    fail "the program with a planted allocation fails for another reason: $output"
say "a planted allocation is found"
