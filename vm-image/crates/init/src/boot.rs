//! From the kernel's first process to a machine in which programs can run: synchronous, before any thread exists.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Resource, Rlimit, chdir, chroot, setrlimit};

use crate::modules::{self, Index};

/// Where the root is mounted before it becomes the root.
const NEW_ROOT: &str = "/root";
/// How long the root's device may take to appear. On SCSI it comes some time after its module was loaded.
const DEVICE_DEADLINE: Duration = Duration::from_secs(20);

/// What the root and the data disk are called, in either order: virtio disks, and SCSI disks on Hyper-V, whose names come in
/// the order in which they answer.
const DISKS: [(&str, &str); 4] =
    [("/dev/vda", "/dev/vdb"), ("/dev/vdb", "/dev/vda"), ("/dev/sda", "/dev/sdb"), ("/dev/sdb", "/dev/sda")];

struct Disks {
    root: PathBuf,
    data: PathBuf,
}

/// A filesystem that is there from the start.
struct Mount {
    what: &'static str,
    at: &'static str,
    flags: MountFlags,
    options: &'static str,
}

const NO_PROGRAMS: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC).union(MountFlags::RELATIME);
const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::RELATIME);

/// What is needed to find the root.
const EARLY: [Mount; 3] = [
    Mount { what: "devtmpfs", at: "/dev", flags: MountFlags::NOSUID, options: "mode=0755" },
    Mount { what: "proc", at: "/proc", flags: NO_PROGRAMS, options: "" },
    Mount { what: "sysfs", at: "/sys", flags: NO_PROGRAMS, options: "" },
];

/// The rest, in the root.
const LATE: [Mount; 6] = [
    Mount {
        what: "devpts",
        at: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: "mode=0620,ptmxmode=0666,gid=5",
    },
    Mount { what: "tmpfs", at: "/dev/shm", flags: NO_DEVICES, options: "mode=1777" },
    Mount { what: "mqueue", at: "/dev/mqueue", flags: NO_PROGRAMS, options: "" },
    Mount {
        what: "cgroup2",
        at: "/sys/fs/cgroup",
        flags: NO_PROGRAMS,
        options: "nsdelegate,memory_recursiveprot",
    },
    Mount { what: "tmpfs", at: "/run", flags: NO_DEVICES, options: "mode=0755" },
    Mount { what: "tmpfs", at: "/tmp", flags: NO_DEVICES, options: "mode=1777" },
];

/// Kernel settings that differ from the kernel's own: file below /proc/sys, value. None of them can be set per container.
const SETTINGS: [(&str, &str); 6] = [
    // Databases and search engines refuse to start with the kernel's 65530.
    ("vm/max_map_count", "262144"),
    // Every file watcher in every container takes from these; 128 instances are used up by a few development servers.
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_user_watches", "1048576"),
    ("fs/aio-max-nr", "1048576"),
    // Each container has a session keyring; 200 keys for root would limit the number of containers.
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/pid_max", "4194304"),
];

/// What Docker gives its containers and what they therefore expect to have.
const OPEN_FILES: u64 = 1_048_576;

/// Brings the machine up to the point where it can run programs; returns what the data disk is called.
pub(crate) fn bring_up() -> anyhow::Result<PathBuf> {
    mount_all(&EARLY)?;
    let modules = Path::new(modules::DIR);
    let index = Index::read(modules)?;
    modules::load_for_devices(modules, &index)?;
    index.load(modules, "erofs")?;
    tracing::info!("device modules are loaded");
    let disks = find_disks()?;
    enter_root(&disks.root)?;
    mount_all(&LATE)?;
    delegate_cgroups(Path::new("/sys/fs/cgroup"))?;
    adjust(&SETTINGS);
    let files = Some(OPEN_FILES);
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })
        .context("could not raise the limit of open files")?;
    caisson_sys::loopback::up().context("could not bring up the loopback interface")?;
    start_processors(Path::new("/sys/devices/system/cpu"));
    tracing::info!("the root is ready");
    Ok(disks.data)
}

/// Starts the processors that the kernel was told to leave to us (`maxcpus=`). Without one the machine is only slower.
fn start_processors(processors: &Path) {
    for processor in fs::read_dir(processors).into_iter().flatten().flatten() {
        // Only processors have the file, and not the first one where it cannot be stopped.
        let switch = processor.path().join("online");
        let waits = fs::read_to_string(&switch).is_ok_and(|state| state.trim_end() == "0");
        if waits && let Err(error) = fs::write(&switch, "1") {
            tracing::warn!("could not start the processor {}: {error}", switch.display());
        }
    }
}

fn mount_all(mounts: &[Mount]) -> anyhow::Result<()> {
    for Mount { what, at, flags, options } in mounts {
        // On the read-only root the places exist; in /dev and in the initrd some do not.
        match fs::create_dir(at) {
            Err(error) if !Path::new(at).is_dir() => {
                return Err(error).with_context(|| format!("could not make {at}"));
            }
            Ok(()) | Err(_) => {}
        }
        let options = std::ffi::CString::new(*options).expect("no option holds a NUL");
        mount(*what, *at, *what, *flags, Some(options.as_c_str()))
            .with_context(|| format!("could not mount {what} at {at}"))?;
    }
    Ok(())
}

/// Moves into the read-only root and gives back the initrd's memory.
fn enter_root(device: &Path) -> anyhow::Result<()> {
    mount(device, NEW_ROOT, "erofs", MountFlags::RDONLY, None)
        .with_context(|| format!("could not mount the root from {}", device.display()))?;
    for Mount { at, .. } in &EARLY {
        mount_move(*at, format!("{NEW_ROOT}{at}")).with_context(|| format!("could not move {at}"))?;
    }
    empty_initrd();
    // The kernel's helpers (modprobe) share this process's root, so they see the new one, too: both descend from the
    // same fs_struct (kernel/fork.c, CLONE_FS of kernel_init and kthreadd).
    chdir(NEW_ROOT)?;
    mount_move(".", "/").context("could not move the root")?;
    chroot(".").context("could not enter the root")?;
    chdir("/")?;
    Ok(())
}

/// Finds the root among the disks by what is on it, and so the data disk, which is the other one.
fn find_disks() -> anyhow::Result<Disks> {
    let give_up_at = Instant::now() + DEVICE_DEADLINE;
    loop {
        if let Some(&(root, data)) = DISKS.iter().find(|(root, _)| holds_erofs(Path::new(root))) {
            return Ok(Disks { root: root.into(), data: data.into() });
        }
        if Instant::now() >= give_up_at {
            bail!("no disk with the root appeared within {DEVICE_DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a disk is there and holds an erofs filesystem (`EROFS_SUPER_MAGIC_V1` of fs/erofs/erofs_fs.h).
fn holds_erofs(disk: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(disk).and_then(|disk| disk.read_exact_at(&mut magic, 1024));
    read.is_ok() && u32::from_le_bytes(magic) == 0xe0f5_e1e2
}

/// Removes the initrd's files, which would take up memory for as long as the machine runs. What is left does no harm.
fn empty_initrd() {
    let _ = fs::remove_dir_all(modules::DIR);
    let _ = fs::remove_file("/init");
}

/// Lets all children of the root cgroup use every controller.
fn delegate_cgroups(root: &Path) -> anyhow::Result<()> {
    let controllers =
        fs::read_to_string(root.join("cgroup.controllers")).context("could not list cgroup controllers")?;
    for controller in controllers.split_whitespace() {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("could not delegate the cgroup controller {controller}"))?;
    }
    Ok(())
}

/// Sets kernel settings: file below /proc/sys, value. One that this kernel does not have is only missed by what would use it.
pub(crate) fn adjust(settings: &[(&str, &str)]) {
    for (name, value) in settings {
        if let Err(error) = fs::write(Path::new("/proc/sys").join(name), value) {
            tracing::warn!("could not set {name}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_wait_are_started() {
        let processors = tempfile::tempdir().unwrap();
        let at = |name: &str| processors.path().join(name);
        // A file of this name lists the processors that run.
        fs::write(at("online"), "0\n").unwrap();
        for (name, state) in [("cpu0", None), ("cpu1", Some("0\n")), ("cpu2", Some("1\n")), ("cpufreq", None)]
        {
            fs::create_dir(at(name)).unwrap();
            if let Some(state) = state {
                fs::write(at(name).join("online"), state).unwrap();
            }
        }
        start_processors(processors.path());
        let state = |name: &str| fs::read_to_string(at(name).join("online")).ok();
        assert_eq!(state("cpu1").as_deref(), Some("1"));
        assert_eq!(state("cpu2").as_deref(), Some("1\n"));
        assert_eq!((state("cpu0"), state("cpufreq")), (None, None));
    }

    #[test]
    fn only_a_disk_with_erofs_is_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        assert!(!holds_erofs(&disk), "missing");
        fs::write(&disk, [0; 1026]).unwrap();
        assert!(!holds_erofs(&disk), "too short");
        let mut bytes = vec![0; 4096];
        fs::write(&disk, &bytes).unwrap();
        assert!(!holds_erofs(&disk), "empty");
        bytes[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
        fs::write(&disk, &bytes).unwrap();
        assert!(holds_erofs(&disk));
    }

    #[test]
    fn every_controller_is_delegated() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu\n").unwrap();
        delegate_cgroups(root.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(), "+cpu");
        assert!(delegate_cgroups(Path::new("/nonexistent")).is_err());
    }
}
