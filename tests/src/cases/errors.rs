//! What a client is told when something is wrong.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cases;
use crate::subject::Subject;

cases![
    an_unknown_image_is_named,
    a_name_taken_is_told,
    an_unknown_container_is_404,
    a_client_too_new_is_told,
    a_path_that_is_none_is_404,
    what_belongs_to_a_swarm_is_503,
    a_body_that_is_no_json_is_400,
    a_refused_body_does_not_hide_the_refusal,
];

fn an_unknown_image_is_named(on: &dyn Subject) -> Result<()> {
    let answer = on.api().post("/containers/create", &json!({"Image": "no/such:image"}))?;
    ensure!(
        answer.status == 404 && answer.json()?["message"] == "No such image: no/such:image",
        "{}",
        answer.json()?
    );
    Ok(())
}

fn a_name_taken_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["create", "--name", "taken", "busybox"])?;
    let answer = docker.run(["create", "--name", "taken", "busybox"])?;
    ensure!(answer.status == 1, "{answer:?}");
    let told = format!(
        "Conflict. The container name \"/taken\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    ensure!(answer.err.contains(&told), "{}", answer.err);
    docker.ok(["rm", "taken"])?;
    Ok(())
}

fn an_unknown_container_is_404(on: &dyn Subject) -> Result<()> {
    let answer = on.api().get("/containers/nobody/json")?;
    ensure!(
        answer.status == 404 && answer.json()?["message"] == "No such container: nobody",
        "{}",
        answer.json()?
    );
    Ok(())
}

fn a_client_too_new_is_told(on: &dyn Subject) -> Result<()> {
    let answer = on.api().get("/v1.99/info")?;
    let message = answer.json()?["message"].to_string();
    ensure!(
        answer.status == 400
            && message.contains("client version 1.99 is too new. Maximum supported API version is 1."),
        "{message}"
    );
    Ok(())
}

fn a_path_that_is_none_is_404(on: &dyn Subject) -> Result<()> {
    let answer = on.api().get("/no/such/path")?;
    ensure!(answer.status == 404 && answer.json()?["message"] == "page not found", "{}", answer.json()?);
    Ok(())
}

fn what_belongs_to_a_swarm_is_503(on: &dyn Subject) -> Result<()> {
    for path in [
        "/nodes",
        "/services",
        "/services/any",
        "/tasks",
        "/secrets",
        "/configs",
        "/swarm",
        "/swarm/unlockkey",
    ] {
        let answer = on.api().get(path)?;
        let message = answer.json()?["message"].to_string();
        ensure!(
            answer.status == 503 && message.starts_with("\"This node is not a swarm manager. Use "),
            "{path}: {} {message}",
            answer.status
        );
    }
    Ok(())
}

fn a_body_that_is_no_json_is_400(on: &dyn Subject) -> Result<()> {
    let answer = on.api().call(
        hyper::Method::POST,
        "/containers/create",
        &[("content-type", "application/json")],
        b"{".to_vec(),
    )?;
    ensure!(answer.status == 400, "{}", answer.json()?);
    Ok(())
}

/// By a client that sends all before it listens. More than this dockerd does not take either (Go's net/http: 256 KiB).
fn a_refused_body_does_not_hide_the_refusal(on: &dyn Subject) -> Result<()> {
    let body = json!("x".repeat(250_000));
    let (head, _) = on.api().open("/no/such/path", &[], &body)?;
    ensure!(head.starts_with("HTTP/1.1 404"), "{head}");
    Ok(())
}
