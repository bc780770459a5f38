use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::LoadOptions;
use crate::testing::registry::{Answer, Asked, Played};
use crate::testing::{TestImage, docker_archive, small_layer, store};

/// A registry that has nothing and takes everything.
fn takes_all(asked: &Asked) -> Answer {
    match asked.method.as_str() {
        "GET" => Answer::status(200),
        "POST" => Answer::location(202, "/upload/1"),
        "PATCH" => Answer::location(202, "/upload/2"),
        "PUT" => Answer::status(201),
        _ => Answer::status(404),
    }
}

/// Pushes an image of one layer.
async fn pushed(registry: &Played) -> Result<Vec<Pushed>, PushError> {
    let (_dir, store) = store();
    let tag: &'static str = format!("{}/some/thing:v1", registry.address()).leak();
    let image = TestImage { layers: vec![small_layer("file")], tags: vec![tag], ..TestImage::default() };
    store.load(&docker_archive(&[image])[..], &LoadOptions::default(), &mut |_| {}).unwrap();
    let name = registry.name("some/thing:v1");
    let options = PushOptions { name, platform: None, credentials: Credentials::default() };
    let (to, _progress) = tokio::sync::mpsc::channel(1000);
    push(&store, &RegistryConfig::default(), &options, &to).await
}

#[tokio::test]
async fn a_push_survives_a_busy_registry() {
    let faults = [Answer::status(500), Answer::Reset, Answer::status(429)];
    let registry = Played::start(move |asked| match faults.get(asked.before) {
        Some(fault) if asked.method != "GET" => fault.clone(),
        _ => takes_all(asked),
    });
    pushed(&registry).await.unwrap();
    let asked = registry.asked();
    for (method, path) in [
        ("HEAD", "/v2/some/thing/blobs/sha256:"),
        ("POST", "/v2/some/thing/blobs/uploads/"),
        ("PATCH", "/upload/1"),
        ("PUT", "/upload/2"),
        ("PUT", "/v2/some/thing/manifests/v1"),
    ] {
        let is_again =
            |asked: &&Asked| asked.method == method && asked.path.starts_with(path) && asked.before == 3;
        assert!(asked.iter().any(|asked| is_again(&asked)), "{method} {path}: {asked:#?}");
    }
}

#[tokio::test]
async fn an_upload_whose_end_was_not_heard_of_has_ended() {
    let has_ended = AtomicBool::new(false);
    let registry = Played::start(move |asked| match asked.method.as_str() {
        "PUT" if asked.path.starts_with("/upload/") => match has_ended.swap(true, Ordering::SeqCst) {
            false => Answer::Reset,
            true => Answer::status(404),
        },
        "HEAD" if has_ended.load(Ordering::SeqCst) => Answer::status(200),
        _ => takes_all(asked),
    });
    pushed(&registry).await.unwrap();
    assert_eq!(registry.asked().iter().filter(|asked| asked.method == "PATCH").count(), 1);
}

#[tokio::test]
async fn a_push_that_is_refused_is_not_repeated() {
    let registry = Played::start(|asked| match asked.method.as_str() {
        "POST" => Answer::status(403),
        _ => takes_all(asked),
    });
    assert!(pushed(&registry).await.is_err());
    assert_eq!(registry.asked().iter().filter(|asked| asked.method == "POST").count(), 1);
}
