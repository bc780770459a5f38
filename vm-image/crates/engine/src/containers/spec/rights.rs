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
    no_new_privileges: bool,
    /// A profile's JSON, `unconfined`, or nothing.
    seccomp: Option<&'a str>,
    unmask: bool,
}

impl<'a> SecurityOptions<'a> {
    pub(crate) fn parse(host: &'a HostConfig) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for (position, option) in host.security_opt.iter().flatten().enumerate() {
            let unknown =
                || ApiError::internal(format!("invalid --security-opt {}: {option:?}", position + 1));
            if option == "no-new-privileges" {
                options.no_new_privileges = true;
                continue;
            }
            let (key, value) =
                option.split_once('=').or_else(|| option.split_once(':')).ok_or_else(unknown)?;
            match key {
                "no-new-privileges" => options.no_new_privileges = value.parse().map_err(|_| unknown())?,
                "seccomp" => options.seccomp = Some(value),
                "systempaths" if value == "unconfined" => options.unmask = true,
                // Neither is in our kernels; to ask for none of it is to ask for what there is.
                "apparmor" if value == "unconfined" => {}
                "label" if value == "disable" => {}
                "apparmor" | "label" => {
                    return Err(ApiError::not_implemented(format!(
                        "security option {option:?} is not supported by this version of Caisson"
                    )));
                }
                _ => return Err(unknown()),
            }
        }
        Ok(options)
    }
}

/// The capabilities of the container: Docker's default, less what is dropped, and what is added.
pub(crate) fn capabilities(host: &HostConfig) -> Result<HashSet<Capability>, ApiError> {
    let added = names("CapAdd", host.cap_add.as_ref().map_or(&[], |list| &list.0))?;
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

fn everything() -> Result<HashSet<Capability>, ApiError> {
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

/// The system call filter; `None` for a privileged or an unconfined container.
pub(crate) fn seccomp(
    host: &HostConfig,
    capabilities: &HashSet<Capability>,
) -> Result<Option<LinuxSeccomp>, ApiError> {
    let loaded = match SecurityOptions::parse(host)?.seccomp {
        Some("unconfined") => return Ok(None),
        _ if host.privileged => return Ok(None),
        None | Some("builtin") => defaults::seccomp(capabilities),
        Some(json) => profile::load(json, capabilities),
    };
    loaded.map_err(|e| ApiError::invalid(chain(&e)))
}

pub(crate) fn no_new_privileges(host: &HostConfig) -> Result<bool, ApiError> {
    Ok(SecurityOptions::parse(host)?.no_new_privileges)
}

/// The paths to hide and those to protect, of a new container whose user did not name them.
pub(crate) fn default_paths(host: &mut HostConfig) -> Result<(), ApiError> {
    let unmask = host.privileged || SecurityOptions::parse(host)?.unmask;
    let list = |default: fn() -> Vec<String>| if unmask { Vec::new() } else { default() };
    host.masked_paths.get_or_insert_with(|| list(defaults::masked_paths));
    host.readonly_paths.get_or_insert_with(|| list(defaults::readonly_paths));
    Ok(())
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
        assert_eq!(seccomp(&with("seccomp=unconfined"), &HashSet::new()).unwrap(), None);
        assert!(seccomp(&HostConfig::default(), &defaults::CAPABILITIES.into()).unwrap().is_some());
        let foo = with("foo");
        assert_eq!(
            SecurityOptions::parse(&foo).unwrap_err(),
            ApiError::internal("invalid --security-opt 1: \"foo\"")
        );
    }
}
