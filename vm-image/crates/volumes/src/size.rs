//! How much is in a directory.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The bytes in the files of a directory and all below, as `docker system df` counts them: each file once, however
/// many names it has, and no directories. What goes away meanwhile or cannot be read counts nothing.
pub fn bytes_below(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut directories = vec![path.to_owned()];
    let mut bytes: u64 = 0;
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.nlink() < 2 || seen.insert((metadata.dev(), metadata.ino())) {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_two_names_counts_once() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        fs::write(root.path().join("d/one"), [0; 1000]).unwrap();
        fs::hard_link(root.path().join("d/one"), root.path().join("two")).unwrap();
        fs::write(root.path().join("three"), [0; 10]).unwrap();
        assert_eq!(bytes_below(root.path()), 1010);
        assert_eq!(bytes_below(&root.path().join("none")), 0);
    }
}
