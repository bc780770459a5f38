//! QEMU's command line, as pure functions from the machine's specification.
//!
//! What is switched off is what a machine with no screen, no keyboard and no network card does not need; each device less
//! is time that neither the firmware nor the kernel spends on looking for it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use caisson_hypervisor::{Acceleration, VmSpec};
use serde_json::{Value, json};

use super::console::OUTPUT;

/// The sockets of one machine, all in its private directory.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    /// QEMU connects here and takes orders.
    pub(super) qmp: PathBuf,
    /// QEMU connects here and hands the vsock device's rings over.
    pub(super) vsock: PathBuf,
}

impl Sockets {
    /// The sockets in a machine's directory.
    pub(super) fn within(dir: &Path) -> Self {
        Self { qmp: dir.join("qmp.sock"), vsock: dir.join("vsock.sock") }
    }
}

/// The whole machine. It is made with its processors standing still (`-S`), so that none of its events is missed.
pub(super) fn machine(spec: &VmSpec, acceleration: &Acceleration, sockets: &Sockets) -> Vec<OsString> {
    let mut line = Line::default();
    line.processor(acceleration, spec.cpus).bare();
    line.add("-S");
    line.option("-m", format!("{}M", spec.memory.0));
    line.option("-object", memory(spec.memory.0)).option("-machine", "memory-backend=memory");
    line.option("-kernel", &spec.kernel);
    line.option("-initrd", &spec.initrd);
    line.option("-append", kernel_arguments(&spec.cmdline, acceleration));
    for (index, disk) in disks(spec).iter().enumerate() {
        line.disk(index, disk);
    }
    line.option("-chardev", file_chardev("console", Path::new(OUTPUT)));
    line.option("-serial", "chardev:console");
    line.option("-chardev", socket_chardev("vsock", &sockets.vsock));
    line.option("-device", "vhost-user-vsock-pci,chardev=vsock");
    line.option("-chardev", socket_chardev("qmp", &sockets.qmp));
    line.option("-mon", "chardev=qmp,mode=control");
    line.0
}

/// A kernel and nothing else, under KVM, with its console on standard output.
pub(super) fn kvm_probe(kernel: &Path) -> Vec<OsString> {
    let mut line = Line::default();
    let kvm = Acceleration::Hardware { by: "KVM".into() };
    line.processor(&kvm, 1).bare();
    line.option("-m", "512M");
    line.option("-kernel", kernel);
    line.option("-append", kernel_arguments("", &kvm));
    line.option("-chardev", file_chardev("console", Path::new(OUTPUT)));
    line.option("-serial", "chardev:console");
    line.0
}

/// A disk as the guest sees it.
struct Disk<'a> {
    file: &'a Path,
    read_only: bool,
}

fn disks(spec: &VmSpec) -> Vec<Disk<'_>> {
    let root = spec.root.as_deref().map(|file| Disk { file, read_only: true });
    root.into_iter().chain([Disk { file: &spec.data_disk, read_only: false }]).collect()
}

/// What the backend's own devices and the way of running ask of the kernel, before what the machine asks.
///
/// A reset ends the machine (`-no-reboot`), so a panic must reset at once. Without hardware acceleration, measured:
/// clearing pages, randomising and separating the address space cost a third of the boot, and guard nothing,
/// as the guest's kernel runs in one process of the user's anyway.
///
/// It boots on one processor, and its first process starts the others when the root is ready: where one changes the code that
/// another is about to run (Linux' static keys), QEMU 7.2 now and then executes a breakpoint that is gone already (`Oops:
/// int3`). At the end of its boot the kernel changes just the code by which idle processors wake up: of 230 boots on a busy host
/// that broke three, and none of 249 on one processor. What is changed later can still meet it; nobody has seen that.
fn kernel_arguments(machine: &str, acceleration: &Acceleration) -> String {
    let own = match acceleration {
        Acceleration::Hardware { .. } => "",
        Acceleration::Emulated => " no_timer_check maxcpus=1 init_on_alloc=0 nokaslr nopti no5lvl",
    };
    format!("console={CONSOLE} reboot=t panic=-1{own} {machine}").trim_end().to_owned()
}

#[cfg(not(target_arch = "aarch64"))]
const CONSOLE: &str = "ttyS0";
#[cfg(target_arch = "aarch64")]
const CONSOLE: &str = "ttyAMA0";

#[cfg(not(target_arch = "aarch64"))]
const MACHINE: &str = "q35,sata=off,smbus=off,usb=off,i8042=off,vmport=off,hpet=off";
#[cfg(target_arch = "aarch64")]
const MACHINE: &str = "virt";

/// All that QEMU can emulate, but for five-level page tables, and for what says that `rep movsb` is a fast way to copy (ERMS,
/// FSRM): emulated it goes byte by byte. Without, programs and the kernel copy in words: measured, 5 to 8 times as fast.
#[cfg(not(target_arch = "aarch64"))]
const EMULATED_CPU: &str = "max,-la57,-erms,-fsrm";
#[cfg(target_arch = "aarch64")]
const EMULATED_CPU: &str = "max,pauth-impdef=on";

/// The guest's memory is a file that our vsock device maps too.
fn memory(mib: u64) -> String {
    format!("memory-backend-memfd,id=memory,size={mib}M,share=on")
}

/// A value within a list of `key=value,…`, where a comma is written twice.
fn escaped(path: &Path) -> OsString {
    path.to_string_lossy().replace(',', ",,").into()
}

fn file_chardev(id: &str, path: &Path) -> OsString {
    let mut value = OsString::from(format!("file,id={id},append=on,path="));
    value.push(escaped(path));
    value
}

fn socket_chardev(id: &str, path: &Path) -> OsString {
    let mut value = OsString::from(format!("socket,id={id},path="));
    value.push(escaped(path));
    value
}

/// What the guest discards is given back to the host; a full host disk makes the guest wait, not fail.
fn block_device(index: usize, disk: &Disk<'_>) -> Value {
    json!({
        "driver": "raw",
        "node-name": format!("disk{index}"),
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": { "driver": "file", "filename": disk.file, "discard": "unmap" },
    })
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn add(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn option(&mut self, flag: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.extend([flag.into(), value.into()]);
        self
    }

    fn processor(&mut self, acceleration: &Acceleration, cpus: u32) -> &mut Self {
        let (accelerator, cpu) = match acceleration {
            Acceleration::Hardware { .. } => ("kvm", "host"),
            Acceleration::Emulated => ("tcg,thread=multi", EMULATED_CPU),
        };
        self.option("-accel", accelerator).option("-cpu", cpu).option("-smp", cpus.max(1).to_string())
    }

    fn bare(&mut self) -> &mut Self {
        self.option("-machine", MACHINE).add("-nodefaults").add("-no-user-config").add("-no-reboot");
        self.option("-display", "none")
    }

    fn disk(&mut self, index: usize, disk: &Disk<'_>) {
        self.option("-blockdev", block_device(index, disk).to_string());
        let errors = if disk.read_only { "" } else { ",werror=enospc,rerror=report" };
        self.option("-device", format!("virtio-blk-pci,drive=disk{index}{errors}"));
    }
}

#[cfg(test)]
mod tests {
    use caisson_hypervisor::Mib;

    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            kernel: "/image/kernel".into(),
            initrd: "/image/initrd".into(),
            root: Some("/image/root.erofs".into()),
            data_disk: "/data/a,b.raw".into(),
            cmdline: "quiet".into(),
            cpus: 2,
            memory: Mib(1024),
            listen: vec![],
            console_log: "/logs/console.log".into(),
            runtime_dir: "/run/m".into(),
        }
    }

    fn line(spec: &VmSpec, acceleration: &Acceleration) -> Vec<String> {
        let sockets = Sockets::within(&spec.runtime_dir);
        let arguments = machine(spec, acceleration, &sockets);
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    fn values<'a>(line: &'a [String], flag: &str) -> Vec<&'a str> {
        line.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn the_root_disk_comes_first_and_is_read_only() {
        let line = line(&spec(), &Acceleration::Emulated);
        let disks: Vec<Value> =
            values(&line, "-blockdev").iter().map(|disk| serde_json::from_str(disk).unwrap()).collect();
        assert_eq!(disks[0]["file"]["filename"], "/image/root.erofs");
        assert_eq!(disks[0]["read-only"], true);
        assert_eq!(disks[1]["file"]["filename"], "/data/a,b.raw");
        assert_eq!(disks[1]["read-only"], false);
        assert_eq!(disks[1]["discard"], "unmap");
    }

    #[test]
    fn without_a_root_disk_the_data_disk_is_the_first() {
        let line = line(&VmSpec { root: None, ..spec() }, &Acceleration::Emulated);
        assert_eq!(values(&line, "-blockdev").len(), 1);
        assert!(values(&line, "-device")[0].contains("drive=disk0"));
    }

    #[test]
    fn a_comma_in_a_path_does_not_begin_another_option() {
        let line = line(&VmSpec { runtime_dir: "/run/a,b".into(), ..spec() }, &Acceleration::Emulated);
        assert_eq!(values(&line, "-chardev")[1], "socket,id=vsock,path=/run/a,,b/vsock.sock");
    }

    #[test]
    fn the_console_goes_through_us_and_not_to_a_file_without_a_limit() {
        let line = line(&spec(), &Acceleration::Emulated);
        assert_eq!(values(&line, "-chardev")[0], "file,id=console,append=on,path=/proc/self/fd/1");
    }

    #[test]
    fn only_an_emulated_processor_gets_the_arguments_that_spare_it() {
        let emulated = line(&spec(), &Acceleration::Emulated);
        let has = |line: &[String], argument: &str| {
            values(line, "-append")[0].split(' ').any(|word| word == argument)
        };
        assert!(has(&emulated, "nopti") && has(&emulated, "maxcpus=1"));
        assert!(values(&emulated, "-append")[0].ends_with(" quiet"));
        let copies_in_words = values(&emulated, "-cpu")[0].ends_with(",-erms,-fsrm");
        assert_eq!(copies_in_words, cfg!(target_arch = "x86_64"));
        let accelerated = line(&spec(), &Acceleration::Hardware { by: "KVM".into() });
        assert!(!has(&accelerated, "nopti") && !has(&accelerated, "maxcpus=1"));
        assert_eq!(values(&accelerated, "-accel"), ["kvm"]);
    }
}
