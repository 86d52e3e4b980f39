# Shared by the scripts beside it. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# A test that skips itself prints why; none waits for input.
exec </dev/null

# say TEXT: a line about what happens.
say() { printf '   %s\n' "$*"; }

# skip TEXT: the tool cannot be had. The caller counts exit status 77 as skipped, not as passed.
skip() { printf '   SKIPPED: %s\n' "$*"; exit 77; }

# fail TEXT
fail() { printf '   FAILED: %s\n' "$*" >&2; exit 1; }

# have COMMAND
have() { command -v "$1" >/dev/null 2>&1; }

# packages NAME...: Debian packages that are not there yet, if we may install them. Returns 1 if they are not there in
# the end.
packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    have apt-get || return 1
    local as_root=()
    [ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null && as_root=(sudo -n); } || return 1
    say "installing ${missing[*]}"
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
    "${install[@]}" "${missing[@]}" >/dev/null 2>&1 && return 0
    "${as_root[@]}" apt-get update -qq >/dev/null 2>&1 || true
    "${install[@]}" "${missing[@]}" >/dev/null 2>&1
}
