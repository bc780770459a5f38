//! A layer as registries have it: its blob, kept beside the unpacked files, so that what was pulled can be pushed and
//! saved again byte for byte.
//!
//! What comes compressed is kept as it comes. What comes as a plain tar (`docker load`, `import`, `commit`) is kept
//! with zstd's fastest level; a registry gets it as gzip, made anew for each push, whose digest is then remembered.

use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::FORMAT;
use super::compression::Format;
use super::space::Space;
use crate::digest::{DiffId, Digest, Hasher};

/// How strongly plain tars are compressed at rest.
const ZSTD_LEVEL: i32 = 1;
/// How many threads do that, so that whoever reads the tar need not wait for it. More are not faster than files are written.
const ZSTD_THREADS: u32 = 2;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// A layer's blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

/// What is known of a layer that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(super) version: u32,
    /// The bytes in its files.
    pub(crate) size: u64,
    /// The bytes of its tar. Absent, as the blob is, in what format 1 has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tar_bytes: Option<u64>,
    /// The blob that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<LayerBlob>,
    /// Blobs that registries have: the kept one, or others with the same tar in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remote: Vec<RemoteBlob>,
}

/// A blob of a layer that a registry has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteBlob {
    pub(crate) blob: LayerBlob,
    /// The repository with its registry, `docker.io/library/busybox`.
    pub(crate) repository: String,
}

/// How many repositories are remembered for a layer.
const REMOTE_MAX: usize = 32;

impl LayerRecord {
    /// What is known of a layer that has just been unpacked.
    pub(super) fn new(size: u64, measured: &Measured) -> Self {
        let (tar_bytes, blob) = (Some(measured.tar_bytes), Some(measured.blob));
        Self { version: FORMAT, size, tar_bytes, blob, remote: Vec::new() }
    }

    /// Whether all is there that saving and pushing need.
    pub(crate) fn is_complete(&self) -> bool {
        self.blob.is_some()
    }

    /// Remembers that a repository has a blob of this layer. Says whether that is news.
    pub(crate) fn remember(&mut self, blob: LayerBlob, repository: &str) -> bool {
        let remote = RemoteBlob { blob, repository: repository.to_owned() };
        if self.remote.contains(&remote) {
            return false;
        }
        self.remote.insert(0, remote);
        self.remote.truncate(REMOTE_MAX);
        true
    }
}

/// What came out of a layer's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) diff_id: DiffId,
    pub(super) tar_bytes: u64,
    pub(super) blob: LayerBlob,
}

/// Takes the digest of a blob as it is read, and writes it down if it is to be kept.
pub(super) struct Tee<'a, R> {
    source: R,
    /// A plain tar's digest is the layer's diff id, which others take.
    hasher: Option<Hasher>,
    size: u64,
    keep: Option<Keeper<'a>>,
}

impl<'a, R: Read> Tee<'a, R> {
    pub(super) fn new(source: R, is_packed: bool, keep: Option<Keeper<'a>>) -> Self {
        Self { source, hasher: is_packed.then(Hasher::new), size: 0, keep }
    }

    /// Reads what is left, and gives the digest of all, if it is packed, and its length.
    pub(super) fn finish(mut self) -> io::Result<(Option<Digest>, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.map(Hasher::finish), self.size))
    }
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        self.size += read as u64;
        if let Some(keep) = &mut self.keep {
            keep.write_all(&buffer[..read])?;
        }
        Ok(read)
    }
}

/// The file that a blob is kept in.
pub(super) struct Keeper<'a> {
    pub(super) file: &'a File,
    pub(super) space: Space,
}

impl Write for Keeper<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.space.take(bytes.len() as u64)? {
            true => self.file.write(bytes),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Compresses a plain tar into a kept blob.
pub(super) struct Packer<'a> {
    encoder: zstd::Encoder<'static, HashedWriter<Keeper<'a>>>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(keep: Keeper<'a>) -> io::Result<Self> {
        let out = HashedWriter { to: keep, hasher: Hasher::new(), size: 0 };
        let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
        encoder.multithread(ZSTD_THREADS)?;
        Ok(Self { encoder })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.encoder.write_all(bytes)
    }

    pub(super) fn finish(self) -> io::Result<LayerBlob> {
        let out = self.encoder.finish()?;
        let digest = out.hasher.finish();
        Ok(LayerBlob { digest, size: out.size, compression: Compression::Zstd })
    }
}

/// Takes the digest of what is written through it.
pub(crate) struct HashedWriter<W> {
    pub(crate) to: W,
    pub(crate) hasher: Hasher,
    pub(crate) size: u64,
}

impl<W: Write> Write for HashedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Format {
    /// How a blob of this format is compressed, as a manifest may tell it.
    pub(super) fn compression(self) -> Compression {
        match self {
            Self::Gzip => Compression::Gzip,
            Self::Zstd => Compression::Zstd,
            // No manifest has a name for the last two. What was loaded is packed anew; what was pulled is kept as it came.
            Self::Plain | Self::Bzip2 | Self::Xz => Compression::None,
        }
    }
}
