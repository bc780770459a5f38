//! Registries reached as the host's user says, in `daemon.json` and `certs.d` of their docker configuration.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use caisson_tests::bounded::until;
use caisson_tests::cases::registry::image;
use caisson_tests::machine::Machine;
use caisson_tests::registry::{Access, Registry};
use caisson_tests::subject::Subject;
use serde_json::json;

/// A file or directory of the user's as long as this lives.
struct Theirs(PathBuf);

impl Drop for Theirs {
    fn drop(&mut self) {
        // If it is gone already, that is as well.
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}

/// Pushes an image, pulls it back under another name of the same registry's, and leaves neither.
fn push_and_pull(machine: &Machine, name: &str, pulled_as: &str, id: &str) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["push", "-q", name])?;
    docker.ok(["rmi", name])?;
    docker.ok(["pull", "-q", pulled_as])?;
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", pulled_as])? == id);
    docker.ok(["tag", pulled_as, name])?;
    Ok(())
}

fn is_refused(machine: &Machine, name: &str, why: &str) -> Result<()> {
    let refused = machine.docker().run(["push", "-q", name])?;
    ensure!(refused.status == 1 && refused.err.contains(why), "not {why}: {refused:?}");
    Ok(())
}

pub(super) fn registries_are_reached_as_the_user_says(machine: &Machine) -> Result<()> {
    const NO_TLS: &str = "http: server gave HTTP response to HTTPS client";
    let (docker, registry) = (machine.docker(), Registry::start(machine, Access::OpenOfHost)?);
    let (address, name) = (registry.address(), registry.name("library/plain:v1"));
    let made = image(&docker, &name, 1000)?;
    is_refused(machine, &name, NO_TLS)?;

    let says = |insecure: bool, what: &str| {
        until(what, || {
            let told = docker.ok(["info", "-f", "{{json .RegistryConfig}}"])?;
            Ok((told.contains(&address) == insecure).then_some(told))
        })
    };
    let daemon_json = machine.docker_config().join("daemon.json");
    let _theirs = Theirs(daemon_json.clone());
    let mirror = format!("http://{address}");
    let settings =
        json!({"insecure-registries": [&address], "registry-mirrors": [&mirror], "experimental": false});
    fs::write(&daemon_json, settings.to_string())?;
    let told = says(true, "the machine is not told of daemon.json")?;
    ensure!(told.contains(&format!("{mirror}/")), "{told}");
    push_and_pull(machine, &name, &name, &made)?;
    push_and_pull(machine, &name, "plain:v1", &made)?;

    fs::write(&daemon_json, "{")?;
    for line in ["daemon.json is not JSON", "registry-mirrors only, and not experimental"] {
        until(line, || Ok(machine.ok(&["logs", "--daemon"])?.contains(line).then_some(())))?;
    }
    push_and_pull(machine, &name, &name, &made)?;

    fs::remove_file(&daemon_json)?;
    says(false, "the machine still has what daemon.json said")?;
    is_refused(machine, &name, NO_TLS)?;
    docker.ok(["rmi", &name, "plain:v1"])?;
    Ok(())
}

pub(super) fn certificates_are_the_users(machine: &Machine) -> Result<()> {
    const UNKNOWN: &str = "certificate signed by unknown authority";
    let (docker, registry) = (machine.docker(), Registry::start(machine, Access::MutualOfHost)?);
    let name = registry.name("mutual/thing:v1");
    let made = image(&docker, &name, 1000)?;
    is_refused(machine, &name, UNKNOWN)?;

    let all = Theirs(machine.docker_config().join("certs.d"));
    let own = all.0.join(registry.address());
    fs::create_dir_all(&own)?;
    fs::copy(registry.authority(), own.join("ca.crt"))?;
    wait_for_files(machine, &own, &["ca.crt"])?;
    is_refused(machine, &name, "tls: ")?;

    let (certificate, key) = registry.client();
    fs::copy(certificate, own.join("client.cert"))?;
    fs::copy(key, own.join("client.key"))?;
    wait_for_files(machine, &own, &["ca.crt", "client.cert", "client.key"])?;
    push_and_pull(machine, &name, &name, &made)?;

    drop(all);
    wait_for_files(machine, &own, &[])?;
    is_refused(machine, &name, UNKNOWN)?;
    docker.ok(["rmi", &name])?;
    Ok(())
}

/// Waits until the machine has these files of a registry's and no others. Nobody but root may read them.
fn wait_for_files(machine: &Machine, own: &Path, wanted: &[&str]) -> Result<()> {
    let registry = own.file_name().unwrap_or_default().to_string_lossy();
    let script = format!("cd '/proc/1/root/run/caisson/host/certs.d/{registry}' && stat -c '%a %u %n' *");
    let list = ["run", "--rm", "--privileged", "--pid", "host", "busybox", "sh", "-c", &script];
    let expected: Vec<String> = wanted.iter().map(|name| format!("600 0 {name}")).collect();
    until(&format!("the machine has not just {wanted:?} of {registry}"), || {
        let told = machine.docker().run(list)?.out;
        Ok((told.lines().collect::<Vec<_>>() == expected).then_some(()))
    })
}
