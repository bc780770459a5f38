//! Log drivers and their options: `json-file`, `local` and `none`. Names of options are checked when a container is made, their values
//! when it starts, as dockerd does; so are its words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use caisson_docker_api::container::LogConfig;
use caisson_shim::{LogFile, LogFormat, LogTarget};
use regex::Regex;

use super::super::record::{Definition, Directory};
use super::{Options, tag};
use crate::error::ApiError;
use crate::sizes;

const COMMON: [&str; 5] = ["env", "env-regex", "labels", "labels-regex", "tag"];
const OF_FILES: [&str; 3] = ["compress", "max-file", "max-size"];
/// Known to every driver: what becomes of output that the log cannot take in time.
const OF_ALL: [&str; 2] = ["mode", "max-buffer-size"];
/// How many bytes wait for the log of a container that does not, if nothing else is asked for.
const BUFFER: u64 = 1_000_000;
const NON_BLOCKING: &str = "non-blocking";

/// Checks a new container's wish.
pub(crate) fn check(wish: &LogConfig) -> Result<(), ApiError> {
    let options = wish.config.iter().flatten();
    let option = |name: &str| wish.config.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let words = match wish.kind.as_str() {
        "none" => return Ok(()),
        "" | "json-file" => "for json-file log driver",
        "local" => "for log driver local",
        other => {
            return Err(ApiError::invalid(format!(
                "error looking up logging plugin {other}: plugin {other:?} not found"
            )));
        }
    };
    let mode = option("mode").unwrap_or_default();
    if !matches!(mode, "" | "blocking" | NON_BLOCKING) {
        return Err(ApiError::invalid(format!("logger: logging mode not supported: {mode}")));
    }
    if let Some(size) = option("max-buffer-size") {
        if mode != NON_BLOCKING {
            return Err(ApiError::invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ));
        }
        buffer_size(size).map_err(ApiError::invalid)?;
    }
    for (name, _) in options {
        if ![&COMMON[..], &OF_FILES, &OF_ALL].concat().contains(&name.as_str()) {
            return Err(ApiError::invalid(format!("unknown log opt '{name}' {words}")));
        }
    }
    Ok(())
}

/// The format of a driver's files; `None` for a driver that keeps nothing.
pub(super) fn format(kind: &str) -> Option<LogFormat> {
    match kind {
        "none" => None,
        "local" => Some(LogFormat::Local),
        _ => Some(LogFormat::Json),
    }
}

/// The newest file of a container's log.
pub(super) fn path(directory: &Directory, id: &str, format: LogFormat) -> PathBuf {
    match format {
        LogFormat::Json => directory.log(id),
        LogFormat::Local => directory.path().join("local-logs/container.log"),
    }
}

/// What a shim is told of the log that it is to write.
pub(crate) fn target(definition: &Definition, directory: &Directory) -> Result<LogTarget, ApiError> {
    let within = |message: String| {
        ApiError::internal(format!(
            "failed to create task for container: failed to initialize logging driver: {message}"
        ))
    };
    let wish = &definition.host_config.log_config;
    let Some(format) = format(&wish.kind) else { return Ok(LogTarget::None) };
    let options = wish.config.clone().unwrap_or_default();
    let rotation = match format {
        LogFormat::Json => Rotation::of_json_file(&options),
        LogFormat::Local => Rotation::of_local(&options),
    };
    let Rotation { max_bytes, max_files, compress } = rotation.map_err(within)?;
    let path = path(directory, &definition.id, format);
    let attributes = attributes(definition, &options, &path).map_err(within)?;
    let buffer = buffer(&options).map_err(within)?;
    Ok(LogTarget::File(LogFile { path, format, max_bytes, max_files, compress, buffer, attributes }))
}

/// How many bytes may wait for the log; `None` if the container does.
fn buffer(options: &Options) -> Result<Option<u64>, String> {
    if options.get("mode").is_none_or(|mode| mode != NON_BLOCKING) {
        return Ok(None);
    }
    options.get("max-buffer-size").map_or(Ok(BUFFER), |size| buffer_size(size)).map(Some)
}

fn buffer_size(text: &str) -> Result<u64, String> {
    sizes::in_binary(text).map_err(|e| format!("error parsing option max-buffer-size: {e}"))
}

/// When a file is full, and how many there are.
#[derive(Debug, PartialEq, Eq)]
struct Rotation {
    max_bytes: Option<u64>,
    max_files: u32,
    compress: bool,
}

impl Rotation {
    fn of_json_file(options: &Options) -> Result<Self, String> {
        let max_bytes = options.get("max-size").map(|size| match sizes::in_decimal(size)? {
            0 => Err("max-size must be a positive number".to_owned()),
            bytes => Ok(bytes),
        });
        let max_bytes = max_bytes.transpose()?;
        let max_files = match options.get("max-file") {
            Some(count) => match atoi(count)? {
                ..1 => return Err("max-file cannot be less than 1".into()),
                count => u32::try_from(count).unwrap_or(u32::MAX),
            },
            None => 1,
        };
        let compress = options.get("compress").map(|text| parse_bool(text)).transpose()?.unwrap_or(false);
        if compress && (max_files == 1 || max_bytes.is_none()) {
            return Err("compress cannot be true when max-file is less than 2 or max-size is not set".into());
        }
        Ok(Self { max_bytes, max_files, compress })
    }

    fn of_local(options: &Options) -> Result<Self, String> {
        let invalid =
            |name: &str, value: &str, why: String| format!("invalid value for {name}: {value}: {why}");
        let max_bytes = match options.get("max-size") {
            Some(size) => sizes::in_decimal(size).map_err(|why| invalid("max-size", size, why))?,
            None => 20 << 20,
        };
        let max_files = match options.get("max-file") {
            Some(count) => atoi(count).map_err(|why| invalid("max-file", count, why))?,
            None => 5,
        };
        let compress = match options.get("compress") {
            Some(text) => {
                parse_bool(text).map_err(|why| format!("invalid boolean value for compress: {why}"))?
            }
            None => true,
        };
        if max_files < 0 {
            return Err("max-file must not be negative".into());
        }
        if compress && max_files <= 1 {
            return Err("compression cannot be enabled when max file count is 1".into());
        }
        let max_files = u32::try_from(max_files).unwrap_or(u32::MAX);
        Ok(Self { max_bytes: Some(max_bytes).filter(|bytes| *bytes > 0), max_files, compress })
    }
}

/// Go's `strconv.Atoi`.
fn atoi(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// The labels and variables that every entry carries, and its tag.
fn attributes(
    definition: &Definition,
    options: &Options,
    log: &Path,
) -> Result<BTreeMap<String, String>, String> {
    let option = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let labels = definition.config.labels.clone().unwrap_or_default();
    let variables = definition.config.env.iter().flatten().filter_map(|entry| entry.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut chosen = BTreeMap::new();
    for (all, names, expression) in [(labels, "labels", "labels-regex"), (variables, "env", "env-regex")] {
        let names: Vec<&str> = option(names).map(|list| list.split(',').collect()).unwrap_or_default();
        let expression = option(expression).map(Regex::new).transpose().map_err(|e| e.to_string())?;
        let wanted = |name: &String| {
            names.contains(&name.as_str())
                || expression.as_ref().is_some_and(|expression| expression.is_match(name))
        };
        chosen.extend(all.into_iter().filter(|(name, _)| wanted(name)));
    }
    if let Some(template) = option("tag") {
        chosen.insert("tag".into(), tag::expand(template, definition, options, log)?);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn refusal(kind: &str, pairs: &[(&str, &str)]) -> String {
        check(&LogConfig { kind: kind.into(), config: Some(options(pairs)) }).unwrap_err().message
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        assert_eq!(refusal("json-file", &[("x", "")]), "unknown log opt 'x' for json-file log driver");
        assert_eq!(refusal("local", &[("x", "")]), "unknown log opt 'x' for log driver local");
        assert_eq!(refusal("", &[("mode", "x")]), "logger: logging mode not supported: x");
        let config = Some(options(&[("whatever", "1")]));
        assert_eq!(check(&LogConfig { kind: "none".into(), config }), Ok(()));
    }

    #[test]
    fn who_does_not_wait_has_a_buffer() {
        for (asked, size) in [
            (&[][..], None),
            (&[("mode", "blocking")], None),
            (&[("mode", "non-blocking")], Some(1_000_000)),
            (&[("mode", "non-blocking"), ("max-buffer-size", "4m")], Some(4 << 20)),
        ] {
            assert_eq!(buffer(&options(asked)), Ok(size), "{asked:?}");
        }
        assert_eq!(
            refusal("", &[("mode", "non-blocking"), ("max-buffer-size", "x")]),
            "error parsing option max-buffer-size: invalid size: 'x'"
        );
    }

    #[test]
    fn files_rotate_as_asked() {
        let json = |pairs: &[(&str, &str)]| Rotation::of_json_file(&options(pairs));
        let local = |pairs: &[(&str, &str)]| Rotation::of_local(&options(pairs));
        assert_eq!(json(&[]), Ok(Rotation { max_bytes: None, max_files: 1, compress: false }));
        assert_eq!(
            json(&[("max-size", "10k"), ("max-file", "3"), ("compress", "true")]),
            Ok(Rotation { max_bytes: Some(10_000), max_files: 3, compress: true })
        );
        assert_eq!(local(&[]), Ok(Rotation { max_bytes: Some(20 << 20), max_files: 5, compress: true }));
        for (result, words) in [
            (json(&[("max-size", "0")]), "max-size must be a positive number"),
            (json(&[("max-size", "x")]), "invalid size: 'x'"),
            (json(&[("max-file", "0")]), "max-file cannot be less than 1"),
            (json(&[("max-file", "x")]), "strconv.Atoi: parsing \"x\": invalid syntax"),
            (json(&[("compress", "yes")]), "strconv.ParseBool: parsing \"yes\": invalid syntax"),
            (
                json(&[("compress", "1")]),
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
            (local(&[("max-file", "1")]), "compression cannot be enabled when max file count is 1"),
            (local(&[("max-size", "x")]), "invalid value for max-size: x: invalid size: 'x'"),
        ] {
            assert_eq!(result.unwrap_err(), words);
        }
    }
}
