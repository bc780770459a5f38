# Sourced after common.sh: standard libraries for the targets that rustup cannot fetch here.
#
# They come from Debian's rust-src of exactly this compiler's version and are built once into the cache, keyed by
# compiler. CAISSON_RUST_SRC_DEB names a package file for when the archive no longer has that version.
release=$(rustc -vV | sed -n 's/^release: //p')
sysroot=$cache/sysroot/$(rustc -vV | sha256sum | cut -c1-16)

rust_src() {
    local into=$1 deb=${CAISSON_RUST_SRC_DEB:-}
    if [ -z "$deb" ]; then
        local suite version
        for suite in trixie-backports sid; do
            apt_suite "$suite"
            version=$(apt-cache "${apt[@]}" madison rust-src | awk '{print $3}' | grep -m1 "^$release+") && break
        done
        [ -n "$version" ] || die "Debian has no rust-src of $release; set CAISSON_RUST_SRC_DEB to a package file of it"
        mkdir -p "$cache/deb"
        (cd "$cache/deb" && quietly rust-src apt-get "${apt[@]}" download "rust-src=$version")
        deb=$(ls "$cache/deb/rust-src_$release"*.deb)
    fi
    dpkg -x "$deb" "$into"
}

# prepare_sysroot: makes them if need be, and points cargo at them.
prepare_sysroot() {
    make_sysroot check aarch64-apple-darwin
    make_sysroot check aarch64-unknown-linux-musl
    make_sysroot build x86_64-pc-windows-gnu
    [ -z "${src:-}" ] || rm -rf "$src"
    # Checking needs no objects: a compiler that writes empty ones serves the crates that compile C and Objective-C.
    printf '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && : >"$2"; shift; done\n' >"$sysroot/stubcc"
    chmod +x "$sysroot/stubcc"
    export CC_aarch64_apple_darwin=$sysroot/stubcc AR_aarch64_apple_darwin=/bin/true
    export CC_aarch64_unknown_linux_musl=$sysroot/stubcc AR_aarch64_unknown_linux_musl=/bin/true
    export CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS=--sysroot=$sysroot
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS=--sysroot=$sysroot
    export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUSTFLAGS=--sysroot=$sysroot
}

# make_sysroot check|build TARGET: the library of one target, for checking only or for linking too.
make_sysroot() {
    local ready=$sysroot/lib/rustlib/$2/.ready
    [ ! -e "$ready" ] || return 0
    step "The standard library for $2 (once, a minute or two)"
    if [ -z "${src:-}" ]; then
        src=$(mktemp -d "$cache/rust-src.XXXX")
        rust_src "$src"
    fi
    quietly "sysroot-$2" scripts/lib/mk-sysroot "$1" "$(echo "$src"/usr/src/rustc-*/library)" "$2" "$sysroot"
    touch "$ready"
}
