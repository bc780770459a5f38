use super::*;
use crate::{
    listen::testing::{connect, endpoint},
    testing::{FakeGuest, Opened, failure},
};
use caisson_os::Endpoint;
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use tokio::task::JoinSet;

struct Served {
    at: Endpoint,
    _dir: TempDir,
    guest: FakeGuest,
    engine: Opened,
    _tasks: JoinSet<()>,
}

async fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let at = endpoint(dir.path());
    let (guest, engine) = FakeGuest::new();
    let listener = Listener::bind(&at).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_api(listener, guest.clone()));
    Served { at, _dir: dir, guest, engine, _tasks: tasks }
}

impl Served {
    async fn client(&self) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        connect(&self.at).await
    }

    async fn ask(&self, request: &str) -> String {
        let mut client = self.client().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn a_client_waits_while_the_machine_boots_and_is_served() {
    let mut served = served().await;
    let mut client = served.client().await;
    client.write_all(b"GET /_ping").await.unwrap();
    served.guest.booted.send_replace(Some(Ok(())));
    let (_, mut engine) = served.engine.recv().await.unwrap();
    let mut request = [0; 10];
    engine.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"GET /_ping");
}

#[tokio::test]
async fn half_close_goes_through_in_both_directions() {
    let mut served = served().await;
    served.guest.booted.send_replace(Some(Ok(())));
    for client_ends_first in [true, false] {
        let mut client = served.client().await;
        let (_, mut engine) = served.engine.recv().await.unwrap();
        if client_ends_first {
            said_and_then_answered(&mut client, &mut engine).await;
        } else {
            said_and_then_answered(&mut engine, &mut client).await;
        }
    }
}

/// `first` says something and ends; `second` sees the end and still answers.
async fn said_and_then_answered(
    first: &mut (impl AsyncRead + AsyncWrite + Unpin),
    second: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    first.write_all(b"input").await.unwrap();
    first.shutdown().await.unwrap();
    let mut said = String::new();
    second.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "input");
    second.write_all(b"output").await.unwrap();
    second.shutdown().await.unwrap();
    let mut answered = String::new();
    first.read_to_string(&mut answered).await.unwrap();
    assert_eq!(answered, "output");
}

#[tokio::test]
async fn a_failed_boot_is_told_in_http_with_cause_and_remedy() {
    let served = served().await;
    served.guest.booted.send_replace(Some(Err(failure())));
    let answer = served.ask("GET /v1.47/containers/json HTTP/1.1\r\nHost: docker\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["message"], "the machine failed: qemu is not installed\ninstall qemu");
}

#[tokio::test]
async fn a_failed_boot_answers_head_without_a_body_and_does_not_boot_anew() {
    let served = served().await;
    served.guest.booted.send_replace(Some(Err(failure())));
    let answer = served.ask("HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    served.ask("GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").await;
    assert_eq!(served.guest.api_asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn after_a_failed_boot_a_machine_that_came_up_is_used_at_once() {
    let mut served = served().await;
    served.guest.booted.send_replace(Some(Err(failure())));
    served.ask("GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").await;
    served.guest.booted.send_replace(Some(Ok(())));
    let _client = served.client().await;
    served.engine.recv().await.unwrap();
}
