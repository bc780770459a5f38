//! Whether an engine's image store is whole, looked at from outside: by its files (the layout is that of `caisson-images`' `store`)
//! and not by what the engine says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bounded::Bounded;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What the files of a layer are: names, kinds, owners, modes, links, contents and the times of files. Whiteouts, and directories that the
/// archive does not mention, are as old as their unpacking.
const FINGERPRINT: &str = r#"cd "$1/diff" && {
    find . ! -name . -printf '%P %y %m %U %G %l %n' \( -type f -printf ' %T@\n' -o -printf '\n' \) | sort
    find . -type f -print0 | sort -z | xargs -0 -r sha256sum
} | sha256sum"#;

/// Checks a store again and again.
pub struct StoreCheck {
    root: PathBuf,
    /// What each layer's files were when it was seen first: whatever happened since, the same layer has the same files.
    seen: BTreeMap<String, String>,
}

impl StoreCheck {
    /// Checks of the store in `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), seen: BTreeMap::new() }
    }

    /// Everything that is there is whole and needed. Nothing may be going on.
    pub fn run(&mut self) -> Result<()> {
        let mut needed = Needed::default();
        for image in self.list("images")? {
            needed.image(self, &image)?;
        }
        for held in self.list("holds")? {
            needed.config(&self.json(&format!("holds/{held}"))?)?;
        }
        let left = self.list("tmp")?;
        ensure!(left.is_empty(), "left in tmp: {left:?}");
        let blobs = self.list("blobs/sha256")?;
        ensure!(blobs == needed.blobs, "blobs are {blobs:?}, needed are {:?}", needed.blobs);
        for blob in &blobs {
            ensure!(self.digest(&format!("blobs/sha256/{blob}"))? == *blob, "blob {blob} is damaged");
        }
        let layers = self.list("layers")?;
        ensure!(layers == needed.layers, "layers are {layers:?}, needed are {:?}", needed.layers);
        layers.iter().try_for_each(|layer| self.layer(layer))
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> Result<()> {
        for folder in ["images", "blobs/sha256", "layers", "holds", "tmp"] {
            let left = self.list(folder)?;
            ensure!(left.is_empty(), "left in {folder}: {left:?}");
        }
        Ok(())
    }

    fn layer(&mut self, layer: &str) -> Result<()> {
        let record = self.json(&format!("layers/{layer}/layer.json"))?;
        let blob = self.digest(&format!("layers/{layer}/blob"))?;
        ensure!(record["blob"]["digest"] == format!("sha256:{blob}"), "the blob of layer {layer} is damaged");
        let home = self.root.join("layers").join(layer);
        let found = output(Command::new("sh").args(["-c", FINGERPRINT, "fingerprint"]).arg(home))?;
        let first = self.seen.entry(layer.to_owned()).or_insert_with(|| found.clone());
        ensure!(*first == found, "the files of layer {layer} are not what they were");
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<BTreeSet<String>> {
        let folder = self.root.join(folder);
        let names = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn json(&self, name: &str) -> Result<Value> {
        let path = self.root.join(name);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
    }

    fn digest(&self, name: &str) -> Result<String> {
        let line = output(Command::new("sha256sum").arg(self.root.join(name)))?;
        Ok(line.split_whitespace().next().context("a digest")?.to_owned())
    }
}

/// What images and containers need.
#[derive(Default)]
struct Needed {
    blobs: BTreeSet<String>,
    layers: BTreeSet<String>,
}

impl Needed {
    fn image(&mut self, of: &StoreCheck, record: &str) -> Result<()> {
        let id = record.trim_end_matches(".json").to_owned();
        self.config(&of.json(&format!("blobs/sha256/{id}"))?)?;
        self.blobs.insert(id);
        let record = of.json(&format!("images/{record}"))?;
        let manifests = record["manifests"].as_array().into_iter().flatten();
        let documents = manifests.flat_map(|manifest| [&manifest["digest"], &manifest["index"]]);
        self.blobs.extend(documents.filter_map(hex));
        Ok(())
    }

    fn config(&mut self, config: &Value) -> Result<()> {
        self.layers
            .extend(config["rootfs"]["diff_ids"].as_array().context("diff ids")?.iter().filter_map(hex));
        Ok(())
    }
}

fn hex(digest: &Value) -> Option<String> {
    Some(digest.as_str()?.strip_prefix("sha256:")?.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.in_time()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
