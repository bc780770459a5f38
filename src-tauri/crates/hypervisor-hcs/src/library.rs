//! A system library that may be absent.
#![expect(unsafe_code, reason = "looking functions up by name is beyond the type system")]

use std::ffi::CStr;

use windows::Win32::Foundation::HMODULE;
use windows::Win32::System::LibraryLoader::{GetProcAddress, LOAD_LIBRARY_SEARCH_SYSTEM32, LoadLibraryExW};
use windows::core::{HSTRING, PCSTR};

/// A library of the system's own directory, loaded for as long as the program runs.
pub(crate) struct Library(HMODULE);

impl Library {
    /// Loads it; `None` if the system has none of that name.
    pub(crate) fn load(name: &str) -> Option<Self> {
        // SAFETY: only the system's own directory is searched, so what runs at loading is the system's.
        unsafe { LoadLibraryExW(&HSTRING::from(name), None, LOAD_LIBRARY_SEARCH_SYSTEM32) }.ok().map(Self)
    }

    /// A function of it; `None` if this version has none of that name.
    ///
    /// # Safety
    ///
    /// `F` must be the type of a function pointer with the signature that the library declares for `name`.
    pub(crate) unsafe fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<unsafe extern "system" fn() -> isize>()) };
        // SAFETY: the module is loaded and `name` ends with a zero.
        let found = unsafe { GetProcAddress(self.0, PCSTR(name.as_ptr().cast())) }?;
        // SAFETY: both are function pointers of one size, and the caller vouches for the signature.
        Some(unsafe { std::mem::transmute_copy::<_, F>(&found) })
    }
}
