//! Removes the files of a layer, many at once: a disk that is told of what is free again (`discard` of ext4(5)) takes its time
//! for each file, but not more of it for several.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many files are removed at once.
const AT_ONCE: usize = 8;

/// Removes what is below `root` and no directory. No link is followed. What cannot be removed stays, and so do the directories, for
/// whoever removes `root` itself.
pub(super) fn remove_files(root: &Path) {
    let (give, files) = sync_channel(2 * AT_ONCE);
    let files = Mutex::new(files);
    let next = || files.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let work = || {
        while let Ok(file) = next() {
            // It stays.
            let _ = fs::remove_file::<PathBuf>(file);
        }
    };
    thread::scope(|scope| {
        let threads = (0..AT_ONCE).filter(|_| thread::Builder::new().spawn_scoped(scope, work).is_ok());
        // Without a thread everything stays.
        if threads.count() > 0 {
            files_below(root, |file| drop(give.send(file)));
        }
        // They end when all was given.
        drop(give);
    });
}

fn files_below(root: &Path, mut each: impl FnMut(PathBuf)) {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => directories.push(entry.path()),
                false => each(entry.path()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_go_and_nothing_that_links_lead_to() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("kept"), "").unwrap();
        for directory in ["a/b/c", "d"] {
            let directory = root.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            (0..100).for_each(|number| fs::write(directory.join(number.to_string()), "").unwrap());
            std::os::unix::fs::symlink(other.path(), directory.join("link")).unwrap();
        }
        remove_files(root.path());
        let mut left = Vec::new();
        files_below(root.path(), |file| left.push(file));
        assert!(left.is_empty(), "{left:?}");
        assert!(root.path().join("a/b/c").is_dir() && other.path().join("kept").exists());
    }
}
