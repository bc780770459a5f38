//! Mounting what a volume's options name, as `mount(8)` would: `mount -t type -o o device _data`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags as Flags, MountPropagationFlags as Propagation, UnmountFlags, mount_change, mount_remount,
    unmount,
};

use crate::error::VolumeError;
use crate::options::{Device, host};

/// A device's options, told apart.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    flags: Flags,
    propagation: Propagation,
    /// The file system's own.
    data: String,
}

impl Parsed {
    /// As dockerd tells it of a mount that failed.
    fn described(&self) -> String {
        let mut text = String::new();
        if !self.flags.is_empty() {
            text.push_str(&format!(", flags: {:#x}", self.flags.bits()));
        }
        if !self.data.is_empty() {
            text.push_str(&format!(", data: {}", without_password(&self.data)));
        }
        text
    }
}

/// Whether what is mounted has nothing in it that was there before. A bind is one whatever kind it names.
pub(crate) fn makes_new_files(device: &Device) -> bool {
    device.kind == "tmpfs" && !parse(&device.options).flags.contains(Flags::BIND)
}

/// Mounts it.
pub(crate) fn mount(device: &Device, at: &Path) -> Result<(), VolumeError> {
    let (source, options) = resolved(device, at)?;
    let parsed = parse(&options);
    attach(&source, device, &parsed, at).map_err(|error| VolumeError::Mount {
        path: at.display().to_string(),
        device: source,
        how: parsed.described(),
        reason: error,
    })
}

fn attach(source: &str, device: &Device, parsed: &Parsed, at: &Path) -> io::Result<()> {
    let data = std::ffi::CString::new(parsed.data.as_str())?;
    let data = (!parsed.data.is_empty()).then_some(data.as_c_str());
    rustix::mount::mount(source, at, device.kind.as_str(), parsed.flags, data)?;
    let finished = finish(parsed, at);
    if finished.is_err() {
        // What was not mounted as it was asked for is not mounted at all.
        let _ = unmount(at, UnmountFlags::DETACH);
    }
    finished
}

/// A bind takes its flags, and any mount its propagation, only in a second step.
fn finish(parsed: &Parsed, at: &Path) -> io::Result<()> {
    let later = parsed.flags - Flags::BIND - Flags::REC;
    if parsed.flags.contains(Flags::BIND) && !later.is_empty() {
        mount_remount(at, Flags::BIND | later, c"")?;
    }
    if !parsed.propagation.is_empty() {
        mount_change(at, parsed.propagation)?;
    }
    Ok(())
}

/// Unmounts all that is mounted there. Nothing is as good.
pub(crate) fn detach(at: &Path) -> io::Result<()> {
    loop {
        match unmount(at, UnmountFlags::NOFOLLOW) {
            // Something else may be under it.
            Ok(()) => {}
            // Somebody looks at it; it goes when they do.
            Err(Errno::BUSY) => unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?,
            // `umount(2)`: it is not a mount point.
            Err(Errno::INVAL) => return Ok(()),
            Err(_) if !is_mounted(at)? => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether something is mounted at a directory, whose path leads through no link: the kernel's table has none.
pub(crate) fn is_mounted(at: &Path) -> io::Result<bool> {
    // Paths in there have their blanks as `\040`; the way to a volume has what the data root's name has.
    let at = [('\\', "\\134"), (' ', "\\040"), ('\t', "\\011"), ('\n', "\\012")]
        .into_iter()
        .fold(at.to_string_lossy().into_owned(), |text, (letter, told)| text.replace(letter, told));
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(at.as_str())))
}

/// The device and the options with a server's name as its address, for file systems whose kernels resolve no names.
fn resolved(device: &Device, at: &Path) -> Result<(String, String), VolumeError> {
    let unchanged = (device.device.clone(), device.options.clone());
    let unresolved = |why: String| VolumeError::Unresolved { path: at.display().to_string(), why };
    if !matches!(device.kind.as_str(), "nfs" | "cifs") {
        return Ok(unchanged);
    }
    let address = device.options.split(',').find_map(|option| option.strip_prefix("addr="));
    if let Some(name) = address.filter(|name| name.parse::<Ipv4Addr>().is_err()) {
        let address = resolve(name).map_err(unresolved)?;
        let options = device.options.replacen(&format!("addr={name}"), &format!("addr={address}"), 1);
        return Ok((device.device.clone(), options));
    }
    let server = host(&device.device).filter(|server| server.parse::<IpAddr>().is_err());
    match server {
        Some(server) if device.kind == "cifs" => {
            let address = resolve(server).map_err(unresolved)?;
            Ok((device.device.replacen(server, &address.to_string(), 1), device.options.clone()))
        }
        _ => Ok(unchanged),
    }
}

fn resolve(name: &str) -> Result<IpAddr, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| format!("lookup {name}: {error}"))?;
    let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| format!("lookup {name}: no such host"))
}

fn parse(options: &str) -> Parsed {
    let mut parsed = Parsed { flags: Flags::empty(), propagation: Propagation::empty(), data: String::new() };
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        if let Some((set, flag)) = flag(option) {
            parsed.flags.set(flag, set);
        } else if let Some(propagation) = propagation(option) {
            parsed.propagation |= propagation;
        } else if option != "defaults" {
            data.push(option);
        }
    }
    parsed.data = data.join(",");
    parsed
}

/// The flag that an option sets or takes away.
fn flag(option: &str) -> Option<(bool, Flags)> {
    Some(match option {
        "ro" => (true, Flags::RDONLY),
        "rw" => (false, Flags::RDONLY),
        "nosuid" => (true, Flags::NOSUID),
        "suid" => (false, Flags::NOSUID),
        "nodev" => (true, Flags::NODEV),
        "dev" => (false, Flags::NODEV),
        "noexec" => (true, Flags::NOEXEC),
        "exec" => (false, Flags::NOEXEC),
        "sync" => (true, Flags::SYNCHRONOUS),
        "async" => (false, Flags::SYNCHRONOUS),
        "dirsync" => (true, Flags::DIRSYNC),
        "mand" => (true, Flags::PERMIT_MANDATORY_FILE_LOCKING),
        "nomand" => (false, Flags::PERMIT_MANDATORY_FILE_LOCKING),
        "noatime" => (true, Flags::NOATIME),
        "atime" => (false, Flags::NOATIME),
        "nodiratime" => (true, Flags::NODIRATIME),
        "diratime" => (false, Flags::NODIRATIME),
        "relatime" => (true, Flags::RELATIME),
        "norelatime" => (false, Flags::RELATIME),
        "strictatime" => (true, Flags::STRICTATIME),
        "nostrictatime" => (false, Flags::STRICTATIME),
        "bind" => (true, Flags::BIND),
        "rbind" => (true, Flags::BIND | Flags::REC),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<Propagation> {
    Some(match option {
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::PRIVATE | Propagation::REC,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::SHARED | Propagation::REC,
        "slave" => Propagation::DOWNSTREAM,
        "rslave" => Propagation::DOWNSTREAM | Propagation::REC,
        "unbindable" => Propagation::UNBINDABLE,
        "runbindable" => Propagation::UNBINDABLE | Propagation::REC,
        _ => return None,
    })
}

/// The options as others may read them.
fn without_password(options: &str) -> String {
    let hide = |option: &str| {
        if option.starts_with("password=") { "password=********".to_owned() } else { option.to_owned() }
    };
    options.split(',').map(hide).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_propagation_and_data() {
        let parsed = parse("defaults,ro,rbind,rshared,size=1m,mode=0700");
        assert_eq!(parsed.flags, Flags::RDONLY | Flags::BIND | Flags::REC);
        assert_eq!(parsed.propagation, Propagation::SHARED | Propagation::REC);
        assert_eq!(parsed.data, "size=1m,mode=0700");
        assert_eq!(parse("ro,rw").flags, Flags::empty());
    }

    #[test]
    fn only_a_tmpfs_has_nothing_of_others() {
        for (kind, options, new) in [
            ("tmpfs", "size=1m", true),
            ("tmpfs", "ro,rbind", false),
            ("none", "bind", false),
            ("ext4", "", false),
            ("nfs", "addr=1.2.3.4", false),
        ] {
            let device = Device { kind: kind.into(), device: "/x".into(), options: options.into() };
            assert_eq!(makes_new_files(&device), new, "{kind} {options}");
        }
    }

    #[test]
    fn passwords_are_not_told() {
        assert_eq!(without_password("user=a,password=b,ro"), "user=a,password=********,ro");
    }

    #[test]
    fn addresses_are_resolved_where_the_kernel_does_not() {
        let nfs = Device { kind: "nfs".into(), device: ":/x".into(), options: "addr=localhost,rw".into() };
        assert_eq!(resolved(&nfs, Path::new("/d")).unwrap().1, "addr=127.0.0.1,rw");
        let cifs = Device { kind: "cifs".into(), device: "//localhost/x".into(), options: "user=a".into() };
        assert_eq!(resolved(&cifs, Path::new("/d")).unwrap().0, "//127.0.0.1/x");
        let tmpfs = Device { kind: "tmpfs".into(), device: "tmpfs".into(), options: "addr=x".into() };
        assert_eq!(resolved(&tmpfs, Path::new("/d")).unwrap().1, "addr=x");
    }

    #[test]
    fn a_mount_that_fails_is_told_with_the_address() {
        let cifs = Device {
            kind: "cifs".into(),
            device: "//localhost/x".into(),
            options: "user=a,password=b".into(),
        };
        let refused = mount(&cifs, Path::new("/no/such")).unwrap_err().to_string();
        let told = "mount //127.0.0.1/x:/no/such, data: user=a,password=********: ";
        assert!(refused.contains(told), "{refused}");
    }
}
