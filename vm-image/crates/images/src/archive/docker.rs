//! What `docker save` writes: `manifest.json`, a list of images with their configuration, layers and names.

use serde::Deserialize;

use super::spool::Spool;
use super::{Layer, LoadError, Planned};
use crate::digest::ImageId;
use crate::reference::Reference;
use crate::store::{Limits, read_config};

pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

/// The images that the manifest names, in its order.
pub(super) fn plan(spool: &Spool, manifest: &[u8], limits: &Limits) -> Result<Vec<Planned>, LoadError> {
    let items: Option<Vec<Item>> =
        serde_json::from_slice(manifest).map_err(|error| LoadError::Json(MANIFEST.to_owned(), error))?;
    let items = items.ok_or(LoadError::NullManifest)?;
    items.into_iter().map(|item| plan_item(spool, item, limits)).collect()
}

fn plan_item(spool: &Spool, item: Item, limits: &Limits) -> Result<Planned, LoadError> {
    let bytes = spool.read(&item.config, limits)?.ok_or_else(|| LoadError::Missing(item.config.clone()))?;
    let config = read_config(&bytes)?;
    let names = item.layers.unwrap_or_default();
    let layers = names.iter().map(|name| layer(spool, name)).collect::<Result<_, _>>()?;
    let tags =
        item.repo_tags.unwrap_or_default().iter().map(|tag| read_tag(tag)).collect::<Result<_, _>>()?;
    // An empty parent is none.
    let parent = item.parent.and_then(|parent| parent.parse().ok()).map(ImageId);
    let (kept, is_another_platform) = (Vec::new(), false);
    Ok(Planned { bytes, config, layers, tags, parent, kept, is_another_platform })
}

fn layer(spool: &Spool, name: &str) -> Result<Layer, LoadError> {
    let section = spool.open(name).ok_or_else(|| LoadError::Missing(name.to_owned()))?;
    Ok(Layer { section, digest: None })
}

fn read_tag(text: &str) -> Result<Reference, LoadError> {
    let reference = Reference::parse(text)?;
    match reference.tag().is_some() && reference.digest().is_none() {
        true => Ok(reference),
        false => Err(LoadError::BadTag(text.to_owned())),
    }
}
