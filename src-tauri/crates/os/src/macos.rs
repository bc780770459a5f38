//! macOS.

use crate::{Endpoint, Holder};
use directories::{ProjectDirs, UserDirs};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub(crate) use crate::unix::{
    detach_from_terminal, docker_host, is_private, make_private, name_servers, program, raise_file_limit,
    silence_output, spawn_detached,
};

pub(crate) fn logs_dir(project: &ProjectDirs) -> PathBuf {
    home(project).join("Library/Logs/caisson")
}

/// Not below `Application Support`: a socket's path is in people's `DOCKER_HOST`, where a space is a nuisance, and may
/// have no more than 103 bytes.
pub(crate) fn runtime_dir(project: &ProjectDirs) -> PathBuf {
    home(project).join(".caisson/run")
}

fn home(project: &ProjectDirs) -> PathBuf {
    UserDirs::new().map_or_else(|| project.data_local_dir().to_owned(), |user| user.home_dir().to_owned())
}

pub(crate) fn docker_endpoint(runtime: &Path) -> Endpoint {
    Endpoint::new(runtime.join("docker.sock"))
}

pub(crate) fn daemon_endpoint(runtime: &Path) -> Endpoint {
    Endpoint::new(runtime.join("caisson-host.sock"))
}

/// macOS tells only by `libproc`, socket by socket of every process; not worth its `unsafe` for a nicer message.
pub(crate) fn holder_of_tcp_port(_address: SocketAddr) -> Holder {
    Holder::Unknown("macOS does not say which program it is; `lsof -nP -iTCP -sTCP:LISTEN` does")
}
