//! The data disk as a VHDX, by `virtdisk.dll`.
//!
//! A VHDX is the one format of Hyper-V's that grows with its content and survives a crash in mid-write. It lies beside
//! the place of the raw image; the raw image itself stays as an empty, sparse file whose length is the wanted size.
#![expect(unsafe_code, reason = "the library's calls are foreign functions")]

use std::io;
use std::path::{Path, PathBuf};

use caisson_hypervisor::LaunchError;
use windows::Win32::Foundation::{CloseHandle, HANDLE, WIN32_ERROR};
use windows::Win32::Security::PSECURITY_DESCRIPTOR;
use windows::Win32::Storage::Vhd::{
    CREATE_VIRTUAL_DISK_FLAG, CREATE_VIRTUAL_DISK_FLAG_NONE, CREATE_VIRTUAL_DISK_PARAMETERS,
    CREATE_VIRTUAL_DISK_PARAMETERS_0, CREATE_VIRTUAL_DISK_PARAMETERS_0_1, CREATE_VIRTUAL_DISK_VERSION_2,
    VIRTUAL_DISK_ACCESS_MASK, VIRTUAL_DISK_ACCESS_NONE, VIRTUAL_STORAGE_TYPE,
    VIRTUAL_STORAGE_TYPE_DEVICE_VHDX, VIRTUAL_STORAGE_TYPE_VENDOR_MICROSOFT,
};
use windows::Win32::System::IO::OVERLAPPED;
use windows::core::{HSTRING, PCWSTR};

use crate::computecore::absent;
use crate::library::Library;

type CreateVirtualDisk = unsafe extern "system" fn(
    *const VIRTUAL_STORAGE_TYPE,
    PCWSTR,
    VIRTUAL_DISK_ACCESS_MASK,
    PSECURITY_DESCRIPTOR,
    CREATE_VIRTUAL_DISK_FLAG,
    u32,
    *const CREATE_VIRTUAL_DISK_PARAMETERS,
    *const OVERLAPPED,
    *mut HANDLE,
) -> WIN32_ERROR;

const SECTOR: u32 = 512;

/// The VHDX of the data disk that `raw` stands for, made if absent. Blocks.
pub(crate) fn data_disk(raw: &Path) -> Result<PathBuf, LaunchError> {
    let vhdx = raw.with_extension("vhdx");
    let file = |action, path: &Path, source| LaunchError::File { action, path: path.to_owned(), source };
    if vhdx.try_exists().map_err(|error| file("look for the data disk", &vhdx, error))? {
        return Ok(vhdx);
    }
    let size = std::fs::metadata(raw).map_err(|error| file("read the data disk's size", raw, error))?.len();
    // Made under another name first: a crash in between leaves no disk that looks whole.
    let unfinished = raw.with_extension("new.vhdx");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("remove an unfinished data disk", &unfinished, error));
        }
        _ => {}
    }
    create(&unfinished, size)?;
    std::fs::rename(&unfinished, &vhdx).map_err(|error| file("name the data disk", &vhdx, error))?;
    Ok(vhdx)
}

fn create(path: &Path, size: u64) -> Result<(), LaunchError> {
    let library = Library::load("virtdisk.dll").ok_or_else(absent)?;
    // SAFETY: the type is the function's signature in virtdisk.h.
    let create = unsafe { library.function::<CreateVirtualDisk>(c"CreateVirtualDisk") }.ok_or_else(absent)?;
    let kind = VIRTUAL_STORAGE_TYPE {
        DeviceId: VIRTUAL_STORAGE_TYPE_DEVICE_VHDX,
        VendorId: VIRTUAL_STORAGE_TYPE_VENDOR_MICROSOFT,
    };
    let parameters = CREATE_VIRTUAL_DISK_PARAMETERS {
        Version: CREATE_VIRTUAL_DISK_VERSION_2,
        Anonymous: CREATE_VIRTUAL_DISK_PARAMETERS_0 {
            Version2: CREATE_VIRTUAL_DISK_PARAMETERS_0_1 {
                MaximumSize: size,
                SectorSizeInBytes: SECTOR,
                ..Default::default()
            },
        },
    };
    let name = HSTRING::from(path);
    let mut handle = HANDLE::default();
    // SAFETY: all pointers are to values that outlive the call, or null where virtdisk.h allows it.
    let code = unsafe {
        create(
            &raw const kind,
            PCWSTR(name.as_ptr()),
            VIRTUAL_DISK_ACCESS_NONE,
            PSECURITY_DESCRIPTOR::default(),
            CREATE_VIRTUAL_DISK_FLAG_NONE,
            0,
            &raw const parameters,
            std::ptr::null(),
            &raw mut handle,
        )
    };
    let failed = |source| LaunchError::File { action: "create the data disk", path: path.to_owned(), source };
    code.ok().map_err(|error| failed(io::Error::from_raw_os_error(error.code().0 & 0xFFFF)))?;
    // SAFETY: the call succeeded, so the handle is open and ours.
    unsafe { CloseHandle(handle) }.map_err(|error| failed(error.into()))
}
