use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::growing::Growing;
use crate::testing::registry::{Answer, Asked, Played};
use crate::testing::{TestImage, small_layer, store};

/// An image of one layer, as a registry has it.
struct Served {
    config: Vec<u8>,
    layer: Vec<u8>,
    manifest: Vec<u8>,
}

fn served(image: &TestImage, layer_size: Option<u64>) -> Served {
    let (config, layer) = (image.config(), image.layers[0].clone());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest::DOCKER_MANIFEST,
        "config": {"mediaType": manifest::DOCKER_CONFIG, "size": config.len(), "digest": Digest::of(&config)},
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "size": layer_size.unwrap_or(layer.len() as u64), "digest": Digest::of(&layer),
        }],
    });
    Served { config, layer, manifest: serde_json::to_vec(&manifest).unwrap() }
}

impl Served {
    fn answer(&self, asked: &Asked) -> Answer {
        let blob = |bytes: &[u8]| asked.path.ends_with(&Digest::of(bytes).to_string());
        match asked.path.as_str() {
            "/v2/" => Answer::status(200),
            path if path.contains("/manifests/") => Answer::bytes(manifest::DOCKER_MANIFEST, &self.manifest),
            _ if blob(&self.config) => Answer::bytes("application/octet-stream", &self.config),
            _ if blob(&self.layer) => Answer::bytes("application/octet-stream", &self.layer),
            _ => Answer::status(404),
        }
    }
}

fn image() -> TestImage {
    TestImage { layers: vec![small_layer("file")], ..TestImage::default() }
}

/// A listener that nobody reads for long.
fn listener() -> (Listener, tokio::sync::mpsc::Receiver<progress::Progress>) {
    tokio::sync::mpsc::channel(1000)
}

async fn pull(puller: &Puller, name: &Reference) -> Result<Pulled, PullError> {
    let found = puller.find(name, None, &Credentials::default()).await?;
    puller.fetch(found, &listener().0).await
}

#[tokio::test]
async fn a_pull_survives_a_busy_registry() {
    let served = served(&image(), None);
    let faults = [Answer::status(503), Answer::Reset, Answer::status(429)];
    let registry = Played::start(move |asked| match faults.get(asked.before) {
        Some(fault) if asked.method == "GET" && asked.path != "/v2/" => fault.clone(),
        _ => served.answer(asked),
    });
    let (_dir, store) = store();
    let puller = Puller::new(store, Arc::default());
    assert_eq!(pull(&puller, &registry.name("busy:v1")).await.unwrap().id, ImageId(image().id()));
}

#[test]
fn a_layer_that_has_come_is_written_down_once() {
    let (_dir, store) = store();
    let layer = small_layer("file");
    let (growing, path) = Growing::new(&store.tmp()).unwrap();
    growing.append(&layer).unwrap();
    growing.finish();
    let (from, blob) = (growing.reader(Arc::default()), (Digest::of(&layer), "localhost:5000/some"));
    let mut staged = store.layer_store().stage_file(from, path, blob, store.limits()).unwrap();
    let blob = LayerBlob { digest: blob.0, size: layer.len() as u64, compression: Compression::None };
    assert!(!staged.record.remember(blob, "localhost:5000/some"), "it is no news");
    assert!(staged.record.remember(blob, "localhost:5000/other"));
}

#[tokio::test]
async fn what_a_registry_refuses_for_good_is_asked_for_once() {
    let registry = Played::start(|asked| Answer::status(if asked.path == "/v2/" { 200 } else { 404 }));
    let (_dir, store) = store();
    assert!(pull(&Puller::new(store, Arc::default()), &registry.name("gone:v1")).await.is_err());
    let asked = registry.asked().iter().filter(|asked| asked.path.contains("manifests")).count();
    assert_eq!(asked, 2, "HEAD and GET");
}

/// A layer that is a gigabyte, of which the first bytes show that it is no layer.
fn a_large_layer_that_is_none() -> Played {
    const SIZE: u64 = 1 << 30;
    let image = TestImage { layers: vec![vec![b'x'; 4096]], ..TestImage::default() };
    let served = served(&image, Some(SIZE));
    let layer = Digest::of(&image.layers[0]).to_string();
    Played::start(move |asked| match asked.path.ends_with(&layer) {
        true => Answer::Stalls(SIZE, vec![b'x'; 1 << 20]),
        false => served.answer(asked),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_refused_is_not_downloaded_to_its_end() {
    let registry = a_large_layer_that_is_none();
    let (_dir, store) = store();
    let puller = Puller::new(store.clone(), Arc::default());
    let ended = timeout(Duration::from_secs(30), pull(&puller, &registry.name("large:v1"))).await;
    let refused = ended.expect("it ends without the bytes that do not come").unwrap_err();
    let told = crate::testing::chain(&refused);
    assert!(told.starts_with("failed to register layer"), "{told}");
    assert_eq!(crate::testing::count(store.tmp()), 0);
}

#[tokio::test]
async fn bytes_that_are_others_are_told_as_such() {
    let image = image();
    let (served, mut flipped) = (served(&image, None), image.layers[0].clone());
    // In the checksum of its first header, which is looked at long before the digest.
    flipped[150] ^= 1;
    let layer = Digest::of(&image.layers[0]).to_string();
    let registry = Played::start(move |asked| match asked.path.ends_with(&layer) {
        true => Answer::bytes("application/octet-stream", &flipped),
        false => served.answer(asked),
    });
    let (_dir, store) = store();
    let refused = pull(&Puller::new(store, Arc::default()), &registry.name("flipped:v1")).await.unwrap_err();
    assert!(refused.to_string().starts_with("filesystem layer verification failed"), "{refused}");
}

#[tokio::test]
async fn a_pull_that_waits_for_the_store_holds_up_nobody() {
    let served = served(&image(), None);
    let registry = Played::start(move |asked| served.answer(asked));
    let (_dir, store) = store();
    let puller = Puller::new(store.clone(), Arc::default());
    let found = puller.find(&registry.name("waits:v1"), None, &Credentials::default()).await.unwrap();
    let (changing, changes) = std::sync::mpsc::channel();
    let change = std::thread::spawn(move || {
        let _change = store.change();
        changing.send(()).unwrap();
        std::thread::sleep(Duration::from_secs(3));
    });
    changes.recv().unwrap();
    let began = Instant::now();
    let fetching = tokio::spawn(async move { puller.fetch(found, &listener().0).await });
    // As long as the pull needs to come to its lease, and a little more.
    for _ in 0..10 {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(2), "the runtime's only thread waited for the store");
    change.join().unwrap();
    fetching.await.unwrap().unwrap();
}
