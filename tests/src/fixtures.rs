//! What the tests need from outside: images, programs, the reference engine. Each is made once a run, or once at all.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::repository;

/// The folder with `caisson-engine` and `caisson-shim`: `CAISSON_PROGRAMS`, else where cargo puts them.
pub fn programs() -> Result<PathBuf> {
    let at = match std::env::var_os("CAISSON_PROGRAMS") {
        Some(given) => PathBuf::from(given),
        None => {
            let test = std::env::current_exe()?;
            test.ancestors().nth(2).context("a test lies in target/debug/deps")?.to_owned()
        }
    };
    for name in ["caisson-engine", "caisson-shim"] {
        let program = at.join(name);
        ensure!(
            program.exists(),
            "{} is missing: cargo build -p {name}, or run scripts/test",
            program.display()
        );
    }
    Ok(at)
}

/// The unpacked Debian packages of the reference engine.
pub fn reference() -> Result<PathBuf> {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    once(&AT, || {
        let output = Command::new(repository().join("tests/reference/fetch")).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
    })
}

/// The folder with the images: `hello-world.tar`, `busybox.tar`, `busybox-oci.tar`, `web.tar`.
pub fn images() -> Result<PathBuf> {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    once(&AT, || {
        let at = scratch()?.join("images");
        let output = Command::new(repository().join("tests/fixtures/make-images")).arg(&at).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(at)
    })
}

/// The archive of a small Debian's root, for `docker import`.
pub fn debian() -> Result<PathBuf> {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    once(&AT, || made_by("make-debian"))
}

/// The archive of a root of which systemd is the first process, for `docker import`.
pub fn systemd() -> Result<PathBuf> {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    once(&AT, || made_by("make-systemd"))
}

/// The file whose path a script of the fixtures prints last.
fn made_by(script: &str) -> Result<PathBuf> {
    let output = Command::new(repository().join("tests/fixtures").join(script)).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(path.lines().last().context("it says where the file is")?))
}

/// The tar of a root file system with one file, `/hello`.
pub fn root_archive() -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o755);
    archive.append_data(&mut header, "hello", &b"hello\n"[..])?;
    Ok(archive.into_inner()?)
}

/// A folder for data that may be large, on a real file system: overlay mounts and device nodes work there.
pub fn scratch() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let at = target.join("e2e");
    std::fs::create_dir_all(&at)?;
    Ok(at)
}

fn once(at: &OnceLock<PathBuf>, make: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    if let Some(made) = at.get() {
        return Ok(made.clone());
    }
    let made = make()?;
    Ok(at.get_or_init(|| made).clone())
}
