//! What the tests of this crate have in common: tars of any kind, honest or not, stores, and a registry.

pub(crate) mod registry;

use std::io::Write;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

pub(crate) use crate::error::chain;
use crate::{Digest, Limits, Store};

/// A tar under construction. Names are taken as they are, `..` and all.
#[derive(Default, Clone)]
pub(crate) struct Tarball(Vec<u8>);

impl Tarball {
    pub(crate) fn entry(
        mut self,
        kind: u8,
        path: &str,
        target: &str,
        data: &[u8],
        change: impl Fn(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(b'0', path, "", data, |_| {})
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"", |_| {})
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"", |_| {})
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"", |_| {})
    }

    /// A PAX header for the entry after it.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(bytes, "{length} {key}=").unwrap();
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry(b'x', "pax", "", &bytes, |_| {})
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// One image for [`docker_archive`] and [`oci_archive`].
#[derive(Default, Clone)]
pub(crate) struct TestImage {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) tags: Vec<&'static str>,
    /// Makes the configuration another one.
    pub(crate) comment: &'static str,
    pub(crate) parent: String,
    pub(crate) architecture: Option<&'static str>,
}

impl TestImage {
    pub(crate) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| Digest::of(layer)).collect();
        serde_json::to_vec(&serde_json::json!({
            "architecture": self.architecture.unwrap_or(&crate::Platform::here().architecture), "os": "linux",
            "comment": self.comment, "created": "2026-01-02T03:04:05.678Z",
            "config": {"Cmd": ["sh"], "Labels": {"of": self.comment}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
        .unwrap()
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config())
    }
}

/// What `docker save` writes.
pub(crate) fn docker_archive(images: &[TestImage]) -> Vec<u8> {
    let mut tar = Tarball::default();
    let mut manifest = Vec::new();
    for image in images {
        let config = format!("blobs/sha256/{}", image.id().hex());
        let layers: Vec<_> =
            image.layers.iter().map(|layer| format!("blobs/sha256/{}", Digest::of(layer).hex())).collect();
        for (name, layer) in layers.iter().zip(&image.layers) {
            tar = tar.file(name, layer);
        }
        tar = tar.file(&config, &image.config());
        manifest.push(serde_json::json!({
            "Config": config, "RepoTags": image.tags, "Layers": layers, "Parent": image.parent,
        }));
    }
    tar.file("manifest.json", &serde_json::to_vec(&manifest).unwrap()).end()
}

/// An OCI layout: each image with gzip layers, and its tags as containerd's annotation.
pub(crate) fn oci_archive(images: &[TestImage]) -> Vec<u8> {
    let mut tar = Tarball::default();
    let mut manifests = Vec::new();
    for image in images {
        let (with, manifest) = oci_image(tar, image);
        tar = with;
        let digest = Digest::of(&manifest);
        for tag in image.tags.iter().map(Some).chain(image.tags.is_empty().then_some(None)) {
            let annotations = tag.map(|tag| serde_json::json!({"io.containerd.image.name": tag}));
            manifests.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.len(), "digest": digest,
                "annotations": annotations,
            }));
        }
    }
    oci_layout(tar, &manifests)
}

/// Adds the blobs of an image; the last is its manifest, which is returned too.
pub(crate) fn oci_image(mut tar: Tarball, image: &TestImage) -> (Tarball, Vec<u8>) {
    let mut layers = Vec::new();
    for layer in &image.layers {
        let layer = gzip(layer);
        layers.push(serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": layer.len(), "digest": Digest::of(&layer)}));
        tar = blob(tar, &layer);
    }
    let config = image.config();
    tar = blob(tar, &config);
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": Digest::of(&config)},
    }))
    .unwrap();
    (blob(tar, &manifest), manifest)
}

pub(crate) fn blob(tar: Tarball, bytes: &[u8]) -> Tarball {
    tar.file(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes)
}

pub(crate) fn oci_layout(tar: Tarball, manifests: &[serde_json::Value]) -> Vec<u8> {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", &serde_json::to_vec(&index).unwrap())
        .end()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer of one file.
pub(crate) fn small_layer(name: &str) -> Vec<u8> {
    Tarball::default().file(name, name.as_bytes()).end()
}

pub(crate) fn limits() -> Limits {
    Limits { keep_free: 0, ..Limits::default() }
}

pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), limits()).unwrap();
    (dir, store)
}

/// How many things there are in a directory.
pub(crate) fn count(dir: impl AsRef<Path>) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Whether devices and `trusted.*` attributes can be made, for which one must be root; says so if not.
pub(crate) fn is_privileged() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("device");
    let made = rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, 0)
        .and_then(|()| rustix::fs::setxattr(dir.path(), "trusted.test", b"y", XattrFlags::empty()));
    if let Err(error) = made {
        println!(
            "skipped: devices and trusted attributes cannot be made here ({error}); be root, with TMPDIR on a disk"
        );
    }
    made.is_ok()
}
