//! The machine's system image: a directory that is replaced whole.
//!
//! Its manifest says for which protocol and computer it was built, how long its files are and what their digests are. All
//! but the digests is looked at before each boot; the digests once (see [`whole`]), since an image that was copied badly is
//! so from the start, and hashing its 90 MB would delay each boot.

mod whole;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use caisson_guest_proto::{VersionMismatch, check_protocol};
use serde::Deserialize;

/// This computer's architecture, by Debian's name, as manifests have it.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// What to do about an image, or a guest, of another version than this program.
pub(crate) const OTHER_VERSION: &str =
    "the image and this program are of different versions: install or build both again";

/// The files of an image that is whole, of our protocol and for this computer.
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
    /// It was built for another kind of computer.
    #[error("the machine's image in {} is for {theirs}, this computer is {ARCH}", dir.display())]
    Architecture { dir: PathBuf, theirs: String },
    /// A file of it has another length than the manifest says.
    #[error("the machine's image is damaged: {} has {found} bytes instead of {expected}", path.display())]
    Length { path: PathBuf, found: u64, expected: u64 },
    /// A file of it has another content than the manifest says.
    #[error("the machine's image is damaged: {} has not the digest that its manifest says", path.display())]
    Digest { path: PathBuf },
}

impl ImageError {
    /// What the user can do about it: one line.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Incomplete { .. } | Self::Manifest { .. } => {
                "install Caisson again, or build its image: scripts/build".into()
            }
            Self::Protocol(_) => OTHER_VERSION.into(),
            Self::Architecture { .. } => {
                format!(
                    "build the image for {ARCH}: scripts/build, or vm-image/build --arch {ARCH} --out DIR elsewhere"
                )
            }
            Self::Length { .. } | Self::Digest { .. } => {
                "copy the image here once more, or build it: scripts/build".into()
            }
        }
    }
}

/// What every version's manifest says.
#[derive(Deserialize)]
struct Protocol {
    protocol: u32,
}

/// What we read of `manifest.json`.
#[derive(Deserialize)]
struct Manifest {
    arch: String,
    #[serde(default)]
    cmdline: String,
    files: Files,
}

#[derive(Deserialize)]
struct Files {
    kernel: Facts,
    initrd: Facts,
    #[serde(rename = "root.erofs")]
    root: Option<Facts>,
}

/// What a file has to be like.
#[derive(Deserialize)]
struct Facts {
    /// In bytes.
    size: u64,
    /// In hexadecimal digits.
    sha256: String,
}

impl Image {
    /// Looks at the image in this directory. `found_whole` is the file that says which image's digests were right; it is
    /// written for a new one.
    pub(crate) fn open(dir: &Path, found_whole: &Path) -> Result<Self, ImageError> {
        let path = dir.join("manifest.json");
        let text = fs::read(&path).map_err(|source| ImageError::Incomplete { path: path.clone(), source })?;
        let manifest = understood(&text, &path)?;
        if manifest.arch != ARCH {
            return Err(ImageError::Architecture { dir: dir.into(), theirs: manifest.arch });
        }
        let mut files = whole::Check::default();
        let kernel = files.file(dir.join("kernel"), manifest.files.kernel)?;
        let initrd = files.file(dir.join("initrd"), manifest.files.initrd)?;
        let root = manifest.files.root.map(|facts| files.file(dir.join("root.erofs"), facts)).transpose()?;
        files.digests(found_whole)?;
        Ok(Self { kernel, initrd, root, cmdline: manifest.cmdline })
    }
}

/// The manifest, if it is of our protocol; of another one only that much may be understood.
fn understood(text: &[u8], path: &Path) -> Result<Manifest, ImageError> {
    let malformed = |source| ImageError::Manifest { path: path.to_owned(), source };
    let Protocol { protocol } = serde_json::from_slice(text).map_err(malformed)?;
    check_protocol(protocol).map_err(ImageError::Protocol)?;
    serde_json::from_slice(text).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use caisson_guest_proto::PROTOCOL;
    use caisson_hypervisor::testing::write_image;
    use serde_json::{Value, json};

    use super::*;

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            write_image(dir.path());
            Self(dir)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn open(&self) -> Result<Image, ImageError> {
            Image::open(self.0.path(), &self.path("found-whole.json"))
        }

        fn change_manifest(&self, change: impl FnOnce(&mut Value)) {
            let path = self.path("manifest.json");
            let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            change(&mut manifest);
            fs::write(path, manifest.to_string()).unwrap();
        }
    }

    #[test]
    fn the_root_disk_is_there_if_the_image_has_one() {
        let image = Fixture::new();
        let found = image.open().unwrap();
        assert_eq!((found.root, found.cmdline.as_str()), (Some(image.path("root.erofs")), "quiet"));
        image.change_manifest(|manifest| {
            manifest["files"].as_object_mut().unwrap().remove("root.erofs");
        });
        assert_eq!(image.open().unwrap().root, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let image = Fixture::new();
        fs::remove_file(image.path("initrd")).unwrap();
        let error = image.open().unwrap_err();
        assert!(matches!(error, ImageError::Incomplete { path, .. } if path.ends_with("initrd")));
        let error = Image::open(Path::new("/nowhere"), &image.path("found-whole.json")).unwrap_err();
        assert!(matches!(error, ImageError::Incomplete { path, .. } if path.ends_with("manifest.json")));
    }

    #[test]
    fn an_image_of_another_protocol_is_refused_whatever_else_its_manifest_says() {
        for theirs in [PROTOCOL - 1, PROTOCOL + 1] {
            let image = Fixture::new();
            fs::write(image.path("manifest.json"), json!({ "protocol": theirs }).to_string()).unwrap();
            let error = image.open().unwrap_err();
            assert!(matches!(error, ImageError::Protocol(told) if told.theirs == theirs), "{error}");
        }
    }

    #[test]
    fn a_manifest_that_is_none_is_named() {
        let image = Fixture::new();
        image.change_manifest(|manifest| *manifest = json!({ "protocol": PROTOCOL, "arch": ARCH }));
        assert!(matches!(image.open(), Err(ImageError::Manifest { .. })));
        fs::write(image.path("manifest.json"), "{").unwrap();
        assert!(matches!(image.open(), Err(ImageError::Manifest { .. })));
    }

    #[test]
    fn an_image_for_another_computer_is_refused_with_what_to_build() {
        let image = Fixture::new();
        image.change_manifest(|manifest| manifest["arch"] = "riscv64".into());
        let error = image.open().unwrap_err();
        assert!(error.to_string().ends_with(&format!("is for riscv64, this computer is {ARCH}")), "{error}");
        assert!(error.remedy().contains(&format!("--arch {ARCH}")));
    }

    #[test]
    fn a_file_that_was_cut_short_is_refused() {
        let image = Fixture::new();
        image.open().unwrap();
        fs::write(image.path("kernel"), "ker").unwrap();
        let error = image.open().unwrap_err();
        assert!(matches!(error, ImageError::Length { found: 3, expected: 6, .. }), "{error}");
    }
}
