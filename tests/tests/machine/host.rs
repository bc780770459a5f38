//! What the machine knows of its host, and what is left of flows when the host's daemon is gone.

mod registries;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::{Bounded, LIMIT, accept};
use caisson_tests::cases::registry::image;
use caisson_tests::machine::{Machine, told};
use caisson_tests::registry::{Access, Registry};
use caisson_tests::subject::Subject;

use crate::egress::{HOST, listen};
use crate::kill;
use registries::{certificates_are_the_users, registries_are_reached_as_the_user_says};

machine_cases![
    registries_are_reached_as_the_user_says,
    certificates_are_the_users,
    pulls_use_the_hosts_proxy_and_trust_its_authorities,
    flows_end_with_the_daemon_and_ports_come_back_with_the_next,
];

/// A proxy for `CONNECT` on the host's loopback (RFC 9110, section 9.3.6); it counts what goes through it.
fn proxy() -> Result<(String, Arc<AtomicUsize>)> {
    let (listener, port) = listen()?;
    let served = Arc::new(AtomicUsize::new(0));
    let counter = served.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let counter = counter.clone();
            // Whatever goes wrong is seen by who wanted the connection.
            thread::spawn(move || drop(connect(client, &counter)));
        }
    });
    Ok((port, served))
}

fn connect(mut client: TcpStream, served: &AtomicUsize) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?;
    let port = head
        .strip_prefix("CONNECT host.docker.internal:")
        .and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok())
        .with_context(|| head.clone())?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    served.fetch_add(1, Ordering::SeqCst);
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        // The end of one direction is the end of what the other side asks.
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    std::io::copy(&mut server, &mut client)?;
    Ok(())
}

/// A route of the host's as long as this lives.
pub(crate) struct Route(&'static str);

impl Route {
    pub(crate) fn add(to: &'static str) -> Result<Self> {
        let output = Command::new("ip").args(["route", "replace", to, "dev", "lo"]).in_time()?;
        ensure!(output.status.success(), "{}", told(&output));
        Ok(Self(to))
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // If it is gone already, that is as well.
        let _ = Command::new("ip").args(["route", "del", self.0, "dev", "lo"]).in_time();
    }
}

/// Waits until the machine's agent has told the engine of a route.
pub(crate) fn wait_for_route(machine: &Machine, wanted: &str) -> Result<()> {
    let file = "/proc/1/root/run/caisson/host/routes";
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        let routes =
            machine.docker().ok(["run", "--rm", "--privileged", "--pid", "host", "busybox", "cat", file])?;
        if routes.lines().any(|line| line == wanted) {
            return Ok(());
        }
    }
    anyhow::bail!("the machine is not told of {wanted}")
}

fn pulls_use_the_hosts_proxy_and_trust_its_authorities(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let (registry, (proxy, served)) = (Registry::start(machine, Access::OfHost)?, proxy()?);
    let name = registry.name("through/proxy:v1");
    let made = image(&docker, &name, 10_000)?;
    let refused = docker.run(["push", &name])?;
    ensure!(refused.err.contains("certificate signed by unknown authority"), "{refused:?}");
    ensure!(served.load(Ordering::SeqCst) == 0);

    machine.ok(&["stop"])?;
    let mut start = machine.caisson(&["start"]);
    start.env("SSL_CERT_FILE", registry.authority()).env_remove("SSL_CERT_DIR");
    start.env("HTTPS_PROXY", format!("http://127.0.0.1:{proxy}")).env("NO_PROXY", "*.lan");
    let output = start.env("CAISSON_CONTAINER_PROXIES", "1").in_time()?;
    ensure!(output.status.success(), "{}", told(&output));
    docker.ok(["push", "-q", &name])?;
    docker.ok(["rmi", &name])?;
    docker.ok(["pull", "-q", &name])?;
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", &name])? == made);
    ensure!(served.load(Ordering::SeqCst) > 0, "the proxy was passed by");
    docker.ok(["rmi", &name])?;
    let url = format!("http://host.docker.internal:{proxy}");
    ensure!(docker.ok(["info", "-f", "{{.HTTPSProxy}} {{.NoProxy}}"])? == format!("{url} .lan"));
    let variables = docker.ok(["run", "--rm", "-e", "no_proxy=mine", "busybox", "env"])?;
    for line in [format!("HTTPS_PROXY={url}"), format!("https_proxy={url}"), "no_proxy=mine".to_owned()] {
        ensure!(variables.lines().any(|told| told == line), "{line} is missing in {variables}");
    }
    {
        let _route = Route::add("10.213.0.0/16")?;
        wait_for_route(machine, "10.213.0.0/16")?;
    }

    machine.ok(&["stop"])?;
    machine.ok(&["start"])?;
    let variables = docker.ok(["run", "--rm", "busybox", "env"])?;
    ensure!(!variables.contains("_PROXY"), "{variables}");
    Ok(())
}

fn flows_end_with_the_daemon_and_ports_come_back_with_the_next(machine: &Machine) -> Result<()> {
    const PUBLISHED: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 28096);
    let docker = machine.docker();
    docker.ok(["run", "-d", "--name", "tough", "--restart", "always", "-p", "127.0.0.1:28097:80", "web"])?;
    let (listener, port) = listen()?;
    // Says all the time, to who comes and to the host.
    let script = format!("cat /dev/zero | nc {HOST} {port} & exec nc -ll -p 9 -e cat /dev/zero");
    let publish = format!("127.0.0.1:{}:9", PUBLISHED.1);
    docker.ok(["run", "-d", "--name", "endless", "-p", &publish, "busybox", "sh", "-c", &script])?;
    let (outgoing, _) = accept(&listener, "the container's flow")?;
    let flows = [outgoing, connected(PUBLISHED)?];
    for daemon in machine.processes("caisson-host")? {
        kill(daemon)?;
    }
    for mut flow in flows {
        // To its end or its error, whichever it is: a flow that goes on silently runs into its limit.
        if let Err(error) = std::io::copy(&mut flow, &mut std::io::sink()) {
            ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    drop(TcpListener::bind(PUBLISHED).context("the port is still bound")?);
    machine.ok(&["start"])?;
    ensure!(
        machine.fetch("http://127.0.0.1:28097/")?.contains("web"),
        "nobody has to start what always runs"
    );
    // Its connection to the host finds the test's listener again.
    docker.ok(["start", "endless"])?;
    let (mut outgoing, _) = accept(&listener, "the flow of the container that was started again")?;
    outgoing.read_exact(&mut [0; 100_000])?;
    drop(connected(PUBLISHED)?);
    docker.ok(["rm", "-f", "endless", "tough"])?;
    Ok(())
}

/// A connection over which something has come. A published port takes one before its container listens, and drops it then.
fn connected(to: (Ipv4Addr, u16)) -> Result<TcpStream> {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        let mut client = TcpStream::connect(to)?;
        client.set_read_timeout(Some(LIMIT))?;
        if client.read_exact(&mut [0; 100_000]).is_ok() {
            return Ok(client);
        }
    }
    anyhow::bail!("nothing comes from {to:?}")
}
