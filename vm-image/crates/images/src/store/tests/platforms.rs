//! Names that lead to the same image for several platforms.

use serde_json::json;

use super::*;
use crate::platform::Platform;
use crate::store::ManifestKind;
use crate::testing::{Tarball, blob, oci_image, oci_layout};

const OTHER: &str = "riscv64";

fn platform(architecture: &str) -> Platform {
    Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: String::new() }
}

fn here() -> String {
    Platform::here().architecture
}

/// One image for each architecture, each with a layer of its own and one that all have.
fn images(architectures: &[&'static str]) -> Vec<TestImage> {
    let of = |architecture: &&'static str| TestImage {
        layers: vec![small_layer("all"), small_layer(architecture)],
        architecture: Some(*architecture).filter(|architecture| *architecture != "here"),
        ..TestImage::default()
    };
    architectures.iter().map(of).collect()
}

/// A layout with an index of these images under a name. `without` is an architecture that is in the index only.
fn archive(name: Option<&str>, images: &[TestImage], without: Option<&str>) -> Vec<u8> {
    let (mut tar, mut manifests) = (Tarball::default(), Vec::new());
    for image in images {
        let architecture = image.architecture.map_or_else(here, str::to_owned);
        let is_left_out = Some(architecture.as_str()) == without;
        let (with, manifest) = oci_image(if is_left_out { Tarball::default() } else { tar.clone() }, image);
        if !is_left_out {
            tar = with;
        }
        manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.len(),
            "digest": Digest::of(&manifest), "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    manifests.push(json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2, "digest": Digest::of(b"{}"),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": manifests[0]["digest"],
        },
    }));
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap();
    let annotations = name.map(|name| json!({"io.containerd.image.name": name}));
    let entry = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "size": index.len(),
        "digest": Digest::of(&index), "annotations": annotations,
    });
    oci_layout(blob(tar, &index), &[entry])
}

fn load(store: &Store, archive: &[u8]) -> (Vec<ImageId>, Vec<String>) {
    let mut lines = Vec::new();
    let mut note = |event| {
        if let crate::LoadEvent::Message(line) = event {
            lines.push(line);
        }
    };
    let loaded = store.load(archive, &LoadOptions::default(), &mut note).unwrap();
    (loaded.into_iter().map(|loaded| loaded.id).collect(), lines)
}

/// A store with `x:1` for another platform and for this one, and the two images: this one's first.
fn two() -> (tempfile::TempDir, Store, [ImageId; 2]) {
    let (dir, store) = store();
    let images = images(&[OTHER, "here"]);
    let (loaded, lines) = load(&store, &archive(Some("docker.io/library/x:1"), &images, None));
    let ids = [ImageId(images[1].id()), ImageId(images[0].id())];
    assert_eq!((loaded, lines), (vec![ids[0]], vec!["Loaded image: x:1\n".to_owned()]));
    (dir, store, ids)
}

#[test]
fn a_name_leads_to_each_platform() {
    let (dir, store, ids) = two();
    let other = platform(OTHER);
    let check = |store: &Store| {
        assert_eq!(store.find("x:1").unwrap().id, ids[0]);
        assert_eq!(store.find_all("x:1").unwrap(), ids);
        assert_eq!(store.find_for("x:1", Some(&other)).unwrap().id, ids[1]);
        // From the id that is shown, too.
        assert_eq!(store.find_for(&ids[0].to_string(), Some(&other)).unwrap().id, ids[1]);
        let shown: Vec<_> = store.list().into_iter().filter(|image| !image.is_behind_another).collect();
        assert_eq!((shown.len(), shown[0].id, &shown[0].others[..]), (1, ids[0], &ids[1..]));
    };
    check(&store);
    let none = store.find_for("x:1", Some(&platform("s390x"))).unwrap_err().to_string();
    assert_eq!(
        none,
        "image with reference x:1 was found but does not provide the specified platform (linux/s390x)"
    );
    store.tag("x:1", &reference("y:2")).unwrap();
    assert_eq!(store.find_all("y:2").unwrap(), ids);
    drop(store);
    check(&Store::open_with(dir.path(), limits()).unwrap());
}

#[test]
fn its_manifests_are_told() {
    let (_dir, store, ids) = two();
    let described = store.described(&ids[1]).unwrap();
    assert_eq!(described, store.described(&ids[0]).unwrap());
    assert_eq!(described.target.media_type, "application/vnd.oci.image.index.v1+json");
    let kinds: Vec<_> = described.manifests.iter().map(|manifest| &manifest.kind).collect();
    let of = |architecture: &str, id| ManifestKind::Image {
        platform: Some(platform(architecture)),
        image: Some(id),
    };
    let attested = ManifestKind::Attestation { of: described.manifests[0].descriptor.digest };
    assert_eq!(kinds, [&of(OTHER, ids[1]), &of(&here(), ids[0]), &attested]);
    assert!(described.manifests[0].content > 0 && described.manifests[2].content == 0);
}

#[test]
fn all_platforms_go_with_the_last_name() {
    let (_dir, store, ids) = two();
    store.tag("x:1", &reference("y:2")).unwrap();
    assert_eq!(words(&store.remove("x:1", PLAIN, &unused).unwrap()), ["Untagged: x:1"]);
    let removed = words(&store.remove("y:2", PLAIN, &unused).unwrap());
    assert_eq!(removed[..2], ["Untagged: y:2".to_owned(), format!("Deleted: {}", ids[0])]);
    assert!(removed.contains(&format!("Deleted: {}", ids[1])), "{removed:?}");
    assert!(
        store.list().is_empty()
            && store.layer_size(&crate::DiffId(Digest::of(&small_layer("all")))).is_none()
    );
}

#[test]
fn one_platform_goes_alone() {
    for by_id in [true, false] {
        let (_dir, store, ids) = two();
        let (name, options) = match by_id {
            true => (ids[1].to_string(), PLAIN),
            false => ("x:1".to_owned(), RemoveOptions { platforms: vec![platform(OTHER)], ..FORCE }),
        };
        let unforced = RemoveOptions { force: false, ..options.clone() };
        if !by_id {
            let refused = store.remove(&name, unforced, &unused).unwrap_err().to_string();
            assert!(refused.starts_with("Content will be removed from all images"), "{refused}");
        }
        let running = |id: &ImageId| if *id == ids[1] { container(true) } else { Vec::new() };
        let refused = store.remove(&name, options.clone(), &running).unwrap_err().to_string();
        assert!(refused.contains("image is being used by running container"), "{refused}");
        let removed = words(&store.remove(&name, options, &unused).unwrap());
        assert_eq!(removed[0], format!("Deleted: {}", ids[1]));
        assert_eq!(store.find_all("x:1").unwrap(), ids[..1]);
    }
}

#[test]
fn a_container_of_any_platform_keeps_the_name() {
    let (_dir, store, ids) = two();
    let used = |id: &ImageId| if *id == ids[1] { container(false) } else { Vec::new() };
    let refused = store.remove("x:1", PLAIN, &used).unwrap_err().to_string();
    assert!(refused.contains(&format!("is using its referenced image {}", ids[1].short())), "{refused}");
    let refused = store.remove(&ids[0].to_string(), PLAIN, &used).unwrap_err().to_string();
    assert!(refused.contains("image is being used by stopped container"), "{refused}");
    assert_eq!(store.find_all("x:1").unwrap(), ids);
}

#[test]
fn all_platforms_are_saved_or_the_one_that_is_asked_for() {
    let (_dir, store, ids) = two();
    let save = |platform: Option<&Platform>| {
        let mut out = Vec::new();
        store.saving(&["x:1".to_owned()], platform).unwrap().write(&mut out).unwrap();
        out
    };
    for (wanted, expected) in [(None, &ids[..]), (Some(platform(OTHER)), &ids[1..])] {
        let (_other, to) = self::store();
        load(&to, &save(wanted.as_ref()));
        assert_eq!(to.find_all("x:1").unwrap(), expected, "{wanted:?}");
    }
    let refused = store.saving(&["x:1".to_owned()], Some(&platform("s390x"))).unwrap_err();
    assert!(refused.to_string().contains("does not provide the specified platform"), "{refused}");
}

#[test]
fn what_an_index_speaks_of_need_not_be_there() {
    let all = images(&[OTHER, "here", "s390x"]);
    let (_dir, store) = store();
    load(&store, &archive(Some("docker.io/library/x:1"), &all, Some("s390x")));
    assert_eq!(store.find_all("x:1").unwrap(), [ImageId(all[1].id()), ImageId(all[0].id())]);
    let options = LoadOptions { platform: Some(platform("s390x")) };
    let archive_of_two = archive(Some("docker.io/library/x:1"), &all, Some("s390x"));
    assert!(matches!(store.load(&archive_of_two[..], &options, &mut |_| {}), Err(LoadError::Missing(_))));
    let options = LoadOptions { platform: Some(platform("mips64le")) };
    assert!(matches!(store.load(&archive_of_two[..], &options, &mut |_| {}), Err(LoadError::NoPlatform(_))));
}

#[test]
fn an_index_without_a_name_is_loaded_for_this_platform() {
    let (_dir, store) = store();
    let all = images(&[OTHER, "here"]);
    let (loaded, lines) = load(&store, &archive(None, &all, None));
    assert_eq!(loaded, [ImageId(all[1].id())]);
    assert_eq!((lines, store.list().len()), (vec![format!("Loaded image ID: {}\n", loaded[0])], 1));
}

#[test]
fn what_runs_best_here_comes_first() {
    let (_dir, store) = store();
    // What this computer runs, too.
    let other = if here() == "arm64" { "arm" } else { "386" };
    let ids = add(&store, &images(&[other, "here"]));
    for (name, order) in [("up:v1", [0, 1]), ("down:v1", [1, 0])] {
        let mut change = store.change();
        for at in order {
            change.name_platform(&reference(name), ids[at]).unwrap();
        }
        drop(change);
        assert_eq!(store.find(name).unwrap().id, ids[1]);
        assert_eq!(store.find_for(name, Some(&platform(other))).unwrap().id, ids[0]);
        assert!(store.find_only_for(name, &platform("unheard-of")).is_err());
    }
}
