//! What a new container has mounted where: volumes are made, or found, and held for it.

use std::collections::BTreeMap;

use caisson_docker_api::container::{Config, HostConfig};
use caisson_volumes::{DRIVER, NewVolume, VolumeError};
use tracing::warn;

use super::Mounting;
use super::making::Making;
use super::parse::{self, Wish};
use crate::containers::{Containers, Ground};
use crate::error::{ApiError, chain};
use crate::volumes;

/// What dockerd tells of the mode of volumes that are asked for.
const SHARED: &str = "z";

impl Containers {
    /// Claims all that a new container mounts; if something cannot be had, nothing stays claimed. Blocks.
    ///
    /// Anonymous volumes go at the next start of the engine unless their [`Making`] is dropped, when the container is on record.
    ///
    /// In dockerd's order: what other containers have gives way to what is asked for by name, and the volumes of the
    /// configuration are only made where there is nothing else.
    pub(crate) fn claim_mounts(
        &self,
        id: &str,
        config: &Config,
        host: &HostConfig,
        shallow_read_only: bool,
    ) -> Result<(Vec<Mounting>, Option<Making>), ApiError> {
        let mut claim =
            Claim { ground: &self.ground, id, shallow_read_only, points: BTreeMap::new(), making: None };
        self.claim_all(&mut claim, config, host).inspect_err(|_| {
            self.ground.release_volumes(id, claim.points.values(), true);
        })?;
        Ok((claim.points.into_values().collect(), claim.making))
    }

    fn claim_all(&self, claim: &mut Claim<'_>, config: &Config, host: &HostConfig) -> Result<(), ApiError> {
        for from in host.volumes_from.iter().flatten() {
            let (container, writable) = parse::volumes_from(from)?;
            let container = self.find(container).map_err(|e| ApiError::invalid(e.message))?;
            for mounting in &container.definition().mounts {
                claim.share(mounting, writable)?;
            }
        }
        let mut asked = Vec::new();
        for bind in host.binds.iter().flatten() {
            let wish = parse::bind(bind, &host.volume_driver)?;
            let destination = wish.mounting.point.destination.clone();
            let is_tmpfs = host.tmpfs.iter().flatten().any(|(other, _)| *other == destination);
            if is_tmpfs || asked.contains(&destination) {
                return Err(ApiError::invalid(format!("Duplicate mount point: {destination}")));
            }
            asked.push(destination);
            claim.take(wish, SHARED)?;
        }
        for mount in host.mounts.iter().flatten() {
            let wish = parse::mount(mount)?;
            if asked.contains(&wish.mounting.point.destination) {
                return Err(ApiError::invalid(format!("Duplicate mount point: {}", mount.target)));
            }
            asked.push(wish.mounting.point.destination.clone());
            claim.take(wish, SHARED)?;
        }
        for destination in config.volumes.iter().flatten().map(|(destination, _)| destination) {
            let mut wish = parse::anonymous(destination)?;
            let destination = &wish.mounting.point.destination;
            let is_tmpfs = host.tmpfs.iter().flatten().any(|(other, _)| parse::clean(other) == *destination);
            if is_tmpfs || claim.points.contains_key(destination) {
                continue;
            }
            let driver = caisson_docker_api::container::VolumeDriver {
                name: host.volume_driver.clone(),
                options: None,
            };
            wish.volume.driver_config = Some(driver);
            claim.take(wish, "")?;
        }
        Ok(())
    }
}

struct Claim<'a> {
    ground: &'a Ground,
    id: &'a str,
    /// Binds that are read-only are so at their top only.
    shallow_read_only: bool,
    /// By destination.
    points: BTreeMap<String, Mounting>,
    /// What is anonymous among them.
    making: Option<Making>,
}

impl Claim<'_> {
    /// What another container has, as far as it may be written here.
    fn share(&mut self, mounting: &Mounting, writable: bool) -> Result<(), ApiError> {
        let mut shared = mounting.clone();
        shared.point.rw &= writable;
        shared.copy = false;
        if let Some(name) = mounting.volume() {
            self.ground.volumes.hold(name, self.id).map_err(|e| volumes::error(&e))?;
        }
        self.put(shared);
        Ok(())
    }

    /// `mode` is what is told of a volume for which none was asked for.
    fn take(&mut self, wish: Wish, mode: &str) -> Result<(), ApiError> {
        let mut mounting = wish.mounting.clone();
        if mounting.volume().is_some() {
            let new = self.name(wish.new_volume())?;
            let made = self.ground.volumes.create(new, Some(self.id));
            let (volume, is_new) = made.map_err(|e| volumes::error(&e))?;
            if is_new {
                volumes::tell(&self.ground.events, "create", &volume.name, &[]);
            }
            mounting.point.source = volume.path.display().to_string();
            mounting.point.name = volume.name;
            mounting.point.driver = DRIVER.into();
            if mounting.point.mode.is_empty() {
                mounting.point.mode = mode.to_owned();
            }
        }
        if mounting.point.kind == "bind" && !mounting.point.rw {
            mounting.read_only_non_recursive |= self.shallow_read_only;
        }
        if mounting.image().is_some() {
            let image =
                self.ground.images.find(&mounting.point.name).map_err(|e| crate::images::error(&e))?;
            mounting.image = image.id.to_string();
            // There is no directory that has all of it outside of the container.
            mounting.point.source.clone_from(&mounting.image);
        }
        self.put(mounting);
        Ok(())
    }

    /// Names an anonymous volume, and says so on disk before it is made.
    fn name(&mut self, mut new: NewVolume) -> Result<NewVolume, ApiError> {
        if new.name.is_empty() {
            new.name_anonymous();
            let directory = self.ground.directory(self.id);
            let noted = match &self.making {
                Some(making) => making.note(&new.name),
                None => Making::begin(directory.path())
                    .and_then(|making| self.making.insert(making).note(&new.name)),
            };
            noted.map_err(|e| ApiError::from_chain("could not note a volume that is to be made", &e))?;
        }
        Ok(new)
    }

    fn put(&mut self, mounting: Mounting) {
        let gone = self.points.insert(mounting.point.destination.clone(), mounting);
        if let Some(name) = gone.as_ref().and_then(Mounting::volume)
            && !self.points.values().any(|other| other.volume() == Some(name))
        {
            self.ground.volumes.release(name, self.id);
        }
    }
}

impl Ground {
    /// Lets go of a container's volumes; with `remove`, the anonymous ones that nobody else holds are removed. Blocks.
    pub(crate) fn release_volumes<'a>(
        &self,
        id: &str,
        mountings: impl Iterator<Item = &'a Mounting>,
        remove: bool,
    ) {
        for mounting in mountings {
            let Some(name) = mounting.volume() else { continue };
            self.volumes.release(name, id);
            if remove && mounting.anonymous {
                self.remove_anonymous(name);
            }
        }
    }

    /// Removes a volume that went with a container, if nobody else holds it. Blocks.
    pub(crate) fn remove_anonymous(&self, name: &str) {
        match self.volumes.remove(name) {
            Ok(()) => volumes::tell(&self.events, "destroy", name, &[]),
            // Another container has it, or it was removed by hand.
            Err(VolumeError::InUse { .. } | VolumeError::NotFound(_)) => {}
            Err(error) => {
                warn!(volume = name, error = %chain(&error), "could not remove an anonymous volume")
            }
        }
    }

    /// Says again, after a restart of the engine, what a container holds, and, if it runs, what it has mounted.
    pub(crate) fn hold_volumes(&self, id: &str, mountings: &[Mounting], runs: bool) {
        for name in mountings.iter().filter_map(Mounting::volume) {
            if let Err(error) = self.volumes.hold(name, id) {
                warn!(id, volume = name, error = %chain(&error), "a container's volume is not there");
            } else if runs {
                self.volumes.found_mounted(name, id);
            }
        }
    }
}
