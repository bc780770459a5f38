//! Images that are made by hand and put into a registry blob by blob: for other platforms, of other packings, and such as
//! no client would push.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::registry::Registry;
use crate::subject::Subject;

/// The media type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How a layer is packed.
#[derive(Debug, Clone, Copy)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A layer as a registry has it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its bytes.
    pub blob: Vec<u8>,
    /// The size that manifests tell of it.
    pub told_size: usize,
    media_type: &'static str,
    diff_id: String,
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it is for: `s390x`.
    pub architecture: &'static str,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

/// `sha256:…` of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Layer {
    /// A layer of one file.
    pub fn of_file(name: &str, bytes: &[u8], packing: Packing) -> Result<Self> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes)?;
        Self::of_tar(&archive.into_inner()?, packing)
    }

    /// A layer of a tar.
    pub fn of_tar(tar: &[u8], packing: Packing) -> Result<Self> {
        let (blob, media_type) = match packing {
            Packing::Plain => (tar.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar)?;
                (encoder.finish()?, "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Packing::Zstd => (zstd::encode_all(tar, 1)?, "application/vnd.oci.image.layer.v1.tar+zstd"),
        };
        Ok(Self { told_size: blob.len(), blob, media_type, diff_id: digest(tar) })
    }
}

impl Image {
    /// An image of one small file that names its platform, and is that of no other case.
    pub fn small(case: &str, architecture: &'static str) -> Result<Self> {
        let layer = Layer::of_file("platform", format!("{case} {architecture}").as_bytes(), Packing::Gzip)?;
        Ok(Self { architecture, layers: vec![layer] })
    }

    /// Its configuration, whose digest is its id.
    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| &layer.diff_id).collect();
        json!({
            "architecture": self.architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {"Cmd": ["/platform"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "crafted"})).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes()
    }

    /// Its id.
    pub fn id(&self) -> String {
        digest(&self.config())
    }

    /// Its manifest.
    pub fn manifest(&self) -> Vec<u8> {
        let config = self.config();
        let layer = |layer: &Layer| {
            json!({
                "mediaType": layer.media_type, "size": layer.told_size, "digest": digest(&layer.blob),
            })
        };
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "size": config.len(), "digest": digest(&config),
            },
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes()
    }

    /// Puts it under a tag; what points to it.
    pub fn put(&self, on: &dyn Subject, registry: &Registry, repository: &str, tag: &str) -> Result<Value> {
        for layer in &self.layers {
            registry.put_blob(on, repository, &layer.blob)?;
        }
        registry.put_blob(on, repository, &self.config())?;
        let manifest = self.manifest();
        registry.put_manifest(on, repository, tag, MANIFEST, &manifest)?;
        Ok(json!({
            "mediaType": MANIFEST, "size": manifest.len(), "digest": digest(&manifest),
            "platform": {"os": "linux", "architecture": self.architecture},
        }))
    }
}

/// Puts an index of these under a tag; what points to it.
pub fn put_index(
    on: &dyn Subject,
    registry: &Registry,
    repository: &str,
    tag: &str,
    manifests: &[Value],
) -> Result<Value> {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    registry.put_manifest(on, repository, tag, INDEX, index.as_bytes())?;
    Ok(json!({"mediaType": INDEX, "size": index.len(), "digest": digest(index.as_bytes())}))
}
