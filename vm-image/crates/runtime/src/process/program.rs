//! Which file to execute, and with which environment: Go's `exec.LookPath` and runc's `prepareEnv`, in their words.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};

use crate::failure::{Failure, FailureKind, text};

/// The environment of the process: `NAME=VALUE`, the last of each name, with a `HOME`.
pub(crate) fn environment(variables: &[String], home: &str) -> Result<Vec<String>, Failure> {
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(variables.len() + 1);
    for variable in variables.iter().rev() {
        let Some((name, value)) = variable.split_once('=') else {
            return Err(Failure::other("invalid environment variable: missing '='"));
        };
        if name.is_empty() {
            return Err(Failure::other("invalid environment variable: name cannot be empty"));
        }
        if variable.contains('\0') {
            return Err(Failure::other(format!(
                "invalid environment variable {name:?}: contains nul byte (\\x00)"
            )));
        }
        if seen.insert(name) && !(name == "HOME" && value.is_empty()) {
            kept.push(variable.clone());
        }
    }
    kept.reverse();
    if !kept.iter().any(|variable| variable.starts_with("HOME=")) {
        kept.push(format!("HOME={home}"));
    }
    Ok(kept)
}

/// The value of a variable.
pub(crate) fn value<'e>(environment: &'e [String], name: &str) -> Option<&'e str> {
    environment.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

/// The file that `name` means to this process, by its rights and its `PATH`.
pub(crate) fn look_up(name: &str, path: Option<&str>) -> Result<PathBuf, Failure> {
    let failure = |kind, reason: String| Failure::new(kind, format!("exec: {}: {reason}", quote(name)));
    if name.contains('/') {
        let Err((kind, reason)) = check(Path::new(name)) else { return Ok(PathBuf::from(name)) };
        return Err(failure(kind, reason));
    }
    for directory in path.unwrap_or_default().split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        if check(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err(failure(FailureKind::NotFound, "executable file not found in $PATH".into()))
}

fn check(file: &Path) -> Result<(), (FailureKind, String)> {
    let described = |error: rustix::io::Errno| text(&io::Error::from(error));
    let found = stat(file).map_err(|error| {
        let kind = match error {
            rustix::io::Errno::ACCESS => FailureKind::Permission,
            rustix::io::Errno::NOTDIR => FailureKind::NotDirectory,
            _ => FailureKind::NotFound,
        };
        (kind, format!("stat {}: {}", file.display(), described(error)))
    })?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err((FailureKind::NotDirectory, "is a directory".into()));
    }
    accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|error| (FailureKind::NotExecutable, described(error)))
}

/// Strings for `execve`.
pub(crate) fn c_strings(strings: &[String]) -> Result<Vec<CString>, Failure> {
    strings
        .iter()
        .map(|string| CString::new(string.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::other("invalid argument: contains nul byte (\\x00)"))
}

/// Go's `strconv.Quote`, for the strings that people run.
fn quote(name: &str) -> String {
    format!("{name:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_of_each_variable_stays_in_its_place() {
        let cleaned = environment(&strings(&["A=1", "PATH=/a", "A=2", "HOME="]), "/root").unwrap();
        assert_eq!(cleaned, ["PATH=/a", "A=2", "HOME=/root"]);
        assert_eq!(value(&cleaned, "PATH"), Some("/a"));
        assert_eq!(value(&cleaned, "PAT"), None);
        let kept = environment(&strings(&["HOME=/x"]), "/root").unwrap();
        assert_eq!(kept, ["HOME=/x"]);
    }

    #[test]
    fn bad_variables_are_refused() {
        for (variable, message) in
            [("A", "missing '='"), ("=x", "cannot be empty"), ("A=\0", "contains nul byte")]
        {
            let refused = environment(&strings(&[variable]), "/").unwrap_err().message;
            assert!(refused.contains(message), "{refused}");
        }
    }

    #[test]
    fn failures_are_worded_as_in_go() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
        let plain = plain.to_str().unwrap();
        let cases = [
            ("foo", "exec: \"foo\": executable file not found in $PATH".to_string(), FailureKind::NotFound),
            ("/no/x", "exec: \"/no/x\": stat /no/x: no such file or directory".into(), FailureKind::NotFound),
            ("/", "exec: \"/\": is a directory".into(), FailureKind::NotDirectory),
            (plain, format!("exec: {plain:?}: permission denied"), FailureKind::NotExecutable),
        ];
        for (name, message, kind) in cases {
            assert_eq!(look_up(name, Some("/bin:/usr/bin")), Err(Failure { kind, message }));
        }
        assert!(look_up("sh", Some("/nowhere:/bin")).is_ok());
        assert!(look_up("sh", None).is_err());
    }
}
