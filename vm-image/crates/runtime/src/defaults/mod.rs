//! What a Docker container gets when nobody says otherwise, as pieces of an OCI spec.
//!
//! The engine composes a container's spec from these; the runtime itself has no defaults. Values are moby's
//! (`daemon/pkg/oci/defaults.go`, `daemon/pkg/oci/caps/defaults.go`).

mod sockets;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxSeccomp, Mount,
};

use crate::profile::{self, ProfileError};

/// The `PATH` of a container whose image sets none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The size of `/dev/shm` in bytes.
pub const SHM_SIZE: u64 = 64 << 20;

/// moby's default profile (`github.com/moby/profiles/seccomp` v0.2.3, Apache-2.0), byte for byte: an allow list that grew over ten years
/// of reports is not to be rewritten, and users compare theirs with it.
const SECCOMP_PROFILE: &str = include_str!("seccomp.json");

/// The capabilities of an unprivileged container.
pub const CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Capability sets as moby writes them: no inheritable and no ambient ones; permitted and effective only for root, because `execve`
/// would take them from anybody else.
pub fn capability_sets(wanted: &HashSet<Capability>, root: bool) -> LinuxCapabilities {
    let held = if root { wanted.clone() } else { HashSet::new() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(wanted.clone()))
        .set_permitted(Some(held.clone()))
        .set_effective(Some(held))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

/// The default seccomp profile for a container with these capabilities in its bounding set: moby's, from which raw and packet sockets
/// are taken unless the container is to have them.
///
/// # Errors
/// Only if this kernel's release cannot be understood.
pub fn seccomp(
    bounding: &HashSet<Capability>,
    raw_sockets: bool,
) -> Result<Option<LinuxSeccomp>, ProfileError> {
    let profile = profile::load(SECCOMP_PROFILE, bounding)?;
    Ok(if raw_sockets { profile } else { profile.map(sockets::without_raw) })
}

/// The mounts of every container, in order: `/proc`, `/dev`, `/dev/pts`, `/sys`, `/sys/fs/cgroup`, `/dev/mqueue`, `/dev/shm`.
pub fn mounts(shm_size: u64) -> Vec<Mount> {
    let shm_size = format!("size={shm_size}");
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ]
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(kind.into()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// Paths that a container cannot read: they tell of the host, or hang it.
pub fn masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts", // moby GHSA-6fw5-f8r9-fgfm
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap", // moby GHSA-jq35-85cj-fj4p
        "/sys/firmware",
    ]
    .map(String::from)
    .into();
    paths.extend(thermal_throttles(Path::new("/sys/devices/system/cpu"))); // moby GHSA-6fw5-f8r9-fgfm
    paths
}

fn thermal_throttles(cpus: &Path) -> Vec<String> {
    let Ok(entries) = cpus.read_dir() else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect();
    found.sort();
    found
}

/// Paths that a container can read and not write.
pub fn readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(String::from).into()
}

/// Which devices a container may use, first to last: none, but the harmless ones.
///
/// Without pseudo-terminals: the runtime adds the rules without which no container works.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let all = rule(false, LinuxDeviceType::A, None);
    let harmless = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    let allowed = harmless.map(|number| rule(true, LinuxDeviceType::C, Some(number)));
    let fuse = rule(false, LinuxDeviceType::C, Some((10, 229)));
    [all].into_iter().chain(allowed).chain([fuse]).collect()
}

fn rule(allow: bool, kind: LinuxDeviceType, number: Option<(i64, i64)>) -> LinuxDeviceCgroup {
    let builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access("rwm");
    let builder = match number {
        Some((major, minor)) => builder.major(major).minor(minor),
        None => builder,
    };
    builder.build().expect("every field has a default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_holds_what_others_are_only_bounded_by() {
        let wanted = HashSet::from(CAPABILITIES);
        assert_eq!(capability_sets(&wanted, true).effective().as_ref(), Some(&wanted));
        let other = capability_sets(&wanted, false);
        assert_eq!(other.bounding().as_ref(), Some(&wanted));
        assert_eq!(other.effective().as_ref().map(HashSet::len), Some(0));
        assert!(other.ambient().is_none() && other.inheritable().is_none());
    }

    #[test]
    fn thermal_throttle_directories_are_found_by_cpu() {
        let cpus = tempfile::tempdir().unwrap();
        for path in ["cpu0/thermal_throttle", "cpu1", "cpufreq/thermal_throttle"] {
            std::fs::create_dir_all(cpus.path().join(path)).unwrap();
        }
        let found = thermal_throttles(cpus.path());
        assert_eq!(found, [cpus.path().join("cpu0/thermal_throttle").to_str().unwrap()]);
    }

    #[test]
    fn mount_points_come_after_the_mounts_that_hold_them() {
        let mounts = mounts(SHM_SIZE);
        let at = |path: &str| mounts.iter().position(|mount| mount.destination() == Path::new(path)).unwrap();
        assert!(
            at("/dev") < at("/dev/pts") && at("/dev") < at("/dev/shm") && at("/sys") < at("/sys/fs/cgroup")
        );
    }
}
