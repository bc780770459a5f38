# Sourced by `build`: takes the kernel and its modules out of Debian's package.

# u32 FILE OFFSET: a little-endian number of the file.
u32() { od -An -tu4 --endian=little -j "$2" -N 4 "$1" | tr -d ' '; }

# extract_kernel PACKAGE OUT: the kernel in the form that boots fastest.
#
# amd64: the ELF image inside the bzImage. QEMU and Hyper-V start it directly (PVH entry), which spares the guest the
# unpacking: measured under TCG, 0.7 s of 2.6 s. See Documentation/arch/x86/boot.rst for the header's fields.
# arm64: Debian's vmlinuz is a plain Image already, what Virtualization.framework and QEMU boot.
extract_kernel() {
    local tree=$1 out=$2 image
    image=$(echo "$tree"/boot/vmlinuz-*)
    [ -f "$image" ] || die "the kernel package holds no single boot/vmlinuz"
    case $arch in
        amd64) unpack_bzimage "$image" "$out" ;;
        arm64) cp "$image" "$out" ;;
    esac
}

unpack_bzimage() {
    local image=$1 out=$2 setup_sectors payload length magic
    [ "$(u32 "$image" 514)" = 1400005704 ] || die "the kernel is no bzImage"    # "HdrS"
    setup_sectors=$(od -An -tu1 -j 497 -N 1 "$image" | tr -d ' ')
    payload=$(((setup_sectors + 1) * 512 + $(u32 "$image" 584)))
    length=$(($(u32 "$image" 588) - 4))                                         # its last 4 bytes are its size
    magic=$(u32 "$image" "$payload")
    [ "$magic" = 4247762216 ] || die "the kernel is not packed with zstd as it was until now (magic $magic)"
    tail -c "+$((payload + 1))" "$image" | head -c "$length" | zstd -dqc >"$out.full" || true
    [ "$(u32 "$out.full" 0)" = 1179403647 ] || die "the kernel's payload is no ELF image"
    cp --sparse=always "$out.full" "$out"
    rm "$out.full"
}

# wanted_modules: "NAME WHERE" of kernel/modules for $arch.
wanted_modules() {
    sed 's/#.*//' "$here/kernel/modules" $(ls "$here/kernel/modules.$arch" 2>/dev/null) | awk 'NF { print $1, $2 }'
}

# modinfo FILE KEY: the values of a key in a module's .modinfo, which is a list of NUL-terminated strings.
modinfo() { tr '\0' '\n' <"$1" | LC_ALL=C grep -a "^$2=" | cut -d= -f2- || true; }

# add_module NAME INTO: unpacks a module and, first, what it depends on. Built-in ones need nothing.
#
# Unpacked, because unpacking xz in the guest is what makes modules slow; without Debian's signature, because checking
# it is the other half, and the whole root is ours.
add_module() {
    local name=$1 into=$2 packed dependency
    local to=$into/${name//-/_}.ko
    [ ! -e "$to" ] || return 0
    packed=$(find "$modules_tree" -name "${name//[-_]/[-_]}.ko.xz" -print -quit)
    [ -n "$packed" ] || die "the kernel has no module $name"
    xz -dc "$packed" >"$to"
    drop_signature "$to"
    for dependency in $(modinfo "$to" depends | tr ',' ' '); do
        add_module "$dependency" "$into"
    done
}

# drop_signature FILE: cuts off the signature that ends a module (include/linux/module_signature.h: the signature, then
# 12 bytes that end in its big-endian length, then a magic line of 28 bytes).
drop_signature() {
    local length
    [ "$(tail -c 28 "$1" | tr -d '\0')" = "~Module signature appended~" ] || return 0
    length=$(tail -c 32 "$1" | od -An -tu4 --endian=big -N 4 | tr -d ' ')
    truncate -s "-$((length + 12 + 28))" "$1"
}

# index_modules DIR: what init needs to know of the modules in DIR (init/src/modules.rs reads it):
# "module NAME DEPENDENCY,..." and "alias PATTERN NAME".
index_modules() {
    local file name
    for file in "$1"/*.ko; do
        name=$(basename "$file" .ko)
        printf 'module %s %s\n' "$name" "$(modinfo "$file" depends | tr '-' '_')"
        modinfo "$file" alias | sed "s/^/alias /; s/\$/ $name/"
    done >"$1/index"
}
