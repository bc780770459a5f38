//! Loading a system call filter: `seccomp(2)`.
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::io;

/// One instruction of classic BPF, laid out as `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip if a condition holds.
    pub jt: u8,
    /// How many instructions to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Filter flags of `seccomp(2)`.
pub mod flag {
    /// Log all returned actions but `ALLOW`.
    pub const LOG: u64 = libc::SECCOMP_FILTER_FLAG_LOG;
    /// Do not slow the process by speculative store bypass mitigation.
    pub const SPEC_ALLOW: u64 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
}

/// Filters every further system call of this thread and of all that it makes; there is no way back.
///
/// # Errors
/// `InvalidInput` for a program over the kernel's 4096 instructions; `EACCES` without `CAP_SYS_ADMIN` or no-new-privileges; `EINVAL` for a
/// program that the kernel's checker refuses.
pub fn install(program: &[Instruction], flags: u64) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Instruction,
    }
    let len = u16::try_from(program.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "a seccomp filter over 65535 instructions")
    })?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: `program` is laid out as struct sock_fprog and points to `len` instructions laid out as struct sock_filter; the kernel
    // copies them before it returns.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
