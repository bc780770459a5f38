//! The log option `tag`: a template of what is known of the container, as in dockerd's `loggerutils.ParseLogTag`.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::record::Definition;
use super::Options;
use super::template::{self, Value};
use crate::system;

/// The text that a tag's template makes. `log` is where the log is.
pub(super) fn expand(
    template: &str,
    definition: &Definition,
    options: &Options,
    log: &Path,
) -> Result<String, String> {
    if !template.contains("{{") {
        return Ok(template.to_owned());
    }
    template::expand("log-tag", template, &about(definition, options, log))
}

/// The fields and methods of dockerd's `logger.Info`.
fn about(definition: &Definition, options: &Options, log: &Path) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let image = definition.image.strip_prefix("sha256:").unwrap_or(&definition.image);
    let command = std::iter::once(&definition.path).chain(&definition.args);
    let fields = [
        ("ID", text(definition.short_id())),
        ("FullID", text(&definition.id)),
        ("Name", text(&definition.name)),
        ("Command", Value::Text(command.cloned().collect::<Vec<_>>().join(" "))),
        ("ImageID", Value::Text(image.chars().take(12).collect())),
        ("ImageFullID", text(&definition.image)),
        ("ImageName", text(&definition.config.image)),
        ("Hostname", Value::Text(system::hostname())),
        ("DaemonName", text("docker")),
        ("Config", map(options.iter())),
        ("ContainerID", text(&definition.id)),
        ("ContainerName", Value::Text(format!("/{}", definition.name))),
        ("ContainerEntrypoint", text(&definition.path)),
        ("ContainerArgs", list(&definition.args)),
        ("ContainerImageID", text(&definition.image)),
        ("ContainerImageName", text(&definition.config.image)),
        ("ContainerCreated", Value::Text(definition.created.to_string())),
        ("ContainerEnv", list(definition.config.env.as_deref().unwrap_or_default())),
        ("ContainerLabels", map(definition.config.labels.iter().flatten())),
        ("LogPath", Value::Text(log.display().to_string())),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Value::Struct { kind: "*logger.Info", fields: fields.into() }
}

fn list(texts: &[String]) -> Value {
    Value::List(texts.iter().cloned().map(Value::Text).collect())
}

fn map<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> Value {
    let own = |(key, value): (&String, &String)| (key.clone(), Value::Text(value.clone()));
    Value::Map(entries.map(own).collect::<BTreeMap<_, _>>())
}
