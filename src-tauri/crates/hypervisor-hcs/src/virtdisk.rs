//! The data disk as a VHDX, by `virtdisk.dll`.
//!
//! A VHDX is the one format of Hyper-V's that grows with its content and survives a crash in mid-write. It lies beside
//! the place of the raw image; the raw image itself stays as an empty, sparse file whose length is the wanted size. A VHDX
//! that is smaller than that is made larger; none is ever made smaller.
#![expect(unsafe_code, reason = "the library's calls are foreign functions")]

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use caisson_hypervisor::LaunchError;
use caisson_os::Pauses;
use windows::Win32::Foundation::{CloseHandle, ERROR_SHARING_VIOLATION, HANDLE, WIN32_ERROR};
use windows::Win32::Security::PSECURITY_DESCRIPTOR;
use windows::Win32::Storage::Vhd::{
    CREATE_VIRTUAL_DISK_FLAG, CREATE_VIRTUAL_DISK_FLAG_NONE, CREATE_VIRTUAL_DISK_PARAMETERS,
    CREATE_VIRTUAL_DISK_PARAMETERS_0, CREATE_VIRTUAL_DISK_PARAMETERS_0_1, CREATE_VIRTUAL_DISK_VERSION_2,
    GET_VIRTUAL_DISK_INFO, GET_VIRTUAL_DISK_INFO_SIZE, OPEN_VIRTUAL_DISK_FLAG, OPEN_VIRTUAL_DISK_FLAG_NONE,
    OPEN_VIRTUAL_DISK_PARAMETERS, OPEN_VIRTUAL_DISK_PARAMETERS_0, OPEN_VIRTUAL_DISK_PARAMETERS_0_1,
    OPEN_VIRTUAL_DISK_VERSION_2, RESIZE_VIRTUAL_DISK_FLAG, RESIZE_VIRTUAL_DISK_FLAG_NONE,
    RESIZE_VIRTUAL_DISK_PARAMETERS, RESIZE_VIRTUAL_DISK_PARAMETERS_0, RESIZE_VIRTUAL_DISK_PARAMETERS_0_0,
    RESIZE_VIRTUAL_DISK_VERSION_1, VIRTUAL_DISK_ACCESS_MASK, VIRTUAL_DISK_ACCESS_NONE, VIRTUAL_STORAGE_TYPE,
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

type OpenVirtualDisk = unsafe extern "system" fn(
    *const VIRTUAL_STORAGE_TYPE,
    PCWSTR,
    VIRTUAL_DISK_ACCESS_MASK,
    OPEN_VIRTUAL_DISK_FLAG,
    *const OPEN_VIRTUAL_DISK_PARAMETERS,
    *mut HANDLE,
) -> WIN32_ERROR;
type GetVirtualDiskInformation =
    unsafe extern "system" fn(HANDLE, *mut u32, *mut GET_VIRTUAL_DISK_INFO, *mut u32) -> WIN32_ERROR;
type ResizeVirtualDisk = unsafe extern "system" fn(
    HANDLE,
    RESIZE_VIRTUAL_DISK_FLAG,
    *const RESIZE_VIRTUAL_DISK_PARAMETERS,
    *const OVERLAPPED,
) -> WIN32_ERROR;

const SECTOR: u32 = 512;
/// How long the process of the machine before may hold the disk while it dies, and the first of the pauses between attempts.
const HELD: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
static VHDX: VIRTUAL_STORAGE_TYPE = VIRTUAL_STORAGE_TYPE {
    DeviceId: VIRTUAL_STORAGE_TYPE_DEVICE_VHDX,
    VendorId: VIRTUAL_STORAGE_TYPE_VENDOR_MICROSOFT,
};

/// The VHDX of the data disk that `raw` stands for, made if absent and grown if smaller. Blocks.
pub(crate) fn data_disk(raw: &Path) -> Result<PathBuf, LaunchError> {
    let vhdx = raw.with_extension("vhdx");
    let file = |action, path: &Path, source| LaunchError::File { action, path: path.to_owned(), source };
    let size = std::fs::metadata(raw).map_err(|error| file("read the data disk's size", raw, error))?.len();
    let virtdisk = VirtDisk::load().ok_or_else(absent)?;
    if vhdx.try_exists().map_err(|error| file("look for the data disk", &vhdx, error))? {
        once_free(|| virtdisk.grow(&vhdx, size)).map_err(|error| file("grow the data disk", &vhdx, error))?;
        return Ok(vhdx);
    }
    // Made under another name first: a crash in between leaves no disk that looks whole.
    let unfinished = raw.with_extension("new.vhdx");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("remove an unfinished data disk", &unfinished, error));
        }
        _ => {}
    }
    virtdisk.create(&unfinished, size).map_err(|error| file("create the data disk", &unfinished, error))?;
    std::fs::rename(&unfinished, &vhdx).map_err(|error| file("name the data disk", &vhdx, error))?;
    Ok(vhdx)
}

/// Tries until nobody else has the disk open, but not for longer than [`HELD`].
fn once_free(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut pauses = Pauses::new(FIRST_PAUSE, HELD);
    loop {
        let error = match attempt() {
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION.0.cast_signed()) => error,
            done => return done,
        };
        tracing::debug!(%error, "the data disk is still held");
        sleep(pauses.next().ok_or(error)?);
    }
}

/// What is used of the library.
struct VirtDisk {
    create: CreateVirtualDisk,
    open: OpenVirtualDisk,
    information: GetVirtualDiskInformation,
    resize: ResizeVirtualDisk,
}

impl VirtDisk {
    /// `None` on a system without it.
    fn load() -> Option<Self> {
        let library = Library::load("virtdisk.dll")?;
        // SAFETY: the types are the functions' signatures in virtdisk.h.
        unsafe {
            Some(Self {
                create: library.function(c"CreateVirtualDisk")?,
                open: library.function(c"OpenVirtualDisk")?,
                information: library.function(c"GetVirtualDiskInformation")?,
                resize: library.function(c"ResizeVirtualDisk")?,
            })
        }
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<()> {
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
        checked(unsafe {
            (self.create)(
                &raw const VHDX,
                PCWSTR(name.as_ptr()),
                VIRTUAL_DISK_ACCESS_NONE,
                PSECURITY_DESCRIPTOR::default(),
                CREATE_VIRTUAL_DISK_FLAG_NONE,
                0,
                &raw const parameters,
                std::ptr::null(),
                &raw mut handle,
            )
        })?;
        Disk(handle).close()
    }

    /// Makes a disk at least so large. The guest grows its file system after that.
    fn grow(&self, path: &Path, size: u64) -> io::Result<()> {
        let disk = self.open(path)?;
        let now = self.size(&disk)?;
        if now < size {
            tracing::info!(disk = %path.display(), from = now, to = size, "growing the data disk");
            let parameters = RESIZE_VIRTUAL_DISK_PARAMETERS {
                Version: RESIZE_VIRTUAL_DISK_VERSION_1,
                Anonymous: RESIZE_VIRTUAL_DISK_PARAMETERS_0 {
                    Version1: RESIZE_VIRTUAL_DISK_PARAMETERS_0_0 { NewSize: size },
                },
            };
            // SAFETY: the handle is open, the parameters outlive the call, and null makes it wait to the end.
            checked(unsafe {
                (self.resize)(disk.0, RESIZE_VIRTUAL_DISK_FLAG_NONE, &raw const parameters, std::ptr::null())
            })?;
        }
        disk.close()
    }

    fn open(&self, path: &Path) -> io::Result<Disk> {
        let parameters = OPEN_VIRTUAL_DISK_PARAMETERS {
            Version: OPEN_VIRTUAL_DISK_VERSION_2,
            Anonymous: OPEN_VIRTUAL_DISK_PARAMETERS_0 {
                Version2: OPEN_VIRTUAL_DISK_PARAMETERS_0_1::default(),
            },
        };
        let name = HSTRING::from(path);
        let mut handle = HANDLE::default();
        // SAFETY: all pointers are to values that outlive the call.
        checked(unsafe {
            (self.open)(
                &raw const VHDX,
                PCWSTR(name.as_ptr()),
                VIRTUAL_DISK_ACCESS_NONE,
                OPEN_VIRTUAL_DISK_FLAG_NONE,
                &raw const parameters,
                &raw mut handle,
            )
        })?;
        Ok(Disk(handle))
    }

    /// How large the guest sees it, in bytes.
    fn size(&self, disk: &Disk) -> io::Result<u64> {
        let mut told = GET_VIRTUAL_DISK_INFO { Version: GET_VIRTUAL_DISK_INFO_SIZE, ..Default::default() };
        let mut room = size_of_val(&told) as u32;
        // SAFETY: the handle is open, and `room` is the size of the place that `told` is; null is allowed for the last.
        checked(unsafe { (self.information)(disk.0, &raw mut room, &raw mut told, std::ptr::null_mut()) })?;
        // SAFETY: the call succeeded, so it has filled in what was asked for by the version.
        Ok(unsafe { told.Anonymous.Size }.VirtualSize)
    }
}

/// An open disk.
struct Disk(HANDLE);

impl Disk {
    /// Closes it, and says if what was written may be lost.
    fn close(self) -> io::Result<()> {
        let handle = self.0;
        std::mem::forget(self);
        // SAFETY: the handle is open and ours, and nobody uses it any more.
        unsafe { CloseHandle(handle) }.map_err(io::Error::from)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: as above. After a failure there is nothing more to say.
        let _ = unsafe { CloseHandle(self.0) };
    }
}

fn checked(code: WIN32_ERROR) -> io::Result<()> {
    code.ok().map_err(|error| io::Error::from_raw_os_error(error.code().0 & 0xFFFF))
}
