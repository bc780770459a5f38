//! Docker's seccomp profiles: the OCI format plus conditions on the architecture, the capabilities and the kernel.
//!
//! `docker run --security-opt seccomp=FILE` takes this format, and the default profile is written in it. [`load`] settles the conditions, as
//! moby's `profiles/seccomp` does, and leaves an OCI profile that [`crate::seccomp`] can compile.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON of this format.
    #[error("Decoding seccomp profile failed: {0}")]
    Format(#[from] serde_json::Error),
    /// Two fields that exclude each other.
    #[error("both '{0}' and '{1}' are specified in the seccomp profile, use either '{0}' or '{1}'")]
    Both(&'static str, &'static str),
    /// A kernel version that is not two numbers.
    #[error("invalid kernel version {0:?} in the seccomp profile")]
    KernelVersion(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Option<LinuxSeccompAction>,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

/// The first is a string because Docker's list has architectures that the OCI crate does not know and that are not ours.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What the conditions are about.
struct Here<'a> {
    /// As Docker calls it: `amd64`.
    arch: &'static str,
    /// As libseccomp calls it: `SCMP_ARCH_X86_64`.
    native: &'static str,
    kernel: (u32, u32),
    bounding: &'a HashSet<String>,
}

/// The OCI profile that `profile` (JSON text) means for a container with these capabilities on this machine. `None` if it filters nothing.
///
/// # Errors
/// Errors in the profile, in moby's words.
pub fn load(profile: &str, bounding: &HashSet<Capability>) -> Result<Option<LinuxSeccomp>, ProfileError> {
    let names = bounding.iter().map(|capability| format!("CAP_{capability}")).collect();
    let (arch, native) = if cfg!(target_arch = "x86_64") {
        ("amd64", "SCMP_ARCH_X86_64")
    } else {
        ("arm64", "SCMP_ARCH_AARCH64")
    };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let here = Here { arch, native, kernel: kernel_version(&release)?, bounding: &names };
    resolve(serde_json::from_str(profile)?, &here)
}

fn resolve(profile: Profile, here: &Here<'_>) -> Result<Option<LinuxSeccomp>, ProfileError> {
    let rules = profile.syscalls.unwrap_or_default();
    if profile.default_action.is_none() && rules.is_empty() {
        return Ok(None);
    }
    let mut architectures = profile.architectures.unwrap_or_default();
    let arch_map = profile.arch_map.unwrap_or_default();
    if !architectures.is_empty() && !arch_map.is_empty() {
        return Err(ProfileError::Both("architectures", "archMap"));
    }
    if let Some(entry) = arch_map.into_iter().find(|entry| entry.architecture == here.native) {
        architectures.push(serde_json::from_value(entry.architecture.into())?);
        for sub in entry.sub_architectures.unwrap_or_default() {
            architectures.push(serde_json::from_value(sub)?);
        }
    }
    let mut syscalls = Vec::new();
    for rule in rules {
        if applies(&rule, here)? {
            syscalls.push(into_syscall(rule)?);
        }
    }
    let mut resolved = LinuxSeccomp::default();
    resolved
        .set_default_action(profile.default_action.unwrap_or_default())
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(Some(architectures))
        .set_flags(profile.flags)
        .set_syscalls(Some(syscalls));
    Ok(Some(resolved))
}

fn into_syscall(rule: Rule) -> Result<LinuxSyscall, ProfileError> {
    let mut names = rule.names.unwrap_or_default();
    if !rule.name.is_empty() {
        if !names.is_empty() {
            return Err(ProfileError::Both("name", "names"));
        }
        names.push(rule.name);
    }
    let mut syscall = LinuxSyscall::default();
    syscall.set_names(names).set_action(rule.action).set_errno_ret(rule.errno_ret).set_args(rule.args);
    Ok(syscall)
}

fn applies(rule: &Rule, here: &Here<'_>) -> Result<bool, ProfileError> {
    if let Some(excludes) = &rule.excludes
        && (excludes.arches.iter().any(|arch| arch == here.arch)
            || excludes.caps.iter().any(|cap| here.bounding.contains(cap))
            || reaches(here, excludes)? == Some(true))
    {
        return Ok(false);
    }
    let Some(includes) = &rule.includes else { return Ok(true) };
    Ok((includes.arches.is_empty() || includes.arches.iter().any(|arch| arch == here.arch))
        && includes.caps.iter().all(|cap| here.bounding.contains(cap))
        && reaches(here, includes)? != Some(false))
}

/// Whether this kernel is as new as the filter says; `None` if it says nothing.
fn reaches(here: &Here<'_>, filter: &Filter) -> Result<Option<bool>, ProfileError> {
    filter.min_kernel.as_deref().map(|least| Ok(here.kernel >= kernel_version(least)?)).transpose()
}

/// `6.12.41+deb13-amd64` is (6, 12).
fn kernel_version(release: &str) -> Result<(u32, u32), ProfileError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(ProfileError::KernelVersion(release.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str, arch: &'static str, kernel: (u32, u32), caps: &[&str]) -> Vec<String> {
        let bounding = caps.iter().map(ToString::to_string).collect();
        let here = Here { arch, native: "SCMP_ARCH_X86_64", kernel, bounding: &bounding };
        let resolved = resolve(serde_json::from_str(json).unwrap(), &here).unwrap().unwrap();
        resolved.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn conditions_are_settled_as_moby_does() {
        let rule = |condition: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["bpf"],"action":"SCMP_ACT_ALLOW",{condition}}}]}}"#
            )
        };
        let caps = rule(r#""includes":{"caps":["CAP_BPF","CAP_SYS_ADMIN"]}"#);
        assert!(names(&caps, "amd64", (6, 1), &["CAP_BPF"]).is_empty());
        assert_eq!(names(&caps, "amd64", (6, 1), &["CAP_BPF", "CAP_SYS_ADMIN"]), ["bpf"]);
        let excluded = rule(r#""excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390"]}"#);
        assert_eq!(names(&excluded, "amd64", (6, 1), &[]), ["bpf"]);
        assert!(names(&excluded, "amd64", (6, 1), &["CAP_SYS_ADMIN"]).is_empty());
        assert!(names(&excluded, "s390", (6, 1), &[]).is_empty());
        let kernel = rule(r#""includes":{"minKernel":"4.8"}"#);
        assert!(names(&kernel, "amd64", (4, 7), &[]).is_empty());
        assert_eq!(names(&kernel, "amd64", (4, 8), &[]), ["bpf"]);
    }

    #[test]
    fn the_default_profile_opens_with_capabilities() {
        let allowed = |caps: &[Capability]| {
            let profile = crate::defaults::seccomp(&caps.iter().copied().collect(), true).unwrap().unwrap();
            let rules = profile.syscalls().clone().unwrap();
            rules.iter().any(|rule| rule.names().contains(&"mount".to_string()))
        };
        assert!(!allowed(&crate::defaults::CAPABILITIES));
        assert!(allowed(&[Capability::SysAdmin]));
    }

    #[test]
    fn a_bad_profile_says_what_is_wrong() {
        let none = HashSet::new();
        assert!(matches!(load("{", &none), Err(ProfileError::Format(_))));
        let both = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#;
        let refused = load(both, &none).unwrap_err().to_string();
        assert!(refused.starts_with("both 'architectures' and 'archMap' are specified"), "{refused}");
        assert!(load("{}", &none).unwrap().is_none());
    }
}
