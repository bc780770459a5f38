//! What the daemon was told on its command line, and what follows from it.

use anyhow::{Context, bail};
use caisson_machine::{Limits, MachineConfig};
use caisson_os::Dirs;
use clap::Parser;
use std::{
    net::SocketAddr,
    num::NonZero,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use caisson_hypervisor::Mib;

/// caisson-host: owns the Caisson machine and the Docker socket. Started by `caisson start` or the window.
#[derive(Debug, Parser)]
#[command(name = "caisson-host", version)]
pub(crate) struct Args {
    /// Directory with the machine's image (kernel, initrd, manifest.json) [default: ../vm-image beside this program]
    #[arg(long, value_name = "DIR", env = "CAISSON_VM_IMAGE")]
    pub(crate) vm_image: Option<PathBuf>,

    /// Virtual processors of the machine [default: as many as this computer has]
    #[arg(long, value_name = "NUMBER", env = "CAISSON_CPUS")]
    pub(crate) cpus: Option<NonZero<u32>>,

    /// Memory of the machine in MiB
    #[arg(long, value_name = "MIB", env = "CAISSON_MEMORY", default_value_t = 2048, value_parser = mib(256))]
    pub(crate) memory: u64,

    /// What the machine's data disk can grow to, in MiB; the file takes what is used, and is never made smaller
    #[arg(long, value_name = "MIB", env = "CAISSON_DISK", default_value_t = 65_536, value_parser = mib(256))]
    pub(crate) disk: u64,

    /// Give containers this computer's proxies in their environment (HTTP_PROXY and so on), unless they are given others
    #[arg(
        long,
        env = "CAISSON_CONTAINER_PROXIES",
        value_parser = clap::builder::FalseyValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub(crate) container_proxies: bool,

    /// Start the machine at once, not only when it is needed
    #[arg(long)]
    pub(crate) start: bool,

    /// For developing the window: serve it by HTTP on this loopback address
    #[arg(long, value_name = "ADDRESS:PORT", requires = "dev_token")]
    pub(crate) dev_http: Option<SocketAddr>,

    /// For developing the window: what its requests must carry
    #[arg(long, value_name = "TOKEN", env = "CAISSON_DEV_TOKEN", hide_env_values = true)]
    pub(crate) dev_token: Option<String>,

    /// Leave the terminal, and say on standard output when ready
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

fn mib(least: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(least..)
}

/// The machine that these arguments describe.
pub(crate) fn machine(args: &Args, dirs: &Dirs) -> anyhow::Result<MachineConfig> {
    Ok(MachineConfig {
        hostname: "caisson".to_owned(),
        image: image(args.vm_image.as_deref())?,
        image_found_whole: dirs.cache.join("image.json"),
        data_disk: dirs.data_disk(),
        data_size: Mib(args.disk),
        runtime_dir: dirs.runtime.join("vm"),
        console_log: dirs.console_log(),
        cpus: args.cpus.map_or_else(processors, NonZero::get),
        memory: Mib(args.memory),
        limits: Limits::default(),
    })
}

/// Absolute, for the daemon's working directory is nobody's business. Whether it is there is looked at by each start.
fn image(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = named {
        return std::path::absolute(dir).with_context(|| format!("no such directory: {}", dir.display()));
    }
    let program = caisson_os::program().context("cannot tell where this program is")?;
    let Some(prefix) = program.parent().and_then(Path::parent) else {
        bail!("{} is in no directory with an image beside it", program.display());
    };
    Ok(prefix.join("vm-image"))
}

fn processors() -> u32 {
    available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_development_door_needs_a_token() {
        assert!(Args::try_parse_from(["caisson-host", "--dev-http", "127.0.0.1:8899"]).is_err());
        Args::try_parse_from(["caisson-host", "--dev-http", "127.0.0.1:8899", "--dev-token", "t"]).unwrap();
    }
}
