//! The container's layers as one directory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, UnmountFlags, fsconfig_set_string, fsopen, mount, unmount};

use super::open_directory;
use super::options::Attributes;
use super::tree::Tree;

/// Layers to be mounted over each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overlay<'a> {
    /// Read-only, topmost first. At least one.
    pub(super) lower: &'a [PathBuf],
    /// The writable one.
    pub(super) upper: &'a Path,
    /// Overlayfs' own, on the file system of `upper`.
    pub(super) work: &'a Path,
}

impl Overlay<'_> {
    /// Puts over each layer's directory, in this mount namespace, a mount of it that shows its files as those of a user namespace's users
    /// (idmapped mounts; overlayfs takes them since Linux 5.19).
    pub(super) fn show_as(&self, users: BorrowedFd<'_>) -> io::Result<()> {
        // Overlayfs wants these two in one mount.
        let (Some(own), true) = (self.upper.parent(), self.upper.parent() == self.work.parent()) else {
            return Err(io::Error::other("the writable layer and its work directory lie apart"));
        };
        show_all_as(self.lower.iter().map(PathBuf::as_path).chain([own]), users)
    }

    /// Mounts the layers at a directory; the result is the top of the mount.
    ///
    /// Since Linux 6.8 (`lowerdir+`) layers are given one by one. Before, all of them in one option string of at most a page, for which paths
    /// of a hundred characters and more are too long: there, and for a path over the 255 bytes of one parameter, layers are named by
    /// descriptor.
    pub(super) fn mount(&self, place: &Path) -> io::Result<OwnedFd> {
        match self.mount_by_parameters(place) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.mount_by_string(place),
            mounted => mounted,
        }
    }

    fn mount_by_parameters(&self, place: &Path) -> io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        let mut short = ShortPaths::default();
        for layer in self.lower {
            fsconfig_set_string(&context, "lowerdir+", &*short.name(layer)?)?;
        }
        fsconfig_set_string(&context, "upperdir", &*short.name(self.upper)?)?;
        fsconfig_set_string(&context, "workdir", &*short.name(self.work)?)?;
        // The index ties an upper directory to its mount; Docker turns it off, and a layer directory may be copied
        // elsewhere. Redirects and bare metadata would make of a layer what its files alone do not tell.
        for feature in ["index", "redirect_dir", "metacopy"] {
            match fsconfig_set_string(&context, feature, "off") {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let tree = Tree::create(&context, Attributes::default())?;
        tree.attach(open_directory(place)?.as_fd())?;
        Ok(tree.into_top())
    }

    fn mount_by_string(&self, place: &Path) -> io::Result<OwnedFd> {
        let mut short = ShortPaths { always: true, ..ShortPaths::default() };
        let mut options = String::from("lowerdir=");
        for (index, layer) in self.lower.iter().enumerate() {
            if index > 0 {
                options.push(':');
            }
            options.push_str(&short.name(layer)?.to_string_lossy());
        }
        for (key, path) in [("upperdir", self.upper), ("workdir", self.work)] {
            options.push_str(&format!(",{key}={}", short.name(path)?.display()));
        }
        options.push_str(",index=off");
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        mount("overlay", place, "overlay", MountFlags::empty(), Some(options.as_c_str()))?;
        open_directory(place)
    }
}

/// Mounts layers (at least two, topmost first) at a directory, not to be written; the result is the top of the mount.
pub(super) fn mount_read_only(layers: &[PathBuf], place: &Path) -> io::Result<OwnedFd> {
    match read_only_by_parameters(layers, place) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let mut short = ShortPaths { always: true, ..ShortPaths::default() };
            let names: io::Result<Vec<_>> = layers.iter().map(|layer| short.name(layer)).collect();
            let names: Vec<String> = names?.iter().map(|name| name.display().to_string()).collect();
            let options = std::ffi::CString::new(format!("lowerdir={}", names.join(":")));
            let options = options.map_err(|_| Errno::INVAL)?;
            mount("overlay", place, "overlay", MountFlags::RDONLY, Some(options.as_c_str()))?;
            open_directory(place)
        }
        mounted => mounted,
    }
}

/// A copy of layers (topmost first) as one directory, or of what is at a path in it. It hangs nowhere; with `users`, its files are shown as
/// those of a user namespace's users.
///
/// It is always of an overlay, whose file system itself is read-only. A bind of the only layer would be the store's own directory, and who
/// may mount could make that writable again.
///
/// The layers are mounted at `place` for a moment: what is copied has to be in this mount namespace (before Linux 6.15).
pub(super) fn copy_layers(
    layers: &[PathBuf],
    subpath: Option<&str>,
    place: &Path,
    users: Option<BorrowedFd<'_>>,
) -> io::Result<Tree> {
    if let Some(users) = users {
        show_all_as(layers.iter().map(PathBuf::as_path), users)?;
    }
    let mut lower = layers.to_vec();
    let is_alone = layers.len() == 1;
    if is_alone {
        // Overlayfs wants two at least.
        let empty = Tree::new("tmpfs", Path::new("tmpfs"), &[], super::tree::READ_ONLY)?;
        empty.attach(open_directory(place)?.as_fd())?;
        lower.push(place.to_owned());
    }
    let top = mount_read_only(&lower, place);
    // The root may be of the same layers, and shows them so by itself.
    for layer in layers.iter().filter(|_| users.is_some()) {
        unmount(layer, UnmountFlags::DETACH)?;
    }
    let top = top?;
    let tree = match subpath {
        None => Tree::copy(top.as_fd(), false),
        Some(subpath) => open_in(top.as_fd(), subpath).and_then(|inside| Tree::copy(inside.as_fd(), false)),
    };
    for _mounted in 0..1 + usize::from(is_alone) {
        unmount(place, UnmountFlags::DETACH)?;
    }
    tree
}

/// Opens what is at a path below a directory. Whoever writes there may put links in its way: none leads out.
pub(super) fn open_in(directory: BorrowedFd<'_>, subpath: &str) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(directory, subpath, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Puts over each directory a mount of it that shows its files as those of a user namespace's users.
fn show_all_as<'a>(directories: impl Iterator<Item = &'a Path>, users: BorrowedFd<'_>) -> io::Result<()> {
    for directory in directories {
        let tree = Tree::copy_path(directory, false)?;
        tree.map_ids(users)?;
        tree.attach(open_directory(directory)?.as_fd())?;
    }
    Ok(())
}

fn read_only_by_parameters(layers: &[PathBuf], place: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    let mut short = ShortPaths::default();
    for layer in layers {
        fsconfig_set_string(&context, "lowerdir+", &*short.name(layer)?)?;
    }
    let tree = Tree::create(&context, super::tree::READ_ONLY)?;
    tree.attach(open_directory(place)?.as_fd())?;
    Ok(tree.into_top())
}

/// Names for long paths that are good while this lives.
#[derive(Default)]
struct ShortPaths {
    always: bool,
    open: Vec<OwnedFd>,
}

impl ShortPaths {
    /// `fsconfig(2)` takes strings of up to 255 bytes.
    const LIMIT: usize = 255;

    fn name(&mut self, path: &Path) -> io::Result<PathBuf> {
        if path.as_os_str().len() <= Self::LIMIT && !self.always {
            return Ok(path.to_owned());
        }
        let directory = open_directory(path)?;
        let name = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        self.open.push(directory);
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn layers(at: &Path) -> Vec<PathBuf> {
        let long = "x".repeat(200);
        let lower: Vec<_> =
            (0..3).map(|number| at.join(&long).join(&long).join(number.to_string())).collect();
        for (number, layer) in lower.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join("who"), number.to_string()).unwrap();
            fs::write(layer.join(format!("only{number}")), "").unwrap();
        }
        lower
    }

    /// In a mount namespace of the thread's own, which ends with it.
    fn mounted(mount: fn(&Overlay<'_>, &Path) -> io::Result<OwnedFd>) -> Option<(String, usize)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_owned();
        let read = move || {
            caisson_sys::clone::unshare(libc::CLONE_NEWNS).unwrap();
            let private =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let lower = layers(&at);
            let [upper, work, place] = ["upper", "work", "place"].map(|name| at.join(name));
            [&upper, &work, &place].into_iter().for_each(|path| fs::create_dir(path).unwrap());
            mount(&Overlay { lower: &lower, upper: &upper, work: &work }, &place).unwrap();
            (fs::read_to_string(place.join("who")).unwrap(), fs::read_dir(&place).unwrap().count())
        };
        Some(std::thread::spawn(read).join().unwrap())
    }

    #[test]
    fn layers_with_long_paths_lie_topmost_first() {
        let top_and_all = |found| assert_eq!(found, ("0".to_string(), 4));
        mounted(|overlay, place| overlay.mount_by_parameters(place)).map(top_and_all);
    }

    #[test]
    fn old_kernels_get_one_string() {
        let top_and_all = |found| assert_eq!(found, ("0".to_string(), 4));
        mounted(|overlay, place| overlay.mount_by_string(place)).map(top_and_all);
    }
}
