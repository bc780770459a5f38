//! A spec's `linux.resources` as writes to files of cgroup v2.
//!
//! The spec speaks version 1; the conversions are runc's (`opencontainers/cgroups`), so that the numbers that `docker inspect` shows mean
//! the same as under dockerd. Zero is "not set", as Docker has it.

use crate::failure::Failure;
use crate::spec::{BlockIo, Cpu, Memory, Resources, Throttle};

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// What a person calls it.
    pub(super) limit: &'static str,
    /// Which controller must be there. `None`: whoever asked (`unified`) knows.
    pub(super) controller: Option<&'static str>,
    pub(super) file: String,
    pub(super) value: String,
}

fn setting(limit: &'static str, controller: &'static str, file: &str, value: impl ToString) -> Setting {
    Setting { limit, controller: Some(controller), file: file.into(), value: value.to_string() }
}

/// What the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A new cgroup, which has no limits: -1 says nothing.
    New,
    /// One in use: -1 takes a limit away.
    Used,
}

impl For {
    /// What to write for a number: nothing for 0.
    fn value(self, number: Option<i64>) -> Option<String> {
        match number? {
            0 => None,
            -1 if self == Self::Used => Some("max".into()),
            ..0 => None,
            number => Some(number.to_string()),
        }
    }
}

/// All writes for these resources, in the order in which they must be made.
pub(super) fn settings(resources: &Resources, cgroup: For) -> Result<Vec<Setting>, Failure> {
    let mut settings = memory_settings(&resources.memory, cgroup)?;
    settings.extend(cpu_settings(&resources.cpu, cgroup)?);
    if let Some(limit) = cgroup.value(resources.pids.limit) {
        settings.push(setting("process limit", "pids", "pids.max", limit));
    }
    settings.extend(block_settings(&resources.block_io));
    for page in &resources.hugepage_limits {
        settings.push(setting(
            "huge page limit",
            "hugetlb",
            &format!("hugetlb.{}.max", page.page_size),
            page.limit,
        ));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') {
            return Err(Failure::invalid(format!("unified resource {file:?} must be a file name")));
        }
        settings.push(Setting {
            limit: "unified resource",
            controller: None,
            file: file.clone(),
            value: value.clone(),
        });
    }
    Ok(settings)
}

/// A number above zero.
fn set(number: Option<i64>) -> Option<i64> {
    number.filter(|number| *number > 0)
}

fn memory_settings(memory: &Memory, cgroup: For) -> Result<Vec<Setting>, Failure> {
    let mut settings = Vec::new();
    // Before the limit: a lower one could leave no room for the reservation.
    if let Some(reservation) = cgroup.value(memory.reservation) {
        settings.push(setting("memory reservation", "memory", "memory.low", reservation));
    }
    if let Some(limit) = cgroup.value(memory.limit) {
        settings.push(setting("memory limit", "memory", "memory.max", limit));
    }
    match (memory.swap, memory.limit.filter(|limit| *limit != 0)) {
        (Some(-1), limit) if cgroup == For::Used || limit.is_some_and(|limit| limit > 0) => {
            settings.push(setting("swap limit", "memory", "memory.swap.max", "max"))
        }
        (Some(total), Some(limit)) if total > 0 && limit > 0 => {
            // Version 1 counts memory and swap together.
            let swap = total - limit;
            if swap < 0 {
                return Err(Failure::invalid("memory+swap limit should be >= memory limit"));
            }
            settings.push(setting("swap limit", "memory", "memory.swap.max", swap));
        }
        (Some(total), _) if total > 0 => {
            return Err(Failure::invalid("unable to set swap limit without memory limit"));
        }
        _ => {}
    }
    Ok(settings)
}

fn cpu_settings(cpu: &Cpu, cgroup: For) -> Result<Vec<Setting>, Failure> {
    const PERIOD: u64 = 100_000; // microseconds; the kernel's own
    if set(cpu.realtime_runtime).is_some() || cpu.realtime_period.is_some_and(|period| period > 0) {
        return Err(Failure::invalid("cannot set the realtime CPU limit: cgroup v2 has none"));
    }
    let mut settings = Vec::new();
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
        settings.push(setting("CPU shares", "cpu", "cpu.weight", cpu_weight(shares)));
    }
    let quota = cgroup.value(cpu.quota);
    let period = cpu.period.filter(|period| *period > 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.unwrap_or_else(|| "max".to_owned());
        settings.push(setting(
            "CPU quota",
            "cpu",
            "cpu.max",
            format!("{quota} {}", period.unwrap_or(PERIOD)),
        ));
    }
    if let Some(burst) = cpu.burst.filter(|burst| *burst > 0) {
        settings.push(setting("CPU burst", "cpu", "cpu.max.burst", burst));
    }
    for (list, file) in [(&cpu.cpus, "cpuset.cpus"), (&cpu.mems, "cpuset.mems")] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            settings.push(setting("CPU set", "cpuset", file, list));
        }
    }
    Ok(settings)
}

/// Shares 2..262144 to weights 1..10000 with 1024 at 100: runc's curve since 1.3.2, so that a container with default shares is the equal
/// of any other cgroup.
fn cpu_weight(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn block_settings(block: &BlockIo) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = block.weight.filter(|weight| *weight > 0) {
        settings.push(setting("block IO weight", "io", "io.weight", io_weight(weight)));
    }
    for device in &block.weight_device {
        let weight = device.weight.filter(|weight| *weight > 0).map(io_weight);
        let value = weight.map(|weight| format!("{}:{} {weight}", device.major, device.minor));
        settings.extend(value.map(|value| setting("block IO weight", "io", "io.weight", value)));
    }
    for (devices, key) in [
        (&block.throttle_read_bps_device, "rbps"),
        (&block.throttle_write_bps_device, "wbps"),
        (&block.throttle_read_iops_device, "riops"),
        (&block.throttle_write_iops_device, "wiops"),
    ] {
        settings.extend(devices.iter().map(|device| throttle(device, key)));
    }
    settings
}

/// 10..1000 to 1..10000, as runc converts it.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

fn throttle(device: &Throttle, key: &str) -> Setting {
    let value = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
    setting("block IO limit", "io", "io.max", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Vec<(String, String)> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        settings(&resources, For::New)
            .unwrap()
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(file, value)| (file.to_string(), value.to_string())).collect()
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        assert!(parsed(r#"{"memory":{"limit":0},"cpu":{"shares":0},"pids":{"limit":0}}"#).is_empty());
        assert!(parsed(r#"{"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1}}"#).is_empty());
    }

    #[test]
    fn limits_become_version_2() {
        let memory = r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":1048576}}"#;
        let expected =
            [("memory.low", "1048576"), ("memory.max", "67108864"), ("memory.swap.max", "67108864")];
        assert_eq!(parsed(memory), pairs(&expected));
        let cpu = r#"{"cpu":{"quota":50000,"shares":1024,"cpus":"0-1"}}"#;
        let expected = [("cpu.weight", "100"), ("cpu.max", "50000 100000"), ("cpuset.cpus", "0-1")];
        assert_eq!(parsed(cpu), pairs(&expected));
        assert_eq!(parsed(r#"{"pids":{"limit":100}}"#), pairs(&[("pids.max", "100")]));
        let block = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":16,"weight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}]}}"#;
        assert_eq!(
            parsed(block),
            pairs(&[("io.weight", "4950"), ("io.weight", "8:16 1"), ("io.max", "8:0 rbps=1024")])
        );
    }

    #[test]
    fn a_limit_is_taken_away_from_a_cgroup_in_use() {
        let asked = r#"{"memory":{"limit":-1,"swap":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#;
        let resources: Resources = serde_json::from_str(asked).unwrap();
        let found = settings(&resources, For::Used).unwrap();
        let found: Vec<_> = found.into_iter().map(|setting| (setting.file, setting.value)).collect();
        let expected = [
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("cpu.max", "max 100000"),
            ("pids.max", "max"),
        ];
        assert_eq!(found, pairs(&expected));
    }

    #[test]
    fn shares_keep_their_meaning_at_the_ends_and_in_the_middle() {
        assert_eq!([1, 2, 512, 1024, 2048, 262_144].map(cpu_weight), [1, 1, 59, 100, 174, 10_000]);
    }

    #[test]
    fn contradictions_are_refused() {
        let swap: Resources = serde_json::from_str(r#"{"memory":{"limit":1000,"swap":500}}"#).unwrap();
        assert!(settings(&swap, For::New).is_err());
        let path: Resources = serde_json::from_str(r#"{"unified":{"../x":"1"}}"#).unwrap();
        assert!(settings(&path, For::New).is_err());
    }
}
