//! Registries' own certificates and keys: a directory that is replaced whole, for a certificate is no use without its key.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path};

use caisson_guest_proto::RegistryFile;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Makes `dir` hold these files, in a directory for each registry, and nothing else. All of it is for root alone.
pub(super) fn replace(dir: &Path, files: &[RegistryFile]) -> io::Result<()> {
    let beside = dir.with_extension("new");
    remove(&beside)?;
    make(&beside)?;
    for file in files {
        if !is_name(&file.registry) || !is_name(&file.name) {
            tracing::warn!("a registry's file cannot be called {file:?}");
            continue;
        }
        write(&beside.join(&file.registry), file)?;
    }
    match renameat_with(CWD, &beside, CWD, dir, RenameFlags::EXCHANGE) {
        // The first ones.
        Err(Errno::NOENT) => fs::rename(&beside, dir),
        exchanged => {
            exchanged?;
            remove(&beside)
        }
    }
}

fn write(own: &Path, file: &RegistryFile) -> io::Result<()> {
    make(own)?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(own.join(&file.name))?
        .write_all(file.text.as_bytes())
}

fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether it is the name of something in a directory, and no way out of it.
fn is_name(text: &str) -> bool {
    let mut parts = Path::new(text).components();
    let first = parts.next();
    first == Some(Component::Normal(text.as_ref())) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(registry: &str, name: &str, text: &str) -> RegistryFile {
        RegistryFile { registry: registry.into(), name: name.into(), text: text.into() }
    }

    /// Every path below a directory with its rights, in order.
    fn tree(dir: &Path) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (name, metadata) = (entry.file_name().into_string().unwrap(), entry.metadata().unwrap());
            if metadata.is_dir() {
                found.extend(
                    tree(&entry.path()).into_iter().map(|(below, mode)| (format!("{name}/{below}"), mode)),
                );
            }
            found.push((name, metadata.permissions().mode() & 0o777));
        }
        found.sort();
        found
    }

    #[test]
    fn the_directory_has_what_was_told_last_for_root_alone() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("certs.d");
        let told = |files: &[(&str, u32)]| -> Vec<(String, u32)> {
            files.iter().map(|(name, mode)| ((*name).to_owned(), *mode)).collect()
        };
        replace(&dir, &[file("a:1", "ca.crt", "CA"), file("b", "c.cert", "C"), file("b", "c.key", "K")])
            .unwrap();
        let all =
            [("a:1", 0o700), ("a:1/ca.crt", 0o600), ("b", 0o700), ("b/c.cert", 0o600), ("b/c.key", 0o600)];
        assert_eq!(tree(&dir), told(&all));
        // What an attempt that failed has left does not matter.
        fs::create_dir_all(home.path().join("certs.new/old")).unwrap();
        replace(&dir, &[file("a:1", "ca.crt", "another")]).unwrap();
        assert_eq!(tree(&dir), told(&all[..2]));
        assert_eq!(fs::read_to_string(dir.join("a:1/ca.crt")).unwrap(), "another");
        replace(&dir, &[]).unwrap();
        assert_eq!(tree(&dir), told(&[]));
        assert_eq!(tree(home.path()), told(&[("certs.d", 0o700)]));
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("certs.d");
        let files = ["..", ".", "", "/etc", "a/b", "../x", "a/"].map(|name| file(name, "ca.crt", ""));
        replace(&dir, &files).unwrap();
        replace(&dir, &files.map(|file| RegistryFile { registry: "r".into(), name: file.registry, ..file }))
            .unwrap();
        assert_eq!(tree(home.path()), [("certs.d".to_owned(), 0o700)]);
    }
}
