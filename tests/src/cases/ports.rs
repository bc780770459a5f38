//! Published ports.

use anyhow::{Context, Result, ensure};

use crate::cases;
use crate::subject::Subject;

cases![
    a_published_port_answers_on_the_host,
    a_port_closes_with_its_container_and_comes_back,
    a_port_in_use_fails_the_start_by_its_number,
    an_ephemeral_port_is_told,
];

fn published(on: &dyn Subject, container: &str) -> Result<u16> {
    let told = on.docker().ok(["port", container, "80/tcp"])?;
    let port = told.lines().next().and_then(|line| line.rsplit(':').next()).context("no port told")?;
    Ok(port.parse()?)
}

fn a_published_port_answers_on_the_host(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "web", "-p", "28080:80", "web"])?;
    let page = on.fetch("http://127.0.0.1:28080/")?;
    ensure!(page.contains("web"), "{page}");
    docker.ok(["rm", "-f", "web"])?;
    Ok(())
}

fn a_port_closes_with_its_container_and_comes_back(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "web-again", "-p", "127.0.0.1:28081:80", "web"])?;
    on.fetch("http://127.0.0.1:28081/")?;
    docker.ok(["stop", "-t", "0", "web-again"])?;
    ensure!(on.is_closed("http://127.0.0.1:28081/")?, "a stopped container's port still answers");
    docker.ok(["start", "web-again"])?;
    on.fetch("http://127.0.0.1:28081/")?;
    docker.ok(["rm", "-f", "web-again"])?;
    ensure!(on.is_closed("http://127.0.0.1:28081/")?, "a removed container's port still answers");
    Ok(())
}

fn a_port_in_use_fails_the_start_by_its_number(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "first", "-p", "127.0.0.1:28082:80", "web"])?;
    let answer = docker.run(["run", "-d", "--name", "second", "-p", "127.0.0.1:28082:80", "web"])?;
    ensure!(answer.status == 125, "{answer:?}");
    ensure!(
        answer.err.contains("driver failed programming external connectivity on endpoint second"),
        "{}",
        answer.err
    );
    ensure!(answer.err.contains("28082"), "{}", answer.err);
    on.fetch("http://127.0.0.1:28082/")?;
    docker.ok(["rm", "-f", "first", "second"])?;
    Ok(())
}

fn an_ephemeral_port_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "ephemeral", "-p", "80", "web"])?;
    let port = published(on, "ephemeral")?;
    on.fetch(&format!("http://127.0.0.1:{port}/"))?;
    docker.ok(["rm", "-f", "ephemeral"])?;
    Ok(())
}
