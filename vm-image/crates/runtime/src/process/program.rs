//! Which file to execute, and with which environment: Go's `exec.LookPath` and runc's `prepareEnv`, in their words.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, StatxFlags, accessat, stat, statx};

use crate::failure::{Context, Failure, FailureKind, text};

/// How much of a file the kernel looks at to find out what it is (`BINPRM_BUF_SIZE`), in bytes.
const LOOKED_AT: u64 = 256;

/// How many scripts the kernel follows from one to the next (`exec_binprm`), and one more.
const DEEPEST: usize = 6;

/// The shim's program, which this process still runs. `/proc/self/exe` leads there from every container, and whoever runs it so could write
/// to it afterwards (CVE-2019-5736). The machine's root cannot be written; this is for where it can. A container's init is the same file by
/// another mount, which is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Own {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl Own {
    /// Asked where `/proc` is the host's.
    pub(crate) fn program() -> Result<Self, Failure> {
        Self::at(Path::new("/proc/self/exe")).context(|| "stat /proc/self/exe")
    }

    fn at(file: &Path) -> io::Result<Self> {
        let found = statx(CWD, file, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID)?;
        let device = (found.stx_dev_major, found.stx_dev_minor);
        Ok(Self { device, inode: found.stx_ino, mount: found.stx_mnt_id })
    }

    /// Whether it is what a file runs: by a link, or as what interprets a script.
    fn is_run_by(self, file: &Path) -> bool {
        let chain = std::iter::successors(Some(file.to_owned()), |file| interpreter(file));
        chain.take(DEEPEST).any(|file| Self::at(&file).is_ok_and(|found| found == self))
    }
}

/// What a script's first line names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    // A pipe would be waited for.
    let script = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(script).ok()?;
    let mut first = Vec::new();
    script.take(LOOKED_AT).read_to_end(&mut first).ok()?;
    let line = first.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

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

/// The file that `name` means to this process, by its rights and its `PATH`. What would run the shim's `own` program may not be executed.
pub(crate) fn look_up(name: &str, path: Option<&str>, own: Own) -> Result<PathBuf, Failure> {
    let failure = |kind, reason: String| Failure::new(kind, format!("exec: {}: {reason}", quote(name)));
    if name.contains('/') {
        let Err((kind, reason)) = check(Path::new(name), own) else { return Ok(PathBuf::from(name)) };
        return Err(failure(kind, reason));
    }
    for directory in path.unwrap_or_default().split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        if check(&candidate, own).is_ok() {
            return Ok(candidate);
        }
    }
    Err(failure(FailureKind::NotFound, "executable file not found in $PATH".into()))
}

fn check(file: &Path, own: Own) -> Result<(), (FailureKind, String)> {
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
    let allowed = match accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) if own.is_run_by(file) => Err(rustix::io::Errno::ACCESS),
        asked => asked,
    };
    allowed.map_err(|error| (FailureKind::NotExecutable, described(error)))
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
            assert_eq!(look_up(name, Some("/bin:/usr/bin"), own()), Err(Failure { kind, message }));
        }
        assert!(look_up("sh", Some("/nowhere:/bin"), own()).is_ok());
        assert!(look_up("sh", None, own()).is_err());
    }

    fn own() -> Own {
        Own::program().unwrap()
    }

    #[test]
    fn no_link_and_no_script_leads_to_the_shim_s_own_program() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        std::os::unix::fs::symlink("/proc/self/exe", place.join("link")).unwrap();
        let script = |name: &str, interpreter: &str| {
            std::fs::write(place.join(name), format!("#! {interpreter} -x\n")).unwrap();
            let all = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(place.join(name), all).unwrap();
        };
        script("script", "/proc/self/exe");
        script("twice", place.join("script").to_str().unwrap());
        script("plain", "/bin/sh");
        for name in ["link", "script", "twice"] {
            let failure = look_up(name, place.to_str(), own()).unwrap_err();
            assert!(failure.message.ends_with("executable file not found in $PATH"), "{failure}");
            let failure = look_up(place.join(name).to_str().unwrap(), None, own()).unwrap_err();
            assert_eq!(failure.kind, FailureKind::NotExecutable, "{failure}");
        }
        assert!(look_up("plain", place.to_str(), own()).is_ok());
    }
}
