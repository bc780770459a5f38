//! `docker update`: other limits and another restart policy, for a container that goes on running.
//!
//! The new definition is written down first, then the kernel is told; if it refuses, the old one is put back. What a request leaves at zero
//! stays as it is.

use caisson_docker_api::container::{HostConfig, RestartPolicy};
use caisson_runtime::cgroup::Cgroup;
use tracing::warn;

use super::spec::{cgroup_path, running_resources};
use super::state::State;
use super::task::{Request, Task};
use super::validate::{self, resources};
use super::{Containers, Handle};
use crate::error::{ApiError, ErrorKind, chain};

impl Containers {
    /// Changes a container's limits and restart policy. Returns what its user is to be told.
    ///
    /// # Errors
    /// dockerd's. Then nothing has changed.
    pub(crate) async fn update(&self, name: &str, mut asked: HostConfig) -> Result<Vec<String>, ApiError> {
        validate::check_restart_policy(&asked.restart_policy)?;
        let warnings = resources::settle(&mut asked, &self.ground.support, resources::For::Update)?;
        self.find(name)?.update(asked).await?;
        Ok(warnings)
    }
}

impl Handle {
    async fn update(&self, asked: HostConfig) -> Result<(), ApiError> {
        self.ask(|answer| Request::Update(Box::new(asked), answer)).await
    }
}

impl Task {
    pub(super) async fn update(&mut self, asked: HostConfig) -> Result<(), ApiError> {
        let within =
            |error: ApiError| error.within(&format!("Cannot update container {}", self.definition.id));
        if matches!(self.state(), State::Removing(_) | State::Removed) {
            let why = "container is marked for removal and cannot be \"update\"";
            return Err(within(ApiError::internal(why)));
        }
        let before = self.definition.host_config.clone();
        let mut after = before.clone();
        merge(&mut after, &asked).map_err(within)?;
        let to_apply = delta(&asked, &after);
        let id = self.definition.id.clone();
        self.redefine(|definition| definition.host_config = after).await?;
        if self.state().running().is_some()
            && let Err(error) = self.apply(to_apply).await
        {
            if let Err(error) = self.redefine(|definition| definition.host_config = before).await {
                warn!(error = %chain(&error), "could not put back the limits of a failed update");
            }
            return Err(error.within(&format!("Cannot update container {id}")));
        }
        self.ground.tell(&self.definition, "update", &[]);
        Ok(())
    }

    /// Tells the kernel.
    async fn apply(&self, limits: HostConfig) -> Result<(), ApiError> {
        let path = cgroup_path(&self.definition);
        let applied = move || {
            let resources = running_resources(&limits)?;
            // Without a cgroup there are no limits to change: they were taken back when this was asked.
            let Some(cgroup) = Cgroup::of(Some(&path)) else { return Ok(()) };
            cgroup.update(&resources).map_err(|failure| ApiError::internal(failure.message))
        };
        tokio::task::spawn_blocking(applied).await?
    }
}

/// Puts what is asked for over what there is, unless the two do not go together: moby's `UpdateContainer`.
fn merge(host: &mut HostConfig, asked: &HostConfig) -> Result<(), ApiError> {
    let conflicts = [
        (
            asked.nano_cpus > 0 && host.cpu_period > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            asked.nano_cpus > 0 && host.cpu_quota > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            asked.cpu_period > 0 && host.nano_cpus > 0,
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            asked.cpu_quota > 0 && host.nano_cpus > 0,
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            // -1 is more than any number.
            asked.memory != 0
                && asked.memory_swap == 0
                && host.memory_swap != -1
                && asked.memory > host.memory_swap,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ),
        (
            host.auto_remove && !matches!(asked.restart_policy.name.as_str(), "" | "no"),
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
    ];
    if let Some((_, why)) = conflicts.into_iter().find(|(conflict, _)| *conflict) {
        return Err(ApiError::new(ErrorKind::InvalidParameter, why));
    }
    take(&mut host.blkio_weight, asked.blkio_weight);
    take(&mut host.cpu_shares, asked.cpu_shares);
    take(&mut host.nano_cpus, asked.nano_cpus);
    take(&mut host.cpu_period, asked.cpu_period);
    take(&mut host.cpu_quota, asked.cpu_quota);
    take(&mut host.cpuset_cpus, asked.cpuset_cpus.clone());
    take(&mut host.cpuset_mems, asked.cpuset_mems.clone());
    take(&mut host.memory, asked.memory);
    take(&mut host.memory_swap, asked.memory_swap);
    take(&mut host.memory_reservation, asked.memory_reservation);
    if let Some(limit) = asked.pids_limit {
        host.pids_limit = Some(limit.max(0));
    }
    if !asked.restart_policy.name.is_empty() {
        host.restart_policy = RestartPolicy { ..asked.restart_policy.clone() };
    }
    Ok(())
}

fn take<T: Default + PartialEq>(field: &mut T, asked: T) {
    if asked != T::default() {
        *field = asked;
    }
}

/// The limits to tell the kernel: what was asked for, with what it is counted by (swap is counted from memory, a quota in periods).
fn delta(asked: &HostConfig, after: &HostConfig) -> HostConfig {
    let memory = asked.memory != 0 || asked.memory_swap != 0;
    let time = asked.cpu_period != 0 || asked.cpu_quota != 0;
    HostConfig {
        blkio_weight: asked.blkio_weight,
        cpu_shares: asked.cpu_shares,
        nano_cpus: asked.nano_cpus,
        cpu_period: if time { after.cpu_period } else { 0 },
        cpu_quota: if time { after.cpu_quota } else { 0 },
        cpuset_cpus: asked.cpuset_cpus.clone(),
        cpuset_mems: asked.cpuset_mems.clone(),
        memory: if memory { after.memory } else { 0 },
        memory_swap: if memory { after.memory_swap } else { 0 },
        memory_reservation: asked.memory_reservation,
        pids_limit: asked.pids_limit,
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    #[test]
    fn what_is_not_asked_for_stays() {
        let mut host =
            HostConfig { memory: 64 * MIB, memory_swap: 128 * MIB, cpu_shares: 5, ..HostConfig::default() };
        let asked = HostConfig { memory: 96 * MIB, pids_limit: Some(-1), ..HostConfig::default() };
        merge(&mut host, &asked).unwrap();
        assert_eq!((host.memory, host.memory_swap, host.cpu_shares), (96 * MIB, 128 * MIB, 5));
        assert_eq!(host.pids_limit, Some(0));
        let told = delta(&asked, &host);
        assert_eq!((told.memory, told.memory_swap, told.cpu_shares), (96 * MIB, 128 * MIB, 0));
    }

    #[test]
    fn what_does_not_go_together_gets_dockerd_s_words() {
        let refused =
            |host: HostConfig, asked: HostConfig| merge(&mut host.clone(), &asked).unwrap_err().message;
        let quota = HostConfig { cpu_quota: 5000, ..HostConfig::default() };
        let nano = HostConfig { nano_cpus: 1, ..HostConfig::default() };
        assert!(refused(quota.clone(), nano.clone()).ends_with("as CPU Quota has already been set"));
        assert!(refused(nano, quota).ends_with("as NanoCPUs has already been set"));
        let small = HostConfig { memory: MIB, memory_swap: 2 * MIB, ..HostConfig::default() };
        let big = HostConfig { memory: 3 * MIB, ..HostConfig::default() };
        assert!(refused(small.clone(), big.clone()).starts_with("Memory limit should be smaller"));
        assert!(merge(&mut HostConfig { memory_swap: -1, ..small }, &big).is_ok());
        let policy = RestartPolicy { name: "always".into(), ..RestartPolicy::default() };
        let always = HostConfig { restart_policy: policy, ..HostConfig::default() };
        let removed = HostConfig { auto_remove: true, ..HostConfig::default() };
        assert!(refused(removed, always).contains("AutoRemove is enabled"));
    }
}
