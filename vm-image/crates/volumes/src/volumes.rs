//! The register of all volumes: who holds which, and what is mounted for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use crate::error::{At, OpenError, VolumeError};
use crate::options::{self, Device};
use crate::quota::Projects;
use crate::volume::{DRIVER, NewVolume, Volume};
use crate::{mount, name, record};

/// All volumes. Cloning is cheap; clones are the same register. All methods block and may be called from any thread.
#[derive(Debug, Clone)]
pub struct Volumes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Without links, as the kernel knows it.
    root: PathBuf,
    projects: Projects,
    /// What is on disk. Locked for moments only: async callers read it.
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Held by one who makes, removes or takes a volume, for as long as the disk needs.
    writer: Mutex<()>,
}

/// A volume with who uses it.
#[derive(Debug, Clone)]
struct Entry {
    volume: Volume,
    /// Containers that have it, running or not.
    holders: BTreeSet<String>,
    /// A lock of its own: to mount can take as long as a server far away does.
    mounted: Arc<Mutex<Mounted>>,
}

/// Whether a volume's device is mounted, and for whom.
#[derive(Debug, Default)]
struct Mounted {
    is_mounted: bool,
    users: BTreeSet<String>,
}

impl Volumes {
    /// Opens or makes the volumes in `root`. What a crash left half done is removed.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let root = root.into();
        fs::create_dir_all(&root).at("make", &root)?;
        let root = fs::canonicalize(&root).at("look at", &root)?;
        let found = record::read_all(&root)?;
        let projects = Projects::probe(&root);
        let mut entries = BTreeMap::new();
        for volume in found {
            let is_mounted = Device::of(volume.options.as_ref()).is_some()
                && mount::is_mounted(&volume.path).at("look at", &volume.path)?;
            let mounted = Arc::new(Mutex::new(Mounted { is_mounted, users: BTreeSet::new() }));
            entries.insert(volume.name.clone(), Entry { volume, holders: BTreeSet::new(), mounted });
        }
        Ok(Self(Arc::new(Inner { root, projects, entries: Mutex::new(entries), writer: Mutex::default() })))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a change; others wait until it is dropped. Taken before any other lock.
    fn writer(&self) -> MutexGuard<'_, ()> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, name: &str) -> Result<Entry, VolumeError> {
        self.entries().get(name).cloned().ok_or_else(|| VolumeError::NotFound(name.to_owned()))
    }

    /// Makes a volume, or finds the one that has this name already, whatever its options and labels are; whether it
    /// was made. With a `holder`, that container holds it from the same moment on.
    pub fn create(&self, mut new: NewVolume, holder: Option<&str>) -> Result<(Volume, bool), VolumeError> {
        new.name_anonymous();
        let NewVolume { name, driver, options, labels } = new;
        let _writer = self.writer();
        if !driver.is_empty() && driver != DRIVER {
            return Err(VolumeError::NoDriver { name, driver });
        }
        if let Some(known) = self.entries().get_mut(&name) {
            known.holders.extend(holder.map(str::to_owned));
            return Ok((known.volume.clone(), false));
        }
        name::check(&name)?;
        options::check(&name, options.as_ref(), self.0.projects.are_there())?;
        let project = self.find_project(options::size(options.as_ref()))?;
        let path = record::data(&self.0.root, &name);
        let volume = Volume { name, created: OffsetDateTime::now_utc(), options, labels, path, project };
        record::make(&self.0.root, &volume)?;
        let holders = holder.map(str::to_owned).into_iter().collect();
        let entry = Entry { volume: volume.clone(), holders, mounted: Arc::default() };
        self.entries().insert(volume.name.clone(), entry);
        Ok((volume, true))
    }

    /// What holds a new volume to so many bytes.
    fn find_project(&self, bytes: u64) -> Result<Option<u32>, VolumeError> {
        let entries = self.entries();
        let taken = |project| entries.values().any(|entry| entry.volume.project == Some(project));
        self.0.projects.take(&self.0.root, bytes, taken).at("find a project for a volume in", &self.0.root)
    }

    /// The volume of this name.
    pub fn get(&self, name: &str) -> Result<Volume, VolumeError> {
        Ok(self.entry(name)?.volume)
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Volume> {
        self.entries().values().map(|entry| entry.volume.clone()).collect()
    }

    /// The containers that hold it; none if there is no such volume.
    pub fn holders(&self, name: &str) -> Vec<String> {
        self.entries().get(name).map(|entry| entry.holders.iter().cloned().collect()).unwrap_or_default()
    }

    /// Keeps a volume for a container until it [`release`](Self::release)s it.
    pub fn hold(&self, name: &str, container: &str) -> Result<Volume, VolumeError> {
        // What is being removed cannot be taken.
        let _writer = self.writer();
        let mut entries = self.entries();
        let entry = entries.get_mut(name).ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        entry.holders.insert(container.to_owned());
        Ok(entry.volume.clone())
    }

    /// Ends what a container held. No error if it held nothing.
    pub fn release(&self, name: &str, container: &str) {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.holders.remove(container);
        }
    }

    /// Removes a volume that no container holds, with all that is in it.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        let writer = self.writer();
        let Entry { volume, holders, mounted } = self.entry(name)?;
        if !holders.is_empty() {
            let holders = holders.into_iter().collect();
            return Err(VolumeError::InUse { name: name.to_owned(), holders });
        }
        let mut mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if !mounted.users.is_empty() {
            let holders = mounted.users.iter().cloned().collect();
            return Err(VolumeError::InUse { name: name.to_owned(), holders });
        }
        // Before anything is removed, and whatever is known of it: what is in there is not the volume's.
        mounted.unmount(&volume)?;
        let gone = record::unname(&self.0.root, name)?;
        self.entries().remove(name);
        drop(writer);
        record::discard(&self.0.root, &gone);
        Ok(())
    }

    /// Makes a volume's files reachable for a user (a container's run, or a copy), held to their size, and returns their directory.
    pub fn mount(&self, name: &str, user: &str) -> Result<PathBuf, VolumeError> {
        let Entry { volume, mounted, .. } = self.entry(name)?;
        let mut mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
        let device = Device::of(volume.options.as_ref());
        if let Some(device) = device.as_ref().filter(|_| !mounted.is_mounted) {
            mount::mount(device, &volume.path)?;
            mounted.is_mounted = true;
        }
        if let Err(error) = self.0.projects.hold(&volume) {
            if mounted.users.is_empty() {
                // What the caller has to know is the first error; what stays mounted goes with the volume or at the next start.
                let _ = mounted.settle(&volume);
            }
            return Err(error);
        }
        if device.is_some() {
            mounted.users.insert(user.to_owned());
        }
        Ok(volume.path)
    }

    /// Says again, after a restart, that a container that runs has a volume.
    pub fn found_mounted(&self, name: &str, user: &str) {
        if let Ok(entry) = self.entry(name) {
            let mut mounted = entry.mounted.lock().unwrap_or_else(PoisonError::into_inner);
            if mounted.is_mounted {
                mounted.users.insert(user.to_owned());
            }
        }
    }

    /// Ends a [`mount`](Self::mount); the last user's end unmounts. No error if it was not mounted for this user.
    pub fn unmount(&self, name: &str, user: &str) -> Result<(), VolumeError> {
        let Ok(Entry { volume, mounted, .. }) = self.entry(name) else { return Ok(()) };
        let mut mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
        mounted.users.remove(user);
        if mounted.users.is_empty() { mounted.settle(&volume) } else { Ok(()) }
    }

    /// Unmounts what nobody uses: for the engine's start, when it has told who uses what.
    pub fn settle(&self) {
        let entries: Vec<Entry> = self.entries().values().cloned().collect();
        for Entry { volume, mounted, .. } in entries {
            let mut mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
            if mounted.users.is_empty()
                && let Err(error) = mounted.settle(&volume)
            {
                tracing::error!(volume = volume.name, %error, "a volume that nobody uses stays mounted");
            }
        }
    }
}

impl Mounted {
    /// Unmounts what is known to be mounted.
    fn settle(&mut self, volume: &Volume) -> Result<(), VolumeError> {
        if self.is_mounted { self.unmount(volume) } else { Ok(()) }
    }

    fn unmount(&mut self, volume: &Volume) -> Result<(), VolumeError> {
        mount::detach(&volume.path).at("unmount", &volume.path)?;
        self.is_mounted = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
