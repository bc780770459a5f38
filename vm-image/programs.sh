# Sourced by `build`: builds the guest's three programs for $arch, whatever this computer is.

# guest_target: the target of $arch goes to `target`, how cargo builds for it to `cargo_build`.
#
# On Linux it is glibc's, with Debian's cross compiler for another architecture than this computer's; elsewhere it is
# musl's with zig, which has what linking for Linux takes. Both make static programs.
guest_target() {
    local cpu variable
    case $arch in amd64) cpu=x86_64 ;; arm64) cpu=aarch64 ;; esac
    case $(uname -s) in
        Linux) target=$cpu-unknown-linux-gnu cargo_build=(cargo build) ;;
        *) target=$cpu-unknown-linux-musl cargo_build=(cargo zigbuild) ;;
    esac
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || die "Rust has no $target here: scripts/install-deps $arch"
    variable=${target^^} variable=CARGO_TARGET_${variable//-/_}
    # No path of this computer goes into the programs. Cargo names our own sources from the root on; were the root named
    # here, another clone would build all that this one has built in the same folder.
    export "${variable}_RUSTFLAGS=-Ctarget-feature=+crt-static --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$CARGO_TARGET_DIR=/target"
    if [ "$(uname -s)" = Linux ] && [ "$cpu" != "$(uname -m)" ]; then
        command -v "$cpu-linux-gnu-gcc" >/dev/null || die "there is no compiler for $arch here: scripts/install-deps $arch"
        export "${variable}_LINKER=$cpu-linux-gnu-gcc"
    fi
}

# build_programs: caisson-init, caisson-engine and caisson-shim, static; their directory goes to `bins`.
build_programs() {
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target/guest}
    local target cargo_build
    guest_target
    # What `docker version` shows: the commit that last changed the guest, so that others leave its programs as they are.
    CAISSON_COMMIT=$(git -C "$root" log -1 --format=%h --abbrev=12 -- vm-image Cargo.toml Cargo.lock 2>/dev/null || true)
    export CAISSON_COMMIT=${CAISSON_COMMIT:-unknown}
    cargo_build+=(--release --locked --target "$target" --manifest-path "$root/Cargo.toml")
    bins=$CARGO_TARGET_DIR/$target/release
    step "Building caisson-init, caisson-engine and caisson-shim for $arch"
    "${cargo_build[@]}" -p caisson-init -p caisson-engine -p caisson-shim
    # The next build without this option puts the right agent in its place.
    [ -z "$other_version" ] || "${cargo_build[@]}" -p caisson-init --features other-version
}
