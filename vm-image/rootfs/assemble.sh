# Sourced by `build`: makes the root and the initrd from rootfs/files and the modules.

# The same image from the same inputs, byte for byte: no times, no owners, fixed ids and order.
root_uuid=c0ffee00-ca15-5000-8000-000000000001

# layout: prints rootfs/files with the architecture's names filled in and the comments gone.
layout() {
    local lib loader
    case $arch in
        amd64) lib=/lib/x86_64-linux-gnu loader=/lib64/ld-linux-x86-64.so.2 ;;
        arm64) lib=/lib/aarch64-linux-gnu loader=/lib/ld-linux-aarch64.so.1 ;;
    esac
    sed -e 's/#.*//' -e "s,LOADERNAME,${loader##*/},g" -e "s,LOADER,$loader,g" -e "s,LIB,$lib,g" "$here/rootfs/files" | awk 'NF'
}

# assemble_root INTO BINS: puts every file of rootfs/files where it belongs. Packages are unpacked under $work/deb.
assemble_root() {
    local into=$1 bins=$2 kind path first rest
    while read -r kind path first rest; do
        mkdir -p "$into$(dirname "$path")"
        case $kind in
            dir) mkdir -p "$into$path" ;;
            link) ln -s "$first" "$into$path" ;;
            text) printf '%s\n' "$first${rest:+ $rest}" >"$into$path" ;;
            bin) install -m 755 "$bins/$first" "$into$path" ;;
            deb) install -m 755 "$work/deb/$first/$rest" "$into$path" ;;
            *) die "rootfs/files: what is a $kind?" ;;
        esac
    done < <(layout)
}

# pack_root TREE OUT: not compressed, because unpacking in the guest costs more than reading more bytes does.
pack_root() {
    quietly mkfs.erofs mkfs.erofs -T 0 -U "$root_uuid" --all-root -x -1 "$2" "$1"
}

# pack_initrd TREE OUT: not compressed, for the same reason.
pack_initrd() {
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null --create --format newc --reproducible --owner 0:0 --quiet) >"$2"
}

# check_tools TREE: the filesystem tools must start with the libraries beside them (a replaced package might not fit).
check_tools() {
    [ "$(uname -s) $arch" = "Linux $(this_arch)" ] || return 0
    local tool loader libs
    loader=$(layout | awk '$3 == "libc6" && $2 ~ /ld-linux/ { print $2 }')
    libs=$(layout | awk '$2 ~ /libc.so/ { print $2 }')
    for tool in mke2fs e2fsck; do
        "$1$loader" --library-path "$1$(dirname "$libs")" "$1/sbin/$tool" -V >/dev/null 2>&1 \
            || die "$tool does not start with the libraries of the image"
    done
}
