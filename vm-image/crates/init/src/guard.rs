//! Nobody in the machine but this process speaks to the host over vsock: what the host takes from it, it takes from whoever opens a stream.

use caisson_sys::socket_guard;
use rustix::net::AddressFamily;

/// From now on, and for as long as the machine runs. Reading what the kernel tells of itself takes a while.
///
/// Without it (a kernel without BPF's security hooks) containers are kept off by their filter of system calls only, and privileged ones by
/// nothing; the log says so.
pub(crate) fn vsock() {
    let family = i32::from(AddressFamily::VSOCK.as_raw());
    match socket_guard::keep(family, std::process::id()) {
        // To close it would end it.
        Ok(guard) => std::mem::forget(guard),
        Err(error) => {
            tracing::error!("containers are not kept from the host's streams by the kernel: {error}")
        }
    }
}
