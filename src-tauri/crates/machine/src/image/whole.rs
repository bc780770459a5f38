//! Whether an image's files are what its manifest says: their lengths at each look, their digests once.
//!
//! The digests that were found right are kept with each file's length and time. Another length or time, another digest in
//! the manifest or another directory is another image, and is looked at again.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use caisson_os::replace_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Facts, ImageError};

/// The files of one image.
#[derive(Default)]
pub(super) struct Check(Vec<Identity>);

/// Tells one version of a file from another without reading it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    /// In bytes.
    size: u64,
    /// When it was changed, in nanoseconds since 1970.
    changed: u128,
    sha256: String,
}

impl Check {
    /// Takes a file in, if it has the right length, and gives its path back.
    pub(super) fn file(&mut self, path: PathBuf, facts: Facts) -> Result<PathBuf, ImageError> {
        let found =
            fs::metadata(&path).map_err(|source| ImageError::Incomplete { path: path.clone(), source })?;
        if found.len() != facts.size {
            return Err(ImageError::Length { path, found: found.len(), expected: facts.size });
        }
        // A file system without times gives none; then its length has to do.
        let changed = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let changed = changed.unwrap_or_default().as_nanos();
        self.0.push(Identity { path: path.clone(), size: facts.size, changed, sha256: facts.sha256 });
        Ok(path)
    }

    /// Compares the digests, unless `record` says that these very files had them. Blocks for as long as reading them takes.
    pub(super) fn digests(&self, record: &Path) -> Result<(), ImageError> {
        let known =
            fs::read(record).ok().and_then(|text| serde_json::from_slice::<Vec<Identity>>(&text).ok());
        if known.is_some_and(|known| known == self.0) {
            return Ok(());
        }
        for file in &self.0 {
            let found = sha256(&file.path)
                .map_err(|source| ImageError::Incomplete { path: file.path.clone(), source })?;
            if !found.eq_ignore_ascii_case(&file.sha256) {
                return Err(ImageError::Digest { path: file.path.clone() });
            }
        }
        let text = serde_json::to_vec(&self.0).map_err(io::Error::from);
        if let Err(error) = text.and_then(|text| replace_file(record, &text)) {
            tracing::warn!(file = %record.display(), %error, "the image will be read whole at the next start, too");
        }
        Ok(())
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The digest of "kernel".
    const SHA256: &str = "6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c";

    fn check(path: &Path, sha256: &str) -> Check {
        let mut check = Check::default();
        check.file(path.to_owned(), Facts { size: 6, sha256: sha256.into() }).unwrap();
        check
    }

    #[test]
    fn another_content_of_the_same_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, record) = (dir.path().join("kernel"), dir.path().join("record"));
        fs::write(&path, "kernel").unwrap();
        check(&path, SHA256).digests(&record).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "kernal").unwrap();
        // A file system's clock may tick too slowly to tell the two apart.
        File::options().write(true).open(&path).unwrap().set_modified(time + Duration::from_secs(1)).unwrap();
        let refused = check(&path, SHA256).digests(&record).unwrap_err();
        assert!(matches!(refused, ImageError::Digest { path } if path.ends_with("kernel")));
    }

    #[test]
    fn what_was_found_right_is_not_read_again_until_anything_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, record) = (dir.path().join("kernel"), dir.path().join("new/record"));
        fs::write(&path, "kernel").unwrap();
        check(&path, SHA256).digests(&record).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "kernal").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        check(&path, SHA256).digests(&record).unwrap();
        assert!(check(&path, &SHA256.replace('a', "b")).digests(&record).is_err(), "another manifest");
        fs::write(&record, "no json").unwrap();
        assert!(check(&path, SHA256).digests(&record).is_err(), "no record");
    }

    #[test]
    fn a_record_that_cannot_be_written_is_no_reason_to_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        fs::write(&path, "kernel").unwrap();
        check(&path, SHA256).digests(&path.join("not-a-directory/record")).unwrap();
    }
}
