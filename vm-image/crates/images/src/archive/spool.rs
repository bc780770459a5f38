//! An archive that comes once, from its beginning to its end, but has to be read in another order: `manifest.json` is
//! its last member. It is spooled into one file without a name, which nothing can leave behind, and its members are
//! read from there. No member's name is ever used on disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::LoadError;
use crate::layer::{LayerPath, Space, decompressed};
use crate::store::Limits;
use crate::tar::{Archive, Kind, Member, TarError};

/// How many links may lead from one to the next.
const LINKS_MAX: usize = 16;

/// The members of an archive.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    members: HashMap<LayerPath, Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    File { offset: u64, length: u64 },
    Link(LayerPath),
}

/// The data of one member, from its beginning.
#[derive(Debug, Clone)]
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Spool {
    /// Takes an archive to its end.
    pub(super) fn receive(source: impl Read + Send, tmp: &Path, limits: &Limits) -> Result<Self, LoadError> {
        let file = tempfile::tempfile_in(tmp).map_err(LoadError::Spool)?;
        let mut plain = decompressed(source).map_err(TarError::from_read)?;
        let space = Space::of(tmp, limits.keep_free).map_err(LoadError::Spool)?;
        let copying = Copying { source: &mut plain, file: &file, space, failed: None };
        let mut reading = Reading { archive: Archive::new(copying), members: HashMap::new() };
        let read = reading.read(limits);
        let (members, failed) = reading.into_parts();
        match (failed, read) {
            (Some(error), _) => return Err(spool_error(error)),
            (None, read) => read?,
        }
        // Whoever sends should be able to send all; what comes after the archive's end means nothing.
        io::copy(&mut plain, &mut io::sink()).map_err(TarError::from_read)?;
        Ok(Self { file: Arc::new(file), members })
    }

    /// A member of this name, if there is one that is a file or a link to one.
    pub(super) fn open(&self, name: &str) -> Option<Section> {
        let mut path = LayerPath::clean(name.as_bytes())?;
        for _ in 0..LINKS_MAX {
            match self.members.get(&path)? {
                Entry::Link(target) => path = target.clone(),
                Entry::File { offset, length } => {
                    return Some(Section { file: Arc::clone(&self.file), offset: *offset, left: *length });
                }
            }
        }
        None
    }

    /// The whole of a small member.
    pub(super) fn read(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>, LoadError> {
        let Some(mut section) = self.open(name) else { return Ok(None) };
        if section.len() > limits.document_bytes {
            return Err(LoadError::DocumentTooLarge(name.to_owned(), limits.document_bytes));
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(LoadError::Spool)?;
        Ok(Some(bytes))
    }
}

fn spool_error(error: io::Error) -> LoadError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LoadError::NoSpace,
        _ => LoadError::Spool(error),
    }
}

struct Reading<'a, R> {
    archive: Archive<Copying<'a, R>>,
    members: HashMap<LayerPath, Entry>,
}

impl<R: Read> Reading<'_, R> {
    fn read(&mut self, limits: &Limits) -> Result<(), LoadError> {
        let mut entries = 0;
        while let Some(member) = self.archive.next_member()? {
            entries += 1;
            if entries > limits.layer_entries {
                return Err(LoadError::TooManyMembers(limits.layer_entries));
            }
            let Some(path) = LayerPath::clean(&member.path) else {
                return Err(LoadError::Outside(String::from_utf8_lossy(&member.path).into_owned()));
            };
            if let Some(entry) = self.entry(&path, &member)? {
                self.members.insert(path, entry);
            }
        }
        Ok(())
    }

    fn entry(&self, path: &LayerPath, member: &Member) -> Result<Option<Entry>, LoadError> {
        let target = match member.kind {
            Kind::File if member.sparse.is_some() => return Err(LoadError::Sparse(path.to_string())),
            Kind::File => {
                let entry = Entry::File { offset: self.archive.position(), length: member.stored };
                return Ok(Some(entry));
            }
            Kind::HardLink => member.target.clone(),
            // Relative to the link's directory.
            Kind::Symlink => {
                let parent = path.split().map_or(LayerPath::ROOT, |(parent, _)| parent);
                [parent.as_bytes(), &member.target].join(&b'/')
            }
            Kind::Directory | Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => return Ok(None),
        };
        // A link that leads out leads nowhere.
        Ok(LayerPath::clean(&target).map(Entry::Link))
    }

    fn into_parts(self) -> (HashMap<LayerPath, Entry>, Option<io::Error>) {
        (self.members, self.archive.into_source().failed)
    }
}

/// Writes down what is read through it.
struct Copying<'a, R> {
    source: &'a mut R,
    file: &'a File,
    space: Space,
    /// Why writing failed, told apart from a failure to read.
    failed: Option<io::Error>,
}

impl<R> Copying<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.space.take(bytes.len() as u64)? {
            true => self.file.write_all(bytes),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if let Err(error) = self.write(&buffer[..read]) {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        Ok(read)
    }
}

impl Section {
    /// The bytes that are left.
    pub(super) fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
