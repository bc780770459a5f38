//! The tar of a save: blobs by their digests, each once. Members say nothing of when and by whom they were written.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use crate::digest::{DiffId, Digest, Hasher};
use crate::layer::read_ahead;

/// A tar under construction.
pub(super) struct Archive<W: Write> {
    tar: tar::Builder<W>,
    /// The blobs that are in it.
    written: BTreeSet<Digest>,
}

impl<W: Write> Archive<W> {
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let mut archive = Self { tar: tar::Builder::new(out), written: BTreeSet::new() };
        for directory in ["blobs/", "blobs/sha256/"] {
            let mut header = header(0);
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            archive.tar.append_data(&mut header, directory, io::empty())?;
        }
        Ok(archive)
    }

    pub(super) fn has(&self, blob: &Digest) -> bool {
        self.written.contains(blob)
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.tar.append_data(&mut header(bytes.len() as u64), path, bytes)
    }

    /// A blob, if it is not there yet.
    pub(super) fn blob(&mut self, bytes: &[u8]) -> io::Result<(Digest, usize)> {
        let digest = Digest::of(bytes);
        if self.written.insert(digest) {
            self.file(&blob(&digest), bytes)?;
        }
        Ok((digest, bytes.len()))
    }

    /// A layer's plain tar of so many bytes. Whether it was what it should be, which comes to light while it goes.
    ///
    /// It is decompressed and hashed on a thread of its own, while what came before goes to the client.
    pub(super) fn layer(&mut self, layer: &DiffId, bytes: u64, tar: impl Read + Send) -> io::Result<bool> {
        self.written.insert(layer.0);
        let checked = Checked { source: tar, hasher: Hasher::new(), bytes: 0, failed: false };
        let (written, checked) = read_ahead(checked, |tar| {
            self.tar.append_data(&mut header(bytes), blob(&layer.0), tar.take(bytes))
        });
        // What cannot be decompressed is not whole, either; whoever takes no more says nothing of the layer.
        if checked.failed {
            return Ok(false);
        }
        written?;
        Ok(checked.bytes == bytes && checked.hasher.finish() == layer.0)
    }

    pub(super) fn end(self) -> io::Result<()> {
        self.tar.into_inner()?.flush()
    }
}

/// Where a blob is in the archive.
pub(super) fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Takes the digest and the length of what is read through it.
struct Checked<R> {
    source: R,
    hasher: Hasher,
    bytes: u64,
    failed: bool,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer).inspect_err(|_| self.failed = true)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}
