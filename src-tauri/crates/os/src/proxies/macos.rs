//! The settings of the network that is in use.

use super::{LIMIT, Proxies, scutil};
use crate::printed::printed_by;
use std::{io, process::Command};

pub(super) fn proxies() -> io::Result<Proxies> {
    printed_by(Command::new("/usr/sbin/scutil").arg("--proxy"), LIMIT)
        .map(|printed| scutil::proxies(&printed))
}
