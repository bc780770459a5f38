//! Packs files of a directory as a tar archive.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Ids;
use crate::layer::tree::OVERLAY_OPAQUE;
use crate::tar::{Device, Kind, Member, Time, Writer};

const BUFFER: usize = 128 * 1024;
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

/// What the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    /// Files as they are.
    Files,
    /// The upper directory of an overlay, to become a layer: what hides something below is told as the OCI image
    /// specification has it ("Layer Filesystem Changeset").
    Layer,
}

/// Packs what is at a name of a directory, with all that is in it, each directory's names in their order. In the archive
/// its own name is `called`, which may be empty, and owners are those in the container whose `ids` these are. Sockets are left out, as they
/// are nothing without their program.
///
/// Files may change meanwhile: one that shrinks is filled up with zeros, and what goes away is left out.
///
/// # Errors
/// What the disk says, or whoever reads the archive.
pub fn pack(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    called: &[u8],
    what: Packed,
    ids: &Ids,
    to: impl Write,
) -> io::Result<()> {
    let mut packer =
        Packer { writer: Writer::new(to), links: HashMap::new(), what, ids, buffer: vec![0; BUFFER] };
    let mut levels: Vec<Level> = packer.entry(parent, name, called.to_vec())?.into_iter().collect();
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        let path = [&level.path[..], name.as_bytes()].concat();
        match packer.entry(level.directory.as_fd(), &name, path) {
            Ok(inner) => levels.extend(inner),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    packer.writer.finish()
}

/// A directory whose names are being packed.
struct Level {
    directory: OwnedFd,
    names: std::vec::IntoIter<OsString>,
    /// What is put before them.
    path: Vec<u8>,
}

struct Packer<'a, W> {
    writer: Writer<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    what: Packed,
    ids: &'a Ids,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    /// Packs one thing; a directory is returned, for what is in it.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: Vec<u8>) -> io::Result<Option<Level>> {
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.what == Packed::Layer {
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                return self.whiteout(&path, name).map(|()| None);
            }
            if name.as_bytes().starts_with(b".wh.") {
                // It could not be told from something hidden.
                tracing::warn!(path = %String::from_utf8_lossy(&path), "a file with the name of a whiteout is left out");
                return Ok(None);
            }
        }
        let mut member = self.member(&stat, path);
        match kind {
            FileType::Directory => return self.directory(parent, name, member).map(Some),
            FileType::Socket => return Ok(None),
            FileType::Symlink => {
                member.kind = Kind::Symlink;
                member.target = fs::readlinkat(parent, name, Vec::new())?.into_bytes();
            }
            FileType::Fifo => member.kind = Kind::Fifo,
            FileType::CharacterDevice => member.kind = Kind::CharDevice(device(&stat)),
            FileType::BlockDevice => member.kind = Kind::BlockDevice(device(&stat)),
            FileType::RegularFile | FileType::Unknown => {}
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                member.kind = Kind::HardLink;
                member.target.clone_from(first);
                return self.writer.member(&member).map(|()| None);
            }
            self.links.insert(key, member.path.clone());
        }
        match member.kind {
            Kind::File => self.file(parent, name, &stat, member)?,
            _ => self.writer.member(&member)?,
        }
        Ok(None)
    }

    fn member(&self, stat: &Stat, path: Vec<u8>) -> Member {
        let (uid, gid) = self.ids.inside(stat.st_uid, stat.st_gid);
        Member {
            path,
            mode: stat.st_mode & 0o7777,
            uid: uid.into(),
            gid: gid.into(),
            mtime: Time { seconds: stat.st_mtime.max(0), nanoseconds: 0 },
            ..Member::default()
        }
    }

    fn whiteout(&mut self, path: &[u8], name: &OsStr) -> io::Result<()> {
        let directory = &path[..path.len() - name.len()];
        self.writer.member(&Member {
            path: [directory, b".wh.", name.as_bytes()].concat(),
            mode: 0o600,
            ..Member::default()
        })
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &OsStr, mut member: Member) -> io::Result<Level> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(parent, name, flags, Mode::empty())?;
        if !member.path.is_empty() && !member.path.ends_with(b"/") {
            member.path.push(b'/');
        }
        let path = member.path.clone();
        member.kind = Kind::Directory;
        let (xattrs, is_opaque) = xattrs(directory.as_fd())?;
        member.xattrs = xattrs;
        // What has no name in the archive is not in it, only what is in it.
        if !member.path.is_empty() {
            self.writer.member(&member)?;
        }
        if is_opaque && self.what == Packed::Layer {
            let path = [&path[..], b".wh..wh..opq"].concat();
            self.writer.member(&Member { path, mode: 0o600, ..Member::default() })?;
        }
        let mut names = names(&directory)?;
        names.sort();
        Ok(Level { directory, names: names.into_iter(), path })
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        mut member: Member,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::empty())?;
        let opened = fs::fstat(&file)?;
        if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
            // Something else has its name now, perhaps something that it is better not to read.
            return Err(Errno::NOENT.into());
        }
        member.xattrs = xattrs(file.as_fd())?.0;
        member.stored = u64::try_from(opened.st_size).unwrap_or(0);
        self.writer.member(&member)?;
        let mut file = File::from(file).take(member.stored);
        loop {
            match file.read(&mut self.buffer)? {
                0 => return Ok(()),
                read => self.writer.data(&self.buffer[..read])?,
            }
        }
    }
}

fn device(stat: &Stat) -> Device {
    Device { major: fs::major(stat.st_rdev), minor: fs::minor(stat.st_rdev) }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The attributes that belong to a file wherever it is, and whether overlayfs has marked it as hiding all below.
fn xattrs(file: BorrowedFd<'_>) -> io::Result<(Xattrs, bool)> {
    let mut list = vec![0; 64 * 1024];
    let length = match fs::flistxattr(file, &mut list) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    let mut is_opaque = false;
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let kept = name.starts_with(b"user.")
            || name == b"security.capability"
            || name.starts_with(b"system.posix_acl_");
        if !kept && !name.starts_with(OVERLAY_XATTRS) {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = match fs::fgetxattr(file, OsStr::from_bytes(name), &mut value) {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::NOTSUP) => continue,
            Err(error) => return Err(error.into()),
        };
        value.truncate(length);
        if kept {
            found.push((name.to_vec(), value));
        } else if name == OVERLAY_OPAQUE {
            is_opaque = value == b"y";
        }
    }
    found.sort();
    Ok((found, is_opaque))
}
