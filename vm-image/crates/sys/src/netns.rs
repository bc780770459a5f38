//! Network namespaces, held by a bind mount so that they live without a process.
//!
//! A thread that changes its namespace never comes back to its pool: [`create`] and [`enter`] do their work on a
//! thread of their own that ends with it. So a worker of an async runtime can never be left in a container's network,
//! not even by a panic.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// `NSFS_MAGIC` of `linux/magic.h`: the file system of namespace files.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The calling thread's own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace that is held open.
#[derive(Debug)]
pub struct Netns(File);

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Netns {
    /// The namespace that is bound to `path`; a file that is no namespace is `InvalidInput`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if u64::try_from(rustix::fs::fstatfs(&file)?.f_type) == Ok(NSFS_MAGIC) {
            Ok(Self(file))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a namespace"))
        }
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> io::Result<Self> {
        File::open(OWN).map(Self)
    }
}

/// Makes a new network namespace, binds it to `path` and returns what `inside` made in it, such as a socket.
///
/// `path` must not exist. On failure nothing of it is left.
pub fn create<T: Send>(path: &Path, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(Netns, T)> {
    File::create_new(path)?;
    let made = on_own_thread(|| {
        unshare(UnshareFlags::NEWNET)?;
        let made = inside()?;
        mount_bind(OWN, path)?;
        Ok((Netns::current()?, made))
    });
    // What is undone here was never used, so a failure to undo it adds nothing to the failure being reported.
    made.inspect_err(|_| drop(remove(path)))
}

/// Binds a network namespace that nobody has used yet to `path` and returns what `inside` made in it, as [`create`] does.
pub fn adopt<T: Send>(
    namespace: BorrowedFd<'_>,
    path: &Path,
    inside: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(Netns, T)> {
    File::create_new(path)?;
    let made = on_own_thread(|| {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
        let made = inside()?;
        mount_bind(OWN, path)?;
        Ok((Netns::current()?, made))
    });
    // As above.
    made.inspect_err(|_| drop(remove(path)))
}

/// Runs `inside` in a namespace, on a thread of its own.
pub fn enter<T: Send>(netns: &Netns, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        inside()
    })
}

/// Unbinds the namespace of `path` and removes the file; a path that is gone is removed already.
///
/// The namespace itself ends when nothing else holds it, some time after this returns.
pub fn remove(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs a test in network and mount namespaces of its own, so that it touches nothing of the system it runs on.
///
/// Threads that `work` starts are in them, too. `None`, with the reason on stderr, where this user may not make them.
#[cfg(feature = "testing")]
pub fn isolated<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let done = on_own_thread(|| {
        if let Err(error) = unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS) {
            eprintln!("skipped: namespaces of its own need root ({error})");
            return Ok(None);
        }
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        Ok(Some(work()))
    });
    done.expect("a thread and private mounts, which root can make")
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[expect(unsafe_code, reason = "rustix marks every unshare as unsafe because of CLONE_FILES")]
fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    debug_assert!(!namespaces.contains(UnshareFlags::FILES));
    // SAFETY: only CLONE_FILES can make a descriptor mean different things to different threads; no caller gives it.
    Ok(unsafe { unshare_unsafe(namespaces) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_is_no_namespace_and_a_missing_one_is_removed_already() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        remove(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(Netns::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_fails_inside_a_new_namespace_leaves_no_file() {
        isolated(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ns");
            assert!(create(&path, || Err::<(), _>(io::Error::other("inside"))).is_err());
            assert!(!path.exists());
        });
    }

    #[test]
    fn the_calling_thread_stays_where_it_is() {
        isolated(|| {
            let before = fs::read_link(OWN).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ns");
            let (netns, inside) = create(&path, || fs::read_link(OWN)).unwrap();
            assert_ne!(inside, before);
            assert_eq!(enter(&netns, || fs::read_link(OWN)).unwrap(), inside);
            assert_eq!(fs::read_link(OWN).unwrap(), before);
            Netns::open(&path).unwrap();
            remove(&path).unwrap();
            assert!(!path.exists());
        });
    }
}
