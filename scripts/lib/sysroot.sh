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
    make_sysroot
    export CC_aarch64_apple_darwin=$sysroot/stubcc AR_aarch64_apple_darwin=/bin/true
    export CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS=--sysroot=$sysroot
    export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUSTFLAGS=--sysroot=$sysroot
}

make_sysroot() {
    [ ! -e "$sysroot/ready" ] || return 0
    step "Standard libraries for macOS and Windows (once, some minutes)"
    local src library
    src=$(mktemp -d "$cache/rust-src.XXXX")
    rust_src "$src"
    library=$(echo "$src"/usr/src/rustc-*/library)
    quietly sysroot-darwin scripts/lib/mk-sysroot check "$library" aarch64-apple-darwin "$sysroot"
    quietly sysroot-windows scripts/lib/mk-sysroot build "$library" x86_64-pc-windows-gnu "$sysroot"
    rm -rf "$src"
    # Checking needs no objects: a compiler that writes empty ones serves the crates that compile Objective-C.
    printf '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && : >"$2"; shift; done\n' >"$sysroot/stubcc"
    chmod +x "$sysroot/stubcc"
    touch "$sysroot/ready"
}
