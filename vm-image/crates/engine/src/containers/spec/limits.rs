//! Limits: `HostConfig`'s resources as the OCI spec writes them. The runtime refuses those that this kernel cannot set.

use std::os::unix::fs::MetadataExt;

use caisson_docker_api::container::{HostConfig, ThrottleDevice};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use crate::error::ApiError;

const DEFAULT_CPU_PERIOD: u64 = 100_000;

/// All of them but the rules of devices.
///
/// # Errors
/// A disk that is not there, in dockerd's words.
pub(super) fn resources(host: &HostConfig) -> Result<LinuxResources, ApiError> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(memory(host))
        .set_cpu(cpu(host)?)
        .set_pids(pids(host))
        .set_block_io(disks(host)?);
    Ok(resources)
}

fn memory(host: &HostConfig) -> Option<LinuxMemory> {
    let given = |bytes: i64| (bytes != 0).then_some(bytes);
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(given(host.memory))
        .set_reservation(given(host.memory_reservation))
        .set_swap(given(host.memory_swap));
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(host: &HostConfig) -> Result<Option<LinuxCpu>, ApiError> {
    crate::containers::validate::resources::check_shares(host)?;
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(host.cpu_shares));
    if host.nano_cpus > 0 {
        // Billionths of a processor, of a period of 100 ms.
        cpu.set_period(Some(DEFAULT_CPU_PERIOD)).set_quota(Some(host.nano_cpus / 10_000));
    } else {
        cpu.set_period(positive(host.cpu_period)).set_quota((host.cpu_quota != 0).then_some(host.cpu_quota));
    }
    let set = |list: &String| (!list.is_empty()).then(|| list.clone());
    cpu.set_cpus(set(&host.cpuset_cpus)).set_mems(set(&host.cpuset_mems));
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

/// Zero and below take a limit away.
fn pids(host: &HostConfig) -> Option<LinuxPids> {
    let limit = host.pids_limit?;
    let mut pids = LinuxPids::default();
    pids.set_limit(if limit > 0 { limit } else { -1 });
    Some(pids)
}

fn disks(host: &HostConfig) -> Result<Option<LinuxBlockIo>, ApiError> {
    let mut block = LinuxBlockIo::default();
    block.set_weight((host.blkio_weight != 0).then_some(host.blkio_weight));
    let mut weights = Vec::new();
    for device in host.blkio_weight_device.iter().flatten() {
        weights.push(weight(&device.path, device.weight)?);
    }
    block.set_weight_device(listed(weights));
    block.set_throttle_read_bps_device(throttles(&host.blkio_device_read_bps)?);
    block.set_throttle_write_bps_device(throttles(&host.blkio_device_write_bps)?);
    block.set_throttle_read_iops_device(throttles(&host.blkio_device_read_iops)?);
    block.set_throttle_write_iops_device(throttles(&host.blkio_device_write_iops)?);
    Ok((block != LinuxBlockIo::default()).then_some(block))
}

fn listed<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn weight(path: &str, weight: u16) -> Result<LinuxWeightDevice, ApiError> {
    let (major, minor) = number(path)?;
    let device = LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build();
    device.map_err(|error| ApiError::from_chain("a disk's weight", &error))
}

fn throttles(asked: &Option<Vec<ThrottleDevice>>) -> Result<Option<Vec<LinuxThrottleDevice>>, ApiError> {
    let mut devices = Vec::new();
    for device in asked.iter().flatten() {
        let (major, minor) = number(&device.path)?;
        let device =
            LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(device.rate).build();
        devices.push(device.map_err(|error| ApiError::from_chain("a disk's limit", &error))?);
    }
    Ok(listed(devices))
}

/// A device's number.
fn number(path: &str) -> Result<(i64, i64), ApiError> {
    let found = std::fs::metadata(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        ApiError::internal(format!("stat {path}: {why}"))
    })?;
    Ok((i64::from(rustix::fs::major(found.rdev())), i64::from(rustix::fs::minor(found.rdev()))))
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::WeightDevice;

    use super::*;

    #[test]
    fn nothing_asked_is_nothing_limited() {
        let resources = resources(&HostConfig::default()).unwrap();
        assert!(resources.memory().is_none() && resources.cpu().is_none() && resources.pids().is_none());
        assert!(resources.block_io().is_none());
    }

    #[test]
    fn cpus_are_a_quota_of_a_period() {
        let cpu = cpu(&HostConfig { nano_cpus: 1_500_000_000, ..HostConfig::default() }).unwrap().unwrap();
        assert_eq!((cpu.period(), cpu.quota()), (Some(100_000), Some(150_000)));
    }

    #[test]
    fn disks_are_found_by_path_or_told() {
        let limit = |path: &str| ThrottleDevice { path: path.into(), rate: 1024 };
        let weight = WeightDevice { path: "/dev/null".into(), weight: 500 };
        let host = HostConfig {
            blkio_weight_device: Some(vec![weight]),
            blkio_device_read_bps: Some(vec![limit("/dev/zero")]),
            ..HostConfig::default()
        };
        let block = disks(&host).unwrap().unwrap();
        let (weight, read) = (
            &block.weight_device().as_ref().unwrap()[0],
            &block.throttle_read_bps_device().as_ref().unwrap()[0],
        );
        assert_eq!((weight.major(), weight.minor(), weight.weight()), (1, 3, Some(500)));
        assert_eq!((read.major(), read.minor(), read.rate()), (1, 5, 1024));
        let host =
            HostConfig { blkio_device_write_iops: Some(vec![limit("/dev/nope")]), ..HostConfig::default() };
        assert_eq!(disks(&host).unwrap_err().message, "stat /dev/nope: no such file or directory");
    }
}
