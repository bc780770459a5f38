//! File servers on the host's loopback, each with one folder: Debian's Ganesha for NFS, and its Samba for SMB. They run from where
//! `tests/file-servers/fetch` has unpacked them, and what they write is in a folder of their own, but for Ganesha's list of clients, which
//! is in `/var/lib/nfs` where that is there.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::{Bounded, until};
use caisson_tests::fixtures::scratch;
use caisson_tests::machine::told;
use caisson_tests::repository;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// The share that [`Server::smb`] has.
pub(super) const SHARE: &str = "share";
/// Who may use it: somebody whom the host knows.
pub(super) const USER: &str = "root";
/// With this password.
pub(super) const PASSWORD: &str = "from-the-tests";
/// The user with the password as `smbpasswd(5)` has it: the MD4 of its UTF-16.
const SMBPASSWD: &str =
    "root:0:XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX:A856EAF170396CDAD69F89599A6D9C60:[U          ]:LCT-60000000:\n";

/// A server, which ends with the value.
pub(super) struct Server {
    process: Child,
    port: u16,
    home: TempDir,
}

impl Server {
    /// Serves `/export` by NFS 4 to everybody, and root as root.
    pub(super) fn nfs() -> Result<Self> {
        let (at, home, port) = (unpacked()?, home()?, free_port()?);
        let log = home.path().join("log");
        let config = home.path().join("ganesha.conf");
        fs::write(&config, ganesha(&at, &folder(home.path()), port))?;
        let mut command = program(&at, "bin/ganesha.nfsd");
        command.arg("-F").arg("-f").arg(&config).arg("-L").arg(&log).arg("-p").arg(home.path().join("pid"));
        Self::start(command, port, home, &log)
    }

    /// Serves [`SHARE`] by SMB to [`USER`].
    pub(super) fn smb() -> Result<Self> {
        let (at, home, port) = (unpacked()?, home()?, free_port()?);
        let log = home.path().join("log");
        let config = home.path().join("smb.conf");
        fs::write(&config, samba(home.path(), port)?)?;
        fs::write(passwords(home.path()), SMBPASSWD)?;
        let mut command = program(&at, "sbin/smbd");
        command.args(["-F", "--no-process-group", "--debug-stdout", "-s"]).arg(&config);
        command.stdout(fs::File::create(&log)?);
        Self::start(command, port, home, &log)
    }

    fn start(mut command: Command, port: u16, home: TempDir, log: &Path) -> Result<Self> {
        // A group of its own: Samba has a process for every client, and all end together.
        let process = command.process_group(0).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { process, port, home };
        until("a client of the file server", || {
            let ended = server.process.try_wait()?;
            ensure!(ended.is_none(), "it has ended: {}", fs::read_to_string(log).unwrap_or_default());
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        Ok(server)
    }

    /// Where it listens on the host's loopback.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it serves.
    pub(super) fn folder(&self) -> PathBuf {
        folder(self.home.path())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.process.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

fn unpacked() -> Result<PathBuf> {
    let output = Command::new(repository().join("tests/file-servers/fetch")).in_time()?;
    ensure!(output.status.success(), "{}", told(&output));
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

/// A folder for a server, and in it the one that is served.
fn home() -> Result<TempDir> {
    let home = tempfile::Builder::new().prefix("server-").tempdir_in(scratch()?)?;
    fs::create_dir(folder(home.path()))?;
    Ok(home)
}

fn folder(home: &Path) -> PathBuf {
    home.join("served")
}

fn passwords(home: &Path) -> PathBuf {
    home.join("smbpasswd")
}

/// A port of the loopback that nobody has for the moment.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// One of the programs, unpacked or this system's own.
fn program(at: &Path, name: &str) -> Command {
    let unpacked = at.join("usr").join(name);
    let libraries = libraries(at);
    let all = ["", "samba", "../ganesha"].map(|below| libraries.join(below).display().to_string());
    let mut command = Command::new(if unpacked.exists() { unpacked } else { Path::new("/usr").join(name) });
    command.env("LD_LIBRARY_PATH", all.join(":"));
    command
}

fn libraries(at: &Path) -> PathBuf {
    at.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH))
}

/// NFS 4 alone takes one port and no other service.
fn ganesha(at: &Path, folder: &Path, port: u16) -> String {
    let unpacked = libraries(at).join("ganesha");
    let plugins = if unpacked.exists() { unpacked } else { libraries(Path::new("/")).join("ganesha") };
    format!(
        "NFS_CORE_PARAM {{ NFS_Port = {port}; Bind_addr = 127.0.0.1; Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false;
           Plugins_Dir = \"{}\"; }}
         NFS_KRB5 {{ Active_krb5 = false; }}
         NFSV4 {{ Graceless = true; Only_Numeric_Owners = true; UseGetpwnam = true; }}
         EXPORT {{ Export_Id = 1; Path = \"{}\"; Pseudo = /export; Protocols = 4; Transports = TCP; SecType = sys;
           Access_Type = RW; Squash = No_Root_Squash; FSAL {{ Name = VFS; }} }}\n",
        plugins.display(),
        folder.display()
    )
}

fn samba(home: &Path, port: u16) -> Result<String> {
    let mut config = format!(
        "[global]\nserver role = standalone server\nsmb ports = {port}\ninterfaces = 127.0.0.1\nbind interfaces only = yes\n\
         disable netbios = yes\nrpc start on demand helpers = no\nload printers = no\nprinting = bsd\nprintcap name = /dev/null\n"
    );
    for option in [
        "private dir",
        "lock directory",
        "state directory",
        "cache directory",
        "pid directory",
        "ncalrpc dir",
        "binddns dir",
        "usershare path",
    ] {
        let at = home.join(option.split(' ').next().context("an option has a name")?);
        fs::create_dir(&at)?;
        config.push_str(&format!("{option} = {}\n", at.display()));
    }
    // Beside it are dumps of its memory, should it crash.
    config.push_str(&format!("log file = {}\n", home.join("log.smbd").display()));
    config.push_str(&format!("passdb backend = smbpasswd:{}\n", passwords(home).display()));
    config.push_str(&format!("[{SHARE}]\npath = {}\nread only = no\n", folder(home).display()));
    Ok(config)
}
