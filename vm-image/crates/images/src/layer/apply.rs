//! Unpacks a layer's tar into a directory, in the form that overlayfs wants its lower directories to have.
//!
//! A tar says that something of a lower layer is gone by an empty file `.wh.<name>`, and that a directory hides all
//! below by `.wh..wh..opq` in it (OCI image specification, "Layer Filesystem Changeset"). Overlayfs says the same by a
//! character device 0:0 and by the attribute `trusted.overlay.opaque`. Only this module makes these: attributes of
//! that family in an archive are dropped. A directory that replaces a deleted one hides what was below.
//!
//! The entry of the root itself is passed over, as dockerd does: a root made by `mktemp -d` and packed with its mode
//! 0700 would lock every user but root out of the image.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::path::LayerPath;
use super::space::Space;
use super::tree::{self, Found, OVERLAY_OPAQUE, Place, Tree};
use super::{LayerError, decompressed};
use crate::files::UnpackOptions;
use crate::store::Limits;
use crate::tar::{Archive, Chunk, Device, Kind, Member, TarError, Time};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names by which aufs kept its own books in old layers.
const AUFS: &[u8] = b".wh..wh.";
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

const BUFFER: usize = 256 * 1024;
/// Runs of zeros from this length on become holes.
const HOLE_MIN: usize = 4096;

/// What an archive's members mean.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner<'a> {
    /// Changes to the layers below.
    Layer,
    /// Files, to be put beside and over those that are there.
    Copy(&'a UnpackOptions),
}

/// Unpacks an archive of files, compressed or not, at a path of the tree `root`.
pub(crate) fn copy(
    source: impl Read + Send,
    root: OwnedFd,
    at: &Path,
    manner: Manner<'_>,
) -> Result<(), LayerError> {
    let source = decompressed(source).map_err(|error| LayerError::Tar(TarError::from_read(error)))?;
    let space = root.try_clone().and_then(|root| Space::below(root, 0));
    let mut applier = Applier {
        archive: Archive::new(source),
        tree: Tree::below(root),
        base: clean(at.as_os_str().as_bytes())?,
        space: space.map_err(|error| LayerError::file("open", &LayerPath::ROOT, error))?,
        times: HashMap::new(),
        buffer: vec![0; BUFFER],
        size: 0,
        manner,
    };
    while let Some(member) = applier.archive.next_member()? {
        applier.member(&member)?;
    }
    applier.set_directory_times();
    Ok(())
}

/// Unpacks `source` into the empty directory `root`; returns the bytes in its files.
pub(crate) fn apply(source: impl Read, root: &Path, limits: &Limits) -> Result<u64, LayerError> {
    let mut applier = Applier {
        archive: Archive::new(source),
        tree: Tree::open(root).map_err(|error| LayerError::file("open", &LayerPath::ROOT, error))?,
        space: Space::of(root, limits.keep_free)
            .map_err(|error| LayerError::file("open", &LayerPath::ROOT, error))?,
        base: LayerPath::ROOT,
        times: HashMap::new(),
        buffer: vec![0; BUFFER],
        size: 0,
        manner: Manner::Layer,
    };
    let mut entries = 0;
    while let Some(member) = applier.archive.next_member()? {
        entries += 1;
        if entries > limits.layer_entries {
            return Err(LayerError::TooManyEntries(limits.layer_entries));
        }
        applier.member(&member)?;
    }
    applier.set_directory_times();
    Ok(applier.size)
}

struct Applier<'a, R> {
    archive: Archive<R>,
    tree: Tree,
    /// Where in the tree the archive's own root is.
    base: LayerPath,
    manner: Manner<'a>,
    space: Space,
    /// The times of directories, to be set when nothing changes them any more.
    times: HashMap<LayerPath, Time>,
    buffer: Vec<u8>,
    size: u64,
}

impl<R: Read> Applier<'_, R> {
    fn member(&mut self, member: &Member) -> Result<(), LayerError> {
        let path = clean(&member.path)?;
        let Some((parent, name)) = path.split() else { return Ok(()) };
        self.take_space(512)?;
        if let Manner::Copy(options) = self.manner {
            return self.copied(&self.base.join_all(&path), member, options);
        }
        match name.strip_prefix(WHITEOUT) {
            None => self.file(&path, member),
            Some(_) if name == OPAQUE => self.opaque(&parent),
            Some(_) if name.starts_with(AUFS) => Ok(()),
            Some(b"" | b"." | b"..") => Err(LayerError::BadWhiteout(path.to_string())),
            Some(hidden) => self.whiteout(&parent.join(hidden)),
        }
    }

    fn copied(
        &mut self,
        path: &LayerPath,
        member: &Member,
        options: &UnpackOptions,
    ) -> Result<(), LayerError> {
        if options.keep_kinds {
            let found =
                self.place(path)?.found().map_err(|error| LayerError::file("look at", path, error))?;
            let (is, becomes) = (found == Found::Directory, member.kind == Kind::Directory);
            if found != Found::Nothing && is != becomes {
                let name = |is: bool| if is { "directory" } else { "non-directory" };
                return Err(LayerError::Overwrite {
                    there: name(is),
                    new: name(becomes),
                    path: String::from_utf8_lossy(&member.path).into_owned(),
                    target: format!("/{path}"),
                });
            }
        }
        let inside = options.owner.or_else(|| owner(member));
        let outside = inside.and_then(|(uid, gid)| options.ids.outside(uid, gid));
        let (uid, gid) = outside.ok_or_else(|| LayerError::BadOwner(path.to_string()))?;
        self.file(path, &Member { uid: uid.into(), gid: gid.into(), ..member.clone() })
    }

    /// Copies tell attributes of files and directories only: of others they cannot be set by a descriptor, and a
    /// container's `/proc`, which would be the other way, is not to be trusted.
    fn attributes_of_all(&self) -> bool {
        matches!(self.manner, Manner::Layer)
    }

    fn take_space(&mut self, bytes: u64) -> Result<(), LayerError> {
        match self.space.take(bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(LayerError::NoSpace),
            Err(error) => Err(LayerError::file("look at", &LayerPath::ROOT, error)),
        }
    }

    fn opaque(&mut self, path: &LayerPath) -> Result<(), LayerError> {
        self.tree
            .directory(path)
            .and_then(|directory| tree::set_xattr(&directory, OVERLAY_OPAQUE, b"y"))
            .map_err(|error| LayerError::file("make opaque", path, error))
    }

    /// Hides what lower layers have there. What this layer itself has there stays, whichever came first.
    fn whiteout(&mut self, path: &LayerPath) -> Result<(), LayerError> {
        let place = self.place(path)?;
        let hide = || match place.found()? {
            Found::Nothing => place.make_node(FileType::CharacterDevice, Device::default()),
            Found::Directory => tree::set_xattr(place.open_directory()?, OVERLAY_OPAQUE, b"y"),
            Found::Whiteout | Found::Other => Ok(()),
        };
        hide().map_err(|error| LayerError::file("hide", path, error))
    }

    fn place(&mut self, path: &LayerPath) -> Result<Place, LayerError> {
        let place = self.tree.place(path).map_err(|error| LayerError::file("reach", path, error))?;
        place.ok_or_else(|| LayerError::Outside(path.to_string()))
    }

    fn file(&mut self, path: &LayerPath, member: &Member) -> Result<(), LayerError> {
        let owner = owner(member).ok_or_else(|| LayerError::BadOwner(path.to_string()))?;
        let place = self.place(path)?;
        let at = |error| LayerError::file("unpack", path, error);
        match member.kind {
            Kind::Directory => self.directory(path, &place, member, owner).map_err(at),
            Kind::File => {
                let file = self.make(&place, Place::make_file).map_err(at)?;
                self.content(path, &File::from(file), member, owner)
            }
            Kind::HardLink => self.hard_link(path, &place, member),
            Kind::Symlink => {
                self.size = self.size.saturating_add(member.target.len() as u64);
                self.make(&place, |place| place.make_symlink(&member.target)).map_err(at)?;
                finish(&place, member, owner, (false, self.attributes_of_all())).map_err(at)
            }
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => {
                let (kind, device) = node(member.kind);
                self.make(&place, |place| place.make_node(kind, device)).map_err(at)?;
                finish(&place, member, owner, (true, self.attributes_of_all())).map_err(at)
            }
        }
    }

    /// Makes what is not there yet; what is there already gives way.
    fn make<T>(&mut self, place: &Place, make: impl Fn(&Place) -> io::Result<T>) -> io::Result<T> {
        match make(place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.tree.forget_last();
                place.remove()?;
                make(place)
            }
            made => made,
        }
    }

    /// Makes a directory, or gives the one that is there the new owner, mode and attributes.
    fn directory(
        &mut self,
        path: &LayerPath,
        place: &Place,
        member: &Member,
        owner: (u32, u32),
    ) -> io::Result<()> {
        let found = place.found()?;
        if !matches!(found, Found::Nothing | Found::Directory) {
            self.tree.forget_last();
            place.remove()?;
        }
        if found != Found::Directory {
            place.make_directory()?;
        }
        let directory = place.open_directory()?;
        if found == Found::Whiteout {
            tree::set_xattr(&directory, OVERLAY_OPAQUE, b"y")?;
        }
        finish_open(&directory, member, owner)?;
        self.times.insert(path.clone(), member.mtime);
        Ok(())
    }

    fn hard_link(&mut self, path: &LayerPath, place: &Place, member: &Member) -> Result<(), LayerError> {
        let target = self.base.join_all(&clean(&member.target)?);
        let mut link = || {
            let target = self.tree.existing_place(&target)?.ok_or(Errno::ISDIR)?;
            if target.found()? == Found::Directory {
                return Err(Errno::ISDIR.into());
            }
            self.make(place, |place| place.make_hard_link(&target))
        };
        link().map_err(|error| LayerError::file("link", path, error))
    }

    fn content(
        &mut self,
        path: &LayerPath,
        file: &File,
        member: &Member,
        owner: (u32, u32),
    ) -> Result<(), LayerError> {
        let whole = [Chunk { offset: 0, length: member.stored }];
        let (chunks, size) = match &member.sparse {
            Some(sparse) => (sparse.chunks.as_slice(), sparse.size),
            None => (whole.as_slice(), member.stored),
        };
        let mut end = 0;
        for chunk in chunks {
            end = self.chunk(path, file, *chunk)?.max(end);
        }
        let finish = || {
            if end < size {
                file.set_len(size)?;
            }
            finish_open(file, member, owner)?;
            tree::set_times(file, member.mtime)
        };
        self.size = self.size.saturating_add(size);
        finish().map_err(|error| LayerError::file("unpack", path, error))
    }

    /// Copies a chunk to its place, leaving holes for zeros; returns where the last byte written ended.
    fn chunk(&mut self, path: &LayerPath, file: &File, chunk: Chunk) -> Result<u64, LayerError> {
        let mut end = 0;
        let mut done = 0;
        while done < chunk.length {
            let most = usize::try_from(chunk.length - done).unwrap_or(BUFFER).min(BUFFER);
            let filled = self.fill(most)?;
            let bytes = &self.buffer[..filled];
            let is_hole = filled >= HOLE_MIN && bytes.iter().all(|byte| *byte == 0);
            if !is_hole {
                let offset = chunk.offset + done;
                file.write_all_at(bytes, offset).map_err(|error| LayerError::file("write", path, error))?;
                end = offset + filled as u64;
                self.take_space(filled as u64)?;
            }
            done += filled as u64;
        }
        Ok(end)
    }

    /// Takes as much of the present member as is wanted, so that what is written comes in large pieces.
    fn fill(&mut self, wanted: usize) -> Result<usize, LayerError> {
        let mut filled = 0;
        while filled < wanted {
            match self.archive.read_data(&mut self.buffer[filled..wanted])? {
                0 => return Err(LayerError::Tar(crate::tar::TarError::Truncated)),
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// Unpacking changed the times of directories. One that is no longer there needs none.
    fn set_directory_times(&mut self) {
        for (path, mtime) in &self.times {
            let set = self.tree.resolve(path, rustix::fs::OFlags::NOFOLLOW);
            if let Err(error) = set.and_then(|directory| tree::set_times(directory, *mtime)) {
                tracing::debug!(%path, %error, "the time of a directory was not set");
            }
        }
    }
}

fn clean(name: &[u8]) -> Result<LayerPath, LayerError> {
    LayerPath::clean(name).ok_or_else(|| LayerError::Outside(String::from_utf8_lossy(name).into_owned()))
}

/// The last number means "unchanged" to the kernel.
fn owner(member: &Member) -> Option<(u32, u32)> {
    let id = |number| u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    Some((id(member.uid)?, id(member.gid)?))
}

fn node(kind: Kind) -> (FileType, Device) {
    match kind {
        Kind::CharDevice(device) => (FileType::CharacterDevice, device),
        Kind::BlockDevice(device) => (FileType::BlockDevice, device),
        Kind::File | Kind::HardLink | Kind::Symlink | Kind::Directory | Kind::Fifo => {
            (FileType::Fifo, Device::default())
        }
    }
}

/// Owner before mode and attributes: a change of owner takes the set-user-id bit and capabilities away.
fn finish(
    place: &Place,
    member: &Member,
    (uid, gid): (u32, u32),
    (has_mode, has_attributes): (bool, bool),
) -> io::Result<()> {
    place.set_owner(uid, gid)?;
    if has_mode {
        place.set_mode(member.mode)?;
    }
    for (name, value) in attributes(member).filter(|_| has_attributes) {
        tolerate(name, place.set_xattr(name, value))?;
    }
    place.set_times(member.mtime)
}

fn finish_open(file: &impl std::os::fd::AsFd, member: &Member, (uid, gid): (u32, u32)) -> io::Result<()> {
    tree::set_owner(file, uid, gid)?;
    tree::set_mode(file, member.mode)?;
    for (name, value) in attributes(member) {
        tolerate(name, tree::set_xattr(file, name, value))?;
    }
    Ok(())
}

fn attributes(member: &Member) -> impl Iterator<Item = (&[u8], &[u8])> {
    let attributes = member.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    attributes.filter(|(name, _)| !name.starts_with(OVERLAY_XATTRS))
}

/// A file system need not know every kind of attribute, nor every kind of file have them: dockerd passes over these.
fn tolerate(name: &[u8], set: io::Result<()>) -> io::Result<()> {
    match set {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTSUP | Errno::PERM)) => {
            tracing::debug!(attribute = %String::from_utf8_lossy(name), %error, "attribute not set");
            Ok(())
        }
        set => set,
    }
}
