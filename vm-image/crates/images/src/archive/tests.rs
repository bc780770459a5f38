use super::*;
use crate::testing::{
    Tarball, TestImage, blob, count, docker_archive, gzip, limits, oci_archive, oci_image, oci_layout,
    small_layer, store,
};
use crate::{Limits, Platform};

fn image(comment: &'static str, layers: &[&str], tags: &[&'static str]) -> TestImage {
    let layers = layers.iter().map(|name| small_layer(name)).collect();
    TestImage { layers, tags: tags.to_vec(), comment, ..TestImage::default() }
}

fn load(store: &Store, archive: &[u8]) -> Result<(Vec<Loaded>, Vec<String>), LoadError> {
    let mut lines = Vec::new();
    let loaded = store.load(archive, &LoadOptions::default(), &mut |event| {
        if let LoadEvent::Message(line) = event {
            lines.push(line);
        }
    })?;
    Ok((loaded, lines))
}

/// Everything but the lock and the directories themselves is gone.
fn assert_empty(store: &Store) {
    assert!(store.list().is_empty());
    for dir in ["images", "blobs/sha256", "layers", "tmp"] {
        assert_eq!(count(store.root().join(dir)), 0, "{dir}");
    }
}

#[test]
fn a_docker_archive_is_loaded() {
    let image = image("one", &["base", "top"], &["busybox:latest", "registry.example:5000/b:1"]);
    let archive = docker_archive(std::slice::from_ref(&image));
    for packed in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
        let (_dir, store) = store();
        let (loaded, lines) = load(&store, &packed).unwrap();
        assert_eq!(loaded[0].id.0, image.id());
        assert_eq!(lines, ["Loaded image: busybox:latest\n", "Loaded image: registry.example:5000/b:1\n"]);
        let found = store.find("busybox").unwrap();
        assert_eq!(found.repo_tags(), ["busybox:latest", "registry.example:5000/b:1"]);
        assert_eq!((found.size, found.labels()["of"].as_str()), (7, "one"));
        assert_eq!(store.raw_config(&found.id).unwrap(), image.config());
        let layers = store.layers(&found.id).unwrap();
        assert!(layers[0].join("top").is_file() && layers[1].join("base").is_file());
        assert_eq!(count(store.root().join("tmp")), 0);
    }
}

#[test]
fn an_oci_layout_is_loaded() {
    let (_dir, store) = store();
    let archive = oci_archive(&[image("one", &["a", "b"], &["docker.io/library/busybox:1", "localhost/x"])]);
    let (loaded, lines) = load(&store, &archive).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(lines, ["Loaded image: busybox:1\n", "Loaded image: localhost/x:latest\n"]);
    assert!(store.layers(&loaded[0].id).unwrap()[1].join("a").is_file());
}

#[test]
fn images_without_a_name_are_told_by_id() {
    for archive in [docker_archive, oci_archive] {
        let (_dir, store) = store();
        let images = [image("one", &["a"], &[]), image("two", &["a"], &[])];
        let (loaded, lines) = load(&store, &archive(&images)).unwrap();
        let expected: Vec<_> =
            images.iter().map(|image| format!("Loaded image ID: {}\n", image.id())).collect();
        assert_eq!((lines, loaded.len()), (expected, 2));
        assert_eq!(count(store.root().join("layers")), 1);
    }
}

#[test]
fn a_name_moves_to_the_newer_image() {
    let (_dir, store) = store();
    let (old, new) = (image("old", &["a"], &["x:1"]), image("new", &["b"], &["x:1"]));
    load(&store, &docker_archive(std::slice::from_ref(&old))).unwrap();
    let (_, lines) = load(&store, &docker_archive(std::slice::from_ref(&new))).unwrap();
    let renamed =
        format!("The image x:1 already exists, renaming the old one with ID {} to empty string\n", old.id());
    assert_eq!(lines, [renamed, "Loaded image: x:1\n".to_owned()]);
    assert!(store.find(&old.id().to_string()).unwrap().is_dangling());
    assert_eq!(load(&store, &docker_archive(&[new])).unwrap().1, ["Loaded image: x:1\n"]);
}

#[test]
fn layers_that_are_there_are_not_read_again() {
    let (_dir, store) = store();
    let image = image("one", &["a"], &["x:1"]);
    let mut layers = 0;
    for _ in 0..2 {
        let archive = docker_archive(std::slice::from_ref(&image));
        let count = &mut |event| layers += u32::from(matches!(event, LoadEvent::Layer { .. }));
        store.load(&archive[..], &LoadOptions::default(), count).unwrap();
    }
    assert_eq!(layers, 1);
}

#[test]
fn progress_ends_at_the_whole() {
    let (_dir, store) = store();
    let big = Tarball::default().file("big", &vec![7; 5 << 20]).end();
    let total = big.len() as u64;
    let image = TestImage { layers: vec![big], ..TestImage::default() };
    let mut seen = Vec::new();
    let archive = docker_archive(&[image]);
    store
        .load(&archive[..], &LoadOptions::default(), &mut |event| {
            if let LoadEvent::Layer { current, total: of, .. } = event {
                seen.push((current, of));
            }
        })
        .unwrap();
    assert!(seen.len() > 5 && seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&(total, total)));
}

#[test]
fn old_archives_share_layers_by_links() {
    let (_dir, store) = store();
    let image = image("one", &["a"], &[]);
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["2/layer.tar"]}]);
    let tar = Tarball::default()
        .dir("1/")
        .file("1/layer.tar", &image.layers[0])
        .symlink("2/layer.tar", "../1/layer.tar")
        .file("c.json", &image.config())
        .file("manifest.json", manifest.to_string().as_bytes())
        .file("repositories", b"{}");
    load(&store, &tar.end()).unwrap();
    assert!(store.layers(&store.find("x:1").unwrap().id).unwrap()[0].join("a").is_file());
}

#[test]
fn parents_in_the_archive_are_remembered() {
    let (_dir, store) = store();
    let parent = image("parent", &["a"], &["p:1"]);
    let child = TestImage { parent: parent.id().to_string(), ..image("child", &["a", "b"], &["c:1"]) };
    let stranger = TestImage { parent: Digest::of(b"gone").to_string(), ..image("other", &["a"], &["o:1"]) };
    load(&store, &docker_archive(&[parent, child, stranger])).unwrap();
    let parent = store.find("p:1").unwrap();
    assert_eq!((store.find("c:1").unwrap().parent, parent.children), (Some(parent.id), 1));
    assert_eq!(store.find("o:1").unwrap().parent, None);
}

/// An index with a manifest for each architecture, and an attestation.
fn multi_platform(architectures: &[&'static str]) -> Vec<u8> {
    let mut tar = Tarball::default();
    let mut manifests = Vec::new();
    for architecture in architectures {
        let one = TestImage { architecture: Some(architecture), ..image(architecture, &[architecture], &[]) };
        let (with, manifest) = oci_image(tar, &one);
        tar = with;
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&manifest), "size": 1,
            "platform": {"os": "linux", "architecture": architecture},
        }));
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(b"absent"), "size": 1,
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }));
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let top = serde_json::json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(index.as_bytes()), "size": 1,
        "annotations": {"org.opencontainers.image.ref.name": "multi:1"},
    });
    oci_layout(blob(tar, index.as_bytes()), &[top])
}

#[test]
fn of_many_platforms_all_are_loaded_or_the_one_that_is_asked_for() {
    let other = if Platform::here().architecture == "s390x" { "riscv64" } else { "s390x" };
    let here: &'static str = Platform::here().architecture.leak();
    let asked = Platform { architecture: other.to_owned(), ..Platform::here() };
    let options = LoadOptions { platform: Some(asked) };
    let (_dir, store) = store();
    store.load(&multi_platform(&[here, other])[..], &options, &mut |_| {}).unwrap();
    assert_eq!(store.find("multi:1").unwrap().config.architecture, other);
    assert_eq!(store.list().len(), 1);
    load(&store, &multi_platform(&[other, here])).unwrap();
    assert_eq!(store.find("multi:1").unwrap().config.architecture, here);
    assert_eq!(store.find_all("multi:1").unwrap().len(), 2);
    // The only one is taken, wherever it runs; unless another was asked for.
    load(&store, &multi_platform(&["ppc64le"])).unwrap();
    assert_eq!(store.find("multi:1").unwrap().config.architecture, "ppc64le");
    let error = store.load(&multi_platform(&[here])[..], &options, &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), format!("no matching manifest for linux/{other} in the archive"));
}

#[test]
fn what_is_no_image_is_refused_with_a_reason_and_leaves_nothing() {
    let one = image("one", &["a"], &[]);
    let config = one.config();
    let text = |value: serde_json::Value| value.to_string().into_bytes();
    let manifest = |value: serde_json::Value| {
        Tarball::default()
            .file("c", &config)
            .file("l", &one.layers[0])
            .file("manifest.json", &text(value))
            .end()
    };
    let windows = br#"{"os":"windows","rootfs":{"type":"layers"}}"#;
    let history = br#"{"rootfs":{"type":"layers"},"history":[{"created_by":"x"}]}"#;
    for (archive, error) in [
        (b"".to_vec(), "invalid archive: does not contain a manifest.json"),
        (b"this is no tar".repeat(99), "invalid archive: invalid tar header"),
        (b"short".to_vec(), "invalid archive: unexpected EOF"),
        (
            Tarball::default().file("etc/passwd", b"root").end(),
            "invalid archive: does not contain a manifest.json",
        ),
        (Tarball::default().file("../x", b"").end(), "invalid archive: \"../x\" is outside of the archive"),
        (
            Tarball::default().file("manifest.json", b"null").end(),
            "invalid manifest, manifest cannot be null (but can be [])",
        ),
        (
            Tarball::default().file("manifest.json", b"[").end(),
            "invalid archive: failed to decode manifest.json: EOF while parsing a list at line 1 column 1",
        ),
        (manifest(serde_json::json!([{"Config": "x"}])), "invalid archive: does not contain x"),
        (
            manifest(serde_json::json!([{"Config": "l"}])),
            "invalid image JSON: expected value at line 1 column 1",
        ),
        (
            manifest(serde_json::json!([{"Config": "c", "Layers": ["x"]}])),
            "invalid archive: does not contain x",
        ),
        (
            manifest(serde_json::json!([{"Config": "c", "Layers": []}])),
            "invalid manifest, layers length mismatch: expected 0, got 1",
        ),
        (
            manifest(serde_json::json!([{"Config": "c", "Layers": ["l"], "RepoTags": ["Foo:1"]}])),
            "invalid reference format: repository name (library/Foo) must be lowercase",
        ),
        (
            manifest(serde_json::json!([{"Config": "c", "Layers": ["l"], "RepoTags": ["foo"]}])),
            "invalid tag \"foo\"",
        ),
        (
            Tarball::default().file("c", windows).file("manifest.json", br#"[{"Config":"c"}]"#).end(),
            "cannot load windows image on linux",
        ),
        (
            Tarball::default().file("c", history).file("manifest.json", br#"[{"Config":"c"}]"#).end(),
            "too many non-empty layers in History section",
        ),
    ] {
        let (_dir, store) = store();
        let found = load(&store, &archive).unwrap_err();
        assert_eq!(crate::testing::chain(&found), error);
        assert_eq!(found.kind(), ErrorKind::Invalid, "{error}");
        assert_empty(&store);
    }
}

#[test]
fn wrong_digests_leave_nothing() {
    let (good, bad) = (small_layer("good"), small_layer("evil"));
    let honest = image("one", &["good"], &["x:1"]);
    let swap = |archive: Vec<u8>, from: &[u8], to: &[u8]| {
        assert_eq!(from.len(), to.len());
        let at = archive.windows(from.len()).position(|window| window == from).unwrap();
        [&archive[..at], to, &archive[at + from.len()..]].concat()
    };
    // A layer that is not what the configuration says.
    let (_dir, store) = store();
    let error = load(&store, &swap(docker_archive(std::slice::from_ref(&honest)), &good, &bad)).unwrap_err();
    let expected = format!(
        "invalid diffID for layer 0: expected \"{}\", got \"{}\"",
        Digest::of(&good),
        Digest::of(&bad)
    );
    assert_eq!(error.to_string(), expected);
    assert_empty(&store);
    // An OCI blob that is not what its name says: the configuration, and a layer whose stream only looks the same.
    let oci = oci_archive(std::slice::from_ref(&honest));
    let config = honest.config();
    let other = String::from_utf8(config.clone()).unwrap().replace("one", "two").into_bytes();
    assert!(matches!(load(&store, &swap(oci.clone(), &config, &other)), Err(LoadError::Digest { .. })));
    let packed = gzip(&good);
    let mut renamed = packed.clone();
    renamed[9] ^= 1; // the operating system field, which no decompressor minds
    assert!(matches!(load(&store, &swap(oci, &packed, &renamed)), Err(LoadError::Digest { .. })));
    assert_empty(&store);
}

#[test]
fn a_bad_image_does_not_take_the_good_ones_before_it() {
    let (_dir, store) = store();
    let mut bad = image("bad", &["b", "c"], &["bad:1"]);
    bad.layers[1] = b"no tar at all".repeat(99);
    assert!(load(&store, &docker_archive(&[image("good", &["a"], &["good:1"]), bad])).is_err());
    assert_eq!(store.list().len(), 1);
    assert!(store.find("bad:1").is_err());
    assert_eq!(count(store.root().join("layers")), 1);
    assert_eq!(count(store.root().join("tmp")), 0);
}

#[test]
fn limits_hold_for_archives_too() {
    let archive = docker_archive(&[image("one", &["a"], &[])]);
    for limits in [
        Limits { document_bytes: 10, ..limits() },
        Limits { layer_entries: 1, ..limits() },
        Limits { keep_free: u64::MAX, ..limits() },
        Limits { layer_bytes: 100, ..limits() },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), limits).unwrap();
        assert!(load(&store, &archive).is_err(), "{limits:?}");
        assert_empty(&store);
    }
}

#[test]
fn the_sender_is_read_to_the_end() {
    let (_dir, store) = store();
    let mut archive = docker_archive(&[image("one", &["a"], &[])]);
    archive.extend_from_slice(&[0; 300_000]);
    let mut reader = &archive[..];
    let sender = &mut reader;
    store.load(sender, &LoadOptions::default(), &mut |_| {}).unwrap();
    assert!(reader.is_empty());
}

#[test]
fn what_cannot_be_written_down_leaves_no_layers() {
    let (_dir, store) = store();
    let records = store.root().join("images");
    std::fs::remove_dir(&records).unwrap();
    let archive = docker_archive(&[image("one", &["a", "b"], &["x:1"])]);
    assert_eq!(load(&store, &archive).unwrap_err().kind(), ErrorKind::Internal);
    assert!(store.import(&small_layer("c")[..], &crate::ImportOptions::default()).is_err());
    for dir in ["layers", "tmp"] {
        assert_eq!(count(store.root().join(dir)), 0, "{dir}");
    }
    std::fs::create_dir(&records).unwrap();
    let (loaded, _) = load(&store, &archive).unwrap();
    assert!(store.layers(&loaded[0].id).unwrap().iter().all(|layer| layer.is_dir()));
}
