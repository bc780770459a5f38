//! The daemon as a process: one a user, and nothing stale after a kill. No machine is started.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A user's home. Its path is short, for sockets' paths must be.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("c").tempdir_in("/tmp").unwrap();
        fs::create_dir(home.path().join("run")).unwrap();
        Self(home)
    }

    fn run(&self) -> PathBuf {
        let run = self.0.path().join("run");
        // Where macOS keeps it.
        if cfg!(target_os = "macos") { self.0.path().join(".caisson/run") } else { run.join("caisson") }
    }

    fn daemon(&self) -> Daemon {
        let mut child = Command::new(env!("CARGO_BIN_EXE_caisson-host"))
            .arg("--detached")
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path().join("run"))
            .env("DOCKER_CONFIG", self.0.path().join("docker"))
            .env("CAISSON_VM_IMAGE", self.0.path().join("no-image"))
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Daemon { child, said: line }
    }

    fn ask(&self, socket: &str, request: &str) -> String {
        let mut stream = UnixStream::connect(self.run().join(socket)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn call(&self, name: &str) -> String {
        self.ask("caisson-host.sock", &format!("{{\"call\":{{\"name\":\"{name}\"}}}}\n"))
    }
}

/// A daemon that is killed with its test.
struct Daemon {
    child: Child,
    said: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_daemon_leaves_nothing_that_its_successor_minds() {
    let home = Home::new();
    let mut first = home.daemon();
    assert_eq!(first.said, "ready\n");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(home.run().join("docker.sock").exists(), "a killed daemon cannot clean up");
    let second = home.daemon();
    assert_eq!(second.said, "ready\n");
    assert!(home.call("machine_status").contains(r#""state":{"kind":"stopped"}"#));
}

#[test]
fn a_second_daemon_gives_way_and_harms_nothing() {
    let home = Home::new();
    let first = home.daemon();
    let mut second = home.daemon();
    assert_eq!(second.said, "");
    let mut told = String::new();
    second.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains(&format!("running already (process {})", first.child.id())), "{told}");
    assert_eq!(second.child.wait().unwrap().code(), Some(1));
    assert!(home.call("version").contains(&format!(r#""pid":{}"#, first.child.id())));
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_does_not_stay_in_the_directory_in_which_it_was_started() {
    let home = Home::new();
    let daemon = home.daemon();
    let link = fs::read_link(format!("/proc/{}/cwd", daemon.child.id())).unwrap();
    assert_eq!(link, home.run());
}

#[test]
fn a_docker_client_learns_why_there_is_no_machine() {
    let home = Home::new();
    let _daemon = home.daemon();
    let answer = home.ask("docker.sock", "GET /v1.47/info HTTP/1.1\r\nHost: docker\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("no-image") && answer.contains(r#""message""#), "{answer}");
}

#[test]
fn sockets_are_the_users_alone_and_go_with_an_orderly_end() {
    let home = Home::new();
    let mut daemon = home.daemon();
    for name in ["docker.sock", "caisson-host.sock"] {
        let mode = fs::metadata(home.run().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(home.run()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(home.call("shutdown").contains(r#"{"ok":null}"#));
    assert!(daemon.child.wait().unwrap().success());
    assert!(!home.run().join("docker.sock").exists() && !home.run().join("caisson-host.sock").exists());
}
