//! Compressing a rotated file, by a process of its own: this same program with [`COMMAND`]. So the shim goes on serving the container, and
//! its memory stays small.
//!
//! `log.1` becomes `log.1.gz` by a rename, then goes; whoever is killed between the two leaves both, of which readers take the `.gz`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use caisson_sys::spawn::{Detached, detached};
use flate2::{Compression, GzBuilder};
use rustix::process::{Pid, WaitOptions, waitpid};

/// The word before the path.
pub(crate) const COMMAND: &str = "--compress-log";

/// The process at work, if there is one.
#[derive(Debug, Default)]
pub(super) struct Compressor(Option<Pid>);

impl Compressor {
    /// Begins to compress a file. One that cannot be stays as it is, which readers take as well.
    pub(super) fn begin(&mut self, path: &Path) {
        match spawn(path) {
            Ok(pid) => self.0 = Some(pid),
            Err(error) => eprintln!("compress {}: {error}", path.display()),
        }
    }

    /// Returns when it has done its work.
    pub(super) fn finish(&mut self) {
        let Some(pid) = self.0.take() else { return };
        while let Err(rustix::io::Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
    }
}

fn spawn(path: &Path) -> io::Result<Pid> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let stderr = io::stderr();
    detached(&Detached {
        program: Path::new("/proc/self/exe"),
        arguments: &[OsStr::new(COMMAND), path.as_os_str()],
        descriptors: &[(null.as_fd(), 0), (null.as_fd(), 1), (stderr.as_fd(), 2)],
    })
}

/// Compresses a file that is written no more. Its number on the file system goes into the header, by which a reader that has it open
/// knows where it is in the order.
pub(crate) fn compress(path: &Path) -> io::Result<()> {
    let ended = |ending: &str| {
        let mut name = OsString::from(path);
        name.push(ending);
        name
    };
    let from = File::open(path)?;
    let inode = from.metadata()?.ino();
    let half = ended(".gz.tmp");
    let to = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&half)?;
    let mut encoder =
        GzBuilder::new().extra(format!("{{\"inode\":{inode}}}")).write(to, Compression::default());
    io::copy(&mut BufReader::with_capacity(64 << 10, from), &mut encoder)?;
    encoder.finish()?;
    fs::rename(half, ended(".gz"))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn a_file_becomes_its_gz() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log.1");
        fs::write(&path, [b'x'; 100_000]).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        compress(&path).unwrap();
        assert!(!path.exists());
        let mut decoder = GzDecoder::new(File::open(place.path().join("log.1.gz")).unwrap());
        let mut text = Vec::new();
        decoder.read_to_end(&mut text).unwrap();
        assert_eq!(text, [b'x'; 100_000]);
        let extra = decoder.header().and_then(|header| header.extra()).unwrap();
        assert_eq!(extra, format!("{{\"inode\":{inode}}}").as_bytes());
    }
}
