//! The guest's console: the framework writes to a pipe, and this process to a log of a bounded size, which the framework's own files are not.
#![expect(unsafe_code, reason = "the framework's calls are foreign functions")]

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::thread;

use caisson_hypervisor::LaunchError;
use caisson_hypervisor::console::{self, BoundedLog};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_foundation::NSFileHandle;
use objc2_virtualization::VZFileHandleSerialPortAttachment;

/// The most that is copied at once.
const BUFFER: usize = 16 << 10;

/// What a machine writes its console to. It is recorded until nothing holds the attachment any more.
pub(crate) fn record(log: &Path) -> Result<Retained<VZFileHandleSerialPortAttachment>, LaunchError> {
    let written = console::begin(log)?;
    let failed = |action| move |source| LaunchError::File { action, path: log.to_owned(), source };
    let (from, to) = io::pipe().map_err(failed("make the pipe of the console log"))?;
    thread::Builder::new()
        .name("console".to_owned())
        .spawn(move || {
            if let Err(error) = copy(from, written) {
                tracing::warn!(%error, "the console cannot be read");
            }
        })
        .map_err(failed("start the copier of the console log"))?;
    let to =
        NSFileHandle::initWithFileDescriptor_closeOnDealloc(NSFileHandle::alloc(), to.into_raw_fd(), true);
    // SAFETY: the handle is open for writing, and its own.
    Ok(unsafe {
        VZFileHandleSerialPortAttachment::initWithFileHandleForReading_fileHandleForWriting(
            VZFileHandleSerialPortAttachment::alloc(),
            None,
            Some(&to),
        )
    })
}

/// Goes on when the log cannot be written: a guest whose console nobody reads stands still.
fn copy(mut from: PipeReader, mut log: BoundedLog) -> io::Result<()> {
    let (mut buffer, mut lost) = (vec![0; BUFFER], false);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let written = log.write_all(&buffer[..count]);
        let was_lost = std::mem::replace(&mut lost, written.is_err());
        if let (Err(error), false) = (written, was_lost) {
            tracing::warn!(%error, "the console's output is lost while its log cannot be written");
        }
    }
}
