//! What is done when a disk has rotted: it is told, with what to do, and what is damaged is not given out any more.

use super::Store;
use super::state::familiar;
use crate::digest::DiffId;
use crate::error::chain;

impl Store {
    /// Says that what is kept of a layer is not what it was. It is forgotten, and so comes anew with the next pull or load of
    /// an image that has it; the layer's files go on serving.
    pub(crate) fn layer_is_damaged(&self, layer: &DiffId) {
        let mut change = self.change();
        let of = |(id, known): (&crate::ImageId, &super::state::Known)| {
            let has_it = known.config.rootfs.diff_ids.contains(layer);
            has_it.then(|| format!("{id} {}", familiar(&change.state.names.of(id))))
        };
        let images = change.state.images.iter().filter_map(of).collect::<Vec<_>>().join(", ");
        tracing::error!(%layer, images, "what is kept of a layer is damaged: pull or load one of its images again, which mends it");
        if let Err(error) = change.forget_blob(layer) {
            tracing::warn!(error = %chain(&error), "it could not be forgotten");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::archive::LoadOptions;
    use crate::testing::{TestImage, docker_archive, limits, small_layer};
    use crate::{Digest, OpenError, SaveError};

    fn image() -> TestImage {
        TestImage { layers: vec![small_layer("a")], tags: vec!["x:1"], ..TestImage::default() }
    }

    fn load(store: &Store) {
        store.load(&docker_archive(&[image()])[..], &LoadOptions::default(), &mut |_| {}).unwrap();
    }

    fn open(dir: &Path) -> Store {
        Store::open_with(dir, limits()).unwrap()
    }

    fn flip_one_byte(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x80;
        std::fs::write(path, bytes).unwrap();
    }

    fn home(dir: &Path) -> PathBuf {
        dir.join("layers").join(Digest::of(&small_layer("a")).hex())
    }

    #[test]
    fn a_rotten_record_costs_its_image_until_that_comes_again() {
        let id = image().id().hex();
        for file in [format!("images/{id}.json"), format!("blobs/sha256/{id}")] {
            let dir = tempfile::tempdir().unwrap();
            load(&open(dir.path()));
            flip_one_byte(&dir.path().join(&file));
            let store = open(dir.path());
            assert!(store.list().is_empty() && store.find("x:1").is_err(), "{file}");
            load(&store);
            drop(store);
            assert_eq!(open(dir.path()).find("x:1").unwrap().repo_tags(), ["x:1"], "{file}");
        }
    }

    #[test]
    fn a_rotten_record_of_a_layer_costs_its_blob_only() {
        let dir = tempfile::tempdir().unwrap();
        load(&open(dir.path()));
        flip_one_byte(&home(dir.path()).join("layer.json"));
        let store = open(dir.path());
        let save =
            || store.saving(&["x:1".to_owned()], None).and_then(|saving| saving.write(std::io::sink()));
        assert_eq!(store.find("x:1").unwrap().repo_tags(), ["x:1"]);
        assert!(matches!(save(), Err(SaveError::Incomplete(_))));
        load(&store);
        drop(store);
        let store = open(dir.path());
        store.saving(&["x:1".to_owned()], None).and_then(|saving| saving.write(std::io::sink())).unwrap();
    }

    /// The configuration of an image and what its containers hold are one file.
    #[test]
    fn what_a_container_may_hold_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        load(&store);
        store.hold("running", &crate::ImageId(image().id())).unwrap();
        drop(store);
        flip_one_byte(&dir.path().join("blobs/sha256").join(image().id().hex()));
        for _ in 0..2 {
            let store = open(dir.path());
            assert!(store.find("x:1").is_err());
            store.release_all_but(&|container| container == "running").unwrap();
            assert!(home(dir.path()).join("diff").is_dir(), "a running container's files are gone");
        }
        open(dir.path()).release("running").unwrap();
        assert!(!home(dir.path()).exists());
    }

    #[test]
    fn a_newer_format_is_no_damage() {
        let id = image().id().hex();
        for file in [
            "repositories.json".to_owned(),
            format!("images/{id}.json"),
            format!("layers/{}/layer.json", Digest::of(&small_layer("a")).hex()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            load(&open(dir.path()));
            let newer = br#"{"version":99,"size":"of another shape","references":7}"#;
            std::fs::write(dir.path().join(&file), newer).unwrap();
            let refused = Store::open_with(dir.path(), limits()).map(drop);
            assert!(matches!(refused, Err(OpenError::Newer { found: 99, .. })), "{file}: {refused:?}");
            assert_eq!(std::fs::read(dir.path().join(&file)).unwrap(), newer, "{file}");
        }
    }

    #[test]
    fn rotten_names_leave_the_images() {
        let dir = tempfile::tempdir().unwrap();
        load(&open(dir.path()));
        flip_one_byte(&dir.path().join("repositories.json"));
        let store = open(dir.path());
        assert!(store.find("x:1").is_err());
        assert!(store.find(&image().id().to_string()).unwrap().references.is_empty());
        assert!(dir.path().join("repositories.damaged").exists());
    }

    #[test]
    fn a_rotten_blob_is_told_and_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        load(&store);
        let save =
            || store.saving(&["x:1".to_owned()], None).and_then(|saving| saving.write(std::io::sink()));
        save().unwrap();
        flip_one_byte(&home(dir.path()).join("blob"));
        assert!(matches!(save(), Err(SaveError::Damaged(_))));
        assert!(matches!(save(), Err(SaveError::Incomplete(_))));
        load(&store);
        save().unwrap();
    }
}
