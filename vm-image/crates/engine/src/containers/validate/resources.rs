//! Limits: refused where dockerd refuses them; those that this kernel cannot hold are taken back, and the user is told.
//!
//! The order of the checks is moby's (`verifyPlatformContainerResources`), as the first mistake is the one that is told. The same
//! for `docker create` and `docker update`.

use caisson_docker_api::container::HostConfig;

use crate::containers::support::{Support, parse_list};
use crate::error::ApiError;

/// The least memory that a container can run in, in bytes.
const MIN_MEMORY: i64 = 6 << 20;
/// The most processors of a Linux that is built as usual (`CONFIG_NR_CPUS`), as moby bounds lists of them.
const MAX_CPUS: u32 = 8192;

/// What a check is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Create,
    Update,
}

/// Takes back what this kernel has not, with a warning each.
struct Settling<'a> {
    support: &'a Support,
    warnings: Vec<String>,
}

/// Checks the limits, and takes back those that cannot be had. Returns what the user is to be told.
pub(crate) fn settle(host: &mut HostConfig, support: &Support, what: For) -> Result<Vec<String>, ApiError> {
    let mut settling = Settling { support, warnings: Vec::new() };
    settling.memory(host, what)?;
    settling.processors(host)?;
    settling.cpuset(host)?;
    settling.disks(host)?;
    Ok(settling.warnings)
}

/// What moby refuses while it reads a request, before anything else: `runconfig.validateQoS` and `validateResources`.
pub(super) fn check_while_reading(host: &HostConfig, support: &Support) -> Result<(), ApiError> {
    if host.io_maximum_bandwidth != 0 {
        return refuse("invalid option: QoS maximum bandwidth configuration is not supported on linux");
    }
    if host.io_maximum_iops != 0 {
        return refuse("invalid option: QoS maximum IOPs configuration is not supported on linux");
    }
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        return refuse("kernel does not support CPU real-time scheduler");
    }
    if support.cpu {
        check_shares(host)?;
    }
    Ok(())
}

/// Shares below nothing. Where the kernel has none to give moby leaves this to the start.
pub(crate) fn check_shares(host: &HostConfig) -> Result<(), ApiError> {
    match host.cpu_shares {
        shares @ ..0 => refuse(&format!("invalid CPU shares ({shares}): value must be a positive integer")),
        _ => Ok(()),
    }
}

fn refuse<T>(why: &str) -> Result<T, ApiError> {
    Err(ApiError::invalid(why))
}

impl Settling<'_> {
    fn warn(&mut self, what: &str) {
        self.warnings.push(what.to_owned());
    }

    fn memory(&mut self, host: &mut HostConfig, what: For) -> Result<(), ApiError> {
        host.memory_swappiness = host.memory_swappiness.filter(|swappiness| *swappiness != -1);
        if host.memory != 0 && host.memory < MIN_MEMORY {
            return refuse("Minimum memory limit allowed is 6MB");
        }
        if host.memory > 0 && !self.support.memory {
            self.warn("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.");
            host.memory = 0;
            host.memory_swap = -1;
        }
        if host.memory > 0 && host.memory_swap != -1 && !self.support.swap {
            self.warn("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.");
            host.memory_swap = -1;
        }
        if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
            return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
        }
        if host.memory == 0 && host.memory_swap > 0 && what == For::Create {
            return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
        }
        // cgroup v2 has no swappiness.
        if host.memory_swappiness.take().is_some() {
            self.warn("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.");
        }
        if host.memory_reservation > 0 && !self.support.memory {
            self.warn("Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.");
            host.memory_reservation = 0;
        }
        if host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY {
            return refuse("Minimum memory reservation allowed is 6MB");
        }
        if host.memory > 0 && host.memory_reservation > host.memory {
            return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
        }
        self.memory_of_v1(host);
        if !self.support.pids && host.pids_limit.take().is_some_and(|limit| limit > 0) {
            self.warn("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.");
        }
        Ok(())
    }

    /// What only cgroup v1 has.
    fn memory_of_v1(&mut self, host: &mut HostConfig) {
        if std::mem::take(&mut host.kernel_memory) > 0 {
            self.warn("Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.");
        }
        // dockerd hands this one to runc, which passes over it without a word.
        if std::mem::take(&mut host.kernel_memory_tcp) > 0 {
            self.warn("Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded.");
        }
        if host.oom_kill_disable.take() == Some(true) {
            self.warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        }
    }

    fn processors(&mut self, host: &mut HostConfig) -> Result<(), ApiError> {
        if host.nano_cpus > 0 && host.cpu_period > 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if host.nano_cpus > 0 && host.cpu_quota > 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        if host.nano_cpus > 0 && !self.support.cpu {
            return refuse(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
            );
        }
        let there = self.support.processors;
        let limit = i64::try_from(there).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        if host.nano_cpus < 0 || host.nano_cpus > limit {
            return refuse(&format!(
                "range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available"
            ));
        }
        if host.cpu_shares > 0 && !self.support.cpu {
            self.warn(
                "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
            );
            host.cpu_shares = 0;
        }
        if (host.cpu_period != 0 || host.cpu_quota != 0) && !self.support.cpu {
            self.warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.");
            (host.cpu_period, host.cpu_quota) = (0, 0);
        }
        if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
            return refuse(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            );
        }
        if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
            return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
        }
        if std::mem::take(&mut host.cpu_percent) > 0 {
            self.warn("linux does not support CPU percent. Percent discarded.");
        }
        // Of Windows, and passed over by dockerd without a word.
        if std::mem::take(&mut host.cpu_count) > 0 {
            self.warn("linux does not support CPU count. Count discarded.");
        }
        Ok(())
    }

    fn cpuset(&mut self, host: &mut HostConfig) -> Result<(), ApiError> {
        let Some(there) = &self.support.cpuset else {
            if !host.cpuset_cpus.is_empty() || !host.cpuset_mems.is_empty() {
                self.warn(
                    "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
                );
                host.cpuset_cpus.clear();
                host.cpuset_mems.clear();
            }
            return Ok(());
        };
        within(&host.cpuset_cpus, &there.cpus, "cpus", "CPUs")?;
        within(&host.cpuset_mems, &there.mems, "mems", "memory nodes")
    }

    fn disks(&mut self, host: &mut HostConfig) -> Result<(), ApiError> {
        const NO: &str = "Your kernel does not support";
        let here = self.support.io;
        if host.blkio_weight > 0 && !here {
            self.warn(&format!("{NO} Block I/O weight or the cgroup is not mounted. Weight discarded."));
            host.blkio_weight = 0;
        }
        if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
            return refuse("Range of blkio weight is from 10 to 1000");
        }
        let mut discard = |there: bool, what: &str| {
            if there && !here {
                self.warnings.push(format!("{NO} {what}"));
            }
            there && !here
        };
        if discard(
            some(&host.blkio_weight_device),
            "Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        ) {
            host.blkio_weight_device = Some(Vec::new());
        }
        for (list, what) in [
            (
                &mut host.blkio_device_read_bps,
                "BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
            ),
            (
                &mut host.blkio_device_write_bps,
                "BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
            ),
            (
                &mut host.blkio_device_read_iops,
                "IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
            ),
            (
                &mut host.blkio_device_write_iops,
                "IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
            ),
        ] {
            if discard(some(list), what) {
                *list = Some(Vec::new());
            }
        }
        Ok(())
    }
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// Whether all that is asked for is there.
fn within(asked: &str, there: &str, field: &str, what: &str) -> Result<(), ApiError> {
    let invalid = |why: String| ApiError::invalid(format!("Invalid value {asked} for cpuset {field}: {why}"));
    let available = parse_list(there, u32::MAX).map_err(invalid)?;
    if parse_list(asked, MAX_CPUS).map_err(invalid)?.is_subset(&available) {
        return Ok(());
    }
    refuse(&format!("Requested {what} are not available - requested {asked}, available: {there}"))
}
