//! Limits: `HostConfig`'s resources as the OCI spec writes them. The runtime refuses those that this kernel cannot set.

use caisson_docker_api::container::HostConfig;
use caisson_runtime::defaults;
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources,
};

const DEFAULT_CPU_PERIOD: u64 = 100_000;

pub(super) fn resources(host: &HostConfig) -> LinuxResources {
    let mut resources = LinuxResources::default();
    let devices = if host.privileged { vec![everything()] } else { defaults::device_rules() };
    resources.set_devices(Some(devices)).set_memory(memory(host)).set_cpu(cpu(host)).set_pids(pids(host));
    resources
}

fn everything() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true).set_typ(Some(LinuxDeviceType::A)).set_access(Some("rwm".into()));
    rule
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

fn cpu(host: &HostConfig) -> Option<LinuxCpu> {
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
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn pids(host: &HostConfig) -> Option<LinuxPids> {
    let limit = host.pids_limit.filter(|limit| *limit != 0)?;
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    Some(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_nothing_limited() {
        let resources = resources(&HostConfig::default());
        assert!(resources.memory().is_none() && resources.cpu().is_none() && resources.pids().is_none());
    }

    #[test]
    fn cpus_are_a_quota_of_a_period() {
        let cpu = cpu(&HostConfig { nano_cpus: 1_500_000_000, ..HostConfig::default() }).unwrap();
        assert_eq!((cpu.period(), cpu.quota()), (Some(100_000), Some(150_000)));
    }
}
