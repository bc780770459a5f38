//! Giving memory back that a long wait does not need.
#![expect(
    unsafe_code,
    reason = "madvise and malloc_trim are raw in libc, and the linker's symbols are foreign"
)]

/// Lets go of this program's code and freed heap, so that a process that has done its work and waits is counted, and is, as small as what
/// it waits with. Code that is needed again comes back from the page cache, a fault each 64 KiB.
///
/// Errors do not matter: then the memory is kept.
pub fn shrink() {
    unsafe extern "C" {
        // The linker's: where the program's first, read-only segments begin, and where its code ends.
        static __executable_start: u8;
        static etext: u8;
    }
    // SAFETY: it asks for a number.
    let Ok(page) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return };
    let start = (&raw const __executable_start as usize).next_multiple_of(page);
    let end = (&raw const etext as usize) / page * page;
    // SAFETY: from the start of the program to the end of its code there is only what was mapped from its file, read-only and unchanged
    // (relocations are applied to data, which lies behind): whatever is read there again is read from the file.
    unsafe { libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED) };
    // SAFETY: it only concerns memory that is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
