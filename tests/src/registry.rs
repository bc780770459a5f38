//! Registries for tests: Debian's `docker-registry` beside the engine, in the engine's namespaces, so that it is on the
//! engine's loopback and nobody else's.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::bounded::Bounded;
use crate::crafted::digest;
use crate::fixtures;
use crate::namespaces::child_of;
use crate::subject::Subject;

/// The name that [`Access::Password`] asks for.
pub const USER: &str = "user";
/// Its password.
pub const PASSWORD: &str = "secret";
/// The password as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// An address of the engine's host that is not its loopback, where TLS is not done without.
pub const OUTSIDE: &str = "192.0.2.1";
/// The same as a number.
pub const OUTSIDE_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 1);

/// The name that the machine has for its host.
const HOST_NAME: &str = "host.docker.internal";

/// Ports that no other test of this process has.
static NEXT_PORT: AtomicU16 = AtomicU16::new(5100);

/// A port of an engine's loopback that no other test takes.
pub fn free_port() -> u16 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

/// Who may use a registry, and how it is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everybody, without TLS.
    Open,
    /// [`USER`] with [`PASSWORD`], without TLS.
    Password,
    /// Everybody, at [`OUTSIDE`], with a certificate of an authority of its own.
    Tls,
    /// The same for those who show a certificate of that authority, too.
    Mutual,
    /// Everybody, at [`OUTSIDE`], without TLS.
    OpenOutside,
    /// Everybody, on the loopback of the machine's host, with a certificate for the name that the machine has for it.
    OfHost,
    /// The same for those who show a certificate of that authority, too.
    MutualOfHost,
    /// Everybody, on the loopback of the machine's host, without TLS.
    OpenOfHost,
}

impl Access {
    fn is_outside(self) -> bool {
        matches!(self, Self::Tls | Self::Mutual | Self::OpenOutside)
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::OfHost) || self.asks_for_certificate()
    }

    fn asks_for_certificate(self) -> bool {
        matches!(self, Self::Mutual | Self::MutualOfHost)
    }

    fn is_of_host(self) -> bool {
        matches!(self, Self::OfHost | Self::MutualOfHost | Self::OpenOfHost)
    }

    /// What it listens on.
    fn bound_to(self) -> &'static str {
        if self.is_outside() { OUTSIDE } else { "127.0.0.1" }
    }
}

/// A running registry.
pub struct Registry {
    process: Child,
    port: u16,
    access: Access,
    home: TempDir,
}

impl Registry {
    /// Starts an empty registry beside an engine.
    pub fn start(on: &dyn Subject, access: Access) -> Result<Self> {
        Self::start_at(on, access, free_port())
    }

    /// Starts an empty registry at a port that its engine has been told before.
    pub fn start_at(on: &dyn Subject, access: Access, port: u16) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("registry-").tempdir_in(fixtures::scratch()?)?;
        let data = home.path().join("data");
        Self::with_data(on, access, home, &data, port)
    }

    /// Starts a registry that has what is in `data`.
    pub fn start_with(on: &dyn Subject, data: &Path) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("registry-").tempdir_in(fixtures::scratch()?)?;
        Self::with_data(on, Access::Open, home, data, free_port())
    }

    fn with_data(on: &dyn Subject, access: Access, home: TempDir, data: &Path, port: u16) -> Result<Self> {
        let config = home.path().join("config.yml");
        fs::write(home.path().join("htpasswd"), HTPASSWD)?;
        if access.has_tls() {
            make_certificates(home.path())?;
        }
        if access.is_outside() {
            run(on.on_host("ip").args(["address", "replace", &format!("{OUTSIDE}/32"), "dev", "lo"]))?;
        }
        fs::write(&config, configuration(access, port, home.path(), data))?;
        let program = fixtures::reference()?.join("usr/bin/docker-registry");
        let process = on
            .on_host(program.to_str().context("a path that is no text")?)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let registry = Self { process, port, access, home };
        registry.answers(on)?;
        Ok(registry)
    }

    fn answers(&self, on: &dyn Subject) -> Result<()> {
        let scheme = if self.access.has_tls() { "https" } else { "http" };
        let at = |name: &str| self.home.path().join(name).display().to_string();
        let shown = match self.access.asks_for_certificate() {
            true => vec!["--cert".to_owned(), at("client.crt"), "--key".to_owned(), at("client.key")],
            false => Vec::new(),
        };
        let address = format!("{}:{}", self.access.bound_to(), self.port);
        run(on
            .on_host("curl")
            .args(shown)
            .args(["--silent", "--show-error", "--insecure", "--output", "/dev/null"])
            .args([
                "--max-time",
                "30",
                "--retry",
                "100",
                "--retry-delay",
                "1",
                "--retry-all-errors",
                &format!("{scheme}://{address}/v2/"),
            ]))
    }

    /// Puts a blob into a repository.
    pub fn put_blob(&self, on: &dyn Subject, repository: &str, bytes: &[u8]) -> Result<()> {
        let begin = format!("http://{}/v2/{repository}/blobs/uploads/", self.address());
        let begun = on
            .on_host("curl")
            .args(["--silent", "--show-error", "--fail", "--request", "POST", "--output", "/dev/null"])
            .args(["--write-out", "%header{location}", &begin])
            .in_time()?;
        let location = String::from_utf8(begun.stdout.clone())?;
        ensure!(begun.status.success() && !location.is_empty(), "no upload began: {begun:?}");
        self.put(on, &format!("{location}&digest={}", digest(bytes)), "application/octet-stream", bytes)
    }

    /// Puts a manifest or an index under a tag or its digest.
    pub fn put_manifest(
        &self,
        on: &dyn Subject,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let url = format!("http://{}/v2/{repository}/manifests/{reference}", self.address());
        self.put(on, &url, media_type, bytes)
    }

    fn put(&self, on: &dyn Subject, url: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let file = tempfile::NamedTempFile::new_in(self.home.path())?;
        fs::write(file.path(), bytes)?;
        run(on
            .on_host("curl")
            .args(["--silent", "--show-error", "--fail-with-body", "--request", "PUT"])
            .args(["--header", &format!("Content-Type: {media_type}")])
            .args(["--data-binary", &format!("@{}", file.path().display()), url]))
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        let host = if self.access.is_of_host() { HOST_NAME } else { self.access.bound_to() };
        format!("{host}:{}", self.port)
    }

    /// The name of something in it.
    pub fn name(&self, what: &str) -> String {
        format!("{}/{what}", self.address())
    }

    /// The port on the engine's loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps what it has.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The certificate of the authority that vouches for it.
    pub fn authority(&self) -> PathBuf {
        self.home.path().join("ca.crt")
    }

    /// What [`Access::Mutual`] and [`Access::MutualOfHost`] ask for: a certificate and its key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.home.path().join("client.crt"), self.home.path().join("client.key"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It ends with the engine's namespaces at the latest.
        // Beside an engine in namespaces it is the child of what brought it there.
        match child_of(self.process.id()).ok().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
            Some(pid) => drop(kill_process(pid, Signal::KILL)),
            None => drop(self.process.kill()),
        }
        let _ = self.process.wait();
    }
}

fn configuration(access: Access, port: u16, home: &Path, data: &Path) -> String {
    let host = access.bound_to();
    let home = home.display();
    let clients = match access.asks_for_certificate() {
        true => format!(", clientcas: [{home}/ca.crt]"),
        false => String::new(),
    };
    let tls = match access.has_tls() {
        true => format!(", tls: {{certificate: {home}/tls.crt, key: {home}/tls.key{clients}}}"),
        false => String::new(),
    };
    let auth = match access {
        Access::Password => format!("auth: {{htpasswd: {{realm: test, path: {home}/htpasswd}}}}\n"),
        _ => String::new(),
    };
    format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: \"{host}:{port}\"{tls}}}\n{auth}",
        data.display()
    )
}

/// An authority, `ca.crt`, and two certificates of it: for [`OUTSIDE`] and [`HOST_NAME`], `tls.crt`, and for who asks it, `client.crt`.
fn make_certificates(home: &Path) -> Result<()> {
    let at = |name: &str| home.join(name).display().to_string();
    fs::write(home.join("extensions"), format!("subjectAltName=IP:{OUTSIDE},DNS:{HOST_NAME}\n"))?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    run(Command::new("openssl")
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=test authority"])
        .args(key)
        .args(["-keyout", &at("ca.key"), "-out", &at("ca.crt")]))?;
    for name in ["tls", "client"] {
        let [own_key, request, certificate] = ["key", "csr", "crt"].map(|end| at(&format!("{name}.{end}")));
        run(Command::new("openssl")
            .args(["req", "-subj", &format!("/CN=test {name}")])
            .args(key)
            .args(["-keyout", &own_key, "-out", &request]))?;
        run(Command::new("openssl")
            .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in", &request])
            .args(["-CA", &at("ca.crt"), "-CAkey", &at("ca.key")])
            .args(["-extfile", &at("extensions"), "-out", &certificate]))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.in_time()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {:?} {:?}: {error}",
        output.status.code(),
        output.status.signal()
    );
    Ok(())
}
