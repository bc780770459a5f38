//! Deciding which devices a cgroup may use: a BPF program on `bpf(2)`.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of eBPF, laid out as `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The target register in the lower half, the source register in the upper.
    pub registers: u8,
    /// How many instructions to jump, or where in memory.
    pub offset: i16,
    /// The operand.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// Lets `program` (a `BPF_PROG_TYPE_CGROUP_DEVICE`) decide about every device use in the cgroup and below, as long as the cgroup lives.
/// Programs of cgroups above are asked, too.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`, or `CAP_SYS_ADMIN`; `EINVAL` if the kernel has no such programs or its checker refuses this
/// one; `EBADF` if the directory is not open for reading.
pub fn attach(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let loaded = load(program)?;
    #[repr(C)]
    struct Attributes {
        target_fd: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
    }
    let attributes = Attributes {
        target_fd: cgroup.as_raw_fd().unsigned_abs(),
        attach_bpf_fd: loaded.as_fd().as_raw_fd().unsigned_abs(),
        attach_type: CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: `attributes` begins as union bpf_attr does for this command, holds only integers, and outlives the call; the kernel takes fields
    // beyond its size as zero.
    unsafe { call(PROG_ATTACH, &attributes) }.map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
    }
    let attributes = Attributes {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: as above; `insns` points to `insn_cnt` instructions laid out as struct bpf_insn and `license` to a C string, and the kernel copies
    // both before it returns.
    let descriptor = unsafe { call(PROG_LOAD, &attributes) }?;
    // SAFETY: a successful load returns a new descriptor (close-on-exec, as all of bpf's), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
/// `T` must be laid out as the beginning of `union bpf_attr` for `command`, and the addresses in it must be good for what the command does with
/// them.
unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise; the size is the structure's own.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
