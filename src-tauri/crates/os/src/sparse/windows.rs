//! NTFS allots a file its whole length, unless it is told not to ("Sparse Files", Microsoft).
#![expect(unsafe_code, reason = "a file's kind is changed by a foreign function")]

use std::{fs::File, io, os::windows::io::AsRawHandle};
use windows::Win32::{
    Foundation::HANDLE,
    System::{IO::DeviceIoControl, Ioctl::FSCTL_SET_SPARSE},
};

pub(super) fn make_sparse(file: &File) -> io::Result<()> {
    let mut returned = 0;
    // SAFETY: the handle is open for the call, which takes no buffers and is not overlapped.
    unsafe {
        DeviceIoControl(
            HANDLE(file.as_raw_handle()),
            FSCTL_SET_SPARSE,
            None,
            0,
            None,
            0,
            Some(&raw mut returned),
            None,
        )
    }
    .map_err(Into::into)
}
