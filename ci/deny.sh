#!/usr/bin/env bash
# Licences, sources, bans and advisories of everything that is linked (deny.toml).
source "$(dirname "$0")/lib.sh"

if ! have cargo-deny; then
    say "installing cargo-deny: some minutes, once"
    # The version these rules were written for.
    cargo install --quiet --locked cargo-deny --version 0.20.2 || skip "cargo-deny cannot be installed"
fi
# Everything but the advisories needs nothing that is not here.
cargo deny --locked --log-level error check bans licenses sources
say "bans, licences and sources"
# The database of advisories is fetched, and not everywhere can be. Not reaching it is no finding; a finding is.
if output=$(cargo deny --locked check advisories 2>&1); then
    say "advisories"
elif grep -q 'failed to fetch\|failed to load advisory database\|failed to open advisory database' <<<"$output"; then
    say "NOT CHECKED: advisories; their database cannot be reached from here"
else
    printf '%s\n' "$output"
    fail "advisories"
fi
