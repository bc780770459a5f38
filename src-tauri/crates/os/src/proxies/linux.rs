//! GNOME's settings, where there are any; desktops of other kinds use the environment, or these.

use super::{LIMIT, Proxies, gsettings};
use crate::printed::printed_by;
use std::{io, process::Command};

pub(super) fn proxies() -> io::Result<Proxies> {
    let mut ask = Command::new("gsettings");
    match printed_by(ask.args(["list-recursively", "org.gnome.system.proxy"]), LIMIT) {
        // Without the program there are no such settings; without the settings it prints nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Proxies::default()),
        printed => printed.map(|printed| gsettings::proxies(&printed)),
    }
}
