//! User namespaces: which one a namespace belongs to, and making files as another user does.
#![expect(unsafe_code, reason = "nsfs' ioctls and setfsuid have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::thread::{CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits};

/// `NS_GET_USERNS` and `NS_GET_NSTYPE` of `linux/nsfs.h`.
const GET_USER_NAMESPACE: libc::Ioctl = 0xb701;
const GET_KIND: libc::Ioctl = 0xb703;

/// The user namespace whose root has every right over a namespace; of a user namespace, that itself.
///
/// # Errors
/// What `ioctl_ns(2)` says: `ENOTTY` for what is no namespace.
pub fn of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument; the kernel touches no memory of ours.
    let kind = checked(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_KIND) })?;
    if kind == libc::CLONE_NEWUSER {
        return namespace.try_clone_to_owned();
    }
    // SAFETY: as above.
    let owner = checked(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_USER_NAMESPACE) })?;
    // SAFETY: a successful call has opened this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// Lets the calling thread make files as this user and group from now on, and keep every right that it has.
///
/// # Errors
/// What `prctl(2)` says of the secure bits; `Other` if the kernel did not take the ids.
pub fn make_files_as(uid: u32, gid: u32) -> io::Result<()> {
    // Without this bit a change of the user takes the rights over files away.
    let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
    set_capabilities_secure_bits(bits)?;
    for (call, id) in [(libc::SYS_setfsgid, gid), (libc::SYS_setfsuid, uid)] {
        // SAFETY: plain integers. The raw calls change this thread alone; they return what was before, so the second tells of the first.
        let now = unsafe {
            libc::syscall(call, id);
            libc::syscall(call, id)
        };
        if now != libc::c_long::from(id) {
            return Err(io::Error::other(format!("could not make files as {id}")));
        }
    }
    Ok(())
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_owner_of_a_namespace_is_a_user_namespace() {
        let own = |kind: &str| File::open(format!("/proc/self/ns/{kind}")).unwrap();
        let inode = |file: OwnedFd| File::from(file).metadata().unwrap().ino();
        let users = own("user").metadata().unwrap().ino();
        assert_eq!(inode(of(own("user").as_fd()).unwrap()), users);
        let owner = of(own("uts").as_fd()).unwrap();
        assert_eq!(inode(of(owner.as_fd()).unwrap()), users, "of namespaces that nobody has left");
        let file = tempfile::tempfile().unwrap();
        assert_eq!(of(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn files_are_made_as_another_user() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making files as others takes root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made");
        let made = || {
            make_files_as(4711, 4712).unwrap();
            File::create(&path).unwrap();
        };
        std::thread::scope(|scope| scope.spawn(made).join().unwrap());
        let found = path.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (4711, 4712));
    }
}
