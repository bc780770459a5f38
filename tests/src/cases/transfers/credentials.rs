//! Passwords that the CLI leaves to a program of the user's system.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::id;
use crate::bounded::Bounded;
use crate::cases::registry::image;
use crate::cli::Docker;
use crate::registry::{Access, PASSWORD, Registry, USER};
use crate::subject::Subject;

/// A helper by the protocol of docker-credential-helpers: what it does is its argument, what it is given comes on standard
/// input. It keeps one password beside itself, and notes what it was asked for.
const CREDENTIAL_HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$1" >> asked
case $1 in
store) cat > kept ;;
get)
    read -r server
    if ! grep -q "\"$server\"" kept; then
        echo "credentials not found in native keychain"
        exit 1
    fi
    cat kept
    ;;
erase) rm -f kept ;;
list) echo "{}" ;;
esac
"#;

/// The CLI with a configuration of its own, which leaves passwords to a helper in the same folder.
struct WithHelper {
    docker: Docker,
    folder: tempfile::TempDir,
}

impl WithHelper {
    fn new(docker: Docker) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let helper = folder.path().join("docker-credential-test");
        fs::write(&helper, CREDENTIAL_HELPER)?;
        fs::set_permissions(&helper, Permissions::from_mode(0o755))?;
        fs::write(folder.path().join("config.json"), r#"{"credsStore": "test"}"#)?;
        Ok(Self { docker, folder })
    }

    /// Whether it ended well, and all that it said.
    fn run(&self, args: &[&str]) -> Result<(bool, String)> {
        let path = std::env::var("PATH").context("no PATH")?;
        let folder = self.folder.path();
        let mut command = self.docker.command(args)?;
        command.env("PATH", format!("{}:{path}", folder.display())).env("DOCKER_CONFIG", folder);
        let output = command.in_time()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        let (is_well, said) = self.run(args)?;
        ensure!(is_well, "docker {args:?}: {said}");
        Ok(said)
    }

    /// What a file in its folder says; nothing if there is none.
    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

pub(super) fn a_credential_helper_keeps_the_password(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Password)?);
    let helped = WithHelper::new(docker.clone())?;
    let (name, address) = (registry.name("helped:v1"), registry.address());
    let made = image(&docker, &name, 1000)?;
    let told = helped.ok(&["login", "-u", USER, "-p", PASSWORD, &address])?;
    ensure!(told.contains("Login Succeeded"), "{told}");
    let kept: Value = serde_json::from_str(&helped.file("kept"))?;
    ensure!(kept == json!({"ServerURL": address, "Username": USER, "Secret": PASSWORD}), "{kept}");
    let config: Value = serde_json::from_str(&helped.file("config.json"))?;
    ensure!(config["auths"] == json!({address.clone(): {}}), "the password is not the CLI's: {config}");
    helped.ok(&["push", "-q", &name])?;
    docker.ok(["rmi", &name])?;
    helped.ok(&["pull", "-q", &name])?;
    ensure!(id(on, &name)? == made);
    helped.ok(&["logout", &address])?;
    ensure!(helped.file("kept").is_empty(), "the password outlives the logout");
    let (is_well, told) = helped.run(&["pull", &name])?;
    ensure!(!is_well && told.contains("no basic auth credentials"), "{told}");
    let asked = helped.file("asked");
    ensure!(["store", "get", "erase"].iter().all(|what| asked.lines().any(|line| line == *what)), "{asked}");
    docker.ok(["rmi", &name])?;
    Ok(())
}
