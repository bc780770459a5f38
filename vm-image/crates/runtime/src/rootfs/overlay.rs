//! The container's layers as one directory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, fsconfig_set_string, fsopen, mount};

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
        // The index ties an upper directory to its mount; Docker turns it off, and a layer directory may be copied elsewhere.
        match fsconfig_set_string(&context, "index", "off") {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
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

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
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
