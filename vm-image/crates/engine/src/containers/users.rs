//! Users of a container's own (`--userns-remap`): a user namespace, and a network namespace that belongs to it.
//!
//! The network namespace holds the other one, so that nothing else has to: the container's shim finds its user namespace by it. Layers and
//! volumes lie on the disk as their images' users have them, whoever the containers' root is, and are shown to a container as its users'
//! (idmapped mounts). So the containers of one engine share them, those that have the host's users (`--userns host`) too, for which dockerd's
//! are somebody else's. What a volume's options name (a directory, a disk, a server) is not shown so: it belongs to whom it belongs.
//!
//! An engine with these ids has a data root of its own in the one that it is told, named after them, as dockerd's has: it starts empty, and
//! what was made without the option, or with other ids, is there again when the engine is started so.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use caisson_docker_api::container::HostConfig;
use caisson_shim::config::NAMESPACES_COMMAND;
use caisson_sys::spawn::{Detached, detached};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::{Ground, Shared};
use crate::error::ApiError;
use crate::remap::Remap;

/// How long making namespaces may take.
const WITHIN: Duration = Duration::from_secs(10);

impl Ground {
    /// Who this container's users are on this system, if they are others than its own.
    pub(super) fn remap_of(&self, host: &HostConfig) -> Option<&Remap> {
        self.remap.as_ref().filter(|_| host.userns_mode != "host")
    }
}

/// What such a container cannot share with the host, in dockerd's words.
pub(super) fn check(host: &HostConfig) -> Result<(), ApiError> {
    let conflicts = [
        (
            host.privileged,
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ),
        (
            host.network_mode == "host",
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (host.pid_mode == "host", "cannot share the host PID namespace when user namespaces are enabled"),
    ];
    match conflicts.into_iter().find(|(conflict, _)| *conflict) {
        Some((_, why)) => Err(ApiError::invalid(why)),
        None => Ok(()),
    }
}

/// Makes the network namespace of a container in a user namespace of its own, or, if it shares other namespaces with a container, in that
/// one's. Blocks.
pub(super) fn make_network(shim: &Path, remap: &Remap, shared: &Shared) -> io::Result<OwnedFd> {
    let donor = shared.process().map(|pid| pid.to_string());
    let (ours, its) = UnixStream::pair()?;
    let arguments: Vec<&OsStr> =
        [Some(NAMESPACES_COMMAND), donor.as_deref()].into_iter().flatten().map(OsStr::new).collect();
    let mut log = File::from(memfd_create(c"namespaces", MemfdFlags::CLOEXEC)?);
    let descriptors = [(its.as_fd(), 0), (its.as_fd(), 1), (log.as_fd(), 2)];
    let process = detached(&Detached { program: shim, arguments: &arguments, descriptors: &descriptors })?;
    drop(its);
    let taken = take(ours, process, remap, donor.is_some());
    // It ends by the end of its input, if it has not ended before.
    waitpid(Some(process), WaitOptions::empty())?;
    taken.map_err(|error| with_reason(error, &mut log))
}

/// An error with what the program that failed has said.
fn with_reason(error: io::Error, log: &mut File) -> io::Error {
    let mut said = String::new();
    let read = log.rewind().and_then(|()| log.read_to_string(&mut said));
    match (read, said.trim()) {
        (Ok(_), said) if !said.is_empty() => io::Error::new(error.kind(), format!("{said} ({error})")),
        _ => error,
    }
}

fn take(mut helper: UnixStream, process: Pid, remap: &Remap, joined: bool) -> io::Result<OwnedFd> {
    helper.set_read_timeout(Some(WITHIN))?;
    let proc = Path::new("/proc").join(process.as_raw_nonzero().to_string());
    helper.read_exact(&mut [0])?;
    if !joined {
        let (users, groups) = remap.maps();
        fs::write(proc.join("uid_map"), users)?;
        fs::write(proc.join("gid_map"), groups)?;
    }
    helper.write_all(b".")?;
    helper.read_exact(&mut [0])?;
    Ok(File::open(proc.join("ns/net"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_namespaces_cannot_be_made_is_told() {
        let mut log = tempfile::tempfile().unwrap();
        log.write_all(b"open /proc/0/ns/user: No such file\n").unwrap();
        let told = with_reason(io::ErrorKind::UnexpectedEof.into(), &mut log).to_string();
        assert_eq!(told, "open /proc/0/ns/user: No such file (unexpected end of file)");
        assert_eq!(
            with_reason(io::ErrorKind::TimedOut.into(), &mut tempfile::tempfile().unwrap()).to_string(),
            "timed out"
        );
    }

    #[test]
    fn what_is_the_host_s_is_not_shared() {
        let said = |host: HostConfig| check(&host).map_err(|error| error.message).err();
        assert_eq!(said(HostConfig::default()), None);
        let host = "host".to_owned();
        assert!(
            said(HostConfig { privileged: true, ..HostConfig::default() })
                .unwrap()
                .starts_with("privileged mode")
        );
        assert!(
            said(HostConfig { network_mode: host.clone(), ..HostConfig::default() })
                .unwrap()
                .contains("network")
        );
        assert!(said(HostConfig { pid_mode: host, ..HostConfig::default() }).unwrap().contains("PID"));
    }
}
