//! Deciding which devices a cgroup may use: a BPF program on `bpf(2)`.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use crate::bpf::Instruction;
use crate::bpf::{Program, call};

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
    let loaded = Program::of(PROG_TYPE_CGROUP_DEVICE).load(program, c"Apache-2.0")?;
    #[repr(C)]
    struct Attributes {
        target_fd: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
    }
    let attributes = Attributes {
        target_fd: cgroup.as_raw_fd().unsigned_abs(),
        attach_bpf_fd: loaded.as_raw_fd().unsigned_abs(),
        attach_type: CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: `attributes` begins as union bpf_attr does for this command, holds only integers, and outlives the call; the kernel takes fields
    // beyond its size as zero.
    unsafe { call(PROG_ATTACH, &attributes) }.map(drop)
}
