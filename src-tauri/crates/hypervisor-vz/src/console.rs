//! The file that the guest's console goes to.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Puts the log of the boot before aside, as `FILE.1`, and makes an empty one.
pub(crate) fn rotate(log: &Path) -> io::Result<()> {
    let mut before = OsString::from(log);
    before.push(".1");
    match std::fs::rename(log, before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::File::create(log).map(drop)
}
