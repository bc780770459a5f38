//! Programs for the kernel's own virtual machine: `bpf(2)`.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

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

/// What the kernel is told of a program: the beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Program {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 2],
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    /// The BTF number of the function of the kernel that it is for, 0 for none.
    attach_btf_id: u32,
}

impl Program {
    /// One of this type (`enum bpf_prog_type`).
    pub(crate) fn of(prog_type: u32) -> Self {
        Self { prog_type, ..Self::default() }
    }

    /// One that is to be attached in this way (`enum bpf_attach_type`) to a function of the kernel's.
    pub(crate) fn for_function(self, expected_attach_type: u32, attach_btf_id: u32) -> Self {
        Self { expected_attach_type, attach_btf_id, ..self }
    }

    /// Loads it, under the licence that it calls the kernel's functions by.
    ///
    /// # Errors
    /// What `bpf(2)` says; `EINVAL` also if the kernel's checker refuses the instructions.
    pub(crate) fn load(
        mut self,
        instructions: &[Instruction],
        licence: &std::ffi::CStr,
    ) -> io::Result<OwnedFd> {
        self.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
        self.insns = instructions.as_ptr() as u64;
        self.license = licence.as_ptr() as u64;
        // SAFETY: `self` is laid out as the command wants it; `insns` points to `insn_cnt` instructions laid out as struct bpf_insn and `license`
        // to a C string, and the kernel copies both before it returns.
        let descriptor = unsafe { call(PROG_LOAD, &self) }?;
        // SAFETY: a successful load returns a new descriptor (close-on-exec, as all of bpf's), which nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

/// # Safety
/// `T` must be laid out as the beginning of `union bpf_attr` for `command`, and the addresses in it must be good for what the command does with
/// them.
pub(crate) unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise; the size is the structure's own, and the kernel takes fields beyond it as zero.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_laid_out_as_the_kernel_has_it() {
        assert_eq!(std::mem::offset_of!(Program, expected_attach_type), 68);
        assert_eq!(std::mem::offset_of!(Program, attach_btf_id), 108);
    }
}
