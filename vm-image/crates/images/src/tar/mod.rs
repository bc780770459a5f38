//! Reads tar archives as strangers write them.
//!
//! Why not the `tar` crate (which the tests use to write archives): it takes extension headers into memory whatever
//! their size, lets a truncated one pass, knows GNU's first sparse format only, and reads the data of links, where
//! Go's `archive/tar`, which defines what an image is, knows none. Two readers that see different things in the same
//! bytes are how a layer is smuggled past a scanner; so this one follows Go's.
//!
//! Understood: V7, ustar, GNU (long names, base-256 numbers, sparse) and PAX (all of its fields, extended attributes,
//! GNU's sparse formats 0.0, 0.1 and 1.0). Global PAX headers are skipped, as Docker does.

mod header;
mod pax;
mod sparse;
mod write;

use std::io::{self, Read};

use header::{BLOCK, Block};
pub(crate) use sparse::Chunk;
pub(crate) use write::Writer;

/// The longest name that any system call takes (`PATH_MAX`); a longer one could only cost memory.
const NAME_MAX: usize = 4096;

/// The largest extension header: names, attributes, sparse maps (the same as Go's).
const EXTENSION_MAX: u64 = 1 << 20;

/// What an archive says of one file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    /// Where a link leads.
    pub(crate) target: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bytes of it in the archive.
    pub(crate) stored: u64,
    /// Where these bytes belong, and how long the file is, if it has holes.
    pub(crate) sparse: Option<Sparse>,
}

/// What a member is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    File,
    HardLink,
    Symlink,
    CharDevice(Device),
    BlockDevice(Device),
    Directory,
    Fifo,
}

/// A device's number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// A time since 1970; never before, as Docker has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// A file with holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) size: u64,
}

/// Why an archive cannot be read. The texts are those of Go's `archive/tar` where it has one.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Something is not as a tar has it.
    #[error("invalid tar header")]
    Header,
    /// It ends in the middle.
    #[error("unexpected EOF")]
    Truncated,
    /// A name, an attribute list or a sparse map is larger than anybody needs.
    #[error("tar extension header of {0} bytes is too large")]
    ExtensionTooLarge(u64),
    /// A sparse map contradicts itself.
    #[error("invalid tar sparse map")]
    Sparse,
    /// A kind of member that no file system has.
    #[error("unhandled tar header type {0:?}")]
    Kind(char),
    /// The stream failed, for example in its decompressor.
    #[error("tar stream could not be read")]
    Read(#[source] io::Error),
}

impl TarError {
    /// What a failed read of `read_exact`'s kind means for an archive.
    pub(crate) fn from_read(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}

/// How much is skipped at once: whoever reads what is skipped all the same, as a spool does, gets it in large pieces.
const PIECE: usize = 128 * 1024;

/// An archive that is being read, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    source: R,
    /// Bytes taken from the source.
    position: u64,
    /// Bytes of the present member's data not yet taken.
    remaining: u64,
    /// Bytes that fill up the data's last block.
    padding: u64,
}

/// What extension headers said of the member after them.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    pax: pax::Records,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, position: 0, remaining: 0, padding: 0 }
    }

    pub(crate) fn into_source(self) -> R {
        self.source
    }

    /// Where in the stream the next byte of data is.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next member, whose data [`read_data`](Self::read_data) then gives; what is left of the last one is skipped.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(block) = self.next_block()? else { return Ok(None) };
            match block.kind() {
                b'x' => extensions.pax = pax::Records::parse(&self.extension(&block)?)?,
                b'g' => drop(self.extension(&block)?),
                b'L' => extensions.path = Some(header::until_nul(&self.extension(&block)?).to_vec()),
                b'K' => extensions.target = Some(header::until_nul(&self.extension(&block)?).to_vec()),
                _ => return self.member(&block, extensions).map(Some),
            }
        }
    }

    /// Takes some of the present member's data.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.source.read(&mut buffer[..most]) {
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => {
                    self.remaining -= read as u64;
                    self.position += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::from_read(error)),
            }
        }
    }

    /// Takes all of the present member's data, which must be small.
    fn read_small(&mut self) -> Result<Vec<u8>, TarError> {
        if self.remaining > EXTENSION_MAX {
            return Err(TarError::ExtensionTooLarge(self.remaining));
        }
        let mut bytes = vec![0; self.remaining as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_data(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    /// Goes to the end of the present member.
    fn skip(&mut self) -> Result<(), TarError> {
        self.remaining += std::mem::take(&mut self.padding);
        let most = usize::try_from(self.remaining).unwrap_or(PIECE).min(PIECE);
        let mut buffer = vec![0; most];
        while self.remaining > 0 {
            self.read_data(&mut buffer)?;
        }
        Ok(())
    }

    /// The next block that is a header; nothing at the end, which is two empty blocks or the end of the stream.
    fn next_block(&mut self) -> Result<Option<Block>, TarError> {
        let Some(first) = self.read_block()? else { return Ok(None) };
        if !first.is_empty() {
            return first.checked().map(Some);
        }
        match self.read_block()? {
            Some(second) if !second.is_empty() => Err(TarError::Header),
            _ => Ok(None),
        }
    }

    fn read_block(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::from_read(error)),
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(Block(block)))
    }

    fn begin_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn extension(&mut self, block: &Block) -> Result<Vec<u8>, TarError> {
        self.begin_data(block.size()?);
        self.read_small()
    }

    fn member(&mut self, block: &Block, extensions: Extensions) -> Result<Member, TarError> {
        let mut member = block.member()?;
        member.path = extensions.path.unwrap_or(member.path);
        member.target = extensions.target.unwrap_or(member.target);
        extensions.pax.apply(&mut member)?;
        settle_kind(block, &mut member)?;
        if member.stored > i64::MAX as u64 {
            return Err(TarError::Header);
        }
        self.begin_data(member.stored);
        self.settle_sparse(block, &extensions.pax, &mut member)?;
        Ok(member)
    }

    fn settle_sparse(
        &mut self,
        block: &Block,
        pax: &pax::Records,
        member: &mut Member,
    ) -> Result<(), TarError> {
        if block.kind() == b'S' {
            member.sparse = Some(self.gnu_sparse(block)?);
        } else if member.kind == Kind::File && pax.is_sparse() {
            member.sparse = Some(match pax.sparse_map_is_in_data() {
                true => {
                    let map = self.sparse_map_in_data()?;
                    Sparse { chunks: map, size: pax.sparse_size()? }
                }
                false => Sparse { chunks: pax.sparse_map()?, size: pax.sparse_size()? },
            });
        }
        match &member.sparse {
            Some(sparse) => sparse.check(self.remaining),
            None => Ok(()),
        }
    }

    /// The map of GNU's own format: four chunks in the header, more in blocks after it.
    fn gnu_sparse(&mut self, block: &Block) -> Result<Sparse, TarError> {
        let mut chunks = Vec::new();
        let mut more = block.sparse_chunks(&mut chunks)?;
        while more {
            let next = self.read_block()?.ok_or(TarError::Truncated)?;
            more = next.more_sparse_chunks(&mut chunks)?;
            if chunks.len() as u64 > EXTENSION_MAX {
                return Err(TarError::ExtensionTooLarge(EXTENSION_MAX));
            }
        }
        Ok(Sparse { chunks, size: block.real_size()? })
    }

    /// The map of PAX format 1.0: decimal lines before the data, filled up to a block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<Chunk>, TarError> {
        let mut map = sparse::MapReader::default();
        let mut taken = 0;
        while !map.is_complete() {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(TarError::Sparse),
                    read => filled += read,
                }
            }
            taken += BLOCK as u64;
            if taken > EXTENSION_MAX {
                return Err(TarError::ExtensionTooLarge(taken));
            }
            map.feed(&block)?;
        }
        map.into_chunks()
    }
}

/// Links, directories and devices have no data, whatever their size field says; a very old archive marks a directory
/// by a slash at the end of its name.
fn settle_kind(block: &Block, member: &mut Member) -> Result<(), TarError> {
    if block.kind() == 0 && member.path.ends_with(b"/") {
        member.kind = Kind::Directory;
    }
    if member.kind != Kind::File {
        member.stored = 0;
    }
    let longest = member.path.len().max(member.target.len());
    if longest > NAME_MAX {
        return Err(TarError::ExtensionTooLarge(longest as u64));
    }
    match member.path.is_empty() || member.path.contains(&0) || member.target.contains(&0) {
        true => Err(TarError::Header),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
