# Sourced by the scripts: where things are cached, how progress and errors look, which system this is, a private apt.
# shellcheck shell=bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${CAISSON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/caisson}
export CAISSON_CACHE=$cache
mkdir -p "$cache"

step() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Which system this is. On a Mac, GNU's tools go by their own names, as install-deps gets them from Homebrew.
case $(uname -s) in
    Linux) system=linux ;;
    Darwin)
        system=macos
        brew=$(brew --prefix 2>/dev/null) || die "Homebrew is missing, from which Caisson's tools come: https://brew.sh"
        PATH=$brew/bin:$brew/opt/cpio/bin:$PATH
        for formula in coreutils findutils gawk gnu-sed grep; do PATH=$brew/opt/$formula/libexec/gnubin:$PATH; done
        ;;
    MINGW* | MSYS*) system=windows ;;
    *) die "Caisson runs on Linux, macOS and Windows (in Git Bash), not on $(uname -s)" ;;
esac

# this_arch: this computer's architecture, by Debian's name for it.
this_arch() {
    case $(uname -m) in
        x86_64 | amd64) echo amd64 ;;
        aarch64 | arm64) echo arm64 ;;
        *) die "there is no machine for $(uname -m), only for x86_64 and aarch64" ;;
    esac
}

# put_image FROM INTO: copies the files of a machine's image. A running machine keeps the old ones, which it has open; the
# manifest goes last, for an image is whole when its manifest fits. What is there already stays, with its time, by which
# the host knows that it has looked at it.
put_image() {
    local file
    mkdir -p "$2"
    for file in kernel initrd root.erofs manifest.json; do
        if [ ! -e "$1/$file" ]; then
            rm -f "$2/$file"
        elif ! cmp -s "$1/$file" "$2/$file"; then
            cp --sparse=always "$1/$file" "$2/.$file.new"
            mv "$2/.$file.new" "$2/$file"
        fi
    done
}

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
