//! Small settings of the process and its namespaces: resource limits, out-of-memory score, kernel parameters.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::failure::{Context, Failure, text};
use crate::namespaces::Namespaces;
use crate::rootfs::Root;
use crate::spec::{NamespaceKind, Rlimit as Wanted};

/// While the process still may raise its limits.
pub(crate) fn limit(limits: &[Wanted]) -> Result<(), Failure> {
    for wanted in limits {
        let value = |number: u64| (number != u64::MAX).then_some(number);
        let limit = Rlimit { current: value(wanted.soft), maximum: value(wanted.hard) };
        let name = &wanted.kind;
        setrlimit(resource(name)?, limit).context(|| format!("error setting rlimit type {name}"))?;
    }
    Ok(())
}

fn resource(name: &str) -> Result<Resource, Failure> {
    Ok(match name {
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        other => return Err(Failure::invalid(format!("invalid rlimit type {other}"))),
    })
}

/// On the host's `/proc`, before it is left behind.
pub(crate) fn score_out_of_memory(score: i32) -> Result<(), Failure> {
    let file = "/proc/self/oom_score_adj";
    fs::write(file, score.to_string()).context(|| format!("write {file}"))
}

/// Sets kernel parameters of the container's namespaces, through the container's own `/proc`.
pub(crate) fn set_parameters(
    root: &Root,
    parameters: &HashMap<String, String>,
    own: &Namespaces,
) -> Result<(), Failure> {
    for (name, value) in parameters {
        refuse_hosts(name, own)?;
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let file = root.get(&path, OFlags::WRONLY).context(|| format!("open {}", path.display()))?;
        fs::File::from(file)
            .write_all(value.as_bytes())
            .map_err(|error| Failure::invalid(format!("write sysctl {name} = {value}: {}", text(&error))))?;
    }
    Ok(())
}

/// A parameter that is not of a namespace of the container's own is the whole system's.
fn refuse_hosts(name: &str, own: &Namespaces) -> Result<(), Failure> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let dotted = name.replace('/', ".");
    if dotted.split('.').any(|part| part.is_empty()) {
        return refuse(format!("sysctl {name:?} is not a name"));
    }
    let namespace = if dotted.starts_with("net.") {
        NamespaceKind::Network
    } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        NamespaceKind::Ipc
    } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
        NamespaceKind::Uts
    } else {
        return refuse(format!("sysctl {name:?} is not in a separate kernel namespace"));
    };
    if own.has(namespace) {
        return Ok(());
    }
    refuse(match namespace {
        NamespaceKind::Network => format!("sysctl {name:?} not allowed in host network namespace"),
        _ => format!("sysctl {name:?} is not allowed in the hosts {namespace} namespace"),
    })
}

/// In runc's words, and as a failure of runc's.
fn refuse(why: String) -> Result<(), Failure> {
    Err(Failure::other(format!("runc create failed: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_own_parameters_may_be_set() {
        let own = Namespaces::new_of(&[NamespaceKind::Network]);
        assert!(refuse_hosts("net.ipv4.ip_forward", &own).is_ok());
        assert!(refuse_hosts("net/ipv4/ip_forward", &own).is_ok());
        for (name, message) in [
            ("kernel.msgmax", "is not allowed in the hosts ipc namespace"),
            ("vm.swappiness", "is not in a separate kernel namespace"),
            ("net..x", "is not a name"),
        ] {
            let refused = refuse_hosts(name, &own).unwrap_err().message;
            assert!(refused.contains(message), "{refused}");
        }
    }
}
