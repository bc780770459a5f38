//! What a container may do: capabilities, seccomp, masked paths, `no-new-privileges`.

use std::collections::HashSet;
use std::str::FromStr;

use caisson_docker_api::container::HostConfig;
use caisson_runtime::{defaults, profile};
use oci_spec::runtime::{Capability, LinuxSeccomp};

use crate::error::{ApiError, chain};

/// Every capability that Linux has, in the order of their numbers (`capability.h`).
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What `--security-opt` says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SecurityOptions<'a> {
    pub(crate) no_new_privileges: bool,
    /// A profile's JSON, `unconfined`, `builtin`, or nothing.
    pub(crate) seccomp: Option<&'a str>,
    /// Whether the container may arrange its own cgroups; without a word a privileged one may.
    pub(crate) writable_cgroups: Option<bool>,
    /// A profile of AppArmor, which our kernels do not have.
    apparmor: Option<&'a str>,
    /// Labels of SELinux, which our kernels do not have.
    labels: Vec<&'a str>,
}

impl<'a> SecurityOptions<'a> {
    /// Reads all of them, the last of each name counts. Errors are moby's (`parseSecurityOpt`).
    pub(crate) fn parse(host: &'a HostConfig) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for option in host.security_opt.iter().flatten() {
            match option.as_str() {
                "no-new-privileges" => options.no_new_privileges = true,
                "writable-cgroups" => options.writable_cgroups = Some(true),
                "disable" => options.labels.push("disable"),
                _ => options.read_pair(option)?,
            }
        }
        Ok(options)
    }

    fn read_pair(&mut self, option: &'a str) -> Result<(), ApiError> {
        let invalid = |at: u8| ApiError::internal(format!("invalid --security-opt {at}: {option:?}"));
        let pair = option.split_once('=').or_else(|| option.split_once(':'));
        let (key, value) = pair.ok_or_else(|| invalid(1))?;
        let yes = || parse_bool(value).ok_or_else(|| invalid(2));
        match key {
            "no-new-privileges" => self.no_new_privileges = yes()?,
            "writable-cgroups" => self.writable_cgroups = Some(yes()?),
            "seccomp" => self.seccomp = Some(value),
            "apparmor" => self.apparmor = Some(value),
            "label" => self.labels.push(value),
            _ => return Err(invalid(2)),
        }
        Ok(())
    }

    /// What is asked of security modules that our kernels do not have. dockerd passes over it without a word; here it is told.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(profile) = self.apparmor.filter(|profile| !matches!(*profile, "" | "unconfined")) {
            warnings.push(format!("Your kernel does not support AppArmor. Profile {profile:?} discarded."));
        }
        if let Some(label) = self.labels.iter().find(|label| **label != "disable") {
            warnings.push(format!("Your kernel does not support SELinux. Label {label:?} discarded."));
        }
        warnings
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What dockerd adds to the options of a container that shares more with its host than labels allow.
pub(crate) fn complete_options(host: &mut HostConfig) {
    let labelled = host.security_opt.iter().flatten().any(|option| option.split('=').next() == Some("label"));
    if !labelled && (host.privileged || host.ipc_mode == "host" || host.pid_mode == "host") {
        host.security_opt.get_or_insert_default().push("label=disable".into());
    }
}

/// The capabilities of the container: Docker's default, less what is dropped, and what is added.
pub(crate) fn capabilities(host: &HostConfig) -> Result<HashSet<Capability>, ApiError> {
    let added = added(host)?;
    let dropped = names("CapDrop", host.cap_drop.as_ref().map_or(&[], |list| &list.0))?;
    if host.privileged {
        return everything();
    }
    let has_all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut set: HashSet<Capability> = if has_all(&added) {
        everything()?
    } else if has_all(&dropped) {
        HashSet::new()
    } else {
        defaults::CAPABILITIES.into()
    };
    for name in dropped.iter().filter(|name| *name != "ALL") {
        set.remove(&capability(name)?);
    }
    for name in added.iter().filter(|name| *name != "ALL") {
        set.insert(capability(name)?);
    }
    Ok(set)
}

/// What it is to have besides Docker's default, in upper case and without `CAP_`.
pub(super) fn added(host: &HostConfig) -> Result<Vec<String>, ApiError> {
    names("CapAdd", host.cap_add.as_ref().map_or(&[], |list| &list.0))
}

/// Every capability that this kernel knows.
pub(crate) fn everything() -> Result<HashSet<Capability>, ApiError> {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    let known = last.trim().parse::<usize>().map_or(ALL.len(), |last| (last + 1).min(ALL.len()));
    ALL[..known].iter().map(|name| capability(name)).collect()
}

fn names(field: &str, list: &[String]) -> Result<Vec<String>, ApiError> {
    let normal = |name: &String| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        if bare == "ALL" || ALL.contains(&bare.as_str()) {
            Ok(bare)
        } else {
            Err(ApiError::invalid(format!(
                "invalid {field}: unknown capability: {:?}",
                format!("CAP_{bare}")
            )))
        }
    };
    list.iter().map(normal).collect()
}

fn capability(name: &str) -> Result<Capability, ApiError> {
    Capability::from_str(name).map_err(|e| ApiError::from_chain("unknown capability", &e))
}

/// The system call filter; `None` for an unconfined container, or a privileged one without a profile of its own.
pub(crate) fn seccomp(
    host: &HostConfig,
    capabilities: &HashSet<Capability>,
    raw_sockets: bool,
) -> Result<Option<LinuxSeccomp>, ApiError> {
    let loaded = match SecurityOptions::parse(host)?.seccomp {
        Some("unconfined") => return Ok(None),
        None | Some("" | "builtin") if host.privileged => return Ok(None),
        None | Some("" | "builtin") => defaults::seccomp(capabilities, raw_sockets),
        Some(json) => profile::load(json, capabilities),
    };
    loaded.map_err(|e| ApiError::invalid(chain(&e)))
}

pub(crate) fn no_new_privileges(host: &HostConfig) -> Result<bool, ApiError> {
    Ok(SecurityOptions::parse(host)?.no_new_privileges)
}

/// The paths to hide and those to protect, of a new container whose user did not name them.
pub(crate) fn default_paths(host: &mut HostConfig) {
    if !host.privileged {
        host.masked_paths.get_or_insert_with(defaults::masked_paths);
        host.readonly_paths.get_or_insert_with(defaults::readonly_paths);
    }
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::Strings;

    use super::*;

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let list = |names: &[&str]| Some(Strings(names.iter().map(|&n| n.to_owned()).collect()));
        HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() }
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let of = |add: &[&str], drop: &[&str]| capabilities(&host(add, drop)).unwrap();
        assert_eq!(of(&[], &[]), defaults::CAPABILITIES.into());
        assert_eq!(of(&["net_admin"], &["ALL"]), [Capability::NetAdmin].into());
        assert!(!of(&["ALL"], &["CAP_SYS_ADMIN"]).contains(&Capability::SysAdmin));
        assert!(of(&["all"], &[]).contains(&Capability::SysTime));
        let refused = capabilities(&host(&["FOO"], &[])).unwrap_err().message;
        assert_eq!(refused, "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    }

    #[test]
    fn every_capability_is_known_to_the_runtime() {
        for name in ALL {
            assert!(capability(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn security_options_are_read_or_refused() {
        let with =
            |option: &str| HostConfig { security_opt: Some(vec![option.into()]), ..HostConfig::default() };
        assert!(no_new_privileges(&with("no-new-privileges")).unwrap());
        assert!(!no_new_privileges(&with("no-new-privileges=false")).unwrap());
        assert_eq!(seccomp(&with("seccomp=unconfined"), &HashSet::new(), false).unwrap(), None);
        let default = seccomp(&HostConfig::default(), &defaults::CAPABILITIES.into(), false);
        assert!(default.unwrap().is_some());
        assert!(with_warnings("apparmor=docker-default").contains("AppArmor"));
        assert_eq!(with_warnings("apparmor=unconfined") + &with_warnings("label=disable"), "");
        for (option, at) in
            [("foo", 1), ("foo=bar", 2), ("systempaths=unconfined", 2), ("no-new-privileges=x", 2)]
        {
            assert_eq!(
                SecurityOptions::parse(&with(option)).unwrap_err(),
                ApiError::internal(format!("invalid --security-opt {at}: {option:?}"))
            );
        }
    }

    fn with_warnings(option: &str) -> String {
        let host = HostConfig { security_opt: Some(vec![option.into()]), ..HostConfig::default() };
        SecurityOptions::parse(&host).unwrap().warnings().join("\n")
    }

    #[test]
    fn who_shares_with_the_host_has_no_labels() {
        let mut host = HostConfig { pid_mode: "host".into(), ..HostConfig::default() };
        complete_options(&mut host);
        assert_eq!(host.security_opt, Some(vec!["label=disable".into()]));
        let mut labelled = HostConfig {
            security_opt: Some(vec!["label=type:x".into()]),
            privileged: true,
            ..HostConfig::default()
        };
        complete_options(&mut labelled);
        assert_eq!(labelled.security_opt, Some(vec!["label=type:x".into()]));
    }
}
