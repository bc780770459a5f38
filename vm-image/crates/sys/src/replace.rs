//! Files that are replaced whole, so that a reader finds the old or the new and never half of one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// What a file must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// A crash of who writes it. A power failure may take it or bring the old one back.
    Crash,
    /// A power failure, too: it is written through to the disk, and so is its name.
    PowerFailure,
}

/// Replaces the file at `path`. What is written lies beside it meanwhile, with `.new` at the end of its name; a crash leaves that, and
/// the next call overwrites it. Nobody else may replace the same file at the same time.
pub fn replace(path: &Path, content: &[u8], survives: Survives) -> io::Result<()> {
    let mut beside = OsString::from(path);
    beside.push(".new");
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    if survives == Survives::Crash {
        return fs::rename(beside, path);
    }
    file.sync_all()?;
    fs::rename(beside, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_content_stays_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(dir.path().join("state.json.new"), "what a crash has left, and longer").unwrap();
        for survives in [Survives::Crash, Survives::PowerFailure] {
            replace(&path, format!("{survives:?}").as_bytes(), survives).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{survives:?}"));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }
}
