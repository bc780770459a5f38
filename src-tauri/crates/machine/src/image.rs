//! The machine's system image: a directory that is replaced whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use caisson_guest_proto::{VersionMismatch, check_protocol};
use serde::Deserialize;

/// The files of an image that is complete and of our protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// The read-only root disk, if the root is not in the initrd.
    pub(crate) root: Option<PathBuf>,
    /// What the image asks of the kernel's command line.
    pub(crate) cmdline: String,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// A file of it cannot be read.
    #[error("the machine's image is incomplete: cannot read {}", path.display())]
    Incomplete {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Its manifest is not one.
    #[error("the image's manifest {} cannot be understood", path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// It was built for another version of the host.
    #[error("the machine's image speaks protocol {}, this program speaks {}", .0.theirs, .0.ours)]
    Protocol(VersionMismatch),
}

/// What we read of `manifest.json`.
#[derive(Deserialize)]
struct Manifest {
    protocol: u32,
    #[serde(default)]
    cmdline: String,
}

impl Image {
    /// Looks at the image in this directory.
    pub(crate) fn open(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join("manifest.json");
        let text = fs::read(&path).map_err(|source| ImageError::Incomplete { path: path.clone(), source })?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|source| ImageError::Manifest { path, source })?;
        check_protocol(manifest.protocol).map_err(ImageError::Protocol)?;
        let root = dir.join("root.erofs");
        Ok(Self {
            kernel: present(dir.join("kernel"))?,
            initrd: present(dir.join("initrd"))?,
            root: root.exists().then_some(root),
            cmdline: manifest.cmdline,
        })
    }
}

fn present(path: PathBuf) -> Result<PathBuf, ImageError> {
    match fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(source) => Err(ImageError::Incomplete { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(manifest: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.json"), manifest).unwrap();
        fs::write(dir.path().join("kernel"), "").unwrap();
        fs::write(dir.path().join("initrd"), "").unwrap();
        dir
    }

    #[test]
    fn the_root_disk_is_there_if_the_image_has_one() {
        let dir = image(r#"{ "protocol": 1, "cmdline": "quiet", "files": {} }"#);
        let found = Image::open(dir.path()).unwrap();
        assert_eq!((found.root, found.cmdline.as_str()), (None, "quiet"));
        fs::write(dir.path().join("root.erofs"), "").unwrap();
        assert!(Image::open(dir.path()).unwrap().root.is_some());
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = image(r#"{ "protocol": 1 }"#);
        fs::remove_file(dir.path().join("initrd")).unwrap();
        let error = Image::open(dir.path()).unwrap_err();
        assert!(matches!(error, ImageError::Incomplete { path, .. } if path.ends_with("initrd")));
        let error = Image::open(Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, ImageError::Incomplete { path, .. } if path.ends_with("manifest.json")));
    }

    #[test]
    fn an_image_of_another_protocol_is_refused_before_it_boots() {
        let error = Image::open(image(r#"{ "protocol": 99 }"#).path()).unwrap_err();
        assert!(matches!(error, ImageError::Protocol(VersionMismatch { theirs: 99, .. })));
        let error = Image::open(image("{").path()).unwrap_err();
        assert!(matches!(error, ImageError::Manifest { .. }));
    }
}
