//! A log's files, in order, and reading through them while they are rotated.
//!
//! The shim renames: `log` becomes `log.1`, `log.1` becomes `log.2`, and one that is compressed becomes another file. So a file is known by
//! its inode number, which a compressed one tells in its header. A reader keeps its file open and loses nothing of it, whatever it
//! is called meanwhile; what is deleted before it was opened is gone. Names move only while the shim has the folder's lock, which a
//! listing shares: otherwise it could miss the file that is open, and tell all that is older a second time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use caisson_shim::LogFormat;
use flate2::read::GzDecoder;
use rustix::fs::{Mode, OFlags};

use super::format;

/// How much of a file is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// A log's files.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) newest: PathBuf,
    pub(super) format: LogFormat,
}

impl Files {
    /// Readers of all files, the oldest first; or, with `tail`, of those that have the last so many entries, each where these begin. None
    /// if there is no file. Blocks.
    pub(super) fn open(&self, tail: Option<usize>) -> io::Result<VecDeque<Reader>> {
        let mut readers = VecDeque::new();
        let mut wanted = tail;
        for found in self.find()?.into_iter().rev() {
            let mut reader = self.reader(found)?;
            if let Some(left) = wanted {
                let (start, entries) = format::start_of_last(self.format, &mut reader.file, left)?;
                reader.file.seek(SeekFrom::Start(start))?;
                wanted = Some(left - entries);
            }
            readers.push_front(reader);
            if wanted == Some(0) {
                break;
            }
        }
        Ok(readers)
    }

    /// Readers of the files that are newer than one that is open. Blocks.
    pub(super) fn newer_than(&self, inode: u64) -> io::Result<VecDeque<Reader>> {
        let mut found = self.find()?;
        // A number is used again when its file is gone; ours is open, so it is the last that may have it.
        if let Some(at) = found.iter().rposition(|one| one.inode == inode) {
            found.drain(..=at);
        }
        found.into_iter().map(|one| self.reader(one)).collect()
    }

    fn reader(&self, found: Found) -> io::Result<Reader> {
        let Found { file, inode, compressed } = found;
        let file = match self.newest.parent() {
            Some(directory) if compressed => unpacked(file, directory)?,
            _ => file,
        };
        Ok(Reader { file, inode, format: self.format, partial: Vec::new(), left: None, is_left: false })
    }

    /// The number of the newest file; `None` between two.
    pub(super) fn newest_inode(&self) -> io::Result<Option<u64>> {
        match std::fs::metadata(&self.newest) {
            Ok(metadata) => Ok(Some(metadata.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All files, opened at one moment, the oldest first.
    fn find(&self) -> io::Result<Vec<Found>> {
        let Some(_lock) = self.names_stay()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for number in self.numbers()?.into_iter().rev() {
            found.extend(Found::numbered(&self.newest, number)?);
        }
        found.extend(Found::plain(&self.newest)?);
        Ok(found)
    }

    /// Keeps the shim from rotating, for as long as the answer lives; `None` if there is no folder yet. A shim that rotates is waited for,
    /// and one that wants to waits: both take as long as some renames.
    fn names_stay(&self) -> io::Result<Option<File>> {
        let folder = match File::open(self.newest.parent().unwrap_or(Path::new("."))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        folder.lock_shared()?;
        Ok(Some(folder))
    }

    /// The numbers of the older files, the newest first.
    fn numbers(&self) -> io::Result<Vec<u32>> {
        let (Some(directory), Some(name)) = (self.newest.parent(), self.newest.file_name()) else {
            return Ok(Vec::new());
        };
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let number = |entry: std::fs::DirEntry| {
            let found = entry.file_name();
            let rest = found.to_str()?.strip_prefix(name.to_str()?)?.strip_prefix('.')?;
            rest.strip_suffix(".gz").unwrap_or(rest).parse().ok()
        };
        let mut numbers: Vec<u32> = entries.flatten().filter_map(number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }
}

/// An open file.
struct Found {
    file: File,
    /// Of the file that the shim wrote.
    inode: u64,
    compressed: bool,
}

impl Found {
    fn plain(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let inode = file.metadata()?.ino();
        Ok(Some(Self { file, inode, compressed: false }))
    }

    fn numbered(newest: &Path, number: u32) -> io::Result<Option<Self>> {
        let ended = |ending: &str| PathBuf::from(format!("{}.{number}{ending}", newest.display()));
        if let Some(found) = Self::compressed(&ended(".gz"))? {
            return Ok(Some(found));
        }
        if let Some(found) = Self::plain(&ended(""))? {
            return Ok(Some(found));
        }
        // Compressed between the two.
        Self::compressed(&ended(".gz"))
    }

    fn compressed(path: &Path) -> io::Result<Option<Self>> {
        let Some(mut found) = Self::plain(path)? else { return Ok(None) };
        found.compressed = true;
        found.inode = original_inode(&found.file)?.unwrap_or(0);
        found.file.rewind()?;
        Ok(Some(found))
    }
}

fn original_inode(file: &File) -> io::Result<Option<u64>> {
    #[derive(serde::Deserialize)]
    struct Extra {
        inode: u64,
    }
    let decoder = flate2::bufread::GzDecoder::new(BufReader::new(file));
    let extra = decoder.header().and_then(|header| header.extra());
    Ok(extra.and_then(|extra| serde_json::from_slice::<Extra>(extra).ok()).map(|extra| extra.inode))
}

/// Reads one file by whole entries.
pub(super) struct Reader {
    file: File,
    pub(super) inode: u64,
    format: LogFormat,
    /// Read and not given yet: the beginning of an entry whose end is not written.
    partial: Vec<u8>,
    /// How much more is read; `None` for whatever comes.
    left: Option<u64>,
    /// It is not the newest any more, and has been read to its end since.
    pub(super) is_left: bool,
}

impl Reader {
    /// Reads no more than what is there now.
    pub(super) fn end_here(&mut self) -> io::Result<()> {
        let at = self.file.stream_position()?;
        self.left = Some(self.file.metadata()?.len().saturating_sub(at));
        Ok(())
    }

    /// Whole entries, as many as one read brings; `None` at the end of what is there.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let room = self.left.map_or(CHUNK, |left| usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
            let read = self.file.by_ref().take(room as u64).read_to_end(&mut self.partial)?;
            if read == 0 {
                return Ok(None);
            }
            self.left = self.left.map(|left| left - read as u64);
            let end = format::whole(self.format, &self.partial);
            if end > 0 {
                let rest = self.partial.split_off(end);
                return Ok(Some(std::mem::replace(&mut self.partial, rest)));
            }
        }
    }
}

/// A compressed file's content, in a file that has no name and is gone when it is closed.
fn unpacked(file: File, directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let nowhere = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?;
    let mut plain = File::from(nowhere);
    // A file that was cut short by a full disk is told as far as it goes.
    if let Err(error) = io::copy(&mut GzDecoder::new(BufReader::new(file)), &mut plain) {
        tracing::warn!(%error, "a compressed log is not whole");
    }
    plain.rewind()?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn text(mut reader: Reader) -> String {
        let mut all = Vec::new();
        while let Some(entries) = reader.next().unwrap() {
            all.extend(entries);
        }
        String::from_utf8(all).unwrap()
    }

    fn log(place: &Path) -> Files {
        let newest = place.join("log");
        std::fs::write(place.join("log.3"), "a\nb\n").unwrap();
        let file = File::create(place.join("log.2.gz")).unwrap();
        let mut packed = GzBuilder::new().extra(r#"{"inode":77}"#).write(file, Compression::fast());
        packed.write_all(b"c\nd\n").unwrap();
        packed.finish().unwrap();
        std::fs::write(place.join("log.1"), "e\nf\n").unwrap();
        std::fs::write(&newest, "g\nh").unwrap();
        Files { newest, format: LogFormat::Json }
    }

    #[test]
    fn files_are_read_in_the_order_of_their_age() {
        let place = tempfile::tempdir().unwrap();
        let files = log(place.path());
        let read = |tail| files.open(tail).unwrap().into_iter().map(text).collect::<Vec<_>>().concat();
        assert_eq!(read(None), "a\nb\nc\nd\ne\nf\ng\n");
        assert_eq!(read(Some(4)), "e\nf\ng\n", "what is half written counts");
        assert_eq!(read(Some(5)), "d\ne\nf\ng\n");
        assert_eq!(read(Some(0)), "");
        let newer =
            |inode| files.newer_than(inode).unwrap().into_iter().map(text).collect::<Vec<_>>().concat();
        assert_eq!(newer(77), "e\nf\ng\n");
        let inode = std::fs::metadata(place.path().join("log.1")).unwrap().ino();
        assert_eq!(newer(inode), "g\n");
    }

    #[test]
    fn a_reader_may_end_where_the_file_does_now() {
        let place = tempfile::tempdir().unwrap();
        let files = log(place.path());
        let mut last = files.open(Some(1)).unwrap().pop_back().unwrap();
        last.end_here().unwrap();
        File::options().append(true).open(&files.newest).unwrap().write_all(b"\nlater\n").unwrap();
        assert_eq!(text(last), "");
    }

    /// Rotates as the shim does: each file has the number of its rotation.
    fn rotate(newest: &Path, kept: u32, number: u32) {
        let folder = File::open(newest.parent().unwrap()).unwrap();
        folder.lock().unwrap();
        let name = |number: u32| newest.with_extension(number.to_string());
        for older in (1..kept).rev().filter(|older| name(*older).exists()) {
            std::fs::rename(name(older), name(older + 1)).unwrap();
        }
        std::fs::rename(newest, name(1)).unwrap();
        std::fs::write(newest, format!("{number}\n")).unwrap();
    }

    #[test]
    fn a_listing_never_sees_half_a_rotation() {
        const ROTATIONS: u32 = 1000;
        let place = tempfile::tempdir().unwrap();
        let files = Files { newest: place.path().join("log"), format: LogFormat::Json };
        std::fs::write(&files.newest, "0\n").unwrap();
        let newest = files.newest.clone();
        let shim = std::thread::spawn(move || (1..=ROTATIONS).for_each(|n| rotate(&newest, 20, n)));
        let mut last = 0;
        while last < ROTATIONS {
            let text: String = files.open(None).unwrap().into_iter().map(text).collect();
            let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "{numbers:?}");
            last = *numbers.last().unwrap();
        }
        shim.join().unwrap();
    }
}
