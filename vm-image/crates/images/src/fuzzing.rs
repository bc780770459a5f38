//! What the fuzz targets feed (`vm-image/fuzz`): what strangers' bytes reach first, and what must be true whatever they are.
//! Only with the feature `fuzzing`; for nothing else.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::archive::LoadOptions;
use crate::config::ImageConfig;
use crate::error::{Classified, ErrorKind};
use crate::layer::Layers;
use crate::manifest::{self, Parsed};
use crate::platform::Platform;
use crate::reference::{AnyReference, Reference};
use crate::store::{Limits, Store, read_config};

/// What a small disk in memory has room for.
const LIMITS: Limits =
    Limits { layer_bytes: 4 << 20, layer_entries: 4096, document_bytes: 1 << 20, keep_free: 0 };

/// Reads what may be a manifest, an index or a configuration. What can be read says the same when it is written and read again.
pub fn document(bytes: &[u8]) {
    for announced in [None, Some("application/json; charset=utf-8"), Some(manifest::DOCKER_MANIFEST)] {
        match Parsed::read(bytes, &manifest::media_type(bytes, announced)) {
            Ok(Parsed::Image(read)) => {
                let written = serde_json::to_vec(&read).expect("a manifest can be written");
                let again = serde_json::from_slice(&written).expect("what was written can be read");
                assert_eq!(read, again);
            }
            Ok(Parsed::Index(manifests)) => drop(manifest::choose(&manifests, &Platform::here()).cloned()),
            Err(_) => {}
        }
    }
    if let Ok(config) = read_config(bytes) {
        assert_eq!(config.chain().len(), config.rootfs.diff_ids.len());
        let (_, _, _) = (config.run(), config.platform(), config.created_at());
        let written = serde_json::to_vec(&config).expect("a configuration can be written");
        assert_eq!(
            config,
            serde_json::from_slice::<ImageConfig>(&written).expect("what was written can be read")
        );
    }
}

/// Reads what may be a name. What is one stays the same however it is written.
pub fn reference(text: &str) {
    if let Ok(name) = Reference::parse(text) {
        for written in [name.to_string(), name.familiar()] {
            assert_eq!(Reference::parse(&written).as_ref(), Ok(&name), "{written:?}");
        }
        let tagged = name.clone().or_latest();
        assert!(tagged.tag().is_some() || tagged.digest().is_some());
        assert_eq!(Reference::parse(&name.name()).map(|named| named.name()), Ok(name.name()));
        assert!(!name.path().split('/').any(|part| part.is_empty() || part == "." || part == ".."));
    }
    // Written with its tag, that of a name without one is `latest`.
    if let Ok(any) = AnyReference::parse(text) {
        let written = any.to_string();
        assert_eq!(AnyReference::parse(&written).map(|again| again.to_string()), Ok(written));
    }
}

/// A place where layers are unpacked.
#[derive(Debug)]
pub struct Unpacking {
    dir: tempfile::TempDir,
    layers: Layers,
    outside: Outside,
}

impl Unpacking {
    /// In a directory of its own.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        for name in ["layers", "tmp"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let layers = Layers::new(dir.path().join("layers"), dir.path().join("tmp"));
        let outside = Outside::new(dir.path())?;
        Ok(Self { dir, layers, outside })
    }

    /// Unpacks what may be a layer. Nothing outside changes, and nothing of it is left.
    pub fn layer(&self, bytes: &[u8]) {
        match self.layers.stage(bytes, &LIMITS) {
            Ok(staged) => assert!(staged.record.is_complete()),
            Err(error) => refused(&error),
        }
        self.outside.check();
        assert!(is_empty(&self.dir.path().join("tmp")), "something is left");
    }
}

/// A store that archives are loaded to.
#[derive(Debug)]
pub struct Loading {
    dir: tempfile::TempDir,
    store: Store,
    outside: Outside,
}

impl Loading {
    /// In a directory of its own.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let store = Store::open_with(dir.path().join("store"), LIMITS).map_err(io::Error::other)?;
        let outside = Outside::new(dir.path())?;
        Ok(Self { dir, store, outside })
    }

    /// Loads what may be an archive, and removes what came of it. Nothing is left.
    pub fn archive(&self, bytes: &[u8]) {
        if let Err(error) = self.store.load(bytes, &LoadOptions::default(), &mut |_| {}) {
            refused(&error);
        }
        let force = || crate::RemoveOptions { force: true, ..crate::RemoveOptions::default() };
        while let Some(image) = self.store.list().pop() {
            self.store.layers(&image.id).expect("an image that is listed has layers");
            self.store.remove(&image.id.to_string(), force(), &|_| Vec::new()).expect("nothing holds it");
        }
        self.outside.check();
        for folder in ["tmp", "layers", "images", "blobs/sha256"] {
            assert!(is_empty(&self.dir.path().join("store").join(folder)), "something is left in {folder}");
        }
    }
}

/// The fault is the bytes', never the engine's.
fn refused(error: &(impl Classified + std::fmt::Debug)) {
    assert!(error.kind() != ErrorKind::Internal, "{error:?}");
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Something beside, which nothing may reach.
#[derive(Debug)]
struct Outside {
    path: std::path::PathBuf,
    was: (u32, u32, i64, u64),
}

impl Outside {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join("outside");
        fs::write(&path, "outside")?;
        let was = Self::look(&path)?;
        Ok(Self { path, was })
    }

    fn look(path: &Path) -> io::Result<(u32, u32, i64, u64)> {
        let seen = path.symlink_metadata()?;
        Ok((seen.mode(), seen.uid(), seen.mtime_nsec(), seen.nlink()))
    }

    fn check(&self) {
        assert!(Self::look(&self.path).is_ok_and(|now| now == self.was), "something outside was changed");
        assert_eq!(fs::read(&self.path).ok().as_deref(), Some(&b"outside"[..]));
    }
}

/// The seeds of the targets, without libFuzzer: what the fuzzers begin with holds in every run of the tests.
#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let seeds: Vec<_> =
            fs::read_dir(dir).unwrap().map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        seeds
    }

    /// Each seed, and what is left of it when it ends too early, or has a bit flipped.
    fn feed(target: &str, take: impl Fn(&[u8])) {
        for seed in seeds(target) {
            take(&seed);
            for at in (0..seed.len()).step_by((seed.len() / 32).max(1)) {
                take(&seed[..at]);
                let mut flipped = seed.clone();
                flipped[at] ^= 0x10;
                take(&flipped);
            }
        }
    }

    #[test]
    fn documents() {
        feed("document", document);
    }

    #[test]
    fn references() {
        feed("reference", |bytes| reference(&String::from_utf8_lossy(bytes)));
    }

    #[test]
    fn layers() {
        let unpacking = Unpacking::new().unwrap();
        feed("layer", |bytes| unpacking.layer(bytes));
    }

    #[test]
    fn archives() {
        let loading = Loading::new().unwrap();
        feed("archive", |bytes| loading.archive(bytes));
    }
}
