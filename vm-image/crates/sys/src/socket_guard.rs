//! Keeping a family of sockets to one process, whatever rights others have and by whichever call they try: a program of the kernel's
//! security hooks (`BPF_PROG_TYPE_LSM`).
//!
//! A filter of system calls does not do: it cannot look into `socketcall(2)`, which 64-bit programs reach as well (`int 0x80`), and a privileged
//! container has none.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::bpf::{Instruction, Program, call};
use crate::btf;

const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const PROG_TYPE_LSM: u32 = 29;
const LSM_MAC: u32 = 27;
/// `bpf_get_current_pid_tgid` of `linux/bpf.h`.
const CURRENT_PROCESS: i32 = 14;
/// `int socket_create(int family, int type, int protocol, int kern)`; each argument takes eight bytes.
const HOOK: &str = "bpf_lsm_socket_create";
const FAMILY: i16 = 0;
const BY_KERNEL: i16 = 24;

/// From now on only this process (of the first pid namespace) and the kernel itself can make sockets of this family; everybody else gets
/// `EPERM`. For as long as what is returned is open.
///
/// # Errors
/// `Unsupported` where the kernel tells no BTF or has no such hook, and what `bpf(2)` says; without the security module `bpf` nothing is
/// ever asked.
pub fn keep(family: libc::c_int, process: u32) -> io::Result<OwnedFd> {
    let told = std::fs::read("/sys/kernel/btf/vmlinux")?;
    let unsupported = || io::Error::new(io::ErrorKind::Unsupported, format!("the kernel has no {HOOK}"));
    let attach_btf_id = btf::function(&told, HOOK).ok_or_else(unsupported)?;
    let program = Program::of(PROG_TYPE_LSM).for_function(LSM_MAC, attach_btf_id);
    // The kernel attaches programs to its hooks under its own licence only; these few instructions are given under it, too.
    let loaded = program.load(&instructions(family, process), c"Dual MIT/GPL")?;
    #[repr(C)]
    struct Attributes {
        name: u64,
        prog_fd: u32,
    }
    let attributes = Attributes { name: 0, prog_fd: loaded.as_raw_fd().unsigned_abs() };
    // SAFETY: `attributes` begins as union bpf_attr does for this command, holds only integers, and outlives the call.
    let link = unsafe { call(RAW_TRACEPOINT_OPEN, &attributes) }?;
    // SAFETY: success returns a new descriptor (close-on-exec), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

fn instructions(family: libc::c_int, process: u32) -> [Instruction; 11] {
    const LOAD: u8 = 0x79;
    const SET: u8 = 0xb7;
    const SHIFT_RIGHT: u8 = 0x77;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    /// Of the lower halves.
    const JUMP_UNEQUAL: u8 = 0x56;
    const JUMP_EQUAL: u8 = 0x16;
    let instruction = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    [
        instruction(LOAD, 0x12, FAMILY, 0),
        instruction(LOAD, 0x13, BY_KERNEL, 0),
        // To the end that allows.
        instruction(JUMP_UNEQUAL, 0x02, 6, family),
        instruction(JUMP_UNEQUAL, 0x03, 5, 0),
        instruction(CALL, 0, 0, CURRENT_PROCESS),
        // The upper half is the process, the lower one its thread.
        instruction(SHIFT_RIGHT, 0x00, 0, 32),
        instruction(JUMP_EQUAL, 0x00, 2, process.cast_signed()),
        instruction(SET, 0x00, 0, -libc::EPERM),
        instruction(EXIT, 0, 0, 0),
        instruction(SET, 0x00, 0, 0),
        instruction(EXIT, 0, 0, 0),
    ]
}
