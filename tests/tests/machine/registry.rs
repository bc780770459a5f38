//! A registry in a container, as tutorials have it: what is `localhost` to the user is so to the engine, too.

use anyhow::{Context, Result, ensure};
use caisson_tests::fixtures;
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;

use crate::egress::import_debian;

machine_cases![images_go_to_a_registry_in_a_container_and_come_back];

const CONFIG: &str = "version: 0.1\nstorage: {filesystem: {rootdirectory: /images}}\nhttp: {addr: ':5000'}\n";

fn images_go_to_a_registry_in_a_container_and_come_back(machine: &Machine) -> Result<()> {
    import_debian(machine)?;
    let docker = machine.docker();
    let config = machine.home().join("registry.yml");
    std::fs::write(&config, CONFIG)?;
    let program = fixtures::reference()?.join("usr/bin/docker-registry");
    let serve = ["debian:small", "/docker-registry", "serve", "/registry.yml"];
    // One port for this computer alone, one for all.
    let ports = ["-p", "127.0.0.1:28180:5000", "-p", "28181:5000"];
    docker.ok([&["create", "--name", "registry"], &ports[..], &serve].concat())?;
    for (file, to) in [(&program, "registry:/docker-registry"), (&config, "registry:/registry.yml")] {
        docker.ok(["cp", "-L", file.to_str().context("a path that is no text")?, to])?;
    }
    docker.ok(["start", "registry"])?;
    machine.fetch("http://127.0.0.1:28180/v2/")?;
    let id = docker.ok(["image", "inspect", "-f", "{{.Id}}", "busybox"])?;
    for name in ["localhost:28180/own", "127.0.0.1:28181/own", "localhost:28181/other"] {
        docker.ok(["tag", "busybox", name])?;
        docker.ok(["push", "-q", name])?;
        docker.ok(["rmi", name])?;
        docker.ok(["pull", "-q", name])?;
        ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", name])? == id, "{name}");
        docker.ok(["rmi", name])?;
    }
    // Who lives in the machine's own network asks as the engine does.
    let asks = ["run", "--rm", "--network", "host", "busybox", "wget", "-q", "-O", "-"];
    for port in ["28180", "28181"] {
        let url = format!("http://127.0.0.1:{port}/v2/");
        ensure!(docker.ok(asks.iter().copied().chain([url.as_str()]))? == "{}", "{url}");
    }
    docker.ok(["rm", "-f", "registry"])?;
    let gone = docker.run(["pull", "-q", "localhost:28180/own"])?;
    ensure!(gone.status == 1 && gone.err.contains("connection refused"), "{gone:?}");
    Ok(())
}
