# Sourced by `build`: larger receive buffers for the guest's vsock driver.

# enlarge_vsock_buffers MODULE: lets Linux' virtio vsock driver lay out receive buffers of 32 instead of 4 KiB.
#
# The host's packets are cut to those buffers, and each packet has its price: measured in an emulated machine, 1.6 times as much
# comes in with buffers of 32 KiB, and 1.4 times as much with 16 (scripts/bench machine). The driver takes no parameter for it:
# the size is a constant of include/linux/virtio_vsock.h, 3776, a page without what an skb puts behind its data. It is there
# twice, both times in virtio_vsock_rx_fill of net/vmw_vsock/virtio_transport.c: as the first argument of what allocates, and as
# the third of what tells the device. These two instructions get another number here; a module made anew would take 170 MB of
# sources and a compiler for either architecture. Where they are not just those two, the build ends; only a kernel that took the
# pinned one's place in the archive goes without.
#
# 32 KiB are the most that Linux does not call costly (PAGE_ALLOC_COSTLY_ORDER): an allocation of so much waits for memory, as one of a
# page does, and does not fail. Seen: a machine whose memory six containers used up to the last at once kept its streams all the while.
# A ring of 128 buffers holds 4 MiB. The driver is also that of Virtualization.framework's guests, where this is untried.
enlarge_vsock_buffers() {
    local module=$1 constant larger places place
    case $arch in
        # mov $3776,%edi and mov $3776,%edx: the number is the instruction's last four bytes, little-endian.
        amd64) constant='(?<=[\xba\xbf])\xc0\x0e\x00\x00' larger='\xc0\x7e\x00\x00' ;;
        # mov x0, #3776 and mov w2, #3776: the number is bits 5 to 20 of the instruction; its lowest three lie in the first byte.
        arm64) constant='(?<=[\x00\x02])\xd8\x81(?=[\x52\xd2])' larger='\xd8\x8f' ;;
    esac
    places=$({ LC_ALL=C grep -obUaP "$constant" "$module" || [ $? = 1 ]; } | LC_ALL=C sed 's/:.*//')
    if [ "$(wc -w <<<"$places")" != 2 ]; then
        [[ "${packages[*]}" != *"$(pin "linux.$arch" sha256)"* ]] || die "vm-image/kernel/vsock.sh does not know this kernel's vsock driver"
        note "the vsock driver is another one than vm-image/kernel/vsock.sh knows: its buffers stay small, and what comes in is slower"
        return
    fi
    for place in $places; do
        # shellcheck disable=SC2059 # It is the bytes.
        printf "$larger" | dd of="$module" bs=1 seek="$place" conv=notrunc status=none
    done
}
