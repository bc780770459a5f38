use super::*;
use crate::archive::LoadOptions;
use crate::digest::Digest;
use crate::testing::{TestImage, docker_archive, small_layer, store};

fn image(layers: &[&str], tags: &[&'static str]) -> TestImage {
    let layers = layers.iter().map(|name| small_layer(name)).collect();
    TestImage { layers, tags: tags.to_vec(), ..TestImage::default() }
}

fn load(store: &Store, archive: &[u8]) -> Vec<ImageId> {
    let loaded = store.load(archive, &LoadOptions::default(), &mut |_| {}).unwrap();
    loaded.into_iter().map(|loaded| loaded.id).collect()
}

fn save(store: &Store, names: &[&str]) -> Result<Vec<u8>, SaveError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut out = Vec::new();
    store.saving(&names, None)?.write(&mut out).map(|()| out)
}

#[test]
fn what_is_saved_is_loaded_again() {
    let (_dir, from) = store();
    let images = [image(&["a", "b"], &["x:1", "x:2"]), image(&["a", "c"], &["y:1"])];
    let ids = load(&from, &docker_archive(&images));
    let saved = save(&from, &["x", "y:1"]).unwrap();
    assert_eq!(save(&from, &["x", "y:1"]).unwrap(), saved, "the same images are the same bytes");
    let (_other, to) = store();
    assert_eq!(load(&to, &saved), ids);
    assert_eq!(to.find("x:1").unwrap().repo_tags(), ["x:1", "x:2"]);
    // By id, an image has no name.
    let (_third, to) = store();
    load(&to, &save(&from, &[&ids[1].to_string()]).unwrap());
    assert!(to.find(&ids[1].to_string()).unwrap().references.is_empty());
}

#[test]
fn the_same_archive_is_an_oci_layout() {
    let (_dir, from) = store();
    load(&from, &docker_archive(&[image(&["a"], &["x:1"])]));
    let saved = save(&from, &["x:1"]).unwrap();
    let mut without = tar::Builder::new(Vec::new());
    let mut archive = tar::Archive::new(&saved[..]);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() != Some("manifest.json") {
            let mut header = entry.header().clone();
            let path = entry.path().unwrap().into_owned();
            without.append_data(&mut header, path, &mut entry).unwrap();
        }
    }
    let (_other, to) = store();
    load(&to, &without.into_inner().unwrap());
    assert_eq!(to.find("x:1").unwrap().repo_tags(), ["x:1"]);
}

#[test]
fn what_cannot_be_saved_is_told() {
    let (dir, store) = store();
    load(&store, &docker_archive(&[image(&["a"], &["x:1"])]));
    assert_eq!(save(&store, &["nope"]).unwrap_err().to_string(), "No such image: nope");
    let home = dir.path().join("layers").join(Digest::of(&small_layer("a")).hex());
    std::fs::write(home.join("blob"), zstd::encode_all(&small_layer("b")[..], 1).unwrap()).unwrap();
    assert!(matches!(save(&store, &["x:1"]), Err(SaveError::Damaged(_))));
}
