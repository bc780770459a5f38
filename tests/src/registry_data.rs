//! What a registry has on disk, written without a registry: images whose layers are as no engine pushes them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A layer for [`put`].
#[derive(Clone)]
pub struct Layer {
    diff_id: String,
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Layer {
    /// A tar, compressed with gzip as `docker push` does.
    pub fn gzip(tar: &[u8]) -> Result<Self> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(tar)?;
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        Ok(Self { diff_id: digest(tar), media_type, bytes: encoder.finish()? })
    }

    /// A tar, compressed with zstd at its default level.
    pub fn zstd(tar: &[u8]) -> Result<Self> {
        let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
        Ok(Self { diff_id: digest(tar), media_type, bytes: zstd::encode_all(tar, 0)? })
    }
}

/// This system's processors, as images name them.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

/// Puts an image into the folder of a registry that does not run, or has not been asked for it yet.
///
/// The layout is that of Distribution's file system driver (`registry/storage/paths.go`).
pub fn put(data: &Path, repository: &str, tag: &str, layers: &[Layer]) -> Result<()> {
    let store = Store { root: data.join("docker/registry/v2"), repository };
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = serde_json::to_vec(&json!({
        "architecture": ARCHITECTURE, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))?;
    let mut descriptors = Vec::new();
    for layer in layers {
        let digest = store.blob(&layer.bytes)?;
        descriptors.push(json!({"mediaType": layer.media_type, "size": layer.bytes.len(), "digest": digest}));
    }
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": descriptors,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": store.blob(&config)?,
        },
    }))?;
    store.manifest(tag, &manifest)
}

/// The members of a tar in so many tars of about the same size, in their order; a hard link lies beside what it leads to.
pub fn split(tar: &[u8], parts: usize) -> Result<Vec<Vec<u8>>> {
    let mut builders = vec![tar::Builder::new(Vec::new())];
    let mut lies = HashMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if builders.last().is_some_and(|last| last.get_ref().len() > tar.len() / parts) {
            builders.push(tar::Builder::new(Vec::new()));
        }
        let mut header = entry.header().clone();
        let (path, target) = (entry.path()?.into_owned(), entry.link_name()?.map(Cow::into_owned));
        let beside = target.as_ref().filter(|_| header.entry_type().is_hard_link());
        let part = beside.and_then(|target| lies.get(target).copied()).unwrap_or(builders.len() - 1);
        lies.insert(path.clone(), part);
        match target {
            Some(target) => builders[part].append_link(&mut header, path, target)?,
            None => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                builders[part].append_data(&mut header, path, &bytes[..])?;
            }
        }
    }
    Ok(builders.into_iter().map(tar::Builder::into_inner).collect::<Result<_, _>>()?)
}

/// The members of a tar so many times, each time in a folder of their own.
pub fn repeat(tar: &[u8], times: usize) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for time in 0..times {
        let under = |path: &Path| Path::new(&format!("copy-{time}")).join(path);
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let (mut header, path) = (entry.header().clone(), under(&entry.path()?));
            match entry.link_name()? {
                Some(target) if header.entry_type().is_hard_link() => {
                    builder.append_link(&mut header, path, under(&target))?;
                }
                Some(target) => builder.append_link(&mut header, path, target)?,
                None => builder.append_data(&mut header, path, &mut entry)?,
            }
        }
    }
    Ok(builder.into_inner()?)
}

struct Store<'a> {
    root: std::path::PathBuf,
    repository: &'a str,
}

impl Store<'_> {
    /// Keeps a blob, and says in the repository that it has it.
    fn blob(&self, bytes: &[u8]) -> Result<String> {
        let digest = digest(bytes);
        let hex = digest.trim_start_matches("sha256:");
        write(&self.root.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2])), bytes)?;
        self.link(&format!("_layers/sha256/{hex}/link"), &digest)?;
        Ok(digest)
    }

    fn manifest(&self, tag: &str, bytes: &[u8]) -> Result<()> {
        let digest = self.blob(bytes)?;
        let hex = digest.trim_start_matches("sha256:");
        self.link(&format!("_manifests/revisions/sha256/{hex}/link"), &digest)?;
        self.link(&format!("_manifests/tags/{tag}/index/sha256/{hex}/link"), &digest)?;
        self.link(&format!("_manifests/tags/{tag}/current/link"), &digest)
    }

    fn link(&self, name: &str, digest: &str) -> Result<()> {
        write(&self.root.join("repositories").join(self.repository).join(name), digest.as_bytes())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().context("a path has a parent")?)?;
    Ok(fs::write(path, bytes)?)
}

/// `sha256:` and the digits.
pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
