# Sourced by the scripts: where things are cached, how progress and errors look, and a private apt.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${CAISSON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/caisson}
export CAISSON_CACHE=$cache
mkdir -p "$cache"

step() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# quietly NAME COMMAND...: runs the command with its output in a log, and shows the log's end when it fails.
quietly() {
    local name=$1 log; shift
    log=$cache/log/$name.log
    mkdir -p "$cache/log"
    if ! "$@" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "$name failed; the whole output is in $log"
    fi
}

# apt_suite SUITE: prepares an apt of its own that knows SUITE and nothing of the system's other suites,
# and sets `apt` to its options. The mirror and the keyring are the system's own.
apt_suite() {
    local suite=$1 dir=$cache/apt/$1 uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    uri=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | grep -v security | head -n 1)
    [ -n "$uri" ] || die "no Debian mirror in this system's apt sources; add one and run apt-get update"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/parts"
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$uri" "$suite" >"$dir/sources.list"
    apt=(-o "Dir::Etc::sourcelist=$dir/sources.list" -o "Dir::Etc::sourceparts=$dir/parts"
        -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache")
    if [ -z "$(find "$dir/lists" -name '*Packages*' -mmin -1440 -print -quit)" ]; then
        quietly "apt-$suite" apt-get "${apt[@]}" update
    fi
}
