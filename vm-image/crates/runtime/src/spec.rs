//! The part of the OCI runtime spec that this runtime obeys.
//!
//! The engine composes a spec with the types of the `oci-spec` crate; between the two is JSON. That crate's types also know Windows, virtual
//! machines and a regular expression engine, and would make every shim three times as big; these are read and nothing else. What is in the
//! spec and not obeyed is refused by [`Spec::refuse_unsupported`], not passed over.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::failure::Failure;

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Its root directory.
    pub root: Root,
    /// Its program.
    pub process: Process,
    /// Its name for itself.
    pub hostname: String,
    /// Its NIS domain.
    pub domainname: String,
    /// What is mounted in it, in order.
    pub mounts: Vec<Mount>,
    /// Everything of Linux.
    pub linux: Linux,
    hooks: Option<IgnoredAny>,
}

/// `root`; its `path` is not used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Whether it cannot be written to.
    pub readonly: bool,
}

/// `process`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    /// Whether it has a terminal.
    pub terminal: bool,
    /// How big that is at first.
    pub console_size: Option<ConsoleSize>,
    /// Who it is.
    pub user: User,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where it begins.
    pub cwd: PathBuf,
    /// Its rights; without them it keeps the shim's.
    pub capabilities: Option<Capabilities>,
    /// Its resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Whether it can gain no rights by executing something.
    pub no_new_privileges: bool,
    /// How willingly the kernel kills it for its memory.
    pub oom_score_adj: Option<i32>,
    apparmor_profile: Option<IgnoredAny>,
    selinux_label: Option<IgnoredAny>,
    io_priority: Option<IgnoredAny>,
    scheduler: Option<IgnoredAny>,
    #[serde(rename = "execCPUAffinity")]
    exec_cpu_affinity: Option<IgnoredAny>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ConsoleSize {
    /// Lines.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

/// `process.user`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Which rights new files do not get.
    pub umask: Option<u32>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`, by name (`CAP_CHOWN`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What can ever be had.
    pub bounding: Vec<String>,
    /// What counts now.
    pub effective: Vec<String>,
    /// What files may add.
    pub inheritable: Vec<String>,
    /// What may become effective.
    pub permitted: Vec<String>,
    /// What outlives an `execve`.
    pub ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// What cannot be exceeded; `u64::MAX` is no limit.
    pub hard: u64,
    /// What holds now.
    pub soft: u64,
}

/// One of `mounts`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Where, in the container.
    pub destination: PathBuf,
    /// Which file system.
    #[serde(rename = "type")]
    pub kind: String,
    /// What.
    pub source: Option<PathBuf>,
    /// How, as `mount(8)` has it.
    pub options: Vec<String>,
    uid_mappings: Option<IgnoredAny>,
    gid_mappings: Option<IgnoredAny>,
}

impl Mount {
    /// The mount of something of this system.
    pub(crate) fn bind(bind: &crate::view::Bind) -> Self {
        Self {
            destination: bind.destination.clone(),
            kind: bind.kind.clone(),
            source: Some(bind.source.clone()),
            options: bind.options.clone(),
            uid_mappings: None,
            gid_mappings: None,
        }
    }
}

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// Kernel parameters.
    pub sysctl: HashMap<String, String>,
    /// Limits.
    pub resources: Resources,
    /// Its place in the cgroup hierarchy.
    pub cgroups_path: Option<PathBuf>,
    /// New and joined namespaces.
    pub namespaces: Vec<Namespace>,
    /// Device nodes besides the usual ones.
    pub devices: Vec<Device>,
    /// Which system calls it may make.
    pub seccomp: Option<Seccomp>,
    /// How mounts travel between its root and the host.
    pub rootfs_propagation: String,
    /// What it cannot see.
    pub masked_paths: Vec<String>,
    /// What it cannot change.
    pub readonly_paths: Vec<String>,
    /// What the user namespace that it joins makes of users. Told, because the spec's reader need not ask the kernel.
    pub uid_mappings: Vec<IdMapping>,
    /// The same of groups.
    pub gid_mappings: Vec<IdMapping>,
    mount_label: Option<IgnoredAny>,
    intel_rdt: Option<IgnoredAny>,
    memory_policy: Option<IgnoredAny>,
    personality: Option<IgnoredAny>,
    time_offsets: Option<IgnoredAny>,
    net_devices: Option<IgnoredAny>,
}

impl Linux {
    /// The container's root as the host numbers it, user and group; the host's own without a user namespace.
    pub(crate) fn root(&self) -> (u32, u32) {
        let root = |mappings: &[IdMapping]| {
            mappings.iter().find(|mapping| mapping.container_id == 0).map_or(0, |mapping| mapping.host_id)
        };
        (root(&self.uid_mappings), root(&self.gid_mappings))
    }
}

/// One of `linux.uidMappings` or `linux.gidMappings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct IdMapping {
    /// The first id in the container.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// What that is on the host.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// One of `linux.namespaces`.
#[derive(Debug, Deserialize)]
pub struct Namespace {
    /// Of what.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// Which to join; without it a new one. Of a user namespace it may be any namespace that belongs to it.
    pub path: Option<PathBuf>,
}

/// What a namespace is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the kernel's, see namespaces(7)")]
pub enum NamespaceKind {
    Mount,
    Pid,
    Network,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

impl fmt::Display for NamespaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mount => "mount",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        })
    }
}

/// One of `linux.devices`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// Where, in the container.
    pub path: PathBuf,
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its number.
    pub major: i64,
    /// Its number.
    pub minor: i64,
    /// Its rights.
    pub file_mode: Option<u32>,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

/// `linux.resources`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Which devices may be used; the last rule that fits decides.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Memory,
    /// Processors.
    pub cpu: Cpu,
    /// Processes.
    pub pids: Pids,
    /// Disks.
    #[serde(rename = "blockIO")]
    pub block_io: BlockIo,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Files of cgroup v2 and what to write to them.
    pub unified: HashMap<String, String>,
    rdma: Option<IgnoredAny>,
}

/// One of `linux.resources.devices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// May or may not.
    pub allow: bool,
    /// `a` (or nothing), `b` or `c`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Of all numbers if there is none, or -1.
    pub major: Option<i64>,
    /// Of all numbers if there is none, or -1.
    pub minor: Option<i64>,
    /// Of `r`, `w` and `m`.
    pub access: Option<String>,
}

/// `linux.resources.memory`, in bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// All it can have.
    pub limit: Option<i64>,
    /// What it keeps when others want it.
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
}

/// `linux.resources.cpu`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Its weight, where 1024 is usual.
    pub shares: Option<u64>,
    /// Microseconds a period.
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Which processors.
    pub cpus: Option<String>,
    /// Which memory nodes.
    pub mems: Option<String>,
    #[serde(rename = "realtimeRuntime")]
    pub(crate) realtime_runtime: Option<i64>,
    #[serde(rename = "realtimePeriod")]
    pub(crate) realtime_period: Option<u64>,
}

/// `linux.resources.pids`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// How many.
    pub limit: Option<i64>,
}

/// `linux.resources.blockIO`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// Bytes a second.
    pub throttle_read_bps_device: Vec<Throttle>,
    /// Bytes a second.
    pub throttle_write_bps_device: Vec<Throttle>,
    /// Operations a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<Throttle>,
    /// Operations a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<Throttle>,
    /// 10 to 1000, of single disks.
    pub weight_device: Vec<WeightDevice>,
}

/// A weight for one disk.
#[derive(Debug, Deserialize)]
pub struct WeightDevice {
    /// The disk's number.
    pub major: i64,
    /// The disk's number.
    pub minor: i64,
    /// 10 to 1000.
    pub weight: Option<u16>,
}

/// A limit of one disk.
#[derive(Debug, Deserialize)]
pub struct Throttle {
    /// The disk's number.
    pub major: i64,
    /// The disk's number.
    pub minor: i64,
    /// How much a second.
    pub rate: u64,
}

/// One of `linux.resources.hugepageLimits`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugepageLimit {
    /// `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: i64,
}

/// `linux.seccomp`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to a call that no rule is about.
    pub default_action: Action,
    /// With which error.
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_X86_64` and so on; the machine's own is always among them.
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_LOG` and so on.
    pub flags: Option<Vec<String>>,
    /// The rules.
    pub syscalls: Vec<Rule>,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are the kernel's, see seccomp(2)")]
pub enum Action {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
    #[default]
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
}

/// One of `linux.seccomp.syscalls`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// Which calls.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// With which error.
    pub errno_ret: Option<u32>,
    /// If what.
    pub args: Vec<Condition>,
}

/// A condition on a call's argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which argument, from 0.
    pub index: usize,
    /// Compared with what; for [`Operator::MaskedEqual`] the mask.
    pub value: u64,
    /// For [`Operator::MaskedEqual`]: compared with what.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl Spec {
    /// Says no to what is asked for and cannot be given.
    pub(crate) fn refuse_unsupported(&self) -> Result<(), Failure> {
        let (process, linux, resources) = (&self.process, &self.linux, &self.linux.resources);
        let asked = [
            ("hooks", self.hooks.is_some()),
            ("process.apparmorProfile", process.apparmor_profile.is_some()),
            ("process.selinuxLabel", process.selinux_label.is_some()),
            ("process.ioPriority", process.io_priority.is_some()),
            ("process.scheduler", process.scheduler.is_some()),
            ("process.execCPUAffinity", process.exec_cpu_affinity.is_some()),
            ("mounts.uidMappings", self.mounts.iter().any(|mount| mount.uid_mappings.is_some())),
            ("mounts.gidMappings", self.mounts.iter().any(|mount| mount.gid_mappings.is_some())),
            ("linux.mountLabel", linux.mount_label.is_some()),
            ("linux.intelRdt", linux.intel_rdt.is_some()),
            ("linux.memoryPolicy", linux.memory_policy.is_some()),
            ("linux.personality", linux.personality.is_some()),
            ("linux.timeOffsets", linux.time_offsets.is_some()),
            ("linux.netDevices", linux.net_devices.is_some()),
            ("linux.resources.rdma", resources.rdma.is_some()),
        ];
        match asked.into_iter().find(|(_, asked)| *asked) {
            Some((field, _)) => Err(Failure::invalid(format!("{field} is not supported"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime as oci;

    fn read(spec: &oci::Spec) -> Spec {
        serde_json::from_value(serde_json::to_value(spec).unwrap()).unwrap()
    }

    #[test]
    fn what_the_oci_crate_writes_is_read() {
        let capabilities = crate::defaults::CAPABILITIES.into_iter().collect();
        let mut spec = oci::Spec::default();
        let mut linux = oci::Linux::default();
        linux.set_seccomp(crate::defaults::seccomp(&capabilities, true).unwrap());
        spec.set_linux(Some(linux)).set_mounts(Some(crate::defaults::mounts(1)));
        let read = read(&spec);
        assert_eq!(read.process.args, ["sh"]);
        assert_eq!(read.mounts.len(), 7);
        assert!(read.linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Network));
        let seccomp = read.linux.seccomp.as_ref().unwrap();
        assert_eq!(seccomp.default_action, Action::Errno);
        assert!(
            seccomp
                .syscalls
                .iter()
                .any(|rule| rule.args.iter().any(|argument| argument.op == Operator::MaskedEqual))
        );
        read.refuse_unsupported().unwrap();
    }

    #[test]
    fn what_is_not_obeyed_is_refused() {
        for (json, field) in [
            (r#"{"hooks":{"poststart":[]}}"#, "hooks"),
            (r#"{"process":{"selinuxLabel":"x"}}"#, "process.selinuxLabel"),
        ] {
            let spec: Spec = serde_json::from_str(json).unwrap();
            let refused = spec.refuse_unsupported().unwrap_err().message;
            assert_eq!(refused, format!("{field} is not supported"));
        }
    }
}
