//! The content store: files named by the digest of what is in them, `blobs/sha256/<hex>`.
//!
//! A blob is written aside, its digest is taken while it streams in, and it gets its name only when that digest is
//! the expected one and its bytes are on disk. So whatever has a name is whole.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::durable::{self, At, StateError};

/// The content store.
#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    tmp: PathBuf,
}

/// A blob was not stored, and nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The content is not what was announced.
    #[error("content has digest {found}, expected {expected}")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// It is longer than such a thing may be.
    #[error("content is larger than {0} bytes")]
    TooLarge(u64),
    /// The stream it came from failed.
    #[error("content could not be read")]
    Source(#[source] io::Error),
    /// It could not be written.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Blobs {
    pub(crate) fn new(dir: PathBuf, tmp: PathBuf) -> Self {
        Self { dir, tmp }
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Stores what `source` gives, if it has this digest and at most `limit` bytes.
    pub(crate) fn store(&self, expected: &Digest, source: impl Read, limit: u64) -> Result<(), BlobError> {
        let mut file = tempfile::NamedTempFile::new_in(&self.tmp).at("make a file in", &self.tmp)?;
        let found = copy_hashed(source, file.as_file_mut(), limit)?;
        if found != *expected {
            return Err(BlobError::Digest { expected: *expected, found });
        }
        let path = self.path(expected);
        file.as_file().sync_all().at("write", &path)?;
        file.persist(&path).map_err(|error| error.error).at("write", &path)?;
        Ok(durable::sync_parent(&path)?)
    }

    /// The bytes of a blob, if it is there; checked, since a disk may rot.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let Some(bytes) = durable::read(&self.path(digest))? else { return Ok(None) };
        match Digest::of(&bytes) {
            found if found == *digest => Ok(Some(bytes)),
            found => Err(BlobError::Digest { expected: *digest, found }),
        }
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), StateError> {
        durable::remove(&self.path(digest))
    }

    /// The digests of all blobs.
    pub(crate) fn list(&self) -> Result<Vec<Digest>, StateError> {
        names(&self.dir)
    }
}

/// The entries of a directory whose names are 64 hex digits.
pub(crate) fn names(dir: &Path) -> Result<Vec<Digest>, StateError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).at("list", dir)? {
        let name = entry.at("list", dir)?.file_name();
        let name = name.to_string_lossy();
        found.extend(Digest::from_hex(name.strip_suffix(".json").unwrap_or(&name)).ok());
    }
    Ok(found)
}

fn copy_hashed(mut source: impl Read, file: &mut std::fs::File, limit: u64) -> Result<Digest, BlobError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0_u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(BlobError::Source(error)),
        };
        total += read as u64;
        if total > limit {
            return Err(BlobError::TooLarge(limit));
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).at("write a blob in", Path::new("tmp"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(root: &Path) -> Blobs {
        std::fs::create_dir_all(root.join("blobs")).unwrap();
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        Blobs::new(root.join("blobs"), root.join("tmp"))
    }

    fn count(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn what_has_the_right_digest_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let digest = Digest::of(b"hello");
        blobs.store(&digest, &b"hello"[..], 5).unwrap();
        assert_eq!(blobs.read(&digest).unwrap().as_deref(), Some(&b"hello"[..]));
        assert_eq!(blobs.list().unwrap(), [digest]);
        blobs.remove(&digest).unwrap();
        assert_eq!(blobs.read(&digest).unwrap(), None);
    }

    #[test]
    fn what_is_refused_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let digest = Digest::of(b"hello");
        assert!(matches!(blobs.store(&digest, &b"hellO"[..], 5), Err(BlobError::Digest { .. })));
        assert!(matches!(blobs.store(&digest, &b"hello"[..], 4), Err(BlobError::TooLarge(4))));
        assert_eq!(count(&root.path().join("blobs")) + count(&root.path().join("tmp")), 0);
    }

    #[test]
    fn rot_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let digest = Digest::of(b"hello");
        std::fs::write(blobs.path(&digest), b"jello").unwrap();
        assert!(matches!(blobs.read(&digest), Err(BlobError::Digest { .. })));
    }
}
