//! A volume on disk.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::error::{At, OpenError, VolumeError};
use crate::volume::Volume;
use crate::{mount, name, quota, tree};

const FORMAT: u32 = 1;
const RECORD: &str = "volume.json";
const DATA: &str = "_data";
/// What begins so is of no name: no name begins with a dot.
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// What `volume.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<u32>,
}

/// The directory of a volume's files.
pub(crate) fn data(root: &Path, name: &str) -> PathBuf {
    root.join(name).join(DATA)
}

/// Makes a volume on disk. It is there for good when this returns.
pub(crate) fn make(root: &Path, volume: &Volume) -> Result<(), VolumeError> {
    let aside = root.join(format!("{NEW}{}", name::random()));
    let made = lay_out(&aside, volume).and_then(|()| {
        let home = root.join(&volume.name);
        fs::rename(&aside, &home).at("make", &home)?;
        sync(root)
    });
    made.inspect_err(|_| {
        if let Err(error) = fs::remove_dir_all(&aside) {
            tracing::debug!(%error, "what is left of a volume that was not made goes at the next start");
        }
    })
}

fn lay_out(aside: &Path, volume: &Volume) -> Result<(), VolumeError> {
    // The way to the files is for all, the names of other things here for nobody.
    DirBuilder::new().mode(0o711).create(aside).at("make", aside)?;
    let data = aside.join(DATA);
    fs::create_dir(&data).at("make", &data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).at("set the mode of", &data)?;
    let record = Record {
        version: FORMAT,
        created: volume.created,
        options: volume.options.clone(),
        labels: volume.labels.clone(),
        project: volume.project,
    };
    let path = aside.join(RECORD);
    let bytes = serde_json::to_vec(&record).map_err(std::io::Error::from).at("write", &path)?;
    let mut file = File::create(&path).at("make", &path)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).at("write", &path)
}

/// Takes a volume's name away for good, and returns the one that its files have until [`discard`] removes them.
pub(crate) fn unname(root: &Path, name: &str) -> Result<String, VolumeError> {
    let (home, gone) = (root.join(name), format!("{GONE}{}", name::random()));
    fs::rename(&home, root.join(&gone)).at("remove", &home)?;
    sync(root)?;
    Ok(gone)
}

/// Removes the files of a volume without a name, and nothing that is mounted among them. What cannot be removed now is
/// removed at the next start.
pub(crate) fn discard(root: &Path, gone: &str) {
    discard_with(root, gone, |project| quota::give_back(root, project));
}

fn discard_with(root: &Path, gone: &str, give_back: impl FnOnce(u32) -> std::io::Result<()>) {
    // Before anything is removed: who is cut short leaves either the record, or files without a limit, by which the kernel knows that
    // their number is in use.
    if let Some(project) = project(root, gone)
        && let Err(error) = give_back(project)
    {
        tracing::warn!(project, %error, "the limit of a removed volume is left");
    }
    let removed = mount::detach(&data(root, gone)).and_then(|()| tree::remove(root, gone.as_ref()));
    if let Err(error) = removed {
        tracing::warn!(path = gone, %error, "the files of a removed volume are left until the next start");
    }
}

/// The project of a volume that need not be whole.
fn project(root: &Path, name: &str) -> Option<u32> {
    let bytes = fs::read(root.join(name).join(RECORD)).ok()?;
    serde_json::from_slice::<Record>(&bytes).ok()?.project
}

/// All volumes on disk. What has no name is removed.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Volume>, OpenError> {
    let mut volumes = Vec::new();
    for entry in fs::read_dir(root).at("list", root)? {
        let path = entry.at("list", root)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with(NEW) || name.starts_with(GONE) {
            discard(root, name);
        } else if name::check(name).is_ok() {
            volumes.extend(read(root, name)?);
        }
    }
    Ok(volumes)
}

/// Reads a volume. One without a record that can be understood is left alone: there are files in it.
fn read(root: &Path, name: &str) -> Result<Option<Volume>, OpenError> {
    let path = root.join(name).join(RECORD);
    let unreadable = |error: &dyn std::error::Error| {
        tracing::error!(volume = name, %error, "unreadable volume: left alone");
        Ok(None)
    };
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(&error),
    };
    match serde_json::from_slice::<Version>(&bytes) {
        Ok(Version { version }) if version > FORMAT => {
            return Err(OpenError::Newer { path, found: version, known: FORMAT });
        }
        Err(error) => return unreadable(&error),
        Ok(_) => {}
    }
    let record: Record = match serde_json::from_slice(&bytes) {
        Ok(record) => record,
        Err(error) => return unreadable(&error),
    };
    Ok(Some(Volume {
        name: name.to_owned(),
        created: record.created,
        options: record.options,
        labels: record.labels,
        path: data(root, name),
        project: record.project,
    }))
}

fn sync(directory: &Path) -> Result<(), VolumeError> {
    File::open(directory).and_then(|directory| directory.sync_all()).at("sync", directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_goes_while_its_number_is_known() {
        let root = tempfile::tempdir().unwrap();
        let volume = Volume {
            name: "sized".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            options: None,
            labels: None,
            path: data(root.path(), "sized"),
            project: Some(7),
        };
        make(root.path(), &volume).unwrap();
        fs::write(volume.path.join("file"), "x").unwrap();
        let gone = unname(root.path(), "sized").unwrap();
        let there = || {
            [format!("{gone}/{RECORD}"), format!("{gone}/{DATA}/file")]
                .map(|name| root.path().join(name).exists())
        };
        let mut told = None;
        discard_with(root.path(), &gone, |project| {
            told = Some((project, there()));
            Err(std::io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(told, Some((7, [true; 2])), "wherever it is cut short, the next start can do it");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "what cannot be given back keeps no files");
    }
}
